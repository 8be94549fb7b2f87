//! The audit log: sign-on and sign-out, tickets that were used, requests that were refused and why, and calls of the
//! admin API. One JSON line each.
//!
//! No secrets: no password, no token, no ticket value, no session id. Called where the thing happens, by `proxy`,
//! `sentry` and `server`.

mod rate;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::IntCounterVec;
use serde::Serialize;

use crate::client_prefix::ClientPrefix;
use crate::clock::UnixTime;
use crate::config::OnWriteError;
use crate::log_writer::LogWriter;
use rate::{AnonymousRate, RateDecision};

/// How long a login waits for its line to be written, where it may not go on without.
const RECORD_TIMEOUT: Duration = Duration::from_secs(2);

/// Writes events.
pub struct AuditLog {
    writer: LogWriter,
    on_write_error: OnWriteError,
    /// The rate of events of clients that are not signed in.
    anonymous: Mutex<AnonymousRate>,
    /// Their events that were not written; label `event`.
    suppressed: IntCounterVec,
}

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
    /// Over the admin API, as those that follow.
    SessionsListed,
    SessionsEnded,
    ConfigurationReloaded,
    MaintenanceSet,
    ServerStateSet,
    ApiRefused,
    /// Written instead of further events of clients that are not signed in, for the rest of a minute.
    EventsSuppressed,
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

/// One line of a call of the admin API. Absent parts are left out.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct AdminEntry<'a> {
    pub event: Event,
    /// `token:NAME` or `uid:NUMBER`; none where the caller has not shown who it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<&'a str>,
    /// None for callers on the control socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    pub request_id: &'a str,
    #[serde(flatten)]
    pub subject: &'a Subject,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
}

/// What a call of the admin API was about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Subject {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// All users.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// What it was set to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
}

#[derive(Serialize)]
struct Line<E> {
    time: String,
    #[serde(flatten)]
    entry: E,
}

impl Event {
    /// As it is written, for those that are counted when they are not.
    fn name(self) -> &'static str {
        match self {
            Self::LoginRefused => "login_refused",
            Self::TicketRefused => "ticket_refused",
            Self::LoopBroken => "loop_broken",
            Self::ApiRefused => "api_refused",
            _ => "other",
        }
    }
}

impl AuditLog {
    pub fn new(writer: LogWriter, on_write_error: OnWriteError, suppressed: IntCounterVec) -> Self {
        Self { writer, on_write_error, anonymous: Mutex::default(), suppressed }
    }

    pub fn write(&self, now: UnixTime, entry: Entry<'_>) {
        self.write_line(now, entry);
    }

    /// Whether logins may begin: not while lines are lost, where no user is to work unrecorded.
    pub fn admits_logins(&self) -> bool {
        self.on_write_error == OnWriteError::Count || !self.writer.is_losing_lines()
    }

    /// Writes the line of a login. Returns whether the login may go on; where no user is to work unrecorded, that is when
    /// the line has been written.
    pub async fn record_login(&self, now: UnixTime, entry: Entry<'_>) -> bool {
        if self.on_write_error == OnWriteError::Count {
            self.write(now, entry);
            return true;
        }
        let line = Line { time: now.rfc3339(), entry };
        let Some(written) = self.writer.write_confirmed(&line) else { return false };
        matches!(tokio::time::timeout(RECORD_TIMEOUT, written).await, Ok(Ok(())))
    }

    /// Writes the line of a call of the admin API.
    pub fn write_admin(&self, now: UnixTime, entry: AdminEntry<'_>) {
        self.write_line(now, entry);
    }

    fn write_line(&self, now: UnixTime, entry: impl Serialize) {
        if self.writer.is_on() {
            self.writer.write(&Line { time: now.rfc3339(), entry });
        }
    }

    /// A call of the admin API that every client can make, written as below.
    pub fn write_anonymous_admin(&self, now: UnixTime, entry: AdminEntry<'_>) {
        let (event, request_id, reason) = (entry.event, entry.request_id, entry.reason);
        let client = entry.client.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        self.write_anonymous(now, Entry { event, client, request_id, user: None, host: None, reason });
    }

    /// An event that every client can cause, as often as there are requests: it is written at a bounded rate for each
    /// client and in all, and counted where it is not written.
    pub fn write_anonymous(&self, now: UnixTime, entry: Entry<'_>) {
        let mut rate = self.anonymous.lock().unwrap_or_else(PoisonError::into_inner);
        let share = rate.take(ClientPrefix::of(entry.client), now);
        drop(rate);
        let RateDecision::Suppress { first } = share else { return self.write(now, entry) };
        self.suppressed.with_label_values(&[entry.event.name()]).inc();
        if first {
            log::warn!(
                "audit-log: more events of clients that are not signed in than are written in a minute; the others are counted"
            );
            self.write(
                now,
                Entry { event: Event::EventsSuppressed, user: None, host: None, reason: Some("rate"), ..entry },
            );
        }
    }
}
