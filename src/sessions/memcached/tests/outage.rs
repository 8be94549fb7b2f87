//! A server that is killed, restarted, frozen or emptied while edges use it.

use std::time::Instant;

use super::*;

/// A bound that only a hang would break, however busy the machine: many times the deadline in these tests.
const PROMPT: Duration = Duration::from_secs(1);

/// Performs one look-up and one command.
async fn both(store: &Store) -> [Result<(), StoreError>; 2] {
    [store.find(&session(), Some(LONG)).await.map(drop), store.ping().await]
}

fn is_failure(outcome: &Result<(), StoreError>) -> bool {
    matches!(outcome, Err(StoreError::Unavailable { .. } | StoreError::TimedOut))
}

/// Tries both until each has succeeded; returns how long that took.
async fn until_back(store: &Store) -> Duration {
    let began = Instant::now();
    let mut back = [false, false];
    while back != [true, true] {
        for (back, outcome) in back.iter_mut().zip(both(store).await) {
            *back |= outcome.is_ok();
        }
        assert!(began.elapsed() < LONG_TIMEOUT, "the store did not come back");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    began.elapsed()
}

#[tokio::test]
async fn a_killed_server_is_away_at_once_and_back_within_a_second_of_its_return() {
    let mut memcached = Memcached::start();
    let store = store(memcached.server(), MEMCACHED_TIMEOUT);
    until_back(&store).await;
    memcached.kill();
    let began = Instant::now();
    for round in 0..200 {
        let outcomes = both(&store).await;
        assert!(outcomes.iter().all(is_failure), "round {round}: {outcomes:?}");
    }
    assert!(began.elapsed() < 4 * PROMPT, "400 operations took {:?}", began.elapsed());
    // The server is away long enough for the breaker's pauses to have grown to the longest.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let _ = both(&store).await;
    memcached.restart();
    assert!(until_back(&store).await < Duration::from_secs(1));
}

#[tokio::test]
async fn a_server_that_never_was_is_away() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&format!("unix://{}/missing.sock", directory.path().display()), MEMCACHED_TIMEOUT);
    for _ in 0..3 {
        assert!(both(&store).await.iter().all(is_failure));
    }
    let unknown_host = super::store("no-such-host.invalid:11211", LONG_TIMEOUT);
    assert!(is_failure(&unknown_host.ping().await));
}

