//! Pages for operators: key rotation, incidents, backup. Their commands are run as they are written, on a running edge, and
//! do what the pages say.

use std::path::Path;
use std::process::Command;

use sentry_edge::auth::keys;
use sentry_edge::clock::Clock;
use sentry_edge::config::Algorithm;
use serde_yaml::Value;

use crate::harness::edge::PASSWORD;
use crate::harness::{Daemon, edge, eventually, origin, write_private};
use crate::tidy::{read, section};

const MAIN_KEY: &str = "[{id: main, algorithm: ES256, private_key: {file: keys/main.pem}}]";

/// An edge in a process of its own, whose key is where the pages have it.
fn daemon(iqueue: &crate::harness::Origin) -> Daemon {
    let builder = edge().service("iqueue", iqueue).user("ana", &["iqueue"], &[]).user("ben", &["iqueue"], &[]);
    builder.keys(MAIN_KEY).run_in(|folder| {
        std::fs::create_dir(folder.join("keys")).unwrap();
        write_private(folder.join("keys/main.pem"), keys::generate(Algorithm::ES256).unwrap());
    })
}

/// The blocks of code in a part of a page.
fn blocks(page: &str, heading: &str, language: &str) -> Vec<String> {
    let page = read(page);
    let pieces = section(&page, heading).split("```").skip(1).step_by(2);
    let blocks = pieces.filter_map(|block| block.split_once('\n').filter(|(of, _)| *of == language));
    blocks.map(|(_, text)| text.to_owned()).collect()
}

