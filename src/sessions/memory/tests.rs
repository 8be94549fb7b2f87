//! The conformance suite, and what only the memory store does: exact expiry, limits.

use std::sync::Arc;

use super::*;
use crate::sessions::tests::{LONG, Subject, conformance, counter, is_active, record, session, ticket};

struct Memory(Arc<MemoryStore>, Clock);

impl Subject for Memory {
    fn edges(&self) -> [Arc<dyn SessionStore>; 2] {
        [self.0.clone(), self.0.clone()]
    }

    async fn pass(&self, time: Duration) {
        self.1.advance(time);
    }
}

fn memory(capacity: usize) -> Memory {
    let clock = Clock::default();
    Memory(Arc::new(MemoryStore::new(clock.clone(), capacity)), clock)
}

conformance!(memory(10_000));

#[tokio::test]
async fn a_session_slides_from_now_and_not_from_its_end() {
    let Memory(store, clock) = memory(10);
    let key = session();
    store.insert(&key, &record("ada"), LONG).await.unwrap();
    clock.advance(LONG / 2);
    assert!(is_active(&store.find(&key, Some(LONG)).await.unwrap()));
    clock.advance(LONG.saturating_sub(Duration::from_secs(60)));
    assert!(is_active(&store.find(&key, None).await.unwrap()));
    clock.advance(Duration::from_secs(60));
    assert_eq!(store.find(&key, None).await, Ok(Found::Missing));
}

#[tokio::test]
async fn a_full_store_rejects_a_new_session_and_keeps_the_active_ones() {
    let Memory(store, clock) = memory(3);
    let keys = [session(), session(), session()];
    for key in &keys {
        store.insert(key, &record("ada"), LONG).await.unwrap();
    }
    assert_eq!(store.insert(&session(), &record("eve"), LONG).await, Err(StoreError::Full));
    for key in &keys {
        assert!(is_active(&store.find(key, None).await.unwrap()));
    }
    clock.advance(LONG);
    store.insert(&session(), &record("eve"), LONG).await.expect("the expired ones make room");
}

#[tokio::test]
async fn a_flood_of_one_kind_leaves_the_others_alone() {
    let Memory(store, clock) = memory(2);
    let known = counter();
    store.counter_incr(&known, LONG).await.unwrap();
    assert_eq!(store.counter_incr(&known, LONG).await.map(|it| it.count), Ok(2));
    for _ in 0..10 {
        assert_eq!(store.counter_incr(&counter(), LONG).await.map(|it| it.count), Ok(1), "a new counter is counted");
    }
    assert_eq!(store.counter_incr(&known, LONG).await.map(|it| it.count), Ok(3), "the largest count stays");
    for _ in 0..2 {
        store.insert(&session(), &record("ada"), LONG).await.unwrap();
    }
    let tickets = [ticket(), ticket(), ticket()];
    for ticket in &tickets {
        store.issue_ticket(ticket, b"a token", LONG).await.expect("a ticket is always stored");
        clock.advance(Duration::from_millis(1));
    }
    assert_eq!((store.sessions_len(), store.tickets_len(), store.counters_len()), (2, 2, 2));
    assert_eq!(store.redeem_ticket(&tickets[0], LONG).await, Ok(Redemption::Unknown), "the oldest was evicted");
    for ticket in &tickets[1..] {
        assert_eq!(store.redeem_ticket(ticket, LONG).await, Ok(Redemption::Won(b"a token".to_vec())));
    }
}
