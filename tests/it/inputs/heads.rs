//! Inputs 42 to 60: heads that servers read differently.

use super::{Row, Scene, request};

#[test]
fn a_head_that_servers_read_differently_is_refused_with_its_connection() {
    Scene::with("access: public").ask(&rows());
}

fn get(fields: &str) -> Vec<u8> {
    request("GET /", fields, "")
}

pub fn rows() -> Vec<Row> {
    let many: String = (0..300).map(|n| format!("A{n}: b\r\n")).collect();
    let mut rows = vec![
        Row::refused("42", 400, get("A: b\rc\r\n")),
        Row::refused("42", 400, get("A: b\r\r\n")),
        Row::refused("43", 400, "GET / HTTP/1.1\r\nHost: iqueue.test\n\n"),
        Row::refused("43", 400, "GET / HTTP/1.1\nHost: iqueue.test\n\n"),
        Row::refused("43", 400, "GET / HTTP/1.1\r\nHost: iqueue.test\nA: b\r\n\r\n"),
        Row::refused("43", 400, "GET / HTTP/1.1\r\nHost: iqueue.test\r\n\n"),
        Row::refused("44", 400, get(": x\r\n")),
        Row::refused("44", 400, get(":empty: x\r\n")),
        Row::refused("45", 400, get("Foo bar: x\r\n")),
        Row::refused("45", 400, get("Foo\tbar: x\r\n")),
        Row::refused("45", 400, get("Foo\r\n")),
        Row::refused("45", 400, get("A: b\r\n c\r\n")),
        Row::refused("46", 400, "GET / HTTP/1.1\r\n Host: iqueue.test\r\n\r\n"),
        Row::refused("47", 431, get(&many)),
        Row::refused("48", 431, get(&format!("A: {}\r\n", "a".repeat(40 * 1024)))),
    ];
    let long = format!("GET /{}", "a".repeat(20 * 1024));
    let row = Row::served("49", request(&long, "", ""), |seen| assert_eq!(seen.target.len(), 20 * 1024 + 1));
    rows.push(
        row.instead("a head has 32 KiB in all, and how it divides them is its own affair; above that it is a 431"),
    );
    rows.push(Row::refused("49", 431, request(&format!("GET /{}", "a".repeat(40 * 1024)), "", "")));
    for (number, status, line) in [
        ("50", 400, "GET  /  HTTP/1.1"),
        ("50", 400, "GET /a b HTTP/1.1"),
        ("50", 400, "GET / x HTTP/1.1"),
        ("51", 400, "GET / HTTP/1.1\t"),
        ("51", 400, "GET / HTTP/1.1 "),
        ("52", 400, "GET / HTTP/2.0"),
        ("52", 400, "GET / HTTP/1.2"),
        ("53", 400, "GET /"),
        ("54", 400, "PRI * HTTP/2.0"),
        ("55", 400, "GET / http/1.1"),
        ("57", 405, "TRACE / HTTP/1.1"),
        ("57", 405, "TRACK / HTTP/1.1"),
        ("58", 405, "CONNECT iqueue.test:443 HTTP/1.1"),
        ("58", 405, "CONNECT / HTTP/1.1"),
        ("59", 405, "FOO / HTTP/1.1"),
        ("59", 405, "get / HTTP/1.1"),
        ("60", 400, "GET * HTTP/1.1"),
        ("60", 400, "OPTIONS * HTTP/1.1"),
        ("60", 400, "GET a HTTP/1.1"),
        ("60", 400, "GET ?a HTTP/1.1"),
        ("60", 400, "GET /\u{e9} HTTP/1.1"),
        ("60", 400, "GET /\u{1} HTTP/1.1"),
        ("60", 400, "GET /<a> HTTP/1.1"),
        ("60", 400, "GET /?a=<b> HTTP/1.1"),
        ("60", 400, "GET /`a` HTTP/1.1"),
        ("60", 400, "GET /\"a\" HTTP/1.1"),
    ] {
        rows.push(Row::refused(number, status, format!("{line}\r\nHost: iqueue.test\r\n\r\n")));
    }
    rows
}
