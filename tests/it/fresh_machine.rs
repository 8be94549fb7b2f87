//! What the tests need of a machine: the packages that `.ci/deps` installs, what cargo fetches to build, and `target/`.
//!
//! A machine on which something ran before has more than that, and hides what is missing on a new one. So what the
//! tests start, read and ask cargo for is looked up in their source.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{edge, origin, process};

/// In Debian's and Ubuntu's `Essential` packages (bash, dash, coreutils), so on every machine.
const ESSENTIAL: &[&str] = &["bash", "env", "install", "mkfifo", "setpriv", "sh", "sha256sum"];

/// Variables that the tests read: each is a switch that is off where it is not set.
const SWITCHES: &[&str] = &["COMPARE", "BODY_SERVER", "FAST_PATH", "WRITE_REFERENCE"];

/// What is started only where a switch asks for it.
const BY_HAND: &[(&str, &str)] = &[("go", "BODY_SERVER")];

/// Folders below `target/` that `make test` fills before it starts the tests.
const FILLED_BEFORE: &[&str] = &["target/clients"];

/// Words that lead to what another run, another user or another package has left behind, and why none may stand in a test.
const LEFT_BEHIND: &[(&str, &str)] = &[
    ("CARGO_HOME", "cargo's caches hold what was fetched, which differs between machines"),
    (".cargo/", "cargo's caches hold what was fetched, which differs between machines"),
    ("registry/src", "cargo's caches hold what was fetched, which differs between machines"),
    ("rustup", "no rustup need be there: Rust may come from a package"),
    ("/usr/share", "a package that is not among those of .ci/deps may have brought it"),
    ("/usr/local", "an administrator may have put it there"),
    ("/opt/", "an administrator may have put it there"),
    ("/root/", "another user has another home"),
    ("/.cache", "a cache is empty at first"),
    ("demo-data", "`demo` makes it when it is run by hand"),
    ("target/release", "the tests are built by another profile"),
    ("target/debug", "cargo says where its binaries are: CARGO_BIN_EXE_…"),
];

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The Rust sources of the tests with their names, this one apart, which holds the words that it looks for.
fn sources() -> Vec<(String, String)> {
    fn gather(folder: &Path, sources: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                gather(&path, sources);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(at("")).unwrap().to_str().unwrap().to_owned();
                sources.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut sources = Vec::new();
    gather(&at("tests"), &mut sources);
    sources.retain(|(name, _)| !name.ends_with("fresh_machine.rs"));
    assert!(sources.len() > 50, "the sources were found");
    sources
}

/// What stands between `before` and the next quotation mark, wherever `before` stands.
fn named<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).map(|rest| rest.split('"').next().unwrap())
}

/// The commands that `.ci/deps` looks for, for everything and for the kinds that are named.
fn installed(kinds: &[&str]) -> BTreeSet<String> {
    let script = std::fs::read_to_string(at(".ci/deps")).unwrap();
    let needs = script.split("\nneeds() {").nth(1).unwrap().split("\n}\n").next().unwrap();
    let (mut commands, mut wanted) = (BTreeSet::new(), true);
    for line in needs.lines().map(str::trim) {
        match line.strip_prefix("if [ \"$kind\" = ").and_then(|rest| rest.split(' ').next()) {
            Some(kind) => wanted = kinds.contains(&kind),
            None if line == "fi" => wanted = true,
            None if wanted => {
                let first = named(line, "echo \"").next().and_then(|words| words.split_whitespace().next());
                commands.extend(first.into_iter().flat_map(|commands| commands.split('|')).map(str::to_owned));
            }
            None => {}
        }
    }
    commands
}

