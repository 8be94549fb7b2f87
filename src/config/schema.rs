//! The JSON Schema (2020-12) of the configuration: made of the YAML shapes, their doc comments and the defaults.
//!
//! Editors complete and check a configuration by it (`sentry-edge schema`, `config/edge.schema.json`), the configuration
//! reference is made of it, and the effective configuration is filled up along it (`effective`). It describes the shape
//! of a document: kinds of values, names of keys, spellings of units. Bounds, names that have to exist and files are for
//! `check`.

mod fallbacks;
mod written;

use std::collections::BTreeSet;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::file::File;
pub use fallbacks::{Fallback, fallback};

/// Returns the schema, in whose descriptions links are Markdown, as the reference has them.
pub fn schema() -> Value {
    let mut root = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<File>().to_value();
    root["title"] = "sentry-edge configuration".into();
    let shapes: BTreeSet<String> = root["$defs"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, shape)| shape.get("properties").is_some())
        .map(|(name, _)| format!("#/$defs/{name}"))
        .collect();
    if let Some(definitions) = root.get_mut("$defs").and_then(Value::as_object_mut) {
        for (name, shape) in definitions {
            finish(name, shape, &shapes);
        }
    }
    finish("File", &mut root, &shapes);
    root
}

/// Returns the schema as it is printed, with links as their texts.
pub fn printed() -> String {
    let mut schema = schema();
    each_description(&mut schema, &|text| without_links(text));
    // A value of JSON has no failure in it.
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

/// Adds to a shape what its type does not say: that no other key may be there, which ones have to be, and defaults.
fn finish(name: &str, shape: &mut Value, shapes: &BTreeSet<String>) {
    tidy(shape);
    let Some(shape) = shape.as_object_mut() else { return };
    let Some(properties) = shape.get_mut("properties").and_then(Value::as_object_mut) else { return };
    let mut required = Vec::new();
    for (key, property) in properties {
        let Some(property) = property.as_object_mut() else { continue };
        property.remove("default");
        allow_null(property, shapes);
        match fallback(name, key) {
            Some(Fallback::Value(value)) => drop(property.insert("default".into(), value)),
            Some(Fallback::Required) => required.push(Value::from(key.as_str())),
            _ => {}
        }
    }
    if !required.is_empty() {
        shape.insert("required".into(), required.into());
    }
    shape.insert("additionalProperties".into(), false.into());
}

/// A section or a list that has nothing below it, such as one whose lines are commented out, is an empty one.
fn allow_null(property: &mut Map<String, Value>, shapes: &BTreeSet<String>) {
    if property.get("type").is_some_and(|kind| kind == "array" || kind == "object") {
        let kind = property["type"].take();
        property.insert("type".into(), json!([kind, "null"]));
    }
    let is_shape = |target: &Value| target.as_str().is_some_and(|target| shapes.contains(target));
    if property.get("$ref").is_some_and(is_shape)
        && let Some(target) = property.remove("$ref")
    {
        property.insert("oneOf".into(), json!([{"$ref": target}, {"type": "null"}]));
    }
}

/// Lines of a paragraph are joined, alternatives exclude each other, names of Rust's number types go, and where a word may
/// be `off`, `false` is the same.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(text)) = map.get_mut("description") {
                *text = paragraphs(text);
            }
            // A key of the document may have one of these names; it is described by an object.
            if map.get("format").is_some_and(Value::is_string) {
                map.remove("format");
            }
            if map.get("anyOf").is_some_and(Value::is_array)
                && let Some(alternatives) = map.remove("anyOf")
            {
                map.insert("oneOf".into(), alternatives);
            }
            if let Some(Value::Array(alternatives)) = map.get_mut("oneOf")
                && alternatives.iter().any(|alternative| alternative.get("const").is_some_and(|word| word == "off"))
            {
                alternatives.push(json!({"const": false, "description": "`off`, as YAML 1.1 tools write it."}));
            }
            map.iter_mut().filter(|(key, _)| *key != "$defs").for_each(|(_, value)| tidy(value));
        }
        Value::Array(list) => list.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// A doc comment is wrapped where its line ends, and a paragraph ends at an empty line.
fn paragraphs(text: &str) -> String {
    let paragraph = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    text.split("\n\n").map(paragraph).collect::<Vec<_>>().join("\n\n")
}

fn each_description(value: &mut Value, change: &dyn Fn(&str) -> String) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(text)) = map.get_mut("description") {
                *text = change(text);
            }
            map.values_mut().for_each(|value| each_description(value, change));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| each_description(value, change)),
        _ => {}
    }
}

/// `[text](target)` as `text`.
fn without_links(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        let (Some(open), Some((_, behind))) = (before.rfind('['), after.split_once(')')) else { break };
        plain.push_str(&before[..open]);
        plain.push_str(&before[open + 1..]);
        rest = behind;
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_its_text() {
        assert_eq!(without_links("see [logs](reference/logs.md), [a] and [b](c)."), "see logs, [a] and b.");
        assert_eq!(without_links("`[cookie]` and [x](y"), "`[cookie]` and [x](y");
    }

    /// Every key of every shape has a description, and a default or the reason why it has none.
    #[test]
    fn every_key_is_described_and_says_what_holds_without_it() {
        let schema = schema();
        let mut missing = Vec::new();
        let definitions = schema["$defs"].as_object().unwrap();
        for (name, shape) in definitions.iter().map(|(name, shape)| (name.as_str(), shape)).chain([("File", &schema)]) {
            let Some(properties) = shape.get("properties").and_then(Value::as_object) else { continue };
            if shape.get("description").is_none() {
                missing.push(format!("{name}: no doc comment"));
            }
            for (key, property) in properties {
                if property.get("description").is_none() {
                    missing.push(format!("{name}.{key}: no doc comment"));
                }
                if fallback(name, key).is_none() && !leads_to_a_shape(property, definitions) {
                    missing.push(format!("{name}.{key}: no row in config/schema/fallbacks.rs"));
                }
            }
        }
        assert!(missing.is_empty(), "{}", missing.join("\n"));
    }

    /// A section that is not written is an empty one: its keys have their own rows.
    fn leads_to_a_shape(property: &Value, definitions: &Map<String, Value>) -> bool {
        property["oneOf"].as_array().into_iter().flatten().any(|alternative| {
            let target = alternative["$ref"].as_str().and_then(|target| target.strip_prefix("#/$defs/"));
            target.is_some_and(|target| definitions[target].get("properties").is_some())
        })
    }
}
