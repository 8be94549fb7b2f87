//! Two people, or one person twice, at one browser.

use std::time::Duration;

use super::{LOGIN, scene};
use crate::harness::tabs::Shown;

/// A sign-in form each in two tabs, which were opened before anybody signed in.
macro_rules! two_forms {
    ($scene:ident, $tabs:ident) => {
        let $scene = scene();
        let mut $tabs = $scene.tabs(2);
        for (tab, service) in ["iqueue", "dextor"].into_iter().enumerate() {
            assert_eq!($tabs.visit(tab, &$scene.url(service)), format!("{LOGIN} · form · 3 redirects"));
        }
    };
}

#[test]
fn a_logout_in_one_of_two_tabs_that_signed_in_ends_both() {
    two_forms!(scene, tabs);
    let signed_in = [tabs.sign_in(0, "ana"), tabs.sign_in(1, "ana")];
    assert_eq!(signed_in, ["iqueue/ · served as ana · 3 redirects", "dextor/ · served as ana · 3 redirects"]);
    tabs.log_out(0);
    assert_eq!(tabs.shown(0), Shown::SignedOut);
    let after = ["iqueue", "dextor"].map(|service| tabs.visit(1, &scene.url(service)));
    let form = format!("{LOGIN} · form · 3 redirects");
    assert_eq!(after, [form.clone(), form], "the next person at this computer is asked for a password");
}

#[test]
fn whoever_typed_the_password_last_is_served_everywhere_and_signs_out_of_everything() {
    two_forms!(scene, tabs);
    let signed_in = [tabs.sign_in(0, "ana"), tabs.sign_in(1, "ben")];
    assert_eq!(signed_in, ["iqueue/ · served as ana · 3 redirects", "dextor/ · served as ben · 3 redirects"]);
    let served = [tabs.visit(0, &scene.url("iqueue")), tabs.visit(1, &scene.url("dextor"))];
    assert_eq!(served, ["iqueue/ · served as ben · 4 redirects", "dextor/ · served as ben · 0 redirects"]);
    tabs.log_out(0);
    assert_eq!(tabs.shown(0), Shown::SignedOut);
    let after = ["iqueue", "dextor"].map(|service| tabs.visit(0, &scene.url(service)));
    let form = format!("{LOGIN} · form · 3 redirects");
    assert_eq!(after, [form.clone(), form]);
}

#[test]
fn a_ticket_that_was_under_way_at_the_next_persons_login_signs_nobody_in() {
    two_forms!(scene, tabs);
    tabs.type_password(0, "ana");
    // The login and /copyCookie; the ticket is now on its way to iqueue.
    (0..4).for_each(|_| tabs.step(0));
    tabs.type_password(1, "ben");
    tabs.process(1);
    let late = tabs.settle(0).told();
    let ben = tabs.settle(1).told();
    let after = ["iqueue", "dextor"].map(|service| tabs.visit(0, &scene.url(service)));
    assert_eq!(ben, "dextor/ · served as ben · 3 redirects");
    assert!(!late.contains("served as ana"), "{late}");
    assert!(after[0].starts_with("iqueue/ · served as ben"), "{after:?}");
    assert_eq!(after[1], "dextor/ · served as ben · 0 redirects", "the late ticket has not ended the later session");
}

#[test]
fn the_same_person_signing_in_again_goes_on_with_the_session_that_the_open_page_has() {
    two_forms!(scene, tabs);
    tabs.sign_in(0, "ana");
    tabs.sign_in(1, "ana");
    tabs.press(0, "Save");
    let saved = tabs.settle(0);
    assert_eq!(saved.told(), "iqueue/save · served as ana · 0 redirects");
    assert!(saved.response.body.contains("saved page_of=ana"), "{}", saved.response.body);
}

#[test]
fn a_late_reply_to_a_dead_cookie_does_not_part_the_browser_from_a_session_that_lives() {
    let scene = scene();
    let mut tabs = scene.tabs(2);
    tabs.visit_as(0, &scene.url("iqueue"), "ana");
    scene.edge.let_pass(Duration::from_secs(31 * 60));
    tabs.open(1, &scene.edge.url("sentry", "/login"));
    tabs.process(1);
    let again = tabs.visit_as(0, &scene.url("iqueue"), "ana");
    assert!(again.starts_with("iqueue/ · served as ana"), "{again}");
    tabs.deliver(1);
    assert_eq!(tabs.shown(1), Shown::Form);
    tabs.sign_in(1, "ben");
    let after = ["iqueue", "dextor"].map(|service| tabs.visit(0, &scene.url(service)));
    let who: Vec<_> = after.iter().map(|told| told.split(" · ").nth(1).unwrap()).collect();
    assert_eq!(who, ["served as ben", "served as ben"], "{after:?}");
}