#[test]
fn every_program_that_a_test_starts_is_installed_by_make_test() {
    let for_tests = installed(&["test"]);
    assert!(for_tests.contains("cmake") && for_tests.contains("memcached") && !for_tests.contains("wrk"));
    let mut started = BTreeSet::new();
    for (name, text) in sources() {
        // What asks nginx is asked for by `make compare`, and skipped else.
        let known = if name.ends_with("inputs/nginx.rs") { installed(&["test", "compare"]) } else { for_tests.clone() };
        for program in named(&text, "Command::new(\"") {
            started.insert(program.to_owned());
            let by_hand = |(by, switch): &(&str, &str)| *by == program && SWITCHES.contains(switch);
            let there = known.contains(program) || ESSENTIAL.contains(&program) || BY_HAND.iter().any(by_hand);
            assert!(there, "{name} starts {program}, which .ci/deps does not install");
        }
    }
    assert!(started.contains("memcached") && started.contains("chromedriver"), "{started:?}");
    assert!(ESSENTIAL.iter().all(|program| started.contains(*program)), "{started:?}");
}

#[test]
fn no_test_reads_what_only_an_earlier_run_leaves_behind() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            let mut refuse = |why: &str| wrong.push(format!("{name}:{}: {why}: {}", number + 1, line.trim()));
            for (word, why) in LEFT_BEHIND {
                if line.contains(word) {
                    refuse(why);
                }
            }
            // `"…"` apart, which names the folder in a message.
            let below_target = named(line, "target/").map(|rest| format!("target/{rest}"));
            for path in below_target {
                if !FILLED_BEFORE.contains(&path.as_str()) {
                    refuse("`make test` does not fill it");
                }
            }
            for read in ["env::var(\"", "env::var_os(\""] {
                if named(line, read).any(|variable| !SWITCHES.contains(&variable)) {
                    refuse("the variable need not be set");
                }
            }
        }
        // Whatever asks cargo for packages asks for those of this platform: no others were fetched to build.
        for call in text.split("\"metadata\"").skip(1) {
            let arguments = call.split(']').next().unwrap();
            if !arguments.contains("--filter-platform") {
                wrong.push(format!("{name}: `cargo metadata` without a platform wants packages that no build fetches"));
            }
        }
        for command in ["\"fetch\"", "\"vendor\"", "\"tree\"", "\"install\""] {
            if text.contains("env!(\"CARGO\")") && text.contains(command) {
                wrong.push(format!("{name}: cargo {command} asks for more than what is built"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A minimal image has no CA certificates, without which Pingora's connector panics.
#[test]
fn without_the_systems_cas_the_edge_says_so_and_does_not_panic() {
    assert!(
        std::fs::read_to_string(at(".ci/deps")).unwrap().contains(" ca-certificates"),
        "and `make test` installs them"
    );
    let iqueue = origin("iqueue");
    let (_folder, file) = edge().service("iqueue", &iqueue).write();
    for arguments in &[&["check"][..], &["run"], &["run", "-t"]] {
        let output = Command::new("env")
            .args(["SSL_CERT_FILE=/nonexistent/ca.pem", "SSL_CERT_DIR=/nonexistent"])
            .arg(env!("CARGO_BIN_EXE_sentry-edge"))
            .args(*arguments)
            .arg("-c")
            .arg(&file)
            .output()
            .unwrap();
        let said = process::text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        let begin = format!("{}: the CA certificates of this system cannot be read: ", file.display());
        assert!(said.starts_with(&begin) && said.lines().count() == 1, "{arguments:?}: {said}");
        assert!(said.contains("ca-certificates"), "{arguments:?}: {said}");
    }
}

#[test]
fn make_test_installs_what_it_needs_before_it_starts_the_tests() {
    let makefile = std::fs::read_to_string(at("Makefile")).unwrap();
    let recipe = makefile.split("\ntest: ").nth(1).unwrap().split("\n\n").next().unwrap();
    let steps: Vec<&str> = recipe.lines().skip(1).map(|line| line.trim().trim_start_matches('@')).collect();
    assert_eq!(steps[..3], [".ci/deps test", "tests/clients/setup", "cargo test --locked $(ARGS)"]);
    assert!(steps[3..].iter().all(|step| step.contains("cargo test --locked ")), "{steps:?}");
    let setup = std::fs::read_to_string(at("tests/clients/setup")).unwrap();
    for folder in FILLED_BEFORE {
        assert!(setup.contains(folder), "tests/clients/setup fills {folder}");
    }
}
