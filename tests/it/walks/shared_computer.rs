//! Two people at one computer, and tabs that are restored.

use super::{Scene, forget_everything, scene, sign_in};
use crate::harness::browser::Tab;
use crate::harness::{Browser, browser, eventually_or};

#[derive(Clone, Copy, Debug)]
enum Step {
    Open(usize),
    /// Ana in the first tab, Ben in the second.
    SignIn(usize),
}

const SERVICES: [&str; 2] = ["iqueue", "dextor"];
const PEOPLE: [&str; 2] = ["ana", "ben"];

/// The orders in which two tabs are opened and signed in at.
const ORDERS: [[Step; 4]; 6] = {
    use Step::{Open, SignIn};
    [
        [Open(0), Open(1), SignIn(0), SignIn(1)],
        [Open(0), Open(1), SignIn(1), SignIn(0)],
        [Open(1), Open(0), SignIn(0), SignIn(1)],
        [Open(1), Open(0), SignIn(1), SignIn(0)],
        [Open(0), SignIn(0), Open(1), SignIn(1)],
        [Open(1), SignIn(1), Open(0), SignIn(0)],
    ]
};

/// The last one who typed the password; a tab that asks for none is that of the person before.
fn walk(scene: &Scene, browser: &Browser, tabs: &[Tab; 2], order: [Step; 4]) -> &'static str {
    let mut last = "";
    for step in order {
        match step {
            Step::Open(tab) => {
                browser.switch_to(&tabs[tab]);
                scene.open(browser, &scene.url(SERVICES[tab], "/"));
            }
            Step::SignIn(tab) => {
                browser.switch_to(&tabs[tab]);
                if browser.has("#password") {
                    last = PEOPLE[tab];
                    let told = scene.sign_in(browser, last);
                    assert_eq!(told.0, format!("{}/ · served as {last}", SERVICES[tab]), "{order:?}");
                }
            }
        }
    }
    last
}

#[test]
fn in_every_order_of_two_tabs_the_later_person_is_served_and_the_logout_is_everybodys() {
    let scene = scene();
    let browser = browser();
    let first = browser.tab();
    browser.open_tab("about:blank");
    let tabs = [first, browser.tab()];
    for (at, order) in ORDERS.into_iter().enumerate() {
        forget_everything(&browser);
        let last = walk(&scene, &browser, &tabs, order);
        for service in SERVICES {
            let told = scene.open(&browser, &scene.url(service, "/"));
            assert_eq!(told.0, format!("{service}/ · served as {last}"), "{order:?}");
        }
        // From either tab.
        browser.switch_to(&tabs[at % 2]);
        scene.open(&browser, &scene.url(SERVICES[at % 2], "/"));
        browser.click("a");
        browser.shows("You are signed out");
        for service in SERVICES {
            let told = scene.open(&browser, &scene.url(service, "/"));
            assert_eq!(told.0, "sentry/login · form", "{order:?}: after the logout at {}", SERVICES[at % 2]);
        }
    }
}

#[test]
fn nine_restored_tabs_are_nine_forms_and_after_one_login_nine_pages() {
    let scene = scene();
    let browser = browser();
    let page = |tab: usize| scene.url("iqueue", &format!("/page/{tab}"));
    let before = scene.requests();
    let tabs = browser.restore_tabs(&(0..9).map(page).collect::<Vec<_>>());
    for tab in &tabs {
        browser.switch_to(tab);
        eventually_or(|| browser.has("#password"), || format!("{}\n{}", browser.address(), browser.text()));
    }
    let requests = scene.requests() - before;
    assert_eq!(requests, 9 * 4, "three redirects and a form each");
    // Any of the forms: the one that was loaded first is as good as the last.
    browser.switch_to(&tabs[0]);
    sign_in(&browser, "ana");
    browser.lands_on(&page(0));
    browser.shows("hello, ana");
    for (at, tab) in tabs.iter().enumerate() {
        browser.switch_to(tab);
        let told = scene.open(&browser, &page(at));
        assert_eq!(told, (format!("iqueue/page/{at} · served as ana"), 1));
    }
}

#[test]
fn nine_tabs_that_are_restored_while_the_person_is_signed_in_elsewhere_are_all_served() {
    let scene = scene();
    let browser = browser();
    scene.open(&browser, &scene.url("dextor", "/"));
    scene.sign_in(&browser, "ana");
    let before = scene.requests();
    let tabs =
        browser.restore_tabs(&(0..9).map(|tab| scene.url("iqueue", &format!("/page/{tab}"))).collect::<Vec<_>>());
    for (at, tab) in tabs.iter().enumerate() {
        browser.switch_to(tab);
        browser.shows("hello, ana");
        browser.lands_on(&scene.url("iqueue", &format!("/page/{at}")));
    }
    let requests = scene.requests() - before;
    println!("nine restored tabs of a signed-in person: {requests} requests");
    assert!(requests <= 9 * super::MOST_REQUESTS, "{requests}");
}
