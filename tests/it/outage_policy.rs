//! What passes while the session store is away, by the operator's policy; and without any store at all.

use std::time::Duration;

use crate::harness::edge::TOKEN_COOKIE;
use crate::harness::{Client, Edge, Fault, Memcached, Origin, edge, eventually, faulty, memcached, origin};

#[test]
fn under_recent_whoever_was_just_seen_passes_and_others_wait() {
    let (origin, mut memcached) = (origin("app"), memcached());
    let sessions = format!(
        "{{store: memcached, memcached: {{servers: [\"{}\"], timeout: 500ms}}, on_outage: {{policy: recent, within: 60s}}}}",
        memcached.address()
    );
    let edge = edge().service("iqueue", &origin).service("dextor", &origin).sessions(&sessions).start();
    let mut browser = edge.signed_in();
    let mut other_browser = browser.clone().user_agent("other/1");
    memcached.kill();

    let answer = browser.open(&edge.url("iqueue", "/"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(origin.last().one("x-forwarded-user").as_deref(), Some("ada"));
    let labels = "outcome=\"allowed\",reason=\"outage_recent\",service=\"iqueue\"";
    assert_eq!(edge.metric("sentry_edge_auth_decisions_total", labels), 1.0, "such a pass is counted");
    eventually("it is logged", || edge.access_log(1).last().unwrap()["reason"] == "outage_recent");
    assert_eq!(edge.admin("/readyz").status, 200, "the store's absence is provided for");

    assert_eq!(other_browser.open(&edge.url("iqueue", "/")).status, 302, "the fingerprint is still compared");
    edge.let_pass(Duration::from_secs(61));
    let late = browser.open(&edge.url("iqueue", "/"));
    assert_eq!(late.status, 503, "seen too long ago");
    assert!(late.set_cookie(TOKEN_COOKIE).is_none(), "and no user is logged out");
}

#[test]
fn under_recent_a_logout_here_is_a_logout() {
    let (origin, memcached) = (origin("app"), memcached());
    let sessions = format!(
        "{{store: memcached, memcached: {{servers: [\"{}\"], timeout: 500ms}}, on_outage: {{policy: recent, within: 60s}}}}",
        memcached.address()
    );
    let edge = edge().service("iqueue", &origin).service("dextor", &origin).sessions(&sessions).start();
    let mut browser = edge.signed_in();
    browser.follow(&edge.url("dextor", "/"));
    assert_eq!(browser.open(&edge.url("dextor", "/")).status, 200);
    assert_eq!(browser.sign_out(&edge.url("iqueue", "/.sentry/logout")).status, 200);
    memcached.freeze();
    assert_eq!(browser.open(&edge.url("dextor", "/")).status, 302, "no policy vouches for a session that ended here");
    memcached.thaw();
}

#[test]
fn readiness_under_recent_reckons_with_the_present_silence_alone_and_from_its_beginning() {
    let origin = origin("app");
    for (what, seconds, status) in [
        ("a probe has met an earlier silence, and a request its end", 60, 200),
        ("a request has met the silence, and no probe", 31, 503),
        ("a request has met the silence just now", 1, 200),
    ] {
        let memcached = memcached();
        let servers = format!("servers: [\"{}\"]", memcached.address());
        let edge = edge()
            .service("iqueue", &origin)
            .sessions(&format!(
                "{{store: memcached, memcached: {{{servers}}}, on_outage: {{policy: recent, within: 30s}}}}"
            ))
            .start();
        let mut browser = edge.signed_in();
        let label = format!("server=\"{}\"", memcached.address());
        let is_up = || edge.metric("sentry_edge_session_store_up", &label) == 1.0;
        memcached.freeze();
        if what.starts_with("a probe") {
            assert_eq!(edge.admin("/readyz").status, 200, "{what}: the silence has only begun");
            memcached.thaw();
            eventually("a request is answered by the store", || {
                browser.open(&edge.url("iqueue", "/"));
                is_up()
            });
            edge.let_pass(Duration::from_secs(seconds));
            memcached.freeze();
        } else {
            eventually("a request has met the silence", || {
                browser.open(&edge.url("iqueue", "/"));
                !is_up()
            });
            edge.let_pass(Duration::from_secs(seconds));
        }
        assert_eq!(edge.admin("/readyz").status, status, "{what}");
        memcached.thaw();
    }
}

#[test]
fn a_service_may_have_a_policy_of_its_own() {
    let (origin, mut memcached) = (origin("app"), memcached());
    let edge = edge()
        .service_with("iqueue", &origin, "on_outage: token_only")
        .service("dextor", &origin)
        .memcached(&memcached.address())
        .start();
    let mut browser = edge.signed_in();
    browser.follow(&edge.url("dextor", "/"));
    memcached.kill();
    assert_eq!(browser.open(&edge.url("iqueue", "/")).status, 200, "the token alone decides here");
    assert_eq!(browser.open(&edge.url("dextor", "/")).status, 503, "and not there");
    let labels = "outcome=\"allowed\",reason=\"outage_token_only\",service=\"iqueue\"";
    assert_eq!(edge.metric("sentry_edge_auth_decisions_total", labels), 1.0);
    assert_eq!(edge.admin("/readyz").status, 503, "the general policy is deny");
    browser.set_cookie(&edge.host("iqueue"), TOKEN_COOKIE, "a.b.c");
    assert_eq!(browser.open(&edge.url("iqueue", "/")).status, 302, "a bad token is bad whatever the policy");
}

#[test]
fn without_a_store_the_token_alone_decides_until_it_expires() {
    let origin = origin("app");
    let edge = edge()
        .service_with("iqueue", &origin, "idle_timeout: 5m")
        .sessions("{store: none}")
        .sentry("token: {lifetime: 1h}")
        .start();
    let mut browser = edge.signed_in();
    edge.let_pass(Duration::from_secs(3000));
    assert_eq!(browser.open(&edge.url("iqueue", "/")).status, 200, "there is no idle timeout");
    let token = browser.cookie(&edge.host("iqueue"), TOKEN_COOKIE).unwrap().to_owned();
    browser.sign_out(&edge.url("iqueue", "/.sentry/logout"));
    assert_eq!(browser.cookie(&edge.host("iqueue"), TOKEN_COOKIE), None, "a logout clears the cookie");
    browser.set_cookie(&edge.host("iqueue"), TOKEN_COOKIE, &token);
    assert_eq!(browser.open(&edge.url("iqueue", "/")).status, 200, "and is all that it does");
    edge.let_pass(Duration::from_secs(700));
    assert_eq!(browser.open(&edge.url("iqueue", "/")).status, 302, "the token's own end holds");
}

// What ended, whatever the policy.

const POLICIES: [&str; 3] = ["deny", "{policy: recent, within: 60s}", "token_only"];

fn sessions(servers: &[String], copies: usize, policy: &str) -> String {
    let servers: Vec<String> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    let servers = servers.join(", ");
    format!(
        "{{store: memcached, memcached: {{servers: [{servers}], copies: {copies}, timeout: 300ms}}, on_outage: {policy}}}"
    )
}

fn with_policy(origin: &Origin, servers: &[String], copies: usize, policy: &str) -> Edge {
    let builder = edge().service("iqueue", origin).service("dextor", origin).balanced();
    builder.sessions(&sessions(servers, copies, policy)).start()
}

/// Signed in at both services, and seen there.
fn signed_in_everywhere(edge: &Edge) -> Client {
    let mut browser = edge.signed_in();
    assert_eq!(browser.follow(&edge.url("dextor", "/")).pop().unwrap().status, 200);
    assert_eq!(browser.open(&edge.url("dextor", "/")).status, 200);
    browser
}

/// What the sign-on host says of a browser.
fn current_user(edge: &Edge, browser: &mut Client) -> serde_json::Value {
    browser.get(&edge.url("sentry", "/currentUser")).json()["currentUser"].clone()
}

#[test]
fn a_session_that_ended_or_was_found_ended_here_passes_under_no_policy() {
    let origin = origin("app");
    for policy in POLICIES {
        for (how, ends_here) in [("a logout here", true), ("a logout elsewhere, seen here", false)] {
            let memcached = memcached();
            let one = with_policy(&origin, &[memcached.address()], 1, policy);
            let other = one.twin();
            let mut browser = signed_in_everywhere(&one);
            let mut leaving = browser.clone();
            let edge = if ends_here { &one } else { &other };
            assert_eq!(leaving.through(edge.address()).sign_out(&edge.url("iqueue", "/.sentry/logout")).status, 200);
            if !ends_here {
                assert_eq!(browser.clone().open(&one.url("iqueue", "/")).status, 302, "{policy}, {how}");
            }
            memcached.freeze();
            for round in 0..3 {
                for service in ["iqueue", "dextor"] {
                    let status = browser.open(&one.url(service, "/")).status;
                    assert_eq!(status, 302, "{policy}, {how}, {service}, round {round}");
                }
            }
            memcached.thaw();
        }
    }
}

#[test]
fn one_late_answer_is_no_outage() {
    let origin = origin("app");
    for policy in POLICIES {
        let memcached = memcached();
        let path = faulty(&memcached);
        let one = with_policy(&origin, &[path.address()], 1, policy);
        let other = with_policy_of(&one, &path.address(), &memcached.address());
        let (mut living, mut ended) = (signed_in_everywhere(&one), signed_in_everywhere(&one));
        path.set(Fault::LateOnce);
        assert_eq!(living.open(&one.url("iqueue", "/")).status, 200, "{policy}: read once more, it is active");
        let mut leaving = ended.clone();
        assert_eq!(leaving.through(other.address()).sign_out(&other.url("iqueue", "/.sentry/logout")).status, 200);
        path.set(Fault::LateOnce);
        assert_eq!(ended.open(&one.url("iqueue", "/")).status, 302, "{policy}: read once more, it has ended");
        for reason in ["outage_recent", "outage_token_only"] {
            let labels = format!("outcome=\"allowed\",reason=\"{reason}\",service=\"iqueue\"");
            assert_eq!(one.metric("sentry_edge_auth_decisions_total", &labels), 0.0, "{policy}: no policy was used");
        }
    }
}

/// Another edge with the same users, which reaches the store on another way.
fn with_policy_of(edge: &Edge, from: &str, to: &str) -> Edge {
    let file = edge.folder.path().join("edge.yaml");
    let yaml = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, yaml.replace(from, to)).unwrap();
    let other = edge.twin();
    std::fs::write(&file, yaml).unwrap();
    other
}

#[test]
fn a_policy_speaks_once_the_store_has_failed_again() {
    let origin = origin("app");
    for (policy, status) in POLICIES.into_iter().zip([503, 200, 200]) {
        let memcached = memcached();
        let edge = with_policy(&origin, &[memcached.address()], 1, policy);
        let mut browser = signed_in_everywhere(&edge);
        memcached.freeze();
        for round in 0..3 {
            assert_eq!(browser.open(&edge.url("iqueue", "/")).status, status, "{policy}, round {round}");
        }
        memcached.thaw();
    }
}

#[test]
fn a_logout_while_the_store_is_away_holds_here_at_once_and_everywhere_when_it_is_back() {
    let origin = origin("app");
    for copies in 1..=3 {
        for policy in POLICIES {
            for (service, path) in [("iqueue", "/.sentry/logout"), ("sentry", "/logout")] {
                let when = format!("{copies} copies, {policy}, at {service}");
                let memcacheds: Vec<Memcached> = (0..3).map(|_| memcached()).collect();
                let servers: Vec<String> = memcacheds.iter().map(Memcached::address).collect();
                let one = with_policy(&origin, &servers, copies, policy);
                let other = one.twin();
                let mut kept = signed_in_everywhere(&one);
                let mut leaving = kept.clone();
                memcacheds.iter().for_each(Memcached::freeze);

                let hops = leaving.follow(&one.url(service, path));
                let out = hops.last().unwrap();
                assert_eq!(out.status, 200, "{when}: {}", out.body);
                assert!(out.body.contains("You are signed out here"), "{when}: {}", out.body);
                assert!(out.body.contains("It follows by itself"), "{when}: {}", out.body);
                assert!(hops[0].set_cookie(TOKEN_COOKIE).is_some_and(|cookie| cookie.contains("Max-Age=0")), "{when}");
                assert_eq!(leaving.cookie(&one.host(service), TOKEN_COOKIE), None, "{when}");
                let is_out = |browser: &mut Client, then: &str| {
                    for service in ["iqueue", "dextor"] {
                        assert_eq!(browser.open(&one.url(service, "/")).status, 302, "{when}, {then}: {service}");
                    }
                    assert!(current_user(&one, browser).is_null(), "{when}, {then}: the sign-on host");
                };
                is_out(&mut kept.clone(), "while it is away");

                memcacheds.iter().for_each(Memcached::thaw);
                is_out(&mut kept.clone(), "when it is back");
                kept.move_to(other.address());
                eventually("the other edge learns of it", || {
                    [302, 503].contains(&kept.clone().open(&other.url("iqueue", "/")).status)
                        && one.metric("sentry_edge_session_store_tombstones_owed", "") == 0.0
                });
                eventually("it is ended there", || kept.clone().open(&other.url("iqueue", "/")).status == 302);
                is_out(&mut kept, "when all have heard");
            }
        }
    }
}

#[test]
fn a_script_is_told_that_its_logout_is_yet_to_be_heard_of_elsewhere() {
    let (origin, memcached) = (origin("app"), memcached());
    let edge = with_policy(&origin, &[memcached.address()], 1, "deny");
    let mut browser = signed_in_everywhere(&edge);
    memcached.freeze();
    let out = browser.get(&edge.url("iqueue", "/.sentry/logout"));
    assert_eq!((out.status, &out.json()["pending"]), (202, &true.into()), "{}", out.body);
    assert_eq!(browser.cookie(&edge.host("iqueue"), TOKEN_COOKIE), None);
    let line = edge.events("logout", 1).remove(0);
    assert_eq!((line["user"].as_str(), line["reason"].as_str()), (Some("ada"), Some("store_away")));
    memcached.thaw();
}
