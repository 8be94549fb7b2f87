//! Responses of the admin API: a status, JSON, and what the audit log and the metrics record. Every response has its
//! constructor here.

use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use super::call::BadCall;
use crate::admin::reload::ReloadOutcome;
use crate::admin::session_list::unreachable_as_json;
use crate::audit_log::{Event, Subject};
use crate::maintenance::MaintenanceState;
use crate::sessions::StoreError;
use crate::users::{DirectoryError, UserName};

/// The `result` of a call that was executed in full.
pub const OK: &str = "ok";
/// The `result` of a call that reached only some of the store's servers, or none.
const INCOMPLETE: &str = "incomplete";
/// The `result` of a wrong token that was refused at once.
pub const TOO_MANY_GUESSES: &str = "too_many_guesses";

pub struct ApiResponse {
    status: StatusCode,
    body: Value,
    field: Option<(HeaderName, &'static str)>,
    /// `None` for what only looks at the edge itself, which scripts do again and again.
    pub event: Option<Event>,
    /// The label of the metric and, unless it is [`OK`], the audit log's `reason`.
    pub result: &'static str,
    /// What was changed, or looked at.
    pub subject: Subject,
}

impl ApiResponse {
    fn refused(status: StatusCode, result: &'static str, message: &str) -> Self {
        let body = json!({ "error": result, "message": message });
        let subject = Subject::default();
        Self { status, body, field: None, event: Some(Event::ApiRefused), result, subject }
    }

    fn done(event: Option<Event>, body: Value) -> Self {
        Self { status: StatusCode::OK, body, field: None, event, result: OK, subject: Subject::default() }
    }

    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.field = Some((name, value));
        self
    }

    fn about(mut self, user: Option<UserName>) -> Self {
        self.subject.user = user.map(|user| user.as_str().to_owned());
        self
    }

    pub fn off() -> Self {
        let message = "set server.admin.tokens to have the admin API here; commands use the control socket";
        Self::refused(StatusCode::NOT_FOUND, "api_off", message)
    }

    pub fn from_web_page() -> Self {
        Self::refused(StatusCode::FORBIDDEN, "origin", "requests of web pages are refused here")
    }

    pub fn no_token() -> Self {
        let refused = Self::refused(StatusCode::UNAUTHORIZED, "no_token", "send `Authorization: Bearer TOKEN`");
        refused.with(header::WWW_AUTHENTICATE, "Bearer realm=\"sentry-edge admin\"")
    }

    pub fn wrong_token() -> Self {
        let message = "this is none of server.admin.tokens";
        let refused = Self::refused(StatusCode::UNAUTHORIZED, "wrong_token", message);
        refused.with(header::WWW_AUTHENTICATE, "Bearer realm=\"sentry-edge admin\", error=\"invalid_token\"")
    }

    /// The call is not open to the role of the caller's token.
    pub fn wrong_role() -> Self {
        Self::refused(StatusCode::FORBIDDEN, "wrong_role", "the role of this token does not allow this call")
    }

    /// A process of another user has opened the control socket.
    pub fn wrong_user() -> Self {
        let message = "the control socket is for root and for the user that the edge runs as";
        Self::refused(StatusCode::FORBIDDEN, "wrong_user", message)
    }

    /// A command means another configuration than that of the edge which has this socket.
    pub fn wrong_configuration(file: &str) -> Self {
        let message = format!("this edge runs with another configuration: {file}");
        Self::refused(StatusCode::MISDIRECTED_REQUEST, "wrong_configuration", &message)
    }

    pub fn too_many_guesses() -> Self {
        let refused = Self::refused(StatusCode::TOO_MANY_REQUESTS, TOO_MANY_GUESSES, "too many wrong tokens");
        refused.with(header::RETRY_AFTER, "1")
    }

    pub fn too_many_calls() -> Self {
        let refused =
            Self::refused(StatusCode::TOO_MANY_REQUESTS, "too_many_calls", "too many other calls are running");
        refused.with(header::RETRY_AFTER, "5")
    }

