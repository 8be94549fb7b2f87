//! A deadline for whoever is waited for, again and again over the life of a connection.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// How long somebody may still be waited for. Its timer does not move with every renewal: it looks again when it wakes, so
/// a busy connection sets it once in a while.
#[derive(Debug, Default)]
pub struct Patience {
    until: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    pub fn renewed(&mut self, time: Duration) -> &mut Self {
        self.until = Some(Instant::now() + time);
        self
    }

    /// The same, unless it has begun already.
    pub fn begun(&mut self, time: Duration) -> &mut Self {
        self.until.get_or_insert_with(|| Instant::now() + time);
        self
    }

    /// Until this moment, instead of any before; or for ever.
    pub fn until(&mut self, until: Option<Instant>) {
        self.until = until;
    }

    /// Nobody is waited for.
    pub fn rest(&mut self) {
        self.until = None;
    }

    /// What was waited for, or `None` when it has taken longer than this.
    pub fn within<T>(&mut self, time: Duration, context: &mut Context<'_>, waited: Poll<T>) -> Poll<Option<T>> {
        if let Poll::Ready(done) = waited {
            self.rest();
            return Poll::Ready(Some(done));
        }
        self.begun(time).poll(context).map(|()| None)
    }

    /// Ready when it is over.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(until) = self.until else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        // It was set for a shorter time than the day's configuration has, or for a longer one.
        if timer.deadline() > until {
            timer.as_mut().reset(until);
        }
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
    async fn patience_lasts_from_its_last_renewal() {
        let (second, mut patience) = (Duration::from_secs(1), Patience::default());
        let begun = Instant::now();
        let within = |patience: &mut Patience, time| {
            let mut over = Box::pin(tokio::time::sleep(time));
            let patience = std::mem::take(patience);
            async move {
                let mut patience = patience;
                let over = poll_fn(|context| match patience.poll(context) {
                    Poll::Ready(()) => Poll::Ready(true),
                    Poll::Pending => over.as_mut().poll(context).map(|()| false),
                });
                let over = over.await;
                (over, patience)
            }
        };
        patience.renewed(10 * second);
        let (over, mut patience) = within(&mut patience, 8 * second).await;
        assert!(!over);
        patience.renewed(10 * second);
        let (over, mut patience) = within(&mut patience, 8 * second).await;
        assert!(!over, "the timer of the first renewal is not the last word");
        patience.renewed(second);
        let (over, _) = within(&mut patience, 8 * second).await;
        assert!(over);
        assert_eq!(begun.elapsed().as_secs(), 17);
    }
}
