//! A case of a combination, drawn: ordinary mostly in all that the combination leaves open, and each oddity often enough
//! to meet the others.

use std::fmt::Write as _;

use fastrand::Rng;

use super::combinations::{Break, Combination, Framing, Status};
use super::fields::{request_fields, response_field};
use crate::harness::observer::Protocol;
use crate::harness::scripted::Script;

pub struct Case {
    pub of: Combination,
    /// Before the query.
    pub folder: &'static str,
    pub query: &'static str,
    pub fields: Vec<(String, String)>,
    pub body: Option<&'static str>,
    pub script: Script,
    /// Whether its connection to the application was used before.
    pub is_warm: bool,
    /// Whether what the edge gets depends on what it has noticed already: of the end of a connection, or of a body.
    pub is_of_a_moment: bool,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { of, query, fields, body, script, is_warm, .. } = self;
        let mut said = script.said.escape_ascii().to_string();
        if said.len() > 400 {
            said.truncate(400);
            said.push('…');
        }
        write!(f, "{of:?} {query:?} {fields:?} {body:?}, said {said:?}, closes {}, warm {is_warm}", script.closes)
    }
}

pub fn draw(seed: u64) -> Case {
    let mut rng = Rng::with_seed(seed);
    let of = Combination::of(seed);
    let body = match of.method {
        _ if of.breaks == Break::EarlyResponse => Some("a=1&b=2"),
        "POST" => pick(&mut rng, &[Some("body"), Some("a=1&b=2"), None]),
        _ => pick(&mut rng, &[None, None, None, None, None, Some("body")]),
    };
    let is_mutated = of.breaks == Break::Nowhere && rng.usize(..16) == 0;
    let mut script = response(&mut rng, of);
    if is_mutated {
        let head = script.said.len().min(300);
        for _ in 0..=rng.usize(..3) {
            script.said[rng.usize(..head)] = rng.u8(..);
        }
        script.closes = true;
    }
    Case {
        of,
        folder: match of.status {
            Status::OfTheEdge => "/private",
            _ => pick(&mut rng, &["", "", "", "/changed"]),
        },
        query: pick(&mut rng, &["", "", "?a=1", "?a=%20b&c", "?"]),
        fields: request_fields(&mut rng, of.protocol == Protocol::Http2),
        body,
        script,
        is_warm: rng.usize(..3) == 0,
        is_of_a_moment: is_mutated || [Break::AtEnd, Break::EarlyResponse].contains(&of.breaks),
    }
}

pub fn pick<T: Clone>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(..of.len())].clone()
}

/// Bytes of a response, and whether they may be all that the application has to say.
fn response(rng: &mut Rng, of: Combination) -> Script {
    let body = "b".repeat(pick(rng, if of.breaks == Break::InBody { &SOME } else { &ANY }));
    let Framed { mut lines, body, mut closes, is_old } = framed(rng, of, &body);
    for _ in 0..rng.usize(..6) {
        lines.push(response_field(rng));
    }
    if closes || rng.usize(..8) == 0 {
        lines.push("Connection: close".into());
    }
    rng.shuffle(&mut lines);
    let (mut said, status) = (interim(rng, of), status(rng, of));
    write!(said, "HTTP/1.{} {status} {}\r\n", u8::from(!is_old), pick(rng, &["OK", "Fine", ""])).unwrap();
    lines.iter().for_each(|line| {
        said.push_str(line);
        said.push_str("\r\n");
    });
    said.push_str("\r\n");
    let head = said.len();
    let is_bodiless = of.method == "HEAD" || [101, 204, 304].contains(&status);
    // Bodies that must not be come whole with the head, or not at all: when they come later is a matter of time.
    if !is_bodiless || rng.usize(..4) == 0 {
        said.push_str(&body);
    } else if is_bodiless {
        closes = false;
    }
    let mut said = said.into_bytes();
    match of.breaks {
        Break::Nowhere | Break::EarlyResponse => {}
        Break::BeforeHead => said.clear(),
        Break::InHead => said.truncate(1 + rng.usize(..head - 1)),
        Break::AfterHead => said.truncate(head),
        Break::InBody => said.truncate(head + 1 + rng.usize(..said.len().saturating_sub(head + 1).max(1))),
        Break::AtEnd => {}
        Break::AfterResponse => {
            let more = ["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", "\r\n", "x", "0\r\n\r\n"];
            said.extend_from_slice(pick(rng, &more).as_bytes());
        }
    }
    let ends = [Break::BeforeHead, Break::InHead, Break::AfterHead, Break::InBody, Break::AtEnd].contains(&of.breaks);
    Script { said, late: Vec::new(), closes: closes || ends, early: of.breaks == Break::EarlyResponse }
}

const ANY: [usize; 9] = [0, 1, 5, 5, 100, 2000, 5000, 40_000, 70_000];
const SOME: [usize; 9] = [2, 5, 5, 5, 100, 2000, 5000, 40_000, 70_000];

