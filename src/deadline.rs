//! A deadline that is set again and again over the life of a connection.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// The moment until which something is waited for. The timer does not move each time the deadline is reset: it compares
/// itself with the deadline when it fires. A busy connection therefore sets a timer only once in a while.
#[derive(Debug, Default)]
pub struct Deadline {
    until: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// The deadline is `time` from now, in place of any earlier one.
    pub fn reset(&mut self, time: Duration) -> &mut Self {
        self.until = Some(Instant::now() + time);
        self
    }

    /// Sets the deadline to `time` from now, unless one is set already.
    pub fn start_if_unset(&mut self, time: Duration) -> &mut Self {
        self.until.get_or_insert_with(|| Instant::now() + time);
        self
    }

    /// Sets the deadline to this moment, in place of any earlier one; `None` means that there is none.
    pub fn set(&mut self, until: Option<Instant>) {
        self.until = until;
    }

    /// Removes the deadline.
    pub fn clear(&mut self) {
        self.until = None;
    }

    /// Returns the value of `waited`, or `None` when it has been pending for longer than `time`.
    pub fn poll_timeout<T>(&mut self, time: Duration, context: &mut Context<'_>, waited: Poll<T>) -> Poll<Option<T>> {
        if let Poll::Ready(done) = waited {
            self.clear();
            return Poll::Ready(Some(done));
        }
        self.start_if_unset(time).poll(context).map(|()| None)
    }

    /// Is ready once the deadline has passed.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(until) = self.until else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        // The timer is later than the deadline: a reload has made the timeout shorter, or this one is a shorter timeout.
        if timer.deadline() > until {
            timer.as_mut().reset(until);
        }
        // The timer may be earlier than the deadline, which was reset meanwhile: then the timer is set again.
        while timer.as_mut().poll(context).is_ready() {
            if timer.deadline() >= until {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_counts_from_its_last_reset() {
        let (second, mut deadline) = (Duration::from_secs(1), Deadline::default());
        let began = Instant::now();
        let within = |deadline: &mut Deadline, time| {
            let mut over = Box::pin(tokio::time::sleep(time));
            let deadline = std::mem::take(deadline);
            async move {
                let mut deadline = deadline;
                let over = poll_fn(|context| match deadline.poll(context) {
                    Poll::Ready(()) => Poll::Ready(true),
                    Poll::Pending => over.as_mut().poll(context).map(|()| false),
                });
                let over = over.await;
                (over, deadline)
            }
        };
        deadline.reset(10 * second);
        let (over, mut deadline) = within(&mut deadline, 8 * second).await;
        assert!(!over);
        deadline.reset(10 * second);
        let (over, mut deadline) = within(&mut deadline, 8 * second).await;
        assert!(!over, "the timer of the first reset does not decide");
        deadline.reset(second);
        let (over, _) = within(&mut deadline, 8 * second).await;
        assert!(over);
        assert_eq!(began.elapsed().as_secs(), 17);
    }
}
