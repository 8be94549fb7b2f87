//! Requests that last: which they are, and what becomes of one that is cut.
//!
//! A request is put under watch when it turns out to be a stream, not before: one that is answered at once pays for
//! none of this. One that is cut never reaches `logging`, and is settled here by what was kept of it.

use std::time::Instant;

use bytes::Bytes;
use http::{Method, StatusCode, header};
use pingora::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;

use super::asking::Asking;
use super::client::NOBODY;
use super::cut::cut_on;
use super::exchange::Exchange;
use super::line::RequestLine;
use super::{Gateway, rescue};
use crate::audit_log::{self, Event};
use crate::auth::Reason;
use crate::auth::streams::{OpenStream, Terms};

const EVENT_STREAM: &[u8] = b"text/event-stream";

/// A request that may be cut, and what is needed to settle it without Pingora.
pub struct Watched {
    /// Where its session is watched.
    stream: Option<OpenStream>,
    gateway: Gateway,
    line: RequestLine,
}

impl Gateway {
    /// The head of a response has come: if it is a stream's, the request is watched from now on.
    pub(super) fn head_passed(
        &self,
        asking: &Asking<'_>,
        response: &ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        exchange.status = response.status.as_u16();
        if response.status == StatusCode::SWITCHING_PROTOCOLS
            && let Some(connection) = asking.connection
        {
            connection.is_tunnel();
        }
        if !is_watched(exchange) && is_stream(&asking.head.method, response) {
            self.watch(asking, exchange)?;
        }
        Ok(())
    }

    /// Bytes of a body pass, one way or the other. Where they still do after an interval, the request is a stream.
    pub(super) fn bytes_passed(
        &self,
        asking: &Asking<'_>,
        body: Option<&Bytes>,
        exchange: &mut Exchange,
    ) -> Result<()> {
        if body.is_none_or(Bytes::is_empty) {
            return Ok(());
        }
        if let (false, Some(identity)) = (is_watched(exchange), &exchange.identity)
            && exchange.begun.elapsed() >= exchange.snapshot.guard.stream_interval(identity)
        {
            self.watch(asking, exchange)?;
        }
        if let Some(stream) = exchange.watched.as_ref().and_then(|watched| watched.stream.as_ref()) {
            stream.moved();
        }
        Ok(())
    }

    /// Does nothing for a request that nobody was let in for: its session does not matter.
    fn watch(&self, asking: &Asking<'_>, exchange: &mut Exchange) -> Result<()> {
        let (Some(identity), Some(service)) = (&exchange.identity, &exchange.service) else { return Ok(()) };
        let route = service.at(exchange.route);
        let terms = Terms {
            service: service.name.clone(),
            access: route.access.clone(),
            counts_as_activity: route.counts_as_activity,
        };
        let snapshot = &exchange.snapshot;
        // What cannot be watched is not let through: it would outlive its session.
        let Some((stream, signal)) = snapshot.guard.watch(identity, terms, snapshot.limits.streams) else {
            self.metrics.limit_reached("streams");
            return Err(Error::new_in(ErrorType::Custom(rescue::TOO_MANY_STREAMS)));
        };
        cut_on(signal)?;
        self.may_be_cut(asking, exchange).stream = Some(stream);
        Ok(())
    }

    /// From now on the request is settled even if it is cut.
    pub(super) fn may_be_cut<'a>(&self, asking: &Asking<'_>, exchange: &'a mut Exchange) -> &'a mut Watched {
        exchange.watched.get_or_insert_with(|| {
            let line = RequestLine::of(asking.head);
            Box::new(Watched { stream: None, gateway: self.clone(), line })
        })
    }

    fn stream_closed(&self, exchange: &Exchange, line: &RequestLine, reason: &Reason) {
        self.metrics.traffic.streams_closed.with_label_values(&[reason.of_stream()]).inc();
        let entry = audit_log::Entry {
            event: Event::StreamClosed,
            client: exchange.client.unwrap_or(NOBODY),
            request_id: &exchange.request_id,
            user: exchange.user(),
            host: Some(line.authority()),
            reason: Some(reason.label()),
        };
        self.audit.write(self.clock.now(), entry);
    }
}

impl Watched {
    /// The request was dropped half-way: by a signal, or with the whole process.
    pub fn settle(self, exchange: &mut Exchange) {
        let Self { stream, gateway, line } = self;
        match stream.as_ref().and_then(OpenStream::over) {
            Some(reason) => {
                exchange.error = Some("session_ended");
                exchange.reason = Some(reason.label());
                gateway.stream_closed(exchange, &line, reason);
            }
            None if exchange.body_is_late() => exchange.error = Some("client_timeout"),
            None => exchange.error = Some("cut_off"),
        }
        gateway.settle(exchange, || line, exchange.status, exchange.bytes_sent, Instant::now());
    }
}

fn is_watched(exchange: &Exchange) -> bool {
    exchange.watched.as_ref().is_some_and(|watched| watched.stream.is_some())
}

/// Whether a response is one that may go on and on. A page without a length is taken for one too, for the moment that
/// it takes.
fn is_stream(method: &Method, response: &ResponseHeader) -> bool {
    match response.status {
        StatusCode::SWITCHING_PROTOCOLS => true,
        status if status.is_informational() => false,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => false,
        _ if *method == Method::HEAD => false,
        _ => {
            let kind = response.headers.get(header::CONTENT_TYPE);
            !response.headers.contains_key(header::CONTENT_LENGTH)
                || kind.is_some_and(|kind| is_event_stream(kind.as_bytes()))
        }
    }
}

/// By the value of its `Content-Type`.
pub fn is_event_stream(kind: &[u8]) -> bool {
    kind.get(..EVENT_STREAM.len()).is_some_and(|start| start.eq_ignore_ascii_case(EVENT_STREAM))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, fields: &[(&'static str, &str)]) -> ResponseHeader {
        let mut response = ResponseHeader::build(status, None).unwrap();
        for (name, value) in fields {
            response.insert_header(*name, *value).unwrap();
        }
        response
    }

    #[test]
    fn a_stream_is_known_by_its_head() {
        let (chunked, length) = (("transfer-encoding", "chunked"), ("content-length", "5"));
        for (status, fields, expected) in [
            (101, &[][..], true),
            (200, &[chunked], true),
            (500, &[chunked], true),
            (200, &[length, ("content-type", "Text/Event-Stream; charset=utf-8")], true),
            (200, &[length, ("content-type", "text/html")], false),
            (100, &[], false),
            (103, &[], false),
            (204, &[], false),
            (304, &[], false),
        ] {
            assert_eq!(is_stream(&Method::GET, &response(status, fields)), expected, "{status} {fields:?}");
        }
        assert!(!is_stream(&Method::HEAD, &response(200, &[])), "an answer to HEAD is its head");
    }
}
