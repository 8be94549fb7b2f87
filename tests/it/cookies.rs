//! Cookies and bearer tokens: ours found among others, kept from applications unless they ask, and never theirs to
//! set. Numbers are those of the threat report's list of bad inputs.

use serde_json::{Value, json};

use crate::harness::client::send_raw;
use crate::harness::edge::{HMAC_KEY, STATE_COOKIE, TOKEN_COOKIE};
use crate::harness::forgery::{claims_of, header_of, hmac_signed, part};
use crate::harness::{Client, Edge, Origin, browser, edge, origin};

const LOGIN_COOKIE: &str = "__Host-SSOLogin";

struct Scene {
    edge: Edge,
    iqueue: Origin,
    /// Signed in at iqueue.
    browser: Client,
    token: String,
}

fn scene() -> Scene {
    scene_with("")
}

/// iqueue with more keys in its configuration.
fn scene_with(more: &str) -> Scene {
    let iqueue = origin("iqueue");
    let edge = edge().service_with("iqueue", &iqueue, more).start();
    signed_in(edge, iqueue)
}

fn signed_in(edge: Edge, iqueue: Origin) -> Scene {
    let browser = edge.signed_in();
    let token = browser.cookie(&edge.host("iqueue"), TOKEN_COOKIE).unwrap().to_owned();
    Scene { edge, iqueue, browser, token }
}

impl Scene {
    fn url(&self, path: &str) -> String {
        self.edge.url("iqueue", path)
    }

    fn refused_for(&self, reason: &str) -> f64 {
        let labels = format!("outcome=\"login_required\",reason=\"{reason}\",service=\"iqueue\"");
        self.edge.metric("sentry_edge_auth_decisions_total", &labels)
    }

    /// A navigation with these Cookie fields, octet for octet, over HTTP/1.1; answers status line, headers and body.
    fn open_with(&self, fields: &[&[u8]]) -> String {
        let host = self.edge.host("iqueue");
        let port = self.edge.address().port();
        let head = format!("GET / HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: test/1\r\nAccept: text/html\r\n");
        let mut bytes = head.into_bytes();
        for field in fields {
            bytes.extend_from_slice(b"Cookie: ");
            bytes.extend_from_slice(field);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"Connection: close\r\n\r\n");
        send_raw(self.edge.address(), &host, &bytes)
    }

    /// The Cookie field that the application saw last.
    fn seen_cookies(&self) -> Option<String> {
        self.iqueue.last().one("cookie")
    }
}

// ---- which cookie is ours ----

/// Inputs 153 and 154: one of two may have been planted by a sibling host.
#[test]
fn two_cookies_of_our_name_count_as_none() {
    let scene = scene();
    let (heard, token) = (scene.iqueue.count(), &scene.token);
    let (ours, url) = (format!("{TOKEN_COOKIE}={token}"), scene.url("/"));
    let rows: [(&str, Vec<String>); 6] = [
        ("153: the good one first", vec![format!("{ours}; {TOKEN_COOKIE}=B")]),
        ("153: the good one last", vec![format!("{TOKEN_COOKIE}=A; {ours}")]),
        ("153: twice the same", vec![format!("{ours}; {ours}")]),
        ("153: one of them empty", vec![format!("{ours}; {TOKEN_COOKIE}=")]),
        ("154: two fields", vec![ours.clone(), format!("{TOKEN_COOKIE}=B")]),
        ("154: two fields with others", vec![format!("a=1; {ours}"), format!("b=2; {TOKEN_COOKIE}=B; c=3")]),
    ];
    for (what, fields) in rows {
        let before = scene.refused_for("several_cookies");
        let bytes: Vec<&[u8]> = fields.iter().map(String::as_bytes).collect();
        let answer = scene.open_with(&bytes);
        assert!(answer.starts_with("HTTP/1.1 302") && answer.contains("/noCookie?"), "{what}: {answer}");
        assert_eq!(scene.refused_for("several_cookies"), before + 1.0, "{what}");

        let mut http2 = scene.edge.client().http2();
        let asking = http2.ask("GET", &url);
        let asking = fields.iter().fold(asking, |asking, field| asking.field("cookie", field));
        assert_eq!(asking.send().status, 401, "{what}, over HTTP/2");
        assert_eq!(scene.refused_for("several_cookies"), before + 2.0, "{what}, over HTTP/2");
    }
    assert_eq!(scene.iqueue.count(), heard);
}

