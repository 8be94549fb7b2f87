//! Reads and parses a request head for the fast path.

use std::future::poll_fn;
use std::io::Result;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header, request};
use tokio::io::ReadBuf;

use super::client_conn::Client;
use crate::proxy::headers::request_rules::{Connection, needs_full_path};

/// A longer head takes the full path. Those of browsers have 1 to 2 KiB.
const LONGEST: usize = 8192;

/// The largest number of header fields on the fast path.
const MOST_FIELDS: usize = 64;

pub struct Head {
    pub parts: request::Parts,
    /// The number of header fields as received.
    pub fields: usize,
    /// Whether the client requests to close the connection after the response (`Connection: close`).
    pub closes: bool,
}

/// Reads the bytes of a request that have arrived: at least its head, unless that is too long. `None` when the client has
/// closed.
pub async fn read<C: Client>(client: &mut C) -> Result<Option<Bytes>> {
    poll_fn(|context| {
        // The buffer is on the stack, so an idle connection holds no memory, and the copy is as long as what was read.
        let mut room = [const { MaybeUninit::uninit() }; LONGEST];
        let mut room = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut *client).poll_read(context, &mut room))?;
        let bytes = room.filled();
        Poll::Ready(Ok((!bytes.is_empty()).then(|| Bytes::copy_from_slice(bytes))))
    })
    .await
}

/// Parses `bytes`, which must be one complete head and nothing else. `None` for a request that takes the full path.
pub fn parse(bytes: &Bytes) -> Option<Head> {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(bytes, &mut fields).ok()?;
    if parsed != httparse::Status::Complete(bytes.len()) || request.version != Some(1) {
        return None;
    }
    let target = request.path.filter(|target| target.starts_with('/'))?;
    let mut parts = http::Request::new(()).into_parts().0;
    parts.method = match request.method? {
        "GET" => Method::GET,
        "HEAD" => Method::HEAD,
        _ => return None,
    };
    parts.uri = Uri::from_maybe_shared(bytes.slice_ref(target.as_bytes())).ok()?;
    parts.headers = HeaderMap::with_capacity(request.headers.len());
    let mut closes = false;
    for field in request.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        if name == header::CONNECTION {
            match Connection::of(field.value) {
                Connection::Other => return None,
                connection => closes |= connection == Connection::Close,
            }
        } else if needs_full_path(&name) {
            return None;
        } else {
            parts.headers.append(name, HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).ok()?);
        }
    }
    Some(Head { parts, fields: request.headers.len(), closes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(head: &str) -> Option<Head> {
        parse(&Bytes::copy_from_slice(head.as_bytes()))
    }

    #[test]
    fn an_ordinary_head_is_parsed() {
        let head = parsed("GET /a?b HTTP/1.1\r\nHost: a.test\r\nCookie: a=1\r\ncookie: b=2\r\nX: \r\n\r\n").unwrap();
        assert_eq!((head.parts.method, head.closes), (Method::GET, false));
        assert_eq!(head.parts.uri, "/a?b");
        let cookies: Vec<_> = head.parts.headers.get_all("cookie").iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
        assert_eq!(
            (head.parts.headers["host"].as_bytes(), head.parts.headers["x"].as_bytes()),
            (&b"a.test"[..], &b""[..])
        );
    }

    #[test]
    fn what_is_said_of_the_connection_is_heard_and_not_passed_on() {
        for (connection, closes) in [("close", true), ("Close", true), ("keep-alive", false), ("Keep-Alive", false)] {
            let head = parsed(&format!("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\n\r\n")).unwrap();
            assert_eq!((head.closes, head.fields, head.parts.headers.len()), (closes, 2, 1));
        }
    }

    #[test]
    fn whatever_is_out_of_the_ordinary_goes_the_long_way() {
        for line in ["POST / HTTP/1.1", "GET / HTTP/1.0", "GET http://a/ HTTP/1.1", "OPTIONS * HTTP/1.1"] {
            assert!(parsed(&format!("{line}\r\nHost: a\r\n\r\n")).is_none(), "{line}");
        }
        for field in [
            "Connection: X-Name",
            "Connection: close, X-Name",
            "Content-Length: 0",
            "Expect: 100-continue",
            "HTTP2-Settings: x",
            "Keep-Alive: 5",
            "Proxy-Authorization: x",
            "Proxy-Connection: close",
            "TE: trailers",
            "Trailer: x",
            "Transfer-Encoding: chunked",
            "Upgrade: websocket",
            "No-Colon",
        ] {
            assert!(parsed(&format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n")).is_none(), "{field}");
        }
        let fields = "X: y\r\n".repeat(MOST_FIELDS + 1);
        assert!(parsed(&format!("GET / HTTP/1.1\r\n{fields}\r\n")).is_none());
        assert!(parsed("GET / HTTP/1.1\r\nHost: a\r\n").is_none(), "half a head");
        assert!(parsed("GET / HTTP/1.1\r\nHost: a\r\n\r\nrest").is_none(), "more than a head");
    }
}
