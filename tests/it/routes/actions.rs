//! Exact paths, redirects and fixed replies.

use super::{WAYS, Way, cookie_of, get, scene};
use crate::harness::client;

const PUBLIC_EXACT: &str = "access: public, routes: [\
    {exact: /, redirect: {to: /app/}}, \
    {exact: /hello, respond: {body: hello}}, \
    {path: /hello/deep, respond: {body: deep}}]";

#[test]
fn an_exact_path_is_for_itself_alone_and_comes_before_the_longest_path() {
    let (edge, iqueue) = scene(PUBLIC_EXACT);
    for way in WAYS {
        assert_eq!(get("/").by(way).send(&edge).location(), Some("/app/"), "{way:?}");
        assert_eq!(get("/hello").by(way).send(&edge).body, "hello", "{way:?}");
        assert_eq!(get("/hello?x=1").by(way).send(&edge).body, "hello", "{way:?}");
        assert_eq!(get("/hello/deep/x").by(way).send(&edge).body, "deep", "{way:?}");
        for path in ["/hello/", "/hello/x", "/helloes", "/app/", "/index.html"] {
            let before = iqueue.count();
            assert_eq!(get(path).by(way).send(&edge).body, "hello from iqueue", "{way:?} {path}");
            assert_eq!((iqueue.count(), iqueue.last().target.as_str()), (before + 1, path), "{way:?}");
        }
    }
}

#[test]
fn no_spelling_of_an_exact_path_reaches_the_application_by_another_route() {
    let (edge, iqueue) = scene(PUBLIC_EXACT);
    for way in WAYS {
        for path in [
            "/HELLO",
            "/Hello",
            "/%68ello",
            "/%2568ello",
            "//hello",
            "/hello;x=1",
            "/hello.",
            "/hello%20",
            "/hello%0A",
            "/./hello",
            "/x/../hello",
            "/hello/.",
            "/hello%3fx",
            "/hell%C2%ADo",
            "//x/hello",
            "//",
            "/.",
            "/;x",
            "/%20",
        ] {
            assert_eq!(get(path).by(way).send(&edge).status, 400, "{way:?} {path}");
        }
    }
    assert_eq!(iqueue.count(), 0);
}

/// Many servers take `/admin/` for `/admin`.
#[test]
fn a_slash_at_the_end_does_not_evade_the_access_of_an_exact_path() {
    let (edge, iqueue) = scene("access: public, routes: [{exact: /admin, access: {roles: [admin]}}]");
    for way in WAYS {
        assert_eq!(get("/admin").by(way).send(&edge).status, 401, "{way:?}");
        for path in ["/admin/", "/admin//", "/admin%2f", "/admin%5C", "/ADMIN/", "/admin/;x"] {
            assert_eq!(get(path).by(way).send(&edge).status, 400, "{way:?} {path}");
        }
        assert_eq!(get("/admin/x").by(way).send(&edge).status, 200, "{way:?}");
    }
    assert_eq!(iqueue.count(), WAYS.len());
}

#[test]
fn a_slash_at_the_end_does_not_evade_what_else_an_exact_path_restricts() {
    let routes = [
        "addresses: {deny: [127.0.0.0/8]}",
        "addresses: {allow: [10.0.0.0/8]}",
        "methods: [POST]",
        "body_bytes: 10B",
        "request_headers: {remove: [X-Debug]}",
        "response_headers: {set: {Content-Security-Policy: sandbox}}",
        "respond: {status: 404}",
    ];
    let written: Vec<_> = routes.iter().enumerate().map(|(at, rule)| format!("{{exact: /r{at}, {rule}}}")).collect();
    let (edge, iqueue) = scene(&format!(
        "access: public, routes: [{}, {{exact: /same, respond: {{body: ok}}, methods: [GET, POST]}}, \
         {{path: /same, access: public, methods: [GET]}}, {{path: /large/, access: public, body_bytes: 2GiB}}, \
         {{exact: /large/health}}]",
        written.join(", ")
    ));
    for way in WAYS {
        for (at, rule) in routes.iter().enumerate() {
            for path in [format!("/r{at}/"), format!("/r{at}//"), format!("/r{at}%2f"), format!("/R{at}/")] {
                for method in ["GET", "POST"] {
                    let got = get(&path).method(method).by(way).send(&edge);
                    assert_eq!(got.status, 400, "{way:?} {method} {path}: {rule}");
                }
            }
        }
        assert_eq!(iqueue.count(), 0, "{way:?}");
    }
    for way in WAYS {
        assert_eq!(get("/large/health/").by(way).send(&edge).status, 400, "{way:?}: a larger body");
        assert_eq!(get("/same/").by(way).send(&edge).status, 200, "{way:?}: a route for the other spelling");
        assert_eq!(get("/r0/x").by(way).send(&edge).status, 200, "{way:?}");
    }
}

