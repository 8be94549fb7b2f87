//! What is packaged: the unit as systemd reads it.

use std::process::Command;

use crate::tidy::read;

/// The units in a folder of their own, and the path of the service's. Its command is one that is on this machine, as the edge is not installed here.
fn unit() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sentry-edge.service");
    let text = read("systemd/sentry-edge.service");
    assert!(text.contains("\nExecStart=sentry-edge run "), "{text}");
    std::fs::write(&path, text.replace("=sentry-edge ", "=/bin/true ")).unwrap();
    std::fs::write(folder.path().join("sentry-edge.socket"), read("systemd/sentry-edge.socket")).unwrap();
    (folder, path.to_str().unwrap().to_owned())
}

/// Returns the status of `systemd-analyze`, and what it printed.
fn analyze(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("systemd-analyze").args(arguments).output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(printed).unwrap())
}

#[test]
fn systemd_has_nothing_to_say_about_the_units() {
    let (_folder, service) = unit();
    let socket = service.replace(".service", ".socket");
    assert_eq!(analyze(&["verify", "--man=no", &service, &socket]), (true, String::new()));
}

#[test]
fn the_unit_exposes_the_machine_to_no_more_than_1_8_of_10() {
    let (_folder, unit) = unit();
    let (is_within, printed) = analyze(&["security", "--offline=true", "--no-pager", "--threshold=18", &unit]);
    assert!(printed.contains("Overall exposure level"), "{printed}");
    assert!(is_within, "{printed}");
}

#[test]
fn a_crash_is_never_the_last_one() {
    let text = read("systemd/sentry-edge.service");
    for line in ["Restart=on-failure", "StartLimitIntervalSec=0"] {
        assert!(text.lines().any(|other| other == line), "{line}");
    }
}
