//! How many connections each client has open, so that none takes all the places there are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::network::Network;

/// Open connections by client. As many entries as there are clients connected, so the limit on all connections
/// bounds it.
#[derive(Debug, Default)]
pub struct Crowd(Mutex<HashMap<Network, usize>>);

/// One connection, counted until this is dropped.
#[derive(Debug)]
pub struct Place {
    crowd: Arc<Crowd>,
    network: Network,
}

impl Crowd {
    /// `None` when the client has that many open already.
    pub fn enter(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<Place> {
        let network = Network::of(address);
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(network).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place { crowd: Arc::clone(self), network })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_so_many_places_and_others_have_theirs() {
        let crowd = Arc::new(Crowd::default());
        let enter = |address: &str| crowd.enter(address.parse().unwrap(), 2);
        let first = enter("2001:db8::1").unwrap();
        let _second = enter("2001:db8::2").unwrap();
        assert!(enter("2001:db8::3").is_none(), "one /64 is one client");
        assert!(enter("2001:db8:0:1::1").is_some());
        drop(first);
        assert!(enter("2001:db8::3").is_some(), "a place is free again");
    }

    #[test]
    fn who_has_left_is_forgotten() {
        let crowd = Arc::new(Crowd::default());
        drop(crowd.enter("192.0.2.1".parse().unwrap(), 1));
        assert!(crowd.0.lock().unwrap().is_empty());
    }
}
