//! The session store away, frozen, restarted, emptied, full or lying: nobody is logged out by it, nobody is somebody
//! else, and service is back when the store is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::Full;
use sentry_edge::clock::Clock;
use sentry_edge::metrics::Metrics;
use sentry_edge::sessions::memcached::{MemcachedServer, Settings};
use sentry_edge::sessions::memory::MemoryStore;
use sentry_edge::sessions::replicated::{Cluster, NodeConfig};
use sentry_edge::sessions::{Fingerprint, Found, SessionId, SessionRecord, SessionStore};

use crate::harness::edge::{PASSWORD, TOKEN_COOKIE};
use crate::harness::{
    Client, Edge, Fault, Memcached, Origin, Response, Stop, edge, eventually, eventually_or, faulty, memcached, origin,
    runtime,
};

struct Scene {
    edge: Edge,
    iqueue: Origin,
}

/// A store that answers or fails at once, however busy the machine is.
fn scene(store: &str) -> Scene {
    scene_with(store, "5s")
}

/// A store that will not answer: what waits for it gives up soon.
fn scene_of_little_patience(store: &str) -> Scene {
    scene_with(store, "400ms")
}

/// An application that greets the user whom the identity headers name, with a public page.
fn scene_with(store: &str, timeout: &str) -> Scene {
    let iqueue = Origin::answering(|seen| {
        let user = seen.one("x-forwarded-user").unwrap_or_else(|| "nobody".into());
        hyper::Response::new(Full::new(format!("hello {user}").into()))
    });
    let edge = edge()
        .service_with("iqueue", &iqueue, "routes: [{path: /status, access: public}]")
        .user("bob", &["iqueue"], &[])
        .sessions(&format!(
            "{{store: memcached, memcached: {{servers: [\"{store}\"], timeout: {timeout}}}, on_outage: deny}}"
        ))
        .start();
    Scene { edge, iqueue }
}

fn signed_in_as(edge: &Edge, user: &str) -> Client {
    let mut browser = edge.client();
    edge.sign_in(&mut browser, "iqueue", user);
    browser
}

/// The reply that an outage gets: no redirect, no cookie touched, come back soon.
fn is_unavailable(answer: &Response, what: &str) {
    assert_eq!(answer.status, 503, "{what}: {}", answer.body);
    assert!(answer.header("retry-after").is_some(), "{what}: no Retry-After");
    assert_eq!(answer.set_cookie(TOKEN_COOKIE), None, "{what}: the cookie stays");
    assert_eq!(answer.location(), None, "{what}: not to the login");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
}

fn both_are_unavailable(edge: &Edge, browser: &mut Client, what: &str) {
    let page = browser.open(&edge.url("iqueue", "/"));
    is_unavailable(&page, what);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"), "{what}");
    let call = browser.get(&edge.url("iqueue", "/api"));
    is_unavailable(&call, what);
    assert_eq!(call.json()["error"], "service_unavailable", "{what}");
}

/// Waits until the service answers with anything but an outage and the edge calls itself ready.
fn is_back(edge: &Edge, browser: &mut Client) {
    eventually("the service is back", || browser.get(&edge.url("iqueue", "/")).status != 503);
    eventually("the edge is ready", || edge.admin("/readyz").status == 200);
}

fn decisions(edge: &Edge, outcome: &str, reason: &str) -> f64 {
    let labels = format!("outcome=\"{outcome}\",reason=\"{reason}\",service=\"iqueue\"");
    edge.metric("sentry_edge_auth_decisions_total", &labels)
}

fn store_up(edge: &Edge, server: &str) -> f64 {
    edge.metric("sentry_edge_session_store_up", &format!("server=\"{server}\""))
}

// Away.

