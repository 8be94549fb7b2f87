//! From the document's shapes to checked types: one conversion that reports every fault and never stops at
//! the first. A faulty part is replaced by a default, so that what depends on it can still be looked at.

mod actions;
mod admin;
mod balancing;
mod failures;
mod files;
mod health;
mod identity_headers;
mod maintenance;
mod origins;
mod pool_tls;
mod routes;
mod rules;
mod sense;
mod sentry;
mod server;
mod services;
mod tls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::defaults;
use super::fault::Faults;
use super::file::{self, File};
use super::units::Time;
use super::{
    Config, Log, LogTarget, MAX_COPIES, MAX_FORMER, MAX_SERVERS, MemcachedServer, OnWriteError, OutagePolicy, Sessions,
    UserStore, Users,
};

/// `directory` is where relative paths begin: the configuration file's own.
pub fn check(file: File, directory: &Path, faults: &mut Faults) -> Config {
    let mut check = Check { directory, faults };
    let pools = check.pools(file.pools);
    let tls = check.tls(file.tls, &file.sentry, &file.services);
    let sentry = check.sentry(file.sentry);
    let on_outage = check.on_outage("sessions.on_outage", file.sessions.on_outage, defaults::ON_OUTAGE);
    let last_access_interval = time(file.sessions.last_access_interval, defaults::LAST_ACCESS_INTERVAL);
    let session_recheck_interval = time(file.sessions.session_recheck_interval, defaults::SESSION_RECHECK_INTERVAL);
    let services = check.services(file.services, &sentry, &pools, on_outage);
    let unknown_hosts = actions::unknown_hosts(&mut check, &file.unknown_hosts);
    let mut config = Config {
        server: check.server(file.server),
        log: check.log(file.log),
        tls,
        sessions: check.sessions(file.sessions),
        users: check.users(file.users),
        last_access_interval,
        session_recheck_interval,
        on_outage,
        sentry,
        unknown_hosts,
        services,
        pools,
    };
    let body_bytes = config.server.limits.body_bytes;
    for route in config.services.iter_mut().flat_map(|service| &mut service.routes) {
        // So that routes can be compared by it.
        route.rules.body_bytes.get_or_insert(body_bytes);
    }
    balancing::sticky_cookies(check.faults, &config);
    check.warn(&config);
    config
}

/// What every part of the conversion needs.
struct Check<'a> {
    directory: &'a Path,
    faults: &'a mut Faults,
}

