//! From the document's shapes to checked types: one conversion that reports every fault and never stops at
//! the first. A faulty part is replaced by a default, so that what depends on it can still be looked at.

mod sentry;
mod services;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fault::Faults;
use super::file::{self, File};
use super::units::Time;
use super::{
    Admin, Certificate, Config, Limits, Listener, Log, LogTarget, MOST_COPIES, MOST_SERVERS, MemcachedServer,
    OutagePolicy, Protocol, Server, Sessions, Timeouts, Tls, TlsVersion, Users,
};

/// `directory` is where relative paths begin: the configuration file's own.
pub fn check(file: File, directory: &Path, faults: &mut Faults) -> Config {
    let mut check = Check { directory, faults };
    let pools = check.pools(file.pools);
    let sentry = check.sentry(file.sentry);
    let on_outage = check.on_outage("sessions.on_outage", file.sessions.on_outage, OutagePolicy::Deny);
    let record_interval = time(file.sessions.record_interval, seconds(30));
    let stream_interval = time(file.sessions.stream_interval, seconds(10));
    let services = check.services(file.services, &sentry, &pools, on_outage);
    Config {
        server: check.server(file.server),
        log: check.log(file.log),
        tls: check.tls(file.tls),
        sessions: check.sessions(file.sessions),
        users: check.users(file.users),
        record_interval,
        stream_interval,
        on_outage,
        sentry,
        services,
        pools,
    }
}