    pub fn bad_request(message: &str) -> Self {
        Self::refused(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub fn body_too_large(most: usize) -> Self {
        let message = format!("a body has {most} bytes at most here");
        Self::refused(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", &message)
    }

    pub fn body_too_slow() -> Self {
        Self::refused(StatusCode::REQUEST_TIMEOUT, "body_too_slow", "the body did not come in time")
    }

    pub fn bad_call(why: BadCall) -> Self {
        match why {
            BadCall::Path => Self::refused(
                StatusCode::NOT_FOUND,
                "no_such_path",
                "here are /api/sessions, /api/pools, /api/pools/NAME/servers/ADDRESS, /api/services/NAME/maintenance, \
                 /api/reload and /api/status",
            ),
            BadCall::Method(allow) => {
                let message = format!("this path takes {allow}");
                Self::refused(StatusCode::METHOD_NOT_ALLOWED, "method", &message).with(header::ALLOW, allow)
            }
            BadCall::Query(message) => Self::bad_request(&message),
        }
    }

    pub fn no_sessions_kept() -> Self {
        Self::refused(StatusCode::NOT_FOUND, "no_sessions_kept", "sessions.store is `none`: no sessions are kept")
    }

    /// The directory knows no such user, or does not answer; then nothing was done.
    pub fn directory(user: Option<UserName>, error: &DirectoryError) -> Self {
        if let DirectoryError::NoSuchUser(name) = error {
            return Self::refused(StatusCode::NOT_FOUND, "unknown_user", &format!("there is no user {name}"));
        }
        log::error!("admin API: {}", error.in_full());
        let message = "the user directory did not answer; nothing was done so far";
        Self::refused(StatusCode::SERVICE_UNAVAILABLE, "directory_away", message).about(user)
    }

    pub fn listed(user: Option<UserName>, body: Value, whole: bool) -> Self {
        let response = Self::done(Some(Event::SessionsListed), body).about(user);
        if whole {
            return response;
        }
        response.incomplete(
            "some servers of the session store could not be reached; sessions that only they hold are not listed",
        )
    }

    /// The sessions of a user were ended, or those of all users.
    pub fn ended(
        user: Option<UserName>,
        ended: Option<usize>,
        within: &str,
        failures: &[(String, StoreError)],
    ) -> Self {
        let body = match &user {
            Some(user) => json!({ "user": user.as_str(), "ended": ended, "effective_within": within }),
            None => json!({ "all": true, "ended": ended, "effective_within": within }),
        };
        let mut response = Self::done(Some(Event::SessionsEnded), body).about(user);
        response.subject.all = response.subject.user.is_none();
        if failures.is_empty() {
            return response;
        }
        response.body["unreachable"] = unreachable_as_json(failures);
        response.incomplete(&format!(
            "the user directory has it, so no edge lets any of these sessions pass in {within} from now; but the \
             session store could not be reached in full, and may hold some until they idle out"
        ))
    }

    fn incomplete(mut self, message: &str) -> Self {
        self.body["error"] = json!("store_away");
        self.body["message"] = json!(message);
        (self.status, self.result) = (StatusCode::SERVICE_UNAVAILABLE, INCOMPLETE);
        self
    }

    /// The maintenance of a service was switched on or off; its file may still hold it on.
    pub fn maintenance_set(service: &str, on: bool, state: MaintenanceState) -> Self {
        let MaintenanceState { by_file, by_api } = state;
        let body = json!({ "service": service, "on": state.is_on(), "by_file": by_file, "by_api": by_api });
        let mut response = Self::done(Some(Event::MaintenanceSet), body);
        response.subject.service = Some(service.to_owned());
        response.subject.state = Some(if on { "on" } else { "off" });
        response
    }

    pub fn unknown_service(service: &str) -> Self {
        Self::refused(StatusCode::NOT_FOUND, "unknown_service", &format!("there is no service `{service}`"))
    }

    pub fn pools(body: Value) -> Self {
        Self::done(None, body)
    }

    /// The state of a server was set.
    pub fn server_state_set((pool, server): (&str, &str), state: &'static str, was: &str, in_flight: usize) -> Self {
        let body = json!({ "pool": pool, "address": server, "state": state, "was": was, "in_flight": in_flight });
        let mut response = Self::done(Some(Event::ServerStateSet), body);
        let (pool, server) = (Some(pool.to_owned()), Some(server.to_owned()));
        response.subject = Subject { pool, server, state: Some(state), ..Subject::default() };
        response
    }

    pub fn unknown_pool(pool: &str) -> Self {
        Self::refused(StatusCode::NOT_FOUND, "unknown_pool", &format!("there is no pool `{pool}`"))
    }

    pub fn unknown_server(pool: &str, server: &str) -> Self {
        let message = format!("the pool `{pool}` has no server `{server}`; name it as the configuration does");
        Self::refused(StatusCode::NOT_FOUND, "unknown_server", &message)
    }

    pub fn status(body: Value) -> Self {
        Self::done(None, body)
    }

    /// A reload has ended, one way or the other.
    pub fn reload(outcome: &ReloadOutcome) -> Self {
        let mut response = Self::done(Some(Event::ConfigurationReloaded), outcome.details());
        let (status, result, message) = match outcome {
            ReloadOutcome::InEffect { .. } => {
                response.body["reloaded"] = json!(true);
                return response;
            }
            ReloadOutcome::Refused(_) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "configuration_refused",
                "the configuration has faults; the one before stays in effect".to_owned(),
            ),
            ReloadOutcome::Failed(why) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "reload_failed",
                format!("the configuration before stays in effect: {why}"),
            ),
            ReloadOutcome::Stopping => {
                (StatusCode::SERVICE_UNAVAILABLE, "stopping", "the edge is draining and reloads nothing".to_owned())
            }
        };
        response.body["error"] = json!(result);
        response.body["message"] = json!(message);
        (response.status, response.result) = (status, result);
        response
    }

    pub fn into_response(mut self, request_id: &str) -> Response<Vec<u8>> {
        if self.body.get("error").is_some() {
            self.body["request_id"] = json!(request_id);
        }
        let mut response = Response::new(format!("{}\n", self.body).into_bytes());
        *response.status_mut() = self.status;
        let length = response.body().len();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(request_id) = HeaderValue::from_str(request_id) {
            headers.insert(HeaderName::from_static("x-request-id"), request_id);
        }
        if let Some((name, value)) = self.field {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
