//! What an application hears of a request: who asks and from where, said by the edge alone.
//!
//! Numbers are those of the list of bad inputs in the threat report.

use hyper::Response as HttpResponse;

use crate::harness::edge::TOKEN_COOKIE;
use crate::harness::raw::{Ended, http2_request};
use crate::harness::{Client, Edge, Origin, edge, origin, raw};

const PUBLIC: &str = "routes: [{path: /public, access: public}]";

struct Scene {
    edge: Edge,
    iqueue: Origin,
}

fn scene() -> Scene {
    scene_with("", "")
}

fn scene_with(server: &str, service: &str) -> Scene {
    let iqueue = origin("iqueue");
    let service = if service.is_empty() { PUBLIC.to_owned() } else { format!("{PUBLIC}, {service}") };
    let builder = edge().service_with("iqueue", &iqueue, &service).certificate(&["nobody.test"]);
    let builder = if server.is_empty() { builder } else { builder.server(server) };
    Scene { edge: builder.start(), iqueue }
}

impl Scene {
    /// A request by bytes, so that a field's name travels exactly as it is written, with the cookie of `browser`.
    fn send(&self, browser: Option<&Client>, path: &str, fields: &str) -> u16 {
        let host = self.edge.host("iqueue");
        let token = browser.and_then(|browser| browser.cookie(&host, TOKEN_COOKIE));
        let cookie = token.map(|token| format!("Cookie: {TOKEN_COOKIE}={token}\r\n")).unwrap_or_default();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: test/1\r\n{cookie}{fields}\r\n");
        raw(self.edge.address(), &host).send(request).status()
    }

    fn dropped(&self, reason: &str) -> f64 {
        self.edge.metric("sentry_edge_headers_dropped_total", &format!("reason=\"{reason}\""))
    }
}

/// Input 87, and what else an application might read as one of ours.
#[test]
fn a_spoofed_identity_never_reaches_the_application() {
    let scene = scene();
    let browser = scene.edge.signed_in();
    for (fields, status) in [
        ("X-Forwarded-User: root\r\n", 200),
        ("x-forwarded-user: root\r\n", 200),
        ("X-FORWARDED-USER: root\r\n", 200),
        ("X-Forwarded-User: root\r\nX-Forwarded-User: root\r\n", 200),
        ("X-Forwarded-User: root\r\nX-FORWARDED-user: root\r\n", 200),
        ("X_Forwarded_User: root\r\n", 400),
        ("X.Forwarded.User: root\r\n", 400),
        ("X-Forwarded_User: root\r\n", 400),
        ("X_Forwarded.USER: root\r\n", 400),
        ("X-Forwarded-User: root\r\nX_Forwarded_User: root\r\n", 400),
        ("X-Forwarded-Groups: root\r\n", 200),
        ("X_Forwarded_Groups: root\r\n", 400),
        ("X-Forwarded-Email: root\r\n", 200),
        ("X.Forwarded.Email: root\r\n", 400),
        ("X-Sentry-Assertion: root\r\n", 200),
        ("X_Sentry_Assertion: root\r\n", 400),
        ("X_Request_ID: root\r\n", 400),
        ("X_Real.IP: root\r\n", 400),
    ] {
        let before = scene.iqueue.count();
        assert_eq!(scene.send(Some(&browser), "/", fields), status, "{fields}");
        if status == 400 {
            assert_eq!(scene.iqueue.count(), before, "{fields} reached the application");
            continue;
        }
        let seen = scene.iqueue.last();
        assert_eq!(seen.one("x-forwarded-user").as_deref(), Some("ada"), "{fields}");
        assert_eq!(seen.one("x-forwarded-groups").as_deref(), Some("admin"), "{fields}");
        let spoofed = seen.headers.iter().find(|(_, value)| value.as_bytes() == b"root");
        assert_eq!(spoofed, None, "{fields}");
    }
    assert!(scene.dropped("spoofed") >= 9.0, "refusals are counted");
    assert!(scene.dropped("reserved") >= 8.0, "so is what was taken out");
}

