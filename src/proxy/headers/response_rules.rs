//! What of an application's response may go on to a client: the one home of these rules, for both request paths and for
//! every version of HTTP that a client speaks.
//!
//! `filter_response_head` calls [`sanitize`] for each head that Pingora has read, interim ones too. The fast path reads ordinary heads
//! by itself, field by field, and calls [`Field::of`] for each; a head that needs more than to have fields left out is
//! none of these, and comes here by way of `filter_response_head`.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};

use crate::framing::ends_with_head;
use crate::proxy::headers;

/// A response's head, at most: names, values and what separates them. Pingora reads up to a megabyte and 256 fields;
/// browsers take 256 KiB, and most servers' own limits are far below that.
pub const MOST_BYTES: usize = 128 << 10;
/// The same in fields, which is also the number at which Pingora's parser stops.
pub const MOST_FIELDS: usize = 256;

/// Fields that say something of one connection (RFC 9110 §7.6.1), and so end at the edge. `Connection` is one more, and
/// names others; `Upgrade` and `Trailer` depend on what they stand in. The last two would have a client sign in at a
/// proxy, and an application is none to it.
pub const HOP_BY_HOP: [&str; 5] =
    ["keep-alive", "proxy-connection", "te", "proxy-authenticate", "proxy-authentication-info"];

/// What has to be known of a field of a response, before it is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Of authentication at the application.
    Challenge,
    Coding,
    Connection,
    Cookie,
    Date,
    Length,
    Location,
    /// It belongs to the connection, or is said by the edge.
    NotPassed,
    /// It is not passed on either.
    ProxyChallenge,
    Type,
    Other,
}

impl Field {
    /// Without a copy of the name, and mostly with one look at its length.
    pub fn of(name: &str) -> Self {
        let one = |known: &str, field| if name.eq_ignore_ascii_case(known) { field } else { Self::Other };
        match name.len() {
            2 => one("te", Self::NotPassed),
            4 => one("date", Self::Date),
            7 if name.eq_ignore_ascii_case("trailer") => Self::NotPassed,
            7 => one("upgrade", Self::NotPassed),
            8 => one("location", Self::Location),
            10 if name.eq_ignore_ascii_case("keep-alive") => Self::NotPassed,
            10 if name.eq_ignore_ascii_case("connection") => Self::Connection,
            10 => one("set-cookie", Self::Cookie),
            12 if name.eq_ignore_ascii_case(headers::REQUEST_ID.as_str()) => Self::NotPassed,
            12 => one("content-type", Self::Type),
            14 => one("content-length", Self::Length),
            16 if name.eq_ignore_ascii_case("www-authenticate") => Self::Challenge,
            16 => one("proxy-connection", Self::NotPassed),
            17 => one("transfer-encoding", Self::Coding),
            18 => one("proxy-authenticate", Self::ProxyChallenge),
            25 => one("proxy-authentication-info", Self::NotPassed),
            _ => Self::Other,
        }
    }
}

/// Digits and nothing else: `parse` would take a sign.
pub fn length(text: &[u8]) -> Option<usize> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// The request that a response belongs to, as far as the rules depend on it.
#[derive(Clone, Copy)]
pub struct RequestFacts<'a> {
    pub method: &'a Method,
    pub version: Version,
    /// Whether trailers that the application sends reach the client.
    pub takes_trailers: bool,
}

/// Why a response cannot be passed on, in whatever form.
pub type Fault = &'static str;

/// What a head says of its application's connection, once it has been mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamSync {
    /// Its response ends where the head says.
    InSync,
    /// A body was announced where there can be none, and where its bytes come late they would begin the next response; or
    /// the application closes.
    OutOfSync,
}

/// Takes out of a response's fields what must not reach the client, and makes the rest say one thing. `version` is the
/// one that the application spoke. `Err` for a response whose end cannot be determined, or whose head is too large.
pub fn sanitize(
    status: StatusCode,
    version: Version,
    fields: &mut HeaderMap,
    request: RequestFacts<'_>,
) -> Result<UpstreamSync, Fault> {
    check_size(fields)?;
    let is_upgrade = status == StatusCode::SWITCHING_PROTOCOLS;
    let closes = remove_nominated(fields);
    for name in HOP_BY_HOP {
        fields.remove(name);
    }
    if !request.takes_trailers {
        fields.remove(header::TRAILER);
    }
    if is_upgrade {
        fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    } else {
        fields.remove(header::UPGRADE);
    }
    let is_coded = one_coding(version, fields)?;
    let length = one_length(fields, is_coded)?;
    if ends_with_head(status) {
        fields.remove(header::TRANSFER_ENCODING);
        fields.remove(header::CONTENT_LENGTH);
        let announced = is_coded || length.is_some_and(|length| length > 0);
        let is_of_another = status == StatusCode::NOT_MODIFIED;
        let is_in_doubt = closes || announced && !is_of_another;
        return Ok(if is_in_doubt { UpstreamSync::OutOfSync } else { UpstreamSync::InSync });
    }
    // A body without a length ends with its connection over HTTP/1.0, which has no chunks (RFC 9112 §6.1), and with its
    // stream over HTTP/2, which has no such field (RFC 9113 §8.2.2).
    if request.version != Version::HTTP_11 {
        fields.remove(header::TRANSFER_ENCODING);
    }
    Ok(if closes { UpstreamSync::OutOfSync } else { UpstreamSync::InSync })
}

