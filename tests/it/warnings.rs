//! Warnings beside faults: what `check` says of a configuration that can be served, what `--strict` makes of it, and
//! what the log says of it at start and at a reload.
//!
//! A row of the table is the good configuration of `configuration` with one edit. « and » stand around what the warning
//! is about, as they do there.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::configuration::{Checked, GOOD, check, folder, run, without_marks};
use crate::harness::certificates::ca;
use crate::harness::{edge, eventually, origin, write_private};

/// What is edited, and of which key what is said and what is proposed.
type Row = ([&'static str; 2], [&'static str; 3]);

const MEMORY: &str = "sessions: {store: memory}";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Pools that nothing leads to.
    (["  second:\n", "  «third»: {servers: [\"127.0.0.1:9004\"]}\n  second:\n"], ["pools.third", "no service and no route leads to it", "remove it"]),
    (["    pool: second\n", "    pool: first\n"], ["pools.second", "no service and no route leads to it", "remove it"]),
    // Whoever may say who the client is.
    (["10.0.0.0/8", "«0.0.0.0/0»"], ["server.trusted_proxies[0]", "0.0.0.0/0 is no network of proxies", "the proxies alone"]),
    (["10.0.0.0/8", "«::/0»"], ["server.trusted_proxies[0]", "::/0 is no network of proxies", "the proxies alone"]),
    (["[\"10.0.0.0/8\"]", "[\"10.0.0.0/8\", «\"128.0.0.0/1\"»]"], ["server.trusted_proxies[1]", "128.0.0.0/1 is no network", "the proxies alone"]),
    (["10.0.0.0/8", "«::ffff:0:0/96»"], ["server.trusted_proxies[0]", "is no network of proxies", "the proxies alone"]),
    (["10.0.0.0/8", "«2000::/3»"], ["server.trusted_proxies[0]", "2000::/3 is no network", "the proxies alone"]),
    // Bounds that bound nothing.
    (["    header_count: 50", "    «header_timeout»: 1h"], ["server.limits.header_timeout", "a long time", "write 5m or less"]),
    (["timeouts: {read: 60s}", "timeouts: {tls_handshake: «365d»}"], ["server.timeouts.tls_handshake", "a long time", "write 1m or less"]),
    (["path: users.db}}", "path: users.db}, refresh: «1day»}"], ["users.refresh", "stay signed in for as long", "write 5m or less"]),
    ([MEMORY, "sessions: {store: memory, session_recheck_interval: «1h»}"], ["sessions.session_recheck_interval", "streams outlive their sessions", "write 10m or less"]),
    ([MEMORY, "sessions: {store: memory, on_outage: {policy: recent, within: «1day»}}"], ["sessions.on_outage.within", "sessions that were ended pass", "write 1h or less"]),
    (["    pool: second\n", "    pool: second\n    on_outage: {policy: recent, within: «1day»}\n"], ["services.dextor.on_outage.within", "sessions that were ended pass", "write 1h or less"]),
    (["failures_per_account: 5 per 15m", "deadline: «1h»"], ["sentry.login.deadline", "no client waits so long", "write 5m or less"]),
    // What leads nowhere.
    (["{path: /status, access: public}", "{path: /status, files: {root: /etc, fallback: «/none.html»}}"], ["services.iqueue.routes[0].files.fallback", "there is no such file below `root`", "name a file that is there"]),
    (["idle_timeout: 30m", "maintenance: {file: «/nonexistent/away»}"], ["services.iqueue.maintenance.file", "there is no folder /nonexistent", "make the folder"]),
    // What does not reach the application.
    (["idle_timeout: 30m", "forward_token: «bearer»"], ["services.iqueue.forward_token", "`Authorization` of clients does not reach the application, not even on /status", "a service of its own"]),
    // Values that are not taken as they are written.
    (["idle_timeout: 30m", "idle_timeout: «24h»"], ["services.iqueue.idle_timeout", "longer than sentry.token.lifetime, so it is 12h", "write 12h or less"]),
    (["failures_per_account: 5 per 15m", "workers: «65»"], ["sentry.login.workers", "out of bounds, so it is 64", "write 1 to 64"]),
    (["failures_per_account: 5 per 15m", "queue: «0»"], ["sentry.login.queue", "out of bounds, so it is 1", "write 1 to 10000"]),
];

