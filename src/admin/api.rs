//! The admin API on the admin listener: `GET` and `DELETE /api/sessions`, for clients that send the configured token.
//!
//! Each call is one line of the audit log and one count. A body is never read. Cookies mean nothing here, so no web
//! page can act for an operator; a request with an Origin is refused all the same.

mod call;
mod response;
mod token;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use http::request::Parts;
use http::{HeaderMap, Response, header};
use serde_json::json;
use tokio::sync::{Mutex, Semaphore};

use super::session_list::{SessionView, session_views, unreachable_as_json};
use crate::audit_log::{AuditLog, Entry, Event};
use crate::clock::{Clock, UnixTime};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::sessions::{Listing, SessionStore, StoreError};
use crate::snapshot::SharedState;
use crate::users::directory_worker::DirectoryWorker;
use crate::users::{DirectoryError, UserName, UserRegistry, UserState};
use call::Call;
use response::ApiResponse;
use token::TokenCheck;

pub use token::AdminToken;

/// Wrong tokens are answered after a delay, and a limited number may wait for that; others are refused at once. That
/// allows 32 guesses a second, whatever the number of clients that guess. The right token never waits.
const MAX_WRONG_TOKENS: usize = 8;
const WRONG_TOKEN_DELAY: Duration = Duration::from_millis(250);

/// Calls at once; more are refused, so that probes and scrapers always find the listener free.
const MAX_CALLS: usize = 4;
/// The time limit to list the store, including the wait for another listing.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);

/// Sessions of a user that are looked up before they are ended.
const END_BATCH: usize = 1000;
/// How many of them are ended concurrently: requests use the same queue.
const CONCURRENT_ENDS: usize = 8;
/// Clocks of stores tick in seconds, and those of other edges may be behind.
const CLOCK_MARGIN: Duration = Duration::from_secs(60);

pub struct Api {
    token: AdminToken,
    store: Arc<dyn SessionStore>,
    /// False with `sessions.store: none`.
    sessions_are_kept: bool,
    users: DirectoryWorker,
    /// How soon every edge reads what the directory says.
    refresh: Duration,
    /// How long after a session's end a token of it may still be accepted.
    margin: Duration,
    clock: Clock,
    audit: Arc<AuditLog>,
    metrics: Arc<Metrics>,
    guesses: Semaphore,
    calls: Semaphore,
    /// One look through the store at a time: each holds up to [`call::MOST_SESSIONS`] in memory.
    listing: Mutex<()>,
}

impl Api {
    pub fn new(token: AdminToken, config: &Config, shared: &SharedState, users: DirectoryWorker) -> Self {
        Self {
            token,
            store: Arc::clone(&shared.store),
            sessions_are_kept: shared.sessions_are_checked,
            users,
            refresh: config.users.refresh,
            margin: config.sentry.token.leeway + CLOCK_MARGIN,
            clock: shared.clock.clone(),
            audit: Arc::clone(&shared.audit),
            metrics: Arc::clone(&shared.metrics),
            guesses: Semaphore::new(MAX_WRONG_TOKENS),
            calls: Semaphore::new(MAX_CALLS),
            listing: Mutex::new(()),
        }
    }

    pub async fn respond(&self, request: &Parts, client: Option<IpAddr>) -> Response<Vec<u8>> {
        let response = match self.admit(request).await {
            Ok(call) => match self.calls.try_acquire() {
                Ok(_place) => self.run(call).await,
                Err(_) => ApiResponse::too_many_calls(),
            },
            Err(refusal) => refusal,
        };
        self.metrics.operation.admin_api_requests.with_label_values(&[response.result]).inc();
        let request_id = uuid::Uuid::new_v4().to_string();
        let entry = Entry {
            event: response.event,
            client: client.unwrap_or(IpAddr::from([0, 0, 0, 0])),
            request_id: &request_id,
            user: response.user.as_ref().map(UserName::as_str),
            host: None,
            reason: (response.result != response::OK).then_some(response.result),
        };
        match response.event {
            // Every client that reaches the listener can cause this event.
            Event::ApiRefused => self.audit.write_anonymous(self.clock.now(), entry),
            _ => self.audit.write(self.clock.now(), entry),
        }
        response.into_response(Some(&request_id))
    }

