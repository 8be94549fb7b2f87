//! One browser, one person: whoever typed the password last is served everywhere, and after a logout nobody is.
//!
//! Two tabs, two people and every place of a logout, in every order, against memory and a real memcached, through one edge
//! and through two that take turns.

use std::collections::BTreeSet;
use std::time::Duration;

use http_body_util::Full;

use crate::harness::edge::{PASSWORD, TOKEN_COOKIE};
use crate::harness::{Client, Edge, Memcached, Origin, Response, edge, eventually, memcached};

const DEVICE_COOKIE: &str = "__Host-SSODevice";
const SERVICES: [&str; 2] = ["iqueue", "dextor"];
/// Where, and how.
const LOGOUTS: [(&str, &str, &str); 5] = [
    ("GET", "iqueue", "/.sentry/logout"),
    ("POST", "iqueue", "/.sentry/logout"),
    ("GET", "dextor", "/.sentry/logout"),
    ("GET", "sentry", "/logout"),
    ("POST", "sentry", "/logout"),
];

struct Scene {
    edges: Vec<Edge>,
    memcached: Option<Memcached>,
    _origin: Origin,
}

fn scene(of_memcached: bool, edges: usize) -> Scene {
    let origin = Origin::answering(|seen| {
        let user = seen.one("x-forwarded-user").unwrap_or_else(|| "nobody".into());
        let session = seen.one("x-forwarded-session").unwrap_or_default();
        hyper::Response::new(Full::new(format!("serves {user} in {session}").into()))
    });
    let mut builder = edge().service("iqueue", &origin).service("dextor", &origin).balanced();
    builder = builder.user("ben", &SERVICES, &[]);
    let memcached = of_memcached.then(memcached);
    if let Some(memcached) = &memcached {
        builder = builder.memcached_within(&memcached.address(), "5s");
    }
    let first = builder.start();
    let mut all = vec![first];
    for _ in 1..edges {
        all.push(all[0].twin());
    }
    Scene { edges: all, memcached, _origin: origin }
}

/// One browser, whose requests are spread over the edges.
struct Browser<'a> {
    scene: &'a Scene,
    client: Client,
    turn: usize,
}

impl<'a> Browser<'a> {
    fn new(scene: &'a Scene) -> Self {
        Self { scene, client: scene.edges[0].client(), turn: 0 }
    }

    fn url(&self, host: &str, path: &str) -> String {
        self.scene.edges[0].url(host, path)
    }

    fn next(&mut self) -> &mut Client {
        self.turn += 1;
        let edges = &self.scene.edges;
        self.client.through(edges[self.turn % edges.len()].address())
    }

    fn open(&mut self, url: &str) -> Response {
        self.next().open(url)
    }

    fn follow_from(&mut self, mut response: Response) -> Response {
        let mut hops = 0;
        while let Some(location) = response.location() {
            hops += 1;
            assert!(hops <= 12, "round in a circle: {location}");
            response = self.open(&location);
        }
        response
    }

    fn follow(&mut self, url: &str) -> Response {
        let first = self.open(url);
        self.follow_from(first)
    }

    /// A tab in which a form for this service waits. One that is signed in opens it by its address.
    fn form(&mut self, service: &str) -> Response {
        let page = self.follow(&self.url(service, "/page"));
        assert!(is_form(&page), "{}: {}", page.status, page.body);
        page
    }

    fn send(&mut self, form: &Response, user: &str) -> Response {
        self.next();
        self.client.fill_in(form, user, PASSWORD)
    }

    fn sign_in(&mut self, form: &Response, user: &str) -> Response {
        let sent = self.send(form, user);
        assert_eq!(sent.status, 303, "{user}: {}", sent.body);
        self.follow_from(sent)
    }

    /// Whom a service serves, if anybody.
    fn served_at(&mut self, service: &str) -> Option<String> {
        let page = self.follow(&self.url(service, "/"));
        assert_eq!(page.status, 200, "{}", page.body);
        if is_form(&page) { None } else { Some(user_of(&page).to_owned()) }
    }

