//! What an administrator does holds at once on sessions that are alive, on every edge that shares the directory.

use sentry_edge::users::{Grants, Password, UserName, password};

use crate::harness::{Client, Edge, Origin, edge, eventually, memcached, origin};

fn ada() -> UserName {
    UserName::parse("ada").unwrap()
}

fn grants(services: &[&str], roles: &[&str]) -> Grants {
    let owned = |list: &[&str]| list.iter().map(|item| (*item).to_owned()).collect();
    Grants::parse(owned(services), owned(roles)).unwrap()
}

/// An edge with an open route, one for administrators, and Ada signed in at both services.
fn signed_in(origin: &Origin) -> (Edge, Client) {
    let edge = edge()
        .service_with("iqueue", origin, "routes: [{path: /admin, access: {roles: [admin]}}]")
        .service("dextor", origin)
        .user("bob", &["iqueue"], &[])
        .start();
    let mut browser = edge.signed_in();
    browser.follow(&edge.url("dextor", "/"));
    (edge, browser)
}

fn status(edge: &Edge, browser: &mut Client, service: &str, path: &str) -> u16 {
    browser.open(&edge.url(service, path)).status
}

#[test]
fn a_disabled_user_is_out_everywhere_and_enabling_brings_no_session_back() {
    let origin = origin("app");
    let (edge, mut browser) = signed_in(&origin);
    let mut bystander = edge.client();
    edge.sign_in(&mut bystander, "iqueue", "bob");
    assert_eq!(status(&edge, &mut browser, "dextor", "/"), 200);

    edge.directory().set_disabled(&ada(), true).unwrap();
    eventually("dextor asks for a login", || status(&edge, &mut browser, "dextor", "/") == 302);
    assert_eq!(status(&edge, &mut browser, "iqueue", "/"), 302);
    assert_eq!(status(&edge, &mut bystander, "iqueue", "/"), 200, "others stay signed in");

    edge.directory().set_disabled(&ada(), false).unwrap();
    let form = browser.follow(&edge.url("iqueue", "/")).pop().unwrap();
    assert!(form.body.contains("name=\"password\""), "the old session stays ended: {}", form.status);
    let mut again = edge.client();
    eventually("a new login works", || {
        again.forget_cookies();
        let form = again.follow(&edge.url("iqueue", "/")).pop().unwrap();
        edge.send_login(&mut again, &form, "ada", crate::harness::edge::PASSWORD).status == 303
    });
}

#[test]
fn ended_sessions_stay_ended_and_a_new_login_is_not_one_of_them() {
    let origin = origin("app");
    let (edge, mut browser) = signed_in(&origin);
    edge.directory().end_sessions(&ada()).unwrap();
    eventually("iqueue asks for a login", || status(&edge, &mut browser, "iqueue", "/") == 302);
    let mut again = edge.signed_in();
    assert_eq!(status(&edge, &mut again, "iqueue", "/"), 200);
    assert!(
        edge.metric(
            "sentry_edge_auth_decisions_total",
            "outcome=\"login_required\",reason=\"revoked\",service=\"iqueue\""
        ) >= 1.0
    );
}

#[test]
fn a_new_password_ends_what_was_opened_with_the_old_one() {
    let origin = origin("app");
    let (edge, mut browser) = signed_in(&origin);
    let hash = password::hash(&Password::new("another password".into()).unwrap()).unwrap();
    edge.directory().set_password_hash(&ada(), &hash).unwrap();
    eventually("iqueue asks for a login", || status(&edge, &mut browser, "iqueue", "/") == 302);
}

#[test]
fn a_service_that_was_revoked_is_forbidden_and_one_that_was_granted_opens() {
    let origin = origin("app");
    let (edge, mut browser) = signed_in(&origin);
    edge.directory().revoke(&ada(), &grants(&["dextor"], &["admin"])).unwrap();
    eventually("dextor is forbidden", || status(&edge, &mut browser, "dextor", "/") == 403);
    assert_eq!(status(&edge, &mut browser, "iqueue", "/admin"), 403, "the role went too");
    assert_eq!(status(&edge, &mut browser, "iqueue", "/"), 200, "the session lives");
    assert_eq!(origin.last().one("x-forwarded-groups").as_deref(), Some(""));

    edge.directory().grant(&ada(), &grants(&["dextor"], &["admin", "nurse"])).unwrap();
    eventually("dextor is open again", || status(&edge, &mut browser, "dextor", "/") == 200);
    assert_eq!(origin.last().one("x-forwarded-groups").as_deref(), Some("admin,nurse"));
    assert_eq!(status(&edge, &mut browser, "iqueue", "/admin"), 200);
}

#[test]
fn the_word_survives_a_restart_and_holds_with_sessions_in_memcached() {
    let (origin, memcached) = (origin("app"), memcached());
    let mut edge = edge().service("iqueue", &origin).memcached(&memcached.address()).start();
    let mut browser = edge.signed_in();
    edge.directory().end_sessions(&ada()).unwrap();
    edge.restart();
    browser.move_to(edge.address());
    assert_eq!(browser.open(&edge.url("iqueue", "/")).status, 302, "though memcached still holds the session");
}