#[test]
fn a_killed_store_takes_nobodys_cookie_and_sends_nobody_to_the_login() {
    let mut memcached = memcached();
    let Scene { edge, iqueue } = &scene(&memcached.address());
    let mut browser = signed_in_as(edge, "ada");
    let seen = iqueue.count();
    let cookie = browser.cookie(&edge.host("iqueue"), TOKEN_COOKIE).unwrap().to_owned();
    assert_eq!(store_up(edge, &memcached.address()), 1.0);
    memcached.kill();
    for round in 0..5 {
        both_are_unavailable(edge, &mut browser, &format!("round {round}"));
    }
    assert_eq!(iqueue.count(), seen, "nothing reached the application");
    assert_eq!(browser.cookie(&edge.host("iqueue"), TOKEN_COOKIE), Some(cookie.as_str()));
    assert_eq!(decisions(edge, "unavailable", "store_away"), 10.0);
    assert_eq!(store_up(edge, &memcached.address()), 0.0);
}

#[test]
fn the_sign_on_host_says_that_the_store_is_away_wherever_it_needs_it() {
    let mut memcached = memcached();
    let Scene { edge, .. } = &scene(&memcached.address());
    let mut browser = signed_in_as(edge, "ada");
    memcached.kill();
    for path in ["/", "/copyCookie", "/login", "/currentUser"] {
        is_unavailable(&browser.open(&edge.url("sentry", path)), path);
    }
    let answer = browser.get(&edge.url("iqueue", "/.sentry/currentUser"));
    is_unavailable(&answer, "/.sentry/currentUser");
    assert_eq!(answer.json()["error"], "service_unavailable");
    assert_eq!(browser.get(&edge.url("sentry", "/.well-known/jwks.json")).status, 200, "keys need no store");
}

#[test]
fn whoever_has_no_cookie_and_whatever_is_public_needs_no_store() {
    let mut memcached = memcached();
    let Scene { edge, .. } = &scene(&memcached.address());
    let mut known = signed_in_as(edge, "ada");
    memcached.kill();
    assert_eq!(known.open(&edge.url("iqueue", "/status")).body, "hello nobody");
    let mut stranger = edge.client();
    let form = stranger.follow(&edge.url("iqueue", "/")).pop().unwrap();
    assert_eq!(form.status, 200, "the way to the form is open");
    assert_eq!(stranger.get(&edge.url("iqueue", "/api")).status, 401);
}

#[test]
fn the_edge_is_alive_but_not_ready_while_its_store_is_away() {
    let mut memcached = memcached();
    let Scene { edge, .. } = &scene(&memcached.address());
    assert_eq!(edge.admin("/readyz").status, 200);
    memcached.kill();
    let ready = edge.admin("/readyz");
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["ready"], false);
    assert!(ready.json()["session_store"].as_str().unwrap().contains("away"), "{}", ready.body);
    assert_eq!(edge.admin("/livez").status, 200);
    memcached.start();
    eventually("ready again", || edge.admin("/readyz").status == 200);
    assert_eq!(store_up(edge, &memcached.address()), 1.0);
}

#[test]
fn a_login_without_the_store_is_in_the_process_log_with_the_reference_of_its_page() {
    let mut memcached = memcached();
    let daemon = edge().service("iqueue", &origin("iqueue")).memcached(&memcached.address()).run();
    let mut browser = daemon.client();
    let form = browser.follow(&daemon.url("iqueue", "/")).pop().unwrap();
    memcached.kill();
    let sent = browser.fill_in(&form, "ada", PASSWORD);
    is_unavailable(&sent, "the login");
    let reference = sent.header("x-request-id").unwrap();
    let line = format!("login: the session store failed request_id={reference}: ");
    eventually_or(|| daemon.process.stderr().contains(&line), || daemon.process.stderr());
}

