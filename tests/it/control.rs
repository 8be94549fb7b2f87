//! The control socket and the commands that use it, and the tokens of the admin API.

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::daemon::Running;
use crate::harness::edge::{Builder, PASSWORD};
use crate::harness::process::{sentry_edge, text};
use crate::harness::{
    Client, Connection, Daemon, Edge, Origin, Stop, client, edge, eventually, memcached, origin, write_private,
};

const OPS: &str = "the-token-of-the-operators-of-the-edge";
const DESK: &str = "the-token-of-the-help-desk-on-floor-2";

fn serving(app: &Origin) -> Builder {
    edge().service_with("iqueue", app, "access: public").service("dextor", app).user("bob", &["iqueue"], &[])
}

/// The daemons of tests have their runtime directory beside their configuration.
fn socket(daemon: &Daemon) -> PathBuf {
    daemon.folder.path().join("control.sock")
}

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// What comes back of these bytes, which may not be taken to their end.
fn exchange(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = connect(socket);
    stream.write_all(bytes).ok();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).ok();
    String::from_utf8_lossy(&response).into_owned()
}

fn status_of(response: &str) -> u16 {
    response.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

fn json_of(response: &str) -> Value {
    let body = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {response:?}")).1;
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {response}"))
}

fn call(socket: &Path, method: &str, path: &str, body: &str) -> (u16, Value) {
    let length = body.len();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: control\r\nContent-Length: {length}\r\n\r\n{body}");
    let response = exchange(socket, request.as_bytes());
    (status_of(&response), json_of(&response))
}

/// Exit status, standard output and standard error of a command.
fn told(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = sentry_edge(arguments);
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn file(daemon: &Daemon) -> &str {
    daemon.file.to_str().unwrap()
}

/// The hash by which the edge knows a configuration.
fn hash(path: &Path) -> String {
    let output = std::process::Command::new("sha256sum").arg(path).output().unwrap();
    text(&output.stdout)[..16].to_owned()
}

fn own_uid() -> u32 {
    std::fs::metadata("/proc/self").unwrap().uid()
}

fn gone(path: &Path) -> bool {
    path.symlink_metadata().is_err()
}

// What it serves.

#[test]
fn the_owner_calls_the_api_over_the_socket_without_a_token() {
    let app = origin("app");
    let daemon = serving(&app).run();
    let socket = socket(&daemon);
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);

    let (status, reply) = call(&socket, "GET", "/api/status", "");
    assert_eq!(status, 200, "{reply}");
    assert_eq!(reply["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(reply["configuration"]["path"], std::fs::canonicalize(&daemon.file).unwrap().to_str().unwrap());
    assert_eq!(reply["configuration"]["hash"], hash(&daemon.file));
    assert_eq!((&reply["last_reload"], &reply["session_store"]), (&Value::Null, &json!("ok")));
    assert_eq!(reply["user_directory"], "ok");
    assert_eq!(reply["pools"][1], json!({"name": "iqueue", "servers": [app.address.to_string()]}));
    let listeners = reply["listeners"].as_array().unwrap();
    assert!(listeners.contains(&json!({"protocol": "https", "address": daemon.address.to_string()})), "{reply}");
    assert!(listeners.contains(&json!({"protocol": "admin", "address": daemon.admin_address().to_string()})));
    assert!(listeners.iter().any(|listener| listener["protocol"] == "http"));

    assert_eq!(call(&socket, "GET", "/api/sessions", "").1["sessions"], json!([]));
    let metrics = exchange(&socket, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(metrics.contains(&format!("sentry_edge_config_info{{hash=\"{}\"}} 1", hash(&daemon.file))), "{metrics}");
    assert!(metrics.contains("\r\nConnection: close\r\n"), "one request a connection");
    for path in ["/livez", "/readyz"] {
        assert_eq!(status_of(&exchange(&socket, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())), 200, "{path}");
    }
    for (method, path, body, status, error) in [
        ("GET", "/api/nothing", "", 404, "no_such_path"),
        ("PUT", "/api/status", "", 405, "method"),
        ("GET", "/api/status?x=1", "", 400, "bad_request"),
        ("GET", "/api/status", "{}", 400, "bad_request"),
        ("POST", "/api/reload", "{\"now\": true}", 400, "bad_request"),
        ("POST", "/api/reload", "now", 400, "bad_request"),
        ("DELETE", "/api/sessions", "", 400, "bad_request"),
        ("DELETE", "/api/sessions?user=nobody", "", 404, "unknown_user"),
    ] {
        let (was, reply) = call(&socket, method, path, body);
        assert_eq!((was, reply["error"].as_str()), (status, Some(error)), "{method} {path}: {reply}");
        assert!(reply["message"].is_string() && reply["request_id"].is_string(), "{reply}");
    }
    let audit = daemon.log("audit.log", 9);
    let actor = format!("uid:{}", own_uid());
    assert!(audit.iter().all(|line| line["actor"] == *actor && line.get("client").is_none()), "{audit:?}");
    assert!(audit.iter().all(|line| line["request_id"].is_string()));
    let started = daemon.process.stderr();
    for line in [
        format!("started version={} config=", env!("CARGO_PKG_VERSION")),
        format!("hash={}", hash(&daemon.file)),
        "pools and their servers: dextor (1), iqueue (1)".to_owned(),
        format!("listening on https://{}", daemon.address),
        "listening on http://".to_owned(),
        format!("control socket at {}", socket.display()),
    ] {
        assert!(started.contains(&line), "{line}: {started}");
    }
}

// Reload.

#[test]
fn a_reload_returns_what_came_of_it() {
    let app = origin("app");
    let daemon = serving(&app).run();
    let (socket, good) = (socket(&daemon), std::fs::read_to_string(&daemon.file).unwrap());
    let in_effect = |hash: &str| daemon.metric("sentry_edge_config_info", &format!("hash=\"{hash}\""));
    let first = hash(&daemon.file);

    let next = format!("{good}# another text\n");
    std::fs::write(&daemon.file, &next).unwrap();
    let second = hash(&daemon.file);
    let (status, stdout, stderr) = told(&["reload", "-c", file(&daemon)]);
    let expected = format!("{}: configuration reloaded hash={second}\n", file(&daemon));
    assert_eq!((status, stdout.as_str(), stderr.as_str()), (Some(0), &*expected, ""));
    assert_eq!((in_effect(&second), in_effect(&first)), (1.0, 0.0));
    assert!(!daemon.admin("/metrics").body.contains(&first), "the series of the former one has gone");

    // What is in effect with a warning, and what needs another process.
    let warned = next
        .replace("drain: 5s", "drain: 5s, threads: 3")
        .replace("pools:\n", "pools:\n  unused: {servers: [\"127.0.0.1:9\"]}\n");
    write_private(&daemon.file, &warned);
    let (status, _, stderr) = told(&["reload", "-c", file(&daemon)]);
    assert_eq!(status, Some(0));
    assert!(
        stderr.contains("pools.unused: warning: ") && stderr.contains("restart_required: server.threads"),
        "{stderr}"
    );

    for broken in [
        warned.replace("drain: 5s", "drain: soon").replace("iqueue.test", "iqueue test"),
        format!("{warned}nonsense: 1\n"),
        format!("{warned}: : :\n"),
        String::new(),
    ] {
        write_private(&daemon.file, &broken);
        let before = call(&socket, "GET", "/api/status", "").1["configuration"]["hash"].clone();
        let (status, stdout, stderr) = told(&["reload", "-c", file(&daemon)]);
        let (checked, _, faults) = told(&["check", "-c", file(&daemon)]);
        assert_eq!((status, checked, stdout.as_str()), (Some(1), Some(1), ""));
        assert_eq!(stderr, faults, "as `check` prints them");
        assert!(!faults.is_empty());
        let (status, reply) = call(&socket, "POST", "/api/reload", "{}");
        assert_eq!((status, reply["error"].as_str()), (422, Some("configuration_refused")), "{reply}");
        let list = |name: &str| -> Vec<String> {
            reply[name].as_array().unwrap().iter().map(|it| it["text"].as_str().unwrap().to_owned()).collect()
        };
        assert!(list("faults").iter().chain(&list("warnings")).all(|line| faults.contains(line)), "{reply}");
        assert_eq!(list("faults").len() + list("warnings").len(), faults.lines().count());
        let one = &reply["faults"][0];
        assert!(one["file"].is_string() && one["what"].is_string() && one["write"].is_string(), "{one}");
        let (_, after) = call(&socket, "GET", "/api/status", "");
        assert_eq!(after["configuration"]["hash"], before, "the one before stays");
        assert_eq!(after["last_reload"]["result"], "refused");
        assert_eq!(after["last_reload"]["faults"], reply["faults"]);
        let (status, stdout, _) = told(&["reload", "-c", file(&daemon), "--json"]);
        assert_eq!(status, Some(1));
        assert_eq!(serde_json::from_str::<Value>(&stdout).unwrap()["faults"], reply["faults"]);
    }
    write_private(&daemon.file, &good);
    assert_eq!(told(&["reload", "-c", file(&daemon)]).0, Some(0));
    assert_eq!(call(&socket, "GET", "/api/status", "").1["last_reload"]["result"], "ok");
    let calls = 2 + 4 * 3 + 1;
    let reloaded = daemon.events("configuration_reloaded", calls);
    assert_eq!(reloaded.len(), calls);
    let reasons: Vec<Option<&str>> = reloaded.iter().map(|line| line["reason"].as_str()).collect();
    assert_eq!((reasons[0], reasons[2], *reasons.last().unwrap()), (None, Some("configuration_refused"), None));
    assert!(reloaded.iter().all(|line| line["actor"] == format!("uid:{}", own_uid())));
}

#[test]
fn each_reload_is_of_the_file_as_it_was_when_it_was_requested_whatever_else_reloads() {
    let app = origin("app");
    let daemon = serving(&app).run();
    let (socket, good) = (socket(&daemon), std::fs::read_to_string(&daemon.file).unwrap());
    let hashes: Vec<(String, String)> = (0..12)
        .map(|number| {
            let text = format!("{good}# {number}\n");
            let other = daemon.folder.path().join("other.yaml");
            write_private(&other, &text);
            (hash(&other), text)
        })
        .collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = Stop(&over);
        let others = scope.spawn({
            let (over, socket, daemon) = (&over, &socket, &daemon);
            move || {
                let mut replies = 0;
                while !over.load(Ordering::Relaxed) {
                    daemon.process.signal("HUP");
                    let (status, reply) = call(socket, "POST", "/api/reload", "");
                    assert_eq!(status, 200, "{reply}");
                    replies += 1;
                }
                replies
            }
        });
        for (hash, text) in &hashes {
            // In one step, as the other reloads may read the file at any time.
            let next = daemon.folder.path().join("next.yaml");
            write_private(&next, text);
            std::fs::rename(&next, &daemon.file).unwrap();
            let (status, reply) = call(&socket, "POST", "/api/reload", "");
            assert_eq!((status, reply["hash"].as_str()), (200, Some(hash.as_str())), "{reply}");
        }
        drop(stop);
        assert!(others.join().unwrap() > 0);
    });
}

#[test]
fn a_reload_during_a_drain_and_one_that_the_drain_overtakes_are_answered() {
    let app = Origin::held();
    let mut daemon = serving(&app).run_with(|yaml| yaml.replace("drain: 5s", "drain: 1h"));
    let socket = socket(&daemon);
    let mut connection = Connection::open(daemon.address, "iqueue.test").unwrap();
    let in_flight = std::thread::spawn(move || connection.get("iqueue.test", "/").map(|(status, _)| status).ok());
    eventually("the request is at the application", || app.count() == 1);
    let key = daemon.folder.path().join("edge.key");
    std::fs::remove_file(&key).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&key).status().unwrap().success());
    let waiting = {
        let socket = socket.clone();
        std::thread::spawn(move || call(&socket, "POST", "/api/reload", ""))
    };
    eventually("it is requested", || daemon.process.stderr().contains("a reload was requested"));
    daemon.process.signal("TERM");
    let (status, reply) = waiting.join().unwrap();
    assert_eq!((status, reply["error"].as_str()), (503, Some("stopping")), "{reply}");
    eventually("the socket is free for the next edge", || gone(&socket));
    assert!(!daemon.process.has_ended(), "while the request goes on");
    let (status, _, stderr) = told(&["reload", "-c", file(&daemon)]);
    assert!(status == Some(1) && stderr.contains("no edge answers"), "{stderr}");
    app.release();
    assert_eq!(in_flight.join().unwrap(), Some(200));
    assert_eq!(daemon.process.end().code(), Some(0));
}

