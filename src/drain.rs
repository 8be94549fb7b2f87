//! Whether the process is going away, and how many requests are still under way.
//!
//! `proxy` asks and counts, `server` decides and waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[derive(Debug, Default)]
pub struct Drain {
    begun: AtomicBool,
    in_flight: AtomicUsize,
}

/// Counts one request for as long as it lives.
#[derive(Debug)]
pub struct InFlight(Arc<Drain>);

impl Drain {
    pub fn begin(&self) {
        self.begun.store(true, Ordering::Release);
    }

    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    pub fn enter(self: &Arc<Self>) -> InFlight {
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
