//! The session store stalls for some hundred milliseconds, or a firewall has forgotten the connection: users who are signed
//! in, or are signing in, notice nothing.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::edge::{PASSWORD, TOKEN_COOKIE};
use crate::harness::{
    Client, Edge, Forgetful, Memcached, Origin, Response, Stop, edge, eventually, forgetful, memcached, origin,
};

/// Nothing is configured: the defaults.
const BY_DEFAULT: &str = "";
const POLICIES: [&str; 4] =
    [BY_DEFAULT, ", on_outage: deny", ", on_outage: {policy: recent, within: 30s}", ", on_outage: token_only"];

/// Stalls of a server that is only busy, or whose machine is moved.
const STALLS: [u64; 6] = [40, 90, 140, 200, 250, 300];

/// Look-ups have the time that they have by default. What waits out a stall has more of it, because the end of one is a
/// signal that a busy machine sends late; so have logins for their passwords.
fn edge_with(origin: &Origin, server: &str, more: &str) -> Edge {
    let sessions = format!("{{store: memcached, memcached: {{servers: [\"{server}\"], sign_on_timeout: 10s}}{more}}}");
    edge()
        .service("iqueue", origin)
        .service("dextor", origin)
        .user("bob", &["iqueue"], &[])
        .balanced()
        .sentry("login: {deadline: 60s}")
        .sessions(&sessions)
        .start()
}

/// What is done while the server says nothing for `time`, then goes on.
fn during<T>(memcached: &Memcached, time: Duration, act: impl FnOnce() -> T) -> T {
    memcached.freeze();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(time);
            memcached.thaw();
        });
        act()
    })
}

/// One browser of a signed-in person, who clicks without a pause.
struct Clicks {
    served: AtomicUsize,
    failed: std::sync::Mutex<Vec<String>>,
}

fn click(edge: &Edge, browser: &Client, done: &AtomicBool) -> Clicks {
    let clicks = Clicks { served: AtomicUsize::new(0), failed: std::sync::Mutex::default() };
    let mut browser = browser.clone();
    while !done.load(Ordering::Relaxed) {
        let answer = browser.get(&edge.url("iqueue", "/"));
        match answer.status {
            200 => drop(clicks.served.fetch_add(1, Ordering::Relaxed)),
            status => clicks.failed.lock().unwrap().push(format!("{status} {}", answer.body)),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    clicks
}

#[test]
fn six_stalls_under_load_fail_no_request_of_whoever_is_signed_in() {
    let (origin, memcached) = (origin("app"), memcached());
    let one = edge_with(&origin, &memcached.address(), BY_DEFAULT);
    let other = one.twin();
    let people = ["ada", "bob", "ada", "bob"].map(|user| {
        let mut browser = one.client();
        one.sign_in(&mut browser, "iqueue", user);
        browser
    });
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let working: Vec<_> = people.iter().map(|browser| scope.spawn(|| click(&one, browser, &done))).collect();
        let _stop = Stop(&done);
        for (stall, browser) in STALLS.into_iter().zip(people.iter().cycle()) {
            std::thread::sleep(Duration::from_millis(200));
            let stall = Duration::from_millis(stall);
            // Who has never been at that edge before, or at that service, is signed in as well.
            let mut elsewhere = browser.clone();
            let status =
                during(&memcached, stall, || elsewhere.through(other.address()).get(&other.url("iqueue", "/")).status);
            assert_eq!(status, 200, "{stall:?}: at another edge, for the first time since it stalls");
        }
        std::thread::sleep(Duration::from_millis(200));
        done.store(true, Ordering::Relaxed);
        for clicks in working {
            let clicks = clicks.join().unwrap();
            let failed = clicks.failed.into_inner().unwrap();
            assert!(
                clicks.served.into_inner() > 0 && failed.is_empty(),
                "{} failed: {:?}",
                failed.len(),
                failed.first()
            );
        }
    });
}

/// Follows a redirect after the other, each during a stall; answers the first response that is none.
fn follow(memcached: &Memcached, browser: &mut Client, first: &str, what: &str) -> Response {
    let mut url = first.to_owned();
    for _ in 0..8 {
        let answer = during(memcached, Duration::from_millis(300), || browser.open(&url));
        assert!(answer.status < 400, "{what}: {} at {url}: {}", answer.status, answer.body);
        match answer.location() {
            Some(next) => url = next,
            None => return answer,
        }
    }
    panic!("{what}: no end of redirects at {url}")
}

