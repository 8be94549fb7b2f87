//! Two readers of one head: what `hygiene` lets pass, Pingora reads, and finds the same end; and what stands in for the
//! others it reads as well. Else it would answer by itself, past our replies and logs, or a message would have two ends.
//!
//! The heads are good ones with changes drawn from a fixed seed, so that a failure can be had again.

use pingora_core::protocols::http::v1::server::HttpSession;
use sentry_edge::validate::head::{self, Framing};
use tokio::io::AsyncWriteExt;

use crate::harness::runtime;

const SEEDS: [&str; 6] = [
    "GET /a?b=c HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 12\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nAccept: text/html\r\n\r\n",
    "GET http://a.test:80/a HTTP/1.0\r\nHost: a.test:80\r\nConnection: close, x\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: [::1]:80\r\nUpgrade: websocket\r\nExpect: 100-continue\r\nTE: trailers\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nhost:a\r\nX-Forwarded-For: 1.2.3.4, 5.6.7.8\r\nCookie: a=b; c=d\r\n\r\n",
];

/// What stands in heads, and what servers disagree about.
const PIECES: [&str; 56] = [
    "\r\n",
    "\n",
    "\r",
    " ",
    "\t",
    ":",
    ": ",
    ",",
    ";",
    "#",
    "?",
    "/",
    "//",
    "\\",
    "@",
    "%",
    "%2f",
    "\0",
    "\u{b}",
    "\u{7f}",
    "\u{e9}",
    "\"",
    "<",
    "[",
    "]",
    "*",
    "HTTP/1.1",
    "HTTP/1.0",
    "HTTP/2.0",
    "http://",
    "https://a.test",
    "ftp://a/",
    "GET",
    "CONNECT",
    "Host: b",
    "Host: x@a",
    "Content-Length: 5",
    "Content-Length: 5, 5",
    "Content-Length: -1",
    "Content-Length: 99999999999999999999",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "chunked",
    "identity",
    "Connection: host",
    "0",
    "12",
    "a",
    "`",
    ">",
    "^",
    "{",
    "|",
    "'",
    "\u{a0}",
    "Transfer_Encoding: chunked",
];

fn changed(draw: &mut fastrand::Rng) -> Vec<u8> {
    let mut head = SEEDS[draw.usize(..SEEDS.len())].as_bytes().to_vec();
    for _ in 0..draw.usize(..4) {
        let at = draw.usize(..=head.len());
        let end = (at + draw.usize(..8)).min(head.len());
        match draw.u8(..3) {
            0 => drop(head.splice(at..at, PIECES[draw.usize(..PIECES.len())].bytes())),
            1 => drop(head.splice(at..end, PIECES[draw.usize(..PIECES.len())].bytes())),
            _ => drop(head.drain(at..end)),
        }
    }
    head
}

/// What Pingora makes of a head, and of what is due behind it: `None` when it answers by itself or waits for more.
async fn read(head: &[u8]) -> Option<(HttpSession, usize)> {
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    client.write_all(head).await.unwrap();
    client.write_all(BEHIND).await.unwrap();
    drop(client);
    let mut session = HttpSession::new(Box::new(server));
    session.read_request().await.ok()??;
    let mut body = 0;
    while let Some(part) = session.read_body_bytes().await.ok()? {
        body += part.len();
    }
    Some((session, body))
}

/// To a body of twelve bytes it is that, to chunks it is two, and else it is none's.
const BEHIND: &[u8] = b"2\r\nab\r\n0\r\n\r\n";

#[test]
fn what_is_let_pass_pingora_reads_and_finds_the_same_end() {
    let mut draw = fastrand::Rng::with_seed(0x5e17);
    let (mut passed, mut refused, mut wrong) = (0, 0, Vec::new());
    for _ in 0..30_000 {
        let bytes = changed(&mut draw);
        let shown = bytes.escape_ascii().to_string();
        let judged = match head::end(&bytes, 0) {
            Ok(None) => continue,
            Ok(Some(end)) => head::check(&bytes[..end]).map(|framing| (end, framing)),
            Err(malformed) => Err(malformed),
        };
        match judged {
            Ok((_, Framing::Length(length))) if length != 0 && length != 12 => {}
            Ok((end, framing)) => {
                passed += 1;
                let expected = match framing {
                    Framing::Length(length) => length as usize,
                    Framing::Chunked => 2,
                };
                match runtime().block_on(read(&bytes[..end])) {
                    None => wrong.push(format!("Pingora refuses {shown}")),
                    Some((_, body)) if body != expected => wrong.push(format!("Pingora reads {body} of {shown}")),
                    Some((session, _)) if session.get_headers_raw_bytes() != bytes[..end] => {
                        wrong.push(format!("Pingora mends {shown}"));
                    }
                    Some(_) => {}
                }
            }
            Err(_) => {
                refused += 1;
                let placeholder_head = head::placeholder_head(&bytes);
                let read = runtime().block_on(read(&placeholder_head));
                if read.is_none_or(|(_, body)| body != 0) {
                    wrong.push(format!("Pingora refuses {} for {shown}", placeholder_head.escape_ascii()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), passed + refused, wrong[..wrong.len().min(40)].join("\n"));
    assert!(passed > 2_000 && refused > 5_000, "{passed} passed, {refused} were refused");
}
