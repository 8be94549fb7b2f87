//! What the session tier costs and how it behaves when servers fail, against real memcached processes:
//!
//! `cargo bench --bench sessions -- [look-ups] [live] [outages] [ring]`, all when none is named. Prints tables in
//! Markdown. It is no criterion bench: what matters is CPU per look-up under concurrency, round trips and bytes.

#![expect(clippy::print_stdout, reason = "what it prints is its result")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a bench that cannot go on has nothing to say")]
#![expect(clippy::disallowed_methods, reason = "it measures time, and waits for other processes")]

mod live;
mod look_ups;
mod outages;
mod server;
mod shares;

use std::sync::Arc;
use std::time::Duration;

use sentry_edge::clock::{Clock, UnixTime};
use sentry_edge::metrics::{Metrics, StoreMetrics};
use sentry_edge::sessions::memcached::{MemcachedServer, Settings};
use sentry_edge::sessions::replicated::{Cluster, NodeConfig};
use sentry_edge::sessions::{Fingerprint, SessionRecord};

const IDLE: Duration = Duration::from_secs(1800);

type Store = Arc<Cluster<MemcachedServer>>;

fn main() {
    // `cargo bench` says `--bench`; whatever begins with a dash is for other harnesses.
    let requested: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let parts: [(&str, fn()); 4] =
        [("look-ups", look_ups::run), ("live", live::run), ("outages", outages::run), ("ring", shares::run)];
    for (name, run) in parts {
        if requested.is_empty() || requested.iter().any(|word| word == name) {
            run();
        }
    }
}

fn store(servers: &[&str], copies: usize, timeout: Duration) -> (Store, StoreMetrics) {
    let metrics = Metrics::new("bench").unwrap().sign_on.store;
    let servers: Vec<NodeConfig> =
        servers.iter().map(|name| NodeConfig { name: (*name).to_owned(), weight: 1 }).collect();
    let settings = |server: &NodeConfig| Settings { server: server.name.clone(), timeout, sign_on_timeout: timeout };
    let connect = |server: &NodeConfig| MemcachedServer::new(&settings(server), &metrics);
    let store = Cluster::new(&servers, copies, Clock::default(), &metrics, connect).unwrap();
    (Arc::new(store), metrics)
}

/// A worker as the edge has it.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn record() -> SessionRecord {
    let now = Clock::default().now();
    SessionRecord {
        user: "6f1a44c2d07b4a52".into(),
        created: now,
        last_accessed: now,
        idle_timeout: IDLE,
        fingerprint: Fingerprint::new([7; 16]),
        expires: now.plus(Duration::from_secs(43_200)),
    }
}

fn until() -> UnixTime {
    Clock::default().now().plus(Duration::from_secs(3600))
}

/// User and system time that this process has used.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let of_all_threads: u64 = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
        .filter_map(|stat| stat.split(' ').next()?.parse::<u64>().ok())
        .sum();
    assert!(!stat.is_empty(), "the kernel counts no CPU time of threads (CONFIG_SCHED_INFO)");
    Duration::from_nanos(of_all_threads)
}
