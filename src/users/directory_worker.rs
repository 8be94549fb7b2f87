//! A thread that carries out the operations of the admin API on the user directory. An operation may wait seconds for a
//! writer in another process, or name thousands of users, and must not block the thread that serves requests.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::directory::{DirectoryError, UserRegistry};

/// Operations that may wait: as many as the admin listener has connections.
const QUEUE: usize = 64;

/// The time limit for an operation, including the wait for those before it. One that waits for a writer in another process
/// gives up sooner.
pub const OPERATION: Duration = Duration::from_secs(10);

type Operation = Box<dyn FnOnce(&dyn UserRegistry) + Send>;

/// The queue of the worker. Its thread ends when this is dropped, after the operation that it is carrying out.
pub struct DirectoryWorker(SyncSender<Operation>);

impl DirectoryWorker {
    pub fn start(registry: Arc<dyn UserRegistry>) -> std::io::Result<Self> {
        let (operations, queue) = sync_channel::<Operation>(QUEUE);
        std::thread::Builder::new().name("user-directory".into()).spawn(move || {
            for operation in queue {
                // A panic ends the operation, whose caller gets an error, and not the thread.
                catch_unwind(AssertUnwindSafe(|| operation(&*registry))).ok();
            }
        })?;
        Ok(Self(operations))
    }

    /// Carries out an operation after those that came before it. Fails at once when too many are waiting. One whose time
    /// is up before its turn comes is not carried out.
    pub async fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&dyn UserRegistry) -> Result<T, DirectoryError> + Send + 'static,
    ) -> Result<T, DirectoryError> {
        let (sender, result) = oneshot::channel();
        let operation = move |registry: &dyn UserRegistry| {
            if !sender.is_closed() {
                // An error means that the caller no longer waits.
                let _ = sender.send(operation(registry));
            }
        };
        let busy = |_| DirectoryError::unavailable("too many operations are waiting for the user directory");
        self.0.try_send(Box::new(operation)).map_err(busy)?;
        let panicked = |_| DirectoryError::unavailable("an operation on the user directory panicked");
        let late = |_| DirectoryError::unavailable(format!("no answer within {} s", OPERATION.as_secs()));
        timeout(OPERATION, result).await.map_err(late)?.map_err(panicked)?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::clock::Clock;
    use crate::config::UserStore;

    fn worker(folder: &tempfile::TempDir) -> DirectoryWorker {
        let store = UserStore::Sqlite { path: folder.path().join("users.db") };
        DirectoryWorker::start(crate::users::open_or_create(&store, Clock::default()).unwrap().registry).unwrap()
    }

    #[tokio::test]
    async fn an_operation_is_carried_out_and_one_that_panics_takes_no_other_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let worker = worker(&folder);
        assert_eq!(worker.run(|registry| Ok(registry.list()?.len())).await.unwrap(), 0);
        let panicked = worker.run(|_| -> Result<(), DirectoryError> { panic!("on purpose") }).await;
        assert!(matches!(panicked, Err(DirectoryError::Unavailable(_))));
        assert!(worker.run(|registry| registry.list()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_operation_that_hangs_delays_no_caller_for_long_and_what_waited_for_it_is_not_carried_out_later() {
        let folder = tempfile::tempdir().unwrap();
        let worker = worker(&folder);
        let (go, wait) = sync_channel::<()>(1);
        worker.0.send(Box::new(move |_| wait.recv().unwrap_or_default())).unwrap();
        let is_carried_out = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_carried_out);
        let waits = worker.run(move |_| {
            seen.store(true, Ordering::Relaxed);
            Ok(())
        });
        assert_eq!(waits.await.unwrap_err().in_full(), "no answer within 10 s");
        tokio::time::resume();
        go.send(()).unwrap();
        assert_eq!(worker.run(|registry| Ok(registry.list()?.len())).await.unwrap(), 0);
        assert!(!is_carried_out.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn a_full_queue_is_an_error_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let worker = worker(&folder);
        let (go, wait) = sync_channel::<()>(0);
        let (begun, begins) = oneshot::channel();
        let held = worker.run(move |_| {
            begun.send(()).ok();
            wait.recv().ok();
            Ok(())
        });
        let others = async {
            begins.await.unwrap();
            let waiting = futures_util::future::join_all((0..QUEUE + 5).map(|_| worker.run(|_| Ok(()))));
            let release = async { go.send(()).ok() };
            tokio::join!(waiting, release).0
        };
        let (held, others) = tokio::join!(held, others);
        assert!(held.is_ok());
        assert_eq!(others.iter().filter(|result| result.is_err()).count(), 5);
    }
}
