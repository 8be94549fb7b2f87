//! What passes while the session store is away, by the operator's policy; and without any store at all.

use std::time::Duration;

use crate::harness::edge::TOKEN_COOKIE;
use crate::harness::{edge, eventually, memcached, origin};

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
    assert!(late.set_cookie(TOKEN_COOKIE).is_none(), "and nobody is logged out");
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
    assert_eq!(browser.open(&edge.url("iqueue", "/.sentry/logout")).status, 200);
    memcached.freeze();
    assert_eq!(browser.open(&edge.url("dextor", "/")).status, 503, "no policy vouches for a session that ended here");
    memcached.thaw();
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
    browser.open(&edge.url("iqueue", "/.sentry/logout"));
    assert_eq!(browser.cookie(&edge.host("iqueue"), TOKEN_COOKIE), None, "a logout clears the cookie");
    browser.set_cookie(&edge.host("iqueue"), TOKEN_COOKIE, &token);
    assert_eq!(browser.open(&edge.url("iqueue", "/")).status, 200, "and is all that it does");
    edge.let_pass(Duration::from_secs(700));
    assert_eq!(browser.open(&edge.url("iqueue", "/")).status, 302, "the token's own end holds");
}
