//! A thread that asks the user directory on behalf of those who must not block. For the admin API: an operator's
//! question may wait seconds for a writer in another process, or name thousands of users.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use tokio::sync::oneshot;

use super::sqlite::{SqliteDirectory, SqliteError};

/// Questions that may wait: as many as the admin listener has connections.
const QUEUE: usize = 64;

type Question = Box<dyn FnOnce(&SqliteDirectory) + Send>;

/// Its thread ends when it is dropped, after the question at hand.
pub struct Clerk(SyncSender<Question>);

impl Clerk {
    pub fn start(directory: Arc<SqliteDirectory>) -> std::io::Result<Self> {
        let (questions, asked) = sync_channel::<Question>(QUEUE);
        std::thread::Builder::new().name("user-clerk".into()).spawn(move || {
            for question in asked {
                // A panic ends the question, whose asker learns of it, and not the thread.
                catch_unwind(AssertUnwindSafe(|| question(&directory))).ok();
            }
        })?;
        Ok(Self(questions))
    }

    /// One question after another. [`SqliteError::NoAnswer`] when too many wait.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&SqliteDirectory) -> Result<T, SqliteError> + Send + 'static,
    ) -> Result<T, SqliteError> {
        let (reply, answer) = oneshot::channel();
        let question = move |directory: &SqliteDirectory| {
            // An error means that nobody waits any longer.
            let _ = reply.send(question(directory));
        };
        self.0.try_send(Box::new(question)).map_err(|_| SqliteError::NoAnswer)?;
        answer.await.unwrap_or(Err(SqliteError::NoAnswer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[tokio::test]
    async fn a_question_is_answered_and_one_that_panics_takes_no_other_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let directory = SqliteDirectory::open_or_create(&folder.path().join("users.db"), Clock::default()).unwrap();
        let clerk = Clerk::start(Arc::new(directory)).unwrap();
        assert_eq!(clerk.ask(|directory| Ok(directory.list()?.len())).await.unwrap(), 0);
        let panicked = clerk.ask(|_| -> Result<(), SqliteError> { panic!("on purpose") }).await;
        assert!(matches!(panicked, Err(SqliteError::NoAnswer)));
        assert!(clerk.ask(|directory| directory.list()).await.is_ok());
    }

    #[tokio::test]
    async fn whoever_finds_the_queue_full_is_told_so_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let directory = SqliteDirectory::open_or_create(&folder.path().join("users.db"), Clock::default()).unwrap();
        let clerk = Clerk::start(Arc::new(directory)).unwrap();
        let (go, wait) = sync_channel::<()>(0);
        let (begun, begins) = oneshot::channel();
        let held = clerk.ask(move |_| {
            begun.send(()).ok();
            wait.recv().ok();
            Ok(())
        });
        let others = async {
            begins.await.unwrap();
            let waiting = futures_util::future::join_all((0..QUEUE + 5).map(|_| clerk.ask(|_| Ok(()))));
            let release = async { go.send(()).ok() };
            tokio::join!(waiting, release).0
        };
        let (held, others) = tokio::join!(held, others);
        assert!(held.is_ok());
        assert_eq!(others.iter().filter(|answer| answer.is_err()).count(), 5);
    }
}
