//! Signing in with user name and password: what is told and what is not, what is counted, and what is no form of ours.
//!
//! Numbers in brackets are those of the security report's list of bad inputs.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sentry_edge::users::{Password, StoredHash, UserName, password};

use crate::harness::client::{RawConnection, raw_connection};
use crate::harness::edge::{Builder, PASSWORD, TOKEN_COOKIE};
use crate::harness::{Client, DEADLINE, Edge, Origin, Response, edge, eventually, memcached, origin};

const FORM: &str = "application/x-www-form-urlencoded";
const CSRF_COOKIE: &str = "__Host-SSOLogin";

struct Scene {
    edge: Edge,
    _iqueue: Origin,
}

fn scene() -> Scene {
    scene_with(|builder| builder)
}

fn scene_with(more: impl FnOnce(Builder) -> Builder) -> Scene {
    let iqueue = origin("iqueue");
    let builder = edge().service("iqueue", &iqueue).user("bob", &["iqueue"], &[]).user("cyd", &["iqueue"], &[]);
    Scene { edge: more(builder).start(), _iqueue: iqueue }
}

/// Opens the form and sends it, in a browser of its own.
fn attempt(edge: &Edge, user: &str, password: &str) -> Response {
    let mut client = edge.client();
    let form = client.open(&edge.url("sentry", "/login"));
    edge.send_login(&mut client, &form, user, password)
}

/// An attempt from an address that a trusted proxy names.
fn attempt_from(edge: &Edge, address: &str, user: &str, password: &str) -> Response {
    let mut client = edge.client();
    let form = client.open(&edge.url("sentry", "/login"));
    let csrf = form.form_field("csrf");
    let body = encode(&[("csrf", &csrf), ("username", user), ("password", password)]);
    client
        .ask("POST", &edge.url("sentry", "/login"))
        .accept("text/html")
        .field("content-type", FORM)
        .field("x-forwarded-for", address)
        .body(body)
        .send()
}

fn encode(fields: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

fn logins(edge: &Edge, result: &str) -> f64 {
    edge.metric("sentry_edge_logins_total", &format!("result=\"{result}\""))
}

/// The reasons of all refused logins in the audit log, once there are so many.
fn refusals(edge: &Edge, count: usize) -> Vec<String> {
    let lines = edge.audit(count);
    lines
        .iter()
        .filter(|line| line["event"] == "login_refused")
        .map(|line| line["reason"].as_str().unwrap().to_owned())
        .collect()
}

fn set_password(edge: &Edge, user: &str, text: &str) {
    let hash = password::hash(&Password::new(text.into()).unwrap()).unwrap();
    edge.directory().set_password_hash(&UserName::parse(user).unwrap(), &hash).unwrap();
}

// What is told.

#[test]
fn an_unknown_user_a_wrong_password_and_a_disabled_account_are_told_alike() {
    let Scene { edge, .. } = &scene();
    edge.directory().set_disabled(&UserName::parse("bob").unwrap(), true).unwrap();
    let mut browser = edge.client();
    let form = browser.open(&edge.url("sentry", "/login"));
    let mut told = |user: &str, password: &str| {
        let answer = edge.send_login(&mut browser, &form, user, password);
        assert!(answer.body.contains(&format!("value=\"{user}\"")), "the user name is kept: {}", answer.body);
        assert!(!answer.body.contains(password), "the password is not: {}", answer.body);
        let id = answer.header("x-request-id").unwrap().to_owned();
        let body = answer.body.replace(user, "USER").replace(&id, "ID").replace(&id[..8], "REFERENCE");
        let headers: BTreeMap<String, String> = answer
            .headers
            .iter()
            .filter(|(name, _)| !["date", "x-request-id"].contains(&name.as_str()))
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        (answer.status, headers, body)
    };
    let wrong = told("ada", "wrong-password");
    assert_eq!(wrong.0, 401);
    assert!(wrong.2.contains("The username or the password is not correct"), "{}", wrong.2);
    assert_eq!(told("eve", "wrong-password"), wrong, "[169] an unknown user");
    assert_eq!(told("bob", PASSWORD), wrong, "[170] a disabled account with its right password");
    assert_eq!(refusals(edge, 3), ["wrong_password", "unknown_user", "disabled"], "the audit log knows which");
}

#[test]
fn an_unknown_user_is_locked_out_like_a_known_one() {
    let Scene { edge, .. } = &scene();
    for user in ["ada", "nobody"] {
        let statuses: Vec<u16> = (0..7).map(|_| attempt(edge, user, "wrong-password").status).collect();
        assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429], "{user}");
    }
}

