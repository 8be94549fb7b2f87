//! Redirects end: between two edges of which only one has heard of a change, and in browsers that do not keep a cookie.

use std::cell::Cell;
use std::net::SocketAddr;

use url::Url;

use super::disagreement::{Change, pair};
use super::{MOST_REDIRECTS, redirects_of, scene};
use crate::harness::edge::{STATE_COOKIE, TOKEN_COOKIE};
use crate::harness::tabs::Shown;

const CHANGES: [Change; 5] = [Change::Nothing, Change::Key, Change::Clock, Change::Revocation, Change::Layout];

/// Which of the two edges takes a request: the n-th of this browser, for this URL.
type Choice = (String, Choose);
type Choose = Box<dyn Fn(&Url, usize) -> bool>;

/// Round robin from either, by host, by path, and drawn: true is the second edge.
fn choices() -> Vec<Choice> {
    let mut choices: Vec<Choice> = vec![
        ("in turns".into(), Box::new(|_, n| n % 2 == 1)),
        ("in turns, from the second".into(), Box::new(|_, n| n % 2 == 0)),
        ("the sign-on host at the second".into(), Box::new(|url, _| url.host_str().unwrap().starts_with("sentry"))),
        ("the services at the second".into(), Box::new(|url, _| !url.host_str().unwrap().starts_with("sentry"))),
        ("all at the second".into(), Box::new(|_, _| true)),
    ];
    for path in ["/noCookie", "/copyCookie", "/login", "/"] {
        choices.push((format!("{path} at the second"), Box::new(move |url, _| url.path() == path)));
        choices.push((format!("all but {path} at the second"), Box::new(move |url, _| url.path() != path)));
    }
    for seed in 1..=8_u64 {
        // A linear congruential generator, of which the upper bits are good enough to choose by.
        let drawn = move |n: usize| {
            (0..=n).fold(seed, |x, _| x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1)) >> 63 == 1
        };
        choices.push((format!("drawn from {seed}"), Box::new(move |_, n| drawn(n))));
    }
    choices
}

fn balancer(choose: Choose, edges: [SocketAddr; 2]) -> impl FnMut(&Url) -> SocketAddr {
    let count = Cell::new(0);
    move |url| {
        let n = count.replace(count.get() + 1);
        edges[usize::from(choose(url, n))]
    }
}

#[test]
fn two_edges_that_disagree_send_nobody_round_without_an_end() {
    let mut too_long = Vec::new();
    for change in CHANGES {
        let pair = pair(change);
        let browsers: Vec<_> = choices().into_iter().map(|choice| (choice, pair.signed_in(1))).collect();
        pair.revoke_where_that_is_the_change(change, &browsers[0].1);
        let edges = [pair.scene.edge.address(), pair.second.address()];
        for ((name, choose), mut tabs) in browsers {
            tabs.rebalance(balancer(choose, edges));
            let mut seen = vec![tabs.visit(0, &pair.scene.url("dextor"))];
            // Whoever is asked for a password types it, twice if need be.
            for _ in 0..2 {
                if tabs.shown(0) == Shown::Form {
                    seen.push(tabs.sign_in(0, "ana"));
                }
            }
            if seen.iter().any(|told| told.contains("no end") || redirects_of(told) > MOST_REDIRECTS) {
                too_long.push(format!("{change:?}, {name}: {seen:?}"));
            }
            if change == Change::Nothing {
                assert_eq!(seen, ["dextor/ · served as ana · 4 redirects"], "{name}");
            }
        }
    }
    assert!(too_long.is_empty(), "{} chains of redirects:\n{}", too_long.len(), too_long.join("\n"));
}

/// Edges disagree, and the service's cookie is not kept: neither alone ends such a flow.
#[test]
fn two_edges_that_disagree_about_a_browser_that_loses_a_cookie_send_nobody_round_without_an_end() {
    let mut too_long = Vec::new();
    let pair = pair(Change::Key);
    let edges = [pair.scene.edge.address(), pair.second.address()];
    for (name, choose) in choices() {
        let mut tabs = pair.signed_in(1).refusing("dextor.app.test", TOKEN_COOKIE);
        tabs.rebalance(balancer(choose, edges));
        let mut seen = vec![tabs.visit(0, &pair.scene.url("dextor"))];
        if tabs.shown(0) == Shown::Form {
            seen.push(tabs.sign_in(0, "ana"));
        }
        if seen.iter().any(|told| told.contains("no end") || redirects_of(told) > MOST_REDIRECTS) {
            too_long.push(format!("{name}: {seen:?}"));
        }
    }
    assert!(too_long.is_empty(), "{} chains of redirects:\n{}", too_long.len(), too_long.join("\n"));
}

/// Cookies that a browser or a proxy on the way does not keep: host, name.
const LOST: [&[(&str, &str)]; 6] = [
    &[("iqueue.app.test", TOKEN_COOKIE)],
    &[("iqueue.app.test", STATE_COOKIE)],
    &[("iqueue.app.test", TOKEN_COOKIE), ("iqueue.app.test", STATE_COOKIE)],
    &[("sentry.app.test", TOKEN_COOKIE)],
    &[("sentry.app.test", "__Host-SSODevice")],
    &[("sentry.app.test", TOKEN_COOKIE), ("iqueue.app.test", TOKEN_COOKIE), ("iqueue.app.test", STATE_COOKIE)],
];

#[test]
fn cookies_that_do_not_stick_end_in_a_page_before_a_browser_gives_up() {
    let mut too_long = Vec::new();
    for lost in LOST {
        let scene = scene();
        let mut tabs = lost.iter().fold(scene.tabs(1), |tabs, (host, name)| tabs.refusing(host, name));
        let mut seen = vec![tabs.visit_as(0, &scene.url("iqueue"), "ana")];
        seen.push(tabs.visit(0, &scene.url("iqueue")));
        if seen.iter().any(|told| told.contains("no end") || redirects_of(told) > MOST_REDIRECTS) {
            too_long.push(format!("{lost:?}: {seen:?}"));
        }
        if lost == [("sentry.app.test", "__Host-SSODevice")] {
            assert_eq!(seen[1], "iqueue/ · served as ana · 0 redirects");
        }
    }
    assert!(too_long.is_empty(), "{}", too_long.join("\n"));
}
