//! A cluster whose servers are simulated: in every order that a seed draws, an ended session stays ended, a ticket is
//! redeemed once, and one server that is unavailable or comes back empty logs no user out. Real servers are in
//! `memcached/tests/several.rs`.

mod simulation;

use std::convert::Infallible;
use std::sync::LazyLock;

use tokio::task::JoinSet;

use super::*;
use crate::metrics::Metrics;
use crate::sessions::StoredValue;
use crate::sessions::tests::{LONG, counter, record, session, ticket, until};
use simulation::{Simulated, World};

const EDGES: usize = 2;
const SERVERS: usize = 3;

type Edge = Arc<Cluster<Simulated>>;

fn servers(count: usize) -> Vec<NodeConfig> {
    (0..count).map(|n| NodeConfig { name: n.to_string(), weight: 1 }).collect()
}

fn connect(world: &World, edge: usize) -> impl Fn(&NodeConfig) -> Result<Simulated, Infallible> {
    move |server| Ok(world.node(edge, server.name.parse().unwrap()))
}

/// The metrics are made only once, because each simulation has edges of its own, and there are thousands.
static METRICS: LazyLock<StoreMetrics> = LazyLock::new(|| Metrics::new("test").unwrap().sign_on.store);

fn edge(world: &World, index: usize, count: usize, copies: usize) -> Edge {
    let metrics = METRICS.clone();
    let clock = Clock::default();
    let mut cluster = Cluster::new(&servers(count), copies, clock.clone(), &metrics, connect(world, index)).unwrap();
    let backoff = RetryBackoff { first: Duration::from_millis(1), longest: Duration::from_millis(1) };
    cluster.repairer = Repairer::new(clock, backoff, metrics);
    Arc::new(cluster)
}

fn edges(world: &World, copies: usize) -> Vec<Edge> {
    (0..EDGES).map(|index| edge(world, index, SERVERS, copies)).collect()
}

/// Lets every task in the background finish.
async fn settle() {
    for _ in 0..300 {
        tokio::task::yield_now().await;
    }
}

/// Requests, writes and logouts of one session at the same time, while servers are cut off and emptied.
async fn a_burst(world: &World, edges: &[Edge], key: &SessionKey, burst: u64, ends: bool) -> bool {
    let start = record("ada").last_accessed;
    let mut logouts = JoinSet::new();
    let mut requests = JoinSet::new();
    for step in 0..8 {
        let (at, server) = (world.draw(EDGES), world.draw(SERVERS));
        let (edge, key) = (edges[at].clone(), key.clone());
        match world.draw(10) {
            0 => world.cut(at, server, true),
            1 | 2 => world.cut(at, server, false),
            3 if world.draw(3) == 0 => world.empty(server),
            4 if ends => drop(logouts.spawn(async move { edge.end(&key, until()).await })),
            5 | 6 => drop(requests.spawn(async move {
                let now = start.plus(Duration::from_secs(10 * burst + step));
                edge.record_access(&key, now, LONG).await.ok();
            })),
            _ => drop(requests.spawn(async move {
                edge.find(&key, Some(LONG)).await.ok();
            })),
        }
        if world.draw(3) == 0 {
            tokio::task::yield_now().await;
        }
    }
    requests.join_all().await;
    logouts.join_all().await.iter().any(Result::is_ok)
}

