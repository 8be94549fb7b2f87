//! The attempts at a server that are under way, counted by guards.

use prometheus::IntGauge;

/// Counts one attempt at a server for as long as it exists, so that an attempt that is cut is counted down like one that
/// ends. The count is the metric `upstream_in_flight` itself, which belongs to the process: it stays right over a reload,
/// where attempts at the same server are under way in both snapshots.
#[derive(Debug)]
pub struct InFlight(IntGauge);

impl InFlight {
    pub fn begin(count: &IntGauge) -> Self {
        count.inc();
        Self(count.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
