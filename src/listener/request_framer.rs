//! Decides which bytes of a client Pingora may read over HTTP/1, and when: a request head once it is complete and
//! valid, the body that the head announces, and nothing behind it until the next head is expected.
//!
//! So two readers follow each message: this one, by the stricter rules of `validate`, and Pingora. Where they disagree
//! about its end the connection is closed, so bytes that one of them takes for a body can never become a request for
//! the other (request smuggling). Bytes are buffered only where a head comes in pieces or a client pipelines requests.
//! In place of a refused head Pingora reads a valid placeholder, and the gateway is notified, so that the refusal is
//! answered, counted and logged like any other.

use std::sync::Arc;

use tokio::io::ReadBuf;

use crate::proxy::{ClientConnection, ReadState};
use crate::validate::Malformed;
use crate::validate::chunks::Chunks;
use crate::validate::head::{self, Framing};

pub struct RequestFramer {
    connection: Arc<ClientConnection>,
    /// The largest head that is accepted, in bytes.
    largest_head: usize,
    /// Bytes received and not delivered yet.
    buffered: Vec<u8>,
    /// How many of them may be delivered now.
    deliverable: usize,
    expect: Expect,
}

/// What the framer expects next.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// A head, of which `seen` bytes have been scanned.
    Head {
        seen: usize,
    },
    Body {
        left: u64,
    },
    Chunked(Chunks),
    /// The message is complete. Bytes that come now wait for the next head.
    Nothing,
}

/// The two readers of a connection disagree, or a request was refused: the connection is closed.
#[derive(Debug)]
pub struct Desync;

impl RequestFramer {
    pub fn new(connection: Arc<ClientConnection>, largest_head: usize) -> Self {
        Self { connection, largest_head, buffered: Vec::new(), deliverable: 0, expect: Expect::Head { seen: 0 } }
    }

    /// Called before a read from the client. Copies buffered bytes that may be delivered, and returns whether there
    /// were any.
    pub fn deliver(&mut self, into: &mut ReadBuf<'_>) -> Result<bool, Desync> {
        if self.deliverable == 0 {
            self.advance()?;
        }
        let now = self.deliverable.min(into.remaining());
        if now > 0 {
            into.put_slice(&self.buffered[..now]);
            self.buffered.drain(..now);
            self.deliverable -= now;
        }
        if self.buffered.is_empty() {
            // An idle connection holds no memory.
            self.buffered = Vec::new();
        }
        Ok(now > 0)
    }

    /// Returns bytes to the buffer. They were the last that were delivered, and are to be delivered again.
    pub fn give_back(&mut self, bytes: &[u8]) {
        self.buffered.splice(..0, bytes.iter().copied());
        self.deliverable += bytes.len();
    }

    /// Returns whether bytes of a pipelined request are buffered.
    pub const fn has_buffered(&self) -> bool {
        !self.buffered.is_empty()
    }

    /// Returns whether more may be read from the client: not while a pipelined request is buffered and not expected
    /// yet.
    pub fn may_read(&self) -> bool {
        self.buffered.is_empty() || matches!(self.expect, Expect::Head { .. })
    }

    /// Called after a read that filled `into` from `begin` on. Leaves only what may be delivered in it, and returns
    /// whether that is anything.
    pub fn received(&mut self, into: &mut ReadBuf<'_>, begin: usize) -> Result<bool, Desync> {
        if !self.buffered.is_empty() {
            self.buffered.extend_from_slice(&into.filled()[begin..]);
            into.set_filled(begin);
            self.scan_buffered()?;
            return self.deliver(into);
        }
        // No byte is copied where a whole message, or a part of one, comes by itself.
        match self.scan(&into.filled()[begin..])? {
            Scanned::Deliver(passed) => {
                self.buffered.extend_from_slice(&into.filled()[begin + passed..]);
                into.set_filled(begin + passed);
                Ok(passed > 0)
            }
            Scanned::Replace(head) => {
                into.set_filled(begin);
                (self.deliverable, self.buffered) = (head.len(), head);
                self.deliver(into)
            }
        }
    }

