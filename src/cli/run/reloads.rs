//! Which reload answers which call: one is carried out at a time, and a call that comes during one gets the outcome of
//! the next, as the one in progress may have read the file already.

use tokio::sync::oneshot;

use crate::admin::reload::ReloadOutcome;

type Waiters = Vec<oneshot::Sender<ReloadOutcome>>;

/// Signals wait for no outcome; calls of the API do, and their number is limited there.
#[derive(Default)]
pub struct Reloads {
    /// While a reload is in progress: the calls that it answers.
    current: Option<Waiters>,
    /// When there is to be another one after it: the calls that it will answer.
    next: Option<Waiters>,
}

impl Reloads {
    /// Notes that a reload is wanted. Returns whether it is to begin now.
    pub fn request(&mut self, waiter: Option<oneshot::Sender<ReloadOutcome>>) -> bool {
        let begins = self.current.is_none();
        let place = if begins { &mut self.current } else { &mut self.next };
        place.get_or_insert_default().extend(waiter);
        begins
    }

    /// The reload in progress has ended. Returns whether the next one is to begin now.
    pub fn end(&mut self, outcome: &ReloadOutcome) -> bool {
        answer(self.current.take(), outcome);
        self.current = self.next.take();
        self.current.is_some()
    }

    /// The edge stops: what is in progress comes to nothing, and nothing begins any more.
    pub fn stop(&mut self) {
        answer(self.current.take(), &ReloadOutcome::Stopping);
        answer(self.next.take(), &ReloadOutcome::Stopping);
    }
}

fn answer(waiters: Option<Waiters>, outcome: &ReloadOutcome) {
    for waiter in waiters.into_iter().flatten() {
        // An error means that the caller has gone.
        waiter.send(outcome.clone()).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(why: &str) -> ReloadOutcome {
        ReloadOutcome::Failed(why.into())
    }

    fn answered(mut waiter: oneshot::Receiver<ReloadOutcome>) -> Option<String> {
        waiter.try_recv().ok().map(|outcome| match outcome {
            ReloadOutcome::Failed(why) => why,
            outcome => outcome.result().into(),
        })
    }

    #[test]
    fn each_call_is_answered_by_a_reload_that_began_after_it() {
        let mut reloads = Reloads::default();
        let request = |reloads: &mut Reloads| {
            let (sender, receiver) = oneshot::channel();
            (reloads.request(Some(sender)), receiver)
        };
        let (begins, first) = request(&mut reloads);
        assert!(begins);
        let (begins, second) = request(&mut reloads);
        assert!(!begins && !reloads.request(None));
        let (_, third) = request(&mut reloads);
        assert!(reloads.end(&failed("one")), "there is another one");
        assert_eq!(answered(first).as_deref(), Some("one"));
        let (begins, fourth) = request(&mut reloads);
        assert!(!begins && reloads.end(&failed("two")));
        assert_eq!([answered(second), answered(third)], [Some("two".into()), Some("two".into())]);
        assert!(!reloads.end(&failed("three")));
        assert_eq!(answered(fourth).as_deref(), Some("three"));
        assert!(reloads.request(None), "a signal begins one as well");
    }

    #[test]
    fn at_the_end_of_the_edge_each_call_learns_that() {
        let mut reloads = Reloads::default();
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let (sender, receiver) = oneshot::channel();
                reloads.request(Some(sender));
                receiver
            })
            .collect();
        reloads.stop();
        assert!(waiters.into_iter().all(|waiter| answered(waiter).as_deref() == Some("stopping")));
    }
}
