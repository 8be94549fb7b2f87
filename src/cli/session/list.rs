//! `session list`: the sessions in the store that the edges share.

use std::io::Write;
use std::time::Duration;

use clap::Args;

use crate::admin::session_list::{SessionView, session_views};
use crate::cli::user::open_registry;
use crate::cli::{ConfigFile, Failure, output};
use crate::clock::{Clock, UnixTime};
use crate::config::{Config, Sessions};
use crate::metrics::Metrics;
use crate::server::session_store;
use crate::sessions::{Listing, StoreError};
use crate::users::UserName;

#[derive(Args)]
pub struct List {
    /// Only the sessions of this user.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// List at most so many sessions; a note on standard error says when there are more.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    limit: u32,
}

impl List {
    pub fn run(self, file: &ConfigFile) -> Result<(), Failure> {
        let name = self.user.as_deref().map(UserName::parse).transpose().map_err(Failure::because)?;
        let (registry, config) = open_registry(file, false)?;
        must_be_shared(&config)?;
        let user = name.as_ref().map(|name| registry.show(name)).transpose()?;
        let listing = read_store(&config, user.as_ref().map(|user| user.id.as_str()), self.limit as usize)?;
        let sessions = session_views(listing.sessions, &*registry)?;
        output::printed(print(&sessions, self.json, Clock::default().now()))?;
        if listing.truncated {
            output::note(format_args!("there are more than {}; --limit lists more", self.limit));
        }
        if listing.unreadable > 0 {
            let count = listing.unreadable;
            output::note(format_args!(
                "{count} under keys of sessions could not be read and are not listed: no record of this version"
            ));
        }
        reached_all(&listing.unreachable)
    }
}

/// Fails unless the store is shared: the sessions in an edge's memory cannot be read by another process.
fn must_be_shared(config: &Config) -> Result<(), Failure> {
    let admin = config.server.admin.address;
    match &config.sessions {
        sessions if sessions.is_shared() => Ok(()),
        Sessions::Memory { .. } => Err(Failure::Failed(format!(
            "sessions.store is `memory`: only the edge has its sessions. Use its admin API, with server.admin.token:\n\
             curl -H \"Authorization: Bearer $TOKEN\" http://{admin}/api/sessions"
        ))),
        _ => Err(Failure::Failed("sessions.store is `none`: no sessions are kept anywhere".into())),
    }
}

fn read_store(config: &Config, user: Option<&str>, limit: usize) -> Result<Listing, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::because)?;
    let metrics = Metrics::new("session-list").map_err(Failure::because)?;
    let store = session_store(&config.sessions, &Clock::default(), &metrics).map_err(Failure::because)?;
    Ok(runtime.block_on(store.sessions.list(user, limit)))
}

fn print(sessions: &[SessionView], json: bool, now: UnixTime) -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for session in sessions {
        match json {
            true => writeln!(out, "{}", session.as_json())?,
            false => write!(out, "{}", readable(session, now))?,
        }
    }
    out.flush()
}

fn readable(view: &SessionView, now: UnixTime) -> String {
    let session = &view.session;
    let name = view.name.as_ref().map_or("(a user that is not in the directory)", UserName::as_str);
    let ended = view.revocation.map(|ended| format!("  ({})", ended.as_str())).unwrap_or_default();
    let left = Duration::from_secs(session.idle_expires_at.since(now).as_secs());
    let lines = [
        ("user id", session.record.user.clone()),
        ("created", session.record.created.rfc3339()),
        ("last access", session.record.last_accessed.rfc3339()),
        ("idles out", format!("{} (in {})", session.idle_expires_at.rfc3339(), humantime::format_duration(left))),
        ("ends", session.record.expires.rfc3339()),
        ("on", session.servers.join(", ")),
        ("key", session.key.as_str().to_owned()),
    ];
    let lines: String = lines.iter().map(|(what, value)| format!("  {what:<12} {}\n", printable(value))).collect();
    format!("{}{ended}\n{lines}", printable(name))
}

/// Escapes control characters: any process that reaches the store may have written a record, which must not send control
/// sequences to the terminal.
fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// Fails if servers could not be reached, though the sessions of the others were printed.
fn reached_all(unreachable: &[(String, StoreError)]) -> Result<(), Failure> {
    if unreachable.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> =
        unreachable.iter().map(|(server, error)| format!("sessions.memcached: {server}: {error}")).collect();
    Err(Failure::Failed(format!("{}\nsessions that only these servers have are not listed", lines.join("\n"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::session_list::Revocation;
    use crate::sessions::{Fingerprint, Listed, SessionId, SessionRecord};

    #[test]
    fn a_session_is_printed_without_control_sequences() {
        let created = UnixTime::from_millis(1_700_000_000_123);
        let record = SessionRecord {
            user: "7\u{1b}[2J".to_owned(),
            created,
            last_accessed: created.plus(Duration::from_secs(60)),
            idle_timeout: Duration::from_secs(1800),
            fingerprint: Fingerprint::new([7; 16]),
            expires: created.plus(Duration::from_secs(43_200)),
        };
        let key = SessionId::random().unwrap().key();
        let idle_expires_at = created.plus(Duration::from_secs(1860));
        let servers = vec!["10.0.0.1:11211".to_owned(), "10.0.0.2:11211".to_owned()];
        let session = Listed { key: key.clone(), record, idle_expires_at, servers };
        let ada = UserName::parse("ada").ok();
        let text = readable(&SessionView { session, name: ada, revocation: Some(Revocation::Disabled) }, created);
        let wanted = format!(
            "ada  (disabled)\n  user id      7\\u{{1b}}[2J\n  created      2023-11-14T22:13:20.123Z\n  \
             last access  2023-11-14T22:14:20.123Z\n  idles out    2023-11-14T22:44:20.123Z (in 31m)\n  \
             ends         2023-11-15T10:13:20.123Z\n  on           10.0.0.1:11211, 10.0.0.2:11211\n  key          {}\n",
            key.as_str()
        );
        assert_eq!(text, wanted);
    }
}
