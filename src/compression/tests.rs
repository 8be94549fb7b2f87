//! The choice, case by case; and what the encoders make can be read again.

use std::io::Read;

use super::encoder::Encoder;
use super::*;

const ALL: [Encoding; 3] = [Encoding::Zstd, Encoding::Br, Encoding::Gzip];

fn response(status: u16, fields: &[(&'static str, &str)]) -> ResponseHeader {
    let mut response = ResponseHeader::build(status, None).unwrap();
    response.insert_header("content-type", "text/html").unwrap();
    for (name, value) in fields {
        response.insert_header(*name, *value).unwrap();
    }
    response
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect()
}

fn chosen(fields: &[(&'static str, &str)], response: &ResponseHeader, offered: &[Encoding]) -> Choice {
    let headers = headers(fields);
    choose(RequestParts { method: &Method::GET, version: Version::HTTP_2, headers: &headers }, response, offered)
}

#[test]
fn the_client_says_what_it_takes_and_what_it_would_rather_have() {
    use Encoding::{Br, Gzip, Zstd};
    for (accepts, offered, expected) in [
        ("gzip, deflate, br, zstd", &ALL[..], Some(Zstd)),
        ("gzip, deflate, br, zstd", &[Gzip, Br], Some(Gzip)),
        ("gzip;q=0.9, br;q=0.5", &ALL, Some(Gzip)),
        ("GZIP ; Q=0.2", &ALL, Some(Gzip)),
        ("gzip;q=0, br", &[Gzip], None),
        ("gzip;q=2", &ALL, None),
        ("gzip;q=nan", &ALL, None),
        ("*", &ALL, None),
        ("deflate, identity", &ALL, None),
        ("", &ALL, None),
        ("gzipped", &ALL, None),
    ] {
        let expected = expected.map_or(Choice::IdentityVaries, Choice::Compress);
        assert_eq!(chosen(&[("accept-encoding", accepts)], &response(200, &[]), offered), expected, "{accepts}");
    }
    assert_eq!(chosen(&[], &response(200, &[]), &ALL), Choice::IdentityVaries);
}

#[test]
fn nothing_is_compressed_that_was_not_requested_or_that_is_no_text_or_must_stay_as_it_is() {
    let accepts = [("accept-encoding", "gzip")];
    let compressed = Choice::Compress(Encoding::Gzip);
    assert_eq!(chosen(&accepts, &response(200, &[]), &[]), Choice::Identity);
    for (status, name, value, expected) in [
        (200, "content-length", "1024", compressed),
        (200, "content-length", "1023", Choice::Identity),
        (404, "content-type", "application/problem+json; charset=utf-8", compressed),
        (200, "content-type", "image/svg+xml", compressed),
        (200, "content-type", "Application/JavaScript", compressed),
        (200, "content-type", "text/event-stream", Choice::Identity),
        (200, "content-type", "image/png", Choice::Identity),
        (200, "content-type", "application/grpc", Choice::Identity),
        (200, "content-type", "application/zip", Choice::Identity),
        (200, "content-encoding", "gzip", Choice::Identity),
        (200, "cache-control", "private, No-Transform", Choice::Identity),
        (200, "content-digest", "sha-256=:x:", Choice::Identity),
        (200, "trailer", "x-sum", Choice::Identity),
        (206, "content-range", "bytes 0-1/2", Choice::Identity),
        (206, "x", "y", Choice::Identity),
        (304, "x", "y", Choice::Identity),
        (101, "x", "y", Choice::Identity),
    ] {
        assert_eq!(chosen(&accepts, &response(status, &[(name, value)]), &ALL), expected, "{status} {name}: {value}");
    }
}

#[test]
fn what_another_sites_page_asks_for_and_what_could_not_be_framed_is_left_alone() {
    let accepts = ("accept-encoding", "gzip");
    for (site, expected) in [
        ("same-origin", Choice::Compress(Encoding::Gzip)),
        ("none", Choice::Compress(Encoding::Gzip)),
        ("same-site", Choice::IdentityVaries),
        ("cross-site", Choice::IdentityVaries),
        ("what", Choice::IdentityVaries),
    ] {
        assert_eq!(chosen(&[accepts, ("sec-fetch-site", site)], &response(200, &[]), &ALL), expected, "{site}");
    }
    let headers = headers(&[accepts]);
    for (method, version) in [(Method::HEAD, Version::HTTP_11), (Method::GET, Version::HTTP_10)] {
        let request = RequestParts { method: &method, version, headers: &headers };
        assert_eq!(choose(request, &response(200, &[]), &ALL), Choice::IdentityVaries);
    }
}

#[test]
fn the_head_of_a_compressed_response_says_nothing_of_the_bytes_that_it_had() {
    let mut head = response(200, &[("content-length", "5000"), ("accept-ranges", "bytes"), ("etag", "\"a\"")]);
    add_vary(&mut head).unwrap();
    add_vary(&mut head).unwrap();
    mark(&mut head, Encoding::Br).unwrap();
    let all = |name: &str| head.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(all("vary"), ["Accept-Encoding"]);
    assert_eq!(all("content-encoding"), ["br"]);
    assert_eq!(all("etag"), ["W/\"a\""]);
    assert_eq!(all("transfer-encoding"), ["chunked"]);
    assert!(all("content-length").is_empty() && all("accept-ranges").is_empty());
    for (before, after) in [("Cookie", 2), ("cookie, ACCEPT-ENCODING", 1), ("*", 1)] {
        let mut head = response(200, &[("vary", before)]);
        add_vary(&mut head).unwrap();
        assert_eq!(head.headers.get_all("vary").iter().count(), after, "{before}");
    }
}

fn decode(encoding: Encoding, bytes: &[u8]) -> Vec<u8> {
    let mut reader: Box<dyn Read> = match encoding {
        Encoding::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
        Encoding::Br => Box::new(brotli::Decompressor::new(bytes, 4096)),
        Encoding::Zstd => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
    };
    let mut text = Vec::new();
    // Where there is no end yet, what came before it counts.
    reader.read_to_end(&mut text).ok();
    text
}

#[test]
fn what_was_taken_can_be_read_at_once_where_it_is_flushed_and_whole_at_the_end() {
    for encoding in ALL {
        let mut encoder = Encoder::new(encoding).unwrap();
        let (mut sent, mut text) = (Vec::new(), Vec::new());
        for number in 0..100 {
            let piece = format!("line {number} of a hundred\n");
            text.extend_from_slice(piece.as_bytes());
            sent.extend_from_slice(&encoder.encode(piece.as_bytes(), true).unwrap());
            assert_eq!(decode(encoding, &sent), text, "{encoding:?} {number}");
        }
        sent.extend_from_slice(&encoder.finish().unwrap());
        assert_eq!(decode(encoding, &sent), text);

        let mut encoder = Encoder::new(encoding).unwrap();
        let large = text.repeat(1000);
        let mut sent = encoder.encode(&large, false).unwrap().to_vec();
        sent.extend_from_slice(&encoder.finish().unwrap());
        assert_eq!(decode(encoding, &sent), large);
        assert!(sent.len() * 20 < large.len(), "{encoding:?}: {}", sent.len());
    }
}
