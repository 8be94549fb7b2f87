//! HTTP/2 frames of a connection as they pass: whether a head is incomplete, and how many frames carry nothing. h2
//! reads the same bytes beside this and judges what they mean.
//!
//! h2 bounds what a connection may make it store, and not the work that it causes: PING, SETTINGS and empty DATA frames
//! are answered or skipped for as long as they come. Here a leaky bucket bounds them. It leaks with time and with the
//! bytes that travel, because clients ping more often under load (as gRPC does, to learn how fast it may send) and
//! hardly at all while idle.

use std::time::Instant;

/// `PRI * HTTP/2.0…`, RFC 9113 §3.4. h2 compares it.
const PREFACE: usize = 24;
/// Length, type, flags, stream: RFC 9113 §4.1.
const FRAME_HEAD: usize = 9;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

/// The bucket of frames that carry nothing: its size, how many leak out of it in a second, and how many bytes of
/// traffic let one more leak out.
///
/// Some clients of gRPC ping for each message that they receive, one at a time, to learn the delay of the line: as many in
/// a second as there are round trips in it.
const BURST: f64 = 10_000.0;
const PER_SECOND: f64 = 2000.0;
const BYTES_PER_FRAME: f64 = 1024.0;

/// WINDOW_UPDATE frames answer DATA frames: a number of them is allowed for each DATA frame that was sent, as in Envoy,
/// and for each request, whose window may be widened before anything is sent. Others count as frames that carry
/// nothing.
const UPDATES_PER_DATA: u32 = 10;
const UPDATES_PER_HEAD: u32 = 4;
/// The number allowed before there is either.
const FIRST_UPDATES: u32 = 100;

/// The position in a connection's frames, in both directions.
#[derive(Debug)]
pub struct FrameScanner {
    /// Bytes of the preface that are still to come.
    preface: usize,
    head: [u8; FRAME_HEAD],
    /// Bytes of the present frame's head that are there.
    had: usize,
    /// Bytes of its payload that are still to come.
    payload: usize,
    in_head: bool,
    heads: u64,
    idle: LeakyBucket,
    /// WINDOW_UPDATE frames that may come.
    updates: u32,
    /// The position in the frames that are sent to the client.
    sent: SentFrames,
}

/// The position in the frames that are sent.
#[derive(Debug, Default)]
struct SentFrames {
    head: [u8; FRAME_HEAD],
    had: usize,
    payload: usize,
}

/// More frames that carry nothing were received than any client needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flood;

#[derive(Debug, Default)]
struct LeakyBucket {
    level: f64,
    /// Bytes sent and received since the level was last computed.
    moved: usize,
    looked_at: Option<Instant>,
}

impl Default for FrameScanner {
    fn default() -> Self {
        let head = [0; FRAME_HEAD];
        Self {
            preface: PREFACE,
            head,
            had: 0,
            payload: 0,
            in_head: false,
            heads: 0,
            idle: LeakyBucket::default(),
            updates: FIRST_UPDATES,
            sent: SentFrames::default(),
        }
    }
}

