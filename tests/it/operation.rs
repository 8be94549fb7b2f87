//! The binary in operation: starting, telling how it is, reloading, draining, stopping, logging, refusing.

use std::io::Read;
use std::net::{TcpListener, TcpStream};

use crate::harness::edge::{HMAC_KEY, PASSWORD, STATE_COOKIE, TOKEN_COOKIE};
use crate::harness::process::{sentry_edge, text};
use crate::harness::{Connection, DEADLINE, Daemon, Origin, Running, comes_to, edge, eventually, origin};

/// The contract's names, each with the labels that it has. All of them are there once each thing has happened.
const METRICS: &[(&str, &[&str])] = &[
    ("requests_total", &["service", "status"]),
    ("request_duration_seconds_bucket", &["le", "service"]),
    ("auth_duration_seconds_bucket", &["le", "outcome", "service"]),
    ("auth_phase_duration_seconds_bucket", &["le", "phase"]),
    ("auth_decisions_total", &["outcome", "reason", "service"]),
    ("token_cache_total", &["result"]),
    ("session_store_operations_total", &["operation", "result", "server"]),
    ("session_store_duration_seconds_bucket", &["le", "operation"]),
    ("session_store_up", &["server"]),
    ("tickets_total", &["event"]),
    ("logins_total", &["result"]),
    ("upstream_requests_total", &["pool", "result", "server"]),
    ("upstream_duration_seconds_bucket", &["le", "pool", "server"]),
    ("connections", &["listener"]),
    ("connections_total", &["listener"]),
    ("connections_refused_total", &["listener", "reason"]),
    ("tls_handshakes_total", &["resumed", "result", "version"]),
    ("config_reloads_total", &["result"]),
    ("config_last_reload_successful", &[]),
    ("config_last_reload_timestamp_seconds", &[]),
    ("certificate_expiry_timestamp_seconds", &["name"]),
    ("build_info", &["version"]),
];

/// A service that everybody may use, so that a request is one request.
fn open_service(origin: &Origin) -> crate::harness::edge::Builder {
    edge().service_with("iqueue", origin, "access: public")
}

/// Whether a new connection is taken and served.
fn takes_connections(daemon: &Daemon) -> bool {
    Connection::open(daemon.address, "iqueue.test").is_ok()
}

/// Asks on a thread of its own and answers what came back, or that nothing did.
fn ask_beside(daemon: &Daemon) -> std::thread::JoinHandle<Result<(u16, String), String>> {
    let mut connection = Connection::open(daemon.address, "iqueue.test").unwrap();
    std::thread::spawn(move || connection.get("iqueue.test", "/").map_err(|error| error.to_string()))
}

// Telling how it is.

#[test]
fn it_starts_and_tells_that_it_lives_and_is_ready() {
    let iqueue = origin("iqueue");
    let daemon = open_service(&iqueue).run();
    assert_eq!((daemon.admin("/livez").status, daemon.admin("/livez").body.as_str()), (200, "alive\n"));
    let ready = daemon.admin("/readyz");
    assert_eq!((ready.status, ready.header("content-type")), (200, Some("application/json")));
    assert_eq!(ready.json()["ready"], true);
    assert_eq!(ready.json()["draining"], false);
    assert_eq!(ready.json()["session_store"], "ok");
    for path in ["/", "/metrics/", "/livez?x/", "/api/sessions", "/.sentry/currentUser"] {
        let status = if path.starts_with("/livez?") { 200 } else { 404 };
        assert_eq!(daemon.admin(path).status, status, "{path}");
    }
    for method in ["POST", "DELETE"] {
        let answer = crate::harness::client(daemon.admin_address()).ask(method, "http://admin.test/livez").send();
        assert_eq!(answer.status, 405, "the admin listener only tells: {method}");
    }
}

