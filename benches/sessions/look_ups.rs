//! CPU of this process, round trips and bytes for a look-up that finds and slides, by how many wait at once.

use std::time::{Duration, Instant};

use sentry_edge::sessions::{Found, SessionId, SessionKey, SessionStore};

use super::server::Memcached;
use super::{IDLE, Store, cpu, record, runtime, store};

/// So long that no slow machine meets it.
const PATIENT: Duration = Duration::from_secs(20);
const MEASURED: Duration = Duration::from_secs(2);
/// So many that the same one is rarely looked up twice in a batch, which would be cheaper.
const SESSIONS: usize = 20_000;

/// What one look-up cost.
pub struct Cost {
    pub cpu: Duration,
    pub wall: Duration,
    pub look_ups: u64,
}

pub fn run() {
    println!("\n## Look-ups that find and slide\n");
    println!(
        "| at once | servers | copies | CPU µs each | look-ups a second | in a round trip | bytes each, out + in |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (servers, copies) in [(1, 1), (2, 1), (2, 2)] {
        for at_once in [1, 16, 64, 256] {
            row(servers, copies, at_once);
        }
    }
}

fn row(servers: usize, copies: usize, at_once: usize) {
    let memcacheds: Vec<Memcached> = (0..servers).map(|_| Memcached::start()).collect();
    let addresses: Vec<String> = memcacheds.iter().map(Memcached::address).collect();
    let (store, metrics) = store(&addresses.iter().map(String::as_str).collect::<Vec<_>>(), copies, PATIENT);
    let runtime = runtime();
    let keys: Vec<SessionKey> = (0..SESSIONS).map(|_| SessionId::random().unwrap().key()).collect();
    runtime.block_on(async {
        for key in &keys {
            store.insert(key, &record(), IDLE).await.unwrap();
        }
    });
    runtime.block_on(measure(&store, &keys, at_once, MEASURED / 4));
    let sum = |name: &str| memcacheds.iter().map(|server| server.stats()[name]).sum::<u64>();
    let before = (sum("bytes_read"), sum("bytes_written"), metrics.batch_size.get_sample_count());
    let cost = runtime.block_on(measure(&store, &keys, at_once, MEASURED));
    let round_trips = metrics.batch_size.get_sample_count() - before.2;
    let each = |total: u64| total as f64 / cost.look_ups as f64;
    println!(
        "| {at_once} | {servers} | {copies} | {:.2} | {:.0} | {:.1} | {:.0} + {:.0} |",
        cost.cpu.as_secs_f64() * 1e6 / cost.look_ups as f64,
        cost.look_ups as f64 / cost.wall.as_secs_f64(),
        (cost.look_ups * copies as u64) as f64 / round_trips as f64,
        each(sum("bytes_read") - before.0),
        each(sum("bytes_written") - before.1),
    );
}

/// `at_once` callers, each of which looks up the next key as soon as it has a result.
pub async fn measure(store: &Store, keys: &[SessionKey], at_once: usize, time: Duration) -> Cost {
    let keys: std::sync::Arc<[SessionKey]> = keys.into();
    let (began, before) = (Instant::now(), cpu());
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..at_once {
        let (store, keys) = (store.clone(), keys.clone());
        callers.spawn(async move {
            let (mut done, mut random) = (0u64, fastrand::Rng::with_seed(caller as u64));
            while began.elapsed() < time {
                let key = &keys[random.usize(..keys.len())];
                assert!(matches!(store.find(key, Some(IDLE)).await, Ok(Found::Active(_))));
                done += 1;
            }
            done
        });
    }
    let look_ups = callers.join_all().await.iter().sum();
    Cost { cpu: cpu().saturating_sub(before), wall: began.elapsed(), look_ups }
}
