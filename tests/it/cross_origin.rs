//! Pages of other origins: which of their preflights an application is asked, and which of their WebSockets it gets.

use crate::harness::edge::TOKEN_COOKIE;
use crate::harness::observer::{Asking, Observer, PROTOCOLS, Protocol};
use crate::harness::{Client, Edge, Origin, edge, eventually, origin, raw, runtime};

const HOST: &str = "iqueue.test";
const ORIGIN: (&str, &str) = ("origin", "https://portal.test");
const METHOD: (&str, &str) = ("access-control-request-method", "PUT");
const PREFLIGHT: &[(&str, &str)] = &[ORIGIN, METHOD, ("access-control-request-headers", "x-one")];

struct Scene {
    edge: Edge,
    iqueue: Origin,
    browser: Client,
}

fn scene(service: &str, server: &str) -> Scene {
    let iqueue = origin("iqueue");
    let builder = edge().service_with("iqueue", &iqueue, service);
    let edge = if server.is_empty() { builder } else { builder.server(server) }.start();
    let browser = edge.signed_in();
    Scene { edge, iqueue, browser }
}

impl Scene {
    fn token(&self) -> &str {
        self.browser.cookie(HOST, TOKEN_COOKIE).unwrap()
    }

    /// The status, and whether the application was asked.
    fn ask(&self, protocol: Protocol, asking: &Asking<'_>) -> (u16, bool) {
        let before = self.iqueue.count();
        let observed = runtime().block_on(async {
            Observer::connect(self.edge.address(), HOST, protocol).await.ask(HOST, asking).await.unwrap()
        });
        (observed.status, self.iqueue.count() > before)
    }

    fn preflight(&self, protocol: Protocol, path: &str, fields: &[(&str, &str)]) -> (u16, bool) {
        self.ask(protocol, &Asking { method: "OPTIONS", path, body: None, fields })
    }
}

const ROUTES: &str = "routes: [{path: /api/, preflight: forward, credentials: [cookie, bearer]}, \
                      {path: /admin/, preflight: forward, access: {roles: [nobody]}}, {path: /open/, access: public}]";

#[test]
fn a_preflight_is_forwarded_where_its_route_says_so_whoever_asks_and_nothing_else_is() {
    let scene = scene(ROUTES, "");
    let agent = ("user-agent", "test/1");
    let cookie = format!("{TOKEN_COOKIE}={}; mine=1", scene.token());
    let with = |more: &[(&'static str, &'static str)]| [PREFLIGHT, more].concat();
    for protocol in PROTOCOLS {
        for path in ["/api", "/api/", "/api/x?q=1", "/admin/x"] {
            assert_eq!(scene.preflight(protocol, path, PREFLIGHT), (200, true), "{protocol:?} {path}");
        }
        // Whatever is wrong with the session, nobody looks at it.
        for cookie in [cookie.as_str(), "__Host-JWTCookie=x", "__Host-JWTCookie=x; __Host-JWTCookie=y"] {
            let fields = [PREFLIGHT, &[agent, ("cookie", cookie)]].concat();
            assert_eq!(scene.preflight(protocol, "/api/x", &fields), (200, true), "{protocol:?} {cookie}");
        }
        for (path, fields, status) in [
            ("/", PREFLIGHT.to_vec(), 401),
            ("/apix", PREFLIGHT.to_vec(), 401),
            ("/.sentry/x", PREFLIGHT.to_vec(), 404),
            ("/api/x", vec![ORIGIN], 401),
            ("/api/x", vec![METHOD], 401),
            ("/api/x", vec![], 401),
            ("/api/x", with(&[METHOD]), 401),
            ("/api/x", with(&[ORIGIN]), 401),
            ("/api/x", with(&[("x-http-method-override", "DELETE")]), 401),
            ("/admin/x", vec![ORIGIN], 401),
        ] {
            assert_eq!(scene.preflight(protocol, path, &fields), (status, false), "{protocol:?} {path} {fields:?}");
        }
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"] {
            let asking = Asking { method, path: "/api/x", body: None, fields: PREFLIGHT };
            assert_eq!(scene.ask(protocol, &asking), (401, false), "{protocol:?} {method}");
        }
        let asking = Asking { method: "OPTIONS", path: "/api/x", body: Some("body"), fields: PREFLIGHT };
        assert_eq!(scene.ask(protocol, &asking), (401, false), "{protocol:?}: a body");
        assert_eq!(scene.preflight(protocol, "/open/x", PREFLIGHT), (200, true), "{protocol:?}: public as before");
    }
    let labels = "outcome=\"public\",reason=\"preflight\",service=\"iqueue\"";
    let counted = scene.edge.metric("sentry_edge_auth_decisions_total", labels);
    assert_eq!(counted, 21.0, "seven for each version of HTTP");
}

