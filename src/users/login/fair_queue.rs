//! The fair queue before the login workers: it is bounded, and it decides which login is next.
//!
//! A login that has its permit may count a failure beforehand and have its password verified; until then nothing is counted
//! or computed for it. Permits are given out fairly:
//!
//! - An account has one permit at a time, so that parallel guesses wait for each other instead of slipping past a limit. A
//!   device that has signed in to the account before has a permit of its own.
//! - Devices that are known to their accounts get two permits for each one of the other devices, which get all that is
//!   left.
//! - Within each of the two groups the addresses are served round robin, so that many logins from one address delay those
//!   of others by one login each.
//!
//! When the queue is full, a login from an address with few waiting logins replaces the last one of the address with the
//! most, and a login from a known device replaces one from an unknown device.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::client_prefix::ClientPrefix;

/// Permits that known devices get in a row while other devices wait.
const KNOWN_IN_A_ROW: u32 = 2;

/// The fraction of the queue that one account may occupy: one in four places.
const ACCOUNT_SHARE: usize = 4;

/// The account, device and address of a login, by which the queue is fair.
#[derive(Clone, Debug)]
pub struct QueueKey {
    /// The account, and the device if the account knows it.
    pub subject: Box<str>,
    /// Whether the device has signed in to the account before.
    pub known_device: bool,
    pub network: ClientPrefix,
}

pub struct FairQueue {
    state: Mutex<State>,
    most_waiting: usize,
    /// Permits that are given out at once.
    permits: usize,
}

#[derive(Default)]
struct State {
    /// In the order of arrival.
    waiting: Vec<Waiting>,
    /// The subjects that have a permit.
    admitted: HashSet<Box<str>>,
    /// By address and whether the device is known. A flow is here while one of its logins waits.
    flows: HashMap<Flow, FlowState>,
    /// Numbers the events: arrivals and permits.
    clock: u64,
    known_in_a_row: u32,
}

type Flow = (ClientPrefix, bool);

struct FlowState {
    waiting: usize,
    /// When the flow last got a permit or, if it got none, when its first login arrived. The least is next.
    served: u64,
}

struct Waiting {
    number: u64,
    key: QueueKey,
    /// Set when the delay of the login has passed.
    ready: bool,
    granted: oneshot::Sender<Permit>,
}

/// The right to count and verify one login. Dropping it gives the next login its permit.
pub struct Permit {
    queue: Arc<FairQueue>,
    subject: Box<str>,
}

/// A place in the queue, which is given up when this is dropped.
struct Place {
    queue: Arc<FairQueue>,
    number: u64,
}

impl FairQueue {
    pub fn new(most_waiting: usize, permits: usize) -> Self {
        Self { state: Mutex::default(), most_waiting, permits }
    }

    /// Returns how many logins wait for their permit.
    pub fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// Waits for a permit, and at least for `delay`. `None` if there is no room, or another login replaces this one.
    pub async fn acquire(self: &Arc<Self>, key: QueueKey, delay: Duration) -> Option<Permit> {
        let (granted, mut permit) = oneshot::channel();
        let number = self.state().enter(key, delay.is_zero(), granted, self.most_waiting)?;
        let _place = Place { queue: Arc::clone(self), number };
        if !delay.is_zero() {
            // Before it is ready it gets no permit. If the channel closes, another login has taken its place.
            if tokio::time::timeout(delay, &mut permit).await.is_ok() {
                return None;
            }
            self.state().ready(number);
        }
        self.grant();
        permit.await.ok()
    }

    /// Gives out the permits that are free.
    fn grant(self: &Arc<Self>) {
        loop {
            let Some((subject, granted)) = self.state().next(self.permits) else { return };
            // The lock is not held here: if the login has just gone, dropping its permit takes the lock and calls `grant`.
            drop(granted.send(Permit { queue: Arc::clone(self), subject }));
        }
    }

