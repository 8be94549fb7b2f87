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

/// What [`loads_a_page`] looks at, as the value of `Vary`.
pub const PAGE_FIELDS: &str = "Sec-Fetch-Mode, Sec-Fetch-Dest, Accept, X-Requested-With";

/// Whether a browser shows the response as a page of its own, in a window or a frame: not for what a page is made of, and not
/// for a script's request. Of two fields it cannot be said which is the browser's.
pub fn loads_a_page(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or(UNREADABLE));
    let is_doubled = |name: &str| headers.get_all(name).iter().nth(1).is_some();
    if ["sec-fetch-mode", "sec-fetch-dest"].into_iter().any(is_doubled) {
        return false;
    }
    match (text("sec-fetch-mode"), text("sec-fetch-dest")) {
        // A service worker that passes a navigation on keeps its mode and drops its destination.
        (
            Some("navigate"),
            Some("document" | "iframe" | "frame" | "fencedframe" | "embed" | "object" | "empty") | None,
        )
        | (None, Some("document" | "iframe" | "frame")) => true,
        (Some(_), _) | (None, Some(_)) => false,
        (None, None) => {
            let accepts_html = text("accept").is_some_and(|accept| accept.contains("text/html"));
            accepts_html && !headers.contains_key("x-requested-with")
        }
    }
}

/// Whether a request of this method may be sent again as it is, without a person who says so (RFC 9110 §9.2.1).
pub fn is_repeatable(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}

/// What a browser does with the response to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseUse {
    /// Shows it, in a window or in a frame of this site's pages.
    Page,
    /// Would show it inside a page of another site.
    ForeignFrame,
    /// Hands it to a script, makes it a part of a page, or keeps it for later.
    Subresource,
}

/// Where a response goes (`Sec-Fetch-Dest`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Destination {
    /// A window's, or it was not said.
    Document,
    Frame,
    /// A part of a page, or nothing that can be read.
    Subresource,
    /// `empty`, or one that is not known here.
    Other,
}

