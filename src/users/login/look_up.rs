//! A thread that looks users up before their logins are counted. Not a login worker: those take what time the processor
//! has left over, and a look-up takes microseconds.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use tokio::sync::oneshot;

use super::{LoginFault, UserDirectory, UserName};
use crate::users::DirectoryError;

/// Its thread ends when it is dropped.
pub struct LookUps(SyncSender<LookUp>);

struct LookUp {
    name: UserName,
    found: oneshot::Sender<Result<Option<u64>, DirectoryError>>,
}

impl LookUps {
    /// No more than `most` wait at once.
    pub fn start(directory: Arc<dyn UserDirectory>, most: usize) -> std::io::Result<Self> {
        let (sender, look_ups) = sync_channel::<LookUp>(most);
        std::thread::Builder::new().name("login-look-up".into()).spawn(move || {
            for LookUp { name, found } in look_ups {
                // A panic ends the look-up, whose login learns of it, and not the thread.
                let change = catch_unwind(AssertUnwindSafe(|| directory.change_of(&name)));
                change.ok().and_then(|change| found.send(change).ok());
            }
        })?;
        Ok(Self(sender))
    }

    /// The number of the user's last change; `None` where there is no such user.
    pub async fn change_of(&self, name: &UserName) -> Result<Option<u64>, LoginFault> {
        let (found, answer) = oneshot::channel();
        let queued = self.0.try_send(LookUp { name: name.clone(), found });
        queued.map_err(|_| LoginFault::Directory(DirectoryError::unavailable("too many look-ups wait for it")))?;
        answer.await.map_err(|_| LoginFault::Panicked)?.map_err(LoginFault::Directory)
    }
}
