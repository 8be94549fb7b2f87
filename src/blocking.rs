//! Threads for calls that may never return, as on a network file system that has gone: apart from the request workers,
//! and apart from the few threads that the runtime has for what blocks.
//!
//! Each folder has a [`Lane`]: a few of the threads at most, and a bounded number of calls that wait for one. A file
//! system that hangs holds the threads of its own lane, and no request for another folder waits behind it.
//!
//! To close a file may wait as well as to read it. An open file is therefore held [`OnLane`], which closes it on a thread
//! of its lane, whatever becomes of its request.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Threads in all. They are started when they are needed, and end when they have had nothing to do for some seconds.
const MAX_THREADS: usize = 1024;
/// Threads that wait for one folder at once.
const LANE_THREADS: usize = 4;
/// Calls of one lane, those that wait for a thread included.
const LANE_CALLS: usize = 1024;
/// Values of one lane that wait to be dropped. What opens another file first drops those that are too many, and so waits
/// where they do: no more are opened than can be closed.
const MAX_WAITING: usize = 1024;
/// For all looks of a configuration that is checked. A file system that has not answered by then does not answer.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// The threads of one process.
pub struct BlockingThreads {
    /// Its workers are never used. `None` once this is dropped.
    runtime: Option<Runtime>,
    /// A lane that is gone has no call under way any more.
    lanes: Mutex<HashMap<PathBuf, Weak<Permits>>>,
    /// The looks that have not come back: none is made twice, so that a reload holds no more threads than the one before.
    looks: Arc<Mutex<HashSet<PathBuf>>>,
}

/// What bounds the calls of one folder. It outlives a reload while one of its calls does, so that a folder that hangs
/// does not take more threads with each reload.
struct Permits {
    folder: Box<Path>,
    threads: Arc<Semaphore>,
    calls: Semaphore,
    disposal: Mutex<Disposal>,
}

/// What is to be dropped on a thread.
#[derive(Default)]
struct Disposal {
    waiting: Vec<Box<dyn Send>>,
    /// Whether a thread drops them, one after the other.
    is_running: bool,
    /// Whether it was logged that there are too many; until there are none.
    is_logged: bool,
}