#[test]
fn while_an_account_is_limited_the_right_password_is_told_what_a_wrong_one_is() {
    let Scene { edge, .. } = &scene();
    for _ in 0..5 {
        assert_eq!(attempt(edge, "ada", "wrong-password").status, 401);
    }
    let (right, wrong) = (attempt(edge, "ada", PASSWORD), attempt(edge, "ada", "wrong-password"));
    for answer in [&right, &wrong] {
        assert_eq!(answer.status, 429);
        assert!(answer.body.contains("too many attempts"), "{}", answer.body);
        let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=900).contains(&seconds), "{seconds}");
        assert_eq!(answer.set_cookie(TOKEN_COOKIE), None);
    }
    assert_eq!(attempt(edge, "bob", PASSWORD).status, 303, "others are not held up");
}

#[test]
fn every_failure_keeps_the_way_back_and_the_name_but_never_the_password() {
    let Scene { edge, .. } = &scene();
    let mut browser = edge.client();
    let form = browser.follow(&edge.url("iqueue", "/a?b=%20c")).pop().unwrap();
    let (url, state) = (form.form_field("redirectURL"), form.form_field("state"));
    for (user, secret, status, notice) in [
        ("", "hunter2hunter2", 400, "Enter both your username and your password."),
        (" \t ", "hunter2hunter2", 400, "Enter both your username and your password."),
        ("ada", "", 400, "Enter both your username and your password."),
        ("", "", 400, "Enter both your username and your password."),
        ("ada", "hunter2hunter2", 401, "The username or the password is not correct."),
        ("a\u{200b}da", "hunter2hunter2", 401, "The username or the password is not correct."),
    ] {
        let answer = edge.send_login(&mut browser, &form, user, secret);
        assert_eq!(answer.status, status, "{user:?}");
        assert!(answer.body.contains(notice), "{user:?}: {}", answer.body);
        assert!(answer.body.contains("role=\"alert\""), "{user:?}");
        assert_eq!(answer.form_field("redirectURL"), url, "{user:?}");
        assert_eq!(answer.form_field("state"), state, "{user:?}");
        assert!(answer.body.contains(&format!("value=\"{user}\"")), "{user:?}: {}", answer.body);
        assert!(!answer.body.contains("hunter2"), "{user:?}: {}", answer.body);
        assert_eq!(answer.set_cookie(TOKEN_COOKIE), None, "{user:?}");
    }
    let sent = edge.send_login(&mut browser, &form, "ada", PASSWORD);
    let page = browser.follow(&sent.location().unwrap()).pop().unwrap();
    assert_eq!(page.url, edge.url("iqueue", "/a?b=%20c"), "and the form still leads there");
}

#[test]
fn a_form_without_its_fields_is_asked_for_them() {
    let Scene { edge, .. } = &scene();
    let mut browser = edge.client();
    let csrf = browser.open(&edge.url("sentry", "/login")).form_field("csrf");
    for fields in [
        vec![("csrf", csrf.as_str())],
        vec![("csrf", &csrf), ("username", "ada")],
        vec![("csrf", &csrf), ("password", "x")],
    ] {
        let answer = browser.post_form(&edge.url("sentry", "/login"), &fields);
        assert_eq!(answer.status, 400, "{fields:?}");
        assert!(answer.body.contains("Enter both"), "{fields:?}: {}", answer.body);
    }
    assert_eq!(logins(edge, "refused"), 0.0, "nothing was tried");
}

#[test]
fn what_was_typed_is_shown_as_text_and_never_as_html() {
    let Scene { edge, .. } = &scene();
    let answer = attempt(edge, "\"><script>alert(1)</script>", "x");
    assert!(!answer.body.contains("<script"), "{}", answer.body);
    assert!(answer.body.contains("&#60;script"), "{}", answer.body);
}

// What is counted.

#[test]
fn every_spelling_of_a_name_counts_as_one_account() {
    let Scene { edge, .. } = &scene();
    for (user, status) in
        [("ada", 401), ("ADA", 401), (" ada ", 401), ("ＡＤＡ", 401), ("𝐚𝐝𝐚", 401), ("aDa\u{a0}", 429), ("ada", 429)]
    {
        assert_eq!(attempt(edge, user, "wrong-password").status, status, "[171] {user:?}");
    }
    assert_eq!(attempt(edge, "ada\u{200b}", PASSWORD).status, 401, "[171] with a character that nobody sees");
    assert_eq!(refusals(edge, 8).last().unwrap(), "malformed", "[171] and no hash was spent on it");
}

#[test]
fn fifty_guesses_at_once_get_five_hashes_with_counters_in_memory() {
    fifty_guesses(&scene_with(|builder| builder.sentry("login: {failures_per_address: 1000 per 15m}")).edge);
}

#[test]
fn fifty_guesses_at_once_get_five_hashes_with_counters_in_a_real_memcached() {
    let memcached = memcached();
    let patient = format!(
        "{{store: memcached, memcached: {{servers: [\"{}\"], timeout: 5s, sign_on_timeout: 10s}}}}",
        memcached.address()
    );
    let scene = scene_with(|builder| builder.sentry("login: {failures_per_address: 1000 per 15m}").sessions(&patient));
    fifty_guesses(&scene.edge);
}