const REDIRECTS: &str = "access: public, routes: [\
    {path: /a, redirect: {to: /b}}, \
    {path: /old/, redirect: {to: \"https://new.example.com/x/\", keep_path: true, status: 301}}, \
    {path: /here/, redirect: {to: /, keep_path: true, keep_query: false, status: 307}}, \
    {path: /q, redirect: {to: \"/b?fixed=1#top\", status: 308}}, \
    {path: /other, redirect: {to: \"https://new.example.com\", status: 303}}, \
    {path: /café, redirect: {to: /b/, keep_path: true}}, \
    {path: /user, access: required}]";

#[test]
fn a_redirect_keeps_of_the_request_what_is_configured() {
    let (edge, iqueue) = scene(REDIRECTS);
    // A public route is for paths in canonical form alone.
    let cookie = cookie_of(&edge, "bob", "/user");
    let bob = [("cookie", cookie.as_str())];
    let before = iqueue.count();
    for way in WAYS {
        for (target, status, location) in [
            ("/a", 302, "/b"),
            ("/a/x?y=1&z", 302, "/b?y=1&z"),
            ("/a?", 302, "/b?"),
            ("/old/a/b", 301, "https://new.example.com/x/a/b"),
            ("/old/a/b?c=d", 301, "https://new.example.com/x/a/b?c=d"),
            ("/old/", 301, "https://new.example.com/x/"),
            ("/old", 301, "https://new.example.com/x/"),
            ("/old/a%20b;c=%2F", 301, "https://new.example.com/x/a%20b;c=%2F"),
            ("/here/a?b", 307, "/a"),
            ("/here", 307, "/"),
            ("/q?mine=2", 308, "/b?fixed=1&mine=2#top"),
            ("/q", 308, "/b?fixed=1#top"),
            ("/other/x?y", 303, "https://new.example.com/?y"),
            ("/caf%C3%A9/x", 302, "/b/x"),
        ] {
            let got = get(target).with(&bob).by(way).send(&edge);
            assert_eq!((got.status, got.location()), (status, Some(location)), "{way:?} {target}");
            assert_eq!((got.body.as_str(), got.one("content-length")), ("", Some("0")), "{way:?} {target}");
            assert_eq!(got.one("cache-control"), Some("no-store"), "{way:?} {target}");
            // Pages of other sites may load an image by way of an old address.
            assert_eq!(got.one("cross-origin-resource-policy"), None, "{way:?} {target}");
        }
    }
    assert_eq!(iqueue.count(), before);
}

#[test]
fn a_redirect_answers_every_method_and_takes_the_body_in() {
    let (edge, iqueue) = scene(REDIRECTS);
    for way in WAYS {
        for (method, body) in
            [("HEAD", ""), ("POST", "a=b"), ("PUT", "x"), ("DELETE", ""), ("OPTIONS", ""), ("PATCH", "x")]
        {
            let got = get("/old/a?b").method(method).body(body).by(way).send(&edge);
            let expected = (301, Some("https://new.example.com/x/a?b"), "");
            assert_eq!((got.status, got.location(), got.body.as_str()), expected, "{way:?} {method}");
        }
    }
    assert_eq!(iqueue.count(), 0);
}

