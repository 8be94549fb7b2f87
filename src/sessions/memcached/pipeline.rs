//! A pipeline from many callers to one connection: a bounded queue, and a worker task that owns the connection.
//!
//! The worker takes all requests that wait, up to [`BATCH`], and executes them; those that arrive meanwhile are the next
//! batch. Look-ups of concurrent requests thus share a round trip, and none waits for others to join. A caller that is gone
//! (its client has hung up) interrupts nothing: the exchange belongs to the worker.
//!
//! The worker is spawned on the runtime of the first caller. When that runtime ends, a worker on the next caller's runtime
//! takes over.

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

/// Requests executed together at most: some 4 KiB of commands, which is one write.
const BATCH: usize = 64;
/// Requests that the queue holds. Further callers wait for room in it, until the deadline of their request.
const QUEUE: usize = 1024;

/// A request that can be sent through a pipeline.
pub trait Request: Send + Sized + 'static {
    type Response: Send;

    /// Executes and answers every request of `batch`, and leaves it empty.
    fn execute(batch: &mut Vec<Pending<Self>>, connection: &mut Connection) -> impl Future<Output = ()> + Send;
}

/// A request in the queue, with its deadline and the channel for its response.
pub struct Pending<R: Request> {
    pub request: R,
    pub deadline: Instant,
    response: oneshot::Sender<Result<R::Response, StoreError>>,
}

pub struct Pipeline<R: Request> {
    address: Address,
    breaker: Arc<Breaker>,
    /// The receiver is gone until the first request, and again when the worker's runtime has ended.
    queue: ArcSwap<mpsc::Sender<Pending<R>>>,
    /// How many requests share an exchange.
    batch_size: Option<Histogram>,
    /// Locked while a worker is spawned, so that there is only one.
    spawning: Mutex<()>,
}

impl<R: Request> Pending<R> {
    pub fn respond(self, response: Result<R::Response, StoreError>) {
        // Sending fails when the caller no longer waits.
        let _ = self.response.send(response);
    }

    pub fn is_awaited(&self) -> bool {
        !self.response.is_closed()
    }
}

impl<R: Request> Pipeline<R> {
    pub fn new(address: Address, breaker: Breaker, batch_size: Option<Histogram>) -> Self {
        let (queue, _) = mpsc::channel(1);
        let queue = ArcSwap::from_pointee(queue);
        Self { address, breaker: Arc::new(breaker), queue, batch_size, spawning: Mutex::new(()) }
    }

    /// Returns how long the server has not answered through this pipeline; zero while it answers.
    pub fn unavailable_for(&self) -> Duration {
        self.breaker.failing_for(Instant::now())
    }

    /// Whether the last exchange failed.
    pub fn is_failing(&self) -> bool {
        self.breaker.is_failing()
    }

    /// Whether the circuit breaker is open: several exchanges in a row failed.
    pub fn is_open(&self) -> bool {
        self.breaker.is_open()
    }

    /// Returns by `deadline`, whatever the server does.
    pub async fn send(&self, request: R, deadline: Instant) -> Result<R::Response, StoreError> {
        if !self.breaker.allows(Instant::now) {
            return Err(breaker_open());
        }
        let (sender, response) = oneshot::channel();
        if let Some(pending) = self.enqueue(Pending { request, deadline, response: sender })? {
            // This future is boxed because it is rarely needed, and large.
            Box::pin(self.wait_for_room(pending, deadline)).await?;
        }
        match timeout_at(deadline, response).await {
            Ok(Ok(response)) => response,
            Ok(Err(_)) => Err(ended()),
            Err(_) => Err(StoreError::TimedOut),
        }
    }

    /// Returns the request when the queue is full.
    fn enqueue(&self, pending: Pending<R>) -> Result<Option<Pending<R>>, StoreError> {
        let refused = match self.queue.load().try_send(pending) {
            Err(mpsc::error::TrySendError::Closed(pending)) => self.spawn()?.try_send(pending),
            other => other,
        };
        match refused {
            Ok(()) => Ok(None),
            Err(mpsc::error::TrySendError::Full(pending)) => Ok(Some(pending)),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(ended()),
        }
    }

    /// A burst of requests is answered one batch after the other. Every caller that waits for room has a client's request in
    /// flight, so the number of those that wait is bounded by the limits on requests.
    async fn wait_for_room(&self, pending: Pending<R>, deadline: Instant) -> Result<(), StoreError> {
        let queue = self.queue.load_full();
        let room = match timeout_at(deadline, queue.reserve()).await {
            Ok(room) => room.map_err(|_| ended())?,
            Err(_) => return Err(StoreError::TimedOut),
        };
        // The requests that were queued before may have opened the breaker.
        if !self.breaker.allows(Instant::now) {
            return Err(breaker_open());
        }
        room.send(pending);
        Ok(())
    }

    /// Starts a worker on the current runtime, unless another caller just did.
    fn spawn(&self) -> Result<Arc<mpsc::Sender<Pending<R>>>, StoreError> {
        let _one_at_a_time = self.spawning.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = self.queue.load_full();
        if !queue.is_closed() {
            return Ok(queue);
        }
        let runtime = Handle::try_current().map_err(|_| unavailable("no runtime to run the connection on"))?;
        let (queue, requests) = mpsc::channel(QUEUE);
        let queue = Arc::new(queue);
        let connection = Connection::new(self.address.clone(), self.breaker.clone());
        runtime.spawn(run_worker(requests, connection, self.batch_size.clone()));
        self.queue.store(queue.clone());
        Ok(queue)
    }
}

/// The worker: runs until the pipeline is dropped.
async fn run_worker<R: Request>(
    mut requests: mpsc::Receiver<Pending<R>>,
    mut connection: Connection,
    batch_size: Option<Histogram>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while requests.recv_many(&mut batch, BATCH).await > 0 {
        if let Some(batch_size) = &batch_size {
            batch_size.observe(batch.len() as f64);
        }
        R::execute(&mut batch, &mut connection).await;
        if connection.is_open() {
            // Requests that queued up behind a failure share it; otherwise each of them would wait for a failure of its own.
            while let Ok(pending) = requests.try_recv() {
                pending.respond(Err(breaker_open()));
            }
        }
    }
}

pub fn breaker_open() -> StoreError {
    unavailable("the server did not answer a moment ago")
}

fn ended() -> StoreError {
    unavailable("the connection's task has ended")
}

fn unavailable(cause: &str) -> StoreError {
    StoreError::Unavailable { cause: cause.to_owned() }
}
