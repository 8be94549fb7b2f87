//! A thread that looks users up before their failed logins are counted. It is not a login worker: those run only when the
//! processor is idle, and a look-up takes microseconds.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use tokio::sync::oneshot;

use super::authentication::LoginError;
use crate::users::UserName;
use crate::users::directory::{DirectoryError, UserDirectory};

/// The queue of the thread, which ends when this is dropped.
pub struct LookUps(SyncSender<LookUp>);

struct LookUp {
    name: UserName,
    found: oneshot::Sender<Result<Option<u64>, DirectoryError>>,
}

impl LookUps {
    /// Starts the thread. No more than `most` look-ups wait at once.
    pub fn start(directory: Arc<dyn UserDirectory>, most: usize) -> std::io::Result<Self> {
        let (sender, look_ups) = sync_channel::<LookUp>(most);
        std::thread::Builder::new().name("login-look-up".into()).spawn(move || {
            for LookUp { name, found } in look_ups {
                // A panic ends the look-up, whose login gets an error, and not the thread.
                let change = catch_unwind(AssertUnwindSafe(|| directory.change_of(&name)));
                change.ok().and_then(|change| found.send(change).ok());
            }
        })?;
        Ok(Self(sender))
    }

    /// Returns the number of the user's last change, or `None` if there is no such user.
    pub async fn change_of(&self, name: &UserName) -> Result<Option<u64>, LoginError> {
        let (found, change) = oneshot::channel();
        let queued = self.0.try_send(LookUp { name: name.clone(), found });
        queued.map_err(|_| DirectoryError::unavailable("too many look-ups wait for it"))?;
        change.await.map_err(|_| LoginError::Panicked)?.map_err(LoginError::Directory)
    }
}
