//! Back and forward, bookmarks, fragments, reloads.

use super::{Scene, scene, scene_with};
use crate::harness::{Browser, browser, eventually_or};

/// Until it is checked: a machine that is busy says so.
fn types_a_wrong_password(browser: &Browser) {
    let is_checked = || {
        browser.fill_in("#username", "ana");
        browser.fill_in("#password", "wrong");
        browser.click("button");
        browser.shows_in("[role=alert]", "");
        browser.text().contains("not correct")
    };
    eventually_or(is_checked, || browser.text());
}

#[test]
fn back_after_a_logout_shows_no_page_of_the_application_and_back_after_a_login_no_ticket() {
    let scene = scene();
    let browser = browser();
    scene.open(&browser, &scene.url("iqueue", "/first"));
    let told = scene.sign_in(&browser, "ana");
    assert_eq!(told.0, "iqueue/first · served as ana");
    scene.open(&browser, &scene.url("iqueue", "/second"));
    let before = scene.requests();
    browser.back();
    browser.lands_on(&scene.url("iqueue", "/first"));
    println!("back to the first page: {:?}", scene.told(&browser, before));
    // Before the first page stands the form. Whoever goes back to it is told that they are signed in, or sees the form.
    let before = scene.requests();
    browser.back();
    let told = scene.told(&browser, before);
    println!("back to the form: {told:?}");
    browser.forward();
    browser.lands_on(&scene.url("iqueue", "/first"));
    browser.shows("hello, ana");
    browser.click("a");
    browser.shows("You are signed out");
    let before = scene.requests();
    browser.back();
    let told = scene.told(&browser, before);
    println!("back after the logout: {told:?}");
    assert!(!browser.history().iter().any(|address| address.contains("requestID=")), "{:?}", browser.history());
    // The browser may draw the page once more from its memory. The first thing that is asked of the edge is refused.
    browser.reload();
    eventually_or(|| browser.has("#password"), || format!("{}\n{}", browser.address(), browser.text()));
    let told = scene.sign_in(&browser, "ben");
    assert_eq!(told.0, "iqueue/first · served as ben");
}

#[test]
fn a_bookmark_of_the_login_page_and_one_with_a_used_ticket_lead_somewhere() {
    let scene = scene();
    let browser = browser();
    assert_eq!(scene.open(&browser, &scene.url("sentry", "/login")), ("sentry/login · form".into(), 1));
    let told = scene.sign_in(&browser, "ana");
    assert!(told.0.starts_with("sentry/"), "{told:?}");
    browser.shows("ana");
    let told = scene.open(&browser, &scene.url("sentry", "/login"));
    assert!(told.1 <= 2, "{told:?}");
    browser.shows("ana");

    // The address with the ticket, as an extension or a proxy's log keeps it.
    let mut client = scene.edge.client().user_agent(browser.run("return navigator.userAgent").as_str().unwrap());
    let form = client.follow(&scene.url("iqueue", "/page?a=b")).pop().unwrap();
    let sent = scene.edge.send_login(&mut client, &form, "ana", crate::harness::edge::PASSWORD);
    let bookmark = client.open(&sent.location().unwrap()).location().unwrap();
    assert!(bookmark.contains("requestID="));
    client.open(&bookmark);
    let told = scene.open(&browser, &bookmark);
    assert_eq!(told.0, "iqueue/page?a=b · served as ana");
    assert!(!browser.history().iter().any(|address| address.contains("requestID=")), "{:?}", browser.history());
}

#[test]
fn a_fragment_and_a_destination_survive_a_wrong_password_and_a_reload() {
    let scene = scene();
    let browser = browser();
    let page = scene.url("iqueue", "/page?a=b#ward-3");
    assert_eq!(scene.open(&browser, &page), ("sentry/login · form".into(), 4));
    types_a_wrong_password(&browser);
    // The address bar still names the form with its destination: pressing Enter in it shows the form again.
    let address = browser.address();
    assert!(address.contains("/login?") && address.contains("redirectURL="), "{address}");
    scene.open(&browser, "about:blank");
    assert_eq!(scene.open(&browser, &address), ("sentry/login · form".into(), 1));
    let told = scene.sign_in(&browser, "ana");
    assert_eq!(told, ("iqueue/page?a=b#ward-3 · served as ana".into(), 4));
}

#[test]
fn a_reload_of_the_page_that_says_that_the_password_is_wrong_asks_for_it_again() {
    let scene = scene();
    let browser = browser();
    scene.open(&browser, &scene.url("iqueue", "/page"));
    types_a_wrong_password(&browser);
    browser.reload();
    browser.shows_in("[role=alert]", "not correct");
    let told = scene.sign_in(&browser, "ana");
    assert_eq!(told, ("iqueue/page · served as ana".into(), 4));
}

/// Where a page of ana's is, and what may be left of it.
const PAGES: [(&str, &str); 5] =
    [("sentry", "/"), ("iqueue", "/fresh"), ("iqueue", "/kept"), ("dextor", "/fresh"), ("dextor", "/kept")];

/// Pages below `/kept` may be kept by the browser, as applications send them that say nothing of it.
fn scene_of_kept_pages() -> Scene {
    scene_with(|_, target| {
        target.starts_with("/kept").then(|| {
            let body = "<!doctype html><title>kept</title><link rel=\"icon\" href=\"data:,\"><p>hello, ana";
            hyper::Response::builder().header("content-type", "text/html").body(body.into()).unwrap()
        })
    })
}

/// What Back shows of the page before a logout, which was made at each of the hosts. A mark in the page's own memory
/// tells whether the browser has frozen it and thawed it. It does so with pages that may be kept, whoever has signed out
/// where, and with `no-store` too unless a cookie of their host has changed: that is the application's to mend.
#[test]
fn back_after_a_logout_thaws_no_page_of_the_edge_and_no_fresh_one_of_the_host_that_was_signed_out_at() {
    let scene = scene_of_kept_pages();
    let browser = browser();
    let mut shown = Vec::new();
    for (host, path) in PAGES {
        for (at, logout) in [("iqueue", "/.sentry/logout"), ("dextor", "/.sentry/logout"), ("sentry", "/logout")] {
            super::forget_everything(&browser);
            scene.open(&browser, &scene.url("iqueue", "/"));
            scene.sign_in(&browser, "ana");
            for service in ["dextor", host] {
                scene.open(&browser, &scene.url(service, "/"));
            }
            scene.open(&browser, &scene.url(host, path));
            assert!(browser.text().contains("ana"), "{host}{path}: {}", browser.text());
            browser.run("window.thawed = true");
            browser.open(&scene.url(at, logout));
            browser.shows("You are signed out");
            let before = scene.requests();
            browser.back();
            eventually_or(|| browser.run("return document.readyState") == "complete", || browser.address());
            let is_thawed = browser.run("return window.thawed === true") == true;
            let shows_ana = browser.text().contains("ana") && !browser.has("#password");
            println!("{host}{path}, signed out at {at}: {} thawed {is_thawed}", scene.told(&browser, before).0);
            if shows_ana {
                shown.push((host, path, at, is_thawed));
            }
        }
    }
    println!("shown again: {shown:#?}");
    let must_not = shown.iter().filter(|(host, path, at, _)| *host == "sentry" || host == at && *path == "/fresh");
    assert_eq!(must_not.count(), 0, "{shown:?}");
}
