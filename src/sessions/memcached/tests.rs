//! The conformance suite against a real server, and what only memcached does. Outages are in `outage`, servers with invalid
//! responses in `bad_replies`.

mod bad_replies;
mod fake;
mod listing;
mod outage;
mod process;
mod several;

use async_memcached::MetaProtocol;

use self::process::Memcached;
use super::*;
use crate::clock::Clock;
use crate::config::defaults::{MEMCACHED_SIGN_ON_TIMEOUT, MEMCACHED_TIMEOUT};
use crate::metrics::Metrics;
use crate::sessions::replicated::{Cluster, NodeConfig};
use crate::sessions::tests::{LONG, Subject, conformance, counter, is_active, record, session, ticket, until};
use crate::sessions::{Found, SessionStore};

/// So long that no slow machine reaches it: for tests that are not about deadlines.
const LONG_TIMEOUT: Duration = Duration::from_secs(20);

/// The store of an edge: a cluster, of one server in these tests.
type Store = Cluster<MemcachedServer>;

fn store(server: &str, timeout: Duration) -> Arc<Store> {
    cluster(&[server], 1, timeout)
}

pub fn cluster(servers: &[&str], copies: usize, timeout: Duration) -> Arc<Store> {
    let metrics = Metrics::new("test").unwrap().sign_on.store;
    let servers: Vec<NodeConfig> =
        servers.iter().map(|name| NodeConfig { name: (*name).to_owned(), weight: 1 }).collect();
    let settings = |server: &NodeConfig| Settings { server: server.name.clone(), timeout, sign_on_timeout: timeout };
    let connect = |server: &NodeConfig| MemcachedServer::new(&settings(server), &metrics);
    Arc::new(Cluster::new(&servers, copies, Clock::default(), &metrics, connect).unwrap())
}

impl Subject for Memcached {
    fn edges(&self) -> [Arc<dyn SessionStore>; 2] {
        [store(self.server(), LONG_TIMEOUT), store(self.server(), LONG_TIMEOUT)]
    }

    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await; // its clock is its own
    }
}

conformance!(Memcached::start());

/// Returns the remaining lifetime of the entry under `key` in seconds.
async fn ttl(memcached: &Memcached, key: &str) -> i64 {
    let item = memcached.client().await.meta_get(key, false, None, Some(&["t"])).await.unwrap();
    item.unwrap().ttl_remaining.unwrap()
}

#[tokio::test]
async fn a_server_is_reached_over_tcp_and_by_name() {
    let (memcached, port) = Memcached::start_tcp();
    for host in ["127.0.0.1", "localhost"] {
        let store = store(&format!("{host}:{port}"), LONG_TIMEOUT);
        store.insert(&session(), &record("ada"), LONG).await.unwrap();
        assert_eq!(store.find(&session(), Some(LONG)).await, Ok(Found::Missing));
    }
    drop(memcached);
}

#[tokio::test]
async fn a_server_is_reached_over_ipv6_and_its_loss_is_noticed() {
    let (mut memcached, port) = Memcached::start_tcp_on("::1");
    let store = store(&format!("[::1]:{port}"), LONG_TIMEOUT);
    let keys: Vec<_> = (0..200).map(|_| session()).collect();
    for key in &keys {
        store.insert(key, &record("ada"), LONG).await.unwrap();
    }
    let found = futures_util::future::join_all(keys.iter().map(|key| store.find(key, Some(LONG)))).await;
    assert!(found.into_iter().all(|found| found == Ok(Found::Active(record("ada")))));
    memcached.kill();
    assert!(matches!(store.find(&keys[0], None).await, Err(StoreError::Unavailable { .. })));
}

#[tokio::test]
async fn an_unusable_server_is_refused_at_the_start() {
    let refusal = check("::1:11211").unwrap_err().to_string();
    assert!(refusal.contains("[ipv6]:port") && refusal.contains("::1:11211"), "{refusal}");
}

