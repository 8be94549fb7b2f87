//! Stopping: requests in flight are finished, as far as there is time, and nothing new is taken.

use std::time::{Duration, Instant};

use super::Edge;
use crate::sessions::replicated::hints::Hint;

/// While it lasts, an idle connection is told to close with its next response rather than cut.
const LAME_DUCK: Duration = Duration::from_millis(300);

/// Between two looks at what is still in flight.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// For tasks to end whose time is up.
const FORCE_TIMEOUT: Duration = Duration::from_millis(500);

impl Edge {
    /// Ready no more, then no new connections, then until what is in flight has finished, `drain` has passed or
    /// `force` says that it is enough. Blocks. Answers how many requests were cut off.
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
        // What is owed yet is a successor's to tell.
        self.hint_file.write(|| self.pending_hints());
        // What remains are idle connections and requests whose time is up.
        runtime.shutdown_timeout(FORCE_TIMEOUT);
        // One of those may have been a logout.
        self.hint_file.write(|| self.pending_hints());
        self.logs.close();
        cut
    }

    async fn drained(&self) {
        let drain = self.config.load().server.drain;
        let deadline = Instant::now() + drain;
        tokio::time::sleep(LAME_DUCK.min(drain)).await;
        self.closing.send_replace(true);
        // A session server that comes back in time hears of the ends that it has missed.
        while (self.drain.in_flight() > 0 || !self.pending_hints().is_empty()) && Instant::now() < deadline {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The ends of sessions that some server has not heard of.
    fn pending_hints(&self) -> Vec<Hint> {
        self.store.cluster.as_ref().map(|cluster| cluster.hints().all()).unwrap_or_default()
    }
}
