//! The numbered list of bad inputs: what is sent, what comes back, and what the application sees of it.
//!
//! Each row is asked of a running edge with an application behind it that remembers everything. After each row, and
//! after all of them, the application has seen exactly the requests that it has answered: what we took for one message
//! it never took for two. What needs more than some bytes on a connection (keys, browsers, clocks) is tested where its
//! subject is; `elsewhere` says where, and together they leave no number out. The same rows are asked of nginx, see
//! NGINX.md.

mod agreement;
mod desync;
mod elsewhere;
mod framing;
mod heads;
mod hosts;
mod http2;
mod metadata;
mod nginx;
mod paths;

use std::net::SocketAddr;

use crate::harness::edge::TOKEN_COOKIE;
use crate::harness::origin::Seen;
use crate::harness::raw::Answer;
use crate::harness::{Edge, Origin, edge, origin, raw};

/// One input.
pub struct Row {
    /// Its number in the list. An input that has several forms has several rows.
    pub number: &'static str,
    pub sent: Vec<u8>,
    /// What the edge answers; 0: it closes without a word.
    pub status: u16,
    pub outcome: Outcome,
    /// Why it is not what the list says, where it is not.
    pub instead: Option<&'static str>,
}

/// Whether a request is what the application should see; panics where it is not.
pub type Like = fn(&Seen);

#[derive(Clone, Copy)]
pub enum Outcome {
    /// Refused with the connection: whatever stands behind it is not served, nor is the input.
    Refused,
    /// Answered by the edge itself, which stays ready for another request.
    Answered,
    /// Seen by the application, once, and like this.
    Served(Like),
}

impl Row {
    pub fn refused(number: &'static str, status: u16, sent: impl AsRef<[u8]>) -> Self {
        Self { number, sent: sent.as_ref().to_vec(), status, outcome: Outcome::Refused, instead: None }
    }

    pub fn answered(number: &'static str, status: u16, sent: impl AsRef<[u8]>) -> Self {
        Self { outcome: Outcome::Answered, ..Self::refused(number, status, sent) }
    }

    pub fn served(number: &'static str, sent: impl AsRef<[u8]>, like: Like) -> Self {
        Self { outcome: Outcome::Served(like), ..Self::refused(number, 200, sent) }
    }

    pub fn instead(mut self, reason: &'static str) -> Self {
        self.instead = Some(reason);
        self
    }

    /// For a table: without what is not shown, and no longer than is read.
    pub fn shown(&self) -> String {
        let text: String = self.sent.escape_ascii().map(char::from).collect();
        let text = text.replace("\\r\\n", "⏎").replace("\\\"", "\"").replace("\\'", "'").replace('|', "\\|");
        let text = text.replace("Host: iqueue.test⏎", "");
        let long = text.chars().count() > 110;
        text.chars().take(110).chain(long.then_some('…')).collect()
    }
}

/// A request with a Host, more fields, each ended by CRLF, and a body.
pub fn request(line: &str, fields: &str, body: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nHost: iqueue.test\r\n{fields}\r\n{body}").into_bytes()
}

/// An edge and an application that rows are asked of.
pub struct Scene {
    pub edge: Edge,
    pub iqueue: Origin,
}

/// What is sent behind each input.
const BEHIND: &str = "GET /behind HTTP/1.1\r\nHost: iqueue.test\r\nConnection: close\r\n\r\n";

impl Scene {
    /// A service with more keys.
    pub fn with(service: &str) -> Self {
        let iqueue = origin("iqueue");
        Self { edge: edge().service_with("iqueue", &iqueue, service).start(), iqueue }
    }

    /// A cookie of somebody who is signed in, as it stands in a request.
    pub fn cookie(&self) -> String {
        format!("{TOKEN_COOKIE}={}", self.edge.signed_in().cookie("iqueue.test", TOKEN_COOKIE).unwrap())
    }

    /// The whole requests that the application has seen, after so many of any kind.
    fn seen_since(&self, before: usize) -> Vec<Seen> {
        self.iqueue.seen().into_iter().skip(before).filter(|seen| seen.whole).collect()
    }

    /// Asks all rows, and tells of all that are not as they should be.
    pub fn ask(&self, rows: &[Row]) {
        let (mut wrong, mut answered) = (Vec::new(), self.seen_since(0).len());
        for row in rows {
            let before = self.iqueue.count();
            let answers = converse(self.edge.address(), &row.sent);
            let seen = self.seen_since(before);
            answered += answers.iter().filter(|answer| answer.text() == "hello from iqueue").count();
            if let Err(fault) = row.judge(&answers, &seen) {
                let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
                wrong.push(format!("{} {}\n    {fault}; answers {statuses:?}", row.number, row.shown()));
            }
        }
        assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
        assert_eq!(
            self.seen_since(0).len(),
            answered,
            "the application has seen what it has answered, and nothing else"
        );
    }
}

/// Everything that comes back on a connection of its own until it ends, for an input and a request behind it.
fn converse(address: SocketAddr, sent: &[u8]) -> Vec<Answer> {
    let mut connection = raw(address, "iqueue.test");
    connection.send([sent, BEHIND.as_bytes()].concat());
    std::iter::from_fn(|| connection.answer()).filter(|answer| answer.status != 100).collect()
}

impl Row {
    fn judge(&self, answers: &[Answer], seen: &[Seen]) -> Result<(), String> {
        let status = answers.first().map_or(0, |answer| answer.status);
        if status != self.status {
            return Err(format!("{status} and not {}", self.status));
        }
        if answers.iter().any(|answer| answer.header("server").is_some()) {
            return Err("a reply names its server".into());
        }
        let inputs: Vec<&Seen> = seen.iter().filter(|seen| seen.target != "/behind").collect();
        match self.outcome {
            Outcome::Refused if answers.len() > 1 || !seen.is_empty() => {
                Err(format!("it went on: the application saw {:?}", seen.iter().map(|s| &s.target).collect::<Vec<_>>()))
            }
            Outcome::Refused if answers.iter().any(|answer| answer.header("connection") != Some("close")) => {
                Err("it does not say that it closes".into())
            }
            Outcome::Answered if !inputs.is_empty() => Err("it reached the application".into()),
            Outcome::Answered | Outcome::Served(_) if answers.len() != 2 => Err("the connection did not go on".into()),
            Outcome::Served(_) if inputs.len() != 1 => Err(format!("the application saw it {} times", inputs.len())),
            Outcome::Served(like) => {
                let like = std::panic::AssertUnwindSafe(|| like(inputs[0]));
                std::panic::catch_unwind(like).map_err(|_| format!("the application saw {:?}", inputs[0]))
            }
            _ => Ok(()),
        }
    }
}

#[test]
fn every_number_of_the_list_is_tested_once_and_somewhere() {
    let tables = [framing::rows(), heads::rows(), metadata::rows(""), paths::rows(), hosts::rows(1)];
    let numbered: Vec<u16> = tables.iter().flatten().map(|row| number(row.number)).collect();
    let elsewhere = elsewhere::numbers();
    for wanted in (1..=138).chain(153..=168).chain(209..=211) {
        let (here, there) = (numbered.contains(&wanted), elsewhere.contains(&wanted));
        assert!(here || there, "input {wanted} is tested nowhere");
    }
    assert!(tables.iter().flatten().all(|row| row.instead.is_none_or(|reason| reason.len() > 20)));
}

/// `41b` is a form of 41.
fn number(text: &str) -> u16 {
    text.trim_end_matches(|c: char| c.is_ascii_lowercase()).parse().unwrap()
}
