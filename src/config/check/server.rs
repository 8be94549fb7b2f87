//! `server`: listeners, the proxies before them, limits and timeouts.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Check, defaults, file, time};
use crate::config::units::Size;
use crate::config::{DrainTimes, Limits, Listener, Protocol, Server, Timeouts};
use crate::path;

/// What some tens of requests hold.
const MIN_BUFFER_BYTES: usize = 4 << 20;

/// Paths of the sign-on, on its own host and on those of services.
const SIGN_ON_PATHS: [&str; 12] = [
    "/login",
    "/logout",
    "/nocookie",
    "/copycookie",
    "/currentuser",
    "/.well-known",
    "/.sentry/login",
    "/.sentry/logout",
    "/.sentry/currentuser",
    "/.sentry/jwks.json",
    "/.sentry/return",
    "/.sentry/authorize",
];

/// A request a microsecond.
const MAX_REQUESTS_PER_SECOND: u32 = 1_000_000;

impl Check<'_> {
    pub(super) fn server(&mut self, server: file::Server) -> Server {
        let threads = match server.threads {
            None | Some(file::Threads::Auto(_)) => None,
            Some(file::Threads::Count(count @ 1..=1024)) => Some(usize::from(count)),
            Some(file::Threads::Count(count)) => {
                self.fault("server.threads", format!("{count} threads"), "write `auto` or 1 to 1024");
                None
            }
        };
        let listeners = self.listeners(&server.listeners, !server.trusted_proxies.is_empty());
        let admin = server.admin.unwrap_or_default().open("server.admin", self.faults);
        let admin = super::admin::admin(self, admin);
        if let Some(other) = listeners.iter().find(|other| exclude_each_other(other.address, admin.address)) {
            let what = format!("{} is taken by the listener of {}", admin.address, other.address);
            self.fault("server.admin.address", what, "give it a port of its own, such as 127.0.0.1:9090");
        }
        Server {
            threads,
            listeners,
            admin,
            runtime_dir: super::admin::runtime_dir(self, server.runtime_dir.as_deref()),
            trusted_proxies: self.networks("server.trusted_proxies", &server.trusted_proxies),
            acme_challenge: server
                .acme_challenge
                .and_then(|challenge| self.acme_challenge(&challenge, &server.listeners)),
            health: server.health.map(|health| self.health(health.path.as_deref())),
            drain: drain(server.drain),
            upgrade_timeout: time(server.upgrade_timeout, defaults::UPGRADE_TIMEOUT),
            limits: self.limits(&server.limits),
            timeouts: Timeouts {
                tls_handshake: time(server.timeouts.tls_handshake, defaults::TLS_HANDSHAKE_TIMEOUT),
                keepalive: time(server.timeouts.keepalive, defaults::KEEPALIVE_TIMEOUT),
                read: time(server.timeouts.read, defaults::READ_TIMEOUT),
                write: time(server.timeouts.write, defaults::WRITE_TIMEOUT),
            },
        }
    }

    fn listeners(&mut self, written: &[file::Listener], has_proxies: bool) -> Vec<Listener> {
        if !written.iter().any(|listener| listener.protocol.unwrap_or(defaults::LISTENER_PROTOCOL) == Protocol::Https) {
            self.fault(
                "server.listeners",
                "no listener speaks https",
                "add one, such as {address: \"0.0.0.0:443\", protocol: https}",
            );
        }
        let mut listeners: Vec<Listener> = Vec::new();
        for (at, listener) in written.iter().enumerate() {
            let key = |name: &str| format!("server.listeners[{at}].{name}");
            let protocol = listener.protocol.unwrap_or(defaults::LISTENER_PROTOCOL);
            let address = match &listener.address {
                Some(address) => self.address(&key("address"), address),
                None => {
                    self.fault(key("address"), "missing", "write IP:PORT, such as 0.0.0.0:443");
                    continue;
                }
            };
            let redirects = listener.redirect_to_https.unwrap_or(defaults::LISTENER_REDIRECT_TO_HTTPS);
            if protocol == Protocol::Http && !redirects {
                self.fault(
                    key("redirect_to_https"),
                    "plain HTTP is not served: the token cookie travels over TLS alone",
                    "write `true`, or remove the listener",
                );
            }
            if let Some(other) = listeners.iter().find(|other| exclude_each_other(other.address, address)) {
                let what = match other.address == address {
                    true => format!("{address} is listened on twice"),
                    false => format!("{address} and {} exclude each other: one of them has the other's", other.address),
                };
                self.fault(key("address"), what, "give each listener its own");
            }
            let http2 = listener.http2.unwrap_or(defaults::LISTENER_HTTP2) && protocol == Protocol::Https;
            let proxy_protocol = listener.proxy_protocol.unwrap_or(defaults::LISTENER_PROXY_PROTOCOL);
            if proxy_protocol && !has_proxies {
                let write = "name the addresses of the balancers under server.trusted_proxies";
                self.fault(key("proxy_protocol"), "no proxy is trusted to send it", write);
            }
            if listener.public_port == Some(0) {
                self.fault(key("public_port"), "no client can connect to port 0", "write 1 to 65535");
            }
            let public_port = listener.public_port;
            listeners.push(Listener { address, protocol, http2, proxy_protocol, public_port });
        }
        listeners
    }

    fn health(&mut self, written: Option<&str>) -> String {
        let (key, path) = ("server.health.path", written.unwrap_or(defaults::SERVER_HEALTH_PATH));
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        let is_segment = |text: &str| !text.is_empty() && text.bytes().all(plain) && text != "." && text != "..";
        if !path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_segment)) {
            let write = "write a path of letters, digits, - . _ and ~, such as /.sentry/health";
            self.fault(key, format!("`{}` is no path for this", path.escape_debug()), write);
        }
        let is_ours = SIGN_ON_PATHS.iter().any(|ours| path::is_under_in_any_case(path.as_bytes(), ours.as_bytes()));
        if is_ours {
            self.fault(key, format!("`{path}` is a path of the sign-on"), "write another one, such as /.sentry/health");
        }
        path.to_owned()
    }

    fn acme_challenge(&mut self, written: &file::AcmeChallenge, listeners: &[file::Listener]) -> Option<PathBuf> {
        let Some(root) = &written.root else {
            let write = "name the folder that the ACME client writes to, such as /var/lib/acme";
            self.fault("server.acme_challenge", "no `root`", write);
            return None;
        };
        let path = self.path(root);
        if !listeners.iter().any(|listener| listener.protocol == Some(Protocol::Http)) {
            let what = "no listener speaks http, and ACME challenges come over plain HTTP, on port 80";
            self.faults.warn(
                "server.acme_challenge",
                what,
                "add one, such as {address: \"0.0.0.0:80\", protocol: http}",
            );
        }
        Some(path)
    }

    /// So many requests of one client in a second.
    pub(super) fn per_second(&mut self, key: &str, written: Option<u32>) -> Option<u32> {
        if written.is_some_and(|count| !(1..=MAX_REQUESTS_PER_SECOND).contains(&count)) {
            self.fault(key, "out of bounds", "write 1 to 1000000, or `null` for no limit");
        }
        written.or(defaults::REQUESTS_PER_SECOND)
    }

    fn buffers(&mut self, key: &str, written: Option<Size>, default: usize) -> usize {
        if written.is_some_and(|size| size.0 < MIN_BUFFER_BYTES) {
            self.fault(format!("server.limits.{key}"), "too little for some tens of requests", "write 4MiB or more");
        }
        written.map_or(default, |size| size.0)
    }

    fn limits(&mut self, written: &file::Limits) -> Limits {
        let requests_per_second = self.per_second("server.limits.requests_per_second", written.requests_per_second);
        let buffer_bytes = self.buffers("buffer_bytes", written.buffer_bytes, Limits::DEFAULT.buffer_bytes);
        let each = Limits::DEFAULT.buffer_bytes_per_address;
        let buffer_bytes_per_address = self.buffers("buffer_bytes_per_address", written.buffer_bytes_per_address, each);
        let mut positive = |key: &str, value: Option<usize>, default: usize| match value {
            Some(0) => {
                self.faults.add(format!("server.limits.{key}"), "0 would refuse every request", "write 1 or more");
                default
            }
            value => value.unwrap_or(default),
        };
        let default = Limits::DEFAULT;
        Limits {
            buffer_bytes,
            buffer_bytes_per_address,
            connections: positive("connections", written.connections, default.connections),
            connections_per_address: positive(
                "connections_per_address",
                written.connections_per_address,
                default.connections_per_address,
            ),
            header_count: positive("header_count", written.header_count, default.header_count),
            streams: positive("streams", written.streams, default.streams),
            requests_per_second,
            header_timeout: time(written.header_timeout, default.header_timeout),
            header_bytes: written.header_bytes.map_or(default.header_bytes, |size| size.0),
            min_body_rate: written.min_body_rate.map_or(default.min_body_rate, |size| size.0),
            body_bytes: written.body_bytes.map_or(default.body_bytes, |size| size.0),
        }
    }
}

/// Whether two addresses cannot be bound at once. `[::]` beside an IPv4 address of its port takes IPv6 alone.
fn exclude_each_other(one: SocketAddr, other: SocketAddr) -> bool {
    let has_all = one.ip().is_unspecified() || other.ip().is_unspecified();
    let is_same_port = one.port() != 0 && one.port() == other.port();
    let is_same = match (one, other) {
        // An address of a link is one of each interface.
        (SocketAddr::V6(one), SocketAddr::V6(other)) => (one.ip(), one.scope_id()) == (other.ip(), other.scope_id()),
        _ => one.ip() == other.ip(),
    };
    is_same_port && one.is_ipv4() == other.is_ipv4() && (has_all || is_same)
}

fn drain(written: Option<file::Drain>) -> DrainTimes {
    let steps = match written {
        None => file::DrainSteps::default(),
        Some(file::Drain::Requests(requests)) => file::DrainSteps { notice: None, requests: Some(requests) },
        Some(file::Drain::Steps(steps)) => steps,
    };
    DrainTimes {
        notice: steps.notice.map_or(defaults::DRAIN_NOTICE, |notice| notice.0),
        requests: time(steps.requests, defaults::DRAIN),
    }
}
