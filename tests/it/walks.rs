//! Walks through the sign-on in a real Chromium, as people on a ward take them.
//!
//! Each says where the browser ends, who is shown there, and how many requests that took; the numbers are held where they
//! are a rule: twelve redirects at most.

mod apis;
mod embedded;
mod history;
mod shared_computer;

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;

use crate::harness::edge::PASSWORD;
use crate::harness::{Browser, Edge, Origin, edge, eventually};

/// A page and the redirects before it.
const MOST_REQUESTS: usize = 13;

struct Scene {
    edge: Edge,
    _apps: [Origin; 2],
}

/// Ana and Ben may use iqueue and dextor, whose pages `more` may add to.
fn scene() -> Scene {
    scene_with(|_, _| None)
}

fn scene_with(page: fn(&str, &str) -> Option<Response<Full<Bytes>>>) -> Scene {
    let apps = [application("iqueue", page), application("dextor", page)];
    let edge = edge()
        .domain("app.localhost")
        .service_with("iqueue", &apps[0], "idle_timeout: 30m")
        .service_with("dextor", &apps[1], "idle_timeout: 30m")
        .user("ana", &["iqueue", "dextor"], &[])
        .user("ben", &["iqueue", "dextor"], &[])
        .start();
    Scene { edge, _apps: apps }
}

fn application(name: &'static str, page: fn(&str, &str) -> Option<Response<Full<Bytes>>>) -> Origin {
    Origin::answering(move |seen| {
        page(name, &seen.target).unwrap_or_else(|| {
            let user = seen.one("x-forwarded-user").unwrap_or_else(|| "nobody".into());
            html(&format!(
                "<title>{name}</title><h1>{name}</h1><p>hello, {user}</p><a href=\"/.sentry/logout\">Sign out</a>"
            ))
        })
    })
}

fn html(body: &str) -> Response<Full<Bytes>> {
    let page = format!("<!doctype html><html lang=\"en\"><link rel=\"icon\" href=\"data:,\">{body}");
    let response = Response::builder().header("content-type", "text/html").header("cache-control", "no-store");
    response.body(Full::new(page.into())).unwrap()
}

impl Scene {
    fn url(&self, service: &str, path: &str) -> String {
        self.edge.url(service, path)
    }

    /// Requests that the edge has answered so far.
    fn requests(&self) -> usize {
        self.edge.metric_sum("sentry_edge_requests_total") as usize
    }

    /// Address without scheme and port, who is shown, and the number of requests since `before`.
    fn told(&self, browser: &Browser, before: usize) -> (String, usize) {
        let text = browser.text();
        let address = browser.address();
        let address = address.split_once("://").map_or("", |(_, address)| address);
        let (host, rest) = address.split_once(".app.localhost").unwrap_or(("elsewhere", ""));
        let path = rest.find('/').map_or("", |at| &rest[at..]);
        let path = if host == "sentry" { path.split(['?', '#']).next().unwrap() } else { path };
        let shown = match text.split_once("hello, ") {
            Some((_, rest)) => format!("served as {}", rest.split_whitespace().next().unwrap_or_default()),
            None if browser.has("#password") => "form".into(),
            None => text.lines().next().unwrap_or_default().to_owned(),
        };
        (format!("{host}{path} · {shown}"), self.requests() - before)
    }

    /// Opens an address; the page is there when this returns.
    fn open(&self, browser: &Browser, url: &str) -> (String, usize) {
        let before = self.requests();
        browser.open(url);
        let told = self.told(browser, before);
        println!("open {url}: {told:?}");
        assert!(told.1 <= MOST_REQUESTS, "{url}: {told:?}");
        told
    }

    /// Signs in at the form that is shown; whatever follows is there when this returns.
    fn sign_in(&self, browser: &Browser, user: &str) -> (String, usize) {
        let before = self.requests();
        // A machine that is busy may ask to try again.
        let is_in = || {
            if browser.has("#password") && browser.run("return document.readyState") == "complete" {
                sign_in(browser, user);
            }
            !browser.has("#password") && browser.run("return document.readyState") == "complete"
        };
        eventually("the form is gone", is_in);
        let told = self.told(browser, before);
        println!("sign in as {user}: {told:?}");
        assert!(told.1 <= MOST_REQUESTS, "{told:?}");
        told
    }
}

fn sign_in(browser: &Browser, user: &str) {
    browser.fill_in("#username", user);
    browser.fill_in("#password", PASSWORD);
    browser.click("button");
}

/// The same browser as a fresh one.
fn forget_everything(browser: &Browser) {
    browser.devtools("Storage.clearCookies", serde_json::json!({}));
}