fn fifty_guesses(edge: &Edge) {
    let mut browser = edge.client();
    let form = browser.open(&edge.url("sentry", "/login"));
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let guess = |number: usize| {
            let (mut browser, form) = (browser.clone(), &form);
            move || edge.send_login(&mut browser, form, "ada", &format!("guess number {number}")).status
        };
        let guesses: Vec<_> = (0..50).map(|number| scope.spawn(guess(number))).collect();
        guesses.into_iter().map(|guess| guess.join().unwrap()).collect()
    });
    let count = |status| statuses.iter().filter(|other| **other == status).count();
    assert_eq!((count(401), count(429)), (5, 45), "[172] {statuses:?}");
    assert_eq!((logins(edge, "refused"), logins(edge, "limited")), (5.0, 45.0), "[172]");
    assert_eq!(attempt(edge, "ada", PASSWORD).status, 429, "[172] luck at the sixth is none");
}

#[test]
fn edges_that_share_a_memcached_count_together() {
    let memcached = memcached();
    let [one, other] = [(); 2].map(|()| scene_with(|builder| builder.memcached(&memcached.address())));
    for edge in [&one.edge, &one.edge, &one.edge, &other.edge, &other.edge] {
        assert_eq!(attempt(edge, "ada", "wrong-password").status, 401);
    }
    for edge in [&one.edge, &other.edge] {
        assert_eq!(attempt(edge, "ada", PASSWORD).status, 429);
    }
}

/// How many logins were slowed because of their address.
fn slowed(edge: &Edge) -> f64 {
    edge.metric("sentry_edge_limits_reached_total", "limit=\"failures_per_address\"")
}

#[test]
fn an_address_that_has_failed_often_is_slowed_and_never_refused_whoever_it_claims_to_be() {
    let more = |builder: Builder| {
        builder.server("trusted_proxies: [127.0.0.1/32]").sentry("login: {failures_per_address: 3 per 15m}")
    };
    let Scene { edge, .. } = &scene_with(more);
    for number in 0..3 {
        assert_eq!(attempt_from(edge, "192.0.2.1", &format!("user{number}"), "x").status, 401, "[173] {number}");
    }
    assert_eq!(slowed(edge), 0.0, "[173]");
    for number in 3..6 {
        assert_eq!(attempt_from(edge, "192.0.2.1", &format!("user{number}"), "x").status, 401, "[173] {number}");
    }
    assert_eq!(attempt_from(edge, "192.0.2.1", "ada", PASSWORD).status, 303, "[173]");
    assert_eq!(slowed(edge), 4.0, "[173]");
    assert_eq!(attempt_from(edge, "192.0.2.2", "ada", PASSWORD).status, 303, "[173]");
    assert_eq!(slowed(edge), 4.0, "[173] the neighbour is not held up");
}

#[test]
fn an_ipv6_client_is_its_whole_network_of_64_bits() {
    let limit = "login: {failures_per_address: 2 per 15m}";
    let Scene { edge, .. } = &scene_with(|builder| builder.server("trusted_proxies: [127.0.0.1/32]").sentry(limit));
    let mut before = 0.0;
    for (number, (address, is_slowed)) in [
        ("2001:db8:1:2::1", false),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", false),
        ("2001:db8:1:2:3:4:5:6", true),
        ("2001:db8:1:3::1", false),
        ("192.0.2.9", false),
        ("::ffff:192.0.2.9", false),
        ("192.0.2.9", true),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(attempt_from(edge, address, &format!("eve{number}"), "x").status, 401, "{address}");
        let now = slowed(edge);
        assert_eq!(now > before, is_slowed, "{address}");
        before = now;
    }
}

#[test]
fn a_limit_ages_out_after_its_window_and_not_before() {
    let Scene { edge, .. } = &scene();
    for _ in 0..5 {
        attempt(edge, "ada", "wrong-password");
    }
    edge.let_pass(Duration::from_secs(14 * 60));
    assert_eq!(attempt(edge, "ada", PASSWORD).status, 429, "[174] trying meanwhile does not help");
    edge.let_pass(Duration::from_secs(61));
    assert_eq!(attempt(edge, "ada", PASSWORD).status, 303, "[174] nor does it prolong the wait");
}

#[test]
fn a_success_resets_its_account_and_is_no_failure_of_its_address() {
    let Scene { edge, .. } = &scene_with(|builder| builder.sentry("login: {failures_per_address: 9 per 15m}"));
    for _ in 0..12 {
        assert_eq!(attempt(edge, "bob", PASSWORD).status, 303, "a success is no failure");
    }
    for _ in 0..2 {
        for _ in 0..4 {
            assert_eq!(attempt(edge, "ada", "wrong-password").status, 401);
        }
        assert_eq!(attempt(edge, "ada", PASSWORD).status, 303);
    }
    assert_eq!(attempt(edge, "cyd", "wrong-password").status, 401, "the ninth failure of the address");
    assert_eq!(slowed(edge), 0.0);
    assert_eq!(attempt(edge, "cyd", PASSWORD).status, 303);
    assert_eq!(slowed(edge), 1.0, "its account was reset, its address was not");
}

