//! A page of one service that calls the API of another one, as browsers allow it: by a preflight that has no session, and a
//! request that has one.

use http_body_util::Full;
use hyper::Response;

use super::{Scene, application};
use crate::harness::{Origin, browser, edge};

/// An API that lets scripts of any page of the site call it, and says what it has received.
fn api() -> Origin {
    Origin::answering(|seen| {
        let origin = seen.one("origin").unwrap_or_default();
        let user = seen.one("x-forwarded-user").unwrap_or_else(|| "no user".into());
        let response = Response::builder()
            .header("access-control-allow-origin", origin)
            .header("access-control-allow-credentials", "true")
            .header("access-control-allow-methods", "PUT")
            .header("access-control-allow-headers", "x-one")
            .header("cache-control", "no-store");
        response.body(Full::new(format!("{} by {user}", seen.method).into())).unwrap()
    })
}

#[test]
fn a_page_calls_the_api_of_another_service_with_its_session_where_preflights_are_forwarded() {
    let apps = [application("iqueue", |_, _| None), api()];
    let edge = edge()
        .domain("app.localhost")
        .service_with("iqueue", &apps[0], "idle_timeout: 30m")
        .service_with("dextor", &apps[1], "idle_timeout: 30m, routes: [{path: /api, preflight: forward}]")
        .user("ana", &["iqueue", "dextor"], &[])
        .start();
    let scene = Scene { edge, _apps: apps };
    let browser = browser();
    scene.open(&browser, &scene.url("dextor", "/page"));
    scene.sign_in(&browser, "ana");
    scene.open(&browser, &scene.url("iqueue", "/page"));
    let put = |path: &str| {
        let options = "{method: 'PUT', credentials: 'include', headers: {'x-one': '1'}, body: 'x'}";
        let promise = format!("fetch('{}', {options}).then(response => response.text())", scene.url("dextor", path));
        browser.wait_for(&promise).as_str().unwrap().to_owned()
    };
    assert_eq!(put("/api/x"), "PUT by ana");
    // Elsewhere the preflight is refused, upon which the browser refuses the page.
    let refused = put("/x");
    assert!(refused.contains("Failed to fetch"), "{refused}");
    let seen = scene._apps[1].seen();
    let of_scripts = seen.iter().filter(|seen| seen.target != "/page" && !seen.target.contains("favicon"));
    let of_scripts: Vec<_> = of_scripts
        .map(|seen| (seen.method.as_str(), seen.target.as_str(), seen.one("x-forwarded-user"), seen.one("cookie")))
        .collect();
    let ana = Some("ana".to_owned());
    assert_eq!(of_scripts, [("OPTIONS", "/api/x", None, None), ("PUT", "/api/x", ana, None)]);
}
