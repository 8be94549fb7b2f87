//! Who gets in, and what the others are told: by redirect, by page or as JSON, as they can make use of it.

use std::time::Duration;

use crate::harness::edge::{PASSWORD, STATE_COOKIE, TOKEN_COOKIE};
use crate::harness::{Client, Edge, Origin, Response, edge, memcached, origin};

const ROUTES: &str = "routes: [{path: /public, access: public}, {path: /admin, access: {roles: [admin]}}, \
                      {path: /either, access: {roles: [auditor, admin]}}, {path: /poll, extends_session: false}]";

struct Scene {
    edge: Edge,
    iqueue: Origin,
    dextor: Origin,
}

/// Ada is an administrator of both services; Bob has no role, and iqueue alone.
fn scene() -> Scene {
    let (iqueue, dextor) = (origin("iqueue"), origin("dextor"));
    let edge = edge()
        .service_with("iqueue", &iqueue, &format!("idle_timeout: 5m, {ROUTES}"))
        .service("dextor", &dextor)
        .user("bob", &["iqueue"], &[])
        .start();
    Scene { edge, iqueue, dextor }
}

impl Scene {
    fn url(&self, path: &str) -> String {
        self.edge.url("iqueue", path)
    }

    fn signed_in_as(&self, user: &str) -> Client {
        let mut browser = self.edge.client();
        self.edge.sign_in(&mut browser, "iqueue", user);
        browser
    }
}

fn ask(client: &mut Client, method: &'static str, url: &str, fields: &[(&str, &str)]) -> Response {
    let asking = client.ask(method, url);
    fields.iter().fold(asking, |asking, (name, value)| asking.field(name, value)).send()
}

#[test]
fn a_navigation_is_sent_to_sign_on_and_anything_else_is_told_so() {
    let scene = scene();
    let html = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    let json = ("accept", "application/json");
    let mode = |mode: &'static str| ("sec-fetch-mode", mode);
    let script = ("x-requested-with", "XMLHttpRequest");
    for (method, fields, status) in [
        ("GET", &[mode("navigate")][..], 302),
        ("GET", &[mode("navigate"), html], 302),
        ("GET", &[mode("navigate"), json], 302),
        ("GET", &[mode("navigate"), script], 302),
        ("HEAD", &[mode("navigate")], 401),
        ("GET", &[html], 302),
        ("HEAD", &[html], 401),
        ("GET", &[mode("cors"), html], 401),
        ("GET", &[mode("no-cors"), html], 401),
        ("GET", &[mode("same-origin"), html], 401),
        ("GET", &[mode("websocket"), html], 401),
        ("GET", &[html, script], 401),
        ("GET", &[json], 401),
        ("GET", &[("accept", "*/*")], 401),
        ("GET", &[], 401),
        ("POST", &[mode("navigate"), html], 401),
        ("POST", &[html, ("content-type", "application/json")], 401),
        ("POST", &[json, ("content-type", "application/x-www-form-urlencoded")], 401),
        ("PUT", &[html], 401),
        ("DELETE", &[html], 401),
        ("OPTIONS", &[html], 401),
    ] {
        let response = ask(&mut scene.edge.client(), method, &scene.url("/a?b"), fields);
        assert_eq!(response.status, status, "{method} {fields:?}");
        assert_eq!(response.location().is_some(), status == 302, "{method} {fields:?}");
        assert_eq!(response.header("cache-control"), Some("no-store"), "{method} {fields:?}");
    }
    assert_eq!(scene.iqueue.count(), 0, "nothing of it reached the application");
}

