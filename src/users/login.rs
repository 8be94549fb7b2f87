//! The login pool: a few threads beside the request workers that check passwords, and a bounded line before them.
//!
//! So a flood of logins slows logins alone, and memory is bounded (19 MiB a thread). Counting failures and
//! choosing replies is the login page's part (`sentry`), which waits for a [`Turn`] and calls [`Turn::authenticate`].
//!
//! Each worker is three threads. The first takes what time the processor has left over, so that no request waits for
//! a login. Where nothing is left over it would get nowhere: then the second one, which gets a share in any case,
//! does its work, and the login comes to its end. The third one, a helper, takes what is left over as well, and logins
//! that have waited for long: a crowd that comes at once is through in half the time where there is a core for it.

mod fair_queue;
mod look_up;
mod queue;
mod sched_class;

use std::error::Error;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::hash_kind::Kinds;
use super::password::{self, HashError, Verified};
use super::{DirectoryError, Password, StoredHash, User, UserDirectory, UserId, UserName};
pub use fair_queue::Applicant;
use fair_queue::Line;
use look_up::LookUps;
use queue::{Job, Queue};
use sched_class::Rank;

/// A turn in the line. A login that has one is carried out, so a failure may be counted for it beforehand; its account
/// has no other one at the same time, from the same kind of device.
pub struct Turn {
    queue: Arc<Queue>,
    look_ups: Arc<LookUps>,
    since: Instant,
    deadline: Instant,
    /// Last: the next login has its turn when all else of this one is gone.
    _turn: fair_queue::Turn,
}

/// The pool. Dropping it ends the threads after their current job.
pub struct LoginPool {
    line: Arc<Line>,
    queue: Arc<Queue>,
    look_ups: Arc<LookUps>,
    deadline: Duration,
}

#[derive(Clone, Copy, Debug)]
pub struct LoginLimits {
    /// Threads, at least one: so many passwords are checked at once.
    pub workers: usize,
    /// Logins that may wait for their turn, at least one.
    pub queue: usize,
    /// How long a login may take, waiting included.
    pub deadline: Duration,
}

/// After how long a login is too long under way for a thread that makes headway: several times what one takes, and
/// little beside what the rest of a sign-on takes its user.
const PATIENCE: Duration = Duration::from_millis(250);

/// After how long a wait a login is a helper's too: longer than anybody waits on a quiet day.
const LONG_WAIT: Duration = Duration::from_secs(2);

/// What became of a login.
#[derive(Debug)]
#[must_use]
pub enum Login {
    Accepted(User),
    Refused(Refusal),
    /// The line is full, or the deadline passed.
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

impl LoginPool {
    /// Starts the threads `login-0`, `relief-0`, `helper-0`, `login-1`, …. They do not survive a fork: start the pool after
    /// daemonizing.
    pub fn start(directory: Arc<dyn UserDirectory>, limits: LoginLimits) -> io::Result<Self> {
        Self::start_with(&directory, limits, PATIENCE, LONG_WAIT)
    }

    fn start_with(
        directory: &Arc<dyn UserDirectory>,
        limits: LoginLimits,
        patience: Duration,
        long_wait: Duration,
    ) -> io::Result<Self> {
        let workers = limits.workers.max(1);
        let turns = turns(workers);
        let queue = Arc::new(Queue::new(workers, turns, patience, long_wait));
        let line = Arc::new(Line::new(limits.queue.max(1), turns));
        let look_ups = Arc::new(LookUps::start(Arc::clone(directory), turns)?);
        // Made first: if a thread cannot be started, dropping the pool ends those before it.
        let pool = Self { line, queue, look_ups, deadline: limits.deadline };
        let kinds = Arc::new(Kinds::new(directory.hash_kinds().unwrap_or_else(|error| {
            log::warn!("the kinds of password hashes are not known yet, and are learned as they are met: {error}");
            Default::default()
        })));
        let begin = |name: String, rank: Rank, next: fn(&Queue, usize) -> Option<Arc<Job>>, number| {
            let (queue, directory, kinds) = (Arc::clone(&pool.queue), Arc::clone(directory), Arc::clone(&kinds));
            thread::Builder::new().name(name).spawn(move || {
                rank.take();
                work(&*directory, &kinds, || next(&queue, number));
            })
        };
        for number in 0..workers {
            begin(format!("login-{number}"), Rank::LeftOver, Queue::next, number)?;
            begin(format!("relief-{number}"), Rank::SmallShare, Queue::relieve, number)?;
            begin(format!("helper-{number}"), Rank::LeftOver, Queue::help, number)?;
        }
        Ok(pool)
    }