#[tokio::test]
async fn a_session_that_was_ended_is_never_accepted_by_an_edge_that_can_reach_a_server_that_knows() {
    let (mut ended_lives, mut checks) = (0, 0);
    for seed in 0..2000 {
        let world = World::new(seed, EDGES, SERVERS, 15);
        let (edges, key) = (edges(&world, 2), session());
        if edges[0].insert(&key, &record("ada"), LONG).await.is_err() {
            continue;
        }
        let mut ended = false;
        for burst in 0..8 {
            ended |= a_burst(&world, &edges, &key, burst, burst > 1).await;
            // A late write may arrive at any later time, also during these reads.
            let late = world.late(0);
            for (index, edge) in edges.iter().enumerate() {
                if world.knows(index, &key) {
                    checks += 1;
                    let found = edge.find(&key, Some(LONG)).await;
                    assert_eq!(found, Ok(Found::Ended), "seed {seed}, burst {burst}, edge {index}");
                }
            }
            world.late(late);
        }
        assert_eq!(world.risen(), Vec::<String>::new(), "seed {seed}: a server lost a tombstone");
        ended_lives += usize::from(ended);
        // Hints that are left can be delivered now; otherwise they would be retried to the end of the test.
        world.heal();
    }
    assert!(ended_lives > 500 && checks > 2000, "{ended_lives} ended, looked at {checks} times");
}

#[tokio::test]
async fn a_server_that_was_away_at_the_logout_gets_the_tombstone_when_it_is_back() {
    for seed in 0..500 {
        let world = World::new(seed, EDGES, SERVERS, 0);
        let (edges, key) = (edges(&world, 2), session());
        edges[0].insert(&key, &record("ada"), LONG).await.unwrap();
        let away = world.draw(SERVERS);
        (0..EDGES).for_each(|edge| world.cut(edge, away, true));
        edges[1].end(&key, until()).await.unwrap();
        world.heal();
        let delivered = async {
            while (0..SERVERS).any(|server| matches!(world.held(server, &key), Some(StoredValue::Session(_)))) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), delivered).await.expect("no active copy is left");
    }
}

#[tokio::test]
async fn with_two_copies_no_single_fault_logs_a_user_out() {
    for seed in 0..500 {
        let world = World::new(seed, EDGES, SERVERS, 0);
        let (edges, key) = (edges(&world, 2), session());
        edges[0].insert(&key, &record("ada"), LONG).await.unwrap();
        for round in 0..12 {
            let server = world.draw(SERVERS);
            match world.draw(3) {
                0 => world.empty(server),
                1 => (0..EDGES).for_each(|edge| world.cut(edge, server, true)),
                _ => {
                    world.empty(server);
                    world.cut(0, server, true);
                }
            }
            for edge in &edges {
                let found = edge.find(&key, Some(LONG)).await;
                assert!(matches!(found, Ok(Found::Active(_))), "seed {seed}, round {round}: {found:?}");
            }
            world.heal();
            // One request after the end of the fault restores both copies.
            edges[world.draw(EDGES)].find(&key, Some(LONG)).await.unwrap();
            settle().await;
        }
    }
}

#[tokio::test]
async fn with_one_copy_a_server_that_is_away_is_a_failure_and_never_a_miss() {
    for seed in 0..300 {
        let world = World::new(seed, EDGES, SERVERS, 0);
        let (edges, key) = (edges(&world, 1), session());
        edges[0].insert(&key, &record("ada"), LONG).await.unwrap();
        world.cut(1, world.draw(SERVERS), true);
        let found = edges[1].find(&key, Some(LONG)).await;
        assert!(matches!(found, Ok(Found::Active(_)) | Err(StoreError::Unavailable { .. })), "seed {seed}: {found:?}");
    }
}

#[tokio::test]
async fn a_login_succeeds_while_one_of_its_servers_is_away_and_fails_when_all_are() {
    let world = World::new(1, EDGES, SERVERS, 0);
    let edges = edges(&world, 2);
    world.cut(0, 0, true);
    for _ in 0..100 {
        let key = session();
        edges[0].insert(&key, &record("ada"), LONG).await.unwrap();
        assert_eq!(edges[1].find(&key, Some(LONG)).await, Ok(Found::Active(record("ada"))));
    }
    (0..SERVERS).for_each(|server| world.cut(0, server, true));
    assert!(edges[0].insert(&session(), &record("ada"), LONG).await.is_err());
    assert!(edges[0].end(&session(), until()).await.is_err(), "an end that no server knows is a failure");
    assert!(edges[0].ping().await.is_err());
}