#[test]
fn a_script_is_told_why_and_where_to_sign_on() {
    let scene = scene();
    let mut browser = scene.edge.client();
    let referer = scene.url("/page?x=1#here");
    for (fields, back_to) in [
        (&[][..], scene.url("/")),
        (&[("referer", referer.as_str())], scene.url("/page?x=1")),
        (&[("referer", "https://evil.example/")], scene.url("/")),
        (&[("referer", "https://iqueue.test.evil.example/")], scene.url("/")),
    ] {
        let response = ask(&mut browser, "GET", &scene.url("/api?q"), fields);
        assert_eq!(response.status, 401);
        assert_eq!(response.header("content-type"), Some("application/json"));
        assert!(response.header("www-authenticate").unwrap().starts_with("Bearer"));
        assert_eq!(response.set_cookies(), Vec::<&str>::new(), "a script begins no sign-on");
        let told = response.json();
        let mut keys: Vec<&String> = told.as_object().unwrap().keys().collect();
        keys.sort();
        assert_eq!(keys, ["error", "login_url", "message", "reason", "request_id"]);
        assert_eq!(told["error"], "login_required");
        assert_eq!(told["reason"], "no_session");
        assert_eq!(told["request_id"].as_str(), response.header("x-request-id"));
        let login = url::Url::parse(told["login_url"].as_str().unwrap()).unwrap();
        assert!(login.as_str().starts_with(&scene.edge.url("sentry", "/noCookie?")), "{login}");
        let redirect = login.query_pairs().find(|(name, _)| name == "redirectURL").unwrap().1.into_owned();
        assert_eq!(redirect, back_to, "{fields:?}");
    }
}

#[test]
fn a_person_who_follows_a_scripts_login_url_comes_back_signed_in() {
    let scene = scene();
    let mut browser = scene.edge.client();
    let referer = scene.url("/page");
    let told = ask(&mut browser, "GET", &scene.url("/api"), &[("referer", &referer)]).json();
    let form = browser.follow(told["login_url"].as_str().unwrap()).pop().unwrap();
    let sent = scene.edge.send_login(&mut browser, &form, "ada", PASSWORD);
    let page = browser.follow(&sent.location().unwrap()).pop().unwrap();
    assert_eq!((page.status, page.url), (200, referer));
}

#[test]
fn a_dead_session_is_told_apart_from_none() {
    let scene = scene();
    let mut browser = scene.edge.signed_in();
    scene.edge.let_pass(Duration::from_secs(301));
    let response = browser.get(&scene.url("/api"));
    assert_eq!((response.status, response.json()["reason"].as_str()), (401, Some("session_ended")));
    assert!(response.set_cookie(TOKEN_COOKIE).unwrap().contains("Max-Age=0"));
}

#[test]
fn a_form_whose_session_has_ended_leads_to_the_login_and_back_to_its_page() {
    let scene = scene();
    let form = ("content-type", "application/x-www-form-urlencoded");
    let upload = ("content-type", "multipart/form-data; boundary=x");
    let html = ("accept", "text/html");
    let page = scene.url("/edit?id=7");
    for (fields, back_to) in [
        (&[form, html, ("referer", &page)][..], page.clone()),
        (&[upload, html, ("referer", &page)], page.clone()),
        (&[form, ("sec-fetch-mode", "navigate"), ("referer", &page)], page.clone()),
        (&[form, html], scene.url("/")),
        (&[form, html, ("referer", "https://evil.example/x")], scene.url("/")),
        (&[form, html, ("referer", "https://dextor.test/x")], scene.url("/")),
    ] {
        let mut browser = scene.edge.signed_in();
        scene.edge.let_pass(Duration::from_secs(301));
        let seen = scene.iqueue.count();
        let response = ask(&mut browser, "POST", &scene.url("/edit"), fields);
        assert_eq!(response.status, 303, "by GET, not once more by POST: {fields:?}");
        assert_eq!(response.location_path(), Some(scene.edge.url("sentry", "/noCookie")));
        assert_eq!(response.location_parameter("redirectURL"), Some(back_to), "{fields:?}");
        assert!(response.set_cookie(STATE_COOKIE).is_some());
        assert_eq!(scene.iqueue.count(), seen);
    }
}

#[test]
fn who_is_not_registered_or_lacks_the_role_gets_403_and_never_a_redirect() {
    let scene = scene();
    let mut bob = scene.signed_in_as("bob");
    let at_dextor = scene.edge.url("dextor", "/");
    // The flow gives Bob a cookie for dextor, and dextor's own rule keeps him out.
    let last = bob.follow(&at_dextor).pop().unwrap();
    assert_eq!(last.status, 403, "{}", last.body);
    for (url, reason) in
        [(at_dextor, "not_registered"), (scene.url("/admin/x"), "missing_role"), (scene.url("/either"), "missing_role")]
    {
        let page = bob.open(&url);
        assert_eq!((page.status, page.location()), (403, None), "{url}");
        assert!(page.header("content-type").unwrap().starts_with("text/html"));
        assert!(page.body.contains("No access") && page.body.contains(page.header("x-request-id").unwrap()));
        assert_eq!(page.set_cookies(), Vec::<&str>::new(), "he stays signed in");
        let told = bob.ask("POST", &url).accept("application/json").send();
        assert_eq!((told.status, told.location()), (403, None), "{url}");
        let json = told.json();
        assert!(json["error"].is_string() && json["message"].is_string(), "{json}");
        assert_eq!(json["request_id"].as_str(), told.header("x-request-id"));
        for text in [&page.body, &told.body] {
            assert!(!text.contains(reason) && !text.contains("auditor"), "the reason stays in the house: {text}");
        }
    }
    assert_eq!(scene.dextor.count(), 0);
    assert_eq!(bob.open(&scene.url("/")).status, 200, "what he is registered for stays open");
}

