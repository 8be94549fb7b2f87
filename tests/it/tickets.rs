//! The one-time ticket of the hand-off: who may redeem it, how often, for how long; and who may not.
//!
//! Ada signs in at iqueue and is then handed off to dextor, whose ticket the tests hold in their hands. Numbers
//! are those of the threat report's list of bad inputs.

use std::time::Duration;

use crate::harness::client::send_at_once;
use crate::harness::edge::{STATE_COOKIE, TOKEN_COOKIE};
use crate::harness::{Client, Edge, Origin, Response, edge, eventually, memcached, origin};

/// A computer unlike the one that the other tests sit at.
const OTHER_BROWSER: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Firefox/140.0";

struct Scene {
    edge: Edge,
    iqueue: Origin,
    dextor: Origin,
}

fn scene() -> Scene {
    let (iqueue, dextor) = (origin("iqueue"), origin("dextor"));
    let edge = edge()
        .service("iqueue", &iqueue)
        .service("dextor", &dextor)
        .user("mallory", &["iqueue", "dextor"], &[])
        .start();
    Scene { edge, iqueue, dextor }
}

impl Scene {
    /// A browser that is signed in and stands before dextor's door: its ticket is in the URL, not yet redeemed.
    fn before_the_door(&self) -> (Client, String) {
        let mut browser = self.edge.signed_in();
        let with_ticket = hand_off(&self.edge, &mut browser, &self.edge.url("dextor", "/page?q=1"));
        (browser, with_ticket)
    }

    fn events(&self) -> Events {
        Events::of(&self.edge)
    }
}

/// Opens a page of a service and follows as far as the URL with the ticket, which is not opened.
fn hand_off(edge: &Edge, browser: &mut Client, page: &str) -> String {
    let mut next = page.to_owned();
    for _ in 0..3 {
        let hop = browser.open(&next);
        next = hop.location().unwrap_or_else(|| panic!("no redirect but {}: {}", hop.status, hop.body));
    }
    assert!(next.contains("requestID="), "no ticket: {next} at {}", edge.address());
    next
}

fn ticket_of(url: &str) -> &str {
    url.split("requestID=").nth(1).unwrap().split(['&', '#']).next().unwrap()
}

/// How often each thing has happened to tickets.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Events {
    issued: f64,
    redeemed: f64,
    replayed: f64,
    expired: f64,
    mismatched: f64,
}

impl Events {
    fn of(edge: &Edge) -> Self {
        let count = |event: &str| edge.metric("sentry_edge_tickets_total", &format!("event=\"{event}\""));
        Self {
            issued: count("issued"),
            redeemed: count("redeemed"),
            replayed: count("replayed"),
            expired: count("expired"),
            mismatched: count("mismatched"),
        }
    }
}

/// Whether a response brings somebody in.
fn brings_in(response: &Response) -> bool {
    response.set_cookie(TOKEN_COOKIE).is_some_and(|cookie| cookie.contains("=eyJ"))
}

/// The flow begins again, for the page without the ticket.
fn starts_again(edge: &Edge, response: &Response, page: &str) {
    assert_eq!(response.status, 302, "{}", response.body);
    assert_eq!(response.location_path(), Some(edge.url("sentry", "/noCookie")));
    assert_eq!(response.location_parameter("redirectURL").as_deref(), Some(page));
    assert!(!brings_in(response));
}

/// A path of which it cannot be said which route it has, or what is behind its route's prefix, is refused before all else.
#[test]
fn a_path_with_several_readings_spends_no_ticket() {
    let (iqueue, dextor) = (origin("iqueue"), origin("dextor"));
    let routes = "routes: [{path: /admin, access: {roles: [admin]}}, {path: /cut, strip_prefix: true}, \
                  {path: /old, redirect: {to: /page, keep_path: true}}]";
    let edge = edge().service("iqueue", &iqueue).service_with("dextor", &dextor, routes).start();
    let mut browser = edge.signed_in();
    for http2 in [false, true] {
        let with_ticket = hand_off(&edge, &mut browser, &edge.url("dextor", "/page?q=1"));
        let (before, seen) = (Events::of(&edge), dextor.count());
        let mut visitor = browser.clone();
        if http2 {
            visitor = visitor.http2();
        }
        for path in ["/ADMIN", "/admin;a=b", "/%61dmin/x", "//admin", "/cut//x", "/cut%2fx", "/old//x", "/old%5cx"] {
            let url = format!("{}?requestID={}", edge.url("dextor", path), ticket_of(&with_ticket));
            let refused = visitor.open(&url);
            assert_eq!((refused.status, brings_in(&refused)), (400, false), "{path} HTTP/2: {http2}");
        }
        assert_eq!((Events::of(&edge), dextor.count()), (before, seen), "HTTP/2: {http2}");
        let redeemed = browser.open(&with_ticket);
        assert!(brings_in(&redeemed), "HTTP/2: {http2}: {}", redeemed.body);
        browser = edge.signed_in();
    }
}

