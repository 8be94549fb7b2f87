//! `access: optional` and `deny`, hosts that no service has, and services that are not in the access log.

use super::{WAYS, cookie_of, get, scene};
use crate::harness::edge::TOKEN_COOKIE;
use crate::harness::{client, edge, origin};

const OPTIONAL: &str = "routes: [{path: /portal/, access: optional}, \
    {path: /portal/reply, access: optional, respond: {body: ok}}, \
    {path: /api/, access: optional, credentials: [cookie, bearer]}]";

#[test]
fn an_optional_identity_is_passed_on_where_it_is_good_and_no_login_is_wanted_where_it_is_not() {
    let (edge, iqueue) = scene(OPTIONAL);
    let bob = cookie_of(&edge, "bob", "/start");
    let changed = bob.replace(TOKEN_COOKIE, &format!("{TOKEN_COOKIE}=x")).replace("=x=", "=x");
    let twice = format!("{bob}; {bob}");
    let of_other = format!("{TOKEN_COOKIE}=not.a.token");
    for way in WAYS {
        for (cookie, user) in [
            (None, None),
            (Some(bob.as_str()), Some("bob")),
            (Some(changed.as_str()), None),
            (Some(twice.as_str()), None),
            (Some(of_other.as_str()), None),
            (Some("other=1"), None),
        ] {
            for accept in ["text/html", "application/json"] {
                let mut fields = vec![("accept", accept), ("x-forwarded-user", "eve")];
                fields.extend(cookie.map(|cookie| ("cookie", cookie)));
                let got = get("/portal/page").with(&fields).by(way).send(&edge);
                assert_eq!((got.status, got.one("set-cookie")), (200, None), "{way:?} {cookie:?}");
                let seen = iqueue.last();
                assert_eq!(seen.one("x-forwarded-user").as_deref(), user, "{way:?} {cookie:?}");
                assert!(!seen.all("cookie").concat().contains(TOKEN_COOKIE), "{way:?} {cookie:?}");
                assert_eq!(get("/portal/reply").with(&fields).by(way).send(&edge).body, "ok", "{way:?} {cookie:?}");
            }
        }
        // A path that servers may read in another way wants a user.
        assert_eq!(get("/portal/a;b").by(way).send(&edge).status, 401, "{way:?}");
        assert_eq!(get("/portal/a;b").with(&[("cookie", bob.as_str())]).by(way).send(&edge).status, 200, "{way:?}");
    }
    let public =
        edge.metric("sentry_edge_auth_decisions_total", "outcome=\"public\",reason=\"none\",service=\"iqueue\"");
    assert!(public > 0.0, "{public}");
}

/// Neither is a reason for a login or an error where no identity is wanted.
#[test]
fn a_session_that_ended_and_a_user_of_another_service_are_no_identity_and_no_error() {
    let iqueue = origin("iqueue");
    let builder = edge().service_with("iqueue", &iqueue, OPTIONAL).user("bob", &["iqueue"], &[]);
    let edge = builder.start();
    let mut client = edge.client();
    edge.sign_in(&mut client, "iqueue", "bob");
    let cookie = client.cookie_field("iqueue.test");
    assert_eq!(get("/portal/").with(&[("cookie", cookie.as_str())]).send(&edge).status, 200);
    assert_eq!(iqueue.last().one("x-forwarded-user").as_deref(), Some("bob"));
    client.sign_out(&edge.url("iqueue", "/.sentry/logout"));
    for way in WAYS {
        let got = get("/portal/").with(&[("cookie", cookie.as_str()), ("accept", "text/html")]).by(way).send(&edge);
        assert_eq!((got.status, got.location()), (200, None), "{way:?}");
        assert_eq!(iqueue.last().one("x-forwarded-user"), None, "{way:?}");
        assert_eq!(get("/start").with(&[("cookie", cookie.as_str())]).by(way).send(&edge).status, 401, "{way:?}");
    }
}

#[test]
fn a_bearer_token_that_was_not_accepted_does_not_reach_the_application() {
    let (edge, iqueue) = scene(OPTIONAL);
    for way in WAYS {
        for (sent, received) in
            [("Bearer not.a.token", None), ("bearer x", None), ("Basic dXNlcjpwYXNz", Some("Basic dXNlcjpwYXNz"))]
        {
            let got = get("/api/x").with(&[("authorization", sent)]).by(way).send(&edge);
            assert_eq!(got.status, 200, "{way:?} {sent}");
            let seen = iqueue.last();
            assert_eq!(
                (seen.one("authorization").as_deref(), seen.one("x-forwarded-user")),
                (received, None),
                "{way:?} {sent}"
            );
        }
        // Where the route takes no bearer tokens, it is the application's own.
        get("/portal/x").with(&[("authorization", "Bearer own")]).by(way).send(&edge);
        assert_eq!(iqueue.last().one("authorization").as_deref(), Some("Bearer own"), "{way:?}");
    }
}

