//! Two edges of one house, of which only one has heard of a change: no request, login or logout at the other one costs a
//! session or leaves one behind.

use std::time::Duration;

use sentry_edge::clock::Clock;
use sentry_edge::users::UserName;

use super::{Scene, scene_with};
use crate::harness::edge::HMAC_KEY;
use crate::harness::tabs::Shown;
use crate::harness::{Edge, Memcached, Tabs, eventually, memcached};

/// What the first edge has or knows, and the second does not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    Nothing,
    /// The first signs with a key that the second has never seen.
    Key,
    /// The first one's clock is 60 seconds ahead.
    Clock,
    /// An administrator has disabled the user.
    Revocation,
    /// The second one's configuration lacks dextor.
    Layout,
}

pub struct Pair {
    /// Of the first edge.
    pub scene: Scene,
    pub second: Edge,
    _store: Memcached,
}

pub fn pair(change: Change) -> Pair {
    let store = memcached();
    let scene = scene_with(|edge| {
        let edge = edge.memcached(&store.address()).balanced();
        if change != Change::Key {
            return edge;
        }
        let key = |id: &str, secret: &str| format!("{{id: {id}, algorithm: HS256, secret: {{value: {secret}}}}}");
        edge.keys(&format!("[{}, {}]", key("main", HMAC_KEY), key("new", &HMAC_KEY.replace('0', "f"))))
            .sentry("token: {sign_with: new}")
    });
    let second = scene.edge.twin_that_differs("second", Clock::default(), |yaml| match change {
        Change::Nothing | Change::Clock => yaml,
        Change::Key => {
            let (before, new) = yaml.split_once(", {id: new").unwrap();
            let (_, after) = new.split_once("}}").unwrap();
            format!("{before}{after}").replace("sign_with: new", "sign_with: main")
        }
        Change::Revocation => yaml.replace("refresh: 20ms", "refresh: 1h"),
        Change::Layout => {
            let dextor = yaml.lines().filter(|line| line.starts_with("  dextor: ")).count();
            assert_eq!(dextor, 2);
            yaml.lines()
                .filter(|line| !line.starts_with("  dextor: "))
                .fold(String::new(), |yaml, line| yaml + line + "\n")
        }
    });
    if change == Change::Clock {
        scene.edge.let_pass(Duration::from_secs(60));
    }
    Pair { scene, second, _store: store }
}

impl Pair {
    /// Signed in through the first edge before the change is made.
    pub fn signed_in(&self, tabs: usize) -> Tabs {
        let mut browser = self.scene.tabs(tabs);
        assert_eq!(browser.visit_as(0, &self.scene.url("iqueue"), "ana"), "iqueue/ · served as ana · 3 redirects");
        browser
    }

    /// A revocation is made after everybody has signed in; the first edge has read it when this returns.
    pub fn revoke_where_that_is_the_change(&self, change: Change, probe: &Tabs) {
        if change != Change::Revocation {
            return;
        }
        self.scene.edge.directory().set_disabled(&UserName::parse("ana").unwrap(), true).unwrap();
        let url = self.scene.url("iqueue");
        eventually("the first edge has read it", || probe.jar.clone().open(&url).status == 302);
    }
}

#[test]
fn a_request_to_an_edge_that_cannot_read_the_cookie_yet_costs_no_session() {
    for change in [Change::Key, Change::Clock] {
        let pair = pair(change);
        let mut tabs = pair.signed_in(2);
        let second = pair.second.address();
        tabs.rebalance(move |_| second);
        for (service, path) in
            [("iqueue", "/"), ("dextor", "/"), ("sentry", "/login"), ("sentry", "/"), ("sentry", "/copyCookie")]
        {
            tabs.visit(1, &pair.scene.edge.url(service, path));
        }
        let first = pair.scene.edge.address();
        tabs.rebalance(move |_| first);
        let after = [tabs.visit(1, &pair.scene.url("iqueue")), tabs.visit(1, &pair.scene.url("dextor"))];
        assert_eq!(after[0], "iqueue/ · served as ana · 0 redirects", "{change:?}");
        assert!(after[1].starts_with("dextor/ · served as ana · "), "{change:?}: {after:?}");
    }
}

#[test]
fn a_login_at_an_edge_that_cannot_read_the_former_persons_cookie_ends_it_or_is_refused() {
    for change in [Change::Key, Change::Clock] {
        let pair = pair(change);
        let mut tabs = pair.signed_in(2);
        let (first, second) = (pair.scene.edge.address(), pair.second.address());
        tabs.rebalance(move |_| second);
        tabs.open(1, &pair.scene.url("dextor"));
        assert_eq!(tabs.settle(1).shown(), Shown::Form, "{change:?}");
        let login = tabs.sign_in(1, "ben");
        tabs.rebalance(move |_| first);
        let after = tabs.visit(0, &pair.scene.url("iqueue"));
        if login.contains(" · served as ben · ") {
            assert!(!after.contains("served as ana"), "{change:?}: {login}, then {after}");
        } else {
            assert!(login.contains(" · 503 "), "{change:?}: neither signed in nor refused: {login}");
        }
    }
}

#[test]
fn a_logout_at_an_edge_that_cannot_read_the_cookie_ends_the_session_all_the_same() {
    for change in [Change::Key, Change::Clock] {
        let pair = pair(change);
        let mut tabs = pair.signed_in(2);
        tabs.visit(1, &pair.scene.url("dextor"));
        let copied = tabs.jar.clone();
        let (first, second) = (pair.scene.edge.address(), pair.second.address());
        tabs.rebalance(move |_| second);
        tabs.log_out(0);
        assert_eq!(tabs.shown(0), Shown::SignedOut, "{change:?}");
        for service in ["iqueue", "dextor"] {
            let status = copied.clone().through(first).open(&pair.scene.url(service)).status;
            assert_eq!(status, 302, "{change:?}: {service} by the cookies from before the logout");
        }
    }
}
