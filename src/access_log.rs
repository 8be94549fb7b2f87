//! The access log: one JSON line for each request, made of an `Exchange` when it ends. Fields are named as the
//! metrics' labels are.
//!
//! Values of tickets and passwords are blacked out; cookies, tokens and bodies are never there. Called by `proxy`, in
//! Pingora's `logging` phase and nowhere else.

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
        // A struct of strings and numbers always serializes.
        if let Ok(line) = serde_json::to_string(entry) {
            self.0.write(line);
        }
    }
}

/// The query with the values of tickets and passwords blacked out; `None` when there was neither. A password has
/// no business in a URL, but some client will put it there, and a log is kept for years.
pub fn without_secrets(query: &str, ticket: &str) -> Option<String> {
    let is_secret = |part: &str| {
        part.split_once('=').is_some_and(|(name, _)| name == ticket || name.eq_ignore_ascii_case("password"))
    };
    let shown = |part: &str| match part.split_once('=') {
        Some((name, _)) if is_secret(part) => format!("{name}=…"),
        _ => part.to_owned(),
    };
    let nested = format!("{ticket}%3D");
    let has_secret = query.contains(&nested) || query.split('&').any(is_secret);
    has_secret.then(|| {
        let query = query.split('&').map(shown).collect::<Vec<_>>().join("&");
        without_nested(&query, &nested)
    })
}

/// Blacks out tickets in URLs that are themselves a parameter, as `redirectURL` is.
fn without_nested(query: &str, mark: &str) -> String {
    let mut parts = query.split(mark);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let value = |c: char| c.is_ascii_alphanumeric() || c == '-';
        text.push_str(mark);
        text.push('…');
        text.push_str(part.trim_start_matches(value));
    }
    text
}

/// No more of a text than a log line should carry; what a client can make long is cut.
pub fn shortened(text: &str) -> &str {
    const LONGEST: usize = 2048;
    let end = (0..=LONGEST.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_or_password_does_not_reach_the_log() {
        assert_eq!(without_secrets("a=1&requestID=SECRET&b", "requestID").as_deref(), Some("a=1&requestID=…&b"));
        assert_eq!(without_secrets("Password=SECRET&user=ada", "requestID").as_deref(), Some("Password=…&user=ada"));
        assert_eq!(without_secrets("a=requestID&password", "requestID"), None);
        let nested = "redirectURL=https%3A%2F%2Fa%2F%3Fb%26requestID%3DSECRET-1%26c&state=s";
        let shown = "redirectURL=https%3A%2F%2Fa%2F%3Fb%26requestID%3D…%26c&state=s";
        assert_eq!(without_secrets(nested, "requestID").as_deref(), Some(shown));
    }

    #[test]
    fn a_line_is_no_longer_than_it_should_be() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened(&"é".repeat(3000)).len(), 2048);
    }
}
