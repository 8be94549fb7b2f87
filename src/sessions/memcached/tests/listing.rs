//! Listing a server's keys: in pages, while requests are served, and when the server refuses.

use super::fake::{Peer, serve};
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_listing_delays_no_look_up() {
    const SESSIONS: usize = 20_000;
    let memcached = Memcached::start();
    let store = store(memcached.server(), LONG_TIMEOUT);
    for _ in 0..SESSIONS / 100 {
        let keys: Vec<SessionKey> = (0..100).map(|_| session()).collect();
        let ada = record("ada");
        let stored = futures_util::future::join_all(keys.iter().map(|key| store.insert(key, &ada, LONG))).await;
        assert!(stored.iter().all(Result::is_ok));
    }
    let bystander = session();
    store.insert(&bystander, &record("bob"), LONG).await.unwrap();
    let listing = tokio::spawn({
        let store = store.clone();
        async move { store.list(None, usize::MAX).await }
    });
    let mut found = 0;
    while !listing.is_finished() {
        assert_eq!(store.find(&bystander, Some(LONG)).await, Ok(Found::Active(record("bob"))));
        found += 1;
    }
    let listing = listing.await.unwrap();
    assert_eq!(listing.unreachable, []);
    assert_eq!(listing.sessions.len(), SESSIONS + 1);
    assert!(found > 10, "{found} look-ups while it was listed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_concurrent_listings_both_succeed() {
    let memcached = Memcached::start();
    let stores = [store(memcached.server(), LONG_TIMEOUT), store(memcached.server(), LONG_TIMEOUT)];
    for _ in 0..500 {
        stores[0].insert(&session(), &record("ada"), LONG).await.unwrap();
    }
    let listings = futures_util::future::join_all(stores.iter().map(|store| store.list(None, 10_000))).await;
    for listing in listings {
        assert_eq!((listing.sessions.len(), listing.unreachable), (500, vec![]));
    }
}

/// Refuses the first dumps and then lists no keys.
fn busy(times: usize) -> impl Fn(usize, Peer) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    move |number, mut peer| {
        Box::pin(async move {
            while let Some(request) = peer.request().await {
                assert_eq!(request.command(), "lru_crawler");
                let refused = number < times;
                peer.say(if refused { "BUSY currently processing crawler request\r\n" } else { "END\r\n" }).await;
            }
        })
    }
}

#[tokio::test]
async fn a_listing_is_retried_a_few_times_while_the_server_lists_for_another_client() {
    let once_more = store(&serve(busy(3)).await, LONG_TIMEOUT).list(None, 10).await;
    assert_eq!((once_more.sessions, once_more.unreachable), (vec![], vec![]));
    let address = serve(busy(usize::MAX)).await;
    let never = store(&address, LONG_TIMEOUT).list(None, 10).await;
    assert_eq!(never.unreachable, [(address, StoreError::Busy)]);
}

#[tokio::test]
async fn a_server_that_answers_with_something_else_is_named_with_it() {
    for nonsense in ["ERROR\r\n", "CLIENT_ERROR lru crawler disabled\r\n", "key=\r\n", "VALUE s:x 0 5\r\nhello\r\n"] {
        let address = serve(move |_, mut peer: Peer| async move {
            while peer.request().await.is_some() {
                peer.say(nonsense).await;
            }
        });
        let address = address.await;
        let listing = store(&address, LONG_TIMEOUT).list(None, 10).await;
        let [(server, StoreError::Protocol { cause })] = listing.unreachable.as_slice() else {
            panic!("{nonsense:?}: {:?}", listing.unreachable)
        };
        assert!(*server == address && cause.contains("LRU crawler"), "{cause}");
    }
}

#[tokio::test]
async fn a_dump_that_breaks_off_gives_what_came_before_and_the_failure() {
    let key = session();
    let line = format!("key={} exp=2000000000 la=1 cas=1 fetch=no cls=1 size=100\n", key.as_str().replace(':', "%3A"));
    let lines = line.clone() + "key=t%3Ax exp=-1 la=1 cas=1 fetch=no cls=1 size=9\n" + &line[..20];
    let address = serve(move |_, mut peer: Peer| {
        let lines = lines.clone();
        async move {
            while let Some(request) = peer.request().await {
                if request.command() == "lru_crawler" {
                    return peer.say(&lines).await;
                }
                let value = String::from_utf8(record("ada").encode()).unwrap();
                peer.say(&format!("VA {} k{}\r\n{value}\r\nMN\r\n", value.len(), request.key())).await;
            }
        }
    });
    let listing = store(&address.await, LONG_TIMEOUT).list(None, 10).await;
    assert_eq!(listing.sessions.iter().map(|listed| &listed.key).collect::<Vec<_>>(), [&key]);
    assert_eq!(listing.sessions[0].idle_expires_at, UnixTime::from_seconds(2_000_000_000));
    assert!(
        matches!(listing.unreachable.as_slice(), [(_, StoreError::Unavailable { .. })]),
        "{:?}",
        listing.unreachable
    );
}

#[tokio::test]
async fn values_of_another_program_are_counted_and_hide_no_session() {
    let memcached = Memcached::start();
    let store = store(memcached.server(), LONG_TIMEOUT);
    let mut client = memcached.client().await;
    client.meta_set(session().as_str(), "hello", false, None, None).await.unwrap();
    client.meta_set("s:short", "hello", false, None, None).await.unwrap();
    client.meta_set("a%3Akey", "hello", false, None, None).await.unwrap();
    let key = session();
    store.insert(&key, &record("ada"), LONG).await.unwrap();
    let listing = store.list(None, 10).await;
    assert_eq!(listing.sessions.iter().map(|listed| &listed.key).collect::<Vec<_>>(), [&key]);
    assert_eq!(listing.sessions[0].servers, [memcached.server()]);
    assert_eq!((listing.unreadable, listing.unreachable), (1, vec![]));
}
