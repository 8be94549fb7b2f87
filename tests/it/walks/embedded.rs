//! Service workers, frames, prefetches, and what else fetches beside the page.

use std::time::Duration;

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use serde_json::json;

use super::{html, scene, scene_with};
use crate::harness::edge::TOKEN_COOKIE;
use crate::harness::{Origin, browser, eventually_or};

/// An application that has a service worker which passes everything on, and one that fetches by address alone.
fn with_workers(_: &str, target: &str) -> Option<Response<Full<Bytes>>> {
    let script = |body: &'static str| {
        let response = Response::builder().header("content-type", "text/javascript");
        Some(response.body(Full::new(body.into())).unwrap())
    };
    match target {
        "/passing.js" => script(
            "addEventListener('install', () => skipWaiting());\
             addEventListener('activate', event => event.waitUntil(clients.claim()));\
             addEventListener('fetch', event => event.respondWith(fetch(event.request)));",
        ),
        "/install" => Some(html(
            "<title>install</title><p id=\"state\">waiting</p><script>\
             navigator.serviceWorker.register('/passing.js').then(() => navigator.serviceWorker.ready)\
             .then(() => { document.getElementById('state').textContent = 'installed' },\
                   error => { document.getElementById('state').textContent = String(error) })</script>",
        )),
        _ => None,
    }
}

#[test]
fn a_session_that_ends_under_a_service_worker_is_signed_in_to_again() {
    let scene = scene_with(with_workers);
    let browser = browser();
    scene.open(&browser, &scene.url("iqueue", "/page"));
    scene.sign_in(&browser, "ana");
    scene.open(&browser, &scene.url("iqueue", "/install"));
    browser.shows_in("#state", "installed");
    assert_eq!(scene.open(&browser, &scene.url("iqueue", "/page")).0, "iqueue/page · served as ana");
    assert_eq!(browser.run("return navigator.serviceWorker.controller !== null"), true, "the worker is in charge");
    scene.edge.let_pass(Duration::from_secs(31 * 60));
    let told = scene.open(&browser, &scene.url("iqueue", "/page"));
    assert_eq!(told.0, "sentry/login · form");
    let told = scene.sign_in(&browser, "ana");
    assert_eq!(told.0, "iqueue/page · served as ana");
    let told = scene.open(&browser, &scene.url("iqueue", "/other"));
    assert_eq!(told, ("iqueue/other · served as ana".into(), 1));
}

fn with_frames(name: &str, target: &str) -> Option<Response<Full<Bytes>>> {
    let port = target.strip_prefix("/frame-of-iqueue?").filter(|_| name == "dextor")?;
    Some(html(&format!("<title>frame</title><iframe src=\"https://iqueue.app.localhost:{port}/inside\"></iframe>")))
}

#[test]
fn a_frame_of_a_sibling_application_signs_on_by_itself() {
    let scene = scene_with(with_frames);
    let browser = browser();
    scene.open(&browser, &scene.url("dextor", "/"));
    scene.sign_in(&browser, "ana");
    let before = scene.requests();
    let port = scene.edge.address().port();
    browser.open(&scene.url("dextor", &format!("/frame-of-iqueue?{port}")));
    browser.enter_frame(0);
    browser.shows("hello, ana");
    browser.leave_frame();
    let requests = scene.requests() - before;
    println!("a page and the frame of a sibling: {requests} requests");
    assert!(requests <= 1 + super::MOST_REQUESTS, "{requests}");
    assert_eq!(
        scene.open(&browser, &scene.url("iqueue", "/by-itself")),
        ("iqueue/by-itself · served as ana".into(), 1)
    );
}

#[test]
fn a_frame_on_a_foreign_page_goes_nowhere_and_costs_the_application_nothing() {
    let scene = scene();
    let target = scene.url("iqueue", "/inside");
    let foreign =
        Origin::answering(move |_| html(&format!("<title>foreign</title><iframe src=\"{target}\"></iframe>")));
    let browser = browser();
    scene.open(&browser, &scene.url("dextor", "/"));
    scene.sign_in(&browser, "ana");
    let before = scene.requests();
    browser.open(&format!("http://foreign.localhost:{}/", foreign.address.port()));
    browser.enter_frame(0);
    eventually_or(|| !browser.text().is_empty(), || "the frame says nothing".into());
    let text = browser.text();
    browser.leave_frame();
    let requests = scene.requests() - before;
    println!("a foreign frame: {requests} requests, {text:?}");
    assert_eq!(requests, 1, "it is not sent on its way: {text}");
    let told = scene.open(&browser, &scene.url("iqueue", "/by-itself"));
    assert_eq!(told, ("iqueue/by-itself · served as ana".into(), 5));
}

