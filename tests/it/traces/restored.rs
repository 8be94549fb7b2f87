//! Several tabs at once, as a browser restores them after a start.

use super::{LOGIN, MOST_REDIRECTS, scene};
use crate::harness::tabs::{Metadata, Shown};

#[test]
fn nine_restored_tabs_are_nine_forms_and_one_login_serves_them_all() {
    let scene = scene();
    let mut tabs = scene.tabs(9);
    let page = |tab: usize| scene.edge.url("iqueue", &format!("/page/{tab}?q={tab}"));
    (0..9).for_each(|tab| tabs.open(tab, &page(tab)));
    tabs.settle_all();
    let told: Vec<_> = (0..9).map(|tab| tabs.page(tab).unwrap().told()).collect();
    assert_eq!(told, vec![format!("{LOGIN} · form · 3 redirects"); 9]);
    // The first form of all, though eight others have been loaded since.
    // Its state was replaced by that of another tab of the same service, which costs a round.
    assert_eq!(tabs.sign_in(0, "ana"), "iqueue/page/0?q=0 · served as ana · 6 redirects");
    let told: Vec<_> = (1..9).map(|tab| tabs.visit(tab, &page(tab))).collect();
    let served: Vec<_> = (1..9).map(|tab| format!("iqueue/page/{tab}?q={tab} · served as ana · 0 redirects")).collect();
    assert_eq!(told, served);
}

#[test]
fn each_of_the_forms_that_were_loaded_at_once_signs_in() {
    for metadata in [Metadata::Sent, Metadata::Absent] {
        for first in 0..3 {
            let scene = scene();
            let mut tabs = scene.tabs(3).metadata(metadata);
            for (tab, service) in ["iqueue", "dextor", "iqueue"].into_iter().enumerate() {
                tabs.open(tab, &scene.url(service));
            }
            tabs.settle_all();
            let told = tabs.sign_in(first, "ana");
            // Without Fetch Metadata only the form whose cookie came last can be told from a foreign one.
            if metadata == Metadata::Sent || first == 2 {
                // The third tab's state has replaced that of the first, which costs it a round.
                let (service, redirects) = [("iqueue", 6), ("dextor", 3), ("iqueue", 3)][first];
                let served = format!("{service}/ · served as ana · {redirects} redirects");
                assert_eq!(told, served, "{metadata:?}, form {first}");
            }
        }
    }
}

/// Tabs of one service, or of two, that were restored while the sign-on host knows the person: every order in which two
/// rounds of replies can arrive.
#[test]
fn restored_tabs_of_a_signed_in_person_are_all_served_however_their_replies_cross() {
    let scene = scene();
    let turns = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for (sent, delivered) in turns.iter().flat_map(|sent| turns.iter().map(move |delivered| (sent, delivered))) {
        let mut tabs = scene.tabs(4);
        tabs.visit_as(3, &scene.url("dextor"), "ana");
        (0..3).for_each(|tab| tabs.open(tab, &scene.edge.url("iqueue", &format!("/{tab}"))));
        let mut steps = 0;
        while (0..3).any(|tab| tabs.is_under_way(tab)) {
            for tab in if steps % 2 == 0 { sent } else { delivered } {
                tabs.step(*tab);
            }
            steps += 1;
        }
        for tab in 0..3 {
            let page = tabs.page(tab).unwrap();
            let orders = format!("sent {sent:?}, delivered {delivered:?}, tab {tab}: {}", page.told());
            assert_eq!(page.shown(), Shown::Served("ana".into()), "{orders}");
            assert_eq!(page.address(), format!("iqueue/{tab}"), "{orders}");
            assert!(page.redirects <= MOST_REDIRECTS, "{orders}");
        }
    }
}

/// One tab is faster than another by any number of steps.
#[test]
fn a_tab_that_overtakes_another_costs_it_at_most_the_rounds_of_a_flow() {
    let scene = scene();
    for ahead in 0..12 {
        let mut tabs = scene.tabs(3);
        tabs.visit_as(2, &scene.url("dextor"), "ana");
        tabs.open(0, &scene.edge.url("iqueue", "/0"));
        tabs.open(1, &scene.edge.url("iqueue", "/1"));
        (0..ahead).for_each(|_| tabs.step(0));
        tabs.settle(1);
        tabs.settle(0);
        for tab in 0..2 {
            let page = tabs.page(tab).unwrap();
            assert_eq!(page.shown(), Shown::Served("ana".into()), "{ahead} steps ahead: {}", page.told());
            assert!(page.redirects <= MOST_REDIRECTS, "{ahead} steps ahead: {}", page.told());
        }
    }
}

#[test]
fn eight_tabs_of_one_page_are_served_and_no_ticket_stays_in_an_address() {
    let scene = scene();
    let mut tabs = scene.tabs(9);
    tabs.visit_as(8, &scene.url("dextor"), "ana");
    (0..8).for_each(|tab| tabs.open(tab, &scene.url("iqueue")));
    tabs.settle_all();
    let told: Vec<_> = (0..8).map(|tab| tabs.page(tab).unwrap().told()).collect();
    for told in &told {
        assert!(told.starts_with("iqueue/ · served as ana · "), "{told:?}");
    }
    assert!((0..8).all(|tab| tabs.page(tab).unwrap().redirects <= MOST_REDIRECTS), "{told:#?}");
    assert_eq!(scene.reached_an_application("requestID"), None);
}

#[test]
fn a_session_that_ends_under_nine_open_tabs_is_nine_forms_again() {
    let scene = scene();
    let mut tabs = scene.tabs(9);
    tabs.visit_as(0, &scene.url("iqueue"), "ana");
    (1..9).for_each(|tab| assert_eq!(tabs.visit(tab, &scene.url("iqueue")), "iqueue/ · served as ana · 0 redirects"));
    scene.edge.let_pass(std::time::Duration::from_secs(31 * 60));
    (0..9).for_each(|tab| tabs.open(tab, &scene.url("iqueue")));
    tabs.settle_all();
    let told: Vec<_> = (0..9).map(|tab| tabs.page(tab).unwrap().told()).collect();
    assert_eq!(told, vec![format!("{LOGIN} · form · 3 redirects"); 9]);
}
