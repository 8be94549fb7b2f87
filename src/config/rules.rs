//! The checked types of what a route changes in messages and refuses of requests.

use std::fmt;
use std::net::IpAddr;

use http::{HeaderName, HeaderValue, Method};
use ipnet::{IpNet, Ipv4Net};

use super::SecretSource;

/// The methods that are served where no `methods` says otherwise (RFC 9110 §9.1, RFC 5789).
pub const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS];

/// Methods that no route may open: the first echoes cookies to scripts, as does the second, which is IIS's name for it; the
/// third asks for a tunnel, and the last one begins a connection over HTTP/2 (RFC 9110 §9.3.6 and §9.3.8, RFC 9113 §3.4).
pub const NEVER_SERVED: [&str; 4] = ["TRACE", "TRACK", "CONNECT", "PRI"];

/// What a route changes in messages and refuses of requests. A route has what its service says, and its own beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteRules {
    pub request_headers: RequestHeaders,
    pub response_headers: ResponseHeaders,
    /// `None`: [`METHODS`].
    pub methods: Option<Vec<Method>>,
    pub addresses: Addresses,
    /// The limit of a request's body in bytes; `None`: `server.limits.body_bytes`.
    pub body_bytes: Option<usize>,
}

/// Changes of the fields of requests. No name is in both lists, nor twice in one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHeaders {
    pub set: Vec<(HeaderName, FieldSource)>,
    pub remove: Vec<HeaderName>,
}

/// Changes of the fields of responses. No name is in both lists, nor twice in one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseHeaders {
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

/// Where the value of a field comes from.
#[derive(Clone)]
pub enum FieldSource {
    Text(HeaderValue),
    /// `place` is the path of the key in the file, for faults that are found when the secret is read.
    Secret {
        place: String,
        source: SecretSource,
    },
}

/// The clients that a route admits. An IPv4-mapped IPv6 network is kept as the IPv4 network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Where there is none, every client is admitted.
    pub allow: Vec<IpNet>,
    /// Wins over `allow`.
    pub deny: Vec<IpNet>,
}

impl RouteRules {
    /// Returns whether requests of this method are served. `GET` includes `HEAD`, which is a GET without a body
    /// (RFC 9110 §9.3.2).
    pub fn serves(&self, method: &Method) -> bool {
        let has = |method: &Method| self.methods.as_ref().is_none_or(|methods| methods.contains(method));
        has(method) || *method == Method::HEAD && has(&Method::GET)
    }

    /// Returns the value of `Allow`.
    pub fn allow(&self) -> String {
        let written = self.methods.as_deref().unwrap_or(&METHODS);
        let mut names: Vec<&str> = written.iter().map(Method::as_str).collect();
        if let Some(at) = names.iter().position(|name| *name == "GET")
            && !names.contains(&"HEAD")
        {
            names.insert(at + 1, "HEAD");
        }
        names.join(", ")
    }
}

impl Addresses {
    pub fn admit(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        let is_in = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&client));
        !is_in(&self.deny) && (self.allow.is_empty() || is_in(&self.allow))
    }
}

impl RequestHeaders {
    /// Adds the changes of a route to those of its service: where both name a field, the route's holds.
    pub fn and(&self, own: Self) -> Self {
        let (set, remove) = merged((&self.set, &self.remove), (own.set, own.remove));
        Self { set, remove }
    }
}

impl ResponseHeaders {
    /// The same as [`RequestHeaders::and`].
    pub fn and(&self, own: Self) -> Self {
        let (set, remove) = merged((&self.set, &self.remove), (own.set, own.remove));
        Self { set, remove }
    }
}

type Changes<T> = (Vec<(HeaderName, T)>, Vec<HeaderName>);

fn merged<T: Clone>(service: (&[(HeaderName, T)], &[HeaderName]), own: Changes<T>) -> Changes<T> {
    let (mut set, mut remove) = own;
    let is_named: Vec<HeaderName> = set.iter().map(|(name, _)| name).chain(&remove).cloned().collect();
    let is_left = |name: &HeaderName| !is_named.contains(name);
    set.extend(service.0.iter().filter(|(name, _)| is_left(name)).cloned());
    remove.extend(service.1.iter().filter(|name| is_left(name)).cloned());
    // In one order, so that routes that change the same are the same.
    set.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
    remove.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    (set, remove)
}

/// Returns an IPv4-mapped IPv6 network (RFC 4291 §2.5.5.2) as the IPv4 network that it is: clients are compared by their
/// IPv4 addresses.
pub fn canonical_network(network: IpNet) -> IpNet {
    const MAPPED: u8 = 96;
    let IpNet::V6(v6) = network else { return network };
    let v4 = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(MAPPED));
    v4.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok()).map_or(network, IpNet::V4)
}

