//! The access log: one JSON line for each request, made of an `RequestContext` when it ends. Fields are named as the
//! metrics' labels are.
//!
//! Values of tickets and passwords are blacked out; cookies, tokens and bodies are never there. Called by `proxy`, in
//! its `settle` and nowhere else.

use std::net::IpAddr;

use serde::Serialize;

use crate::log_writer::LogWriter;

/// Writes lines.
pub struct AccessLog(LogWriter);

/// One line. Durations are in seconds, sizes in bytes.
#[derive(Debug, Serialize)]
pub struct Entry<'a> {
    pub time: String,
    pub request_id: &'a str,
    pub client: Option<IpAddr>,
    pub method: &'a str,
    pub host: &'a str,
    pub path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<&'a str>,
    pub protocol: &'a str,
    pub status: u16,
    pub bytes: usize,
    pub duration: f64,
    pub service: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_duration: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_duration: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
}

impl AccessLog {
    pub fn new(writer: LogWriter) -> Self {
        Self(writer)
    }

    pub fn is_on(&self) -> bool {
        self.0.is_on()
    }

    pub fn write(&self, entry: &Entry<'_>) {
        self.0.write(entry);
    }
}

/// Returns the query with the values of tickets and passwords replaced, or `None` when it has neither. A password has
/// no business in a URL, but some client will put it there, and a log is kept for years.
pub fn redact_query(query: &str, ticket: &str) -> Option<String> {
    let is_secret = |part: &str| {
        part.split_once('=').is_some_and(|(name, _)| name.eq_ignore_ascii_case("password") || is_escaped(name, ticket))
    };
    let shown = |part: &str| match part.split_once('=') {
        Some((name, _)) if is_secret(part) => format!("{name}=…"),
        _ => part.to_owned(),
    };
    let redacted = redact_tickets(query, ticket);
    if !query.split('&').any(is_secret) {
        return redacted;
    }
    let query = redacted.unwrap_or_else(|| query.to_owned());
    Some(query.split('&').map(shown).collect::<Vec<_>>().join("&"))
}

/// Returns whether a name is that of the parameter, written with escapes.
fn is_escaped(name: &str, parameter: &str) -> bool {
    let decoded = || url::form_urlencoded::parse(name.as_bytes()).next();
    name.contains('%') && decoded().is_some_and(|(name, _)| name == parameter)
}

/// The query with the value of every `parameter` replaced, also inside a URL that the query carries encoded, such
/// as a return URL with a ticket that is still good. `None` when there was none to replace.
fn redact_tickets(query: &str, parameter: &str) -> Option<String> {
    let mut text = String::new();
    let mut rest = query;
    while let Some(at) = rest.find(parameter) {
        let (before, after) = rest.split_at(at + parameter.len());
        text.push_str(before);
        rest = after;
        if let Some((equals, ends)) = equals_sign(after) {
            text.push_str(&after[..equals]);
            text.push('…');
            rest = after[equals..].find(ends).map_or("", |end| &after[equals + end..]);
        }
    }
    if text.contains('…') { Some(text + rest) } else { None }
}

/// Returns the length of the `=` that `text` begins with, and what ends the value behind it. Each time that a URL is
/// put into another one, its `=` is encoded once more: `=`, `%3D`, `%253D`.
fn equals_sign(text: &str) -> Option<(usize, &'static [char])> {
    if text.starts_with('=') {
        return Some((1, &['&']));
    }
    let encoded = text.strip_prefix('%')?.trim_start_matches("25");
    let rest = encoded.strip_prefix("3D").or_else(|| encoded.strip_prefix("3d"))?;
    Some((text.len() - rest.len(), &['&', '%']))
}

/// Truncates a text to what a log line should carry, because clients can make it long.
pub fn truncate(text: &str) -> &str {
    const MAX_BYTES: usize = 2048;
    let end = (0..=MAX_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_or_password_does_not_reach_the_log() {
        assert_eq!(redact_query("a=1&requestID=SECRET&b", "requestID").as_deref(), Some("a=1&requestID=…&b"));
        assert_eq!(redact_query("Password=SECRET&user=ada", "requestID").as_deref(), Some("Password=…&user=ada"));
        let escaped = redact_query("%72equest%49D=SECRET&b=%20", "requestID");
        assert_eq!(escaped.as_deref(), Some("%72equest%49D=…&b=%20"));
        assert_eq!(redact_query("a=requestID&password", "requestID"), None);
        assert_eq!(redact_query("requestIDs=1&b=%3D", "requestID"), None);
    }

    #[test]
    fn a_line_is_no_longer_than_it_should_be() {
        assert_eq!(truncate("short"), "short");
        assert_eq!(truncate(&"é".repeat(3000)).len(), 2048);
    }

    #[test]
    fn nor_does_one_that_stands_in_a_return_url() {
        let redacted = |query: &str| redact_tickets(query, "requestID");
        for (query, expected) in [
            ("redirectURL=https%3A%2F%2Fa%2F%3FrequestID%3DSECRET", "redirectURL=https%3A%2F%2Fa%2F%3FrequestID%3D…"),
            ("u=%3FrequestID%3dSECRET%26b%3D1&state=x", "u=%3FrequestID%3d…%26b%3D1&state=x"),
            ("u=requestID%253DSECRET%2526b&requestID=SECRET", "u=requestID%253D…%2526b&requestID=…"),
            ("requestID=SECRET&requestID=SECRET#", "requestID=…&requestID=…"),
        ] {
            assert_eq!(redacted(query).as_deref(), Some(expected));
        }
    }
}