impl<'a> Head<'a> {
    /// A field as text, the first of its name; `None` when absent. One with a byte that is no ASCII is not absent: it
    /// reads as `UNREADABLE`, which is none of the values that anything is decided by.
    pub fn field(&self, name: impl header::AsHeaderName) -> Option<&'a str> {
        self.headers.get(name).map(|value| value.to_str().unwrap_or(UNREADABLE))
    }

    /// Whether a person opened this as a page, so that a redirect or a form makes sense.
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

    /// Whether a person's browser shows the response as a page, whatever the method.
    pub fn opens_a_page(&self) -> bool {
        if self.headers.get_all("sec-fetch-mode").iter().nth(1).is_some() {
            return false;
        }
        match self.field("sec-fetch-mode") {
            Some(mode) => mode == "navigate",
            None => self.accepts_html() && !self.headers.contains_key("x-requested-with"),
        }
    }

    /// Whether an error is better shown as a page than sent as JSON.
    pub fn accepts_html(&self) -> bool {
        self.field(header::ACCEPT).is_some_and(|accept| accept.contains("text/html"))
    }

    /// Whether a one-time thing may be spent on this request: a page that a person opens, by GET.
    pub fn may_redeem(&self) -> bool {
        self.method == Method::GET && self.response_use() == ResponseUse::Page
    }

    /// What a browser does with the response. Only a page can be sent to sign on, because only a page can come back with
    /// a ticket and spend it: a HEAD, a prefetch and a part of a page never do.
    ///
    /// A service worker that passes a navigation on keeps its mode and drops its destination, and no script can make a
    /// request of the mode `navigate`. So the mode decides, and beyond it the destination.
    pub fn response_use(&self) -> ResponseUse {
        if self.method == Method::HEAD || !self.opens_a_page() || self.is_prefetch() {
            return ResponseUse::Subresource;
        }
        let is_own = matches!(self.fetch_site(), FetchSite::SameOrigin | FetchSite::SameSite);
        match self.destination() {
            Destination::Document => ResponseUse::Page,
            Destination::Frame if is_own => ResponseUse::Page,
            // Its cookies are not sent there, so that a sign-on could not end.
            Destination::Frame => ResponseUse::ForeignFrame,
            Destination::Subresource => ResponseUse::Subresource,
            Destination::Other if self.fetch_site() == FetchSite::CrossSite => ResponseUse::Subresource,
            Destination::Other => ResponseUse::Page,
        }
    }

    /// Whether a browser fetches this before the person has opened it.
    pub fn is_prefetch(&self) -> bool {
        let ahead = |value: &str| value.contains("prefetch") || value.contains("prerender");
        ["sec-purpose", "purpose", "x-moz"].iter().any(|name| self.field(*name).is_some_and(ahead))
    }

    /// Whether this is a part of a page, such as a picture or a frame.
    pub fn is_embedded(&self) -> bool {
        matches!(self.destination(), Destination::Subresource | Destination::Frame)
    }

    /// Whether this is shown inside another page.
    pub fn is_framed(&self) -> bool {
        self.destination() == Destination::Frame
    }

    /// Browsers send it once, as they do with the site: of two fields it cannot be said which is the browser's.
    fn destination(&self) -> Destination {
        /// Of requests whose response becomes a part of a page or of a worker (Fetch, "destination").
        const SUBRESOURCES: [&str; 19] = [
            "audio",
            "audioworklet",
            "dictionary",
            "font",
            "image",
            "json",
            "manifest",
            "paintworklet",
            "report",
            "script",
            "serviceworker",
            "sharedworker",
            "speculationrules",
            "style",
            "text",
            "track",
            "video",
            "worker",
            "xslt",
        ];
        if self.headers.get_all("sec-fetch-dest").iter().nth(1).is_some() {
            return Destination::Subresource;
        }
        match self.field("sec-fetch-dest") {
            None | Some("document") => Destination::Document,
            Some("iframe" | "frame" | "object" | "embed" | "fencedframe") => Destination::Frame,
            Some(UNREADABLE) => Destination::Subresource,
            Some(destination) if SUBRESOURCES.contains(&destination) => Destination::Subresource,
            Some(_) => Destination::Other,
        }
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
            assert_eq!(
                with(&[("sec-fetch-dest", odd), page], |head| head.response_use()),
                ResponseUse::Subresource,
                "{odd:?}"
            );
            assert!(with(&[("referer", odd)], |head| head.field("referer").is_some()), "{odd:?}");
        }
        assert_eq!(with(&[], |head| head.fetch_site()), FetchSite::Absent);
        assert_eq!(with(&[("sec-fetch-site", b"none")], |head| head.fetch_site()), FetchSite::None);
        for second in ["none", "cross-site"] {
            let fields: [(&str, &[u8]); 2] = [("sec-fetch-site", b"none"), ("sec-fetch-site", second.as_bytes())];
            assert_eq!(with(&fields, |head| head.fetch_site()), FetchSite::CrossSite, "{second}");
        }
    }

    /// Method aside, the one judge of what may be sent to sign on and what may spend a ticket.
    #[test]
    fn what_a_browser_does_with_a_response_follows_from_mode_destination_and_site() {
        let response_use = |mode: &str, destination: &str, site: &str| {
            let fields = [("sec-fetch-mode", mode), ("sec-fetch-dest", destination), ("sec-fetch-site", site)];
            let mut sent: Vec<(&'static str, &[u8])> = vec![("accept", b"text/html")];
            sent.extend(fields.iter().filter(|(_, value)| !value.is_empty()).map(|(n, v)| (*n, v.as_bytes())));
            with(&sent, |head| head.response_use())
        };
        let sites = ["same-origin", "same-site", "none", "cross-site", ""];
        for mode in ["navigate", ""] {
            for destination in ["document", ""] {
                for site in sites {
                    assert_eq!(response_use(mode, destination, site), ResponseUse::Page, "{mode} {destination} {site}");
                }
            }
            for destination in ["empty", "portal"] {
                for site in sites {
                    let expected = if site == "cross-site" { ResponseUse::Subresource } else { ResponseUse::Page };
                    assert_eq!(response_use(mode, destination, site), expected, "{mode} {destination} {site}");
                }
            }
            for destination in ["iframe", "frame", "object", "embed", "fencedframe"] {
                for site in sites {
                    let own = ["same-origin", "same-site"].contains(&site);
                    let expected = if own { ResponseUse::Page } else { ResponseUse::ForeignFrame };
                    assert_eq!(response_use(mode, destination, site), expected, "{mode} {destination} {site}");
                }
            }
            for destination in ["image", "script", "style", "font", "video", "worker", "manifest", "serviceworker"] {
                for site in sites {
                    assert_eq!(
                        response_use(mode, destination, site),
                        ResponseUse::Subresource,
                        "{mode} {destination} {site}"
                    );
                }
            }
        }
        for mode in ["cors", "no-cors", "same-origin", "websocket"] {
            for destination in ["document", "empty", "iframe", "image"] {
                assert_eq!(
                    response_use(mode, destination, "same-origin"),
                    ResponseUse::Subresource,
                    "{mode} {destination}"
                );
            }
        }
    }
}
