//! What a start needs beside its file: whatever of it would stop `run` is a fault of `check`, with its key and what to
//! write, and what only the moment decides is none.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use crate::directory::leave_log_of_another;
use crate::harness::process::{BINARY, sentry_edge, text};
use crate::harness::{Connection, Running, edge, eventually, free_address, origin, write_private};

/// A folder with a good configuration that was spoilt.
struct Row {
    what: &'static str,
    /// What is done to the text of the configuration.
    edit: fn(String) -> String,
    /// What is done to the folder.
    spoil: fn(&Path),
    key: &'static str,
    said: &'static str,
}

fn same(yaml: String) -> String {
    yaml
}

fn nothing(_: &Path) {}

/// A database of another program, or of a newer edge.
fn database(folder: &Path, statement: &str) {
    std::fs::remove_file(folder.join("users.db")).unwrap();
    let connection = rusqlite::Connection::open(folder.join("users.db")).unwrap();
    connection.execute_batch(statement).unwrap();
}

const ROWS: &[Row] = &[
    Row {
        what: "no user directory",
        edit: same,
        spoil: |folder| std::fs::remove_file(folder.join("users.db")).unwrap(),
        key: "users.sqlite.path",
        said: "make one with `user add`",
    },
    Row {
        what: "a user directory that is no database",
        edit: same,
        spoil: |folder| {
            std::fs::write(folder.join("users.db"), "these are no users, but some text ".repeat(50)).unwrap();
        },
        key: "users.sqlite.path",
        said: "not a database",
    },
    Row {
        what: "another program's database",
        edit: same,
        spoil: |folder| database(folder, "CREATE TABLE songs (name TEXT)"),
        key: "users.sqlite.path",
        said: "users.db",
    },
    Row {
        what: "a newer edge's user directory",
        edit: same,
        spoil: |folder| database(folder, "CREATE TABLE users (name TEXT); PRAGMA user_version = 9999"),
        key: "users.sqlite.path",
        said: "9999",
    },
    Row {
        what: "no folder for the access log",
        edit: |yaml| yaml.replace("path: access.log", "path: logs/access.log"),
        spoil: nothing,
        key: "log.access.path",
        said: "logs: No such file or directory",
    },
    Row {
        what: "no folder for the audit log",
        edit: |yaml| yaml.replace("path: audit.log", "path: logs/audit.log"),
        spoil: nothing,
        key: "log.audit.path",
        said: "logs: No such file or directory",
    },
    Row {
        what: "a folder in the place of a log",
        edit: same,
        spoil: |folder| std::fs::create_dir(folder.join("access.log")).unwrap(),
        key: "log.access.path",
        said: "access.log is a folder",
    },
    Row {
        what: "a file in the place of a folder",
        edit: |yaml| yaml.replace("path: audit.log", "path: edge.pem/audit.log"),
        spoil: nothing,
        key: "log.audit.path",
        said: "edge.pem",
    },
    Row {
        what: "a runtime directory that others may write to",
        edit: |yaml| yaml.replacen("server: {", "server: {runtime_dir: shared, ", 1),
        spoil: |folder| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::create_dir(folder.join("shared")).unwrap();
            std::fs::set_permissions(folder.join("shared"), std::fs::Permissions::from_mode(0o777)).unwrap();
        },
        key: "server.runtime_dir",
        said: "others may write to it",
    },
    Row {
        what: "a listener that takes another's address",
        edit: |yaml| {
            let port = free_address().port();
            yaml.replacen("127.0.0.1:0", &format!("0.0.0.0:{port}"), 1).replacen(
                "127.0.0.1:0",
                &format!("127.0.0.1:{port}"),
                1,
            )
        },
        spoil: nothing,
        key: "server.listeners[1].address",
        said: "exclude each other",
    },
    Row {
        what: "a listener that takes the admin listener's address",
        edit: |yaml| {
            let port = free_address().port();
            let yaml = yaml.replacen("127.0.0.1:0", &format!("0.0.0.0:{port}"), 1);
            yaml.replace("admin: {address: \"127.0.0.1:0\"", &format!("admin: {{address: \"127.0.0.1:{port}\""))
        },
        spoil: nothing,
        key: "server.admin.address",
        said: "is taken by the listener",
    },
];

#[test]
fn what_would_stop_a_start_is_a_fault_of_check() {
    let app = origin("app");
    for Row { what, edit, spoil, key, said } in ROWS {
        let (folder, file) = edge().service("iqueue", &app).write();
        let path = file.to_str().unwrap();
        assert!(sentry_edge(&["check", "-c", path]).status.success(), "{what}: it is good before");
        write_private(&file, edit(std::fs::read_to_string(&file).unwrap()));
        spoil(folder.path());
        let checked = sentry_edge(&["check", "-c", path]);
        let faults = text(&checked.stderr);
        assert_eq!(checked.status.code(), Some(1), "{what}: {faults}");
        assert!(faults.starts_with(&format!("{path}:")) && faults.contains(&format!(": {key}: ")), "{what}: {faults}");
        assert!(faults.contains(said), "{what}: {faults}");
        let mut run = Running::start(&["run", "-c", path]);
        assert_eq!(run.end().code(), Some(1), "{what}: it does stop a start");
    }
}

