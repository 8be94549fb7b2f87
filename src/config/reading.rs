//! The reading of the document into its shapes, past every mistake to its end. Called by `config` alone.
//!
//! A fault never quotes the value: a password in the wrong place would be printed, and the fault names the line anyway. Keys that are not known are named, except in what is [`Sealed`].

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_path_to_error::{Path, Segment};
use serde_yaml::Value;

use super::fault::Faults;
use super::suggest;

/// A part of the document that holds secrets, and everything that was wrong with it. Whatever was written there, no
/// text of it is in a message: not a value, and not a key that is not known, as `{correct horse}` is a key without a
/// value to YAML. Every shape with a [`Secret`](super::file::Secret) among its keys is sealed.
#[derive(Clone, Debug, Default)]
pub struct Sealed<T> {
    value: T,
    mistakes: Vec<Mistake>,
}

/// Something that was wrong with the reading, at a path below the document or below what is sealed.
#[derive(Clone, Debug)]
enum Mistake {
    /// A value of the wrong kind, which is left out.
    Unread { key: String, what: String },
    /// An element was taken out of the list at this key.
    MovedUp { list: String, index: usize },
    /// The whole path of a key that there is not.
    Unknown(UnknownKey),
}

/// Its text is shown only where it cannot be a secret.
#[derive(Clone)]
struct UnknownKey(String);

/// Reads the document, and reports what was wrong with it.
pub fn deserialize<T: DeserializeOwned + Default>(document: Value, faults: &mut Faults) -> T {
    let (value, mistakes) = read(document);
    for mistake in mistakes {
        match mistake {
            Mistake::Unknown(UnknownKey(key)) => {
                let guess = suggest::instead_of(&key).map(|guess| format!("{guess} Else ")).unwrap_or_default();
                faults.add(
                    key,
                    "unknown key",
                    format!("{guess}remove it, or see docs/reference/configuration.md for the keys there are"),
                );
            }
            mistake => mistake.report("", faults),
        }
    }
    value
}

impl<T> Sealed<T> {
    /// The part itself, if nothing was wrong with it.
    pub fn sound(self) -> Option<T> {
        self.mistakes.is_empty().then_some(self.value)
    }

    /// The part itself; `place` is where it stands. Reports what was wrong with it.
    pub fn open(self, place: &str, faults: &mut Faults) -> T {
        for mistake in self.mistakes {
            match mistake {
                Mistake::Unknown(UnknownKey(key)) => {
                    let write = "remove it, or see docs/reference/configuration.md for the keys there are";
                    if let Some(guess) = suggest::instead_of_sealed(&key) {
                        faults.add(below(place, &key), "unknown key", format!("{guess} Else {write}"));
                        continue;
                    }
                    let parent = &key[..key.rfind(['.', '[']).unwrap_or(0)];
                    faults.add_beneath(&below(place, parent), &below(place, &key), "an unknown key", write);
                }
                mistake => mistake.report(place, faults),
            }
        }
        self.value
    }
}

impl<'de, T: DeserializeOwned + Default> Deserialize<'de> for Sealed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Any document is one of these; serde's trackers around this reader see no key of it.
        let (value, mistakes) = read(Value::deserialize(deserializer)?);
        Ok(Self { value, mistakes })
    }
}

impl Mistake {
    /// Of a value or a list, whose key is one of ours or a number.
    fn report(self, place: &str, faults: &mut Faults) {
        match self {
            Self::Unread { key, what } => {
                let write = remedy(&what);
                faults.add_unread(&below(place, &key), what, write);
            }
            Self::MovedUp { list, index } => faults.moved_up(&below(place, &list), index),
            Self::Unknown(_) => {}
        }
    }
}

impl std::fmt::Debug for UnknownKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UnknownKey(…)")
    }
}

/// `key` of what stands at `place`.
fn below(place: &str, key: &str) -> String {
    match (place, key) {
        ("", key) => key.to_owned(),
        (place, "") => place.to_owned(),
        (place, key) if key.starts_with('[') => format!("{place}{key}"),
        (place, key) => format!("{place}.{key}"),
    }
}

