//! Servers that truncate, delay, swap and corrupt their responses.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::fake::{Peer, serve};
use super::*;

/// Long enough for a fake server on a busy machine, short enough to wait for.
const BRIEF: Duration = Duration::from_millis(100);

/// Returns the response to a look-up that finds the record of `user`.
fn hit(key: &str, user: &str) -> String {
    let value = String::from_utf8(record(user).encode()).unwrap();
    format!("VA {} k{key}\r\n{value}\r\n", value.len())
}

/// Answers every look-up of the connection correctly: each key holds a session of the user with that name.
async fn serve_sessions(mut peer: Peer) {
    while let Some(request) = peer.request().await {
        let mut answer: String = request.keys().iter().map(|key| hit(key, key)).collect();
        answer.push_str("MN\r\n");
        peer.say(&answer).await;
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_is_a_failure_and_its_connection_is_not_used_again() {
    let server = serve(|number, mut peer| async move {
        if number == 0 {
            let request = peer.request().await.unwrap();
            let whole = hit(request.key(), "ada");
            return peer.say(&whole[..whole.len() - 20]).await;
        }
        serve_sessions(peer).await;
    })
    .await;
    let (store, key) = (store(&server, LONG_TIMEOUT), session());
    let active = Ok(Found::Active(record(key.as_str())));
    assert_eq!(store.find(&key, None).await, active, "the look-up is sent once more, on another connection");
    assert_eq!(store.find(&key, None).await, active);
}

#[tokio::test]
async fn a_late_answer_reaches_no_request() {
    let late = Arc::new(Notify::new());
    let answer_now = late.clone();
    let server = serve(move |number, mut peer| {
        let late = late.clone();
        async move {
            if number == 0 {
                let request = peer.request().await.unwrap();
                late.notified().await;
                peer.say(&format!("{}MN\r\n", hit(request.key(), "the late one"))).await;
                // Every further request on this connection gets the late response, too.
                while let Some(request) = peer.request().await {
                    peer.say(&format!("{}MN\r\n", hit(request.key(), "the late one"))).await;
                }
                return;
            }
            serve_sessions(peer).await;
        }
    })
    .await;
    let store = store(&server, BRIEF);
    let (first, second) = (session(), session());
    let first_active = Ok(Found::Active(record(first.as_str())));
    assert_eq!(
        store.find(&first, Some(LONG)).await,
        first_active,
        "the look-up is sent once more, on another connection"
    );
    answer_now.notify_one();
    assert_eq!(store.find(&second, Some(LONG)).await, Ok(Found::Active(record(second.as_str()))));
    assert_eq!(store.find(&first, Some(LONG)).await, first_active);
}

#[tokio::test]
async fn an_answer_for_another_key_is_an_error_for_every_request_in_the_batch() {
    let stranger = session();
    let foreign = hit(stranger.as_str(), "eve");
    let server = serve(move |_, mut peer| {
        let foreign = foreign.clone();
        async move {
            while peer.request().await.is_some() {
                peer.say(&format!("{foreign}MN\r\n")).await;
            }
        }
    })
    .await;
    let store = store(&server, LONG_TIMEOUT);
    let (one, other) = (session(), session());
    let (one, other) = tokio::join!(store.find(&one, None), store.find(&other, None));
    for found in [one, other] {
        assert!(matches!(found, Err(StoreError::Protocol { .. })), "{found:?}");
    }
}

#[tokio::test]
async fn a_command_that_is_answered_for_another_key_has_failed() {
    let server = serve(|_, mut peer| async move {
        while let Some(request) = peer.request().await {
            let foreign = ticket();
            let foreign = foreign.as_str();
            peer.say(&match request.command() {
                "mg" => format!("VA 8 c7 k{foreign}\r\n1 secret\r\n"),
                "ma" => format!("VA 1 k{foreign}\r\n1\r\n"),
                _ => format!("HD k{foreign}\r\n"),
            })
            .await;
        }
    })
    .await;
    let is_protocol_error = |error: StoreError| matches!(error, StoreError::Protocol { .. });
    // Each operation has a store of its own: after the second failure in a row the breaker is open.
    assert!(is_protocol_error(store(&server, LONG_TIMEOUT).redeem_ticket(&ticket(), LONG).await.unwrap_err()));
    assert!(is_protocol_error(store(&server, LONG_TIMEOUT).end(&session(), until()).await.unwrap_err()));
    assert!(is_protocol_error(
        store(&server, LONG_TIMEOUT).insert(&session(), &record("ada"), LONG).await.unwrap_err()
    ));
    assert!(is_protocol_error(store(&server, LONG_TIMEOUT).counter_incr(&counter(), LONG).await.unwrap_err()));
}

#[tokio::test]
async fn a_burst_of_requests_to_a_dead_server_makes_two_connections_and_not_one_for_each() {
    let connections = Arc::new(AtomicUsize::new(0));
    let made = connections.clone();
    let server = serve(move |_, peer| {
        made.fetch_add(1, Ordering::Relaxed);
        async move { drop(peer) }
    })
    .await;
    let store = store(&server, LONG_TIMEOUT);
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let store = store.clone();
        requests.spawn(async move { store.find(&session(), Some(LONG)).await.unwrap_err() });
    }
    assert!(requests.join_all().await.iter().all(|error| matches!(error, StoreError::Unavailable { .. })));
    assert_eq!(connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn answers_in_any_order_reach_their_requests() {
    let server = serve(|_, mut peer| async move {
        while let Some(request) = peer.request().await {
            let mut answer: String = request.keys().iter().rev().map(|key| hit(key, key)).collect();
            answer.push_str("MN\r\n");
            peer.say(&answer).await;
        }
    })
    .await;
    let store = store(&server, LONG_TIMEOUT);
    let (a, b, c) = (session(), session(), session());
    let found = tokio::join!(store.find(&a, None), store.find(&b, None), store.find(&c, None));
    for (key, found) in [(a, found.0), (b, found.1), (c, found.2)] {
        assert_eq!(found, Ok(Found::Active(record(key.as_str()))));
    }
}

#[tokio::test]
async fn a_server_out_of_memory_is_full_and_keeps_its_connection() {
    let connections = Arc::new(AtomicUsize::new(0));
    let made = connections.clone();
    let server = serve(move |_, mut peer| {
        made.fetch_add(1, Ordering::Relaxed);
        async move {
            while peer.request().await.is_some() {
                peer.say("SERVER_ERROR out of memory storing object\r\n").await;
            }
        }
    })
    .await;
    let store = store(&server, LONG_TIMEOUT);
    for _ in 0..5 {
        assert_eq!(store.insert(&session(), &record("ada"), LONG).await, Err(StoreError::Full));
        assert_eq!(store.issue_ticket(&ticket(), b"a token", LONG).await, Err(StoreError::Full));
        assert_eq!(store.counter_incr(&counter(), LONG).await, Err(StoreError::Full));
    }
    assert!(connections.load(Ordering::Relaxed) <= COMMAND_PIPELINES, "one for each pipeline");
}

#[tokio::test]
async fn an_error_of_the_server_is_no_miss() {
    for (answer, wanted) in [
        ("SERVER_ERROR backend failure\r\n", "unavailable"),
        ("SERVER_ERROR out of memory writing get response\r\n", "unavailable"),
        ("ERROR\r\n", "unfit"),
        ("CLIENT_ERROR unauthenticated\r\n", "unfit"),
        ("CLIENT_ERROR bad command line format\r\n", "protocol"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "protocol"),
        ("\x01\x02\x03\x04\r\n\r\n", "protocol"),
        ("VA 3 kx\r\nab", "unavailable"),
    ] {
        let server = serve(move |_, mut peer| async move {
            peer.request().await;
            peer.say(answer).await;
        })
        .await;
        let found = store(&server, LONG_TIMEOUT).find(&session(), Some(LONG)).await;
        let kind = match &found {
            Err(StoreError::Unavailable { .. }) => "unavailable",
            Err(StoreError::Protocol { .. }) => "protocol",
            Err(StoreError::Unfit { .. }) => "unfit",
            _ => "something else",
        };
        assert_eq!(kind, wanted, "{answer:?}: {found:?}");
    }
}

#[tokio::test]
async fn look_ups_that_wait_go_together_and_each_key_once() {
    let (go, sizes) = (Arc::new(Notify::new()), Arc::new(std::sync::Mutex::new(Vec::new())));
    let (may_go, seen) = (go.clone(), sizes.clone());
    let server = serve(move |_, mut peer| {
        let (may_go, seen) = (may_go.clone(), seen.clone());
        async move {
            while let Some(request) = peer.request().await {
                seen.lock().unwrap().push(request.keys().len());
                may_go.notified().await;
                let mut answer: String = request.keys().iter().map(|key| hit(key, key)).collect();
                answer.push_str("MN\r\n");
                peer.say(&answer).await;
            }
        }
    })
    .await;
    let store = store(&server, LONG_TIMEOUT);
    let mut look_ups = tokio::task::JoinSet::new();
    let mut look_up = |key: &SessionKey, slide| {
        let (store, key) = (store.clone(), key.clone());
        look_ups
            .spawn(async move { assert_eq!(store.find(&key, slide).await, Ok(Found::Active(record(key.as_str())))) });
    };
    look_up(&session(), None);
    while sizes.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    // The connection is busy, so these wait. The runtime has one thread, so after a turn all of them are in the queue.
    let keys: Vec<SessionKey> = (0..20).map(|_| session()).collect();
    keys.iter().for_each(|key| look_up(key, Some(LONG)));
    keys.iter().for_each(|key| look_up(key, Some(LONG)));
    keys.iter().take(5).for_each(|key| look_up(key, None));
    for _ in 0..3 {
        tokio::task::yield_now().await;
        go.notify_one();
        while !sizes.lock().unwrap().is_empty() && sizes.lock().unwrap().len() < 3 {
            tokio::task::yield_now().await;
            go.notify_one();
        }
    }
    look_ups.join_all().await;
    assert_eq!(*sizes.lock().unwrap(), [1, 20, 5]);
}
