//! `session list`: the sessions in the store that the edges share, or in the memory of the running edge.

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use serde_json::Value;

use crate::admin::session_list::{SessionView, session_views};
use crate::cli::control_client::{CallError, ControlClient};
use crate::cli::output::printable;
use crate::cli::user::open_registry;
use crate::cli::{ConfigFile, Failure, output};
use crate::clock::{Clock, UnixTime};
use crate::config::{Config, Sessions};
use crate::metrics::Metrics;
use crate::server::session_store;
use crate::sessions::{Listing, StoreError};
use crate::users::UserName;

/// Sessions in one response of an edge.
const EDGE_LIMIT: u32 = 10_000;

#[derive(Args)]
pub struct List {
    /// Only the sessions of this user.
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    user: Option<String>,
    /// The sessions of all users, which is the default.
    #[arg(long)]
    all: bool,
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
        match &config.sessions {
            sessions if sessions.is_shared() => {}
            Sessions::Memory { .. } => return self.list_of_edge(name.as_ref(), file, &config),
            _ => return Err(Failure::Failed("sessions.store is `none`: no sessions are kept anywhere".into())),
        }
        let user = name.as_ref().map(|name| registry.show(name)).transpose()?;
        let listing = read_store(&config, user.as_ref().map(|user| user.id.as_str()), self.limit as usize)?;
        let sessions = session_views(listing.sessions, &*registry)?;
        let sessions: Vec<Value> = sessions.iter().map(SessionView::as_json).collect();
        self.print(&sessions, listing.truncated, listing.unreadable as u64)?;
        reached_all(&listing.unreachable)
    }

    /// Lists what the running edge has in its memory, where no other process can read it.
    fn list_of_edge(&self, user: Option<&UserName>, file: &ConfigFile, config: &Config) -> Result<(), Failure> {
        let limit = self.limit.min(EDGE_LIMIT);
        let mut query = url::form_urlencoded::Serializer::new(format!("limit={limit}"));
        if let Some(user) = user {
            query.append_pair("user", user.as_str());
        }
        let reply = match ControlClient::of(file)?.call("GET", &format!("/api/sessions?{}", query.finish()), None) {
            Ok(reply) => reply,
            Err(CallError::NoEdge(text)) => {
                let admin = config.server.admin.address;
                return Err(Failure::Failed(format!(
                    "sessions.store is `memory`: only the edge has its sessions. Its admin API has them as well, with \
                     one of server.admin.tokens: http://{admin}/api/sessions\n{text}"
                )));
            }
            Err(error) => return Err(error.into()),
        };
        match reply.body["sessions"].as_array() {
            Some(sessions) => {
                let unreadable = reply.body["unreadable"].as_u64().unwrap_or_default();
                self.print(sessions, reply.body["truncated"] == true, unreadable)
            }
            None => Err(Failure::because(reply.message())),
        }
    }

    fn print(&self, sessions: &[Value], truncated: bool, unreadable: u64) -> Result<(), Failure> {
        output::printed(print(sessions, self.json, Clock::default().now()))?;
        if truncated {
            output::note(format_args!("there are more than {}; --limit lists more", sessions.len()));
        }
        if unreadable > 0 {
            output::note(format_args!(
                "{unreadable} under keys of sessions could not be read and are not listed: no record of this version"
            ));
        }
        Ok(())
    }
}

fn read_store(config: &Config, user: Option<&str>, limit: usize) -> Result<Listing, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::because)?;
    let metrics = Metrics::new("session-list").map_err(Failure::because)?;
    let store = session_store(&config.sessions, &Clock::default(), &metrics).map_err(Failure::because)?;
    Ok(runtime.block_on(store.sessions.list(user, limit)))
}

fn print(sessions: &[Value], json: bool, now: UnixTime) -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for session in sessions {
        match json {
            true => writeln!(out, "{session}")?,
            false => write!(out, "{}", readable(session, now))?,
        }
    }
    out.flush()
}

/// Returns a session, as [`SessionView::as_json`] has it, for people. Any process that reaches the store may have written
/// its record.
fn readable(session: &Value, now: UnixTime) -> String {
    let text = |key: &str| session[key].as_str().unwrap_or_default();
    let name = session["user"].as_str().unwrap_or("(a user that is not in the directory)");
    let ended = session["ended"].as_str().map(|ended| format!("  ({ended})")).unwrap_or_default();
    let idles_out = text("idle_expires_at");
    let left = humantime::parse_rfc3339(idles_out).ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let left = left.unwrap_or_default().saturating_sub(Duration::from_millis(now.millis()));
    let left = humantime::format_duration(Duration::from_secs(left.as_secs()));
    let servers: Vec<&str> = session["servers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let lines = [
        ("user id", text("user_id").to_owned()),
        ("created", text("created").to_owned()),
        ("last access", text("last_accessed").to_owned()),
        ("idles out", format!("{idles_out} (in {left})")),
        ("ends", text("expires").to_owned()),
        ("on", servers.join(", ")),
        ("key", text("key").to_owned()),
    ];
    let lines: String = lines.iter().map(|(what, value)| format!("  {what:<12} {}\n", printable(value))).collect();
    format!("{}{ended}\n{lines}", printable(name))
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
        let view = SessionView { session, name: ada, revocation: Some(Revocation::Disabled) };
        let text = readable(&view.as_json(), created);
        let wanted = format!(
            "ada  (disabled)\n  user id      7\\u{{1b}}[2J\n  created      2023-11-14T22:13:20.123Z\n  \
             last access  2023-11-14T22:14:20.123Z\n  idles out    2023-11-14T22:44:20.123Z (in 31m)\n  \
             ends         2023-11-15T10:13:20.123Z\n  on           10.0.0.1:11211, 10.0.0.2:11211\n  key          {}\n",
            key.as_str()
        );
        assert_eq!(text, wanted);
    }
}