#[test]
fn a_role_opens_its_routes_and_one_of_several_will_do() {
    let scene = scene();
    let mut ada = scene.signed_in_as("ada");
    let mut bob = scene.signed_in_as("bob");
    for (path, status_of_bob) in
        [("/admin", 403), ("/admin/", 403), ("/admin/x", 403), ("/either/x", 403), ("/administrator", 200), ("/", 200)]
    {
        assert_eq!(ada.open(&scene.url(path)).status, 200, "{path}");
        assert_eq!(scene.iqueue.last().one("x-forwarded-user").as_deref(), Some("ada"));
        assert_eq!(bob.open(&scene.url(path)).status, status_of_bob, "{path}");
    }
    for path in ["/x/../admin", "/%61dmin", "//admin", "/public/../admin/x", "/x;/../admin", "/ADMIN/../admin"] {
        assert_eq!(bob.open_raw(&scene.edge, path), 400, "{path}");
    }
}

impl Client {
    /// A path that a URL parser would tidy up, with this client's cookie.
    fn open_raw(&self, edge: &Edge, path: &str) -> u16 {
        let cookie = self.cookie("iqueue.test", TOKEN_COOKIE).unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: iqueue.test\r\nUser-Agent: test/1\r\nAccept: text/html\r\n\
             Cookie: {TOKEN_COOKIE}={cookie}\r\n\r\n"
        );
        crate::harness::raw(edge.address(), "iqueue.test").send(request).status()
    }
}

#[test]
fn a_public_route_is_served_to_anybody_and_asks_nobody_who_they_are() {
    let scene = scene();
    for mut client in [scene.edge.client(), scene.edge.signed_in()] {
        for method in ["GET", "POST", "PUT"] {
            let response = ask(&mut client, method, &scene.url("/public/x"), &[]);
            assert_eq!((response.status, response.set_cookies().len()), (200, 0), "{method}");
            assert_eq!(scene.iqueue.last().one("x-forwarded-user"), None, "{method}");
            assert_eq!(scene.iqueue.last().one("cookie"), None, "{method}");
        }
    }
    let mut spoilt = scene.edge.client();
    spoilt.set_cookie("iqueue.test", TOKEN_COOKIE, "rubbish");
    let response = spoilt.open(&scene.url("/public"));
    assert_eq!((response.status, response.set_cookies().len()), (200, 0), "nor does a bad cookie matter");
    assert_eq!(scene.edge.client().open(&scene.url("/publicity")).status, 302, "a rule covers whole segments");
}

#[test]
fn a_poll_does_not_keep_a_session_from_idling_out() {
    let scene = scene();
    let mut browser = scene.edge.signed_in();
    for _ in 0..4 {
        scene.edge.let_pass(Duration::from_secs(60));
        assert_eq!(browser.get(&scene.url("/poll")).status, 200);
    }
    scene.edge.let_pass(Duration::from_secs(61));
    assert_eq!(browser.get(&scene.url("/poll")).status, 401, "the polls did not count");
    let mut active = scene.edge.signed_in();
    for _ in 0..6 {
        scene.edge.let_pass(Duration::from_secs(60));
        assert_eq!(active.get(&scene.url("/page")).status, 200, "requests of a person do");
    }
}