#[test]
fn it_is_not_ready_while_the_session_store_is_away() {
    let iqueue = origin("iqueue");
    let mut memcached = crate::harness::memcached();
    let daemon = open_service(&iqueue).memcached(&memcached.address()).run();
    eventually("ready with the store", || daemon.admin("/readyz").status == 200);
    memcached.kill();
    eventually("not ready without it", || daemon.admin("/readyz").status == 503);
    let told = daemon.admin("/readyz").json();
    assert!(told["ready"] == false && told["draining"] == false && told["session_store"] != "ok", "{told}");
    assert_eq!(daemon.admin("/livez").status, 200, "and alive all the same");
    memcached.start();
    eventually("ready again", || daemon.admin("/readyz").status == 200);
}

#[test]
fn the_contracts_metrics_are_there_with_their_labels() {
    let (iqueue, dextor) = (origin("iqueue"), origin("dextor"));
    let limits = "limits: {connections: 4}, timeouts: {tls_handshake: 20s}";
    let daemon = edge().service("iqueue", &iqueue).service("dextor", &dextor).server(limits).run();
    let mut client = daemon.client();
    client.sign_in(&daemon.url("iqueue", "/"), "ada", PASSWORD);
    client.follow(&daemon.url("dextor", "/"));
    daemon.reload(|yaml| yaml.replace("drain: 5s", "drain: 6s"));
    let _held: Vec<_> = (0..8).filter_map(|_| TcpStream::connect(daemon.address).ok()).collect();
    let refused = "listener=\"https\",reason=\"limit\"";
    eventually("a connection was refused", || daemon.metric("sentry_edge_connections_refused_total", refused) > 0.0);
    let scrape = daemon.admin("/metrics");
    assert_eq!(scrape.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for (name, labels) in METRICS {
        let name = format!("sentry_edge_{name}");
        let line = scrape.body.lines().find(|line| line.split(['{', ' ']).next() == Some(&name));
        let line = line.unwrap_or_else(|| panic!("{name} is not there:\n{}", scrape.body));
        let inside = line.split_once('{').map_or("", |(_, rest)| rest.split('}').next().unwrap());
        let mut found: Vec<&str> = inside.split("\",").filter_map(|label| Some(label.split_once('=')?.0)).collect();
        found.sort_unstable();
        let mut labels = labels.to_vec();
        labels.sort_unstable();
        assert_eq!(found, labels, "{name}");
    }
    for name in ["process_cpu_seconds_total", "process_open_fds", "process_resident_memory_bytes"] {
        assert!(scrape.body.lines().any(|line| line.starts_with(name)), "{name}");
    }
    for word in ["ada", PASSWORD, HMAC_KEY] {
        assert!(!scrape.body.contains(&format!("\"{word}")), "no person and no secret is a label: {word}");
    }
}

#[test]
fn unknown_hosts_do_not_become_labels() {
    let iqueue = origin("iqueue");
    let daemon = open_service(&iqueue).run();
    let mut connection = Connection::open(daemon.address, "iqueue.test").unwrap();
    for n in 0..5 {
        assert_eq!(connection.get(&format!("made-up-{n}.test"), "/").unwrap().0, 421);
    }
    let counted = || daemon.metric("sentry_edge_requests_total", "service=\"none\",status=\"4xx\"");
    comes_to("requests for unknown hosts", 5.0, counted);
    assert!(!daemon.admin("/metrics").body.contains("made-up"));
}

// Stopping.

#[test]
fn sigterm_finishes_what_is_in_flight_and_takes_nothing_new() {
    let iqueue = Origin::held();
    let mut daemon = open_service(&iqueue).run_with(|yaml| yaml.replace("drain: 5s", "drain: 60s"));
    let mut idle = Connection::open(daemon.address, "iqueue.test").unwrap();
    assert_eq!(idle.get("iqueue.test", "/.sentry/currentUser").unwrap().0, 200);
    let in_flight = ask_beside(&daemon);
    eventually("the request is at the application", || iqueue.count() == 1);

    daemon.process.signal("TERM");
    eventually("it says that it is not ready", || daemon.admin("/readyz").status == 503);
    assert_eq!(daemon.admin("/readyz").json()["draining"], true);
    eventually("new connections are refused", || TcpStream::connect(daemon.address).is_err());
    assert_eq!(daemon.admin("/readyz").status, 503, "the admin listener tells to the end");
    assert_eq!(daemon.admin("/livez").status, 200);
    assert!(!daemon.process.has_ended(), "it waits for what is in flight");
    let on_the_idle_one = idle.get("iqueue.test", "/.sentry/currentUser");
    assert_eq!(on_the_idle_one.unwrap().0, 200, "an idle connection is kept for its next request");

    iqueue.release();
    assert_eq!(in_flight.join().unwrap(), Ok((200, "late".into())));
    assert_eq!(daemon.process.end().code(), Some(0));
    let told = daemon.process.stderr();
    assert!(told.contains("draining") && told.contains("0 requests were cut off"), "{told}");
    assert_eq!(daemon.log("access.log", 3).len(), 3, "all requests are in the log");
}

#[test]
fn a_connection_that_asks_again_while_draining_is_answered_and_told_to_go() {
    let iqueue = Origin::held();
    let mut daemon = open_service(&iqueue).run_with(|yaml| yaml.replace("drain: 5s", "drain: 60s"));
    let in_flight = ask_beside(&daemon);
    eventually("the request is at the application", || iqueue.count() == 1);
    daemon.process.signal("TERM");
    eventually("it drains", || daemon.admin("/readyz").status == 503);
    iqueue.release();
    assert_eq!(in_flight.join().unwrap(), Ok((200, "late".into())));
    assert_eq!(daemon.process.end().code(), Some(0));
}

#[test]
fn what_takes_longer_than_the_drain_is_cut_and_the_process_ends() {
    let iqueue = Origin::held();
    let mut daemon = open_service(&iqueue).run_with(|yaml| yaml.replace("drain: 5s", "drain: 500ms"));
    let in_flight = ask_beside(&daemon);
    eventually("the request is at the application", || iqueue.count() == 1);
    daemon.process.signal("TERM");
    assert_eq!(daemon.process.end().code(), Some(0));
    assert!(in_flight.join().unwrap().is_err(), "it got no answer");
    assert!(daemon.process.stderr().contains("1 requests were cut off"), "{}", daemon.process.stderr());
}

#[test]
fn sigint_stops_at_once() {
    let iqueue = Origin::held();
    let mut daemon = open_service(&iqueue).run_with(|yaml| yaml.replace("drain: 5s", "drain: 1h"));
    let in_flight = ask_beside(&daemon);
    eventually("the request is at the application", || iqueue.count() == 1);
    daemon.process.signal("INT");
    assert_eq!(daemon.process.end().code(), Some(0));
    assert!(in_flight.join().unwrap().is_err());
}

#[test]
fn sigint_ends_a_drain_that_takes_too_long() {
    let iqueue = Origin::held();
    let mut daemon = open_service(&iqueue).run_with(|yaml| yaml.replace("drain: 5s", "drain: 1h"));
    let in_flight = ask_beside(&daemon);
    eventually("the request is at the application", || iqueue.count() == 1);
    daemon.process.signal("TERM");
    eventually("it drains", || daemon.admin("/readyz").status == 503);
    daemon.process.signal("INT");
    daemon.process.end();
    assert!(in_flight.join().unwrap().is_err());
}

// Reloading.

/// Adds service dextor, which is served by iqueue's pool.
fn with_dextor(yaml: String) -> String {
    yaml.replace("services:\n", "services:\n  dextor: {hosts: [dextor.test], pool: iqueue, access: public}\n")
}

#[test]
fn a_good_file_takes_effect_on_sighup_and_no_connection_notices() {
    let iqueue = origin("iqueue");
    let daemon = open_service(&iqueue).run();
    let mut kept = Connection::open(daemon.address, "iqueue.test").unwrap();
    assert_eq!(kept.get("iqueue.test", "/").unwrap().0, 200);
    assert_eq!(kept.get("dextor.test", "/").unwrap().0, 421);
    let before = daemon.metric("sentry_edge_config_last_reload_timestamp_seconds", "");

    daemon.reload(with_dextor);
    assert_eq!(kept.get("dextor.test", "/").unwrap(), (200, "hello from iqueue".into()), "on the same connection");
    assert_eq!(kept.get("iqueue.test", "/").unwrap().0, 200);
    assert_eq!(daemon.client().get(&daemon.url("dextor", "/")).status, 200, "and on a new one");
    assert_eq!(daemon.metric("sentry_edge_config_reloads_total", "result=\"ok\""), 1.0);
    assert_eq!(daemon.metric("sentry_edge_config_last_reload_successful", ""), 1.0);
    assert!(daemon.metric("sentry_edge_config_last_reload_timestamp_seconds", "") >= before);

    daemon.reload(|yaml| yaml.replace("  dextor: {hosts: [dextor.test], pool: iqueue, access: public}\n", ""));
    assert_eq!(kept.get("dextor.test", "/").unwrap().0, 421, "what was taken out is not served");
}

#[test]
fn a_reload_in_the_middle_of_a_request_leaves_it_alone() {
    let iqueue = Origin::held();
    let daemon = open_service(&iqueue).run_with(with_dextor);
    let in_flight = ask_beside(&daemon);
    eventually("the request is at the application", || iqueue.count() == 1);
    daemon.reload(|yaml| yaml.replace("iqueue.test", "other.test"));
    iqueue.release();
    assert_eq!(in_flight.join().unwrap(), Ok((200, "late".into())));
}

#[test]
fn a_new_signing_key_takes_effect_and_the_old_one_still_verifies_until_it_is_taken_out() {
    let iqueue = origin("iqueue");
    let daemon = edge().service("iqueue", &iqueue).sentry("token: {sign_with: main}").run();
    let kid = |token: &str| {
        let shown = sentry_edge(&["token", "inspect", token]);
        let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
        shown["header"]["kid"].as_str().unwrap().to_owned()
    };
    let sign_in = |daemon: &Daemon| {
        let mut client = daemon.client();
        client.sign_in(&daemon.url("iqueue", "/"), "ada", PASSWORD);
        client
    };
    let mut early = sign_in(&daemon);
    assert_eq!(kid(early.cookie("iqueue.test", TOKEN_COOKIE).unwrap()), "main");

    let main = format!("{{id: main, algorithm: HS256, secret: {{value: {HMAC_KEY}}}}}");
    let next = "{id: next, algorithm: HS256, secret: {value: abcdef0123456789abcdef0123456789}}";
    daemon.reload(|yaml| yaml.replace(&main, &format!("{main}, {next}")).replace("sign_with: main", "sign_with: next"));
    assert_eq!(early.open(&daemon.url("iqueue", "/")).status, 200, "nobody is signed out");
    let mut late = sign_in(&daemon);
    assert_eq!(kid(late.cookie("iqueue.test", TOKEN_COOKIE).unwrap()), "next");

    daemon.reload(|yaml| yaml.replace(&format!("{main}, "), ""));
    assert_eq!(late.open(&daemon.url("iqueue", "/")).status, 200);
    assert_eq!(early.open(&daemon.url("iqueue", "/")).status, 302, "its key is gone");
}

#[test]
fn a_new_certificate_is_shown_to_new_connections() {
    let iqueue = origin("iqueue");
    let daemon = open_service(&iqueue).run();
    assert!(Connection::open(daemon.address, "dextor.test").is_ok(), "the first certificate covers it");
    let narrow = crate::harness::certificates::ca().issue(&["sentry.test", "iqueue.test"]);
    std::fs::write(daemon.folder.path().join("narrow.pem"), narrow.pem).unwrap();
    std::fs::write(daemon.folder.path().join("narrow.key"), narrow.key).unwrap();
    daemon.reload(|yaml| yaml.replace("edge.pem", "narrow.pem").replace("edge.key", "narrow.key"));
    assert!(Connection::open(daemon.address, "dextor.test").is_err(), "the new certificate does not");
    assert!(Connection::open(daemon.address, "iqueue.test").is_ok());
}

#[test]
fn a_broken_file_changes_nothing_and_every_fault_is_logged() {
    let iqueue = origin("iqueue");
    let daemon = open_service(&iqueue).run();
    let good = std::fs::read_to_string(&daemon.file).unwrap();
    let faults = [
        ("drain: 5s", "drain: soon", "server.drain: "),
        ("pool: iqueue,", "pool: nowhere,", "services.iqueue.pool: "),
        ("edge.key", "none.key", "tls.certificates[0].key: "),
    ];
    daemon.reload(|yaml| {
        let yaml = faults.iter().fold(yaml, |yaml, (good, bad, _)| yaml.replace(good, bad));
        with_dextor(yaml)
    });
    eventually("the faults are logged", || {
        let told = daemon.process.stderr();
        told.contains("configuration refused, the old one stays") && faults.iter().all(|(.., key)| told.contains(key))
    });
    assert!(!daemon.process.stderr().contains(HMAC_KEY));
    assert_eq!(daemon.metric("sentry_edge_config_reloads_total", "result=\"refused\""), 1.0);
    assert_eq!(daemon.metric("sentry_edge_config_last_reload_successful", ""), 0.0);
    let mut connection = Connection::open(daemon.address, "iqueue.test").unwrap();
    assert_eq!(connection.get("iqueue.test", "/").unwrap().0, 200, "the old one serves");
    assert_eq!(connection.get("dextor.test", "/").unwrap().0, 421, "nothing of the new one does");
    assert_eq!(daemon.admin("/readyz").status, 200);

    for broken in ["", "[", "services: {}"] {
        daemon.reload(|_| broken.into());
        assert_eq!(connection.get("iqueue.test", "/").unwrap().0, 200, "{broken:?}");
    }
    daemon.reload(|_| good);
    assert_eq!(daemon.metric("sentry_edge_config_last_reload_successful", ""), 1.0, "and a good one mends it");
}

#[test]
fn what_only_a_new_process_can_take_up_is_named() {
    let iqueue = origin("iqueue");
    let daemon = open_service(&iqueue).run();
    daemon.reload(with_dextor);
    assert!(!daemon.process.stderr().contains("restart_required"), "{}", daemon.process.stderr());
    daemon.reload(|yaml| {
        yaml.replace("drain: 5s", "drain: 5s, threads: 3, limits: {connections: 50}")
            .replace("level: info", "level: debug")
    });
    eventually("they are named", || daemon.process.stderr().contains("restart_required"));
    let told = daemon.process.stderr();
    let line = told.lines().find(|line| line.contains("restart_required: ")).unwrap();
    assert!(line.ends_with("restart_required: server.threads, server.limits.connections, log"), "{line}");
}

// Not starting.

#[test]
fn a_port_that_is_taken_is_told_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let iqueue = origin("iqueue");
    for place in [
        "{address: \"127.0.0.1:0\", protocol: https}",
        "{address: \"127.0.0.1:0\", protocol: http}",
        "admin: {address: \"127.0.0.1:0\"}",
    ] {
        let (_folder, file) = open_service(&iqueue).write();
        let yaml = std::fs::read_to_string(&file).unwrap();
        assert_eq!(yaml.matches(place).count(), 1);
        std::fs::write(&file, yaml.replace(place, &place.replace("127.0.0.1:0", &address.to_string()))).unwrap();
        let ended = sentry_edge(&["run", "-c", file.to_str().unwrap()]);
        assert_eq!(ended.status.code(), Some(1));
        let told = text(&ended.stderr);
        assert!(told.contains(&format!("cannot listen on {address}: Address already in use")), "{told}");
        assert!(told.contains("free the port"), "{told}");
    }
}

