//! The conformance suite of the stores: each store runs it from its own tests, with one `conformance!`.

mod turns;

use std::sync::Arc;
use std::time::Duration;

use self::turns::in_turns;
use super::{
    Count, CounterKey, DeviceKey, DeviceRecord, Fingerprint, Found, Redemption, SessionId, SessionKey, SessionRecord,
    SessionStore, Swap, TicketId, TicketKey,
};
use crate::clock::{Clock, UnixTime};
use crate::sentry::SessionCandidate;

pub const LONG: Duration = Duration::from_secs(1800);

/// A store under test.
pub trait Subject {
    /// Returns the store as two edges use it.
    fn edges(&self) -> [Arc<dyn SessionStore>; 2];

    /// Lets `time` pass for the store.
    fn pass(&self, time: Duration) -> impl Future<Output = ()>;
}

macro_rules! conformance {
    ($subject:expr) => {
        $crate::sessions::tests::conformance! { @each $subject;
            a_session_is_found_as_it_was_stored
            a_session_that_was_never_stored_is_a_miss_and_no_failure
            an_ended_session_is_inactive_for_every_edge
            many_look_ups_at_once_each_get_their_own_session
            an_access_is_recorded_when_it_is_later_than_the_last
            recording_an_access_creates_no_session
            an_ended_session_never_comes_back_from_touches_and_rewrites
            a_session_is_renewed_while_it_is_active_and_never_created
            a_browsers_record_is_swapped_only_by_a_caller_that_has_seen_it
            of_many_logins_in_one_browser_at_once_one_session_is_left
            of_two_sessions_that_a_browser_brings_at_once_the_later_is_left
            a_ticket_is_won_once_and_replayed_after
            a_ticket_holds_any_bytes
            of_100_redemptions_at_once_exactly_one_wins
            failures_are_counted_up_and_taken_back
            a_counter_reports_its_count_and_its_remaining_lifetime
            decrementing_a_missing_counter_creates_none
            no_increment_of_50_at_once_is_lost
            what_is_not_touched_expires_in_time
            active_sessions_are_listed_and_nothing_else
            a_listing_is_no_activity
            a_listing_holds_no_more_than_its_limit
            a_store_answers_a_ping
        }
    };
    (@each $subject:expr; $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::sessions::tests::$name(&$subject).await
            }
        )*
    };
}
pub(crate) use conformance;

pub fn session() -> SessionKey {
    SessionId::random().unwrap().key()
}

pub fn ticket() -> TicketKey {
    TicketId::random().key()
}

pub fn device() -> DeviceKey {
    DeviceKey::new(TicketId::random().as_bytes())
}

pub fn counter() -> CounterKey {
    CounterKey::new("test", SessionId::random().unwrap().as_str())
}

/// When no valid token names an ended session any more.
pub fn until() -> UnixTime {
    Clock::default().now().plus(LONG)
}

/// Looks a session up without a slide; no failure is expected.
pub async fn found(store: &Arc<dyn SessionStore>, key: &SessionKey) -> Found {
    store.find(key, None).await.unwrap()
}

pub fn is_active(found: &Found) -> bool {
    matches!(found, Found::Active(_))
}

pub fn record(user: &str) -> SessionRecord {
    SessionRecord {
        user: user.to_owned(),
        created: UnixTime::from_millis(1_700_000_000_123),
        last_accessed: UnixTime::from_millis(1_700_000_360_456),
        idle_timeout: LONG,
        fingerprint: Fingerprint::new([7; 16]),
        expires: UnixTime::from_millis(1_700_043_200_123),
    }
}

pub async fn a_session_is_found_as_it_was_stored(subject: &impl Subject) {
    let [one, other] = subject.edges();
    let key = session();
    one.insert(&key, &record("Ada Lovelace"), LONG).await.unwrap();
    assert_eq!(other.find(&key, None).await, Ok(Found::Active(record("Ada Lovelace"))));
    assert_eq!(one.find(&key, Some(LONG)).await, Ok(Found::Active(record("Ada Lovelace"))));
}

pub async fn a_session_that_was_never_stored_is_a_miss_and_no_failure(subject: &impl Subject) {
    let [store, _] = subject.edges();
    assert_eq!(store.find(&session(), None).await, Ok(Found::Missing));
    assert_eq!(store.find(&session(), Some(LONG)).await, Ok(Found::Missing));
}

