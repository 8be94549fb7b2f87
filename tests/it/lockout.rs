//! Who is kept out after failed logins, for how long, and who is not: crowds behind one address, strangers who guess,
//! devices that are known, administrators who open an account.

use std::collections::BTreeMap;

use sentry_edge::users::{Password, UserName, password};

use crate::harness::edge::{Builder, PASSWORD, TOKEN_COOKIE};
use crate::harness::process::{sentry_edge_with_input, text};
use crate::harness::{Client, Edge, Memcached, Origin, Response, edge, eventually, memcached, origin};

struct Scene {
    edge: Edge,
    _iqueue: Origin,
    _memcached: Option<Memcached>,
}

fn start(more: impl FnOnce(Builder) -> Builder) -> Scene {
    let iqueue = origin("iqueue");
    let builder = edge().service("iqueue", &iqueue).user("bob", &["iqueue"], &[]);
    Scene { edge: more(builder).start(), _iqueue: iqueue, _memcached: None }
}

/// With counters in this process, and in a real memcached.
fn both_stores(more: impl Fn(Builder) -> Builder) -> [Scene; 2] {
    let memcached = memcached();
    let shared = start(|builder| more(builder).memcached_within(&memcached.address(), "5s"));
    [start(&more), Scene { _memcached: Some(memcached), ..shared }]
}

fn name(user: &str) -> UserName {
    UserName::parse(user).unwrap()
}

/// Sends the form in this browser.
fn attempt(edge: &Edge, browser: &mut Client, user: &str, password: &str) -> Response {
    let form = browser.open(&edge.url("sentry", "/login"));
    edge.send_login(browser, &form, user, password)
}

/// Sends the form in a browser that was never here before.
fn stranger(edge: &Edge, user: &str, password: &str) -> Response {
    attempt(edge, &mut edge.client(), user, password)
}

/// A browser in which this user has signed in once, and signed out.
fn known_device(edge: &Edge, user: &str) -> Client {
    let mut browser = edge.client();
    assert_eq!(attempt(edge, &mut browser, user, PASSWORD).status, 303);
    browser.forget_cookie(&edge.host("sentry"), TOKEN_COOKIE);
    browser
}

/// Guesses in browsers that were never here before, until they are refused.
fn lock(edge: &Edge, user: &str) {
    let statuses: Vec<u16> = (0..6).map(|_| stranger(edge, user, "wrong-password").status).collect();
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429], "{user}");
}