    /// Checks the token first, and then reads the call.
    async fn admit(&self, request: &Parts) -> Result<Call, ApiResponse> {
        if request.headers.contains_key(header::ORIGIN) {
            return Err(ApiResponse::from_web_page());
        }
        match self.token.check(&request.headers) {
            TokenCheck::Valid => {}
            TokenCheck::Missing => return Err(ApiResponse::no_token()),
            TokenCheck::Invalid => return Err(self.wrong_token().await),
        }
        if has_body(&request.headers) {
            return Err(ApiResponse::bad_request("a body is not read here; use the query"));
        }
        Call::read(&request.method, request.uri.path(), request.uri.query()).map_err(ApiResponse::bad_call)
    }

    async fn wrong_token(&self) -> ApiResponse {
        let Ok(_place) = self.guesses.try_acquire() else { return ApiResponse::too_many_guesses() };
        tokio::time::sleep(WRONG_TOKEN_DELAY).await;
        ApiResponse::wrong_token()
    }

    async fn run(&self, call: Call) -> ApiResponse {
        match call {
            Call::List { .. } if !self.sessions_are_kept => ApiResponse::no_sessions_kept(),
            Call::List { user, limit } => self.list(user, limit).await,
            Call::End { user } => self.end(user).await,
        }
    }

    async fn list(&self, user: Option<UserName>, limit: usize) -> ApiResponse {
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
        let listing = self.list_store(id.as_ref().map(|id| id.as_str()), limit).await;
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

    /// Lists the store: one listing at a time, with a time limit.
    async fn list_store(&self, user: Option<&str>, limit: usize) -> Listing {
        let look = async {
            let _one_at_a_time = self.listing.lock().await;
            self.store.list(user, limit).await
        };
        tokio::time::timeout(LIST_TIMEOUT, look).await.unwrap_or_else(|_| Listing {
            unreachable: vec![("session store".into(), StoreError::TimedOut)],
            ..Listing::default()
        })
    }

    /// The directory is updated first: that holds on every edge, whatever becomes of the store.
    async fn end(&self, name: UserName) -> ApiResponse {
        let name_sought = name.clone();
        let user = self.users.run(move |registry| {
            registry.end_sessions(&name_sought)?;
            let id = registry.show(&name_sought)?.id;
            let state = registry.known(&[id.as_str()])?.pop();
            state.map(|(_, state)| state).ok_or(DirectoryError::NoSuchUser(name_sought))
        });
        let user = match user.await {
            Ok(state) => state,
            Err(error) => return ApiResponse::directory(Some(name), &error),
        };
        let within = humantime::format_duration(self.refresh).to_string();
        if !self.sessions_are_kept {
            return ApiResponse::ended(name, None, &within, &[]);
        }
        let (ended, failures) = self.end_in_store(&user).await;
        ApiResponse::ended(name, (ended > 0 || failures.is_empty()).then_some(ended), &within, &failures)
    }

    /// Ends in the store the sessions that the directory has just ended, and none that has begun since. Returns how
    /// many, and the servers that could not be reached.
    async fn end_in_store(&self, user: &UserState) -> (usize, Vec<(String, StoreError)>) {
        let (mut ended, mut failures) = (0, Vec::new());
        loop {
            let Listing { sessions, unreachable, truncated, .. } =
                self.list_store(Some(user.id.as_str()), END_BATCH).await;
            failures.extend(unreachable);
            let over = sessions.into_iter().filter(|session| session.record.created <= user.ended_before);
            let orders = over.map(|session| async move {
                let until: UnixTime = session.record.expires.plus(self.margin);
                self.store.end(&session.key, until).await
            });
            let outcomes: Vec<_> = stream::iter(orders).buffer_unordered(CONCURRENT_ENDS).collect().await;
            let done = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
            ended += done;
            if let Some(error) = outcomes.into_iter().find_map(Result::err) {
                failures.push(("session store".into(), error));
            }
            if !truncated || done == 0 {
                failures.sort_by(|(a, _), (b, _)| a.cmp(b));
                failures.dedup_by(|(a, _), (b, _)| a == b);
                return (ended, failures);
            }
        }
    }
}

/// Returns whether a request announces a body that is not empty.
pub fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    headers.contains_key(header::TRANSFER_ENCODING) || length.is_some_and(|length| length != "0")
}

/// Returns whether a path belongs to the API.
pub fn is_under(path: &str) -> bool {
    path == "/api" || path.starts_with("/api/")
}

/// The response where no token is configured.
pub fn off() -> Response<Vec<u8>> {
    ApiResponse::off().into_response(None)
}
