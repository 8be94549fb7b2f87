//! Logs that nobody reads, that are closed, or whose disk is full: no request, no handshake, no signal and no end waits
//! for any of them, and what is lost is counted.

use std::fs::{File, OpenOptions};
use std::io::{PipeReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use crate::harness::daemon::Running;
use crate::harness::edge::{Builder, PASSWORD, metric};
use crate::harness::{Memcached, Origin, client, edge, eventually, free_address, memcached, origin};

/// What a test does with an edge must not wait longer than this, however busy the machine is.
const DEADLINE: Duration = crate::harness::DEADLINE;

/// Bytes that a pipe of Linux holds.
const PIPE: usize = 65_536;

/// What is wrong with the place that a log is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The pipe is full, and its reader is there.
    Blocked,
    /// The pipe has no reader.
    Closed,
    /// `/dev/full`.
    Full,
}

/// The place that is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Stdout,
    Stderr,
    /// One pipe for both.
    Both,
    AccessFile,
    AuditFile,
}

/// Standard output or error with a fault, and the pipe's other end.
fn stdio(fault: Fault) -> (Stdio, Option<PipeReader>) {
    if fault == Fault::Full {
        return (Stdio::from(OpenOptions::new().write(true).open("/dev/full").unwrap()), None);
    }
    let (reader, mut writer) = std::io::pipe().unwrap();
    if fault == Fault::Closed {
        return (Stdio::from(writer), None);
    }
    writer.write_all(&vec![b'\n'; PIPE]).unwrap();
    (Stdio::from(writer), Some(reader))
}

/// Makes a log file with a fault; what is answered keeps it so.
fn file(path: &Path, fault: Fault) -> Option<File> {
    if fault == Fault::Full {
        std::os::unix::fs::symlink("/dev/full", path).unwrap();
        return None;
    }
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    if fault == Fault::Closed {
        return None;
    }
    let mut both = OpenOptions::new().read(true).write(true).open(path).unwrap();
    both.write_all(&vec![b'\n'; PIPE]).unwrap();
    Some(both)
}

/// An edge whose outputs are not read, on ports that are known beforehand.
struct Unheard {
    process: Running,
    https: SocketAddr,
    admin: SocketAddr,
    folder: tempfile::TempDir,
    _held: Option<File>,
    _pipe: Option<PipeReader>,
}

fn start(builder: Builder, place: Place, fault: Fault) -> Unheard {
    let (folder, config) = builder.write();
    let (https, admin) = (free_address(), free_address());
    let mut yaml = std::fs::read_to_string(&config).unwrap().replace("level: warn", "level: info");
    for address in [https, free_address(), admin] {
        yaml = yaml.replacen("127.0.0.1:0", &address.to_string(), 1);
    }
    std::fs::write(&config, yaml).unwrap();
    let (stdout, stderr, pipe) = match place {
        Place::Stdout => {
            let (stdout, pipe) = stdio(fault);
            (stdout, Stdio::null(), pipe)
        }
        Place::Stderr => {
            let (stderr, pipe) = stdio(fault);
            (Stdio::null(), stderr, pipe)
        }
        Place::Both => {
            let (reader, mut writer) = std::io::pipe().unwrap();
            let also = writer.try_clone().unwrap();
            if fault == Fault::Blocked {
                writer.write_all(&vec![b'\n'; PIPE]).unwrap();
            }
            (Stdio::from(writer), Stdio::from(also), (fault == Fault::Blocked).then_some(reader))
        }
        Place::AccessFile | Place::AuditFile => (Stdio::null(), Stdio::null(), None),
    };
    let held = match place {
        Place::AccessFile => file(&folder.path().join("access.log"), fault),
        Place::AuditFile => file(&folder.path().join("audit.log"), fault),
        _ => None,
    };
    let child = Command::new(env!("CARGO_BIN_EXE_sentry-edge"))
        .args(["run", "-c", config.to_str().unwrap()])
        .env("RUNTIME_DIRECTORY", folder.path())
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .unwrap();
    let unheard = Unheard { process: Running::unheard(child), https, admin, folder, _held: held, _pipe: pipe };
    eventually("it serves", || TcpStream::connect(unheard.admin).is_ok());
    unheard
}

/// What `work` answers, on a thread of its own.
fn in_time<T: Send + 'static>(what: String, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, answer) = sync_channel(1);
    std::thread::spawn(move || done.send(work()));
    answer.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("it waits: {what}"))
}

