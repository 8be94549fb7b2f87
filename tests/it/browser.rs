//! The sign-on as a person meets it: a real Chromium that trusts our CA and ignores no error.
//!
//! The hosts are below `app.localhost`: Chromium resolves them itself, and they are one site to it, as
//! `sentry.leantaas.com` and `iqueue.leantaas.com` are.

use std::time::Duration;

use http_body_util::Full;
use serde_json::json;

use crate::harness::edge::{PASSWORD, STATE_COOKIE, TOKEN_COOKIE};
use crate::harness::{Browser, Client, Edge, Origin, browser, browser_without_scripts, edge};

struct Scene {
    edge: Edge,
    _iqueue: Origin,
    _dextor: Origin,
}

fn scene() -> Scene {
    let (iqueue, dextor) = (application("iqueue"), application("dextor"));
    let edge = edge()
        .domain("app.localhost")
        .service_with("iqueue", &iqueue, "idle_timeout: 30m")
        .service_with("dextor", &dextor, "idle_timeout: 30m")
        .user("eve", &["iqueue"], &[])
        .start();
    Scene { edge, _iqueue: iqueue, _dextor: dextor }
}

/// An application with one page, that greets whoever it is told the user is.
fn application(name: &'static str) -> Origin {
    Origin::answering(move |seen| {
        let user = seen.one("x-forwarded-user").unwrap_or_else(|| "nobody".into());
        page(&format!(
            "<title>{name}</title><h1>{name}</h1><p>hello, {user}</p><p id=\"scripts\">off</p>\
             <script>document.getElementById('scripts').textContent = 'on'</script>\
             <a href=\"/.sentry/logout\">Sign out</a>"
        ))
    })
}

fn page(html: &str) -> hyper::Response<Full<hyper::body::Bytes>> {
    let html = format!("<!doctype html><html lang=\"en\"><link rel=\"icon\" href=\"data:,\">{html}");
    let response = hyper::Response::builder().header("content-type", "text/html");
    response.body(Full::new(html.into())).unwrap()
}

fn sign_in(browser: &Browser, user: &str) {
    browser.fill_in("#username", user);
    browser.fill_in("#password", PASSWORD);
    browser.click("button");
}

/// Nothing on our pages was held back by their own Content-Security-Policy.
fn breaks_no_policy(browser: &Browser) {
    let lines = browser.console();
    let broken = |line: &&String| line.contains("Content Security Policy") || line.contains("Refused to");
    assert_eq!(lines.iter().find(broken), None, "{lines:?}");
}

#[test]
fn one_login_opens_both_applications_until_one_logout_closes_them() {
    let Scene { edge, .. } = &scene();
    let browser = browser();
    let asked = edge.url("iqueue", "/path?q=1&r=%20a+b");
    browser.open(&asked);
    assert!(browser.address().starts_with(&edge.url("sentry", "/login?")), "{}", browser.address());
    assert_eq!(browser.title(), "Sign in");
    sign_in(&browser, "ada");

    browser.lands_on(&asked);
    browser.shows("hello, ada");
    assert_eq!(browser.run("return document.referrer"), "", "the application learns nothing of the way");
    browser.shows_in("#scripts", "on");
    assert_eq!(browser.run("return document.cookie"), "", "no script reads our cookies");
    let history = browser.history();
    assert!(!history.iter().any(|address| address.contains("requestID")), "{history:?}");
    the_cookies_are_as_they_should_be(&browser, edge);

    browser.open_tab(&edge.url("dextor", "/"));
    browser.lands_on(&edge.url("dextor", "/"));
    browser.shows("hello, ada");
    let current = browser.wait_for("fetch('/.sentry/currentUser').then(reply => reply.json())");
    assert_eq!(current["currentUser"]["name"], "ada");

    browser.click("a");
    browser.shows("You are signed out");
    assert_eq!(browser.cookie(&edge.host("dextor"), TOKEN_COOKIE), None);
    browser.first_tab();
    let refused = browser.wait_for("fetch('/api').then(async reply => [reply.status, await reply.json()])");
    assert_eq!(refused[0], 401);
    assert_eq!(refused[1]["error"], "login_required");
    browser.open(&asked);
    assert!(browser.has("#password"), "the login is asked again: {}", browser.text());
    assert!(!browser.has("[role=status]"), "who has signed out is not told that a session ended: {}", browser.text());
    sign_in(&browser, "ada");
    browser.lands_on(&asked);
    breaks_no_policy(&browser);
}