/// The target is a browser's to read, so it is held against what a browser makes of it.
#[test]
fn no_path_leads_to_another_host_than_the_configured_one() {
    let (edge, iqueue) = scene(REDIRECTS);
    // A public route is for paths in canonical form alone.
    let cookie = cookie_of(&edge, "bob", "/user");
    let bob = [("cookie", cookie.as_str())];
    let before = iqueue.count();
    let own = url::Url::parse("https://iqueue.test/here/x").unwrap();
    let mut redirected = 0;
    for way in WAYS {
        for rest in [
            "//evil.test",
            "///evil.test",
            "/\\evil.test",
            "\\evil.test",
            "/%2fevil.test",
            "/%2Fevil.test",
            "/%5cevil.test",
            "/%252fevil.test",
            "/%09/evil.test",
            "/%0d%0aLocation:%20https://evil.test",
            "/./evil.test",
            "/.//evil.test",
            "/..//evil.test",
            "/../evil.test",
            "/%2e%2e//evil.test",
            "/..;/evil.test",
            "/;/evil.test",
            "/@evil.test",
            "/:8443",
            "/https://evil.test",
            "/%E2%80%8B/evil.test",
            "/x?//evil.test",
        ] {
            for (prefix, host) in [("/here", "iqueue.test"), ("/old", "new.example.com")] {
                let target = format!("{prefix}{rest}");
                let got = get(&target).with(&bob).by(way).send(&edge);
                let Some(location) = got.location() else {
                    assert_eq!(got.status, 400, "{way:?} {target}");
                    continue;
                };
                redirected += 1;
                assert_eq!(own.join(location).unwrap().host_str(), Some(host), "{way:?} {target} -> {location}");
            }
        }
        // A prefix that is spelled in another way.
        for target in ["/%6fld/a", "/OLD/a", "/caf%c3%a9/x", "//old/a", "/old;x/a", "/x/../old/a"] {
            assert_eq!(get(target).with(&bob).by(way).send(&edge).status, 400, "{way:?} {target}");
        }
    }
    assert!(redirected >= 3 * WAYS.len(), "{redirected}");
    assert_eq!(iqueue.count(), before);
}

#[test]
fn a_route_for_everything_leads_to_another_host() {
    let (edge, iqueue) =
        scene("routes: [{path: /, access: public, redirect: {to: \"https://new.example.com\", keep_path: true}}]");
    for way in WAYS {
        for target in ["/", "/a/b?c=d", "/A", "/a%20b/%C3%A9?"] {
            let got = get(target).by(way).send(&edge);
            assert_eq!(got.location(), Some(&*format!("https://new.example.com{target}")), "{way:?}");
        }
        for target in ["//evil.test", "/a/../b", "/%2fevil.test"] {
            assert_eq!(get(target).by(way).send(&edge).status, 400, "{way:?} {target}");
        }
        for target in ["/a//b", "/a%2Fb", "/A;x=y"] {
            let got = get(target).by(way).send(&edge);
            assert_eq!(
                (got.status, got.location()),
                (401, None),
                "{way:?} {target}: a public route is for canonical paths"
            );
        }
        assert_eq!(get("/.sentry/nothing").by(way).send(&edge).location(), None, "the sign-on's own paths stay");
    }
    assert_eq!(iqueue.count(), 0);
}

#[test]
fn a_fixed_reply_is_what_the_configuration_says() {
    let (edge, iqueue) = scene(
        "access: public, routes: [\
         {path: /_status, respond: {status: 200, body: ok, content_type: text/plain}}, \
         {path: /json, respond: {status: 503, body: '{\"a\": \"ä\"}', content_type: application/json}}, \
         {path: /default, respond: {body: hello}}, \
         {path: /empty, respond: {}}, \
         {path: /none, respond: {status: 204}}, \
         {path: /same, respond: {status: 304}}, \
         {path: /reset, respond: {status: 205}}, \
         {path: /gone, respond: {status: 410, body: gone}}]",
    );
    for way in WAYS {
        for (path, status, kind, length, body) in [
            ("/_status", 200, Some("text/plain"), Some("2"), "ok"),
            ("/_status/below?x", 200, Some("text/plain"), Some("2"), "ok"),
            ("/json", 503, Some("application/json"), Some("11"), "{\"a\": \"ä\"}"),
            ("/default", 200, Some("text/plain; charset=utf-8"), Some("5"), "hello"),
            ("/empty", 200, None, Some("0"), ""),
            ("/none", 204, None, None, ""),
            ("/same", 304, None, None, ""),
            ("/reset", 205, None, Some("0"), ""),
            ("/gone", 410, Some("text/plain; charset=utf-8"), Some("4"), "gone"),
        ] {
            for method in ["GET", "HEAD", "POST"] {
                let got = get(path).method(method).body(if method == "POST" { "x" } else { "" }).by(way).send(&edge);
                let expected = if method == "HEAD" { "" } else { body };
                let seen = (got.status, got.one("content-type"), got.one("content-length"), got.body.as_str());
                assert_eq!(seen, (status, kind, length, expected), "{way:?} {method} {path}");
                assert_eq!(got.one("transfer-encoding"), None, "{way:?} {method} {path}");
            }
        }
    }
    assert_eq!(iqueue.count(), 0);
}