/// Sends all of these at once, each in a browser of its own and to the edges in turn; answers how many had which status,
/// by what was sent.
fn at_once(edges: &[&Edge], logins: &[(String, &'static str)]) -> BTreeMap<(&'static str, u16), usize> {
    // The forms first: what is tried is what happens to the logins.
    let open = |edge: &&Edge| {
        let mut browser = edge.client();
        let form = browser.open(&edge.url("sentry", "/login"));
        (browser, form)
    };
    let browsers: Vec<(Client, Response)> = edges.iter().cycle().take(logins.len()).map(open).collect();
    let mut counts = BTreeMap::new();
    std::thread::scope(|scope| {
        let sent: Vec<_> = browsers
            .into_iter()
            .zip(logins)
            .map(|((mut browser, form), (user, password))| {
                scope.spawn(move || (*password, browser.fill_in(&form, user, password).status))
            })
            .collect();
        for login in sent {
            *counts.entry(login.join().unwrap()).or_default() += 1;
        }
    });
    counts
}

const WRONG: &str = "wrong-password";

fn limits_reached(edge: &Edge, limit: &str) -> f64 {
    edge.metric("sentry_edge_limits_reached_total", &format!("limit=\"{limit}\""))
}

// Crowds.

/// A morning's change of shifts: one address, one login worker, and somebody who guesses in their midst.
#[test]
fn a_crowd_behind_one_address_gets_in_while_wrong_passwords_come_from_the_same_address() {
    let crowd = |builder: Builder| {
        let settings = "login: {workers: 1, failures_per_address: 5 per 15m, deadline: 5m}";
        (0..24).fold(builder.sentry(settings), |builder, number| builder.user(&format!("u{number}"), &["iqueue"], &[]))
    };
    for scene in both_stores(crowd) {
        let edge = &scene.edge;
        let right = (0..24).map(|number| (format!("u{number}"), PASSWORD));
        // Half of them are for one account, the others for a name each.
        let wrong = (0..18).map(|number| {
            let user = if number % 2 == 0 { "ada".to_owned() } else { format!("nobody{number}") };
            (user, WRONG)
        });
        let mut logins: Vec<(String, &'static str)> = wrong.collect();
        let places = logins.len();
        for (number, login) in right.enumerate() {
            logins.insert((number * 7) % (places + number), login);
        }
        let counts = at_once(&[edge], &logins);
        assert_eq!(counts.get(&(PASSWORD, 303)), Some(&24), "{counts:?}");
        assert_eq!(counts.get(&(WRONG, 401)), Some(&14), "five guesses at ada's, nine at others: {counts:?}");
        assert_eq!(counts.get(&(WRONG, 429)), Some(&4), "{counts:?}");
    }
}

#[test]
fn an_account_that_many_people_share_lets_all_of_them_in_at_once() {
    for scene in both_stores(|builder| builder.sentry("login: {failures_per_account: 2 per 15m, deadline: 5m}")) {
        let logins: Vec<(String, &'static str)> = (0..20).map(|_| ("ada".to_owned(), PASSWORD)).collect();
        let counts = at_once(&[&scene.edge], &logins);
        assert_eq!(counts, BTreeMap::from([((PASSWORD, 303), 20)]));
        assert_eq!(stranger(&scene.edge, "ada", WRONG).status, 401, "and nothing of it counts");
    }
}

/// Parallel guesses slip past no limit, neither at one edge nor at several.
#[test]
fn guesses_at_once_get_no_more_hashes_than_the_limit_however_many_edges_there_are() {
    let [_, scene] = &both_stores(|builder| builder.sentry("login: {deadline: 5m}"));
    let edges = [&scene.edge, &scene.edge.twin(), &scene.edge.twin()];
    for user in ["ada", "nobody"] {
        let guesses: Vec<(String, &'static str)> = (0..30).map(|_| (user.to_owned(), WRONG)).collect();
        let counts = at_once(&edges, &guesses);
        assert_eq!(counts, BTreeMap::from([((WRONG, 401), 5), ((WRONG, 429), 25)]), "{user}");
    }
    for edge in edges {
        assert_eq!(stranger(edge, "ada", PASSWORD).status, 429);
    }
}

// Strangers and known devices.

#[test]
fn strangers_who_guess_keep_no_known_device_out() {
    for scene in both_stores(|builder| builder) {
        let edge = &scene.edge;
        let mut ada = known_device(edge, "ada");
        let mut bob = known_device(edge, "bob");
        lock(edge, "ada");
        for _ in 0..20 {
            assert_eq!(stranger(edge, "ada", WRONG).status, 429);
        }
        assert_eq!(stranger(edge, "ada", PASSWORD).status, 429, "luck is none");
        assert_eq!(attempt(edge, &mut bob, "ada", PASSWORD).status, 429, "bob's device is a stranger to ada");
        for typo in 0..2 {
            assert_eq!(attempt(edge, &mut ada, "ada", WRONG).status, 401, "typo {typo}");
        }
        assert_eq!(attempt(edge, &mut ada, "ada", PASSWORD).status, 303);
        assert_eq!(stranger(edge, "ada", PASSWORD).status, 429, "which opens the account to no stranger");
    }
}

#[test]
fn a_known_device_has_as_many_guesses_of_its_own_and_no_more() {
    for scene in both_stores(|builder| builder) {
        let edge = &scene.edge;
        let mut ada = known_device(edge, "ada");
        let statuses: Vec<u16> = (0..7).map(|_| attempt(edge, &mut ada, "ada", WRONG).status).collect();
        assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429]);
        assert_eq!(attempt(edge, &mut ada, "ada", PASSWORD).status, 429);
        assert_eq!(
            (limits_reached(edge, "failures_per_device"), limits_reached(edge, "failures_per_account")),
            (3.0, 0.0)
        );
        let mut other = known_device(edge, "ada");
        assert_eq!(attempt(edge, &mut other, "ada", PASSWORD).status, 303, "another device of ada's");
        assert_eq!(attempt(edge, &mut ada, "bob", PASSWORD).status, 303, "another person at the same device");
    }
}

#[test]
fn a_known_device_is_not_slowed_by_its_address_and_its_typos_slow_nobody() {
    let Scene { edge, .. } = &start(|builder| builder.sentry("login: {failures_per_address: 2 per 15m}"));
    let mut ada = known_device(edge, "ada");
    for _ in 0..4 {
        assert_eq!(attempt(edge, &mut ada, "ada", WRONG).status, 401);
    }
    assert_eq!(stranger(edge, "bob", WRONG).status, 401);
    assert_eq!(limits_reached(edge, "failures_per_address"), 0.0, "of four typos at a known device none counts");
    assert_eq!(stranger(edge, "bob", WRONG).status, 401);
    assert_eq!(attempt(edge, &mut ada, "ada", PASSWORD).status, 303);
    assert_eq!(limits_reached(edge, "failures_per_address"), 0.0);
    assert_eq!(stranger(edge, "bob", PASSWORD).status, 303);
    assert_eq!(limits_reached(edge, "failures_per_address"), 1.0);
}

/// A device cookie that was taken from a browser, or made up, guesses no more than one device.
#[test]
fn copies_of_a_device_count_together_and_forged_ones_are_strangers() {
    let Scene { edge, .. } = &start(|builder| builder);
    let ada = known_device(edge, "ada");
    for _ in 0..5 {
        assert_eq!(attempt(edge, &mut ada.clone(), "ada", WRONG).status, 401);
    }
    assert_eq!(attempt(edge, &mut ada.clone(), "ada", PASSWORD).status, 429);
    let mut forged = ada.clone();
    let host = edge.host("sentry");
    let value = ada.cookie(&host, "__Host-SSODevice").unwrap().to_owned();
    forged.set_cookie(&host, "__Host-SSODevice", &format!("B{}", &value[1..]));
    assert_eq!(attempt(edge, &mut forged, "ada", PASSWORD).status, 303, "it is a stranger, who has not failed yet");
}

// What an administrator does.

type Opening = (&'static str, fn(&Edge));

#[test]
fn an_administrator_opens_a_locked_account_on_every_edge_and_in_every_store() {
    let open: [Opening; 3] = [
        ("a new password", |edge| {
            let hash = password::hash(&Password::new(PASSWORD.into()).unwrap()).unwrap();
            edge.directory().set_password_hash(&name("ada"), &hash).unwrap();
        }),
        ("user enable", |edge| edge.directory().set_disabled(&name("ada"), false).unwrap()),
        ("user unlock", |edge| edge.directory().unlock(&name("ada")).unwrap()),
    ];
    for scene in both_stores(|builder| builder) {
        let edge = &scene.edge;
        let twin = edge.twin();
        for (what, open) in open {
            let mut ada = known_device(edge, "ada");
            lock(edge, "ada");
            if scene._memcached.is_none() {
                lock(&twin, "ada");
            }
            for _ in 0..5 {
                assert_eq!(attempt(edge, &mut ada, "ada", WRONG).status, 401, "{what}");
            }
            assert_eq!(attempt(edge, &mut ada, "ada", PASSWORD).status, 429, "{what}");
            open(edge);
            assert_eq!(attempt(edge, &mut ada, "ada", PASSWORD).status, 303, "{what}: a known device");
            for edge in [edge, &twin] {
                assert_eq!(stranger(edge, "ada", PASSWORD).status, 303, "{what}: a stranger");
            }
        }
    }
}

/// Changes of one account open no other one, and who is nobody is locked out like a user.
#[test]
fn an_account_that_was_opened_has_its_guesses_anew_and_no_more() {
    let Scene { edge, .. } = &start(|builder| builder);
    for user in ["ada", "bob", "nobody"] {
        lock(edge, user);
    }
    edge.directory().unlock(&name("ada")).unwrap();
    lock(edge, "ada");
    for user in ["bob", "nobody"] {
        assert_eq!(stranger(edge, user, WRONG).status, 429, "{user}");
    }
}

/// `user show`, which asks the store that the edges share.
#[test]
fn an_administrator_sees_that_an_account_is_locked() {
    let [own, shared] = &both_stores(|builder| builder);
    let show = |edge: &Edge, more: &[&str]| {
        let file = edge.folder.path().join("edge.yaml");
        let arguments = [&["user", "show", "ada", "-c", file.to_str().unwrap()], more].concat();
        let output = sentry_edge_with_input(&arguments, "");
        assert!(output.status.success(), "{output:?}");
        text(&output.stdout)
    };
    assert!(show(&shared.edge, &[]).contains("failures  none"));
    for scene in [own, shared] {
        lock(&scene.edge, "ada");
    }
    assert!(show(&shared.edge, &[]).contains("5 of 5: locked for devices that are new to the account, for "));
    let json: serde_json::Value = serde_json::from_str(&show(&shared.edge, &["--json"])).unwrap();
    assert_eq!(json["failed_logins"]["locked"], true, "{json}");
    assert!((1..=900).contains(&json["failed_logins"]["forgotten_in_s"].as_u64().unwrap()), "{json}");
    assert!(!show(&own.edge, &[]).contains("failures"), "what the edge's own memory counts is not known");
    shared.edge.directory().unlock(&name("ada")).unwrap();
    assert!(show(&shared.edge, &[]).contains("failures  none"));
}

// What is said.

#[test]
fn the_time_that_is_left_is_said_and_not_the_whole_window() {
    let Scene { edge, .. } = &start(|builder| builder);
    lock(edge, "ada");
    edge.let_pass(std::time::Duration::from_secs(14 * 60 + 10));
    let answer = stranger(edge, "ada", PASSWORD);
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=50).contains(&seconds), "{seconds}");
    assert!(answer.body.contains("try again in a minute"), "{}", answer.body);
}

#[test]
fn the_time_that_is_left_is_that_of_memcacheds_own_clock() {
    let [_, scene] = &both_stores(|builder| builder.sentry("login: {failures_per_account: 1 per 90s}"));
    let edge = &scene.edge;
    assert_eq!(stranger(edge, "ada", WRONG).status, 401);
    let left = || {
        let answer = stranger(edge, "ada", WRONG);
        assert_eq!(answer.status, 429);
        answer.header("retry-after").unwrap().parse::<u64>().unwrap()
    };
    let first = left();
    assert!((1..=90).contains(&first), "{first}");
    eventually("time passes", || left() < first);
}

#[test]
fn the_audit_log_names_users_who_are_kept_out_and_no_text_that_is_no_name() {
    let Scene { edge, .. } = &start(|builder| builder);
    let mut ada = known_device(edge, "ada");
    lock(edge, "ada");
    lock(edge, "my-secret-password");
    for _ in 0..6 {
        attempt(edge, &mut ada, "ada", WRONG);
    }
    let limited = |line: &serde_json::Value| line["reason"].as_str().is_some_and(|it| it.starts_with("failures_per"));
    let limited: Vec<_> = edge.audit(19).into_iter().filter(limited).collect();
    let told: Vec<_> = limited.iter().map(|line| (line["reason"].as_str().unwrap(), line["user"].as_str())).collect();
    assert_eq!(
        told,
        [("failures_per_account", Some("ada")), ("failures_per_account", None), ("failures_per_device", Some("ada"))]
    );
}
