//! No sign-on route sends a browser to a place that is not ours, and none shows what it was told unescaped.
//!
//! Numbers are those of the list of bad inputs in the threat report.

use crate::harness::edge::TOKEN_COOKIE;
use crate::harness::{Client, Edge, Origin, Response, edge, origin, raw};

struct Scene {
    edge: Edge,
    _iqueue: Origin,
}

fn scene() -> Scene {
    let iqueue = origin("iqueue");
    let edge = edge().service("iqueue", &iqueue).certificate(&["nobody.test"]).start();
    Scene { edge, _iqueue: iqueue }
}

/// Return URLs that must be followed by nobody.
fn foreign() -> Vec<(&'static str, String)> {
    let mut rows: Vec<(&str, String)> = [
        ("193", "//evil.com"),
        ("193", "///evil.com"),
        ("193", "/\\evil.com"),
        ("193", "\\\\evil.com"),
        ("193", "/\tevil.com"),
        ("193", "/\nevil.com"),
        ("193", "https:evil.com"),
        ("193", "https:/evil.com"),
        ("193", "http:///evil.com"),
        ("193", "https:///evil.com"),
        ("193", "https:\\\\evil.com"),
        ("193", " https://evil.com"),
        ("194", "https://iqueue.test@evil.com"),
        ("194", "https://iqueue.test:x@evil.com"),
        ("194", "https://a@b@iqueue.test"),
        ("194", "https://user@iqueue.test/"),
        ("195", "https://evil.com\\@iqueue.test"),
        ("195", "https://evil.com%2f@iqueue.test"),
        ("195", "https://evil.com#@iqueue.test"),
        ("195", "https://evil.com?iqueue.test"),
        ("195", "https://evil.com/iqueue.test"),
        ("196", "https://iqueue.test.evil.com"),
        ("196", "https://evil-iqueue.test"),
        ("196", "https://evil.test/"),
        ("196", "https://iqueue。test"),
        ("196", "https://ⓘqueue.test"),
        ("196", "https://iqueue.test."),
        ("196", "https://iqueue.test:1/"),
        ("196", "https://iqueue.test:99999/"),
        ("196", "https://%69queue.test/"),
        ("196", "https://127.0.0.1/"),
        ("196", "https://[::1]/"),
        ("197", "http://iqueue.test/"),
        ("197", "javascript:alert(1)"),
        ("197", "data:text/html,<script>alert(1)</script>"),
        ("197", "JaVaScRiPt://iqueue.test/%0aalert(1)"),
        ("197", "ftp://iqueue.test/"),
        ("197", "wss://iqueue.test/"),
        ("199", "https://sentry.test/copyCookie?redirectURL=https://evil.com"),
        ("199", "https://sentry.test/noCookie?redirectURL=https://evil.com"),
        ("199", "https://sentry.test/login?redirectURL=/login"),
        ("199", "https://sentry.test/logout"),
        ("200", "\"><script>alert(1)</script>"),
        ("200", "https://iqueue.test/\"><script>alert(1)</script>\u{e9}"),
    ]
    .map(|(number, url)| (number, url.to_owned()))
    .into();
    let nested = (0..50).fold("/login".to_owned(), |inner, _| format!("/login?redirectURL={inner}"));
    rows.push(("199", format!("https://sentry.test{nested}")));
    rows.push(("201", format!("https://iqueue.test/{}", "a".repeat(16 * 1024))));
    rows.push(("201", format!("https://iqueue.test/{}", "a".repeat(2048))));
    rows
}

fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Where a redirect leads, now and by the return URL that it hands on.
fn targets(location: &str) -> impl Iterator<Item = String> {
    let url = url::Url::parse(location).unwrap();
    let handed_on = url.query_pairs().find(|(name, _)| name == "redirectURL").map(|(_, url)| url.into_owned());
    std::iter::once(location.to_owned()).chain(handed_on)
}

impl Scene {
    /// Whoever follows this stays with us. Judged by its first bytes, not by a parser that may be as wrong as ours.
    fn stays_here(&self, location: &str) -> bool {
        let ours = |host: &str| {
            ["/", "/?", &format!(":{}/", self.edge.address().port())]
                .iter()
                .any(|end| location.starts_with(&format!("https://{host}{end}")))
        };
        let plain = location.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
        plain && (ours("sentry.test") || ours("iqueue.test"))
    }

    fn is_a_plain_refusal(&self, what: &str, response: &Response) {
        assert_eq!(response.status, 400, "{what}");
        assert_eq!(response.location(), None, "{what}");
        assert_eq!(response.set_cookies(), Vec::<&str>::new(), "{what}");
        assert!(!response.body.contains("evil.com") && !response.body.contains("<script"), "{what}: {}", response.body);
        assert_eq!(response.header("cache-control"), Some("no-store"), "{what}");
    }