/// Reads the document into its shapes. A value of the wrong type is noted and taken out, and the rest is
/// read again, so that one mistake does not hide the next; unknown keys are noted by the last reading. A section
/// with nothing under it, such as one whose only line was commented out, says nothing and is no mistake.
fn read<T: DeserializeOwned + Default>(mut document: Value) -> (T, Vec<Mistake>) {
    let mut mistakes = Vec::new();
    if document.is_null() {
        return (T::default(), mistakes);
    }
    loop {
        let mut unknown = Vec::new();
        let mut track = serde_path_to_error::Track::new();
        let tracked = serde_path_to_error::Deserializer::new(&document, &mut track);
        let result: Result<T, _> = serde_ignored::deserialize(tracked, |path| unknown.push(path.to_string()));
        match result {
            Ok(value) => {
                mistakes.extend(unknown.iter().map(|key| Mistake::Unknown(UnknownKey(bracketed(key)))));
                return (value, mistakes);
            }
            Err(error) => {
                let path = track.path();
                if fill_empty(&mut document, &path) {
                    continue;
                }
                let key = path_text(&path);
                mistakes.push(Mistake::Unread { what: describe(&error), key: key.clone() });
                if !remove(&mut document, &path) {
                    return (T::default(), mistakes);
                }
                if let Some(Segment::Seq { index }) = path.iter().next_back() {
                    let list = key[..key.rfind('[').unwrap_or(key.len())].to_owned();
                    mistakes.push(Mistake::MovedUp { list, index: *index });
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

const UNFIT: &str = "this does not fit, expected ";

/// What the reader calls a kind of values, in the words of operators, with an example.
fn kind(expected: &str) -> Option<(&'static str, &'static str)> {
    Some(match expected {
        "a string" | "string" => ("a text", "write one in quotes, such as \"text\""),
        "a boolean" => ("`true` or `false`", "write `true` or `false`"),
        "f32" | "f64" => ("a number", "write one such as 0.5"),
        _ if expected.starts_with("a sequence") => ("a list", "write one such as [first, second]"),
        _ if expected.starts_with("struct ") || expected == "a map" => {
            ("keys with their values", "write them below it, or as {key: value}")
        }
        _ => {
            let bits = expected.strip_prefix(['u', 'i'])?;
            let is_number = bits == "size" || bits.parse::<u8>().is_ok();
            ("a whole number", is_number.then_some("write one such as 10")?)
        }
    })
}

/// What to write in the place of a value that does not fit.
fn remedy(what: &str) -> String {
    let Some(expected) = what.strip_prefix(UNFIT) else {
        return "see docs/reference/configuration.md for what this key takes".into();
    };
    let of_kind = ["a string", "a boolean", "f64", "a sequence", "a map", "u64"].into_iter().filter_map(kind);
    if let Some((_, write)) = of_kind.into_iter().find(|(kind, _)| *kind == expected) {
        return write.into();
    }
    let example = match expected.split_once("such as ") {
        Some((_, examples)) => {
            let first = examples.split(" or ").next().unwrap_or(examples);
            first.split([',', '`']).map(str::trim).find(|text| !text.is_empty())
        }
        None => expected.split('`').nth(1),
    };
    example.map_or_else(|| format!("write {expected}"), |example| format!("write `{example}`, for example"))
}

/// What the reader expected. Before that its message quotes what it found, which may be a secret in the wrong place.
fn describe(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    let quotes = text.starts_with("invalid ") || text.starts_with("unknown ");
    match text.rsplit_once(", expected ") {
        Some((_, expected)) if quotes => format!("{UNFIT}{}", kind(expected).map_or(expected, |(kind, _)| kind)),
        // The text that a shape with several forms expects, and the name of a known key.
        _ if text.starts_with('`') => format!("{UNFIT}{text}"),
        _ if text.starts_with("missing field ") => text,
        _ => "this is not what belongs here".into(),
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
    match (segment, value) {
        (Segment::Seq { index }, value) => value.get_mut(*index),
        (Segment::Map { key }, Value::Mapping(mapping)) => mapping.get_mut(key.as_str()),
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