fn check_strictly(file: &Path) -> Checked {
    run(&["check", "-c", file.to_str().unwrap(), "--strict"])
}

/// Holds what `check` says against the warnings that are expected, `LINE: key: warning: …` each, and then `--strict`.
fn warns(what: &str, file: &Path, expected: &[(Option<usize>, &str, &str, &str)]) {
    let checked = check(file);
    assert_eq!(checked.status, Some(0), "{what}: {}", checked.stderr);
    assert_eq!(checked.stdout, format!("{}: configuration OK\n", file.display()), "{what}");
    let lines: Vec<&str> = checked.stderr.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{what}: {}", checked.stderr);
    for (line, (number, key, says, write)) in lines.iter().zip(expected) {
        let place = number.map(|number| format!(":{number}")).unwrap_or_default();
        let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
        let begin = format!("{}{place}: {key}warning: ", file.display());
        let rest = line.strip_prefix(&begin).unwrap_or_else(|| panic!("{what}: {line} does not begin with {begin}"));
        let (said, proposed) = rest.rsplit_once("; ").unwrap();
        assert!(said.contains(says) && proposed.contains(write), "{what}: {line}");
    }
    let strictly = check_strictly(file);
    let nothing_wrong = expected.is_empty();
    assert_eq!(strictly.status, Some(i32::from(!nothing_wrong)), "{what}: {}", strictly.stderr);
    assert_eq!(strictly.stdout.is_empty(), !nothing_wrong, "{what}: {}", strictly.stdout);
    assert_eq!(strictly.stderr, checked.stderr, "{what}: the same is said");
}

/// The number of the line that holds the mark, or this text, counted from 1.
fn line_of(text: &str, words: &str) -> usize {
    let found =
        text.lines().position(|line| line.contains('«')).or_else(|| text.lines().position(|line| line.contains(words)));
    found.unwrap() + 1
}

#[test]
fn a_warning_is_printed_with_its_line_and_is_a_fault_to_strict_alone() {
    let (_folder, file) = folder(&without_marks(GOOD));
    warns("nothing to say", &file, &[]);
    for (edit, [key, says, write]) in ROWS {
        assert_eq!(GOOD.matches(edit[0]).count(), 1, "`{}` stands once", edit[0]);
        let marked = GOOD.replace(edit[0], edit[1]);
        let (_folder, file) = folder(&without_marks(&marked));
        let line = line_of(&marked, "  second:");
        warns(edit[1], &file, &[(Some(line), key, says, write)]);
    }
}

#[test]
fn a_runtime_directory_that_others_may_take_away_is_named_and_used() {
    let text = without_marks(GOOD).replace("  threads: 2\n", "  threads: 2\n  runtime_dir: mount/run\n");
    let (folder, file) = folder(&text);
    let mount = folder.path().join("mount");
    std::fs::create_dir(&mount).unwrap();
    for (mode, warned) in [(0o777, true), (0o2777, true), (0o1777, false), (0o755, false)] {
        std::fs::set_permissions(&mount, std::fs::Permissions::from_mode(mode)).unwrap();
        let what = "another user may take its folder away: others may write to";
        let warning = (Some(3), "server.runtime_dir", what, "a folder of the edge's own");
        warns(&format!("{mode:o}"), &file, &[warning][..usize::from(warned)]);
    }
}

#[test]
fn a_listener_that_believes_nearly_everybody_is_named_too() {
    let text = GOOD
        .replace("10.0.0.0/8", "0.0.0.0/0")
        .replace("      protocol: https", "      protocol: https\n      proxy_protocol: true");
    let (_folder, file) = folder(&without_marks(&text));
    warns(
        "the PROXY protocol of all",
        &file,
        &[
            (Some(6), "server.listeners[0].proxy_protocol", "nearly every address", "narrow server.trusted_proxies"),
            (Some(9), "server.trusted_proxies[0]", "no network of proxies", "the proxies alone"),
        ],
    );
}

