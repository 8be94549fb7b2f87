//! What one request holds: its share, and the pieces of its bodies while they are on their way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Account, Fill, Share};
use crate::deadline::Deadline;

/// Pieces up to this size are covered by the share of their request.
const SMALL_PIECE: usize = 4096;
/// How long nothing may move while an account is half full, and what has to move in a second beyond that.
const HALF_FULL: Duration = Duration::from_secs(10);
const LEAST_RATE: usize = 1024;
/// The same while it is full.
const FULL: Duration = Duration::from_secs(1);
const LEAST_RATE_FULL: usize = 16 << 10;
/// Where there is no room, this many turns of the runtime.
const TURNS: u32 = 3;
/// A request that waits looks again this often, because the account may have been filled by others.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What one request holds.
#[derive(Debug)]
pub struct Held {
    share: Share,
    /// What its share was at the beginning.
    base: usize,
    /// It holds its share only while a piece waits.
    lasts: bool,
    /// Made for the first piece that counts.
    pieces: Option<Arc<Pieces>>,
    /// What is read ahead while a piece waits.
    ahead: usize,
    /// How much had moved when a piece first had to wait.
    unmoved: Option<u64>,
    waiting: Option<Waiting>,
    deadline: Deadline,
}

/// The pieces of one request's bodies that are on their way, either way.
#[derive(Debug)]
struct Pieces {
    account: Arc<Account>,
    bytes: AtomicUsize,
    /// How many have gone.
    gone: AtomicU64,
}

/// A piece of a body, counted for as long as any part of it is kept anywhere.
struct Piece {
    bytes: Bytes,
    pieces: Arc<Pieces>,
}

/// Some of a body waits.
#[derive(Debug)]
struct Waiting {
    _ahead: Share,
    /// How much had moved when that was last looked at, and since when it is so.
    moved: u64,
    since: Instant,
    /// How often it was looked at while there was no room at all.
    turns: u32,
}

/// A request that waits is to end: its client, or all of them, hold as much as they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

impl Held {
    pub fn new(account: &Arc<Account>, base: usize) -> Self {
        let share = account.hold(base);
        Self {
            share,
            base,
            lasts: false,
            pieces: None,
            ahead: 0,
            unmoved: None,
            waiting: None,
            deadline: Deadline::default(),
        }
    }

    /// So much more is kept of it until it ends.
    pub fn keep(&mut self, bytes: usize) {
        self.share.raise(if self.lasts { bytes } else { self.base + bytes });
    }

    /// The request turns out to be one that lasts and whose ends may be silent for hours: it holds what it holds only
    /// while some of it waits, and then any piece counts.
    pub fn lasts(&mut self) {
        self.lasts = true;
        self.share.lower();
    }

    /// Counts a piece until it has gone. `ahead`: what may be read behind it while it waits. `Err` has one that is too
    /// short to be counted.
    pub fn piece(&mut self, bytes: Bytes, ahead: usize) -> Result<Bytes, Bytes> {
        if bytes.len() + ahead <= SMALL_PIECE && !self.lasts {
            return Err(bytes);
        }
        self.ahead = if self.lasts { ahead + self.base } else { ahead };
        let account = &self.share.account;
        let pieces = self.pieces.get_or_insert_with(|| Arc::new(Pieces::new(account)));
        account.add(bytes.len());
        pieces.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        Ok(Bytes::from_owner(Piece { bytes, pieces: Arc::clone(pieces) }))
    }

    /// Whether there is room for a piece that has been taken in.
    pub fn has_room(&self) -> bool {
        self.share.account.fill() < Fill::Over
    }

    /// After the request could do no more: ready when it has waited too long for how full its account is. `sent` are
    /// the bytes that its connection's client has taken so far.
    pub fn poll_wait(&mut self, context: &mut Context<'_>, sent: u64) -> Poll<Exhausted> {
        let Some((pieces, bytes)) = self.pieces.as_ref().map(|pieces| (pieces, pieces.waiting())) else {
            return Poll::Pending;
        };
        if bytes == 0 {
            self.waiting = None;
            self.deadline.clear();
            return Poll::Pending;
        }
        let moved = sent + pieces.gone.load(Ordering::Relaxed);
        let account = &self.share.account;
        let ahead = self.ahead;
        let waiting = self.waiting.get_or_insert_with(|| Waiting::new(account.hold(ahead), moved));
        let waited = waiting.looked_at(moved);
        let has_moved = *self.unmoved.get_or_insert(moved) != moved;
        let fill = account.fill();
        let Some(most) = most_wait(fill, has_moved, bytes) else {
            return self.look_again(LOOK_AGAIN, context);
        };
        if fill == Fill::Over && most.is_zero() && waiting.turns < TURNS {
            // Who writes it to the client has not had its turn yet.
            waiting.turns += 1;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        match most.checked_sub(waited).filter(|left| !left.is_zero()) {
            None => Poll::Ready(Exhausted),
            Some(left) => self.look_again(left.min(LOOK_AGAIN), context),
        }
    }

    fn look_again(&mut self, after: Duration, context: &mut Context<'_>) -> Poll<Exhausted> {
        while self.deadline.reset(after).poll(context).is_ready() {}
        Poll::Pending
    }
}

/// How long so many bytes may wait without moving. `None`: as long as the timeouts let them.
fn most_wait(fill: Fill, has_moved: bool, bytes: usize) -> Option<Duration> {
    let at_rate = |rate: usize| Duration::from_secs_f64(bytes as f64 / rate as f64);
    match fill {
        Fill::Low => None,
        Fill::Half => Some(HALF_FULL + at_rate(LEAST_RATE)),
        Fill::Full => Some(FULL + at_rate(LEAST_RATE_FULL)),
        Fill::Over if has_moved => Some(FULL + at_rate(LEAST_RATE_FULL)),
        Fill::Over | Fill::FarOver => Some(Duration::ZERO),
    }
}

impl Waiting {
    fn new(ahead: Share, moved: u64) -> Self {
        Self { _ahead: ahead, moved, since: Instant::now(), turns: 0 }
    }

