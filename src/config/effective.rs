//! The effective configuration (`run -T`): the document with every default written out, and without secrets.
//!
//! It is filled up along the schema, from the table of defaults that the reference is made of; read again, it gives the
//! same checked configuration, which a test holds. The keys that are written stay in their order.

use std::path::Path;

use serde_json::Value as Json;
use serde_yaml::{Mapping, Value};

use super::document::{untagged, with_text_keys};
use super::schema::{Fallback, fallback, schema};
use super::{BYTE_ORDER_MARK, Config};

/// What is printed instead of a secret that the file itself has.
pub const HIDDEN: &str = "(a secret that is not printed)";

/// Header fields and the like whose values are secrets more often than not, by parts of their names.
const CREDENTIALS: [&str; 11] =
    ["auth", "cookie", "token", "key", "secret", "pass", "credential", "session", "signature", "jwt", "bearer"];

/// How a value begins that is a secret under any name: the schemes of `Authorization`.
const SCHEMES: [&str; 4] = ["basic ", "bearer ", "digest ", "token "];

/// A default that is the value of another key may be that of a third one.
const LONGEST_CHAIN: usize = 3;

/// Returns the effective configuration of a file that has been checked, with a line that names it.
pub fn printed(path: &Path, config: &Config) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let document = serde_yaml::from_str(text.trim_start_matches(BYTE_ORDER_MARK)).map_err(|error| error.to_string())?;
    let effective = effective(document, config).map_err(|error| error.to_string())?;
    Ok(format!("# {}, with every default\n{effective}", path.display()))
}

/// Returns the document as YAML. `config` is what `check` has made of it. Tags are removed first, as the schema knows
/// nothing of them, so that a secret below one is found like any other.
pub fn effective(document: Value, config: &Config) -> Result<String, serde_yaml::Error> {
    let schema = schema();
    // A key that is twice is a fault, so it is in no document that was checked.
    let mut document = with_text_keys(untagged(document)).unwrap_or_default();
    let mut fill = Fill { root: &schema, follow: None };
    fill.shape("File", &schema, &mut document, &mut Vec::new());
    for _ in 0..LONGEST_CHAIN {
        let known = document.clone();
        let mut fill = Fill { root: &schema, follow: Some(&known) };
        fill.shape("File", &schema, &mut document, &mut Vec::new());
    }
    let token = &config.sentry.token;
    for (key, value) in [("issuer", &token.issuer), ("sign_with", &token.sign_with)] {
        if let Some(Value::Mapping(written)) = document.get_mut("sentry").and_then(|sentry| sentry.get_mut("token")) {
            written.entry(key.into()).or_insert_with(|| value.as_str().into());
        }
    }
    serde_yaml::to_string(&document)
}

/// One walk along the schema.
struct Fill<'a> {
    root: &'a Json,
    /// The document of the walk before, from which values that follow another key are taken.
    follow: Option<&'a Value>,
}

impl<'a> Fill<'a> {
    /// A value at `place`, which `node` describes.
    fn value(&mut self, node: &'a Json, value: &mut Value, place: &mut Vec<String>) {
        let Some((name, node)) = self.resolve(node, value) else { return };
        if name == "Secret" {
            hide(value, "value");
        }
        if node.get("properties").is_some() {
            self.shape(name, node, value, place);
            return;
        }
        if let (Some(items), Value::Sequence(list)) = (node.get("items"), &mut *value) {
            for (at, element) in list.iter_mut().enumerate() {
                place.push(at.to_string());
                self.value(items, element, place);
                place.pop();
            }
        }
        if let (Some(inner), Value::Mapping(mapping)) = (node.get("additionalProperties"), value) {
            for (key, element) in mapping {
                let Some(key) = key.as_str() else { continue };
                if is_credential(key, element) {
                    *element = HIDDEN.into();
                }
                place.push(key.to_owned());
                self.value(inner, element, place);
                place.pop();
            }
        }
    }