fn check_size(fields: &HeaderMap) -> Result<(), Fault> {
    const SEPARATORS: usize = ": \r\n".len();
    let bytes: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + SEPARATORS).sum();
    if bytes > MOST_BYTES || fields.len() > MOST_FIELDS {
        return Err("a head that is too large");
    }
    Ok(())
}

/// RFC 9110 §7.6.1: each field that `Connection` names is for us alone, and so is `Connection`. But for the two that say
/// where the body ends: it was read by them.
///
/// Answers whether it says `close` in a place where Pingora does not look.
fn remove_nominated(fields: &mut HeaderMap) -> bool {
    let Some(first) = fields.get(header::CONNECTION) else { return false };
    let is_plain = |value: &HeaderValue| {
        [&b"close"[..], b"keep-alive"].iter().any(|plain| value.as_bytes().eq_ignore_ascii_case(plain))
    };
    let mut closes = false;
    // What nearly all say names no field.
    if !is_plain(first) || fields.get_all(header::CONNECTION).iter().nth(1).is_some() {
        let values = fields.get_all(header::CONNECTION).iter();
        let names = values.flat_map(|value| value.as_bytes().split(|b| *b == b','));
        let names: Vec<HeaderName> = names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect();
        // `Upgrade` is judged by the status.
        let spared = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::UPGRADE];
        for name in names.iter().filter(|name| !spared.contains(name)) {
            fields.remove(name);
        }
        closes = names.iter().any(|name| name == "close");
    }
    fields.remove(header::CONNECTION);
    closes
}

/// Whether the body came in chunks. Said twice, `chunked` says no more. Another coding was not requested and cannot be
/// taken off here; and where HTTP/1.0 says of its body that it is coded, its framing is faulty (RFC 9112 §6.1).
fn one_coding(version: Version, fields: &mut HeaderMap) -> Result<bool, Fault> {
    let header::Entry::Occupied(mut coding) = fields.entry(header::TRANSFER_ENCODING) else { return Ok(false) };
    if version < Version::HTTP_11 {
        return Err("a transfer coding over HTTP/1.0");
    }
    let mut codings = coding.iter().flat_map(|field| field.as_bytes().split(|b| *b == b','));
    if !codings.all(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"chunked")) {
        return Err("a transfer coding that is not `chunked`");
    }
    coding.insert(HeaderValue::from_static("chunked"));
    Ok(true)
}

