//! Ends of sessions that not every store has heard of.

use std::net::SocketAddr;

use super::{Scene, scene_with};
use crate::harness::edge::TOKEN_COOKIE;
use crate::harness::tabs::Shown;
use crate::harness::{Fault, Faulty, Memcached, Running, Tabs, eventually, faulty, memcached, write_private};

/// One edge over two servers, and the paths to them.
struct Stores {
    scene: Scene,
    servers: [Memcached; 2],
    paths: [Faulty; 2],
}

fn stores(copies: usize) -> Stores {
    let servers = [memcached(), memcached()];
    let paths = servers.each_ref().map(faulty);
    let addresses = paths.each_ref().map(|path| format!("\"{}\"", path.address())).join(", ");
    let sessions =
        format!("{{store: memcached, memcached: {{servers: [{addresses}], copies: {copies}, timeout: 300ms}}}}");
    Stores { scene: scene_with(|edge| edge.sessions(&sessions).balanced()), servers, paths }
}

/// Another edge of the scene in a process of its own, so that nothing of it is left when it ends.
struct Process {
    address: SocketAddr,
    _process: Running,
}

impl Process {
    fn start(scene: &Scene) -> Self {
        let folder = scene.edge.folder.path();
        let file = folder.join("process.yaml");
        let yaml = std::fs::read_to_string(folder.join("edge.yaml")).unwrap();
        write_private(&file, yaml.replace("level: warn", "level: info"));
        let process = Running::start(&["run", "-c", file.to_str().unwrap()]);
        let mut address = None;
        eventually("the edge listens", || {
            let text = process.stderr();
            address = text.lines().find_map(|line| line.split_once("listening on https://")?.1.trim().parse().ok());
            address.is_some()
        });
        Self { address: address.unwrap(), _process: process }
    }
}

#[test]
fn what_a_logout_owes_to_a_silent_server_is_paid_by_the_edges_successor() {
    let Stores { scene, mut servers, paths } = stores(2);
    let owing = Process::start(&scene);
    let address = owing.address;
    let mut tabs = scene.tabs(1).balanced(move |_| address);
    tabs.visit_as(0, &scene.url("iqueue"), "ana");
    let copied = tabs.jar.clone();
    paths[0].set(Fault::Unheard);
    tabs.log_out(0);
    assert_eq!(tabs.shown(0), Shown::SignedOut);
    drop(owing);
    let successor = Process::start(&scene);
    servers[1].kill();
    servers[1].start();
    paths[0].set(Fault::None);
    let url = scene.url("iqueue");
    let status = || copied.clone().through(successor.address).open(&url).status;
    // For as long as the debt is unpaid, the only server that has the session says that it lives.
    eventually("the session is ended", || status() == 302);
    (0..5).for_each(|_| assert_eq!(status(), 302, "it stays so"));
}

#[test]
fn a_login_that_cannot_end_the_former_persons_session_is_not_accepted() {
    let Stores { scene, servers, paths } = stores(1);
    // Until her session lies on the server that falls silent.
    let mut tabs = loop {
        let mut tabs: Tabs = scene.tabs(2);
        tabs.visit(1, &scene.url("dextor"));
        let before = servers[0].keys("s:").len();
        tabs.visit_as(0, &scene.url("iqueue"), "ana");
        if servers[0].keys("s:").len() > before {
            break tabs;
        }
    };
    paths[0].set(Fault::Unheard);
    let mut told = Vec::new();
    for _ in 0..4 {
        if tabs.page(1).unwrap().response.body.contains("name=\"password\"") {
            told.push(tabs.sign_in(1, "ben"));
        }
    }
    paths[0].set(Fault::None);
    let after: Vec<_> = (0..5).map(|_| tabs.visit(0, &scene.url("iqueue"))).collect();
    if told.iter().any(|told| !told.contains(" · 503 ")) {
        assert!(!after.iter().any(|after| after.contains("served as ana")), "{told:?}, then {after:?}");
    }
    assert!(!told.iter().any(|told| told.contains("served as ana")), "{told:?}");
}

#[test]
fn a_copy_that_never_heard_of_the_end_redeems_no_ticket() {
    let Stores { scene, servers: _servers, paths } = stores(2);
    let owing = Process::start(&scene);
    let address = owing.address;
    let mut tabs = scene.tabs(2).balanced(move |_| address);
    tabs.visit_as(0, &scene.url("iqueue"), "ana");
    tabs.open(1, &scene.url("dextor"));
    while !tabs.address_under_way(1).contains("requestID=") {
        tabs.step(1);
    }
    let late = tabs.address_under_way(1);
    paths[1].set(Fault::Unheard);
    tabs.log_out(0);
    assert_eq!(tabs.shown(0), Shown::SignedOut);
    // The edge that owes the second server its tombstone is gone before that server is back.
    drop(owing);
    paths[1].set(Fault::None);
    let redeemed = tabs.jar.clone().through(scene.edge.address()).open(&late);
    let cookie = redeemed.set_cookie(TOKEN_COOKIE).filter(|cookie| !cookie.contains("Max-Age=0"));
    assert_eq!(cookie, None, "{}", redeemed.status);
}
