//! Fields that a request or a response may have, ordinary ones and odd ones.

use fastrand::Rng;

use super::draw::pick;

pub fn request_fields(rng: &mut Rng, is_http2: bool) -> Vec<(String, String)> {
    const ANY: [(&str, &str); 17] = [
        ("user-agent", "test/1"),
        ("accept", "text/html"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip, br"),
        ("cookie", "a=1; b=2"),
        ("cookie", "__Host-JWTCookie=x; c=3"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-user", "eve"),
        ("x_odd", "1"),
        ("x-two", "1"),
        ("x-two", "2"),
        ("x-empty", ""),
        ("if-none-match", "\"a\""),
        ("range", "bytes=0-1"),
        ("authorization", "Basic eDp5"),
        ("x-request-id", "mine"),
        ("x-latin", "caf\u{e9}"),
    ];
    const HTTP1: [(&str, &str); 8] = [
        ("Connection", "close"),
        ("Connection", "keep-alive"),
        ("Connection", "x-two"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("TE", "trailers"),
        ("Trailer", "x-sum"),
        ("Proxy-Authorization", "Basic eDp5"),
    ];
    const HTTP2: [(&str, &str); 3] = [("te", "trailers"), ("trailer", "x-sum"), ("proxy-authorization", "Basic eDp5")];
    let mut fields = Vec::new();
    let own: &[(&str, &str)] = if is_http2 { &HTTP2 } else { &HTTP1 };
    for (pool, most) in [(&ANY[..], 5), (own, if rng.bool() { 0 } else { 2 })] {
        for _ in 0..rng.usize(..=most) {
            let (name, value) = pick(rng, pool);
            fields.push((name.to_owned(), value.to_owned()));
        }
    }
    fields
}

pub fn response_field(rng: &mut Rng) -> String {
    if rng.usize(..30) == 0 {
        return pick(
            rng,
            &[
                vec!["X-Many: y"; 80].join("\r\n"),
                vec!["X-Many: y"; 260].join("\r\n"),
                format!("X-Long: {}", "x".repeat(3000)),
                format!("X-Long: {}", "x".repeat(30_000)),
                format!("X-Long: {}", "x".repeat(140_000)),
            ],
        );
    }
    // What the fast path passes on or leaves out by itself, and what sends a head the full path.
    let ordinary = [
        "Content-Type: text/html; charset=utf-8",
        "Server: x",
        "Date: Thu, 01 Jan 1970 00:00:00 GMT",
        "ETag: \"a\"",
        "Vary: Accept",
        "Set-Cookie: a=1; Path=/",
        "set-cookie: b=2",
        "X-Request-Id: theirs",
        "X-Two: 1",
        "x-two:2",
        "X-Empty:",
        "X-Spaces: \t a  b \t",
        "X-Latin: caf\u{e9}",
        "Cache-Control: no-store",
        "Location: /elsewhere",
        "Connection: keep-alive",
        "X-Hop: 1",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: close",
        "Proxy-Authenticate: Basic",
        "Upgrade: h2,h2c",
        "TE: trailers",
        "Trailer: X-Sum",
        "WWW-Authenticate: Basic realm=x",
    ];
    let odd = [
        "content-type: text/event-stream",
        "Set-Cookie: __Host-JWTCookie=x",
        "X-Folded: a\r\n b",
        "X-Space : 1",
        "Connection: x-two, X-Hop",
        "Connection: Upgrade",
    ];
    let is_odd = rng.usize(..5) == 0;
    pick(rng, if is_odd { &odd[..] } else { &ordinary[..] }).to_owned()
}