fn the_cookies_are_as_they_should_be(browser: &Browser, edge: &Edge) {
    for host in ["sentry", "iqueue"] {
        let cookie = browser.cookie(&edge.host(host), TOKEN_COOKIE).unwrap();
        assert_eq!(cookie["domain"], edge.host(host).as_str(), "this host's alone");
        let attributes = ["path", "httpOnly", "secure", "sameSite", "session"].map(|name| cookie[name].clone());
        assert_eq!(json!(attributes), json!(["/", true, true, "Lax", true]), "{host}");
    }
    assert_eq!(browser.cookie(&edge.host("iqueue"), STATE_COOKIE), None, "the state is spent");
    let csrf = browser.cookie(&edge.host("sentry"), "__Host-SSOLogin").unwrap();
    assert_eq!((&csrf["sameSite"], &csrf["httpOnly"]), (&json!("Strict"), &json!(true)));
    let wide: Vec<_> =
        browser.cookies().into_iter().filter(|c| c["domain"].as_str().unwrap().starts_with('.')).collect();
    assert!(wide.is_empty(), "no cookie for a whole domain: {wide:?}");
}

#[test]
fn the_form_keeps_what_was_typed_and_says_what_is_wrong_to_a_keyboard_and_a_screen_reader() {
    let Scene { edge, .. } = &scene();
    let browser = browser();
    browser.open(&edge.url("iqueue", "/a?b=c"));
    has_labels_roles_and_style(&browser);
    assert_eq!(browser.focus(), "username", "a keyboard can begin at once");
    browser.type_text("ada");
    browser.type_text("\u{e004}");
    assert_eq!(browser.focus(), "password", "Tab leads on");
    browser.type_text("wrong");
    browser.type_text("\u{e007}");

    browser.shows_in("[role=alert]", "not correct");
    assert!(browser.title().starts_with("Error: "), "told by the title, which is read first: {}", browser.title());
    assert_eq!((browser.value_of("#username").as_str(), browser.value_of("#password").as_str()), ("ada", ""));
    assert_eq!(browser.run("return document.getElementById('password').getAttribute('aria-describedby')"), "notice");
    assert_eq!(browser.focus(), "password", "only this has to be typed again");
    browser.type_text(PASSWORD);
    browser.type_text("\u{e004}");
    assert_eq!(browser.run("return document.activeElement.textContent"), "Sign in", "the button is next");
    browser.type_text("\u{e007}");
    browser.lands_on(&edge.url("iqueue", "/a?b=c"));
    breaks_no_policy(&browser);

    edge.let_pass(Duration::from_secs(30 * 60 + 1));
    browser.open(&edge.url("iqueue", "/a?b=c"));
    browser.shows_in("[role=status]", "session has ended");
    sign_in(&browser, "ada");
    browser.lands_on(&edge.url("iqueue", "/a?b=c"));
}

/// A fragment never reaches a server: it survives because the form is sent to its own address.
#[test]
fn a_fragment_and_the_destination_survive_the_login_and_a_wrong_password() {
    let Scene { edge, .. } = &scene();
    let browser = browser();
    let asked = edge.url("iqueue", "/notes/3?x=1#/patients/5");
    browser.open(&asked);
    let form = browser.address();
    assert!(form.starts_with(&edge.url("sentry", "/login?")) && form.ends_with("#/patients/5"), "{form}");
    browser.fill_in("#username", "ada");
    browser.fill_in("#password", "wrong");
    browser.click("button");
    browser.shows_in("[role=alert]", "not correct");
    assert_eq!(browser.address(), form, "a reload or a bookmark leads to the same place");
    browser.open(&browser.address());
    sign_in(&browser, "ada");
    browser.lands_on(&asked);
    breaks_no_policy(&browser);
}

/// As a worker makes it that passes navigations on, their destination is empty and their mode is kept.
#[test]
fn an_application_with_a_service_worker_signs_on() {
    let worker = Origin::answering(|seen| {
        if seen.target == "/worker.js" {
            let script = "self.addEventListener('install', () => self.skipWaiting()); \
                          self.addEventListener('activate', event => event.waitUntil(clients.claim())); \
                          self.addEventListener('fetch', event => event.respondWith(fetch(event.request)));";
            let response = hyper::Response::builder().header("content-type", "text/javascript");
            return response.body(Full::new(script.into())).unwrap();
        }
        let user = seen.one("x-forwarded-user").unwrap_or_else(|| "nobody".into());
        page(&format!("<title>worker</title><p>hello, {user}</p>"))
    });
    let edge = edge().domain("app.localhost").service("iqueue", &worker).start();
    let browser = browser();
    let asked = edge.url("iqueue", "/a?b=c");
    browser.open(&asked);
    sign_in(&browser, "ada");
    browser.lands_on(&asked);
    let ready =
        "navigator.serviceWorker.register('/worker.js').then(() => navigator.serviceWorker.ready).then(() => 1)";
    assert_eq!(browser.wait_for(ready), json!(1));
    browser.open(&edge.url("sentry", "/logout"));
    browser.open(&asked);
    assert!(browser.has("#password"), "{}", browser.text());
    sign_in(&browser, "ada");
    browser.lands_on(&asked);
    browser.shows("hello, ada");
    assert!(!worker.seen().iter().any(|seen| seen.target.contains("requestID")));
}