pub async fn an_ended_session_is_inactive_for_every_edge(subject: &impl Subject) {
    let [one, other] = subject.edges();
    let key = session();
    one.insert(&key, &record("ada"), LONG).await.unwrap();
    other.end(&key, until()).await.unwrap();
    assert!(!is_active(&one.find(&key, Some(LONG)).await.unwrap()));
    assert!(!is_active(&found(&other, &key).await));
    one.end(&key, until()).await.expect("a session may be ended twice");
    one.end(&session(), until()).await.expect("and so may one that does not exist");
}

pub async fn many_look_ups_at_once_each_get_their_own_session(subject: &impl Subject) {
    let [one, other] = subject.edges();
    let keys: Vec<SessionKey> = (0..300).map(|_| session()).collect();
    for (index, key) in keys.iter().enumerate().filter(|(index, _)| index % 3 != 0) {
        one.insert(key, &record(&format!("user {index}")), LONG).await.unwrap();
    }
    let mut look_ups = tokio::task::JoinSet::new();
    for (index, key) in keys.iter().enumerate() {
        // Each key is looked up several times, with several slides, so that batches contain duplicates and fall into groups.
        for (store, slide) in [(&one, Some(LONG)), (&one, (index % 2 == 0).then_some(LONG * 2)), (&other, None)] {
            let (store, key) = (store.clone(), key.clone());
            look_ups.spawn(async move { (index, store.find(&key, slide).await) });
        }
    }
    while let Some(found) = look_ups.join_next().await {
        let (index, found) = found.unwrap();
        let wanted = if index % 3 == 0 { Found::Missing } else { Found::Active(record(&format!("user {index}"))) };
        assert_eq!(found, Ok(wanted), "look-up {index}");
    }
}

pub async fn an_access_is_recorded_when_it_is_later_than_the_last(subject: &impl Subject) {
    let [one, other] = subject.edges();
    let (key, stored) = (session(), record("ada"));
    let later = stored.last_accessed.plus(Duration::from_secs(30));
    one.insert(&key, &stored, LONG).await.unwrap();
    assert_eq!(one.record_access(&key, later, LONG).await, Ok(true));
    assert_eq!(other.record_access(&key, later, LONG).await, Ok(false), "it is recorded already");
    assert_eq!(other.record_access(&key, stored.last_accessed, LONG).await, Ok(false), "time does not go back");
    assert_eq!(other.find(&key, None).await, Ok(Found::Active(SessionRecord { last_accessed: later, ..stored })));
}

pub async fn recording_an_access_creates_no_session(subject: &impl Subject) {
    let [store, _] = subject.edges();
    let key = session();
    assert_eq!(store.record_access(&key, UnixTime::from_seconds(1_800_000_000), LONG).await, Ok(false));
    assert_eq!(store.find(&key, None).await, Ok(Found::Missing));
}

pub async fn an_ended_session_never_comes_back_from_touches_and_rewrites(subject: &impl Subject) {
    let edges = subject.edges();
    let [one, other] = &edges;
    let start = record("ada").last_accessed;
    for _ in 0..20 {
        let keys: Vec<SessionKey> = (0..50).map(|_| session()).collect();
        let mut tasks = tokio::task::JoinSet::new();
        for key in &keys {
            one.insert(key, &record("ada"), LONG).await.unwrap();
        }
        for key in &keys {
            for (round, store) in [one, other, one, other].into_iter().enumerate() {
                let (store, key) = (store.clone(), key.clone());
                tasks.spawn(async move {
                    store.find(&key, Some(LONG)).await.unwrap();
                    let later = start.plus(Duration::from_millis(round as u64 + 1));
                    store.record_access(&key, later, LONG).await.unwrap();
                    store.find(&key, Some(LONG * 2)).await.unwrap();
                });
            }
            let (store, key) = (other.clone(), key.clone());
            tasks.spawn(async move { store.end(&key, until()).await.unwrap() });
        }
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
        for key in &keys {
            assert!(!is_active(&found(one, key).await));
        }
    }
}

