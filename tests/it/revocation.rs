//! What an administrator does holds at once on sessions that are alive, on every edge that shares the directory.

use std::time::Duration;

use sentry_edge::users::{Grants, Password, UserName, password};

use crate::harness::process::sentry_edge;
use crate::harness::{Client, Edge, Memcached, Origin, edge, eventually, memcached, origin};

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

// No clock hides it.

/// What an administrator types, and what a page for administrators then answers.
const WORDS: [(&[&str], u16); 4] = [
    (&["user", "disable", "ada"], 302),
    (&["session", "end", "--user", "ada"], 302),
    (&["user", "revoke", "ada", "--role", "admin"], 403),
    (&["user", "revoke", "ada", "--service", "iqueue"], 403),
];

const ADMIN: &str = "routes: [{path: /admin, access: {roles: [admin]}}]";

fn type_in(edge: &Edge, words: &[&str]) {
    let file = edge.folder.path().join("edge.yaml");
    let arguments = [words, &["-c", file.to_str().unwrap()]].concat();
    let output = sentry_edge(&arguments);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The database as another program has it.
fn database(edge: &Edge) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(edge.folder.path().join("users.db")).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    connection
}

#[test]
fn an_administrators_word_is_heard_whatever_the_clocks_have_said_before() {
    let origin = origin("app");
    type Story = fn(&mut Edge);
    let stories: [(&str, Story); 4] = [
        ("all clocks are right", |_| {}),
        ("a row was written while a clock was ahead", |edge| {
            let ahead = edge.clock.now().seconds() as i64 + 7200;
            database(edge).execute("UPDATE users SET updated_at = ?1 WHERE name = 'bob'", [ahead]).unwrap();
        }),
        ("a word was given while a clock was ahead", |edge| {
            let ahead = edge.clock.now().seconds() as i64 + 7200;
            let change = "UPDATE users SET updated_at = ?1, ended_before = ?1 * 1000 WHERE name = 'bob'";
            database(edge).execute(change, [ahead]).unwrap();
        }),
        // The command line's process has the system's own clock.
        ("the edge's clock is two hours ahead when she signs in", |edge| edge.let_pass(Duration::from_secs(7200))),
    ];
    for (story, happens) in stories {
        for (words, status) in WORDS {
            let mut edge = edge().service_with("iqueue", &origin, ADMIN).user("bob", &["iqueue"], &[]).start();
            happens(&mut edge);
            // Until the edge has read what was written; it reads fifty times a second.
            std::thread::sleep(Duration::from_millis(500));
            let mut browser = edge.signed_in();
            assert_eq!(browser.open(&edge.url("iqueue", "/admin")).status, 200, "{story}");
            type_in(&edge, words);
            eventually(&format!("{words:?} is heard, though {story}"), || {
                browser.open(&edge.url("iqueue", "/admin")).status == status
            });
        }
    }
}

#[test]
fn after_an_end_that_a_clock_ahead_has_written_a_new_login_is_good() {
    let origin = origin("app");
    let edge = edge().service("iqueue", &origin).start();
    let mut before = edge.signed_in();
    let ahead = edge.clock.now().seconds() as i64 + 7200;
    let end = "UPDATE users SET updated_at = ?1, ended_before = ?1 * 1000 WHERE name = 'ada'";
    database(&edge).execute(end, [ahead]).unwrap();
    eventually("her session has ended", || before.open(&edge.url("iqueue", "/")).status == 302);
    let mut after = edge.signed_in();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(after.open(&edge.url("iqueue", "/")).status, 200);
    type_in(&edge, &["session", "end", "--user", "ada"]);
    eventually("and an end by a clock that is right is heard", || after.open(&edge.url("iqueue", "/")).status == 302);
}

