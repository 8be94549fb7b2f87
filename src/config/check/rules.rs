//! What a service and its routes change in messages and refuse of requests: header fields, methods, addresses, bodies.

use std::collections::BTreeSet;

use http::{HeaderName, HeaderValue, Method, header};
use ipnet::IpNet;
use zeroize::Zeroizing;

use super::{Check, file};
use crate::config::header_names::{
    Reserved, field_value, normalize, reserved_in_requests, reserved_in_responses, sets_cookie,
};
use crate::config::reading::Sealed;
use crate::config::rules::{NEVER_SERVED, canonical_network};
use crate::config::secret::SecretSource;
use crate::config::units::Size;
use crate::config::{Addresses, FieldSource, RequestHeaders, ResponseHeaders, RouteRules};

/// Fields of requests whose value is a secret, however it is written.
const SECRET_FIELDS: [&str; 3] = ["authorization", "cookie", "x-api-key"];

const NAME: &str = "use letters, digits and -";

/// The part of a service, or of a route, that is checked here.
pub(super) struct Written<'a> {
    pub request_headers: &'a Sealed<file::RequestHeaders>,
    pub response_headers: &'a file::ResponseHeaders,
    pub methods: Option<&'a [String]>,
    pub addresses: Option<&'a file::Addresses>,
    pub body_bytes: Option<Size>,
}

/// What names and values of fields are compared with.
#[derive(Clone, Copy)]
pub(super) struct TakenFields<'a> {
    /// The normalized names of identity fields of all services.
    pub identity: &'a [String],
    /// The names of the edge's own cookies.
    pub cookies: &'a [String],
    /// Whether the service has an `hsts`.
    pub hsts: bool,
    /// Whether the service's `forward_token` is `bearer`.
    pub authorization: bool,
}

impl<'a> From<&'a file::Service> for Written<'a> {
    fn from(service: &'a file::Service) -> Self {
        Self {
            request_headers: &service.request_headers,
            response_headers: &service.response_headers,
            methods: service.methods.as_deref(),
            addresses: service.addresses.as_ref(),
            body_bytes: service.body_bytes,
        }
    }
}

impl<'a> From<&'a file::Route> for Written<'a> {
    fn from(route: &'a file::Route) -> Self {
        Self {
            request_headers: &route.request_headers,
            response_headers: &route.response_headers,
            methods: route.methods.as_deref(),
            addresses: route.addresses.as_ref(),
            body_bytes: route.body_bytes,
        }
    }
}

