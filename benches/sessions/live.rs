//! Whether a look-up costs more the more sessions live (P10), and what a session costs the server.

use std::time::{Duration, Instant};

use sentry_edge::clock::Clock;
use sentry_edge::sessions::memory::MemoryStore;
use sentry_edge::sessions::{Found, SessionId, SessionKey, SessionStore};

use super::look_ups::measure;
use super::server::Memcached;
use super::{IDLE, record, runtime, store};

const AT_ONCE: usize = 64;
const MEASURED: Duration = Duration::from_secs(3);
const LIVE: [usize; 4] = [10, 1_000, 100_000, 1_000_000];
/// Each size is measured in turn, several times, so that a busy machine spoils none of them alone.
const ROUNDS: usize = 3;

pub fn run() {
    println!("\n## Live sessions (64 look-ups at once)\n");
    println!(
        "\nOf 10 sessions, many of 64 look-ups are for the same one and are sent once, so 1,000 is what is compared with.\n"
    );
    println!("| sessions | memcached: CPU µs each | to that of 1,000 | bytes a session | memory store: CPU µs each |");
    println!("|---|---|---|---|---|");
    let keys: Vec<SessionKey> = (0..LIVE[LIVE.len() - 1]).map(|_| SessionId::random().unwrap().key()).collect();
    let runtime = runtime();
    let value = record().encode();
    let worlds: Vec<_> = LIVE
        .iter()
        .map(|live| {
            let memcached = Memcached::start();
            memcached.fill(keys[..*live].iter().map(|key| (key.as_str(), value.as_slice())));
            let (store, _) = store(&[&memcached.address()], 1, Duration::from_secs(20));
            let memory = MemoryStore::new(Clock::default(), *live);
            runtime.block_on(async {
                for key in &keys[..*live] {
                    memory.insert(key, &record(), IDLE).await.unwrap();
                }
            });
            (memcached, store, memory, *live)
        })
        .collect();
    let mut costs = vec![(f64::MAX, f64::MAX); worlds.len()];
    for _ in 0..ROUNDS {
        for ((_, store, memory, live), cost) in worlds.iter().zip(&mut costs) {
            let measured = runtime.block_on(measure(store, &keys[..*live], AT_ONCE, MEASURED));
            cost.0 = cost.0.min(measured.cpu.as_secs_f64() * 1e6 / measured.look_ups as f64);
            cost.1 = cost.1.min(runtime.block_on(in_memory(memory, &keys[..*live])));
        }
    }
    for ((memcached, _, _, live), cost) in worlds.iter().zip(&costs) {
        let stats = memcached.stats();
        assert_eq!(stats["curr_items"], *live as u64, "all of them live");
        let bytes = stats["bytes"] as f64 / *live as f64;
        println!("| {live} | {:.2} | {:.2} × | {bytes:.0} | {:.2} |", cost.0, cost.0 / costs[1].0, cost.1);
    }
}

/// Microseconds for a look-up.
async fn in_memory(store: &MemoryStore, keys: &[SessionKey]) -> f64 {
    const LOOK_UPS: usize = 300_000;
    let (began, mut random) = (Instant::now(), fastrand::Rng::with_seed(7));
    for _ in 0..LOOK_UPS {
        let key = &keys[random.usize(..keys.len())];
        assert!(matches!(store.find(key, Some(IDLE)).await, Ok(Found::Active(_))));
    }
    began.elapsed().as_secs_f64() * 1e6 / LOOK_UPS as f64
}