fn has_labels_roles_and_style(browser: &Browser) {
    let told = browser.accessible();
    for thing in ["heading Sign in", "textbox Username", "textbox Password", "button Sign in", "RootWebArea Sign in"] {
        assert!(told.iter().any(|said| said == thing), "no {thing:?} in {told:?}");
    }
    assert!(told.iter().any(|said| said.starts_with("main")), "a landmark to jump to: {told:?}");
    assert_eq!(browser.run("return document.documentElement.lang"), "en");
    let style = |css: &str, property: &str| {
        browser.run(&format!("return getComputedStyle(document.querySelector('{css}')).{property}"))
    };
    assert_eq!(style("*", "boxSizing"), "border-box", "the style was not held back by the policy");
    let button = style("button", "backgroundColor");
    assert!(["rgb(11, 96, 127)", "rgb(108, 195, 224)"].map(|colour| json!(colour)).contains(&button), "{button}");
}

#[test]
fn signing_in_and_out_needs_no_script() {
    let Scene { edge, .. } = &scene();
    let browser = browser_without_scripts();
    browser.open(&edge.url("iqueue", "/x?y"));
    sign_in(&browser, "ada");
    browser.lands_on(&edge.url("iqueue", "/x?y"));
    browser.shows_in("#scripts", "off");
    browser.open(&edge.url("sentry", "/"));
    browser.shows("Signed in as ada");
    browser.click("button");
    browser.shows("You are signed out");
    browser.open(&edge.url("iqueue", "/x?y"));
    assert!(browser.has("#password"));
}

/// A site of an attacker's: what is asked of it names the HTML that it answers.
fn evil(html: impl Fn(&str) -> String + Send + Sync + 'static) -> Origin {
    Origin::answering(move |seen| page(&html(seen.target.as_str())))
}

#[test]
fn another_site_can_neither_sign_a_person_in_nor_out() {
    let Scene { edge, .. } = &scene();
    let (login, logout) = (edge.url("sentry", "/login"), edge.url("sentry", "/logout"));
    let service_logout = edge.url("iqueue", "/.sentry/logout");
    let evil = evil(move |target| match target {
        "/login" => format!(
            "<form method=post action=\"{login}\"><input name=username value=eve>\
             <input name=password value=\"{PASSWORD}\"><input name=csrf value=x><button>Win a prize</button></form>"
        ),
        "/embed" => format!("<img src=\"{logout}\"><img src=\"{service_logout}\"><iframe src=\"{logout}\"></iframe>"),
        "/post" => format!("<form method=post action=\"{logout}\"><button>Win a prize</button></form>"),
        _ => format!("<a href=\"{logout}\">Win a prize</a>"),
    });
    let evil = |path: &str| format!("http://evil.localhost:{}{path}", evil.address.port());
    let browser = browser();

    browser.open(&evil("/login"));
    browser.click("button");
    browser.lands_on(&edge.url("sentry", "/login"));
    assert!(browser.has("[role=alert]") && browser.has("#password"), "refused: {}", browser.text());
    assert_eq!(browser.cookie(&edge.host("sentry"), TOKEN_COOKIE), None, "nobody was signed in");
    assert_eq!(edge.metric("sentry_edge_logins_total", "result=\"forged\""), 1.0);

    browser.open(&edge.url("iqueue", "/"));
    sign_in(&browser, "ada");
    let still_signed_in = || {
        browser.open(&edge.url("iqueue", "/"));
        browser.shows("hello, ada");
    };
    browser.open(&evil("/embed"));
    let console = browser.console();
    assert!(console.iter().any(|line| line.contains("frame-ancestors 'none'")), "framing is refused: {console:?}");
    still_signed_in();
    browser.open(&evil("/post"));
    browser.click("button");
    browser.shows("Sign-out not confirmed");
    still_signed_in();
    browser.open(&evil("/link"));
    browser.click("a");
    browser.shows("Sign out?");
    still_signed_in();
    browser.open(&evil("/link"));
    browser.click("a");
    browser.click("button");
    browser.shows("You are signed out");
    breaks_no_policy(&browser);
}