/// Input 155 (RFC 9113 §8.2.3).
#[test]
fn http_2_crumbs_are_one_session_and_the_application_gets_one_line() {
    let scene = scene();
    let mut http2 = scene.edge.client().http2();
    let url = scene.url("/");
    let ours = format!("{TOKEN_COOKIE}={}", scene.token);
    let crumbs = ["a=1", &ours, "b=\"2\"", "c"];
    let page = crumbs.iter().fold(http2.ask("GET", &url), |asking, crumb| asking.field("cookie", crumb)).send();
    assert_eq!(page.status, 200, "155");
    assert_eq!(scene.seen_cookies().as_deref(), Some("a=1; b=\"2\"; c"), "155: one line, without ours");
    http2.ask("GET", &url).field("cookie", &ours).send();
    assert_eq!(scene.seen_cookies(), None, "155: no line at all where there was nothing else");
}

/// Inputs 156, 157, 158 and 160.
#[test]
fn another_spelling_is_another_cookie() {
    let scene = scene();
    let heard = scene.iqueue.count();
    let token = scene.token.as_bytes();
    let name = TOKEN_COOKIE.as_bytes();
    let cookie = |before: &[u8], name: &[u8], between: &[u8]| [before, name, between, token].concat();
    for (what, field) in [
        ("156: U+2000 before the name", cookie(b"\xe2\x80\x80", name, b"=")),
        ("156: a no-break space before the name", cookie(b"\xc2\xa0", name, b"=")),
        ("156: NEL before the name", cookie(b"\x85", name, b"=")),
        ("156: a no-break space after the name", cookie(b"", name, b"\xc2\xa0=")),
        ("157: in small letters", cookie(b"", name.to_ascii_lowercase().as_slice(), b"=")),
        ("157: in capitals", cookie(b"", name.to_ascii_uppercase().as_slice(), b"=")),
        ("157: the prefix alone in small letters", cookie(b"", b"__host-JWTCookie", b"=")),
        ("160: without a name", cookie(b"=", name, b"=")),
        ("160: without a name, two", cookie(b"==", name, b"=")),
        ("a longer name", cookie(b"x", name, b"=")),
        ("a name that goes on", cookie(b"", name, b"2=")),
        ("a colon", cookie(b"", name, b":")),
        ("no equals sign", cookie(b"", name, b" ")),
        ("behind a comma", cookie(b"a=1, ", name, b"=")),
        ("inside another's quotes", [b"a=\"; ".as_slice(), b"b=", name, b"=", token, b"\""].concat()),
    ] {
        let before = scene.refused_for("no_token");
        let answer = scene.open_with(&[&field]);
        assert!(answer.starts_with("HTTP/1.1 302") && answer.contains("/noCookie?"), "{what}: {answer}");
        assert_eq!(scene.refused_for("no_token"), before + 1.0, "{what}: not ours at all");
        assert!(!answer.contains(&format!("{TOKEN_COOKIE}=;")), "{what}: nothing of ours to clear");
    }
    for (what, before) in [("a vertical tab", b"\x0b".as_slice()), ("NUL", b"\0"), ("a form feed", b"\x0c")] {
        let answer = scene.open_with(&[&cookie(before, name, b"=")]);
        assert!(answer.starts_with("HTTP/1.1 400"), "156: {what} is in no header: {answer}");
    }
    assert_eq!(scene.iqueue.count(), heard);
}

/// Inputs 158 and 159: quotes belong to the value, so a value in quotes is no token.
#[test]
fn a_quoted_value_is_no_token() {
    let scene = scene();
    let heard = scene.iqueue.count();
    for (what, field) in [
        ("158", format!("$Version=1; {TOKEN_COOKIE}=\"A\"; $Path=/")),
        ("158", format!("$Version=1; {TOKEN_COOKIE}=\"{}\"; $Path=/", scene.token)),
        ("159", format!("{TOKEN_COOKIE}=\"{}\"", scene.token)),
        ("159: one quote", format!("{TOKEN_COOKIE}=\"{}", scene.token)),
        ("percent-encoded", format!("{TOKEN_COOKIE}={}", scene.token.replace('.', "%2e"))),
        ("empty", format!("{TOKEN_COOKIE}=")),
    ] {
        let before = scene.refused_for("malformed");
        let answer = scene.open_with(&[field.as_bytes()]);
        assert!(answer.starts_with("HTTP/1.1 302") && answer.contains("/noCookie?"), "{what}: {answer}");
        assert!(
            answer.contains(&format!("{TOKEN_COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0")),
            "{what}"
        );
        assert_eq!(scene.refused_for("malformed"), before + 1.0, "{what}");
    }
    assert_eq!(scene.iqueue.count(), heard);
    let spaced = format!("a=1 ;\t{TOKEN_COOKIE} = {} ; b=2", scene.token);
    assert!(scene.open_with(&[spaced.as_bytes()]).starts_with("HTTP/1.1 200"), "space and tab alone are trimmed");
}