// ---- once ----

#[test]
fn of_a_hundred_simultaneous_redemptions_exactly_one_gets_the_cookie() {
    let (iqueue, dextor) = (origin("iqueue"), origin("dextor"));
    let edge = edge().service("iqueue", &iqueue).service("dextor", &dextor).start();
    exactly_one_of_a_hundred(&[&edge]);
}

#[test]
fn of_a_hundred_simultaneous_redemptions_from_a_real_memcached_exactly_one_gets_the_cookie() {
    let (iqueue, dextor, memcached) = (origin("iqueue"), origin("dextor"), memcached());
    let builder = edge().service("iqueue", &iqueue).service("dextor", &dextor);
    let edge = builder.memcached_within(&memcached.address(), "10s").start();
    exactly_one_of_a_hundred(&[&edge]);
}

#[test]
fn of_a_hundred_simultaneous_redemptions_at_two_edges_that_share_a_memcached_exactly_one_gets_the_cookie() {
    let (iqueue, dextor, memcached) = (origin("iqueue"), origin("dextor"), memcached());
    let builder = edge().service("iqueue", &iqueue).service("dextor", &dextor).balanced();
    let builder = builder.memcached_within(&memcached.address(), "10s");
    let (one, two) = (builder.clone().start(), builder.start());
    exactly_one_of_a_hundred(&[&one, &two]);
}

/// Input 185.
fn exactly_one_of_a_hundred(edges: &[&Edge]) {
    let mut browser = edges[0].signed_in();
    let before: Vec<Events> = edges.iter().map(|edge| Events::of(edge)).collect();
    let url = url::Url::parse(&hand_off(edges[0], &mut browser, &edges[0].url("dextor", "/race?q=1"))).unwrap();
    let host = edges[0].host("dextor");
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: test/1\r\nAccept: text/html\r\nCookie: {}\r\nConnection: close\r\n\r\n",
        &url[url::Position::BeforePath..],
        &url[url::Position::BeforeHost..url::Position::AfterPort],
        browser.cookie_field(&host),
    );
    let addresses: Vec<_> = edges.iter().map(|edge| edge.address()).collect();
    let answers = send_at_once(&addresses, 100, &host, request.as_bytes());

    let cookie = format!("set-cookie: {}=eyj", TOKEN_COOKIE.to_lowercase());
    let (winners, losers): (Vec<String>, Vec<String>) =
        answers.into_iter().map(|answer| answer.to_lowercase()).partition(|answer| answer.contains(&cookie));
    assert_eq!(winners.len(), 1, "of these: {losers:?}");
    assert_eq!(losers.len(), 99);
    for answer in &losers {
        assert!(answer.starts_with("http/1.1 302") && answer.contains("/nocookie?"), "{answer}");
    }
    let happened = |which: fn(&Events) -> f64| {
        edges.iter().map(|edge| which(&Events::of(edge))).sum::<f64>() - before.iter().map(which).sum::<f64>()
    };
    assert_eq!(happened(|events| events.issued), 1.0);
    assert_eq!(happened(|events| events.redeemed), 1.0);
    assert_eq!(happened(|events| events.replayed), 99.0);
}

#[test]
fn a_ticket_from_one_edge_is_redeemed_at_another() {
    let (iqueue, dextor, memcached) = (origin("iqueue"), origin("dextor"), memcached());
    let builder =
        edge().service("iqueue", &iqueue).service("dextor", &dextor).balanced().memcached(&memcached.address());
    let (one, two) = (builder.clone().start(), builder.start());
    let mut browser = one.signed_in();
    let with_ticket = hand_off(&one, &mut browser, &one.url("dextor", "/"));
    let redeemed = browser.through(two.address()).open(&with_ticket);
    assert!(brings_in(&redeemed), "{} {}", redeemed.status, redeemed.body);
    assert_eq!(browser.through(one.address()).open(&one.url("dextor", "/")).body, "hello from dextor");
}

#[test]
fn a_second_redemption_is_a_replay() {
    let scene = scene();
    let (mut browser, with_ticket) = scene.before_the_door();
    let mut twin = browser.clone();
    assert!(brings_in(&browser.open(&with_ticket)));
    let before = scene.events();
    starts_again(&scene.edge, &twin.open(&with_ticket), &scene.edge.url("dextor", "/page?q=1"));
    assert_eq!(scene.events(), Events { replayed: before.replayed + 1.0, ..before });
    assert_eq!(scene.dextor.count(), 0);
}

// ---- for thirty seconds ----

#[test]
fn a_ticket_is_good_for_thirty_seconds_and_no_longer() {
    for (number, seconds, good) in [("", 29, true), ("", 30, false), ("187: ", 61, false)] {
        let scene = scene();
        // On a machine that takes a second for one request the ticket is too old, and another one is tried.
        let (before, answer) = loop {
            let begun = std::time::Instant::now();
            let (mut browser, with_ticket) = scene.before_the_door();
            let before = scene.events();
            scene.edge.let_pass(Duration::from_secs(seconds));
            let answer = browser.open(&with_ticket);
            if !good || begun.elapsed() < Duration::from_secs(1) {
                break (before, answer);
            }
        };
        assert_eq!(brings_in(&answer), good, "{number}after {seconds} s");
        let expired = before.expired + if good { 0.0 } else { 1.0 };
        assert_eq!(scene.events().expired, expired, "{number}after {seconds} s");
    }
}

