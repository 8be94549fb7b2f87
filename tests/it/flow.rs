//! The sequence Browser – edge – Sentry – Memcached, as the flow's documents draw it. Each arrow is named.

use std::time::Duration;

use crate::harness::edge::{STATE_COOKIE, TOKEN_COOKIE};
use crate::harness::{Edge, Origin, Response, edge, memcached, origin};

/// One arrow of the sequence: what it says, then whether it is so.
macro_rules! arrow {
    ($text:literal, $($holds:tt)+) => {
        assert!($($holds)+, "arrow not as drawn: {}", $text)
    };
}

struct Scene {
    edge: Edge,
    iqueue: Origin,
    dextor: Origin,
}

fn scene(memcached: Option<&str>) -> Scene {
    let (iqueue, dextor) = (origin("iqueue"), origin("dextor"));
    let builder = edge().service("iqueue", &iqueue).service("dextor", &dextor);
    let builder = match memcached {
        Some(address) => builder.memcached(address),
        None => builder,
    };
    Scene { edge: builder.start(), iqueue, dextor }
}

#[test]
fn the_whole_sequence_with_sessions_in_memory() {
    the_whole_sequence(&scene(None));
}

#[test]
fn the_whole_sequence_with_sessions_in_a_real_memcached() {
    let memcached = memcached();
    the_whole_sequence(&scene(Some(&memcached.address())));
}