#[test]
fn current_user_says_who_is_signed_in_or_null() {
    let scene = scene();
    for (host, path) in [("sentry", "/currentUser"), ("iqueue", "/.sentry/currentUser")] {
        let url = scene.edge.url(host, path);
        let nobody = scene.edge.client().get(&url);
        assert_eq!((nobody.status, nobody.body.as_str()), (200, "{\"currentUser\":null}"), "{host}");
        let mut spoilt = scene.edge.client();
        spoilt.set_cookie(&scene.edge.host(host), TOKEN_COOKIE, "rubbish");
        assert_eq!(spoilt.get(&url).body, "{\"currentUser\":null}", "{host}");
        let mut ada = scene.edge.signed_in();
        let response = ada.get(&url);
        assert_eq!(response.header("content-type"), Some("application/json"));
        assert_eq!(response.header("cache-control"), Some("no-store"));
        let user = &response.json()["currentUser"];
        assert!(user["id"].is_string(), "{user}");
        assert_eq!(user["email"], "ada@example.com");
        assert_eq!(user["roles"], serde_json::json!(["admin"]));
        assert_eq!(user["services"], serde_json::json!(["dextor", "iqueue"]));
        assert_eq!(user["session"]["idle_timeout_s"], 300);
        assert!(user["session"]["expires_at"].as_str().unwrap().ends_with('Z'));
        assert_eq!(ask(&mut ada, "POST", &url, &[]).status, 405, "{host}");
        assert_eq!(ask(&mut ada, "DELETE", &url, &[]).status, 405, "{host}");
    }
}

#[test]
fn asking_for_the_current_user_does_not_keep_the_session() {
    let scene = scene();
    for (host, path) in [("sentry", "/currentUser"), ("iqueue", "/.sentry/currentUser")] {
        let mut browser = scene.edge.signed_in();
        let url = scene.edge.url(host, path);
        for _ in 0..4 {
            scene.edge.let_pass(Duration::from_secs(60));
            assert!(browser.get(&url).json()["currentUser"]["id"].is_string(), "{host}");
        }
        scene.edge.let_pass(Duration::from_secs(61));
        assert!(browser.get(&url).json()["currentUser"].is_null(), "{host}");
    }
}

#[test]
fn when_the_store_is_away_nobody_is_said_to_be_signed_out() {
    let mut memcached = memcached();
    let iqueue = origin("iqueue");
    let edge = edge().service("iqueue", &iqueue).memcached(&memcached.address()).start();
    let mut browser = edge.signed_in();
    memcached.kill();
    let seen = iqueue.count();
    for (host, path) in
        [("sentry", "/currentUser"), ("iqueue", "/.sentry/currentUser"), ("iqueue", "/"), ("sentry", "/copyCookie")]
    {
        let response = browser.get(&edge.url(host, path));
        assert_eq!(response.status, 503, "{host}{path}: {}", response.body);
        assert!(response.header("retry-after").is_some(), "{host}{path}");
        assert_eq!(response.set_cookies(), Vec::<&str>::new(), "the cookie stays");
    }
    let page = browser.open(&edge.url("iqueue", "/"));
    assert_eq!(page.status, 503);
    assert!(page.body.contains("still signed in"), "{}", page.body);
    assert_eq!(iqueue.count(), seen);
}

/// Whatever is sent to sign on comes back signed on, with the same Fetch Metadata at every step, and nothing else is sent.
#[test]
fn what_may_begin_a_sign_on_ends_it_and_what_may_not_is_not_sent_away() {
    let scene = scene();
    let mut ada = scene.edge.client();
    scene.edge.sign_in(&mut ada, "dextor", "ada");
    let seen = scene.iqueue.count();
    let mut signed_on = 0;
    for destination in ["document", "empty", "iframe", "frame", "object", "embed", "image", "script", "style", "worker"]
    {
        for site in ["same-origin", "same-site", "none", "cross-site"] {
            for look_ahead in [false, true] {
                let mut fields = vec![("sec-fetch-mode", "navigate"), ("sec-fetch-dest", destination)];
                fields.extend([("sec-fetch-site", site), ("accept", "text/html")]);
                fields.extend(look_ahead.then_some(("sec-purpose", "prefetch;prerender")));
                let what = format!("{fields:?}");
                let is_frame = ["iframe", "frame", "object", "embed"].contains(&destination);
                let is_own = site.starts_with("same");
                let begins = !look_ahead
                    && (destination == "document"
                        || destination == "empty" && site != "cross-site"
                        || is_frame && is_own);
                let mut browser = ada.clone();
                let first = ask(&mut browser, "GET", &scene.url("/x?y"), &fields);
                if begins {
                    let (mut next, mut redirects) = (first.location(), 0);
                    while let Some(location) = next {
                        redirects += 1;
                        let answer = ask(&mut browser, "GET", &location, &fields);
                        assert!(redirects <= 4, "{what}: {location}");
                        next = answer.location();
                    }
                    signed_on += 1;
                    assert_eq!((redirects, scene.iqueue.count()), (4, seen + signed_on), "{what}");
                    continue;
                }
                assert_eq!((first.status, first.location(), first.set_cookies().len()), (401, None, 0), "{what}");
                if is_frame && !look_ahead {
                    assert!(first.body.contains("target=\"_blank\""), "{what}: {}", first.body);
                    let policy = first.header("content-security-policy").unwrap();
                    assert!(!policy.contains("frame-ancestors") && first.header("x-frame-options").is_none(), "{what}");
                } else {
                    assert_eq!(first.json()["error"], "login_required", "{what}");
                }
            }
        }
    }
    assert_eq!(signed_on, 4 + 3 + 4 * 2);
}