#[test]
fn a_log_that_cannot_be_written_is_told_by_its_path() {
    let iqueue = origin("iqueue");
    for log in ["{access: {path: none/access.log}}", "{audit: {path: none/audit.log}}", "{access: {path: .}}"] {
        let (folder, file) = open_service(&iqueue).log(log).write();
        let ended = sentry_edge(&["run", "-c", file.to_str().unwrap()]);
        let told = text(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{told}");
        let told_path = told.contains("cannot open a log: ") && told.contains(folder.path().to_str().unwrap());
        assert!(told_path && (told.contains("No such file") || told.contains("Is a directory")), "{told}");
    }
}

#[test]
fn a_user_directory_that_is_not_there_is_told() {
    let iqueue = origin("iqueue");
    let (folder, file) = open_service(&iqueue).write();
    std::fs::remove_file(folder.path().join("users.db")).unwrap();
    let ended = sentry_edge(&["run", "-c", file.to_str().unwrap()]);
    let told = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(told.contains("users.db") && told.contains("user add"), "{told}");
    assert!(!folder.path().join("users.db").exists(), "a mistyped path does not make an empty directory");
}

// Logs.

#[test]
fn logs_are_lines_of_json_with_the_documented_fields_and_no_secret() {
    let (iqueue, dextor) = (origin("iqueue"), origin("dextor"));
    let mut daemon = edge()
        .service_with("iqueue", &iqueue, "routes: [{path: /open, access: public}]")
        .service("dextor", &dextor)
        .run();
    let mut secrets = vec![PASSWORD.to_owned(), "a wrong password".to_owned(), HMAC_KEY.to_owned()];
    let mut client = daemon.client();
    let form = client.follow(&daemon.url("iqueue", "/private?q=1")).pop().unwrap();
    let refused = client.fill_in(&form, "ada", "a wrong password");
    assert_eq!(refused.status, 401);
    let hops = client.sign_in(&daemon.url("iqueue", "/private?q=1"), "ada", PASSWORD);
    for hop in hops.iter().chain([&form, &refused]) {
        if hop.body.contains("name=\"csrf\"") {
            secrets.push(hop.form_field("csrf"));
        }
        secrets.extend(hop.location_parameter("requestID"));
        let values = hop.set_cookies().into_iter().filter_map(|cookie| cookie.split_once('=')?.1.split(';').next());
        secrets.extend(values.filter(|value| !value.is_empty()).map(str::to_owned));
    }
    let ticket = hops.iter().find_map(|hop| hop.location_parameter("requestID")).unwrap();
    assert!(secrets.len() > 8, "a token for each host, state, csrf, ticket: {secrets:?}");
    client.open(&daemon.url("iqueue", &format!("/private?q=1&requestID={ticket}")));
    client.get(&daemon.url("iqueue", "/open"));
    let token = client.cookie("iqueue.test", TOKEN_COOKIE).unwrap().to_owned();
    daemon.client().ask("GET", &daemon.url("dextor", "/api")).field("authorization", &format!("Bearer {token}")).send();
    client.sign_out(&daemon.url("iqueue", "/.sentry/logout"));
    assert_eq!(Connection::open(daemon.address, "iqueue.test").unwrap().get("unknown.test", "/").unwrap().0, 421);
    daemon.process.signal("TERM");
    assert_eq!(daemon.process.end().code(), Some(0));

    let access = daemon.log("access.log", 10);
    let always = [
        "time",
        "request_id",
        "client",
        "method",
        "host",
        "path",
        "protocol",
        "status",
        "bytes",
        "duration",
        "service",
    ];
    let sometimes = ["query", "outcome", "reason", "user", "auth_duration", "server", "upstream_duration", "error"];
    for line in &access {
        let fields = line.as_object().unwrap();
        assert!(always.iter().all(|name| fields.contains_key(*name)), "{line}");
        assert!(
            fields.keys().all(|name| always.contains(&name.as_str()) || sometimes.contains(&name.as_str())),
            "{line}"
        );
    }
    let passed = access.iter().find(|line| line["path"] == "/private" && line["status"] == 200).unwrap();
    assert_eq!(
        (&passed["user"], &passed["outcome"], &passed["service"]),
        (&"ada".into(), &"allowed".into(), &"iqueue".into())
    );
    assert_eq!(
        (&passed["client"], &passed["method"], &passed["protocol"]),
        (&"127.0.0.1".into(), &"GET".into(), &"HTTP/1.1".into())
    );
    assert_eq!((&passed["query"], &passed["server"]), (&"q=1".into(), &iqueue.address.to_string().into()));
    assert_eq!(access.iter().find(|line| line["path"] == "/open").unwrap()["outcome"], "public");
    assert!(access.iter().any(|line| line["query"] == "q=1&requestID=…"), "a ticket is blacked out");
    assert_eq!(access.iter().find(|line| line["status"] == 421).unwrap()["service"], "none");

    let audit = daemon.log("audit.log", 5);
    let events: Vec<&str> = audit.iter().map(|line| line["event"].as_str().unwrap()).collect();
    for event in ["login_refused", "login", "ticket_issued", "ticket_redeemed", "logout"] {
        assert!(events.contains(&event), "{event}: {events:?}");
    }
    for line in &audit {
        let known = ["time", "event", "client", "request_id", "user", "host", "reason"];
        assert!(["time", "event", "client", "request_id"].iter().all(|name| line.get(name).is_some()), "{line}");
        assert!(line.as_object().unwrap().keys().all(|name| known.contains(&name.as_str())), "{line}");
        assert!(line["request_id"].as_str().unwrap().len() == 36, "{line}");
    }
    let login = audit.iter().find(|line| line["event"] == "login").unwrap();
    assert_eq!(login["user"], "ada");
    assert_eq!(audit.iter().find(|line| line["event"] == "login_refused").unwrap()["reason"], "wrong_password");

    let read = |name: &str| std::fs::read_to_string(daemon.folder.path().join(name)).unwrap();
    let written = [read("access.log"), read("audit.log"), daemon.process.stderr(), daemon.process.stdout()].concat();
    for secret in &secrets {
        let encoded: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        assert!(!written.contains(secret) && !written.contains(&encoded), "{secret} stands in a log");
        // A token's parts are secrets of their own: the signature makes the rest of it good.
        let signature = secret.rsplit('.').next().unwrap();
        assert!(!written.contains(signature), "{signature} stands in a log");
    }
    assert!(!written.contains(STATE_COOKIE) && !written.contains(TOKEN_COOKIE), "nor do cookies");
}

#[test]
fn log_files_are_not_for_everybody() {
    use std::os::unix::fs::PermissionsExt;
    let iqueue = origin("iqueue");
    let daemon = open_service(&iqueue).run();
    for name in ["access.log", "audit.log"] {
        let mode = std::fs::metadata(daemon.folder.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o007, 0, "{name}: {mode:o}");
    }
}

#[test]
fn a_log_can_go_to_standard_output_or_be_off() {
    let iqueue = origin("iqueue");
    let mut daemon = open_service(&iqueue).log("{level: info, access: {path: stdout}, audit: {format: off}}").run();
    assert_eq!(daemon.client().get(&daemon.url("iqueue", "/seen")).status, 200);
    daemon.process.signal("TERM");
    assert_eq!(daemon.process.end().code(), Some(0));
    eventually("the line is on standard output", || daemon.process.stdout().contains("\"/seen\""));
    let line: serde_json::Value = serde_json::from_str(daemon.process.stdout().lines().next().unwrap()).unwrap();
    assert_eq!((&line["path"], &line["status"]), (&"/seen".into(), &200.into()));

    let mut silent = open_service(&iqueue)
        .log("{level: info, access: {format: off, path: access.log}, audit: {format: off, path: audit.log}}")
        .run();
    assert_eq!(silent.client().get(&silent.url("iqueue", "/unseen")).status, 200);
    silent.process.signal("TERM");
    assert_eq!(silent.process.end().code(), Some(0));
    assert_eq!(silent.process.stdout(), "");
    for name in ["access.log", "audit.log"] {
        assert!(!silent.folder.path().join(name).exists(), "{name}");
    }
}

// Limits.

#[test]
fn the_connection_over_the_limit_is_refused_and_counted() {
    let iqueue = origin("iqueue");
    let daemon = open_service(&iqueue).server("limits: {connections: 2}").run();
    let mut first = Connection::open(daemon.address, "iqueue.test").unwrap();
    let second = Connection::open(daemon.address, "iqueue.test").unwrap();
    assert!(Connection::open(daemon.address, "iqueue.test").is_err(), "the third is closed unserved");
    let refused = "listener=\"https\",reason=\"limit\"";
    assert_eq!(daemon.metric("sentry_edge_connections_refused_total", refused), 1.0);
    assert_eq!(daemon.metric("sentry_edge_connections", "listener=\"https\""), 2.0);
    assert_eq!(first.get("iqueue.test", "/").unwrap().0, 200, "those who are in are served");
    assert_eq!(daemon.admin("/readyz").status, 200, "and the admin listener has room of its own");
    drop(second);
    eventually("a place is free again", || takes_connections(&daemon));
}

#[test]
fn a_connection_that_never_shakes_hands_is_closed() {
    let iqueue = origin("iqueue");
    let daemon = open_service(&iqueue).server("timeouts: {tls_handshake: 1s}").run();
    for (number, bytes) in [&b""[..], b"\x16\x03\x01\x02\x00\x01", b"\x16"].into_iter().enumerate() {
        let mut silent = TcpStream::connect(daemon.address).unwrap();
        std::io::Write::write_all(&mut silent, bytes).unwrap();
        silent.set_read_timeout(Some(DEADLINE)).unwrap();
        let read = silent.read(&mut [0; 64]);
        assert!(!matches!(&read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock), "{number}: still open");
    }
    let timeouts = "version=\"none\",resumed=\"false\",result=\"timeout\"";
    let counted = |daemon: &Daemon| {
        let body = daemon.admin("/metrics").body;
        body.lines().any(|line| line.contains("result=\"timeout\"") && line.ends_with(" 3"))
    };
    eventually(timeouts, || counted(&daemon));
    eventually("others are served", || takes_connections(&daemon));
}

#[test]
fn bytes_that_are_no_tls_are_closed_and_counted_and_not_logged_one_by_one() {
    let iqueue = origin("iqueue");
    let daemon = open_service(&iqueue).run();
    for _ in 0..20 {
        let mut stranger = TcpStream::connect(daemon.address).unwrap();
        std::io::Write::write_all(&mut stranger, b"GET / HTTP/1.1\r\nHost: iqueue.test\r\n\r\n").unwrap();
        stranger.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut answer = Vec::new();
        stranger.read_to_end(&mut answer).ok();
        assert!(!text(&answer).contains("HTTP/"), "no plain HTTP on the TLS port");
    }
    let failed = |daemon: &Daemon| {
        let body = daemon.admin("/metrics").body;
        body.lines().any(|line| line.contains("result=\"failed\"") && line.ends_with(" 20"))
    };
    eventually("they are counted", || failed(&daemon));
    assert!(daemon.process.stderr().lines().count() < 10, "{}", daemon.process.stderr());
}

#[test]
fn two_edges_do_not_share_a_port() {
    let iqueue = origin("iqueue");
    let daemon = open_service(&iqueue).run();
    let (_folder, file) = open_service(&iqueue).write();
    let yaml = std::fs::read_to_string(&file).unwrap();
    let taken = format!("{{address: \"{}\", protocol: https}}", daemon.address);
    std::fs::write(&file, yaml.replace("{address: \"127.0.0.1:0\", protocol: https}", &taken)).unwrap();
    let mut second = Running::start(&["run", "-c", file.to_str().unwrap()]);
    assert_eq!(second.end().code(), Some(1));
    assert!(takes_connections(&daemon), "the first one serves on");
}
