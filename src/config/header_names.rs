//! Header fields that the edge itself sets, reads or removes: a configuration cannot name them, and clients cannot send
//! those that say who they are.

use http::{HeaderName, HeaderValue};

/// The fields of the edge itself, beside those that [`is_forwarding_field`] has and those of `identity_headers`.
const OF_THE_EDGE: [&str; 2] = ["x-request-id", "x-sentry-assertion"];

/// Fields that are for one connection (RFC 9110 §7.6.1), or that say where a message ends (RFC 9112 §6).
const FRAMING: [&str; 13] = [
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];

/// Fields of a response that the edge writes, or by which a client reads the body.
const OF_A_RESPONSE: [&str; 5] = ["content-encoding", "content-range", "date", "x-request-id", "host"];

/// Why a field cannot be changed by a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// It says who the client or the user is.
    Identity,
    /// It is for one connection, or says where a message ends.
    Framing,
    /// It says which host a request is for.
    Host,
    /// The edge writes it into every response, or a client reads the body by it.
    Response,
}

/// Returns a name as an application might fold it: in lower case, `_` and `.` read as `-`.
pub fn normalize(name: &str) -> String {
    name.chars().map(|c| if c == '_' || c == '.' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Fields that state the origin of a request: its client, host, scheme or user. Only the edge, and proxies that are
/// trusted, may say that. And `Proxy`, which has no legitimate sender: CGI makes `HTTP_PROXY` of it, by which libraries
/// choose the server that they connect to ("httpoxy", CVE-2016-5385).
pub fn is_forwarding_field(name: &str) -> bool {
    // A client's certificate, by RFC 9440.
    let Some(rest) = name.strip_prefix("x-") else {
        return ["forwarded", "client-cert", "client-cert-chain", "proxy"].contains(&name);
    };
    rest == "real-ip" || ["forwarded-", "original-", "rewrite-"].iter().any(|ours| rest.starts_with(ours))
}

/// Returns the normalized names that only the edge may send to an application, beside those that [`is_forwarding_field`]
/// has; `of_services` are the names of `identity_headers`. A name that one service trusts is not left to clients of another.
pub fn identity_fields(of_services: impl Iterator<Item = impl AsRef<str>>) -> Vec<String> {
    let of_services = of_services.map(|name| normalize(name.as_ref()));
    let mut names: Vec<String> = of_services.chain(OF_THE_EDGE.map(str::to_owned)).collect();
    names.sort();
    names.dedup();
    names
}

/// Why a configuration cannot set or remove this field of requests; `identity` is what [`identity_fields`] returned.
pub fn reserved_in_requests(name: &HeaderName, identity: &[String]) -> Option<Reserved> {
    let name = normalize(name.as_str());
    if is_forwarding_field(&name) || identity.contains(&name) {
        return Some(Reserved::Identity);
    }
    if name == "host" {
        return Some(Reserved::Host);
    }
    is_framing(&name).then_some(Reserved::Framing)
}

/// The same for fields of responses.
pub fn reserved_in_responses(name: &HeaderName) -> Option<Reserved> {
    let name = normalize(name.as_str());
    if OF_A_RESPONSE.contains(&name.as_str()) {
        return Some(Reserved::Response);
    }
    is_framing(&name).then_some(Reserved::Framing)
}

fn is_framing(name: &str) -> bool {
    // The handshake of a WebSocket is between the client and the application; the edge has looked at it.
    FRAMING.contains(&name) || name.starts_with("sec-websocket-")
}

/// Whether the value of a `Set-Cookie` is for one of these cookies.
pub fn sets_cookie(value: &[u8], ours: &[String]) -> bool {
    let first = value.split(|b| *b == b';').next().unwrap_or_default();
    // Older browsers keep `=NAME=x` as a cookie without a name, and send it back as `NAME=x`.
    let begins = first.iter().position(|b| *b != b'=' && !b.is_ascii_whitespace()).unwrap_or(first.len());
    let first = &first[begins..];
    let name = first.split(|b| *b == b'=').next().unwrap_or_default().trim_ascii();
    // Browsers take a prefix in any case for ours (RFC 6265bis §4.1.3). Names without one differ by case.
    let is = |our: &String| match our.starts_with("__") {
        true => our.as_bytes().eq_ignore_ascii_case(name),
        false => our.as_bytes() == name,
    };
    ours.iter().any(is)
}

/// Returns a text as the value of a field, without blanks around it. `None` where it has a byte that no value may have,
/// such as CR, LF or NUL (RFC 9110 §5.5).
pub fn field_value(text: &[u8]) -> Option<HeaderValue> {
    HeaderValue::from_bytes(text.trim_ascii()).ok().filter(|_| !text.iter().any(|byte| b"\r\n\0".contains(byte)))
}