/// Input 161.
#[test]
fn two_hundred_cookies_arrive_whole_and_in_order() {
    let scene = scene();
    let others: Vec<String> = (0..200).map(|at| format!("c{at}={}", "v".repeat(140))).collect();
    let ours = format!("{TOKEN_COOKIE}={}", scene.token);
    let all = [&others[..100], std::slice::from_ref(&ours), &others[100..]].concat().join("; ");
    assert!(all.len() > 28 * 1024, "{}", all.len());
    let answer = scene.open_with(&[all.as_bytes()]);
    assert!(answer.starts_with("HTTP/1.1 200"), "161: {answer}");
    assert_eq!(scene.seen_cookies(), Some(others.join("; ")), "161: nothing lost, nothing truncated");

    let heard = scene.iqueue.count();
    let more = format!("{all}; more={}", "v".repeat(8 * 1024));
    assert!(scene.open_with(&[more.as_bytes()]).starts_with("HTTP/1.1 431"), "161: too much is refused whole");
    assert_eq!(scene.iqueue.count(), heard);

    let mut http2 = scene.edge.client().http2();
    let url = scene.url("/");
    let small: Vec<String> = (0..200).map(|at| format!("c{at}=v")).collect();
    let asking =
        small.iter().fold(http2.ask("GET", &url).field("cookie", &ours), |asking, crumb| asking.field("cookie", crumb));
    assert_eq!(asking.send().status, 200, "161: crumbs are one field, not two hundred");
    assert_eq!(scene.seen_cookies(), Some(small.join("; ")));
}

/// Inputs 167 and 168.
#[test]
fn odd_octets_and_empty_fields_harm_nobody() {
    let scene = scene();
    let heard = scene.iqueue.count();
    let every_high_octet: Vec<u8> = (0x80..=0xff).collect();
    let named = [TOKEN_COOKIE.as_bytes(), b"=", &every_high_octet].concat();
    for (what, field, reason) in [
        ("167: octets alone", every_high_octet.as_slice(), "no_token"),
        ("167: as our value", &named, "malformed"),
        ("168: an empty field", b"", "no_token"),
        ("168: separators alone", b";;; ;\t;", "no_token"),
        ("168: equals signs alone", b"=;==;=", "no_token"),
    ] {
        let before = scene.refused_for(reason);
        let answer = scene.open_with(&[field]);
        assert!(answer.starts_with("HTTP/1.1 302"), "{what}: {answer}");
        assert_eq!(scene.refused_for(reason), before + 1.0, "{what}");
    }
    assert_eq!(scene.iqueue.count(), heard);
    let beside = [b"odd=\xff\x80; ", TOKEN_COOKIE.as_bytes(), b"=", scene.token.as_bytes()].concat();
    assert!(
        scene.open_with(&[&beside]).starts_with("HTTP/1.1 200"),
        "167: beside a good cookie they are the application's"
    );
    assert_eq!(scene.iqueue.last().headers["cookie"].as_bytes(), b"odd=\xff\x80", "octet for octet");
}

