//! The checked types of applications and of the servers behind them.

use std::net::SocketAddr;
use std::os::unix::net::SocketAddr as UnixAddress;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, StatusCode};
use ipnet::IpNet;

use super::balancing::{Balance, Health};
use super::failures::{Eject, Retry};
use super::{
    Action, Encoding, FieldSource, ForwardToken, Hsts, OutagePolicy, PoolProtocol, Preflight, RouteRules, SecretSource,
};
use crate::host::{HostPattern, Origin};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: Arc<str>,
    pub hosts: Vec<HostPattern>,
    /// Whether its requests are in the access log.
    pub access_log: bool,
    pub idle_timeout: Duration,
    pub forward_token: ForwardToken,
    /// The limit of each client.
    pub requests_per_second: Option<u32>,
    pub identity_assertion: bool,
    pub identity_headers: IdentityHeaders,
    pub on_outage: OutagePolicy,
    /// Origins, beside the host's own, whose pages may open a WebSocket.
    pub websocket_origins: Vec<Origin>,
    /// Files with pages for the edge's own errors.
    pub error_pages: Vec<(StatusCode, PathBuf)>,
    pub maintenance: Option<Maintenance>,
    /// On the application's responses.
    pub hsts: Option<Hsts>,
    /// In the order of the file; where none is for everything below `/`, the last one is, with the settings of the service
    /// itself.
    pub routes: Vec<Route>,
}

impl Service {
    /// Returns the names of the pools of its routes, some of them more than once.
    pub fn pools(&self) -> impl Iterator<Item = &str> {
        self.routes.iter().filter_map(|route| route.action.pool())
    }