// Passwords.

#[test]
fn a_password_is_taken_exactly_as_it_was_typed() {
    let Scene { edge, .. } = &scene_with(|builder| builder.sentry("login: {failures_per_account: 100 per 15m}"));
    let emoji = "😀".repeat(64);
    let longest = "x".repeat(1024);
    for (exact, others) in [
        ("with\0nul", vec!["with", "with\0", "withnul", "with\0nu"]),
        (" spaces around ", vec!["spaces around", " spaces around", "spaces around "]),
        (&emoji, vec![&emoji[4..], "😀"]),
        ("e\u{301}tude", vec!["\u{e9}tude"]),
        ("a+b&c=d%20", vec!["a b&c=d%20", "a+b"]),
        ("line\r\nbreak", vec!["line\nbreak"]),
        (&longest, vec![&longest[1..]]),
    ] {
        set_password(edge, "ada", exact);
        assert_eq!(attempt(edge, "ada", exact).status, 303, "[177] {exact:?}");
        for other in others {
            assert_eq!(attempt(edge, "ada", other).status, 401, "[177] {other:?} is not {exact:?}");
        }
    }
}

#[test]
fn a_password_that_nobody_can_have_costs_no_hash() {
    let Scene { edge, .. } = &scene();
    assert_eq!(attempt(edge, "ada", &"x".repeat(1025)).status, 401, "[176]");
    assert_eq!(refusals(edge, 1), ["malformed"], "[176] refused before the hash");
    assert_eq!(attempt(edge, "ada", &"x".repeat(1 << 20)).status, 413, "[176]");
    assert_eq!(logins(edge, "refused"), 1.0, "[176] nothing of it was read as a login");
}

// What is no form of ours.

#[test]
fn only_a_urlencoded_form_is_a_form() {
    let Scene { edge, .. } = &scene();
    let mut browser = edge.client();
    let csrf = browser.open(&edge.url("sentry", "/login")).form_field("csrf");
    let body = encode(&[("csrf", &csrf), ("username", "ada"), ("password", PASSWORD)]);
    let mut send = |content_type: Option<&str>| {
        let asking = browser.ask("POST", &edge.url("sentry", "/login")).accept("text/html").body(body.clone());
        let asking = match content_type {
            Some(content_type) => asking.field("content-type", content_type),
            None => asking,
        };
        asking.send().status
    };
    for bad in [
        None,
        Some(""),
        Some("text/plain"),
        Some("application/json"),
        Some("multipart/form-data; boundary=x"),
        Some("application/x-www-form-urlencodedx"),
        Some("text/plain; application/x-www-form-urlencoded"),
    ] {
        assert_eq!(send(bad), 415, "[178] {bad:?}");
    }
    for good in [FORM, "application/x-www-form-urlencoded; charset=utf-8", "Application/X-WWW-Form-Urlencoded"] {
        assert_eq!(send(Some(good)), 303, "[178] {good}");
    }
}

#[test]
fn a_field_that_stands_twice_is_nobodys_to_choose_from() {
    let Scene { edge, .. } = &scene();
    let mut browser = edge.client();
    let csrf = browser.open(&edge.url("sentry", "/login")).form_field("csrf");
    let good =
        [("csrf", csrf.as_str()), ("username", "ada"), ("password", PASSWORD), ("redirectURL", ""), ("state", "")];
    for (twice, value) in [
        ("username", "eve"),
        ("username", "ada"),
        ("password", "x"),
        ("csrf", "x"),
        ("redirectURL", ""),
        ("state", "x"),
    ] {
        let fields: Vec<(&str, &str)> = good.into_iter().chain([(twice, value)]).collect();
        let answer = browser.post_form(&edge.url("sentry", "/login"), &fields);
        assert_eq!(answer.status, 400, "[179] {twice}");
        assert_eq!(answer.set_cookie(TOKEN_COOKIE), None, "[179] {twice}");
    }
    assert_eq!(browser.post_form(&edge.url("sentry", "/login"), &good).status, 303, "[179] once is fine");
}

#[test]
fn a_form_of_another_browser_is_refused_without_a_hash() {
    let Scene { edge, .. } = &scene();
    let (mut attacker, mut victim) = (edge.client(), edge.client());
    let theirs = attacker.open(&edge.url("sentry", "/login"));
    victim.open(&edge.url("sentry", "/login"));
    let answer = edge.send_login(&mut victim, &theirs, "ada", PASSWORD);
    assert_eq!(answer.status, 403, "[180]");
    assert!(answer.body.contains("This page was open for too long."), "[180] {}", answer.body);
    assert!(answer.body.contains("value=\"ada\""), "[180] the name is kept: {}", answer.body);
    assert_eq!(answer.set_cookie(TOKEN_COOKIE), None, "[180]");
    assert_eq!((logins(edge, "forged"), logins(edge, "accepted")), (1.0, 0.0), "[180]");
    let again = edge.send_login(&mut victim, &answer, "ada", PASSWORD);
    assert_eq!(again.status, 303, "[180] the form that came with the refusal works");
}