/// The length that the fields agree on, said once (RFC 9110 §8.6). A coding overrides it (RFC 9112 §6.3).
fn one_length(fields: &mut HeaderMap, is_coded: bool) -> Result<Option<usize>, Fault> {
    let header::Entry::Occupied(mut said) = fields.entry(header::CONTENT_LENGTH) else { return Ok(None) };
    if is_coded {
        said.remove();
        return Ok(None);
    }
    let mut lengths =
        said.iter().flat_map(|field| field.as_bytes().split(|b| *b == b',')).map(|text| length(text.trim_ascii()));
    let first = lengths.next().flatten().ok_or("a length that is no number")?;
    if !lengths.all(|other| other == Some(first)) {
        return Err("lengths that disagree");
    }
    said.insert(HeaderValue::from(first));
    Ok(Some(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HTTP_11: RequestFacts<'static> =
        RequestFacts { method: &Method::GET, version: Version::HTTP_11, takes_trailers: false };

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(*name, HeaderValue::from_static(value));
        }
        fields
    }

    fn mended(
        status: u16,
        lines: &[(&'static str, &'static str)],
        request: RequestFacts<'_>,
    ) -> Result<Vec<String>, Fault> {
        let mut fields = fields(lines);
        sanitize(StatusCode::from_u16(status).unwrap(), Version::HTTP_11, &mut fields, request)?;
        let mut left: Vec<_> =
            fields.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        left.sort();
        Ok(left)
    }

    #[test]
    fn the_fast_path_leaves_out_what_mend_takes_out() {
        for name in HOP_BY_HOP.into_iter().chain(["trailer", "upgrade", "x-request-id"]) {
            for name in [name, &name.to_ascii_uppercase()] {
                assert!([Field::NotPassed, Field::ProxyChallenge].contains(&Field::of(name)), "{name}");
            }
        }
        assert_eq!(Field::of("connection"), Field::Connection);
    }

    #[test]
    fn what_belongs_to_the_connection_ends_here() {
        let lines = [
            ("connection", "close, X-Hop"),
            ("connection", "x-other , content-length, transfer-encoding, @, "),
            ("x-hop", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("proxy-authenticate", "Basic"),
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("upgrade", "h2,h2c"),
            ("content-length", "5"),
            ("x-kept", "1"),
        ];
        assert_eq!(mended(200, &lines, HTTP_11).unwrap(), ["content-length: 5", "x-kept: 1"]);
        let with_trailers = RequestFacts { takes_trailers: true, ..HTTP_11 };
        assert_eq!(mended(200, &[("trailer", "x-sum")], with_trailers).unwrap(), ["trailer: x-sum"]);
        let handshake = [("connection", "Upgrade, x-hop"), ("upgrade", "websocket"), ("x-hop", "1")];
        assert_eq!(mended(101, &handshake, HTTP_11).unwrap(), ["connection: upgrade", "upgrade: websocket"]);
    }

    #[test]
    fn a_coding_is_said_once_and_to_those_that_know_it() {
        for lines in [
            &[("transfer-encoding", "chunked")][..],
            &[("transfer-encoding", "Chunked, chunked")],
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "CHUNKED"), ("content-length", "3")],
        ] {
            assert_eq!(mended(200, lines, HTTP_11).unwrap(), ["transfer-encoding: chunked"]);
            for version in [Version::HTTP_10, Version::HTTP_2] {
                assert_eq!(mended(200, lines, RequestFacts { version, ..HTTP_11 }).unwrap(), [""; 0]);
            }
        }
        for coding in ["gzip, chunked", "chunked, gzip", "identity", "", "chunked,", "xchunked", "chunked;q=1"] {
            assert!(mended(200, &[("transfer-encoding", coding)], HTTP_11).is_err(), "{coding}");
        }
        let mut old = fields(&[("transfer-encoding", "chunked")]);
        assert!(sanitize(StatusCode::OK, Version::HTTP_10, &mut old, HTTP_11).is_err());
    }

    #[test]
    fn a_length_is_one_number() {
        for lines in [
            &[("content-length", "5")][..],
            &[("content-length", "5"), ("content-length", "5")],
            &[("content-length", "5, 5"), ("content-length", "05")],
        ] {
            assert_eq!(mended(200, lines, HTTP_11).unwrap(), ["content-length: 5"]);
        }
        for length in ["", "-5", "+5", "0x5", "5 5", "5,", "5, 6", "5;", "99999999999999999999"] {
            assert!(mended(200, &[("content-length", length)], HTTP_11).is_err(), "{length}");
        }
        assert!(mended(200, &[("content-length", "5"), ("content-length", "6")], HTTP_11).is_err());
    }

    #[test]
    fn what_has_no_body_says_nothing_of_one() {
        for (status, afterwards) in
            [(103, UpstreamSync::OutOfSync), (204, UpstreamSync::OutOfSync), (304, UpstreamSync::InSync)]
        {
            for line in [("transfer-encoding", "chunked"), ("content-length", "5")] {
                let mut fields = fields(&[line]);
                let status = StatusCode::from_u16(status).unwrap();
                assert_eq!(sanitize(status, Version::HTTP_11, &mut fields, HTTP_11), Ok(afterwards));
                assert!(fields.is_empty(), "{status} {line:?}");
            }
            let mut fields = fields(&[("content-length", "0")]);
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(sanitize(status, Version::HTTP_11, &mut fields, HTTP_11), Ok(UpstreamSync::InSync));
        }
        let head = RequestFacts { method: &Method::HEAD, ..HTTP_11 };
        assert_eq!(mended(200, &[("content-length", "5")], head).unwrap(), ["content-length: 5"]);
    }

    #[test]
    fn a_head_has_a_largest_size() {
        let mut large = HeaderMap::new();
        large.insert("x", HeaderValue::from_bytes(&vec![b'x'; MOST_BYTES]).unwrap());
        assert!(sanitize(StatusCode::OK, Version::HTTP_11, &mut large, HTTP_11).is_err());
        let mut many = HeaderMap::new();
        for _ in 0..=MOST_FIELDS {
            many.append("x", HeaderValue::from_static("y"));
        }
        assert!(sanitize(StatusCode::OK, Version::HTTP_11, &mut many, HTTP_11).is_err());
    }
}
