//! Defaults: what the reference documents is in effect, and each stands in `config/defaults.rs` alone.

use std::path::Path;

use sentry_edge::config;
use sentry_edge::config::schema::Fallback;
use serde_yaml::Value;

use crate::reference::keys;
use crate::tidy::{quoted, read, rows, section, sources};

/// What is set beside a key, so that the key is in effect: some count for one kind of session store, or with a CA.
const SETTINGS: [(&str, &str); 4] = [
    ("sessions.store", "memory"),
    ("sessions.store", "memcached"),
    ("services.NAME.tls.client_ca", "/clients.pem"),
    ("sentry.tls.client_ca", "/clients.pem"),
];

/// (key, default) of each key with a default that is a value, as the schema and the reference have it.
fn documented() -> Vec<(String, Value)> {
    let value = |(key, holds)| match holds {
        Fallback::Value(value) => Some((key, serde_yaml::to_value(value).unwrap())),
        // What goes with another key is tried beside it.
        Fallback::When("client_ca", None, value) => Some((key, serde_yaml::to_value(value).unwrap())),
        _ => None,
    };
    keys().into_iter().filter_map(value).collect()
}

/// (key, default) of the times on the page of limits, which repeats them.
fn repeated() -> Vec<(String, Value)> {
    let page = read("docs/reference/limits-and-defaults.md");
    let mut defaults = Vec::new();
    for row in rows(section(&page, "Time")).iter().filter(|row| row.len() == 3) {
        let (names, values) = (quoted(&row[1]), quoted(&row[2]));
        let (Some(parent), Some(value)) = (names.first().and_then(|name| name.rsplit_once('.')), values.first()) else {
            continue;
        };
        for name in &names {
            let key = if name.contains('.') { name.clone() } else { format!("{}.{name}", parent.0) };
            defaults.push((key, serde_yaml::from_str(value).unwrap()));
        }
    }
    assert!(defaults.len() > 10, "the times were found: {defaults:?}");
    defaults
}

/// Sets a key, or removes it: of every service and pool for `NAME`, and of every element of a list.
fn change(document: &mut Value, key: &str, to: Option<&Value>) {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    let Some(mapping) = document.as_mapping_mut() else { return };
    if first == "NAME" {
        mapping.values_mut().for_each(|value| change(value, rest.unwrap(), to));
        return;
    }
    let (name, is_list) = first.strip_suffix("[]").map_or((first, false), |name| (name, true));
    match rest {
        None => match to {
            Some(value) => drop(mapping.insert(name.into(), value.clone())),
            None => drop(mapping.remove(name)),
        },
        Some(rest) if is_list => {
            // A service may have no routes.
            let list = mapping.get_mut(name).and_then(Value::as_sequence_mut).into_iter().flatten();
            list.for_each(|element| change(element, rest, to));
        }
        // A route has one of these at most, so none is added.
        Some(_) if ["files", "redirect", "respond"].contains(&name) && !mapping.contains_key(name) => {}
        Some(rest) => {
            let value = mapping.entry(name.into()).or_insert_with(|| Value::Mapping(Default::default()));
            if !value.is_mapping() {
                *value = Value::Mapping(Default::default());
            }
            change(value, rest, to);
        }
    }
}

/// The checked configuration in words, and its faults. The files that it names are not looked at.
fn checked(document: &Value) -> (String, String) {
    let text = serde_yaml::to_string(document).unwrap();
    let (config, faults) = config::parse(Path::new("/etc/sentry-edge/edge.yaml"), &text).unwrap();
    (format!("{config:#?}"), faults.to_string())
}

#[test]
fn every_default_that_the_reference_names_is_in_effect() {
    let sample: Value = serde_yaml::from_str(&read("config/edge.yaml")).unwrap();
    let documented = documented();
    for (key, value) in documented.iter().chain(&repeated()) {
        let is_apart = |(setting, _): &&(&str, &str)| setting != key;
        for (setting, to) in SETTINGS.iter().filter(is_apart) {
            let mut base = sample.clone();
            change(&mut base, setting, Some(&Value::from(*to)));
            let (mut without, mut with) = (base.clone(), base);
            change(&mut without, key, None);
            change(&mut with, key, Some(value));
            let (with, without) = (checked(&with), checked(&without));
            // `client_certificate` is a fault where nobody issues certificates.
            if key.ends_with("client_certificate") && !key.starts_with(setting.trim_end_matches("client_ca")) {
                continue;
            }
            let difference = with.0.lines().zip(without.0.lines()).find(|(with, without)| with != without);
            assert!(with == without, "{key}: {value:?} is not the default: {difference:?} {} {}", with.1, without.1);
        }
    }
    assert!(documented.len() > 60, "the defaults were found: {documented:#?}");
}

#[test]
fn no_default_is_a_literal_where_it_is_checked() {
    let begins_literal = |text: &str| {
        let text = text.trim_start();
        text.starts_with(|c: char| c.is_ascii_digit() || c == '"')
            || text.starts_with("true")
            || text.starts_with("false")
    };
    for source in sources().iter().filter(|source| source.name.starts_with("config/check")) {
        let code = source.code();
        for method in [".unwrap_or(", ".map_or(", ".unwrap_or_else(|| "] {
            for (at, _) in code.match_indices(method) {
                let argument = &code[at + method.len()..];
                assert!(!begins_literal(argument), "{}: {}", source.name, argument.lines().next().unwrap());
            }
        }
        for (at, _) in code.match_indices("time(") {
            let call = code[at..].split(';').next().unwrap_or_default();
            let second = call.split_once(", ").map(|(_, second)| second).unwrap_or_default();
            let is_literal = second.starts_with("seconds(") || second.starts_with("Duration::");
            assert!(!is_literal, "{}: {}", source.name, call.lines().next().unwrap_or_default());
        }
    }
}