#[test]
fn bad_csrf_tokens_are_refused() {
    let Scene { edge, .. } = &scene();
    let mut browser = edge.client();
    let csrf = browser.open(&edge.url("sentry", "/login")).form_field("csrf");
    let nonce = browser.cookie(&edge.host("sentry"), CSRF_COOKIE).unwrap().to_owned();
    for bad in ["", "x", &csrf[1..], &format!("{csrf}A"), &csrf.to_uppercase(), &nonce, &format!("{csrf} ")] {
        let fields = [("csrf", bad), ("username", "ada"), ("password", PASSWORD)];
        let answer = browser.post_form(&edge.url("sentry", "/login"), &fields);
        assert_eq!(answer.status, 403, "[180] {bad:?}");
        assert_eq!(answer.set_cookie(TOKEN_COOKIE), None, "[180] {bad:?}");
    }
}

#[test]
fn a_browser_that_kept_no_cookie_is_told_so() {
    let Scene { edge, .. } = &scene();
    let mut browser = edge.client();
    let form = browser.open(&edge.url("sentry", "/login"));
    browser.forget_cookies();
    let answer = edge.send_login(&mut browser, &form, "ada", PASSWORD);
    assert_eq!(answer.status, 403);
    assert!(answer.body.contains("Your browser did not keep our cookie."), "{}", answer.body);
    assert!(answer.body.contains("value=\"ada\""), "{}", answer.body);
    assert_eq!(edge.send_login(&mut browser, &answer, "ada", PASSWORD).status, 303, "now that it keeps them");
}

#[test]
fn another_site_cannot_send_the_form_even_with_everything_in_it() {
    let Scene { edge, .. } = &scene();
    let mut browser = edge.client();
    let form = browser.open(&edge.url("sentry", "/login"));
    let body = encode(&[("csrf", &form.form_field("csrf")), ("username", "ada"), ("password", PASSWORD)]);
    let own = edge.url("sentry", "");
    let sibling = edge.url("iqueue", "");
    let no_port = format!("https://{}", edge.host("sentry"));
    for (origin, site, status) in [
        (Some("https://evil.example"), None, 403),
        (Some(sibling.as_str()), None, 403),
        (Some(no_port.as_str()), None, 403),
        (Some(""), None, 403),
        (None, Some("cross-site"), 403),
        (None, Some("same-site"), 403),
        (None, Some("none"), 403),
        (None, Some("Same-Origin"), 403),
        (Some(own.as_str()), Some("cross-site"), 403),
        (Some(own.as_str()), None, 303),
        (Some(own.as_str()), Some("same-origin"), 303),
        (Some("null"), Some("same-origin"), 303),
        // Browsers from before Fetch Metadata, on a page whose policy is `no-referrer`.
        (Some("null"), None, 303),
        (None, None, 303),
    ] {
        let mut asking =
            browser.ask("POST", &edge.url("sentry", "/login")).accept("text/html").field("content-type", FORM);
        for (name, value) in [("origin", origin), ("sec-fetch-site", site)] {
            if let Some(value) = value {
                asking = asking.field(name, value);
            }
        }
        let answer = asking.body(body.clone()).send();
        assert_eq!(answer.status, status, "[181] Origin {origin:?}, Sec-Fetch-Site {site:?}");
        assert_eq!(answer.set_cookie(TOKEN_COOKIE).is_some(), status == 303, "[181] {origin:?} {site:?}");
    }
}

/// Origin, Fetch Metadata and the signed double submit in all combinations. Fetch Metadata decides where it is there; where
/// it is not, a foreign Origin is refused, and with any other the double submit decides.
#[test]
fn a_form_is_believed_by_fetch_metadata_and_else_by_the_double_submit() {
    let Scene { edge, .. } = &scene();
    let own = edge.url("sentry", "");
    let sibling = edge.url("iqueue", "");
    for origin in [None, Some("null"), Some(own.as_str()), Some(sibling.as_str()), Some("https://evil.example")] {
        for site in [None, Some("same-origin"), Some("same-site"), Some("cross-site"), Some("none")] {
            for (field, cookie) in [("right", true), ("wrong", true), ("right", false), ("absent", true)] {
                let mut browser = edge.client();
                let form = browser.open(&edge.url("sentry", "/login"));
                let mut other = edge.client();
                let csrf = match field {
                    "right" => form.form_field("csrf"),
                    "wrong" => other.open(&edge.url("sentry", "/login")).form_field("csrf"),
                    _ => String::new(),
                };
                if !cookie {
                    browser.forget_cookies();
                }
                let mut asking =
                    browser.ask("POST", &edge.url("sentry", "/login")).accept("text/html").field("content-type", FORM);
                for (name, value) in [("origin", origin), ("sec-fetch-site", site)] {
                    asking = match value {
                        Some(value) => asking.field(name, value),
                        None => asking,
                    };
                }
                let answer =
                    asking.body(encode(&[("csrf", &csrf), ("username", "ada"), ("password", PASSWORD)])).send();
                let believed = match (site, origin) {
                    (Some(site), _) => site == "same-origin" && cookie,
                    (None, Some(origin)) if origin != "null" && origin != own => false,
                    (None, _) => field == "right" && cookie,
                };
                let what = format!("Origin {origin:?}, Sec-Fetch-Site {site:?}, field {field}, cookie {cookie}");
                assert_eq!(answer.status, if believed { 303 } else { 403 }, "{what}");
                assert_eq!(answer.set_cookie(TOKEN_COOKIE).is_some(), believed, "{what}");
            }
        }
    }
}