/// Input 164, in a real browser: an application on a sibling host tries to sign people in as somebody else.
#[test]
fn a_sibling_host_cannot_plant_our_cookies_in_chromium() {
    let (iqueue, evil) = (origin("iqueue"), origin("evil"));
    let edge = edge()
        .domain("apps.localhost")
        .service_with("iqueue", &iqueue, "routes: [{path: /status, access: public}]")
        .service_with("evil", &evil, "access: public")
        .start();
    let attacker = edge.signed_in();
    let token = attacker.cookie(&edge.host("iqueue"), TOKEN_COOKIE).unwrap();
    let victim = browser();
    victim.open(&edge.url("evil", "/"));
    for cookie in [
        format!("{TOKEN_COOKIE}={token}; Domain=apps.localhost; Path=/; Secure"),
        format!("{TOKEN_COOKIE}={token}; Domain=apps.localhost; Path=/"),
        format!("__host-jwtcookie={token}; Domain=apps.localhost; Path=/; Secure"),
        format!("={TOKEN_COOKIE}={token}; Domain=apps.localhost; Path=/; Secure"),
        format!("{STATE_COOKIE}={}.1.1700000000; Domain=apps.localhost; Path=/; Secure", "a".repeat(22)),
        "plain=planted; Domain=apps.localhost; Path=/; Secure".to_owned(),
    ] {
        victim.run(&format!("document.cookie = {cookie:?}"));
    }
    victim.open(&edge.url("iqueue", "/status"));
    assert_eq!(iqueue.last().one("cookie").as_deref(), Some("plain=planted"), "164: cookies do travel, ours do not");
    let heard = iqueue.count();
    victim.open(&edge.url("iqueue", "/"));
    assert!(victim.has("input[name=password]"), "164: {}", victim.text());
    assert_eq!(iqueue.count(), heard);
}

// ---- what we set ----

/// Inputs 162 and 165.
#[test]
fn our_cookies_are_host_only_secure_and_cleared_as_they_were_set() {
    let iqueue = origin("iqueue");
    let edge = edge().service("iqueue", &iqueue).start();
    let mut browser = edge.client();
    let mut hops = edge.sign_in(&mut browser, "iqueue", "ada");
    hops.extend(browser.follow(&edge.url("iqueue", "/.sentry/logout")));
    let set: Vec<String> = hops.iter().flat_map(|hop| hop.set_cookies()).map(str::to_owned).collect();
    let of =
        |name: &str| -> Vec<&String> { set.iter().filter(|cookie| cookie.starts_with(&format!("{name}="))).collect() };
    assert_eq!((of(TOKEN_COOKIE).len(), of(STATE_COOKIE).len(), of(LOGIN_COOKIE).len()), (4, 2, 1), "{set:?}");
    for cookie in &set {
        assert!(cookie.contains("; Path=/; Secure; HttpOnly; SameSite="), "162: {cookie}");
        assert!(!cookie.to_lowercase().contains("domain"), "162: {cookie}");
        assert!(!cookie.to_lowercase().contains("expires"), "162: {cookie}");
        assert!(cookie.split(';').next().unwrap().len() <= 4096, "162: {cookie}");
    }
    let attributes = "; Path=/; Secure; HttpOnly; SameSite=Lax";
    assert!(of(TOKEN_COOKIE)[..2].iter().all(|cookie| cookie.ends_with(attributes)), "162: {set:?}");
    assert_eq!(*of(TOKEN_COOKIE)[2], format!("{TOKEN_COOKIE}={attributes}; Max-Age=0"), "165");
    assert_eq!(*of(STATE_COOKIE)[1], format!("{STATE_COOKIE}={attributes}; Max-Age=0"), "165");
    assert!(of(LOGIN_COOKIE)[0].ends_with("SameSite=Strict"));
}

#[test]
fn configured_names_and_same_site_hold_for_setting_and_clearing() {
    let iqueue = origin("iqueue");
    let cookie = "cookie: {name: __Host-Mine, state_name: __Host-MyState, same_site: strict}";
    let edge = edge().service("iqueue", &iqueue).sentry(cookie).start();
    let mut browser = edge.client();
    let hops = edge.sign_in(&mut browser, "iqueue", "ada");
    let set: Vec<&str> = hops.iter().flat_map(|hop| hop.set_cookies()).collect();
    let strict = |name: &str| set.iter().any(|cookie| cookie.starts_with(name) && cookie.contains("SameSite=Strict"));
    assert!(strict("__Host-Mine=eyJ"), "{set:?}");
    assert!(!strict("__Host-MyState="), "the state comes back by a link from the sign-on host: {set:?}");
    assert!(!set.iter().any(|cookie| cookie.contains(TOKEN_COOKIE)));
    let out = browser.open(&edge.url("iqueue", "/.sentry/logout"));
    let cleared = "__Host-Mine=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0";
    assert!(out.set_cookies().contains(&cleared), "{:?}", out.set_cookies());
}

