//! The pages of the reference that are made of the source, and that the committed ones are those.
//!
//! `make reference` writes them: the configuration of the doc comments in `src/config/file`, the command line of clap's
//! definitions, the metrics of their registration, and the JSON Schema. A page of prose has its made part between two
//! marks, and the prose around them is kept.

mod command_line;
mod configuration;
mod metrics;

use sentry_edge::config::schema::{Fallback, fallback, schema};
use serde_json::Value;

use crate::tidy::at;

/// Every page, for a run of the house rules alone.
pub fn is_what_the_source_says() {
    the_committed_schema_is_the_printed_one();
    configuration::the_pages_of_the_configuration_are_what_the_source_says();
    command_line::the_commands_are_those_of_the_program();
    metrics::the_table_of_metrics_is_what_is_registered();
}

/// Set by `make reference`.
fn is_to_be_written() -> bool {
    std::env::var_os("WRITE_REFERENCE").is_some()
}

/// Holds a committed file against what it is made of, or writes it.
fn hold(path: &str, made: &str) {
    let committed = std::fs::read_to_string(at(path)).unwrap_or_default();
    if committed == made {
        return;
    }
    if is_to_be_written() {
        std::fs::create_dir_all(at(path).parent().unwrap()).unwrap();
        std::fs::write(at(path), made).unwrap();
        return;
    }
    let line = made.lines().zip(committed.lines()).position(|(made, committed)| made != committed);
    let line = line.unwrap_or_else(|| made.lines().count().min(committed.lines().count()));
    panic!(
        "{path} is not what the source says, from line {} on:\n  {}\nis to be\n  {}\n`make reference` renews it.",
        line + 1,
        committed.lines().nth(line).unwrap_or("(the end)"),
        made.lines().nth(line).unwrap_or("(the end)"),
    );
}

/// The same for a page of prose, whose made part is between the marks of `name`.
fn hold_part(path: &str, name: &str, made: &str) {
    let committed = std::fs::read_to_string(at(path)).unwrap();
    let (begin, end) = (format!("<!-- {name}: made by `make reference` -->\n"), format!("<!-- end of {name} -->"));
    let (before, rest) = committed.split_once(&begin).unwrap_or_else(|| panic!("{path} has no {begin:?}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{path} has no {end:?}"));
    hold(path, &format!("{before}{begin}\n{}\n\n{end}{after}", made.trim()));
}

/// Every key of the configuration that is no section, as `server.listeners[].address`, and what holds without it.
pub fn keys() -> Vec<(String, Fallback)> {
    fn gather(root: &Value, name: &str, shape: &Value, place: &str, keys: &mut Vec<(String, Fallback)>) {
        for (key, node) in shape["properties"].as_object().unwrap() {
            let mut full = format!("{place}{key}");
            let mut below = full.clone();
            match section(root, node, &mut below) {
                Some((name, shape)) => gather(root, name, shape, &format!("{below}."), keys),
                None => {
                    full.truncate(full.trim_end_matches("[]").len());
                    let holds = fallback(name, key).unwrap_or_else(|| panic!("{full} is in no row of the fallbacks"));
                    keys.push((full, holds));
                }
            }
        }
    }
    let (root, mut keys) = (schema(), Vec::new());
    gather(&root, "File", &root, "", &mut keys);
    assert!(keys.len() > 100, "{keys:#?}");
    keys
}

/// The shape of a section, beyond lists, maps and `null`, with its name; `place` becomes that of its keys.
fn section<'a>(root: &'a Value, node: &'a Value, place: &mut String) -> Option<(&'a str, &'a Value)> {
    if let Some(target) = node.get("$ref").and_then(Value::as_str) {
        let name = target.rsplit('/').next().unwrap();
        let shape = &root["$defs"][name];
        // A secret is one value to an operator, however it is written.
        return (shape.get("properties").is_some() && name != "Secret").then_some((name, shape));
    }
    if let Some(alternatives) = node.get("oneOf").and_then(Value::as_array) {
        let mut others = alternatives.iter().filter(|alternative| alternative["type"] != "null");
        return match (others.next(), others.next()) {
            (Some(only), None) => section(root, only, place),
            _ => None,
        };
    }
    if let Some(items) = node.get("items") {
        place.push_str("[]");
        return section(root, items, place);
    }
    if let Some(inner) = node.get("additionalProperties").filter(|inner| inner.is_object()) {
        place.push_str(".NAME");
        return section(root, inner, place);
    }
    None
}

#[test]
fn the_committed_schema_is_the_printed_one() {
    hold("config/edge.schema.json", &sentry_edge::config::schema::printed());
}
