//! The traces of the sign-on's model (`tests/model`) on running edges: what two people, several tabs, late replies,
//! an attacker's link and two edges that disagree make of one browser.
//!
//! Each test says where a tab ends, who is shown there, and how many redirects that took. A chain of redirects has at
//! most twelve, below the twenty at which browsers give up.

mod attackers;
mod disagreement;
mod orders;
mod people;
mod restored;
mod rounds;
mod stores;

use http_body_util::Full;
use hyper::body::Bytes;

use crate::harness::edge::Builder;
use crate::harness::origin::Seen;
use crate::harness::{Edge, Origin, Tabs, edge};

/// However hosts, tabs and edges disagree.
const MOST_REDIRECTS: usize = 12;

const LOGIN: &str = "sentry/login?…";

struct Scene {
    edge: Edge,
    apps: [Origin; 2],
}

/// Ana and Ben, who may both use iqueue and dextor.
fn scene() -> Scene {
    scene_with(|edge| edge)
}

fn scene_with(more: impl FnOnce(Builder) -> Builder) -> Scene {
    let apps = [application(), application()];
    let edge = edge()
        .domain("app.test")
        .service("iqueue", &apps[0])
        .service("dextor", &apps[1])
        .user("ana", &["iqueue", "dextor"], &[])
        .user("ben", &["iqueue", "dextor"], &[]);
    Scene { edge: more(edge).start(), apps }
}

impl Scene {
    fn tabs(&self, tabs: usize) -> Tabs {
        Tabs::new(self.edge.address(), tabs)
    }

    fn url(&self, service: &str) -> String {
        self.edge.url(service, "/")
    }

    /// Whether any application has seen a request with this in its target.
    fn reached_an_application(&self, text: &str) -> Option<String> {
        self.apps.iter().flat_map(Origin::seen).map(|seen| seen.target).find(|target| target.contains(text))
    }
}

/// An application that says whom it serves, and has a form to save.
fn application() -> Origin {
    Origin::answering(|seen| {
        let user = seen.one("x-forwarded-user").unwrap_or_default();
        let session = seen.one("x-forwarded-session").unwrap_or_default();
        if seen.method == "POST" {
            return html(&format!("served as {user}; saved {}", String::from_utf8_lossy(&seen.body)));
        }
        html(&format!(
            "served as {user}; <form method=\"post\" action=\"/save\">\
             <input type=\"hidden\" name=\"page_of\" value=\"{user}\"><input type=\"hidden\" name=\"session\" value=\"{session}\">\
             <button>Save</button></form>"
        ))
    })
}

fn html(body: &str) -> hyper::Response<Full<Bytes>> {
    let page = format!("<!doctype html><html lang=\"en\"><title>application</title><body>{body}</body></html>");
    hyper::Response::builder().header("content-type", "text/html").body(Full::new(page.into())).unwrap()
}

/// The number at the end of what a tab has told.
fn redirects_of(told: &str) -> usize {
    told.rsplit(" · ").next().unwrap().trim_end_matches(" redirects").parse().unwrap()
}

/// What stands behind the first `requestID=` of an application's request.
fn parameter_of(seen: &Seen) -> Option<&str> {
    Some(seen.target.split_once("requestID=")?.1.split('&').next().unwrap())
}
