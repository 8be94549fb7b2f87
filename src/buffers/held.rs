//! The memory of one request: its reservation, and the chunks of its bodies while they are in transit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Account, Fill, Reservation};
use crate::deadline::Deadline;

/// Chunks up to this size are covered by the reservation of their request.
const SMALL_CHUNK: usize = 4096;
/// While an account is half full: how long a request may make no progress, and how many bytes per second it has to move beyond
/// that.
const HALF_FULL: Duration = Duration::from_secs(10);
const MIN_RATE: usize = 1024;
/// The same while the account is full.
const FULL: Duration = Duration::from_secs(1);
const MIN_RATE_FULL: usize = 16 << 10;
/// A request without room may wait for this many turns of the runtime.
const TURNS: u32 = 3;
/// A waiting request checks the account this often, because others may have filled it.
const RECHECK_INTERVAL: Duration = Duration::from_secs(2);

/// The memory of one request.
#[derive(Debug)]
pub struct RequestMemory {
    reservation: Reservation,
    /// The reservation at the beginning of the request.
    base: usize,
    /// A long-lived request holds its reservation only while a chunk waits.
    is_long_lived: bool,
    /// Created for the first chunk that is counted.
    chunks: Option<Arc<Chunks>>,
    /// How many bytes may be read ahead while a chunk waits.
    ahead: usize,
    /// How much had moved when a chunk first had to wait.
    unmoved: Option<u64>,
    waiting: Option<Waiting>,
    deadline: Deadline,
}

/// The chunks of a request's bodies that are in transit, in both directions.
#[derive(Debug)]
struct Chunks {
    account: Arc<Account>,
    bytes: AtomicUsize,
    /// How many chunks have been released.
    released: AtomicU64,
}

/// A chunk of a body, counted for as long as any part of it is in memory.
struct Chunk {
    bytes: Bytes,
    chunks: Arc<Chunks>,
}

/// The state while some of a body waits.
#[derive(Debug)]
struct Waiting {
    _ahead: Reservation,
    /// How much had moved at the last check, and since when it is unchanged.
    moved: u64,
    since: Instant,
    /// How often the account was checked while there was no room at all.
    turns: u32,
}

/// A waiting request has to end: its client, or all clients together, have reached the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

impl RequestMemory {
    pub fn new(account: &Arc<Account>, base: usize) -> Self {
        let reservation = account.reserve(base);
        Self {
            reservation,
            base,
            is_long_lived: false,
            chunks: None,
            ahead: 0,
            unmoved: None,
            waiting: None,
            deadline: Deadline::default(),
        }
    }

    /// Raises the reservation by `bytes` above its base, until the request ends.
    pub fn reserve_extra(&mut self, bytes: usize) {
        self.reservation.raise_to(if self.is_long_lived { bytes } else { self.base + bytes });
    }

    /// Marks the request as long-lived: both ends may be silent for hours. Its reservation is held only while some of its body
    /// waits, and chunks of any size are counted.
    pub fn set_long_lived(&mut self) {
        self.is_long_lived = true;
        self.reservation.release();
    }

    /// Counts a chunk until it is dropped. `ahead` is how many bytes may be read ahead while it waits. Returns a chunk that is
    /// too short to be counted as `Err`.
    pub fn track_chunk(&mut self, bytes: Bytes, ahead: usize) -> Result<Bytes, Bytes> {
        if bytes.len() + ahead <= SMALL_CHUNK && !self.is_long_lived {
            return Err(bytes);
        }
        self.ahead = if self.is_long_lived { ahead + self.base } else { ahead };
        let account = &self.reservation.account;
        let chunks = self.chunks.get_or_insert_with(|| Arc::new(Chunks::new(account)));
        account.add(bytes.len());
        chunks.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        Ok(Bytes::from_owner(Chunk { bytes, chunks: Arc::clone(chunks) }))
    }