fn the_whole_sequence(scene: &Scene) {
    let edge = &scene.edge;
    let mut browser = edge.client();
    let asked = edge.url("iqueue", "/path?q=1&r=%20a+b");

    // First time access to IQ.
    let first = browser.open(&asked);
    arrow!("JWTCookie is NOT present for IQ: redirect to sentry/noCookie?redirectURL", first.status == 302);
    arrow!("noCookie", first.location_path() == Some(edge.url("sentry", "/noCookie")));
    arrow!("redirectURL=https://iqueue", first.location_parameter("redirectURL") == Some(asked.clone()));
    let state = first.location_parameter("state").unwrap();
    let state_cookie = first.set_cookie(STATE_COOKIE).unwrap();
    assert!(state_cookie.ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=600"), "{state_cookie}");
    assert!(!state_cookie.contains(&state), "the state's secret half does not travel in a URL");
    is_not_stored(&first);

    let no_cookie = browser.open(&first.location().unwrap());
    arrow!("noCookie redirects to sentry/copyCookie", no_cookie.status == 302);
    arrow!("copyCookie", no_cookie.location_path() == Some(edge.url("sentry", "/copyCookie")));
    arrow!("the same redirectURL", no_cookie.location_parameter("redirectURL") == Some(asked.clone()));
    arrow!("the same state", no_cookie.location_parameter("state") == Some(state.clone()));
    is_not_stored(&no_cookie);

    let copy = browser.open(&no_cookie.location().unwrap());
    arrow!("JWTCookie is NOT present for Sentry: redirect to sentry/login", copy.status == 302);
    arrow!("login", copy.location_path() == Some(edge.url("sentry", "/login")));
    arrow!("login?redirectURL", copy.location_parameter("redirectURL") == Some(asked.clone()));

    let form = browser.open(&copy.location().unwrap());
    assert_eq!(form.status, 200);
    assert_eq!(form.form_field("redirectURL"), asked);
    is_not_stored(&form);

    let sent = edge.send_login(&mut browser, &form, "ada", crate::harness::edge::PASSWORD);
    arrow!("User enters UName, Pwd; validate credentials", sent.status == 303);
    let cookie = sent.set_cookie(TOKEN_COOKIE).unwrap();
    arrow!("create JWTCookie & attach to response, for sentry", cookie.contains("=eyJ"));
    assert!(cookie.ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax"), "host-only, gone with the browser: {cookie}");
    arrow!("redirect to sentry/copyCookie", sent.location_path() == Some(edge.url("sentry", "/copyCookie")));
    is_not_stored(&sent);

    let ticket = browser.open(&sent.location().unwrap());
    arrow!("JWTCookie is present for Sentry & TokenID exists in MemCached", ticket.status == 302);
    let with_ticket = ticket.location().unwrap();
    arrow!("create requestID (UUID); set(UUID, JWT)", with_ticket.starts_with(&format!("{asked}&requestID=")));
    assert_eq!(edge.metric("sentry_edge_tickets_total", "event=\"issued\""), 1.0);
    is_not_stored(&ticket);

    let redeemed = browser.open(&with_ticket);
    arrow!("request has requestID param && Memcached has JWT for it: get(UUID), JWT", redeemed.status == 302);
    arrow!("remove(UUID)", edge.metric("sentry_edge_tickets_total", "event=\"redeemed\"") == 1.0);
    arrow!("create Cookie using JWT & attach, for iqueue", redeemed.set_cookie(TOKEN_COOKIE).is_some());
    arrow!("redirect to https://iqueue", redeemed.location() == Some(asked.clone()));
    assert!(redeemed.set_cookie(STATE_COOKIE).unwrap().contains("Max-Age=0"), "the state is spent");
    is_not_stored(&redeemed);
    assert_ne!(
        browser.cookie(&edge.host("sentry"), TOKEN_COOKIE),
        browser.cookie(&edge.host("iqueue"), TOKEN_COOKIE),
        "each host has a token of its own"
    );

    // Second time access to IQ.
    let second = browser.open(&asked);
    arrow!("JWTCookie is present for IQ: proxyPass https://iqueue", second.body == "hello from iqueue");
    assert_eq!(scene.iqueue.last().target, "/path?q=1&r=%20a+b", "byte for byte");
    assert_eq!(scene.iqueue.last().one("x-forwarded-user").as_deref(), Some("ada"));
    assert_eq!(scene.iqueue.count(), 1, "nothing reached the application before");

    // First time access to Dextor.
    let hops = browser.follow(&edge.url("dextor", "/"));
    let statuses: Vec<u16> = hops.iter().map(|hop| hop.status).collect();
    arrow!("no login for Dextor: noCookie, copyCookie, requestID, cookie, page", statuses == [302, 302, 302, 302, 200]);
    arrow!("JWTCookie is NOT present for IQ: noCookie", hops[0].location().unwrap().contains("/noCookie?"));
    arrow!("noCookie redirects to copyCookie", hops[1].location().unwrap().contains("/copyCookie?"));
    arrow!(
        "JWTCookie is present for Sentry: redirect with requestID",
        hops[2].location().unwrap().contains("?requestID=")
    );
    arrow!("commit the cookie for dextor", hops[3].set_cookie(TOKEN_COOKIE).is_some());
    arrow!("redirect to https://dextor", hops[3].location() == Some(edge.url("dextor", "/")));
    assert_eq!(hops[4].body, "hello from dextor");
    assert_eq!(scene.dextor.last().one("x-forwarded-email").as_deref(), Some("ada@example.com"));
}

/// Nothing of the flow is kept by a cache or told to another site.
fn is_not_stored(response: &Response) {
    assert_eq!(response.header("cache-control"), Some("no-store"));
    let policy = if response.body.contains("<form") { "same-origin" } else { "no-referrer" };
    assert_eq!(response.header("referrer-policy"), Some(policy));
}

#[test]
fn update_last_accessed_time_for_the_token_id_at_redemption() {
    let memcached = memcached();
    let scene = scene(Some(&memcached.address()));
    let mut browser = scene.edge.signed_in();
    let written = |memcached: &crate::harness::memcached::Memcached| memcached.session_records();
    let before = written(&memcached);
    scene.edge.let_pass(Duration::from_secs(60));
    browser.follow(&scene.edge.url("dextor", "/"));
    let after = written(&memcached);
    assert_eq!((before.len(), after.len()), (1, 1), "one session for both services");
    assert_ne!(before, after, "LAST_ACCESSED_TIME was rewritten");
}

#[test]
fn last_accessed_time_is_rewritten_no_more_often_than_the_record_interval() {
    let memcached = memcached();
    let scene = scene(Some(&memcached.address()));
    let mut browser = scene.edge.signed_in();
    let first = memcached.session_records();
    scene.edge.let_pass(Duration::from_secs(20));
    browser.open(&scene.edge.url("iqueue", "/"));
    browser.open(&scene.edge.url("iqueue", "/"));
    assert_eq!(memcached.session_records(), first, "20 seconds later it is exact enough");
    scene.edge.let_pass(Duration::from_secs(20));
    browser.open(&scene.edge.url("iqueue", "/"));
    crate::harness::eventually("40 seconds later it is rewritten", || memcached.session_records() != first);
}

#[test]
fn logout_at_one_place_ends_both() {
    for (logout_host, logout_path) in
        [("sentry", "/logout"), ("iqueue", "/.sentry/logout"), ("dextor", "/.sentry/logout")]
    {
        let scene = scene(None);
        let edge = &scene.edge;
        let mut browser = edge.signed_in();
        browser.follow(&edge.url("dextor", "/"));
        let hops = browser.follow(&edge.url(logout_host, logout_path));
        let out = &hops[0];
        let told = hops.last().unwrap();
        assert_eq!((told.status, told.url.contains("sentry.")), (200, true), "told by the sign-on host alone");
        assert!(out.set_cookie(TOKEN_COOKIE).unwrap().contains("Max-Age=0"));
        for service in ["iqueue", "dextor"] {
            let last = browser.follow(&edge.url(service, "/")).pop().unwrap();
            assert!(last.body.contains("name=\"password\""), "{service} asks for the login after {logout_host}");
        }
    }
}

#[test]
fn after_the_idle_timeout_the_login_is_asked_again_with_a_message() {
    let iqueue = origin("iqueue");
    let edge = edge().service_with("iqueue", &iqueue, "idle_timeout: 5m").start();
    let mut browser = edge.signed_in();
    edge.let_pass(Duration::from_secs(290));
    assert_eq!(browser.open(&edge.url("iqueue", "/")).status, 200, "activity within the timeout");
    edge.let_pass(Duration::from_secs(290));
    assert_eq!(browser.open(&edge.url("iqueue", "/")).status, 200, "the timeout slides");
    edge.let_pass(Duration::from_secs(301));
    let hops = browser.follow(&edge.url("iqueue", "/a?b"));
    assert!(hops[0].set_cookie(TOKEN_COOKIE).unwrap().contains("Max-Age=0"), "a dead cookie is cleared");
    let form = hops.last().unwrap();
    assert!(form.body.contains("role=\"status\""), "the form says why it is shown: {}", form.body);
    let sent = edge.send_login(&mut browser, form, "ada", crate::harness::edge::PASSWORD);
    let page = browser.follow(&sent.location().unwrap()).pop().unwrap();
    assert_eq!(page.url, edge.url("iqueue", "/a?b"), "and leads back to where the person was");
}

#[test]
fn session_time_out_is_the_least_idle_timeout_of_the_users_services() {
    let (iqueue, dextor) = (origin("iqueue"), origin("dextor"));
    let edge = edge()
        .service_with("iqueue", &iqueue, "idle_timeout: 1h")
        .service_with("dextor", &dextor, "idle_timeout: 5m")
        .user("bob", &["iqueue"], &[])
        .start();
    let timeout = |user: &str| {
        let mut browser = edge.client();
        edge.sign_in(&mut browser, "iqueue", user);
        let answer = browser.get(&edge.url("iqueue", "/.sentry/currentUser")).json();
        answer["currentUser"]["session"]["idle_timeout_s"].as_u64()
    };
    assert_eq!(timeout("ada"), Some(300), "registered for both");
    assert_eq!(timeout("bob"), Some(3600), "registered for iqueue alone");
}

#[test]
fn the_absolute_lifetime_holds_under_constant_traffic() {
    let iqueue = origin("iqueue");
    let edge = edge().service("iqueue", &iqueue).sentry("token: {lifetime: 1h}").start();
    let mut browser = edge.signed_in();
    for _ in 0..5 {
        edge.let_pass(Duration::from_secs(11 * 60));
        assert_eq!(browser.open(&edge.url("iqueue", "/")).status, 200);
    }
    edge.let_pass(Duration::from_secs(6 * 60));
    assert_eq!(browser.open(&edge.url("iqueue", "/")).status, 302);
}

#[test]
fn the_flow_works_over_http_2_as_well() {
    let scene = scene(None);
    let mut browser = scene.edge.client().http2();
    scene.edge.sign_in(&mut browser, "iqueue", "ada");
    assert_eq!(browser.open(&scene.edge.url("iqueue", "/x")).body, "hello from iqueue");
    assert_eq!(scene.iqueue.last().one("host"), Some(format!("iqueue.test:{}", scene.edge.address().port())));
}

#[test]
fn who_is_signed_in_is_told_so_by_the_sign_in_page_and_goes_on_or_signs_in_as_somebody_else() {
    let scene = scene(None);
    let edge = &scene.edge;
    let mut browser = edge.signed_in();
    let link = |page: &Response, text: &str| {
        let (before, _) = page.body.split_once(&format!(">{text}</a>")).unwrap_or_else(|| panic!("{}", page.body));
        let address = before.rsplit("href=\"").next().unwrap().split('"').next().unwrap();
        address.replace("&#38;", "&").replace("&amp;", "&")
    };
    let told = browser.open(&edge.url("sentry", "/login"));
    assert_eq!((told.status, told.location()), (200, None), "no redirect back to where it may have come from");
    assert!(told.body.contains("You are signed in as ada") && !told.body.contains("name=\"password\""));
    let landing = browser.follow(&link(&told, "Continue")).pop().unwrap();
    assert!(landing.body.contains(&edge.url("dextor", "/")), "the landing page leads to the services");

    let wanted = format!("{}?redirectURL={}", edge.url("sentry", "/login"), edge.url("dextor", "/deep"));
    let told = browser.open(&wanted);
    let page = browser.follow(&link(&told, "Continue")).pop().unwrap();
    assert_eq!((page.status, page.url), (200, edge.url("dextor", "/deep")));
    let form = browser.open(&link(&told, "Sign in as another user"));
    assert_eq!((form.status, form.form_field("redirectURL")), (200, edge.url("dextor", "/deep")));
    assert!(form.body.contains("name=\"password\""));
}

#[test]
fn a_flow_that_begins_at_the_sign_on_host_bounces_once_through_the_service() {
    let scene = scene(None);
    let edge = &scene.edge;
    let mut browser = edge.client();
    let start = format!("{}?redirectURL={}", edge.url("sentry", "/login"), edge.url("iqueue", "/deep"));
    let form = browser.open(&start);
    let sent = edge.send_login(&mut browser, &form, "ada", crate::harness::edge::PASSWORD);
    let hops = browser.follow(&sent.location().unwrap());
    let page = hops.last().unwrap();
    assert_eq!((page.status, page.url.as_str()), (200, edge.url("iqueue", "/deep").as_str()));
    assert_eq!(hops[0].location(), Some(edge.url("iqueue", "/deep")), "no ticket without a state to tie it to");
}
