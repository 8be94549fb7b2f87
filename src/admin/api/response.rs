//! Responses of the admin API: a status, JSON, and what the audit log and the metric record. Every response has its
//! constructor here.

use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use super::call::BadCall;
use crate::admin::session_list::unreachable_as_json;
use crate::audit_log::Event;
use crate::sessions::StoreError;
use crate::users::{DirectoryError, UserName};

/// The `result` of a call that was executed in full.
pub const OK: &str = "ok";
/// The `result` of a call that reached only some of the store's servers, or none.
const INCOMPLETE: &str = "incomplete";

pub struct ApiResponse {
    status: StatusCode,
    body: Value,
    field: Option<(HeaderName, &'static str)>,
    pub event: Event,
    /// The label of the metric and, unless it is [`OK`], the audit log's `reason`.
    pub result: &'static str,
    pub user: Option<UserName>,
}

impl ApiResponse {
    fn refused(status: StatusCode, result: &'static str, message: &str) -> Self {
        let body = json!({ "error": result, "message": message });
        Self { status, body, field: None, event: Event::ApiRefused, result, user: None }
    }

    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.field = Some((name, value));
        self
    }

    fn about(mut self, user: Option<UserName>) -> Self {
        self.user = user;
        self
    }

    pub fn off() -> Self {
        Self::refused(StatusCode::NOT_FOUND, "api_off", "set server.admin.token to have the admin API here")
    }

    pub fn from_web_page() -> Self {
        Self::refused(StatusCode::FORBIDDEN, "origin", "requests of web pages are refused here")
    }

    pub fn no_token() -> Self {
        let refused = Self::refused(StatusCode::UNAUTHORIZED, "no_token", "send `Authorization: Bearer TOKEN`");
        refused.with(header::WWW_AUTHENTICATE, "Bearer realm=\"sentry-edge admin\"")
    }

    pub fn wrong_token() -> Self {
        let refused = Self::refused(StatusCode::UNAUTHORIZED, "wrong_token", "this is not server.admin.token");
        refused.with(header::WWW_AUTHENTICATE, "Bearer realm=\"sentry-edge admin\", error=\"invalid_token\"")
    }

    pub fn too_many_guesses() -> Self {
        let refused = Self::refused(StatusCode::TOO_MANY_REQUESTS, "too_many_guesses", "too many wrong tokens");
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

    pub fn bad_call(why: BadCall) -> Self {
        match why {
            BadCall::Path => Self::refused(StatusCode::NOT_FOUND, "no_such_path", "/api/sessions is here"),
            BadCall::Method => Self::refused(StatusCode::METHOD_NOT_ALLOWED, "method", "GET lists, DELETE ends")
                .with(header::ALLOW, "GET, DELETE"),
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
        let message = "the user directory did not answer; nothing was done";
        Self::refused(StatusCode::SERVICE_UNAVAILABLE, "directory_away", message).about(user)
    }

    pub fn listed(user: Option<UserName>, body: Value, whole: bool) -> Self {
        let (status, result) = if whole { (StatusCode::OK, OK) } else { (StatusCode::SERVICE_UNAVAILABLE, INCOMPLETE) };
        let mut response = Self { status, body, field: None, event: Event::SessionsListed, result, user };
        if !whole {
            response.explain(
                "some servers of the session store could not be reached; sessions that only they hold are not listed",
            );
        }
        response
    }

    pub fn ended(user: UserName, ended: Option<usize>, within: &str, failures: &[(String, StoreError)]) -> Self {
        let whole = failures.is_empty();
        let (status, result) = if whole { (StatusCode::OK, OK) } else { (StatusCode::SERVICE_UNAVAILABLE, INCOMPLETE) };
        let body = json!({ "user": user.as_str(), "ended": ended, "effective_within": within });
        let mut response = Self { status, body, field: None, event: Event::SessionsEnded, result, user: Some(user) };
        if !whole {
            response.body["unreachable"] = unreachable_as_json(failures);
            response.explain(&format!(
                "the user directory has it, so no edge lets any of these sessions pass in {within} from now; but the \
                 session store could not be reached in full, and may hold some until they idle out"
            ));
        }
        response
    }

    fn explain(&mut self, message: &str) {
        self.body["error"] = json!("store_away");
        self.body["message"] = json!(message);
    }

    pub fn into_response(self, request_id: Option<&str>) -> Response<Vec<u8>> {
        let mut response = Response::new(format!("{}\n", self.body).into_bytes());
        *response.status_mut() = self.status;
        let length = response.body().len();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(request_id) = request_id.and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert(HeaderName::from_static("x-request-id"), request_id);
        }
        if let Some((name, value)) = self.field {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