#[test]
fn memcached_itself_forgets_a_ticket_that_nobody_redeemed() {
    let (iqueue, dextor, memcached) = (origin("iqueue"), origin("dextor"), memcached());
    let builder = edge().service("iqueue", &iqueue).service("dextor", &dextor).sentry("ticket: {lifetime: 4s}");
    let edge = builder.memcached(&memcached.address()).start();
    let mut browser = edge.signed_in();
    let before = memcached.keys("t:");
    let with_ticket = hand_off(&edge, &mut browser, &edge.url("dextor", "/"));
    // A busy memcached may leave keys out of its list, so the list says that there is one and not that there is none.
    let mut ticket = None;
    eventually("memcached has the ticket", || {
        ticket = memcached.keys("t:").into_iter().find(|key| !before.contains(key));
        ticket.is_some()
    });
    eventually("memcached has no ticket left", || memcached.value(ticket.as_ref().unwrap()).is_empty());
    starts_again(&edge, &browser.open(&with_ticket), &edge.url("dextor", "/"));
    assert_eq!(Events::of(&edge).expired, 1.0);
}

#[test]
fn a_ticket_of_a_session_that_has_ended_opens_nothing() {
    let scene = scene();
    let (mut browser, with_ticket) = scene.before_the_door();
    assert_eq!(browser.open(&scene.edge.url("sentry", "/logout")).status, 200);
    let before = scene.events();
    starts_again(&scene.edge, &browser.open(&with_ticket), &scene.edge.url("dextor", "/page?q=1"));
    assert_eq!(scene.events(), Events { expired: before.expired + 1.0, ..before });
    let form = browser.follow(&scene.edge.url("dextor", "/")).pop().unwrap();
    assert!(form.body.contains("name=\"password\""), "and nobody is signed in");
}

// ---- for one host and one browser ----

/// Input 186.
#[test]
fn a_ticket_for_another_host_is_refused_and_destroyed() {
    let scene = scene();
    let edge = &scene.edge;
    let (mut browser, for_dextor) = scene.before_the_door();
    let mut at_dextor = browser.clone();
    browser.forget_cookie(&edge.host("iqueue"), TOKEN_COOKIE);
    browser.open(&edge.url("iqueue", "/"));
    assert!(browser.cookie(&edge.host("iqueue"), STATE_COOKIE).is_some());
    let before = scene.events();

    let at_iqueue = edge.url("iqueue", &format!("/a?requestID={}", ticket_of(&for_dextor)));
    starts_again(edge, &browser.open(&at_iqueue), &edge.url("iqueue", "/a"));
    assert_eq!(scene.events(), Events { mismatched: before.mismatched + 1.0, ..before });

    starts_again(edge, &at_dextor.open(&for_dextor), &edge.url("dextor", "/page?q=1"));
    assert_eq!(scene.events().replayed, before.replayed + 1.0, "it was destroyed");
}

#[test]
fn a_ticket_for_another_browser_is_refused_and_destroyed() {
    type Thief = fn(&Scene, &Client) -> Client;
    let thieves: [(&str, Thief); 2] = [
        ("a browser with a state of its own", |scene, _| {
            let mut thief = scene.edge.client();
            thief.open(&scene.edge.url("dextor", "/"));
            thief
        }),
        ("all cookies, but another browser", |_, owner| owner.clone().user_agent(OTHER_BROWSER)),
    ];
    for (name, thief) in thieves {
        let scene = scene();
        let (mut owner, with_ticket) = scene.before_the_door();
        let mut thief = thief(&scene, &owner);
        let before = scene.events();
        let page = scene.edge.url("dextor", "/page?q=1");
        starts_again(&scene.edge, &thief.open(&with_ticket), &page);
        assert_eq!(scene.events(), Events { mismatched: before.mismatched + 1.0, ..before }, "{name}");
        starts_again(&scene.edge, &owner.open(&with_ticket), &page);
        assert_eq!(scene.events().replayed, before.replayed + 1.0, "{name}: it was destroyed");
        assert_eq!(scene.dextor.count(), 0, "{name}");
    }
}

#[test]
fn a_browser_without_any_state_does_not_redeem_a_ticket_and_the_ticket_is_gone() {
    let scene = scene();
    let (mut owner, with_ticket) = scene.before_the_door();
    let before = scene.events();
    let page = scene.edge.url("dextor", "/page?q=1");
    starts_again(&scene.edge, &scene.edge.client().open(&with_ticket), &page);
    assert_eq!(scene.events(), Events { mismatched: before.mismatched + 1.0, ..before });
    starts_again(&scene.edge, &owner.open(&with_ticket), &page);
    assert_eq!(scene.events().replayed, before.replayed + 1.0);
}

