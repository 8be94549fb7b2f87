//! The API's calls about sessions: what the store lists, and what ends them on every edge.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::call::MOST_SESSIONS;
use super::response::ApiResponse;
use crate::admin::deadlines;
use crate::admin::session_list::{SessionView, session_views, unreachable_as_json};
use crate::clock::UnixTime;
use crate::config::Config;
use crate::sessions::{Listing, SessionStore, StoreError};
use crate::snapshot::SharedState;
use crate::users::directory_worker::DirectoryWorker;
use crate::users::{DirectoryError, UserName, UserRegistry};

/// Sessions of a user that are looked up before they are ended.
const END_BATCH: usize = 1000;
/// How many of them are ended concurrently: requests use the same queue.
const CONCURRENT_ENDS: usize = 8;
/// Clocks of stores tick in seconds, and those of other edges may be behind.
const CLOCK_MARGIN: Duration = Duration::from_secs(60);

/// What a failure of no single server is reported under.
const STORE: &str = "session store";

pub struct SessionCalls {
    store: Arc<dyn SessionStore>,
    /// False with `sessions.store: none`.
    are_kept: bool,
    users: DirectoryWorker,
    /// How soon every edge reads what the directory says.
    refresh: Duration,
    /// How long after a session's end a token of it may still be accepted.
    margin: Duration,
    turns: Turns,
}

/// One look through the store of each kind at a time, as each holds up to [`MOST_SESSIONS`] in memory. What a help desk may
/// do again and again delays no end of all sessions.
#[derive(Default)]
struct Turns {
    list: Mutex<()>,
    end: Mutex<()>,
    end_all: Mutex<()>,
}

/// What the store has ended, and the servers that could not be reached.
#[derive(Default)]
struct Ended {
    count: usize,
    failures: Vec<(String, StoreError)>,
}

impl SessionCalls {
    pub fn new(config: &Config, shared: &SharedState, users: DirectoryWorker) -> Self {
        Self {
            store: Arc::clone(&shared.store),
            are_kept: shared.sessions_are_checked,
            users,
            refresh: config.users.refresh,
            margin: config.sentry.token.leeway + CLOCK_MARGIN,
            turns: Turns::default(),
        }
    }

    pub async fn list(&self, user: Option<UserName>, limit: usize) -> ApiResponse {
        if !self.are_kept {
            return ApiResponse::no_sessions_kept();
        }
        let id = match &user {
            None => None,
            Some(name) => {
                let name_sought = name.clone();
                match self.users.run(move |registry| registry.show(&name_sought)).await {
                    Ok(found) => Some(found.id),
                    Err(error) => return ApiResponse::directory(user, &error),
                }
            }
        };
        let listing = self.list_store(&self.turns.list, id.as_ref().map(|id| id.as_str()), limit).await;
        let (truncated, unreadable, unreachable) = (listing.truncated, listing.unreadable, listing.unreachable);
        // Thousands of sessions take some milliseconds to write down.
        let written = move |registry: &dyn UserRegistry| {
            let sessions: Vec<_> =
                session_views(listing.sessions, registry)?.iter().map(SessionView::as_json).collect();
            let whole = unreachable.is_empty();
            let unreachable = unreachable_as_json(&unreachable);
            let body = json!({
                "sessions": sessions, "truncated": truncated, "unreachable": unreachable, "unreadable": unreadable,
            });
            Ok((body, whole))
        };
        match self.users.run(written).await {
            Ok((body, whole)) => ApiResponse::listed(user, body, whole),
            Err(error) => ApiResponse::directory(user, &error),
        }
    }

    /// Lists the store, with a time limit.
    async fn list_store(&self, turn: &Mutex<()>, user: Option<&str>, limit: usize) -> Listing {
        let look = async {
            let _one_at_a_time = turn.lock().await;
            self.store.list(user, limit).await
        };
        tokio::time::timeout(deadlines::LIST, look).await.unwrap_or_else(|_| Listing {
            unreachable: vec![(STORE.into(), StoreError::TimedOut)],
            ..Listing::default()
        })
    }

    /// Ends every session of a user. The directory is updated first: that holds on every edge, whatever becomes of the
    /// store.
    pub async fn end(&self, name: UserName) -> ApiResponse {
        let name_sought = name.clone();
        let user = self.users.run(move |registry| {
            registry.end_sessions(&name_sought)?;
            let id = registry.show(&name_sought)?.id;
            let state = registry.known(&[id.as_str()])?.pop();
            state.map(|(_, state)| state).ok_or(DirectoryError::NoSuchUser(name_sought))
        });
        match user.await {
            Ok(user) => {
                let ended = self.end_in_store(Some(user.id.as_str()), user.ended_before, END_BATCH).await;
                self.ended(Some(name), ended)
            }
            Err(error) => ApiResponse::directory(Some(name), &error),
        }
    }

    /// Ends every session of every user, in the same order.
    pub async fn end_all(&self) -> ApiResponse {
        match self.users.run(|registry| registry.end_all_sessions()).await {
            Ok(until) => {
                let ended = self.end_in_store(None, until, MOST_SESSIONS).await;
                self.ended(None, ended)
            }
            Err(error) => ApiResponse::directory(None, &error),
        }
    }

    fn ended(&self, user: Option<UserName>, ended: Ended) -> ApiResponse {
        let within = humantime::format_duration(self.refresh).to_string();
        let count = (self.are_kept && (ended.count > 0 || ended.failures.is_empty())).then_some(ended.count);
        ApiResponse::ended(user, count, &within, &ended.failures)
    }

    /// Ends in the store the sessions that the directory has just ended, of one user or of all, and none that has begun
    /// since. `batch` of them are looked up at once.
    async fn end_in_store(&self, user: Option<&str>, ended_before: UnixTime, batch: usize) -> Ended {
        let deadline = Instant::now() + deadlines::END;
        let mut all = Ended::default();
        let mut are_more = self.are_kept;
        while are_more {
            let turn = self.end_batch(user, ended_before, batch, &mut all);
            are_more = tokio::time::timeout_at(deadline, turn).await.unwrap_or_else(|_| {
                all.failures.push((STORE.into(), StoreError::TimedOut));
                false
            });
        }
        all.failures.sort_by(|(a, _), (b, _)| a.cmp(b));
        all.failures.dedup_by(|(a, _), (b, _)| a == b);
        all
    }

    /// Returns whether there may be more.
    async fn end_batch(&self, user: Option<&str>, ended_before: UnixTime, batch: usize, all: &mut Ended) -> bool {
        let turn = if user.is_some() { &self.turns.end } else { &self.turns.end_all };
        let Listing { sessions, unreachable, truncated, .. } = self.list_store(turn, user, batch).await;
        all.failures.extend(unreachable);
        let over = sessions.into_iter().filter(|session| session.record.created <= ended_before);
        let orders = over.map(|session| async move {
            let until: UnixTime = session.record.expires.plus(self.margin);
            self.store.end(&session.key, until).await
        });
        let mut outcomes = stream::iter(orders).buffer_unordered(CONCURRENT_ENDS);
        let before = all.count;
        while let Some(outcome) = outcomes.next().await {
            match outcome {
                Ok(()) => all.count += 1,
                Err(error) if all.failures.iter().all(|(named, _)| named != STORE) => {
                    all.failures.push((STORE.into(), error));
                }
                Err(_) => {}
            }
        }
        truncated && all.count > before
    }
}