/// A browser that keeps no cookie of a host: how many redirects it takes until a page says so.
fn redirects_without(scene: &Scene, mut browser: Client, lost: &[(&str, &str)], url: &str) -> (usize, Response) {
    let mut next = url.to_owned();
    for redirects in 0..40 {
        let answer = browser.open(&next);
        for (host, name) in lost {
            browser.forget_cookie(&scene.edge.host(host), name);
        }
        match answer.location() {
            Some(location) => next = location,
            None => return (redirects, answer),
        }
    }
    panic!("redirected round in a circle: {next}")
}

#[test]
fn a_browser_that_does_not_keep_our_cookies_gets_a_page_before_it_gives_up() {
    let scene = scene();
    let url = scene.url("/a?b");
    let (token, state) = (("iqueue", TOKEN_COOKIE), ("iqueue", STATE_COOKIE));
    for (lost, expected) in [(&[token][..], 9), (&[state], 9), (&[token, state], 9)] {
        let mut browser = scene.edge.client();
        scene.edge.sign_in(&mut browser, "dextor", "ada");
        let (redirects, page) = redirects_without(&scene, browser, lost, &url);
        assert_eq!((redirects, page.status), (expected, 400), "{lost:?}");
        assert!(page.body.contains("keeps starting over"), "{}", page.body);
        assert!(page.body.contains("Cookies") && page.body.contains("Clock"));
        assert!(page.body.contains(page.header("x-request-id").unwrap()), "the reference to ask about");
    }
    // The sign-on host's own: the person types a password, and is not asked for another one.
    let mut browser = scene.edge.client();
    let form = browser.follow(&url).pop().unwrap();
    let sent = scene.edge.send_login(&mut browser, &form, "ada", PASSWORD);
    browser.forget_cookie("sentry.test", TOKEN_COOKIE);
    let page = browser.open(&sent.location().unwrap());
    assert_eq!((page.status, page.location()), (400, None), "{}", page.body);
    assert_eq!(scene.edge.metric("sentry_edge_limits_reached_total", "limit=\"redirects\""), 4.0);
    let breaks =
        |edge: &crate::harness::Edge| edge.audit(1).iter().filter(|line| line["event"] == "loop_broken").count();
    crate::harness::eventually("each is in the audit log", || breaks(&scene.edge) == 4);
}

#[test]
fn a_start_is_counted_for_no_browser_and_sets_no_state_over_the_one_that_came() {
    let scene = scene();
    let mut browser = scene.edge.client();
    let first = browser.open(&scene.url("/0"));
    assert!(first.set_cookie(STATE_COOKIE).is_some());
    for page in 1..=20 {
        let answer = browser.open(&scene.url(&format!("/{page}")));
        assert_eq!((answer.status, answer.set_cookie(STATE_COOKIE)), (302, None), "start {page}");
        assert_eq!(answer.location_parameter("state"), first.location_parameter("state"));
    }
}

#[test]
fn a_page_that_is_left_and_opened_again_is_no_circle_once_a_password_was_typed() {
    let scene = scene();
    let mut browser = scene.edge.client();
    for _ in 0..5 {
        browser.sign_in(&scene.url("/x"), "ada", PASSWORD);
        browser.open(&scene.edge.url("sentry", "/logout"));
        browser.forget_cookie("iqueue.test", TOKEN_COOKIE);
    }
}

