//! Writes a file to a client, piece by piece, on both request paths.

use bytes::Bytes;
use pingora::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::context::RequestContext;
use super::downstream::writer::ResponseWriter;
use super::gateway::Gateway;
use super::headers::{self, route_fields};
use super::request::RequestView;
use super::respond::hsts;
use super::static_files::note_read_error;
use crate::files::FileResponse;
use crate::reply;

/// Where a file is written: a request path, as far as this needs to know it.
pub trait FileWriter: Send {
    /// What the edge has in hand of the request.
    fn request(&self) -> RequestView<'_>;

    /// `end`: there is no body.
    fn write_head(&mut self, head: Box<ResponseHeader>, end: bool) -> impl Future<Output = Result<()>> + Send;

    /// `end`: it is the last piece.
    fn write_piece(&mut self, piece: Bytes, end: bool) -> impl Future<Output = Result<()>> + Send;
}

/// On the fast path.
pub struct FastWriter<'a, W> {
    pub request: &'a RequestView<'a>,
    pub writer: &'a mut W,
}

/// On the full path.
pub struct FullWriter<'a>(pub &'a mut Session);

/// Writes a file. Errors when the client is gone or does not read, and when the file cannot be read to its end: the
/// connection is then closed, or the stream reset, so that the client does not take a part for the whole.
pub async fn write(
    gateway: &Gateway,
    file: FileResponse,
    mut writer: impl FileWriter,
    ctx: &mut RequestContext,
) -> Result<()> {
    let head = head(&file, writer.request().is_tls, ctx)?;
    ctx.status = file.status.as_u16();
    let Some(mut body) = file.body else { return writer.write_head(head, true).await };
    writer.write_head(head, false).await?;
    loop {
        let piece = match body.next().await {
            Ok(Some(piece)) => piece,
            Ok(None) => return Ok(()),
            Err(error) => {
                note_read_error(gateway, &error, ctx);
                return Err(Error::new_in(ErrorType::Custom(error.label())));
            }
        };
        let length = piece.len();
        let request = writer.request();
        // The last bytes of a response do not make it a long-lived stream.
        if !body.is_at_end() || ctx.on_drop.is_some() {
            gateway.watch_body_bytes(&request, Some(&piece), ctx)?;
        }
        let piece = gateway.hold(&request, piece, 0, ctx);
        writer.write_piece(piece, body.is_at_end()).await?;
        ctx.bytes_sent += length;
    }
}

/// The fields of the file, and the edge's own.
fn head(file: &FileResponse, is_tls: bool, ctx: &RequestContext) -> Result<Box<ResponseHeader>> {
    let mut head = ResponseHeader::build_no_case(file.status, Some(file.fields.len() + 2))?;
    for (name, value) in &file.fields {
        head.append_header(name.clone(), value.clone())?;
    }
    head.insert_header(headers::REQUEST_ID.clone(), ctx.request_id.value().clone())?;
    if let Some((name, value)) = hsts(is_tls, ctx.service.as_deref(), &ctx.snapshot) {
        head.insert_header(name, value)?;
    }
    route_fields::change_response(&mut head, ctx)?;
    Ok(Box::new(head))
}

impl<W: ResponseWriter> FileWriter for FastWriter<'_, W> {
    fn request(&self) -> RequestView<'_> {
        *self.request
    }

    async fn write_head(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.writer.write_head(head, end).await?;
        if end { self.writer.finish().await } else { Ok(()) }
    }

    async fn write_piece(&mut self, piece: Bytes, end: bool) -> Result<()> {
        self.writer.write_body(piece, end).await?;
        if end { self.writer.finish().await } else { Ok(()) }
    }
}

impl FileWriter for FullWriter<'_> {
    fn request(&self) -> RequestView<'_> {
        RequestView::of(self.0)
    }

    async fn write_head(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        reply::linger(self.0);
        self.0.write_response_header(head, end).await.map_err(Error::into_down)?;
        // Over HTTP/2 nothing else ends a stream without a body.
        if end { self.0.as_downstream_mut().finish_body().await.map_err(Error::into_down) } else { Ok(()) }
    }

    async fn write_piece(&mut self, piece: Bytes, end: bool) -> Result<()> {
        self.0.write_response_body(Some(piece), end).await.map_err(Error::into_down)
    }
}
