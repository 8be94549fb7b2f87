//! The bytes of an HTTP/1 head as the client sent them, before Pingora's parser has them.
//!
//! Pingora mends some heads while it parses (it escapes blanks in a target, takes a bare LF for the end of a line) and
//! refuses others by itself, past our replies and logs. So a head is judged here first, by the same parser and more
//! strictly: what passes is written in the one way that RFC 9112 knows, and Pingora refuses none of it. Pure; called
//! by `listener`, whose stream hands Pingora a [`placeholder_head`] for what does not pass.

use std::mem::MaybeUninit;

use httparse::{Error, Request, Status};

use super::{Malformed, has_ambiguous_target};
use crate::host::Authority;

/// Pingora's parser takes no more, whatever the configuration says.
const MOST_FIELDS: usize = 256;

/// More digits could overflow a server that counts in 64 bits.
const MOST_DIGITS: usize = 19;

/// What follows a head on its connection (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A body of so many bytes, or none.
    Length(u64),
    Chunked,
}

/// The length of the head that the bytes begin with; `None` while it is not whole. The first `seen` bytes have been
/// looked at before. Errors at the first line that does not end in CRLF: to some servers it is the end of a line, to
/// others not (RFC 9112 §2.2 allows both).
pub fn end(bytes: &[u8], seen: usize) -> Result<Option<usize>, Malformed> {
    // A byte that begins no method: a client that speaks another protocol is not waited for.
    if bytes.first().is_some_and(|first| !first.is_ascii_graphic() && *first != b'\r') {
        return Err(Malformed::Syntax);
    }
    for at in memchr::memchr_iter(b'\n', &bytes[seen..]).map(|at| at + seen) {
        if at == 0 || bytes[at - 1] != b'\r' {
            return Err(Malformed::Syntax);
        }
        if at >= 3 && bytes[at - 3..at - 1] == *b"\r\n" {
            return Ok(Some(at + 1));
        }
    }
    Ok(None)
}

/// Whether a whole head can be read in one way only, and what follows it.
pub fn check(head: &[u8]) -> Result<Framing, Malformed> {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut request = Request::new(&mut []);
    match request.parse_with_uninit_headers(head, &mut fields) {
        Ok(Status::Complete(end)) if end == head.len() => {}
        Err(Error::TooManyHeaders) => return Err(Malformed::HeaderTooLarge),
        _ => return Err(Malformed::Syntax),
    }
    // CONNECT asks for a tunnel. It has a form of target of its own, so it comes first.
    if request.method == Some("CONNECT") {
        return Err(Malformed::Method);
    }
    if has_ambiguous_target(head) || request.path.is_some_and(is_unwritten) {
        return Err(Malformed::Target);
    }
    let found = FramingFields::by(request.headers)?;
    if let Some(authority) = request.path.and_then(absolute_authority)
        && (found.host.is_some_and(|host| host != authority.as_bytes()) || Authority::parse(authority).is_err())
    {
        return Err(Malformed::Host);
    }
    match (found.coding, found.length) {
        (None, length) => length.map_or(Ok(Framing::Length(0)), framed_by_length),
        // HTTP/1.0 knows no codings: who forwarded this may not have either (RFC 9112 §6.1).
        (Some(coding), None) if request.version == Some(1) && coding.eq_ignore_ascii_case(b"chunked") => {
            Ok(Framing::Chunked)
        }
        _ => Err(Malformed::Framing),
    }
}

/// The fields that say whom a request is for and where it ends. Each stands once, or not at all.
#[derive(Default)]
struct FramingFields<'a> {
    host: Option<&'a [u8]>,
    length: Option<&'a [u8]>,
    coding: Option<&'a [u8]>,
}

