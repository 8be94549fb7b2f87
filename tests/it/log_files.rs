//! Log files that are moved, deleted or have no room: no line is torn, and none is lost without a figure that says so.

use std::collections::HashMap;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::harness::edge::PASSWORD;
use crate::harness::{Connection, Daemon, Http2, Origin, edge, eventually, origin};

/// Times that the log is moved while requests are answered.
const ROTATIONS: usize = 20;

fn with_folder(app: &Origin) -> crate::harness::edge::Builder {
    edge()
        .service_with("iqueue", app, "access: public")
        .log("{level: info, access: {path: logs/access.log}, audit: {path: logs/audit.log}}")
}

fn run(app: &Origin) -> Daemon {
    with_folder(app).run_in(|folder| std::fs::create_dir(folder.join("logs")).unwrap())
}

fn status(daemon: &Daemon) -> u16 {
    Connection::open(daemon.address, "iqueue.test").unwrap().get("iqueue.test", "/").unwrap().0
}

fn lost(daemon: &Daemon) -> (f64, f64) {
    (
        daemon.metric("sentry_edge_log_write_errors_total", "log=\"access-log\""),
        daemon.metric("sentry_edge_log_lines_dropped_total", "log=\"access-log\""),
    )
}

/// What the process log says of something, in lines.
fn said(daemon: &Daemon, what: &str) -> usize {
    daemon.process.stderr().lines().filter(|line| line.contains(what)).count()
}

