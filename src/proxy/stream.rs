//! Requests that last: which they are, and what becomes of one that is cut.
//!
//! A request is put under watch when it turns out to be a stream, not before: one that is answered at once pays for
//! none of this. One that is cut never reaches `logging`, and is settled here by what was kept of it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode, header};
use pingora::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;

use super::admission::Admitted;
use super::asking::Asking;
use super::client::NOBODY;
use super::cut::{self, cut_on};
use super::exchange::Exchange;
use super::line::RequestLine;
use super::{Gateway, admission, rescue};
use crate::audit_log::{self, Event};
use crate::auth::streams::{Full, OpenStream, Opening, Over};
use crate::config::Access;
use crate::network::Network;

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
        let kind = kind(&asking.head.method, response);
        if kind != Kind::Page {
            cut::lasts();
        }
        match kind {
            _ if is_watched(exchange) => Ok(()),
            Kind::Page => Ok(()),
            Kind::Stream => self.watch(asking, exchange)?.map_err(|full| self.refused(full)),
            // An ordinary page of most applications, and over in a moment. One that is not is met again in
            // `bytes_passed`; until then it needs no place, and no table that is full may keep it from its reader.
            Kind::WithoutLength => {
                if exchange.identity.is_some() {
                    self.watch(asking, exchange)?.ok();
                }
                Ok(())
            }
        }
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
        if !is_watched(exchange) {
            let lasts = exchange.begun.elapsed() >= self.stream_interval(exchange);
            // What moves while there is a new configuration is to be held against that at once.
            if lasts || self.snapshot.load().generation != exchange.snapshot.generation {
                let watched = self.watch(asking, exchange)?;
                // A public body has no session that it could outlive.
                if let (Err(full), true, true) = (watched, lasts, exchange.identity.is_some()) {
                    return Err(self.refused(full));
                }
            }
        }
        if let Some(stream) = exchange.watched.as_ref().and_then(|watched| watched.stream.as_ref()) {
            stream.moved();
        }
        Ok(())
    }

    /// How long bytes of a request may pass before it is a stream.
    fn stream_interval(&self, exchange: &Exchange) -> Duration {
        let guard = &exchange.snapshot.guard;
        let of = |identity| guard.stream_interval(identity);
        exchange.identity.as_ref().map_or_else(|| guard.public_stream_interval(), of)
    }

    /// Does nothing for a request that was let in nowhere. The inner error is that there is no place.
    fn watch(&self, asking: &Asking<'_>, exchange: &mut Exchange) -> Result<Result<(), Full>> {
        let Some(service) = &exchange.service else { return Ok(Ok(())) };
        let Some(admitted) = Admitted::of(asking, exchange, &self.snapshot) else { return Ok(Ok(())) };
        let (snapshot, route) = (&exchange.snapshot, service.at(exchange.route));
        let demanded = if exchange.identity.is_some() { &route.access } else { &Access::Public };
        let opening = Opening {
            terms: admission::terms(service, route, demanded, exchange.client_certificate.clone()),
            admission: Box::new(admitted),
            generation: snapshot.generation,
            most: snapshot.limits.streams,
        };
        let opened = match &exchange.identity {
            Some(identity) => snapshot.guard.watch(identity, opening),
            None => snapshot.guard.watch_public(Network::of(exchange.client.unwrap_or(NOBODY)), opening),
        };
        match opened {
            Err(full) => Ok(Err(full)),
            Ok((stream, signal)) => {
                cut_on(signal)?;
                self.may_be_cut(asking, exchange).stream = Some(stream);
                Ok(Ok(()))
            }
        }
    }

    /// What cannot be watched is not let through: it would outlive its session, or the rules that it came in by.
    fn refused(&self, full: Full) -> Box<Error> {
        self.metrics.limit_reached(match full {
            Full::All => "streams",
            Full::Share => "streams_per_user",
        });
        Error::new_in(ErrorType::Custom(rescue::TOO_MANY_STREAMS))
    }

    /// From now on the request is settled even if it is cut.
    pub(super) fn may_be_cut<'a>(&self, asking: &Asking<'_>, exchange: &'a mut Exchange) -> &'a mut Watched {
        exchange.watched.get_or_insert_with(|| {
            let line = RequestLine::of(asking.head);
            Box::new(Watched { stream: None, gateway: self.clone(), line })
        })
    }

    fn stream_closed(&self, exchange: &Exchange, line: &RequestLine, over: &Over) {
        self.metrics.traffic.streams_closed.with_label_values(&[over.kind()]).inc();
        let entry = audit_log::Entry {
            event: Event::StreamClosed,
            client: exchange.client.unwrap_or(NOBODY),
            request_id: &exchange.request_id,
            user: exchange.user(),
            host: Some(line.authority()),
            reason: Some(over.label()),
        };
        self.audit.write(self.clock.now(), entry);
    }
}

impl Watched {
    /// The request was dropped half-way: by a signal, or with the whole process.
    pub fn settle(self, exchange: &mut Exchange) {
        let Self { stream, gateway, line } = self;
        match stream.as_ref().and_then(OpenStream::over) {
            Some(over) => {
                exchange.error = Some(if exchange.identity.is_some() { "session_ended" } else { "access_ended" });
                exchange.reason = Some(over.label());
                gateway.stream_closed(exchange, &line, over);
            }
            None if cut::is_exhausted() => {
                exchange.error = Some(cut::EXHAUSTED);
                gateway.metrics.limit_reached(cut::EXHAUSTED);
            }
            None if cut::is_abandoned() => exchange.error = Some("client_gone"),
            None if exchange.body_is_late() => exchange.error = Some("client_timeout"),
            None => exchange.error = Some("cut_off"),
        }
        gateway.settle(exchange, || line, exchange.status, exchange.bytes_sent, Instant::now());
    }
}

fn is_watched(exchange: &Exchange) -> bool {
    exchange.watched.as_ref().is_some_and(|watched| watched.stream.is_some())
}

/// What a response's head says of how long it may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It says how long it is, or has no body.
    Page,
    /// It may go on and on, or be an ordinary page.
    WithoutLength,
    Stream,
}

fn kind(method: &Method, response: &ResponseHeader) -> Kind {
    match response.status {
        StatusCode::SWITCHING_PROTOCOLS => Kind::Stream,
        status if status.is_informational() => Kind::Page,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => Kind::Page,
        _ if *method == Method::HEAD => Kind::Page,
        _ => {
            let kind = response.headers.get(header::CONTENT_TYPE);
            if kind.is_some_and(|kind| is_event_stream(kind.as_bytes())) {
                return Kind::Stream;
            }
            if response.headers.contains_key(header::CONTENT_LENGTH) { Kind::Page } else { Kind::WithoutLength }
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
            (101, &[][..], Kind::Stream),
            (200, &[chunked], Kind::WithoutLength),
            (500, &[chunked], Kind::WithoutLength),
            (200, &[length, ("content-type", "Text/Event-Stream; charset=utf-8")], Kind::Stream),
            (200, &[chunked, ("content-type", "text/event-stream")], Kind::Stream),
            (200, &[length, ("content-type", "text/html")], Kind::Page),
            (100, &[], Kind::Page),
            (103, &[], Kind::Page),
            (204, &[], Kind::Page),
            (304, &[], Kind::Page),
        ] {
            assert_eq!(kind(&Method::GET, &response(status, fields)), expected, "{status} {fields:?}");
        }
        assert_eq!(kind(&Method::HEAD, &response(200, &[])), Kind::Page, "an answer to HEAD is its head");
    }
}
