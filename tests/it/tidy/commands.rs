//! Commands that documents show have subcommands and options that there are.

use std::collections::BTreeSet;
use std::process::Command;

use super::book::documents;
use super::tables::quoted;

/// The arguments of each command of sentry-edge in a document, in its blocks of code and between backticks in its text, up
/// to where the shell's part begins.
fn commands(document: &str) -> BTreeSet<Vec<String>> {
    let mut in_code = false;
    let mut places = Vec::new();
    for line in document.lines() {
        if line.starts_with("```") {
            in_code = !in_code;
        } else if in_code {
            places.push(line.to_owned());
        } else {
            places.extend(quoted(line));
        }
    }
    let arguments = |place: &String| -> Option<Vec<String>> {
        let line = place.trim().trim_start_matches("$ ").trim_start_matches("sudo -u sentry-edge ");
        let rest = line.strip_prefix("sentry-edge ")?;
        let is_argument =
            |word: &&str| !word.starts_with(['|', '>', '<', '#', ';', '&', '\\']) && !word.starts_with("2>");
        Some(rest.split_whitespace().take_while(is_argument).filter(|word| *word != "…").map(str::to_owned).collect())
    };
    places.iter().filter_map(arguments).filter(|arguments| !arguments.is_empty()).collect()
}

/// With `--help` at its end a command does nothing, and is refused all the same if it has an option that there is not.
#[test]
fn every_command_in_a_document_is_understood() {
    let mut seen = 0;
    // The reference writes what may be left out in brackets; the change log has what there was.
    let apart = ["docs/reference/command-line.md", "CHANGELOG.md"];
    for (document, text) in documents().into_iter().filter(|(document, _)| !apart.contains(&document.as_str())) {
        for arguments in commands(&text) {
            seen += 1;
            let edge = env!("CARGO_BIN_EXE_sentry-edge");
            let output = Command::new(edge).args(&arguments).arg("--help").output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{document}: sentry-edge {}: {said}", arguments.join(" "));
        }
    }
    assert!(seen > 30, "the commands were found: {seen}");
}