/// The connection goes on after a reply without a body.
#[test]
fn several_fixed_replies_come_on_one_connection() {
    let (edge, _iqueue) = scene(
        "access: public, routes: [{path: /none, respond: {status: 204}}, {path: /same, respond: {status: 304}}, \
         {path: /ok, respond: {body: ok}}, {path: /to, redirect: {to: /ok}}]",
    );
    let mut connection = crate::harness::raw(edge.address(), "iqueue.test");
    for more in ["", "Keep-Alive: 5\r\n"] {
        for (path, status) in [("/none", 204), ("/ok", 200), ("/same", 304), ("/to", 302), ("/ok", 200)] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: iqueue.test\r\nUser-Agent: test/1\r\n{more}\r\n");
            connection.send(request);
            assert_eq!(connection.first_line().split(' ').nth(1), Some(&*status.to_string()), "{path}");
            connection.hear("\r\n\r\n");
            if path == "/ok" {
                connection.hear("ok");
            }
        }
    }
}

#[test]
fn access_holds_for_redirects_and_replies_as_for_applications() {
    let (edge, iqueue) = scene(
        "routes: [{path: /to, redirect: {to: /b}}, {path: /ok, respond: {body: ok}}, \
         {path: /admin/to, access: {roles: [admin]}, redirect: {to: /b}}, \
         {path: /admin/ok, access: {roles: [admin]}, respond: {body: ok}}]",
    );
    let bob = cookie_of(&edge, "bob", "/start");
    let ada = cookie_of(&edge, "ada", "/start");
    let before = iqueue.count();
    for way in WAYS {
        for path in ["/to", "/ok", "/admin/to", "/admin/ok"] {
            let got = get(path).by(way).send(&edge);
            assert_eq!(got.status, 401, "{way:?} {path}");
            let got = get(path).with(&[("accept", "text/html")]).by(way).send(&edge);
            assert!(got.location().is_some_and(|to| to.contains("/noCookie")), "{way:?} {path}: {:?}", got.location());
            let cookie = [("cookie", bob.as_str())];
            let expected = match path {
                "/to" => 302,
                "/ok" => 200,
                _ => 403,
            };
            assert_eq!(get(path).with(&cookie).by(way).send(&edge).status, expected, "{way:?} {path}");
            let cookie = [("cookie", ada.as_str())];
            let expected = if path.ends_with("/to") { 302 } else { 200 };
            assert_eq!(get(path).with(&cookie).by(way).send(&edge).status, expected, "{way:?} {path}");
        }
    }
    assert_eq!(iqueue.count(), before);
    assert!(
        edge.metric(
            "sentry_edge_auth_decisions_total",
            "outcome=\"forbidden\",reason=\"missing_role\",service=\"iqueue\""
        ) >= 6.0
    );
}

#[test]
fn over_plain_http_the_redirect_to_https_comes_first() {
    let (edge, _iqueue) = scene(REDIRECTS);
    let got = client(edge.http_address()).get("http://iqueue.test/old/a?b");
    assert_eq!(got.status, 308);
    let expected = format!("https://iqueue.test:{}/old/a?b", edge.address().port());
    assert_eq!(got.location().as_deref(), Some(&*expected));
}

/// Such a service needs no pool.
#[test]
fn a_service_without_an_application_redirects() {
    let iqueue = crate::harness::origin("iqueue");
    let mut edge = crate::harness::edge().service("iqueue", &iqueue).start();
    edge.reload_with(|yaml| {
        let service = "iqueue: {hosts: [iqueue.test], routes: [{path: /, access: public, redirect: {to: \"https://dextor.test/\"}}]}";
        yaml.replace("iqueue: {hosts: [iqueue.test], pool: iqueue}", service)
    });
    let got = get("/x").by(Way::Http2).send(&edge);
    assert_eq!((got.status, got.location()), (302, Some("https://dextor.test/")));
}
