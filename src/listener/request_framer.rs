//! What of a client's bytes Pingora gets to read over HTTP/1, and when: a head once it is whole and good, the body that
//! the head announced, and nothing behind it until the next head is due.
//!
//! So two readers follow each message, this one by `hygiene`'s stricter rules and Pingora, and where they disagree
//! on its end the connection is over: what one takes for a body, the other can never take for a request. Bytes are held
//! back only where a head comes in pieces or a client asks ahead. In the place of a head that is refused Pingora gets a
//! good one that stands for it, and the gateway is told, so that the refusal is replied to, counted and logged like
//! any other.

use std::sync::Arc;

use tokio::io::ReadBuf;

use crate::proxy::{Connection, Reading};
use crate::validate::Malformed;
use crate::validate::chunks::Chunks;
use crate::validate::head::{self, Framing};

pub struct Intake {
    connection: Arc<Connection>,
    /// Of a head, at most.
    largest_head: usize,
    /// Taken from the client and not handed on yet.
    kept: Vec<u8>,
    /// So many of these may be handed on.
    passed: usize,
    due: Due,
}

/// What has to come next.
#[derive(Clone, Copy, Debug)]
enum Due {
    /// A head, of which so many bytes have been looked at.
    Head {
        seen: usize,
    },
    Body {
        left: u64,
    },
    Chunked(Chunks),
    /// The message is whole. What comes now has to wait.
    Nothing,
}

/// The two readers of a connection disagree, or it has been refused: it is over.
#[derive(Debug)]
pub struct Over;

impl Intake {
    pub fn new(connection: Arc<Connection>, largest_head: usize) -> Self {
        Self { connection, largest_head, kept: Vec::new(), passed: 0, due: Due::Head { seen: 0 } }
    }

    /// Before a read: answers whether there is something for Pingora already, and puts it there.
    pub fn before(&mut self, into: &mut ReadBuf<'_>) -> Result<bool, Over> {
        if self.passed == 0 {
            self.turn()?;
        }
        let now = self.passed.min(into.remaining());
        if now > 0 {
            into.put_slice(&self.kept[..now]);
            self.kept.drain(..now);
            self.passed -= now;
        }
        if self.kept.is_empty() {
            // An idle connection holds no memory.
            self.kept = Vec::new();
        }
        Ok(now > 0)
    }

    /// These were handed on, the last that were, and are to be so again.
    pub fn give_back(&mut self, bytes: &[u8]) {
        self.kept.splice(..0, bytes.iter().copied());
        self.passed += bytes.len();
    }

