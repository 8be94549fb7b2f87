//! The login pool: a few threads beside the request workers that check passwords, and a short queue before them.
//!
//! So a flood of logins slows logins alone, and memory is bounded (19 MiB a worker). Counting failures and
//! choosing replies is the login page's part (`sentry`), which calls [`LoginPool::authenticate`].

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::password::{self, HashError, Verified};
use super::{DirectoryError, Password, StoredHash, User, UserDirectory, UserId, UserName};

/// The pool. Dropping it ends the threads after their current job.
pub struct LoginPool {
    shared: Arc<Shared>,
    deadline: Duration,
}

#[derive(Clone, Copy, Debug)]
pub struct LoginLimits {
    /// Threads, at least one: so many passwords are checked at once.
    pub workers: usize,
    /// Logins that may wait for a thread, at least one.
    pub queue: usize,
    /// How long a login may take, waiting included.
    pub deadline: Duration,
}

/// How far the threads step back behind those that serve requests: nice(1).
const NICENESS: i32 = 10;

/// What became of a login.
#[derive(Debug)]
#[must_use]
pub enum Login {
    Accepted(User),
    Refused(Refusal),
    /// The queue is full, or the deadline passed.
    Busy,
    Unavailable {
        cause: LoginFault,
    },
}

/// For the audit log alone: the client gets the same answer, in the same time, for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    UnknownUser,
    WrongPassword,
    /// With the right password.
    Disabled,
}

/// Why no password could be checked. For the log.
#[derive(Debug)]
pub enum LoginFault {
    Directory(DirectoryError),
    Hash(HashError),
    /// The worker panicked over this login, and goes on with the next.
    Panicked,
}

/// What the pool and its threads share.
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    most_waiting: usize,
}

struct Queue {
    waiting: VecDeque<Job>,
    closed: bool,
}

struct Job {
    name: UserName,
    password: Password,
    /// Closed when the asker has gone or the deadline has passed.
    answer: oneshot::Sender<Login>,
}

impl LoginPool {
    /// Starts the threads `login-0`, `login-1`, …. They do not survive a fork: start the pool after daemonizing.
    pub fn start(directory: Arc<dyn UserDirectory>, limits: LoginLimits) -> io::Result<Self> {
        let queue = Mutex::new(Queue { waiting: VecDeque::new(), closed: false });
        let shared = Arc::new(Shared { queue, changed: Condvar::new(), most_waiting: limits.queue.max(1) });
        // Made first: if a thread cannot be started, dropping the pool ends those before it.
        let pool = Self { shared, deadline: limits.deadline };
        for number in 0..limits.workers.max(1) {
            let (shared, directory) = (Arc::clone(&pool.shared), Arc::clone(&directory));
            thread::Builder::new().name(format!("login-{number}")).spawn(move || {
                step_back();
                shared.work(&*directory);
            })?;
        }
        Ok(pool)
    }

    /// Checks a password, on a worker. Dropping the future gives the login up: if it still waits, nothing is
    /// computed for it.
    pub async fn authenticate(&self, name: UserName, password: Password) -> Login {
        let (answer, answered) = oneshot::channel();
        if let Err(QueueFull) = self.shared.push(Job { name, password, answer }) {
            return Login::Busy;
        }
        // A passed deadline drops `answered`, which tells the worker to skip the job.
        match tokio::time::timeout(self.deadline, answered).await {
            Ok(Ok(login)) => login,
            // A job is dropped unanswered only by a panic.
            Ok(Err(_)) => Login::Unavailable { cause: LoginFault::Panicked },
            Err(_) => Login::Busy,
        }
    }

    /// How many logins wait for a worker.
    pub fn queued(&self) -> usize {
        self.shared.queue().waiting.len()
    }
}

/// Has this thread wait while a request can be served. On a core that is never idle it still has a tenth.
fn step_back() {
    // Linux takes "this process" for the calling thread. A process that steps back further itself is left as it is.
    let stepped = rustix::process::getpriority_process(None).and_then(|now| match now < NICENESS {
        true => rustix::process::setpriority_process(None, NICENESS),
        false => Ok(()),
    });
    if let Err(error) = stepped {
        log::warn!("logins compete with requests for the processor: {error}");
    }
}