#[test]
fn a_login_while_the_store_is_away_is_asked_to_be_tried_again_and_then_works() {
    let mut memcached = memcached();
    let Scene { edge, .. } = &scene(&memcached.address());
    let mut browser = edge.client();
    let form = browser.follow(&edge.url("iqueue", "/a?b")).pop().unwrap();
    memcached.kill();
    let sent = edge.send_login(&mut browser, &form, "ada", PASSWORD);
    is_unavailable(&sent, "the login");
    assert!(sent.body.contains("Signing in is not possible right now."), "{}", sent.body);
    assert!(sent.body.contains("value=\"ada\"") && !sent.body.contains("staple"), "{}", sent.body);
    assert_eq!(edge.metric("sentry_edge_logins_total", "result=\"unavailable\""), 1.0);
    memcached.start();
    eventually("ready again", || edge.admin("/readyz").status == 200);
    let sent = edge.send_login(&mut browser, &sent, "ada", PASSWORD);
    assert_eq!(sent.status, 303, "{}", sent.body);
    let page = browser.follow(&sent.location().unwrap()).pop().unwrap();
    assert_eq!((page.url, page.body.as_str()), (edge.url("iqueue", "/a?b"), "hello ada"));
}

// Back.

#[test]
fn after_a_restart_which_forgets_all_the_login_is_asked_once() {
    let mut memcached = memcached();
    let Scene { edge, .. } = &scene(&memcached.address());
    let mut browser = signed_in_as(edge, "ada");
    memcached.kill();
    both_are_unavailable(edge, &mut browser, "while it is away");
    memcached.start();
    is_back(edge, &mut browser.clone());
    let hops = browser.follow(&edge.url("iqueue", "/a?b"));
    let statuses: Vec<u16> = hops.iter().map(|hop| hop.status).collect();
    assert_eq!(statuses, [302, 302, 302, 200], "to the form, without a detour");
    let form = hops.last().unwrap();
    assert!(form.body.contains("role=\"status\""), "which says why: {}", form.body);
    let sent = edge.send_login(&mut browser, form, "ada", PASSWORD);
    let page = browser.follow(&sent.location().unwrap()).pop().unwrap();
    assert_eq!((page.url, page.status), (edge.url("iqueue", "/a?b"), 200));
    assert_eq!(browser.open(&edge.url("iqueue", "/")).status, 200);
}

#[test]
fn a_frozen_store_logs_nobody_out() {
    let memcached = memcached();
    let Scene { edge, .. } = &scene_of_little_patience(&memcached.address());
    let mut browser = signed_in_as(edge, "ada");
    for round in 0..3 {
        memcached.freeze();
        // The store answers nothing until it thaws, so it is the timeout that ends this.
        both_are_unavailable(edge, &mut browser, &format!("round {round}"));
        memcached.thaw();
        is_back(edge, &mut browser);
        let page = browser.open(&edge.url("iqueue", "/"));
        assert_eq!((page.status, page.body.as_str()), (200, "hello ada"), "round {round}");
    }
    assert_eq!(decisions(edge, "login_required", "no_session"), 0.0);
}

#[test]
fn an_emptied_store_sends_everybody_to_the_login_and_fails_nobody() {
    let memcached = memcached();
    let Scene { edge, .. } = &scene(&memcached.address());
    let mut people = ["ada", "bob"].map(|user| signed_in_as(edge, user));
    assert_eq!(memcached.tell("flush_all"), "OK");
    for browser in &mut people {
        let call = browser.clone().get(&edge.url("iqueue", "/api"));
        assert_eq!((call.status, call.json()["error"].as_str()), (401, Some("login_required")));
        let hops = browser.follow(&edge.url("iqueue", "/"));
        assert!(hops.iter().all(|hop| hop.status < 400));
        assert!(hops[0].set_cookie(TOKEN_COOKIE).unwrap().contains("Max-Age=0"), "a dead cookie is cleared");
        assert!(hops.last().unwrap().body.contains("name=\"password\""));
    }
    assert_eq!(signed_in_as(edge, "bob").get(&edge.url("iqueue", "/")).body, "hello bob");
}

// Lying.

