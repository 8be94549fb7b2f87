//! An answer on its way to a client over HTTP/1.1.

use std::io;

use http::{Method, StatusCode, header};
use pingora::{Error, ErrorType, OrErr, Result};
use pingora_core::protocols::http::date::get_cached_date;
use pingora_http::ResponseHeader;
use tokio::io::AsyncWriteExt;

use super::Client;

/// Most heads are shorter.
const HEAD: usize = 1024;

pub struct Answer<'a, C> {
    client: &'a mut C,
    method: &'a Method,
    /// 0 before there is one.
    status: u16,
    body: Body,
    keeps: bool,
    is_whole: bool,
}

/// How the client knows where the body ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    None,
    /// It was told its length.
    Length,
    Chunked,
}

impl<'a, C: Client> Answer<'a, C> {
    /// `keeps`: whether the connection may be used again.
    pub fn new(client: &'a mut C, method: &'a Method, keeps: bool) -> Self {
        Self { client, method, status: 0, body: Body::None, keeps, is_whole: false }
    }

    pub fn client(&mut self) -> &mut C {
        self.client
    }

    /// Of the answer whose head was written, if any.
    pub const fn status(&self) -> u16 {
        self.status
    }

    pub const fn keeps(&self) -> bool {
        self.keeps
    }

    /// Whether nothing is missing of it.
    pub const fn is_whole(&self) -> bool {
        self.is_whole
    }

    pub const fn close(&mut self) {
        self.keeps = false;
    }

    /// `end`: nothing follows.
    pub async fn head(&mut self, response: &mut ResponseHeader, end: bool) -> Result<()> {
        let is_interim = response.status.is_informational();
        if !is_interim {
            self.body = framing(self.method, response, end)?;
            self.status = response.status.as_u16();
        }
        for name in ["connection", "keep-alive", "proxy-connection"] {
            response.remove_header(name);
        }
        let mut wire = Vec::with_capacity(HEAD);
        wire.extend_from_slice(b"HTTP/1.1 ");
        wire.extend_from_slice(response.status.as_str().as_bytes());
        wire.push(b' ');
        wire.extend_from_slice(response.get_reason_phrase().unwrap_or_default().as_bytes());
        wire.extend_from_slice(b"\r\n");
        response.header_to_h1_wire(&mut wire);
        if !is_interim {
            // RFC 9110 §6.6.1: whoever has a clock adds what is missing.
            if !response.headers.contains_key(header::DATE) {
                wire.extend_from_slice(b"Date: ");
                wire.extend_from_slice(get_cached_date().as_bytes());
                wire.extend_from_slice(b"\r\n");
            }
            let connection: &[u8] = if self.keeps { b"Connection: keep-alive\r\n" } else { b"Connection: close\r\n" };
            wire.extend_from_slice(connection);
        }
        wire.extend_from_slice(b"\r\n");
        self.write(&wire).await?;
        if is_interim { self.flush().await } else { Ok(()) }
    }

    pub async fn piece(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() || self.body == Body::None {
            return Ok(());
        }
        if self.body == Body::Length {
            return self.write(bytes).await;
        }
        self.write(format!("{:X}\r\n", bytes.len()).as_bytes()).await?;
        self.write(bytes).await?;
        self.write(b"\r\n").await
    }

    pub async fn finish(&mut self) -> Result<()> {
        if self.body == Body::Chunked {
            self.write(b"0\r\n\r\n").await?;
        }
        self.is_whole = true;
        self.flush().await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.client.write_all(bytes).await.map_err(gone)
    }

    async fn flush(&mut self) -> Result<()> {
        self.client.flush().await.map_err(gone)
    }
}

fn gone(error: io::Error) -> Box<Error> {
    let kind = match error.kind() {
        io::ErrorKind::TimedOut => ErrorType::WriteTimedout,
        _ => ErrorType::WriteError,
    };
    Error::because(kind, "an answer to a client", error).into_down()
}

/// Makes the head say how its body ends. Pingora has taken out a length beside a coding, and refused lengths that
/// disagree.
fn framing(method: &Method, response: &mut ResponseHeader, end: bool) -> Result<Body> {
    let bodiless = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&response.status);
    if bodiless || *method == Method::HEAD {
        return Ok(Body::None);
    }
    if let Some(coding) = response.headers.get(header::TRANSFER_ENCODING) {
        let is_single = response.headers.get_all(header::TRANSFER_ENCODING).iter().count() == 1;
        if !is_single || !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
            // Nobody asked for another, and nobody here can take it off.
            let text = "a transfer coding that is not `chunked`";
            return Err(Error::explain(ErrorType::InvalidHTTPHeader, text).into_up());
        }
        return Ok(Body::Chunked);
    }
    if response.headers.contains_key(header::CONTENT_LENGTH) {
        return Ok(Body::Length);
    }
    let (name, value) = if end { (header::CONTENT_LENGTH, "0") } else { (header::TRANSFER_ENCODING, "chunked") };
    response.insert_header(name, value).or_err(ErrorType::InternalError, "a body's end")?;
    Ok(if end { Body::Length } else { Body::Chunked })
}