    /// Updates what is expected from the state that the gateway reports.
    fn advance(&mut self) -> Result<(), Desync> {
        match (self.connection.read_state(), self.expect) {
            (ReadState::Body, _) | (ReadState::Head | ReadState::Idle, Expect::Head { .. }) => return Ok(()),
            (ReadState::Upgraded, _) => self.deliverable = self.buffered.len(),
            (ReadState::Head | ReadState::Idle, Expect::Nothing) if self.connection.refused().is_none() => {
                self.expect = Expect::Head { seen: 0 };
                if !self.buffered.is_empty() {
                    self.connection.head_begins();
                    return self.scan_buffered();
                }
            }
            // Pingora has found the end of a message at another place.
            (ReadState::Head | ReadState::Idle, _) => return Err(Desync),
        }
        Ok(())
    }

    /// Scans the buffered bytes.
    fn scan_buffered(&mut self) -> Result<(), Desync> {
        let kept = std::mem::take(&mut self.buffered);
        match self.scan(&kept)? {
            Scanned::Deliver(passed) => (self.deliverable, self.buffered) = (passed, kept),
            Scanned::Replace(head) => (self.deliverable, self.buffered) = (head.len(), head),
        }
        Ok(())
    }

    /// Returns how many of the bytes may be delivered. They begin where the last delivered bytes ended.
    fn scan(&mut self, bytes: &[u8]) -> Result<Scanned, Desync> {
        if self.connection.read_state() == ReadState::Upgraded {
            return Ok(Scanned::Deliver(bytes.len()));
        }
        let Expect::Head { seen } = self.expect else { return self.body(bytes).map(Scanned::Deliver) };
        let judged = match head::end(bytes, seen) {
            Ok(None) if bytes.len() <= self.largest_head => {
                self.expect = Expect::Head { seen: bytes.len() };
                return Ok(Scanned::Deliver(0));
            }
            Ok(Some(end)) if end <= self.largest_head => head::check(&bytes[..end]).map(|framing| (end, framing)),
            Ok(_) => Err(Malformed::HeaderTooLarge),
            Err(malformed) => Err(malformed),
        };
        match judged {
            Ok((end, framing)) => {
                self.expect = match framing {
                    Framing::Length(left) => Expect::Body { left },
                    Framing::Chunked => Expect::Chunked(Chunks::default()),
                };
                // Where the body is malformed from its first byte, the head has not been delivered yet, so the
                // placeholder can replace it.
                Ok(self
                    .body(&bytes[end..])
                    .map_or_else(|Desync| self.replace(bytes), |taken| Scanned::Deliver(end + taken)))
            }
            Err(malformed) => {
                self.connection.refuse(malformed);
                Ok(self.replace(bytes))
            }
        }
    }

    fn replace(&mut self, bytes: &[u8]) -> Scanned {
        self.expect = Expect::Nothing;
        Scanned::Replace(head::placeholder_head(bytes))
    }

    /// Returns how many of the bytes belong to the current message.
    fn body(&mut self, bytes: &[u8]) -> Result<usize, Desync> {
        let (taken, done) = match &mut self.expect {
            Expect::Body { left } => {
                let taken = (*left).min(bytes.len() as u64);
                *left -= taken;
                (taken as usize, *left == 0)
            }
            Expect::Chunked(chunks) => match chunks.take(bytes) {
                Ok(taken) => (taken, chunks.is_done()),
                Err(malformed) => {
                    self.connection.refuse(malformed);
                    return Err(Desync);
                }
            },
            Expect::Head { .. } | Expect::Nothing => (0, false),
        };
        if done {
            self.expect = Expect::Nothing;
        }
        Ok(taken)
    }
}

enum Scanned {
    Deliver(usize),
    /// Bytes to deliver instead.
    Replace(Vec<u8>),
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
    const POST: &[u8] = b"POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    const BODY: &[u8] = b"5\r\nhello\r\n0\r\n\r\n";