    /// Whether the client has asked ahead.
    pub const fn has_more(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Whether more may be taken from the client: not while somebody asks ahead and is not to be heard yet.
    pub fn is_open(&self) -> bool {
        self.kept.is_empty() || matches!(self.due, Due::Head { .. })
    }

    /// After a read that brought everything from `begin` on: leaves of it what Pingora may have, and answers whether
    /// that is anything.
    pub fn after(&mut self, into: &mut ReadBuf<'_>, begin: usize) -> Result<bool, Over> {
        if !self.kept.is_empty() {
            self.kept.extend_from_slice(&into.filled()[begin..]);
            into.set_filled(begin);
            self.look()?;
            return self.before(into);
        }
        // Nothing is copied where a message, or a part of one, comes as it should.
        match self.sift(&into.filled()[begin..])? {
            Sifted::Passed(passed) => {
                self.kept.extend_from_slice(&into.filled()[begin + passed..]);
                into.set_filled(begin + passed);
                Ok(passed > 0)
            }
            Sifted::Replaced(head) => {
                into.set_filled(begin);
                (self.passed, self.kept) = (head.len(), head);
                self.before(into)
            }
        }
    }

    /// Goes on to what is due now, as the gateway has it.
    fn turn(&mut self) -> Result<(), Over> {
        match (self.connection.reading(), self.due) {
            (Reading::Past, _) | (Reading::Head | Reading::Between, Due::Head { .. }) => return Ok(()),
            (Reading::Tunnel, _) => self.passed = self.kept.len(),
            (Reading::Head | Reading::Between, Due::Nothing) if self.connection.refused().is_none() => {
                self.due = Due::Head { seen: 0 };
                if !self.kept.is_empty() {
                    self.connection.head_begins();
                    return self.look();
                }
            }
            // Pingora has found the end of a message where we have not.
            (Reading::Head | Reading::Between, _) => return Err(Over),
        }
        Ok(())
    }

    /// Looks at what is kept.
    fn look(&mut self) -> Result<(), Over> {
        let kept = std::mem::take(&mut self.kept);
        match self.sift(&kept)? {
            Sifted::Passed(passed) => (self.passed, self.kept) = (passed, kept),
            Sifted::Replaced(head) => (self.passed, self.kept) = (head.len(), head),
        }
        Ok(())
    }

    /// How many of the bytes may be handed on. They begin where the last ones that were handed on ended.
    fn sift(&mut self, bytes: &[u8]) -> Result<Sifted, Over> {
        if self.connection.reading() == Reading::Tunnel {
            return Ok(Sifted::Passed(bytes.len()));
        }
        let Due::Head { seen } = self.due else { return self.body(bytes).map(Sifted::Passed) };
        let judged = match head::end(bytes, seen) {
            Ok(None) if bytes.len() <= self.largest_head => {
                self.due = Due::Head { seen: bytes.len() };
                return Ok(Sifted::Passed(0));
            }
            Ok(Some(end)) if end <= self.largest_head => head::judge(&bytes[..end]).map(|framing| (end, framing)),
            Ok(_) => Err(Malformed::HeaderTooLarge),
            Err(malformed) => Err(malformed),
        };
        match judged {
            Ok((end, framing)) => {
                self.due = match framing {
                    Framing::Length(left) => Due::Body { left },
                    Framing::Chunked => Due::Chunked(Chunks::default()),
                };
                // Of a body that is broken from the start, nobody has read the head yet.
                Ok(self
                    .body(&bytes[end..])
                    .map_or_else(|Over| self.replace(bytes), |taken| Sifted::Passed(end + taken)))
            }
            Err(malformed) => {
                self.connection.refuse(malformed);
                Ok(self.replace(bytes))
            }
        }
    }

    fn replace(&mut self, bytes: &[u8]) -> Sifted {
        self.due = Due::Nothing;
        Sifted::Replaced(head::stand_in(bytes))
    }

    /// How many of the bytes belong to the present message.
    fn body(&mut self, bytes: &[u8]) -> Result<usize, Over> {
        let (taken, done) = match &mut self.due {
            Due::Body { left } => {
                let taken = (*left).min(bytes.len() as u64);
                *left -= taken;
                (taken as usize, *left == 0)
            }
            Due::Chunked(chunks) => match chunks.take(bytes) {
                Ok(taken) => (taken, chunks.is_done()),
                Err(malformed) => {
                    self.connection.refuse(malformed);
                    return Err(Over);
                }
            },
            Due::Head { .. } | Due::Nothing => (0, false),
        };
        if done {
            self.due = Due::Nothing;
        }
        Ok(taken)
    }
}

enum Sifted {
    Passed(usize),
    /// This is to be read instead.
    Replaced(Vec<u8>),
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
    const POST: &[u8] = b"POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    const BODY: &[u8] = b"5\r\nhello\r\n0\r\n\r\n";

    /// What a reader with a buffer of `room` gets of bytes that come in `pieces` bytes at a time. It asks for the next
    /// request when `next` says that what it has is a whole one.
    fn read(bytes: &[u8], pieces: usize, room: usize, next: impl Fn(&[u8]) -> bool) -> (Vec<Vec<u8>>, Arc<Connection>) {
        let connection = Arc::new(Connection::default());
        let mut intake = Intake::new(Arc::clone(&connection), 200);
        let (mut messages, mut rest) = (vec![Vec::new()], bytes);
        loop {
            let mut buffer = vec![0; room];
            let mut into = ReadBuf::new(&mut buffer);
            let mut got = match intake.before(&mut into) {
                Ok(got) => got,
                Err(Over) => return (messages, connection),
            };
            if !got && intake.is_open() && !rest.is_empty() {
                let now = pieces.min(room).min(rest.len());
                into.put_slice(&rest[..now]);
                rest = &rest[now..];
                match intake.after(&mut into, 0) {
                    Ok(more) => got = more,
                    Err(Over) => return (messages, connection),
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
    fn whoever_finds_another_end_of_a_message_gets_nothing_more() {
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
        let stand_in = b"POST /b HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
        assert_eq!((messages, connection.refused()), (vec![stand_in], Some(Malformed::Framing)));
    }

    #[test]
    fn in_a_tunnel_everything_passes_from_what_was_kept_on() {
        let connection = Arc::new(Connection::default());
        let mut intake = Intake::new(Arc::clone(&connection), 200);
        let mut buffer = [0; 200];
        let mut into = ReadBuf::new(&mut buffer);
        into.put_slice(&[GET, b"early"].concat());
        assert!(intake.after(&mut into, 0).unwrap());
        assert_eq!(into.filled(), GET);
        connection.head_read();
        assert!(!intake.before(&mut into).unwrap() && !intake.is_open());
        connection.is_tunnel();
        into.clear();
        assert!(intake.before(&mut into).unwrap());
        into.put_slice(b"late");
        assert!(intake.after(&mut into, 5).unwrap());
        assert_eq!(into.filled(), b"earlylate");
    }
}
