//! The way from many askers to one connection: a bounded queue and a task that owns the connection.
//!
//! The owner takes all that waits, up to [`BATCH`], and answers it; what arrives meanwhile is the next batch.
//! So look-ups of concurrent requests share a round trip without anyone waiting for company. An asker that is
//! gone (its client hung up) takes nothing with it: the exchange is the owner's.
//!
//! The owner is spawned on the runtime that asks first. When that runtime ends, the next asker's takes over.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::Histogram;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::address::Address;
use super::breaker::Breaker;
use super::connection::Connection;
use crate::sessions::StoreError;

/// Askers answered together at most: some 4 KiB of commands, which is one write.
const BATCH: usize = 64;
/// Askers that may stand in the queue. More wait for room in it, as long as for an answer.
const QUEUE: usize = 1024;

/// What can be asked over a link.
pub trait Question: Send + Sized + 'static {
    type Answer: Send;

    /// Answers every job of `batch` and leaves it empty.
    fn answer(batch: &mut Vec<Job<Self>>, connection: &mut Connection) -> impl Future<Output = ()> + Send;
}

/// A question, until when its asker waits, and the way back.
pub struct Job<Q: Question> {
    pub question: Q,
    pub deadline: Instant,
    reply: oneshot::Sender<Result<Q::Answer, StoreError>>,
}

pub struct Link<Q: Question> {
    address: Address,
    breaker: Arc<Breaker>,
    /// Its receiver is gone until somebody asks, and again when the owner's runtime has ended.
    queue: ArcSwap<mpsc::Sender<Job<Q>>>,
    /// Told how many askers shared an exchange.
    batch_size: Option<Histogram>,
    /// Held by who spawns an owner, so that there is one.
    spawning: Mutex<()>,
}

impl<Q: Question> Job<Q> {
    pub fn reply(self, answer: Result<Q::Answer, StoreError>) {
        // An error means that nobody waits any longer.
        let _ = self.reply.send(answer);
    }

    pub fn is_awaited(&self) -> bool {
        !self.reply.is_closed()
    }
}

impl<Q: Question> Link<Q> {
    pub fn new(address: Address, breaker: Breaker, batch_size: Option<Histogram>) -> Self {
        let (queue, _) = mpsc::channel(1);
        let queue = ArcSwap::from_pointee(queue);
        Self { address, breaker: Arc::new(breaker), queue, batch_size, spawning: Mutex::new(()) }
    }

    /// How long the server has given no answer over this link; zero while it does.
    pub fn unavailable_for(&self) -> Duration {
        self.breaker.failing_for(Instant::now())
    }

    /// Whether the last exchange failed.
    pub fn is_failing(&self) -> bool {
        self.breaker.is_failing()
    }

    /// Whether the last ones did, several in a row.
    pub fn is_resting(&self) -> bool {
        self.breaker.is_resting()
    }

    /// Answers by `deadline`, whatever the server does.
    pub async fn ask(&self, question: Q, deadline: Instant) -> Result<Q::Answer, StoreError> {
        if !self.breaker.admits(Instant::now) {
            return Err(resting());
        }
        let (reply, answer) = oneshot::channel();
        if let Some(job) = self.enqueue(Job { question, deadline, reply })? {
            // Rare, and large.
            Box::pin(self.wait_for_room(job, deadline)).await?;
        }
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(ended()),
            Err(_) => Err(StoreError::TimedOut),
        }
    }

    /// Gives the job back where the queue is full.
    fn enqueue(&self, job: Job<Q>) -> Result<Option<Job<Q>>, StoreError> {
        let refused = match self.queue.load().try_send(job) {
            Err(mpsc::error::TrySendError::Closed(job)) => self.spawn()?.try_send(job),
            other => other,
        };
        match refused {
            Ok(()) => Ok(None),
            Err(mpsc::error::TrySendError::Full(job)) => Ok(Some(job)),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(ended()),
        }
    }

    /// A crowd that comes at once is answered one batch after the other: whoever stands outside of the queue has a request
    /// in flight, and as many of those wait as there may be.
    async fn wait_for_room(&self, job: Job<Q>, deadline: Instant) -> Result<(), StoreError> {
        let queue = self.queue.load_full();
        let room = match timeout_at(deadline, queue.reserve()).await {
            Ok(room) => room.map_err(|_| ended())?,
            Err(_) => return Err(StoreError::TimedOut),
        };
        // Those who had room before have found the server gone.
        if !self.breaker.admits(Instant::now) {
            return Err(resting());
        }
        room.send(job);
        Ok(())
    }

    /// Starts an owner on the runtime that we are on, unless another asker just did.
    fn spawn(&self) -> Result<Arc<mpsc::Sender<Job<Q>>>, StoreError> {
        let _one_at_a_time = self.spawning.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = self.queue.load_full();
        if !queue.is_closed() {
            return Ok(queue);
        }
        let runtime = Handle::try_current().map_err(|_| away("no runtime to run the connection on"))?;
        let (queue, jobs) = mpsc::channel(QUEUE);
        let queue = Arc::new(queue);
        let connection = Connection::new(self.address.clone(), self.breaker.clone());
        runtime.spawn(own(jobs, connection, self.batch_size.clone()));
        self.queue.store(queue.clone());
        Ok(queue)
    }
}

/// The owner's life: until the link is dropped.
async fn own<Q: Question>(mut jobs: mpsc::Receiver<Job<Q>>, mut connection: Connection, batch_size: Option<Histogram>) {
    let mut batch = Vec::with_capacity(BATCH);
    while jobs.recv_many(&mut batch, BATCH).await > 0 {
        if let Some(batch_size) = &batch_size {
            batch_size.observe(batch.len() as f64);
        }
        Q::answer(&mut batch, &mut connection).await;
        if connection.is_resting() {
            // Those who queued behind a failure share it, or each would wait for one of their own.
            while let Ok(job) = jobs.try_recv() {
                job.reply(Err(resting()));
            }
        }
    }
}

pub fn resting() -> StoreError {
    away("the server did not answer a moment ago")
}

fn ended() -> StoreError {
    away("the connection's task has ended")
}

fn away(cause: &str) -> StoreError {
    StoreError::Unavailable { cause: cause.to_owned() }
}