    /// The part of the schema that describes this value, by its name, beyond references and alternatives.
    fn resolve(&self, node: &'a Json, value: &Value) -> Option<(&'a str, &'a Json)> {
        if let Some(target) = node.get("$ref").and_then(Json::as_str) {
            let name = target.rsplit('/').next().unwrap_or_default();
            let shape = self.root.get("$defs")?.get(name)?;
            let (inner, node) = self.resolve(shape, value)?;
            return Some((if inner.is_empty() { name } else { inner }, node));
        }
        match node.get("oneOf").and_then(Json::as_array) {
            Some(alternatives) if node.get("properties").is_none() => {
                let resolved = alternatives.iter().filter_map(|alternative| self.resolve(alternative, value));
                resolved.into_iter().find(|(_, node)| {
                    let is_mapping = node.get("properties").is_some() || node.get("additionalProperties").is_some();
                    is_mapping == (value.is_mapping() || value.is_null())
                })
            }
            _ => Some(("", node)),
        }
    }

    /// A mapping: what it has is filled up, and what it has not is added.
    fn shape(&mut self, name: &str, node: &'a Json, value: &mut Value, place: &mut Vec<String>) {
        if value.is_null() {
            *value = Value::Mapping(Mapping::new());
        }
        let (Value::Mapping(mapping), Some(properties)) = (value, node.get("properties").and_then(Json::as_object))
        else {
            return;
        };
        for (key, property) in properties {
            place.push(key.clone());
            if let Some(written) = mapping.get_mut(key.as_str()).filter(|written| !written.is_null()) {
                self.value(property, written, place);
            } else if let Some(added) = self.missing(name, key, property, mapping, place) {
                mapping.insert(key.as_str().into(), added);
            }
            place.pop();
        }
    }

    /// What holds where the key is not written, if it can be written.
    fn missing(
        &mut self,
        name: &str,
        key: &str,
        property: &'a Json,
        beside: &Mapping,
        place: &mut Vec<String>,
    ) -> Option<Value> {
        let mut value = match fallback(name, key) {
            Some(Fallback::Value(value)) => serde_yaml::to_value(value).ok()?,
            Some(Fallback::When(other, wanted, value)) => {
                let written = beside.get(other).filter(|written| !written.is_null())?;
                if wanted.is_some_and(|wanted| written.as_str() != Some(wanted)) {
                    return None;
                }
                serde_yaml::to_value(value).ok()?
            }
            Some(Fallback::Follows(other)) => find(self.follow?, other, place)?.clone(),
            Some(Fallback::Text(_) | Fallback::Required) => return None,
            // A section that is not written.
            None => {
                let mut section = Value::Null;
                self.value(property, &mut section, place);
                return section.as_mapping().is_some_and(|section| !section.is_empty()).then_some(section);
            }
        };
        self.value(property, &mut value, place);
        Some(value)
    }
}

/// The value at a key such as `services.NAME.access`, in which `NAME` is that of `place`.
fn find<'v>(document: &'v Value, key: &str, place: &[String]) -> Option<&'v Value> {
    key.split('.').enumerate().try_fold(document, |value, (at, part)| {
        let part = if part == "NAME" { place.get(at)?.as_str() } else { part };
        value.get(part).filter(|value| !value.is_null())
    })
}

/// Whether a text, a number or a switch under this name is a secret in all likelihood.
fn is_credential(name: &str, value: &Value) -> bool {
    let name = name.to_ascii_lowercase();
    let is_named = || CREDENTIALS.iter().any(|part| name.contains(part));
    let begins = |text: &str| {
        let text = text.trim_start().to_ascii_lowercase();
        SCHEMES.iter().any(|scheme| text.starts_with(scheme))
    };
    match value {
        Value::String(text) => is_named() || begins(text),
        Value::Number(_) | Value::Bool(_) => is_named(),
        _ => false,
    }
}

fn hide(value: &mut Value, key: &str) {
    if let Some(secret) = value.get_mut(key) {
        *secret = HIDDEN.into();
    }
}