#[tokio::test]
async fn a_ticket_is_won_at_most_once_whatever_happens_to_the_servers() {
    let mut won_tickets = 0;
    for seed in 0..2000 {
        let world = World::new(seed, EDGES, SERVERS, 15);
        let (edges, key) = (edges(&world, 2), ticket());
        let issued = edges[0].issue_ticket(&key, b"a token", LONG).await;
        let mut redemptions = JoinSet::new();
        for _ in 0..8 {
            world.cut(world.draw(EDGES), world.draw(SERVERS), world.draw(2) == 0);
            let (edge, key) = (edges[world.draw(EDGES)].clone(), key.clone());
            redemptions.spawn(async move { edge.redeem_ticket(&key, LONG).await });
        }
        let won = |outcome: &Result<Redemption, StoreError>| matches!(outcome, Ok(Redemption::Won(_)));
        let won = redemptions.join_all().await.iter().filter(|outcome| won(outcome)).count();
        assert!(won <= 1, "seed {seed}: {won} won");
        won_tickets += usize::from(issued.is_ok() && won == 1);
    }
    assert!(won_tickets > 500, "{won_tickets} of 2000");
}

#[tokio::test]
async fn each_session_is_listed_once_with_the_servers_that_hold_it_and_ended_ones_are_not() {
    for seed in 0..200 {
        let world = World::new(seed, EDGES, SERVERS, 0);
        let edges = edges(&world, 2);
        let keys: Vec<SessionKey> = (0..20).map(|_| session()).collect();
        for key in &keys {
            edges[0].insert(key, &record("ada"), LONG).await.unwrap();
        }
        let away = world.draw(SERVERS);
        (0..EDGES).for_each(|edge| world.cut(edge, away, true));
        for key in &keys[10..] {
            edges[1].end(key, until()).await.unwrap();
        }
        // The server is back, and has no tombstones yet.
        (0..EDGES).for_each(|edge| world.cut(edge, away, false));
        let listing = edges[0].list(None, 1000).await;
        let mut listed: Vec<&SessionKey> = listing.sessions.iter().map(|listed| &listed.key).collect();
        listed.sort();
        let mut active: Vec<&SessionKey> = keys[..10].iter().collect();
        active.sort();
        assert_eq!(listed, active, "seed {seed}");
        for session in &listing.sessions {
            let held = |server: &usize| matches!(world.held(*server, &session.key), Some(StoredValue::Session(_)));
            let on: Vec<String> = (0..SERVERS).filter(held).map(|server| server.to_string()).collect();
            assert_eq!(session.servers, on);
            assert_eq!(on.len(), 2);
        }
        assert_eq!((listing.unreachable, listing.truncated), (vec![], false));
        world.heal();
    }
}

#[tokio::test]
async fn a_server_that_is_unavailable_is_named_and_what_the_others_hold_is_listed() {
    for copies in [1, 2] {
        let world = World::new(1, EDGES, SERVERS, 0);
        let edges = edges(&world, copies);
        let keys: Vec<SessionKey> = (0..60).map(|_| session()).collect();
        for key in &keys {
            edges[0].insert(key, &record("ada"), LONG).await.unwrap();
        }
        world.cut(0, 1, true);
        let listing = edges[0].list(None, 1000).await;
        assert_eq!(listing.unreachable, [("1".to_owned(), StoreError::Unavailable { cause: "cut off".into() })]);
        let reached = |key: &&SessionKey| [0, 2].iter().any(|server| world.held(*server, key).is_some());
        assert_eq!(listing.sessions.len(), keys.iter().filter(reached).count());
        assert_eq!(listing.sessions.len() == keys.len(), copies == 2, "with two copies none is missed");
    }
}

