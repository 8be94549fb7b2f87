//! The audit log: who signed in and out, which tickets were used, who was refused and why, and what was asked of the
//! admin API. One JSON line each.
//!
//! No secrets: no password, no token, no ticket value, no session id. Called where the thing happens, by `proxy`,
//! `sentry` and `server`.

use std::net::IpAddr;

use serde::Serialize;

use crate::clock::UnixTime;
use crate::log_writer::LogWriter;

/// Writes events.
pub struct AuditLog(LogWriter);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Login,
    LoginRefused,
    Logout,
    TicketIssued,
    TicketRedeemed,
    TicketRefused,
    AccessRefused,
    LoopBroken,
    StreamClosed,
    /// Over the admin API, as the two that follow.
    SessionsListed,
    SessionsEnded,
    ApiRefused,
}

/// One line. Absent parts are left out.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Entry<'a> {
    pub event: Event,
    pub client: IpAddr,
    pub request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    entry: Entry<'a>,
}

impl AuditLog {
    pub fn new(writer: LogWriter) -> Self {
        Self(writer)
    }

    pub fn write(&self, now: UnixTime, entry: Entry<'_>) {
        if self.0.is_on() {
            self.0.write(&Line { time: now.rfc3339(), entry });
        }
    }
}
