//! The pages of the configuration: one for each section of the document, of the schema that editors have too.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sentry_edge::config::schema::{Fallback, fallback, schema};
use serde_json::Value;

use super::{hold, section};
use crate::tidy::{at, sources};

/// Sections that are a page of their own though they are below another one.
const PAGES: [(&str, &str); 1] = [("services.NAME.routes[]", "routes")];
/// What a page may have at most.
const LONGEST_PAGE: usize = 400;

const INTRODUCTION: &str = "\
# Configuration

One YAML file. Every key is on one of these pages:

CONTENTS

`config/edge.yaml` is a sample with every key, and `config/examples` has small complete configurations by need.
`sentry-edge check FILE` names every fault of a file at once, as `FILE:LINE: key.path: what is wrong; what to write`.
An unknown key is a fault.
`sentry-edge run -T -c FILE` prints what is in effect, with every default.

A relative path begins at the folder of the configuration file.
A reload (`systemctl reload sentry-edge`, or SIGHUP) takes up every key but those that *need a restart*; a file with any fault is refused whole.

## Editors

`sentry-edge schema` prints a JSON Schema (2020-12), which is also in `config/edge.schema.json`.
Editors with the YAML language server complete and check a file by it whose first line names it:

```yaml
# yaml-language-server: $schema=edge.schema.json
```

## Values

UNITS

A section or a list with nothing below it is an empty one, as if it were not written.
";

/// A shape's keys in the order of the source.
struct Orders(BTreeMap<String, Vec<String>>);

impl Orders {
    fn read() -> Self {
        let mut orders: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for source in sources().iter().filter(|source| source.name.starts_with("config/file")) {
            let mut shape = None;
            for line in source.code().lines() {
                if let Some(name) = line.strip_prefix("pub struct ").and_then(|rest| rest.strip_suffix(" {")) {
                    shape = Some(name.to_owned());
                } else if line == "}" {
                    shape = None;
                } else if let (Some(shape), Some((key, _))) =
                    (&shape, line.strip_prefix("    pub ").and_then(|field| field.split_once(": ")))
                {
                    orders.entry(shape.clone()).or_default().push(key.trim_start_matches("r#").to_owned());
                }
            }
        }
        Self(orders)
    }

    /// The keys of a shape with their schemas.
    fn keys<'s>(&self, name: &str, shape: &'s Value) -> Vec<(&'s str, &'s Value)> {
        let place = |key: &str| self.0.get(name).and_then(|keys| keys.iter().position(|other| other == key));
        let mut keys: Vec<_> = shape["properties"].as_object().unwrap().iter().map(|(k, v)| (k.as_str(), v)).collect();
        keys.sort_by_key(|(key, _)| place(key));
        keys
    }
}

/// The pages while they are made.
struct Pages<'a> {
    root: &'a Value,
    orders: Orders,
    /// By their names: what is on them.
    pages: Vec<(String, String)>,
}

#[test]
pub fn the_pages_of_the_configuration_are_what_the_source_says() {
    let root = schema();
    let mut pages = Pages { root: &root, orders: Orders::read(), pages: Vec::new() };
    let mut contents = "| key | |\n|---|---|\n".to_owned();
    for (key, node) in pages.orders.keys("File", &root) {
        let (description, _) = without_restart(&description(node));
        writeln!(contents, "| [`{key}`](configuration/{key}.md) | {} |", linked(&description, "../")).unwrap();
        if let Some((place, name)) = PAGES.iter().find(|(place, _)| place.starts_with(&format!("{key}."))) {
            let place = place.trim_end_matches("[]");
            writeln!(contents, "| [`{place}`](configuration/{name}.md) | Rules for parts of an application. |")
                .unwrap();
        }
        pages.begin(key, key, node);
    }
    let kinds = ["Time", "Size", "Rate", "Secret"].map(|kind| {
        let name = if kind == "Time" { "duration".into() } else { kind.to_lowercase() };
        let keys = if kind == "Secret" { pages.list("Secret", &root["$defs"][kind], "../") } else { String::new() };
        let keys: String = keys.lines().map(|line| format!("  {line}\n")).collect();
        format!("- **{name}**: {}\n{keys}", description(&root["$defs"][kind]))
    });
    let index = INTRODUCTION.replace("CONTENTS", contents.trim()).replace("UNITS", kinds.concat().trim_end());
    hold("docs/reference/configuration.md", &index);
    let mut there = Vec::new();
    for (name, text) in &pages.pages {
        let lines = text.lines().count();
        assert!(lines <= LONGEST_PAGE, "{name}.md has {lines} lines: give a section of it a page in PAGES");
        hold(&format!("docs/reference/configuration/{name}.md"), text);
        there.push(format!("{name}.md"));
    }
    for entry in std::fs::read_dir(at("docs/reference/configuration")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(there.contains(&name), "docs/reference/configuration/{name} is no section any more: remove it");
    }
}

