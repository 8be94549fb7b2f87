//! A request's head as the deciding rooms see it: borrowed, free of Pingora, easy to make in a test.
//!
//! `proxy` makes it from a Pingora session; `auth` and `sentry` read it. What kind of request it is (a page that
//! a person opened, a script's call, a prefetch) is judged here, once.

use std::net::IpAddr;

use http::{HeaderMap, Method, header};

use crate::clock::UnixTime;
use crate::host::Host;

/// Stands for the value of a field that cannot be read as text.
const UNREADABLE: &str = "\u{fffd}";

/// The facts of one request.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
    pub host: &'a Host,
    /// The port of the authority when it is not 443: redirects between our hosts keep it.
    pub port: Option<u16>,
    /// As it was sent, without the query.
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub client: IpAddr,
    pub request_id: &'a str,
    pub now: UnixTime,
}

/// Where a browser says that a request comes from (Fetch Metadata).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchSite {
    SameOrigin,
    SameSite,
    CrossSite,
    /// The person typed it, or followed a bookmark.
    None,
    /// The browser did not say.
    Absent,
}

/// Whether a request of this method may be sent again as it is, without a person who says so (RFC 9110 §9.2.1).
pub fn is_repeatable(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}

impl<'a> Head<'a> {
    /// A field as text, the first of its name; `None` when absent. One with a byte that is no ASCII is not absent: it
    /// reads as `UNREADABLE`, which is none of the values that anything is decided by.
    pub fn field(&self, name: impl header::AsHeaderName) -> Option<&'a str> {
        self.headers.get(name).map(|value| value.to_str().unwrap_or(UNREADABLE))
    }

    /// Whether a person opened this as a page, so that a redirect or a form makes sense to whoever asked.
    pub fn is_navigation(&self) -> bool {
        is_repeatable(self.method) && self.opens_a_page()
    }

    /// Whether this is a form that a person sent by POST.
    pub fn is_form_post(&self) -> bool {
        let form = self.field(header::CONTENT_TYPE).is_some_and(|t| {
            t.starts_with("application/x-www-form-urlencoded") || t.starts_with("multipart/form-data")
        });
        self.method == Method::POST && form && self.opens_a_page()
    }

    fn opens_a_page(&self) -> bool {
        match self.field("sec-fetch-mode") {
            Some(mode) => mode == "navigate",
            None => self.accepts_html() && !self.headers.contains_key("x-requested-with"),
        }
    }

    /// Whether an error is better told as a page than as JSON.
    pub fn accepts_html(&self) -> bool {
        self.field(header::ACCEPT).is_some_and(|accept| accept.contains("text/html"))
    }

    /// Whether a one-time thing may be spent on this request: a GET that a person made, no look-ahead of a
    /// browser, no scanner's HEAD, no image that a foreign page embeds.
    pub fn may_redeem(&self) -> bool {
        self.method == Method::GET && self.is_navigation() && !self.is_look_ahead() && !self.is_embedded()
    }

    /// Whether a browser fetches this before anybody has asked for it.
    pub fn is_look_ahead(&self) -> bool {
        let ahead = |value: &str| value.contains("prefetch") || value.contains("prerender");
        ["sec-purpose", "purpose", "x-moz"].iter().any(|name| self.field(*name).is_some_and(ahead))
    }

    /// Whether this is a part of a page, such as a picture or a frame.
    pub fn is_embedded(&self) -> bool {
        self.field("sec-fetch-dest").is_some_and(|dest| dest != "document")
    }

    /// Browsers send it once: of two fields it cannot be said which is the browser's.
    pub fn fetch_site(&self) -> FetchSite {
        if self.headers.get_all("sec-fetch-site").iter().nth(1).is_some() {
            return FetchSite::CrossSite;
        }
        match self.field("sec-fetch-site") {
            Some("same-origin") => FetchSite::SameOrigin,
            Some("same-site") => FetchSite::SameSite,
            Some("none") => FetchSite::None,
            Some(_) => FetchSite::CrossSite,
            None => FetchSite::Absent,
        }
    }

    /// `https://host[:port]` of `host`, on the port that this request came by.
    pub fn origin_of(&self, host: &Host) -> String {
        match self.port {
            Some(port) => format!("https://{host}:{port}"),
            None => format!("https://{host}"),
        }
    }

    /// This request's own URL.
    pub fn url(&self) -> String {
        let mut url = self.origin_of(self.host);
        url.push_str(self.path);
        if let Some(query) = self.query {
            url.push('?');
            url.push_str(query);
        }
        url
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn with<T>(fields: &[(&'static str, &[u8])], judge: impl FnOnce(&Head<'_>) -> T) -> T {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        let (host, now) = (Host::placeholder(), UnixTime::from_seconds(0));
        let client = IpAddr::from([192, 0, 2, 1]);
        let (method, port, path, query) = (&Method::GET, None, "/", None);
        judge(&Head { method, headers: &headers, host: &host, port, path, query, client, request_id: "", now })
    }

    #[test]
    fn a_field_that_cannot_be_read_is_not_absent() {
        for odd in [&b"\xe9"[..], b"none\xff", b"\x80navigate"] {
            assert_eq!(with(&[("sec-fetch-site", odd)], |head| head.fetch_site()), FetchSite::CrossSite, "{odd:?}");
            let page: (&str, &[u8]) = ("accept", b"text/html");
            assert!(!with(&[("sec-fetch-mode", odd), page], |head| head.is_navigation()), "{odd:?}");
            assert!(with(&[("sec-fetch-dest", odd), page], |head| head.is_embedded()), "{odd:?}");
            assert!(with(&[("referer", odd)], |head| head.field("referer").is_some()), "{odd:?}");
        }
        assert_eq!(with(&[], |head| head.fetch_site()), FetchSite::Absent);
        assert_eq!(with(&[("sec-fetch-site", b"none")], |head| head.fetch_site()), FetchSite::None);
        for second in ["none", "cross-site"] {
            let fields: [(&str, &[u8]); 2] = [("sec-fetch-site", b"none"), ("sec-fetch-site", second.as_bytes())];
            assert_eq!(with(&fields, |head| head.fetch_site()), FetchSite::CrossSite, "{second}");
        }
    }
}
