//! One check of a server: a connection that is made as those of requests are and, over HTTP, the head of one response.
//!
//! Each check has a connection of its own, so that it meets what a new request would meet. It speaks the pool's protocol,
//! with the pool's TLS settings. The body of the response is not read: the connection is closed after the head, so that a
//! body which drips keeps nothing waiting.

use std::fmt;
use std::time::Duration;

use http::{HeaderValue, header};
use pingora::{Error, ErrorType, Result};
use pingora_core::connectors::TransportConnector;
use pingora_core::connectors::http::v2::{H2HandshakeSettings, handshake};
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_core::protocols::{ALPN, Stream};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::RequestHeader;

use crate::config::HealthCheck;

/// What an application finds in its access log.
const USER_AGENT: &str = "sentry-edge-health-check";
/// Interim responses (RFC 9110 §15.2) that are read before the final one.
const MAX_INTERIM: usize = 16;

/// Why a check has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    Timeout,
    Status(u16),
    /// Of the connection, or of the protocol; one of Pingora's names for errors.
    Error(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("timeout"),
            Self::Status(status) => write!(f, "status_{status}"),
            Self::Error(error) => f.write_str(error),
        }
    }
}

/// Checks a server once, within `limit` in all. `host` is what the request calls it.
pub async fn check(
    connector: &TransportConnector,
    mut peer: HttpPeer,
    check: &HealthCheck,
    host: &str,
    limit: Duration,
) -> Result<(), Failure> {
    // A check may be given more time than a request's connection.
    peer.options.connection_timeout = Some(limit);
    peer.options.total_connection_timeout = Some(limit);
    let outcome = tokio::time::timeout(limit, attempt(connector, &peer, check, host)).await;
    match outcome {
        Err(_) => Err(Failure::Timeout),
        Ok(Err(error)) => Err(failure(&error)),
        Ok(Ok(None)) => Ok(()),
        Ok(Ok(Some(status))) => match check {
            HealthCheck::Http { status: good, .. } if !good.contains(&status) => Err(Failure::Status(status)),
            _ => Ok(()),
        },
    }
}

fn failure(error: &Error) -> Failure {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Failure::Timeout,
        kind => Failure::Error(kind.as_str().to_owned()),
    }
}

/// Returns the status of the response, where one is expected.
async fn attempt(
    connector: &TransportConnector,
    peer: &HttpPeer,
    check: &HealthCheck,
    host: &str,
) -> Result<Option<u16>> {
    let stream = connector.new_stream(peer).await?;
    let HealthCheck::Http { path, .. } = check else { return Ok(None) };
    let request = request(path, host)?;
    let speaks_http2 = peer.options.alpn.get_min_http_version() == 2;
    let status = if speaks_http2 { over_http2(stream, request).await } else { over_http1(stream, request).await };
    status.map(Some)
}

fn request(path: &str, host: &str) -> Result<RequestHeader> {
    let mut request = RequestHeader::build("GET", path.as_bytes(), Some(4))?;
    request.insert_header(header::HOST, host)?;
    request.insert_header(header::USER_AGENT, HeaderValue::from_static(USER_AGENT))?;
    request.insert_header(header::ACCEPT, HeaderValue::from_static("*/*"))?;
    Ok(request)
}

async fn over_http1(stream: Stream, mut request: RequestHeader) -> Result<u16> {
    request.insert_header(header::CONNECTION, HeaderValue::from_static("close"))?;
    let mut session = HttpSession::new(stream);
    session.write_request_header(Box::new(request)).await?;
    for _ in 0..=MAX_INTERIM {
        session.read_response().await?;
        let status = session.resp_header().map(|head| head.status);
        if let Some(status) = status.filter(|status| !status.is_informational()) {
            return Ok(status.as_u16());
        }
    }
    Err(Error::explain(ErrorType::InvalidHTTPHeader, "too many interim responses"))
}

async fn over_http2(stream: Stream, request: RequestHeader) -> Result<u16> {
    // Without TLS the server is known to speak it (RFC 9113 §3.3).
    if stream.get_ssl_digest().is_some() && !matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
        return Err(Error::explain(ErrorType::H2Error, "the server did not choose HTTP/2"));
    }
    let mut settings = H2HandshakeSettings::new();
    settings.max_streams = 1;
    let connection = handshake(stream, settings).await?;
    let session = connection.spawn_stream().await?;
    let mut session = session.ok_or_else(|| Error::explain(ErrorType::H2Error, "the server takes no stream"))?;
    session.write_request_header(Box::new(request), true)?;
    session.read_response_header().await?;
    let status = session.response_header().map(|head| head.status.as_u16());
    status.ok_or_else(|| Error::explain(ErrorType::H2Error, "no head"))
}