#[test]
fn warnings_stand_beside_faults_in_the_order_of_the_lines() {
    let text =
        GOOD.replace("10.0.0.0/8", "0.0.0.0/0").replace("drain: 5s", "drain: soon").replace("threads: 2", "threads: 0");
    let (_folder, file) = folder(&without_marks(&text));
    for checked in [check(&file), check_strictly(&file)] {
        assert_eq!((checked.status, checked.stdout.as_str()), (Some(1), ""));
        let lines: Vec<&str> = checked.stderr.lines().collect();
        assert_eq!(lines.len(), 3, "{}", checked.stderr);
        assert!(lines[0].contains(":2: server.threads: 0 threads; "), "{}", lines[0]);
        assert!(lines[1].contains(":8: server.trusted_proxies[0]: warning: "), "{}", lines[1]);
        assert!(lines[2].contains(":9: server.drain: ") && !lines[2].contains("warning"), "{}", lines[2]);
    }
}

/// The files of the good configuration and of the additions below, the mode from which each is warned of, and whether
/// it holds what nobody else may read.
const FILES: &[(&str, &str, bool)] = &[
    ("edge.key", "tls.certificates[0].key", true),
    ("edge.pem", "tls.certificates[0].certificate", false),
    ("signing.key", "sentry.keys[0].secret", true),
    ("public.pem", "sentry.keys[1].public_key", false),
    ("private.pem", "sentry.keys[2].private_key", true),
    ("tickets.key", "tls.tickets.secret", true),
    ("admin.token", "server.admin.token", true),
    ("users.db", "users.sqlite.path", true),
    ("clients.pem", "services.iqueue.tls.client_ca", false),
    ("upstream.pem", "pools.first.tls.ca", false),
    ("client.pem", "pools.first.tls.client_certificate", false),
    ("client.key", "pools.first.tls.client_key", true),
    ("logo.svg", "sentry.login.logo", false),
    ("edge.yaml", "", false),
];