impl<'a> FramingFields<'a> {
    fn by(fields: &[httparse::Header<'a>]) -> Result<Self, Malformed> {
        let mut found = Self::default();
        for field in fields {
            let (slot, twice) = match field.name.len() {
                4 if field.name.eq_ignore_ascii_case("host") => (&mut found.host, Malformed::Host),
                14 if field.name.eq_ignore_ascii_case("content-length") => (&mut found.length, Malformed::Framing),
                17 if field.name.eq_ignore_ascii_case("transfer-encoding") => (&mut found.coding, Malformed::Framing),
                _ => continue,
            };
            if slot.replace(field.value).is_some() {
                return Err(twice);
            }
        }
        // Host has no user information (RFC 9110 §7.2), and servers differ in which part of `user@host` they read.
        if found.host.is_some_and(|host| host.contains(&b'@')) {
            return Err(Malformed::Host);
        }
        Ok(found)
    }
}

/// RFC 9110 §8.6: digits and nothing else. A list of equal ones may be mended, or refused as here.
fn framed_by_length(text: &[u8]) -> Result<Framing, Malformed> {
    if text.is_empty() || text.len() > MOST_DIGITS || !text.iter().all(u8::is_ascii_digit) {
        return Err(Malformed::Framing);
    }
    Ok(Framing::Length(text.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))))
}

/// Bytes that no URI has (RFC 3986 §2), and that Pingora refuses. Browsers escape them.
fn is_unwritten(target: &str) -> bool {
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    memchr::memchr3(b'"', b'<', b'>', target.as_bytes()).is_some() || memchr::memchr(b'`', path.as_bytes()).is_some()
}

/// Of an absolute target, `http://AUTHORITY/…`.
fn absolute_authority(target: &str) -> Option<&str> {
    let target = Some(target).filter(|target| !target.starts_with('/'))?;
    target.split_once("://")?.1.split(['/', '?']).next()
}

