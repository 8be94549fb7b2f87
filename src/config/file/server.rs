//! The `server` part of the document: listeners, limits and timeouts.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{self, Deserializer, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Serialize};

use super::Secret;
use crate::config::reading::Sealed;
use crate::config::units::{Size, Time, TimeOrZero};

/// The process itself: listeners, limits and timeouts towards clients.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Server {
    /// The number of request workers: `auto` for one per core, or 1 to 1024. *Restart*
    pub threads: Option<Threads>,
    /// The addresses that clients connect to; at least one of them speaks `https`. Example: `[{address: "0.0.0.0:443"},
    /// {address: "0.0.0.0:80", protocol: http}]`. *Restart*
    pub listeners: Vec<Listener>,
    /// The edge's own folder for what lives as long as its process: the control socket, over which the commands `reload`,
    /// `pool`, `service` and `session` reach it. It is made at start with mode 0700. One that is there already must belong to
    /// the edge's user or to root, and no other user may be able to write to it. A folder above it that others may write
    /// to, without the sticky bit, is a warning: they can take this one away. By default it is the directory that systemd
    /// has made (`$RUNTIME_DIRECTORY`), else `/run/sentry-edge/` and 16 hexadecimal digits of the SHA-256 of the
    /// configuration's real path. Where the default cannot be used, the edge warns and serves without a control socket;
    /// a folder that is named here and cannot be used, or that another edge uses, stops the start. Example:
    /// `/run/sentry-edge-test`. *Restart*
    pub runtime_dir: Option<String>,
    /// The admin listener: `/livez`, `/readyz`, `/metrics` and, with a token, the [admin API](reference/admin-api.md).
    /// It speaks plain HTTP, and only its API asks for a password: keep it on loopback or behind a firewall. It has
    /// limits of its own: 64 connections, 16 of one address, where for one more a connection that has been served is
    /// closed, or else the one that has waited for the longest; 5 s for a head and between two requests, and 75 s for a
    /// whole request.
    pub admin: Option<Sealed<Admin>>,
    /// Addresses and CIDRs that are believed about `X-Forwarded-For` and `X-Request-ID`, or in the PROXY protocol. List
    /// proxies only, never clients: what a trusted address writes into `X-Forwarded-For` is believed: see [behind other
    /// proxies](concepts/behind-proxies.md). Example: `["10.0.0.0/8", "192.0.2.7"]`.
    pub trusted_proxies: Vec<String>,
    /// Answers the challenges of a certificate authority (ACME, HTTP-01) on `http` listeners. Without it, their path is
    /// redirected to https as any other. See [certificates by ACME](concepts/acme.md).
    pub acme_challenge: Option<AcmeChallenge>,
    /// A path at which load balancers ask whether this edge takes requests. It is answered on every listener for clients,
    /// over TLS or not, whatever host the request names: `200`, or `503` while the edge drains, and nothing else: see [health
    /// checks](concepts/headers-and-limits.md#health-checks-of-load-balancers). Example: `{path: /.sentry/health}`.
    pub health: Option<HealthPath>,
    /// How the process stops after SIGTERM or SIGQUIT: a duration such as `45s`, which is that of `requests`, or both
    /// steps. See [drain](operations/upgrade-and-drain.md#drain). Example: `{notice: 10s, requests: 45s}`.
    pub drain: Option<Drain>,
    /// How long a new process may take until it serves, at an [upgrade](operations/upgrades.md) by
    /// SIGUSR2. One that takes longer is ended, and the process that runs serves on. Example: `2m`.
    pub upgrade_timeout: Option<Time>,
    /// What clients may use at most.
    pub limits: Limits,
    /// How long clients may take.
    pub timeouts: Timeouts,
}

/// How long requests may take, or that and the notice before it.
#[derive(Clone, Copy, Debug, JsonSchema)]
#[schemars(untagged)]
pub enum Drain {
    Requests(Time),
    Steps(DrainSteps),
}