fn interim(rng: &mut Rng, of: Combination) -> String {
    const HEADS: [&str; 3] = [
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 102 Processing\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n",
    ];
    let most = if of.status == Status::Interim { 1 + rng.usize(..3) } else { 0 };
    (0..most).map(|_| pick(rng, &HEADS)).collect()
}

fn status(rng: &mut Rng, of: Combination) -> u16 {
    match of.status {
        Status::Interim => pick(rng, &[200, 200, 204, 304, 404]),
        Status::Switching => 101,
        Status::Success | Status::OfTheEdge => pick(rng, &[200, 200, 201]),
        Status::NoContent => 204,
        Status::Partial => 206,
        Status::Redirect => pick(rng, &[301, 302, 303, 307, 308]),
        Status::NotModified => 304,
        Status::ClientError => pick(rng, &[400, 401, 403, 404, 404, 407, 418]),
        Status::ServerError => pick(rng, &[500, 500, 503, 599, 999]),
    }
}

struct Framed {
    /// Fields that say where the body ends.
    lines: Vec<String>,
    /// As it is sent.
    body: String,
    /// Whether its connection has to end with it.
    closes: bool,
    /// Whether it is said over HTTP/1.0.
    is_old: bool,
}

fn framed(rng: &mut Rng, of: Combination, body: &str) -> Framed {
    let length = body.len();
    let right = format!("Content-Length: {length}");
    let chunked = || "Transfer-Encoding: chunked".to_owned();
    let framing = of.framing;
    let of = |lines: &[String], body: String, closes| Framed { lines: lines.to_vec(), body, closes, is_old: false };
    match framing {
        Framing::NoBody if rng.bool() => of(&["Content-Length: 0".into()], String::new(), false),
        Framing::NoBody => of(&[], String::new(), true),
        Framing::Length => of(&[right], body.into(), false),
        Framing::LengthWrong => {
            let less = length.saturating_sub(1 + rng.usize(..3));
            let wrong = pick(
                rng,
                &[
                    format!("{}", length + 1),
                    format!("{}", length + 1000),
                    format!("{less}"),
                    format!("-{length}"),
                    format!("+{length}"),
                    format!("0x{length}"),
                    format!("0{length}"),
                    format!("{length};"),
                    String::new(),
                ],
            );
            of(&[format!("Content-Length: {wrong}")], body.into(), true)
        }
        Framing::LengthTwice => match rng.usize(..3) {
            0 => of(&[right.clone(), right], body.into(), false),
            1 => of(&[format!("content-length: {length}, {length}")], body.into(), false),
            _ => of(&[right, format!("Content-Length: {}", length + 1)], body.into(), true),
        },
        Framing::Chunked => of(&[chunked()], in_chunks(rng, body, ""), false),
        Framing::ChunkedTrailers => {
            let trailers = pick(rng, &["X-Sum: 1\r\n", "X-Sum: 1\r\nX-Two: 2\r\n", "Content-Length: 5\r\n"]);
            let said = if rng.bool() { vec![chunked(), "Trailer: X-Sum".into()] } else { vec![chunked()] };
            of(&said, in_chunks(rng, body, trailers), false)
        }
        Framing::ChunkedBad => {
            let size = pick(rng, &["zz", "-5", "0x5", "5 5", "", "fffffffffffffffff", "9"]);
            of(&[chunked()], format!("{size}\r\nhello\r\n0\r\n\r\n"), true)
        }
        Framing::Codings => match rng.usize(..4) {
            0 => of(&[chunked(), chunked()], in_chunks(rng, body, ""), false),
            1 => of(&["transfer-encoding: Chunked , chunked".into()], in_chunks(rng, body, ""), false),
            2 => of(&[chunked(), right], in_chunks(rng, body, ""), false),
            _ => {
                let coding = pick(rng, &["gzip", "gzip, chunked", "identity", "chunked, gzip"]);
                of(&[format!("Transfer-Encoding: {coding}")], in_chunks(rng, body, ""), true)
            }
        },
        Framing::CloseDelimited => of(&[], body.into(), true),
        Framing::Http10 => {
            let keeps = vec![right.clone(), "Connection: keep-alive".into()];
            let (lines, closes) =
                pick(rng, &[(vec![right], true), (keeps, false), (vec![], true), (vec![chunked()], true)]);
            Framed { is_old: true, ..of(&lines, body.into(), closes) }
        }
    }
}

fn in_chunks(rng: &mut Rng, body: &str, trailers: &str) -> String {
    let (mut left, mut said) = (body, String::new());
    while !left.is_empty() {
        let size = if rng.bool() { left.len() } else { 1 + rng.usize(..left.len()) };
        let extension = pick(rng, &["", "", "", ";a=b"]);
        write!(said, "{size:x}{extension}\r\n{}\r\n", &left[..size]).unwrap();
        left = &left[size..];
    }
    write!(said, "0\r\n{trailers}\r\n").unwrap();
    said
}