pub async fn a_session_is_renewed_while_it_is_active_and_never_created(subject: &impl Subject) {
    let [one, other] = subject.edges();
    let (key, again) = (session(), SessionRecord { expires: until(), ..record("ada") });
    assert_eq!(one.renew(&key, &again, LONG).await, Ok(false), "there is none");
    assert_eq!(one.find(&key, None).await, Ok(Found::Missing));
    one.insert(&key, &record("ada"), LONG).await.unwrap();
    assert_eq!(other.renew(&key, &again, LONG).await, Ok(true));
    assert_eq!(found(&one, &key).await, Found::Active(again.clone()));
    one.end(&key, until()).await.unwrap();
    assert_eq!(other.renew(&key, &again, LONG).await, Ok(false), "it has ended");
    assert!(!is_active(&found(&one, &key).await));
}

pub async fn a_browsers_record_is_swapped_only_by_a_caller_that_has_seen_it(subject: &impl Subject) {
    let [one, other] = subject.edges();
    let key = device();
    let at = |seconds: u64| UnixTime::from_seconds(1_700_000_000 + seconds);
    let first = DeviceRecord { number: 1, session: Some(session()), auth_time: at(7), ..DeviceRecord::default() };
    let second = DeviceRecord { number: 2, session: Some(session()), auth_time: at(5), ..first.clone() };
    let out = DeviceRecord { number: 3, session: None, signed_out: at(9), ..second.clone() };
    assert_eq!(one.device(&key).await, Ok(None));
    assert_eq!(one.swap_device(&key, Some(&first), &second, LONG).await, Ok(Swap::Found(None)));
    assert_eq!(one.device(&key).await, Ok(None), "and wrote nothing");
    assert_eq!(one.swap_device(&key, None, &first, LONG).await, Ok(Swap::Done));
    assert_eq!(other.device(&key).await, Ok(Some(first.clone())));
    assert_eq!(other.swap_device(&key, None, &second, LONG).await, Ok(Swap::Found(Some(first.clone()))));
    assert_eq!(other.swap_device(&key, Some(&first), &second, LONG).await, Ok(Swap::Done));
    assert_eq!(one.swap_device(&key, Some(&first), &out, LONG).await, Ok(Swap::Found(Some(second.clone()))));
    assert_eq!(one.swap_device(&key, Some(&second), &out, LONG).await, Ok(Swap::Done));
    assert_eq!(other.device(&key).await, Ok(Some(out)));
    assert_eq!(other.device(&device()).await, Ok(None), "another browser");
    // A record is kept for its lifetime, and no longer.
    let short = device();
    one.swap_device(&short, None, &first, Duration::from_secs(1)).await.unwrap();
    subject.pass(Duration::from_millis(2500)).await;
    assert_eq!(other.device(&short).await, Ok(None));
    assert_eq!(other.device(&key).await.map(|it| it.is_some()), Ok(true));
}

/// Does what logins do: each ends the session that it has seen, and then swaps it for its own.
pub async fn of_many_logins_in_one_browser_at_once_one_session_is_left(subject: &impl Subject) {
    let edges = subject.edges();
    for _ in 0..5 {
        let key = device();
        let mut logins = tokio::task::JoinSet::new();
        for (turn, store) in edges.iter().cycle().take(12).enumerate() {
            let (store, key, own) = (store.clone(), key.clone(), session());
            logins.spawn(async move {
                store.insert(&own, &record("ada"), LONG).await.unwrap();
                // The clocks of edges differ.
                let auth_time = UnixTime::from_seconds(1_700_000_000 - turn as u64);
                let mut next = DeviceRecord { session: Some(own.clone()), auth_time, ..DeviceRecord::default() };
                let mut seen = store.device(&key).await.unwrap();
                loop {
                    if let Some(before) = seen.as_ref().and_then(|seen| seen.session.as_ref()) {
                        store.end(before, until()).await.unwrap();
                    }
                    next.number = next.number.max(DeviceRecord::after(seen.as_ref()));
                    match store.swap_device(&key, seen.as_ref(), &next, LONG).await.unwrap() {
                        Swap::Done => return own,
                        Swap::Found(stored) => seen = stored,
                    }
                }
            });
        }
        let mut active = Vec::new();
        for own in logins.join_all().await {
            if is_active(&found(&edges[0], &own).await) {
                active.push(own);
            }
        }
        assert_eq!(active.len(), 1, "{active:?}");
        assert_eq!(edges[1].device(&key).await.unwrap().unwrap().session, active.pop());
    }
}

