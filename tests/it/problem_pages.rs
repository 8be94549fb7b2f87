//! What people see when something is wrong: who is signed in, where it leads on, and nothing that is not known.

use std::time::Duration;

use sentry_edge::server::FastPathMode;

use crate::harness::edge::TOKEN_COOKIE;
use crate::harness::{Client, Edge, Origin, Response, browser_without_scripts, edge, free_address, memcached, origin};

const BOTH: [FastPathMode; 2] = [FastPathMode::On, FastPathMode::Off];

const ROUTES: &str = "routes: [{path: /admin, access: {roles: [admin]}}, {path: /open, access: public}]";

/// What a page says and offers.
#[derive(Debug, PartialEq, Eq)]
struct Offers {
    user: bool,
    again: bool,
    applications: bool,
    sign_out: bool,
    refresh: bool,
}

const NOTHING: Offers = Offers { user: false, again: false, applications: false, sign_out: false, refresh: false };
const ALL: Offers = Offers { user: true, again: true, applications: true, sign_out: true, refresh: false };
/// Of a form that cannot be sent again by a link.
const KNOWN: Offers = Offers { again: false, ..ALL };

fn offers(page: &Response) -> Offers {
    let text = &page.body;
    Offers {
        user: text.contains("Signed in as <strong>bob</strong>"),
        again: text.contains(">Try again</a>"),
        applications: text.contains(">Your applications</a>"),
        sign_out: text.contains(">Sign out</a>"),
        refresh: page.header("refresh").is_some(),
    }
}

/// The address that a link of a page leads to.
fn link(page: &Response, label: &str) -> String {
    let (before, _) =
        page.body.split_once(&format!("\">{label}</a>")).unwrap_or_else(|| panic!("{label}: {}", page.body));
    let href = before.rsplit_once("href=\"").unwrap().1.replace("&#38;", "&");
    url::Url::parse(&page.url).unwrap().join(&href).unwrap().to_string()
}

fn scene(origin: &Origin, slow: &Origin, fast_path: FastPathMode) -> Edge {
    edge()
        .service_with("iqueue", origin, ROUTES)
        .service_with("slow", slow, "hosts: [slow.test]")
        .pool("slow", &format!("{{servers: [\"{}\"], timeouts: {{read: 200ms}}}}", slow.address))
        .service_with("down", slow, &format!("hosts: [down.test], {ROUTES}"))
        .pool("down", &format!("{{servers: [\"{}\"]}}", free_address()))
        .service_with("busy", origin, "hosts: [busy.test], requests_per_second: 1")
        .certificate(&["slow.test", "down.test", "busy.test", "nobody.test"])
        .user("bob", &["iqueue", "slow", "down", "busy"], &[])
        .server("limits: {body_bytes: 16KiB}")
        .fast_path(fast_path)
        .start()
}

fn signed_in(edge: &Edge) -> Client {
    let mut bob = edge.client();
    edge.sign_in(&mut bob, "iqueue", "bob");
    // The others' own cookies, whatever their servers say.
    for service in ["slow", "down"] {
        bob.follow(&edge.url(service, "/"));
    }
    bob
}

/// Method, URL, body and fields of a request, and the status and the offers of its page.
type Case<'a> = (&'static str, String, &'a str, &'a [(&'a str, &'a str)], u16, &'a Offers);

