//! Long-lived requests: how they are recognized.
//!
//! A request is put under watch when it turns out to be a stream, not before: one that is answered at once pays for
//! none of this. One that is cut never reaches `logging`; `dropped` records it.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use pingora::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;

use super::cancel::{self, cancel_on};
use super::context::RequestContext;
use super::dropped::CancellableRequest;
use super::gateway::Gateway;
use super::headers::response_kind::{Kind, kind};
use super::recheck::Admitted;
use super::record::RequestLine;
use super::request::RequestView;
use super::{error_response, recheck};
use crate::auth::streams::{NewStream, StreamsFull};
use crate::client_prefix::ClientPrefix;
use crate::client_prefix::UNKNOWN_CLIENT_IP;
use crate::config::Access;

impl Gateway {
    /// The head of a response has come: if it is a stream's, the request is watched from now on.
    pub(super) fn watch_response_head(
        &self,
        request: &RequestView<'_>,
        response: &ResponseHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        ctx.status = response.status.as_u16();
        if response.status == StatusCode::SWITCHING_PROTOCOLS
            && let Some(connection) = request.connection
        {
            connection.set_upgraded();
        }
        let kind = kind(&request.head.method, response);
        ctx.may_be_silent = kind != Kind::Page;
        if ctx.may_be_silent {
            cancel::mark_long_lived();
        }
        match kind {
            _ if ctx.stream.is_some() => Ok(()),
            Kind::Page => Ok(()),
            Kind::Stream => self.watch(request, ctx)?.map_err(|full| self.refused(full)),
            // An ordinary page of most applications, and over in a moment. One that is not is met again in
            // `watch_body_bytes`; until then it needs no place, and no table that is full may keep it from its reader.
            Kind::WithoutLength => {
                if ctx.identity.is_some() {
                    self.watch(request, ctx)?.ok();
                }
                Ok(())
            }
        }
    }

    /// Bytes of a body pass, one way or the other. Where they still do after an interval, the request is a stream.
    pub(super) fn watch_body_bytes(
        &self,
        request: &RequestView<'_>,
        body: Option<&Bytes>,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        if body.is_none_or(Bytes::is_empty) {
            return Ok(());
        }
        if ctx.stream.is_none() {
            let lasts = ctx.begun.elapsed() >= self.stream_interval(ctx);
            // Under a new configuration, a response that still sends is checked against it at once.
            if lasts || self.snapshot.load().generation != ctx.snapshot.generation {
                let watched = self.watch(request, ctx)?;
                // A public body has no session that it could outlive.
                if let (Err(full), true, true) = (watched, lasts, ctx.identity.is_some()) {
                    return Err(self.refused(full));
                }
            }
        }
        if let Some(stream) = &ctx.stream {
            stream.note_activity();
        }
        Ok(())
    }

    /// How long bytes of a request may pass before it is a stream.
    fn stream_interval(&self, ctx: &RequestContext) -> Duration {
        let guard = &ctx.snapshot.guard;
        let of = |identity| guard.stream_interval(identity);
        ctx.identity.as_ref().map_or_else(|| guard.public_stream_interval(), of)
    }

    /// Does nothing for a request that was let in nowhere. The inner error is that there is no place.
    fn watch(&self, request: &RequestView<'_>, ctx: &mut RequestContext) -> Result<Result<(), StreamsFull>> {
        let Some(service) = &ctx.service else { return Ok(Ok(())) };
        let Some(admitted) = Admitted::of(request, ctx, &self.snapshot) else { return Ok(Ok(())) };
        let (snapshot, route) = (&ctx.snapshot, service.at(ctx.route));
        let demanded = if ctx.identity.is_some() { &route.config.access } else { &Access::Public };
        let opening = NewStream {
            terms: recheck::terms(service, route, demanded, ctx.client_certificate.clone()),
            admission: Box::new(admitted),
            generation: snapshot.generation,
            most: snapshot.limits.streams,
        };
        let opened = match &ctx.identity {
            Some(identity) => snapshot.guard.register_stream(identity, opening),
            None => snapshot
                .guard
                .register_public_stream(ClientPrefix::of(ctx.client.unwrap_or(UNKNOWN_CLIENT_IP)), opening),
        };
        match opened {
            Err(full) => Ok(Err(full)),
            Ok((stream, signal)) => {
                cancel_on(signal)?;
                self.record_if_cancelled(request, ctx);
                ctx.stream = Some(stream);
                Ok(Ok(()))
            }
        }
    }

    /// Refuses a stream that cannot be watched: it would outlive its session, or the rules that admitted it.
    fn refused(&self, full: StreamsFull) -> Box<Error> {
        self.metrics.limit_reached(match full {
            StreamsFull::Total => "streams",
            StreamsFull::Share => "streams_per_user",
        });
        Error::new_in(ErrorType::Custom(error_response::TOO_MANY_STREAMS))
    }

    /// From now on the request is recorded even if it is dropped.
    pub(super) fn record_if_cancelled(&self, request: &RequestView<'_>, ctx: &mut RequestContext) {
        ctx.on_drop.get_or_insert_with(|| {
            Box::new(CancellableRequest { gateway: self.clone(), line: RequestLine::of(request.head) })
        });
    }
}