#[tokio::test]
async fn sessions_on_the_servers_of_a_previous_layout_are_listed_too() {
    let world = World::new(7, EDGES, 5, 0);
    let cluster = edge(&world, 0, 3, 1);
    for _ in 0..50 {
        cluster.insert(&session(), &record("ada"), LONG).await.unwrap();
    }
    cluster.set_nodes(&servers(5)[2..], 1, LONG, connect(&world, 0)).unwrap();
    assert_eq!(cluster.list(Some("ada"), 1000).await.sessions.len(), 50);
}

#[tokio::test]
async fn a_counter_goes_on_elsewhere_while_its_server_is_away() {
    let world = World::new(1, EDGES, SERVERS, 0);
    let edges = edges(&world, 1);
    for server in 0..SERVERS {
        world.cut(0, server, true);
        for _ in 0..50 {
            let key = counter();
            assert_eq!(edges[0].counter_incr(&key, LONG).await.map(|it| it.count), Ok(1));
            assert_eq!(
                edges[0].counter_incr(&key, LONG).await.map(|it| it.count),
                Ok(2),
                "it stays on the other server"
            );
            edges[0].counter_reset(&key).await.unwrap();
            assert_eq!(edges[0].counter_incr(&key, LONG).await.map(|it| it.count), Ok(1));
        }
        world.heal();
    }
}

#[tokio::test]
async fn users_stay_signed_in_when_servers_come_and_go() {
    for copies in [1, 2] {
        let world = World::new(7, EDGES, 5, 0);
        let cluster = edge(&world, 0, 3, copies);
        let keys: Vec<SessionKey> = (0..300).map(|_| session()).collect();
        for key in &keys {
            cluster.insert(key, &record("ada"), LONG).await.unwrap();
        }
        cluster.set_nodes(&servers(5), copies, LONG, connect(&world, 0)).unwrap();
        for key in &keys {
            let found = cluster.find(key, Some(LONG)).await;
            assert_eq!(found, Ok(Found::Active(record("ada"))), "after two came");
            settle().await;
        }
        let moved = keys.iter().filter(|key| (3..5).any(|server| world.held(server, key).is_some())).count();
        assert!((60..=240).contains(&moved), "{moved} of 300 sessions are stored on the new servers");
        cluster.end(&keys[0], until()).await.unwrap();
        cluster.set_nodes(&servers(5)[1..], copies, LONG, connect(&world, 0)).unwrap();
        for key in &keys[1..] {
            assert_eq!(cluster.find(key, Some(LONG)).await, Ok(Found::Active(record("ada"))), "after one went");
        }
        assert_eq!(
            cluster.find(&keys[0], None).await,
            Ok(Found::Ended),
            "a session that has ended is not let in again"
        );
    }
}

#[tokio::test]
async fn several_changes_in_a_row_log_no_idle_user_out() {
    for copies in [1, 2] {
        let world = World::new(7, EDGES, 6, 0);
        let cluster = edge(&world, 0, 3, copies);
        let keys: Vec<SessionKey> = (0..300).map(|_| session()).collect();
        for key in &keys {
            cluster.insert(key, &record("ada"), LONG).await.unwrap();
        }
        let all = servers(6);
        for list in [&all[..4], &all[1..4], &all[1..5], &all[1..6]] {
            cluster.set_nodes(list, copies, LONG, connect(&world, 0)).unwrap();
        }
        for key in &keys {
            assert_eq!(cluster.find(key, Some(LONG)).await, Ok(Found::Active(record("ada"))), "{copies} copies");
        }
    }
}

#[tokio::test]
async fn the_same_servers_in_another_order_are_no_change() {
    let world = World::new(7, EDGES, 3, 0);
    let cluster = edge(&world, 0, 3, 1);
    let mut list = servers(3);
    list.reverse();
    cluster.set_nodes(&list, 1, LONG, connect(&world, 0)).unwrap();
    assert!(cluster.layout.load().only_replica("s:1").is_some(), "no previous layout is read");
}

