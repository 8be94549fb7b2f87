//! The address of a server: a fixed one, or those that its name resolves to at the moment.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::resolver::ResolvedName;

pub enum ServerAddress {
    Address(SocketAddr),
    Name {
        name: Arc<ResolvedName>,
        port: u16,
        /// Its addresses take turns.
        next: AtomicUsize,
    },
}

impl ServerAddress {
    pub fn has_address(&self) -> bool {
        match self {
            Self::Address(_) => true,
            Self::Name { name, .. } => name.has_address(),
        }
    }

    /// Returns the address whose turn it is; the same each time for the same key.
    pub fn address(&self, key: Option<u64>) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Name { name, port, next } => {
                let addresses = name.addresses();
                if addresses.is_empty() {
                    return None;
                }
                let turn = key.map_or_else(|| next.fetch_add(1, Ordering::Relaxed), |key| key as usize);
                Some(with_port(addresses[turn % addresses.len()], *port))
            }
        }
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Self::Address(address) => vec![*address],
            Self::Name { name, port, .. } => {
                name.addresses().iter().map(|address| with_port(*address, *port)).collect()
            }
        }
    }
}

/// Keeps the zone of a link-local address (RFC 4007).
fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}
