//! The configuration: one YAML file in, checked types out, every fault reported at once.
//!
//! [`read`] gives a [`Config`] whose fields cannot be wrong by themselves, and the [`Faults`] found on the way.
//! Modules that load the files named here (certificates, keys) add their faults to the same list, so that an operator
//! sees all of them together. This module opens no socket and imports no other module but primitives.

mod actions;
mod balancing;
mod check;
pub mod defaults;
mod document;
pub mod effective;
mod failures;
pub mod fault;
pub mod file;
pub mod header_names;
mod lines;
mod permissions;
mod reading;
pub mod rules;
pub mod runtime_dir;
pub mod schema;
pub mod secret;
mod server;
mod services;
mod suggest;
mod tls;
pub mod units;

use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::host::Host;
pub use actions::{Action, Files, FixedReply, Forward, Prefixes, Redirect, UnknownHosts};
pub use balancing::{Balance, Health, HealthCheck};
pub use failures::{Eject, Retry};
pub use fault::{Faults, Warnings};
pub use file::{
    AdminRole, Algorithm, Audience, Encoding, FingerprintProperty, ForwardToken, Level, OnWriteError, PoolProtocol,
    Preflight, Protocol, SameSite,
};
pub use permissions::warn_of_permissions;
pub use rules::{Addresses, FieldSource, METHODS, RequestHeaders, ResponseHeaders, RouteRules};
pub use secret::{Secret, SecretSource};
pub use server::{Admin, AdminToken, DrainTimes, Limits, Listener, Server, Timeouts};
pub use services::{
    Access, ClientKey, Credentials, IdentityHeaders, Location, Maintenance, Pool, PoolServer, PoolTimeouts, PoolTls,
    Route, Service,
};
pub use tls::{Certificate, ClientCertificates, HostTls, Hsts, Tickets, Tls, TlsVersion};
pub use units::Rate;

/// The most that `pools.*.retry.attempts` may be: more attempts only add load to a failing pool.
pub const MAX_RETRIES: usize = 10;

/// Servers that one cluster may have; each costs every edge five connections.
pub const MAX_SERVERS: usize = 64;
/// Former lists of servers that are read as well; one more change forgets the oldest list.
pub const MAX_FORMER: usize = 8;
/// Copies of a session; each costs every request a look-up.
pub const MAX_COPIES: usize = 3;

/// Names of cookies of the sign-on host that cannot be configured: the login form's and the device's.
pub const FORM_COOKIE: &str = "__Host-SSOLogin";
pub const DEVICE_COOKIE: &str = "__Host-SSODevice";

/// The same for the hosts of services: the page that a browser was just sent back to, and one that the browser keeps.
pub const ROUND_COOKIE: &str = "__Host-SSORound";
pub const RETURN_COOKIE: &str = "__Host-SSOReturn";

/// Names that a configurable cookie may not have.
pub const FIXED_COOKIES: [&str; 4] = [FORM_COOKIE, DEVICE_COOKIE, ROUND_COOKIE, RETURN_COOKIE];

/// A checked configuration. Its paths are absolute or relative to the process, not to the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub server: Server,
    pub log: Log,
    pub tls: Tls,
    pub sentry: Sentry,
    pub sessions: Sessions,
    /// How old the last access in a session record may be before a request rewrites it.
    pub last_access_interval: Duration,
    /// How often the session of an open stream is checked again.
    pub session_recheck_interval: Duration,
    /// The policy of services that do not set one.
    pub on_outage: OutagePolicy,
    pub users: Users,
    pub unknown_hosts: UnknownHosts,
    pub services: Vec<Service>,
    pub pools: Vec<Pool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub level: Level,
    pub access: LogTarget,
    pub audit: LogTarget,
    pub audit_on_write_error: OnWriteError,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    Off,
    Stdout,
    File(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentry {
    pub host: Host,
    pub token: Token,
    pub keys: Vec<Key>,
    pub cookie: Cookie,
    pub ticket: Ticket,
    pub fingerprint: Vec<FingerprintProperty>,
    pub login: Login,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub issuer: String,
    pub lifetime: Duration,
    pub leeway: Duration,
    pub audience: Audience,
    /// The `id` of the key that signs.
    pub sign_with: String,
    /// The size of the cache of verified tokens, in bytes.
    pub cache: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The path of the key in the file, for faults that are found when the secret is read.
    pub place: String,
    pub id: String,
    pub algorithm: Algorithm,
    pub material: KeyMaterial,
    pub allow_weak: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyMaterial {
    Secret(SecretSource),
    Private(SecretSource),
    Public(SecretSource),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    pub name: String,
    pub state_name: String,
    pub same_site: SameSite,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub lifetime: Duration,
    pub parameter: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub failures_per_account: Rate,
    pub failures_per_address: Rate,
    pub title: String,
    pub text: Option<String>,
    pub logo: Option<PathBuf>,
    pub workers: usize,
    pub queue: usize,
    pub deadline: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sessions {
    Memory {
        capacity: usize,
    },
    Memcached {
        servers: Vec<MemcachedServer>,
        /// Lists that other edges still have, or that this one had before.
        former: Vec<Vec<MemcachedServer>>,
        /// The number of servers that each session is stored on.
        copies: usize,
        timeout: Duration,
        sign_on_timeout: Duration,
    },
    /// No sessions are kept: the token alone decides.
    None,
}

impl Sentry {
    /// Returns the names of all cookies that the edge sets: no application sees them, and none may set them.
    pub fn cookie_names(&self) -> Vec<String> {
        let fixed = FIXED_COOKIES.map(Into::into);
        [self.cookie.name.clone(), self.cookie.state_name.clone()].into_iter().chain(fixed).collect()
    }
}

impl Sessions {
    /// Whether several processes share the store, so that a command can read it beside the edges.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Memcached { .. })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemcachedServer {
    /// The address as it is written, which also decides its position on the ring.
    pub address: String,
    pub weight: u32,
}

impl Users {
    /// Returns the file that holds the directory, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match &self.store {
            UserStore::Sqlite { path } => Some(path),
        }
    }
}

/// What to do with a good token while the session store gives no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutagePolicy {
    /// No request is admitted, and no user is logged out.
    Deny,
    /// Users whose session this process found active at most this long ago are admitted.
    Recent { within: Duration },
    /// Every request with a valid token is admitted.
    TokenOnly,
}