impl Unheard {
    fn metric(&self, name: &str, labels: &str) -> f64 {
        let admin = self.admin;
        let scrape = in_time("metrics".into(), move || client(admin).get("http://admin.test/metrics").body);
        metric(&scrape, name, labels)
    }

    fn lost(&self, log: &str) -> (f64, f64) {
        let label = format!("log=\"{log}\"");
        (
            self.metric("sentry_edge_log_write_errors_total", &label),
            self.metric("sentry_edge_log_lines_dropped_total", &label),
        )
    }

    /// Requests on connections of their own, several at once.
    fn load(&self, what: &str) {
        let (https, port) = (self.https, self.https.port());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(move || {
                    let mut client = client(https);
                    (0..25).for_each(|_| drop(client.get(&format!("https://iqueue.test:{port}/"))));
                })
            })
            .collect();
        in_time(format!("requests, {what}"), move || threads.into_iter().for_each(|thread| thread.join().unwrap()));
    }
}

/// Everything that an edge does, with a log that takes nothing.
fn goes_on(place: Place, fault: Fault, origin: &Origin) {
    let what = format!("{place:?} {fault:?}");
    let mut store: Memcached = memcached();
    let builder = edge().service("iqueue", origin).memcached_within(&store.address(), "200ms");
    let builder = match place {
        Place::Stdout | Place::Both => builder.log("{level: info}"),
        Place::Stderr => builder.log("{level: info, access: {format: off}, audit: {format: off}}"),
        _ => builder,
    };
    let mut edge = start(builder, place, fault);
    let (https, url) = (edge.https, format!("https://iqueue.test:{}/", edge.https.port()));
    let mut person = in_time(format!("a login, {what}"), move || {
        let mut person = client(https);
        let hops = person.sign_in(&url, "ada", PASSWORD);
        assert_eq!(hops.last().unwrap().status, 200);
        person
    });
    edge.load(&what);
    // So that the process log has something to say.
    store.kill();
    let url = format!("https://iqueue.test:{}/", edge.https.port());
    for _ in 0..3 {
        let url = url.clone();
        person = in_time(format!("a request without the store, {what}"), move || {
            person.open(&url);
            person
        });
    }
    edge.load(&what);
    let admin = edge.admin;
    in_time(format!("readyz, {what}"), move || client(admin).get("http://admin.test/readyz").status);
    let reloads = edge.metric("sentry_edge_config_reloads_total", "result=\"ok\"");
    edge.process.signal("USR1");
    edge.process.signal("HUP");
    eventually(&format!("the configuration is read again, {what}"), || {
        edge.metric("sentry_edge_config_reloads_total", "result=\"ok\"") > reloads
    });
    let logs: &[&str] = match place {
        Place::Stdout => &["access-log", "audit-log"],
        Place::Stderr => &["process-log"],
        Place::Both => &["access-log", "audit-log", "process-log"],
        Place::AccessFile => &["access-log"],
        Place::AuditFile => &["audit-log"],
    };
    // What a pipe without a reader holds, it may still pass on: nothing is lost there yet.
    let is_file = matches!(place, Place::AccessFile | Place::AuditFile);
    if fault == Fault::Full || (fault == Fault::Closed && !is_file) {
        for log in logs {
            eventually(&format!("what {log} loses is counted, {what}"), || {
                let (errors, dropped) = edge.lost(log);
                errors >= 1.0 && dropped >= 1.0
            });
        }
    }
    edge.load(&what);
    edge.process.signal("TERM");
    assert_eq!(edge.process.end().code(), Some(0), "{what}");
}

#[test]
fn nothing_waits_for_standard_output() {
    let app = origin("app");
    [Fault::Blocked, Fault::Closed, Fault::Full].iter().for_each(|fault| goes_on(Place::Stdout, *fault, &app));
}

#[test]
fn nothing_waits_for_standard_error() {
    let app = origin("app");
    [Fault::Blocked, Fault::Closed, Fault::Full].iter().for_each(|fault| goes_on(Place::Stderr, *fault, &app));
}

#[test]
fn nothing_waits_for_a_pipe_that_is_both() {
    let app = origin("app");
    [Fault::Blocked, Fault::Closed].iter().for_each(|fault| goes_on(Place::Both, *fault, &app));
}

#[test]
fn nothing_waits_for_the_access_log() {
    let app = origin("app");
    [Fault::Blocked, Fault::Closed, Fault::Full].iter().for_each(|fault| goes_on(Place::AccessFile, *fault, &app));
}

#[test]
fn nothing_waits_for_the_audit_log() {
    let app = origin("app");
    [Fault::Blocked, Fault::Closed, Fault::Full].iter().for_each(|fault| goes_on(Place::AuditFile, *fault, &app));
}

