//! Which servers hold a key: consistent hashing, so that adding or removing a server moves only that server's share.
//!
//! The ring is ketama's, with 160 points per unit of weight, and every edge that lists the same servers has the same
//! ring. A server's points follow from its name as written in the configuration, not from what the name resolves to: all
//! edges have to write the name in the same way.

use std::collections::HashMap;
use std::net::{Ipv6Addr, SocketAddr};

use pingora_ketama::{Bucket, Continuum};
use ring::digest;

use super::node::NodeConfig;

pub struct Ring {
    continuum: Continuum,
    servers: HashMap<SocketAddr, usize, ahash::RandomState>,
}

impl Ring {
    /// Places the servers on the ring by name and weight. A weight of 0 counts as 1.
    pub fn new(servers: &[NodeConfig]) -> Self {
        let point = |server: &NodeConfig| (placeholder_address(&server.name), server.weight.max(1));
        let buckets: Vec<(SocketAddr, u32)> = servers.iter().map(point).collect();
        let continuum: Vec<Bucket> = buckets.iter().map(|(address, weight)| Bucket::new(*address, *weight)).collect();
        let servers = buckets.iter().enumerate().map(|(index, (address, _))| (*address, index)).collect();
        Self { continuum: Continuum::new(&continuum), servers }
    }

    /// Returns the index of the first server for `key`.
    pub fn first(&self, key: &str) -> usize {
        let address = self.continuum.node(key.as_bytes());
        address.and_then(|address| self.servers.get(&address)).copied().unwrap_or(0)
    }

    /// Returns the first `count` different servers for `key`, or all of them when there are fewer.
    pub fn replicas(&self, key: &str, count: usize) -> Vec<usize> {
        let wanted = count.min(self.servers.len());
        let mut replicas = Vec::with_capacity(wanted);
        for address in self.continuum.node_iter(key.as_bytes()) {
            if replicas.len() == wanted {
                break;
            }
            if let Some(index) = self.servers.get(address)
                && !replicas.contains(index)
            {
                replicas.push(*index);
            }
        }
        replicas
    }
}

/// The ketama crate places socket addresses, but a server may be a name or the path of a Unix socket. Each server
/// therefore gets an address that is derived from its name; no connection is ever made to it.
fn placeholder_address(name: &str) -> SocketAddr {
    let hash = digest::digest(&digest::SHA256, name.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_ref()[..16]);
    SocketAddr::from((Ipv6Addr::from(bytes), 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: usize = 100_000;

    fn name(index: usize) -> String {
        format!("10.0.0.{index}:11211")
    }

    fn server(name: &str, weight: u32) -> NodeConfig {
        NodeConfig { name: name.to_owned(), weight }
    }

    fn ring(servers: usize) -> Ring {
        Ring::new(&(0..servers).map(|index| server(&name(index), 1)).collect::<Vec<_>>())
    }

    fn keys() -> impl Iterator<Item = String> {
        (0..KEYS).map(|n| format!("s:{n}"))
    }

    #[test]
    fn each_server_has_about_its_share() {
        for servers in [2, 3, 8, 20] {
            let ring = ring(servers);
            let mut held = vec![0; servers];
            keys().for_each(|key| held[ring.first(&key)] += 1);
            let fair = KEYS / servers;
            assert!(held.iter().all(|held| (fair / 2..fair * 2).contains(held)), "{held:?}");
        }
    }

    #[test]
    fn a_heavier_server_has_more() {
        let ring = Ring::new(&[server("a:1", 1), server("b:1", 3)]);
        let of_b = keys().filter(|key| ring.first(key) == 1).count();
        assert!((KEYS * 6 / 10..KEYS * 9 / 10).contains(&of_b), "{of_b} of {KEYS}");
    }

    #[test]
    fn a_server_that_comes_takes_its_share_and_moves_nothing_else() {
        let (before, after) = (ring(9), ring(10));
        let moved: Vec<String> = keys().filter(|key| before.first(key) != after.first(key)).collect();
        assert!(moved.iter().all(|key| after.first(key) == 9), "keys move to the new server alone");
        assert!((KEYS / 20..KEYS / 5).contains(&moved.len()), "{} of {KEYS} moved", moved.len());
    }

    #[test]
    fn copies_are_on_different_servers_and_the_first_of_them_is_the_first() {
        let ring = ring(5);
        for key in keys().take(2000) {
            let replicas = ring.replicas(&key, 3);
            assert_eq!(replicas.len(), 3);
            assert_eq!(replicas[0], ring.first(&key));
            assert!(replicas[0] != replicas[1] && replicas[1] != replicas[2] && replicas[0] != replicas[2]);
        }
        assert_eq!(ring.replicas("s:1", 9).len(), 5, "no more than there are");
    }

    #[test]
    fn the_order_in_the_list_does_not_matter() {
        let there = Ring::new(&[server("a:1", 1), server("b:1", 2), server("unix:///c", 1)]);
        let here = Ring::new(&[server("unix:///c", 1), server("b:1", 2), server("a:1", 1)]);
        let (there_names, here_names) = (["a", "b", "c"], ["c", "b", "a"]);
        for key in keys().take(2000) {
            let there = there.replicas(&key, 2).into_iter().map(|index| there_names[index]);
            let here = here.replicas(&key, 2).into_iter().map(|index| here_names[index]);
            assert!(there.eq(here), "{key}");
        }
    }
}