/// An old browser says its own origin with a form whose page has this policy, and `null` under `no-referrer`.
#[test]
fn pages_with_a_form_of_ours_are_sent_under_a_policy_that_lets_browsers_say_their_origin() {
    let Scene { edge, .. } = &scene();
    let mut browser = edge.client();
    let policy = |answer: &Response| {
        let page = answer.body.split("<meta name=\"referrer\" content=\"").nth(1).unwrap().split('"').next().unwrap();
        assert!(answer.body.contains("<form"), "{}", answer.body);
        (answer.header("referrer-policy").unwrap().to_owned(), page.to_owned())
    };
    let same_origin = ("same-origin".to_owned(), "same-origin".to_owned());
    let form = browser.open(&edge.url("sentry", "/login"));
    assert_eq!(policy(&form), same_origin, "the form");
    let again = edge.send_login(&mut browser, &form, "ada", "wrong");
    assert_eq!((again.status, policy(&again)), (401, same_origin.clone()), "the form again");
    let mut ada = edge.signed_in();
    assert_eq!(policy(&ada.open(&edge.url("sentry", "/"))), same_origin, "the landing page, which signs out");
    let asked = ada
        .ask("GET", &edge.url("iqueue", "/.sentry/logout"))
        .accept("text/html")
        .field("sec-fetch-site", "cross-site")
        .send();
    assert_eq!(policy(&asked), same_origin, "the question before a logout");
}

#[test]
fn credentials_in_a_url_sign_nobody_in_and_reach_no_log() {
    let Scene { edge, .. } = &scene();
    let mut browser = edge.client();
    let csrf = browser.open(&edge.url("sentry", "/login")).form_field("csrf");
    let query = encode(&[("csrf", &csrf), ("username", "ada"), ("password", PASSWORD)]);
    for method in ["GET", "HEAD"] {
        let answer = browser.ask(method, &edge.url("sentry", &format!("/login?{query}"))).accept("text/html").send();
        assert_eq!(answer.set_cookie(TOKEN_COOKIE), None, "[182] {method}");
        assert_ne!(answer.status, 303, "[182] {method}");
        assert!(!answer.body.contains("staple"), "[182] {method}: {}", answer.body);
    }
    let page = browser.open(&edge.url("iqueue", "/"));
    assert_eq!(page.status, 302, "[182] nobody is signed in");
    edge.access_log(4);
    for log in ["access.log", "audit.log"] {
        let text = std::fs::read_to_string(edge.folder.path().join(log)).unwrap_or_default();
        assert!(!text.contains("staple"), "[182] {log}: {text}");
    }
    assert_eq!((logins(edge, "accepted"), logins(edge, "refused")), (0.0, 0.0), "[182]");
}

#[test]
fn a_head_of_the_form_is_its_get_without_the_body() {
    let Scene { edge, .. } = &scene();
    let get = edge.client().open(&edge.url("sentry", "/login"));
    let head = edge.client().ask("HEAD", &edge.url("sentry", "/login")).accept("text/html").send();
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    for name in ["content-type", "content-length", "cache-control", "content-security-policy"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
}

#[test]
fn a_success_is_answered_with_see_other_so_that_no_browser_sends_the_password_on() {
    let Scene { edge, .. } = &scene();
    let sent = attempt(edge, "ada", PASSWORD);
    assert_eq!(sent.status, 303, "[184]");
    assert_eq!(sent.location(), Some(edge.url("sentry", "/copyCookie")), "[184]");
    assert_eq!(sent.body, "", "[184]");
}

#[test]
fn other_methods_are_told_which_ones_there_are() {
    let Scene { edge, .. } = &scene();
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = edge.client().ask(method, &edge.url("sentry", "/login")).send();
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD, POST")), "{method}");
    }
}

// Sizes and times.

