//! Return URLs: the only check of where a sign-on may redirect a browser (RFC 9700 §4.11: no open redirector).
//!
//! A URL is parsed once by a URL parser and rebuilt from the parts, so that what was checked is what is followed. Hosts
//! are compared with the configuration exactly, never by suffix.

use std::sync::Arc;

use url::{Position, Url};

use crate::config::Service;
use crate::host::{Host, HostPattern, HostTable};
use crate::sessions::TicketId;

use super::loop_guard::RedirectRound;
use super::ticket_query::TicketParameter;

/// Maximum bytes, as received and as sent on.
const MAX_URL_BYTES: usize = 2048;

/// The hosts and ports that a return URL may name.
pub struct ReturnUrlPolicy {
    sentry: Host,
    services: HostTable<Arc<str>>,
    /// The first exact host of each service, which the list of applications links to.
    primary_hosts: Vec<(Arc<str>, Host)>,
    /// Ports that this edge listens on, besides 443.
    ports: Vec<u16>,
}

/// A URL of ours that a browser may be redirected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnUrl {
    pub host: Host,
    port: Option<u16>,
    path: String,
    query: Option<String>,
    fragment: Option<String>,
    pub target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A service, by its name.
    Service(Arc<str>),
    /// The sign-on host's own first page.
    Landing,
}

/// The URL is not one that we redirect to. The cause is not reported: these URLs are not typed by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadReturnUrl;

impl ReturnUrlPolicy {
    pub fn new(sentry: Host, services: &[Service], ports: Vec<u16>) -> Self {
        let mut table = HostTable::default();
        for service in services {
            for pattern in &service.hosts {
                table.insert(pattern.clone(), Arc::clone(&service.name));
            }
        }
        let primary_host = |service: &Service| {
            service.hosts.iter().find_map(|pattern| match pattern {
                HostPattern::Exact(host) => Some((Arc::clone(&service.name), host.clone())),
                HostPattern::Wildcard(_) => None,
            })
        };
        Self { sentry, services: table, primary_hosts: services.iter().filter_map(primary_host).collect(), ports }
    }

    pub fn primary_hosts(&self) -> &[(Arc<str>, Host)] {
        &self.primary_hosts
    }

    /// Returns whether the host of this URL is one of ours.
    pub fn is_ours(&self, url: &str) -> bool {
        let host = Url::parse(url).ok().and_then(|url| Host::parse(url.host_str()?).ok());
        host.is_some_and(|host| host == self.sentry || self.services.find(&host).is_some())
    }

    pub fn validate(&self, text: &str) -> Result<ReturnUrl, BadReturnUrl> {
        let url = is_plain(text).then(|| within_length(text)).flatten();
        self.validate_parsed(&url.ok_or(BadReturnUrl)?)
    }

    /// Validates a URL that did not travel in a query, of any length.
    pub fn validate_kept(&self, text: &str) -> Result<ReturnUrl, BadReturnUrl> {
        let url = is_plain(text).then(|| Url::parse(text).ok()).flatten();
        self.validate_parsed(&url.ok_or(BadReturnUrl)?)
    }

    fn validate_parsed(&self, url: &Url) -> Result<ReturnUrl, BadReturnUrl> {
        let host = url.host_str().and_then(|host| Host::parse(host).ok()).ok_or(BadReturnUrl)?;
        if is_reserved(url.path()) && !is_kept_return_path(url.path()) {
            return Err(BadReturnUrl);
        }
        let target = match self.services.find(&host) {
            _ if host == self.sentry && url.path() == "/" => Target::Landing,
            Some(service) if host != self.sentry => Target::Service(Arc::clone(service)),
            _ => return Err(BadReturnUrl),
        };
        if url.port().is_some_and(|port| !self.ports.contains(&port)) {
            return Err(BadReturnUrl);
        }
        Ok(ReturnUrl {
            host,
            port: url.port(),
            path: url.path().into(),
            query: url.query().map(Into::into),
            fragment: url.fragment().map(|_| url[Position::BeforeFragment..].into()),
            target,
        })
    }
}