#[test]
fn a_store_without_room_opens_no_session() {
    let memcached = memcached();
    let path = faulty(&memcached);
    let Scene { edge, .. } = &scene(&path.address());
    let mut known = signed_in_as(edge, "bob");
    let mut browser = edge.client();
    let form = browser.follow(&edge.url("iqueue", "/")).pop().unwrap();
    path.set(Fault::Full);
    let sent = edge.send_login(&mut browser, &form, "ada", PASSWORD);
    is_unavailable(&sent, "the login");
    assert!(sent.body.contains("Signing in is not possible right now."), "{}", sent.body);
    assert_eq!(browser.cookie(&edge.host("sentry"), TOKEN_COOKIE), None);
    assert_eq!(edge.metric("sentry_edge_logins_total", "result=\"accepted\""), 1.0, "only the one before");
    assert_eq!(known.get(&edge.url("iqueue", "/")).body, "hello bob", "who is in stays in");
    assert_eq!(store_up(edge, &path.address()), 1.0, "full is not away");
    path.set(Fault::None);
    assert_eq!(edge.send_login(&mut browser, &sent, "ada", PASSWORD).status, 303);
}

#[test]
fn a_store_that_lies_makes_nobody_somebody_else() {
    let memcached = memcached();
    for (fault, result) in [
        (Fault::Cut, "away"),
        (Fault::Garbage, "garbled"),
        (Fault::Late, "timeout"),
        (Fault::Silence, "timeout"),
        (Fault::Swapped, "garbled"),
    ] {
        let path = faulty(&memcached);
        let Scene { edge, iqueue } = &scene_of_little_patience(&path.address());
        let [mut ada, mut bob] = ["ada", "bob"].map(|user| signed_in_as(edge, user));
        assert_eq!(ada.get(&edge.url("iqueue", "/")).body, "hello ada");
        let seen = iqueue.count();
        path.set(fault);
        both_are_unavailable(edge, &mut bob, &format!("{fault:?}"));
        both_are_unavailable(edge, &mut ada, &format!("{fault:?}"));
        assert_eq!(iqueue.count(), seen, "{fault:?}: nothing reached the application");
        let labels = format!("operation=\"find\",result=\"{result}\",server=\"{}\"", path.address());
        let failed = edge.metric("sentry_edge_session_store_operations_total", &labels);
        assert!(failed >= 1.0, "{fault:?}: the fault was met");
        path.set(Fault::None);
        for (browser, greeting) in [(&mut ada, "hello ada"), (&mut bob, "hello bob")] {
            is_back(edge, browser);
            for _ in 0..5 {
                assert_eq!(browser.get(&edge.url("iqueue", "/")).body, greeting, "after {fault:?}");
            }
        }
        assert_eq!(decisions(edge, "login_required", "no_session"), 0.0, "{fault:?}: no user was logged out");
    }
}

/// One of several users: how often they were served, and how often they saw the outage.
#[derive(Default)]
struct Tally {
    served: AtomicUsize,
    away: AtomicUsize,
}

#[test]
fn two_users_under_load_never_meet_each_others_session_while_the_store_freezes_and_thaws() {
    let memcached = memcached();
    let Scene { edge, iqueue } = &scene_of_little_patience(&memcached.address());
    let people: Vec<(&str, Client, Tally)> =
        ["ada", "bob", "ada", "bob"].map(|user| (user, signed_in_as(edge, user), Tally::default())).into();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (user, browser, tally) in &people {
            let (mut browser, done) = (browser.clone(), &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let answer = browser.get(&edge.url("iqueue", &format!("/as/{user}")));
                    match answer.status {
                        200 => assert_eq!(answer.body, format!("hello {user}")),
                        status => assert_eq!(status, 503, "{}", answer.body),
                    }
                    let counter = if answer.status == 200 { &tally.served } else { &tally.away };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Set even when a wait below gives up, or the others would work for ever.
        let _stop = Stop(&done);
        let all_go_on = |what: &str, of: fn(&Tally) -> &AtomicUsize| {
            let counts = || people.iter().map(|(.., tally)| of(tally).load(Ordering::Relaxed));
            let before: Vec<usize> = counts().collect();
            eventually_or(|| counts().zip(&before).all(|(now, before)| now > before + 5), || what.to_owned());
        };
        for _ in 0..4 {
            all_go_on("everybody is served", |tally| &tally.served);
            memcached.freeze();
            all_go_on("every user sees the outage", |tally| &tally.away);
            memcached.thaw();
        }
        all_go_on("everybody is served again", |tally| &tally.served);
    });
    for seen in iqueue.seen().iter().filter(|seen| seen.target.starts_with("/as/")) {
        assert_eq!(seen.one("x-forwarded-user").as_deref(), seen.target.strip_prefix("/as/"));
    }
    assert_eq!(decisions(edge, "login_required", "no_session"), 0.0, "no user was logged out");
}