/// Not derived, so that a key that is not known is named like any other.
impl<'de> Deserialize<'de> for Drain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TimeOrSteps;
        impl<'de> Visitor<'de> for TimeOrSteps {
            type Value = Drain;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 250ms, 30s, 15m or 12h, or `{notice: 10s, requests: 20s}`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Drain, E> {
                let time = Time::deserialize(StrDeserializer::<E>::new(text));
                time.map(Drain::Requests).map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Drain, A::Error> {
                DrainSteps::deserialize(MapAccessDeserializer::new(map)).map(Drain::Steps)
            }
        }
        deserializer.deserialize_any(TimeOrSteps)
    }
}

/// The steps of a drain.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DrainSteps {
    /// How long the listeners stay open while `/readyz` says 503, for balancers to notice that this edge takes no more
    /// connections: two or three intervals of their health check. Example: `10s`.
    pub notice: Option<TimeOrZero>,
    /// How long the process then waits: for requests in flight to finish, and for idle connections to send their next
    /// request, which is answered with `Connection: close`. Example: `45s`.
    pub requests: Option<Time>,
}

/// Answers ACME challenges from a folder.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AcmeChallenge {
    /// The folder that an ACME client (certbot, lego, acme.sh: `--webroot`) writes its challenges to. On `http`
    /// listeners, `/.well-known/acme-challenge/TOKEN` of every configured host is answered from
    /// `ROOT/.well-known/acme-challenge/TOKEN`, or else from `ROOT/TOKEN`. Example: `/var/lib/acme`.
    pub root: Option<String>,
}

/// Answers load balancers.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HealthPath {
    /// The path. Requests for it reach no application. Example: `/.sentry/health`.
    pub path: Option<String>,
}

/// `auto`, or a number of threads.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`auto` or a number of threads")]
pub enum Threads {
    Auto(Auto),
    Count(u16),
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Auto {
    /// One for each core.
    Auto,
}

/// An address that clients connect to.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Listener {
    /// `IP:PORT`, such as `0.0.0.0:443` or `[::]:443`. *Restart*
    pub address: Option<String>,
    /// What is spoken on it. *Restart*
    pub protocol: Option<Protocol>,
    /// Offers HTTP/2 beside HTTP/1.1, by ALPN; for `https` listeners. *Restart*
    pub http2: Option<bool>,
    /// For `http` listeners: every request is redirected to https (`308`). `true` is the only value, since the token
    /// cookie travels over TLS alone.
    pub redirect_to_https: Option<bool>,
    /// Each connection begins with a header of the PROXY protocol, version 1 or 2, on `http` listeners as well. It is
    /// accepted from `server.trusted_proxies` alone and has to arrive within `server.timeouts.tls_handshake`; other
    /// connections are closed. What requests on such a connection say of their origin (`X-Forwarded-For`,
    /// `X-Request-ID`) is not believed, whatever address the header names. *Restart*
    pub proxy_protocol: Option<bool>,
    /// The port that clients connect to, where it is not the port of `address`, as behind a port that a container
    /// publishes. Redirects, links, `login_url` and `X-Forwarded-Port` name it, and return URLs may; on `https`
    /// listeners it is also what plain HTTP is redirected to (443 if any listener is reached there, else the port of
    /// the first one). A `Host` may name this port, the listener's own, or none. 1 to 65535. *Restart*
    pub public_port: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/2 over TLS.
    Https,
    /// Plain HTTP, which only redirects to https (`308`).
    Http,
}

/// The admin listener.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Admin {
    /// `IP:PORT` of the admin listener. *Restart*
    pub address: Option<String>,
    /// A secret of 32 bytes or more that opens the [admin API](reference/admin-api.md) on this listener: a token of the
    /// name `admin` and the role `admin`. Without any token the API is on the control socket alone. Example: `{file:
    /// keys/admin.token}`, made by `openssl rand -hex 32`. A reload takes another one up.
    pub token: Option<Secret>,
    /// Tokens of the admin API by their names, which stand in the audit log (`"actor": "token:ops"`). Example: `{ops:
    /// {secret: {file: keys/ops.token}, role: admin}, desk: {secret: {file: keys/desk.token}, role: help_desk}}`. A
    /// reload takes others up.
    pub tokens: BTreeMap<String, Sealed<AdminToken>>,
}

