//! How long a client may take for a head, on one connection. Held by its `stream`; who says where heads begin and end
//! is the gateway, by way of the [`Connection`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::time::{Instant, Sleep};

use crate::proxy::{Connection, Reading};

/// How long a head may take, and how large it may be.
#[derive(Clone, Debug)]
pub struct HeadLimits {
    pub time: Duration,
    pub bytes: usize,
    /// Counts connections that took longer.
    pub too_slow: IntCounter,
}

/// The deadline of the head that is due, or of the next one.
#[derive(Debug)]
pub struct Deadline {
    limits: HeadLimits,
    connection: Arc<Connection>,
    /// When the present head has to be there, once that was asked.
    at: Option<Instant>,
    /// Wakes us then; made when a head does not come in one piece.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether there is anything of the present head.
    begun: bool,
}

impl Deadline {
    /// The first head of a connection is due now.
    pub fn new(limits: HeadLimits, connection: Arc<Connection>) -> Self {
        let at = Some(Instant::now() + limits.time);
        Self { limits, connection, at, timer: None, begun: false }
    }

    /// The head did not come in time. Counts that, and answers whether there was anything of it.
    pub fn has_passed(&self) -> bool {
        if self.begun {
            self.limits.too_slow.inc();
        }
        self.begun
    }

    /// Before a read: whether the time is up. A head that came in one piece never gets here while it is due.
    pub fn is_over(&mut self) -> bool {
        if self.connection.reading() != Reading::Head {
            return false;
        }
        let limit = self.limits.time;
        Instant::now() >= *self.at.get_or_insert_with(|| Instant::now() + limit)
    }

    /// After a read that brought something.
    pub fn bytes_came(&mut self) {
        match self.connection.reading() {
            Reading::Past | Reading::Tunnel => {}
            Reading::Head => self.begun = true,
            Reading::Between => {
                self.connection.head_begins();
                self.begun = true;
                // Asked for before the next read, if there is one before the head is whole.
                self.at = None;
            }
        }
    }

    /// After a read that brought nothing: ready when the time is up.
    pub fn poll_timer(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (Reading::Head, Some(at)) = (self.connection.reading(), self.at) else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(context)
    }
}