impl<'a> Pages<'a> {
    /// A page, for a section of the document.
    fn begin(&mut self, name: &str, place: &str, node: &'a Value) {
        self.pages.push((
            name.to_owned(),
            "<!-- Made by `make reference` from the doc comments in src/config/file. -->\n\n".to_owned(),
        ));
        let page = self.pages.len() - 1;
        let (description, restart) = without_restart(&description(node));
        let restart = if restart { "\n\nEvery key here needs a restart." } else { "" };
        let mut text = format!("# `{place}`\n\n{}{restart}\n", linked(&description, "../../"));
        self.section(place, node, &mut text);
        self.pages[page].1.push_str(&text);
    }

    /// The keys of a section, each under a heading; sections in it follow.
    fn section(&mut self, place: &str, node: &'a Value, text: &mut String) {
        let mut place = place.to_owned();
        let Some((name, shape)) = section(self.root, node, &mut place) else {
            self.key(&place, "File", place.clone().as_str(), node, text);
            return;
        };
        let mut sections = Vec::new();
        for (key, node) in self.orders.keys(name, shape) {
            let full = format!("{place}.{key}");
            let mut below = full.clone();
            match section(self.root, node, &mut below) {
                Some(_) => sections.push((full, below, key, node)),
                _ => self.key(&full, name, key, node, text),
            }
        }
        for (full, below, key, node) in sections {
            if let Some((_, page)) = PAGES.iter().find(|(place, _)| *place == below) {
                self.key(&full, name, key, node, text);
                writeln!(text, "\nIts keys are on [a page of their own]({page}.md).").unwrap();
                self.begin(page, &full, node);
                continue;
            }
            self.key(&full, name, key, node, text);
            self.section(&full, node, text);
        }
    }

    /// A key: its value, its default, what it does.
    fn key(&self, place: &str, shape: &str, key: &str, node: &Value, text: &mut String) {
        let description = description(node);
        let (description, restart) = without_restart(&description);
        let restart = if restart { " *Needs a restart.*" } else { "" };
        let holds = match fallback(shape, key) {
            Some(Fallback::Value(value)) => format!(" Default: `{}`.", yaml(&value)),
            Some(Fallback::When(other, None, value)) => format!(" Default: `{}`, with `{other}`.", yaml(&value)),
            Some(Fallback::When(other, Some(wanted), value)) => {
                format!(" Default: `{}`, with `{other}: {wanted}`.", yaml(&value))
            }
            Some(Fallback::Follows(other)) => format!(" Default: that of `{other}`."),
            Some(Fallback::Text(text)) if text.contains("required") => {
                format!(" {}{}.", text[..1].to_uppercase(), &text[1..])
            }
            Some(Fallback::Text(text)) => format!(" Default: {text}."),
            Some(Fallback::Required) => " Required.".into(),
            None => String::new(),
        };
        let kind = match self.kind(node) {
            _ if fallback(shape, key).is_none() => String::new(),
            kind if kind.starts_with('`') => format!("{kind}."),
            kind => format!("{}{}.", kind[..1].to_uppercase(), &kind[1..]),
        };
        let facts = format!("{kind}{holds}{restart}");
        let facts = if facts.is_empty() { facts } else { format!("{}\n\n", facts.trim_start()) };
        writeln!(text, "\n## `{place}`\n\n{facts}{}", linked(&description, "../../")).unwrap();
        let details = self.details(node);
        if !details.is_empty() {
            writeln!(text, "\n{}", details.trim_end()).unwrap();
        }
    }

    /// What a value is, in a few words.
    fn kind(&self, node: &Value) -> String {
        let mut kinds = Vec::new();
        self.gather_kinds(node, &mut kinds);
        let last = kinds.pop().unwrap_or_default();
        if kinds.is_empty() { last } else { format!("{} or {last}", kinds.join(", ")) }
    }

