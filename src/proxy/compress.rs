//! Compresses a response where its route wants it and the client takes it, piece by piece as it passes.
//!
//! It is a module of Pingora, because a module is called for every way in which a body may end. It is made for the
//! responses
//! that are compressed and for no other.

use std::io;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, header};
use pingora::{ErrorType, OrErr, Result};
use pingora_core::modules::http::{HttpModule, HttpModuleBuilder, HttpModules, Module};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::cancel;
use super::client_connection::ClientConnection;
use super::compressors::{CompressionPermit, Reader};
use super::context::RequestContext;
use super::gateway::Gateway;
use crate::buffers::{Fill, Reservation};
use crate::client_prefix::ClientPrefix;
use crate::client_prefix::UNKNOWN_CLIENT_IP;
use crate::compression::encoder::{self, Encoder};
use crate::compression::{self, Choice, RequestParts};

fn reader(ctx: &RequestContext) -> Reader {
    match &ctx.identity {
        Some(identity) => Reader::User(identity.verified().claims().sub.as_str().into()),
        None => Reader::Client(ClientPrefix::of(ctx.client.unwrap_or(UNKNOWN_CLIENT_IP))),
    }
}

impl Gateway {
    /// The last to change a response's head.
    pub(super) fn compress(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &RequestContext,
    ) -> Result<()> {
        let Some(service) = &ctx.service else { return Ok(()) };
        let request = session.req_header();
        let parts = RequestParts { method: &request.method, version: request.version, headers: &request.headers };
        let choice = compression::choose(parts, response, &service.at(ctx.route).config.compression);
        if choice == Choice::Identity {
            return Ok(());
        }
        compression::add_vary(response)?;
        let Choice::Compress(encoding) = choice else { return Ok(()) };
        let account = ClientConnection::of(session.as_downstream()).and_then(|connection| connection.account.as_ref());
        let share = account.map(|account| account.reserve(encoder::bytes(encoding)));
        let has_room = account.is_none_or(|account| account.fill() == Fill::Low);
        let Some(place) = self.compressors.take(reader(ctx)).filter(|_| has_room) else {
            self.metrics.limit_reached("compressors");
            return Ok(());
        };
        let encoder = Encoder::new(encoding).or_err(ErrorType::InternalError, "no encoder")?;
        // A response with a Content-Length is complete at its application; one without may be produced bit by bit.
        let flushes = !response.headers.contains_key(header::CONTENT_LENGTH);
        compression::mark(response, encoding)?;
        let mut modules = HttpModules::new();
        modules.add_module(Box::new(Blank));
        session.downstream_modules_ctx = modules.build_ctx();
        if let Some(compressor) = session.downstream_modules_ctx.get_mut::<Compressor>() {
            compressor.work = Some(Work { encoder: Mutex::new(encoder), flushes, _place: place, _share: share });
        }
        Ok(())
    }
}

struct Blank;

impl HttpModuleBuilder for Blank {
    fn init(&self) -> Module {
        Box::new(Compressor::default())
    }
}

#[derive(Default)]
struct Compressor {
    /// Whether the head has gone out. A reply of ours in its stead is left alone.
    begun: bool,
    work: Option<Work>,
}

struct Work {
    /// Never locked: not all encoders may be looked at from several threads, and modules have to be.
    encoder: Mutex<Encoder>,
    flushes: bool,
    _place: CompressionPermit,
    /// Of what the client makes the edge hold: an encoder's memory lasts as long as its client takes to read.
    _share: Option<Reservation>,
}

impl Compressor {
    fn finish(&mut self) -> Result<Option<Bytes>> {
        let Some(work) = self.work.take().filter(|_| self.begun) else { return Ok(None) };
        let encoder = work.encoder.into_inner().unwrap_or_else(PoisonError::into_inner);
        or_broken(encoder.finish()).map(Some)
    }
}

/// What has gone out cannot be taken back, so the response breaks off.
fn or_broken<T>(result: io::Result<T>) -> Result<T> {
    result.or_err(ErrorType::InternalError, "while compressing")
}

#[async_trait]
impl HttpModule for Compressor {
    async fn response_header_filter(&mut self, response: &mut ResponseHeader, end: bool) -> Result<()> {
        if end {
            // There is no body, and no bytes are no compressed stream.
            response.remove_header(&header::CONTENT_ENCODING);
            self.work = None;
            return Ok(());
        }
        self.begun = response.headers.contains_key(header::CONTENT_ENCODING);
        Ok(())
    }

