//! Resolves a server's name to its addresses. One query is in flight at a time, and it outlives the operation that started
//! it: if the resolver is slower than an operation may take, the next attempt gets the answer, and while the resolver hangs,
//! no queries pile up.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::lookup_host;
use tokio::task::JoinHandle;

#[derive(Default)]
pub struct Resolver {
    in_flight: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
}

impl Resolver {
    /// The caller sets the deadline; the query continues beyond it.
    pub async fn resolve(&mut self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let query = self.in_flight.get_or_insert_with(|| {
            let host = host.to_owned();
            tokio::spawn(async move { lookup_host((host, port)).await.map(Iterator::collect) })
        });
        let answer = query.await;
        self.in_flight = None;
        answer.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_address_is_used_as_it_is_and_a_name_is_resolved() {
        let mut resolver = Resolver::default();
        assert_eq!(resolver.resolve("::1", 7).await.unwrap(), ["[::1]:7".parse().unwrap()]);
        assert!(resolver.in_flight.is_none());
        let local = resolver.resolve("localhost", 7).await.unwrap();
        assert!(!local.is_empty() && local.iter().all(|address| address.ip().is_loopback() && address.port() == 7));
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_leaves_the_query_to_the_next() {
        let mut resolver = Resolver { in_flight: Some(tokio::spawn(std::future::pending())) };
        for _ in 0..3 {
            let waited = tokio::time::timeout(Duration::from_millis(1), resolver.resolve("localhost", 7)).await;
            assert!(waited.is_err(), "the first query hangs, and no other is started");
        }
        let late = vec!["127.0.0.1:9".parse().unwrap()];
        let answer = late.clone();
        resolver.in_flight = Some(tokio::spawn(async move { Ok(answer) }));
        assert_eq!(resolver.resolve("localhost", 7).await.unwrap(), late, "a late answer is used");
        assert!(resolver.in_flight.is_none());
    }
}
