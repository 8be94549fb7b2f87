//! The threads of an edge: its workers, and a few for what must block.

use tokio::runtime::Runtime;

use crate::config::Config;

/// Threads for what must block: none of ours does on the request path.
const BLOCKING_THREADS: usize = 8;

/// As many as are configured, and one for each core otherwise.
pub fn threads(config: &Config) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    config.server.threads.unwrap_or_else(cores)
}

/// The one runtime that everything of an edge runs on.
pub fn runtime(config: &Config) -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads(config))
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("edge")
        .enable_all()
        .build()
}
