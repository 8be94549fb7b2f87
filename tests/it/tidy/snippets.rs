//! Configurations that documents show are good ones, whole or in part, and commands have options that there are.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use sentry_edge::config;
use serde_yaml::{Mapping, Value};

use super::book::documents;
use super::read;
use super::tables::quoted;

/// Sections of the configuration; a block of YAML with other keys is a file of another program.
const SECTIONS: [&str; 9] =
    ["server", "log", "tls", "sentry", "sessions", "users", "services", "pools", "unknown_hosts"];

/// The blocks of a language in a document.
fn blocks<'a>(document: &'a str, language: &str) -> Vec<&'a str> {
    let opening = format!("```{language}\n");
    document.split(opening.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// Puts `over` into `base`: mappings are merged, whatever else is replaced.
fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Mapping(base), Value::Mapping(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

/// The pools that services and their routes name, each with a server where the document has none.
fn add_pools(document: &mut Value) {
    fn gather(value: &Value, names: &mut BTreeSet<String>) {
        match value {
            Value::Mapping(mapping) => {
                names.extend(mapping.get("pool").and_then(Value::as_str).map(str::to_owned));
                mapping.values().for_each(|value| gather(value, names));
            }
            Value::Sequence(list) => list.iter().for_each(|value| gather(value, names)),
            _ => {}
        }
    }
    let mut names = BTreeSet::new();
    gather(&document["services"], &mut names);
    for name in names {
        let servers = Value::Sequence(vec!["127.0.0.1:9001".into()]);
        let mut pool = Value::Mapping(Mapping::from_iter([("servers".into(), servers)]));
        let pools = document["pools"].as_mapping_mut().unwrap();
        let given = pools.entry(name.into()).or_insert_with(|| Value::Mapping(Mapping::new()));
        merge(&mut pool, std::mem::take(given));
        *given = pool;
    }
}

/// A part of a configuration in the one that README.md shows, so that it is whole.
fn completed(part: Value) -> Value {
    let readme = read("README.md");
    let mut whole: Value = serde_yaml::from_str(blocks(&readme, "yaml")[0]).unwrap();
    merge(&mut whole, part);
    add_pools(&mut whole);
    whole
}

#[test]
fn every_configuration_in_a_document_is_a_good_one() {
    let mut seen = 0;
    for (document, text) in documents() {
        for block in blocks(&text, "yaml") {
            let part: Value =
                serde_yaml::from_str(block).unwrap_or_else(|error| panic!("{document}: {error}:\n{block}"));
            let is_ours = part.as_mapping().is_some_and(|mapping| {
                mapping.keys().all(|key| key.as_str().is_some_and(|key| SECTIONS.contains(&key)))
            });
            if !is_ours {
                continue;
            }
            seen += 1;
            let whole = serde_yaml::to_string(&completed(part)).unwrap();
            let (_, faults) = config::parse(Path::new("/etc/sentry-edge/edge.yaml"), &whole)
                .unwrap_or_else(|error| panic!("{document}: {error}:\n{block}"));
            // Files and folders that it names are not on this machine.
            let faults = faults.to_string();
            let faults: Vec<&str> = faults.lines().filter(|fault| !fault.contains("No such file")).collect();
            assert_eq!(faults, [""; 0], "{document}, in\n{block}");
        }
    }
    assert!(seen > 10, "the configurations were found: {seen}");
}

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

#[test]
fn a_part_of_a_configuration_is_completed() {
    let part = serde_yaml::from_str("services: {api: {hosts: [api.test], pool: api}}").unwrap();
    let whole = completed(part);
    assert_eq!(whole["services"]["api"]["pool"], "api");
    assert_eq!(whole["services"]["iqueue"]["pool"], "iqueue", "README.md's own is kept");
    assert_eq!(whole["pools"]["api"]["servers"][0], "127.0.0.1:9001");
}