#[test]
fn two_logins_under_way_at_once_leave_one_person() {
    for delivered in [[0, 1], [1, 0]] {
        for processed in [[0, 1], [1, 0]] {
            two_forms!(scene, tabs);
            tabs.type_password(0, "ana");
            tabs.type_password(1, "ben");
            processed.into_iter().for_each(|tab| tabs.process(tab));
            delivered.into_iter().for_each(|tab| {
                tabs.deliver(tab);
                tabs.settle(tab);
            });
            let orders = format!("processed {processed:?}, delivered {delivered:?}");
            // Which of the two is the later one is the network's word, and a cookie of the earlier may be left, whose
            // session has ended. But nobody is served beside somebody else.
            let mut people = Vec::new();
            let mut seen = Vec::new();
            for service in ["iqueue", "dextor"] {
                seen.push(tabs.visit(0, &scene.url(service)));
                if let Shown::Served(user) = tabs.shown(0) {
                    people.push(user);
                }
            }
            people.dedup();
            assert!(people.len() <= 1, "{orders}: {seen:?}");
            if let [user] = &people[..] {
                let service = if seen[0].contains(user) { "iqueue" } else { "dextor" };
                tabs.visit(0, &scene.url(service));
                tabs.log_out(0);
                assert_eq!(tabs.shown(0), Shown::SignedOut, "{orders}");
            }
            for service in ["iqueue", "dextor"] {
                tabs.visit(1, &scene.url(service));
                assert_eq!(tabs.shown(1), Shown::Form, "{orders}: {service} after the logout");
            }
        }
    }
}

/// Within half a minute one page is handed to one person after the other, who sign in and out at another service.
#[test]
fn people_who_follow_each_other_quickly_at_one_page_are_no_flow_that_goes_round() {
    let scene = scene();
    let mut tabs = scene.tabs(1);
    let form = format!("{LOGIN} · form · 3 redirects");
    for (turn, user) in ["ana", "ben", "ana", "ana", "ben"].into_iter().enumerate() {
        // Whoever comes next finds the form at that page, though its rounds are spent: 2 redirects lead there.
        let told = tabs.visit(0, &scene.url("iqueue"));
        assert!([form.clone(), form.replace('3', "2")].contains(&told), "turn {turn}: {told}");
        let told = tabs.visit_as(0, &scene.url("dextor"), user);
        assert_eq!(told, format!("dextor/ · served as {user} · 3 redirects"), "turn {turn}");
        let told = tabs.visit(0, &scene.url("iqueue"));
        assert!(told.starts_with(&format!("iqueue/ · served as {user} · ")), "turn {turn}: {told}");
        tabs.visit(0, &scene.url("dextor"));
        tabs.log_out(0);
        assert_eq!(tabs.shown(0), Shown::SignedOut, "turn {turn}");
    }
}

#[test]
fn an_application_can_tell_that_a_page_was_loaded_in_another_session() {
    two_forms!(scene, tabs);
    tabs.sign_in(0, "ana");
    let seen = |service: usize| scene.apps[service].last().one("x-forwarded-session").unwrap_or_default();
    let anas = seen(0);
    assert!(!anas.is_empty(), "the application is given a name of the session");
    tabs.visit(1, &scene.url("dextor"));
    tabs.visit(1, &scene.url("iqueue"));
    assert_eq!(seen(0), anas, "it stays as it is");
    // Ben signs in while ana's page stands in the first tab.
    let mut other = scene.tabs(1);
    other.visit_as(0, &scene.url("iqueue"), "ben");
    assert_ne!(seen(0), anas);
    let claims = crate::harness::forgery::claims_of(tabs.jar.cookie("iqueue.app.test", "__Host-JWTCookie").unwrap());
    assert!(!anas.contains(claims["sid"].as_str().unwrap()), "it opens nothing");
}

#[test]
fn who_is_signed_in_may_go_on_or_sign_in_as_somebody_else_which_ends_the_former_persons_session() {
    let scene = scene();
    let mut tabs = scene.tabs(2);
    tabs.visit_as(0, &scene.url("iqueue"), "ana");
    let copied = tabs.jar.clone();
    let login = scene.edge.url("sentry", "/login");
    assert_eq!(tabs.visit(1, &login), "sentry/login · signed in as ana · 0 redirects");
    tabs.press(1, "Continue");
    let told = tabs.settle(1).told();
    assert!(told.starts_with("sentry/ · "), "{told}");
    tabs.visit(1, &login);
    tabs.press(1, "nother user");
    assert_eq!(tabs.settle(1).shown(), Shown::Form);
    tabs.sign_in(1, "ben");
    assert_eq!(tabs.visit(0, &scene.url("dextor")), "dextor/ · served as ben · 4 redirects");
    let told = tabs.visit(0, &scene.url("iqueue"));
    assert!(told.starts_with("iqueue/ · served as ben · "), "{told}");
    assert_eq!(copied.clone().open(&scene.url("iqueue")).status, 302, "ana's session has ended");
}