impl PartialEq for FieldSource {
    /// Where it is written is no part of what it says.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => one == other,
            (Self::Secret { source: one, .. }, Self::Secret { source: other, .. }) => one == other,
            _ => false,
        }
    }
}

impl Eq for FieldSource {}

impl fmt::Debug for FieldSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(value) => value.fmt(f),
            Self::Secret { source, .. } => source.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(methods: &[&str]) -> RouteRules {
        let methods = methods.iter().map(|name| name.parse().unwrap()).collect();
        RouteRules { methods: Some(methods), ..RouteRules::default() }
    }

    #[test]
    fn a_list_of_methods_restricts_and_opens_others_and_get_includes_head() {
        let method = |name: &str| name.parse::<Method>().unwrap();
        for (list, served, allow) in [
            (&["GET"][..], &["GET", "HEAD"][..], "GET, HEAD"),
            (&["POST", "GET", "PROPFIND"], &["GET", "HEAD", "POST", "PROPFIND"], "POST, GET, HEAD, PROPFIND"),
            (&["HEAD"], &["HEAD"], "HEAD"),
            (&["POST"], &["POST"], "POST"),
            (&["GET", "HEAD"], &["GET", "HEAD"], "GET, HEAD"),
        ] {
            let rules = rules(list);
            for name in ["GET", "HEAD", "POST", "PUT", "OPTIONS", "PROPFIND", "get", "REPORT"] {
                assert_eq!(rules.serves(&method(name)), served.contains(&name), "{list:?} {name}");
            }
            assert_eq!(rules.allow(), allow);
        }
        assert!(METHODS.iter().all(|method| RouteRules::default().serves(method)));
        assert_eq!(RouteRules::default().allow(), "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS");
    }

    #[test]
    fn deny_wins_and_an_allow_list_admits_nothing_else() {
        let networks = |list: &[&str]| list.iter().map(|text| canonical_network(text.parse().unwrap())).collect();
        for (allow, deny, client, admitted) in [
            (&[][..], &[][..], "192.0.2.1", true),
            (&["10.0.0.0/8"], &[], "10.1.2.3", true),
            (&["10.0.0.0/8"], &[], "::ffff:10.1.2.3", true),
            (&["::ffff:10.0.0.0/104"], &[], "10.1.2.3", true),
            (&["::ffff:10.0.0.0/104"], &[], "11.1.2.3", false),
            (&["10.0.0.0/8"], &[], "192.0.2.1", false),
            (&["10.0.0.0/8"], &["10.1.0.0/16"], "10.1.2.3", false),
            (&["10.0.0.0/8"], &["10.1.0.0/16"], "10.2.2.3", true),
            (&[], &["10.1.2.3/32"], "10.1.2.3", false),
            (&[], &["10.1.2.3/32"], "::ffff:10.1.2.3", false),
            (&[], &["10.1.2.3/32"], "10.1.2.4", true),
            (&["2001:db8::/32"], &[], "2001:db8::1", true),
            (&["2001:db8::/32"], &[], "10.1.2.3", false),
            (&[], &["::/0"], "10.1.2.3", true),
            (&[], &["0.0.0.0/0"], "2001:db8::1", true),
        ] {
            let addresses = Addresses { allow: networks(allow), deny: networks(deny) };
            assert_eq!(addresses.admit(client.parse().unwrap()), admitted, "{allow:?} {deny:?} {client}");
        }
    }

    #[test]
    fn a_route_adds_to_what_its_service_changes_and_has_the_last_say() {
        let name = |name: &'static str| HeaderName::from_static(name);
        let value = |value: &'static str| HeaderValue::from_static(value);
        let service = ResponseHeaders {
            set: vec![(name("x-a"), value("1")), (name("x-b"), value("1"))],
            remove: vec![name("server"), name("x-c")],
        };
        let own = ResponseHeaders {
            set: vec![(name("x-c"), value("2")), (name("x-a"), value("2"))],
            remove: vec![name("x-b"), name("via")],
        };
        let both = service.and(own);
        assert_eq!(both.set, [(name("x-a"), value("2")), (name("x-c"), value("2"))]);
        assert_eq!(both.remove, [name("server"), name("via"), name("x-b")]);
        assert_eq!(service.and(ResponseHeaders::default()), service.and(service.clone()));
    }

    #[test]
    fn a_secret_is_not_printed() {
        let source = SecretSource::Value(zeroize::Zeroizing::new("Basic hush".to_owned()));
        let headers = RequestHeaders {
            set: vec![(http::header::AUTHORIZATION, FieldSource::Secret { place: "a.b".into(), source })],
            remove: Vec::new(),
        };
        assert!(!format!("{headers:?}").contains("hush"));
    }
}