// ---- what an application may set ----

/// Inputs 163 and 166.
#[test]
fn an_application_sets_its_own_cookies_and_none_of_ours() {
    let iqueue = Origin::answering(|_| {
        let mut response = hyper::Response::new("".into());
        for cookie in [
            "a=1; Path=/",
            "__Host-JWTCookie=x; Path=/; Secure",
            "__Host-JWTCookie=; Max-Age=0",
            "__host-jwtcookie=x",
            " __Host-JWTCookie = x",
            "__Host-JWTCookie",
            "=__Host-JWTCookie=x; Path=/; Secure",
            "__Host-SSOState=x",
            "__Host-SSOLogin=x",
            "__Host-SSODevice=x",
            "b=__Host-JWTCookie=x",
            "__Host-JWTCookie2=x",
            "c=3; Max-Age=18446744073709551615",
            "d=4; Max-Age=-99999999999999999999999",
        ] {
            response.headers_mut().append("set-cookie", cookie.parse().unwrap());
        }
        response
    });
    let mut scene = signed_in(edge().service("iqueue", &iqueue).start(), iqueue);
    let page = scene.browser.open(&scene.edge.url("iqueue", "/"));
    let kept = [
        "a=1; Path=/",
        "b=__Host-JWTCookie=x",
        "__Host-JWTCookie2=x",
        "c=3; Max-Age=18446744073709551615",
        "d=4; Max-Age=-99999999999999999999999",
    ];
    assert_eq!(page.set_cookies(), kept, "166: ours do not pass; 163: the others do, as they are");
    assert_eq!(scene.browser.open(&scene.edge.url("iqueue", "/")).status, 200, "the session is as it was");
}

// ---- what an application sees ----

#[test]
fn the_application_never_sees_our_cookies() {
    for http2 in [false, true] {
        let scene = scene_with("routes: [{path: /status, access: public}]");
        let mut browser = if http2 { scene.browser.clone().http2() } else { scene.browser.clone() };
        let host = scene.edge.host("iqueue");
        for (name, value) in [(STATE_COOKIE, "x.1.2"), (LOGIN_COOKIE, "y"), ("own", "1"), ("__Host-JWTCookie2", "2")] {
            browser.set_cookie(&host, name, value);
        }
        for path in ["/", "/status"] {
            assert_eq!(browser.open(&scene.url(path)).status, 200);
            assert_eq!(scene.seen_cookies().as_deref(), Some("__Host-JWTCookie2=2; own=1"), "{path}, HTTP/2: {http2}");
            assert_eq!(scene.iqueue.last().one("authorization"), None);
            assert_eq!(scene.iqueue.last().one("x-sentry-assertion"), None);
        }
        let text = format!("{:?}", scene.iqueue.seen());
        assert!(!text.contains(&scene.token), "in no header of any request");
    }
}

/// Input 160, from the application's side: taking ours out must not turn what is left into ours.
#[test]
fn what_is_left_of_a_cookie_field_is_left_as_it_was() {
    let scene = scene();
    let ours = format!("{TOKEN_COOKIE}={}", scene.token);
    for (sent, left) in [
        (format!("={TOKEN_COOKIE}=planted; {ours}"), format!("={TOKEN_COOKIE}=planted")),
        (format!("{ours}; ={TOKEN_COOKIE}=planted; a=1"), format!("={TOKEN_COOKIE}=planted; a=1")),
        (format!("a = 1; {ours}; b=\" 2\""), "a = 1; b=\" 2\"".to_owned()),
        (format!("a; {ours}; =b; c=; d==e"), "a; =b; c=; d==e".to_owned()),
    ] {
        assert!(scene.open_with(&[sent.as_bytes()]).starts_with("HTTP/1.1 200"), "{sent}");
        assert_eq!(scene.seen_cookies(), Some(left), "160: {sent}");
    }
}

#[test]
fn forward_token_cookie_leaves_the_token_cookie_and_no_other_of_ours() {
    for http2 in [false, true] {
        let scene = scene_with("forward_token: cookie");
        let mut browser = if http2 { scene.browser.clone().http2() } else { scene.browser.clone() };
        browser.set_cookie(&scene.edge.host("iqueue"), STATE_COOKIE, "x.1.2");
        browser.set_cookie(&scene.edge.host("iqueue"), "own", "1");
        assert_eq!(browser.open(&scene.url("/")).status, 200);
        let expected = format!("{TOKEN_COOKIE}={}; own=1", scene.token);
        assert_eq!(scene.seen_cookies(), Some(expected), "HTTP/2: {http2}");
        assert_eq!(scene.iqueue.last().one("authorization"), None);
    }
}

