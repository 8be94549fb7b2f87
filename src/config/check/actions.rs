//! What a route does with its requests: one thing, and one that can be done.

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use url::{Position, Url};

use super::files::files;
use super::{Check, defaults};
use crate::config::{Action, FixedReply, Forward, Pool, Prefixes, Redirect, Route, UnknownHosts, file};
use crate::host::{Host, HostPattern};
use crate::path::{self, CanonicalPath};

/// What `redirect.status` may be.
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];
/// What the status of a fixed reply may be. Those below 200 are interim, and end no request (RFC 9110 §15.2).
const STATUSES: std::ops::RangeInclusive<u16> = 200..=599;
/// What the status for unknown hosts may be.
const ERRORS: std::ops::RangeInclusive<u16> = 400..=599;
/// The longest body of a fixed reply, in bytes: it is in memory.
const MAX_BODY: usize = 64 << 10;

/// The action of a route, at `key`. `matched` is the path that it is for, and whether for that alone; `root` is how the
/// service forwards requests, to no pool where it names none.
pub fn action(
    check: &mut Check<'_>,
    key: &str,
    written: &file::Route,
    matched: (&str, bool),
    root: &Forward,
    pools: &[Pool],
) -> Action {
    let named = [
        ("pool", written.pool.is_some()),
        ("redirect", written.redirect.is_some()),
        ("respond", written.respond.is_some()),
        ("files", written.files.is_some()),
    ];
    let named: Vec<&str> = named.iter().filter(|(_, is_there)| *is_there).map(|(name, _)| *name).collect();
    if named.len() > 1 {
        let what = format!("`{}` in one route: a request can have one of them", named.join("` and `"));
        check.fault(key, what, "remove all but one");
    }
    if named.iter().any(|name| *name != "pool") {
        no_forwarding(check, key, written);
    }
    match (&written.redirect, &written.respond, &written.files) {
        (Some(redirect), _, _) => Action::Redirect(to(check, &format!("{key}.redirect"), redirect, matched)),
        (None, Some(reply), _) => Action::Respond(fixed(check, &format!("{key}.respond"), reply)),
        (None, None, Some(written)) => Action::Files(files(check, &format!("{key}.files"), written)),
        (None, None, None) => Action::Forward(Forward {
            pool: match &written.pool {
                Some(pool) => check.pool_name(&format!("{key}.pool"), Some(pool), pools),
                // The fault of a service without a pool is reported once, at the service.
                None => root.pool.clone(),
            },
            prefixes: prefixes(check, key, written, matched.0),
            location_repair: written.location_repair.unwrap_or(root.location_repair),
        }),
    }
}

/// What is said of forwarding has no meaning on a route that forwards nothing.
fn no_forwarding(check: &mut Check<'_>, key: &str, written: &file::Route) {
    let strips = written.strip_prefix.unwrap_or(defaults::STRIP_PREFIX);
    for (name, is_there) in [("strip_prefix", strips), ("add_prefix", written.add_prefix.is_some())] {
        if is_there {
            check.fault(format!("{key}.{name}"), "no request of this route goes to an application", "remove it");
        }
    }
}

fn prefixes(check: &mut Check<'_>, key: &str, written: &file::Route, path: &str) -> Option<Prefixes> {
    let spelled = |path: &str| path::encoded(path.strip_suffix('/').unwrap_or(path));
    let strips = written.strip_prefix.unwrap_or(defaults::STRIP_PREFIX);
    let strip = if strips { HeaderValue::try_from(spelled(path)).ok() } else { None };
    let added = written.add_prefix.as_deref().and_then(|text| check.route_path(&format!("{key}.add_prefix"), text));
    let prefixes = Prefixes {
        strip: strip.unwrap_or_else(|| HeaderValue::from_static("")),
        add: added.as_deref().map(spelled).unwrap_or_default(),
    };
    (!prefixes.strip.is_empty() || !prefixes.add.is_empty()).then_some(prefixes)
}

