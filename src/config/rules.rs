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
    /// The limit of a request's body in bytes; `None`: `server.limits.body_bytes`, which `check` puts in its place.
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
        let has = |method: &Method| self.methods().contains(method);
        has(method) || *method == Method::HEAD && has(&Method::GET)
    }

    fn methods(&self) -> &[Method] {
        self.methods.as_deref().unwrap_or(&METHODS)
    }

    /// Returns the value of `Allow`.
    pub fn allow(&self) -> String {
        let written = self.methods();
        let mut names: Vec<&str> = written.iter().map(Method::as_str).collect();
        if let Some(at) = names.iter().position(|name| *name == "GET")
            && !names.contains(&"HEAD")
        {
            names.insert(at + 1, "HEAD");
        }
        names.join(", ")
    }

    /// Whether these rules refuse every request that `other` refuses.
    pub fn are_as_strict_as(&self, other: &Self) -> bool {
        let is_smaller = match (self.body_bytes, other.body_bytes) {
            (Some(own), Some(theirs)) => own <= theirs,
            (own, theirs) => own == theirs,
        };
        is_smaller
            && self.methods().iter().all(|method| other.serves(method))
            && self.addresses.are_as_strict_as(&other.addresses)
    }

    /// Whether no field of a client passes that `other` takes out, or has its own value for.
    pub fn take_out_like(&self, other: &Self) -> bool {
        let [own, theirs] = [self, other].map(|rules| &rules.request_headers);
        let is_own = |name: &HeaderName| own.remove.contains(name) || own.set.iter().any(|(set, _)| set == name);
        theirs.set.iter().map(|(name, _)| name).chain(&theirs.remove).all(is_own)
    }

    /// Whether no response lacks a field that `other` sets, such as a `Content-Security-Policy`, or has one that it takes
    /// out.
    pub fn answer_like(&self, other: &Self) -> bool {
        let [own, theirs] = [self, other].map(|rules| &rules.response_headers);
        theirs.set.iter().all(|field| own.set.contains(field))
            && theirs.remove.iter().all(|name| own.remove.contains(name))
    }
}

impl Addresses {
    /// Whether every client that these refuse not is one that `other` admits. Networks are compared one by one: two that
    /// are one only together are not known for it.
    pub fn are_as_strict_as(&self, other: &Self) -> bool {
        let is_in = |network: &IpNet, list: &[IpNet]| list.iter().any(|of| of.contains(network));
        let are_apart = |one: &IpNet, two: &IpNet| !one.contains(two) && !two.contains(one);
        let is_admitted_here = |network: &IpNet| {
            let is_allowed = || self.allow.iter().any(|allowed| !are_apart(allowed, network));
            !is_in(network, &self.deny) && (self.allow.is_empty() || is_allowed())
        };
        let is_within = || self.allow.iter().all(|network| is_in(network, &other.allow) || is_in(network, &self.deny));
        (other.allow.is_empty() || !self.allow.is_empty() && is_within()) && !other.deny.iter().any(is_admitted_here)
    }

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
        for name in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "TRACE", "CONNECT", "get"]
        {
            let is_served = METHODS.iter().any(|method| method == name);
            assert_eq!(RouteRules::default().serves(&method(name)), is_served, "{name} without a list");
        }
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
    fn lists_of_addresses_are_as_strict_as_others_where_they_admit_no_more() {
        let networks = |list: &[&str]| -> Vec<_> { list.iter().map(|text| text.parse().unwrap()).collect() };
        let of = |(allow, deny): (&[&str], &[&str])| Addresses { allow: networks(allow), deny: networks(deny) };
        let (ten, part, six) = ("10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32");
        for (own, theirs, expected) in [
            ((&[][..], &[][..]), (&[][..], &[][..]), true),
            ((&[], &[]), (&[ten], &[]), false),
            ((&[], &[]), (&[], &[ten]), false),
            ((&[ten], &[]), (&[ten], &[]), true),
            ((&[ten], &[]), (&[part], &[]), false),
            ((&[part], &[]), (&[ten], &[]), true),
            ((&[part, six], &[]), (&[ten], &[]), false),
            ((&[part, six], &[six]), (&[ten], &[]), true),
            ((&[ten], &[]), (&[], &[]), true),
            ((&[], &[ten]), (&[], &[part]), true),
            ((&[], &[part]), (&[], &[ten]), false),
            ((&[six], &[]), (&[], &[ten]), true),
            ((&[part], &[]), (&[], &[ten]), false),
            ((&[ten], &[]), (&[], &[part]), false),
            ((&[ten], &[part]), (&[ten], &[part]), true),
        ] {
            assert_eq!(of(own).are_as_strict_as(&of(theirs)), expected, "{own:?} {theirs:?}");
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
