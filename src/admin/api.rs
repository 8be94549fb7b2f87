//! The admin API: sessions, pools, reload and status, for clients with a token on the admin listener, and for root and the
//! edge's own user on the control socket.
//!
//! Each call is one count, and one line of the audit log unless it only looks at the edge itself. Cookies mean nothing
//! here, so no web page can act for an operator; a request with an Origin is refused all the same.

mod body;
mod call;
mod pools;
mod response;
mod sessions;
mod token;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use http::request::Parts;
use http::{HeaderMap, Response, header};
use pingora_core::protocols::http::ServerSession;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;

use super::actor::{Actor, Connection};
use super::reload::{ReloadOutcome, ReloadRequests};
use super::status::StatusBoard;
use crate::audit_log::{AdminEntry, AuditLog, Event};
use crate::clock::Clock;
use crate::config::Config;
use crate::maintenance::MaintenanceSwitches;
use crate::metrics::Metrics;
use crate::sessions::SessionStore;
use crate::snapshot::{SharedState, Snapshot};
use crate::upstream::pool_state::PoolStates;
use crate::users::changes::DirectoryChanges;
use crate::users::directory_worker::DirectoryWorker;
use call::Call;
use response::ApiResponse;
use sessions::SessionCalls;
use token::TokenCheck;

pub use token::AdminTokens;

/// Wrong tokens are answered after a delay, and a limited number may wait for that. Others are refused at once, and their
/// connections are closed. That refusal says as well that the token was wrong, so it bounds what guesses cost the edge, and
/// makes each cost a connection; their number is not bounded, and has not to be, as a token has 32 bytes or more. A right
/// token never waits.
const MAX_WRONG_TOKENS: usize = 8;
const WRONG_TOKEN_DELAY: Duration = Duration::from_millis(250);

/// Calls of one kind at once; more are refused, so that probes and scrapers always find the listener free.
const MAX_CALLS: usize = 4;

/// By which a command says what configuration it means, see `config::runtime_dir`.
pub const CONFIGURATION_FIELD: &str = "x-sentry-edge-configuration";

pub struct Api {
    /// Nothing where no token opens the API on the listener. A reload replaces them.
    tokens: Arc<ArcSwapOption<AdminTokens>>,
    sessions: SessionCalls,
    status: Arc<StatusBoard>,
    /// `None` in a process that reloads by other means, such as a test.
    reloads: Option<ReloadRequests>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    store: Arc<dyn SessionStore>,
    users: Arc<DirectoryChanges>,
    maintenance: Arc<MaintenanceSwitches>,
    servers: Arc<PoolStates>,
    clock: Clock,
    audit: Arc<AuditLog>,
    metrics: Arc<Metrics>,
    guesses: Semaphore,
    places: CallPlaces,
}

/// Each kind of call that may take long has places of its own: whatever a help desk lists and ends, there is one for the end
/// of all sessions and for a reload.
struct CallPlaces {
    lists: Semaphore,
    ends: Semaphore,
    ends_of_all: Semaphore,
    reloads: Semaphore,
}

/// What an [`Api`] is made of, beside what the process shares.
pub struct ApiParts {
    pub tokens: Arc<ArcSwapOption<AdminTokens>>,
    pub reloads: Option<ReloadRequests>,
    pub status: Arc<StatusBoard>,
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// A connection to the directory of the API's own.
    pub directory: DirectoryWorker,
}

impl Api {
    pub fn new(parts: ApiParts, config: &Config, shared: &SharedState) -> Self {
        Self {
            tokens: parts.tokens,
            sessions: SessionCalls::new(config, shared, parts.directory),
            status: parts.status,
            reloads: parts.reloads,
            snapshot: parts.snapshot,
            store: Arc::clone(&shared.store),
            users: Arc::clone(&shared.users),
            maintenance: Arc::clone(&shared.maintenance),
            servers: Arc::clone(&shared.servers),
            clock: shared.clock.clone(),
            audit: Arc::clone(&shared.audit),
            metrics: Arc::clone(&shared.metrics),
            guesses: Semaphore::new(MAX_WRONG_TOKENS),
            places: CallPlaces::new(),
        }
    }