    /// Answers since when nothing has moved.
    fn looked_at(&mut self, moved: u64) -> Duration {
        let now = Instant::now();
        if moved != self.moved {
            (self.moved, self.since, self.turns) = (moved, now, 0);
        }
        now - self.since
    }
}

impl Pieces {
    fn new(account: &Arc<Account>) -> Self {
        Self { account: Arc::clone(account), bytes: AtomicUsize::new(0), gone: AtomicU64::new(0) }
    }

    fn waiting(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let Self { bytes, pieces } = self;
        pieces.account.give_back(bytes.len());
        pieces.bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
        pieces.gone.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::buffers::Buffers;
    use crate::client_prefix::ClientPrefix;

    const BASE: usize = 1000;

    fn client(number: u8) -> ClientPrefix {
        ClientPrefix::of([192, 0, 2, number].into())
    }

    fn buffers(most: usize, most_each: usize) -> Arc<Buffers> {
        Buffers::new(prometheus::IntGauge::new("held", "held").unwrap(), most, most_each)
    }

    fn piece(bytes: usize) -> Bytes {
        vec![b'x'; bytes].into()
    }

    /// How long a request waits until it is to end.
    async fn waits(held: &mut Held, sent: impl Fn() -> u64) -> Duration {
        let begun = Instant::now();
        poll_fn(|context| held.poll_wait(context, sent())).await;
        begun.elapsed()
    }

    #[test]
    fn a_piece_counts_until_the_last_part_of_it_has_gone() {
        let account = buffers(1 << 30, 1 << 20).account(client(1));
        let mut held = Held::new(&account, BASE);
        let mut passed = held.piece(piece(50_000), 0).unwrap();
        assert_eq!(account.held.load(Ordering::Relaxed), BASE + 50_000);
        let part = passed.split_to(10);
        drop(passed);
        assert_eq!(account.held.load(Ordering::Relaxed), BASE + 50_000);
        // Also where its request has ended before.
        drop(held);
        assert_eq!(account.held.load(Ordering::Relaxed), 50_000);
        drop(part);
        assert_eq!(account.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn short_pieces_are_in_the_share_but_of_a_request_that_lasts() {
        let account = buffers(1 << 30, 1 << 20).account(client(1));
        let mut held = Held::new(&account, BASE);
        let short = held.piece(piece(SMALL_PIECE), 0).unwrap_err();
        assert_eq!(account.held.load(Ordering::Relaxed), BASE);
        held.lasts();
        assert_eq!(account.held.load(Ordering::Relaxed), 0);
        let of_a_stream = held.piece(short, 0).unwrap();
        assert_eq!(account.held.load(Ordering::Relaxed), SMALL_PIECE);
        drop(of_a_stream);
    }

    #[tokio::test(start_paused = true)]
    async fn the_more_is_held_the_less_a_piece_may_wait() {
        for (others, most) in [(500_000, 10 + 20), (1_000_000, 2), (1_300_000, 0), (2_000_000, 0)] {
            let account = buffers(1 << 30, 1_000_000).account(client(1));
            let _others = account.hold(others);
            let mut held = Held::new(&account, BASE);
            let _piece = held.piece(piece(20 << 10), 0).unwrap();
            let waited = waits(&mut held, || 0).await.as_secs();
            assert!((most.max(1) - 1..=most + 1).contains(&waited), "{waited} s beside {others}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_something_is_waited_for_and_what_waits_for_none_is_let_be() {
        let account = buffers(1 << 30, 1_000_000).account(client(1));
        let _others = account.hold(1_100_000);
        let mut held = Held::new(&account, BASE);
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, waits(&mut held, || 0)).await.is_err(), "nothing waits");
        // A little in each half second, and nothing from the tenth second on.
        let _piece = held.piece(piece(20 << 10), 0).unwrap();
        let begun = Instant::now();
        let sent = || begun.elapsed().min(Duration::from_secs(10)).as_millis() as u64 / 500;
        let mut turns = tokio::time::interval(Duration::from_millis(500));
        let waited = async {
            loop {
                tokio::select! {
                    _ = waits(&mut held, sent) => return begun.elapsed(),
                    // Its connection has taken something, and so it is polled.
                    _ = turns.tick() => {}
                }
            }
        };
        assert_eq!(waited.await.as_secs(), 12);
        let _far_more = account.hold(500_000);
        assert_eq!(waits(&mut held, || 1000).await, Duration::ZERO, "there is an end to it");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_read_ahead_counts_while_a_piece_waits() {
        let account = buffers(1 << 30, 10_000_000).account(client(1));
        let mut held = Held::new(&account, BASE);
        let passed = held.piece(piece(5000), 300_000).unwrap();
        let polled = |held: &mut Held| {
            let mut context = Context::from_waker(std::task::Waker::noop());
            assert!(held.poll_wait(&mut context, 0).is_pending());
            account.held.load(Ordering::Relaxed)
        };
        assert_eq!(polled(&mut held), BASE + 305_000);
        drop(passed);
        assert_eq!(polled(&mut held), BASE);
    }
}