#[tokio::test]
async fn a_frozen_server_costs_one_deadline_then_next_to_nothing_and_thaws() {
    let memcached = Memcached::start();
    let store = store(memcached.server(), MEMCACHED_TIMEOUT);
    let key = session();
    until_back(&store).await;
    store.insert(&key, &record("ada"), LONG).await.unwrap();

    memcached.freeze();
    let began = Instant::now();
    assert_eq!(store.find(&key, Some(LONG)).await, Err(StoreError::TimedOut));
    assert_eq!(store.ping().await, Err(StoreError::TimedOut));
    assert!(began.elapsed() < PROMPT, "two operations took {:?}", began.elapsed());

    let began = Instant::now();
    let mut times = Vec::new();
    while began.elapsed() < 5 * MEMCACHED_TIMEOUT || times.len() < 1000 {
        let began = Instant::now();
        assert!(both(&store).await.iter().all(is_failure));
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let median = times[times.len() / 2];
    assert!(median < MEMCACHED_TIMEOUT / 2, "the median took {median:?}");

    memcached.thaw();
    assert!(until_back(&store).await < 2 * PROMPT);
    assert_eq!(store.find(&key, None).await, Ok(Found::Active(record("ada"))), "no user was logged out");
}

#[tokio::test]
async fn many_requests_to_a_frozen_server_all_fail_by_their_deadline() {
    let memcached = Memcached::start();
    let store = store(memcached.server(), MEMCACHED_TIMEOUT);
    until_back(&store).await;
    memcached.freeze();
    let began = Instant::now();
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..2000 {
        let store = store.clone();
        requests.spawn(async move { assert!(both(&store).await.iter().all(is_failure)) });
    }
    requests.join_all().await;
    assert!(began.elapsed() < 2 * PROMPT, "4,000 operations took {:?}", began.elapsed());
}

#[tokio::test]
async fn a_burst_of_requests_is_answered_however_large() {
    let memcached = Memcached::start();
    let store = store(memcached.server(), LONG_TIMEOUT);
    let key = session();
    store.insert(&key, &record("ada"), LONG).await.unwrap();
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..5000 {
        let (store, key) = (store.clone(), key.clone());
        requests.spawn(async move { store.find(&key, Some(LONG)).await });
    }
    for found in requests.join_all().await {
        assert_eq!(found, Ok(Found::Active(record("ada"))));
    }
}

#[tokio::test]
async fn an_emptied_server_has_misses_and_no_failures() {
    let memcached = Memcached::start();
    let store = store(memcached.server(), LONG_TIMEOUT);
    let (key, counted) = (session(), counter());
    store.insert(&key, &record("ada"), LONG).await.unwrap();
    store.counter_incr(&counted, LONG).await.unwrap();
    memcached.client().await.flush_all().await.unwrap();
    assert_eq!(store.find(&key, Some(LONG)).await, Ok(Found::Missing));
    assert_eq!(store.record_access(&key, UnixTime::from_seconds(1_800_000_000), LONG).await, Ok(false));
    assert_eq!(store.counter_incr(&counted, LONG).await.map(|it| it.count), Ok(1));
    store.insert(&key, &record("ada"), LONG).await.unwrap();
    assert_eq!(store.find(&key, Some(LONG)).await, Ok(Found::Active(record("ada"))));
    memcached.client().await.flush_all().await.unwrap();
    assert_eq!(store.end(&key, until()).await, Ok(()));
    assert_eq!(store.find(&key, None).await, Ok(Found::Ended), "ended all the same");
}

#[tokio::test]
async fn a_restart_between_two_operations_costs_no_failure() {
    let mut memcached = Memcached::start();
    let store = store(memcached.server(), LONG_TIMEOUT);
    until_back(&store).await;
    for pause in [25, 1100] {
        let key = session();
        store.insert(&key, &record("ada"), LONG).await.unwrap();
        memcached.kill();
        memcached.restart();
        // The pause is longer than an idle connection is trusted, both for commands that are not idempotent and for others.
        tokio::time::sleep(Duration::from_millis(pause)).await;
        assert_eq!(store.counter_incr(&counter(), LONG).await.map(|it| it.count), Ok(1));
        assert_eq!(store.find(&key, Some(LONG)).await, Ok(Found::Missing));
    }
}

/// Each login uses other keys than the one before it, and so another connection.
#[tokio::test(start_paused = true)]
async fn an_outage_that_commands_alone_meet_is_waited_for_once() {
    const WAIT: Duration = MEMCACHED_SIGN_ON_TIMEOUT;
    for (what, timeout, sign_on_timeout, pause) in [
        ("the defaults", MEMCACHED_TIMEOUT, WAIT, Duration::ZERO),
        ("a login now and then", MEMCACHED_TIMEOUT, WAIT, Duration::from_millis(900)),
        ("long waits", MEMCACHED_TIMEOUT, 3 * WAIT, Duration::from_millis(900)),
    ] {
        // The server accepts connections, and never responds.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let metrics = Metrics::new("test").unwrap().sign_on.store;
        let settings = Settings { server: silent.local_addr().unwrap().to_string(), timeout, sign_on_timeout };
        let server = MemcachedServer::new(&settings, &metrics).unwrap();
        let mut waits = Vec::new();
        for _ in 0..8 {
            let began = tokio::time::Instant::now();
            assert!(server.issue_ticket(&ticket(), b"x", LONG).await.is_err());
            waits.push(began.elapsed());
            tokio::time::sleep(pause).await;
        }
        assert!(waits[0] >= sign_on_timeout, "{what}: a stall would be waited out: {waits:?}");
        assert!(waits[3..].iter().all(|wait| *wait < 2 * timeout), "{what}: it is known by now: {waits:?}");
        tokio::time::sleep(sign_on_timeout + 2 * WAIT).await;
        let began = tokio::time::Instant::now();
        assert!(server.issue_ticket(&ticket(), b"x", LONG).await.is_err());
        assert!(began.elapsed() >= sign_on_timeout, "{what}: a server without requests for a while may be back");
    }
}
