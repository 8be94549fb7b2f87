//! The YAML document, exactly as it is written: serde shapes and nothing else.
//!
//! Everything is optional here, so that a document with faults can still be read to its end and all of them be
//! reported together; `check` makes the checked types of it. Unknown keys are collected while reading (see
//! `config::read`), except inside the few either-or shapes, which refuse them themselves.
//!
//! The doc comments of shapes, fields and variants are for operators: the JSON Schema and the configuration reference
//! are made of them. Each says what the key does, its unit and bounds, and, where it helps, an example. A default is
//! in `defaults` and not here. `*Restart*` at the end marks what a reload does not take up.

mod balancing;
pub mod failures;
mod health;
mod maintenance;
mod pools;
mod rules;
mod sentry;
mod server;
mod services;
mod sessions;
mod tls;
mod users;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::units::word_or_off;
pub use balancing::*;
pub use health::*;
pub use maintenance::*;
pub use pools::*;
pub use rules::*;
pub use sentry::*;
pub use server::*;
pub use services::*;
pub use sessions::*;
pub use tls::*;
pub use users::*;

/// The configuration of sentry-edge: one YAML file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct File {
    /// The process itself: listeners, limits and timeouts towards clients.
    pub server: Server,
    /// The access log, the audit log and the level of the process log. *Restart*
    pub log: Log,
    /// Certificates and TLS versions of the public listeners.
    pub tls: Tls,
    /// The sign-on service: its host, tokens, keys, cookies and login form.
    pub sentry: Sentry,
    /// Where sessions are kept, and what happens while that store is unavailable.
    pub sessions: Sessions,
    /// The user directory. *Restart*
    pub users: Users,
    /// What requests receive whose host no service has: a status, or a redirect. Over https it needs a
    /// certificate that covers the name: without one the TLS handshake fails before.
    pub unknown_hosts: UnknownHosts,
    /// The applications, by name. A name is made of a-z, 0-9, `-` and `_`, has 63 characters at most and is not `none`;
    /// users are registered for services by it.
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z0-9_-]{1,63}$", "not": {"const": "none"}}))]
    pub services: BTreeMap<String, Service>,
    /// The servers of the applications, by name. A name is made of a-z, 0-9, `-` and `_`.
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z0-9_-]{1,63}$", "not": {"const": "none"}}))]
    pub pools: BTreeMap<String, Pool>,
}

/// What requests receive whose host no service has. Example: `{redirect: "https://www.example.com/"}`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct UnknownHosts {
    /// 400 to 599.
    pub status: Option<u16>,
    /// In place of `status`: an absolute https URL, to which they are redirected (302). Nothing of the request is kept.
    pub redirect: Option<String>,
}

/// The logs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Log {
    /// The level of the process log, which is written to standard error. *Restart*
    pub level: Option<Level>,
    /// The access log: one JSON line for each request.
    pub access: LogTarget,
    /// The audit log: one JSON line for each login, logout, ticket and refusal.
    pub audit: AuditTarget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Failures.
    Error,
    /// Failures, and what an operator should look at.
    Warn,
    /// The same, and what the process does: starts, reloads, drains.
    Info,
    /// The same, and a line for each [decision of each request](reference/logs.md).
    Debug,
}

/// The access log.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LogTarget {
    /// How it is written. *Restart*
    pub format: Option<LogFormat>,
    /// `stdout`, or a file, which is appended to, or a named pipe. A file is opened again on SIGUSR1, SIGHUP and
    /// `sentry-edge reload`. Example: `/var/log/sentry-edge/access.log`. *Restart*
    pub path: Option<String>,
}

/// The audit log.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AuditTarget {
    /// How it is written. *Restart*
    pub format: Option<LogFormat>,
    /// `stdout`, or a file, which is appended to, or a named pipe. A file is opened again on SIGUSR1, SIGHUP and
    /// `sentry-edge reload`. Example: `/var/log/sentry-edge/audit.log`. *Restart*
    pub path: Option<String>,
    /// What happens to logins while lines cannot be written, as on a full disk. *Restart*
    pub on_write_error: Option<OnWriteError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnWriteError {
    /// They go on. What is lost is counted (`log_lines_dropped_total`, `log_write_errors_total`).
    Count,
    /// A login is refused with a `503` unless its line has been written, which it waits 2 s for. Users who are signed in
    /// go on.
    RefuseLogins,
}

#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Nothing is written.
    Off,
}

impl<'de> Deserialize<'de> for LogFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word_or_off(deserializer, "`json` or `off`", |word| match word {
            "json" => Some(Self::Json),
            "off" => Some(Self::Off),
            _ => None,
        })
    }
}

/// `{file: PATH}`, `{env: NAME}` or `{value: TEXT}`: where a secret is read from.
// None of them is printed: an operator who takes one key for another writes the secret itself under `env` or `file`.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("oneOf" = [{"required": ["env"]}, {"required": ["file"]}, {"required": ["value"]}]))]
pub struct Secret {
    /// The name of an environment variable that has the secret.
    pub env: Option<String>,
    /// A file that has the secret; one line end at its end does not count.
    pub file: Option<String>,
    /// The secret itself. A file or a variable keeps it out of the configuration.
    pub value: Option<String>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}
