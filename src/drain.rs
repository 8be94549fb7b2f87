//! Whether the process is draining, and how many requests are still in flight.
//!
//! `proxy` reads the state and counts requests; `server` starts the drain and waits for its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[derive(Debug, Default)]
pub struct Drain {
    draining: AtomicBool,
    in_flight: AtomicUsize,
}

/// Counts one request as in flight until this is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Drain>);

impl Drain {
    pub fn begin(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether a connection over HTTP/1.1 is kept after this response, for a client that wants it so.
    pub fn keeps_alive(&self, client_wants: bool) -> bool {
        client_wants && !self.is_draining()
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub fn track_request(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlight(Arc::clone(self))
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}
