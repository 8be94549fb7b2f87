//! Shutdown: requests in flight are finished, as far as there is time, and new connections are not accepted.

use std::time::{Duration, Instant};

use super::Edge;
use crate::sessions::replicated::hints::Hint;

/// During this time idle connections get `Connection: close` with their next response; after it they are closed.
const LAME_DUCK: Duration = Duration::from_millis(300);

/// The interval between two looks at the requests in flight.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The time for remaining tasks to end.
const FORCE_TIMEOUT: Duration = Duration::from_millis(500);

impl Edge {
    /// Stops being ready, then stops accepting connections, then waits until the requests in flight have finished,
    /// `drain` has passed or `force` completes. Blocks. Returns how many requests were cut off.
    pub fn shutdown_gracefully(mut self, force: impl Future<Output = ()>) -> usize {
        self.drain.begin();
        let Some(runtime) = self.runtime.take() else { return 0 };
        runtime.block_on(async {
            tokio::select! {
                () = self.drained() => {}
                () = force => {}
            }
        });
        let cut = self.drain.in_flight();
        // The next process replays the pending hints.
        self.hint_file.write(|| self.pending_hints());
        // Idle connections and requests whose time is up remain.
        runtime.shutdown_timeout(FORCE_TIMEOUT);
        // A request that was cut off may have been a logout.
        self.hint_file.write(|| self.pending_hints());
        self.logs.close();
        cut
    }

    async fn drained(&self) {
        let drain = self.config.load().server.drain;
        let deadline = Instant::now() + drain;
        tokio::time::sleep(LAME_DUCK.min(drain)).await;
        self.closing.send_replace(true);
        // A session server that comes back in time still gets the ends that it has missed.
        while (self.drain.in_flight() > 0 || !self.pending_hints().is_empty()) && Instant::now() < deadline {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The hints that are still pending.
    fn pending_hints(&self) -> Vec<Hint> {
        self.store.cluster.as_ref().map(|cluster| cluster.hints().all()).unwrap_or_default()
    }
}