// Logouts that race.

#[test]
fn of_a_thousand_logouts_racing_touches_no_session_comes_back_in_memory() {
    let clock = Clock::default();
    runtime().block_on(a_thousand_races(Arc::new(MemoryStore::new(clock.clone(), 10_000)), &clock));
}

#[test]
fn of_a_thousand_logouts_racing_touches_no_session_comes_back_in_a_real_memcached() {
    let memcached = memcached();
    let store = cluster(&[memcached.address()], 1);
    runtime().block_on(a_thousand_races(store, &Clock::default()));
}

#[test]
fn of_a_thousand_logouts_racing_touches_no_session_comes_back_in_three_real_memcacheds() {
    let memcacheds = [memcached(), memcached(), memcached()];
    let store = cluster(&memcacheds.each_ref().map(Memcached::address), 2);
    runtime().block_on(a_thousand_races(store, &Clock::default()));
}

/// The store of an edge with these servers.
fn cluster(servers: &[String], copies: usize) -> Arc<dyn SessionStore> {
    let metrics = Metrics::new("test").unwrap().sign_on.store;
    let servers: Vec<NodeConfig> = servers.iter().map(|name| NodeConfig { name: name.clone(), weight: 1 }).collect();
    let timeout = Duration::from_secs(5);
    let settings = |server: &NodeConfig| Settings { server: server.name.clone(), timeout, sign_on_timeout: timeout };
    let connect = |server: &NodeConfig| MemcachedServer::new(&settings(server), &metrics);
    Arc::new(Cluster::new(&servers, copies, Clock::default(), &metrics, connect).unwrap())
}

async fn a_thousand_races(store: Arc<dyn SessionStore>, clock: &Clock) {
    let hour = Duration::from_secs(3600);
    for race in 0..1000 {
        let key = SessionId::random().unwrap().key();
        let now = clock.now();
        let record = SessionRecord {
            user: "ada".into(),
            created: now,
            last_accessed: now,
            idle_timeout: hour,
            fingerprint: Fingerprint::new([0; 16]),
            expires: now.plus(hour),
        };
        store.insert(&key, &record, hour).await.unwrap();
        let touches = (1..=6).map(|seconds| {
            let (store, key, later) = (Arc::clone(&store), key.clone(), now.plus(Duration::from_secs(seconds)));
            tokio::spawn(async move {
                store.find(&key, Some(hour)).await.unwrap();
                store.record_access(&key, later, hour).await.unwrap();
            })
        });
        let touches: Vec<_> = touches.collect();
        store.end(&key, now.plus(hour)).await.unwrap();
        for touch in touches {
            touch.await.unwrap();
        }
        let found = store.find(&key, Some(hour)).await.unwrap();
        assert!(!matches!(found, Found::Active(_)), "race {race}: the session came back");
    }
}

#[test]
fn a_logout_in_the_middle_of_requests_is_the_end_for_all_that_follow() {
    let memcached = memcached();
    let Scene { edge, .. } = &scene(&memcached.address());
    for round in 0..20 {
        let browser = signed_in_as(edge, "ada");
        std::thread::scope(|scope| {
            let ask = |path: &'static str| {
                let mut browser = browser.clone();
                move || browser.get(&edge.url("iqueue", path)).status
            };
            let touches: Vec<_> = (0..6).map(|_| scope.spawn(ask("/"))).collect();
            assert_eq!(scope.spawn(ask("/.sentry/logout")).join().unwrap(), 200, "round {round}");
            for touch in touches {
                let status = touch.join().unwrap();
                assert!([200, 401].contains(&status), "round {round}: {status}");
            }
        });
        assert_eq!(browser.clone().get(&edge.url("iqueue", "/")).status, 401, "round {round}: it came back");
    }
}
