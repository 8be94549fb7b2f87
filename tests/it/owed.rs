//! Logouts that a session server has missed: they are reported, kept as hints in a file, and delivered by the next process
//! or before the process ends.

use std::time::Duration;

use crate::harness::edge::Builder;
use crate::harness::{Edge, Memcached, Origin, edge, eventually, eventually_or, memcached};

const OWED: &str = "sentry_edge_session_store_tombstones_owed";

fn on(origin: &Origin, servers: &[&Memcached]) -> Builder {
    let servers: Vec<String> = servers.iter().map(|server| format!("\"{}\"", server.address())).collect();
    let servers = servers.join(", ");
    edge()
        .service("iqueue", origin)
        .balanced()
        .sessions(&format!("{{store: memcached, memcached: {{servers: [{servers}], copies: 2, timeout: 400ms}}}}"))
}

/// Files that say what is owed; `.json` of a list, `.damaged` of one that could not be read.
fn files(edge: &Edge, ending: &str) -> Vec<std::path::PathBuf> {
    let names = std::fs::read_dir(edge.folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let is_ours = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("session-ends-") && name.ends_with(ending)
    };
    names.filter(is_ours).collect()
}

fn lives_on(server: &Memcached) -> bool {
    server.session_records().iter().any(|record| !record.starts_with("1 ended"))
}

#[test]
fn a_logout_that_a_server_has_not_heard_of_outlives_the_process() {
    let origin = Origin::answering(|_| hyper::Response::new("app".into()));
    let (one, two) = (memcached(), memcached());
    let mut edge = on(&origin, &[&one, &two]).start();
    let mut browser = edge.signed_in();
    let mut kept = browser.clone();
    eventually("both servers have a copy", || lives_on(&one) && lives_on(&two));
    one.freeze();
    let out = browser.sign_out(&edge.url("iqueue", "/.sentry/logout"));
    assert!(out.body.contains("Your session has ended in every application"), "{}", out.body);
    let label = format!("server=\"{}\"", one.address());
    assert!(edge.metric("sentry_edge_session_store_unheard_ends_total", &label) >= 1.0, "it is counted");
    eventually("it is in a file", || files(&edge, ".json").len() == 1);

    // The next process; and what the other server has heard is lost.
    edge.restart();
    eventually("the next process has taken it over", || edge.metric(OWED, "") == 1.0);
    two.tell("flush_all");
    one.thaw();
    kept.move_to(edge.address());
    for _ in 0..20 {
        let page = kept.clone().open(&edge.url("iqueue", "/"));
        assert!([302, 503].contains(&page.status), "the session is back: {} {}", page.status, page.body);
        std::thread::sleep(Duration::from_millis(20));
    }
    eventually("the server has heard", || edge.metric(OWED, "") == 0.0 && !lives_on(&one));
    eventually("no hint is left", || files(&edge, ".json").is_empty());
    eventually("all is as it should be", || kept.clone().open(&edge.url("iqueue", "/")).status == 302);
}

#[test]
fn a_stop_waits_within_the_drain_for_a_server_to_hear_of_a_logout() {
    let origin = Origin::answering(|_| hyper::Response::new("app".into()));
    let (one, two) = (memcached(), memcached());
    let mut edge = on(&origin, &[&one, &two]).start();
    edge.reload_with(|yaml| yaml.replace("drain: 5s", "drain: 60s"));
    let mut browser = edge.signed_in();
    eventually("both servers have a copy", || lives_on(&one) && lives_on(&two));
    one.freeze();
    browser.sign_out(&edge.url("iqueue", "/.sentry/logout"));
    let folder = std::sync::Arc::clone(&edge.folder);
    let stopping = std::thread::spawn(move || edge.inner.shutdown_gracefully(std::future::pending()));
    // Longer than an edge takes that has nothing to wait for.
    std::thread::sleep(Duration::from_secs(2));
    assert!(!stopping.is_finished(), "it has something to tell");
    one.thaw();
    eventually("it ends when the hint is delivered", || stopping.is_finished());
    assert_eq!(stopping.join().unwrap(), 0);
    assert!(!lives_on(&one), "{:?}", one.session_records());
    let left = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_str().unwrap().starts_with("session-ends-")));
}

#[test]
fn a_damaged_list_of_what_is_owed_is_said_and_set_aside() {
    let origin = Origin::answering(|_| hyper::Response::new("app".into()));
    let (one, two) = (memcached(), memcached());
    let mut edge = on(&origin, &[&one, &two]).start();
    let mut browser = edge.signed_in();
    eventually("both servers have a copy", || lives_on(&one) && lives_on(&two));
    one.freeze();
    browser.sign_out(&edge.url("iqueue", "/.sentry/logout"));
    eventually("it is in a file", || files(&edge, ".json").len() == 1);
    let name = files(&edge, ".json").remove(0).file_name().unwrap().to_str().unwrap().to_owned();
    let stray = edge.folder.path().join(name.rsplit_once('-').unwrap().0.to_owned() + "-stray.json");
    std::fs::write(&stray, "{\"ends\": [{").unwrap();
    edge.restart();
    eventually_or(
        || files(&edge, ".damaged") == [stray.with_extension("damaged")],
        || format!("{:?}", std::fs::read_dir(edge.folder.path()).unwrap().collect::<Vec<_>>()),
    );
    eventually("the good one is taken over", || edge.metric(OWED, "") == 1.0);
    one.thaw();
    eventually("and delivered", || edge.metric(OWED, "") == 0.0);
    let mut next = edge.client();
    assert_eq!(edge.sign_in(&mut next, "iqueue", "ada").last().unwrap().status, 200, "logins go on");
}