#[test]
fn every_page_of_a_problem_offers_what_makes_sense() {
    let (origin, slow) = (origin("app"), Origin::slow(Duration::from_secs(60)));
    let large = "x".repeat(20_000);
    let foreign = [("sec-fetch-site", "cross-site")];
    let applications = Offers { applications: true, ..NOTHING };
    for fast_path in BOTH {
        let edge = scene(&origin, &slow, fast_path);
        let bob = signed_in(&edge);
        let url = |name: &str, path: &str| edge.url(name, path);
        let foreign_return = "/copyCookie?redirectURL=https%3A%2F%2Fevil.example%2F";
        let again = Offers { again: true, ..NOTHING };
        let cases: [Case<'_>; 17] = [
            ("GET", url("iqueue", "/admin/x"), "", &[], 403, &ALL),
            ("POST", url("iqueue", "/admin/x"), "x", &[], 403, &KNOWN),
            ("GET", url("down", "/page?a=1"), "", &[], 503, &Offers { refresh: true, ..ALL }),
            ("POST", url("down", "/page"), "x", &[], 503, &KNOWN),
            ("GET", url("slow", "/"), "", &[], 504, &ALL),
            ("POST", url("slow", "/"), "x", &[], 504, &KNOWN),
            // Nobody's session is looked at there.
            ("GET", url("down", "/open"), "", &[], 503, &Offers { refresh: true, ..again }),
            ("POST", url("iqueue", "/open"), &large, &[], 413, &NOTHING),
            ("POST", url("iqueue", "/"), &large, &[], 413, &NOTHING),
            ("GET", url("iqueue", "/%zz"), "", &[], 400, &NOTHING),
            ("GET", url("nobody", "/"), "", &[], 421, &NOTHING),
            ("PROPFIND", url("iqueue", "/"), "", &[], 405, &NOTHING),
            ("GET", url("iqueue", "/.sentry/none"), "", &[], 404, &applications),
            ("GET", url("sentry", "/none"), "", &[], 404, &applications),
            ("DELETE", url("sentry", "/login"), "", &[], 405, &applications),
            ("GET", url("sentry", foreign_return), "", &[], 400, &applications),
            ("POST", url("iqueue", "/.sentry/logout"), "", &foreign, 403, &Offers { sign_out: true, ..applications }),
        ];
        for (method, url, body, fields, status, expected) in cases {
            for http2 in [false, true] {
                let what = format!("{method} {url}, {fast_path:?}, h2 {http2}");
                let mut client = if http2 { bob.clone().http2() } else { bob.clone() };
                let asking = client.ask(method, &url).accept("text/html").body(body);
                let page = fields.iter().fold(asking, |asking, (name, value)| asking.field(name, value)).send();
                assert_eq!(page.status, status, "{what}: {}", page.body);
                assert_eq!(&offers(&page), expected, "{what}: {}", page.body);
                let unsaved = page.body.contains("may not have been saved");
                assert_eq!(unsaved, method == "POST" && status >= 500, "{what}");
                let policy = page.header("content-security-policy").unwrap();
                assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{what}: {policy}");
                let reference = page.header("x-request-id").unwrap();
                assert!(page.body.contains(&format!("<strong>{}</strong>", &reference[..8])), "{what}");
                assert!(page.body.contains(&format!("<code>{reference}</code>")), "{what}");
                if expected.applications {
                    assert_eq!(link(&page, "Your applications"), edge.url("sentry", "/"), "{what}");
                }
                if expected.again {
                    assert_eq!(link(&page, "Try again"), url, "{what}: the same address, byte for byte");
                }
            }
        }
        let mut client = bob.clone();
        let busy = (0..4).map(|_| client.open(&url("busy", "/open"))).find(|page| page.status == 429).unwrap();
        assert_eq!(offers(&busy), again, "{}", busy.body);
    }
}