#[test]
fn a_preflight_brings_no_identity_no_cookie_of_ours_and_no_bearer_token() {
    let scene = scene(&format!("forward_token: cookie, identity_assertion: true, {ROUTES}"), "");
    let bearer = format!("Bearer {}", scene.token());
    let cookie = format!("mine=1; {TOKEN_COOKIE}={}", scene.token());
    let fields = [PREFLIGHT, &[("cookie", &cookie), ("authorization", &bearer), ("x-forwarded-user", "root")]].concat();
    for protocol in PROTOCOLS {
        assert_eq!(scene.preflight(protocol, "/api/x", &fields), (200, true), "{protocol:?}");
        let seen = scene.iqueue.last();
        assert_eq!((seen.method.as_str(), seen.body.len()), ("OPTIONS", 0));
        assert_eq!(seen.one("cookie").as_deref(), Some("mine=1"));
        assert_eq!(seen.one("origin").as_deref(), Some("https://portal.test"));
        assert_eq!(seen.one("access-control-request-method").as_deref(), Some("PUT"));
        for name in ["authorization", "x-forwarded-user", "x-forwarded-groups", "x-sentry-assertion"] {
            assert_eq!(seen.all(name), [""; 0], "{protocol:?} {name}");
        }
        // Where a route takes no bearer token, the field is the application's own, as on a public route.
        let basic = [PREFLIGHT, &[("authorization", "Basic eA==")]].concat();
        assert_eq!(scene.preflight(protocol, "/admin/x", &basic), (200, true));
        assert_eq!(scene.iqueue.last().one("authorization").as_deref(), Some("Basic eA=="));
    }
    eventually("the log has it", || {
        let lines = scene.edge.access_log(1);
        lines.iter().any(|line| line["outcome"] == "public" && line["reason"] == "preflight" && line["user"].is_null())
    });
}

#[test]
fn a_preflight_is_for_every_reading_of_its_path_or_refused() {
    let scene = scene(ROUTES, "");
    for protocol in PROTOCOLS {
        for path in ["/api/%78", "/api//x", "/api/x;a=1", "/api/caf%C3%A9"] {
            assert_eq!(scene.preflight(protocol, path, PREFLIGHT), (200, true), "{protocol:?} {path}");
        }
        for path in ["/API/x", "/%61pi/x", "/api;a=1/x", "//api/x", "/x/../api/y", "/api%2fx", "/api/../x"] {
            assert_eq!(scene.preflight(protocol, path, PREFLIGHT), (400, false), "{protocol:?} {path}");
        }
    }
}

#[test]
fn what_a_service_says_of_preflights_a_route_may_say_otherwise() {
    let scene = scene("preflight: forward, routes: [{path: /own, preflight: check}]", "");
    for protocol in PROTOCOLS {
        assert_eq!(scene.preflight(protocol, "/x", PREFLIGHT), (200, true));
        assert_eq!(scene.preflight(protocol, "/own/x", PREFLIGHT), (401, false));
    }
}

/// What the edge has itself is for users: no application decides on who may read it.
#[test]
fn a_preflight_gets_nothing_of_a_route_that_the_edge_answers() {
    let iqueue = origin("iqueue");
    let routes = "{path: /ok, respond: {body: secret}}, {path: /to, redirect: {to: /secret}}, \
                  {path: /files, files: {root: site}}, {exact: /admin, access: {roles: [boss]}, respond: {body: secret}}, \
                  {path: /portal, access: optional, methods: [GET], respond: {body: hello}}, \
                  {path: /open, access: public, respond: {body: hello}}";
    let edge = edge()
        .service_with("iqueue", &iqueue, &format!("preflight: forward, routes: [{routes}]"))
        .file("site/index.html", "secret")
        .start();
    for protocol in PROTOCOLS {
        for (path, status) in [
            ("/ok", 401),
            ("/to", 401),
            ("/files/", 401),
            ("/files/none", 401),
            ("/admin", 401),
            ("/portal", 405),
            ("/open", 200),
            ("/x", 200),
        ] {
            let asking = Asking { method: "OPTIONS", path, body: None, fields: PREFLIGHT };
            let observed = runtime().block_on(async {
                Observer::connect(edge.address(), HOST, protocol).await.ask(HOST, &asking).await.unwrap()
            });
            assert_eq!(observed.status, status, "{protocol:?} {path}");
            assert!(!observed.text().contains("secret") && observed.all("location").is_empty(), "{protocol:?} {path}");
        }
    }
    let labels = "outcome=\"public\",reason=\"preflight\",service=\"iqueue\"";
    assert_eq!(edge.metric("sentry_edge_auth_decisions_total", labels), 3.0, "those of the application alone");
}

