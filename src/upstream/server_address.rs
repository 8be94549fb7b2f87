//! The addresses of a server: a fixed one, or those that its name resolves to at the moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::resolver::ResolvedName;
use super::server_state::{AddressState, ServerState};

pub enum ServerAddress {
    Fixed(Arc<AddressState>),
    Name { name: Arc<ResolvedName>, port: u16, state: Arc<ServerState>, turns: Turns },
}

/// The addresses of a name take turns.
#[derive(Default)]
pub struct Turns {
    next: AtomicUsize,
    /// Of further attempts of a request, which do not move the turn.
    next_further: AtomicUsize,
}

/// Which address of a name comes first.
#[derive(Clone, Copy, Debug)]
pub enum First {
    InTurn,
    /// The next one for a further attempt of a request.
    Further,
    /// The same each time for the same key.
    OfKey(u64),
}

impl ServerAddress {
    /// Calls `visit` with the server's addresses until that returns something.
    pub fn find<T>(&self, first: First, mut visit: impl FnMut(&Arc<AddressState>) -> Option<T>) -> Option<T> {
        match self {
            Self::Fixed(address) => visit(address),
            Self::Name { name, port, state, turns } => {
                let addresses = state.resolved(&name.addresses(), *port);
                if addresses.is_empty() {
                    return None;
                }
                let turn = match first {
                    First::InTurn => turns.next.fetch_add(1, Ordering::Relaxed),
                    First::Further => turns.next_further.fetch_add(1, Ordering::Relaxed),
                    First::OfKey(key) => key as usize,
                };
                let (before, from) = addresses.split_at(turn % addresses.len());
                from.iter().chain(before).find_map(visit)
            }
        }
    }

    /// Whether there is such an address. Takes no turn.
    pub fn any(&self, is_such: impl Fn(&AddressState) -> bool) -> bool {
        self.find(First::OfKey(0), |address| is_such(address).then_some(())).is_some()
    }
}
