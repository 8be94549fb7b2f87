//! Rules of routes against spellings of a path, with real applications behind the edge, each of which says which of its
//! handlers has run: Node's own HTTP server with `new URL`, Express, Flask, and nginx that merges no slashes.

use std::net::SocketAddr;

use crate::harness::edge::{PASSWORD, TOKEN_COOKIE};
use crate::harness::nginx::Nginx;
use crate::harness::raw::Answer;
use crate::harness::spellings::spellings;
use crate::harness::{Client, Daemon, edge, origin, raw};
use crate::scene::application;

/// Two services before one application: the one has a role below a path for everybody, the other one above it. Bob has
/// no role, and Ada has.
struct Scene {
    edge: Daemon,
    ada: Client,
    bob: Client,
}

fn scene(application: SocketAddr) -> Scene {
    // Has the pages that both sign in for: what applications say of themselves is nothing to those.
    let welcome = origin("welcome");
    let edge = edge()
        .service_with("iqueue", &welcome, "routes: [{path: /admin/, access: {roles: [admin]}}]")
        .service_with("dextor", &welcome, "access: {roles: [admin]}, routes: [{path: /open, access: required}]")
        .user("bob", &["iqueue", "dextor"], &[])
        .run();
    let signed_in = |user: &str| {
        let mut client = edge.client();
        client.sign_in(&edge.url("iqueue", "/open"), user, PASSWORD);
        client.follow(&edge.url("dextor", "/open"));
        client
    };
    let (ada, bob) = (signed_in("ada"), signed_in("bob"));
    edge.reload(|yaml| yaml.replace(&welcome.address.to_string(), &application.to_string()));
    Scene { edge, ada, bob }
}

impl Scene {
    fn ask(&self, client: &Client, service: &str, path: &str) -> Answer {
        let host = format!("{service}.test");
        let cookie = client.cookie(&host, TOKEN_COOKIE).unwrap();
        let sent = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: test/1\r\nCookie: {TOKEN_COOKIE}={cookie}\r\n\r\n"
        );
        raw(self.edge.address, &host).send(sent).answer().unwrap()
    }

    /// The handler that has run, if one has.
    fn handler(&self, client: &Client, service: &str, path: &str) -> Option<String> {
        Some(self.ask(client, service, path)).filter(|answer| answer.status == 200).map(|answer| answer.text())
    }
}

/// Bob has handlers run that are his, and no other, in both directions.
fn hold(name: &str, at: SocketAddr) {
    let scene = scene(at);
    let run = |client: &Client, service: &str, path: &str| scene.handler(client, service, path);
    for service in ["iqueue", "dextor"] {
        assert_eq!(run(&scene.ada, service, "/admin/users").as_deref(), Some("admin"), "{name}");
        assert_eq!(run(&scene.bob, service, "/open/x").as_deref(), Some("open"), "{name}");
        assert_eq!(scene.ask(&scene.bob, service, "/admin/users").status, 403, "{name}");
    }
    assert_eq!(run(&scene.bob, "iqueue", "/x").as_deref(), Some("other"), "{name}");
    let is_his =
        |service: &str, handler: &str| if service == "iqueue" { handler != "admin" } else { handler == "open" };
    let (mut sent, mut run_at_all, mut hits) = (0, 0, Vec::new());
    for (service, rule) in [("iqueue", "/admin"), ("dextor", "/open")] {
        for path in spellings(rule) {
            sent += 1;
            let Some(handler) = run(&scene.bob, service, &path) else { continue };
            run_at_all += 1;
            if !is_his(service, &handler) {
                hits.push(format!("{service} {path}: {handler}"));
            }
        }
    }
    println!("{name}: {sent} paths, {run_at_all} had a handler run, {} a guarded one", hits.len());
    assert!(sent >= 400 && run_at_all > 0, "{name}: {sent}, {run_at_all}");
    assert!(hits.is_empty(), "{name}: {} of {sent} run a guarded handler:\n{}", hits.len(), hits.join("\n"));
}

#[test]
fn no_spelling_runs_a_guarded_handler_of_node() {
    hold("Node", application("paths_node.cjs").address);
}

#[test]
fn no_spelling_runs_a_guarded_handler_of_express() {
    hold("Express", application("paths_express.cjs").address);
}

#[test]
fn no_spelling_runs_a_guarded_handler_of_flask() {
    hold("Flask", application("paths_flask.py").address);
}

#[test]
fn no_spelling_runs_a_guarded_handler_of_nginx_that_merges_no_slashes() {
    let handler = |name: &str| {
        format!("location = /{name} {{ return 200 {name}; }}\nlocation /{name}/ {{ return 200 {name}; }}\n")
    };
    let server =
        format!("merge_slashes off;\n{}{}location / {{ return 200 other; }}", handler("admin"), handler("open"));
    let nginx = Nginx::serving(&server);
    hold("nginx", nginx.address);
}
