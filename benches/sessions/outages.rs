//! How long callers wait when a server is frozen, killed, restarted, emptied or one of three gone (R5), and what a
//! thousand logouts that race with touches leave (R12).

use std::time::{Duration, Instant};

use sentry_edge::clock::UnixTime;
use sentry_edge::config::defaults::MEMCACHED_TIMEOUT;
use sentry_edge::sessions::{Found, SessionId, SessionKey, SessionStore, StoreError};

use super::server::Memcached;
use super::{IDLE, Store, record, runtime, store, until};

pub fn run() {
    println!("\n## Outages (timeout {MEMCACHED_TIMEOUT:?})\n");
    println!("| what | first answers | while it is left alone, median | back after | logged out |");
    println!("|---|---|---|---|---|");
    let runtime = runtime();
    for copies in [1, 2] {
        for fault in ["frozen 10 s", "killed and restarted", "emptied"] {
            runtime.block_on(row(fault, copies));
        }
    }
    runtime.block_on(races());
}

async fn row(fault: &str, copies: usize) {
    let mut servers: Vec<Memcached> = (0..if copies == 1 { 1 } else { 3 }).map(|_| Memcached::start()).collect();
    let addresses: Vec<String> = servers.iter().map(Memcached::address).collect();
    let (store, _) = store(&addresses.iter().map(String::as_str).collect::<Vec<_>>(), copies, MEMCACHED_TIMEOUT);
    let keys: Vec<SessionKey> = (0..300).map(|_| SessionId::random().unwrap().key()).collect();
    for key in &keys {
        store.insert(key, &record(), IDLE).await.unwrap();
    }
    match fault {
        "frozen 10 s" => servers[0].signal("STOP"),
        "emptied" => drop(servers[0].tell("flush_all")),
        _ => servers[0].kill(),
    }
    let began = Instant::now();
    let (mut waits, mut logged_out) = (Vec::new(), 0);
    let away = if fault == "frozen 10 s" { Duration::from_secs(10) } else { Duration::from_secs(1) };
    while began.elapsed() < away {
        for key in &keys {
            let began = Instant::now();
            let found = store.find(key, Some(IDLE)).await;
            waits.push(began.elapsed());
            logged_out += usize::from(matches!(found, Ok(Found::Missing | Found::Ended)));
        }
    }
    match fault {
        "frozen 10 s" => servers[0].signal("CONT"),
        "emptied" => {}
        _ => servers[0].restart(),
    }
    let back = until_back(&store, &keys).await;
    let first = waits.iter().take(5).max().unwrap().as_secs_f64() * 1e3;
    waits.sort_unstable();
    let median = waits[waits.len() / 2].as_secs_f64() * 1e6;
    let who = if copies == 1 { "the only server" } else { "one of three, 2 copies" };
    let back = back.as_secs_f64() * 1e3;
    // Without a second copy, who was on an emptied server has to sign in again.
    println!("| {who} {fault} | {first:.1} ms at most | {median:.0} µs | {back:.0} ms | {} |", logged_out > 0);
}

/// Until every key has an answer.
async fn until_back(store: &Store, keys: &[SessionKey]) -> Duration {
    let began = Instant::now();
    for key in keys {
        while store.find(key, Some(IDLE)).await.as_ref().is_err_and(StoreError::is_unavailable) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    began.elapsed()
}

async fn races() {
    let servers = [Memcached::start(), Memcached::start(), Memcached::start()];
    let addresses = servers.each_ref().map(Memcached::address);
    let (store, _) = store(&addresses.each_ref().map(String::as_str), 2, Duration::from_secs(20));
    let mut came_back = 0;
    for race in 0..1000u64 {
        let key = SessionId::random().unwrap().key();
        store.insert(&key, &record(), IDLE).await.unwrap();
        let touches: Vec<_> = (0..6)
            .map(|touch| {
                let (store, key) = (store.clone(), key.clone());
                tokio::spawn(async move {
                    store.find(&key, Some(IDLE)).await.unwrap();
                    let later = UnixTime::from_millis(2_000_000_000_000 + race * 10 + touch);
                    store.record_access(&key, later, IDLE).await.unwrap();
                })
            })
            .collect();
        store.end(&key, until()).await.unwrap();
        for touch in touches {
            touch.await.unwrap();
        }
        came_back += usize::from(!matches!(store.find(&key, None).await, Ok(Found::Ended)));
    }
    println!("\n1,000 logouts, each racing 6 touches and rewrites on 3 servers with 2 copies: {came_back} came back.");
}
