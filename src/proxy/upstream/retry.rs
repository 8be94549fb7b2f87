//! Whether a request is sent again after an attempt has failed (`pools.NAME.retry`), and whose fault the failure is. Both
//! paths call it, and it decides alone.
//!
//! A request is sent again where its server cannot have acted on it, or where it is a GET or HEAD, which may be repeated
//! (RFC 9110 §9.2.2); never once a part of a response has come.

use http::Method;
use pingora::{Error, ErrorSource, ErrorType, RetryType};

use crate::config::Retry;
use crate::request::is_repeatable;
use crate::upstream::ejection::Failure;
use crate::upstream::{Outcome, is_tls_failure};

/// How far an attempt had come when it failed, after its connection was there.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Whether the connection had served other requests before.
    pub is_reused: bool,
    /// Whether nothing came on it in response.
    pub is_unanswered: bool,
    /// Whether the server cannot have the whole head of the request.
    pub is_unwritten: bool,
    /// Whether what was read of the request's body can be sent again.
    pub is_body_kept: bool,
    /// Whether it was the request that shows whether an ejected address is well again.
    pub is_trial: bool,
}

/// Returns what the server has failed by; `None` when the failure is not its fault.
pub fn failure(error: &Error) -> Option<Failure> {
    use ErrorType::{
        ConnectionClosed, H1Error, H2Downgrade, H2Error, InvalidH2, InvalidHTTPHeader, ReadError, ReadTimedout,
        WriteError, WriteTimedout,
    };
    if *error.esource() != ErrorSource::Upstream {
        return None;
    }
    match error.etype() {
        ReadTimedout | WriteTimedout => Some(Failure::Timeout),
        ConnectionClosed | ReadError | WriteError => Some(Failure::Closed),
        InvalidHTTPHeader | H1Error | InvalidH2 | H2Downgrade => Some(Failure::Malformed),
        H2Error if !is_unprocessed(error) => Some(Failure::Malformed),
        _ => None,
    }
}

/// Returns what a failed connection says of its server; `None` when the failure is the edge's own, which has run out of
/// descriptors, or may not open a socket.
pub fn connect_failure(error: &Error) -> Option<Failure> {
    match error.etype() {
        ErrorType::InternalError | ErrorType::SocketError | ErrorType::BindError => None,
        _ if is_tls_failure(error) => Some(Failure::Tls),
        _ => Some(Failure::Connect),
    }
}

/// Returns the outcome of an attempt that could not be connected.
pub fn not_connected(error: &Error) -> Outcome {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Outcome::ConnectTimedOut,
        _ => Outcome::NotConnected,
    }
}

/// Whether a connection that was kept has ended before a byte of a response, which says nothing of its server: it may close
/// a connection at any moment that has no request (RFC 9112 §9.3.1).
pub fn is_kept_closed(error: &Error, progress: Progress) -> bool {
    progress.is_reused && progress.is_unanswered && failure(error) == Some(Failure::Closed)
}

/// Returns the outcome of an attempt after which the request may be sent again, if there is a server for it; `None` where it
/// may not.
pub fn repeatable(error: &Error, method: &Method, progress: Progress, policy: Retry) -> Option<Outcome> {
    if !progress.is_body_kept {
        return None;
    }
    // No request was sent on a connection that was refused because another client may own it.
    if *error.etype() == ErrorType::ConnectError {
        return Some(Outcome::KeptClosed);
    }
    let is_safe = is_repeatable(method);
    if is_unprocessed(error) {
        return policy.on_closed.then_some(Outcome::KeptClosed);
    }
    if is_kept_closed(error, progress) && (is_safe || progress.is_unwritten) {
        return policy.on_closed.then_some(Outcome::KeptClosed);
    }
    let failure = failure(error)?;
    let is_allowed = progress.is_trial || (failure == Failure::Timeout && policy.on_timeout);
    (is_safe && is_allowed).then_some(Outcome::NoResponse)
}

/// Whether an HTTP/2 server says that it has not looked at the request (RFC 9113 §6.8, §8.7), by Pingora's reading.
fn is_unprocessed(error: &Error) -> bool {
    *error.etype() == ErrorType::H2Error && error.retry == RetryType::Decided(true)
}

/// Whether Pingora has read nothing of a response before this error. It says so in the error's text alone.
pub fn is_unanswered(error: &Error) -> bool {
    let context = error.context.as_ref().map(|context| context.as_str()).unwrap_or_default();
    match error.etype() {
        ErrorType::WriteError | ErrorType::WriteTimedout => true,
        _ => {
            context.contains("while reading response headers, bytes already read: 0")
                || context.contains("while reading h2 header")
        }
    }
}