#[test]
fn a_form_may_have_16_kib_and_not_a_byte_more() {
    let Scene { edge, .. } = &scene();
    let mut browser = edge.client();
    let csrf = browser.open(&edge.url("sentry", "/login")).form_field("csrf");
    let mut body = encode(&[("csrf", &csrf), ("username", "ada"), ("password", PASSWORD), ("padding", "")]);
    body.push_str(&"x".repeat(16 * 1024 - body.len()));
    let mut send = |body: &str| {
        let asking = browser.ask("POST", &edge.url("sentry", "/login")).accept("text/html").field("content-type", FORM);
        asking.body(body).send()
    };
    assert_eq!(send(&body).status, 303);
    let refused = send(&format!("{body}x"));
    assert_eq!(refused.status, 413);
    assert_eq!(refused.set_cookie(TOKEN_COOKIE), None);
}

#[test]
fn a_form_in_chunks_is_taken_and_held_to_the_same_limit() {
    let Scene { edge, .. } = &scene();
    let (head, body) = raw_form(edge, "transfer-encoding: chunked\r\n");
    let mut connection = raw_connection(edge.address(), &edge.host("sentry"));
    connection.say(&format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()));
    assert_status(&connection.hear("\r\n\r\n", DEADLINE), 303);

    let mut connection = raw_connection(edge.address(), &edge.host("sentry"));
    connection.say(&head);
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(4096));
    // It never ends: the limit has to end it.
    for _ in 0..5 {
        connection.say(&chunk);
    }
    assert_status(&connection.hear("\r\n\r\n", DEADLINE), 413);
}

/// The head of a good login over HTTP/1.1 with `fields` in it, and its body.
fn raw_form(edge: &Edge, fields: &str) -> (String, String) {
    let mut browser = edge.client();
    let csrf = browser.open(&edge.url("sentry", "/login")).form_field("csrf");
    let cookie = browser.cookie(&edge.host("sentry"), CSRF_COOKIE).unwrap();
    let host = format!("{}:{}", edge.host("sentry"), edge.address().port());
    let head = format!(
        "POST /login HTTP/1.1\r\nhost: {host}\r\naccept: text/html\r\ncontent-type: {FORM}\r\n\
         cookie: {CSRF_COOKIE}={cookie}\r\n{fields}\r\n"
    );
    (head, encode(&[("csrf", &csrf), ("username", "ada"), ("password", PASSWORD)]))
}

fn assert_status(answer: &str, status: u16) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "not {status}: {answer}");
}

#[test]
fn a_form_that_drips_in_is_ended_by_its_deadline() {
    let Scene { edge, .. } = &scene();
    let (head, body) = raw_form(edge, "content-length: 10000\r\n");
    let mut connection = raw_connection(edge.address(), &edge.host("sentry"));
    connection.say(&head);
    let mut answer = String::new();
    // Each byte comes well before any timeout between two reads; there are enough for minutes.
    let mut drops = body.bytes().cycle().take(2000);
    while answer.is_empty() && drops.next().is_some_and(|byte| connection.say(&char::from(byte).to_string())) {
        answer = connection.hear("\r\n\r\n", Duration::from_millis(100));
    }
    assert_status(&answer, 408);
    assert!(drops.next().is_some(), "it was the deadline that ended it");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
}

#[test]
fn whoever_sends_far_too_much_still_gets_to_read_why() {
    let Scene { edge, .. } = &scene();
    let (head, _) = raw_form(edge, "content-length: 4000000\r\n");
    let mut connection = raw_connection(edge.address(), &edge.host("sentry"));
    connection.say(&head);
    for piece in 0..400 {
        assert!(connection.say(&"x".repeat(10_000)), "cut off at piece {piece}");
    }
    assert_status(&connection.hear("\r\n\r\n", DEADLINE), 413);
}

#[test]
fn a_client_that_waits_for_100_continue_is_not_kept_waiting() {
    let Scene { edge, .. } = &scene();
    let (_, body) = raw_form(edge, "");
    let (head, body) = {
        let fields = format!("content-length: {}\r\nexpect: 100-continue\r\n", body.len());
        raw_form(edge, &fields)
    };
    let mut connection: RawConnection = raw_connection(edge.address(), &edge.host("sentry"));
    connection.say(&head);
    let interim = connection.hear("\r\n\r\n", DEADLINE);
    assert_eq!(interim, "HTTP/1.1 100 Continue\r\n\r\n");
    connection.say(&body);
    assert_status(&connection.hear("\r\n\r\n", DEADLINE), 303);

    let (head, _) = raw_form(edge, "content-length: 16385\r\nexpect: 100-continue\r\n");
    let mut connection = raw_connection(edge.address(), &edge.host("sentry"));
    connection.say(&head);
    let answer = connection.hear("\r\n\r\n", DEADLINE);
    assert_status(&answer, 413);
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "the body may still come: {answer}");
}