fn to(check: &mut Check<'_>, key: &str, written: &file::Redirect, (path, is_exact): (&str, bool)) -> Redirect {
    let status = written.status.unwrap_or(defaults::REDIRECT_STATUS);
    if !REDIRECTS.contains(&status) {
        let what = format!("{status} is no redirect");
        check.fault(format!("{key}.status"), what, "write 301, 302, 303, 307 or 308");
    }
    let target = match location(written.to.as_deref().unwrap_or_default()) {
        Ok(target) => target,
        Err((what, write)) => {
            check.fault(format!("{key}.to"), what, write);
            Target::default()
        }
    };
    let keeps_path = written.keep_path.unwrap_or(defaults::REDIRECT_KEEP_PATH);
    let own = if is_exact || path != "/" { path::encoded(path) } else { String::new() };
    Redirect {
        status: StatusCode::from_u16(status).unwrap_or(StatusCode::FOUND),
        to: target.to,
        query: target.query,
        fragment: target.fragment,
        keep_path: keeps_path.then_some(own),
        keep_query: written.keep_query.unwrap_or(defaults::REDIRECT_KEEP_QUERY),
    }
}

/// Where a redirect leads, in its parts.
#[derive(Default)]
struct Target {
    to: String,
    query: Option<String>,
    fragment: Option<String>,
}

/// A path or an absolute https URL, as browsers read it; or what is wrong with it, and what to write.
fn location(text: &str) -> Result<Target, (String, String)> {
    const WRITE: &str = "write a path such as /app/, or an absolute URL such as https://new.example.com/x/";
    let fault = |what: &str| Err((format!("`{text}` {what}"), WRITE.to_owned()));
    if text.is_empty() {
        return Err(("missing".into(), WRITE.into()));
    }
    // A parser of URLs removes some of these, and takes a backslash for a slash.
    if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
        return fault("has a character that no URL has");
    }
    let is_path = text.starts_with('/');
    if text.starts_with("//") {
        return fault("names a host without a scheme");
    }
    if !is_path && !text.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://")) {
        return fault("is neither a path nor an https URL");
    }
    let parsed =
        if is_path { Url::parse("https://host.invalid").and_then(|host| host.join(text)) } else { Url::parse(text) };
    let Ok(url) = parsed else { return fault("is no URL") };
    if !url.username().is_empty() || url.password().is_some() {
        return fault("has a user name in it");
    }
    let is_named = match url.host() {
        Some(url::Host::Domain(name)) => Host::parse(name).is_ok(),
        address => address.is_some(),
    };
    if !is_named {
        return fault("names no host");
    }
    let from = if is_path { Position::BeforePath } else { Position::BeforeScheme };
    let to = &url[from..Position::AfterPath];
    // What a browser would make of it is what is written, so that an operator reads where it leads.
    if is_path && to != text.split(['?', '#']).next().unwrap_or_default() {
        return Err((format!("`{text}` is not as browsers send it"), format!("write `{}`", &url[from..])));
    }
    Ok(Target { to: to.to_owned(), query: url.query().map(str::to_owned), fragment: url.fragment().map(str::to_owned) })
}

/// A redirect to an address of its own route never ends. `keys` are those of the routes in the file.
pub fn check_loops(check: &mut Check<'_>, keys: &[String], routes: &[Route], hosts: &[HostPattern]) {
    for (at, (key, route)) in keys.iter().zip(routes).enumerate() {
        let Action::Redirect(redirect) = &route.action else { continue };
        let Some(path) = path_here(&redirect.to, hosts) else { continue };
        let leads_to = |route: &Route| match route.is_exact {
            true => path.as_str() == route.path,
            false => path.is_under(&route.path),
        };
        let found = routes.iter().enumerate().filter(|(_, route)| leads_to(route));
        let found = found.max_by_key(|(_, route)| (route.is_exact, route.path.len()));
        if found.is_some_and(|(found, _)| found == at) {
            let what = format!("`{}` is an address of this route, so the redirect leads back to it", redirect.to);
            check.fault(
                format!("{key}.redirect.to"),
                what,
                "name another address, or write `exact` in place of `path`",
            );
        }
    }
}

/// The path of a target on one of these hosts. With a port it may be another server's.
fn path_here(to: &str, hosts: &[HostPattern]) -> Option<CanonicalPath> {
    if to.starts_with('/') {
        return CanonicalPath::of(to).ok();
    }
    let url = Url::parse(to).ok()?;
    let host = Host::parse(url.host_str()?).ok()?;
    let is_here = url.port().is_none() && hosts.contains(&HostPattern::Exact(host));
    CanonicalPath::of(url.path()).ok().filter(|_| is_here)
}

