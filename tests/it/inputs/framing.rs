//! Inputs 1 to 41: where a message ends.

use super::{Row, Scene, request};
use crate::harness::origin::Seen;

const HIDDEN: &str = "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: iqueue.test\r\n\r\n";

#[test]
fn a_message_whose_end_is_in_doubt_is_refused_with_its_connection() {
    Scene::with("access: public").ask(&rows());
}

fn post(fields: &str, body: &str) -> Vec<u8> {
    request("POST /", fields, body)
}

fn chunked(body: &str) -> Vec<u8> {
    post("Transfer-Encoding: chunked\r\n", body)
}

fn hello(seen: &Seen) {
    assert_eq!(seen.body, b"hello");
}

pub fn rows() -> Vec<Row> {
    let mut rows = lengths();
    rows.extend(codings());
    rows.extend(chunks());
    rows.extend(expectations_and_upgrades());
    rows
}

fn lengths() -> Vec<Row> {
    let mut rows = vec![
        Row::refused("1", 400, post("Content-Length: 13\r\nTransfer-Encoding: chunked\r\n", HIDDEN)),
        Row::refused("2", 400, post("Transfer-Encoding: chunked\r\nContent-Length: 13\r\n", HIDDEN)),
        Row::refused("2", 400, post("transfer-encoding: Chunked\r\ncontent-length: 0\r\n", HIDDEN)),
        Row::refused("3", 400, post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!")),
        Row::refused("4", 400, post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello")),
        Row::refused("5", 400, post("Content-Length: 5, 5\r\n", "hello")),
        Row::refused("5", 400, post("Content-Length: 5, 6\r\n", "hello!")),
    ];
    for (number, length) in [
        ("6", "+5"),
        ("7", "-1"),
        ("8", "0x5"),
        ("9", "5 5"),
        ("10", ""),
        ("11", "18446744073709551621"),
        ("12", "5_0"),
    ] {
        rows.push(Row::refused(number, 400, post(&format!("Content-Length: {length}\r\n"), "hello")));
    }
    rows
}

fn codings() -> Vec<Row> {
    let mut rows: Vec<Row> = [
        ("13", "Transfer-Encoding: xchunked\r\n"),
        ("14", "Transfer-Encoding: chunked, chunked\r\n"),
        ("17", "Transfer-Encoding: chunked, identity\r\n"),
        ("18", "Transfer-Encoding:\r\n chunked\r\n"),
        ("19", "Transfer-Encoding: chunked;a=b\r\n"),
        ("20", "Transfer-Encoding: \"chunked\"\r\n"),
        ("21", "Transfer-Encoding: \u{b}chunked\r\n"),
        ("22", "Transfer-Encoding: chunked\0\r\n"),
        ("23", "Transfer-Encoding : chunked\r\n"),
        ("25", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        ("25", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"),
    ]
    .into_iter()
    .map(|(number, fields)| Row::refused(number, 400, post(fields, HIDDEN)))
    .collect();
    for (number, coding) in [("15", "gzip, chunked"), ("16", "identity, chunked")] {
        let row = Row::refused(number, 400, post(&format!("Transfer-Encoding: {coding}\r\n"), HIDDEN));
        rows.push(
            row.instead("501 would say that another coding might be taken elsewhere; framing has one reply here"),
        );
    }
    let odd = post("Transfer_Encoding: chunked\r\nContent-Length: 5\r\n", "hello");
    rows.push(Row::served("24", odd, |seen| {
        hello(seen);
        assert!(!seen.headers.contains_key("transfer_encoding"));
    }));
    let old = format!("POST / HTTP/1.0\r\nHost: iqueue.test\r\nTransfer-Encoding: chunked\r\n\r\n{HIDDEN}");
    rows.push(Row::refused("26", 400, old));
    rows
}

fn chunks() -> Vec<Row> {
    let mut rows = vec![
        Row::refused("27", 400, chunked("5;\nhello\r\n0\r\n\r\n")),
        Row::refused("27", 400, chunked("5;a\nb\r\nhello\r\n0\r\n\r\n")),
        Row::refused("28", 400, chunked("0x5\r\nhello\r\n0\r\n\r\n")),
        Row::refused("29", 400, chunked("-5\r\nhello\r\n0\r\n\r\n")),
        Row::served("30", chunked("5 \r\nhello\r\n0\r\n\r\n"), hello),
        Row::refused("31", 400, chunked("\r\nhello\r\n0\r\n\r\n")),
        Row::refused("32", 400, chunked("5\r\nhello!!\r\n0\r\n\r\n")),
        Row::refused("33", 400, chunked("5\r\nhello\n0\r\n\r\n")),
        Row::refused("34", 400, chunked("FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n")),
        Row::refused("34", 400, chunked("fffffffffffffffe\r\nhello\r\n0\r\n\r\n")),
        Row::refused("35", 400, chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(9 * 1024)))),
        Row::refused("36", 400, chunked(&format!("5\r\nhello\r\n0\r\nA: {}\r\n\r\n", "a".repeat(65 * 1024)))),
    ];
    let trailers = "5;a=b\r\nhello\r\n0\r\nContent-Length: 50\r\nHost: evil.example\r\nAuthorization: x\r\n\
                    Cookie: __Host-JWTCookie=x\r\nX-Forwarded-User: root\r\n\r\n";
    rows.push(Row::served("37", chunked(trailers), |seen| {
        hello(seen);
        for name in ["content-length", "authorization", "cookie", "x-forwarded-user"] {
            assert_eq!(seen.one(name), None, "{name}");
        }
        assert_eq!(seen.one("host").as_deref(), Some("iqueue.test"));
    }));
    rows
}

fn expectations_and_upgrades() -> Vec<Row> {
    let whole = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    vec![
        Row::refused("40", 417, request("GET /", "Expect: 200-maybe\r\n", "")),
        // The application answers 200 to a handshake: what the client sent behind it is a request, and no tunnel's.
        Row::served("41", request("GET /socket", whole, ""), |seen| {
            assert_eq!(seen.one("upgrade").as_deref(), Some("websocket"));
        }),
        Row::refused("41b", 400, request("POST /", &format!("{whole}Content-Length: 0\r\n"), "")),
        Row::refused("41b", 400, request("GET /", &whole.replace("Connection: Upgrade\r\n", ""), "")),
        Row::refused("41b", 400, request("GET /", &whole.replace(": 13", ": 12"), "")),
        Row::refused("41b", 400, request("GET /", &format!("{whole}Origin: https://dextor.test\r\n"), "")),
        Row::refused("41b", 400, request("GET /", &format!("{whole}Content-Length: 5\r\n"), "hello")),
        Row::refused("41b", 400, request("GET /", &format!("{whole}Transfer-Encoding: chunked\r\n"), HIDDEN)),
        Row::served("41c", request("GET /", h2c, ""), |seen| {
            assert_eq!((seen.one("upgrade"), seen.one("http2-settings")), (None, None));
        }),
    ]
}
