//! The YAML document, exactly as it is written: serde shapes and nothing else.
//!
//! Everything is optional here, so that a document with faults can still be read to its end and all of them be
//! reported together; `check` makes the checked types of it. Unknown keys are collected while reading (see
//! `config::read`), except inside the few either-or shapes, which refuse them themselves.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::units::{Rate, Size, Time};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct File {
    pub server: Server,
    pub log: Log,
    pub tls: Tls,
    pub sentry: Sentry,
    pub sessions: Sessions,
    pub users: Users,
    pub services: BTreeMap<String, Service>,
    pub pools: BTreeMap<String, Pool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Server {
    pub threads: Option<Threads>,
    pub listeners: Vec<Listener>,
    pub admin: Option<Admin>,
    pub trusted_proxies: Vec<String>,
    pub drain: Option<Time>,
    pub limits: Limits,
    pub timeouts: Timeouts,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged, expecting = "`auto` or a number of threads")]
pub enum Threads {
    Auto(Auto),
    Count(u16),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auto {
    Auto,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Listener {
    pub address: Option<String>,
    pub protocol: Option<Protocol>,
    pub http2: Option<bool>,
    pub redirect_to_https: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    Https,
    Http,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Admin {
    pub address: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Limits {
    pub connections: Option<usize>,
    pub header_bytes: Option<Size>,
    pub header_count: Option<usize>,
    pub body_bytes: Option<Size>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Timeouts {
    pub tls_handshake: Option<Time>,
    pub keepalive: Option<Time>,
    pub read: Option<Time>,
    pub write: Option<Time>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Log {
    pub level: Option<Level>,
    pub access: LogTarget,
    pub audit: LogTarget,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct LogTarget {
    pub format: Option<LogFormat>,
    pub path: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Json,
    Off,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Tls {
    pub min_version: Option<String>,
    pub certificates: Vec<Certificate>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Certificate {
    pub certificate: Option<String>,
    pub key: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Sentry {
    pub host: Option<String>,
    pub token: Token,
    pub keys: Vec<Key>,
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

/// Exactly one of the three is set; `check` sees to that.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Secret {
    pub env: Option<String>,
    pub file: Option<String>,
    pub value: Option<String>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = self.value.as_ref().map(|_| "…");
        f.debug_struct("Secret").field("env", &self.env).field("file", &self.file).field("value", &value).finish()
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

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Sessions {
    pub store: Option<SessionStore>,
    pub memory: Memory,
    pub memcached: Memcached,
    pub on_outage: OnOutage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionStore {
    Memory,
    Memcached,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Memory {
    pub capacity: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Memcached {
    pub servers: Vec<String>,
    pub timeout: Option<Time>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct OnOutage {
    pub policy: Option<OutagePolicy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutagePolicy {
    Deny,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Users {
    pub store: Option<UserStore>,
    pub sqlite: Sqlite,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserStore {
    Sqlite,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Sqlite {
    pub path: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Service {
    pub hosts: Vec<String>,
    pub idle_timeout: Option<Time>,
    pub pool: Option<String>,
    pub forward_token: Option<ForwardToken>,
    pub assertion: Option<bool>,
    pub identity_headers: IdentityHeaders,
    pub access: Option<Access>,
    pub credentials: Option<Vec<Credential>>,
    pub counts_as_activity: Option<bool>,
    pub read_timeout: Option<Time>,
    pub routes: Vec<Route>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForwardToken {
    None,
    Cookie,
    Bearer,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct IdentityHeaders {
    pub user: Option<String>,
    pub email: Option<String>,
    pub roles: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Route {
    pub path: Option<String>,
    pub access: Option<Access>,
    pub credentials: Option<Vec<Credential>>,
    pub counts_as_activity: Option<bool>,
    pub read_timeout: Option<Time>,
    pub pool: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "`public`, `required` or `{roles: [NAME, …]}`")]
pub enum Access {
    Word(AccessWord),
    Roles(Roles),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessWord {
    Public,
    Required,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roles {
    pub roles: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    Cookie,
    Bearer,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pool {
    pub servers: Vec<PoolServer>,
    pub balance: Option<Balance>,
    pub timeouts: PoolTimeouts,
    pub retries: Option<usize>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "`HOST:PORT` or `{address: HOST:PORT, weight: N}`")]
pub enum PoolServer {
    Address(String),
    Weighted(WeightedServer),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightedServer {
    pub address: String,
    pub weight: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    RoundRobin,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PoolTimeouts {
    pub connect: Option<Time>,
    pub read: Option<Time>,
    pub write: Option<Time>,
    pub idle: Option<Time>,
}