#[test]
fn a_full_disk_is_said_once_when_it_begins_and_once_when_it_is_over() {
    let app = origin("app");
    let daemon = edge()
        .service_with("iqueue", &app, "access: public")
        .run_in(|folder| std::os::unix::fs::symlink("/dev/full", folder.join("access.log")).unwrap());
    let told = |what: &str| daemon.process.stderr().lines().filter(|line| line.contains(what)).count();
    let dropped = || daemon.metric("sentry_edge_log_lines_dropped_total", "log=\"access-log\"");
    let mut client = daemon.client();
    for lines in 1..=5 {
        client.get(&daemon.url("iqueue", "/"));
        eventually("the line is counted", || dropped() >= f64::from(lines));
    }
    eventually("it is said", || told("access-log: lines are lost: No space left on device") == 1);
    let log = daemon.folder.path().join("access.log");
    std::fs::remove_file(&log).unwrap();
    daemon.process.signal("USR1");
    eventually("there is a file", || log.exists());
    eventually("it is said that it is over", || {
        client.get(&daemon.url("iqueue", "/"));
        told("access-log: lines are written again; 5 were lost") == 1
    });
    assert_eq!(told("access-log: lines are"), 2, "{}", daemon.process.stderr());
    let lines = std::fs::read_to_string(&log).unwrap();
    assert!(lines.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{lines}");
}

#[test]
fn what_the_process_log_loses_is_said_in_the_audit_log() {
    let app = origin("app");
    let edge = start(edge().service("iqueue", &app), Place::Stderr, Fault::Full);
    let audit = crate::harness::edge::log_lines(&edge.folder.path().join("audit.log"), 1);
    assert_eq!((&audit[0]["event"], &audit[0]["log"]), (&"log_failed".into(), &"process-log".into()), "{audit:?}");
}

/// A pipe that is not read stands for a disk that is slow: the line may be written at some time, and no login waits for it.
#[test]
fn a_login_waits_for_its_line_for_a_while_and_is_refused_then() {
    let app = origin("app");
    let log = "{level: info, access: {path: access.log}, audit: {path: audit.log, on_write_error: refuse_logins}}";
    for fault in [Fault::Blocked, Fault::Full] {
        let edge = start(edge().service("iqueue", &app).log(log), Place::AuditFile, fault);
        let (https, url) = (edge.https, format!("https://iqueue.test:{}/", edge.https.port()));
        let refused = in_time(format!("a login, {fault:?}"), move || {
            let mut person = client(https);
            let form = person.follow(&url).pop().unwrap();
            person.fill_in(&form, "ada", PASSWORD)
        });
        assert_eq!(refused.status, 503, "{fault:?}: {}", refused.body);
        assert!(refused.body.contains("could not be recorded"), "{fault:?}: {}", refused.body);
        assert_eq!(edge.metric("sentry_edge_logins_total", "result=\"unrecorded\""), 1.0, "{fault:?}");
    }
}

#[test]
fn a_reader_that_comes_back_gets_whole_lines_and_every_one() {
    let app = origin("app");
    let builder = edge().service_with("iqueue", &app, "access: public").log("{level: info}");
    let mut edge = start(builder, Place::Both, Fault::Blocked);
    edge.load("blocked");
    let mut pipe = edge._pipe.take().unwrap();
    let gathered = std::thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    });
    edge.process.signal("TERM");
    assert_eq!(edge.process.end().code(), Some(0));
    let text = in_time("the pipe has an end".into(), move || gathered.join().unwrap());
    let lines = text.lines().filter(|line| !line.is_empty());
    let (access, process): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with('{'));
    assert_eq!(access.len(), 100);
    assert!(access.iter().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    assert!(process.iter().all(|line| line.contains(" INFO ") || line.contains(" WARN ")), "{process:?}");
    assert!(process.last().unwrap().contains("stopped; 0 requests"), "{process:?}");
}

#[test]
fn a_start_that_fails_ends_though_nobody_reads_why() {
    let app = origin("app");
    let (folder, config) = edge().service("iqueue", &app).write();
    std::fs::remove_file(folder.path().join("users.db")).unwrap();
    let (stderr, _pipe) = stdio(Fault::Blocked);
    let child = Command::new(env!("CARGO_BIN_EXE_sentry-edge"))
        .args(["run", "-c", config.to_str().unwrap()])
        .env("RUNTIME_DIRECTORY", folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .unwrap();
    assert_eq!(Running::unheard(child).end().code(), Some(1));
}