    /// Returns the secrets that its routes put into header fields, with the places of their keys. One that a service sets
    /// for all its routes is there for each of them.
    pub fn field_secrets(&self) -> impl Iterator<Item = (&str, &SecretSource)> {
        let fields = self.routes.iter().flat_map(|route| &route.rules.request_headers.set);
        fields.filter_map(|(_, source)| match source {
            FieldSource::Secret { place, source } => Some((place.as_str(), source)),
            FieldSource::Text(_) => None,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maintenance {
    /// The service is in maintenance while it exists.
    pub file: Option<PathBuf>,
    /// Networks whose clients get through.
    pub addresses: Vec<IpNet>,
    /// What lets a user through; `None` where nothing does.
    pub access: Option<Access>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityHeaders {
    pub user: HeaderName,
    pub email: HeaderName,
    pub roles: HeaderName,
}

/// The methods by which files are read.
const FILE_METHODS: [Method; 2] = [Method::GET, Method::HEAD];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The path begins with `/`. One that is not exact does not end with one, unless it is `/` itself.
    pub path: String,
    /// Whether the route is for this path alone, and for nothing below it.
    pub is_exact: bool,
    pub access: Access,
    pub credentials: Credentials,
    pub extends_session: bool,
    pub read_timeout: Option<Duration>,
    /// Content codings in order of preference; empty where responses are not compressed.
    pub compression: Vec<Encoding>,
    pub preflight: Preflight,
    pub rules: RouteRules,
    pub action: Action,
}

impl Route {
    /// Whether two routes differ in nothing but their paths.
    pub fn decides_like(&self, other: &Self) -> bool {
        Self { path: other.path.clone(), is_exact: other.is_exact, ..self.clone() } == *other
    }

    /// Returns whether requests of this method are served: by its rules, and files are read alone.
    pub fn serves(&self, method: &Method) -> bool {
        self.rules.serves(method) && (!self.has_files() || FILE_METHODS.contains(method))
    }

    /// Returns the value of `Allow`.
    pub fn allow(&self) -> String {
        if !self.has_files() {
            return self.rules.allow();
        }
        let served: Vec<&str> =
            FILE_METHODS.iter().filter(|method| self.rules.serves(method)).map(Method::as_str).collect();
        served.join(", ")
    }

    fn has_files(&self) -> bool {
        matches!(self.action, Action::Files(_))
    }

    /// Whether every request that this route admits is one that `other` admits too, and meets the same restrictions there.
    /// What only says how a request is served, as compression or a timeout, is not compared.
    pub fn is_as_strict_as(&self, other: &Self) -> bool {
        // A redirect, or a reply that is no error, has no application behind it that what differs would get to.
        if other.action.is_answer_of_edge() && !other.refuses_all() {
            return self.demands_no_less_than(other);
        }
        self.admits_no_others_than(other)
            && self.rules.are_as_strict_as(&other.rules)
            && (other.action.forward().is_none() || self.rules.take_out_like(&other.rules))
            && (other.action.is_answer_of_edge() || self.rules.answer_like(&other.rules))
    }

    /// Whether every client that this route admits is one that `other` admits too. What clients send, and what they get, is
    /// not compared.
    pub fn admits_no_others_than(&self, other: &Self) -> bool {
        self.demands_no_less_than(other)
            && (other.access.admits_anonymous() || self.wants_user_like(other))
            && (self.refuses_all() || !other.refuses_all())
    }

    /// Whether this route has the access and the addresses of `other`, or stricter ones.
    fn demands_no_less_than(&self, other: &Self) -> bool {
        (self.access == other.access || self.access.strictness() > other.access.strictness())
            && self.rules.addresses.are_as_strict_as(&other.rules.addresses)
    }

    /// Whether this route has nothing to guard: it leads each client elsewhere that its addresses let in.
    pub fn only_redirects(&self) -> bool {
        matches!(self.action, Action::Redirect(_)) && self.access != Access::Deny
    }

    /// Whether this route admits no user by a token, and no preflight without one, that `other` would not.
    fn wants_user_like(&self, other: &Self) -> bool {
        let Credentials { cookie, bearer } = self.credentials;
        (!cookie || other.credentials.cookie)
            && (!bearer || other.credentials.bearer)
            && (self.preflight == Preflight::Check || other.preflight == Preflight::Forward)
    }

    /// Whether each request gets an error, by the configuration.
    fn refuses_all(&self) -> bool {
        let is_error = |status: StatusCode| status.is_client_error() || status.is_server_error();
        self.access == Access::Deny || matches!(&self.action, Action::Respond(reply) if is_error(reply.status))
    }
}

/// What a route demands of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    Public,
    /// A user is named where there is one, and every client is admitted.
    Optional,
    Required,
    /// Any one of these roles.
    Roles(Vec<String>),
    /// No client is admitted.
    Deny,
}

impl Access {
    /// Whether a request without a user is admitted.
    pub fn admits_anonymous(&self) -> bool {
        matches!(self, Self::Public | Self::Optional)
    }

    /// Of two rules with different numbers, the one with the greater number admits no client that the other refuses. Two
    /// lists of roles have the same number, and may admit different users.
    fn strictness(&self) -> u8 {
        match self {
            Self::Public => 0,
            Self::Optional => 1,
            Self::Required => 2,
            Self::Roles(_) => 3,
            Self::Deny => 4,
        }
    }
}

/// Where a route takes tokens from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub cookie: bool,
    pub bearer: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    pub name: String,
    pub servers: Vec<PoolServer>,
    pub balance: Balance,
    /// `None` where the servers are not checked.
    pub health: Option<Health>,
    /// Zero where there is no slow start.
    pub slow_start: Duration,
    pub protocol: PoolProtocol,
    pub tls: Option<PoolTls>,
    pub timeouts: PoolTimeouts,
    pub retry: Retry,
    /// `None` where no server is ejected.
    pub eject: Option<Eject>,
    /// The most requests that one server may have at a time.
    pub in_flight: Option<usize>,
    /// How often the names of its servers are resolved.
    pub resolve_every: Duration,
}

/// TLS to the servers of a pool. The files are read by `upstream`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolTls {
    /// The path of the key in the file, for faults that are found when the files are read.
    pub place: String,
    /// The name that the servers' certificates must have; the host of each server's address by default.
    pub server_name: Option<String>,
    /// A PEM file with the CAs of those certificates; the system's CAs by default.
    pub ca: Option<PathBuf>,
    pub client: Option<ClientKey>,
}

/// The client certificate that the edge presents to servers, and its key; both are PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientKey {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolServer {
    /// As it is written, for labels.
    pub name: String,
    pub location: Location,
    pub weight: u16,
    /// Whether it gets requests only when no other server may take them.
    pub is_backup: bool,
    /// The most requests that it may have at a time.
    pub connections: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    Address(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// `upstream` resolves the name, again and again.
    Name {
        host: String,
        port: u16,
    },
}

impl Location {
    /// From `HOST:PORT` or `unix:///PATH`. Resolves nothing.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix://") {
            // The kernel takes a path of this length (unix(7)), and whatever bytes but NUL are in it.
            let is_path = path.starts_with('/') && path.len() > 1 && UnixAddress::from_pathname(path).is_ok();
            return is_path.then(|| Self::Unix(path.into()));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return (address.port() != 0).then_some(Self::Address(address));
        }
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let labels = || host.strip_suffix('.').unwrap_or(host).split('.');
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain);
        // An address with a slip in it, which resolvers may take for another one (`10.0.1` for 10.0.0.1).
        let is_numeric = labels().next_back().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
        let is_name = host.len() <= 254 && labels().all(is_label) && !is_numeric;
        is_name.then(|| Self::Name { host: host.to_ascii_lowercase(), port })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolTimeouts {
    pub connect: Duration,
    pub read: Duration,
    pub write: Duration,
    pub idle: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Forward, defaults};

    /// For tests of other modules too: the defaults of everything that a test does not name.
    impl Service {
        pub fn of_routes(name: &str, host: &str, routes: Vec<Route>) -> Self {
            let header = |name: &str| HeaderName::from_bytes(name.as_bytes()).unwrap();
            Self {
                name: name.into(),
                hosts: vec![HostPattern::parse(host).unwrap()],
                access_log: defaults::SERVICE_ACCESS_LOG,
                idle_timeout: defaults::IDLE_TIMEOUT,
                forward_token: defaults::FORWARD_TOKEN,
                requests_per_second: defaults::REQUESTS_PER_SECOND,
                identity_assertion: defaults::IDENTITY_ASSERTION,
                identity_headers: IdentityHeaders {
                    user: header(defaults::USER_HEADER),
                    email: header(defaults::EMAIL_HEADER),
                    roles: header(defaults::ROLES_HEADER),
                },
                on_outage: defaults::ON_OUTAGE,
                websocket_origins: Vec::new(),
                hsts: defaults::SERVICE_HSTS,
                error_pages: Vec::new(),
                maintenance: None,
                routes,
            }
        }
    }

    impl Route {
        pub fn at(path: &str, pool: &str) -> Self {
            Self {
                path: path.into(),
                is_exact: false,
                access: Access::Required,
                credentials: Credentials { cookie: true, bearer: false },
                extends_session: defaults::EXTENDS_SESSION,
                read_timeout: None,
                compression: Vec::new(),
                preflight: defaults::PREFLIGHT,
                rules: RouteRules::default(),
                action: Action::Forward(Forward::to(pool)),
            }
        }
    }

    #[test]
    fn a_server_is_an_address_or_a_name_with_a_port() {
        let name = |host: &str, port| Some(Location::Name { host: host.into(), port });
        for (text, location) in [
            ("127.0.0.1:80", Some(Location::Address(([127, 0, 0, 1], 80).into()))),
            ("[::1]:9001", Some(Location::Address("[::1]:9001".parse().unwrap()))),
            ("app:80", name("app", 80)),
            ("App.Internal.:8080", name("app.internal.", 8080)),
            ("my_app-1.2a:1", name("my_app-1.2a", 1)),
            ("app", None),
            ("app:", None),
            (":80", None),
            ("app:0", None),
            ("127.0.0.1:0", None),
            ("app:65536", None),
            ("a b:80", None),
            ("a..b:80", None),
            ("10.0.0.256:80", None),
            ("10.0.1:80", None),
            ("::1:80", None),
            ("http://app:80", None),
            ("app:80/x", None),
            ("unix:///run/app.sock", Some(Location::Unix("/run/app.sock".into()))),
            ("unix:///run/a b:80", Some(Location::Unix("/run/a b:80".into()))),
            ("unix:///", None),
            ("unix://run/app.sock", None),
            ("unix:/run/app.sock", None),
            ("unix:///run/\0", None),
            (&format!("unix:///{}", "x".repeat(107)), None),
            ("/run/app.sock", None),
        ] {
            assert_eq!(Location::parse(text), location, "{text}");
        }
    }
}
