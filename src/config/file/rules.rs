//! What a service or a route changes in messages and refuses of requests, as YAML has it.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Secret;

/// Header fields of the requests that an application receives.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RequestHeaders {
    /// Fields to set, by name: a text, or a secret as `{file: PATH}` or `{env: NAME}`, of which one trailing line end is
    /// cut. A field replaces every one of that name that the client sent. The names of the edge's own fields are refused.
    pub set: BTreeMap<String, FieldValue>,
    /// Names of fields that the client may send and the application does not receive.
    pub remove: Vec<String>,
}

/// Header fields of an application's responses, of files and of fixed replies.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResponseHeaders {
    /// Fields to set, by name, in the place of the application's own.
    pub set: BTreeMap<String, FieldText>,
    /// Names of fields of the application that clients do not receive, such as `Server` and `X-Powered-By`.
    pub remove: Vec<String>,
}

/// The addresses that clients may come from.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Addresses {
    /// Addresses and CIDRs that are admitted: where there are any, all others get a `403`.
    pub allow: Option<Vec<String>>,
    /// Addresses and CIDRs that get a `403`, even if `allow` has them.
    pub deny: Option<Vec<String>>,
}

/// The value of a header field: a text. A number or a boolean is taken as a text.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a text in quotes")]
pub enum FieldText {
    Text(String),
    Number(i64),
    Switch(bool),
}

/// The value of a header field: a text, or a secret.
// Never printed: an operator may have written a secret where a text stands.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a text in quotes, `{file: PATH}` or `{env: NAME}`")]
pub enum FieldValue {
    Text(FieldText),
    Secret(Secret),
}

impl FieldText {
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Switch(is_on) => is_on.to_string(),
        }
    }
}

impl fmt::Debug for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FieldValue(…)")
    }
}