#[test]
fn a_public_page_is_told_of_nobody_whatever_the_client_says() {
    let scene = scene();
    let browser = scene.edge.signed_in();
    for name in
        ["X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "x-forwarded-user", "X-Sentry-Assertion"]
    {
        assert_eq!(scene.send(None, "/public", &format!("{name}: root\r\n")), 200);
        assert_eq!(scene.iqueue.last().all(name), Vec::<String>::new(), "{name}");
    }
    assert_eq!(scene.send(Some(&browser), "/public", ""), 200);
    assert_eq!(scene.iqueue.last().one("x-forwarded-user"), None, "nobody was checked, so nobody is named");
    assert_eq!(scene.iqueue.last().one("cookie"), None, "and the token is not handed over");
}

#[test]
fn identity_headers_have_the_names_that_the_service_wants() {
    let names = "identity_headers: {user: Remote-User, email: Remote-Email, roles: Remote-Roles}";
    let scene = scene_with("", names);
    let browser = scene.edge.signed_in();
    for fields in ["", "Remote-User: root\r\n", "REMOTE-USER: root\r\nremote-user: root\r\nRemote-Roles: root\r\n"] {
        assert_eq!(scene.send(Some(&browser), "/", fields), 200, "{fields}");
        let seen = scene.iqueue.last();
        assert_eq!(seen.one("remote-user").as_deref(), Some("ada"), "{fields}");
        assert_eq!(seen.one("remote-email").as_deref(), Some("ada@example.com"), "{fields}");
        assert_eq!(seen.one("remote-roles").as_deref(), Some("admin"), "{fields}");
        assert_eq!(seen.one("x-forwarded-user"), None, "the default name is not used beside it");
    }
    for fields in ["Remote_User: root\r\n", "remote.user: root\r\n", "REMOTE_USER: root\r\n"] {
        let before = scene.iqueue.count();
        assert_eq!(scene.send(Some(&browser), "/", fields), 400, "{fields}");
        assert_eq!(scene.iqueue.count(), before, "{fields}");
    }
}

#[test]
fn a_name_that_one_service_trusts_is_not_left_to_the_clients_of_another() {
    let (iqueue, dextor) = (origin("iqueue"), origin("dextor"));
    let edge = edge()
        .service_with("iqueue", &iqueue, "identity_headers: {user: Remote-User}")
        .service("dextor", &dextor)
        .start();
    let mut browser = edge.signed_in();
    browser.follow(&edge.url("dextor", "/"));
    browser.ask("GET", &edge.url("dextor", "/")).field("remote-user", "root").send();
    assert_eq!(dextor.last().one("remote-user"), None);
    assert_eq!(dextor.last().one("x-forwarded-user").as_deref(), Some("ada"));
}

#[test]
fn hop_by_hop_fields_end_at_the_edge() {
    let scene = scene();
    let fields = "Connection: X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
                  Proxy-Authorization: Basic eA==\r\nTE: trailers\r\nX-Kept: 1\r\n";
    assert_eq!(scene.send(None, "/public", fields), 200);
    let seen = scene.iqueue.last();
    for name in ["x-mine", "keep-alive", "proxy-connection", "proxy-authorization", "te"] {
        assert_eq!(seen.one(name), None, "{name}");
    }
    assert_eq!(seen.one("x-kept").as_deref(), Some("1"));
}

#[test]
fn the_application_is_told_where_a_request_came_from() {
    let scene = scene();
    for http2 in [false, true] {
        let mut client = scene.edge.client();
        if http2 {
            client = client.http2();
        }
        let response = client.get(&scene.edge.url("iqueue", "/public"));
        let seen = scene.iqueue.last();
        let port = scene.edge.address().port().to_string();
        assert_eq!(seen.one("x-forwarded-for").as_deref(), Some("127.0.0.1"));
        assert_eq!(seen.one("x-real-ip").as_deref(), Some("127.0.0.1"));
        assert_eq!(seen.one("x-forwarded-proto").as_deref(), Some("https"));
        assert_eq!(seen.one("x-forwarded-host"), Some(format!("iqueue.test:{port}")));
        assert_eq!(seen.one("x-forwarded-port"), Some(port.clone()));
        assert_eq!(seen.one("host"), Some(format!("iqueue.test:{port}")));
        assert_eq!(seen.one("x-request-id").as_deref(), response.header("x-request-id"), "one id on both sides");
    }
}

/// However a client spells its host: two services of one server are told apart there by the same name as here.
#[test]
fn an_application_hears_the_canonical_host() {
    let scene = scene();
    let port = scene.edge.address().port();
    let name = scene.edge.host("iqueue");
    for (sent, heard) in [
        (name.clone(), name.clone()),
        (name.to_uppercase(), name.clone()),
        (format!("{name}."), name.clone()),
        (format!("{name}:443"), name.clone()),
        (format!("{name}:0{port}"), format!("{name}:{port}")),
        (format!("{}.:000{port}", name.to_uppercase()), format!("{name}:{port}")),
    ] {
        for (target, fields) in [("", ""), ("", "Keep-Alive: 5\r\n"), (&*format!("https://{sent}"), "")] {
            let request = format!("GET {target}/public HTTP/1.1\r\nHost: {sent}\r\n{fields}\r\n");
            assert_eq!(raw(scene.edge.address(), &name).send(request).status(), 200, "{sent} {target} {fields}");
            let seen = scene.iqueue.last();
            let said = (seen.one("host"), seen.one("x-forwarded-host"), seen.one("x-forwarded-port"));
            let expected_port = heard.split_once(':').map_or("443", |(_, port)| port).to_owned();
            assert_eq!(
                said,
                (Some(heard.clone()), Some(heard.clone()), Some(expected_port)),
                "{sent} {target} {fields}"
            );
        }
        let plain = [(":method", "GET"), (":scheme", "https"), (":authority", &sent), (":path", "/public")];
        for more in [&[][..], &[("trailer", "x")]] {
            let ended = http2_request(scene.edge.address(), &name, &[&plain[..], more].concat());
            assert_eq!(ended, Ended::Answered(200), "{sent}");
            assert_eq!(scene.iqueue.last().one("host"), Some(heard.clone()), "{sent}");
        }
    }
}

/// What a client may say of itself in vain, unless it is a proxy that the configuration trusts.
const SAID_BY_CLIENTS: [(&str, &str); 13] = [
    ("X-Forwarded-For", "6.6.6.6"),
    ("X-Forwarded-Proto", "http"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-Port", "666"),
    ("X-Forwarded-Prefix", "/evil"),
    ("X-Forwarded-Server", "evil"),
    ("X-Forwarded-Uri", "/public"),
    ("X-Forwarded-Method", "OPTIONS"),
    ("Forwarded", "for=6.6.6.6;host=evil.example"),
    ("X-Real-IP", "6.6.6.6"),
    ("X-Original-URL", "/public"),
    ("X-Rewrite-URL", "/public"),
    // CGI would make HTTP_PROXY of it, and libraries would connect through it.
    ("Proxy", "http://evil.example:3128"),
];

#[test]
fn what_clients_say_of_the_way_here_is_dropped() {
    let scene = scene();
    for (name, value) in SAID_BY_CLIENTS {
        for fields in [format!("{name}: {value}\r\n"), format!("{name}: {value}\r\n{name}: {value}\r\n")] {
            assert_eq!(scene.send(None, "/public", &fields), 200, "{fields}");
            let seen = scene.iqueue.last();
            assert!(!seen.all(name).iter().any(|said| said == value), "{fields}: {:?}", seen.all(name));
        }
    }
    assert_eq!(scene.iqueue.last().one("proxy"), None);
}

/// Input 89.
#[test]
fn who_is_slowed_stays_slowed_under_a_made_up_address() {
    let iqueue = origin("iqueue");
    let edge = edge().service("iqueue", &iqueue).sentry("login: {failures_per_address: 1 per 15m}").start();
    let slowed = || edge.metric("sentry_edge_limits_reached_total", "limit=\"failures_per_address\"");
    let mut browser = edge.client();
    let form = browser.follow(&edge.url("iqueue", "/")).pop().unwrap();
    assert_eq!((edge.send_login(&mut browser, &form, "bob", "wrong").status, slowed()), (401, 0.0));
    let fields = ["csrf", "redirectURL", "state"].map(|name| (name, form.form_field(name)));
    let body: String = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields.iter().map(|(name, value)| (*name, value.as_str())))
        .extend_pairs([("username", "bob"), ("password", "wrong")])
        .finish();
    let claims = [("x-forwarded-for", "10.0.0.1"), ("x-real-ip", "10.0.0.1"), ("forwarded", "for=10.0.0.1")];
    for (number, (name, value)) in claims.into_iter().enumerate() {
        let sent = browser
            .ask("POST", &edge.url("sentry", "/login"))
            .accept("text/html")
            .field("content-type", "application/x-www-form-urlencoded")
            .field(name, value)
            .body(body.clone())
            .send();
        assert_eq!((sent.status, slowed()), (401, number as f64 + 1.0), "{name}");
    }
}

/// Input 90.
#[test]
fn a_proxy_protocol_line_from_anybody_opens_no_connection() {
    let scene = scene();
    let mut plain = crate::harness::raw::raw_plain(scene.edge.address());
    let rest = {
        plain.send("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET /public HTTP/1.1\r\nHost: iqueue.test\r\n\r\n");
        plain.rest()
    };
    assert!(!rest.starts_with(b"HTTP/"), "no TLS, no answer");
    let host = scene.edge.host("iqueue");
    let within = "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET /public HTTP/1.1\r\nHost: iqueue.test\r\n\r\n";
    assert_eq!(raw(scene.edge.address(), &host).send(within).status(), 400);
    assert_eq!(scene.iqueue.count(), 0);
}

#[test]
fn a_trusted_proxy_is_believed_about_the_client() {
    let scene = scene_with("trusted_proxies: [\"127.0.0.0/8\", \"10.0.0.0/8\"]", "");
    for (sent, chain, client) in [
        ("", "127.0.0.1", "127.0.0.1"),
        ("X-Forwarded-For: 192.0.2.7\r\n", "192.0.2.7, 127.0.0.1", "192.0.2.7"),
        ("X-Forwarded-For: 6.6.6.6, 192.0.2.7\r\n", "6.6.6.6, 192.0.2.7, 127.0.0.1", "192.0.2.7"),
        ("X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.1.1.1\r\n", "6.6.6.6, 192.0.2.7, 10.1.1.1, 127.0.0.1", "192.0.2.7"),
        ("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.7\r\n", "6.6.6.6, 192.0.2.7, 127.0.0.1", "192.0.2.7"),
        ("X-Forwarded-For: 2001:db8::1\r\n", "2001:db8::1, 127.0.0.1", "2001:db8::1"),
        ("X-Forwarded-For: 192.0.2.7, unknown\r\n", "192.0.2.7, unknown, 127.0.0.1", "127.0.0.1"),
    ] {
        assert_eq!(scene.send(None, "/public", sent), 200, "{sent}");
        let seen = scene.iqueue.last();
        assert_eq!(seen.one("x-forwarded-for").as_deref(), Some(chain), "{sent}");
        assert_eq!(seen.one("x-real-ip").as_deref(), Some(client), "{sent}");
    }
}

#[test]
fn even_a_trusted_proxy_does_not_say_who_the_user_is() {
    let scene = scene_with("trusted_proxies: [\"127.0.0.0/8\"]", "");
    let browser = scene.edge.signed_in();
    let spoofed = "X-Forwarded-User: root\r\nX-Forwarded-Groups: root\r\nX-Real-IP: 6.6.6.6\r\n";
    assert_eq!(scene.send(Some(&browser), "/", spoofed), 200);
    assert_eq!(scene.iqueue.last().one("x-forwarded-user").as_deref(), Some("ada"));
    assert_eq!(scene.iqueue.last().one("x-forwarded-groups").as_deref(), Some("admin"));
    assert_eq!(scene.iqueue.last().one("x-real-ip").as_deref(), Some("127.0.0.1"));
    assert_eq!(scene.send(None, "/public", spoofed), 200);
    assert_eq!(scene.iqueue.last().one("x-forwarded-user"), None);
}

#[test]
fn a_request_id_is_taken_from_a_trusted_proxy_alone() {
    let trusting = scene_with("trusted_proxies: [\"127.0.0.0/8\"]", "");
    for (sent, taken) in [
        ("abc-123", true),
        ("11111111-2222-3333-4444-555555555555", true),
        ("a b", false),
        ("<script>", false),
        (&"a".repeat(65), false),
    ] {
        for (scene, trusted) in [(&trusting, true), (&scene(), false)] {
            let mut client = scene.edge.client();
            let asked = client.ask("GET", &scene.edge.url("iqueue", "/public")).field("x-request-id", sent);
            let answered = asked.send().header("x-request-id").unwrap().to_owned();
            let seen = scene.iqueue.last().one("x-request-id").unwrap();
            assert_eq!(seen, answered, "one id on both sides");
            assert_eq!(seen == sent, taken && trusted, "{sent} from a peer that is trusted: {trusted}");
        }
    }
}

/// As nginx does by default.
#[test]
fn a_field_with_an_odd_name_is_dropped_and_counted() {
    let scene = scene();
    let odd = ["X_Custom", "X.Custom", "X~Custom", "X!Custom", "X'Custom", "X*Custom", "X|Custom", "X$Custom"];
    for name in odd {
        assert_eq!(scene.send(None, "/public", &format!("{name}: 1\r\nX-Plain: 1\r\n")), 200, "{name}");
        let seen = scene.iqueue.last();
        assert_eq!(seen.one("x-plain").as_deref(), Some("1"), "{name}");
        assert!(!seen.headers.keys().any(|seen| seen.as_str().contains("custom")), "{name}: {:?}", seen.headers);
    }
    assert_eq!(scene.dropped("odd_name"), odd.len() as f64);
}

#[test]
fn a_name_beyond_ascii_reaches_the_application_as_utf_8() {
    let iqueue = origin("iqueue");
    let edge = edge().service("iqueue", &iqueue).user("zoë", &["iqueue"], &["prüfer"]).start();
    let mut browser = edge.client();
    edge.sign_in(&mut browser, "iqueue", "zoë");
    assert_eq!(browser.open(&edge.url("iqueue", "/")).status, 200);
    assert_eq!(iqueue.last().one("x-forwarded-user").as_deref(), Some("zoë"));
    assert_eq!(iqueue.last().one("x-forwarded-groups").as_deref(), Some("prüfer"));
}

#[test]
fn every_response_has_a_request_id_of_its_own() {
    let scene = scene();
    let edge = &scene.edge;
    let mut browser = edge.client();
    let mut ids = Vec::new();
    for (method, host, path, status) in [
        ("GET", "iqueue", "/public", 200),
        ("GET", "iqueue", "/", 302),
        ("POST", "iqueue", "/", 401),
        ("TRACE", "iqueue", "/", 405),
        ("GET", "nobody", "/", 421),
        ("GET", "iqueue", "/%zz", 400),
        ("GET", "iqueue", "/.sentry/nothing", 404),
        ("GET", "iqueue", "/.sentry/currentUser", 200),
        ("GET", "sentry", "/login", 200),
        ("GET", "sentry", "/noCookie?redirectURL=https://evil.example/", 400),
        ("GET", "sentry", "/.well-known/jwks.json", 200),
    ] {
        let response = browser.ask(method, &edge.url(host, path)).accept("text/html").send();
        // A script's POST asks for no page.
        let status = if method == "POST" { 401 } else { status };
        assert_eq!(response.status, status, "{method} {host} {path}: {}", response.body);
        let id = response.header("x-request-id").unwrap_or_else(|| panic!("no id: {method} {host} {path}"));
        assert!(uuid_like(id), "{id}");
        ids.push(id.to_owned());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 11, "no id twice");
}

fn uuid_like(id: &str) -> bool {
    id.len() == 36 && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

#[test]
fn an_application_cannot_put_another_request_id_on_its_response() {
    let iqueue =
        Origin::answering(|_| HttpResponse::builder().header("x-request-id", "theirs").body("hello".into()).unwrap());
    let edge = edge().service_with("iqueue", &iqueue, PUBLIC).start();
    let response = edge.client().get(&edge.url("iqueue", "/public"));
    assert_eq!(response.headers.get_all("x-request-id").iter().count(), 1);
    assert_eq!(response.header("x-request-id"), iqueue.last().one("x-request-id").as_deref());
}

#[test]
fn all_that_the_edge_says_itself_is_kept_out_of_caches_frames_and_other_sites() {
    let edge = edge().service("iqueue", &origin("iqueue")).start();
    let mut client = edge.client();
    for (method, url, accept, status, kind) in [
        ("GET", edge.url("sentry", "/login"), "text/html", 200, "text/html"),
        ("GET", edge.url("sentry", "/nowhere"), "text/html", 404, "text/html"),
        ("GET", edge.url("sentry", "/nowhere"), "*/*", 404, "application/json"),
        ("POST", edge.url("sentry", "/noCookie"), "*/*", 405, "application/json"),
        ("GET", edge.url("sentry", "/currentUser"), "*/*", 200, "application/json"),
        ("GET", edge.url("iqueue", "/"), "*/*", 401, "application/json"),
        ("GET", edge.url("iqueue", "/"), "text/html", 302, ""),
        ("TRACE", edge.url("iqueue", "/"), "text/html", 405, "text/html"),
        ("GET", edge.url("dextor", "/"), "text/html", 421, "text/html"),
    ] {
        let response = client.ask(method, &url).accept(accept).send();
        let what = format!("{method} {url} as {accept}");
        assert_eq!(response.status, status, "{what}");
        assert_eq!(response.header("cache-control"), Some("no-store"), "{what}");
        // A form leads back to us, and says so.
        let policy = if response.body.contains("<form") { "same-origin" } else { "no-referrer" };
        assert_eq!(response.header("referrer-policy"), Some(policy), "{what}");
        assert_eq!(response.header("cross-origin-resource-policy"), Some("same-origin"), "{what}");
        assert!(response.header("strict-transport-security").is_some(), "{what}");
        assert_eq!(response.header("server"), None, "{what}");
        if kind.is_empty() {
            continue;
        }
        assert!(response.header("content-type").unwrap().starts_with(kind), "{what}");
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{what}");
        let policy = response.header("content-security-policy").expect(&what);
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{what}: {policy}");
        if kind == "text/html" {
            assert_eq!(response.header("x-frame-options"), Some("DENY"), "{what}");
            assert_eq!(response.header("cross-origin-opener-policy"), Some("same-origin"), "{what}");
        }
    }
}