#[test]
fn no_other_site_can_sign_a_person_out() {
    let scene = scene();
    for (host, path) in [("sentry", "/logout"), ("iqueue", "/.sentry/logout")] {
        let url = scene.edge.url(host, path);
        let own = scene.edge.url(host, "/").trim_end_matches('/').to_owned();
        let mut browser = scene.edge.signed_in();
        for fields in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "nonsense")],
            &[("referer", "https://evil.example/")],
            &[("referer", "https://iqueue.test.evil.example/")],
        ] {
            let response = ask(&mut browser, "GET", &url, fields);
            assert_eq!(response.status, 200, "{host} {fields:?}");
            assert!(response.body.contains(&format!("action=\"{path}\"")), "a page with a button: {}", response.body);
            assert_eq!(response.set_cookies(), Vec::<&str>::new(), "{host} {fields:?}");
        }
        for fields in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "none")],
            &[("origin", "https://evil.example")],
            &[("origin", "null")],
            &[("origin", "http://iqueue.test")],
        ] {
            let response = ask(&mut browser, "POST", &url, fields);
            assert_eq!(response.status, 403, "{host} {fields:?}");
            assert_eq!(response.set_cookies(), Vec::<&str>::new(), "{host} {fields:?}");
        }
        for method in ["HEAD", "PUT", "DELETE", "OPTIONS"] {
            assert_eq!(ask(&mut browser, method, &url, &[]).status, 405, "{host} {method}");
        }
        assert_eq!(browser.open(&scene.url("/")).status, 200, "after all that the session lives");
        let button = ask(&mut browser, "POST", &url, &[("origin", &own), ("accept", "text/html")]);
        assert_eq!(button.status, if host == "sentry" { 200 } else { 303 });
        assert!(button.set_cookie(TOKEN_COOKIE).unwrap().contains("Max-Age=0"));
        assert_eq!(scene.edge.signed_in().open(&scene.url("/")).status, 200);
    }
}

#[test]
fn a_person_on_our_own_pages_is_signed_out_by_a_link_or_by_the_button() {
    let scene = scene();
    let sibling = scene.edge.url("dextor", "/x");
    for (method, fields) in [
        ("GET", &[("sec-fetch-site", "same-origin")][..]),
        ("GET", &[("sec-fetch-site", "same-site")]),
        ("GET", &[("sec-fetch-site", "none")]),
        ("GET", &[("referer", &sibling)]),
        ("GET", &[]),
        ("POST", &[("sec-fetch-site", "same-origin")]),
        // A page without referrer sends this with its own forms; Fetch Metadata knows better.
        ("POST", &[("sec-fetch-site", "same-origin"), ("origin", "null")]),
        ("POST", &[]),
    ] {
        let mut browser = scene.edge.signed_in();
        let mut elsewhere = browser.clone();
        let fields = &[fields, &[("accept", "text/html")]].concat();
        let out = ask(&mut browser, method, &scene.url("/.sentry/logout"), fields);
        // On to the sign-on host, which tells it as done.
        assert_eq!(out.status, if method == "GET" { 302 } else { 303 }, "{method} {fields:?}");
        assert_eq!(browser.open(&out.location().unwrap()).status, 200, "{method} {fields:?}");
        assert!(out.set_cookie(TOKEN_COOKIE).unwrap().contains("Max-Age=0"), "{method} {fields:?}");
        assert_eq!(
            elsewhere.open(&scene.url("/")).status,
            302,
            "a copy of the cookie is dead too: {method} {fields:?}"
        );
    }
}

#[test]
fn two_cookies_of_our_name_are_none() {
    let scene = scene();
    let browser = scene.edge.signed_in();
    let token = browser.cookie("iqueue.test", TOKEN_COOKIE).unwrap();
    for cookies in [
        format!("{TOKEN_COOKIE}={token}; {TOKEN_COOKIE}={token}"),
        format!("{TOKEN_COOKIE}=x; a=b; {TOKEN_COOKIE}={token}"),
    ] {
        let seen = scene.iqueue.count();
        let response = ask(&mut scene.edge.client(), "GET", &scene.url("/"), &[("cookie", &cookies)]);
        assert_eq!((response.status, scene.iqueue.count()), (401, seen), "{cookies}");
    }
}