/// The path prefix that takes the place of a page whose address the browser keeps.
pub const KEPT_PATH: &str = "/.sentry/return/";

/// Characters of a key: 64 bits of a hash, which only have to distinguish the addresses of one browser.
const KEPT_KEY_LENGTH: usize = 11;

/// Returns whether a path is that of a kept return URL, and nothing else below `/.sentry`.
pub fn is_kept_return_path(path: &str) -> bool {
    let is_key = |key: &str| {
        key.len() == KEPT_KEY_LENGTH && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    path.strip_prefix(KEPT_PATH).is_some_and(is_key)
}

/// Returns whether a path is below `/.sentry`, where the edge itself replies, in any way that the path may be read: a
/// sign-on that leads to `/.sentry/logout` would end with the user signed out. A browser resolves dots and turns
/// backslashes into slashes before it sends a request, the edge decodes once, and a proxy before it may have done so as
/// well.
pub fn is_reserved(path: &str) -> bool {
    let mut path = path.to_owned();
    for _ in 0..=MAX_DECODINGS {
        if leads_to_reserved(&path) {
            return true;
        }
        path = percent_decoded(&path);
    }
    false
}

/// After this many decodings no browser or server takes a path for one of ours.
const MAX_DECODINGS: usize = 3;

fn leads_to_reserved(path: &str) -> bool {
    use unicode_normalization::UnicodeNormalization;
    let folded: String = path.nfkc().flat_map(char::to_lowercase).filter(|c| !c.is_control()).collect();
    let mut segments: Vec<&str> = Vec::new();
    for segment in folded.split(['/', '\\']) {
        match segment.split(';').next().unwrap_or_default().trim() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    segments.first() == Some(&".sentry")
}

/// Anything that is no escape, or no UTF-8, stays as it is.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after.get(..2).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match (byte, escaped) {
            (b'%', Some(octet)) => {
                bytes.push(octet);
                rest = &after[2..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Parses a URL that is short enough, and still is when it is rebuilt from its parts: a quote becomes three bytes.
pub fn within_length(text: &str) -> Option<Url> {
    let url = if text.len() > MAX_URL_BYTES { None } else { Url::parse(text).ok() };
    url.filter(|url| url.as_str().len() <= MAX_URL_BYTES)
}

/// Escapes a URL of ours for use as a return URL. Browsers send some bytes in a query that are not allowed in a URI
/// (RFC 3986 §2), such as a backslash, which some parsers take for a slash. They are escaped, and mean the same to an
/// application.
pub fn escaped(url: &str) -> String {
    let mut text = String::with_capacity(url.len());
    for byte in url.bytes() {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// Returns whether a text may be parsed, before a lenient parser repairs it: visible ASCII, `https://`, and an
/// authority of name and port alone, so no user info, no escapes, no trailing dot.
fn is_plain(text: &str) -> bool {
    let visible = text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let name = authority.split(':').next().unwrap_or_default();
    visible
        && scheme.eq_ignore_ascii_case("https")
        && !name.is_empty()
        && !name.ends_with('.')
        && authority.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:".contains(&b))
}

impl ReturnUrl {
    /// Returns the URL without tickets. Other parameters stay byte for byte.
    pub fn without_tickets(&self, tickets: &TicketParameter) -> String {
        self.assemble(self.query.as_deref().and_then(|query| tickets.query_without_tickets(query)))
    }

    /// Returns the URL with exactly one ticket, the last parameter before the fragment.
    pub fn with_ticket(&self, tickets: &TicketParameter, ticket: &TicketId) -> String {
        let kept = self.query.as_deref().and_then(|query| tickets.query_without_tickets(query));
        let name = tickets.name();
        let query = match kept.filter(|query| !query.is_empty()) {
            Some(query) => format!("{query}&{name}={ticket}"),
            None => format!("{name}={ticket}"),
        };
        self.assemble(Some(query))
    }

    /// Returns the round of a ticket that was left in the URL by an edge that did not recognize the ticket's mark.
    pub fn round(&self, tickets: &TicketParameter) -> Option<RedirectRound> {
        tickets.extract(self.query.as_deref()?)?.round()
    }

    /// Returns `https://host[:port]`.
    pub fn origin(&self) -> String {
        match self.port {
            Some(port) => format!("https://{}:{port}", self.host),
            None => format!("https://{}", self.host),
        }
    }

    fn assemble(&self, query: Option<String>) -> String {
        let mut url = self.origin();
        url.push_str(&self.path);
        if let Some(query) = query {
            url.push('?');
            url.push_str(&query);
        }
        if let Some(fragment) = &self.fragment {
            url.push('#');
            url.push_str(fragment);
        }
        url
    }
}

/// Returns the decoded value of a parameter that is in a query exactly once.
pub fn parameter(query: Option<&str>, name: &str) -> Parameter {
    let mut values = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).filter(|(n, _)| n == name);
    match (values.next(), values.next()) {
        (None, _) => Parameter::Absent,
        (Some((_, value)), None) if value.is_empty() => Parameter::Absent,
        (Some((_, value)), None) => Parameter::One(value.into_owned()),
        (Some(_), Some(_)) => Parameter::Several,
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parameter {
    Absent,
    One(String),
    Several,
}

/// Returns `value` encoded for a query.
pub fn encode(value: &str) -> String {
    url::form_urlencoded::byte_serialize(value.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::ticket_mark::TicketMarks;
    use super::*;

    fn tickets() -> TicketParameter {
        TicketParameter::new("requestID".into(), TicketMarks::of_secrets(&[b"secret"]))
    }

    fn policy() -> ReturnUrlPolicy {
        let yaml = "services: {iqueue: {hosts: [iqueue.leantaas.com]}, dextor: {hosts: ['*.dextor.leantaas.com']}}";
        let (config, _) = crate::config::parse("edge.yaml".as_ref(), yaml).unwrap();
        ReturnUrlPolicy::new(Host::parse("sentry.leantaas.com").unwrap(), &config.services, vec![8443])
    }

    #[test]
    fn our_services_are_good_with_path_and_query_byte_for_byte() {
        for url in [
            "https://iqueue.leantaas.com/",
            "https://iqueue.leantaas.com/path?q=1&r=%20a+b&&x",
            "https://iqueue.leantaas.com:8443/a/b;c=d?e#f",
            "https://a.dextor.leantaas.com/x",
            "https://sentry.leantaas.com/",
        ] {
            assert_eq!(policy().validate(url).unwrap().without_tickets(&tickets()), url);
        }
    }

    /// The inputs of open-redirect attacks.
    #[test]
    fn nothing_else_is_followed() {
        let long = format!("https://iqueue.leantaas.com/{}", "a".repeat(MAX_URL_BYTES));
        for url in [
            "//evil.com",
            "///evil.com",
            "/\\evil.com",
            "\\\\evil.com",
            "/\tevil.com",
            "/\nevil.com",
            "https:evil.com",
            "https:/evil.com",
            "http:///evil.com",
            "https:///evil.com",
            "https://iqueue.leantaas.com@evil.com",
            "https://iqueue.leantaas.com:x@evil.com",
            "https://a@b@iqueue.leantaas.com",
            "https://user@iqueue.leantaas.com/",
            "https://evil.com\\@iqueue.leantaas.com",
            "https://evil.com%2f@iqueue.leantaas.com",
            "https://evil.com#@iqueue.leantaas.com",
            "https://evil.com?iqueue.leantaas.com",
            "https://iqueue.leantaas.com.evil.com",
            "https://evil-leantaas.com",
            "https://iqueue。leantaas。com",
            "https://ⓘqueue.leantaas.com",
            "https://iqueue.leantaas.com.",
            "https://iqueue.leantaas.com:8444",
            "https://iqueue.leantaas.com:99999",
            "https://leantaas.com/",
            "https://other.leantaas.com/",
            "https://a.b.dextor.leantaas.com/",
            "http://iqueue.leantaas.com/",
            "javascript:alert(1)",
            "data:text/html,x",
            "JaVaScRiPt://iqueue.leantaas.com/%0aalert(1)",
            "ftp://iqueue.leantaas.com/",
            "",
            "https://sentry.leantaas.com/copyCookie?redirectURL=https://evil.com",
            "https://sentry.leantaas.com/login?redirectURL=/login",
            "https://iqueue.leantaas.com/a b",
            "https://",
            &long,
        ] {
            assert_eq!(policy().validate(url), Err(BadReturnUrl), "{url}");
        }
    }

    /// In any spelling that a browser, the edge or a proxy before it may read this way.
    #[test]
    fn no_sign_on_leads_to_what_the_edge_answers_itself() {
        for path in [
            "/.sentry/logout",
            "/.sentry",
            "/.sentry/",
            "/.sentry/currentUser?x=1",
            "/.sentry/logout#x",
            "//.sentry/logout",
            "/./.sentry/logout",
            "/a/../.sentry/logout",
            "/a/%2e%2e/.sentry/logout",
            "/a/.%2E/.sentry/logout",
            "/%2esentry/logout",
            "/%2Esentry%2flogout",
            "/%2e%73%65%6e%74%72%79/logout",
            "/%252esentry/logout",
            "/%25252esentry/logout",
            "/.SENTRY/logout",
            "/.Sentry/logout",
            "/.sentry;x=1/logout",
            "/;x/.sentry/logout",
            "/a%2f..%2f.sentry/logout",
            "/a%5c..%5c.sentry%5clogout",
            "/%2f.sentry/logout",
            "/%5c.sentry/logout",
            "/%09.sentry/logout",
            "/.sentry%00/logout",
            "/.sentr%0ay/logout",
            "/.sentry%20/logout",
            "/%EF%BC%8Esentry/logout",
            "/.%C5%BFentry/logout",
        ] {
            for host in ["iqueue.leantaas.com", "iqueue.leantaas.com:8443", "a.dextor.leantaas.com"] {
                assert_eq!(policy().validate(&format!("https://{host}{path}")), Err(BadReturnUrl), "{host}{path}");
            }
        }
        for path in [
            "/",
            "/sentry/logout",
            "/a/.sentry/logout",
            "/.sentryx/",
            "/x.sentry",
            "/?next=/.sentry/logout",
            "/#/.sentry/logout",
            "/.well-known/x",
        ] {
            let url = format!("https://iqueue.leantaas.com{path}");
            assert_eq!(policy().validate(&url).unwrap().without_tickets(&tickets()), url);
        }
    }

    #[test]
    fn a_url_that_grows_too_long_on_its_way_is_refused_at_once() {
        let quotes = |number: usize| format!("https://iqueue.leantaas.com/?{}", "'".repeat(number));
        let url = policy().validate(&quotes(600)).unwrap().without_tickets(&tickets());
        assert_eq!(policy().validate(&url).unwrap().without_tickets(&tickets()), url);
        assert_eq!(policy().validate(&quotes(700)), Err(BadReturnUrl));
    }

    #[test]
    fn escapes_in_a_path_stay_escapes() {
        let url = policy().validate("https://iqueue.leantaas.com/%0d%0aSet-Cookie:x=1").unwrap();
        assert_eq!(url.without_tickets(&tickets()), "https://iqueue.leantaas.com/%0d%0aSet-Cookie:x=1");
    }

    #[test]
    fn exactly_one_ticket_is_carried_and_an_applications_own_uuid_stays() {
        let tickets = tickets();
        let [planted, ours] = [RedirectRound::LAST, RedirectRound::FIRST].map(|round| tickets.issue(round).unwrap());
        let own = TicketId::random();
        let text = format!("https://iqueue.leantaas.com/?requestID={planted}&requestID={own}&a=1#b");
        let url = policy().validate(&text).unwrap();
        let expected = format!("https://iqueue.leantaas.com/?requestID={own}&a=1&requestID={ours}#b");
        assert_eq!(url.with_ticket(&tickets, &ours), expected);
        assert_eq!(url.without_tickets(&tickets), format!("https://iqueue.leantaas.com/?requestID={own}&a=1#b"));
        assert_eq!(url.round(&tickets), Some(RedirectRound::LAST));
    }
}
