//! From a server's name to its addresses. One question is under way at a time, and it outlives whoever asks: where the
//! resolver is slower than an operation may take, the next trial has its answer, and while it hangs nothing piles up.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::lookup_host;
use tokio::task::JoinHandle;

#[derive(Default)]
pub struct Names {
    under_way: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
}

impl Names {
    /// The caller sets the deadline; what was asked goes on beyond it.
    pub async fn resolve(&mut self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let asked = self.under_way.get_or_insert_with(|| {
            let host = host.to_owned();
            tokio::spawn(async move { lookup_host((host, port)).await.map(Iterator::collect) })
        });
        let answer = asked.await;
        self.under_way = None;
        answer.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_address_is_taken_as_it_is_and_a_name_is_asked_for() {
        let mut names = Names::default();
        assert_eq!(names.resolve("::1", 7).await.unwrap(), ["[::1]:7".parse().unwrap()]);
        assert!(names.under_way.is_none());
        let local = names.resolve("localhost", 7).await.unwrap();
        assert!(!local.is_empty() && local.iter().all(|address| address.ip().is_loopback() && address.port() == 7));
    }

    #[tokio::test]
    async fn who_waits_no_longer_leaves_the_question_to_the_next() {
        let mut names = Names { under_way: Some(tokio::spawn(std::future::pending())) };
        for _ in 0..3 {
            let waited = tokio::time::timeout(Duration::from_millis(1), names.resolve("localhost", 7)).await;
            assert!(waited.is_err(), "the first question hangs, and no other is asked");
        }
        let late = vec!["127.0.0.1:9".parse().unwrap()];
        let answer = late.clone();
        names.under_way = Some(tokio::spawn(async move { Ok(answer) }));
        assert_eq!(names.resolve("localhost", 7).await.unwrap(), late, "an answer that came late is used");
        assert!(names.under_way.is_none());
    }
}
