//! Compression: what is compressed, how it reads at the other end, and what is left alone.

use std::io::Read;

use hyper::Response as HttpResponse;

use crate::harness::raw::Answer;
use crate::harness::{Edge, Origin, Raw, edge, origin, raw};

fn text() -> String {
    (0..500).map(|number| format!("line {number} of what the application says\n")).collect()
}

/// By its path: `/small`, `/image`, anything else is a page with a strong validator.
fn application() -> Origin {
    Origin::answering(|seen| {
        let (kind, body) = match seen.target.as_str() {
            "/small" => ("text/html", "small".into()),
            "/image" => ("image/png", text()),
            _ => ("text/html; charset=utf-8", text()),
        };
        let response = HttpResponse::builder().header("content-type", kind).header("etag", "\"one\"");
        response.body(body.into()).unwrap()
    })
}

fn scene(keys: &str) -> (Edge, Origin) {
    let application = application();
    let edge = edge().service_with("iqueue", &application, &format!("access: public{keys}")).start();
    (edge, application)
}

fn ask(connection: &mut Raw, method: &str, host: &str, path: &str, fields: &str) -> Answer {
    connection.send(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")).answer().unwrap()
}

fn get(edge: &Edge, path: &str, fields: &str) -> Answer {
    ask(&mut raw(edge.address(), "iqueue.test"), "GET", "iqueue.test", path, fields)
}

fn decode(encoding: &str, bytes: &[u8]) -> String {
    let mut text = String::new();
    match encoding {
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_string(&mut text).unwrap(),
        "br" => brotli::Decompressor::new(bytes, 4096).read_to_string(&mut text).unwrap(),
        _ => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_string(&mut text).unwrap(),
    };
    text
}

#[test]
fn a_page_is_compressed_as_its_client_likes_and_says_so() {
    let (edge, application) = scene(", compression: [zstd, br, gzip]");
    let mut connection = raw(edge.address(), "iqueue.test");
    for encoding in ["gzip", "br", "zstd"] {
        let fields = format!("Accept-Encoding: {encoding}\r\n");
        let answer = ask(&mut connection, "GET", "iqueue.test", "/", &fields);
        assert_eq!(answer.header("content-encoding"), Some(encoding));
        assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
        assert_eq!(answer.header("etag"), Some("W/\"one\""));
        assert_eq!(answer.header("content-length"), None);
        assert!(answer.body.len() < text().len() / 4, "{encoding}: {} bytes", answer.body.len());
        assert_eq!(decode(encoding, &answer.body), text(), "{encoding}");
        assert_eq!(application.last().one("accept-encoding").as_deref(), Some(encoding), "and hears what it likes");
    }
    let best = ask(&mut connection, "GET", "iqueue.test", "/", "Accept-Encoding: gzip, br;q=0.9, zstd;q=0.9\r\n");
    assert_eq!(best.header("content-encoding"), Some("gzip"), "the client's wish counts before ours");
}

#[test]
fn what_is_not_compressed_arrives_as_the_application_sent_it() {
    let (edge, _application) = scene(", compression: [gzip], routes: [{path: /secret, compression: []}]");
    for (path, fields, varies) in [
        ("/", "", true),
        ("/", "Accept-Encoding: br\r\n", true),
        ("/", "Accept-Encoding: gzip;q=0\r\n", true),
        ("/", "Accept-Encoding: gzip\r\nSec-Fetch-Site: cross-site\r\n", true),
        ("/image", "Accept-Encoding: gzip\r\n", false),
        ("/small", "Accept-Encoding: gzip\r\n", false),
        ("/secret", "Accept-Encoding: gzip\r\n", false),
    ] {
        let answer = get(&edge, path, fields);
        assert_eq!(answer.header("content-encoding"), None, "{path} {fields}");
        assert_eq!(answer.header("vary").is_some(), varies, "{path} {fields}");
        assert_eq!(answer.header("etag"), Some("\"one\""));
        assert!(answer.text() == text() || path == "/small", "{path}");
    }
    let mut connection = raw(edge.address(), "iqueue.test");
    connection.send("HEAD / HTTP/1.1\r\nHost: iqueue.test\r\nAccept-Encoding: gzip\r\n\r\n");
    connection.hear("\r\n\r\n");
    let after = ask(&mut connection, "GET", "iqueue.test", "/small", "");
    assert_eq!(after.text(), "small", "nothing followed the head");
}

#[test]
fn nothing_is_compressed_unless_a_service_asks_for_it_and_our_own_pages_never() {
    let (edge, _application) = scene("");
    let answer = get(&edge, "/", "Accept-Encoding: gzip, br, zstd\r\n");
    assert_eq!((answer.header("content-encoding"), answer.header("vary")), (None, None));

    let guarded = origin("iqueue");
    let edge = crate::harness::edge().service_with("iqueue", &guarded, "compression: [gzip]").start();
    for (host, path, status) in
        [("sentry.test", "/login", 200), ("iqueue.test", "/", 401), ("iqueue.test", "/.sentry/currentUser", 200)]
    {
        let mut connection = raw(edge.address(), host);
        let answer = ask(&mut connection, "GET", host, path, "Accept-Encoding: gzip\r\nAccept: */*\r\n");
        assert_eq!((answer.status, answer.header("content-encoding")), (status, None), "{host}{path}");
    }
}
