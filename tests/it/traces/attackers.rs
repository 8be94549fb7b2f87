//! Links that others give to a person, and parameters that look like tickets.

use hyper::Response;

use super::{LOGIN, html, parameter_of, scene, scene_with};
use crate::harness::edge::STATE_COOKIE;
use crate::harness::{Origin, Tabs};

/// A UUID as any application might make it.
const OF_THE_APPLICATION: &str = "7d9f3c1e-58a2-4b6d-9e0f-1a2b3c4d5e6f";

/// Before the victim follows the attacker's link.
#[derive(Clone, Copy, Debug)]
enum Victim {
    /// Signed in at the service that the link names.
    Here,
    /// Signed in, but never at this service.
    Elsewhere,
    /// Stands before the sign-in form of another page of this service, with a state cookie.
    ElsewhereAndOnTheWayHere,
}

fn victim(scene: &super::Scene, victim: Victim) -> Tabs {
    let mut tabs = scene.tabs(2);
    match victim {
        Victim::Here => tabs.visit_as(0, &scene.url("iqueue"), "ana"),
        Victim::Elsewhere => tabs.visit_as(0, &scene.url("dextor"), "ana"),
        Victim::ElsewhereAndOnTheWayHere => {
            tabs.visit_as(0, &scene.url("dextor"), "ana");
            tabs.open(0, &scene.url("iqueue"));
            tabs.step(0);
            tabs.step(0);
            String::new()
        }
    };
    tabs
}

#[test]
fn a_link_with_an_attackers_state_gives_him_no_ticket_that_opens_anything() {
    for state in [Victim::Here, Victim::Elsewhere, Victim::ElsewhereAndOnTheWayHere] {
        let scene = scene();
        let mut attacker = scene.tabs(1);
        let mut victim = victim(&scene, state);
        attacker.open(0, &scene.edge.url("iqueue", "/page"));
        attacker.step(0);
        attacker.step(0);
        let begun = attacker.address_under_way(0);
        let link = begun.replace("/noCookie", "/copyCookie");
        assert!(link.contains("state="), "{link}");
        victim.follow_foreign_link(1, &link);
        let mut leaked = Vec::new();
        while victim.is_under_way(1) {
            let was_sent = victim.waits_for_its_edge(1);
            let address = victim.address_under_way(1);
            victim.step(1);
            // A service worker of the application's sees each address; the attacker may be as quick as he likes once
            // the edge has it.
            if was_sent && address.contains("requestID=") {
                attacker.open(0, &address);
                leaked.push(attacker.settle(0).told());
            }
        }
        let seen = victim.page(1).unwrap().told();
        assert!(leaked.iter().all(|told| !told.contains("served as")), "{state:?}: the attacker sees {leaked:?}");
        assert_eq!(scene.reached_an_application("requestID"), None, "{state:?}: an application saw the ticket");
        assert!(!seen.contains("requestID"), "{state:?}: a ticket stays in the address: {seen}");
        assert!(seen.starts_with("iqueue/page · served as ana"), "{state:?}: the victim sees {seen}");
    }
}

#[test]
fn a_link_with_a_ticket_of_the_attackers_own_session_makes_nobody_the_attacker() {
    for state in [Victim::Here, Victim::Elsewhere, Victim::ElsewhereAndOnTheWayHere] {
        let scene = scene();
        let mut attacker = scene.tabs(1);
        let mut victim = victim(&scene, state);
        assert!(attacker.visit_as(0, &scene.url("dextor"), "ben").contains("served as ben"));
        attacker.open(0, &scene.edge.url("iqueue", "/page"));
        while !attacker.address_under_way(0).contains("requestID=") {
            attacker.step(0);
        }
        victim.follow_foreign_link(1, &attacker.address_under_way(0));
        let seen = victim.settle(1).told();
        assert!(!seen.contains("served as ben"), "{state:?}: {seen}");
        assert!(!seen.contains("requestID"), "{state:?}: {seen}");
        let after = victim.visit(1, &scene.url("iqueue"));
        assert!(after.contains("served as ana"), "{state:?}: {after}");
        assert_eq!(scene.reached_an_application("requestID"), None, "{state:?}");
    }
}

#[test]
fn a_bookmark_with_a_used_ticket_is_the_page_without_it() {
    let scene = scene();
    let mut tabs = scene.tabs(1);
    tabs.open(0, &scene.edge.url("iqueue", "/page?a=b"));
    tabs.settle(0);
    tabs.type_password(0, "ana");
    while !tabs.address_under_way(0).contains("requestID=") {
        tabs.step(0);
    }
    let bookmark = tabs.address_under_way(0);
    assert_eq!(tabs.settle(0).told(), "iqueue/page?a=b · served as ana · 3 redirects");
    assert_eq!(tabs.visit(0, &bookmark), "iqueue/page?a=b · served as ana · 1 redirects");
    tabs.log_out(0);
    assert_eq!(tabs.visit(0, &bookmark), format!("{LOGIN} · form · 3 redirects"));
    assert_eq!(tabs.sign_in(0, "ben"), "iqueue/page?a=b · served as ben · 3 redirects");
    assert_eq!(scene.reached_an_application("requestID"), None);
}

#[test]
fn an_applications_own_uuid_under_our_parameter_reaches_it_byte_for_byte() {
    let scene = scene();
    let mut tabs = scene.tabs(1);
    let path = format!("/order?a=1&requestID={OF_THE_APPLICATION}&b=%20");
    let url = scene.edge.url("iqueue", &path);
    let steps = [tabs.visit(0, &url), tabs.sign_in(0, "ana"), tabs.visit(0, &url)];
    let served = |redirects: usize| format!("iqueue{path} · served as ana · {redirects} redirects");
    assert_eq!(steps, [format!("{LOGIN} · form · 3 redirects"), served(3), served(0)]);
    let targets: Vec<_> = scene.apps[0].seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, [path.clone(), path]);
}

#[test]
fn an_application_that_adds_its_uuid_to_every_page_is_no_endless_loop() {
    let adding = Origin::answering(|seen| {
        if parameter_of(seen) == Some(OF_THE_APPLICATION) {
            return html(&format!("served as {};", seen.one("x-forwarded-user").unwrap_or_default()));
        }
        let location = format!("{}?requestID={OF_THE_APPLICATION}", seen.target.split('?').next().unwrap());
        Response::builder().status(302).header("location", location).body("".into()).unwrap()
    });
    let scene = scene_with(|edge| edge.service("adding", &adding).user("cleo", &["adding", "dextor"], &[]));
    let mut tabs = scene.tabs(2);
    let url = scene.edge.url("adding", "/page");
    let added = format!("adding/page?requestID={OF_THE_APPLICATION} · served as cleo");
    // A tab that stops half way leaves its state cookie behind.
    tabs.open(1, &url);
    tabs.step(1);
    tabs.step(1);
    assert!(tabs.jar.cookie("adding.app.test", STATE_COOKIE).is_some());
    tabs.visit_as(0, &scene.url("dextor"), "cleo");
    let told = tabs.visit(0, &url);
    assert!(told.starts_with(&added), "{told}");
    let told = tabs.visit(0, &url);
    assert_eq!(told, format!("{added} · 1 redirects"), "the application's own");
}