/// A token of the admin API, under a name of up to 31 letters, digits, `-`, `_` and `.`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AdminToken {
    /// What a caller sends as `Authorization: Bearer SECRET`: 32 bytes or more of letters and digits, which no other
    /// token has. Example: `{file: keys/ops.token}`, made by `openssl rand -hex 32`.
    pub secret: Option<Secret>,
    /// What it opens.
    pub role: Option<AdminRole>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdminRole {
    /// Everything.
    Admin,
    /// Lists sessions, and ends those of a user.
    HelpDesk,
}

/// What clients may use at most.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Limits {
    /// Open client connections, all listeners together. For one more, an idle one is closed: one that has sent no
    /// request for 2 s since it was opened, or else the one that has been without a request (over HTTP/2, without a
    /// stream) for the longest. Where none is idle, the new one is closed. *Restart*
    pub connections: Option<usize>,
    /// Open connections of one IPv4 address or one IPv6 /64. More are closed, and the log names the address, once a
    /// minute at most. Connections of trusted proxies carry many clients and are exempt; behind the PROXY protocol each
    /// counts for the address that it names, or for the balancer's where it names none.
    pub connections_per_address: Option<usize>,
    /// Bytes of a request's head; more is a `431`. A larger value applies to new connections only.
    pub header_bytes: Option<Size>,
    /// Header fields of a request; more is a `431`.
    pub header_count: Option<usize>,
    /// The time for the whole head of a request: of the first one from the handshake on, of a later one from its first
    /// byte on. An incomplete head gets a `408`; over HTTP/2 the connection is closed, and so is one that has sent
    /// nothing. A new value applies to new connections.
    pub header_timeout: Option<Time>,
    /// Bytes of a request's body; more is a `413`. What passes over a WebSocket does not count.
    pub body_bytes: Option<Size>,
    /// Bytes per second that a request's body has to bring on average: one that takes longer than
    /// `server.timeouts.read` (or the route's `read_timeout`, where that is longer) and brings less is a `408`. It does
    /// not apply to [conversations](concepts/long-lived-requests.md) over HTTP/2, such as gRPC, nor to WebSockets.
    pub min_body_rate: Option<Size>,
    /// [WebSockets, event streams and long bodies](concepts/long-lived-requests.md) of signed-in users, all at once;
    /// more are refused with a `503`. One session has 200 of these at most and one user 2,000; of a smaller number a
    /// quarter and a half.
    pub streams: Option<usize>,
    /// Memory that all clients together may make the edge hold for requests in flight and for parts of bodies that
    /// wait: see [clients that do not read](reference/limits-and-defaults.md#clients-that-do-not-read). 4 MiB or more.
    /// *Restart*
    pub buffer_bytes: Option<Size>,
    /// The same of one IPv4 address or one IPv6 /64; trusted proxies are bounded by `buffer_bytes` alone. 4 MiB or
    /// more. *Restart*
    pub buffer_bytes_per_address: Option<Size>,
    /// Requests per second of one client: an IPv4 address or an IPv6 /64, behind trusted proxies the one that they
    /// name. A trusted proxy's own requests, which have no `X-Forwarded-For`, are exempt. A second's worth may come at
    /// once; more are a `429` with `Retry-After`. 1 to 1000000.
    pub requests_per_second: Option<u32>,
}

/// How long clients may take.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Timeouts {
    /// For the whole TLS handshake. *Restart*
    pub tls_handshake: Option<Time>,
    /// How long a client's connection may be idle. For HTTP/2: *Restart*
    pub keepalive: Option<Time>,
    /// Between two reads of a request's body; beyond it the request is a `408`, or over HTTP/2 its stream is reset. It
    /// does not apply to conversations over HTTP/2, such as gRPC.
    pub read: Option<Time>,
    /// For one write of a body to a client. A client that accepts no bytes for 1.25 times this is disconnected.
    pub write: Option<Time>,
}
