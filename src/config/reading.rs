//! The reading of the document into its shapes, past every mistake to its end. Called by `config` alone.

use serde_path_to_error::{Path, Segment};
use serde_yaml::Value;

use super::fault::Faults;
use super::file::File;

/// Reads the document into its shapes. A value of the wrong type is reported and taken out, and the rest is
/// read again, so that one mistake does not hide the next; unknown keys are reported by the last reading. A section
/// with nothing under it, such as one whose only line was commented out, says nothing and is no mistake.
pub fn deserialize(mut document: Value, faults: &mut Faults) -> File {
    if document.is_null() {
        return File::default();
    }
    loop {
        let mut unknown = Vec::new();
        let mut track = serde_path_to_error::Track::new();
        let tracked = serde_path_to_error::Deserializer::new(&document, &mut track);
        let result: Result<File, _> = serde_ignored::deserialize(tracked, |path| unknown.push(path.to_string()));
        match result {
            Ok(file) => {
                for key in unknown {
                    let key = without_secret(&bracketed(&key)).to_owned();
                    faults.add(key, "unknown key", "remove it, or see the README for the keys there are");
                }
                return file;
            }
            Err(error) => {
                let path = track.path();
                if fill_empty(&mut document, &path) {
                    continue;
                }
                let key = path_text(&path);
                faults.add_unread(without_secret(&key), describe(&key, &error), "write a value of that kind");
                if !remove(&mut document, &path) {
                    return File::default();
                }
                if let Some(Segment::Seq { index }) = path.iter().next_back() {
                    faults.moved_up(&key[..key.rfind('[').unwrap_or(key.len())], *index);
                }
            }
        }
    }
}

/// `pools.a.servers.1.address` of serde_ignored as `pools.a.servers[1].address`.
fn bracketed(path: &str) -> String {
    let mut text = String::new();
    for part in path.split('.').filter(|part| *part != "?") {
        if !text.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
            text.push_str(&format!("[{part}]"));
        } else {
            text.push_str(if text.is_empty() { "" } else { "." });
            text.push_str(part);
        }
    }
    text
}

fn path_text(path: &Path) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => text.push_str(&format!("[{index}]")),
            Segment::Map { key } => {
                text.push_str(if text.is_empty() { "" } else { "." });
                text.push_str(key);
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    text
}

/// Where the texts stand that must not be printed.
const SECRETS: [&str; 2] = ["sentry.keys", "server.admin.token"];

fn is_secret(key: &str) -> bool {
    SECRETS.iter().any(|place| key.starts_with(place))
}

/// The reader's own message, which quotes what it found; but for secrets, where that may be a secret in the wrong place.
fn describe(key: &str, error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(", expected ") {
        Some((_, expected)) if is_secret(key) => format!("this is not {expected}"),
        None if is_secret(key) => "this is not what belongs here".into(),
        _ => text,
    }
}

/// What stands below a secret is cut off: `{correct horse}` is a key without a value to YAML.
fn without_secret(key: &str) -> &str {
    let material = |name: &&str| is_secret(key) && key.contains(*name);
    let name = [".secret.", ".private_key.", ".public_key.", ".token."].into_iter().find(material);
    match name.and_then(|name| Some(key.find(name)? + name.len() - 1)) {
        Some(end) => &key[..end],
        None => key,
    }
}

/// Puts an empty mapping in the place of nothing, and an empty list in the place of that; false when the value at
/// `path` is something else, or no key's.
fn fill_empty(document: &mut Value, path: &Path) -> bool {
    let segments = segments(path);
    let Some(Segment::Map { .. }) = segments.last() else { return false };
    let Some(value) = descend(document, &segments) else { return false };
    *value = match &*value {
        Value::Null => Value::Mapping(serde_yaml::Mapping::new()),
        Value::Mapping(mapping) if mapping.is_empty() => Value::Sequence(Vec::new()),
        _ => return false,
    };
    true
}

fn segments(path: &Path) -> Vec<&Segment> {
    path.iter().filter(|s| matches!(s, Segment::Seq { .. } | Segment::Map { .. })).collect()
}

fn descend<'a>(document: &'a mut Value, segments: &[&Segment]) -> Option<&'a mut Value> {
    segments.iter().try_fold(document, |value, segment| child(value, segment))
}

fn child<'a>(value: &'a mut Value, segment: &Segment) -> Option<&'a mut Value> {
    match segment {
        Segment::Seq { index } => value.get_mut(*index),
        Segment::Map { key } => value.get_mut(key.as_str()),
        _ => None,
    }
}

/// Takes the value at `path` out of the document; false when there is nothing to take.
fn remove(document: &mut Value, path: &Path) -> bool {
    let segments = segments(path);
    let Some((last, parents)) = segments.split_last() else { return false };
    let Some(value) = descend(document, parents) else { return false };
    match (last, value) {
        (Segment::Map { key }, Value::Mapping(mapping)) => mapping.remove(key.as_str()).is_some(),
        (Segment::Seq { index }, Value::Sequence(list)) if *index < list.len() => {
            list.remove(*index);
            true
        }
        _ => false,
    }
}