/// Two tabs of one browser, each with a session of its own, use two edges, and their store operations interleave in every
/// order.
pub async fn of_two_sessions_that_a_browser_brings_at_once_the_later_is_left(subject: &impl Subject) {
    const ORDERED: u32 = 7;
    let edges = subject.edges();
    let typed = |seconds: u64| UnixTime::from_seconds(1_700_000_000 + seconds);
    for (has_record, order) in [false, true].into_iter().flat_map(|it| (0..1_u32 << ORDERED).map(move |n| (it, n))) {
        let [before, older, later] = [session(), session(), session()];
        for own in [&before, &older, &later] {
            edges[0].insert(own, &record("ada"), LONG).await.unwrap();
        }
        let key = device();
        let first =
            DeviceRecord { number: 1, session: Some(before.clone()), auth_time: typed(5), ..Default::default() };
        if has_record {
            edges[0].swap_device(&key, None, &first, LONG).await.unwrap();
        }
        let mut tabs = [(0, &older, 10), (1, &later, 20)].map(|(edge, own, at)| {
            let (key, own) = (key.clone(), own.clone());
            in_turns(Arc::clone(&edges[edge]), move |store| async move {
                let (until, lifetime) = (until(), LONG);
                let candidate = SessionCandidate { session: &own, at: typed(at), until, lifetime, guard: None };
                candidate.become_current(&store, &key, true).await.unwrap()
            })
        });
        for turn in 0..ORDERED {
            tabs[(order >> turn & 1) as usize].step().await;
        }
        let [tab_of_older, tab_of_later] = tabs;
        let outcome = (tab_of_older.finish().await, tab_of_later.finish().await);
        let when = format!("a record {has_record}, order {order:07b}: {outcome:?}");
        assert!(outcome.1, "{when}");
        assert_eq!(edges[1].device(&key).await.unwrap().unwrap().session, Some(later.clone()), "{when}");
        assert!(is_active(&found(&edges[0], &later).await), "{when}");
        assert!(!is_active(&found(&edges[0], &older).await), "{when}");
        assert_eq!(is_active(&found(&edges[0], &before).await), !has_record, "{when}");
    }
}

pub async fn a_ticket_is_won_once_and_replayed_after(subject: &impl Subject) {
    let [one, other] = subject.edges();
    let key = ticket();
    one.issue_ticket(&key, b"a token", LONG).await.unwrap();
    assert_eq!(other.redeem_ticket(&key, LONG).await.unwrap(), Redemption::Won(b"a token".to_vec()));
    assert_eq!(other.redeem_ticket(&key, LONG).await.unwrap(), Redemption::Replayed);
    assert_eq!(one.redeem_ticket(&key, LONG).await.unwrap(), Redemption::Replayed);
    assert_eq!(one.redeem_ticket(&ticket(), LONG).await.unwrap(), Redemption::Unknown);
}

pub async fn a_ticket_holds_any_bytes(subject: &impl Subject) {
    let [store, _] = subject.edges();
    let every_byte: Vec<u8> = (0..=255).collect();
    let long = vec![b'x'; 20_000];
    for value in [b"" as &[u8], b"used", b"1 used", b"a\r\nEND\r\n", b"HD\r\nMN\r\n", b" ", &every_byte, &long] {
        let key = ticket();
        store.issue_ticket(&key, value, LONG).await.unwrap();
        let redemption = store.redeem_ticket(&key, LONG).await.unwrap();
        assert!(redemption == Redemption::Won(value.to_vec()), "{value:?}");
        assert_eq!(store.redeem_ticket(&key, LONG).await.unwrap(), Redemption::Replayed);
    }
}