/// The log of another database is what a directory that was restored from a copy may have beside it.
#[test]
fn check_changes_nothing() {
    let app = origin("app");
    for has_foreign_log in [false, true] {
        let (folder, file) = edge().service("iqueue", &app).write();
        if has_foreign_log {
            leave_log_of_another(&folder.path().join("users.db"));
        }
        let files = || -> BTreeMap<_, _> {
            let entries = std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap);
            entries.map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap())).collect()
        };
        let before = files();
        let checked = sentry_edge(&["check", "-c", file.to_str().unwrap()]);
        assert!(checked.status.success(), "{}", text(&checked.stderr));
        let after = files();
        assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        let changed: Vec<_> = after.iter().filter(|(name, bytes)| before[*name] != **bytes).map(|it| it.0).collect();
        assert!(changed.is_empty(), "{changed:?}, with a log of another: {has_foreign_log}");
    }
}

/// Paths are relative to the folder of the configuration, which is "" for a file that is named without one.
#[test]
fn paths_beside_a_configuration_that_is_named_without_a_folder_are_good() {
    let app = origin("app");
    let (folder, file) = edge().service("iqueue", &app).server("runtime_dir: run").write();
    let mut check = Command::new(BINARY);
    check.args(["check", "-c"]).arg(file.file_name().unwrap()).current_dir(folder.path());
    let checked = check.output().unwrap();
    assert!(checked.status.success(), "{}", text(&checked.stderr));
}

#[test]
fn a_folder_that_the_service_manager_makes_is_no_fault_before_the_first_start() {
    let app = origin("app");
    let (_folder, file) = edge().service("iqueue", &app).write();
    let yaml = std::fs::read_to_string(&file).unwrap();
    for (folder, is_warning) in [("/var/log/no-such-edge", true), ("/var/log/no-such-edge/below", false)] {
        write_private(&file, yaml.replace("path: access.log", &format!("path: {folder}/access.log")));
        let checked = sentry_edge(&["check", "-c", file.to_str().unwrap()]);
        let said = text(&checked.stderr);
        assert_eq!(checked.status.success(), is_warning, "{said}");
        assert!(said.contains(&format!("{folder}: No such file or directory")), "{said}");
        assert_eq!(
            said.contains("log.access.path: warning: ") && said.contains("LogsDirectory="),
            is_warning,
            "{said}"
        );
    }
}

#[test]
fn a_port_in_use_is_no_fault_of_the_file() {
    let app = origin("app");
    let (_folder, file) = edge().service("iqueue", &app).write();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let yaml = std::fs::read_to_string(&file).unwrap();
    write_private(&file, yaml.replacen("127.0.0.1:0", &taken.local_addr().unwrap().to_string(), 1));
    let checked = sentry_edge(&["check", "-c", file.to_str().unwrap()]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
}

#[test]
fn an_address_of_a_link_is_one_of_each_interface() {
    let app = origin("app");
    let (_folder, file) = edge().service("iqueue", &app).write();
    let yaml = std::fs::read_to_string(&file).unwrap();
    for (one, other, is_good) in [
        ("[fe80::1%2]:443", "[fe80::1%3]:443", true),
        ("[fe80::1%2]:443", "[fe80::1%2]:443", false),
        ("[::ffff:10.0.0.1]:443", "10.0.0.2:443", true),
    ] {
        write_private(&file, yaml.replacen("127.0.0.1:0", one, 1).replacen("127.0.0.1:0", other, 1));
        let checked = sentry_edge(&["check", "-c", file.to_str().unwrap()]);
        assert_eq!(checked.status.success(), is_good, "{one} and {other}: {}", text(&checked.stderr));
    }
}

#[test]
fn more_connections_than_open_files_are_a_warning() {
    let app = origin("app");
    let (_folder, file) = edge().service("iqueue", &app).server("limits: {connections: 900000000}").write();
    let checked = sentry_edge(&["check", "-c", file.to_str().unwrap()]);
    let said = text(&checked.stderr);
    assert!(checked.status.success() && said.contains("server.limits.connections: warning: "), "{said}");
}

#[test]
fn every_address_of_ipv6_and_every_address_of_ipv4_have_one_port() {
    let app = origin("app");
    let (folder, file) = edge().service_with("iqueue", &app, "access: public").write();
    let port = free_address().port();
    let yaml = std::fs::read_to_string(&file).unwrap().replace("level: warn", "level: info");
    let yaml = yaml.replacen(
        "{address: \"127.0.0.1:0\", protocol: https}",
        &format!("{{address: \"0.0.0.0:{port}\", protocol: https}}, {{address: \"[::]:{port}\", protocol: https}}"),
        1,
    );
    write_private(&file, yaml);
    let path = file.to_str().unwrap();
    let checked = sentry_edge(&["check", "-c", path]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    let mut run = Running::start(&["run", "-c", path]);
    eventually("it listens on both", || {
        assert!(!run.has_ended(), "{}", run.stderr());
        let connects = |host: &str| TcpStream::connect((host, port)).is_ok();
        connects("127.0.0.1") && connects("::1")
    });
    for host in ["127.0.0.1", "::1"] {
        let address = std::net::SocketAddr::new(host.parse().unwrap(), port);
        let mut connection = Connection::open(address, "iqueue.test").unwrap();
        assert_eq!(connection.get("iqueue.test", "/").unwrap().0, 200, "{host}");
    }
    drop(folder);
}