#[test]
fn whatever_a_sign_on_asks_of_the_store_waits_out_a_stall() {
    let origin = origin("app");
    for policy in POLICIES {
        let memcached = memcached();
        let edge = edge_with(&origin, &memcached.address(), policy);
        let stalled = |act: &mut dyn FnMut() -> Response| during(&memcached, Duration::from_millis(300), act);
        let mut browser = edge.client();
        let form = follow(&memcached, &mut browser, &edge.url("iqueue", "/a"), policy);
        let sent = stalled(&mut || edge.send_login(&mut browser, &form, "ada", PASSWORD));
        assert_eq!(sent.status, 303, "{policy}: the login: {}", sent.body);
        let page = follow(&memcached, &mut browser, &sent.location().unwrap(), policy);
        assert_eq!((page.status, page.body.as_str()), (200, "hello from app"), "{policy}: after the login");
        let page = follow(&memcached, &mut browser, &edge.url("dextor", "/"), policy);
        assert_eq!((page.status, page.body.as_str()), (200, "hello from app"), "{policy}: at another application");
        for (host, path) in [("sentry", "/"), ("sentry", "/currentUser"), ("dextor", "/.sentry/currentUser")] {
            let answer = stalled(&mut || browser.get(&edge.url(host, path)));
            assert_eq!(answer.status, 200, "{policy}: {host}{path}: {}", answer.body);
            assert!(!answer.body.contains("null"), "{policy}: {host}{path}: {}", answer.body);
        }
        let out = stalled(&mut || browser.open(&edge.url("iqueue", "/.sentry/logout")));
        assert!(
            out.status < 400 && !out.body.contains("It follows by itself"),
            "{policy}: {} {}",
            out.status,
            out.body
        );
        let after = stalled(&mut || browser.open(&edge.url("dextor", "/")));
        assert_eq!(after.status, 302, "{policy}: it is a logout");
    }
}

/// Follows from a page as far as the URL with a ticket, which is not opened.
fn hand_off(edge: &Edge, browser: &mut Client, page: &str) -> String {
    let mut next = page.to_owned();
    while !next.contains("requestID=") {
        let hop = browser.open(&next);
        next = hop.location().unwrap_or_else(|| panic!("no redirect but {} at {}", hop.status, edge.address()));
    }
    next
}

