//! Upgrades: a new process takes the sockets over from the one that runs, under load, and without one request lost;
//! and whatever fails of that leaves the old process serving.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;

use crate::harness::client::connect;
use crate::harness::daemon::Running;
use crate::harness::edge::Builder;
use crate::harness::process::{self, sentry_edge, text};
use crate::harness::{
    Connection, Daemon, Raw, Streaming, edge, eventually, free_address, memcached, origin, raw, runtime, setting,
    streaming, write_private,
};

const HOST: &str = "iqueue.test";

/// An edge whose program is a link in its folder, and all processes that have taken over from it.
struct Upgradable {
    daemon: Daemon,
}

impl Upgradable {
    fn start(builder: Builder, edit: impl FnOnce(String) -> String) -> Self {
        Self { daemon: builder.run_linked(&[], edit) }
    }

    fn folder(&self) -> &Path {
        self.daemon.folder.path()
    }

    fn log(&self) -> String {
        self.daemon.process.stderr()
    }

    fn logged(&self, what: &str) -> usize {
        self.log().lines().filter(|line| line.contains(what)).count()
    }

    /// What the process that serves says of itself.
    fn status(&self) -> Value {
        let mut stream = UnixStream::connect(self.folder().join("control.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(b"GET /api/status HTTP/1.1\r\nHost: control\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    fn pid(&self) -> u32 {
        self.status()["pid"].as_u64().unwrap() as u32
    }

    fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// The processes that upgrades have started, in their order.
    fn started(&self) -> Vec<u32> {
        let pid = |line: &str| line.split_once("upgrade: started process ")?.1.split(':').next()?.parse().ok();
        self.log().lines().filter_map(pid).collect()
    }

    /// Upgrades, and waits until the new process alone accepts connections.
    fn upgrade(&self) {
        let (before, drains) = (self.pid(), self.logged("drain: the listeners close"));
        self.signal("USR2");
        crate::harness::eventually_or(|| self.logged("drain: the listeners close") > drains, || self.log());
        eventually("the new one alone answers", || (0..5).all(|_| self.pid() != before));
    }

    /// Another program takes the place of the one that the edge was started from.
    fn replace_program(&self, script: &str) {
        // By another process: a file that this one has open for writing cannot be executed, and a process that another
        // test starts at the moment has it open as well.
        write_private(self.folder().join("edge.new"), script);
        let arguments = ["-m", "755", "edge.new", "edge"];
        let installed = Command::new("install").args(arguments).current_dir(self.folder()).status().unwrap();
        assert!(installed.success());
    }

    fn restore_program(&self) {
        let link = self.folder().join("edge");
        std::fs::remove_file(&link).ok();
        std::os::unix::fs::symlink(process::BINARY, link).unwrap();
    }

    fn upgrades(&self, result: &str) -> f64 {
        self.daemon.metric("sentry_edge_upgrades_total", &format!("result=\"{result}\""))
    }
}

/// Whether a process has ended. Its entry may be there until its parent looks.
fn has_ended(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

impl Drop for Upgradable {
    fn drop(&mut self) {
        for pid in self.started() {
            let ours = |line: Vec<u8>| text(&line).contains(self.daemon.file.to_str().unwrap());
            if !has_ended(pid) && std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(ours) {
                Command::new("kill").args(["-9", &pid.to_string()]).status().ok();
            }
        }
    }
}

fn serving(app: &Streaming) -> Builder {
    let origin = origin("other");
    let pool = format!("{{servers: [\"{}\"]}}", app.address);
    edge().service_with("iqueue", &origin, "access: public").pool("iqueue", &pool)
}

/// What clients have seen.
#[derive(Default)]
struct Load {
    answered: AtomicUsize,
    failed: AtomicUsize,
    over: AtomicBool,
}

impl Load {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Returns whether it was answered.
    fn count(&self, kind: &str, outcome: Result<u16, String>) -> bool {
        let answered = outcome == Ok(200);
        match answered {
            true => self.answered.fetch_add(1, Ordering::Relaxed),
            false => self.failed.fetch_add(1, Ordering::Relaxed),
        };
        if !answered {
            println!("{kind}: {outcome:?}");
        }
        answered
    }

    /// Keeps a connection until a response says that it ends.
    fn keep_alive(&self, edge: SocketAddr) {
        let mut connection = None;
        while !self.is_over() {
            let mut open: Raw = connection.take().unwrap_or_else(|| raw(edge, HOST));
            open.send(format!("GET /page HTTP/1.1\r\nHost: {HOST}:{}\r\n\r\n", edge.port()));
            let answer = open.answer();
            let is_kept = answer.as_ref().is_some_and(|answer| answer.header("connection") != Some("close"));
            self.count("keep-alive", answer.map(|answer| answer.status).ok_or("closed unanswered".into()));
            connection = is_kept.then_some(open);
        }
    }

    /// Opens a connection for each request.
    fn new_connections(&self, edge: SocketAddr) {
        while !self.is_over() {
            let outcome = Connection::open(edge, HOST).map_err(|error| error.to_string());
            let outcome = outcome.and_then(|mut it| it.get(HOST, "/page").map_err(|error| error.to_string()));
            self.count("new connection", outcome.map(|(status, _)| status));
        }
    }

    /// Over one connection until that takes no more requests.
    fn http2(&self, edge: SocketAddr) {
        runtime().block_on(async {
            let mut connection: Option<SendRequest<Full<Bytes>>> = None;
            while !self.is_over() {
                let mut open = match connection.take() {
                    Some(open) => open,
                    None => match open_http2(edge).await {
                        Ok(open) => open,
                        Err(error) => {
                            self.count("HTTP/2", Err(error.to_string()));
                            continue;
                        }
                    },
                };
                // What a connection that is closing does not take was never sent.
                if open.ready().await.is_err() {
                    continue;
                }
                let request = Request::get(format!("https://{HOST}:{}/page", edge.port())).body(Full::default());
                let outcome = match open.send_request(request.unwrap()).await {
                    Err(error) if error.is_canceled() => continue,
                    Ok(response) => {
                        let status = response.status().as_u16();
                        let body = response.into_body().collect().await;
                        body.map(|_| status).map_err(|error| format!("{error:?}"))
                    }
                    Err(error) => Err(format!("{error:?}")),
                };
                if self.count("HTTP/2", outcome) {
                    connection = Some(open);
                }
            }
        });
    }
}

async fn open_http2(edge: SocketAddr) -> std::io::Result<SendRequest<Full<Bytes>>> {
    let io = TokioIo::new(connect(edge, HOST, &[b"h2"]).await?);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
    let (sender, connection) = handshake.map_err(std::io::Error::other)?;
    tokio::spawn(connection);
    Ok(sender)
}

/// A response and a WebSocket that are open while the process is replaced.
struct OpenStreams {
    events: Raw,
    websocket: Raw,
}

impl OpenStreams {
    fn open(edge: SocketAddr, app: &Streaming) -> Self {
        let host = format!("{HOST}:{}", edge.port());
        let (mut events, mut websocket) = (raw(edge, HOST), raw(edge, HOST));
        events.send(format!("GET /events HTTP/1.1\r\nHost: {host}\r\n\r\n")).hear("\r\n\r\n");
        websocket.send(format!(
            "GET /ws HTTP/1.1\r\nHost: {host}\r\nOrigin: https://{host}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ));
        websocket.hear("\r\n\r\n");
        eventually("both are open", || app.open() == 2);
        Self { events, websocket }
    }

    fn go_on(&mut self, app: &Streaming, words: &str) {
        app.say(words);
        self.events.hear(words);
        self.websocket.send(words).hear(words);
    }
}

/// `UPGRADES=10 RELOADS=100 REQUESTS=100000`, as `make upgrades` has it, or less for every run.
#[test]
fn an_upgrade_loses_no_request() {
    let app = streaming();
    let edge = Upgradable::start(serving(&app), |yaml| yaml.replace("drain: 5s", "drain: 60s"));
    let (address, file) = (edge.daemon.address, edge.daemon.file.to_str().unwrap());
    let [upgrades, reloads, requests] =
        [("UPGRADES", 3), ("RELOADS", 6), ("REQUESTS", 1_500)].map(|(name, default)| setting(name, default));
    let load = Load::default();
    let answered = |count: usize| {
        while load.answered.load(Ordering::Relaxed) < count {
            let before = load.answered.load(Ordering::Relaxed);
            eventually("requests are answered", || load.answered.load(Ordering::Relaxed) > before);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| load.keep_alive(address));
            scope.spawn(|| load.new_connections(address));
            scope.spawn(|| load.http2(address));
        }
        let replaced = || {
            for number in 0..upgrades {
                answered(requests * number / upgrades);
                let mut streams = OpenStreams::open(address, &app);
                let old = edge.pid();
                edge.upgrade();
                streams.go_on(&app, "after the upgrade");
                drop(streams);
                eventually("the old process has ended", || has_ended(old));
                for _ in 0..reloads / upgrades {
                    let output = sentry_edge(&["reload", "-c", file]);
                    assert!(output.status.success(), "{}", text(&output.stderr));
                }
            }
            answered(requests);
        };
        // A failed expectation ends the clients, for which the scope waits.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(replaced));
        load.over.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let (answered, failed) = (load.answered.into_inner(), load.failed.into_inner());
    println!("{upgrades} upgrades, {reloads} reloads: {failed} of {} requests failed", answered + failed);
    assert_eq!(failed, 0, "of {answered}: {}", edge.log());
    assert_eq!(edge.logged("stopped; 0 requests were cut off"), upgrades, "{}", edge.log());
    assert_eq!(edge.upgrades("ok"), upgrades as f64, "the count goes on from process to process");
    assert_eq!(edge.log().matches("ERROR").count(), 0, "{}", edge.log());
}

/// Connects as a successor does, and takes the sockets.
const TAKE_SOCKETS: &str = "#!/usr/bin/env python3
import json, os, signal, socket, time
channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
channel.connect(os.environ['SENTRY_EDGE_UPGRADE'])
def send(message): channel.send(json.dumps(message).encode())
def take():
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, 65536, 64)
        if 'ready' in json.loads(message): return
";

/// What is wrong with a successor: its program, an edit of the configuration, and what the old process says and counts.
struct Fault {
    name: &'static str,
    program: Option<String>,
    edit: fn(&Path, String) -> String,
    expected: &'static str,
    result: &'static str,
}

fn program(name: &'static str, script: String, expected: &'static str, result: &'static str) -> Fault {
    Fault { name, program: Some(script), edit: |_, yaml| yaml, expected, result }
}

fn configuration(
    name: &'static str,
    edit: fn(&Path, String) -> String,
    expected: &'static str,
    result: &'static str,
) -> Fault {
    Fault { name, program: None, edit, expected, result }
}

fn faults() -> Vec<Fault> {
    let python = |end: &str| format!("{TAKE_SOCKETS}{end}\n");
    let hello = "send({'hello': {'protocol': 1, 'version': 'x'}})";
    let ended = "the new process has ended (exit status: 1)";
    let late = "the new process does not serve within 1s";
    vec![
        configuration("a broken configuration", |_, _| "no: configuration\n".into(), ended, "failed"),
        configuration(
            "a missing certificate",
            |folder, yaml| {
                std::fs::rename(folder.join("edge.pem"), folder.join("edge.pem.away")).unwrap();
                yaml
            },
            ended,
            "failed",
        ),
        configuration(
            "a port that another process has",
            |folder, yaml| {
                let taken = std::fs::read_to_string(folder.join("taken")).unwrap();
                yaml.replace("listeners: [", &format!("listeners: [{{address: \"{taken}\", protocol: http}}, "))
            },
            ended,
            "failed",
        ),
        configuration(
            "a session store that does not answer",
            |_, yaml| {
                let away = "{store: memcached, memcached: {servers: [\"127.0.0.1:1\"]}, on_outage: deny}";
                yaml.replace("{store: memory}", away)
            },
            ended,
            "failed",
        ),
        program("no program", String::new(), "edge cannot be started", "failed"),
        program("an end at the start", "#!/bin/sh\nexit 3\n".into(), "ended (exit status: 3)", "failed"),
        program("a crash at the start", "#!/bin/sh\nkill -9 $$\n".into(), "ended (signal: 9", "failed"),
        program("a hang", "#!/bin/sh\nexec sleep 1000\n".into(), late, "timeout"),
        program("a process that is stopped", "#!/bin/sh\nkill -STOP $$\nsleep 1000\n".into(), late, "timeout"),
        program("a hang with the sockets", python(&format!("{hello}\ntake()\ntime.sleep(1000)")), late, "timeout"),
        program(
            "kill -9 during the hand-over",
            python(&format!("{hello}\ntake()\nos.kill(os.getpid(), signal.SIGKILL)")),
            "ended (signal: 9",
            "failed",
        ),
        program(
            "a connection that is closed",
            python(&format!("{hello}\ntake()\nchannel.close()\ntime.sleep(1000)")),
            "the new process has closed its connection",
            "failed",
        ),
        program(
            "other messages",
            python("send({'hello': {'protocol': 2, 'version': 'x'}})\ntime.sleep(1000)"),
            "the new process is of another kind",
            "failed",
        ),
        program("no messages", python("channel.send(b'GET /')\ntime.sleep(1000)"), "cannot be handed over", "failed"),
        program(
            "a serving one without sockets",
            python("send({'serving': {'has_control_socket': True}})\ntime.sleep(1000)"),
            "is of another kind",
            "failed",
        ),
    ]
}

#[test]
fn whatever_is_wrong_with_the_new_process_the_old_one_serves_on() {
    let app = streaming();
    let edge = Upgradable::start(serving(&app), |yaml| yaml);
    let (pid, folder) = (edge.pid(), edge.folder());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    std::fs::write(folder.join("taken"), taken.local_addr().unwrap().to_string()).unwrap();
    let mut streams = OpenStreams::open(edge.daemon.address, &app);
    let mut connection = Connection::open(edge.daemon.address, HOST).unwrap();
    // Those that take too long come last.
    let (late, others): (Vec<_>, Vec<_>) = faults().into_iter().partition(|fault| fault.result == "timeout");
    for (number, fault) in others.into_iter().chain(late).enumerate() {
        if fault.result == "timeout" && edge.upgrades("timeout") == 0.0 {
            edge.daemon.reload(|yaml| yaml.replace("drain: 5s", "drain: 5s, upgrade_timeout: 1s"));
        }
        let yaml = std::fs::read_to_string(&edge.daemon.file).unwrap();
        write_private(&edge.daemon.file, (fault.edit)(folder, yaml.clone()));
        match &fault.program {
            Some(script) if script.is_empty() => std::fs::remove_file(folder.join("edge")).unwrap(),
            Some(script) => edge.replace_program(script),
            None => {}
        }
        let (before, attempts) = (edge.upgrades(fault.result), edge.started().len());
        edge.signal("USR2");
        eventually(fault.name, || edge.logged("upgrade failed, this process serves on") == number + 1);
        let said = edge.log().lines().rfind(|line| line.contains("upgrade failed")).unwrap().to_owned();
        assert!(said.contains(fault.expected), "{}: {said}\n{}", fault.name, edge.log());
        eventually("it is counted", || edge.upgrades(fault.result) == before + 1.0);
        assert_eq!(edge.pid(), pid, "{}", fault.name);
        for pid in &edge.started()[attempts..] {
            assert!(has_ended(*pid), "{}: {pid} has not ended", fault.name);
        }
        assert!(!folder.join("upgrade.sock").exists(), "{}", fault.name);
        assert_eq!(connection.get(HOST, "/page").unwrap().0, 200, "{}", fault.name);
        streams.go_on(&app, fault.name);
        assert_eq!(edge.daemon.admin("/readyz").status, 200, "{}", fault.name);
        std::fs::rename(folder.join("edge.pem.away"), folder.join("edge.pem")).ok();
        write_private(&edge.daemon.file, yaml);
        edge.restore_program();
    }
    drop(streams);
    edge.daemon.reload(|yaml| yaml.replace("upgrade_timeout: 1s", "upgrade_timeout: 60s"));
    edge.upgrade();
    assert_eq!(Connection::open(edge.daemon.address, HOST).unwrap().get(HOST, "/page").unwrap().0, 200);
    assert_eq!((edge.upgrades("ok"), edge.upgrades("timeout")), (1.0, 3.0));
}

/// A program that waits for a file before it goes on.
fn waiting_program() -> String {
    format!("#!/bin/sh\nuntil [ -e \"$(dirname \"$0\")/go\" ]; do sleep 0.02; done\nexec {} \"$@\"\n", process::BINARY)
}

#[test]
fn while_an_upgrade_is_under_way_there_is_no_other_and_no_reload() {
    let app = streaming();
    let edge = Upgradable::start(serving(&app), |yaml| yaml);
    let old = edge.pid();
    edge.replace_program(&waiting_program());
    edge.signal("USR2");
    eventually("it is under way", || edge.started().len() == 1);
    edge.signal("USR2");
    eventually("the second one is refused", || edge.logged("SIGUSR2: no upgrade: another one is under way") == 1);
    edge.signal("HUP");
    eventually("the reload is refused", || edge.logged("SIGHUP: no reload: an upgrade is under way") == 1);
    let reload = sentry_edge(&["reload", "-c", edge.daemon.file.to_str().unwrap()]);
    assert_eq!(reload.status.code(), Some(1));
    assert!(text(&reload.stderr).contains("an upgrade is under way"), "{}", text(&reload.stderr));
    assert_eq!(edge.upgrades("refused"), 1.0);
    std::fs::write(edge.folder().join("go"), "").unwrap();
    eventually("the new process serves", || edge.pid() != old);
    assert_eq!((edge.upgrades("ok"), edge.upgrades("refused")), (1.0, 1.0));
    let reload = sentry_edge(&["reload", "-c", edge.daemon.file.to_str().unwrap()]);
    assert!(reload.status.success(), "{}", text(&reload.stderr));
}

#[test]
fn a_process_that_ends_is_replaced_by_none() {
    let app = streaming();
    for name in ["TERM", "INT"] {
        let mut edge = Upgradable::start(serving(&app), |yaml| yaml);
        edge.replace_program(&waiting_program());
        edge.signal("USR2");
        eventually("it is under way", || edge.started().len() == 1);
        edge.signal(name);
        assert_eq!(edge.daemon.process.end().code(), Some(0), "SIG{name}: {}", edge.log());
        assert!(edge.logged("upgrade failed") == 1 && has_ended(edge.started()[0]), "SIG{name}: {}", edge.log());
        assert!(!edge.folder().join("control.sock").exists());
    }
}

#[test]
fn every_listener_moves_and_the_configuration_says_which_stay() {
    let app = streaming();
    let (gone, added) = (free_address(), free_address());
    // More than the 64 sockets of one message.
    let many: String = (0..70).map(|_| "{address: \"127.0.0.1:0\", protocol: http}, ").collect();
    let more = format!("listeners: [{{address: \"{gone}\", protocol: http}}, {many}");
    let edge = Upgradable::start(serving(&app), |yaml| yaml.replace("listeners: [", &more));
    let listeners = |status: &Value| -> Vec<(String, SocketAddr)> {
        let all = status["listeners"].as_array().unwrap().iter();
        let mut all: Vec<_> = all
            .map(|it| (it["protocol"].as_str().unwrap().into(), it["address"].as_str().unwrap().parse().unwrap()))
            .collect();
        all.sort();
        all
    };
    let before = listeners(&edge.status());
    let socket = edge.folder().join("control.sock");
    let inode = std::fs::metadata(&socket).unwrap().ino();
    let yaml = std::fs::read_to_string(&edge.daemon.file).unwrap();
    write_private(&edge.daemon.file, yaml.replace(&gone.to_string(), &added.to_string()));
    edge.upgrade();
    let mut expected = before.clone();
    expected.retain(|(_, address)| *address != gone);
    expected.push(("http".into(), added));
    expected.sort();
    assert_eq!((before.len(), listeners(&edge.status())), (74, expected));
    eventually("the listener that is gone refuses", || std::net::TcpStream::connect(gone).is_err());
    let plain = |address: SocketAddr| {
        let mut connection = crate::harness::raw::raw_plain(address);
        connection.send(format!("GET / HTTP/1.1\r\nHost: {HOST}:{}\r\n\r\n", address.port())).status()
    };
    let http = listeners(&edge.status()).into_iter().filter(|(protocol, _)| protocol == "http");
    assert!(http.map(|(_, address)| plain(address)).all(|status| status == 308));
    assert_eq!(std::fs::metadata(&socket).unwrap().ino(), inode, "the control socket is the same one");
    let lock = std::fs::File::open(edge.folder().join("control.lock")).unwrap();
    assert!(lock.try_lock().is_err(), "the folder is the edge's as before");
    edge.signal("TERM");
    let last = *edge.started().last().unwrap();
    eventually("the last process ends", || has_ended(last));
    assert!(!socket.exists(), "and takes the control socket with it");
}

#[test]
fn the_service_manager_learns_the_new_process_and_of_no_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify.sock");
    let notifications = UnixDatagram::bind(&path).unwrap();
    notifications.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let app = streaming();
    let variable = ("NOTIFY_SOCKET", path.to_str().unwrap());
    let edge = Upgradable { daemon: serving(&app).run_linked(&[variable], |yaml| yaml) };
    let old = edge.pid();
    edge.upgrade();
    eventually("the old process ends", || has_ended(old));
    notifications.set_nonblocking(true).unwrap();
    let mut said = String::new();
    let mut buffer = [0; 4096];
    let main = format!("MAINPID={}", edge.pid());
    eventually("the manager learns the new process", || {
        while let Ok(length) = notifications.recv(&mut buffer) {
            said.push_str(&text(&buffer[..length]));
            said.push('\n');
        }
        said.contains(&main) && said.trim_end().ends_with("READY=1")
    });
    assert!(!said.contains("STOPPING"), "{said}");
}

#[test]
fn sessions_in_memcached_outlive_an_upgrade_and_those_in_memory_do_not() {
    let (app, store) = (origin("app"), memcached());
    for in_memory in [false, true] {
        let builder = edge().service("iqueue", &app).service("dextor", &app);
        let builder = if in_memory { builder } else { builder.memcached(&store.address()) };
        let edge = Upgradable::start(builder, |yaml| yaml);
        let mut client = edge.daemon.client();
        let url = edge.daemon.url("iqueue", "/");
        client.sign_in(&url, "ada", crate::harness::edge::PASSWORD);
        assert_eq!(client.get(&url).status, 200);
        edge.upgrade();
        assert_eq!(client.get(&url).status == 200, !in_memory, "{}", edge.log());
        assert_eq!(edge.logged("sessions.store is memory"), usize::from(in_memory));
    }
}

#[test]
fn the_demonstration_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("demo");
    let any = "127.0.0.1:0";
    let arguments = ["demo", "--listen", any, "--admin", any, "--data", data.to_str().unwrap()];
    let mut demo = Running::start(&arguments);
    eventually("it serves", || demo.stdout().contains("Ctrl-C ends the demonstration"));
    demo.signal("USR2");
    eventually("it is refused", || demo.stderr().contains("SIGUSR2: no upgrade: this command cannot be replaced"));
    assert!(!demo.has_ended());
}