/// A good head in the place of one that is not, for the reply and the log: as much of it as can be read.
pub fn placeholder_head(bytes: &[u8]) -> Vec<u8> {
    const LONGEST: usize = 1024;
    let mut lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = lines.find(|line| !line.is_empty()).unwrap_or_default();
    let mut words = first.splitn(2, |byte| *byte == b' ');
    let method = words.next().filter(|word| word.len() <= 16 && word.iter().all(u8::is_ascii_alphabetic));
    let target = words.next().unwrap_or_default();
    let target = memchr::memmem::rfind(target, b" HTTP/").map_or(target, |at| &target[..at]);
    let mut head = Vec::with_capacity(256);
    head.extend_from_slice(method.filter(|word| !word.is_empty()).unwrap_or(b"-"));
    head.push(b' ');
    if !target.starts_with(b"/") {
        head.push(b'/');
    }
    for byte in target.iter().take(LONGEST) {
        let plain = byte.is_ascii_graphic() && !b"#\\\"<>`".contains(byte);
        if plain { head.push(*byte) } else { head.extend_from_slice(format!("%{byte:02X}").as_bytes()) }
    }
    head.extend_from_slice(b" HTTP/1.1\r\n");
    let mut named = false;
    for line in lines.take(MOST_FIELDS) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let legible = value.len() <= LONGEST && value.iter().all(|byte| (0x20..0x7f).contains(byte));
        let wanted = match name.to_ascii_lowercase().as_slice() {
            b"host" => !std::mem::replace(&mut named, true) && !value.contains(&b'@'),
            b"accept" | b"x-forwarded-for" | b"x-request-id" => true,
            _ => false,
        };
        if legible && wanted {
            head.extend_from_slice(line);
            head.extend_from_slice(b"\r\n");
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str, fields: &str) -> Result<Framing, Malformed> {
        check(format!("{line}\r\nHost: a.test\r\n{fields}\r\n").as_bytes())
    }

    #[test]
    fn a_good_head_says_what_follows_it() {
        assert_eq!(of("GET /a?b HTTP/1.1", ""), Ok(Framing::Length(0)));
        assert_eq!(of("GET http://a.test/ HTTP/1.0", ""), Ok(Framing::Length(0)));
        assert_eq!(of("POST / HTTP/1.1", "content-LENGTH: 0017 \r\n"), Ok(Framing::Length(17)));
        assert_eq!(of("POST / HTTP/1.1", "Transfer-Encoding:\tChunked\r\n"), Ok(Framing::Chunked));
        assert_eq!(of("POST / HTTP/1.1", "Content-Length-Hint: x\r\nA: \u{e9}\r\nB:\r\n"), Ok(Framing::Length(0)));
    }

    #[test]
    fn what_two_servers_read_in_two_ways_is_refused() {
        let framing = [
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length:\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 18446744073709551621\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
        ];
        for fields in framing {
            assert_eq!(of("POST / HTTP/1.1", fields), Err(Malformed::Framing), "{fields:?}");
        }
        assert_eq!(of("POST / HTTP/1.0", "Transfer-Encoding: chunked\r\n"), Err(Malformed::Framing));
        for fields in
            ["A: b\n", "A: b\r\n c\r\n", "A b: c\r\n", "A : b\r\n", ": b\r\n", "A\r\n", "A: b\rc\r\n", "A: \0\r\n"]
        {
            let head = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
            let whole = end(head.as_bytes(), 0).map(|end| check(&head.as_bytes()[..end.unwrap()]));
            assert!(matches!(whole, Err(Malformed::Syntax) | Ok(Err(Malformed::Syntax))), "{fields:?}: {whole:?}");
        }
        for line in
            ["GET /a b HTTP/1.1", "GET  / HTTP/1.1", "GET / HTTP/1.2", "GET /", "GET / http/1.1", "GET /\t HTTP/1.1"]
        {
            assert!(matches!(of(line, ""), Err(Malformed::Syntax | Malformed::Target)), "{line}");
        }
        for line in [
            "GET /<a> HTTP/1.1",
            "GET /?a=<b HTTP/1.1",
            "GET /?a=\"b HTTP/1.1",
            "GET /` HTTP/1.1",
            "GET /a#b HTTP/1.1",
            "GET /\\a HTTP/1.1",
            "GET a HTTP/1.1",
            "OPTIONS * HTTP/1.1",
        ] {
            assert_eq!(of(line, ""), Err(Malformed::Target), "{line}");
        }
        for (line, fields) in [
            ("GET / HTTP/1.1", "Host: a.test\r\n"),
            ("GET http://b.test/ HTTP/1.1", ""),
            ("GET http:///a HTTP/1.1", ""),
            ("GET http://x@a.test/ HTTP/1.1", ""),
        ] {
            assert_eq!(of(line, fields), Err(Malformed::Host), "{line} {fields}");
        }
        assert_eq!(check(b"GET / HTTP/1.1\r\nHost: x@a.test\r\n\r\n"), Err(Malformed::Host));
        assert_eq!(of("CONNECT a.test:443 HTTP/1.1", ""), Err(Malformed::Method));
        assert_eq!(of("GET / HTTP/1.1", &"A: b\r\n".repeat(300)), Err(Malformed::HeaderTooLarge));
    }

    #[test]
    fn a_head_ends_at_its_first_blank_line_wherever_it_is_cut() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for seen in 0..head.len() {
            assert_eq!(end(&head[..seen], 0), Ok(None));
            assert_eq!(end(&[head, &b"\r\n\r\n"[..]].concat(), seen.saturating_sub(1)), Ok(Some(head.len())));
        }
        assert_eq!(end(b"GET / HTTP/1.1\n", 0), Err(Malformed::Syntax));
        assert_eq!(end(b"\x16\x03\x01", 0), Err(Malformed::Syntax));
    }

    #[test]
    fn what_stands_in_for_a_head_is_good_and_says_what_could_be_read() {
        let shown = |head: &[u8]| String::from_utf8(placeholder_head(head)).unwrap();
        let odd = b"\r\nGET /a b#c\xff<` HTTP/1.1\nHost: a.test\nHost: b.test\r\nAccept: text/html\r\nX: y\r\nAcc";
        assert_eq!(shown(odd), "GET /a%20b%23c%FF%3C%60 HTTP/1.1\r\nHost: a.test\r\nAccept: text/html\r\n\r\n");
        assert_eq!(shown(b""), "- / HTTP/1.1\r\n\r\n");
        assert_eq!(shown(b"CONNECT a:443 HTTP/1.1\r\nHost: x@y\r\n"), "CONNECT /a:443 HTTP/1.1\r\n\r\n");
        assert_eq!(shown(b"\x16\x03\x01"), "- / HTTP/1.1\r\n\r\n");
    }
}