// ---- by a person's own click ----

/// Input 188.
#[test]
fn looking_ahead_does_not_consume_a_ticket() {
    let scene = scene();
    let edge = &scene.edge;
    let mut browser = edge.signed_in();
    let html = ("accept", "text/html");
    type Row<'a> = (&'a str, &'static str, &'a [(&'a str, &'a str)]);
    let rows: [Row<'_>; 10] = [
        ("HEAD, as a link scanner", "HEAD", &[html]),
        ("Sec-Purpose: prefetch", "GET", &[html, ("sec-purpose", "prefetch")]),
        ("Sec-Purpose: prefetch;prerender", "GET", &[html, ("sec-purpose", "prefetch;prerender")]),
        ("Purpose: prefetch", "GET", &[html, ("purpose", "prefetch")]),
        ("X-Moz: prefetch", "GET", &[html, ("x-moz", "prefetch")]),
        ("an image", "GET", &[("accept", "image/png"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")]),
        ("an image that says text/html", "GET", &[html, ("sec-fetch-dest", "image")]),
        ("a foreign frame", "GET", &[html, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")]),
        ("a script's call", "GET", &[html, ("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")]),
        ("a form that is posted", "POST", &[html, ("content-type", "application/x-www-form-urlencoded")]),
    ];
    for (at, (name, method, fields)) in rows.into_iter().enumerate() {
        browser.forget_cookie(&edge.host("dextor"), TOKEN_COOKIE);
        let page = edge.url("dextor", &format!("/{at}"));
        let with_ticket = hand_off(edge, &mut browser, &page);
        let before = scene.events();
        let asking = browser.ask(method, &with_ticket);
        let ahead = fields.iter().fold(asking, |asking, (field, value)| asking.field(field, value)).send();
        let status = if method == "POST" { 303 } else { 401 };
        assert_eq!((ahead.status, ahead.location().is_some()), (status, status == 303), "188: {name}");
        assert!(!brings_in(&ahead), "188: {name}");
        assert_eq!(scene.events(), before, "188: {name}");
        assert_eq!(scene.dextor.count(), 0, "188: {name}");

        let clicked = browser.open(&with_ticket);
        assert!(brings_in(&clicked), "188: the person's own click after {name}");
        assert_eq!(clicked.location(), Some(page));
    }
}

#[test]
fn a_click_as_browsers_describe_it_redeems() {
    let scene = scene();
    let (mut browser, with_ticket) = scene.before_the_door();
    let clicked = browser
        .ask("GET", &with_ticket)
        .accept("text/html,*/*;q=0.8")
        .field("sec-fetch-mode", "navigate")
        .field("sec-fetch-dest", "document")
        .field("sec-fetch-site", "same-site")
        .field("sec-fetch-user", "?1")
        .send();
    assert!(brings_in(&clicked));
}

// ---- what an attacker leaves in a victim's browser ----

/// Input 189: signing a victim in as the attacker (login CSRF, RFC 9700 §4.7).
#[test]
fn an_attackers_ticket_leaves_a_signed_in_victims_own_session_untouched() {
    for victim_has_state in [false, true] {
        let scene = scene();
        let edge = &scene.edge;
        let mut victim = edge.client();
        edge.sign_in(&mut victim, "dextor", "ada");
        if victim_has_state {
            // As another tab leaves it that is just being sent to sign on.
            let mut tab = edge.client();
            tab.open(&edge.url("dextor", "/"));
            let state = tab.cookie(&edge.host("dextor"), STATE_COOKIE).unwrap().to_owned();
            victim.set_cookie(&edge.host("dextor"), STATE_COOKIE, &state);
        }
        let own = victim.cookie(&edge.host("dextor"), TOKEN_COOKIE).unwrap().to_owned();

        let mut attacker = edge.client();
        edge.sign_in(&mut attacker, "iqueue", "mallory");
        let trap = hand_off(edge, &mut attacker, &edge.url("dextor", "/trap?q=1"));
        let before = scene.events();
        let hops = victim.follow(&trap);
        assert_eq!(hops[0].location_path(), Some(edge.url("sentry", "/noCookie")), "it names another living session");
        assert_eq!(hops.last().unwrap().url, edge.url("dextor", "/trap?q=1"));
        assert_eq!(scene.dextor.last().one("x-forwarded-user").as_deref(), Some("ada"));
        assert_eq!(scene.dextor.last().target, "/trap?q=1");
        let counts = (before.mismatched + 1.0, before.redeemed + 1.0);
        assert_eq!((scene.events().mismatched, scene.events().redeemed), counts, "her own, and not his");
        let after = victim.cookie(&edge.host("dextor"), TOKEN_COOKIE).unwrap();
        let session = |token: &str| crate::harness::forgery::claims_of(token)["sid"].clone();
        assert_eq!(session(after), session(&own), "{victim_has_state}");
    }
}

#[test]
fn an_attackers_ticket_signs_a_victim_in_as_nobody_but_themselves() {
    let scene = scene();
    let edge = &scene.edge;
    let mut victim = edge.signed_in();
    let mut attacker = edge.client();
    edge.sign_in(&mut attacker, "iqueue", "mallory");
    let trap = hand_off(edge, &mut attacker, &edge.url("dextor", "/trap"));
    let page = victim.follow(&trap).pop().unwrap();
    assert_eq!((page.status, page.url.as_str()), (200, edge.url("dextor", "/trap").as_str()));
    assert_eq!(scene.dextor.last().one("x-forwarded-user").as_deref(), Some("ada"));
}

/// Neither the form of former tickets nor that of ours makes one.
#[test]
fn a_ticket_that_somebody_invented_is_the_applications_and_costs_no_look_up() {
    let (iqueue, dextor, memcached) = (origin("iqueue"), origin("dextor"), memcached());
    let builder = edge().service("iqueue", &iqueue).service("dextor", &dextor);
    let edge = builder.memcached(&memcached.address()).start();
    let mut browser = edge.client();
    browser.open(&edge.url("dextor", "/"));
    let before = Events::of(&edge);
    let sent = memcached.commands_on_keys();
    for invented in ["00000000-0000-4000-8000-000000000000", "0b54b1c4-8d5f-8d15-9f6b-0123456789ab"] {
        let page = edge.url("dextor", &format!("/page?q=1&requestID={invented}"));
        starts_again(&edge, &browser.open(&page), &page);
    }
    assert_eq!(memcached.commands_on_keys(), sent, "no command");
    assert_eq!(Events::of(&edge), before);
}

// ---- when it fails ----

#[test]
fn a_failed_ticket_with_a_good_cookie_is_dropped_by_redirect_and_the_page_goes_on() {
    let scene = scene();
    let edge = &scene.edge;
    let (mut browser, with_ticket) = scene.before_the_door();
    let state = browser.cookie(&edge.host("dextor"), STATE_COOKIE).unwrap().to_owned();
    assert!(brings_in(&browser.open(&with_ticket)));
    browser.set_cookie(&edge.host("dextor"), STATE_COOKIE, &state);
    for (query, left) in [("", ""), ("a=%20+b&&c", "?a=%20+b&&c"), ("requestID=own", "?requestID=own")] {
        let separator = if query.is_empty() { "" } else { "&" };
        let replayed = format!("/p?{query}{separator}requestID={}", ticket_of(&with_ticket));
        let dropped = browser.open(&edge.url("dextor", &replayed));
        assert_eq!(dropped.status, 302);
        assert_eq!(dropped.location(), Some(edge.url("dextor", &format!("/p{left}"))), "byte for byte");
        assert_eq!(dropped.set_cookie(TOKEN_COOKIE), None);
        assert_eq!(browser.open(&dropped.location().unwrap()).body, "hello from dextor");
        assert_eq!(scene.dextor.last().target, format!("/p{left}"));
    }
}

#[test]
fn a_ticket_on_a_public_page_is_dropped_by_redirect_and_asks_nobody_to_sign_in() {
    let (iqueue, dextor) = (origin("iqueue"), origin("dextor"));
    let edge = edge()
        .service("iqueue", &iqueue)
        .service_with("dextor", &dextor, "routes: [{path: /status, access: public}]")
        .start();
    let mut browser = edge.signed_in();
    let with_ticket = hand_off(&edge, &mut browser, &edge.url("dextor", "/"));
    let public = edge.url("dextor", &format!("/status?a&requestID={}", ticket_of(&with_ticket)));
    assert_eq!(edge.client().open(&public).location(), Some(edge.url("dextor", "/status?a")));
    assert_eq!(Events::of(&edge).mismatched, 1.0, "and is gone");
    assert_eq!(browser.open(&edge.url("dextor", "/status?a")).body, "hello from dextor");
    let invented = "/status?requestID=00000000-0000-4000-8000-000000000000";
    assert_eq!(browser.open(&edge.url("dextor", invented)).body, "hello from dextor");
    assert_eq!(dextor.last().target, invented, "the application's own");
}

const HTML: (&str, &str) = ("accept", "text/html");
const NAVIGATE: (&str, &str) = ("sec-fetch-mode", "navigate");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// Method and fields of a request, and the status of the redirect that takes its ticket away.
type Kind = (&'static str, &'static [(&'static str, &'static str)], u16);

/// However a ticket came into a request that the application would get: signed in, on a route for all, by any method and
/// protocol, in any place, as often as one likes, escaped or not.
#[test]
fn no_ticket_reaches_an_application() {
    let (iqueue, dextor) = (origin("iqueue"), origin("dextor"));
    let edge = edge()
        .service("iqueue", &iqueue)
        .service_with("dextor", &dextor, "routes: [{path: /status, access: public}]")
        .start();
    let mut ada = edge.client();
    edge.sign_in(&mut ada, "dextor", "ada");
    let kinds: [Kind; 9] = [
        ("GET", &[HTML], 302),
        ("GET", &[NAVIGATE, ("sec-fetch-dest", "document"), ("sec-fetch-site", "cross-site")], 302),
        ("GET", &[NAVIGATE, ("sec-fetch-dest", "empty"), ("sec-fetch-site", "same-origin")], 302),
        ("GET", &[NAVIGATE, ("sec-fetch-dest", "iframe"), ("sec-fetch-site", "cross-site")], 302),
        ("GET", &[HTML, ("sec-purpose", "prefetch")], 302),
        ("GET", &[("accept", "*/*")], 302),
        ("HEAD", &[HTML], 302),
        ("POST", &[HTML, FORM], 307),
        ("PUT", &[("accept", "*/*")], 307),
    ];
    for http2 in [false, true] {
        for path in ["/page", "/status"] {
            for (at, (method, fields, status)) in kinds.iter().enumerate() {
                let ticket = || {
                    let url = edge.url("sentry", "/copyCookie");
                    let back: String =
                        url::form_urlencoded::byte_serialize(edge.url("dextor", "/").as_bytes()).collect();
                    let handed = ada.clone().open(&format!("{url}?redirectURL={back}&state={}", "s".repeat(43)));
                    ticket_of(&handed.location().unwrap()).to_owned()
                };
                let (one, two) = (ticket(), ticket());
                for (query, left) in [
                    (format!("?requestID={one}"), "".to_owned()),
                    (format!("?requestID={one}&a=1"), "?a=1".to_owned()),
                    (format!("?a=%20+&requestID={one}&&requestID={two}&b"), "?a=%20+&&b".to_owned()),
                    (format!("?request%49D={one}&requestID=own"), "?requestID=own".to_owned()),
                    (format!("?a&%72equestID={}", two.replace('-', "%2d")), "?a".to_owned()),
                    (format!("?requestID={}", two.to_uppercase()), "".to_owned()),
                ] {
                    let mut browser = if http2 { ada.clone().http2() } else { ada.clone() };
                    let seen = dextor.count();
                    let url = edge.url("dextor", &format!("{path}{query}"));
                    let asking = browser.ask(method, &url);
                    let answer = fields.iter().fold(asking, |asking, (name, value)| asking.field(name, value)).send();
                    let what = format!("{method} {path}{query} {fields:?}, HTTP/2: {http2}, kind {at}");
                    assert_eq!((answer.status, dextor.count()), (*status, seen), "{what}: {}", answer.body);
                    assert_eq!(answer.location(), Some(edge.url("dextor", &format!("{path}{left}"))), "{what}");
                    assert!(!brings_in(&answer), "{what}");
                }
            }
        }
    }
}

// ---- parameters of the application's own ----

#[test]
fn a_request_id_of_the_applications_own_is_left_alone_byte_for_byte() {
    let scene = scene();
    let edge = &scene.edge;
    let mut browser = edge.signed_in();
    let uuid = "11111111-2222-4333-8444-555555555555";
    let targets = [
        format!("/?requestID={uuid}"),
        format!("/?requestID={uuid}&requestID={uuid}"),
        format!("/a%20b?x=%7e&requestID={uuid}&&"),
        "/?requestID=0b54b1c4-8d5f-8d15-9f6b-0123456789ab".to_owned(),
        "/?requestID=12".to_owned(),
        "/?requestID".to_owned(),
        "/?requestID=".to_owned(),
        format!("/?requestid={uuid}"),
        format!("/?xrequestID={uuid}"),
        format!("/?requestID[]={uuid}"),
        format!("/?requestID={uuid}&requestID=own"),
        format!("/?request%49D={uuid}"),
        format!("/?a=requestID={uuid}"),
    ];
    let before = scene.events();
    for has_state in [false, true] {
        if has_state {
            browser.set_cookie(&edge.host("iqueue"), STATE_COOKIE, &format!("{}.1.1700000000", "a".repeat(22)));
        }
        for target in &targets {
            let answer = browser.open(&edge.url("iqueue", target));
            assert_eq!((answer.status, &scene.iqueue.last().target), (200, target), "with a state: {has_state}");
        }
    }
    assert_eq!(scene.events(), before);
}

/// Inputs 139 to 142.
#[test]
fn what_is_not_shaped_as_a_ticket_never_reaches_the_store() {
    let (iqueue, dextor, memcached) = (origin("iqueue"), origin("dextor"), memcached());
    let builder = edge().service("iqueue", &iqueue).service("dextor", &dextor);
    let edge = builder.memcached(&memcached.address()).start();
    let mut browser = edge.signed_in();
    let with_ticket = hand_off(&edge, &mut browser, &edge.url("dextor", "/"));
    let ticket = ticket_of(&with_ticket);
    let rows = [
        ("139", "requestID=x%0d%0aset%20k%200%200%201%0d%0aa".to_owned()),
        ("139", format!("requestID={ticket}%0d%0aflush_all")),
        ("140", format!("requestID=%20{}", &ticket[1..])),
        ("140", format!("requestID={}%00", &ticket[1..])),
        ("140", format!("requestID=%09{ticket}")),
        ("140", format!("requestID={}", "a".repeat(251))),
        ("140", format!("requestID={}", "a".repeat(10 * 1024))),
        ("140", "requestID=".to_owned()),
        ("141", format!("requestID={}", ticket.to_uppercase())),
        ("141", format!("requestID={{{ticket}}}").replace('{', "%7B").replace('}', "%7D")),
        ("141", format!("requestID={}", ticket.replace('-', ""))),
        ("141", format!("requestID=urn:uuid:{ticket}")),
        ("142", format!("requestID[]={ticket}")),
        ("142", "requestID=A&requestID=B".to_owned()),
    ];
    let sent = memcached.commands_on_keys();
    assert!(sent > 0, "the counter counts");
    for (number, query) in rows {
        // Each row is a first visit: six redirects within a minute would get an explanation.
        let mut first = browser.clone();
        let answer = first.open(&edge.url("dextor", &format!("/?{query}")));
        assert_eq!(answer.location_path(), Some(edge.url("sentry", "/noCookie")), "{number}: {query}");
        assert!(!brings_in(&answer), "{number}: {query}");
        assert_eq!(memcached.commands_on_keys(), sent, "{number}: no command for {query}");
    }
    assert_eq!(dextor.count(), 0);
    assert!(brings_in(&browser.open(&with_ticket)), "the ticket itself is still good");
}

#[test]
fn of_several_tickets_in_a_url_the_last_counts_and_all_are_gone() {
    let scene = scene();
    let edge = &scene.edge;
    let (mut browser, first) = scene.before_the_door();
    let second = hand_off(edge, &mut browser, &edge.url("dextor", "/other"));
    let own = "00000000-0000-4000-8000-000000000000";
    let (one, two) = (ticket_of(&first), ticket_of(&second));
    let before = scene.events();
    let all = edge.url("dextor", &format!("/page?requestID={one}&q=1&requestID={own}&requestID={two}"));
    let mut twin = browser.clone();
    let redeemed = browser.open(&all);
    assert!(brings_in(&redeemed));
    let expected = edge.url("dextor", &format!("/page?q=1&requestID={own}"));
    assert_eq!(redeemed.location(), Some(expected), "that one is the application's own");
    for ticket in [one, two] {
        let url = edge.url("dextor", &format!("/?requestID={ticket}"));
        starts_again(edge, &twin.open(&url), &edge.url("dextor", "/"));
    }
    assert_eq!(scene.events().replayed, before.replayed + 2.0);
}

/// Inputs 190 and 191.
#[test]
fn the_hand_off_carries_exactly_one_ticket_before_the_fragment() {
    let scene = scene();
    let edge = &scene.edge;
    let mut browser = edge.signed_in();
    let with_ticket = hand_off(edge, &mut browser, &edge.url("dextor", "/"));
    let planted = ticket_of(&with_ticket);
    let uuid = "11111111-2222-4333-8444-555555555555";
    let state = "s".repeat(43);
    for (number, page, before, after) in [
        ("190", format!("/?requestID={planted}"), "/?requestID=", ""),
        ("190", format!("/?a=1&requestID={planted}&requestID={planted}&b=2"), "/?a=1&b=2&requestID=", ""),
        (
            "190",
            format!("/?requestID={uuid}&a=1"),
            "/?requestID=11111111-2222-4333-8444-555555555555&a=1&requestID=",
            "",
        ),
        ("190", "/?requestID=own".to_owned(), "/?requestID=own&requestID=", ""),
        ("191", "/a#b".to_owned(), "/a?requestID=", "#b"),
        ("191", "/a?q#b?c=d".to_owned(), "/a?q&requestID=", "#b?c=d"),
    ] {
        let encoded: String = url::form_urlencoded::byte_serialize(edge.url("dextor", &page).as_bytes()).collect();
        let handed = browser.open(&edge.url("sentry", &format!("/copyCookie?redirectURL={encoded}&state={state}")));
        let location = handed.location().unwrap_or_else(|| panic!("{number}: {} {}", handed.status, handed.body));
        let begin = edge.url("dextor", before);
        let ticket = location.strip_prefix(&begin).and_then(|rest| rest.strip_suffix(after));
        let ticket = ticket.unwrap_or_else(|| panic!("{number}: {location}"));
        assert_eq!((ticket.len(), ticket == planted), (36, false), "{number}: ours alone: {location}");
    }
}

// ---- what is told of it ----

#[test]
fn no_log_holds_a_whole_ticket() {
    let scene = scene();
    let edge = &scene.edge;
    let (mut browser, redeemed) = scene.before_the_door();
    let mut twin = browser.clone();
    browser.open(&redeemed);
    twin.open(&redeemed);
    let (mut browser, looked_at) = scene.before_the_door();
    browser.ask("HEAD", &looked_at).accept("text/html").send();
    let followed: Vec<Response> = edge.client().follow(&looked_at);
    assert!(followed.last().unwrap().body.contains("name=\"password\""), "a stranger is shown the login");
    browser.ask("GET", &looked_at).field("sec-fetch-mode", "cors").send();
    browser.ask("GET", &edge.url("dextor", "/x")).field("referer", &looked_at).send();
    browser.ask("GET", &edge.url("sentry", "/currentUser")).send();

    let is_last = |line: &serde_json::Value| line["path"] == "/currentUser";
    eventually("the last request is logged", || edge.access_log(1).iter().any(is_last));
    let read = |name: &str| std::fs::read_to_string(edge.folder.path().join(name)).unwrap();
    let (access, audit) = (read("access.log"), read("audit.log"));
    for ticket in [ticket_of(&redeemed), ticket_of(&looked_at)] {
        for (name, log) in [("access", &access), ("audit", &audit)] {
            let line = log.lines().find(|line| line.contains(ticket));
            assert_eq!(line, None, "the {name} log holds a ticket");
        }
    }
    assert!(access.contains("requestID=…"), "that there was one is told: {access}");
    for event in ["ticket_issued", "ticket_redeemed", "ticket_refused"] {
        assert!(audit.contains(event), "{event}");
    }
}

#[test]
fn every_event_of_a_ticket_is_counted_and_written_to_the_audit_log() {
    let scene = scene();
    let edge = &scene.edge;
    let (mut browser, with_ticket) = scene.before_the_door();
    let mut twin = browser.clone();
    let mut other = browser.clone().user_agent(OTHER_BROWSER);
    browser.open(&with_ticket);
    twin.open(&with_ticket);
    let late = hand_off(edge, &mut twin, &edge.url("dextor", "/1"));
    edge.let_pass(Duration::from_secs(31));
    twin.open(&late);
    let again = hand_off(edge, &mut twin, &edge.url("dextor", "/2"));
    other.open(&again);
    let expected = Events { issued: 4.0, redeemed: 2.0, replayed: 1.0, expired: 1.0, mismatched: 1.0 };
    assert_eq!(scene.events(), expected, "three hand-offs here, and one at the sign-on");
    assert_eq!(edge.metric_sum("sentry_edge_tickets_total"), 9.0, "and nothing else is counted");

    let refused = edge.events("ticket_refused", 3);
    assert_eq!((edge.events("ticket_issued", 4).len(), edge.events("ticket_redeemed", 2).len()), (4, 2));
    let reasons: Vec<_> = refused.iter().map(|line| line["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["replayed", "unknown_or_expired", "fingerprint"]);
}

/// What anybody can send by the thousand is counted, and written at a bounded rate: of each client and in all.
#[test]
fn clients_that_are_not_signed_in_cannot_fill_the_audit_log() {
    let iqueue = origin("iqueue");
    let edge = edge().service("iqueue", &iqueue).server("trusted_proxies: [127.0.0.1]").start();
    let events = |event: &str| edge.audit(0).iter().filter(|line| line["event"] == event).count();
    let suppressed =
        |event: &str| edge.metric("sentry_edge_audit_events_suppressed_total", &format!("event=\"{event}\""));
    let refused = || {
        let event = |event: &str| edge.metric("sentry_edge_tickets_total", &format!("event=\"{event}\""));
        event("expired") + event("replayed")
    };
    let mut client = edge.client();
    let mut owner = edge.signed_in();
    owner.forget_cookie("iqueue.test", TOKEN_COOKIE);
    let with_ticket = hand_off(&edge, &mut owner, &edge.url("iqueue", "/once"));
    client.open(&with_ticket);
    eventually("its line is written", || events("ticket_redeemed") + events("ticket_refused") >= 1);
    let before = events("ticket_refused");
    let mut send =
        |address: &str| client.ask("GET", &with_ticket).accept("text/html").field("x-forwarded-for", address).send();
    // The clock of the edge stands on its own minute; a run may see two of them.
    let minutes = 2;
    for _ in 0..300 {
        assert_eq!(send("192.0.2.1").status, 302);
    }
    assert_eq!(refused(), 300.0, "each is counted");
    eventually("what is written is written", || events("events_suppressed") >= 1);
    let written = events("ticket_refused") - before;
    assert!((60..=60 * minutes).contains(&written), "{written}");
    assert!(events("events_suppressed") <= minutes, "told of once");
    assert_eq!(suppressed("ticket_refused") + written as f64, 300.0, "written or counted");
    send("192.0.2.2");
    eventually("another client's are written", || events("ticket_refused") - before > written);
    // A login that is refused with its password looked at is written whoever else is noisy.
    let form = client.open(&edge.url("sentry", "/login"));
    assert_eq!(edge.send_login(&mut client, &form, "ada", "wrong").status, 401);
    eventually("it is written", || events("login_refused") == 1);
}