/// A value whose drop may wait, as an open file's may. It is dropped on a thread of its lane, wherever this one is.
pub struct OnLane<T: Send + 'static> {
    /// `None` once it has been handed to its lane.
    value: Option<T>,
    lane: Lane,
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
        Ok(Self { runtime: Some(runtime), lanes: Mutex::default(), looks: Arc::default() })
    }

    /// Returns the lane of a folder, the same one for each call.
    pub fn lane(self: &Arc<Self>, folder: &Path) -> Lane {
        let mut lanes = lock(&self.lanes);
        lanes.retain(|_, permits| permits.strong_count() > 0);
        let permits = lanes.get(folder).and_then(Weak::upgrade).unwrap_or_else(|| {
            let permits = Arc::new(Permits {
                folder: folder.into(),
                threads: Arc::new(Semaphore::new(LANE_THREADS)),
                calls: Semaphore::new(LANE_CALLS),
                disposal: Mutex::default(),
            });
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

    /// Makes all of these looks at once, each on a thread of its own, and waits for them, no longer than `LOOK_TIMEOUT` in
    /// all. Returns the results by path, without those of file systems that do not answer. Of looks at one path the first
    /// one is made.
    pub fn look<T, L>(&self, looks: impl Iterator<Item = (PathBuf, L)>) -> HashMap<PathBuf, T>
    where
        T: Send + 'static,
        L: FnOnce() -> T + Send + 'static,
    {
        let looks: Vec<_> = looks.collect();
        let (sender, receiver) = sync_channel(looks.len());
        let mut begun = HashSet::with_capacity(looks.len());
        for (path, look) in looks {
            let is_new = !begun.contains(&path) && lock(&self.looks).insert(path.clone());
            if !is_new {
                continue;
            }
            begun.insert(path.clone());
            let (sender, under_way) = (sender.clone(), Arc::clone(&self.looks));
            drop(self.spawn(move || {
                let result = look();
                lock(&under_way).remove(&path);
                // An error means that it comes too late.
                sender.try_send((path, result)).ok();
            }));
        }
        drop(sender);
        let until = Instant::now() + LOOK_TIMEOUT;
        let mut results = HashMap::with_capacity(begun.len());
        while results.len() < begun.len() {
            match receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok((path, result)) => drop(results.insert(path, result)),
                // What has panicked has logged that, and sends nothing.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        results
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

    /// Drops what waits for it beyond what may wait. For a call of this lane that opens a file.
    pub fn make_room(&self) {
        while let Some(value) = self.permits.take_beyond(MAX_WAITING) {
            drop(value);
        }
    }

    /// Drops a value on one of the threads, and does not wait for it. One thread at a time does that, so that a folder that
    /// hangs holds no more of them.
    fn dispose(&self, value: Box<dyn Send>) {
        if self.permits.add(value) {
            let permits = Arc::clone(&self.permits);
            let running = self.threads.spawn(move || {
                while let Some(value) = permits.take_or_end() {
                    drop(value);
                }
            });
            // There is none while the process ends, which closes what is open.
            drop(running);
        }
    }
}

impl Permits {
    /// Returns whether a thread has to be started for it.
    fn add(&self, value: Box<dyn Send>) -> bool {
        let mut disposal = lock(&self.disposal);
        disposal.waiting.push(value);
        let is_full = disposal.waiting.len() >= MAX_WAITING;
        if is_full && !std::mem::replace(&mut disposal.is_logged, true) {
            log::warn!("files: {MAX_WAITING} files wait to be closed folder={}", self.folder.display());
        }
        !std::mem::replace(&mut disposal.is_running, true)
    }

    fn take_beyond(&self, most: usize) -> Option<Box<dyn Send>> {
        let mut disposal = lock(&self.disposal);
        if disposal.waiting.len() >= most { disposal.waiting.pop() } else { None }
    }

    /// For the thread that drops them: `None` ends it.
    fn take_or_end(&self) -> Option<Box<dyn Send>> {
        let mut disposal = lock(&self.disposal);
        let next = disposal.waiting.pop();
        if next.is_none() {
            (disposal.is_running, disposal.is_logged) = (false, false);
        }
        next
    }
}

impl Drop for Disposal {
    /// While values wait, a thread holds what they are in: it was never started, as the process ends. That closes what is
    /// open, and must not wait for it here.
    fn drop(&mut self) {
        std::mem::take(&mut self.waiting).leak();
    }
}

impl<T: Send + 'static> OnLane<T> {
    pub const fn new(value: T, lane: Lane) -> Self {
        Self { value: Some(value), lane }
    }

    /// The value, which is there as long as this is.
    pub const fn get(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// Drops the value on this thread, which is one that may wait.
    pub fn drop_here(mut self) {
        drop(self.value.take());
    }
}

impl<T: Send + 'static> Drop for OnLane<T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            self.lane.dispose(Box::new(value));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

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

    /// Sends the name of the thread that it is dropped on, and hangs there for as long as `held` says.
    struct Open {
        dropped_on: std::sync::mpsc::SyncSender<Option<String>>,
        held: Option<std::sync::mpsc::Receiver<()>>,
    }

    impl Drop for Open {
        fn drop(&mut self) {
            if let Some(held) = &self.held {
                held.recv().ok();
            }
            self.dropped_on.send(std::thread::current().name().map(str::to_owned)).ok();
        }
    }

    /// A thread that serves requests is the test's.
    #[tokio::test]
    async fn an_open_file_is_closed_on_a_thread_of_its_lane_whatever_becomes_of_its_request() {
        let threads = Arc::new(BlockingThreads::new().unwrap());
        let lane = threads.lane(Path::new("/x"));
        let (dropped_on, dropped) = sync_channel(16);
        let open = || OnLane::new(Open { dropped_on: dropped_on.clone(), held: None }, lane.clone());
        let closed_on_its_lane = |what: &str| {
            assert_eq!(dropped.recv_timeout(LONG).unwrap().as_deref(), Some("edge-files"), "{what}");
        };
        drop(open());
        closed_on_its_lane("the client has gone");
        let file = open();
        assert!(lane.run(LONG, move || file.get().is_some()).await.unwrap());
        closed_on_its_lane("the call ends with it");
        let file = open();
        lane.run(LONG, move || file.drop_here()).await.unwrap();
        closed_on_its_lane("it was read to its end");
        drop(lane.run(LONG, open().into_call()).await.unwrap());
        closed_on_its_lane("the result is not used");
        drop(lane.run(LONG, open().into_call()).now_or_never());
        closed_on_its_lane("the request was cancelled while its file was read");
        let all = lane.permits.calls.acquire_many(LANE_CALLS as u32).await.unwrap();
        assert!(matches!(lane.run(LONG, open().into_call()).await, Err(NoResult::Busy)));
        closed_on_its_lane("too many calls wait");
        drop(all);
        let all = lane.permits.threads.acquire_many(LANE_THREADS as u32).await.unwrap();
        assert!(matches!(lane.run(SHORT, open().into_call()).await, Err(NoResult::Late)));
        closed_on_its_lane("no thread is free in time");
        drop(lane.run(LONG, open().into_call()).now_or_never());
        closed_on_its_lane("the request was cancelled while it waited for a thread");
        drop(all);
    }

    impl OnLane<Open> {
        /// A call that returns it, as one that reads a piece does.
        fn into_call(self) -> impl FnOnce() -> Self + Send + 'static {
            move || self
        }
    }

    #[tokio::test]
    async fn a_folder_that_hangs_while_files_are_closed_holds_one_thread_and_then_those_that_open_more() {
        let threads = Arc::new(BlockingThreads::new().unwrap());
        let lane = threads.lane(Path::new("/hangs"));
        let (dropped_on, dropped) = sync_channel(2 * MAX_WAITING);
        let (mut held, closes) = (Vec::new(), MAX_WAITING + 10);
        for _ in 0..closes {
            let (release, wait) = sync_channel::<()>(1);
            held.push(release);
            drop(OnLane::new(Open { dropped_on: dropped_on.clone(), held: Some(wait) }, lane.clone()));
        }
        let free = lane.permits.threads.available_permits();
        assert_eq!(free, LANE_THREADS, "files that are open are read all the same");
        assert_eq!(lane.run(LONG, || 1).await, Ok(1));
        let opening = lane.clone();
        assert_eq!(lane.run(SHORT, move || opening.make_room()).await, Err(NoResult::Late), "no more are opened");
        drop(held);
        for _ in 0..closes {
            assert_eq!(dropped.recv_timeout(LONG).unwrap().as_deref(), Some("edge-files"));
        }
        let opening = lane.clone();
        assert_eq!(lane.run(LONG, move || opening.make_room()).await, Ok(()));
    }

    #[test]
    fn a_look_that_does_not_come_back_is_waited_for_once_and_not_made_again() {
        let threads = BlockingThreads::new().unwrap();
        let (release, wait) = sync_channel::<()>(0);
        let wait = Mutex::new(wait);
        type Look = Box<dyn FnOnce() -> u8 + Send>;
        let hang: Look = Box::new(move || u8::from(wait.lock().unwrap().recv().is_ok()));
        let (hangs, good) = (PathBuf::from("/hangs"), PathBuf::from("/good"));
        let looks: [(PathBuf, Look); 3] =
            [(hangs.clone(), hang), (good.clone(), Box::new(|| 2)), (good.clone(), Box::new(|| 3))];
        assert_eq!(threads.look(looks.into_iter()), HashMap::from([(good.clone(), 2)]));
        let looks: [(PathBuf, Look); 2] = [(hangs.clone(), Box::new(|| 4)), (good.clone(), Box::new(|| 5))];
        assert_eq!(threads.look(looks.into_iter()), HashMap::from([(good, 5)]), "one thread waits for it");
        drop(release);
        let mut results = HashMap::new();
        let until = Instant::now() + LONG;
        while results.is_empty() && Instant::now() < until {
            results = threads.look([(hangs.clone(), || 6)].into_iter());
        }
        assert_eq!(results, HashMap::from([(hangs, 6)]), "it has come back");
    }
}
