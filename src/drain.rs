//! Whether the process is draining, and which requests and client connections are still there.
//!
//! `proxy` and `listener` read the state and count requests and connections; `server` starts the drain, waits for its end
//! and cuts what is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

/// Connections are kept.
const SERVING: u8 = 0;
/// Each connection is closed with its next response.
const DRAINING: u8 = 1;
/// The time is up: requests in flight are dropped.
const CUTTING: u8 = 2;

#[derive(Debug, Default)]
pub struct Drain {
    phase: AtomicU8,
    /// Another process serves in the place of this one.
    is_replaced: AtomicBool,
    in_flight: AtomicUsize,
    connections: AtomicUsize,
}

/// Counts one request as in flight until this is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Drain>);

/// Counts one client connection as open until this is dropped.
#[derive(Debug)]
pub struct TrackedConnection(Arc<Drain>);

impl Drain {
    pub fn begin(&self) {
        self.phase.fetch_max(DRAINING, Ordering::AcqRel);
    }

    /// From now on, requests that are dropped were cut by the end of the drain.
    pub fn cut(&self) {
        self.phase.fetch_max(CUTTING, Ordering::AcqRel);
    }

    /// Whether a connection over HTTP/1.1 is kept after this response, for a client that wants it so. To be called when
    /// the head of the response is written: when the request began, the drain may not have.
    pub fn keeps_alive(&self, client_wants: bool) -> bool {
        client_wants && !self.is_draining()
    }

    /// Another process serves on the same sockets: this one drains, and the edge as a whole does not.
    pub fn begin_replaced(&self) {
        self.is_replaced.store(true, Ordering::Release);
        self.begin();
    }

    pub fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::Acquire)
    }

    /// Whether the edge goes away, so that balancers are to send their requests elsewhere.
    pub fn is_leaving(&self) -> bool {
        self.is_draining() && !self.is_replaced()
    }

    pub fn is_draining(&self) -> bool {
        self.phase.load(Ordering::Acquire) != SERVING
    }

    pub fn is_cutting(&self) -> bool {
        self.phase.load(Ordering::Acquire) == CUTTING
    }

    /// Whether there is anything to wait for. A connection without a request counts: its next request may be under way.
    pub fn is_busy(&self) -> bool {
        self.in_flight() > 0 || self.connections.load(Ordering::Acquire) > 0
    }

    pub fn track_request(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlight(Arc::clone(self))
    }

    pub fn track_connection(self: &Arc<Self>) -> TrackedConnection {
        self.connections.fetch_add(1, Ordering::AcqRel);
        TrackedConnection(Arc::clone(self))
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }
}

impl InFlight {
    pub fn drain(&self) -> &Drain {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for TrackedConnection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
    }
}
