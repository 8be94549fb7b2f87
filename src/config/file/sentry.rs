//! The `sentry` part of the document: host, tokens, keys, cookies, tickets, login.

use serde::Deserialize;

use super::HostTls;
use crate::config::reading::Sealed;
use crate::config::units::{Rate, Size, Time};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Sentry {
    pub host: Option<String>,
    pub tls: HostTls,
    pub token: Token,
    pub keys: Vec<Sealed<Key>>,
    pub cookie: Cookie,
    pub ticket: Ticket,
    pub fingerprint: Option<Vec<FingerprintProperty>>,
    pub login: Login,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Token {
    pub issuer: Option<String>,
    pub lifetime: Option<Time>,
    pub leeway: Option<Time>,
    pub audience: Option<Audience>,
    pub sign_with: Option<String>,
    pub cache: Option<Size>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    PerService,
    Shared,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Key {
    pub id: Option<String>,
    pub algorithm: Option<Algorithm>,
    pub secret: Option<Secret>,
    pub private_key: Option<Secret>,
    pub public_key: Option<Secret>,
    pub allow_weak: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    HS256,
    ES256,
    EdDSA,
    RS256,
}

/// Exactly one of the three is set; `check` sees to that. None of them is printed: who takes one key for another writes
/// the secret itself under `env` or `file`.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Secret {
    pub env: Option<String>,
    pub file: Option<String>,
    pub value: Option<String>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Cookie {
    pub name: Option<String>,
    pub state_name: Option<String>,
    pub same_site: Option<SameSite>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SameSite {
    Lax,
    Strict,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Ticket {
    pub lifetime: Option<Time>,
    pub parameter: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FingerprintProperty {
    UserAgent,
    AcceptLanguage,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Login {
    pub failures_per_account: Option<Rate>,
    pub failures_per_address: Option<Rate>,
    pub title: Option<String>,
    pub text: Option<String>,
    pub logo: Option<String>,
    pub workers: Option<usize>,
    pub queue: Option<usize>,
    pub deadline: Option<Time>,
}