pub async fn of_100_redemptions_at_once_exactly_one_wins(subject: &impl Subject) {
    let edges = subject.edges();
    for _ in 0..5 {
        let key = ticket();
        edges[0].issue_ticket(&key, b"a token", LONG).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for store in edges.iter().cycle().take(100) {
            let (store, key) = (store.clone(), key.clone());
            tasks.spawn(async move { store.redeem_ticket(&key, LONG).await.unwrap() });
        }
        let redemptions = tasks.join_all().await;
        let won = redemptions.iter().filter(|r| **r == Redemption::Won(b"a token".to_vec())).count();
        let replayed = redemptions.iter().filter(|r| **r == Redemption::Replayed).count();
        assert_eq!((won, replayed), (1, 99));
    }
}

pub async fn failures_are_counted_up_and_taken_back(subject: &impl Subject) {
    let [one, other] = subject.edges();
    let key = counter();
    for count in 1..=12 {
        assert_eq!(one.counter_incr(&key, LONG).await.map(|it| it.count), Ok(count));
    }
    // The count goes from two digits to one: a server may keep the width of the number and pad it.
    for _ in 0..4 {
        other.counter_decr(&key, &Count::default()).await.unwrap();
    }
    assert_eq!(one.counter_incr(&key, LONG).await.map(|it| it.count), Ok(9));
    other.counter_reset(&key).await.unwrap();
    assert_eq!(one.counter_incr(&key, LONG).await.map(|it| it.count), Ok(1));
    for _ in 0..3 {
        other.counter_decr(&key, &Count::default()).await.unwrap();
    }
    assert_eq!(one.counter_incr(&key, LONG).await.map(|it| it.count), Ok(1), "never below zero");
}

pub async fn a_counter_reports_its_count_and_its_remaining_lifetime(subject: &impl Subject) {
    let [one, other] = subject.edges();
    let key = counter();
    assert_eq!(one.counter_get(&key).await.unwrap().count, 0, "there is no counter");
    let window = Duration::from_secs(100);
    let in_its_window = |count: &Count| (Duration::from_secs(60)..=window).contains(&count.left);
    for number in 1..=10 {
        let added = one.counter_incr(&key, window * u32::try_from(number).unwrap()).await.unwrap();
        assert!(added.count == number && in_its_window(&added), "the window is that of the first increment: {added:?}");
        let read = other.counter_get(&key).await.unwrap();
        assert_eq!((read.count, in_its_window(&read)), (number, true), "{read:?}");
    }
    // The count goes from two digits to one: a server may keep the width of the number and pad it.
    other.counter_decr(&key, &Count::default()).await.unwrap();
    let read = one.counter_get(&key).await.unwrap();
    assert_eq!((read.count, in_its_window(&read)), (9, true), "{read:?}");
    one.counter_reset(&key).await.unwrap();
    assert_eq!(other.counter_get(&key).await.unwrap().count, 0, "reading creates no counter");
}

pub async fn decrementing_a_missing_counter_creates_none(subject: &impl Subject) {
    let [store, _] = subject.edges();
    let key = counter();
    store.counter_decr(&key, &Count::default()).await.unwrap();
    store.counter_reset(&key).await.unwrap();
    assert_eq!(store.counter_incr(&key, LONG).await.map(|it| it.count), Ok(1));
}

pub async fn no_increment_of_50_at_once_is_lost(subject: &impl Subject) {
    let (edges, key) = (subject.edges(), counter());
    let mut tasks = tokio::task::JoinSet::new();
    for store in edges.iter().cycle().take(50) {
        let (store, key) = (store.clone(), key.clone());
        tasks.spawn(async move { store.counter_incr(&key, LONG).await.unwrap().count });
    }
    let mut counts = tasks.join_all().await;
    counts.sort_unstable();
    assert_eq!(counts, (1..=50).collect::<Vec<u64>>());
}