    fn gather_kinds(&self, node: &Value, kinds: &mut Vec<String>) {
        if let Some(target) = node.get("$ref").and_then(Value::as_str) {
            let name = target.rsplit('/').next().unwrap();
            match name {
                "Time" => kinds.push("duration".into()),
                "Size" | "Rate" | "Secret" => kinds.push(name.to_lowercase()),
                _ => self.gather_kinds(&self.root["$defs"][name], kinds),
            }
            return;
        }
        if let Some(value) = node.get("const").and_then(Value::as_str) {
            kinds.push(format!("`{value}`"));
            return;
        }
        let is_mapping = node.get("properties").is_some();
        if let Some(alternatives) = node.get("oneOf").and_then(Value::as_array).filter(|_| !is_mapping) {
            alternatives.iter().for_each(|alternative| self.gather_kinds(alternative, kinds));
            return;
        }
        let types: Vec<&str> = match &node["type"] {
            Value::String(kind) => vec![kind],
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        match types.into_iter().find(|kind| *kind != "null") {
            Some("array") => {
                let inner = self.kind(&node["items"]);
                let several = ["string", "mapping", "integer", "duration"].contains(&inner.as_str());
                kinds.push(if several { format!("list of {inner}s") } else { format!("list: {inner}") });
            }
            Some("object") if is_mapping => kinds.push("mapping".into()),
            Some("object") => kinds.push("mapping by name".into()),
            Some("string") if node["enum"].is_array() => {
                let words = node["enum"].as_array().unwrap().iter();
                kinds.extend(words.map(|word| format!("`{}`", word.as_str().unwrap())));
            }
            Some(kind) => kinds.push(kind.to_owned()),
            None => {}
        }
    }

    /// Words that a value may be, and the keys of mappings that it may be, as a list.
    fn details(&self, node: &Value) -> String {
        if let Some(target) = node.get("$ref").and_then(Value::as_str) {
            let name = target.rsplit('/').next().unwrap();
            let shape = &self.root["$defs"][name];
            return match name {
                "Time" | "Size" | "Rate" | "Secret" => String::new(),
                _ if shape.get("properties").is_some() => self.list(name, shape, "../../"),
                _ => self.details(shape),
            };
        }
        if let (Some(word), Some(_)) = (node.get("const").and_then(Value::as_str), node.get("description")) {
            return format!("- `{word}`: {}\n", linked(&description(node), "../../"));
        }
        if let Some(items) = node.get("items") {
            let mut place = String::new();
            return if section(self.root, items, &mut place).is_some() { String::new() } else { self.details(items) };
        }
        let alternatives = node.get("oneOf").and_then(Value::as_array).filter(|_| node.get("properties").is_none());
        let mut place = String::new();
        if section(self.root, node, &mut place).is_some() {
            return String::new();
        }
        let mut details = String::new();
        for alternative in alternatives.into_iter().flatten() {
            let further = self.details(alternative);
            // The words of a policy are those of its key in a mapping, too.
            let is_new = |line: &&str| !details.lines().any(|other| other.trim() == line.trim());
            let further: Vec<&str> = further.lines().filter(is_new).collect();
            details.extend(further.iter().map(|line| format!("{line}\n")));
        }
        details
    }

    /// The keys of a mapping that has no headings of its own.
    fn list(&self, name: &str, shape: &Value, root: &str) -> String {
        let mut list = String::new();
        for (key, node) in self.orders.keys(name, shape) {
            let holds = match fallback(name, key) {
                Some(Fallback::Value(value)) => format!(" Default: `{}`.", yaml(&value)),
                Some(Fallback::When(other, Some(wanted), value)) => {
                    format!(" Default: `{}`, with `{other}: {wanted}`.", yaml(&value))
                }
                Some(Fallback::Required) => " Required.".into(),
                _ => String::new(),
            };
            let kind = self.kind(node);
            writeln!(list, "- `{key}` ({kind}): {}{holds}", linked(&description(node), root)).unwrap();
            for word in self.details(node).lines() {
                writeln!(list, "  {word}").unwrap();
            }
        }
        list
    }
}

fn description(node: &Value) -> String {
    node["description"].as_str().unwrap_or_default().to_owned()
}

/// A description without its mark, and whether the whole key needs a restart.
fn without_restart(description: &str) -> (String, bool) {
    match description.strip_suffix("*Restart*") {
        Some(rest) if !rest.trim_end().ends_with(':') => (rest.trim_end().to_owned(), true),
        _ => (description.replace(": *Restart*", ", a change needs a restart."), false),
    }
}

/// Links in doc comments begin at `docs`.
fn linked(text: &str, up: &str) -> String {
    let mut linked = String::new();
    let mut parts = text.split("](");
    linked.push_str(parts.next().unwrap());
    for part in parts {
        let up = if part.contains("://") && part.find("://") < part.find(')') { "" } else { up };
        write!(linked, "]({up}{part}").unwrap();
    }
    linked
}

/// A value as it is written in one line of YAML.
fn yaml(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("[{}]", list.iter().map(yaml).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let pair = |(key, value): (&String, &Value)| format!("{key}: {}", yaml(value));
            format!("{{{}}}", map.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
        // A version is a number to YAML unless it is quoted.
        Value::String(text) if text.parse::<f64>().is_ok() => format!("\"{text}\""),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
