//! The threads of an edge: its workers, and a few for what must block.

use prometheus::IntGauge;
use tokio::runtime::Runtime;

use super::memory::MemoryReclaimer;
use crate::config::Config;

/// Threads for what must block: none of ours does on the request path.
const BLOCKING_THREADS: usize = 8;

/// As many as are configured, and one for each core otherwise.
pub fn threads(config: &Config) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    config.server.threads.unwrap_or_else(cores)
}

/// The one runtime that everything of an edge runs on. Its workers give memory back when `held`, the bytes that the edge
/// holds for clients, falls.
pub fn runtime(config: &Config, held: IntGauge) -> std::io::Result<Runtime> {
    let (workers, reclaimer) = (threads(config), MemoryReclaimer::default());
    let of_workers = reclaimer.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("edge")
        .on_thread_park(move || of_workers.before_sleep())
        .enable_all()
        .build()?;
    runtime.spawn(reclaimer.watch(held, workers));
    Ok(runtime)
}