    /// Waits for a turn, and at least for `delay`. `None` where there is no room in the line, or the deadline passed.
    pub async fn turn(&self, applicant: Applicant, delay: Duration) -> Option<Turn> {
        let since = Instant::now();
        let deadline = since + self.deadline;
        let turn = timeout_at(deadline, self.line.turn(applicant, delay)).await.ok()??;
        let (queue, look_ups) = (Arc::clone(&self.queue), Arc::clone(&self.look_ups));
        Some(Turn { queue, look_ups, since, deadline, _turn: turn })
    }

    /// How many logins wait for their turn or for a worker.
    pub fn queued(&self) -> usize {
        self.line.waiting() + self.queue.waiting()
    }
}

/// As many logins as the workers and their helpers can be at, and one for the store's round trips.
fn turns(workers: usize) -> usize {
    2 * workers + 1
}

impl Turn {
    /// The number of the last change of a user, by which their failures are counted; `None` where there is no such user.
    pub async fn change_of(&self, name: &UserName) -> Result<Option<u64>, LoginFault> {
        let late = |_| LoginFault::Directory(DirectoryError::unavailable("no answer within the login's deadline"));
        timeout_at(self.deadline, self.look_ups.change_of(name)).await.map_err(late)?
    }

    /// Checks a password, on a worker. Dropping the future gives the login up: if it still waits, nothing is
    /// computed for it.
    pub async fn authenticate(&self, name: UserName, password: Password) -> Login {
        let Some(place) = self.queue.reserve() else { return Login::Busy };
        let (answer, answered) = oneshot::channel();
        place.take(Job::new(name, password, self.since.into_std(), answer));
        // A passed deadline drops `answered`, which tells the worker to skip the job.
        match timeout_at(self.deadline, answered).await {
            Ok(Ok(login)) => login,
            // A job is dropped unanswered only by a panic.
            Ok(Err(_)) => Login::Unavailable { cause: LoginFault::Panicked },
            Err(_) => Login::Busy,
        }
    }
}

impl Drop for LoginPool {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// A thread's life: what `next` gives it, to the end.
fn work(directory: &dyn UserDirectory, kinds: &Kinds, next: impl Fn() -> Option<Arc<Job>>) {
    while let Some(job) = next() {
        // Nothing of a job outlives its panic, so there is no broken state to see.
        if catch_unwind(AssertUnwindSafe(|| run(&job, directory, kinds))).is_err() {
            log::error!("a login worker panicked over a login and goes on with the next");
            job.abandon();
        }
    }
}

fn run(job: &Job, directory: &dyn UserDirectory, kinds: &Kinds) {
    let (login, outdated) = match check(directory, kinds, &job.name, &job.password) {
        Ok(checked) => checked,
        Err(cause) => (Login::Unavailable { cause }, None),
    };
    // Answered first: the user need not wait for the rewriting, which is left to whoever was the first to answer.
    if let (true, Some(outdated)) = (job.answer(login), outdated) {
        outdated.rewrite(directory, &job.password);
    }
}

/// Every refusal costs one hash of each kind that the directory holds, so that time tells neither an unknown user from a
/// wrong password or a disabled one, nor a user with one kind of hash from one with another (OWASP ASVS 5.0 §6.3.8). A
/// success costs its own alone: it tells more than its time does.
fn check(
    directory: &dyn UserDirectory,
    kinds: &Kinds,
    name: &UserName,
    password: &Password,
) -> Result<(Login, Option<Outdated>), LoginFault> {
    let Some((user, hash)) = directory.find(name)? else {
        kinds.spend(None, password)?;
        return Ok((Login::Refused(Refusal::UnknownUser), None));
    };
    kinds.note(hash.kind());
    let verified = password::verify(password, &hash)?;
    let refusal = match verified {
        Verified::NoMatch => Some(Refusal::WrongPassword),
        Verified::Match | Verified::MatchOutdated => user.disabled.then_some(Refusal::Disabled),
    };
    if let Some(refusal) = refusal {
        kinds.spend(Some(hash.kind()), password)?;
        return Ok((Login::Refused(refusal), None));
    }
    let outdated = (verified == Verified::MatchOutdated).then(|| Outdated { id: user.id.clone(), hash });
    Ok((Login::Accepted(user), outdated))
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
