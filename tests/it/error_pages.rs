//! Pages of a service's own for errors of the edge: in its place, for people alone, with everything else as it was.

use std::time::Duration;

use sentry_edge::config;

use crate::harness::{Edge, Origin, Response, edge, free_address, origin};

const PAGE: &str = "<!doctype html><title>Away</title><style>p {color: red}</style><p>Call 4711 and say {{reference}}.";

fn scene(app: &Origin, slow: &Origin) -> Edge {
    let pages = "error_pages: {403: page.html, \"404\": page.html, 413: page.html, 400: page.html, 405: page.html, 502: page.html, 503: page.html, \"504\": page.html}";
    let routes = "routes: [{path: /admin, access: {roles: [boss]}}, {path: /open, access: public}]";
    edge()
        .service_with("iqueue", app, &format!("{pages}, {routes}"))
        .service_with("slow", slow, &format!("hosts: [slow.test], {pages}"))
        .pool("slow", &format!("{{servers: [\"{}\"], timeouts: {{read: 200ms}}}}", slow.address))
        .service_with("down", app, &format!("hosts: [down.test], {pages}"))
        .pool("down", &format!("{{servers: [\"{}\"]}}", free_address()))
        .service_with("plain", app, &format!("hosts: [plain.test], {routes}"))
        .certificate(&["slow.test", "down.test", "plain.test"])
        .user("bob", &["iqueue", "slow", "down", "plain"], &[])
        .file("page.html", PAGE)
        .start()
}

fn is_own_page(response: &Response) -> bool {
    let reference = response.header("x-request-id").unwrap();
    response.body == PAGE.replace("{{reference}}", reference)
}

#[test]
fn people_get_the_page_and_programs_get_json() {
    let (app, slow) = (origin("app"), Origin::slow(Duration::from_secs(60)));
    let edge = scene(&app, &slow);
    let mut bob = edge.client();
    edge.sign_in(&mut bob, "iqueue", "bob");
    for service in ["slow", "down", "plain"] {
        bob.follow(&edge.url(service, "/"));
    }
    // Method, service, path, body, the status, and whether the service has a page for it.
    let cases = [
        ("GET", "iqueue", "/admin/x", "", 403, true),
        ("POST", "iqueue", "/admin/x", "x", 403, true),
        ("GET", "slow", "/", "", 504, true),
        ("GET", "down", "/page?a=1", "", 503, true),
        ("POST", "down", "/page", "x", 503, true),
        ("GET", "plain", "/admin/x", "", 403, false),
        // Refused before the service is looked for.
        ("GET", "iqueue", "/%zz", "", 400, true),
        ("PROPFIND", "iqueue", "/open", "", 405, true),
        ("GET", "plain", "/%zz", "", 400, false),
        // What the sign-on shows says what a person can do about it.
        ("GET", "iqueue", "/.sentry/none", "", 404, false),
        ("GET", "sentry", "/none", "", 404, false),
    ];
    for http2 in [false, true] {
        for (method, service, path, body, status, own) in cases {
            let mut bob = if http2 { bob.clone().http2() } else { bob.clone() };
            let what = format!("{method} {service}{path}, h2 {http2}");
            let url = edge.url(service, path);
            let page = bob.ask(method, &url).accept("text/html,*/*").body(body).send();
            assert_eq!(page.status, status, "{what}: {}", page.body);
            assert_eq!(is_own_page(&page), own, "{what}: {}", page.body);
            assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"), "{what}");
            assert_eq!(page.header("cache-control"), Some("no-store"), "{what}");
            assert_eq!(page.header("x-content-type-options"), Some("nosniff"), "{what}");
            assert_eq!(page.header("x-frame-options"), Some("DENY"), "{what}");
            let policy = page.header("content-security-policy").unwrap();
            assert!(policy.contains("default-src 'none'") && !policy.contains("script-src"), "{what}: {policy}");
            assert_eq!(policy.contains("style-src 'unsafe-inline'"), own, "{what}: {policy}");
            let script = bob.ask(method, &url).accept("application/json").body(body).send();
            assert_eq!((script.status, script.header("content-type")), (status, Some("application/json")), "{what}");
            assert!(script.json()["error"].is_string(), "{what}");
            if method == "GET" {
                let head = bob.ask("HEAD", &url).accept("text/html").send();
                assert_eq!((head.status, head.body.as_str()), (status, ""), "{what}");
                assert_eq!(head.header("content-type"), page.header("content-type"), "{what}");
                if own {
                    let length = PAGE.replace("{{reference}}", head.header("x-request-id").unwrap()).len();
                    assert_eq!(head.header("content-length"), Some(length.to_string().as_str()), "{what}");
                }
            }
        }
    }
}

