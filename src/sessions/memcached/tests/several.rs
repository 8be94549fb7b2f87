//! Several real servers: the conformance suite with one and with two copies, and what happens while a server is killed,
//! frozen, emptied or restarted.

use super::*;

/// Three servers, each session on one of them.
struct Three([Memcached; 3], usize);

impl Three {
    fn start(copies: usize) -> Self {
        Self([Memcached::start(), Memcached::start(), Memcached::start()], copies)
    }

    fn store(&self, timeout: Duration) -> Arc<Store> {
        cluster(&self.0.each_ref().map(Memcached::server), self.1, timeout)
    }
}

impl Subject for Three {
    fn edges(&self) -> [Arc<dyn SessionStore>; 2] {
        [self.store(LONG_TIMEOUT), self.store(LONG_TIMEOUT)]
    }

    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

mod with_one_copy {
    use super::{Three, conformance};
    conformance!(Three::start(1));
}

mod with_two_copies {
    use super::{Three, conformance};
    conformance!(Three::start(2));
}

async fn sessions(store: &Store, count: usize) -> Vec<crate::sessions::SessionKey> {
    let keys: Vec<_> = (0..count).map(|_| session()).collect();
    for key in &keys {
        store.insert(key, &record("ada"), LONG).await.unwrap();
    }
    keys
}

/// Returns how many active copies of these sessions a server holds.
async fn copies_on(memcached: &Memcached, keys: &[crate::sessions::SessionKey]) -> usize {
    let store = store(memcached.server(), LONG_TIMEOUT);
    let found = futures_util::future::join_all(keys.iter().map(|key| store.find(key, None))).await;
    found.into_iter().filter(|found| found.as_ref().is_ok_and(is_active)).count()
}

#[tokio::test]
async fn each_session_is_stored_on_as_many_servers_as_it_has_copies() {
    for copies in [1, 2, 3] {
        let three = Three::start(copies);
        let store = three.store(LONG_TIMEOUT);
        let keys = sessions(&store, 60).await;
        let mut held = 0;
        for memcached in &three.0 {
            held += copies_on(memcached, &keys).await;
        }
        assert_eq!(held, 60 * copies);
    }
}

#[tokio::test]
async fn with_two_copies_the_death_of_any_server_logs_no_user_out_and_its_return_restores_the_copies() {
    let mut three = Three::start(2);
    let store = three.store(MEMCACHED_TIMEOUT);
    let keys = sessions(&store, 60).await;
    for dead in 0..3 {
        three.0[dead].kill();
        for key in &keys {
            let found = store.find(key, Some(LONG)).await;
            assert_eq!(found, Ok(Found::Active(record("ada"))), "without server {dead}");
        }
        three.0[dead].restart();
        // Users send requests again, and each request starts the read repair of its session.
        let whole = async {
            loop {
                let mut held = 0;
                for (key, memcached) in keys.iter().flat_map(|key| three.0.iter().map(move |m| (key, m))) {
                    held += copies_on(memcached, std::slice::from_ref(key)).await;
                }
                if held == 2 * keys.len() {
                    break;
                }
                for key in &keys {
                    assert!(is_active(&store.find(key, Some(LONG)).await.unwrap()));
                }
            }
        };
        tokio::time::timeout(LONG_TIMEOUT, whole).await.expect("both copies are there again");
    }
}

#[tokio::test]
async fn with_two_copies_a_frozen_or_emptied_server_logs_no_user_out() {
    let three = Three::start(2);
    let store = three.store(MEMCACHED_TIMEOUT);
    let keys = sessions(&store, 40).await;
    three.0[0].freeze();
    for key in &keys {
        assert!(is_active(&store.find(key, Some(LONG)).await.unwrap()));
    }
    three.0[0].thaw();
    three.0[1].client().await.flush_all().await.unwrap();
    // These are two faults at once, while the breaker of the first server is still open: the result is a failure, and never
    // that the session is missing.
    for key in &keys {
        let found = async {
            loop {
                match store.find(key, Some(LONG)).await {
                    Err(error) if error.is_unavailable() => tokio::time::sleep(Duration::from_millis(1)).await,
                    found => break found,
                }
            }
        };
        let found = tokio::time::timeout(LONG_TIMEOUT, found).await.expect("the thawed server answers again");
        assert_eq!(found, Ok(Found::Active(record("ada"))));
    }
}

#[tokio::test]
async fn a_logout_while_a_server_is_frozen_holds_when_it_thaws_with_its_living_copy() {
    let three = Three::start(2);
    let (here, there) = (three.store(MEMCACHED_TIMEOUT), three.store(LONG_TIMEOUT));
    let keys = sessions(&here, 40).await;
    three.0[0].freeze();
    for key in &keys {
        here.end(key, until()).await.unwrap();
    }
    three.0[0].thaw();
    for key in &keys {
        assert_eq!(there.find(key, Some(LONG)).await, Ok(Found::Ended), "the other edge never saw it frozen");
    }
    let delivered = async { while copies_on(&three.0[0], &keys).await > 0 {} };
    tokio::time::timeout(LONG_TIMEOUT, delivered).await.expect("the server that was away gets the tombstones");
}

#[tokio::test]
async fn with_one_copy_no_user_is_logged_out_while_a_server_is_dead() {
    let mut three = Three::start(1);
    let store = three.store(MEMCACHED_TIMEOUT);
    let keys = sessions(&store, 60).await;
    three.0[2].kill();
    let (mut served, mut unknown) = (0, 0);
    for key in &keys {
        match store.find(key, Some(LONG)).await {
            Ok(Found::Active(_)) => served += 1,
            Err(StoreError::Unavailable { .. } | StoreError::TimedOut) => unknown += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(served > 20 && unknown > 5, "{served} served, {unknown} unknown");
    store.ping().await.expect("two of three are there");
}

#[tokio::test]
async fn a_tombstone_stays_as_long_as_the_token_however_often_it_is_read() {
    let three = Three::start(2);
    let store = three.store(LONG_TIMEOUT);
    let key = session();
    store.insert(&key, &record("ada"), LONG).await.unwrap();
    store.end(&key, Clock::default().now().plus(20 * LONG)).await.unwrap();
    assert_eq!(store.find(&key, Some(Duration::from_secs(5))).await, Ok(Found::Ended));
    let mut holders = 0;
    for memcached in &three.0 {
        let long = async {
            loop {
                let mut client = memcached.client().await;
                match client.meta_get(key.as_str(), false, None, Some(&["t"])).await.unwrap() {
                    None => return 0,
                    Some(item) if item.ttl_remaining.unwrap() > 15 * 1800 => return 1,
                    Some(_) => tokio::task::yield_now().await,
                }
            }
        };
        holders += tokio::time::timeout(LONG_TIMEOUT, long).await.expect("the slide that shortened it is undone");
    }
    assert_eq!(holders, 2);
}