fn fixed(check: &mut Check<'_>, key: &str, written: &file::FixedReply) -> FixedReply {
    let number = written.status.unwrap_or(defaults::RESPOND_STATUS);
    let status = StatusCode::from_u16(number).ok().filter(|_| STATUSES.contains(&number));
    if status.is_none() {
        check.fault(format!("{key}.status"), format!("{number} is no status of a reply"), "write 200 to 599");
    }
    let status = status.unwrap_or(StatusCode::OK);
    let body = written.body.as_deref().unwrap_or_default();
    if body.len() > MAX_BODY {
        let what = format!("{} bytes, and a fixed reply has at most 64 KiB", body.len());
        check.fault(format!("{key}.body"), what, "serve it from a pool");
    }
    if !body.is_empty() && FixedReply::is_bodiless(status) {
        let what = format!("a {number} has no body, so this is not sent");
        check.faults.warn(format!("{key}.body"), what, "remove it, or write another status");
    }
    let written_type = written.content_type.as_deref();
    let default = (!body.is_empty()).then_some(defaults::RESPOND_CONTENT_TYPE);
    let content_type = written_type.or(default).map(|text| {
        let value =
            HeaderValue::try_from(text).ok().filter(|value| value.to_str().is_ok_and(|text| text.contains('/')));
        value.unwrap_or_else(|| {
            check.fault(
                format!("{key}.content_type"),
                format!("`{}` is no media type", text.escape_debug()),
                "write one such as text/plain or application/json",
            );
            HeaderValue::from_static(defaults::RESPOND_CONTENT_TYPE)
        })
    });
    FixedReply { status, body: Bytes::copy_from_slice(body.as_bytes()), content_type }
}

/// What requests receive whose host no service has.
pub fn unknown_hosts(check: &mut Check<'_>, written: &file::UnknownHosts) -> UnknownHosts {
    if written.status.is_some() && written.redirect.is_some() {
        check.fault("unknown_hosts", "`status` and `redirect`: a request can have one of them", "remove one");
    }
    if let Some(text) = &written.redirect {
        return match location(text).map_err(|(what, _)| what).and_then(absolute) {
            Ok(url) => UnknownHosts::Redirect(url),
            Err(what) => {
                check.fault("unknown_hosts.redirect", what, "write an absolute URL such as https://www.example.com/");
                UnknownHosts::Status(StatusCode::MISDIRECTED_REQUEST)
            }
        };
    }
    let number = written.status.unwrap_or(defaults::UNKNOWN_HOSTS_STATUS);
    let status = StatusCode::from_u16(number).ok().filter(|_| ERRORS.contains(&number));
    if status.is_none() {
        check.fault("unknown_hosts.status", format!("{number} is no error"), "write 400 to 599");
    }
    UnknownHosts::Status(status.unwrap_or(StatusCode::MISDIRECTED_REQUEST))
}

/// A target as one text. A path is none here: it would be one of the unknown host itself.
fn absolute(target: Target) -> Result<String, String> {
    let Target { to, query, fragment } = target;
    if to.starts_with('/') {
        return Err(format!("`{to}` is a path of the unknown host itself"));
    }
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let fragment = fragment.map(|fragment| format!("#{fragment}")).unwrap_or_default();
    Ok(format!("{to}{query}{fragment}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_leads_to_a_path_or_to_an_https_url() {
        for (text, to, query, fragment) in [
            ("/", "/", None, None),
            ("/app/", "/app/", None, None),
            ("/app/?a=1#top", "/app/", Some("a=1"), Some("top")),
            ("/caf%C3%A9", "/caf%C3%A9", None, None),
            ("https://new.example.com", "https://new.example.com/", None, None),
            ("https://new.example.com:443/x", "https://new.example.com/x", None, None),
            ("HTTPS://New.Example.com:8443/x/?q", "https://new.example.com:8443/x/", Some("q"), None),
            ("https://bücher.example/", "https://xn--bcher-kva.example/", None, None),
        ] {
            let target = location(text).unwrap_or_else(|(what, _)| panic!("{what}"));
            let parts = (target.to.as_str(), target.query.as_deref(), target.fragment.as_deref());
            assert_eq!(parts, (to, query, fragment), "{text}");
        }
        for text in [
            "",
            "app/",
            "?a",
            "//host/",
            "/\\host",
            "\\\\host",
            "/a b",
            "/a\r\nb",
            "/a\tb",
            "/a/../b",
            "/./a",
            "/%2e%2e/a",
            "/café",
            "http://new.example.com/",
            "https:/new.example.com/",
            "https:new.example.com",
            "https://",
            "https://user@new.example.com/",
            "https://user:password@new.example.com/",
            "https://{host}/",
            "https://new.example.com\\@other.example/",
            "javascript:alert(1)",
            "data:text/html,x",
        ] {
            assert!(location(text).is_err(), "{text}");
        }
    }
}