    pub async fn respond(&self, session: &mut ServerSession, connection: Connection) -> Response<Vec<u8>> {
        let head = session.req_header().as_owned_parts();
        let (actor, response) = match self.admit(&head, connection).await {
            Ok(actor) => {
                let response = self.respond_to(session, &head, &actor).await;
                (Some(actor), response)
            }
            Err((actor, refusal)) => {
                if refusal.result == response::TOO_MANY_GUESSES {
                    session.set_keepalive(None);
                }
                (actor, refusal)
            }
        };
        self.record(response, actor.as_deref(), connection.client())
    }

    /// Refuses a process of another user, whose request is not read.
    pub fn refuse_user(&self, uid: u32) -> Response<Vec<u8>> {
        self.record(ApiResponse::wrong_user(), Some(&Actor::process(uid)), None)
    }

    /// Finds out who calls, before anything of the call is looked at. A refusal is with its caller, where that is known.
    async fn admit(
        &self,
        head: &Parts,
        connection: Connection,
    ) -> Result<Arc<Actor>, (Option<Arc<Actor>>, ApiResponse)> {
        if let Connection::ControlSocket { uid } = connection {
            let actor = Arc::new(Actor::process(uid));
            let id = head.headers.get(CONFIGURATION_FIELD);
            if id.is_some_and(|id| !self.status.is_of(id.as_bytes())) {
                let refusal = ApiResponse::wrong_configuration(&self.status.file().display().to_string());
                return Err((Some(actor), refusal));
            }
            return Ok(actor);
        }
        let anonymous = |refusal| Err((None, refusal));
        let Some(tokens) = self.tokens.load_full() else { return anonymous(ApiResponse::off()) };
        if head.headers.contains_key(header::ORIGIN) {
            return anonymous(ApiResponse::from_web_page());
        }
        match tokens.check(&head.headers) {
            TokenCheck::Valid(actor) => Ok(actor),
            TokenCheck::Missing => anonymous(ApiResponse::no_token()),
            TokenCheck::Invalid => anonymous(self.wrong_token().await),
        }
    }

    async fn wrong_token(&self) -> ApiResponse {
        let Ok(_place) = self.guesses.try_acquire() else { return ApiResponse::too_many_guesses() };
        tokio::time::sleep(WRONG_TOKEN_DELAY).await;
        ApiResponse::wrong_token()
    }

    async fn respond_to(&self, session: &mut ServerSession, head: &Parts, actor: &Actor) -> ApiResponse {
        let call = match Call::read(&head.method, head.uri.path(), head.uri.query()) {
            Ok(call) => call,
            Err(why) => return ApiResponse::bad_call(why),
        };
        if !call.is_open_to(actor.role) {
            return ApiResponse::wrong_role();
        }
        if !call.takes_body() && has_body(&head.headers) {
            return ApiResponse::bad_request("this call has no body; use the query");
        }
        let body = match body::read(session, &head.headers).await {
            Ok(body) => body,
            Err(refusal) => return refusal,
        };
        self.run(call, &body).await
    }

    async fn run(&self, call: Call, body: &[u8]) -> ApiResponse {
        let Ok(_place) = self.places.of(&call).map(Semaphore::try_acquire).transpose() else {
            return ApiResponse::too_many_calls();
        };
        match call {
            Call::ListSessions { user, limit } => self.sessions.list(user, limit).await,
            Call::EndSessions { user } => self.sessions.end(user).await,
            Call::EndAllSessions => self.sessions.end_all().await,
            Call::ListPools => pools::list(&self.snapshot.load(), &self.servers, self.clock.now()),
            Call::SetServerState { pool, server } => {
                pools::set_state(&self.snapshot.load(), &self.servers, (&pool, &server), body)
            }
            Call::SetMaintenance { service } => self.set_maintenance(&service, body),
            Call::Reload => match body::is_empty(body) {
                true => self.reload().await,
                false => ApiResponse::bad_request("a reload has no settings: send no body, or {}"),
            },
            Call::Status => self.status().await,
        }
    }

