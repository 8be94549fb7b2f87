//! The task that checks long-lived requests: once a second the guard looks at all of them.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::auth::stream_check::{SweepResult, recheck};
use crate::clock::Clock;
use crate::snapshot::Snapshot;

/// How soon a revocation, a new configuration, or the end of a token reaches a stream.
const TICK: Duration = Duration::from_secs(1);

/// Never ends. Reads of the store run beside the loop, so that a slow store does not delay what is known without it; a
/// round that takes longer than a tick is finished before the next one begins.
pub async fn watch(snapshot: Arc<ArcSwap<Snapshot>>, clock: Clock) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut round: Option<JoinHandle<()>> = None;
    loop {
        ticks.tick().await;
        // The latest configuration: a stream may be older than it.
        let (guard, generation) = {
            let snapshot = snapshot.load();
            (Arc::clone(&snapshot.guard), snapshot.generation)
        };
        let SweepResult { due, stale } = guard.sweep(generation, clock.now()).await;
        recheck(stale, &clock).await;
        if !due.is_empty() && round.as_ref().is_none_or(JoinHandle::is_finished) {
            round = Some(tokio::spawn(guard.check_sessions(due, clock.clone())));
        }
    }
}