#[test]
fn twenty_rotations_under_load_lose_no_line_and_tear_none() {
    let app = origin("app");
    let mut daemon = run(&app);
    let folder = daemon.folder.path().join("logs");
    let log = folder.join("access.log");
    let (answered, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut paths: Vec<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let (answered, over, address) = (&answered, &over, daemon.address);
                scope.spawn(move || {
                    let mut http1 = Connection::open(address, "iqueue.test").unwrap();
                    let mut http2 = Http2::open(address, "iqueue.test");
                    let mut paths = Vec::new();
                    while !over.load(Ordering::Relaxed) {
                        let path = format!("/{client}/{}", paths.len());
                        if paths.len() % 2 == 0 {
                            assert_eq!(http1.get("iqueue.test", &path).unwrap().0, 200);
                        } else {
                            let response = http2.get(&path, "");
                            assert_eq!((response.status, response.end().is_ok()), (200, true));
                        }
                        paths.push(path);
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    paths
                })
            })
            .collect();
        let more = || {
            let before = answered.load(Ordering::Relaxed);
            eventually("requests are answered", || answered.load(Ordering::Relaxed) > before + 20);
        };
        for turn in 0..ROTATIONS {
            more();
            std::fs::rename(&log, folder.join(format!("access.log.{turn}"))).unwrap();
            more();
            daemon.process.signal(if turn % 2 == 0 { "USR1" } else { "HUP" });
            eventually("there is a new file", || log.exists());
        }
        more();
        over.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    daemon.process.signal("TERM");
    assert_eq!(daemon.process.end().code(), Some(0));
    let mut written: HashMap<String, usize> = HashMap::new();
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let files: Vec<_> = files.iter().filter(|file| file.to_str().unwrap().contains("access.log")).collect();
    assert_eq!(files.len(), ROTATIONS + 1);
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "{}", file.display());
        for line in text.lines() {
            let line: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{}: {error}: {line}", file.display()));
            *written.entry(line["path"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    paths.retain(|path| written.remove(path) != Some(1));
    assert!(paths.is_empty(), "answered, and not in the logs once: {paths:?}");
    assert!(written.is_empty(), "in the logs, and not answered: {written:?}");
}

/// Makes a log file unwritable, and later writable again.
struct Loss {
    what: &'static str,
    begin: fn(&Path),
    end: fn(&Path),
}

const LOSSES: [Loss; 3] = [
    Loss {
        what: "the folder was removed",
        begin: |logs| std::fs::remove_dir_all(logs).unwrap(),
        end: |logs| std::fs::create_dir(logs).unwrap(),
    },
    Loss {
        what: "a file is in its place",
        begin: |logs| {
            std::fs::remove_dir_all(logs).unwrap();
            std::fs::write(logs, "").unwrap();
        },
        end: |logs| {
            std::fs::remove_file(logs).unwrap();
            std::fs::create_dir(logs).unwrap();
        },
    },
    Loss {
        what: "the disk is full",
        begin: |logs| {
            std::fs::remove_file(logs.join("access.log")).unwrap();
            symlink("/dev/full", logs.join("access.log")).unwrap();
        },
        end: |logs| std::fs::remove_file(logs.join("access.log")).unwrap(),
    },
];

#[test]
fn what_cannot_be_written_is_counted_and_said_and_the_log_goes_on_by_itself() {
    let app = origin("app");
    for Loss { what, begin, end } in LOSSES {
        let daemon = run(&app);
        let logs = daemon.folder.path().join("logs");
        assert_eq!(status(&daemon), 200);
        eventually("its line is written", || std::fs::metadata(logs.join("access.log")).unwrap().len() > 0);
        begin(&logs);
        for turn in 1..=3 {
            assert_eq!(status(&daemon), 200, "{what}");
            eventually(&format!("each line is counted, {what}"), || lost(&daemon).1 >= f64::from(turn));
        }
        assert!(lost(&daemon).0 >= 1.0, "{what}");
        eventually(what, || said(&daemon, "access-log: lines are lost: ") == 1);
        end(&logs);
        eventually(&format!("it is over, {what}"), || {
            assert_eq!(status(&daemon), 200, "{what}");
            said(&daemon, "access-log: lines are written again; ") == 1
        });
        let text = std::fs::read_to_string(logs.join("access.log")).unwrap();
        assert!(!text.is_empty() && text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    }
}

#[test]
fn a_file_that_was_deleted_is_made_anew_without_a_signal() {
    let app = origin("app");
    let daemon = run(&app);
    let log = daemon.folder.path().join("logs/access.log");
    assert_eq!(status(&daemon), 200);
    eventually("its line is written", || std::fs::metadata(&log).unwrap().len() > 0);
    std::fs::remove_file(&log).unwrap();
    for _ in 0..3 {
        assert_eq!(status(&daemon), 200);
    }
    eventually("the lines are there", || std::fs::read_to_string(&log).unwrap_or_default().lines().count() == 3);
    assert_eq!(lost(&daemon), (0.0, 0.0));
}

#[test]
fn a_file_that_may_not_grow_loses_lines_by_count_and_whole_ones_after_the_next_rotation() {
    let app = origin("app");
    // In blocks of 512 or 1024 bytes, by the shell.
    let daemon =
        with_folder(&app).run_with_limit(("-f", 128), |folder| std::fs::create_dir(folder.join("logs")).unwrap());
    let log = daemon.folder.path().join("logs/access.log");
    let mut connection = Connection::open(daemon.address, "iqueue.test").unwrap();
    eventually("the file is full", || {
        assert_eq!(connection.get("iqueue.test", "/").unwrap().0, 200);
        lost(&daemon).1 >= 1.0
    });
    assert!(lost(&daemon).0 >= 1.0 && said(&daemon, "access-log: lines are lost: File too large") == 1);
    std::fs::rename(&log, log.with_extension("log.1")).unwrap();
    daemon.process.signal("USR1");
    eventually("there is a new file", || log.exists());
    assert_eq!(connection.get("iqueue.test", "/after").unwrap().0, 200);
    eventually("it is written", || std::fs::read_to_string(&log).unwrap().contains("/after"));
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{text}");
}

#[test]
fn a_login_that_cannot_be_recorded_is_refused_where_that_is_wanted() {
    let app = origin("app");
    for refuses in [true, false] {
        let word = if refuses { "refuse_logins" } else { "count" };
        let log = format!(
            "{{level: info, access: {{path: access.log}}, audit: {{path: audit.log, on_write_error: {word}}}}}"
        );
        let daemon = edge().service("iqueue", &app).log(&log).run();
        let audit = daemon.folder.path().join("audit.log");
        let unrecorded = || daemon.metric("sentry_edge_logins_total", "result=\"unrecorded\"");
        let url = daemon.url("iqueue", "/");
        let mut before = daemon.client();
        assert_eq!(before.sign_in(&url, "ada", PASSWORD).last().unwrap().status, 200);
        std::fs::remove_file(&audit).unwrap();
        symlink("/dev/full", &audit).unwrap();
        daemon.process.signal("USR1");
        let mut person = daemon.client();
        // Two logins: the first one finds out, the second one is refused at once, whatever the password is.
        eventually("the log is the full one", || said(&daemon, "SIGUSR1: logs are opened again") == 1);
        if !refuses {
            assert_eq!(person.sign_in(&url, "ada", PASSWORD).last().unwrap().status, 200);
            continue;
        }
        eventually("a login is refused", || {
            let form = person.follow(&url).pop().unwrap();
            let refused = form.status == 200 && person.fill_in(&form, "ada", PASSWORD).status == 503;
            if !refused {
                // The writer had not opened the file yet.
                person = daemon.client();
            }
            refused
        });
        for password in [PASSWORD, "not the password"] {
            let form = person.follow(&url).pop().unwrap();
            let refused = person.fill_in(&form, "ada", password);
            assert_eq!(refused.status, 503, "{}", refused.body);
            assert!(refused.body.contains("could not be recorded"), "{}", refused.body);
            assert!(refused.headers.contains_key("retry-after"));
            assert_eq!(person.cookie("sentry.test", crate::harness::edge::TOKEN_COOKIE), None, "no token was sent");
        }
        assert!(unrecorded() >= 3.0);
        assert_eq!(before.open(&url).status, 200, "users who are signed in go on");
        std::fs::remove_file(&audit).unwrap();
        daemon.process.signal("USR1");
        eventually("a login is recorded again", || {
            let form = person.follow(&url).pop().unwrap();
            form.status == 200 && person.fill_in(&form, "ada", PASSWORD).status == 303
        });
        let lines = daemon.log("audit.log", 2);
        let refusal = lines.iter().find(|line| line["event"] == "login_refused").unwrap();
        assert_eq!((&refusal["reason"], &refusal["user"]), (&"unrecorded".into(), &serde_json::Value::Null));
        assert!(lines.iter().any(|line| line["event"] == "login" && line["user"] == "ada"), "{lines:?}");
    }
}

#[test]
fn the_process_log_says_what_runs_and_each_line_has_time_level_and_component() {
    let app = origin("app");
    let mut daemon = edge().service_with("iqueue", &app, "access: public").run();
    assert_eq!(status(&daemon), 200);
    let metrics = daemon.admin("/metrics").body;
    let hash = metrics.split("sentry_edge_config_info{hash=\"").nth(1).unwrap().split('"').next().unwrap();
    let (version, file) = (env!("CARGO_PKG_VERSION"), daemon.file.display());
    for expected in [
        format!("started version={version} config={file} hash={hash}"),
        "pools and their servers: iqueue (1)".into(),
        format!("listening on https://{}", daemon.address),
        "listening on http://127.0.0.1:".into(),
        format!("admin on http://{}", daemon.admin_address()),
    ] {
        eventually(&expected, || said(&daemon, &expected) == 1);
    }
    daemon.process.signal("TERM");
    assert_eq!(daemon.process.end().code(), Some(0));
    for line in daemon.process.stderr().lines() {
        let mut words = line.split_whitespace();
        let (time, level, component) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        assert!(time.len() == 24 && time.ends_with('Z') && time.contains('T'), "{line}");
        assert!(["ERROR", "WARN", "INFO", "DEBUG"].contains(&level), "{line}");
        assert!(component.ends_with(':') && component.len() > 1, "{line}");
    }
}