/// Runs commands of a page on the machine of an edge, as its administrator does, and returns what they print.
fn run(daemon: &Daemon, commands: &str) -> String {
    let folder = daemon.folder.path().to_str().unwrap();
    let edits = [
        ("systemctl reload sentry-edge", format!("kill -s HUP {}", daemon.process.id())),
        ("chgrp sentry-edge", "true".into()),
        ("sudo -u sentry-edge ", String::new()),
        ("-o sentry-edge -g sentry-edge ", String::new()),
        ("http://127.0.0.1:9090", format!("http://{}", daemon.admin_address())),
        ("/etc/sentry-edge", folder.into()),
        ("/var/lib/sentry-edge", folder.into()),
        ("/var/backups", folder.into()),
        // The day of the backup is today.
        ("users-2026-11-27.db", "users-2*.db".into()),
        (" NAME ", " ben ".into()),
    ];
    let commands = edits.iter().fold(commands.to_owned(), |text, (from, to)| text.replace(from, to));
    let program = Path::new(env!("CARGO_BIN_EXE_sentry-edge")).parent().unwrap();
    let script = format!("PATH=\"{}:$PATH\"\n{commands}", program.display());
    let output = Command::new("sh").args(["-ec", &script]).current_dir(folder).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{commands}\n{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Changes the configuration as an administrator does between the commands.
fn edit(daemon: &Daemon, change: impl FnOnce(&mut Value)) {
    let mut document = serde_yaml::from_str(&std::fs::read_to_string(&daemon.file).unwrap()).unwrap();
    change(&mut document);
    write_private(&daemon.file, serde_yaml::to_string(&document).unwrap());
}

/// Reloads as the pages do, and waits until it is in effect.
fn reload(daemon: &Daemon) {
    let reloads = || daemon.metric("sentry_edge_config_reloads_total", "result=\"ok\"");
    let before = reloads();
    run(daemon, "systemctl reload sentry-edge");
    eventually("the configuration was read again", || reloads() > before);
}

#[test]
fn every_token_is_invalidated_by_the_commands_of_the_page() {
    let (page, heading) = ("docs/operations/incidents.md", "Invalidate every token");
    let iqueue = origin("iqueue");
    let daemon = daemon(&iqueue);
    let url = daemon.url("iqueue", "/");
    let mut ana = daemon.client();
    ana.sign_in(&url, "ana", PASSWORD);
    assert_eq!(ana.open(&url).status, 200);

    let commands = blocks(page, heading, "");
    run(&daemon, &commands[0]);
    let shown: Value = serde_yaml::from_str(&blocks(page, heading, "yaml")[0]).unwrap();
    edit(&daemon, |document| document["sentry"]["keys"] = shown["sentry"]["keys"].clone());
    let printed = run(&daemon, &commands[1]);
    assert!(printed.contains("configuration OK") && printed.contains("config_last_reload_successful 1"), "{printed}");

    eventually("the new key is in effect", || ana.open(&url).status == 302);
    let current = ana.get(&daemon.url("iqueue", "/.sentry/currentUser"));
    assert_eq!(current.body, r#"{"currentUser":null}"#);
    ana.sign_in(&url, "ana", PASSWORD);
    assert_eq!(ana.open(&url).status, 200, "and signs in again");
}

#[test]
fn no_user_is_signed_out_by_the_rotation_of_the_page() {
    let (page, heading) = ("docs/operations/key-rotation.md", "The signing key");
    let iqueue = origin("iqueue");
    let daemon = daemon(&iqueue);
    let url = daemon.url("iqueue", "/");
    let (mut early, mut late) = (daemon.client(), daemon.client());
    early.sign_in(&url, "ana", PASSWORD);

    // 1. The edge knows the new key.
    run(&daemon, &blocks(page, heading, "")[0]);
    let shown: Value = serde_yaml::from_str(&blocks(page, heading, "yaml")[0]).unwrap();
    edit(&daemon, |document| {
        for part in ["keys", "token"] {
            document["sentry"][part] = shown["sentry"][part].clone();
        }
    });
    reload(&daemon);
    assert_eq!(early.open(&url).status, 200);
    let published = early.get(&daemon.url("iqueue", "/.sentry/jwks.json")).body;
    assert!(published.contains(r#""kid":"main""#) && published.contains(r#""kid":"2026-12""#), "{published}");

    // 2. It signs with it.
    edit(&daemon, |document| document["sentry"]["token"]["sign_with"] = "2026-12".into());
    reload(&daemon);
    assert_eq!(early.open(&url).status, 200);
    late.sign_in(&url, "ben", PASSWORD);

    // 3. The old one goes: before a token's lifetime has passed, here, so that those that it signed are seen to end.
    edit(&daemon, |document| {
        document["sentry"]["keys"].as_sequence_mut().unwrap().retain(|key| key["id"] != "main");
    });
    reload(&daemon);
    assert_eq!(late.open(&url).status, 200);
    assert_eq!(early.open(&url).status, 302);
}

#[test]
fn a_backup_is_made_and_restored_by_the_commands_of_the_page() {
    let page = "docs/operations/backup.md";
    let iqueue = origin("iqueue");
    let daemon = daemon(&iqueue);
    let url = daemon.url("iqueue", "/");
    let (mut ana, mut ben) = (daemon.client(), daemon.client());
    ana.sign_in(&url, "ana", PASSWORD);
    ben.sign_in(&url, "ben", PASSWORD);

    let commands = blocks(page, "Back up the user directory", "");
    run(&daemon, &commands[0]);
    // ana, ben, and the user that every edge of the tests has.
    assert_eq!(run(&daemon, &commands[1]), "ok\n3\n");

    // What is done after it is lost by the restore, but for the ends of sessions.
    run(&daemon, &blocks("docs/operations/incidents.md", "End one user's sessions", "")[0]);
    eventually("ben is out", || ben.open(&url).status == 302);
    let ended = Clock::default().now().seconds();
    run(&daemon, &blocks(page, "Restore it", "")[0]);
    let log = || daemon.process.stderr();
    eventually("the edge has noticed", || log().contains("user directory: replaced by another or an older one"));
    assert_eq!(ben.open(&url).status, 302, "the session that was ended stays so");
    assert_eq!(ana.open(&url).status, 200, "and no other user notices");
    // A login in the second in which sessions were ended counts as one before it.
    eventually("the next second", || Clock::default().now().seconds() > ended);
    ben.sign_in(&url, "ben", PASSWORD);
    assert_eq!(ben.open(&url).status, 200);
}

#[test]
fn every_user_gets_a_new_password_by_the_commands_of_the_page() {
    let heading = "The user directory was copied by someone";
    let iqueue = origin("iqueue");
    let daemon = daemon(&iqueue);
    let url = daemon.url("iqueue", "/");
    let mut ana = daemon.client();
    ana.sign_in(&url, "ana", PASSWORD);
    run(&daemon, &blocks("docs/operations/incidents.md", heading, "")[0]);
    eventually("what was open has ended", || ana.open(&url).status == 302);
    let passwords = std::fs::read_to_string(daemon.folder.path().join("passwords.tsv")).unwrap();
    let passwords: Vec<(&str, &str)> = passwords.lines().filter_map(|line| line.split_once('\t')).collect();
    assert_eq!(passwords.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["ada", "ana", "ben"]);
    let (_, password) = passwords[1];
    assert_ne!(password, PASSWORD);
    ana.sign_in(&url, "ana", password);
    assert_eq!(ana.open(&url).status, 200);
}