/// What every part of the conversion needs.
struct Check<'a> {
    directory: &'a Path,
    faults: &'a mut Faults,
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

    fn address(&mut self, key: &str, written: Option<&str>, default: &str) -> SocketAddr {
        let text = written.unwrap_or(default);
        text.parse().unwrap_or_else(|_| {
            self.fault(key, format!("`{text}` is no address"), "write IP:PORT, such as 0.0.0.0:443 or [::]:443");
            SocketAddr::from(([127, 0, 0, 1], 0))
        })
    }

    fn server(&mut self, server: file::Server) -> Server {
        let threads = match server.threads {
            None | Some(file::Threads::Auto(_)) => None,
            Some(file::Threads::Count(count @ 1..=1024)) => Some(usize::from(count)),
            Some(file::Threads::Count(count)) => {
                self.fault("server.threads", format!("{count} threads"), "write `auto` or 1 to 1024");
                None
            }
        };
        let listeners = self.listeners(&server.listeners);
        let admin = server.admin.unwrap_or_default();
        Server {
            threads,
            listeners,
            admin: Admin {
                address: self.address("server.admin.address", admin.address.as_deref(), "127.0.0.1:9090"),
                token: admin.token.and_then(|token| self.secret("server.admin.token", &token)),
            },
            trusted_proxies: self.networks(&server.trusted_proxies),
            drain: time(server.drain, seconds(20)),
            limits: self.limits(&server.limits),
            timeouts: Timeouts {
                tls_handshake: time(server.timeouts.tls_handshake, seconds(5)),
                keepalive: time(server.timeouts.keepalive, seconds(75)),
                read: time(server.timeouts.read, seconds(60)),
                write: time(server.timeouts.write, seconds(60)),
            },
        }
    }

    fn listeners(&mut self, written: &[file::Listener]) -> Vec<Listener> {
        if !written.iter().any(|listener| listener.protocol != Some(Protocol::Http)) {
            self.fault(
                "server.listeners",
                "no listener speaks https",
                "add one, such as {address: \"0.0.0.0:443\", protocol: https}",
            );
        }
        let mut listeners: Vec<Listener> = Vec::new();
        for (at, listener) in written.iter().enumerate() {
            let key = |name: &str| format!("server.listeners[{at}].{name}");
            let protocol = listener.protocol.unwrap_or(Protocol::Https);
            let address = match &listener.address {
                Some(address) => self.address(&key("address"), Some(address), ""),
                None => {
                    self.fault(key("address"), "missing", "write IP:PORT, such as 0.0.0.0:443");
                    continue;
                }
            };
            if protocol == Protocol::Http && listener.redirect_to_https == Some(false) {
                self.fault(
                    key("redirect_to_https"),
                    "plain HTTP is not served: the token cookie travels over TLS alone",
                    "write `true`, or remove the listener",
                );
            }
            if address.port() != 0 && listeners.iter().any(|other| other.address == address) {
                self.fault(key("address"), format!("{address} is listened on twice"), "give each listener its own");
            }
            let http2 = listener.http2.unwrap_or(true) && protocol == Protocol::Https;
            listeners.push(Listener { address, protocol, http2 });
        }
        listeners
    }

    fn networks(&mut self, written: &[String]) -> Vec<ipnet::IpNet> {
        let mut networks = Vec::new();
        for (at, text) in written.iter().enumerate() {
            let address = text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from);
            match text.parse().or(address) {
                Ok(network) => networks.push(network),
                Err(_) => self.fault(
                    format!("server.trusted_proxies[{at}]"),
                    format!("`{text}` is no network"),
                    "write a CIDR, such as 10.0.0.0/8",
                ),
            }
        }
        networks
    }

    fn limits(&mut self, written: &file::Limits) -> Limits {
        let mut positive = |key: &str, value: Option<usize>, default: usize| match value {
            Some(0) => {
                self.faults.add(format!("server.limits.{key}"), "zero would refuse everything", "write 1 or more");
                default
            }
            value => value.unwrap_or(default),
        };
        Limits {
            connections: positive("connections", written.connections, 20_000),
            header_count: positive("header_count", written.header_count, 100),
            streams: positive("streams", written.streams, 100_000),
            header_bytes: written.header_bytes.map_or(32 << 10, |size| size.0),
            body_bytes: written.body_bytes.map_or(64 << 20, |size| size.0),
        }
    }

    fn log(&mut self, log: file::Log) -> Log {
        Log {
            level: log.level.unwrap_or(file::Level::Info),
            access: self.log_target(&log.access),
            audit: self.log_target(&log.audit),
        }
    }

    fn log_target(&self, target: &file::LogTarget) -> LogTarget {
        match (target.format, target.path.as_deref()) {
            (Some(file::LogFormat::Off), _) => LogTarget::Off,
            (_, None | Some("stdout")) => LogTarget::Stdout,
            (_, Some(path)) => LogTarget::File(self.path(path)),
        }
    }

    fn tls(&mut self, tls: file::Tls) -> Tls {
        let min_version = match tls.min_version.as_deref() {
            None | Some("1.2") => TlsVersion::V1_2,
            Some("1.3") => TlsVersion::V1_3,
            Some(other) => {
                self.fault("tls.min_version", format!("`{other}` is not offered"), "write \"1.2\" or \"1.3\"");
                TlsVersion::V1_2
            }
        };
        if tls.certificates.is_empty() {
            self.fault("tls.certificates", "no certificate", "add {certificate: FILE, key: FILE}");
        }
        let mut certificates = Vec::new();
        for (at, written) in tls.certificates.iter().enumerate() {
            let place = format!("tls.certificates[{at}]");
            let mut file = |name: &str, path: &Option<String>| {
                if path.is_none() {
                    self.faults.add(format!("{place}.{name}"), "missing", "name a PEM file");
                }
                path.as_ref().map(|path| self.directory.join(path))
            };
            let (certificate, key) = (file("certificate", &written.certificate), file("key", &written.key));
            if let (Some(certificate), Some(key)) = (certificate, key) {
                certificates.push(Certificate { place, certificate, key });
            }
        }
        Tls { min_version, certificates }
    }

    fn sessions(&mut self, sessions: file::Sessions) -> Sessions {
        match sessions.store.unwrap_or(file::SessionStore::Memory) {
            file::SessionStore::None => Sessions::None,
            file::SessionStore::Memory => {
                let capacity = sessions.memory.capacity.unwrap_or(1_000_000);
                if capacity == 0 {
                    self.fault("sessions.memory.capacity", "nobody could sign in", "write 1 or more");
                }
                Sessions::Memory { capacity }
            }
            file::SessionStore::Memcached => {
                let servers = self.memcached_servers(&sessions.memcached.servers);
                let copies = sessions.memcached.copies.unwrap_or(1);
                if !(1..=MOST_COPIES).contains(&copies) || copies > servers.len().max(1) {
                    self.fault(
                        "sessions.memcached.copies",
                        format!("{copies} copies on {} servers", servers.len()),
                        format!("write 1 to {MOST_COPIES}, and no more than there are servers"),
                    );
                }
                let timeout = time(sessions.memcached.timeout, Duration::from_millis(50));
                Sessions::Memcached { servers, copies, timeout }
            }
        }
    }

    /// Where they lead is looked at later, with the other things outside.
    fn memcached_servers(&mut self, written: &[file::MemcachedServer]) -> Vec<MemcachedServer> {
        let key = "sessions.memcached.servers";
        if !(1..=MOST_SERVERS).contains(&written.len()) {
            let remedy =
                format!("name 1 to {MOST_SERVERS}, such as [\"127.0.0.1:11211\"] or [\"unix:///run/memcached.sock\"]");
            self.fault(key, format!("{} servers", written.len()), remedy);
        }
        let mut servers: Vec<MemcachedServer> = Vec::new();
        for (at, server) in written.iter().enumerate() {
            let (address, weight) = match server {
                file::MemcachedServer::Address(address) => (address.clone(), 1),
                file::MemcachedServer::Weighted(server) => (server.address.clone(), server.weight.unwrap_or(1)),
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
            file::OutageWord::Recent => OutagePolicy::Recent { within: time(within, seconds(60)) },
        }
    }

    fn users(&mut self, users: file::Users) -> Users {
        let file::UserStore::Sqlite = users.store.unwrap_or(file::UserStore::Sqlite);
        Users::Sqlite {
            path: self.path(users.sqlite.path.as_deref().unwrap_or("users.db")),
            refresh: time(users.refresh, Duration::from_millis(500)),
        }
    }
}