impl Drop for LoginPool {
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        self.shared.changed.notify_all();
    }
}

struct QueueFull;

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Job) -> Result<(), QueueFull> {
        let mut queue = self.queue();
        if queue.waiting.len() >= self.most_waiting {
            // Whoever asks and goes away must not keep a place that somebody else could have.
            queue.waiting.retain(|waiting| !waiting.answer.is_closed());
        }
        if queue.waiting.len() >= self.most_waiting {
            return Err(QueueFull);
        }
        queue.waiting.push_back(job);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for a job; none once the pool is dropped.
    fn next(&self) -> Option<Job> {
        let idle = |queue: &mut Queue| queue.waiting.is_empty() && !queue.closed;
        let mut queue = self.changed.wait_while(self.queue(), idle).unwrap_or_else(PoisonError::into_inner);
        if queue.closed { None } else { queue.waiting.pop_front() }
    }

    /// A worker's life.
    fn work(&self, directory: &dyn UserDirectory) {
        while let Some(job) = self.next() {
            if job.answer.is_closed() {
                continue;
            }
            // Nothing of a job outlives its panic, so there is no broken state to see.
            if catch_unwind(AssertUnwindSafe(|| job.run(directory))).is_err() {
                log::error!("a login worker panicked over a login and goes on with the next");
            }
        }
    }
}

impl Job {
    fn run(self, directory: &dyn UserDirectory) {
        let Self { name, password, answer } = self;
        let (login, outdated) = match check(directory, &name, &password) {
            Ok(checked) => checked,
            Err(cause) => (Login::Unavailable { cause }, None),
        };
        // Answered first: the user need not wait for the rewriting. An asker who has gone meanwhile is no fault.
        let _ = answer.send(login);
        if let Some(outdated) = outdated {
            outdated.rewrite(directory, &password);
        }
    }
}

/// Every path costs one hash, so that time does not tell an unknown user from a wrong password or a disabled one.
fn check(
    directory: &dyn UserDirectory,
    name: &UserName,
    password: &Password,
) -> Result<(Login, Option<Outdated>), LoginFault> {
    let Some((user, hash)) = directory.find(name)? else {
        password::verify_nobody(password)?;
        return Ok((Login::Refused(Refusal::UnknownUser), None));
    };
    let verified = password::verify(password, &hash)?;
    Ok(match verified {
        Verified::NoMatch => (Login::Refused(Refusal::WrongPassword), None),
        _ if user.disabled => (Login::Refused(Refusal::Disabled), None),
        Verified::Match => (Login::Accepted(user), None),
        Verified::MatchOutdated => {
            let outdated = Outdated { id: user.id.clone(), hash };
            (Login::Accepted(user), Some(outdated))
        }
    })
}

/// A hash to be made anew while we have the password.
struct Outdated {
    id: UserId,
    hash: StoredHash,
}

impl Outdated {
    /// A failure is logged and no more: the login stands, and the next one tries again. So it is when another
    /// password was set meanwhile, which then stays.
    fn rewrite(self, directory: &dyn UserDirectory, password: &Password) {
        let replaced = password::hash(password)
            .map_err(LoginFault::from)
            .and_then(|new| Ok(directory.replace_hash(&self.id, &self.hash, &new)?));
        if let Err(fault) = replaced {
            log::warn!("the outdated password hash of user {} was not replaced: {fault:?}", self.id);
        }
    }
}

impl From<DirectoryError> for LoginFault {
    fn from(source: DirectoryError) -> Self {
        Self::Directory(source)
    }
}

impl From<HashError> for LoginFault {
    fn from(source: HashError) -> Self {
        Self::Hash(source)
    }
}

impl fmt::Display for LoginFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory(_) => "a login could not look up its user",
            Self::Hash(_) => "a login could not check its password",
            Self::Panicked => "a login made its worker panic",
        })
    }
}

impl Error for LoginFault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Directory(source) => Some(source),
            Self::Hash(source) => Some(source),
            Self::Panicked => None,
        }
    }
}

#[cfg(test)]
mod tests;