    /// Returns what a reader with a buffer of `room` bytes gets of bytes that come in `pieces` bytes at a time. It
    /// begins the next request when `next` returns that it has a whole one.
    fn read(
        bytes: &[u8],
        pieces: usize,
        room: usize,
        next: impl Fn(&[u8]) -> bool,
    ) -> (Vec<Vec<u8>>, Arc<ClientConnection>) {
        let connection = Arc::new(ClientConnection::default());
        let mut framer = RequestFramer::new(Arc::clone(&connection), 200);
        let (mut messages, mut rest) = (vec![Vec::new()], bytes);
        loop {
            let mut buffer = vec![0; room];
            let mut into = ReadBuf::new(&mut buffer);
            let mut got = match framer.deliver(&mut into) {
                Ok(got) => got,
                Err(Desync) => return (messages, connection),
            };
            if !got && framer.may_read() && !rest.is_empty() {
                let now = pieces.min(room).min(rest.len());
                into.put_slice(&rest[..now]);
                rest = &rest[now..];
                match framer.received(&mut into, 0) {
                    Ok(more) => got = more,
                    Err(Desync) => return (messages, connection),
                }
            } else if !got {
                return (messages, connection);
            }
            assert_eq!(got, !into.filled().is_empty());
            let message = messages.last_mut().unwrap();
            message.extend_from_slice(into.filled());
            if message.windows(4).any(|window| window == b"\r\n\r\n") {
                connection.head_read();
            }
            if next(message) {
                connection.head_may_come();
                messages.push(Vec::new());
            }
        }
    }

    fn is_whole(message: &[u8]) -> bool {
        message == GET || message == [POST, BODY].concat()
    }

    #[test]
    fn each_message_is_handed_on_alone_however_it_comes_and_is_read() {
        let bytes = [GET, POST, BODY, GET, GET].concat();
        for pieces in [1, 2, 7, 30, 1000] {
            for room in [1, 5, 64, 1000] {
                let (messages, connection) = read(&bytes, pieces, room, is_whole);
                let expected = [GET, &[POST, BODY].concat(), GET, GET, b""];
                assert_eq!(messages, expected, "{pieces} at a time into {room}");
                assert!(connection.refused().is_none());
            }
        }
    }

    #[test]
    fn what_stands_behind_a_message_is_not_handed_on_before_the_next_is_due() {
        let (messages, _) = read(&[POST, BODY, GET].concat(), 1000, 1000, |_| false);
        assert_eq!(messages, [[POST, BODY].concat()]);
    }

    #[test]
    fn a_reader_that_finds_another_end_of_a_message_gets_nothing_more() {
        let (messages, _) = read(&[POST, BODY, GET].concat(), 1000, POST.len(), |message| message == POST);
        assert_eq!(messages.concat(), POST);
    }

    #[test]
    fn another_head_stands_in_for_one_that_is_refused_and_nothing_follows_it() {
        let long = [b"GET /".to_vec(), vec![b'a'; 300]].concat();
        for (head, refused) in [
            (&b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"[..], Malformed::Target),
            (b"GET /a HTTP/1.1\nHost: a\r\n\r\n", Malformed::Syntax),
            (&long, Malformed::HeaderTooLarge),
        ] {
            for pieces in [1, 1000] {
                let (messages, connection) = read(&[head, GET].concat(), pieces, 1000, |message| !message.is_empty());
                assert_eq!(connection.refused(), Some(refused));
                assert_eq!(messages.len(), 2);
                assert!(messages[0].starts_with(b"GET /a") && messages[0].ends_with(b"\r\n\r\n"));
                assert_eq!(messages[1], b"");
            }
        }
    }

    #[test]
    fn a_broken_chunk_ends_it() {
        let bytes = [POST, b"5;\nhello\r\n0\r\n\r\n", GET].concat();
        let (messages, connection) = read(&bytes, POST.len(), 1000, is_whole);
        assert_eq!((messages, connection.refused()), (vec![POST.to_vec()], Some(Malformed::Framing)));
        let (messages, connection) = read(&bytes, 1000, 1000, |_| false);
        let placeholder = b"POST /b HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
        assert_eq!((messages, connection.refused()), (vec![placeholder], Some(Malformed::Framing)));
    }

    #[test]
    fn in_a_tunnel_everything_passes_from_what_was_kept_on() {
        let connection = Arc::new(ClientConnection::default());
        let mut framer = RequestFramer::new(Arc::clone(&connection), 200);
        let mut buffer = [0; 200];
        let mut into = ReadBuf::new(&mut buffer);
        into.put_slice(&[GET, b"early"].concat());
        assert!(framer.received(&mut into, 0).unwrap());
        assert_eq!(into.filled(), GET);
        connection.head_read();
        assert!(!framer.deliver(&mut into).unwrap() && !framer.may_read());
        connection.set_upgraded();
        into.clear();
        assert!(framer.deliver(&mut into).unwrap());
        into.put_slice(b"late");
        assert!(framer.received(&mut into, 5).unwrap());
        assert_eq!(into.filled(), b"earlylate");
    }
}