/// The user directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users {
    pub store: UserStore,
    /// The interval at which every edge reads the changes of users.
    pub refresh: Duration,
    /// The minimum length of a new password, in characters.
    pub min_password_length: usize,
}

/// Where users are stored (`users.store`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserStore {
    Sqlite { path: PathBuf },
}

/// The byte order mark that editors on Windows write before the text of a UTF-8 file.
pub(crate) const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Reads a file. Returns `Err` when it cannot be read or is not YAML; otherwise the configuration, in which faulty values
/// are replaced by defaults, with the list of its faults.
pub fn read(path: &Path) -> Result<(Config, Faults), Faults> {
    let fault = |what: String, write: &'static str| {
        let mut faults = Faults::new(path, "");
        faults.add("", what, write);
        faults
    };
    let bytes = std::fs::read(path)
        .map(Zeroizing::new)
        .map_err(|error| fault(format!("cannot read the file: {error}"), "name a readable file with -c"))?;
    if is_utf16(&bytes) {
        return Err(fault("the file is in UTF-16, as some editors on Windows save it".into(), "save it as UTF-8"));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(path, text),
        Err(error) => {
            let line = 1 + memchr::memchr_iter(b'\n', &bytes[..error.valid_up_to()]).count();
            let mut faults = Faults::new(path, "");
            faults.add_at_line(Some(line), "a character that is not UTF-8", "save the file as UTF-8");
            Err(faults)
        }
    }
}

/// Recognises UTF-16 by its byte order mark, or by the zero bytes of ASCII letters.
pub(crate) fn is_utf16(bytes: &[u8]) -> bool {
    let zeros = |from: usize| bytes.len() >= 8 && bytes[..8].iter().skip(from).step_by(2).all(|byte| *byte == 0);
    match bytes {
        [0xff, 0xfe, ..] => bytes.len() < 8 || bytes[2..8].iter().skip(1).step_by(2).all(|byte| *byte == 0),
        [0xfe, 0xff, ..] => bytes.len() < 8 || bytes[2..8].iter().step_by(2).all(|byte| *byte == 0),
        _ => zeros(0) || zeros(1),
    }
}

/// Does what [`read`] does with a text. `path` names the text in messages, and relative paths begin at its folder.
pub fn parse(path: &Path, text: &str) -> Result<(Config, Faults), Faults> {
    let hash = runtime_dir::short_hash(text.as_bytes());
    // Editors on Windows write a byte order mark, which is no part of the document (YAML 1.2.2 §5.2).
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let mut faults = Faults::new(path, text);
    faults.hash = hash;
    let document = match serde_yaml::from_str::<serde_yaml::Value>(text) {
        Ok(document) => document,
        Err(error) => {
            let (line, what, write) = describe(&error, &mut faults);
            faults.add_at_line(line, what, write);
            return Err(faults);
        }
    };
    let Some(document) = document::with_text_keys(document) else {
        let (line, what) = doubled(&mut faults, None);
        faults.add_at_line(line, what, DOUBLED);
        return Err(faults);
    };
    let file: file::File = reading::deserialize(document, &mut faults);
    let directory = path.parent().unwrap_or(Path::new(""));
    let config = check::check(file, directory, &mut faults);
    Ok((config, faults))
}

/// Returns the line, the fault and the remedy of a YAML error. Some of the parser's messages quote the text, which may be a
/// secret, so these are replaced.
fn describe(error: &serde_yaml::Error, faults: &mut Faults) -> (Option<usize>, String, &'static str) {
    let text = error.to_string();
    let line = error.location().map(|location| location.line());
    if text.contains("duplicate entry") {
        let (line, what) = doubled(faults, line);
        return (line, what, DOUBLED);
    }
    if text.contains("invalid type: integer") {
        return (line, "a number that is too large; put a text of digits in quotes".into(), MEND);
    }
    if text.contains(['`', '"']) || text.contains("invalid ") {
        return (line, "a value that is not what its tag says".into(), MEND);
    }
    (line, format!("this is not YAML: {text}"), MEND)
}

/// Returns the line and the fault of a key that is twice in one mapping; `line` is where the parser has seen it.
fn doubled(faults: &mut Faults, line: Option<usize>) -> (Option<usize>, String) {
    match faults.doubled_key() {
        Some((second, first)) => (Some(second), format!("a key that is on line {first} already")),
        None => (line, "a key that is twice in one mapping".into()),
    }
}

const DOUBLED: &str = "remove one of the two, or merge their values";
const MEND: &str = "mend the syntax at that place";
