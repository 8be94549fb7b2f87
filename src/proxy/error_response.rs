//! Failure to reply: the one place that says what a client learns when a request could not be served.

use http::{StatusCode, header};
use pingora::{Error, ErrorSource, ErrorType};

use super::cancel::OVER_LIMIT;
use super::context::{RequestContext, is_fault_of_body};
use super::decision_log::log_decision;
use super::request::RequestView;
use crate::files;
use crate::reply::{ErrorContext, Reply};
use crate::request::is_repeatable;
use crate::sentry::SERVICE_LOGOUT;
use crate::upstream::is_tls_failure;

/// The kind of error of a stream that cannot be watched.
pub const TOO_MANY_STREAMS: &str = "too_many_streams";

/// After so many seconds a request that found no server is worth another try.
const RETRY_SECONDS: u64 = 10;

/// The reply to a failure. The label is for logs; title and text are for users and name no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorReply {
    pub status: StatusCode,
    pub label: &'static str,
    pub title: &'static str,
    pub text: &'static str,
}

const UPSTREAM_TIMEOUT: ErrorReply = ErrorReply {
    status: StatusCode::GATEWAY_TIMEOUT,
    label: "upstream_timeout",
    title: "The application did not respond",
    text: "It did not respond in time. Please try again in a moment.",
};
const UPSTREAM_FAILED: ErrorReply = ErrorReply {
    status: StatusCode::BAD_GATEWAY,
    label: "upstream_failed",
    title: "Application unavailable",
    text: "The application is temporarily unavailable. Please try again in a moment.",
};
const NO_SERVER: ErrorReply = ErrorReply {
    status: StatusCode::SERVICE_UNAVAILABLE,
    label: "no_server",
    title: "Application unavailable",
    text: "The application is temporarily unavailable. Please try again in a moment.",
};
const UPSTREAM_TLS: ErrorReply = ErrorReply { label: "upstream_tls", ..NO_SERVER };
const BODY_TOO_LARGE: ErrorReply = ErrorReply {
    status: StatusCode::PAYLOAD_TOO_LARGE,
    label: "body_too_large",
    title: "Upload too large",
    text: "What you sent is larger than this application accepts.",
};
const CLIENT_TIMEOUT: ErrorReply = ErrorReply {
    status: StatusCode::REQUEST_TIMEOUT,
    label: "client_timeout",
    title: "Request timed out",
    text: "Your request did not arrive in time. Check your connection, then try again.",
};
/// A request that turns out not to be one, its body for example.
const MALFORMED: ErrorReply = ErrorReply {
    status: StatusCode::BAD_REQUEST,
    label: "malformed",
    title: "Bad request",
    text: "The request is malformed and cannot be processed.",
};
const OVERLOADED: ErrorReply = ErrorReply {
    status: StatusCode::SERVICE_UNAVAILABLE,
    label: "too_many_streams",
    title: "The service is busy",
    text: "More is going on than it can handle. Please try again in a moment.",
};
const INTERNAL: ErrorReply = ErrorReply {
    status: StatusCode::INTERNAL_SERVER_ERROR,
    label: "internal",
    title: "Something went wrong",
    text: "An error occurred on our side. Please try again.",
};

impl ErrorReply {
    /// What follows on the connection is in doubt.
    pub fn reply(&self, error_context: &ErrorContext<'_>) -> Reply {
        let reply = Reply::problem(error_context, self.status, self.title, self.text).closing();
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => {
                reply.retry_after(RETRY_SECONDS).refreshing(error_context, RETRY_SECONDS)
            }
            _ => reply,
        }
    }
}

/// Returns the reply to an error; `None` when the client has gone. `is_unconnected`: no server could be connected to.
fn error_reply(error: &Error, is_unconnected: bool) -> Option<ErrorReply> {
    use ErrorType::{
        ConnectionClosed, Custom, H2Error, HTTPStatus, InvalidHTTPHeader, ReadError, ReadTimedout, WriteError,
        WriteTimedout,
    };
    let error_reply = match (error.etype(), error.esource()) {
        (HTTPStatus(413), _) => BODY_TOO_LARGE,
        (HTTPStatus(503), _) => NO_SERVER,
        (Custom(TOO_MANY_STREAMS), _) => OVERLOADED,
        (Custom(label), _) if files::ReadError::LABELS.contains(label) => ErrorReply { label, ..INTERNAL },
        (Custom(OVER_LIMIT), _) => ErrorReply { label: OVER_LIMIT, ..OVERLOADED },
        (HTTPStatus(400..=499) | InvalidHTTPHeader, ErrorSource::Downstream) => MALFORMED,
        (ReadTimedout, ErrorSource::Downstream) => CLIENT_TIMEOUT,
        (WriteError | WriteTimedout | ReadError | ConnectionClosed | H2Error, ErrorSource::Downstream) => return None,
        (_, ErrorSource::Downstream) => MALFORMED,
        (_, ErrorSource::Upstream) if is_unconnected && is_tls_failure(error) => UPSTREAM_TLS,
        (_, ErrorSource::Upstream) if is_unconnected => NO_SERVER,
        (ReadTimedout | WriteTimedout, _) => UPSTREAM_TIMEOUT,
        (_, ErrorSource::Upstream) => UPSTREAM_FAILED,
        _ => INTERNAL,
    };
    Some(error_reply)
}