    fn sign_out(&mut self, (method, host, path): (&'static str, &str, &str)) -> Response {
        let url = self.url(host, path);
        let fields: [(&str, &str); 0] = [];
        let first = match method {
            "GET" => self.open(&url),
            _ => self.next().post_form(&url, &fields),
        };
        self.follow_from(first)
    }
}

fn is_form(page: &Response) -> bool {
    page.body.contains("name=\"password\"")
}

fn user_of(page: &Response) -> &str {
    page.body.strip_prefix("serves ").and_then(|rest| rest.split(' ').next()).unwrap_or_default()
}

impl Scene {
    /// Sessions that live, as the store has them; `None` where it cannot be read.
    fn living(&self) -> Option<usize> {
        let records = self.memcached.as_ref()?.session_records();
        Some(records.iter().filter(|record| !record.starts_with("1 ended")).count())
    }

    fn has_living(&self, count: usize, when: &str) {
        eventually(&format!("{count} sessions live {when}"), || self.living().is_none_or(|living| living == count));
    }
}

fn every_order(of_memcached: bool, edges: usize) {
    let (scene, mut turn) = (scene(of_memcached, edges), 0);
    for first in ["ada", "ben"] {
        for second in ["ada", "ben"] {
            for between in [&[][..], &["iqueue", "dextor"]] {
                // Each walk looks through the whole store several times: there every place has its turn, and not each walk.
                turn += 1;
                let some = &LOGOUTS[turn % LOGOUTS.len()..][..1];
                for logout in if of_memcached { some } else { &LOGOUTS } {
                    let logout = *logout;
                    let when = format!("{first}, {second}, open between them {between:?}, then {logout:?}");
                    let mut browser = Browser::new(&scene);
                    let (one, two) = (browser.form("iqueue"), browser.form("dextor"));
                    assert_eq!(user_of(&browser.sign_in(&one, first)), first, "{when}");
                    for service in between {
                        assert_eq!(browser.served_at(service).as_deref(), Some(first), "{when}");
                    }
                    let mut page_of_first = browser.client.clone();
                    assert_eq!(user_of(&browser.sign_in(&two, second)), second, "{when}");
                    // A page that the first had open: it goes on if it is the same person's, and nobody else's does.
                    let saved = page_of_first.ask("POST", &browser.url("iqueue", "/save")).send();
                    assert_eq!(saved.status == 200, first == second, "{when}: {}", saved.status);
                    scene.has_living(1, &when);
                    for service in SERVICES {
                        let served = browser.served_at(service);
                        assert!(served.is_none() || served.as_deref() == Some(second), "{when}: {served:?}");
                    }
                    let out = browser.sign_out(logout);
                    assert_eq!(out.status, 200, "{when}");
                    assert!(out.body.contains("Your session has ended in every application"), "{when}: {}", out.body);
                    scene.has_living(0, &when);
                    for service in SERVICES {
                        assert_eq!(browser.served_at(service), None, "{when}: the next person at {service}");
                    }
                    assert!(is_form(&browser.follow(&browser.url("sentry", "/"))), "{when}: and at the sign-on host");
                }
            }
        }
    }
}

#[test]
fn whoever_typed_last_is_served_and_nobody_after_a_logout_in_memory() {
    every_order(false, 1);
}

#[test]
fn whoever_typed_last_is_served_and_nobody_after_a_logout_in_memcached() {
    every_order(true, 1);
}

#[test]
fn whoever_typed_last_is_served_and_nobody_after_a_logout_at_two_edges() {
    every_order(true, 2);
}

/// Both forms are sent before either answer has arrived, and the answers arrive in both orders.
#[test]
fn of_two_logins_under_way_one_session_is_left_whatever_answer_comes_last() {
    for edges in [1, 2] {
        let scene = scene(true, edges);
        for (first, second) in [("ada", "ben"), ("ben", "ada"), ("ada", "ada")] {
            for late in [0, 1] {
                let when = format!("{first}, {second}, the answer to {late} comes last");
                let mut browser = Browser::new(&scene);
                let form = browser.form("iqueue");
                // Two copies of one browser: each takes one answer.
                let mut tabs = [browser.client.clone(), browser.client.clone()];
                let sent = tabs[0].fill_in(&form, first, PASSWORD);
                assert_eq!(sent.status, 303, "{when}");
                let edge = &scene.edges[edges - 1];
                let sent = tabs[1].through(edge.address()).fill_in(&form, second, PASSWORD);
                assert_eq!(sent.status, 303, "{when}");
                scene.has_living(1, &when);
                // The jar of the late answer: that one's token and device cookie.
                browser.client = tabs[late].clone();
                let lives = [first, second][1];
                for service in SERVICES {
                    let served = browser.served_at(service);
                    assert!(served.is_none() || served.as_deref() == Some(lives), "{when}: {served:?}");
                }
                browser.sign_out(LOGOUTS[3]);
                scene.has_living(0, &when);
            }
        }
    }
}

/// An answer that clears the cookie arrives after the login that set it; so does a browser that lost it.
#[test]
fn a_browser_without_its_cookie_is_known_by_its_device() {
    let scene = scene(true, 1);
    let mut browser = Browser::new(&scene);
    let form = browser.form("iqueue");
    browser.sign_in(&form, "ada");
    browser.client.forget_cookie("sentry.test", TOKEN_COOKIE);
    let form = browser.form("dextor");
    assert_eq!(user_of(&browser.sign_in(&form, "ben")), "ben");
    scene.has_living(1, "after ben's login");
    assert_ne!(browser.served_at("iqueue").as_deref(), Some("ada"));
    // And a logout ends it without any cookie but the device's.
    browser.client.forget_cookie("sentry.test", TOKEN_COOKIE);
    browser.sign_out(LOGOUTS[3]);
    scene.has_living(0, "after a logout");
}

/// One signs with a key that the other does not know, or has a clock that is ahead.
#[test]
fn a_cookie_that_an_edge_cannot_read_is_ended_by_the_device() {
    let memcached = memcached();
    let origin = Origin::answering(|seen| {
        let user = seen.one("x-forwarded-user").unwrap_or_default();
        hyper::Response::new(Full::new(format!("serves {user} in").into()))
    });
    let key = |id: &str| format!("{{id: {id}, algorithm: HS256, secret: {{value: {}}}}}", id.repeat(32));
    let with = |keys: String, sign_with: &str| {
        let builder = edge().service("iqueue", &origin).service("dextor", &origin).balanced();
        let builder = builder.user("ben", &SERVICES, &[]).memcached_within(&memcached.address(), "5s");
        builder.keys(&keys).sentry(&format!("token: {{sign_with: {sign_with}}}")).start()
    };
    // The new key signs here, and is second there, so that it knows the device; a third edge has it alone.
    let new = with(format!("[{}, {}]", key("b"), key("a")), "b");
    let old = with(format!("[{}]", key("a")), "a");
    let mut client = old.client();
    client.sign_in(&old.url("iqueue", "/"), "ben", PASSWORD);
    // Signed in anew at the new edge: the old one cannot read that token, and not the renewed device cookie either.
    let form = {
        client.through(new.address()).follow(&new.url("sentry", "/logout"));
        client.follow(&new.url("iqueue", "/")).pop().unwrap()
    };
    let device = client.cookie("sentry.test", DEVICE_COOKIE).unwrap().to_owned();
    let sent = client.fill_in(&form, "ada", PASSWORD);
    assert_eq!(sent.status, 303, "{}", sent.body);
    client.follow(&sent.location().unwrap());
    client.set_cookie("sentry.test", DEVICE_COOKIE, &device);
    let living = || {
        let records = memcached.session_records();
        records.iter().filter(|record| !record.starts_with("1 ended")).count()
    };
    assert_eq!(living(), 1);
    let form = client.through(old.address()).follow(&old.url("dextor", "/")).pop().unwrap();
    assert!(is_form(&form), "{}", form.body);
    let sent = client.fill_in(&form, "ben", PASSWORD);
    assert_eq!(sent.status, 303, "{}", sent.body);
    assert_eq!(living(), 1, "ada's session, whose cookie the old edge cannot read, was ended by the device");
    client.through(new.address());
    assert_eq!(client.open(&new.url("iqueue", "/")).status, 302, "and no edge serves her");
}

#[test]
fn a_login_that_cannot_end_what_was_there_is_not_told_as_done() {
    let scene = scene(true, 1);
    let mut browser = Browser::new(&scene);
    let form = browser.form("iqueue");
    browser.sign_in(&form, "ada");
    let mut form = browser.client.clone();
    let form = {
        // As another tab has it that was opened before.
        form.forget_cookie("sentry.test", TOKEN_COOKIE);
        form.follow(&browser.url("dextor", "/page?q=1")).pop().unwrap()
    };
    scene.memcached.as_ref().unwrap().freeze();
    let sent = browser.send(&form, "ben");
    scene.memcached.as_ref().unwrap().thaw();
    assert_eq!(sent.status, 503, "{}", sent.body);
    assert!(is_form(&sent) && sent.header("retry-after").is_some(), "{}", sent.body);
    assert!(sent.form_field("redirectURL").contains("page?q=1"), "nothing is lost of it");
    assert_eq!(sent.set_cookie(TOKEN_COOKIE), None);
    eventually("the store answers again", || browser.served_at("iqueue").as_deref() == Some("ada"));
    let landed = browser.sign_in(&sent, "ben");
    assert_eq!(user_of(&landed), "ben");
    scene.has_living(1, "after the second trial");
}

/// A service's cookie, the moment of whose password is later, is not given up for an older ticket.
#[test]
fn an_older_ticket_is_refused_and_ends_nothing() {
    let scene = scene(true, 1);
    let edge = &scene.edges[0];
    let mut ada = Browser::new(&scene);
    let form = ada.form("iqueue");
    // Her ticket is on its way …
    let sent = ada.send(&form, "ada");
    let ticket = ada.open(&sent.location().unwrap()).location().unwrap();
    assert!(ticket.contains("requestID="), "{ticket}");
    // … and, as if the store had been silent, a later login has left her session alive.
    edge.let_pass(Duration::from_secs(10));
    let mut ben = Browser::new(&scene);
    let form = ben.form("iqueue");
    ben.sign_in(&form, "ben");
    let token = ben.client.cookie("iqueue.test", TOKEN_COOKIE).unwrap().to_owned();
    ada.client.set_cookie("iqueue.test", TOKEN_COOKIE, &token);
    scene.has_living(2, "before");
    let redeemed = ada.open(&ticket);
    assert_eq!(redeemed.set_cookie(TOKEN_COOKIE), None, "{:?}", redeemed.set_cookies());
    let line = edge.events("ticket_refused", 1).pop().unwrap();
    assert_eq!(line["reason"], "outlived", "{line}");
    assert_eq!(ben.served_at("iqueue").as_deref(), Some("ben"), "the later session goes on");
    // The other way round the ticket's session is the later one, and what it follows is ended.
    edge.let_pass(Duration::from_secs(10));
    let mut eve = Browser::new(&scene);
    let form = eve.form("iqueue");
    let sent = eve.send(&form, "ada");
    eve.client.set_cookie("iqueue.test", TOKEN_COOKIE, &token);
    let landed = eve.follow(&sent.location().unwrap());
    assert_eq!(user_of(&landed), "ada");
    assert_eq!(ben.served_at("iqueue"), None, "what it followed has ended");
}

#[test]
fn a_session_from_before_the_devices_last_logout_opens_nothing() {
    let scene = scene(true, 1);
    let mut browser = Browser::new(&scene);
    let form = browser.form("iqueue");
    browser.sign_in(&form, "ada");
    // A copy of the cookie whose session outlives the logout, as if its end had been lost.
    let token = browser.client.cookie("sentry.test", TOKEN_COOKIE).unwrap().to_owned();
    let memcached = scene.memcached.as_ref().unwrap();
    let key = memcached.keys("s:").pop().unwrap();
    let record = memcached.value(&key);
    browser.sign_out(LOGOUTS[3]);
    // The line's end is part of a record.
    assert_eq!(memcached.tell(&format!("set {key} 0 600 {}\r\n{record}\n", record.len() + 1)), "STORED");
    browser.client.forget_cookie("iqueue.test", TOKEN_COOKIE);
    scene.has_living(1, "as if its end had been lost");
    browser.client.set_cookie("sentry.test", TOKEN_COOKIE, &token);
    assert_eq!(browser.served_at("iqueue"), None);
    scene.has_living(0, "it was ended where it was met");
}

/// A device cookie is had for the asking; one account must not fill the store with the records of many.
#[test]
fn an_account_gets_no_record_for_a_device_that_it_has_not_signed_in_with() {
    let scene = scene(true, 1);
    let memcached = scene.memcached.as_ref().unwrap();
    let mut browser = Browser::new(&scene);
    let form = browser.form("iqueue");
    browser.sign_in(&form, "ada");
    let records = || memcached.keys("d:");
    let own = browser.client.cookie("sentry.test", DEVICE_COOKIE).unwrap().to_owned();
    // A look through the store passes over what is in use.
    let mut record = None;
    eventually("it has its own", || {
        record = records().pop();
        record.is_some()
    });
    let fresh = || {
        let mut other = scene.edges[0].client();
        other.open(&scene.edges[0].url("sentry", "/login"));
        other.cookie("sentry.test", DEVICE_COOKIE).unwrap().to_owned()
    };
    let with_fresh_devices = |client: &Client, path: &str, location: &str| {
        for _ in 0..3 {
            let mut client = client.clone();
            client.set_cookie("sentry.test", DEVICE_COOKIE, &fresh());
            let answer = client.open(&scene.edges[0].url("sentry", path));
            assert!(answer.location().unwrap_or_default().starts_with(location), "{path}: {:?}", answer.location());
        }
        (0..3).map(|_| records().len()).max().unwrap()
    };
    let from_service = format!("/copyCookie?redirectURL=https%3A%2F%2Fiqueue.test%2F&state={}", "a".repeat(43));
    let signed_in = browser.client.clone();
    assert!(with_fresh_devices(&signed_in, &from_service, "https://iqueue.test/?requestID=") <= 1, "with a ticket");
    assert!(with_fresh_devices(&signed_in, "/login", "") <= 1, "at the form");
    assert!(with_fresh_devices(&signed_in, "/", "") <= 1, "at the list of applications");
    // One that the store has forgotten is made again for the browser in which the password was typed.
    assert_eq!(memcached.tell(&format!("delete {}", record.unwrap())), "DELETED");
    browser.client.set_cookie("sentry.test", DEVICE_COOKIE, &own);
    browser.open(&browser.url("sentry", "/"));
    eventually("it has its own again", || records().len() == 1);
    // A token of a session that has ended names a user as well.
    browser.sign_out(LOGOUTS[3]);
    assert!(with_fresh_devices(&signed_in, "/logout", "") <= 1, "with an ended session");
}

#[test]
fn a_script_hears_which_session_its_logout_ended() {
    let scene = scene(false, 1);
    for (host, path, ended) in [("iqueue", "/.sentry/logout", "session"), ("sentry", "/logout", "browser")] {
        for method in ["GET", "POST"] {
            let mut browser = Browser::new(&scene);
            let form = browser.form("iqueue");
            browser.sign_in(&form, "ada");
            let url = browser.url(host, path);
            let request = browser.client.ask(method, &url).field("sec-fetch-mode", "cors").accept("*/*");
            let told = request.field("sec-fetch-site", "same-origin").send();
            assert_eq!((told.status, told.location()), (200, None), "{}", told.body);
            assert_eq!(told.json()["ended"], ended);
            assert_eq!(told.json()["logout_url"].is_string(), host == "iqueue");
            assert_eq!(browser.served_at("iqueue"), None);
            assert_eq!(browser.served_at("dextor"), None, "it is the same session there");
        }
    }
}

#[test]
fn a_logout_leads_to_the_sign_on_host_once_and_back_by_a_link_alone() {
    let scene = scene(false, 1);
    for (method, host, path) in LOGOUTS {
        for query in
            ["", "?redirectURL=https%3A%2F%2Fevil.test%2F", "?redirectURL=https%3A%2F%2Fiqueue.test%2F.sentry%2Flogout"]
        {
            let mut browser = Browser::new(&scene);
            let form = browser.form("iqueue");
            browser.sign_in(&form, "ada");
            let url = format!("{}{query}", browser.url(host, path));
            let fields: [(&str, &str); 0] = [];
            let mut response =
                if method == "GET" { browser.open(&url) } else { browser.next().post_form(&url, &fields) };
            let mut hosts = Vec::new();
            while let Some(location) = response.location() {
                hosts.push(location.split('/').nth(2).unwrap().to_owned());
                response = browser.open(&location);
            }
            assert_eq!(hosts, if host == "sentry" { &[][..] } else { &["sentry.test"] }, "{method} {url}");
            assert_eq!(response.status, 200);
            assert!(!response.body.contains("evil") && !response.body.contains("/.sentry/logout"), "{}", response.body);
            let back = format!("href=\"https://{}.test/\"", if host == "sentry" { "sentry" } else { host });
            assert!(response.body.contains(&back), "{back}: {}", response.body);
        }
    }
}

/// Where services are on other sites than the sign-on host, a browser says of the redirect what it says of a foreign link.
#[test]
fn a_logout_from_another_site_is_believed_with_the_name_of_the_session_alone() {
    let scene = scene(false, 1);
    let cross = |client: &mut Client, url: &str| {
        let request = client.ask("GET", url).accept("text/html").field("sec-fetch-site", "cross-site");
        request.field("sec-fetch-mode", "navigate").field("sec-fetch-dest", "document").send()
    };
    let signed_in = || {
        let mut browser = Browser::new(&scene);
        let form = browser.form("iqueue");
        browser.sign_in(&form, "ada");
        browser
    };
    let asks = |page: &Response| page.status == 200 && page.body.contains("<form method=\"post\"");
    let mut browser = signed_in();
    let on = browser.open(&browser.url("iqueue", "/.sentry/logout")).location().unwrap();
    // An attacker's own link, and one of them that is too old.
    let mut victim = signed_in();
    for link in [on.clone(), victim.url("sentry", "/logout"), on.replace("pass=", "pass=1")] {
        assert!(asks(&cross(&mut victim.client, &link)), "{link}");
        assert_eq!(victim.served_at("dextor").as_deref(), Some("ada"), "{link}");
    }
    scene.edges[0].let_pass(Duration::from_secs(61));
    assert!(asks(&cross(&mut browser.client.clone(), &on)), "its time is over");
    let mut browser = signed_in();
    let on = browser.open(&browser.url("iqueue", "/.sentry/logout")).location().unwrap();
    let out = cross(&mut browser.client, &on);
    assert!(out.body.contains("Your session has ended in every application"), "{}", out.body);
    assert_eq!(browser.client.cookie("sentry.test", TOKEN_COOKIE), None);
}

#[test]
fn the_sign_on_host_clears_its_cookie_at_a_logout_alone() {
    let scene = scene(true, 1);
    let memcached = scene.memcached.as_ref().unwrap();
    let mut browser = Browser::new(&scene);
    let form = browser.form("iqueue");
    browser.sign_in(&form, "ada");
    memcached.tell("flush_all");
    for path in ["/login", "/", "/copyCookie", "/noCookie", "/currentUser", "/.well-known/jwks.json"] {
        let answer = browser.open(&browser.url("sentry", path));
        assert_eq!(answer.set_cookie(TOKEN_COOKIE), None, "{path}: {:?}", answer.set_cookies());
    }
    assert!(browser.client.cookie("sentry.test", TOKEN_COOKIE).is_some());
    let form = browser.form("iqueue");
    assert_eq!(user_of(&browser.sign_in(&form, "ben")), "ben", "the next login overwrites it");
    browser.sign_out(LOGOUTS[3]);
    assert_eq!(browser.client.cookie("sentry.test", TOKEN_COOKIE), None);
}

#[test]
fn applications_hear_one_name_of_a_session_for_as_long_as_it_lives() {
    let scene = scene(false, 1);
    let name = |page: &Response| page.body.rsplit(' ').next().unwrap().to_owned();
    let mut names = BTreeSet::new();
    for user in ["ada", "ben", "ada"] {
        let mut browser = Browser::new(&scene);
        let form = browser.form("iqueue");
        let one = name(&browser.sign_in(&form, user));
        let two = name(&browser.follow(&browser.url("dextor", "/")));
        assert_eq!((one.len(), &one), (22, &two), "the same at both");
        let forged = browser.client.ask("GET", &browser.url("iqueue", "/")).field("x-forwarded-session", "mine");
        assert_eq!(name(&forged.send()), one, "a client does not say it");
        // The same person types the password once more, in another tab.
        let mut tab = browser.client.clone();
        tab.forget_cookie("sentry.test", TOKEN_COOKIE);
        let again = tab.follow(&browser.url("sentry", "/login")).pop().unwrap();
        let sent = browser.send(&again, user);
        assert_eq!(sent.status, 303, "{}", sent.body);
        assert_eq!(name(&browser.follow(&browser.url("dextor", "/"))), one, "{user} goes on with the session");
        names.insert(one);
    }
    assert_eq!(names.len(), 3, "another login is another session");
}
