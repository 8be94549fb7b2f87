//! What a response's head says of how long it may last.

use http::{Method, StatusCode, header};
use pingora_http::ResponseHeader;

use crate::framing::is_bodiless;

const EVENT_STREAM: &[u8] = b"text/event-stream";

/// What a response's head says of how long it may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It says how long it is, or has no body.
    Page,
    /// It may go on and on, or be an ordinary page.
    WithoutLength,
    Stream,
}

pub fn kind(method: &Method, response: &ResponseHeader) -> Kind {
    match response.status {
        StatusCode::SWITCHING_PROTOCOLS => Kind::Stream,
        status if is_bodiless(status, method) => Kind::Page,
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
