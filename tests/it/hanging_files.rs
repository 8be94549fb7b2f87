//! A file that does not answer, as on a file server that hangs: a named pipe without a writer stands in its place. It
//! holds up what reads it and nothing else: a start ends at a signal, and an edge that reads its files again serves,
//! hears signals and drains.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::harness::daemon::Running;
use crate::harness::edge::{Builder, HMAC_KEY};
use crate::harness::{Connection, Daemon, Origin, edge, eventually, origin, write_private};

/// What a start reads. `users.db` is not among them: SQLite takes no pipe, and says so at once.
const FILES: [&str; 7] =
    ["edge.yaml", "edge.pem", "edge.key", "hmac.secret", "admin.token", "tickets.secret", "logo.png"];

/// From `O_NONBLOCK` of Linux (x86 and ARM): a pipe without a reader cannot be opened for writing so.
const AT_ONCE: i32 = 0o4000;

fn names_all_files(app: &Origin) -> Builder {
    edge()
        .service_with("iqueue", app, "access: public")
        .keys("[{id: main, algorithm: HS256, secret: {file: hmac.secret}}]")
        .file("hmac.secret", HMAC_KEY)
        .admin("token: {file: admin.token}")
        .file("admin.token", "an-admin-token-of-more-than-32-bytes")
        .tls("tickets: {secret: {file: tickets.secret}}")
        .file("tickets.secret", "a-secret-for-tickets-of-more-than-32-bytes")
        .sentry("login: {logo: logo.png}")
        .file("logo.png", "a picture")
        .log("{level: info, access: {path: access.log}, audit: {path: audit.log}}")
}

fn replace_with_pipe(path: &Path) {
    std::fs::remove_file(path).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Waits until the pipe is being read. While the answer is held its reader has nothing to read, and no end.
fn hold(pipe: &Path) -> File {
    let mut held = None;
    eventually("the file is being read", || {
        held = OpenOptions::new().write(true).custom_flags(AT_ONCE).open(pipe).ok();
        held.is_some()
    });
    held.unwrap()
}

fn logged(process: &Running, what: &str) -> bool {
    process.stderr().contains(what)
}

#[test]
fn a_start_that_waits_for_a_file_ends_at_a_signal() {
    let app = origin("app");
    for file in FILES {
        for (name, expected) in [("TERM", "before it served"), ("QUIT", "before it served"), ("INT", "at once")] {
            let (folder, config) = names_all_files(&app).write();
            replace_with_pipe(&folder.path().join(file));
            let mut process = Running::start(&["run", "-c", config.to_str().unwrap()]);
            let _held = hold(&folder.path().join(file));
            process.signal(name);
            let expected = format!("SIG{name}: stopped {expected}");
            eventually(&format!("{file}, SIG{name}: {expected}"), || logged(&process, &expected));
            assert_eq!(process.end().code(), Some(0), "{file}, SIG{name}: {}", process.stderr());
        }
    }
}

/// Asks for what the edge answers itself.
fn serves(daemon: &Daemon) -> bool {
    let answer = Connection::open(daemon.address, "sentry.test").unwrap().get("sentry.test", "/.well-known/jwks.json");
    answer.is_ok_and(|(status, _)| status == 200)
}

#[test]
fn a_reload_that_waits_for_a_file_holds_up_no_request_no_signal_and_no_drain() {
    for file in FILES {
        let app = Origin::held();
        let mut daemon = names_all_files(&app).run_with(|yaml| yaml.replace("drain: 5s", "drain: 1h"));
        let mut connection = Connection::open(daemon.address, "iqueue.test").unwrap();
        let in_flight = std::thread::spawn(move || connection.get("iqueue.test", "/").map(|(status, _)| status).ok());
        eventually("the request is at the application", || app.count() == 1);
        let path = daemon.folder.path().join(file);
        replace_with_pipe(&path);
        daemon.process.signal("HUP");
        let _held = hold(&path);
        assert!(serves(&daemon), "{file}");
        daemon.process.signal("USR2");
        eventually(&format!("{file}: signals are heard"), || logged(&daemon.process, "SIGUSR2: "));
        daemon.process.signal("TERM");
        eventually(&format!("{file}: it drains"), || daemon.admin("/readyz").status == 503);
        app.release();
        assert_eq!(in_flight.join().unwrap(), Some(200), "{file}");
        assert_eq!(daemon.process.end().code(), Some(0), "{file}: {}", daemon.process.stderr());
        assert!(logged(&daemon.process, "stopped; 0 requests were cut off"), "{file}: {}", daemon.process.stderr());
    }
}

#[test]
fn a_reload_that_waited_ends_with_its_file_and_the_next_one_is_not_lost() {
    let app = origin("app");
    let daemon = names_all_files(&app).run();
    let reloads = |result| daemon.metric("sentry_edge_config_reloads_total", &format!("result=\"{result}\""));
    let yaml = std::fs::read_to_string(&daemon.file).unwrap();
    replace_with_pipe(&daemon.file);
    daemon.process.signal("HUP");
    let held = hold(&daemon.file);
    // What the first one waits for is not there any more; the second one finds a file.
    std::fs::remove_file(&daemon.file).unwrap();
    write_private(&daemon.file, yaml);
    daemon.process.signal("HUP");
    assert!(serves(&daemon));
    assert_eq!((reloads("ok"), reloads("refused")), (0.0, 0.0), "neither has ended");
    drop(held);
    eventually("an empty file is refused", || reloads("refused") == 1.0);
    eventually("and the file in its place is taken up", || reloads("ok") == 1.0);
}