    /// Whether there is room for a chunk that has been read.
    pub fn has_room(&self) -> bool {
        self.reservation.account.fill() < Fill::Over
    }

    /// To be polled after the request could make no progress: is ready when it has waited too long for how full its account is.
    /// `sent` is the number of bytes that the client of its connection has read so far.
    pub fn poll_wait(&mut self, context: &mut Context<'_>, sent: u64) -> Poll<Exhausted> {
        let Some((chunks, bytes)) = self.chunks.as_ref().map(|chunks| (chunks, chunks.waiting())) else {
            return Poll::Pending;
        };
        if bytes == 0 {
            self.waiting = None;
            self.deadline.clear();
            return Poll::Pending;
        }
        let moved = sent + chunks.released.load(Ordering::Relaxed);
        let account = &self.reservation.account;
        let ahead = self.ahead;
        let waiting = self.waiting.get_or_insert_with(|| Waiting::new(account.reserve(ahead), moved));
        let waited = waiting.idle_time(moved);
        let has_moved = *self.unmoved.get_or_insert(moved) != moved;
        let fill = account.fill();
        let Some(limit) = max_wait(fill, has_moved, bytes) else {
            return self.recheck_after(RECHECK_INTERVAL, context);
        };
        if fill == Fill::Over && limit.is_zero() && waiting.turns < TURNS {
            // The task that writes to the client may not have run yet.
            waiting.turns += 1;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        match limit.checked_sub(waited).filter(|left| !left.is_zero()) {
            None => Poll::Ready(Exhausted),
            Some(left) => self.recheck_after(left.min(RECHECK_INTERVAL), context),
        }
    }

    fn recheck_after(&mut self, after: Duration, context: &mut Context<'_>) -> Poll<Exhausted> {
        while self.deadline.reset(after).poll(context).is_ready() {}
        Poll::Pending
    }
}

/// Returns how long a request may wait without progress while `bytes` wait; `None` when only the timeouts apply.
fn max_wait(fill: Fill, has_moved: bool, bytes: usize) -> Option<Duration> {
    let at_rate = |rate: usize| Duration::from_secs_f64(bytes as f64 / rate as f64);
    match fill {
        Fill::Low => None,
        Fill::Half => Some(HALF_FULL + at_rate(MIN_RATE)),
        Fill::Full => Some(FULL + at_rate(MIN_RATE_FULL)),
        Fill::Over if has_moved => Some(FULL + at_rate(MIN_RATE_FULL)),
        Fill::Over | Fill::FarOver => Some(Duration::ZERO),
    }
}

impl Waiting {
    fn new(ahead: Reservation, moved: u64) -> Self {
        Self { _ahead: ahead, moved, since: Instant::now(), turns: 0 }
    }

    /// Returns how long nothing has moved.
    fn idle_time(&mut self, moved: u64) -> Duration {
        let now = Instant::now();
        if moved != self.moved {
            (self.moved, self.since, self.turns) = (moved, now, 0);
        }
        now - self.since
    }
}

impl Chunks {
    fn new(account: &Arc<Account>) -> Self {
        Self { account: Arc::clone(account), bytes: AtomicUsize::new(0), released: AtomicU64::new(0) }
    }