/// What a failed request comes to, noted for the log: the reply that its client gets if nothing was sent yet, or `None` when
/// the client has gone. `is_malformed`: what came on its connection is no request. Both paths call it.
pub fn failed(ctx: &mut RequestContext, error: &Error, is_malformed: bool) -> Option<ErrorReply> {
    let error_reply = match (is_malformed, is_fault_of_body(error, ctx)) {
        (true, _) => Some(MALFORMED),
        (false, true) => Some(CLIENT_TIMEOUT),
        (false, false) => error_reply(error, ctx.is_unconnected),
    };
    let (label, status) = error_reply.map_or(("client_gone", 499), |reply| (reply.label, reply.status.as_u16()));
    let (cause, side) = (error.etype().as_str(), error.esource().as_str());
    log_decision!(ctx, "failed error={label} status={status} cause={cause} side={side:?}");
    ctx.error = Some(label);
    error_reply
}

/// For a reply that tells of a problem. Who is signed in is known once the request was let in.
pub fn error_context<'a>(request: &RequestView<'_>, ctx: &'a RequestContext) -> ErrorContext<'a> {
    let accept = request.headers().get(header::ACCEPT);
    let snapshot = &ctx.snapshot;
    let user = ctx.user();
    ErrorContext {
        html: accept.and_then(|accept| accept.to_str().ok()).is_some_and(|accept| accept.contains("text/html")),
        repeats: is_repeatable(&request.head.method),
        request_id: &ctx.request_id,
        branding: &snapshot.branding,
        user,
        applications: user.map(|_| snapshot.sentry.applications(request.port())),
        sign_out: user.map(|_| SERVICE_LOGOUT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blame_decides_what_the_client_learns() {
        let unconnected =
            |kind| error_reply(&Error::new_up(kind), true).map(|reply| (reply.label, reply.status.as_u16()));
        for kind in [
            ErrorType::ConnectRefused,
            ErrorType::ConnectTimedout,
            ErrorType::TLSHandshakeTimedout,
            ErrorType::ConnectNoRoute,
            ErrorType::ConnectError,
            ErrorType::InternalError,
        ] {
            assert_eq!(unconnected(kind), Some(("no_server", 503)));
        }
        assert_eq!(unconnected(ErrorType::TLSHandshakeFailure), Some(("upstream_tls", 503)));
        assert_eq!(unconnected(ErrorType::InvalidCert), Some(("upstream_tls", 503)));
        let label = |error: Box<Error>| error_reply(&error, false).map(|error_reply| error_reply.label);
        for kind in [ErrorType::ConnectionClosed, ErrorType::ReadError, ErrorType::WriteError, ErrorType::H1Error] {
            assert_eq!(label(Error::new_up(kind)), Some("upstream_failed"));
        }
        assert_eq!(label(Error::new_up(ErrorType::InvalidHTTPHeader)), Some("upstream_failed"));
        assert_eq!(label(Error::new_up(ErrorType::WriteTimedout)), Some("upstream_timeout"));
        assert_eq!(label(Error::new_up(ErrorType::ReadTimedout)), Some("upstream_timeout"));
        assert_eq!(label(Error::new_down(ErrorType::ReadTimedout)), Some("client_timeout"));
        assert_eq!(label(Error::new_down(ErrorType::WriteError)), None);
        assert_eq!(label(Error::new(ErrorType::HTTPStatus(413))), Some("body_too_large"));
        assert_eq!(label(Error::new_in(ErrorType::Custom(TOO_MANY_STREAMS))), Some("too_many_streams"));
        assert_eq!(label(Error::new(ErrorType::InternalError)), Some("internal"));
    }
}