fn with_prefetches(name: &str, target: &str) -> Option<Response<Full<Bytes>>> {
    let (kind, port) = target.strip_prefix("/ahead?").filter(|_| name == "dextor")?.split_once(':')?;
    let url = format!("https://iqueue.app.localhost:{port}/by-{kind}");
    let ahead = match kind {
        "link" => format!("<link rel=\"prefetch\" href=\"{url}\" as=\"document\">"),
        kind => format!(
            "<script type=\"speculationrules\">{{\"{kind}\":[{{\"source\":\"list\",\"urls\":[\"{url}\"],\"eagerness\":\"immediate\"}}]}}</script>"
        ),
    };
    Some(html(&format!("<title>ahead</title>{ahead}<p>hello, page</p><a id=\"go\" href=\"{url}\">go</a>")))
}

#[test]
fn a_page_that_was_fetched_ahead_is_there_when_the_person_goes_to_it() {
    let scene = scene_with(with_prefetches);
    let browser = browser();
    scene.open(&browser, &scene.url("dextor", "/"));
    scene.sign_in(&browser, "ana");
    let port = scene.edge.address().port();
    for kind in ["link", "prefetch", "prerender"] {
        let before = scene.requests();
        browser.open(&scene.url("dextor", &format!("/ahead?{kind}:{port}")));
        // Time for what the browser does by itself; that it does nothing is no fault.
        std::thread::sleep(Duration::from_millis(300));
        let ahead = scene.requests() - before;
        assert!(ahead <= 1 + super::MOST_REQUESTS, "{kind}: {ahead} requests");
        let before = scene.requests();
        browser.click("#go");
        browser.lands_on(&scene.url("iqueue", &format!("/by-{kind}")));
        browser.shows("hello, ana");
        println!("{kind}: {ahead} requests ahead, then {:?}", scene.told(&browser, before));
        let host = scene.edge.host("iqueue");
        browser.devtools("Network.deleteCookies", json!({ "name": TOKEN_COOKIE, "domain": host }));
    }
}

/// What an iPad's Safari calls itself, and the loader of its media.
const SAFARI: &str = "Mozilla/5.0 (iPad; CPU OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 \
     Mobile/15E148 Safari/604.1";
const MEDIA_LOADER: &str = "AppleCoreMedia/1.0.0.21E219 (iPad; U; CPU OS 17_4 like Mac OS X; en_us)";

#[test]
fn the_media_loader_of_an_ipad_gets_what_its_page_may_show() {
    let scene = scene();
    let browser = browser();
    browser.devtools("Network.setUserAgentOverride", json!({ "userAgent": SAFARI, "platform": "iPad" }));
    scene.open(&browser, &scene.url("iqueue", "/page"));
    let told = scene.sign_in(&browser, "ana");
    assert_eq!(told.0, "iqueue/page · served as ana");
    let cookie = browser.cookie(&scene.edge.host("iqueue"), TOKEN_COOKIE).unwrap();
    let mut loader = scene.edge.client().user_agent(MEDIA_LOADER);
    loader.set_cookie(&scene.edge.host("iqueue"), TOKEN_COOKIE, cookie["value"].as_str().unwrap());
    let film = loader.ask("GET", &scene.url("iqueue", "/film.mp4")).accept("*/*").field("range", "bytes=0-1").send();
    assert_eq!(film.status, 200, "{}", film.body);
    assert!(film.body.contains("hello, ana"));
    // A program on another computer that has copied the cookie is another matter.
    let mut thief = scene.edge.client().user_agent("curl/8.5.0");
    thief.set_cookie(&scene.edge.host("iqueue"), TOKEN_COOKIE, cookie["value"].as_str().unwrap());
    assert_eq!(thief.get(&scene.url("iqueue", "/film.mp4")).status, 401);
}