    fn waiting(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let Self { bytes, chunks } = self;
        chunks.account.release(bytes.len());
        chunks.bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
        chunks.released.fetch_add(1, Ordering::Relaxed);
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

    fn buffers(limit: usize, limit_per_client: usize) -> Arc<Buffers> {
        Buffers::new(prometheus::IntGauge::new("held", "held").unwrap(), limit, limit_per_client)
    }

    fn bytes(count: usize) -> Bytes {
        vec![b'x'; count].into()
    }

    /// Returns how long a request waits until it has to end.
    async fn waits(held: &mut RequestMemory, sent: impl Fn() -> u64) -> Duration {
        let begun = Instant::now();
        poll_fn(|context| held.poll_wait(context, sent())).await;
        begun.elapsed()
    }

    #[test]
    fn a_chunk_counts_until_the_last_part_of_it_is_dropped() {
        let account = buffers(1 << 30, 1 << 20).account(client(1));
        let mut held = RequestMemory::new(&account, BASE);
        let mut passed = held.track_chunk(bytes(50_000), 0).unwrap();
        assert_eq!(account.held.load(Ordering::Relaxed), BASE + 50_000);
        let part = passed.split_to(10);
        drop(passed);
        assert_eq!(account.held.load(Ordering::Relaxed), BASE + 50_000);
        // It counts even after its request has ended.
        drop(held);
        assert_eq!(account.held.load(Ordering::Relaxed), 50_000);
        drop(part);
        assert_eq!(account.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn short_chunks_are_covered_by_the_reservation_except_those_of_long_lived_requests() {
        let account = buffers(1 << 30, 1 << 20).account(client(1));
        let mut held = RequestMemory::new(&account, BASE);
        let short = held.track_chunk(bytes(SMALL_CHUNK), 0).unwrap_err();
        assert_eq!(account.held.load(Ordering::Relaxed), BASE);
        held.set_long_lived();
        assert_eq!(account.held.load(Ordering::Relaxed), 0);
        let of_a_stream = held.track_chunk(short, 0).unwrap();
        assert_eq!(account.held.load(Ordering::Relaxed), SMALL_CHUNK);
        drop(of_a_stream);
    }

    #[tokio::test(start_paused = true)]
    async fn the_more_is_held_the_less_a_chunk_may_wait() {
        for (others, most) in [(500_000, 10 + 20), (1_000_000, 2), (1_300_000, 0), (2_000_000, 0)] {
            let account = buffers(1 << 30, 1_000_000).account(client(1));
            let _others = account.reserve(others);
            let mut held = RequestMemory::new(&account, BASE);
            let _chunk = held.track_chunk(bytes(20 << 10), 0).unwrap();
            let waited = waits(&mut held, || 0).await.as_secs();
            assert!((most.max(1) - 1..=most + 1).contains(&waited), "{waited} s beside {others}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_gets_more_time_and_a_request_without_a_waiting_chunk_is_not_affected() {
        let account = buffers(1 << 30, 1_000_000).account(client(1));
        let _others = account.reserve(1_100_000);
        let mut held = RequestMemory::new(&account, BASE);
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, waits(&mut held, || 0)).await.is_err(), "nothing waits");
        // The client reads a little every half second, and nothing from the tenth second on.
        let _chunk = held.track_chunk(bytes(20 << 10), 0).unwrap();
        let begun = Instant::now();
        let sent = || begun.elapsed().min(Duration::from_secs(10)).as_millis() as u64 / 500;
        let mut turns = tokio::time::interval(Duration::from_millis(500));
        let waited = async {
            loop {
                tokio::select! {
                    _ = waits(&mut held, sent) => return begun.elapsed(),
                    // The connection has made progress, and so the request is polled.
                    _ = turns.tick() => {}
                }
            }
        };
        assert_eq!(waited.await.as_secs(), 12);
        let _far_more = account.reserve(500_000);
        assert_eq!(waits(&mut held, || 1000).await, Duration::ZERO, "the waiting ends");
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_read_ahead_count_while_a_chunk_waits() {
        let account = buffers(1 << 30, 10_000_000).account(client(1));
        let mut held = RequestMemory::new(&account, BASE);
        let passed = held.track_chunk(bytes(5000), 300_000).unwrap();
        let polled = |held: &mut RequestMemory| {
            let mut context = Context::from_waker(std::task::Waker::noop());
            assert!(held.poll_wait(&mut context, 0).is_pending());
            account.held.load(Ordering::Relaxed)
        };
        assert_eq!(polled(&mut held), BASE + 305_000);
        drop(passed);
        assert_eq!(polled(&mut held), BASE);
    }
}