/// Of two servers the one that has a key of this kind that neither had before.
fn has_got(servers: &[Memcached; 2], kind: &str, before: &[String]) -> usize {
    let has_new = |server: &Memcached| server.keys(kind).iter().any(|key| !before.contains(key));
    let mut found = None;
    eventually(&format!("a new key {kind}"), || {
        found = servers.iter().position(has_new);
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn a_refused_ticket_of_another_session_starts_again_though_the_server_of_that_session_stalls() {
    let origin = origin("app");
    let servers = [memcached(), memcached()];
    let addresses = servers.each_ref().map(|server| format!("\"{}\"", server.address())).join(", ");
    let more = "memcached: {copies: 1, sign_on_timeout: 10s, ";
    let edge = edge()
        .service("iqueue", &origin)
        .service("dextor", &origin)
        .user("bob", &["iqueue", "dextor"], &[])
        .balanced()
        .sessions(&format!("{{store: memcached, {more}servers: [{addresses}]}}, on_outage: deny}}"))
        .start();
    let mut ada = edge.client();
    edge.sign_in(&mut ada, "dextor", "ada");
    for stall in STALLS.into_iter().filter(|stall| *stall > 200) {
        let held = |kind: &str| servers.iter().flat_map(|server| server.keys(kind)).collect::<Vec<_>>();
        let mut bob = edge.client();
        let sessions = held("s:");
        edge.sign_in(&mut bob, "iqueue", "bob");
        let of_session = has_got(&servers, "s:", &sessions);
        // A ticket on another server, so that it is redeemed at once.
        let ticket = loop {
            let tickets = held("t:");
            let url = hand_off(&edge, &mut bob.clone(), &edge.url("dextor", "/page"));
            if has_got(&servers, "t:", &tickets) != of_session {
                break url;
            }
        };
        let mut browser = ada.clone();
        let answer = during(&servers[of_session], Duration::from_millis(stall), || browser.open(&ticket));
        assert_eq!(answer.status, 302, "{stall} ms: {}", answer.body);
        assert_eq!(
            answer.location_path(),
            Some(edge.url("sentry", "/noCookie")),
            "{stall} ms: it names a living session"
        );
    }
}

#[test]
fn whoever_has_just_signed_on_is_known_when_the_store_goes_away_and_no_pass_prolongs_that() {
    let (origin, mut memcached) = (origin("app"), memcached());
    let edge = edge_with(&origin, &memcached.address(), BY_DEFAULT);
    let mut browser = edge.client();
    let form = browser.follow(&edge.url("iqueue", "/")).pop().unwrap();
    let mut url = edge.send_login(&mut browser, &form, "ada", PASSWORD).location().unwrap();
    while browser.cookie(&edge.host("iqueue"), TOKEN_COOKIE).is_none() {
        url = browser.open(&url).location().unwrap();
    }
    memcached.kill();
    assert_eq!(edge.admin("/readyz").status, 200, "its absence is provided for");
    // Not one request has been forwarded yet.
    for seconds in [0, 15, 5] {
        edge.let_pass(Duration::from_secs(seconds));
        let page = browser.open(&edge.url("iqueue", "/"));
        assert_eq!((page.status, page.body.as_str()), (200, "hello from app"), "{seconds} s later");
    }
    edge.let_pass(Duration::from_secs(11));
    let page = browser.open(&edge.url("iqueue", "/"));
    assert_eq!(page.status, 503, "31 s after the last request to the store, whichever users were admitted meanwhile");
    assert_eq!(edge.admin("/readyz").status, 503, "and the policy covers no session any more");
}

#[test]
fn an_outage_is_waited_for_once_and_not_by_each_request() {
    let (origin, mut memcached) = (origin("app"), memcached());
    let edge = edge().service("iqueue", &origin).memcached(&memcached.address()).start();
    let mut browser = edge.signed_in();
    memcached.kill();
    assert_eq!(browser.open(&edge.url("iqueue", "/")).status, 503);
    // Of the first second of the outage nothing is left; had each request a wait of its own, these would take minutes.
    let begun = Instant::now();
    for _ in 0..100 {
        assert_eq!(browser.open(&edge.url("iqueue", "/")).status, 503);
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

/// An edge on the far side of a firewall, and everything that people do there after a lull.
fn after_a_lull(edge: &Edge, known: &mut Client, lull: Duration, what: &str) {
    let pause = || std::thread::sleep(lull + Duration::from_millis(200));
    pause();
    let page = known.get(&edge.url("iqueue", "/"));
    assert_eq!(page.status, 200, "{what}: who is signed in: {}", page.body);
    let mut browser = edge.client();
    let form = browser.follow(&edge.url("iqueue", "/")).pop().unwrap();
    pause();
    let sent = edge.send_login(&mut browser, &form, "ada", PASSWORD);
    assert_eq!(sent.status, 303, "{what}: a login: {}", sent.body);
    let mut url = sent.location().unwrap();
    for _ in 0..4 {
        pause();
        let hop = browser.open(&url);
        assert!(hop.status < 400, "{what}: {} at {url}: {}", hop.status, hop.body);
        match hop.location() {
            Some(next) => url = next,
            None => break,
        }
    }
    assert!(browser.cookie(&edge.host("iqueue"), TOKEN_COOKIE).is_some(), "{what}: a redemption");
    pause();
    let out = browser.open(&edge.url("iqueue", "/.sentry/logout"));
    assert!(out.status < 400 && !out.body.contains("It follows by itself"), "{what}: a logout: {}", out.body);
}

#[test]
fn connections_that_a_firewall_forgot_cost_nobody_anything() {
    let origin = origin("app");
    for lull in [Duration::from_millis(200), Duration::from_millis(1500)] {
        for policy in [BY_DEFAULT, ", on_outage: deny"] {
            let memcached = memcached();
            let firewall = forgetful(&memcached, lull);
            let edge = edge_with(&origin, &firewall.address(), policy);
            let mut known = edge.signed_in();
            after_a_lull(&edge, &mut known, lull, &format!("{lull:?}{policy}"));
            assert!(firewall.forgotten() > 3, "{lull:?}: several connections were forgotten: {}", firewall.forgotten());
        }
    }
}

#[test]
fn so_do_those_to_several_servers_at_once_for_many_people_at_once() {
    let (origin, lull) = (origin("app"), Duration::from_millis(1200));
    let memcacheds = [memcached(), memcached(), memcached()];
    let firewalls: Vec<Forgetful> = memcacheds.iter().map(|memcached| forgetful(memcached, lull)).collect();
    let servers: Vec<String> = firewalls.iter().map(|firewall| format!("\"{}\"", firewall.address())).collect();
    let sessions = format!(
        "{{store: memcached, memcached: {{servers: [{}], copies: 2, sign_on_timeout: 10s}}, on_outage: deny}}",
        servers.join(", ")
    );
    let edge = edge()
        .service("iqueue", &origin)
        .service("dextor", &origin)
        .sentry("login: {deadline: 60s}")
        .sessions(&sessions)
        .start();
    let people: Vec<Client> = (0..8).map(|_| edge.signed_in()).collect();
    for _ in 0..3 {
        std::thread::sleep(lull + Duration::from_millis(200));
        std::thread::scope(|scope| {
            for browser in &people {
                let (mut browser, edge) = (browser.clone(), &edge);
                scope.spawn(move || assert_eq!(browser.get(&edge.url("iqueue", "/")).status, 200));
            }
        });
    }
    let forgotten: usize = firewalls.iter().map(Forgetful::forgotten).sum();
    assert!(forgotten > 6, "{forgotten}");
}