    /// Locks the state. Nothing panics under the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Takes a place in the queue, and returns its number if there was one.
    fn enter(&mut self, key: QueueKey, ready: bool, granted: oneshot::Sender<Permit>, most: usize) -> Option<u64> {
        let of_account = self.waiting.iter().filter(|waiting| waiting.key.subject == key.subject).count();
        if of_account >= (most / ACCOUNT_SHARE).max(1) {
            return None;
        }
        if self.waiting.len() >= most {
            let last = self.replaceable(&key)?;
            self.leave(last);
        }
        let number = self.tick();
        let flow = self.flows.entry(key.flow()).or_insert(FlowState { waiting: 0, served: number });
        flow.waiting += 1;
        self.waiting.push(Waiting { number, key, ready, granted });
        Some(number)
    }

    /// Returns the login whose place a new one gets in a full queue: the last of the largest flow, unless that flow is
    /// about as small as the one of the new login.
    fn replaceable(&self, newcomer: &QueueKey) -> Option<u64> {
        let largest = |known| {
            let flows = self.flows.iter().filter(move |((_, known_device), _)| *known_device == known);
            flows.max_by_key(|(_, flow)| flow.waiting).map(|(flow, state)| (*flow, state.waiting))
        };
        let own = self.flows.get(&newcomer.flow()).map_or(0, |flow| flow.waiting);
        let larger = |(flow, waiting): (Flow, usize)| (waiting > own + 1).then_some(flow);
        let flow = match (largest(false), newcomer.known_device) {
            (Some((flow, _)), true) => flow,
            (None, true) => largest(true).and_then(larger)?,
            (unknown, false) => unknown.and_then(larger)?,
        };
        self.waiting.iter().rev().find(|waiting| waiting.key.flow() == flow).map(|waiting| waiting.number)
    }

    fn ready(&mut self, number: u64) {
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.number == number) {
            waiting.ready = true;
        }
    }

    fn leave(&mut self, number: u64) {
        if let Some(at) = self.waiting.iter().position(|waiting| waiting.number == number) {
            self.take(at);
        }
    }

    fn take(&mut self, at: usize) -> Waiting {
        let waiting = self.waiting.remove(at);
        let flow = waiting.key.flow();
        if let Some(state) = self.flows.get_mut(&flow) {
            state.waiting -= 1;
            if state.waiting == 0 {
                self.flows.remove(&flow);
            }
        }
        waiting
    }

    /// Takes the next login, if a permit is free. Its subject counts as admitted from then on.
    fn next(&mut self, permits: usize) -> Option<(Box<str>, oneshot::Sender<Permit>)> {
        if self.admitted.len() >= permits {
            return None;
        }
        let known_first = self.known_in_a_row < KNOWN_IN_A_ROW;
        let may_go = |waiting: &Waiting| waiting.ready && !self.admitted.contains(&waiting.key.subject);
        let order = |waiting: &Waiting| {
            let served = self.flows.get(&waiting.key.flow()).map_or(0, |flow| flow.served);
            (waiting.key.known_device != known_first, served, waiting.number)
        };
        let candidates = self.waiting.iter().enumerate().filter(|(_, waiting)| may_go(waiting));
        let (at, _) = candidates.min_by_key(|(_, waiting)| order(waiting))?;
        let now = self.tick();
        let Waiting { key, granted, .. } = self.take(at);
        if let Some(flow) = self.flows.get_mut(&key.flow()) {
            flow.served = now;
        }
        self.known_in_a_row = if key.known_device { self.known_in_a_row.saturating_add(1) } else { 0 };
        self.admitted.insert(key.subject.clone());
        Some((key.subject, granted))
    }
}

