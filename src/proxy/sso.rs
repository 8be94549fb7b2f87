//! Requests for the sign-on's own routes. Their body is bounded in bytes and in time before it is read.

use std::time::Duration;

use http::{StatusCode, Version, header};
use pingora_proxy::Session;

use super::context::RequestContext;
use super::error_response::error_context;
use super::gateway::Gateway;
use super::request::RequestView;
use crate::client_prefix::UNKNOWN_CLIENT_IP;
use crate::host::Authority;
use crate::reply::Reply;
use crate::request::Head;
use crate::sentry::{MAX_FORM_BYTES, SsoRoute};

/// Time for the whole of a login form to arrive.
const DEADLINE: Duration = Duration::from_secs(10);

impl Gateway {
    pub(super) async fn sign_on(
        &self,
        session: &mut Session,
        ctx: &RequestContext,
        authority: &Authority,
    ) -> pingora::Result<Box<Reply>> {
        // The head is copied: a login's body is read from the session while the head is still needed.
        let request = session.req_header().as_owned_parts();
        let head = Head {
            method: &request.method,
            headers: &request.headers,
            host: &authority.host,
            port: authority.port.filter(|port| *port != 443),
            path: request.uri.path(),
            query: request.uri.query(),
            client: ctx.client.unwrap_or(UNKNOWN_CLIENT_IP),
            request_id: &ctx.request_id,
            now: self.clock.now(),
        };
        let route = ctx.snapshot.sentry.route(&head);
        let body = match read_form(session, route).await? {
            Ok(body) => body,
            Err(status) => {
                self.metrics.limit_reached("form");
                let (title, text) = match status {
                    StatusCode::REQUEST_TIMEOUT => {
                        ("Request timed out", "The form did not arrive in time. Please try again.")
                    }
                    _ => ("Form too large", "The form is larger than is allowed."),
                };
                let reply = Reply::problem(&error_context(&RequestView::of(session), ctx), status, title, text);
                // Of a form that drips, no more is waited for.
                let closes = status == StatusCode::REQUEST_TIMEOUT;
                return Ok(Box::new(if closes { reply.closing() } else { reply }));
            }
        };
        let service = ctx.service.as_ref().map(|service| &*service.config.name);
        Ok(Box::new(ctx.snapshot.sentry.respond(route, &head, service, &body).await))
    }
}

/// A login's form, within its limits; nothing for routes that take no body.
async fn read_form(session: &mut Session, route: SsoRoute) -> pingora::Result<Result<Vec<u8>, StatusCode>> {
    if !route.takes_body() {
        return Ok(Ok(Vec::new()));
    }
    if declared_bytes(session).is_some_and(|bytes| bytes > MAX_FORM_BYTES) {
        return Ok(Err(StatusCode::PAYLOAD_TOO_LARGE));
    }
    let mut body = Vec::new();
    let read = async {
        if waits_for_continue(session) {
            // An interim response is none yet: Pingora would close for having answered before the body was there.
            session.as_downstream_mut().set_close_on_response_before_downstream_finish(false);
            session.as_downstream_mut().write_continue_response().await?;
        }
        while let Some(chunk) = session.as_downstream_mut().read_request_body().await? {
            if body.len() + chunk.len() > MAX_FORM_BYTES {
                return Ok(Err(StatusCode::PAYLOAD_TOO_LARGE));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Ok(()))
    };
    match tokio::time::timeout(DEADLINE, read).await {
        Ok(Ok(Ok(()))) => Ok(Ok(body)),
        Ok(Ok(Err(status))) => Ok(Err(status)),
        Ok(Err(error)) => Err(error),
        Err(_) => Ok(Err(StatusCode::REQUEST_TIMEOUT)),
    }
}

fn declared_bytes(session: &Session) -> Option<usize> {
    session.req_header().headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Pingora hands an `Expect` on to upstreams and leaves it to us where there is none (RFC 9110 §10.1.1). Over
/// HTTP/2 clients do not wait for long, and an interim response would be taken for the final one.
fn waits_for_continue(session: &Session) -> bool {
    let request = session.req_header();
    let expects = request.headers.get(header::EXPECT);
    request.version == Version::HTTP_11
        && expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