    fn response_body_filter(&mut self, body: &mut Option<Bytes>, end: bool) -> Result<()> {
        let Some(work) = self.work.as_mut().filter(|_| self.begun) else { return Ok(()) };
        let encoder = work.encoder.get_mut().unwrap_or_else(PoisonError::into_inner);
        let piece = body.take().unwrap_or_default();
        let mut made = or_broken(encoder.encode(&piece, work.flushes && !end))?;
        if end && let Some(rest) = self.finish()? {
            made = if made.is_empty() { rest } else { [made, rest].concat().into() };
        }
        *body = Some(made)
            .filter(|made| !made.is_empty())
            .map(|made| cancel::track_chunk(made, 0).unwrap_or_else(|made| made));
        Ok(())
    }

    /// Trailers cannot follow: Pingora lets a module end the body here, or send them. A response that announces
    /// trailers is not compressed.
    fn response_trailer_filter(&mut self, _trailers: &mut Option<Box<HeaderMap>>) -> Result<Option<Bytes>> {
        self.finish()
    }

    fn response_done_filter(&mut self) -> Result<Option<Bytes>> {
        self.finish()
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::super::compressors::CompressionSlots;
    use super::*;
    use crate::config::Encoding;

    fn compressor(flushes: bool) -> Compressor {
        let place = CompressionSlots::default().take(Reader::User("ada".into())).unwrap();
        let encoder = Mutex::new(Encoder::new(Encoding::Gzip).unwrap());
        Compressor { begun: false, work: Some(Work { encoder, flushes, _place: place, _share: None }) }
    }

    async fn with_its_head(flushes: bool) -> Compressor {
        let mut compressor = compressor(flushes);
        let mut head = ResponseHeader::build(200, None).unwrap();
        head.insert_header("content-encoding", "gzip").unwrap();
        compressor.response_header_filter(&mut head, false).await.unwrap();
        compressor
    }

    fn passed(compressor: &mut Compressor, piece: Option<&'static [u8]>, end: bool) -> Vec<u8> {
        let mut body = piece.map(Bytes::from_static);
        compressor.response_body_filter(&mut body, end).unwrap();
        assert_ne!(body, Some(Bytes::new()), "an empty chunk would end the body");
        body.unwrap_or_default().to_vec()
    }

    fn read(bytes: &[u8]) -> String {
        let mut text = String::new();
        flate2::read::GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
        text
    }

    #[tokio::test]
    async fn a_head_that_nothing_follows_is_not_called_compressed() {
        let mut compressor = compressor(true);
        let mut head = ResponseHeader::build(404, None).unwrap();
        head.insert_header("content-encoding", "gzip").unwrap();
        compressor.response_header_filter(&mut head, true).await.unwrap();
        assert!(!head.headers.contains_key("content-encoding"));
        assert_eq!(compressor.response_done_filter().unwrap(), None);
    }

    #[tokio::test]
    async fn a_body_is_whole_in_whichever_way_it_ends() {
        let mut with_a_piece = with_its_head(true).await;
        let mut sent = passed(&mut with_a_piece, Some(b"one "), false);
        sent.extend(passed(&mut with_a_piece, Some(b"two"), true));
        assert_eq!(read(&sent), "one two");
        assert_eq!(with_a_piece.response_done_filter().unwrap(), None, "it ends once");

        let mut with_nothing = with_its_head(false).await;
        let mut sent = passed(&mut with_nothing, Some(b"one"), false);
        sent.extend(passed(&mut with_nothing, None, true));
        assert_eq!(read(&sent), "one");

        let mut afterwards = with_its_head(false).await;
        let mut sent = passed(&mut afterwards, Some(b"one"), false);
        sent.extend(afterwards.response_done_filter().unwrap().unwrap());
        assert_eq!(read(&sent), "one");

        let mut with_trailers = with_its_head(false).await;
        let mut sent = passed(&mut with_trailers, Some(b"one"), false);
        sent.extend(with_trailers.response_trailer_filter(&mut None).unwrap().unwrap());
        assert_eq!(read(&sent), "one");
    }

    #[tokio::test]
    async fn a_reply_of_ours_in_the_place_of_what_was_to_be_compressed_is_left_alone() {
        let mut compressor = compressor(true);
        let mut head = ResponseHeader::build(503, None).unwrap();
        compressor.response_header_filter(&mut head, false).await.unwrap();
        assert_eq!(passed(&mut compressor, Some(b"sorry"), true), b"sorry");
        assert_eq!(compressor.response_done_filter().unwrap(), None);
    }
}