#[test]
fn forward_token_bearer_replaces_whatever_authorization_the_client_sent() {
    let scene = scene_with("forward_token: bearer, routes: [{path: /status, access: public}]");
    let mut browser = scene.browser.clone();
    let url = scene.url("/");
    assert_eq!(browser.ask("GET", &url).field("authorization", "Bearer of-somebody-else").send().status, 200);
    assert_eq!(scene.iqueue.last().one("authorization"), Some(format!("Bearer {}", scene.token)));
    assert_eq!(scene.seen_cookies(), None);
    assert_eq!(browser.open(&scene.url("/status")).status, 200);
    assert_eq!(scene.iqueue.last().one("authorization"), None, "nobody was asked who they are on a public page");
}

/// An application that finds the token there takes any that it finds for one that was verified.
#[test]
fn with_forward_token_bearer_no_authorization_of_a_client_reaches_the_application() {
    let routes = "routes: [{path: /status, access: public}, {path: /portal, access: optional}, \
                  {path: /api, preflight: forward}, {path: /both, access: optional, credentials: [cookie, bearer]}]";
    let scene = scene_with(&format!("forward_token: bearer, {routes}"));
    let preflight = [("origin", "https://portal.test"), ("access-control-request-method", "PUT")];
    for http2 in [false, true] {
        for authorization in ["Bearer of-somebody-else", "bearer x", "Basic YTpi", "x"] {
            for (method, path, fields) in [
                ("GET", "/status", &[][..]),
                ("POST", "/status", &[]),
                ("GET", "/portal", &[]),
                ("POST", "/portal", &[]),
                ("GET", "/both", &[]),
                ("OPTIONS", "/api", &preflight),
            ] {
                let client = scene.edge.client();
                let mut client = if http2 { client.http2() } else { client };
                let request = client.ask(method, &scene.url(path)).field("authorization", authorization);
                let request = fields.iter().fold(request, |request, (name, value)| request.field(name, value));
                assert_eq!(request.send().status, 200, "{method} {path} {authorization}");
                let seen = scene.iqueue.last();
                assert_eq!(seen.method, method);
                assert_eq!(seen.all("authorization"), [""; 0], "HTTP/2: {http2} {method} {path} {authorization}");
            }
        }
        let mut browser = scene.browser.clone();
        let request = browser.ask("GET", &scene.url("/portal")).field("authorization", "Bearer of-somebody-else");
        assert_eq!(request.send().status, 200);
        assert_eq!(scene.iqueue.last().one("authorization"), Some(format!("Bearer {}", scene.token)));
    }
}

#[test]
fn the_applications_own_authorization_passes_where_no_bearer_token_is_taken() {
    let scene = scene();
    let mut browser = scene.browser.clone();
    let basic = "Basic YTpi";
    assert_eq!(browser.ask("GET", &scene.url("/")).field("authorization", basic).send().status, 200);
    assert_eq!(scene.iqueue.last().one("authorization").as_deref(), Some(basic));
}

#[test]
fn an_assertion_says_who_the_user_is_for_a_minute_and_for_that_service_alone() {
    let scene = scene_with("identity_assertion: true, routes: [{path: /status, access: public}]");
    let mut browser = scene.browser.clone();
    let url = scene.url("/");
    assert_eq!(browser.ask("GET", &url).field("x-sentry-assertion", "forged").send().status, 200);
    let assertion = scene.iqueue.last().one("x-sentry-assertion").unwrap();
    assert_eq!(header_of(&assertion), json!({"alg": "HS256", "typ": "assertion+jwt", "kid": "main"}));
    let claims = claims_of(&assertion);
    assert_eq!((&claims["aud"], &claims["iss"]), (&json!("iqueue"), &json!("https://sentry.test")));
    assert_eq!((&claims["name"], &claims["email"]), (&json!("ada"), &json!("ada@example.com")));
    let (now, number) = (scene.edge.clock.now().seconds(), |name: &str| claims[name].as_u64().unwrap());
    assert!(number("exp") <= now + 60 && number("exp") > now, "{claims}");
    // An application whose clock is behind by less than 30 seconds takes it, with a leeway of none.
    assert_eq!((number("exp") - number("iat"), number("exp") - number("nbf")), (90, 90));
    assert_eq!(assertion, hmac_signed(part(&assertion, 0), part(&assertion, 1), HMAC_KEY.as_bytes()), "signed");
    assert_eq!(scene.seen_cookies(), None);

    let heard = scene.iqueue.count();
    let mut thief = scene.edge.client();
    thief.set_cookie(&scene.edge.host("iqueue"), TOKEN_COOKIE, &assertion);
    assert_eq!(thief.open(&url).status, 302, "it opens no session");
    assert_eq!(scene.refused_for("malformed"), 1.0);
    assert_eq!(scene.iqueue.count(), heard);

    browser.ask("GET", &scene.url("/status")).field("x-sentry-assertion", "forged").send();
    assert_eq!(scene.iqueue.last().one("x-sentry-assertion"), None, "nobody is asserted on a public page");
}