#[tokio::test]
async fn an_end_that_only_a_previous_server_took_is_a_failure() {
    let world = World::new(7, EDGES, 6, 0);
    let cluster = edge(&world, 0, 3, 1);
    let keys: Vec<SessionKey> = (0..50).map(|_| session()).collect();
    for key in &keys {
        cluster.insert(key, &record("ada"), LONG).await.unwrap();
    }
    cluster.set_nodes(&servers(6)[3..], 1, LONG, connect(&world, 0)).unwrap();
    (3..6).for_each(|server| world.cut(0, server, true));
    for key in &keys {
        assert!(cluster.end(key, until()).await.is_err(), "the current servers have no tombstone");
    }
}

#[tokio::test]
async fn a_ticket_that_was_issued_before_the_servers_changed_is_good_after() {
    let world = World::new(7, EDGES, 5, 0);
    let cluster = edge(&world, 0, 3, 1);
    let keys: Vec<TicketKey> = (0..100).map(|_| ticket()).collect();
    for key in &keys {
        cluster.issue_ticket(key, b"a token", LONG).await.unwrap();
    }
    cluster.set_nodes(&servers(5), 1, LONG, connect(&world, 0)).unwrap();
    for key in &keys {
        assert!(cluster.redeem_ticket(key, LONG).await.unwrap() == Redemption::Won(b"a token".to_vec()));
        assert!(cluster.redeem_ticket(key, LONG).await.unwrap() == Redemption::Replayed);
    }
}

#[tokio::test]
async fn what_is_taken_back_is_taken_from_the_server_that_counted_it() {
    for seed in 0..200 {
        let world = World::new(seed, EDGES, SERVERS, 0);
        let (edges, key) = (edges(&world, 1), counter());
        let add = async |edge: usize| edges[edge].counter_incr(&key, LONG).await.unwrap();
        // A failure that stays, on the counter's own server.
        let stays = add(0).await;
        let first: usize = stays.server.as_deref().unwrap().parse().unwrap();
        world.cut(0, first, true);
        let elsewhere = add(0).await;
        assert_ne!(elsewhere.server, stays.server, "seed {seed}");
        world.heal();
        edges[0].counter_decr(&key, &elsewhere).await.unwrap();
        assert_eq!(add(1).await.count, 2, "seed {seed}: the one that stays still counts");
        let own = add(1).await;
        world.cut(1, first, true);
        assert!(edges[1].counter_decr(&key, &own).await.is_err(), "seed {seed}: no other server is used instead");
        world.cut(0, first, true);
        assert_eq!(add(0).await.count, 1, "seed {seed}: nothing was taken from the other, and nothing left there");
        world.heal();
        edges[0].counter_reset(&key).await.unwrap();
        assert_eq!(add(0).await.count, 1, "seed {seed}");
        world.cut(0, first, true);
        assert_eq!(add(0).await.count, 1, "seed {seed}: a right password resets both");
    }
}

#[tokio::test]
async fn a_read_without_a_majority_of_replicas_is_counted() {
    for (copies, cut, counted) in [(1, 0, 0), (2, 0, 0), (2, 1, 1), (3, 1, 0), (3, 2, 1)] {
        let world = World::new(7, EDGES, SERVERS, 0);
        // The common metrics are used by other tests at the same time.
        let metrics = Metrics::new("test").unwrap().sign_on.store;
        let edge = Cluster::new(&servers(copies), copies, Clock::default(), &metrics, connect(&world, 0)).unwrap();
        let key = session();
        edge.insert(&key, &record("ada"), LONG).await.unwrap();
        (0..cut).for_each(|server| world.cut(0, server, true));
        edge.find(&key, None).await.unwrap();
        assert_eq!(metrics.minority.get(), counted, "{copies} copies, {cut} cut");
    }
}