#[test]
fn a_preflight_counts_against_the_rate_of_its_client() {
    let iqueue = origin("iqueue");
    let edge = edge().service_with("iqueue", &iqueue, &format!("requests_per_second: 1, {ROUTES}")).start();
    let statuses = runtime().block_on(async {
        let mut client = Observer::connect(edge.address(), HOST, Protocol::Http11).await;
        let asking = Asking { method: "OPTIONS", path: "/api/x", body: None, fields: PREFLIGHT };
        let mut statuses = Vec::new();
        while statuses.len() < 100 && !statuses.contains(&429) {
            statuses.push(client.ask(HOST, &asking).await.unwrap().status);
        }
        statuses
    });
    assert_eq!((statuses[0], *statuses.last().unwrap()), (200, 429), "{statuses:?}");
}

// WebSockets.

impl Scene {
    fn shake_hands(&self, path: &str, more: &str) -> (u16, bool) {
        let before = self.iqueue.count();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: test/1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
        );
        let status = raw(self.edge.address(), HOST).send(head).status();
        (status, self.iqueue.count() > before)
    }
}

const NAMED: &str = "websocket_origins: [\"https://portal.test\", \"HTTPS://Other.test:8443\", \"null\", \
                     \"capacitor://localhost\", \"file://\", \"http://localhost:8100\"]";

#[test]
fn a_websocket_is_opened_by_pages_of_the_origins_that_the_service_names() {
    let routes = "routes: [{path: /public, access: public}, {path: /bearer, credentials: [bearer]}]";
    let named = scene(&format!("{NAMED}, {routes}"), "");
    let plain = scene(routes, "");
    let own = ["https://iqueue.test", "https://iqueue.test:443", "https://IQUEUE.test", "https://iqueue.test."];
    let listed = [
        "https://portal.test",
        "https://portal.test:443",
        "https://other.test:8443",
        "null",
        "capacitor://localhost",
        "CAPACITOR://localhost",
        "file://",
        "http://localhost:8100",
    ];
    let others = [
        "https://portal.test:8443",
        "http://portal.test",
        "https://other.test",
        "https://a.portal.test",
        "https://portal.test.evil.test",
        "https://portal.test/",
        "https://portal.test https://iqueue.test",
        "https://dextor.test",
        "wss://portal.test",
        "capacitor://localhost:1",
        "ionic://localhost",
        "file:///",
        "http://localhost",
        "NULL",
        "",
    ];
    for scene in [&named, &plain] {
        let cookie = format!("Cookie: {TOKEN_COOKIE}={}\r\n", scene.token());
        let bearer = format!("Authorization: Bearer {}\r\n", scene.token());
        for (path, more) in [("/", &cookie), ("/public/x", &String::new()), ("/bearer/x", &bearer)] {
            let ask = |origin: &str| scene.shake_hands(path, &format!("{more}Origin: {origin}\r\n"));
            let is_named = std::ptr::eq(scene, &raw const named);
            for origin in own {
                assert_eq!(ask(origin), (200, true), "{path} {origin}");
            }
            for origin in listed {
                let expected = if is_named { (200, true) } else { (400, false) };
                assert_eq!(ask(origin), expected, "{path} {origin} {is_named}");
            }
            for origin in others {
                assert_eq!(ask(origin), (400, false), "{path} {origin}");
            }
            let twice = format!("{more}Origin: https://portal.test\r\nOrigin: https://portal.test\r\n");
            assert_eq!(scene.shake_hands(path, &twice), (400, false), "{path}: two of them");
            assert_eq!(scene.shake_hands(path, more), (200, true), "{path}: no page");
        }
    }
    // A named page may open the WebSocket and is not signed in by that.
    assert_eq!(named.shake_hands("/", "Origin: https://portal.test\r\n"), (401, false));
    // Nothing but a handshake is asked for its origin.
    let fields = [("origin", "https://evil.test")];
    for protocol in PROTOCOLS {
        let asking = Asking { method: "GET", path: "/public/x", body: None, fields: &fields };
        assert_eq!(plain.ask(protocol, &asking), (200, true), "{protocol:?}");
    }
}

#[test]
fn origins_of_one_service_open_nothing_at_another() {
    let (iqueue, dextor) = (origin("iqueue"), origin("dextor"));
    let builder = edge().service_with("iqueue", &iqueue, NAMED).service_with("dextor", &dextor, "access: public");
    let edge = builder.start();
    let head = "GET / HTTP/1.1\r\nHost: dextor.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (origin, status) in [("https://portal.test", 400), ("null", 400), ("https://dextor.test", 200)] {
        let asked = format!("{head}Origin: {origin}\r\n\r\n");
        assert_eq!(raw(edge.address(), "dextor.test").send(asked).status(), status, "{origin}");
    }
}