#[test]
fn no_assertion_is_made_for_a_service_that_did_not_ask() {
    let scene = scene();
    let mut browser = scene.browser.clone();
    assert_eq!(browser.ask("GET", &scene.url("/")).field("x-sentry-assertion", "forged").send().status, 200);
    assert_eq!(scene.iqueue.last().one("x-sentry-assertion"), None);
}

// ---- bearer ----

const API: &str = "routes: [{path: /api, credentials: [cookie, bearer]}, {path: /machine, credentials: [bearer]}]";

fn api_scene(more: &str) -> Scene {
    let iqueue = origin("iqueue");
    let edge = edge().service_with("iqueue", &iqueue, &format!("{API}{more}")).start();
    signed_in(edge, iqueue)
}

#[test]
fn a_bearer_token_opens_a_route_that_takes_one() {
    let scene = api_scene("");
    for scheme in ["Bearer", "bearer", "BEARER", "Bearer "] {
        for path in ["/api/x?y", "/machine/x"] {
            let mut program = scene.edge.client();
            let url = scene.url(path);
            let answer = program.ask("GET", &url).field("authorization", &format!("{scheme} {}", scene.token)).send();
            assert_eq!((answer.status, answer.body.as_str()), (200, "hello from iqueue"), "{scheme:?} {path}");
            assert_eq!(answer.set_cookies(), Vec::<&str>::new());
            let seen = scene.iqueue.last();
            assert_eq!((seen.target.as_str(), seen.one("x-forwarded-user").as_deref()), (path, Some("ada")));
            assert_eq!(seen.one("authorization"), None, "the application has not asked for the token");
        }
    }
    let with_cookie = scene.browser.clone().open(&scene.url("/api/x"));
    assert_eq!(with_cookie.status, 200, "a cookie does there as well");
}

#[test]
fn forward_token_bearer_hands_a_bearer_token_on() {
    let scene = api_scene(", forward_token: bearer");
    let bearer = format!("Bearer {}", scene.token);
    let mut program = scene.edge.client();
    assert_eq!(program.ask("GET", &scene.url("/api")).field("authorization", &bearer).send().status, 200);
    assert_eq!(scene.iqueue.last().one("authorization"), Some(bearer));
}

