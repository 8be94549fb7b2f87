//! The YAML document, exactly as it is written: serde shapes and nothing else.
//!
//! Everything is optional here, so that a document with faults can still be read to its end and all of them be
//! reported together; `check` makes the checked types of it. Unknown keys are collected while reading (see
//! `config::read`), except inside the few either-or shapes, which refuse them themselves.

mod sentry;
mod services;

use std::collections::BTreeMap;

use serde::Deserialize;

use super::reading::Sealed;
use super::units::{Size, Time};
pub use sentry::*;
pub use services::*;

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
    pub admin: Option<Sealed<Admin>>,
    pub trusted_proxies: Vec<String>,
    pub acme_challenge: Option<AcmeChallenge>,
    pub drain: Option<Time>,
    pub limits: Limits,
    pub timeouts: Timeouts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct AcmeChallenge {
    pub root: Option<String>,
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
    pub proxy_protocol: Option<bool>,
    pub public_port: Option<u16>,
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
    pub token: Option<Secret>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Limits {
    pub connections: Option<usize>,
    pub connections_per_address: Option<usize>,
    pub header_bytes: Option<Size>,
    pub header_count: Option<usize>,
    pub header_timeout: Option<Time>,
    pub body_bytes: Option<Size>,
    pub min_body_rate: Option<Size>,
    pub streams: Option<usize>,
    pub buffer_bytes: Option<Size>,
    pub buffer_bytes_per_address: Option<Size>,
    pub requests_per_second: Option<u32>,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
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
    pub tickets: Sealed<Tickets>,
    pub refresh: Option<Time>,
    pub hsts: Option<Hsts>,
}

/// Of the hosts of a service, or of the sign-on host.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct HostTls {
    pub min_version: Option<String>,
    pub client_ca: Option<String>,
    pub client_certificate: Option<ClientCertificate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificate {
    Required,
    Optional,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged, expecting = "`off`, `{max_age: 365d}` or `{max_age: 365d, include_subdomains: true}`")]
pub enum Hsts {
    Off(Off),
    On(HstsSettings),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Off {
    Off,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HstsSettings {
    pub max_age: Time,
    #[serde(default)]
    pub include_subdomains: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Tickets {
    pub secret: Option<Secret>,
    pub rotation: Option<Time>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Certificate {
    pub certificate: Option<String>,
    pub key: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Sessions {
    pub store: Option<SessionStore>,
    pub memory: Memory,
    pub memcached: Memcached,
    pub on_outage: Option<OnOutage>,
    pub last_access_interval: Option<Time>,
    pub session_recheck_interval: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionStore {
    Memory,
    Memcached,
    None,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Memory {
    pub capacity: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Memcached {
    pub servers: Vec<MemcachedServer>,
    pub former: Vec<Vec<MemcachedServer>>,
    pub copies: Option<usize>,
    pub timeout: Option<Time>,
    pub sign_on_timeout: Option<Time>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "`HOST:PORT`, `unix:///PATH` or `{address: HOST:PORT, weight: N}`")]
pub enum MemcachedServer {
    Address(String),
    Weighted(WeightedServer),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "`deny`, `token_only`, `{policy: recent, within: 60s}`, `{policy: deny}` or `{policy: token_only}`"
)]
pub enum OnOutage {
    Word(OutageWord),
    Policy(OutagePolicy),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutagePolicy {
    pub policy: OutageWord,
    pub within: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutageWord {
    Deny,
    Recent,
    TokenOnly,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Users {
    pub store: Option<UserStore>,
    pub refresh: Option<Time>,
    pub sqlite: Sqlite,
    pub password: PasswordRules,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PasswordRules {
    pub least: Option<usize>,
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
