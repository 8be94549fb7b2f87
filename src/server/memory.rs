//! Gives memory back to the system after clients have made the edge hold much of it.
//!
//! mimalloc keeps what was freed for a while, and looks whether that is over when large blocks come and go. An edge that
//! has become quiet has none, and would keep what an attack took for as long as it is quiet.

use std::time::Duration;

use prometheus::IntGauge;
use tokio::time::MissedTickBehavior;

const TICK: Duration = Duration::from_secs(1);
/// So much less is held than a moment before.
const MUCH: i64 = 4 << 20;
/// Each worker has memory of its own, and each is to look.
const ROUNDS: u32 = 30;
/// A block that mimalloc takes from the system by itself.
const LARGE: usize = 64 << 20;

/// Never ends.
pub async fn watch(held: IntGauge) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut before, mut rounds) = (0, 0_u32);
    loop {
        ticks.tick().await;
        let now = held.get();
        if before - now > MUCH {
            rounds = ROUNDS;
        }
        before = now;
        if rounds > 0 {
            rounds -= 1;
            // Reserved, never written to, and given back at once.
            drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE)));
        }
    }
}
