//! Every order in which two tabs, two people and a logout can follow each other; and drawn orders in which requests
//! and replies cross as well.
//!
//! What must hold is that of the model: a request that was sent while no login or logout was under way shows the
//! person who typed the password last, or a form after a logout; and when nothing is under way, all that the
//! browser's cookies open is one person's.

use serde_json::Value;

use super::{MOST_REDIRECTS, Scene, scene, scene_with};
use crate::harness::tabs::Shown;
use crate::harness::{Tabs, memcached};

/// Who every service has to serve.
#[derive(Clone, Debug, PartialEq)]
enum Last {
    /// Nobody has signed in yet.
    Nobody,
    Typed(&'static str),
    SignedOut,
    /// Two logins, or a login and a logout, crossed: the order is the network's.
    Unclear,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Move {
    Open(&'static str),
    Type(&'static str),
    SignOut,
}

struct Walk<'a> {
    scene: &'a Scene,
    tabs: Tabs,
    last: Last,
    /// Whether the tab's request was sent while no login or logout was under way, and none has been sent since.
    fresh: Vec<bool>,
    /// Whether the tab's login was under way together with another one, or with a logout.
    crossed: Vec<bool>,
    /// What has happened, for the message.
    steps: Vec<String>,
}

impl<'a> Walk<'a> {
    fn new(scene: &'a Scene, tabs: Tabs) -> Self {
        let (fresh, crossed) = (vec![true; tabs.len()], vec![false; tabs.len()]);
        Self { scene, tabs, last: Last::Nobody, fresh, crossed, steps: Vec::new() }
    }

    fn is_busy(&self) -> bool {
        (0..self.tabs.len()).any(|tab| self.tabs.changes_who(tab))
    }

    /// What a person can do at this tab. Who finds another person's page signs in as somebody else.
    fn make(&mut self, tab: usize, step: Move) {
        let others_are_busy = self.is_busy();
        match step {
            Move::Open(service) => self.tabs.open(tab, &self.scene.url(service)),
            Move::Type(user) => {
                if self.tabs.page(tab).is_none_or(|page| page.shown() != Shown::Form) {
                    return;
                }
                self.crossed[tab] = others_are_busy;
                self.tabs.type_password(tab, user);
            }
            Move::SignOut => {
                if !self.tabs.page(tab).is_some_and(|page| matches!(page.shown(), Shown::Served(_))) {
                    return;
                }
                if others_are_busy {
                    self.last = Last::Unclear;
                }
                self.tabs.follow_link(tab, "/.sentry/logout");
            }
        }
        self.steps.push(format!("tab {tab}: {step:?}"));
        self.fresh[tab] = !self.is_busy();
        if !matches!(step, Move::Open(_)) {
            for other in 0..self.tabs.len() {
                self.fresh[other] &= !self.tabs.is_under_way(other);
                self.crossed[other] |= other != tab && self.tabs.changes_who(other);
            }
        }
    }

    /// The next step of the network for this tab.
    fn step(&mut self, tab: usize) {
        let waited = self.tabs.waits_for_its_edge(tab);
        let typed = self.tabs.changes_who(tab).then(|| self.tabs.user_under_way(tab)).flatten();
        let signs_out = self.tabs.changes_who(tab) && typed.is_none();
        let others_are_busy = (0..self.tabs.len()).any(|other| other != tab && self.tabs.changes_who(other));
        self.tabs.step(tab);
        if waited {
            self.steps.push(format!("tab {tab}: processed"));
            if let Some(user) = typed {
                let accepted = self.tabs.status_under_way(tab) == 303;
                self.last = match (accepted, user.as_str()) {
                    (true, _) if others_are_busy || self.crossed[tab] => Last::Unclear,
                    (true, "ana") => Last::Typed("ana"),
                    (true, _) => Last::Typed("ben"),
                    (false, _) => Last::Unclear,
                };
            }
            return;
        }
        self.steps.push(format!("tab {tab}: delivered"));
        if self.tabs.is_under_way(tab) {
            // The next hop carries the cookies of this moment.
            self.fresh[tab] = !self.is_busy();
            return;
        }
        let page = self.tabs.page(tab).unwrap();
        self.steps.push(format!("tab {tab}: {}", page.told()));
        assert!(page.redirects <= MOST_REDIRECTS, "{}", self.steps.join("\n"));
        if signs_out && page.shown() == Shown::SignedOut && self.last != Last::Unclear {
            self.last = Last::SignedOut;
        }
        if self.fresh[tab] {
            match (&self.last, page.shown()) {
                (Last::Typed(last), Shown::Served(user)) => assert_eq!(user, *last, "{}", self.steps.join("\n")),
                (Last::SignedOut, Shown::Served(user)) => panic!("{user} after a logout\n{}", self.steps.join("\n")),
                _ => {}
            }
        }
    }

    fn settle(&mut self, tab: usize) {
        while self.tabs.is_under_way(tab) {
            self.step(tab);
        }
    }

    /// Nothing is under way any more: whose is what the cookies open?
    fn rest(&mut self) {
        (0..self.tabs.len()).for_each(|tab| self.settle(tab));
        let mut people: Vec<String> = Vec::new();
        for (service, path) in
            [("sentry", "/currentUser"), ("iqueue", "/.sentry/currentUser"), ("dextor", "/.sentry/currentUser")]
        {
            let answer = self.tabs.jar.clone().get(&self.scene.edge.url(service, path)).json();
            if let Value::String(name) = &answer["currentUser"]["name"] {
                people.push(name.clone());
            }
        }
        self.steps.push(format!("cookies open: {people:?}"));
        people.dedup();
        assert!(people.len() <= 1, "two people in one browser\n{}", self.steps.join("\n"));
        for service in ["iqueue", "dextor"] {
            self.make(0, Move::Open(service));
            self.settle(0);
            let shown = self.tabs.shown(0);
            let steps = self.steps.join("\n");
            match &self.last {
                Last::Typed(user) => assert_eq!(shown, Shown::Served((*user).into()), "{steps}"),
                Last::Nobody | Last::SignedOut => assert_eq!(shown, Shown::Form, "{steps}"),
                Last::Unclear => assert!(matches!(shown, Shown::Served(_) | Shown::Form), "{steps}"),
            }
        }
    }
}

/// All orders of two tabs' moves that keep each tab's own.
fn interleavings(first: &[Move], second: &[Move]) -> Vec<Vec<(usize, Move)>> {
    let (Some(a), Some(b)) = (first.first(), second.first()) else {
        let rest = first.iter().map(|step| (0, *step)).chain(second.iter().map(|step| (1, *step)));
        return vec![rest.collect()];
    };
    let mut orders = Vec::new();
    for (tab, step, rest) in [(0, a, interleavings(&first[1..], second)), (1, b, interleavings(first, &second[1..]))] {
        orders.extend(rest.into_iter().map(|order| [vec![(tab, *step)], order].concat()));
    }
    orders
}

#[test]
fn in_every_order_of_two_tabs_two_people_and_a_logout_the_last_one_counts() {
    let scene = scene();
    let mut walks = 0;
    for second_service in ["iqueue", "dextor"] {
        for second_person in ["ana", "ben"] {
            for (first_ends, second_ends) in [(false, false), (true, false), (false, true)] {
                let script = |service, person, ends: bool| {
                    let mut moves = vec![Move::Open(service), Move::Type(person)];
                    moves.extend(ends.then_some(Move::SignOut));
                    moves
                };
                let (first, second) =
                    (script("iqueue", "ana", first_ends), script(second_service, second_person, second_ends));
                for order in interleavings(&first, &second) {
                    let mut walk = Walk::new(&scene, scene.tabs(2));
                    for (tab, step) in &order {
                        walk.make(*tab, *step);
                        walk.settle(*tab);
                    }
                    walk.rest();
                    walks += 1;
                }
            }
        }
    }
    assert_eq!(walks, 2 * 2 * (6 + 10 + 10));
}

/// Draws numbers; the same seed draws the same ones.
struct Draw(u64);

impl Draw {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % most
    }
}

/// A walk in which two tabs' requests and replies cross as the seed draws it. The browser has been at the sign-on host
/// before: of two first forms that are loaded at once each has a device cookie of its own.
fn drawn_walk(scene: &Scene, mut tabs: Tabs, seed: u64) {
    let mut draw = Draw(seed);
    tabs.visit(0, &scene.edge.url("sentry", "/login"));
    let mut walk = Walk::new(scene, tabs);
    walk.steps.push(format!("seed {seed}"));
    let mut budget = 3 + draw.below(5);
    let mut logins = 3;
    for _ in 0..60 {
        let tab = draw.below(2);
        if walk.tabs.is_under_way(tab) {
            walk.step(tab);
            continue;
        }
        if budget == 0 {
            continue;
        }
        budget -= 1;
        let service = if draw.below(2) == 0 { "iqueue" } else { "dextor" };
        let step = match walk.tabs.page(tab).map(crate::harness::tabs::Page::shown) {
            Some(Shown::Form) if logins > 0 => {
                logins -= 1;
                Move::Type(if draw.below(2) == 0 { "ana" } else { "ben" })
            }
            Some(Shown::Served(_)) if draw.below(3) == 0 => Move::SignOut,
            _ => Move::Open(service),
        };
        walk.make(tab, step);
    }
    walk.rest();
}

#[test]
fn in_drawn_orders_of_requests_and_replies_one_browser_is_one_person() {
    let scene = scene();
    for seed in 0..30 {
        drawn_walk(&scene, scene.tabs(2), seed);
    }
}

#[test]
fn the_same_at_two_edges_that_share_a_store() {
    let store = memcached();
    let scene = scene_with(|edge| edge.memcached(&store.address()).balanced());
    let twin = scene.edge.twin();
    let edges = [scene.edge.address(), twin.address()];
    for seed in 0..10 {
        let mut draw = Draw(seed);
        let tabs = scene.tabs(2).balanced(move |_| edges[draw.below(2)]);
        drawn_walk(&scene, tabs, 1000 + seed);
    }
}
