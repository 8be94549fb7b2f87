//! The login pool: a few threads beside the request workers that verify passwords, and a bounded queue before them.
//!
//! A flood of logins delays only logins, and its memory is bounded (19 MiB a thread). Counting failures and choosing
//! responses is the part of the login page (`sentry`), which acquires a [`LoginPermit`] and calls
//! [`LoginPermit::authenticate`].
//!
//! Each worker consists of three threads:
//!
//! - The worker runs only when the processor is idle, so that no request waits for a login.
//! - Where the processor is never idle the worker makes no progress. Then the backup worker, which gets a small share in
//!   any case, does the login as well, so that it ends.
//! - The helper also runs only when the processor is idle, and takes logins that have waited for long: many logins at
//!   once are done in half the time where there is a core for it.

mod authentication;
mod fair_queue;
mod look_up;
mod queue;
mod sched_class;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::hash_kind::KnownKinds;
use super::password::{self, Verified};
use super::{DirectoryError, Password, StoredHash, UserDirectory, UserId, UserName};
pub use authentication::{Authentication, LoginError, Refusal};
use fair_queue::FairQueue;
pub use fair_queue::QueueKey;
use look_up::LookUps;
use queue::{Job, Queue};
use sched_class::SchedClass;

/// The right to carry out one login. A failure may be counted before the password is verified, because a login that has its
/// permit is carried out to its end. The account has no other permit at the same time, from the same kind of device.
pub struct LoginPermit {
    queue: Arc<Queue>,
    look_ups: Arc<LookUps>,
    since: Instant,
    deadline: Instant,
    /// The last field, because fields are dropped in order: the next login gets its permit when all else of this one is
    /// gone.
    _permit: fair_queue::Permit,
}

/// The pool. Dropping it ends the threads after their current login.
pub struct LoginPool {
    fair_queue: Arc<FairQueue>,
    queue: Arc<Queue>,
    look_ups: Arc<LookUps>,
    deadline: Duration,
}

#[derive(Clone, Copy, Debug)]
pub struct LoginLimits {
    /// Workers, at least one: so many passwords are verified at once.
    pub workers: usize,
    /// Logins that may wait for their permit, at least one.
    pub queue: usize,
    /// How long a login may take, including the time in the queue.
    pub deadline: Duration,
}

/// After how long the backup worker begins a login that its worker has not finished: several times what a login takes on a
/// thread that makes progress, and little compared to the rest of a sign-on.
const BACKUP_AFTER: Duration = Duration::from_millis(250);

/// After how long a wait a helper may take a login: longer than any login waits on a quiet day.
const HELPER_AFTER: Duration = Duration::from_secs(2);

impl LoginPool {
    /// Starts the threads `login-0`, `backup-0`, `helper-0`, `login-1`, and so on. They do not survive a fork: start the
    /// pool after daemonizing.
    pub fn start(directory: Arc<dyn UserDirectory>, limits: LoginLimits) -> io::Result<Self> {
        Self::start_with(&directory, limits, BACKUP_AFTER, HELPER_AFTER)
    }

    fn start_with(
        directory: &Arc<dyn UserDirectory>,
        limits: LoginLimits,
        backup_after: Duration,
        helper_after: Duration,
    ) -> io::Result<Self> {
        let workers = limits.workers.max(1);
        let permits = permits(workers);
        let queue = Arc::new(Queue::new(workers, permits, backup_after, helper_after));
        let fair_queue = Arc::new(FairQueue::new(limits.queue.max(1), permits));
        let look_ups = Arc::new(LookUps::start(Arc::clone(directory), permits)?);
        // Made before the threads: if one of them cannot be started, dropping the pool ends those before it.
        let pool = Self { fair_queue, queue, look_ups, deadline: limits.deadline };
        let kinds = Arc::new(KnownKinds::new(directory.hash_kinds().unwrap_or_else(|error| {
            log::warn!("user directory: the kinds of password hashes are learned as logins meet them: {error}");
            Default::default()
        })));
        let start = |name: String, class: SchedClass, next: fn(&Queue, usize) -> Option<Arc<Job>>, number| {
            let (queue, directory, kinds) = (Arc::clone(&pool.queue), Arc::clone(directory), Arc::clone(&kinds));
            thread::Builder::new().name(name).spawn(move || {
                class.apply();
                work(&*directory, &kinds, || next(&queue, number));
            })
        };
        for number in 0..workers {
            start(format!("login-{number}"), SchedClass::Idle, Queue::next_of_worker, number)?;
            start(format!("backup-{number}"), SchedClass::Low, Queue::next_of_backup, number)?;
            start(format!("helper-{number}"), SchedClass::Idle, Queue::next_of_helper, number)?;
        }
        Ok(pool)
    }