#[test]
fn when_the_login_pool_is_full_the_rest_are_told_to_come_back() {
    let pool = "login: {workers: 1, queue: 1, deadline: 5m}";
    let Scene { edge, .. } = &scene_with(|builder| builder.sentry(pool));
    // A hash of a dear kind: one login keeps the only worker busy for long.
    let dear = StoredHash::parse(&format!("$pbkdf2-sha512$i=1000000${0}${0}", "A".repeat(43))).unwrap();
    edge.directory().set_password_hash(&UserName::parse("bob").unwrap(), &dear).unwrap();
    let mut browser = edge.client();
    let form = &browser.open(&edge.url("sentry", "/login"));
    let answers: Vec<Response> = std::thread::scope(|scope| {
        let attempt = |mut browser: Client| move || edge.send_login(&mut browser, form, "bob", "x");
        let tries: Vec<_> = (0..4).map(|_| scope.spawn(attempt(browser.clone()))).collect();
        tries.into_iter().map(|login| login.join().unwrap()).collect()
    });
    let busy: Vec<&Response> = answers.iter().filter(|answer| answer.status == 503).collect();
    assert!((2..4).contains(&busy.len()), "one is checked, at most one waits: {}", busy.len());
    for answer in busy {
        assert!(answer.header("retry-after").is_some());
        assert!(answer.body.contains("Many people are signing in"), "{}", answer.body);
        assert!(answer.body.contains("value=\"bob\""), "{}", answer.body);
    }
    assert_eq!(logins(edge, "busy") + logins(edge, "refused"), 4.0);
    eventually("room again", || attempt(edge, "ada", PASSWORD).status == 303);
    set_password(edge, "bob", PASSWORD);
    for _ in 0..3 {
        let again = attempt(edge, "bob", "x").status;
        assert_eq!(again, 401, "being turned away was no failure of the account's");
    }
}

// What a login makes.

#[test]
fn every_login_makes_a_fresh_session_and_keeps_nothing_that_was_planted() {
    let Scene { edge, .. } = &scene();
    let sentry = edge.host("sentry");
    let eve_cookie = token_of(&attempt(edge, "bob", PASSWORD));
    let mut seen = vec![session_id(&eve_cookie)];
    for planted in [eve_cookie.as_str(), "x", "eyJhbGciOiJub25lIn0.e30."] {
        let mut victim = edge.client();
        let form = victim.open(&edge.url("sentry", "/login"));
        victim.set_cookie(&sentry, TOKEN_COOKIE, planted);
        let sent = edge.send_login(&mut victim, &form, "ada", PASSWORD);
        assert_eq!(sent.status, 303);
        let session = session_id(&token_of(&sent));
        assert!(!seen.contains(&session), "{planted}");
        seen.push(session);
    }
    let mut eve = edge.client();
    eve.set_cookie(&sentry, TOKEN_COOKIE, &eve_cookie);
    let current = eve.get(&edge.url("sentry", "/currentUser")).json();
    assert!(current["currentUser"].is_null(), "the planted session is not the victim's, and has ended: {current}");
}

fn token_of(sent: &Response) -> String {
    let cookie = sent.set_cookie(TOKEN_COOKIE).unwrap();
    cookie[TOKEN_COOKIE.len() + 1..].split(';').next().unwrap().to_owned()
}

fn session_id(token: &str) -> String {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    claims["sid"].as_str().unwrap().to_owned()
}

#[test]
fn two_open_forms_of_one_browser_both_work() {
    let Scene { edge, .. } = &scene();
    let mut browser = edge.client();
    let [first, second] = [(); 2].map(|()| browser.open(&edge.url("sentry", "/login")));
    assert_eq!(edge.send_login(&mut browser, &second, "ada", PASSWORD).status, 303);
    assert_eq!(edge.send_login(&mut browser, &first, "ada", PASSWORD).status, 303);
}

#[test]
fn the_form_wears_the_sites_title_text_and_logo_as_text_and_picture() {
    let svg = "<svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>";
    let brand =
        "login: {title: \"Welcome to <b>Smith & Sons</b>\", text: \"Use your <i>work</i> account\", logo: logo.svg}";
    let Scene { edge, .. } = &scene_with(|builder| builder.file("logo.svg", svg).sentry(brand));
    let form = edge.client().open(&edge.url("sentry", "/login"));
    for text in ["Welcome to &#60;b&#62;Smith &#38; Sons&#60;/b&#62;", "Use your &#60;i&#62;work&#60;/i&#62; account"] {
        assert!(form.body.contains(text), "no {text:?} in {}", form.body);
    }
    let uri = form.body.split("src=\"data:image/svg+xml;base64,").nth(1).unwrap().split('"').next().unwrap();
    let uri = uri.replace("&#43;", "+").replace("&#47;", "/").replace("&#61;", "=");
    let picture = base64::engine::general_purpose::STANDARD.decode(uri).unwrap();
    assert_eq!(String::from_utf8(picture).unwrap(), svg, "a picture runs no script");
    assert!(!form.body.contains("<script") && !form.body.contains("<b>"), "{}", form.body);
    assert!(form.header("content-security-policy").unwrap().contains("default-src 'none'"));
}