/// RFC 6750 §3.
#[test]
fn a_wrong_bearer_token_gets_401_in_json_and_a_challenge() {
    let scene = api_scene("");
    let expired_session = {
        let mut other = scene.edge.signed_in();
        let token = other.cookie(&scene.edge.host("iqueue"), TOKEN_COOKIE).unwrap().to_owned();
        other.open(&scene.edge.url("sentry", "/logout"));
        token
    };
    let sentrys = scene.browser.cookie(&scene.edge.host("sentry"), TOKEN_COOKIE).unwrap();
    let heard = scene.iqueue.count();
    let invalid = "Bearer realm=\"sentry-edge\", error=\"invalid_token\"";
    let absent = "Bearer realm=\"sentry-edge\"";
    for (what, authorization, reason, challenge) in [
        ("garbage", "Bearer garbage".to_owned(), "malformed", invalid),
        ("a scheme alone, its blank trimmed as RFC 9110 says", "Bearer ".to_owned(), "no_token", absent),
        ("the sign-on host's token", format!("Bearer {sentrys}"), "wrong_audience", invalid),
        ("a session that has ended", format!("Bearer {expired_session}"), "no_session", invalid),
        ("another scheme", format!("Basic {}", scene.token), "no_token", absent),
        ("no scheme", scene.token.clone(), "no_token", absent),
        ("a scheme and a colon", format!("Bearer:{}", scene.token), "no_token", absent),
        ("nothing", String::new(), "no_token", absent),
    ] {
        for accept in ["*/*", "application/json", "text/html"] {
            for path in ["/api/x", "/machine"] {
                // On /api without a bearer token a person may be signed on, so a navigation is sent to do so.
                if accept == "text/html" && path == "/api/x" && reason == "no_token" {
                    continue;
                }
                let what = format!("{what}, {path}, Accept: {accept}");
                let before = scene.refused_for(reason);
                let mut program = scene.edge.client();
                let url = scene.url(path);
                let asking = program.ask("GET", &url).accept(accept).field("authorization", &authorization);
                let answer = asking.send();
                assert_eq!((answer.status, answer.header("content-type")), (401, Some("application/json")), "{what}");
                assert_eq!(answer.header("www-authenticate"), Some(challenge), "{what}");
                assert_eq!((answer.location(), answer.set_cookies().len()), (None, 0), "{what}");
                let body = answer.json();
                assert_eq!(body["error"], "login_required", "{what}");
                assert!(
                    body["login_url"].as_str().unwrap().starts_with(&scene.edge.url("sentry", "/noCookie?")),
                    "{what}"
                );
                assert_eq!(body["request_id"].as_str(), answer.header("x-request-id"), "{what}");
                assert!(!answer.body.contains(reason), "{what}: the reason stays in the house");
                assert_eq!(scene.refused_for(reason), before + 1.0, "{what}");
            }
        }
    }
    assert_eq!(scene.iqueue.count(), heard);
}

#[test]
fn a_wrong_bearer_token_beside_a_good_cookie_is_refused_and_the_cookie_stays() {
    let scene = api_scene("");
    let mut browser = scene.browser.clone();
    let answer = browser.ask("GET", &scene.url("/api")).field("authorization", "Bearer garbage").send();
    assert_eq!((answer.status, answer.set_cookies().len()), (401, 0), "the cookie was not judged");
    assert_eq!(browser.open(&scene.url("/api")).status, 200);
}

#[test]
fn a_bearer_token_is_not_looked_at_where_the_route_takes_none() {
    let scene = scene();
    let bearer = format!("Bearer {}", scene.token);
    let heard = scene.iqueue.count();
    let mut program = scene.edge.client();
    let answer = program.ask("GET", &scene.url("/")).field("authorization", &bearer).send();
    assert_eq!((answer.status, answer.json()["error"].clone()), (401, Value::from("login_required")));
    assert_eq!(scene.refused_for("no_token"), 2.0, "once at the sign-on, once here");
    assert_eq!(scene.iqueue.count(), heard);
}

#[test]
fn a_cookie_is_not_looked_at_where_the_route_takes_bearer_tokens_alone() {
    let scene = api_scene("");
    let mut browser = scene.browser.clone();
    let heard = scene.iqueue.count();
    let answer = browser.open(&scene.url("/machine"));
    assert_eq!((answer.status, answer.location()), (401, None), "signing on again would not help");
    assert_eq!(scene.iqueue.count(), heard);
}

#[test]
fn two_authorization_fields_are_none() {
    let scene = api_scene("");
    let bearer = format!("Bearer {}", scene.token);
    let mut program = scene.edge.client();
    let url = scene.url("/machine");
    let asking = program.ask("GET", &url).field("authorization", &bearer).field("authorization", "Bearer x");
    assert_eq!(asking.send().status, 401);
    assert_eq!(scene.edge.client().ask("GET", &url).field("authorization", &bearer).send().status, 200);
}

#[test]
fn a_bearer_token_is_for_the_browser_that_signed_in() {
    let scene = api_scene("");
    let mut other = scene.edge.client().user_agent("Mozilla/5.0 (Windows NT 10.0; Win64; x64) Firefox/140.0");
    let bearer = format!("Bearer {}", scene.token);
    assert_eq!(other.ask("GET", &scene.url("/api")).field("authorization", &bearer).send().status, 401);
    assert_eq!(scene.refused_for("fingerprint"), 1.0);
}