impl Check<'_> {
    /// Returns what holds at `place`: what is written there, and what its service says beside it. A route adds to its
    /// service's headers; in all else, what a route says replaces what the service says.
    pub(super) fn rules(
        &mut self,
        place: &str,
        written: Written<'_>,
        service: &RouteRules,
        taken: TakenFields<'_>,
    ) -> RouteRules {
        let request_headers = self.request_headers(&format!("{place}.request_headers"), written.request_headers, taken);
        let response_headers =
            self.response_headers(&format!("{place}.response_headers"), written.response_headers, taken);
        let methods = written.methods.map(|methods| self.methods(&format!("{place}.methods"), methods));
        RouteRules {
            request_headers: service.request_headers.and(request_headers),
            response_headers: service.response_headers.and(response_headers),
            methods: methods.or_else(|| service.methods.clone()),
            addresses: self.addresses(&format!("{place}.addresses"), written.addresses, &service.addresses),
            body_bytes: written.body_bytes.map(|size| size.0).or(service.body_bytes),
        }
    }

    fn request_headers(
        &mut self,
        place: &str,
        written: &Sealed<file::RequestHeaders>,
        taken: TakenFields<'_>,
    ) -> RequestHeaders {
        let written = written.clone().open(place, self.faults);
        let reserved = |name: &HeaderName| reserved_in_requests(name, taken.identity);
        let names = self.field_names(place, written.set.keys(), &written.remove, &reserved);
        let mut set = Vec::new();
        for (text, name) in names.set {
            let key = format!("{place}.set.{text}");
            if name == header::AUTHORIZATION && taken.authorization {
                let write = "remove it here, or `forward_token`";
                self.fault(&key, "two values for one field: `forward_token: bearer` sets it too", write);
            }
            let value = match &written.set[text] {
                file::FieldValue::Secret(secret) => self.secret(&key, secret).map(|source| (key.clone(), source)),
                file::FieldValue::Text(text) if SECRET_FIELDS.contains(&name.as_str()) => {
                    Some((key.clone(), SecretSource::Value(Zeroizing::new(text.text()))))
                }
                file::FieldValue::Text(text) => {
                    set.extend(self.value(&key, &text.text()).map(|value| (name, FieldSource::Text(value))));
                    continue;
                }
            };
            set.extend(value.map(|(place, source)| (name, FieldSource::Secret { place, source })));
        }
        RequestHeaders { set, remove: names.remove }
    }

    fn response_headers(
        &mut self,
        place: &str,
        written: &file::ResponseHeaders,
        taken: TakenFields<'_>,
    ) -> ResponseHeaders {
        let names = self.field_names(place, written.set.keys(), &written.remove, &reserved_in_responses);
        let mut set = Vec::new();
        for (text, name) in names.set {
            let key = format!("{place}.set.{text}");
            let Some(value) = self.value(&key, &written.set[text].text()) else { continue };
            if name == header::SET_COOKIE && sets_cookie(value.as_bytes(), taken.cookies) {
                self.fault(&key, "a cookie that only the edge sets", "choose another cookie name");
            }
            if name == header::STRICT_TRANSPORT_SECURITY && taken.hsts {
                self.fault(&key, "two values for one field: `hsts` sets it too", "remove it here, or `hsts`");
            }
            set.push((name, value));
        }
        ResponseHeaders { set, remove: names.remove }
    }

    /// The value itself is not quoted: it may be a secret that should have been in a file.
    fn value(&mut self, key: &str, text: &str) -> Option<HeaderValue> {
        let value = field_value(text.as_bytes());
        if value.is_none() {
            let what = "a value with a line end, a NUL or another control character";
            self.fault(key, what, "write it on one line, without control characters");
        }
        value
    }

    /// Parses and compares the names of a `set` and a `remove`.
    fn field_names<'a>(
        &mut self,
        place: &str,
        set: impl Iterator<Item = &'a String>,
        remove: &[String],
        reserved: &dyn Fn(&HeaderName) -> Option<Reserved>,
    ) -> Names<'a> {
        let mut names = Names { set: Vec::new(), remove: Vec::new() };
        let mut seen = BTreeSet::new();
        for text in set {
            let key = format!("{place}.set.{text}");
            match text.parse() {
                Ok(name) => {
                    let name = self.free(&key, name, reserved, &mut seen);
                    names.set.extend(name.map(|name| (text.as_str(), name)));
                }
                // What is no name may be a secret in the wrong place, so it is not shown.
                Err(_) => self.faults.add_beneath(&format!("{place}.set"), &key, "a key that is no header name", NAME),
            }
        }
        for (at, text) in remove.iter().enumerate() {
            let key = format!("{place}.remove[{at}]");
            match text.parse() {
                Ok(name) => names.remove.extend(self.free(&key, name, reserved, &mut seen)),
                Err(_) => self.fault(key, "this is no header name", NAME),
            }
        }
        names
    }

    /// Returns a name that a configuration may use, and has not used before.
    fn free(
        &mut self,
        key: &str,
        name: HeaderName,
        reserved: &dyn Fn(&HeaderName) -> Option<Reserved>,
        seen: &mut BTreeSet<String>,
    ) -> Option<HeaderName> {
        if let Some(why) = reserved(&name) {
            let (what, write) = refusal(why);
            self.fault(key, format!("`{name}` is reserved: {what}"), write);
            return None;
        }
        if !seen.insert(normalize(name.as_str())) {
            self.fault(key, format!("`{name}` is named twice, in `set` or `remove`"), "name it once");
            return None;
        }
        Some(name)
    }

    fn methods(&mut self, key: &str, written: &[String]) -> Vec<Method> {
        if written.is_empty() {
            self.fault(key, "empty list: every request would be refused", "name at least one, such as [GET, POST]");
        }
        let mut methods: Vec<Method> = Vec::new();
        for (at, text) in written.iter().enumerate() {
            let key = format!("{key}[{at}]");
            let method = Method::from_bytes(text.as_bytes()).ok().filter(|_| is_method(text));
            match method {
                Some(_) if NEVER_SERVED.contains(&text.as_str()) => {
                    self.fault(&key, format!("`{text}` is never served"), "remove it");
                }
                Some(method) if methods.contains(&method) => {
                    self.fault(&key, format!("`{text}` is listed twice"), "remove one");
                }
                Some(method) => methods.push(method),
                None => {
                    let write = "write it as clients send it, in capital letters, such as GET or PROPFIND";
                    self.fault(&key, format!("`{}` is no method", text.escape_debug()), write);
                }
            }
        }
        methods
    }

    fn addresses(&mut self, place: &str, written: Option<&file::Addresses>, service: &Addresses) -> Addresses {
        let Some(written) = written else { return service.clone() };
        let mut list = |name: &str, written: &Option<Vec<String>>, service: &[IpNet]| match written {
            Some(written) => self.networks(&format!("{place}.{name}"), written),
            None => service.to_vec(),
        };
        Addresses {
            allow: list("allow", &written.allow, &service.allow),
            deny: list("deny", &written.deny, &service.deny),
        }
    }

    /// Addresses and CIDRs.
    pub(super) fn networks(&mut self, key: &str, written: &[String]) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for (at, text) in written.iter().enumerate() {
            let address = text.parse::<std::net::IpAddr>().map(IpNet::from);
            match text.parse().or(address) {
                Ok(network) => networks.push(canonical_network(network)),
                Err(_) => self.fault(
                    format!("{key}[{at}]"),
                    format!("`{text}` is no network"),
                    "write a CIDR, such as 10.0.0.0/8",
                ),
            }
        }
        networks
    }
}

struct Names<'a> {
    /// As they are written, and parsed.
    set: Vec<(&'a str, HeaderName)>,
    remove: Vec<HeaderName>,
}

/// Capital letters, with `-` and `_` and digits between them: names are case-sensitive (RFC 9110 §9.1), and all that are
/// registered are written so.
fn is_method(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    text.starts_with(|c: char| c.is_ascii_uppercase()) && text.len() <= 32 && text.bytes().all(plain)
}

fn refusal(why: Reserved) -> (&'static str, &'static str) {
    match why {
        Reserved::Identity => {
            ("the edge sets it, so that no one else can say who the client is", "choose another name, or remove it")
        }
        Reserved::Framing => ("it is for one connection, or says where a message ends", "remove it"),
        Reserved::Host => ("applications receive the host that the client named", "remove it"),
        Reserved::Response => ("the edge writes it, or clients read the body by it", "remove it"),
    }
}