/// What to write for a name, or an origin, that has letters beyond ASCII in it.
fn in_punycode(text: &str) -> String {
    let (before, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    let (wildcard, name) = rest.strip_prefix("*.").map_or(("", rest), |name| ("*.", name));
    let (name, port) = name.split_once(':').map_or((name, None), |(name, port)| (name, Some(port)));
    let host = match url::Host::parse(name) {
        Ok(url::Host::Domain(host)) if name.chars().all(|c| !c.is_whitespace() && !c.is_control()) => host,
        _ => return "write it as browsers send it, in punycode, such as xn--bcher-kva.example".into(),
    };
    let scheme = if before.is_empty() { String::new() } else { format!("{before}://") };
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    format!("write it as browsers send it, in punycode: {scheme}{wildcard}{host}{port}")
}

/// A duration that was written, or its default.
fn time(written: Option<Time>, default: Duration) -> Duration {
    written.map_or(default, |time| time.0)
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Check<'_> {
    fn fault(&mut self, key: impl Into<String>, what: impl Into<String>, write: impl Into<String>) {
        self.faults.add(key, what, write);
    }

    /// A relative path begins at the configuration file.
    fn path(&self, text: &str) -> PathBuf {
        self.directory.join(text)
    }

    fn address(&mut self, key: &str, text: &str) -> SocketAddr {
        text.parse().unwrap_or_else(|_| {
            self.fault(key, format!("`{text}` is no address"), "write IP:PORT, such as 0.0.0.0:443 or [::]:443");
            SocketAddr::from(([127, 0, 0, 1], 0))
        })
    }

    fn log(&mut self, log: file::Log) -> Log {
        let audit = self.log_target(log.audit.format, log.audit.path.as_deref());
        let audit_on_write_error = log.audit.on_write_error.unwrap_or(defaults::AUDIT_ON_WRITE_ERROR);
        if (&audit, audit_on_write_error) == (&LogTarget::Off, OnWriteError::RefuseLogins) {
            let what = "the audit log is off, so that every login would be refused";
            self.fault("log.audit.on_write_error", what, "write `count`, or remove `format: off`");
        }
        Log {
            level: log.level.unwrap_or(defaults::LOG_LEVEL),
            access: self.log_target(log.access.format, log.access.path.as_deref()),
            audit,
            audit_on_write_error,
        }
    }

    fn log_target(&self, format: Option<file::LogFormat>, path: Option<&str>) -> LogTarget {
        match (format.unwrap_or(defaults::LOG_FORMAT), path.unwrap_or(defaults::LOG_PATH)) {
            (file::LogFormat::Off, _) => LogTarget::Off,
            (file::LogFormat::Json, "stdout") => LogTarget::Stdout,
            (file::LogFormat::Json, path) => LogTarget::File(self.path(path)),
        }
    }

    fn sessions(&mut self, sessions: file::Sessions) -> Sessions {
        match sessions.store.unwrap_or(defaults::SESSION_STORE) {
            file::SessionStore::None => Sessions::None,
            file::SessionStore::Memory => {
                let capacity = sessions.memory.capacity.unwrap_or(defaults::MEMORY_CAPACITY);
                if capacity == 0 {
                    self.fault("sessions.memory.capacity", "every login would fail", "write 1 or more");
                }
                Sessions::Memory { capacity }
            }
            file::SessionStore::Memcached => {
                let servers = self.memcached_servers("sessions.memcached.servers", &sessions.memcached.servers);
                let former = self.former_servers(&sessions.memcached.former);
                let copies = sessions.memcached.copies.unwrap_or(defaults::COPIES);
                if !(1..=MAX_COPIES).contains(&copies) || copies > servers.len().max(1) {
                    self.fault(
                        "sessions.memcached.copies",
                        format!("{copies} copies on {} servers", servers.len()),
                        format!("write 1 to {MAX_COPIES}, and no more than there are servers"),
                    );
                }
                let timeout = time(sessions.memcached.timeout, defaults::MEMCACHED_TIMEOUT);
                let sign_on_timeout = self.sign_on_timeout(sessions.memcached.sign_on_timeout, timeout);
                Sessions::Memcached { servers, former, copies, timeout, sign_on_timeout }
            }
        }
    }

    fn sign_on_timeout(&mut self, written: Option<Time>, timeout: Duration) -> Duration {
        if written.is_some_and(|time| time.0 < timeout) {
            let write = format!("write {} or more", humantime::format_duration(timeout));
            self.fault("sessions.memcached.sign_on_timeout", "shorter than the timeout of a look-up", write);
        }
        time(written, defaults::MEMCACHED_SIGN_ON_TIMEOUT)
    }

    fn former_servers(&mut self, written: &[Vec<file::MemcachedServer>]) -> Vec<Vec<MemcachedServer>> {
        let key = "sessions.memcached.former";
        if written.len() > MAX_FORMER {
            self.fault(key, format!("{} lists", written.len()), format!("name the last {MAX_FORMER} at most"));
        }
        let list = |(at, list): (usize, &Vec<_>)| self.memcached_servers(&format!("{key}[{at}]"), list);
        written.iter().enumerate().map(list).collect()
    }

    /// Their addresses are checked later, with the other files and hosts that the configuration names.
    fn memcached_servers(&mut self, key: &str, written: &[file::MemcachedServer]) -> Vec<MemcachedServer> {
        if !(1..=MAX_SERVERS).contains(&written.len()) {
            let remedy =
                format!("name 1 to {MAX_SERVERS}, such as [\"127.0.0.1:11211\"] or [\"unix:///run/memcached.sock\"]");
            self.fault(key, format!("{} servers", written.len()), remedy);
        }
        let mut servers: Vec<MemcachedServer> = Vec::new();
        for (at, server) in written.iter().enumerate() {
            let (address, weight) = match server {
                file::MemcachedServer::Address(address) => (address.clone(), defaults::WEIGHT),
                file::MemcachedServer::Weighted(server) => {
                    (server.address.clone(), server.weight.unwrap_or(defaults::WEIGHT))
                }
            };
            if !(1..=256).contains(&weight) {
                self.fault(format!("{key}[{at}].weight"), format!("a weight of {weight}"), "write 1 to 256");
            }
            if servers.iter().any(|other| other.address == address) {
                self.fault(format!("{key}[{at}]"), format!("`{address}` is listed twice"), "remove it here or there");
            }
            servers.push(MemcachedServer { address, weight: u32::from(weight.clamp(1, 256)) });
        }
        servers
    }

    fn on_outage(&mut self, key: &str, written: Option<file::OnOutage>, default: OutagePolicy) -> OutagePolicy {
        let (word, within) = match written {
            None => return default,
            Some(file::OnOutage::Word(word)) => (word, None),
            Some(file::OnOutage::Policy(policy)) => (policy.policy, policy.within),
        };
        if within.is_some() && word != file::OutageWord::Recent {
            self.fault(key, "`within` goes with `recent` alone", "remove it");
        }
        match word {
            file::OutageWord::Deny => OutagePolicy::Deny,
            file::OutageWord::TokenOnly => OutagePolicy::TokenOnly,
            file::OutageWord::Recent => OutagePolicy::Recent { within: time(within, defaults::ON_OUTAGE_WITHIN) },
        }
    }

    fn users(&mut self, users: file::Users) -> Users {
        let min_password_length = users.password.least.unwrap_or(defaults::MIN_PASSWORD_LENGTH);
        if !(8..=64).contains(&min_password_length) {
            let write = "write 8 to 64 (OWASP ASVS 5.0 6.2.1 and 6.2.9)";
            self.fault("users.password.least", "out of bounds for a minimum length", write);
        }
        let file::UserStore::Sqlite = users.store.unwrap_or(defaults::USER_STORE);
        let path = self.path(users.sqlite.path.as_deref().unwrap_or(defaults::USERS_PATH));
        Users {
            store: UserStore::Sqlite { path },
            refresh: time(users.refresh, defaults::USERS_REFRESH),
            min_password_length,
        }
    }
}
