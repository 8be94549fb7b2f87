//! The access log: one JSON line for each request, made of an `Exchange` when it ends. Fields are named as the
//! metrics' labels are.
//!
//! The value of a ticket is blacked out; cookies, tokens and bodies are never there. Called by `proxy`, in
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

/// The query with the value of every `parameter` replaced; `None` when there was none to replace.
pub fn without_tickets(query: &str, parameter: &str) -> Option<String> {
    let is_ticket = |part: &str| part.split_once('=').is_some_and(|(name, _)| name == parameter);
    query.split('&').any(is_ticket).then(|| {
        let parts: Vec<String> = query
            .split('&')
            .map(|part| if is_ticket(part) { format!("{parameter}=…") } else { part.to_owned() })
            .collect();
        parts.join("&")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_does_not_reach_the_log() {
        assert_eq!(without_tickets("a=1&requestID=SECRET&b", "requestID").as_deref(), Some("a=1&requestID=…&b"));
        assert_eq!(without_tickets("a=requestID", "requestID"), None);
    }
}
