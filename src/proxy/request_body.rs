//! A request's body on its way to the application, piece by piece: its end, its size, its pace. Called by
//! `request_body_filter`; the fast path takes no request that has one.

use bytes::Bytes;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::context::RequestContext;
use super::gateway::Gateway;
use super::limits;
use super::request::RequestView;
use super::route_rules::body_limit;

impl Gateway {
    /// One piece, or its end, or both.
    pub(super) fn filter_request_body(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        end_without_bytes(body, end);
        self.watch_body_bytes(&RequestView::of(session), body.as_ref(), ctx)?;
        // What passes after an upgrade is a conversation and has no size.
        if session.as_downstream().was_upgraded() {
            return Ok(());
        }
        ctx.body_bytes += body.as_ref().map_or(0, Bytes::len);
        let route = ctx.service.as_ref().map(|service| service.at(ctx.route));
        if ctx.body_bytes > body_limit(route, &ctx.snapshot) {
            self.metrics.limit_reached("body_too_large");
            return Err(Error::new_down(ErrorType::HTTPStatus(413)));
        }
        self.hold_request_body(session, body, ctx)?;
        if body.is_some() && limits::below_min_body_rate(session, ctx) {
            self.metrics.limit_reached("body_rate");
            return Err(Error::new_down(ErrorType::ReadTimedout));
        }
        limits::body_received(session, ctx, end)
    }
}

/// Makes an end that comes as an empty piece an end without a piece. HTTP/2 clients that do not know a body's length in
/// advance send its end in a DATA frame of its own. Pingora 0.9.1 writes that to an HTTP/1.1 application as a chunk of no
/// bytes, which is the last chunk (RFC 9112 §7.1), and then the last chunk: the application takes the second one for the
/// beginning of the next request on the connection, which is another client's (pingora#935).
///
/// An empty piece that is not the end stays one, because Pingora takes no piece for the end; it is not written.
fn end_without_bytes(body: &mut Option<Bytes>, end: bool) {
    if end && body.as_ref().is_some_and(Bytes::is_empty) {
        *body = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_piece_at_the_end_is_none() {
        let hello = Bytes::from_static(b"hello");
        for (piece, end, left) in [
            (Some(Bytes::new()), true, None),
            (Some(Bytes::new()), false, Some(Bytes::new())),
            (Some(hello.clone()), true, Some(hello.clone())),
            (Some(hello.clone()), false, Some(hello)),
            (None, true, None),
        ] {
            let mut body = piece.clone();
            end_without_bytes(&mut body, end);
            assert_eq!(body, left, "{piece:?}, {end}");
        }
    }
}
