//! Commands beside an edge that hangs, is busy or is none, and what they believe of its answers.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::harness::process::{sentry_edge, text};
use crate::harness::{Edge, Origin, edge, eventually, origin};

/// A process at the place of an edge's control socket: `reply` is what it sends for each request, by its line, and `None`
/// that it never answers. It is gone with the test's process.
fn socket(folder: &Path, reply: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Arc<AtomicUsize> {
    let listener = UnixListener::bind(folder.join("control.sock")).unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let reply = Arc::new(reply);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (reply, counted) = (Arc::clone(&reply), Arc::clone(&counted));
            std::thread::spawn(move || serve(stream.unwrap(), &*reply, &counted));
        }
    });
    calls
}

fn serve(mut stream: UnixStream, reply: &impl Fn(&str) -> Option<String>, calls: &AtomicUsize) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0) {
        head.push(byte[0]);
    }
    let head = text(&head);
    calls.fetch_add(usize::from(head.contains("/api/")), Ordering::SeqCst);
    match reply(&head) {
        // The command may have gone.
        Some(reply) => drop(stream.write_all(reply.as_bytes())),
        // Until the command goes.
        None => drop(stream.read_to_end(&mut Vec::new())),
    }
}

fn response(status: u16, body: &str) -> Option<String> {
    Some(format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

fn alive(head: &str) -> bool {
    head.starts_with("GET /livez ")
}

fn told(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = sentry_edge(arguments);
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// An edge without a control socket: commands meet at its place what a test puts there.
fn beside() -> (Edge, String, Origin) {
    let app = origin("app");
    let edge = edge().service("iqueue", &app).user("bob", &["iqueue"], &[]).start();
    let file = edge.folder.path().join("edge.yaml").to_str().unwrap().to_owned();
    (edge, file, app)
}

#[test]
fn sessions_end_without_the_edge_that_hangs_or_refuses_the_call_for_now() {
    let alive_all_the_same = || response(200, "alive");
    for (why, alive_or_not, refusal, made) in [
        ("its edge does not answer", None, None, 0),
        ("too many other calls", alive_all_the_same(), response(429, r#"{"message":"too many other calls"}"#), 1),
        ("no answer", alive_all_the_same(), response(503, r#"{"message":"no answer"}"#), 1),
        ("the edge sent no complete response", alive_all_the_same(), Some(String::new()), 1),
    ] {
        let (edge, file, _app) = beside();
        let mut browser = edge.client();
        edge.sign_in(&mut browser, "iqueue", "bob");
        let calls = socket(edge.folder.path(), move |head| match alive(head) {
            true => alive_or_not.clone(),
            false => refusal.clone(),
        });
        let (status, stdout, stderr) = told(&["session", "end", "--all", "-c", &file]);
        assert_eq!((status, stdout.as_str()), (Some(0), "all sessions end within 20ms\n"), "{why}: {stderr}");
        let said = format!("{why}; the user directory is changed without the edge\n");
        assert!(stderr.contains(&said), "{why}: {stderr}");
        assert_eq!(calls.load(Ordering::SeqCst), made, "{why}");
        eventually("the directory has it", || browser.open(&edge.url("iqueue", "/")).status != 200);
    }
}

#[test]
fn a_command_without_another_way_makes_its_call_again_when_the_edge_is_busy() {
    let (edge, file, _app) = beside();
    let turn = AtomicUsize::new(0);
    let calls = socket(edge.folder.path(), move |_| match turn.fetch_add(1, Ordering::SeqCst) {
        0 => response(429, r#"{"message":"too many other calls"}"#),
        _ => response(200, r#"{"reloaded":true,"hash":"abc"}"#),
    });
    let (status, stdout, stderr) = told(&["reload", "-c", &file]);
    assert!(status == Some(0) && stdout.ends_with("configuration reloaded hash=abc\n"), "{stdout}{stderr}");
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[test]
fn no_text_of_a_reply_sends_control_sequences_to_the_terminal() {
    let (edge, file, _app) = beside();
    let odd = "\\u001b[2J\\u0007\u{9b}";
    socket(edge.folder.path(), move |head| match head.starts_with("GET /api/pools") {
        true => response(200, &format!(r#"{{"pools":[{{"name":"{odd}","servers":[{{"address":"{odd}"}}]}}]}}"#)),
        false => response(422, &format!(r#"{{"message":"{odd}","faults":[{{"text":"{odd}"}}]}}"#)),
    });
    for arguments in
        [&["pool", "list"][..], &["pool", "list", "--json"], &["reload"], &["reload", "--json"], &["session", "list"]]
    {
        let (_, stdout, stderr) = told(&[arguments, &["-c", &file]].concat());
        let said = format!("{stdout}{stderr}");
        let is_plain = said.chars().all(|c| c == '\n' || !c.is_control());
        assert!(is_plain && said.contains("u{1b}"), "{arguments:?}: {said:?}");
    }
}

#[test]
fn a_command_for_another_configuration_is_refused_in_the_name_of_its_caller() {
    let daemon = edge().service("iqueue", &origin("app")).run();
    let socket = daemon.folder.path().join("control.sock");
    let mut stream = UnixStream::connect(socket).unwrap();
    let head = "GET /api/status HTTP/1.1\r\nHost: x\r\nX-Sentry-Edge-Configuration: another\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    assert!(text(&reply).starts_with("HTTP/1.1 421 "), "{}", text(&reply));
    let line: Value = daemon.log("audit.log", 1).pop().unwrap();
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
    assert_eq!(
        (line["reason"].as_str(), line["actor"].as_str()),
        (Some("wrong_configuration"), Some(&*format!("uid:{uid}")))
    );
}

#[test]
fn ordinary_changes_of_the_directory_are_not_taken_for_another_directory() {
    let app = origin("app");
    let daemon = edge().service("iqueue", &app).user("bob", &["iqueue"], &[]).run();
    let file = daemon.file.to_str().unwrap();
    let mut browser = daemon.client();
    let sign_in = |browser: &mut crate::harness::Client| {
        browser.sign_in(&daemon.url("iqueue", "/"), "bob", crate::harness::edge::PASSWORD).pop().unwrap().status == 200
    };
    for arguments in [
        &["session", "end", "--all"][..],
        &["user", "disable", "bob"],
        &["session", "end", "--user", "bob"],
        &["session", "end", "--all"],
        // The edge learns this from the directory alone, and so has read what was before it.
        &["user", "disable", "bob"],
    ] {
        eventually("a login", || sign_in(&mut browser));
        let (status, _, stderr) = told(&[arguments, &["-c", file]].concat());
        assert_eq!(status, Some(0), "{arguments:?}: {stderr}");
        eventually("the edge has it", || browser.open(&daemon.url("iqueue", "/")).status != 200);
        if arguments[1] == "disable" {
            assert_eq!(told(&["user", "enable", "bob", "-c", file]).0, Some(0));
        }
    }
    let log = daemon.process.stderr();
    assert!(!log.contains("replaced by another"), "{log}");
}

#[test]
fn a_server_that_is_ejected_is_listed_with_the_end_of_it_and_the_reason() {
    let app = origin("app");
    let pool =
        format!("{{servers: [\"127.0.0.1:1\", \"{}\"], eject: {{failures: 1, for: 1h, at_most: 1h}}}}", app.address);
    let daemon = edge().service_with("iqueue", &app, "access: public").pool("iqueue", &pool).run();
    let list = |arguments: &[&str]| {
        let (status, stdout, stderr) =
            told(&[&["pool", "list", "-c", daemon.file.to_str().unwrap()], arguments].concat());
        assert_eq!(status, Some(0), "{stderr}");
        stdout
    };
    let servers = || -> Value {
        let pools: Value = serde_json::from_str(&list(&["--json"])).unwrap();
        pools["pools"][0]["servers"].clone()
    };
    eventually("it is ejected", || {
        let mut connection = crate::harness::Connection::open(daemon.address, "iqueue.test").unwrap();
        assert_eq!(connection.get("iqueue.test", "/").unwrap().0, 200);
        servers()[0]["ejected_until"].is_string()
    });
    let (servers, now) = (servers(), sentry_edge::clock::Clock::default().now());
    let until = servers[0]["ejected_until"].as_str().unwrap();
    assert!(until > &*now.rfc3339(), "{until}");
    let failure = &servers[0]["last_failure"];
    assert!(failure["reason"].is_string() && failure["at"].as_str().unwrap() < until, "{failure}");
    assert_eq!((failure["address"].as_str(), servers[0]["state"].as_str()), (Some("127.0.0.1:1"), Some("active")));
    assert!(servers[1]["ejected_until"].is_null() && servers[1]["last_failure"].is_null(), "{servers}");
    let line = list(&[]).lines().find(|line| line.contains("127.0.0.1:1 ")).unwrap().to_owned();
    assert!(line.contains(", ejected until 2") && line.contains(", last failure "), "{line}");
}