    /// Waits for a permit, and at least for `delay`. `None` if the queue is full or the deadline passed.
    pub async fn acquire(&self, key: QueueKey, delay: Duration) -> Option<LoginPermit> {
        let since = Instant::now();
        let deadline = since + self.deadline;
        let permit = timeout_at(deadline, self.fair_queue.acquire(key, delay)).await.ok()??;
        let (queue, look_ups) = (Arc::clone(&self.queue), Arc::clone(&self.look_ups));
        Some(LoginPermit { queue, look_ups, since, deadline, _permit: permit })
    }

    /// Returns how many logins wait for their permit or for a worker.
    pub fn queued(&self) -> usize {
        self.fair_queue.waiting() + self.queue.waiting()
    }
}

/// Returns the number of permits: as many logins as the workers and their helpers do at once, and one whose round trips
/// to the session store are under way.
fn permits(workers: usize) -> usize {
    2 * workers + 1
}

impl LoginPermit {
    /// Returns the number of a user's last change, by which failed logins are counted, or `None` if there is no such user.
    pub async fn change_of(&self, name: &UserName) -> Result<Option<u64>, LoginError> {
        let late = |_| DirectoryError::unavailable("no answer within the login's deadline");
        timeout_at(self.deadline, self.look_ups.change_of(name)).await.map_err(late)?
    }

    /// Verifies a password, on a worker. Dropping the future gives the login up: if it still waits, nothing is computed
    /// for it.
    pub async fn authenticate(&self, name: UserName, password: Password) -> Authentication {
        let Some(reservation) = self.queue.reserve() else { return Authentication::Busy };
        let (sender, result) = oneshot::channel();
        reservation.push(Job::new(name, password, self.since.into_std(), sender));
        // When the deadline passes, `result` is dropped, by which the worker sees that it can skip the job.
        match timeout_at(self.deadline, result).await {
            Ok(Ok(authentication)) => authentication,
            // A job is dropped without a result only by a panic.
            Ok(Err(_)) => Authentication::Unavailable { cause: LoginError::Panicked },
            Err(_) => Authentication::Busy,
        }
    }
}

impl Drop for LoginPool {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Runs a thread: it does the logins that `next` returns, to the last.
fn work(directory: &dyn UserDirectory, kinds: &KnownKinds, next: impl Fn() -> Option<Arc<Job>>) {
    while let Some(job) = next() {
        // Nothing of a job outlives its panic, so no broken state is seen.
        if catch_unwind(AssertUnwindSafe(|| run(&job, directory, kinds))).is_err() {
            log::error!("login: a worker panicked at a login and continues with the next");
            job.abandon();
        }
    }
}

fn run(job: &Job, directory: &dyn UserDirectory, kinds: &KnownKinds) {
    let (result, outdated) = match check(directory, kinds, &job.name, &job.password) {
        Ok(checked) => checked,
        Err(cause) => (Authentication::Unavailable { cause }, None),
    };
    // The result is sent first, so that the user does not wait for the new hash. Of two threads that did the same login,
    // the one that finished first makes it.
    if let (true, Some(outdated)) = (job.finish(result), outdated) {
        outdated.replace(directory, &job.password);
    }
}

/// Verifies a password. Every refusal costs one hash of each kind that the directory holds, so that the time tells neither
/// an unknown user from a wrong password or a disabled user, nor a user with one kind of hash from one with another (OWASP
/// ASVS 5.0 §6.3.8). A success costs only its own hash: it reveals more than its time does.
fn check(
    directory: &dyn UserDirectory,
    kinds: &KnownKinds,
    name: &UserName,
    password: &Password,
) -> Result<(Authentication, Option<OutdatedHash>), LoginError> {
    let Some((user, hash)) = directory.find(name)? else {
        kinds.equalize(None, password)?;
        return Ok((Authentication::Refused(Refusal::UnknownUser), None));
    };
    kinds.learn(hash.kind());
    let verified = password::verify(password, &hash)?;
    let refusal = match verified {
        Verified::NoMatch => Some(Refusal::WrongPassword),
        Verified::Match | Verified::MatchOutdated => user.disabled.then_some(Refusal::Disabled),
    };
    if let Some(refusal) = refusal {
        kinds.equalize(Some(hash.kind()), password)?;
        return Ok((Authentication::Refused(refusal), None));
    }
    let outdated = (verified == Verified::MatchOutdated).then(|| OutdatedHash { id: user.id.clone(), hash });
    Ok((Authentication::Accepted(user), outdated))
}

/// A hash of an older kind, which is replaced while the password is at hand.
struct OutdatedHash {
    id: UserId,
    hash: StoredHash,
}

impl OutdatedHash {
    /// Replaces the hash. A failure is only logged: the login is accepted, and the next one tries again. Nothing is
    /// replaced when another password was set meanwhile.
    fn replace(self, directory: &dyn UserDirectory, password: &Password) {
        let replaced = password::hash(password)
            .map_err(LoginError::from)
            .and_then(|new| Ok(directory.replace_hash(&self.id, &self.hash, &new)?));
        if let Err(error) = replaced {
            log::warn!("login: the outdated password hash was not replaced user_id={}: {error:?}", self.id);
        }
    }
}

#[cfg(test)]
mod tests;