#[test]
fn a_file_that_all_may_read_or_write_is_named_where_that_matters() {
    let text = GOOD
        .replace("{value: SECRET}", "{file: signing.key}")
        .replace(
            "  cookie: {name",
            "    - {id: third, algorithm: EdDSA, private_key: {file: private.pem}}\n  cookie: {name",
        )
        .replace("  certificates:\n", "  tickets: {secret: {file: tickets.key}}\n  certificates:\n")
        .replace("\"127.0.0.1:9090\"}", "\"127.0.0.1:9090\", token: {file: admin.token}}")
        .replace("    idle_timeout: 30m", "    tls: {client_ca: clients.pem}")
        .replace(
            "    retries: 2\n",
            "    tls: {ca: upstream.pem, client_certificate: client.pem, client_key: client.key}\n",
        )
        .replace("failures_per_account: 5 per 15m", "logo: logo.svg");
    let (folder, file) = folder(&text);
    let client = ca().issue_client_until("edge", SystemTime::now() + Duration::from_secs(100 * 24 * 3600));
    for (name, content) in [
        ("signing.key", "a-signing-key-of-more-than-thirty-two-bytes".to_owned()),
        ("private.pem", text_of_a_key()),
        ("tickets.key", "a-ticket-secret-of-more-than-thirty-two-bytes".into()),
        ("admin.token", "an-admin-token-of-more-than-thirty-two-bytes".into()),
        ("users.db", String::new()),
        ("clients.pem", ca().pem.clone()),
        ("upstream.pem", ca().pem.clone()),
        ("client.pem", client.pem),
        ("client.key", client.key),
        ("logo.svg", "<svg/>".into()),
    ] {
        write_private(folder.path().join(name), content);
    }
    let set = |name: &str, mode: u32| {
        std::fs::set_permissions(folder.path().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    warns("their owner's alone", &file, &[]);
    for (name, key, is_secret) in FILES {
        for mode in [0o640, 0o660, 0o644, 0o604, 0o646, 0o602, 0o777, 0o601] {
            set(name, mode);
            let may = match mode {
                _ if mode & 0o002 != 0 => Some("write"),
                _ if mode & 0o004 != 0 && *is_secret => Some("read"),
                _ => None,
            };
            let checked = check(&file);
            assert_eq!(checked.status, Some(0), "{name} {mode:o}: {}", checked.stderr);
            let expected = usize::from(may.is_some());
            assert_eq!(checked.stderr.lines().count(), expected, "{name} {mode:o}: {}", checked.stderr);
            if let Some(may) = may {
                let said = format!("every user of this machine may {may} it: it has mode {mode:04o}; ");
                assert!(checked.stderr.contains(&said), "{name} {mode:o}: {}", checked.stderr);
                let named =
                    if key.is_empty() { "edge.yaml: warning: ".to_owned() } else { format!(": {key}: warning: ") };
                assert!(checked.stderr.contains(&named), "{name} {mode:o}: {}", checked.stderr);
            }
        }
        set(name, 0o600);
    }
    // Who may write to the folder may put another file in the place of each, unless it is one such as /tmp.
    set(".", 0o1777);
    warns("a sticky folder", &file, &[]);
    set(".", 0o777);
    let checked = check(&file);
    assert_eq!(
        checked.stderr.matches("may replace it: its folder has mode 0777").count(),
        FILES.len(),
        "{}",
        checked.stderr
    );
    set(".", 0o700);
}

fn text_of_a_key() -> String {
    let key = sentry_edge::auth::keys::generate(sentry_edge::config::Algorithm::EdDSA).unwrap();
    key.to_string()
}

#[test]
fn a_configuration_with_secrets_in_it_is_nothing_for_all_to_read() {
    let (folder, file) = folder(&without_marks(GOOD));
    for (mode, lines) in [(0o600, 0), (0o640, 0), (0o644, 1), (0o666, 1)] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let checked = check(&file);
        assert_eq!((checked.status, checked.stderr.lines().count()), (Some(0), lines), "{mode:o}: {}", checked.stderr);
        if lines > 0 {
            assert!(
                checked.stderr.contains(": sentry.keys[0].secret: warning: of this configuration file: every user"),
                "{}",
                checked.stderr
            );
        }
    }
    drop(folder);
}

#[test]
fn a_certificate_that_ends_within_a_month_is_named() {
    let day = Duration::from_secs(24 * 3600);
    let names = ["sentry.test", "iqueue.test", "dextor.test"];
    for (left, near) in [(31, false), (29, true), (5, true)] {
        let (folder, file) = folder(&without_marks(GOOD));
        let issued = ca().issue_until(&names, SystemTime::now() + left * day);
        write_private(folder.path().join("edge.pem"), issued.pem);
        write_private(folder.path().join("edge.key"), issued.key);
        let line = line_of(GOOD, "certificate: edge.pem");
        let says = format!("it ends in {} days, at ", left - 1);
        let expected = [(Some(line), "tls.certificates[0].certificate", says.as_str(), "renew it")];
        warns(&format!("{left} days"), &file, if near { &expected } else { &[] });
    }
    let text = GOOD.replace(
        "    retries: 2\n",
        "    tls: {client_certificate: client.pem, client_key: client.key, ca: edge.pem}\n",
    );
    let (folder, file) = folder(&without_marks(&text));
    let issued = ca().issue_client_until("edge", SystemTime::now() + 10 * day);
    write_private(folder.path().join("client.pem"), issued.pem);
    write_private(folder.path().join("client.key"), issued.key);
    let line = line_of(&text, "client_certificate");
    let expected = [(Some(line), "pools.first.tls.client_certificate", "it ends in 9 days, at ", "renew it")];
    warns("what the edge shows to applications", &file, &expected);
}

#[test]
fn warnings_are_logged_at_start_and_at_a_reload() {
    let iqueue = origin("iqueue");
    let builder = edge().service("iqueue", &iqueue).pool("spare", "{servers: [\"127.0.0.1:9\"]}");
    let daemon = builder.run();
    let said = |key: &str| {
        let stderr = daemon.process.stderr();
        stderr.lines().filter(|line| line.contains("WARN") && line.contains(&format!(": {key}: warning: "))).count()
    };
    eventually("said at start", || said("pools.spare") == 1);
    daemon.reload(|yaml| yaml.replacen("drain: 5s", "drain: 5s, trusted_proxies: [\"0.0.0.0/0\"]", 1));
    eventually("said at the reload", || said("pools.spare") == 2 && said("server.trusted_proxies[0]") == 1);
    // A configuration that is refused is not taken up, and its warnings stand beside its faults.
    daemon.reload(|yaml| yaml.replacen("drain: 5s", "drain: soon", 1));
    eventually("refused", || daemon.process.stderr().contains("configuration refused"));
    assert_eq!((said("pools.spare"), daemon.client().get(&daemon.url("iqueue", "/")).status), (2, 401));
}
