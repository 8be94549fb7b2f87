//! What each signal does to a running edge, and that none of those that administrators send kills it.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use crate::harness::daemon::Running;
use crate::harness::process::sentry_edge;
use crate::harness::{Connection, Daemon, Origin, edge, eventually, origin};

fn serving(origin: &Origin) -> Daemon {
    edge().service_with("iqueue", origin, "access: public").run()
}

fn status(daemon: &Daemon) -> u16 {
    Connection::open(daemon.address, "iqueue.test").unwrap().get("iqueue.test", "/").unwrap().0
}

fn told(process: &Running, what: &str) -> usize {
    process.stderr().lines().filter(|line| line.contains(what)).count()
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// What a signal does to an edge that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// This is logged, and it serves on.
    Logged(&'static str),
    /// It serves on, and nothing is logged.
    Nothing,
    /// It ends with status 0, after this was logged.
    Ends(&'static str),
    /// It stands still until SIGCONT.
    Stops,
    /// The same at a terminal; elsewhere, as in an orphaned process group (POSIX), nothing.
    StopsAtTerminals,
    /// It is killed: the signal cannot be caught, or reports a fault of the program.
    Kills,
    /// `upgrades` has its tests.
    Elsewhere,
}

/// Every signal from 1 to 31, as Linux numbers them on x86 and ARM (signal(7)).
const SIGNALS: [(&str, Effect); 31] = [
    ("HUP", Effect::Logged("configuration reloaded hash=")),
    ("INT", Effect::Ends("SIGINT: stopped at once")),
    ("QUIT", Effect::Ends("SIGQUIT: draining")),
    ("ILL", Effect::Kills),
    ("TRAP", Effect::Kills),
    ("ABRT", Effect::Kills),
    ("BUS", Effect::Kills),
    ("FPE", Effect::Kills),
    ("KILL", Effect::Kills),
    ("USR1", Effect::Logged("SIGUSR1: logs are opened again")),
    ("SEGV", Effect::Kills),
    ("USR2", Effect::Elsewhere),
    ("PIPE", Effect::Nothing),
    ("ALRM", Effect::Logged("SIGALRM: means nothing here")),
    ("TERM", Effect::Ends("SIGTERM: draining")),
    ("STKFLT", Effect::Logged("SIGSTKFLT: means nothing here")),
    ("CHLD", Effect::Nothing),
    ("CONT", Effect::Logged("SIGCONT: means nothing here")),
    ("STOP", Effect::Stops),
    ("TSTP", Effect::StopsAtTerminals),
    ("TTIN", Effect::Logged("SIGTTIN: means nothing here")),
    ("TTOU", Effect::Logged("SIGTTOU: means nothing here")),
    ("URG", Effect::Nothing),
    ("XCPU", Effect::Logged("SIGXCPU: means nothing here")),
    ("XFSZ", Effect::Logged("SIGXFSZ: means nothing here")),
    ("VTALRM", Effect::Logged("SIGVTALRM: means nothing here")),
    ("PROF", Effect::Logged("SIGPROF: means nothing here")),
    ("WINCH", Effect::Logged("SIGWINCH: means nothing here")),
    ("IO", Effect::Logged("SIGIO: means nothing here")),
    ("PWR", Effect::Logged("SIGPWR: means nothing here")),
    ("SYS", Effect::Kills),
];

/// The state of a process, as `/proc/PID/stat` has it.
fn state(process: &Running) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    stat.rsplit(") ").next().unwrap().chars().next().unwrap()
}

#[test]
fn every_signal_does_what_the_table_says() {
    let app = origin("app");
    let start = || edge().service_with("iqueue", &app, "access: public").run_with_limit(("-c", 0), |_| {});
    let mut daemon = start();
    for (at, (name, effect)) in SIGNALS.into_iter().enumerate() {
        let number = (at + 1).to_string();
        let send = |daemon: &Daemon| daemon.process.signal(&number);
        let before = |daemon: &Daemon, text| told(&daemon.process, text);
        match effect {
            Effect::Logged(text) => {
                let so_far = before(&daemon, text);
                send(&daemon);
                eventually(&format!("SIG{name}: {text}"), || told(&daemon.process, text) == so_far + 1);
            }
            Effect::Nothing => send(&daemon),
            Effect::Ends(text) => {
                send(&daemon);
                assert_eq!(daemon.process.end().code(), Some(0), "SIG{name}");
                assert_eq!(told(&daemon.process, text), 1, "SIG{name}: {}", daemon.process.stderr());
                daemon = start();
            }
            Effect::Stops => {
                send(&daemon);
                eventually(&format!("SIG{name} stops it"), || state(&daemon.process) == 'T');
                daemon.process.signal("CONT");
            }
            Effect::StopsAtTerminals => {
                send(&daemon);
                daemon.process.signal("CONT");
            }
            Effect::Kills => {
                // The standard library takes a first SEGV or BUS, which may be an overflow of the stack, and gives up then.
                eventually(&format!("SIG{name} kills it"), || {
                    send(&daemon);
                    daemon.process.has_ended()
                });
                assert_eq!(daemon.process.end().signal(), Some(at as i32 + 1), "SIG{name}");
                daemon = start();
            }
            Effect::Elsewhere => continue,
        }
        assert_eq!(status(&daemon), 200, "SIG{name}");
    }
    assert!(!daemon.process.has_ended());
    for number in ["34", "40", "64"] {
        daemon.process.signal(number);
        let expected = format!("real-time signal {number}: ");
        eventually(&expected, || told(&daemon.process, &expected) == 1);
    }
    assert_eq!(status(&daemon), 200);
}

#[test]
fn usr1_hup_and_the_command_reload_open_the_logs_again_and_lose_no_line() {
    let app = origin("app");
    let daemon = serving(&app);
    let folder = daemon.folder.path();
    for (turn, name) in ["USR1", "HUP", "the command"].into_iter().enumerate() {
        let (log, moved) = (folder.join("access.log"), folder.join(format!("access.log.{turn}")));
        let before = lines(&log).len();
        let mut connection = Connection::open(daemon.address, "iqueue.test").unwrap();
        let mut ask = |path: &str| assert_eq!(connection.get("iqueue.test", path).unwrap().0, 200);
        (0..50).for_each(|n| ask(&format!("/before/{n}")));
        for log in ["access.log", "audit.log"] {
            std::fs::rename(folder.join(log), folder.join(format!("{log}.{turn}"))).unwrap();
        }
        match name {
            "the command" => {
                let reload = sentry_edge(&["reload", "-c", daemon.file.to_str().unwrap()]);
                assert!(reload.status.success(), "{}", String::from_utf8_lossy(&reload.stderr));
            }
            name => daemon.process.signal(name),
        }
        (0..50).for_each(|n| ask(&format!("/between/{n}")));
        eventually("both files are there again", || log.exists() && folder.join("audit.log").exists());
        (0..50).for_each(|n| ask(&format!("/after/{n}")));
        eventually("every line is in one of the two", || lines(&log).len() + lines(&moved).len() == before + 150);
        let all: Vec<serde_json::Value> = [lines(&moved), lines(&log)]
            .concat()
            .iter()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect();
        let paths: Vec<&str> = all[before..].iter().map(|line| line["path"].as_str().unwrap()).collect();
        let expected: Vec<String> = ["before", "between", "after"]
            .iter()
            .flat_map(|part| (0..50).map(move |n| format!("/{part}/{n}")))
            .collect();
        assert_eq!(paths, expected, "in their order");
        assert!(lines(&log).iter().any(|line| line.contains("/after/49")));
    }
    assert!(daemon.metric("sentry_edge_config_reloads_total", "result=\"ok\"") >= 1.0, "HUP reloads as well");
}

#[test]
fn quit_drains_as_term_does() {
    let held = Origin::held();
    let mut daemon = serving(&held);
    let mut connection = Connection::open(daemon.address, "iqueue.test").unwrap();
    let in_flight = std::thread::spawn(move || connection.get("iqueue.test", "/").map(|(status, _)| status).ok());
    eventually("the request is at the application", || held.count() == 1);
    daemon.process.signal("QUIT");
    eventually("it drains", || daemon.admin("/readyz").status == 503);
    held.release();
    assert_eq!(in_flight.join().unwrap(), Some(200));
    assert_eq!(daemon.process.end().code(), Some(0));
}

#[test]
fn a_drain_goes_on_whatever_comes_until_sigint() {
    let held = Origin::held();
    let mut daemon =
        edge().service_with("iqueue", &held, "access: public").run_with(|yaml| yaml.replace("drain: 5s", "drain: 1h"));
    let mut connection = Connection::open(daemon.address, "iqueue.test").unwrap();
    let in_flight = std::thread::spawn(move || connection.get("iqueue.test", "/").is_ok());
    eventually("the request is at the application", || held.count() == 1);
    daemon.process.signal("TERM");
    eventually("it drains", || daemon.admin("/readyz").status == 503);
    for (name, expected) in [
        ("TERM", "SIGTERM: draining already"),
        ("QUIT", "SIGQUIT: draining already"),
        ("HUP", "SIGHUP: draining, so no reload"),
        ("USR1", "SIGUSR1: logs are opened again"),
        ("USR2", "SIGUSR2: no upgrade: this process drains"),
        ("ALRM", "SIGALRM: means nothing"),
    ] {
        daemon.process.signal(name);
        eventually(expected, || told(&daemon.process, expected) == 1);
    }
    assert!(!daemon.process.has_ended());
    daemon.process.signal("INT");
    assert_eq!(daemon.process.end().code(), Some(0));
    assert!(!in_flight.join().unwrap(), "it was cut off");
    assert_eq!(told(&daemon.process, "stopped; 1 requests were cut off"), 1, "{}", daemon.process.stderr());
}

#[test]
fn signals_during_a_start_that_takes_long_are_heard() {
    let app = origin("app");
    for (name, ends) in
        [("USR1", false), ("ALRM", false), ("USR2", false), ("TERM", true), ("QUIT", true), ("INT", true)]
    {
        let (folder, config) = edge().service_with("iqueue", &app, "access: public").write();
        let yaml = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, yaml.replace("level: warn", "level: info")).unwrap();
        // As on a file server that does not answer: it hangs where it opens the key.
        let key = folder.path().join("edge.key");
        std::fs::remove_file(&key).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&key).status().unwrap().success());
        let mut process = Running::start(&["run", "-c", config.to_str().unwrap()]);
        eventually("it hears signals", || process.hears(64));
        process.signal(name);
        eventually("it is logged", || told(&process, &format!("SIG{name}: ")) == 1);
        if ends {
            assert_eq!(process.end().code(), Some(0), "SIG{name}: {}", process.stderr());
        } else {
            assert!(!process.has_ended(), "SIG{name}: {}", process.stderr());
        }
    }
}
