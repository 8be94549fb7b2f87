//! A thread that carries out the operations of the admin API on the user directory. An operation may wait seconds for a
//! writer in another process, or name thousands of users, and must not block the thread that serves requests.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use tokio::sync::oneshot;

use super::directory::{DirectoryError, UserRegistry};

/// Operations that may wait: as many as the admin listener has connections.
const QUEUE: usize = 64;

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

    /// Carries out an operation after those that came before it. Fails at once when too many are waiting.
    pub async fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&dyn UserRegistry) -> Result<T, DirectoryError> + Send + 'static,
    ) -> Result<T, DirectoryError> {
        let (sender, result) = oneshot::channel();
        let operation = move |registry: &dyn UserRegistry| {
            // An error means that the caller no longer waits.
            let _ = sender.send(operation(registry));
        };
        let busy = |_| DirectoryError::unavailable("too many operations are waiting for the user directory");
        self.0.try_send(Box::new(operation)).map_err(busy)?;
        let panicked = |_| DirectoryError::unavailable("an operation on the user directory panicked");
        result.await.map_err(panicked)?
    }
}

#[cfg(test)]
mod tests {
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
