//! An application's answer, where it is an ordinary one: a single whole head that says how long its body is.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, StatusCode, header, response};
use pingora_http::{ResponseHeader, header_value_from_raw};

/// Fields of one, at most.
const MOST_FIELDS: usize = 64;

pub struct Ordinary {
    pub head: ResponseHeader,
    /// Of the body.
    pub length: usize,
    /// Where the body begins.
    pub body: usize,
    /// Whether the application keeps the connection.
    pub keeps: bool,
}

/// The answer that `bytes` begin with. `None` for whatever is out of the ordinary.
pub fn parse(bytes: &Bytes, method: &Method) -> Option<Ordinary> {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut response, bytes, &mut fields).ok()?;
    let httparse::Status::Complete(body) = parsed else { return None };
    let status = StatusCode::from_u16(response.code?).ok()?;
    if response.version != Some(1) || status.is_informational() {
        return None;
    }
    let (mut length, mut keeps) = (None, true);
    let mut headers = HeaderMap::with_capacity(response.headers.len() + 4);
    for field in response.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        match name {
            header::TRANSFER_ENCODING => return None,
            // One, and nothing but digits.
            header::CONTENT_LENGTH if length.is_some() => return None,
            header::CONTENT_LENGTH => length = Some(number(field.value)?),
            header::CONNECTION => {
                let closes = field.value.eq_ignore_ascii_case(b"close");
                if !closes && !field.value.eq_ignore_ascii_case(b"keep-alive") {
                    return None;
                }
                keeps &= !closes;
                continue;
            }
            _ => {}
        }
        headers.append(name, header_value_from_raw(bytes.slice_ref(field.value)));
    }
    let bodiless = *method == Method::HEAD || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
    let length = if bodiless { 0 } else { length? };
    Some(Ordinary { head: build(status, response.reason, headers)?, length, body, keeps })
}

fn build(status: StatusCode, reason: Option<&str>, headers: HeaderMap) -> Option<ResponseHeader> {
    let mut parts: response::Parts = http::Response::new(()).into_parts().0;
    parts.status = status;
    parts.headers = headers;
    let mut head = ResponseHeader::from(parts);
    if reason != status.canonical_reason() {
        head.set_reason_phrase(reason).ok()?;
    }
    Some(head)
}

fn number(text: &[u8]) -> Option<usize> {
    // `parse` would take a sign.
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, method: &Method) -> Option<Ordinary> {
        parse(&Bytes::copy_from_slice(text.as_bytes()), method)
    }

    #[test]
    fn an_ordinary_answer_is_parsed_and_its_body_found() {
        let text = "HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n\r\nhello";
        let answer = parsed(text, &Method::GET).unwrap();
        assert_eq!((answer.length, &text[answer.body..], answer.keeps), (5, "hello", true));
        assert_eq!((answer.head.status, answer.head.get_reason_phrase()), (StatusCode::OK, Some("Fine")));
        assert_eq!(answer.head.headers.get_all("set-cookie").iter().count(), 2);
    }

    #[test]
    fn what_the_application_says_of_its_connection_is_heard_and_not_passed_on() {
        let twice = "close\r\nConnection: keep-alive";
        for (connection, keeps) in [("keep-alive", true), ("Keep-Alive", true), ("close", false), (twice, false)] {
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: {connection}\r\n\r\n");
            let answer = parsed(&text, &Method::GET).unwrap();
            assert_eq!((answer.keeps, answer.head.headers.len()), (keeps, 1), "{connection}");
        }
    }

    #[test]
    fn an_answer_that_has_no_body_needs_no_length_and_may_tell_one() {
        for (status, method) in
            [("200 OK", Method::HEAD), ("204 No Content", Method::GET), ("304 Not Modified", Method::GET)]
        {
            for length in ["", "Content-Length: 5\r\n"] {
                assert_eq!(parsed(&format!("HTTP/1.1 {status}\r\n{length}\r\n"), &method).unwrap().length, 0);
            }
        }
    }

    #[test]
    fn whatever_is_out_of_the_ordinary_is_left_to_pingora() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: upgrade\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: a\r\n b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n",
            "ICY 200 OK\r\nContent-Length: 5\r\n\r\n",
        ] {
            assert!(parsed(text, &Method::GET).is_none(), "{text}");
        }
    }
}
