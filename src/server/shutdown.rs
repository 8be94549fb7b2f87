//! Shutdown: requests in flight are finished, as far as there is time, and new connections are not accepted.

use std::time::{Duration, Instant};

use super::Edge;
use crate::sessions::replicated::hints::Hint;

/// The interval between two looks at the requests in flight.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The time for remaining tasks to end.
const FORCE_TIMEOUT: Duration = Duration::from_millis(1500);

impl Edge {
    /// Stops accepting connections, as another process does that in the place of this one, and drains.
    pub fn leave_to_successor(self, force: impl Future<Output = ()>) -> u64 {
        self.drain.begin_replaced();
        // Operators and probes have to reach the process that serves.
        self.admin_closing.send_replace(true);
        self.closing.send_replace(true);
        self.shutdown_gracefully(force)
    }

    /// Stops being ready, gives balancers `drain.notice` to notice that, stops accepting connections, and waits until
    /// the connections of clients have ended, `drain.requests` has passed or `force` completes. Blocks. Each request that
    /// is still in flight then is recorded; returns how many were cut off.
    pub fn shutdown_gracefully(mut self, force: impl Future<Output = ()>) -> u64 {
        self.drain.begin();
        let Some(runtime) = self.runtime.take() else { return 0 };
        runtime.block_on(async {
            tokio::select! {
                () = self.drained() => {}
                () = force => {}
            }
        });
        self.drain.cut();
        // The next process replays the pending hints.
        self.hint_file.write(|| self.pending_hints());
        // Idle connections and requests whose time is up remain.
        runtime.shutdown_timeout(FORCE_TIMEOUT);
        self.upgrade.remove_control_socket();
        // A request that was cut off may have been a logout.
        self.hint_file.write(|| self.pending_hints());
        let left = self.drain.in_flight();
        if left > 0 {
            log::warn!("drain: requests that could not be stopped have no line in the access log requests={left}");
        }
        self.logs.close();
        self.shared.metrics.operation.drain_cut.get() + left as u64
    }

    async fn drained(&self) {
        let drain = self.config.load().server.drain;
        // No balancer has to notice that another process of the edge serves.
        if !self.drain.is_replaced() {
            tokio::time::sleep(drain.notice).await;
        }
        self.closing.send_replace(true);
        log::info!("drain: the listeners close; requests may take {:?}", drain.requests);
        let deadline = Instant::now() + drain.requests;
        loop {
            // At first for connections that the kernel has accepted already.
            tokio::time::sleep(POLL_INTERVAL).await;
            // A session server that comes back in time still gets the ends that it has missed.
            let is_over = !self.drain.is_busy() && self.pending_hints().is_empty();
            if is_over || Instant::now() >= deadline {
                return;
            }
        }
    }

    /// The hints that are still pending.
    fn pending_hints(&self) -> Vec<Hint> {
        self.store.cluster.as_ref().map(|cluster| cluster.hints().all()).unwrap_or_default()
    }
}