#[test]
fn nobody_comes_back_by_a_restart_however_long_ago_the_word_was_given_and_whatever_the_lifetime_is_now() {
    let (origin, memcached) = (origin("app"), memcached());
    for lifetime in ["30days", "12h", "5m"] {
        for hours in [0, 13, 40 * 24] {
            for (words, status) in WORDS {
                memcached.tell("flush_all");
                let mut edge = edge()
                    .service_with("iqueue", &origin, &format!("idle_timeout: 5m, {ADMIN}"))
                    .sentry("token: {lifetime: 30days}")
                    .memcached(&memcached.address())
                    .start();
                let mut browser = edge.signed_in();
                type_in(&edge, words);
                eventually("it is heard", || browser.clone().open(&edge.url("iqueue", "/admin")).status == status);
                let back = "UPDATE users SET updated_at = updated_at - 3600 * ?1, created_at = created_at - 3600 * ?1";
                database(&edge).execute(back, [hours]).unwrap();
                let file = edge.folder.path().join("edge.yaml");
                let yaml = std::fs::read_to_string(&file).unwrap();
                std::fs::write(&file, yaml.replace("lifetime: 30days", &format!("lifetime: {lifetime}"))).unwrap();
                edge.restart();
                browser.move_to(edge.address());
                let answer = browser.open(&edge.url("iqueue", "/admin"));
                assert_eq!(answer.status, status, "{words:?} {hours} h ago, lifetime now {lifetime}");
            }
        }
    }
}

#[test]
fn a_shorter_lifetime_holds_for_tokens_that_were_made_before() {
    let (origin, memcached) = (origin("app"), memcached());
    for (age, lifetime, status) in [(3600, "12h", 200), (13 * 3600, "12h", 302), (13 * 3600, "14h", 200)] {
        for restarts in [false, true] {
            let mut edge = edge()
                .service("iqueue", &origin)
                .service("dextor", &origin)
                .sentry("token: {lifetime: 30days}")
                .memcached(&memcached.address())
                .start();
            let mut browser = edge.signed_in();
            edge.let_pass(Duration::from_secs(age));
            // Its token is young, and its login is not.
            assert_eq!(browser.follow(&edge.url("dextor", "/")).pop().unwrap().status, 200);
            edge.reload_with(|yaml| yaml.replace("lifetime: 30days", &format!("lifetime: {lifetime}")));
            if restarts {
                edge.restart();
                browser.move_to(edge.address());
            }
            for service in ["iqueue", "dextor"] {
                let answer = browser.clone().open(&edge.url(service, "/")).status;
                assert_eq!(answer, status, "{age} s old, {lifetime}, {service}, restarted: {restarts}");
            }
        }
    }
}

#[test]
fn a_user_whose_row_is_gone_is_out_and_one_odd_row_hides_nothing() {
    let origin = origin("app");
    for odd in ["name = 'no name at all'", "name = ''", "password_hash = 'x'", "email = x'00'", "updated_at = -1"] {
        let edge = edge().service("iqueue", &origin).user("bob", &["iqueue"], &[]).start();
        let (mut ada, mut bob) = (edge.signed_in(), edge.client());
        edge.sign_in(&mut bob, "iqueue", "bob");
        let database = database(&edge);
        if database.execute(&format!("UPDATE users SET {odd} WHERE name = 'bob'"), []).is_err() {
            // A table that takes no such value needs no test of it.
            continue;
        }
        edge.directory().end_sessions(&UserName::parse("ada").unwrap()).unwrap();
        eventually(&format!("ada is out, though {odd}"), || ada.open(&edge.url("iqueue", "/")).status == 302);
        database.execute_batch("PRAGMA foreign_keys = ON; DELETE FROM users WHERE name <> 'ada'").unwrap();
        eventually("bob is out", || bob.open(&edge.url("iqueue", "/")).status == 302);
    }
}

#[test]
fn the_word_survives_restarts_with_every_store() {
    let origin = origin("app");
    let memcached: Memcached = memcached();
    for sessions in [
        "{store: none}".to_owned(),
        format!(
            "{{store: memcached, memcached: {{servers: [\"{}\"], timeout: 1s, sign_on_timeout: 10s}}}}",
            memcached.address()
        ),
    ] {
        for (words, status) in WORDS {
            let mut edge = edge().service_with("iqueue", &origin, ADMIN).sessions(&sessions).start();
            let mut browser = edge.signed_in();
            type_in(&edge, words);
            for _ in 0..2 {
                edge.restart();
                browser.move_to(edge.address());
                assert_eq!(browser.open(&edge.url("iqueue", "/admin")).status, status, "{sessions}: {words:?}");
            }
        }
    }
}