    /// Both kinds of visitor: for one who is signed in, `/copyCookie` would hand out a ticket.
    fn visitors(&self) -> [(&'static str, Client); 2] {
        [("signed in", self.edge.signed_in()), ("a stranger", self.edge.client())]
    }
}

#[test]
fn a_foreign_return_url_is_a_plain_refusal_on_every_route() {
    let scene = scene();
    for (who, mut client) in scene.visitors() {
        for route in ["/noCookie", "/copyCookie", "/login"] {
            for (number, url) in foreign() {
                let address = format!("{}?redirectURL={}", scene.edge.url("sentry", route), encode(&url));
                let response = client.open(&address);
                scene.is_a_plain_refusal(&format!("input {number}: {who} at {route}: {url:?}"), &response);
            }
        }
    }
    assert_eq!(
        scene.edge.metric("sentry_edge_tickets_total", "event=\"issued\""),
        1.0,
        "the one of the sign-in itself"
    );
}

#[test]
fn a_foreign_return_url_is_a_plain_refusal_when_it_comes_in_the_form() {
    let scene = scene();
    let mut client = scene.edge.client();
    let form = client.follow(&scene.edge.url("iqueue", "/")).pop().unwrap();
    let (csrf, state) = (form.form_field("csrf"), form.form_field("state"));
    for (number, url) in foreign() {
        let fields = [
            ("csrf", csrf.as_str()),
            ("state", &state),
            ("redirectURL", &url),
            ("username", "ada"),
            ("password", crate::harness::edge::PASSWORD),
        ];
        let response = client.post_form(&scene.edge.url("sentry", "/login"), &fields);
        // The longest makes the form larger than any form of ours.
        if url.len() > 16 * 1024 {
            assert_eq!((response.status, response.location()), (413, None), "input {number}");
        } else {
            scene.is_a_plain_refusal(&format!("input {number}: {url:?}"), &response);
        }
        assert_eq!(client.cookie("sentry.test", TOKEN_COOKIE), None, "input {number}: nobody is signed in by that");
    }
}

/// The bytes of a URL as an attacker may write them into a link, without escapes.
#[test]
fn a_foreign_return_url_that_is_not_escaped_leads_nowhere_either() {
    let scene = scene();
    let token = scene.edge.signed_in().cookie("sentry.test", TOKEN_COOKIE).unwrap().to_owned();
    for cookie in [String::new(), format!("Cookie: {TOKEN_COOKIE}={token}\r\n")] {
        for route in ["/noCookie", "/copyCookie", "/login", "/logout"] {
            for (number, url) in foreign() {
                // A line's end would end the request line; then it is no parameter any more.
                if url.contains('\n') || route == "/logout" && !cookie.is_empty() {
                    continue;
                }
                let request = format!(
                    "GET {route}?redirectURL={url} HTTP/1.1\r\nHost: sentry.test\r\nUser-Agent: test/1\r\n\
                     Accept: text/html\r\n{cookie}\r\n"
                );
                let answer = raw(scene.edge.address(), "sentry.test").send(request).answer().unwrap();
                let what = format!("input {number}: {route}: {url:?}");
                match (answer.status, answer.header("location")) {
                    (400, None) => {}
                    (200, None) if route == "/logout" => {}
                    (200, None) if answer.text().contains("name=\"redirectURL\" value=\"https://iqueue.test/\"") => {}
                    (200, None) if answer.text().contains("?redirectURL=https%3A%2F%2Fiqueue.test%2F\"") => {}
                    // Read as a query it is a URL of ours after all: `%69` is an `i`.
                    (302, Some(location)) if url.contains('%') => {
                        assert!(targets(location).all(|target| scene.stays_here(&target)), "{what}: {location}");
                    }
                    (status, location) => panic!("{what}: {status} {location:?}"),
                }
                let text = answer.text();
                assert!(!text.contains("evil.com") && !text.contains("<script"), "{what}: {text}");
            }
        }
    }
}

#[test]
fn logout_leads_to_its_own_page_whatever_it_is_told() {
    let scene = scene();
    for (number, url) in foreign() {
        for (host, path) in [("sentry", "/logout"), ("iqueue", "/.sentry/logout")] {
            let address = format!("{}?redirectURL={}", scene.edge.url(host, path), encode(&url));
            for method in ["GET", "POST"] {
                let mut browser = scene.edge.client();
                let mut response = browser.ask(method, &address).accept("text/html").send();
                if host == "iqueue" {
                    // To the sign-on host, with the service's own address and nothing of what it was told.
                    let on = response.location().unwrap();
                    assert!(on.starts_with(&scene.edge.url("sentry", "/logout?")), "input {number}: {on}");
                    assert!(!on.contains("evil.com"), "input {number}: {on}");
                    response = browser.open(&on);
                }
                assert_eq!(
                    (response.status, response.location()),
                    (200, None),
                    "input {number}: {method} {host}: {url:?}"
                );
                assert!(!response.body.contains("evil.com"), "input {number}: {host}: {}", response.body);
                assert!(!response.body.contains("<script"), "input {number}: {host}: {}", response.body);
            }
        }
    }
}

/// Input 198.
#[test]
fn escapes_of_line_ends_stay_escapes_and_inject_no_header() {
    let scene = scene();
    let edge = &scene.edge;
    for (who, mut client) in scene.visitors() {
        for path in
            ["/%0d%0aSet-Cookie:x=1", "/%0aSet-Cookie:x=1", "/%E5%98%8A%E5%98%8DSet-Cookie:x=1", "/%00", "/?a=%0d%0ab"]
        {
            for route in ["/noCookie", "/copyCookie", "/login"] {
                let url = edge.url("iqueue", path);
                let response = client.open(&format!("{}?redirectURL={}", edge.url("sentry", route), encode(&url)));
                let what = format!("{who} at {route}: {path}");
                assert!(!response.set_cookies().iter().any(|cookie| cookie.starts_with("x=")), "{what}");
                match response.location() {
                    Some(location) => assert!(scene.stays_here(&location), "{what}: {location}"),
                    None => assert_eq!(response.status, 200, "{what}: the form"),
                }
            }
        }
    }
}

/// Input 202.
#[test]
fn without_one_return_url_the_flow_ends_on_the_landing_page() {
    let scene = scene();
    let edge = &scene.edge;
    let foreign = "redirectURL=https%3A%2F%2Fevil.com%2F";
    let ours = "redirectURL=https%3A%2F%2Fiqueue.test%2F";
    for query in [
        "",
        "?",
        "?redirectURL",
        "?redirectURL=",
        &format!("?{foreign}&{foreign}"),
        &format!("?{ours}&{foreign}"),
        &format!("?{ours}&{ours}"),
    ] {
        for route in ["/noCookie", "/copyCookie", "/login"] {
            let address = format!("{}{query}", edge.url("sentry", route));
            for (who, mut client) in scene.visitors() {
                let hops = client.follow(&address);
                for location in hops.iter().filter_map(Response::location) {
                    let sentry = location.starts_with(&edge.url("sentry", "/"));
                    assert!(sentry && !location.contains("redirectURL"), "{who} at {route}{query}: {location}");
                }
                let last = hops.last().unwrap();
                assert_eq!(last.status, 200, "{who} at {route}{query}");
                assert!(!last.body.contains("evil.com"), "{who} at {route}{query}");
                let landing = match (who, route) {
                    ("signed in", "/login") => "You are signed in as ada",
                    ("signed in", _) => "Your applications",
                    _ => "name=\"password\"",
                };
                assert!(last.body.contains(landing), "{who} at {route}{query}: {}", last.body);
            }
        }
    }
}

/// Input 200.
#[test]
fn what_a_page_repeats_is_escaped_and_no_script_could_run_in_it() {
    let scene = scene();
    let edge = &scene.edge;
    let mut client = edge.client();
    let url = edge.url("iqueue", "/'\"><script>alert(1)</script>");
    let response = client.open(&format!("{}?redirectURL={}", edge.url("sentry", "/login"), encode(&url)));
    assert_eq!(response.status, 200);
    is_a_safe_page(&response);
    let state = "\"><script>alert(1)</script>";
    let response = client.open(&format!("{}?state={}", edge.url("sentry", "/login"), encode(state)));
    is_a_safe_page(&response);
    let form = client.open(&edge.url("sentry", "/login"));
    let name = "\"><script>alert(1)</script>";
    let refused = edge.send_login(&mut client, &form, name, "wrong");
    assert_eq!(refused.status, 401);
    is_a_safe_page(&refused);
    assert!(refused.body.contains("script&"), "the name is still there, as text: {}", refused.body);
}

fn is_a_safe_page(page: &Response) {
    assert!(!page.body.contains("<script"), "{}", page.body);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    for part in ["frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"] {
        assert!(policy.contains(part), "{part} in {policy}");
    }
    assert!(!policy.contains("unsafe-inline") && !policy.contains("script-src") && !policy.contains('*'), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("x-frame-options"), Some("DENY"));
    let policy = if page.body.contains("<form") { "same-origin" } else { "no-referrer" };
    assert_eq!(page.header("referrer-policy"), Some(policy), "no other site learns of it");
}

#[test]
fn every_page_of_ours_is_under_the_same_policy() {
    let scene = scene();
    let edge = &scene.edge;
    let mut signed_in = edge.signed_in();
    let mut stranger = edge.client();
    let pages = [
        stranger.open(&edge.url("sentry", "/login")),
        stranger.open(&edge.url("sentry", "/nothing")),
        stranger.open(&edge.url("sentry", "/noCookie?redirectURL=https://evil.com/")),
        stranger.open(&edge.url("nobody", "/")),
        stranger.open(&edge.url("iqueue", "/%zz")),
        signed_in.open(&edge.url("sentry", "/")),
        signed_in
            .ask("GET", &edge.url("sentry", "/logout"))
            .accept("text/html")
            .field("sec-fetch-site", "cross-site")
            .send(),
        signed_in.open(&edge.url("sentry", "/logout")),
    ];
    for page in &pages {
        is_a_safe_page(page);
    }
    let statuses: Vec<u16> = pages.iter().map(|page| page.status).collect();
    assert_eq!(statuses, [200, 404, 400, 421, 400, 200, 200, 200]);
}

/// Input 191, and that the redirect is the URL that was judged.
#[test]
fn a_good_return_url_is_kept_to_the_byte_and_gets_one_ticket() {
    let scene = scene();
    let edge = &scene.edge;
    let state = "s".repeat(43);
    for (path, before, after) in [
        ("/", "/?requestID=", ""),
        ("/a?b=c", "/a?b=c&requestID=", ""),
        ("/a;b=c/%2F?d=%20+&&e", "/a;b=c/%2F?d=%20+&&e&requestID=", ""),
        ("/a#b", "/a?requestID=", "#b"),
        ("/a?c#b?d", "/a?c&requestID=", "#b?d"),
        (
            "/?requestID=11111111-2222-4333-8444-555555555555",
            "/?requestID=11111111-2222-4333-8444-555555555555&requestID=",
            "",
        ),
    ] {
        let mut client = edge.signed_in();
        let url = edge.url("iqueue", path);
        let response =
            client.open(&format!("{}?redirectURL={}&state={state}", edge.url("sentry", "/copyCookie"), encode(&url)));
        let location = response.location().unwrap();
        assert!(location.starts_with(&edge.url("iqueue", before)), "{path}: {location}");
        assert!(location.ends_with(after), "{path}: {location}");
        let ticket = location.rsplit("requestID=").next().unwrap().split('#').next().unwrap();
        assert_ne!(ticket, "11111111-2222-4333-8444-555555555555", "input 190: ours, beside the application's own");
        assert_eq!(ticket.len(), 36, "{path}: {location}");
    }
}

/// A login that ends at a logout, or at anything else that the edge answers itself, is a trap.
#[test]
fn no_sign_on_leads_below_the_edges_own_path() {
    let iqueue = origin("iqueue");
    let edge = edge().service("iqueue", &iqueue).start();
    let mut ada = edge.signed_in();
    for path in [
        "/.sentry/logout",
        "/.sentry",
        "//.sentry/logout",
        "/%2esentry/logout",
        "/a/..;/.SENTRY/logout",
        "/a/%2e%2e/.sentry%2flogout",
    ] {
        let wanted = url::form_urlencoded::byte_serialize(edge.url("iqueue", path).as_bytes()).collect::<String>();
        for route in ["/noCookie", "/copyCookie", "/login"] {
            let answer = ada.open(&edge.url("sentry", &format!("{route}?redirectURL={wanted}")));
            assert_eq!((answer.status, answer.location()), (400, None), "{route} to {path}");
        }
        let form = edge.client().open(&edge.url("sentry", "/login")).form_field("csrf");
        let fields = [
            ("csrf", form.as_str()),
            ("username", "ada"),
            ("password", "x"),
            ("redirectURL", &edge.url("iqueue", path)),
        ];
        assert_eq!(ada.post_form(&edge.url("sentry", "/login"), &fields).status, 400, "the form to {path}");
    }
    // What belongs to such a page comes back to the application's first one.
    let page = edge.url("iqueue", "/.sentry/logout");
    let told =
        edge.client().ask("GET", &edge.url("iqueue", "/api")).accept("*/*").field("referer", &page).send().json();
    let login_url = told["login_url"].as_str().unwrap();
    let back: String = url::form_urlencoded::byte_serialize(edge.url("iqueue", "/").as_bytes()).collect();
    assert!(login_url.ends_with(&format!("/noCookie?redirectURL={back}")), "{login_url}");
    assert_eq!(ada.open(&edge.url("iqueue", "/")).status, 200, "and she is signed in as before");
}