impl FrameScanner {
    /// Scans bytes that were received. They may begin and end anywhere in a frame.
    pub fn received(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Flood> {
        self.idle.moved += bytes.len();
        let mut idle = 0_u32;
        bytes = &bytes[skip(&mut self.preface, bytes.len())..];
        while !bytes.is_empty() {
            if self.payload > 0 {
                bytes = &bytes[skip(&mut self.payload, bytes.len())..];
            } else {
                let (head, rest) = bytes.split_at((FRAME_HEAD - self.had).min(bytes.len()));
                self.head[self.had..self.had + head.len()].copy_from_slice(head);
                self.had += head.len();
                bytes = rest;
            }
            if self.had == FRAME_HEAD && self.begin_frame() {
                idle += 1;
            }
            // The position is between two frames.
            if self.payload == 0 && self.had == 0 && self.ends_head() {
                self.in_head = false;
            }
        }
        // Most reads have no such frame, so the clock is not read for them.
        if idle == 0 { Ok(()) } else { self.idle.add(idle, now()) }
    }

    /// Scans bytes that were sent. Returns how many bytes of bodies were among them.
    pub fn sent(&mut self, bytes: &[u8]) -> usize {
        self.idle.moved += bytes.len();
        let (frames, data) = self.sent.take(bytes);
        self.updates = self.updates.saturating_add(frames * UPDATES_PER_DATA);
        data
    }

    /// Returns whether a head has begun and is not complete.
    pub fn in_head(&self) -> bool {
        self.in_head
    }

    /// Heads that have begun so far.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Called when a frame header is complete. Returns whether the frame carries nothing.
    fn begin_frame(&mut self) -> bool {
        let [high, middle, low, kind, flags, ..] = self.head;
        self.payload = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.had = 0;
        if kind == HEADERS {
            self.in_head = true;
            self.heads += 1;
            self.updates = self.updates.saturating_add(UPDATES_PER_HEAD);
        }
        match kind {
            HEADERS => false,
            WINDOW_UPDATE => {
                let is_owed = self.updates > 0;
                self.updates = self.updates.saturating_sub(1);
                !is_owed
            }
            DATA => (self.payload == 0 && flags & END_STREAM == 0) || flags & PADDED != 0,
            _ => true,
        }
    }

    /// Returns whether the current frame ends a head.
    fn ends_head(&self) -> bool {
        let [_, _, _, kind, flags, ..] = self.head;
        self.in_head && matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS != 0
    }
}

impl SentFrames {
    /// Scans bytes that were written. They may begin and end anywhere in a frame. Returns how many DATA frames begin in
    /// them, and how many bytes of DATA frames they have.
    fn take(&mut self, mut bytes: &[u8]) -> (u32, usize) {
        let (mut frames, mut data) = (0, 0);
        while !bytes.is_empty() {
            if self.payload > 0 {
                let taken = skip(&mut self.payload, bytes.len());
                if self.head[3] == DATA {
                    data += taken;
                }
                bytes = &bytes[taken..];
                continue;
            }
            let (head, rest) = bytes.split_at((FRAME_HEAD - self.had).min(bytes.len()));
            self.head[self.had..self.had + head.len()].copy_from_slice(head);
            self.had += head.len();
            bytes = rest;
            if self.had == FRAME_HEAD {
                let [high, middle, low, kind, ..] = self.head;
                self.payload = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                self.had = 0;
                frames += u32::from(kind == DATA);
            }
        }
        (frames, data)
    }
}

/// Subtracts as many bytes as are there from `left`, and returns how many that were.
fn skip(left: &mut usize, there: usize) -> usize {
    let taken = there.min(*left);
    *left -= taken;
    taken
}

impl LeakyBucket {
    fn add(&mut self, frames: u32, now: Instant) -> Result<(), Flood> {
        let passed = self.looked_at.map_or(0.0, |before| now.saturating_duration_since(before).as_secs_f64());
        let leaked = passed * PER_SECOND + self.moved as f64 / BYTES_PER_FRAME;
        self.level = (self.level - leaked).max(0.0) + f64::from(frames);
        self.moved = 0;
        self.looked_at = Some(now);
        if self.level > BURST { Err(Flood) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    }

    /// A connection whose preface has come.
    fn begun() -> FrameScanner {
        let mut frames = FrameScanner::default();
        frames.received(&[b'x'; PREFACE], Instant::now).unwrap();
        frames
    }

    #[test]
    fn a_head_is_under_way_from_its_first_frame_to_the_end_of_its_last() {
        let head = [frame(HEADERS, 0, b"abc"), frame(CONTINUATION, 0, b""), frame(CONTINUATION, END_HEADERS, b"de")];
        let bytes = [head.concat(), frame(DATA, 0, b"body")].concat();
        let (begins, ends) = (FRAME_HEAD, head.concat().len());
        for piece in 1..bytes.len() {
            let (mut frames, mut taken) = (begun(), 0);
            for part in bytes.chunks(piece) {
                frames.received(part, Instant::now).unwrap();
                taken += part.len();
                assert_eq!(frames.in_head(), (begins..ends).contains(&taken), "{taken} bytes, {piece} at a time");
            }
            assert_eq!(frames.heads(), 1);
        }
    }

    #[test]
    fn a_head_in_one_frame_without_a_field_is_over_at_once() {
        let mut frames = begun();
        frames.received(&frame(HEADERS, END_HEADERS, b""), Instant::now).unwrap();
        assert!(!frames.in_head());
    }

    #[test]
    fn frames_that_bring_nothing_are_a_flood_and_others_are_not() {
        let now = Instant::now();
        let many = |kind: u8, flags: u8, payload: &[u8]| {
            let mut frames = begun();
            (0..20_000).map(|_| frames.received(&frame(kind, flags, payload), || now)).find(Result::is_err).is_some()
        };
        for (kind, flags, payload) in [
            (6, 0, &[0; 8][..]),
            (4, 0, b""),
            (DATA, 0, b""),
            (DATA, PADDED, b"\0"),
            (3, 0, &[0; 4]),
            (2, 0, &[0; 5]),
            (WINDOW_UPDATE, 0, &[0; 4]),
        ] {
            assert!(many(kind, flags, payload), "type {kind}, flags {flags}");
        }
        for (kind, flags, payload) in [(HEADERS, END_HEADERS, &b"x"[..]), (DATA, 0, b"x"), (DATA, END_STREAM, b"")] {
            assert!(!many(kind, flags, payload), "type {kind}, flags {flags}");
        }
    }

    #[test]
    fn windows_that_are_opened_for_what_was_sent_are_no_flood() {
        let (update, data) = (frame(WINDOW_UPDATE, 0, &[0; 4]), frame(DATA, 0, b"tiny"));
        let (mut frames, now) = (begun(), Instant::now());
        for at in 0..100_000 {
            // Cut anywhere: a client of gRPC that opens both windows for each short message.
            let (first, rest) = data.split_at(at % data.len());
            assert_eq!(frames.sent(first) + frames.sent(rest), 4);
            assert!((0..2).all(|_| frames.received(&update, || now).is_ok()), "after {at} messages");
        }
        // Requests whose windows are widened before an answer comes.
        let mut frames = begun();
        for _ in 0..100_000 {
            frames.received(&frame(HEADERS, END_HEADERS, b"x"), || now).unwrap();
            assert!((0..2).all(|_| frames.received(&update, || now).is_ok()));
        }
    }

    #[test]
    fn pings_that_come_with_time_or_with_what_travels_are_no_flood() {
        let (ping, begin) = (frame(6, 0, &[0; 8]), Instant::now());
        let mut frames = begun();
        for second in 0..600 {
            let now = begin + Duration::from_secs(second);
            assert!((0..1900).all(|_| frames.received(&ping, || now).is_ok()), "after {second} s");
        }
        let mut frames = begun();
        for _ in 0..50_000 {
            frames.sent(&frame(DATA, 0, &[0; 100]).repeat(40));
            assert!(frames.received(&ping, || begin).is_ok(), "a ping for each piece of a large response");
        }
    }
}