/// What is refused before it is known that it is the sign-on's, too.
#[test]
fn the_sign_on_keeps_its_pages_whatever_is_wrong_with_a_request() {
    let app = origin("app");
    let pages = "error_pages: {400: page.html, 404: page.html, 405: page.html, 413: page.html, 431: page.html}";
    let edge = edge()
        .service_with("iqueue", &app, &format!("hosts: [\"*.test\"], access: public, {pages}"))
        .file("page.html", PAGE)
        .start();
    let large = "x".repeat(200_000);
    for http2 in [false, true] {
        for (method, service, path, body, own) in [
            ("GET", "iqueue", "/%zz", "", true),
            ("PROPFIND", "iqueue", "/x", "", true),
            ("GET", "iqueue", "/.sentryx/%zz", "", true),
            ("GET", "iqueue", "/.sentry/%zz", "", false),
            ("GET", "iqueue", "/.sentry/none", "", false),
            ("PROPFIND", "iqueue", "/.sentry/none", "", false),
            ("PROPFIND", "iqueue", "/.%73entry/none", "", false),
            ("GET", "sentry", "/%zz", "", false),
            ("GET", "sentry", "/none", "", false),
            ("PROPFIND", "sentry", "/login", "", false),
            ("POST", "sentry", "/login", &large, false),
        ] {
            let client = edge.client();
            let mut client = if http2 { client.http2() } else { client };
            let url = edge.url(service, path);
            let page = client.ask(method, &url).accept("text/html").body(body).send();
            let what = format!("{method} {service}{path}, h2 {http2}: {}", page.status);
            assert!((400..500).contains(&page.status), "{what}");
            assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"), "{what}");
            assert_eq!(is_own_page(&page), own, "{what}");
        }
    }
}

#[test]
fn responses_of_applications_pass_as_they_are_and_a_redirect_is_none() {
    let app = Origin::answering(|_| {
        let response = hyper::Response::builder().status(502).header("content-type", "text/html");
        response.body(http_body_util::Full::new("the application's own".into())).unwrap()
    });
    let edge = scene(&app, &app);
    let own = edge.client().open(&edge.url("iqueue", "/open"));
    assert_eq!((own.status, own.body.as_str()), (502, "the application's own"));
    let redirect = edge.client().open(&edge.url("iqueue", "/"));
    assert_eq!((redirect.status, redirect.body.as_str()), (302, ""));
}

#[test]
fn the_page_of_a_503_holds_for_maintenance_with_its_fields() {
    let app = origin("app");
    let edge = edge()
        .service_with("iqueue", &app, "maintenance: {file: away}, error_pages: {503: page.html}")
        .file("page.html", PAGE)
        .file("away", "")
        .start();
    let page = edge.client().open(&edge.url("iqueue", "/"));
    assert_eq!((page.status, is_own_page(&page)), (503, true), "{}", page.body);
    assert_eq!((page.header("retry-after"), page.header("refresh")), (Some("60"), Some("60")));
    assert_eq!(edge.client().get(&edge.url("iqueue", "/")).json()["error"], "maintenance");
}

#[test]
fn a_reload_takes_up_pages_and_refuses_bad_ones() {
    let app = origin("app");
    let mut edge = edge()
        .service_with("iqueue", &app, "maintenance: {file: away}, error_pages: {503: page.html}")
        .file("page.html", PAGE)
        .file("away", "")
        .start();
    let path = edge.folder.path().join("page.html");
    std::fs::write(&path, "<p>new {{reference}}").unwrap();
    edge.reload_with(|yaml| yaml);
    assert!(edge.client().open(&edge.url("iqueue", "/")).body.starts_with("<p>new "));
    std::fs::write(&path, "<p>{{user}}").unwrap();
    let faults = edge.inner.reload().unwrap_err().to_string();
    assert!(faults.contains("services.iqueue.error_pages.503: there is no placeholder `{{user}}`"), "{faults}");
    assert!(edge.client().open(&edge.url("iqueue", "/")).body.starts_with("<p>new "), "the one before stays");
}

#[test]
fn check_names_every_page_that_cannot_be_shown() {
    let app = origin("app");
    let keys = "error_pages: {502: none.html, 503: large.html, 504: binary.html, 500: \"\", 404: ., 405: user.html, \
                200: page.html, 399: page.html, 600: page.html, 1000: page.html, x: page.html, \"+50\": page.html, \
                403: half.html}";
    let builder = edge()
        .service_with("iqueue", &app, keys)
        .file("page.html", PAGE)
        .file("large.html", &"x".repeat((256 << 10) + 1))
        .file("user.html", "{{ user }}")
        .file("half.html", "{{reference");
    let (folder, file) = builder.write();
    std::fs::write(folder.path().join("binary.html"), b"\xff\xfe").unwrap();
    let (config, mut faults) = config::read(&file).unwrap();
    for service in &config.services {
        sentry_edge::error_pages::ErrorPages::load(service, &mut faults);
    }
    let text = faults.to_string();
    for (status, what) in [
        ("502", "cannot read"),
        ("503", "over 256 KiB"),
        ("504", "is not in UTF-8"),
        ("500", "no page for 500"),
        ("404", "is no file"),
        ("405", "there is no placeholder `{{user}}`"),
        ("403", "a `{{` without its `}}`"),
        ("200", "`200` is not the status of an error"),
        ("399", "is not the status of an error"),
        ("600", "is not the status of an error"),
        ("1000", "is not the status of an error"),
        ("x", "is not the status of an error"),
        ("+50", "is not the status of an error"),
    ] {
        let found = text.lines().find(|line| line.contains(&format!(": services.iqueue.error_pages.{status}: ")));
        assert!(found.is_some_and(|line| line.contains(what)), "{status}: {text}");
    }
    assert_eq!(faults.len(), 13, "{text}");
}