/// Eve's own sign-on, stopped before its last step: the link with the ticket, which nobody has redeemed.
fn unredeemed_ticket(edge: &Edge, eve: &mut Client) -> String {
    let form = eve.follow(&edge.url("iqueue", "/")).pop().unwrap();
    let sent = edge.send_login(eve, &form, "eve", PASSWORD);
    let link = eve.open(&sent.location().unwrap()).location().unwrap();
    assert!(link.contains("requestID="), "{link}");
    link
}

#[test]
fn an_attackers_ticket_or_cookie_signs_nobody_in_as_the_attacker() {
    let Scene { edge, .. } = &scene();
    let browser = browser();
    let asks_for_login = |what: &str| {
        assert!(browser.has("#password"), "{what}: {}", browser.text());
        assert_eq!(browser.cookie(&edge.host("iqueue"), TOKEN_COOKIE), None, "{what}");
    };
    browser.open(&unredeemed_ticket(edge, &mut edge.client()));
    asks_for_login("a ticket in a browser that never began a sign-on");
    browser.open(&unredeemed_ticket(edge, &mut edge.client()));
    asks_for_login("a ticket in the middle of a sign-on of one's own");

    let mut eve = edge.client();
    edge.sign_in(&mut eve, "iqueue", "eve");
    let token = eve.cookie(&edge.host("iqueue"), TOKEN_COOKIE).unwrap().to_owned();
    let planted = plant_on_the_parent_domain(&browser, &token);
    assert!(planted > 0, "the browser took something, or this would show nothing");
    browser.open(&edge.url("iqueue", "/"));
    asks_for_login("a cookie from a sibling host");

    sign_in(&browser, "ada");
    browser.shows("hello, ada");
    browser.open(&unredeemed_ticket(edge, &mut edge.client()));
    browser.shows("hello, ada");
}

/// Sets every spelling of the token cookie that a browser may take from a sibling host, for the domain above both.
/// Answers how many cookies it kept.
fn plant_on_the_parent_domain(browser: &Browser, token: &str) -> usize {
    let sibling = evil(|_| String::new());
    browser.open(&format!("http://evil.app.localhost:{}/", sibling.address.port()));
    for name in [
        "__Host-JWTCookie",
        "__HOST-JWTCookie",
        "__Secure-JWTCookie",
        "JWTCookie",
        "=__Host-JWTCookie",
        " __Host-JWTCookie",
    ] {
        for attributes in ["; Secure", ""] {
            let text = json!(format!("{name}={token}; Domain=app.localhost; Path=/{attributes}"));
            browser.run(&format!("document.cookie = {text}"));
        }
    }
    let wide = |cookie: &serde_json::Value| cookie["domain"] == ".app.localhost";
    browser.cookies().into_iter().filter(wide).count()
}

/// An application of one page, whose addresses are its own business.
#[test]
fn a_single_page_application_of_static_files_signs_on_with_its_deep_links() {
    let api = Origin::answering(|seen| {
        let user = seen.one("x-forwarded-user").unwrap_or_default();
        hyper::Response::new(Full::new(format!("{user} at {}", seen.target).into()))
    });
    let html = "<!doctype html><html lang=\"en\"><title>orders</title><link rel=\"icon\" href=\"data:,\"><h1>loading</h1>\
                <p></p><script src=\"/app.js\"></script>";
    let script = "const show = (tag, text) => { document.querySelector(tag).textContent = text; };\
                  show('h1', 'page ' + location.pathname);\
                  fetch('/api/me').then(reply => reply.text()).then(text => show('p', text));";
    let routes = "routes: [{path: /, files: {root: site, fallback: /index.html}}, {path: /api/, pool: iqueue}]";
    let edge = edge()
        .domain("app.localhost")
        .service_with("iqueue", &api, routes)
        .file("site/index.html", html)
        .file("site/app.js", script)
        .start();
    let browser = browser();
    let deep = edge.url("iqueue", "/orders/17?tab=2");
    browser.open(&deep);
    assert!(browser.address().starts_with(&edge.url("sentry", "/login?")), "{}", browser.address());
    sign_in(&browser, "ada");
    browser.lands_on(&deep);
    browser.shows_in("h1", "page /orders/17");
    browser.shows_in("p", "ada at /api/me");
    let statuses = browser
        .wait_for("Promise.all(['/orders/18', '/none.js', '/'].map(path => fetch(path).then(reply => reply.status)))");
    assert_eq!(statuses, json!([404, 404, 200]), "a script's request for a page is no navigation");
    browser.reload();
    browser.shows_in("h1", "page /orders/17");
    browser.open(&edge.url("iqueue", "/"));
    browser.shows_in("h1", "page /");
    breaks_no_policy(&browser);
}