#[tokio::test]
async fn expiries_reach_the_server_as_they_were_meant() {
    let memcached = Memcached::start();
    let store = store(memcached.server(), LONG_TIMEOUT);
    let key = session();
    store.insert(&key, &record("ada"), Duration::from_secs(100)).await.unwrap();
    assert!((95..=100).contains(&ttl(&memcached, key.as_str()).await));
    store.find(&key, Some(Duration::from_secs(500))).await.unwrap();
    assert!((495..=500).contains(&ttl(&memcached, key.as_str()).await));
    store.find(&key, Some(Duration::from_secs(40 * 24 * 3600))).await.unwrap();
    let capped = 30 * 24 * 3600;
    assert!((capped - 5..=capped).contains(&ttl(&memcached, key.as_str()).await), "beyond 30 days is a date");
    assert!(store.find(&key, None).await.is_ok_and(|found| is_active(&found)));

    let key = counter();
    store.counter_incr(&key, Duration::from_secs(100)).await.unwrap();
    store.counter_incr(&key, Duration::from_secs(5000)).await.unwrap();
    assert!((95..=100).contains(&ttl(&memcached, key.as_str()).await), "the window is the first addition's");
}

#[tokio::test]
async fn a_value_of_another_program_is_an_error_and_affects_no_other_key() {
    let memcached = Memcached::start();
    let store = store(memcached.server(), LONG_TIMEOUT);
    let (odd, empty, sound, odd_ticket, odd_counter) = (session(), session(), session(), ticket(), counter());
    let endless_counter = counter();
    let mut client = memcached.client().await;
    for key in [odd.as_str(), odd_ticket.as_str(), odd_counter.as_str()] {
        client.meta_set(key, "hello", false, None, None).await.unwrap();
    }
    client.meta_set(empty.as_str(), "", false, None, None).await.unwrap();
    client.meta_set(endless_counter.as_str(), "7", false, None, None).await.unwrap();
    store.insert(&sound, &record("ada"), LONG).await.unwrap();

    let (odd_found, empty_found, sound_found) =
        tokio::join!(store.find(&odd, None), store.find(&empty, None), store.find(&sound, None));
    assert!(matches!(odd_found, Err(StoreError::Protocol { .. })), "{odd_found:?}");
    assert!(matches!(empty_found, Err(StoreError::Protocol { .. })), "{empty_found:?}");
    assert_eq!(sound_found, Ok(Found::Active(record("ada"))));
    assert_eq!(store.redeem_ticket(&odd_ticket, LONG).await, Ok(Redemption::Unknown), "it is no ticket");
    assert_eq!(store.counter_incr(&odd_counter, LONG).await.map(|it| it.count), Ok(1), "a new counter replaces it");
    assert_eq!(store.counter_incr(&odd_counter, LONG).await.map(|it| it.count), Ok(2));
    assert!((LONG.as_secs() as i64 - 5..=LONG.as_secs() as i64).contains(&ttl(&memcached, odd_counter.as_str()).await));
    assert_eq!(store.counter_get(&endless_counter).await.map(|it| it.count), Ok(0), "it would never expire");
    assert_eq!(store.counter_incr(&endless_counter, LONG).await.map(|it| it.count), Ok(1), "a new counter replaces it");
    store.ping().await.unwrap();
}

#[tokio::test]
async fn what_the_server_has_no_room_for_is_refused_as_full() {
    let memcached = Memcached::start();
    let store = store(memcached.server(), LONG_TIMEOUT);
    let beyond_an_item = vec![b'x'; 2 << 20];
    for _ in 0..3 {
        assert_eq!(store.issue_ticket(&ticket(), &beyond_an_item, LONG).await, Err(StoreError::Full));
    }
    store.issue_ticket(&ticket(), b"a token", LONG).await.unwrap();
}

#[test]
fn a_store_outlives_the_runtime_that_it_was_first_used_on() {
    let memcached = Memcached::start();
    let store = store(memcached.server(), LONG_TIMEOUT);
    let key = session();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime().block_on(async {
        store.insert(&key, &record("ada"), LONG).await.unwrap();
        store.find(&key, None).await.unwrap();
    });
    for _ in 0..2 {
        let found = runtime().block_on(store.find(&key, Some(LONG)));
        assert_eq!(found, Ok(Found::Active(record("ada"))));
        assert_eq!(runtime().block_on(store.ping()), Ok(()));
    }
}

#[tokio::test]
async fn a_logout_whose_caller_hangs_up_still_happens() {
    let memcached = Memcached::start();
    let store = store(memcached.server(), LONG_TIMEOUT);
    let key = session();
    store.insert(&key, &record("ada"), LONG).await.unwrap();
    // The timeout polls once and drops the operation.
    let _ = tokio::time::timeout(Duration::ZERO, store.end(&key, until())).await;
    let gone = async { while store.find(&key, None).await.is_ok_and(|found| is_active(&found)) {} };
    tokio::time::timeout(LONG_TIMEOUT, gone).await.expect("the logout is executed");
}
