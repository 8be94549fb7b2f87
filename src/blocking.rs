//! Threads for calls that may never return, as on a network file system that has gone: apart from the request workers,
//! and apart from the few threads that the runtime has for what blocks.
//!
//! Each folder has a [`Lane`]: a few of the threads at most, and a bounded number of calls that wait for one. A file
//! system that hangs holds the threads of its own lane, and no request for another folder waits behind it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Threads in all. They are started when they are needed, and end when they have had nothing to do for some seconds.
const MAX_THREADS: usize = 1024;
/// Threads that wait for one folder at once.
const LANE_THREADS: usize = 4;
/// Calls of one lane, those that wait for a thread included.
const LANE_CALLS: usize = 1024;

/// The threads of one process.
pub struct BlockingThreads {
    /// Its workers are never used. `None` once this is dropped.
    runtime: Option<Runtime>,
    /// A lane that is gone has no call under way any more.
    lanes: Mutex<HashMap<PathBuf, Weak<Permits>>>,
}

/// What bounds the calls of one folder. It outlives a reload while one of its calls does, so that a folder that hangs
/// does not take more threads with each reload.
struct Permits {
    threads: Arc<Semaphore>,
    calls: Semaphore,
}

/// The calls for one folder.
#[derive(Clone)]
pub struct Lane {
    threads: Arc<BlockingThreads>,
    permits: Arc<Permits>,
}

/// Why a call has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoResult {
    /// As many calls as may be are waiting already.
    Busy,
    /// There was none in time.
    Late,
    /// The call has panicked, which was logged.
    Failed,
}

impl BlockingThreads {
    /// Starts no thread yet. Returns an error when the system has no resources for a runtime.
    pub fn new() -> std::io::Result<Self> {
        let runtime =
            Builder::new_current_thread().max_blocking_threads(MAX_THREADS).thread_name("edge-files").build()?;
        Ok(Self { runtime: Some(runtime), lanes: Mutex::default() })
    }

    /// Returns the lane of a folder, the same one for each call.
    pub fn lane(self: &Arc<Self>, folder: &Path) -> Lane {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|_, permits| permits.strong_count() > 0);
        let permits = lanes.get(folder).and_then(Weak::upgrade).unwrap_or_else(|| {
            let threads = Arc::new(Semaphore::new(LANE_THREADS));
            let permits = Arc::new(Permits { threads, calls: Semaphore::new(LANE_CALLS) });
            lanes.insert(folder.to_owned(), Arc::downgrade(&permits));
            permits
        });
        Lane { threads: Arc::clone(self), permits }
    }

    /// Runs a call on a thread of its own, without a bound: for callers that have one call under way at most. `None` while
    /// the process ends.
    pub fn spawn<T: Send + 'static>(&self, call: impl FnOnce() -> T + Send + 'static) -> Option<JoinHandle<T>> {
        self.runtime.as_ref().map(|runtime| runtime.spawn_blocking(call))
    }
}

impl Drop for BlockingThreads {
    /// A thread that hangs must not keep the process from ending.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Lane {
    /// Runs a call and waits for its result, no longer than `limit`. A call that is late goes on by itself and keeps its
    /// thread; its result is dropped there.
    pub async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NoResult> {
        let Ok(_call) = self.permits.calls.try_acquire() else { return Err(NoResult::Busy) };
        let result = async {
            let thread = Arc::clone(&self.permits.threads).acquire_owned().await.map_err(|_| NoResult::Failed)?;
            let permits = Arc::clone(&self.permits);
            let running = self.threads.spawn(move || {
                // Held until the thread is free again, also where the caller has given up.
                let _held = (thread, permits);
                call()
            });
            running.ok_or(NoResult::Failed)?.await.map_err(|_| NoResult::Failed)
        };
        tokio::time::timeout(limit, result).await.unwrap_or(Err(NoResult::Late))
    }

    /// Drops a value on one of the threads, as closing a file may wait for its file system too.
    pub fn dispose<T: Send + 'static>(&self, value: T) {
        drop(self.threads.spawn(move || drop(value)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_folder_that_hangs_holds_up_no_other_folder() {
        let threads = Arc::new(BlockingThreads::new().unwrap());
        let (hanging, good) = (threads.lane(Path::new("/hangs")), threads.lane(Path::new("/good")));
        let mut held = Vec::new();
        for _ in 0..LANE_THREADS {
            let (release, wait) = sync_channel::<()>(1);
            assert_eq!(hanging.run(SHORT, move || wait.recv().is_ok()).await, Err(NoResult::Late));
            held.push(release);
        }
        assert_eq!(hanging.run(SHORT, || 1).await, Err(NoResult::Late), "no thread of the lane is free");
        // A reload makes the lane anew, and it is the same one.
        assert_eq!(threads.lane(Path::new("/hangs")).run(SHORT, || 1).await, Err(NoResult::Late));
        assert_eq!(good.run(LONG, || 2).await, Ok(2));
        drop(hanging);
        assert_eq!(threads.lane(Path::new("/hangs")).run(SHORT, || 1).await, Err(NoResult::Late));
        drop(held);
        assert_eq!(threads.lane(Path::new("/hangs")).run(LONG, || 1).await, Ok(1));
    }

    #[tokio::test]
    async fn calls_that_wait_are_bounded() {
        let threads = Arc::new(BlockingThreads::new().unwrap());
        let lane = threads.lane(Path::new("/x"));
        let all = lane.permits.calls.acquire_many(LANE_CALLS as u32).await.unwrap();
        assert_eq!(lane.run(LONG, || 1).await, Err(NoResult::Busy));
        drop(all);
        assert_eq!(lane.run(LONG, || 1).await, Ok(1));
    }

    #[tokio::test]
    async fn a_lane_without_calls_is_forgotten() {
        let threads = Arc::new(BlockingThreads::new().unwrap());
        drop(threads.lane(Path::new("/a")));
        drop(threads.lane(Path::new("/b")));
        assert_eq!(threads.lanes.lock().unwrap().len(), 1);
    }
}