// Whose socket it is.

#[test]
fn a_second_edge_never_takes_a_socket_that_answers_and_a_dead_one_is_replaced() {
    let app = origin("app");
    let mut first = serving(&app).server("runtime_dir: run").run();
    let socket = first.folder.path().join("run/control.sock");
    let pid = |socket: &Path| call(socket, "GET", "/api/status", "").1["pid"].as_u64();
    assert_eq!(std::fs::metadata(socket.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    let owner = pid(&socket);
    assert_eq!(owner, Some(u64::from(first.process.id())));
    // Named by the configuration: it has to be this one. Ports are the kernel's choice, so that nothing else fails.
    let mut second = Running::start(&["run", "-c", file(&first)]);
    assert_eq!(second.end().code(), Some(1));
    eventually("it says why", || second.stderr().contains("cannot open the control socket: another edge runs with"));
    assert_eq!(pid(&socket), owner);
    // By default an edge serves all the same.
    let plain = std::fs::read_to_string(&first.file).unwrap().replace(", runtime_dir: run", "");
    let other = first.folder.path().join("run/other.yaml");
    write_private(&other, plain.replace("edge.pem", "../edge.pem").replace("edge.key", "../edge.key"));
    std::fs::copy(first.folder.path().join("users.db"), first.folder.path().join("run/users.db")).unwrap();
    let third = Running::start(&["run", "-c", other.to_str().unwrap()]);
    eventually("it serves", || third.stderr().contains("admin on http://"));
    assert!(third.stderr().contains("control socket: none"), "{}", third.stderr());
    assert_eq!(pid(&socket), owner);
    // Nor does a command of its configuration reach the one that has the socket.
    let (status, _, stderr) = told(&["reload", "-c", other.to_str().unwrap()]);
    assert_eq!(status, Some(1));
    assert!(stderr.contains("no edge answers") && stderr.contains("another configuration"), "{stderr}");
    drop(third);

    first.process.signal("KILL");
    first.process.end();
    assert!(!gone(&socket), "a process that is killed leaves it");
    let (status, _, stderr) = told(&["reload", "-c", file(&first)]);
    assert!(status == Some(1) && stderr.contains("its edge has ended"), "{stderr}");
    let mut next = Running::start(&["run", "-c", file(&first)]);
    eventually("the next edge has it", || UnixStream::connect(&socket).is_ok());
    assert_eq!(pid(&socket), Some(u64::from(next.id())));
    // The thread that handles signals answers this one, once it knows that the edge serves: then TERM is a drain.
    assert_eq!(told(&["reload", "-c", file(&first)]).0, Some(0));
    next.signal("TERM");
    assert_eq!(next.end().code(), Some(0));
    assert!(gone(&socket), "one that ends in order takes it away");
}

#[test]
fn what_else_stands_in_its_place_is_left_alone() {
    let app = origin("app");
    for (place, prepare) in [
        ("a link", (|socket: &Path| std::os::unix::fs::symlink("target", socket).unwrap()) as fn(&Path)),
        ("a file", |socket| std::fs::write(socket, "kept").unwrap()),
        ("a folder that others may write to", |socket| {
            let folder = socket.parent().unwrap();
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
        }),
        ("a link to a folder", |socket| {
            let folder = socket.parent().unwrap();
            std::fs::rename(folder, folder.with_file_name("elsewhere")).unwrap();
            std::os::unix::fs::symlink("elsewhere", folder).unwrap();
        }),
    ] {
        let (folder, config) = serving(&app).server("runtime_dir: run").write();
        let run = folder.path().join("run");
        let socket = run.join("control.sock");
        std::fs::create_dir(&run).unwrap();
        std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::write(run.join("target"), "kept").unwrap();
        prepare(&socket);
        let mut process = Running::start(&["run", "-c", config.to_str().unwrap()]);
        assert_eq!(process.end().code(), Some(1), "{place}");
        eventually(place, || {
            let said = process.stderr();
            said.contains("the runtime directory") && said.contains("cannot be used")
        });
        assert_eq!(std::fs::read_to_string(run.join("target")).unwrap(), "kept", "{place}");
        assert!(place != "a file" || std::fs::read_to_string(&socket).unwrap() == "kept");
        // Where the folder is only the default the edge serves without.
        let yaml = std::fs::read_to_string(&config).unwrap().replace(", runtime_dir: run", "");
        write_private(&config, yaml.replace("level: warn", "level: info"));
        let variable = format!("RUNTIME_DIRECTORY={}", run.display());
        let child = std::process::Command::new("env")
            .args([&variable, env!("CARGO_BIN_EXE_sentry-edge"), "run", "-c", config.to_str().unwrap()])
            .stderr(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let process = Running::watch(child);
        eventually("it serves", || process.stderr().contains("admin on http://"));
        assert!(process.stderr().contains("control socket: none"), "{place}: {}", process.stderr());
    }
}

/// Only root can be another user.
#[test]
fn processes_of_other_users_are_refused_even_where_the_folder_lets_them_in() {
    let app = origin("app");
    let daemon = serving(&app).run();
    let socket = socket(&daemon);
    let as_nobody = || {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "curl", "-s", "-i", "--unix-socket"]);
        let output = command.arg(&socket).arg("http://control/api/sessions").output().unwrap();
        (output.status.success(), text(&output.stdout))
    };
    assert_eq!(status_of(&exchange(&socket, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")), 200);
    if own_uid() != 0 {
        return assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o077, 0);
    }
    assert_eq!(as_nobody(), (false, String::new()), "the modes of folder and socket keep it out");
    for (path, mode) in [(daemon.folder.path(), 0o755), (&socket, 0o777)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let (_, response) = as_nobody();
    assert_eq!((status_of(&response), json_of(&response)["error"].as_str()), (403, Some("wrong_user")), "{response}");
    let refused = daemon.events("api_refused", 1);
    assert_eq!((refused.len(), refused[0]["actor"].as_str()), (1, Some("uid:65534")));
    assert_eq!(daemon.metric("sentry_edge_connections_refused_total", "listener=\"control\",reason=\"user\""), 1.0);
    assert_eq!(call(&socket, "GET", "/api/status", "").0, 200, "its owner is served as before");
}

// Pools.

#[test]
fn a_server_is_drained_disabled_and_enabled_and_a_reload_keeps_that() {
    let (one, two) = (origin("one"), origin("two"));
    let list = format!("{{servers: [\"{}\", {{address: \"{}\", weight: 2}}]}}", one.address, two.address);
    let daemon = serving(&one).pool("iqueue", &list).run();
    let socket = socket(&daemon);
    let (first, second) = (one.address.to_string(), two.address.to_string());
    let mut connection = Connection::open(daemon.address, "iqueue.test").unwrap();
    let mut answers =
        |count: usize| -> Vec<String> { (0..count).map(|_| connection.get("iqueue.test", "/").unwrap().1).collect() };
    let set = |verb: &str, server: &str| told(&["pool", verb, "iqueue", server, "-c", file(&daemon)]);
    let state = |server: &str, state: &str| {
        let labels = format!("pool=\"iqueue\",server=\"{server}\",state=\"{state}\"");
        daemon.metric("sentry_edge_upstream_server_state", &labels)
    };
    assert!(answers(6).iter().any(|body| body.contains("one")));
    let (_, reply) = call(&socket, "GET", "/api/pools", "");
    let server = |address: &str, state: &str, weight: u64| {
        json!({"address": address, "state": state, "weight": weight, "in_flight": 0, "backup": false,
               "ejected_until": null, "last_failure": null})
    };
    let iqueue =
        |reply: &Value| reply["pools"].as_array().unwrap().iter().find(|pool| pool["name"] == "iqueue").cloned();
    assert_eq!(iqueue(&reply).unwrap()["servers"], json!([server(&first, "active", 1), server(&second, "active", 2)]));
    for (verb, name) in [("drain", "draining"), ("disable", "disabled")] {
        let said = format!("iqueue {first} is {name}, 0 in flight\n");
        assert_eq!(set(verb, &first), (Some(0), said, String::new()));
        assert!(answers(6).iter().all(|body| body.contains("two")), "{verb}");
        assert_eq!((state(&first, name), state(&first, "active")), (1.0, 0.0));
        assert_eq!(told(&["reload", "-c", file(&daemon)]).0, Some(0));
        assert!(answers(6).iter().all(|body| body.contains("two")), "{verb}, over a reload");
        let (_, reply) = call(&socket, "GET", "/api/pools", "");
        assert_eq!(iqueue(&reply).unwrap()["servers"][0], server(&first, name, 1));
    }
    assert_eq!(set("disable", &second).0, Some(0));
    assert_eq!(connection_status(&daemon), 503, "there is none left");
    assert_eq!((set("enable", &first).0, set("enable", &second).0), (Some(0), Some(0)));
    assert_eq!((state(&first, "active"), state(&first, "disabled")), (1.0, 0.0));
    assert!(answers(6).iter().any(|body| body.contains("one")));
    let listed = told(&["pool", "list", "-c", file(&daemon)]);
    assert!(listed.1.contains(&format!("iqueue\n  {first}  active, 0 in flight, weight 1\n")), "{listed:?}");
    let listed = told(&["pool", "list", "--json", "-c", file(&daemon)]).1;
    assert_eq!(serde_json::from_str::<Value>(&listed).unwrap(), call(&socket, "GET", "/api/pools", "").1);

    assert_eq!(set("drain", "127.0.0.1:1").0, Some(1));
    let nowhere = told(&["pool", "drain", "nowhere", &first, "-c", file(&daemon)]);
    assert_eq!((nowhere.0, nowhere.2.as_str()), (Some(1), "there is no pool `nowhere`\n"));
    for body in [
        "",
        "{}",
        "{\"state\": \"on\"}",
        "{\"state\": \"Active\"}",
        "{\"state\": \"active\", \"x\": 1}",
        "[\"active\"]",
    ] {
        let (status, reply) = call(&socket, "PUT", &format!("/api/pools/iqueue/servers/{first}"), body);
        assert_eq!((status, reply["error"].as_str()), (400, Some("bad_request")), "{body}: {reply}");
    }
    let lines = daemon.events("server_state_set", 5);
    let states: Vec<&str> = lines.iter().map(|line| line["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["draining", "disabled", "disabled", "active", "active"]);
    assert!(lines.iter().all(|line| line["pool"] == "iqueue" && line["actor"] == format!("uid:{}", own_uid())));
    assert_eq!((&lines[0]["server"], &lines[2]["server"]), (&json!(first), &json!(second)));
}

fn connection_status(daemon: &Daemon) -> u16 {
    Connection::open(daemon.address, "iqueue.test").unwrap().get("iqueue.test", "/").unwrap().0
}

#[test]
fn a_drain_waits_for_what_is_in_flight_and_says_when_it_was_in_vain() {
    let held = Origin::held();
    let daemon = serving(&held).run();
    let address = held.address.to_string();
    let mut connection = Connection::open(daemon.address, "iqueue.test").unwrap();
    let in_flight = std::thread::spawn(move || connection.get("iqueue.test", "/").map(|(status, _)| status).ok());
    eventually("the request is at the application", || held.count() == 1);
    let drain = |wait: &str| told(&["pool", "drain", "iqueue", &address, "--wait", wait, "-c", file(&daemon)]);
    let (status, stdout, stderr) = drain("50ms");
    assert_eq!((status, stdout), (Some(1), format!("iqueue {address} is draining, 1 in flight\n")));
    assert!(stderr.starts_with("1 requests are still in flight after 50ms"), "{stderr}");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| drain("60s"));
        held.release();
        let (status, stdout, _) = waiting.join().unwrap();
        assert_eq!((status, stdout), (Some(0), format!("iqueue {address} is draining, 0 in flight\n")));
    });
    assert_eq!(in_flight.join().unwrap(), Some(200));
}

// Maintenance.

#[test]
fn maintenance_is_switched_over_the_socket_and_kept_over_a_reload() {
    let app = origin("app");
    let daemon = serving(&app).run();
    let opens = || Connection::open(daemon.address, "iqueue.test").unwrap().get("iqueue.test", "/").unwrap().0;
    let switch = |name: &str, state: &str| told(&["service", "maintenance", name, state, "-c", file(&daemon)]);
    assert_eq!(opens(), 200);
    assert_eq!(switch("iqueue", "on"), (Some(0), "iqueue is in maintenance\n".into(), String::new()));
    assert_eq!(opens(), 503);
    assert_eq!(told(&["reload", "-c", file(&daemon)]).0, Some(0));
    assert_eq!(opens(), 503, "over a reload");
    assert_eq!(switch("iqueue", "off"), (Some(0), "iqueue is not in maintenance\n".into(), String::new()));
    assert_eq!(opens(), 200);
    assert_eq!(switch("nowhere", "on"), (Some(1), String::new(), "there is no service `nowhere`\n".into()));
    assert_eq!(switch("iqueue", "maybe").0, Some(2));
    let socket = socket(&daemon);
    for body in ["", "{}", "{\"on\": 1}", "{\"on\": \"true\"}", "{\"on\": true, \"x\": 1}", "true", "[true]"] {
        let (status, reply) = call(&socket, "PUT", "/api/services/iqueue/maintenance", body);
        assert_eq!((status, reply["error"].as_str()), (400, Some("bad_request")), "{body}: {reply}");
    }
    assert_eq!(opens(), 200);
    let set = daemon.events("maintenance_set", 2);
    let states: Vec<&str> = set.iter().map(|line| line["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["on", "off"]);
    assert!(set.iter().all(|line| line["service"] == "iqueue" && line["actor"] == format!("uid:{}", own_uid())));
}

// What it bears.

#[test]
fn large_slow_broken_and_many_requests_take_nothing_away() {
    let app = origin("app");
    let daemon = serving(&app).run();
    let socket = socket(&daemon);
    let large = format!("POST /api/reload HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 1_u64 << 40);
    let chunks = "5000\r\n".to_owned() + &"x".repeat(0x5000) + "\r\n";
    let chunked =
        format!("POST /api/reload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{}", chunks.repeat(20));
    for request in [large, chunked] {
        let response = exchange(&socket, request.as_bytes());
        assert_eq!((status_of(&response), json_of(&response)["error"].as_str()), (413, Some("body_too_large")));
    }
    for broken in ["\r\n\r\n", "x\r\n\r\n", "GET\r\n\r\n", "\u{1}\u{2}\u{3}\r\n\r\n", "SSH-2.0-x\r\n\r\n"] {
        let response = exchange(&socket, broken.as_bytes());
        assert!(response.is_empty() || status_of(&response) == 400, "{broken:?}: {response}");
    }
    let endless = exchange(&socket, format!("GET /livez HTTP/1.1\r\nX: {}", "x".repeat(4 << 20)).as_bytes());
    assert!(endless.is_empty() || status_of(&endless) >= 400, "{endless}");

    // Bodies that do not come, and heads that do not.
    let mut without_body = connect(&socket);
    without_body.write_all(b"POST /api/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{").unwrap();
    let mut idle: Vec<UnixStream> = (0..24).map(|_| connect(&socket)).collect();
    for (at, stream) in idle.iter_mut().enumerate().filter(|(at, _)| at % 2 == 0) {
        stream.write_all(&b"GET /api/status HTTP/1.1\r\nHost: x"[..at]).unwrap();
    }
    let mut response = String::new();
    without_body.read_to_string(&mut response).ok();
    assert_eq!((status_of(&response), json_of(&response)["error"].as_str()), (408, Some("body_too_slow")));
    for stream in &mut idle {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).ok();
        assert!(rest.is_empty(), "closed without a word: {}", String::from_utf8_lossy(&rest));
    }
    assert_eq!(call(&socket, "GET", "/api/status", "").0, 200);
}

#[test]
fn of_thirty_three_connections_at_once_one_is_refused() {
    let app = origin("app");
    let daemon = serving(&app).run();
    let socket = socket(&daemon);
    let labels = "listener=\"control\",reason=\"limit\"";
    let refused = || daemon.metric("sentry_edge_connections_refused_total", labels);
    // They have their places for as long as a head may take; on a machine that is slower than that it is tried again.
    eventually("one is refused, and no other", || {
        let before = refused();
        let held: Vec<UnixStream> = (0..32).map(|_| connect(&socket)).collect();
        let response = exchange(&socket, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
        let is_refused = response.is_empty() && refused() == before + 1.0;
        drop(held);
        is_refused
    });
    eventually("there is room again", || status_of(&exchange(&socket, b"GET /livez HTTP/1.0\r\n\r\n")) == 200);
}

// Tokens and their roles.

fn with_tokens(app: &Origin) -> Builder {
    let tokens = format!(
        "tokens: {{ops: {{secret: {{value: {OPS}}}, role: admin}}, desk: {{secret: {{value: {DESK}}}, role: help_desk}}}}"
    );
    edge().service("iqueue", app).service("dextor", app).user("bob", &["iqueue"], &[]).admin(&tokens)
}

fn ask(edge: &Edge, token: &str, method: &'static str, path: &str) -> (u16, Value) {
    let mut client = client(edge.inner.admin_address());
    let url = format!("http://admin.test{path}");
    let answer = client.ask(method, &url).field("authorization", &format!("Bearer {token}")).send();
    (answer.status, answer.json())
}

#[test]
fn a_token_opens_what_its_role_allows_and_its_name_is_in_the_audit_log() {
    let app = origin("app");
    let edge = with_tokens(&app).start();
    for (method, path, ops, desk) in [
        ("GET", "/api/sessions", 200, 200),
        ("GET", "/api/sessions?user=ada", 200, 200),
        ("DELETE", "/api/sessions?user=ada", 200, 200),
        ("DELETE", "/api/sessions?all=true", 200, 403),
        ("GET", "/api/status", 200, 403),
        // No process reloads this edge, which is one of a test.
        ("POST", "/api/reload", 503, 403),
        ("GET", "/api/nothing", 404, 404),
        ("PATCH", "/api/reload", 405, 405),
    ] {
        assert_eq!(ask(&edge, OPS, method, path).0, ops, "{method} {path}");
        let (status, reply) = ask(&edge, DESK, method, path);
        assert_eq!(status, desk, "{method} {path}: {reply}");
        assert!(status != 403 || reply["error"] == "wrong_role", "{reply}");
    }
    assert_eq!(ask(&edge, "neither-of-the-two-tokens-of-this-edge", "GET", "/api/sessions").0, 401);
    let audit = edge.audit(16);
    let lines = |actor: &str| audit.iter().filter(|line| line["actor"] == actor).count();
    assert_eq!((lines("token:ops"), lines("token:desk")), (7, 8), "but for the look at the status");
    let nameless: Vec<&Value> = audit.iter().filter(|line| line.get("actor").is_none()).collect();
    assert_eq!((nameless.len(), nameless[0]["reason"].as_str()), (1, Some("wrong_token")));
    let all = audit.iter().find(|line| line["all"] == true).unwrap();
    assert_eq!((all["event"].as_str(), all["client"].as_str()), (Some("sessions_ended"), Some("127.0.0.1")));
    assert!(!std::fs::read_to_string(edge.folder.path().join("audit.log")).unwrap().contains(&OPS[..16]));
}

#[test]
fn tokens_that_are_no_good_are_faults_that_repeat_no_secret() {
    let app = origin("app");
    let good = format!("{{secret: {{value: {OPS}}}, role: admin}}");
    for (tokens, fault) in [
        (format!("{{ops: {good}, desk: {good}}}"), "server.admin.tokens.ops.secret: another token has the same secret"),
        (format!("{{ops: {{secret: {{value: {OPS}}}}}}}"), "server.admin.tokens: this is no token with a name"),
        ("{ops: {role: admin}}".into(), "server.admin.tokens: this is no token"),
        (format!("{{ops: {{secret: {{value: {OPS}}}, role: root}}}}"), "server.admin.tokens: this is no token"),
        (format!("{{ops: {{secret: {OPS}, role: admin}}}}"), "server.admin.tokens: this is no token"),
        (format!("{{ops: {OPS}}}"), "server.admin.tokens: this is no token"),
        (format!("{{{OPS}: {good}}}"), "server.admin.tokens: this is no token"),
        (format!("{{\"o s\": {good}}}"), "server.admin.tokens: this is no token"),
        (format!("{{\"\": {good}}}"), "server.admin.tokens: this is no token"),
        (format!("[{OPS}]"), "server.admin.tokens: this does not fit"),
        (
            "{ops: {secret: {value: short}, role: admin}}".into(),
            "server.admin.tokens.ops.secret: the token has 5 bytes",
        ),
        ("{ops: {secret: {file: nowhere}, role: admin}}".into(), "tokens.ops.secret: this file cannot be read"),
        (
            format!("{{admin: {good}}}, token: {{value: {DESK}}}"),
            "server.admin.token: there are two tokens of the name",
        ),
    ] {
        let (_folder, file) = edge().service("iqueue", &app).admin(&format!("tokens: {tokens}")).write();
        let (status, _, stderr) = told(&["check", "-c", file.to_str().unwrap()]);
        assert_eq!(status, Some(1), "{tokens}");
        let line = stderr.lines().find(|line| line.contains(fault)).unwrap_or_else(|| panic!("{tokens}: {stderr}"));
        assert!(line.starts_with(&format!("{}:1: ", file.display())) && line.contains("; "), "{line}");
        assert!(!stderr.contains(OPS) && !stderr.contains(DESK), "{stderr}");
    }
    for good in ["", "tokens: {}", &format!("tokens: {{ops: {good}}}, token: {{value: {DESK}}}")] {
        let (_folder, file) = edge().service("iqueue", &app).admin(good).write();
        assert_eq!(told(&["check", "-c", file.to_str().unwrap()]).0, Some(0), "{good}");
    }
}

#[test]
fn a_runtime_directory_that_cannot_be_one_is_a_fault() {
    let app = origin("app");
    let long = format!("/tmp/{}", "x".repeat(100));
    for (written, fault) in [
        ("edge.yaml", "edge.yaml is no folder; "),
        ("edge.yaml/run", "edge.yaml is no folder; "),
        (&*long, "too long: the path of the socket in it may have 107 bytes; "),
    ] {
        let (_folder, file) = edge().service("iqueue", &app).server(&format!("runtime_dir: {written}")).write();
        let (status, _, stderr) = told(&["check", "-c", file.to_str().unwrap()]);
        assert!(status == Some(1) && stderr.contains("server.runtime_dir: ") && stderr.contains(fault), "{stderr}");
    }
    let (folder, file) = edge().service("iqueue", &app).server("runtime_dir: not/there/yet").write();
    assert_eq!(told(&["check", "-c", file.to_str().unwrap()]).0, Some(0));
    assert!(gone(&folder.path().join("not")), "`check` makes nothing");
}

// Sessions.

fn signed_in(edge: &Edge, user: &str) -> Client {
    let mut client = edge.client();
    edge.sign_in(&mut client, "iqueue", user);
    client
}

#[test]
fn everybody_is_signed_out_on_every_edge_and_may_sign_in_again() {
    let (app, memcached) = (origin("app"), memcached());
    let one = with_tokens(&app).memcached(&memcached.address()).balanced().start();
    let other = one.twin();
    let mut browsers = [signed_in(&one, "ada"), signed_in(&one, "ada"), signed_in(&one, "bob")];
    let opens = |edge: &Edge, browser: &mut Client| {
        browser.through(edge.address()).open(&edge.url("iqueue", "/")).status == 200
    };
    for browser in &mut browsers {
        assert!(opens(&one, browser) && opens(&other, browser));
    }
    eventually("the sessions are there", || memcached.session_records().len() == 3);
    let (status, reply) = ask(&other, OPS, "DELETE", "/api/sessions?all=true");
    assert_eq!((status, &reply), (200, &json!({"all": true, "ended": 3, "effective_within": "20ms"})));
    for browser in &mut browsers {
        assert!(!opens(&one, browser) && !opens(&other, browser));
    }
    eventually("a new login is not one of them", || {
        let mut again = one.client();
        again.sign_in(&one.url("iqueue", "/"), "bob", PASSWORD).pop().unwrap().status == 200
            && opens(&other, &mut again)
    });
    assert_eq!(ask(&one, OPS, "GET", "/api/sessions").1["sessions"][0]["user"], "bob");
}

#[test]
fn commands_list_and_end_what_only_the_running_edge_has() {
    let app = origin("app");
    let daemon = edge().service("iqueue", &app).service("dextor", &app).user("bob", &["iqueue"], &[]).run();
    let sign_in = |user: &str| {
        let mut browser = daemon.client();
        assert_eq!(browser.sign_in(&daemon.url("iqueue", "/"), user, PASSWORD).pop().unwrap().status, 200);
        browser
    };
    let (mut ada, mut bob) = (sign_in("ada"), sign_in("bob"));
    let opens = |browser: &mut Client| browser.open(&daemon.url("iqueue", "/")).status == 200;
    let list = |arguments: &[&str]| {
        let (status, stdout, stderr) = told(&[&["session", "list", "-c", file(&daemon)], arguments].concat());
        assert_eq!((status, stderr.as_str()), (Some(0), ""), "{arguments:?}");
        stdout
    };
    let users = |arguments: &[&str]| -> Vec<String> {
        let lines = list(&[arguments, &["--json"]].concat());
        let user = |line: &str| serde_json::from_str::<Value>(line).unwrap()["user"].as_str().unwrap().to_owned();
        lines.lines().map(user).collect()
    };
    assert_eq!(users(&[]), ["ada", "bob"]);
    assert_eq!((users(&["--all"]), users(&["--user", "Bob"])), (users(&[]), vec!["bob".to_owned()]));
    assert!(list(&[]).starts_with("ada\n  user id "), "{}", list(&[]));
    let (status, stdout, stderr) = told(&["session", "list", "--limit", "1", "-c", file(&daemon)]);
    assert!(
        status == Some(0) && stdout.matches("user id").count() == 1 && stderr.starts_with("there are more than 1;"),
        "{stderr}"
    );
    assert!(told(&["session", "list", "--user", "eve", "-c", file(&daemon)]).2.contains("no user eve"));

    let (status, stdout, stderr) = told(&["session", "end", "--user", "ada", "-c", file(&daemon)]);
    assert_eq!((status, stdout.as_str(), stderr.as_str()), (Some(0), "sessions of ada end within 20ms\n", ""));
    assert!(!opens(&mut ada) && opens(&mut bob));
    assert_eq!(users(&[]), ["bob"]);
    let (status, stdout, stderr) = told(&["session", "end", "--all", "-c", file(&daemon)]);
    assert_eq!((status, stdout.as_str(), stderr.as_str()), (Some(0), "all sessions end within 20ms\n", ""));
    assert!(!opens(&mut bob));
    assert_eq!(list(&[]), "");
    let (status, _, stderr) = told(&["session", "end", "--user", "eve", "-c", file(&daemon)]);
    assert_eq!((status, stderr.as_str()), (Some(1), "there is no user eve\n"));
    let ended = daemon.events("sessions_ended", 2);
    let about: Vec<(Option<&str>, bool)> =
        ended.iter().map(|line| (line["user"].as_str(), line["all"] == true)).collect();
    assert_eq!(about, [(Some("ada"), false), (None, true)]);
    for usage in [&["session", "end"][..], &["session", "end", "--all", "--user", "ada"], &["reload"]] {
        let arguments: &[&str] = if usage == ["reload"] { &[] } else { &["-c", file(&daemon)] };
        assert_eq!(told(&[usage, arguments].concat()).0, Some(2), "{usage:?}");
    }
}

#[test]
fn without_an_edge_a_command_says_where_it_has_looked_or_works_without_one() {
    let app = origin("app");
    let edge = edge().service("iqueue", &app).user("bob", &["iqueue"], &[]).start();
    let file = edge.folder.path().join("edge.yaml");
    let file = file.to_str().unwrap();
    let (status, stdout, stderr) = told(&["reload", "-c", file]);
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    let place = edge.folder.path().join("control.sock");
    assert!(stderr.starts_with(&format!("no edge answers for {file}; looked at\n")), "{stderr}");
    for place in [place.to_str().unwrap(), "/run/sentry-edge/control.sock"] {
        assert!(stderr.contains(&format!("  {place}: ")), "{stderr}");
    }
    let hash = |text: &str| {
        let output = std::process::Command::new("sh").args(["-c", "printf %s \"$1\" | sha256sum", "sh", text]).output();
        text_of(output.unwrap())[..16].to_owned()
    };
    let real = std::fs::canonicalize(file).unwrap();
    assert!(
        stderr.contains(&format!("  /run/sentry-edge/{}/control.sock: ", hash(real.to_str().unwrap()))),
        "{stderr}"
    );
    assert!(told(&["reload", "-c", "/no/such/edge.yaml"]).2.starts_with("/no/such/edge.yaml: cannot read the file"));

    let mut browsers = [signed_in(&edge, "ada"), signed_in(&edge, "bob")];
    let (status, stdout, _) = told(&["session", "end", "--all", "-c", file]);
    assert_eq!((status, stdout.as_str()), (Some(0), "all sessions end within 20ms\n"));
    for browser in &mut browsers {
        eventually("the directory has it", || browser.open(&edge.url("iqueue", "/")).status != 200);
    }
    let line = edge.events("user_changed", 1).remove(0);
    assert_eq!((&line["all"], line["change"].as_str()), (&json!(true), Some("sessions_ended")));
}

fn text_of(output: std::process::Output) -> String {
    text(&output.stdout)
}