impl QueueKey {
    fn flow(&self) -> Flow {
        (self.network, self.known_device)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.queue.state().admitted.remove(&self.subject);
        self.queue.grant();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.state().leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    /// A login of an account; devices that are known to it are numbered from 1 on, 0 is any other.
    fn key(address: u8, account: &str, device: u8) -> QueueKey {
        let network = ClientPrefix::of(IpAddr::from([192, 0, 2, address]));
        QueueKey { subject: format!("{account}/{device}").into(), known_device: device > 0, network }
    }

    /// A queue whose logins are carried out one after another; each sends its name when it has its permit.
    struct Scene {
        queue: Arc<FairQueue>,
        permits: tokio::sync::mpsc::Sender<(String, Permit)>,
        taken: tokio::sync::mpsc::Receiver<(String, Permit)>,
    }

    impl Scene {
        fn new(most_waiting: usize, permits: usize) -> Self {
            let (sender, taken) = tokio::sync::mpsc::channel(10_000);
            Self { queue: Arc::new(FairQueue::new(most_waiting, permits)), permits: sender, taken }
        }

        /// Waits in a task, which returns the name if it gets no permit. Returns when the login is in the queue.
        async fn enter(&self, name: &str, key: QueueKey) -> tokio::task::JoinHandle<Option<String>> {
            let (queue, permits, name) = (Arc::clone(&self.queue), self.permits.clone(), name.to_owned());
            let task = tokio::spawn(async move {
                match queue.acquire(key, Duration::ZERO).await {
                    Some(permit) => permits.send((name, permit)).await.map(|()| None).unwrap_or(None),
                    None => Some(name),
                }
            });
            tokio::task::yield_now().await;
            task
        }

        /// Returns the next login that has its permit, which it holds until the result is dropped.
        async fn next(&mut self) -> (String, Permit) {
            self.taken.recv().await.unwrap()
        }

        /// Carries out the waiting logins, and returns their names in order.
        async fn order(&mut self, count: usize) -> Vec<String> {
            let mut order = Vec::new();
            for _ in 0..count {
                order.push(self.next().await.0);
            }
            order
        }
    }

    #[tokio::test]
    async fn an_account_has_one_permit_at_a_time_and_each_device_that_it_knows_another() {
        let mut scene = Scene::new(100, 10);
        for (name, account, device) in
            [("one", "ada", 0), ("two", "ada", 0), ("known", "ada", 1), ("other", "ada", 2), ("bob", "bob", 0)]
        {
            scene.enter(name, key(1, account, device)).await;
        }
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(scene.next().await);
        }
        let names: Vec<&str> = held.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["one", "known", "other", "bob"]);
        assert_eq!((scene.queue.waiting(), scene.taken.is_empty()), (1, true), "the second guess at ada's waits");
        drop(held.swap_remove(0));
        assert_eq!(scene.next().await.0, "two");
    }

    #[tokio::test]
    async fn addresses_are_served_in_rotation_however_many_logins_come_from_one_of_them() {
        let mut scene = Scene::new(1000, 1);
        scene.enter("first", key(9, "first", 0)).await;
        let first = scene.next().await;
        for number in 0..100 {
            scene.enter("many", key(1, &format!("c{number}"), 0)).await;
        }
        for (name, address) in [("b1", 2), ("b2", 2), ("c1", 3)] {
            scene.enter(name, key(address, name, 0)).await;
        }
        drop(first);
        assert_eq!(scene.order(6).await, ["many", "b1", "c1", "many", "b2", "many"]);
    }

    /// A flood from ever new addresses: each of them comes behind those that wait already.
    #[tokio::test]
    async fn new_addresses_do_not_go_before_those_that_wait() {
        let mut scene = Scene::new(1000, 1);
        scene.enter("first", key(1, "first", 0)).await;
        let mut current = scene.next().await;
        for name in ["many1", "many2"] {
            scene.enter(name, key(1, name, 0)).await;
        }
        let mut order = Vec::new();
        for address in 2..12 {
            scene.enter("new", key(address, "new", 0)).await;
            scene.enter("new", key(address + 100, "newer", 0)).await;
            drop(current);
            current = scene.next().await;
            order.push(current.0.clone());
        }
        let many: Vec<usize> = (0..10).filter(|at| order[*at].starts_with("many")).collect();
        assert_eq!(many, [0, 3], "{order:?}");
    }

    #[tokio::test]
    async fn known_devices_get_two_of_three_permits_and_keep_no_other_out() {
        let mut scene = Scene::new(1000, 1);
        scene.enter("first", key(9, "first", 0)).await;
        let first = scene.next().await;
        for number in 0..20 {
            scene.enter("stranger", key(1, &format!("s{number}"), 0)).await;
        }
        for number in 0..4 {
            scene.enter("known", key(1, &format!("k{number}"), 1)).await;
        }
        drop(first);
        let order = scene.order(7).await;
        assert_eq!(order, ["known", "known", "stranger", "known", "known", "stranger", "stranger"]);
    }

    #[tokio::test]
    async fn a_full_queue_has_room_for_an_address_that_has_less_of_it() {
        let mut scene = Scene::new(12, 1);
        scene.enter("first", key(9, "first", 0)).await;
        let first = scene.next().await;
        let mut many = Vec::new();
        for number in 0..12 {
            let name = format!("many{number}");
            many.push(scene.enter(&name, key(1, &name, 0)).await);
        }
        let late = scene.enter("late", key(1, "late", 0)).await;
        assert_eq!(late.await.unwrap().as_deref(), Some("late"), "one more of the same address finds it full");
        scene.enter("neighbour", key(2, "neighbour", 0)).await;
        assert_eq!(many.pop().unwrap().await.unwrap().as_deref(), Some("many11"), "the last one makes room");
        scene.enter("known", key(1, "known", 1)).await;
        assert_eq!(many.pop().unwrap().await.unwrap().as_deref(), Some("many10"), "and for a known device");
        assert_eq!(scene.queue.waiting(), 12);
        drop(first);
        assert_eq!(scene.order(3).await, ["known", "many0", "neighbour"]);
    }

    #[tokio::test]
    async fn one_account_takes_a_quarter_of_the_queue_and_no_more() {
        let mut scene = Scene::new(40, 1);
        scene.enter("first", key(9, "first", 0)).await;
        let _first = scene.next().await;
        let mut refused = 0;
        for address in 0..30 {
            let guess = scene.enter("guess", key(address, "ada", 0)).await;
            tokio::task::yield_now().await;
            refused += usize::from(guess.is_finished());
        }
        assert_eq!((scene.queue.waiting(), refused), (10, 20));
        scene.enter("ada", key(1, "ada", 1)).await;
        scene.enter("bob", key(1, "bob", 0)).await;
        assert_eq!(scene.queue.waiting(), 12);
    }

    #[tokio::test]
    async fn a_client_that_goes_away_leaves_no_place_and_no_permit_behind() {
        let mut scene = Scene::new(100, 1);
        scene.enter("first", key(1, "ada", 0)).await;
        let first = scene.next().await;
        let mut gone = Vec::new();
        for number in 0..10 {
            gone.push(scene.enter("gone", key(1, &format!("g{number}"), 0)).await);
        }
        scene.enter("stays", key(1, "ada", 0)).await;
        for task in &gone {
            task.abort();
        }
        for task in gone {
            assert!(task.await.unwrap_err().is_cancelled());
        }
        assert_eq!(scene.queue.waiting(), 1);
        drop(first);
        assert_eq!(scene.next().await.0, "stays");
        let state = scene.queue.state();
        assert!(state.flows.is_empty() && state.waiting.is_empty() && state.admitted.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_delayed_login_holds_up_no_other() {
        let scene = Scene::new(100, 1);
        let delay = Duration::from_secs(2);
        let began = tokio::time::Instant::now();
        let slowed = scene.queue.acquire(key(1, "slowed", 0), delay);
        let others = async {
            for number in 0..10 {
                scene.queue.acquire(key(2, &format!("o{number}"), 0), Duration::ZERO).await.unwrap();
            }
            assert_eq!((began.elapsed(), scene.queue.waiting()), (Duration::ZERO, 1));
        };
        let (permit, ()) = tokio::join!(slowed, others);
        assert!(permit.is_some() && began.elapsed() >= delay);
    }
}