    fn set_maintenance(&self, service: &str, body: &[u8]) -> ApiResponse {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Switch {
            on: bool,
        }
        let Some(Switch { on }) = body::parse(body) else {
            return ApiResponse::bad_request("the body is {\"on\": true} or {\"on\": false}");
        };
        match self.maintenance.set(service, on) {
            Some(state) => ApiResponse::maintenance_set(service, on, state),
            None => ApiResponse::unknown_service(service),
        }
    }

    async fn reload(&self) -> ApiResponse {
        let outcome = match &self.reloads {
            Some(reloads) => reloads.reload().await,
            None => ReloadOutcome::Failed("this process takes no requests for a reload".into()),
        };
        ApiResponse::reload(&outcome)
    }

    async fn status(&self) -> ApiResponse {
        let mut body = self.status.as_json(self.clock.now());
        let snapshot = self.snapshot.load_full();
        let pools = snapshot.pools.iter().map(|pool| {
            let servers: Vec<&str> = pool.config.servers.iter().map(|server| server.name.as_str()).collect();
            json!({ "name": pool.config.name, "servers": servers })
        });
        body["pools"] = pools.collect();
        let store = self.store.ping().await;
        body["session_store"] = json!(store.map_or_else(|error| error.to_string(), |()| "ok".into()));
        body["user_directory"] = json!(self.users.fault().map_or_else(|| "ok".into(), |why| why.to_string()));
        ApiResponse::status(body)
    }

    /// Counts a response, and writes its line of the audit log.
    fn record(&self, response: ApiResponse, actor: Option<&Actor>, client: Option<IpAddr>) -> Response<Vec<u8>> {
        self.metrics.operation.admin_api_requests.with_label_values(&[response.result]).inc();
        let request_id = uuid::Uuid::new_v4().to_string();
        if let Some(event) = response.event {
            let entry = AdminEntry {
                event,
                actor: actor.map(|actor| &*actor.name),
                client,
                request_id: &request_id,
                subject: &response.subject,
                reason: (response.result != response::OK).then_some(response.result),
            };
            match (event, actor) {
                // Every client that reaches the listener can cause this event.
                (Event::ApiRefused, None) => self.audit.write_anonymous_admin(self.clock.now(), entry),
                _ => self.audit.write_admin(self.clock.now(), entry),
            }
        }
        response.into_response(&request_id)
    }
}

impl CallPlaces {
    fn new() -> Self {
        let places = || Semaphore::new(MAX_CALLS);
        Self { lists: places(), ends: places(), ends_of_all: places(), reloads: places() }
    }

    /// `None` for a call that waits for nothing.
    fn of(&self, call: &Call) -> Option<&Semaphore> {
        match call {
            Call::ListSessions { .. } => Some(&self.lists),
            Call::EndSessions { .. } => Some(&self.ends),
            Call::EndAllSessions => Some(&self.ends_of_all),
            Call::Reload => Some(&self.reloads),
            Call::ListPools | Call::SetServerState { .. } | Call::SetMaintenance { .. } | Call::Status => None,
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

/// The response where there is no API at all.
pub fn off() -> Response<Vec<u8>> {
    ApiResponse::off().into_response(&uuid::Uuid::new_v4().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::users::UserName;

    #[test]
    fn no_kind_of_call_takes_the_places_of_another() {
        let user = || UserName::parse("ada").unwrap();
        let calls = [
            Call::ListSessions { user: None, limit: 1 },
            Call::EndSessions { user: user() },
            Call::EndAllSessions,
            Call::Reload,
        ];
        for taken in &calls {
            let places = CallPlaces::new();
            let of = |call: &Call| places.of(call).unwrap().try_acquire();
            let _all: Vec<_> = (0..MAX_CALLS).map(|_| of(taken).unwrap()).collect();
            assert!(of(taken).is_err());
            for other in calls.iter().filter(|call| *call != taken) {
                assert!(of(other).is_ok(), "{taken:?} and {other:?}");
            }
            assert!(places.of(&Call::Status).is_none(), "a look at the status is always possible");
        }
    }
}