pub async fn what_is_not_touched_expires_in_time(subject: &impl Subject) {
    const SHORT: Duration = Duration::from_secs(2);
    let [store, _] = subject.edges();
    let (left, looked_at, touched, rewritten) = (session(), session(), session(), session());
    for key in [&left, &looked_at, &touched, &rewritten] {
        store.insert(key, &record("ada"), SHORT).await.unwrap();
    }
    let (unredeemed, used, remembered) = (ticket(), ticket(), ticket());
    for key in [&unredeemed, &used, &remembered] {
        store.issue_ticket(key, b"a token", SHORT).await.unwrap();
    }
    let key = counter();
    store.counter_incr(&key, SHORT).await.unwrap();

    store.find(&looked_at, None).await.unwrap();
    store.find(&touched, Some(LONG)).await.unwrap();
    let later = record("ada").last_accessed.plus(SHORT);
    assert_eq!(store.record_access(&rewritten, later, LONG).await, Ok(true));
    store.redeem_ticket(&used, SHORT).await.unwrap();
    store.redeem_ticket(&remembered, LONG).await.unwrap();
    assert_eq!(
        store.counter_incr(&key, LONG).await.map(|it| it.count),
        Ok(2),
        "the window is that of the first increment"
    );

    // The half second is more than memcached's clock can be behind, as it ticks once a second.
    subject.pass(SHORT + Duration::from_millis(500)).await;
    assert_eq!(store.find(&left, Some(LONG)).await, Ok(Found::Missing));
    assert_eq!(store.find(&looked_at, Some(LONG)).await, Ok(Found::Missing), "a look-up without a slide is no touch");
    assert!(is_active(&found(&store, &touched).await));
    assert!(is_active(&found(&store, &rewritten).await));
    assert_eq!(store.redeem_ticket(&unredeemed, LONG).await.unwrap(), Redemption::Unknown);
    assert_eq!(store.redeem_ticket(&used, LONG).await.unwrap(), Redemption::Unknown);
    assert_eq!(store.redeem_ticket(&remembered, LONG).await.unwrap(), Redemption::Replayed);
    assert_eq!(store.counter_incr(&key, LONG).await.map(|it| it.count), Ok(1));
}

pub async fn active_sessions_are_listed_and_nothing_else(subject: &impl Subject) {
    let [one, other] = subject.edges();
    let (hers, his, ended) = (session(), session(), session());
    // Sessions of others may be there as well.
    let (ada, bob) = (counter(), counter());
    for (key, user) in [(&hers, &ada), (&his, &bob), (&ended, &ada)] {
        one.insert(key, &record(user.as_str()), LONG).await.unwrap();
    }
    one.issue_ticket(&ticket(), b"a token", LONG).await.unwrap();
    one.end(&ended, until()).await.unwrap();
    let listing = other.list(Some(ada.as_str()), 100).await;
    assert_eq!((listing.unreachable, listing.truncated), (vec![], false));
    let [listed] = listing.sessions.as_slice() else { panic!("{:?}", listing.sessions) };
    assert_eq!((&listed.key, &listed.record), (&hers, &record(ada.as_str())));
    let left = listed.idle_expires_at.since(Clock::default().now());
    assert!(left <= LONG + Duration::from_secs(1) && left > LONG / 2, "{left:?}");
    let all = other.list(None, 10_000).await.sessions;
    assert!([&hers, &his].iter().all(|key| all.iter().filter(|listed| listed.key == **key).count() == 1));
    assert!(all.iter().all(|listed| listed.key != ended));
}

pub async fn a_listing_is_no_activity(subject: &impl Subject) {
    let [store, _] = subject.edges();
    let (key, user) = (session(), counter());
    store.insert(&key, &record(user.as_str()), LONG).await.unwrap();
    let first = store.list(Some(user.as_str()), 100).await.sessions;
    subject.pass(Duration::from_millis(1500)).await;
    assert_eq!(store.list(Some(user.as_str()), 100).await.sessions, first);
    store.find(&key, Some(2 * LONG)).await.unwrap();
    let touched = store.list(Some(user.as_str()), 100).await.sessions;
    assert!(touched[0].idle_expires_at > first[0].idle_expires_at.plus(LONG / 2), "a request is activity");
}

pub async fn a_listing_holds_no_more_than_its_limit(subject: &impl Subject) {
    let [store, _] = subject.edges();
    let user = counter();
    for _ in 0..200 {
        store.insert(&session(), &record(user.as_str()), LONG).await.unwrap();
    }
    for (limit, length) in [(0, 0), (1, 1), (199, 199), (200, 200), (10_000, 200)] {
        let listing = store.list(Some(user.as_str()), limit).await;
        assert_eq!((listing.sessions.len(), listing.truncated), (length, limit < 200), "limit {limit}");
    }
}

pub async fn a_store_answers_a_ping(subject: &impl Subject) {
    for store in subject.edges() {
        assert_eq!(store.ping().await, Ok(()));
    }
}