#[test]
fn a_denied_route_admits_no_client() {
    let (edge, iqueue) = scene(
        "access: public, routes: [{path: /metrics, access: deny}, {path: /open, access: optional}, \
         {path: /user, access: required}, {exact: /exact, access: deny}, \
         {path: /denied/reply, access: deny, respond: {body: secret}}, {path: /denied/to, access: deny, redirect: {to: /x}}, \
         {path: /flight, access: deny, preflight: forward}]",
    );
    let ada = cookie_of(&edge, "ada", "/user");
    let before = iqueue.count();
    let preflight = [("origin", "https://portal.test"), ("access-control-request-method", "PUT")];
    for way in WAYS {
        for path in ["/metrics", "/metrics/", "/metrics/x?y", "/exact", "/denied/reply", "/denied/to", "/flight"] {
            for cookie in [None, Some(("cookie", ada.as_str()))] {
                for method in ["GET", "HEAD", "POST", "OPTIONS"] {
                    let mut fields: Vec<_> = cookie.into_iter().collect();
                    if method == "OPTIONS" {
                        fields.extend(preflight);
                    }
                    let got = get(path).method(method).with(&fields).by(way).send(&edge);
                    assert_eq!(
                        (got.status, got.location(), got.one("set-cookie")),
                        (403, None, None),
                        "{way:?} {method} {path}"
                    );
                }
                let page = [("accept", "text/html")];
                let got = get(path).with(&page).by(way).send(&edge);
                assert!(got.status == 403 && got.body.contains("This address is not available."), "{}", got.body);
            }
        }
        for path in ["/METRICS", "/metrics;x", "/%6detrics", "//metrics", "/exact/", "/EXACT"] {
            assert_eq!(get(path).by(way).send(&edge).status, 400, "{way:?} {path}");
        }
        assert_eq!(get("/metricsx").by(way).send(&edge).status, 200, "{way:?}");
    }
    assert_eq!(iqueue.count(), before + WAYS.len());
    let denied =
        edge.metric("sentry_edge_auth_decisions_total", "outcome=\"forbidden\",reason=\"denied\",service=\"iqueue\"");
    assert!(denied >= 100.0, "{denied}");
}

#[test]
fn a_host_that_no_service_has_gets_what_is_configured() {
    for (key, status, location) in [
        ("", 421, None),
        ("unknown_hosts: {status: 421}\n", 421, None),
        ("unknown_hosts: {status: 404}\n", 404, None),
        (
            "unknown_hosts: {redirect: \"https://www.example.com/start?a#b\"}\n",
            302,
            Some("https://www.example.com/start?a#b"),
        ),
    ] {
        let iqueue = origin("iqueue");
        let mut edge = edge().service_with("iqueue", &iqueue, "access: public").start();
        edge.reload_with(|yaml| format!("{key}{yaml}"));
        for way in WAYS {
            for method in ["GET", "HEAD", "POST"] {
                let got =
                    get("/a?b").method(method).host("unknown.test").connected_to("iqueue.test").by(way).send(&edge);
                assert_eq!((got.status, got.location()), (status, location), "{key} {way:?} {method}");
                assert!(!got.body.contains("iqueue"), "{}", got.body);
            }
            assert_eq!(get("/a").by(way).send(&edge).status, 200, "{key} {way:?}");
        }
        let plain = client(edge.http_address()).get("http://unknown.test/a");
        assert_eq!((plain.status, plain.location().as_deref()), (status, location), "{key}");
        let plain = client(edge.http_address()).get("http://iqueue.test/a");
        assert_eq!(plain.status, 308, "{key}");
    }
}

#[test]
fn a_service_without_an_access_log_is_in_the_metrics_and_in_the_audit_log() {
    let iqueue = origin("iqueue");
    let dextor = origin("dextor");
    let edge = edge()
        .service_with(
            "iqueue",
            &iqueue,
            "access_log: false, routes: [{path: /admin, access: {roles: [admin]}}, {path: /open, access: public}]",
        )
        .service_with("dextor", &dextor, "access: public")
        .user("bob", &["iqueue"], &[])
        .start();
    let bob = cookie_of(&edge, "bob", "/start");
    for way in WAYS {
        assert_eq!(get("/open").by(way).send(&edge).status, 200);
        assert_eq!(get("/admin").with(&[("cookie", bob.as_str())]).by(way).send(&edge).status, 403);
        assert_eq!(get("/last").host("dextor.test").by(way).send(&edge).status, 200);
    }
    let is_last = |line: &serde_json::Value| line["path"] == "/last";
    crate::harness::eventually("the access log has the other service's lines", || {
        edge.access_log(1).iter().filter(|line| is_last(line)).count() == WAYS.len()
    });
    let services: Vec<String> =
        edge.access_log(1).iter().map(|line| line["service"].as_str().unwrap().to_owned()).collect();
    assert!(!services.iter().any(|service| service == "iqueue"), "{services:?}");
    assert!(edge.metric("sentry_edge_requests_total", "service=\"iqueue\",status=\"2xx\"") >= 3.0);
    let refused = |line: &serde_json::Value| line["event"] == "access_refused" && line["user"] == "bob";
    crate::harness::eventually("refusals are audited", || {
        edge.audit(1).iter().filter(|line| refused(line)).count() == WAYS.len()
    });
}
