//! Gives memory back to the system after clients have made the edge hold much of it.
//!
//! mimalloc keeps what was freed for a while, and looks whether that is over when large blocks come and go. An edge that
//! has become quiet has none, and would keep what an attack took for as long as it is quiet.
//!
//! Each worker has a heap of its own, and only its own thread can give back what is in it. So a round is announced to
//! all, each worker that goes to sleep takes part once, and those that sleep already are woken.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::time::MissedTickBehavior;

const TICK: Duration = Duration::from_secs(1);
/// The drop of the bytes held within a tick that starts reclaiming.
const MIN_DROP_BYTES: i64 = 4 << 20;
/// Rounds after the memory was freed: mimalloc waits before it gives a page back, and more may be freed meanwhile.
const ROUNDS: u32 = 30;
/// The pause between two wake-ups: each wakes a worker that sleeps, unless one is awake and looks for work.
const WAKE_UP_PAUSE: Duration = Duration::from_millis(1);
/// `mi_option_generic_collect`, and how large a block must be for its request to count.
const ALLOCATIONS: usize = 10_000;
const MEDIUM_BYTES: usize = 4 << 10;
/// A block that mimalloc takes from the system by itself.
const LARGE_BYTES: usize = 64 << 20;

thread_local! {
    /// The round that this thread took part in last.
    static LAST_ROUND: Cell<u32> = const { Cell::new(0) };
}

/// Counts the rounds in which workers are to give memory back.
#[derive(Clone, Default)]
pub struct MemoryReclaimer(Arc<AtomicU32>);

impl MemoryReclaimer {
    /// Called by a worker that is about to sleep. Costs a comparison when there is nothing to do.
    pub fn before_sleep(&self) {
        let round = self.0.load(Ordering::Relaxed);
        if LAST_ROUND.replace(round) != round {
            reclaim();
        }
    }

    /// Announces rounds when the edge holds much less than before. Never ends.
    pub async fn watch(self, held: IntGauge, workers: usize) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut before, mut rounds) = (0, 0_u32);
        loop {
            ticks.tick().await;
            let now = held.get();
            if before - now > MIN_DROP_BYTES {
                rounds = ROUNDS;
            }
            before = now;
            if rounds > 0 {
                rounds -= 1;
                self.0.fetch_add(1, Ordering::Relaxed);
                for _ in 0..workers {
                    tokio::spawn(tokio::task::yield_now());
                    tokio::time::sleep(WAKE_UP_PAUSE).await;
                }
            }
        }
    }
}

/// mimalloc collects a thread's free pages when that thread has made [`ALLOCATIONS`] allocations that are more than a
/// small block. The large one is reserved, never written to and freed: mimalloc looks at what all threads have freed
/// meanwhile.
fn reclaim() {
    for _ in 0..ALLOCATIONS {
        drop(std::hint::black_box(Vec::<u8>::with_capacity(MEDIUM_BYTES)));
    }
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE_BYTES)));
}