#[test]
fn a_page_that_waits_for_the_store_tries_again_by_itself_unless_a_form_was_sent() {
    let origin = origin("app");
    for fast_path in BOTH {
        let mut memcached = memcached();
        let edge = edge().service("iqueue", &origin).memcached(&memcached.address()).fast_path(fast_path).start();
        let mut ada = edge.signed_in();
        memcached.kill();
        edge.let_pass(Duration::from_secs(120));
        let waits = Offers { user: false, again: true, applications: false, sign_out: true, refresh: true };
        for (service, path) in [("iqueue", "/page?a=1"), ("iqueue", "/.sentry/currentUser"), ("sentry", "/")] {
            let page = ada.open(&edge.url(service, path));
            assert_eq!((page.status, offers(&page)), (503, Offers { ..waits }), "{service} {path}: {}", page.body);
            assert!(page.body.contains("You are still signed in"));
            let sign_out = if service == "sentry" { "/logout" } else { "/.sentry/logout" };
            assert_eq!(link(&page, "Sign out"), edge.url(service, sign_out));
        }
        let form = ada.ask("POST", &edge.url("iqueue", "/save")).accept("text/html").body("x").send();
        assert_eq!(form.status, 503);
        assert_eq!(offers(&form), Offers { again: false, refresh: false, ..waits }, "{}", form.body);
        assert!(form.body.contains("may not have been saved"));
        let script = ada.get(&edge.url("iqueue", "/api"));
        assert_eq!((script.status, script.header("refresh")), (503, None));
    }
}

#[test]
fn a_sign_in_that_goes_round_says_how_to_leave_it() {
    let origin = origin("app");
    let edge = scene(&origin, &origin, FastPathMode::On);
    let mut browser = edge.signed_in();
    let mut next = edge.url("iqueue", "/page");
    let page = loop {
        browser.forget_cookie("iqueue.test", TOKEN_COOKIE);
        let page = browser.open(&next);
        match page.location() {
            Some(location) => next = location,
            None => break page,
        }
    };
    assert_eq!(page.status, 400, "{}", page.body);
    let expected = Offers { again: true, applications: true, sign_out: true, ..NOTHING };
    assert_eq!(offers(&page), expected, "{}", page.body);
}

#[test]
fn pages_of_problems_ask_the_store_for_nothing_more() {
    let (origin, memcached) = (origin("app"), memcached());
    let edge = edge().service_with("iqueue", &origin, ROUTES).memcached(&memcached.address()).start();
    let mut ada = edge.signed_in();
    let before = memcached.commands_on_keys();
    for (service, path) in [
        ("iqueue", "/%zz"),
        ("iqueue", "/.sentry/none"),
        ("sentry", "/none"),
        ("sentry", "/copyCookie?redirectURL=https%3A%2F%2Fevil.example%2F"),
    ] {
        for _ in 0..10 {
            assert!(ada.open(&edge.url(service, path)).status >= 400);
        }
    }
    assert_eq!(memcached.commands_on_keys(), before);
}

/// The nurse before left without signing out, and her account may not do what the next one's may.
#[test]
fn the_next_person_at_a_shared_computer_gets_out_of_a_refusal_by_its_links() {
    let application = Origin::answering(|seen| {
        let user = seen.one("x-forwarded-user").unwrap_or_default();
        let html = format!("<!doctype html><html lang=\"en\"><title>app</title><h1>hello, {user}</h1>");
        let response = hyper::Response::builder().header("content-type", "text/html");
        response.body(http_body_util::Full::new(html.into())).unwrap()
    });
    let edge = edge()
        .domain("app.localhost")
        .service_with("iqueue", &application, ROUTES)
        .user("eve", &["iqueue"], &[])
        .start();
    let browser = browser_without_scripts();
    let admin = edge.url("iqueue", "/admin/");
    let sign_in = |user: &str| {
        browser.fill_in("#username", user);
        browser.fill_in("#password", crate::harness::edge::PASSWORD);
        browser.click("button");
    };
    browser.open(&edge.url("iqueue", "/"));
    sign_in("eve");
    browser.shows("hello, eve");

    browser.open(&admin);
    browser.shows("No access");
    browser.shows("Signed in as eve");
    browser.click("a.button");
    browser.lands_on(&admin);
    browser.shows("No access");
    browser.click(".ways li:first-child a");
    browser.lands_on(&edge.url("sentry", "/"));
    browser.shows("Your applications");

    browser.open(&admin);
    browser.click(".ways li:last-child a");
    browser.shows("signed out");
    browser.open(&admin);
    assert!(browser.has("#password"), "{}", browser.text());
    sign_in("ada");
    browser.lands_on(&admin);
    browser.shows("hello, ada");
}
