//! `config/examples/redirecting-edge.yaml`, request by request.

use std::collections::BTreeSet;

use super::{Ask, WAYS, get};
use crate::harness::edge::{PASSWORD, example};
use crate::harness::{Edge, Origin, client, eventually, origin};

const CERTIFICATES: &[&[&str]] = &[&["example.org", "*.example.org"], &["*.example.net"]];
const SERVICES: &[&str] = &["hub", "previews"];

struct Scene {
    edge: Edge,
    hub: Origin,
    api: Origin,
    www: Origin,
    previews: Origin,
}

fn scene() -> Scene {
    let [hub, api, www, previews] = ["hub", "api", "www", "previews"].map(origin);
    let edge = example("redirecting-edge.yaml", CERTIFICATES, SERVICES, |yaml| {
        [
            ("10.0.0.11:8080", &hub),
            ("10.0.0.12:8080", &hub),
            ("10.0.0.21:9000", &api),
            ("10.0.0.31:8080", &www),
            ("10.0.0.41:8080", &previews),
        ]
        .into_iter()
        .fold(yaml, |yaml, (named, origin)| yaml.replace(named, &origin.address.to_string()))
    });
    Scene { edge, hub, api, www, previews }
}

fn at<'a>(host: &'a str, target: &'a str) -> Ask<'a> {
    get(target).host(host)
}

impl Scene {
    /// The Cookie field of bob at a host.
    fn cookie(&self, host: &str) -> String {
        let mut client = self.edge.client();
        let page = format!("https://{host}:{}/start", self.edge.address().port());
        assert_eq!(client.sign_in(&page, "bob", PASSWORD).last().unwrap().status, 200);
        client.cookie_field(host)
    }
}

#[test]
fn old_hosts_and_old_paths_lead_to_new_ones() {
    let scene = scene();
    let cookie = scene.cookie("hub.example.org");
    let bob = [("cookie", cookie.as_str())];
    for way in WAYS {
        for (host, target, status, location) in [
            ("hub.example.org", "/", 302, "/home/"),
            ("hub.example.org", "/guides/css/a?b", 301, "/pages/css/a?b"),
            ("hub.example.org", "/guides/", 301, "/pages/all"),
            ("hub.example.org", "/guides", 301, "/pages/"),
            ("hub.example.org", "/blog/2024/x", 302, "https://www.example.org/news/2024/x"),
            ("hub.example.net", "/", 301, "https://hub.example.org/"),
            ("hub.example.net", "/guides/css?a=b", 301, "https://hub.example.org/guides/css?a=b"),
            ("example.org", "/about", 301, "https://www.example.org/about"),
        ] {
            let got = at(host, target).with(&bob).by(way).send(&scene.edge);
            assert_eq!((got.status, got.location()), (status, Some(location)), "{way:?} {host}{target}");
        }
    }
    let start = scene.hub.count();
    assert_eq!(start, 1, "the page of the login alone");
}

#[test]
fn the_hub_is_behind_the_sign_on_but_for_what_is_public() {
    let scene = scene();
    let cookie = scene.cookie("hub.example.org");
    let bob = [("cookie", cookie.as_str())];
    for way in WAYS {
        let open = |target| at("hub.example.org", target).by(way).send(&scene.edge);
        let signed_in = |target| at("hub.example.org", target).with(&bob).by(way).send(&scene.edge);
        for target in ["/", "/home/", "/guides/css", "/api/v1/x"] {
            assert_eq!(open(target).status, 401, "{way:?} {target}");
        }
        assert_eq!(open("/assets/site.css").body, "hello from hub", "{way:?}");
        assert_eq!((open("/_status").status, open("/_status").body.as_str()), (200, "ok"), "{way:?}");
        assert_eq!((open("/.git/config").status, signed_in("/.git/config").status), (403, 403), "{way:?}");
        assert_eq!(signed_in("/home/").body, "hello from hub", "{way:?}");
        assert_eq!(scene.hub.last().one("x-forwarded-user").as_deref(), Some("bob"), "{way:?}");
        assert_eq!(signed_in("/api/v1/users?x=1").body, "hello from api", "{way:?}");
        let seen = scene.api.last();
        assert_eq!(seen.target, "/legacy/users?x=1", "{way:?}");
        assert_eq!(seen.one("x-forwarded-prefix").as_deref(), Some("/api/v1"), "{way:?}");
    }
}

#[test]
fn every_other_name_is_a_preview_and_an_exact_name_comes_first() {
    let scene = scene();
    for way in WAYS {
        assert_eq!(at("www.example.org", "/").by(way).send(&scene.edge).body, "hello from www", "{way:?}");
        assert_eq!(scene.www.last().one("x-forwarded-user"), None, "{way:?}");
        let robots = at("branch-7.example.org", "/robots.txt").by(way).send(&scene.edge);
        assert_eq!((robots.status, robots.body.as_str()), (200, "User-agent: *\nDisallow: /\n"), "{way:?}");
        assert_eq!(at("branch-7.example.org", "/").by(way).send(&scene.edge).status, 401, "{way:?}");
    }
    for host in ["branch-7.example.org", "x.example.org"] {
        let cookie = scene.cookie(host);
        let bob = [("cookie", cookie.as_str())];
        for way in WAYS {
            assert_eq!(at(host, "/page").with(&bob).by(way).send(&scene.edge).body, "hello from previews", "{way:?}");
            assert_eq!(scene.previews.last().one("x-forwarded-user").as_deref(), Some("bob"), "{way:?}");
            assert_eq!(at(host, "/draft/page").with(&bob).by(way).send(&scene.edge).status, 403, "{way:?}");
        }
    }
    // Lines are in the order in which requests have ended, and this one is the last.
    assert_eq!(at("www.example.org", "/last").send(&scene.edge).status, 200);
    let lines = || scene.edge.access_log(1);
    eventually("the last line is there", || lines().iter().any(|line| line["path"] == "/last"));
    let lines = lines();
    let services: BTreeSet<&str> = lines.iter().map(|line| line["service"].as_str().unwrap()).collect();
    assert!(services.contains("www") && !services.contains("previews"), "no line of the previews: {services:?}");
}

#[test]
fn hosts_that_no_service_has_lead_home_and_plain_http_to_https() {
    let scene = scene();
    let plain = |url: &str| client(scene.edge.http_address()).get(url);
    for host in ["example.com", "a.b.example.org", "evil.test"] {
        let got = plain(&format!("http://{host}/x?y"));
        assert_eq!((got.status, got.location().as_deref()), (302, Some("https://www.example.org/")), "{host}");
    }
    let port = scene.edge.address().port();
    for host in ["hub.example.net", "example.org", "branch-7.example.org"] {
        let got = plain(&format!("http://{host}/x?y"));
        assert_eq!((got.status, got.location()), (308, Some(format!("https://{host}:{port}/x?y"))), "{host}");
    }
}
