//! The line before the login workers: a bounded number of logins wait in it, and it decides which of them is next.
//!
//! A login that has its turn may count a failure beforehand and have its password checked; until then nothing is
//! counted or computed for it. Turns are given out fairly:
//!
//! - An account has one turn at a time, so that parallel guesses wait for each other instead of slipping past a limit.
//!   A device that has signed in to the account before has a turn of its own.
//! - Devices that are known to their accounts get two turns for each one of the others, who get all that is left.
//! - Among each of the two, addresses take turns, so that many logins from one address hold up those of others by one
//!   login each.
//!
//! A full line takes a login of an address with few of them in the place of the last one of the address with the most,
//! and one from a known device in the place of one that is not.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::client_prefix::ClientPrefix;

/// Turns of known devices in a row, while others wait.
const KNOWN_IN_A_ROW: u32 = 2;

/// One account may take this part of the line.
const ACCOUNT_SHARE: usize = 4;

/// Who wants to log in.
#[derive(Clone, Debug)]
pub struct Applicant {
    /// The account, and the device where it is known to the account.
    pub subject: Box<str>,
    /// Whether the device has signed in to the account before.
    pub known_device: bool,
    pub network: ClientPrefix,
}

pub struct Line {
    state: Mutex<State>,
    most_waiting: usize,
    /// Turns that are given out at once.
    turns: usize,
}

#[derive(Default)]
struct State {
    /// In the order of their arrival.
    waiting: Vec<Waiting>,
    /// The subjects that have their turn.
    in_turn: HashSet<Box<str>>,
    /// By address and whether the device is known; those that have somebody waiting.
    flows: HashMap<Flow, FlowState>,
    /// Numbers what happens: arrivals and turns.
    clock: u64,
    known_in_a_row: u32,
}

type Flow = (ClientPrefix, bool);

struct FlowState {
    waiting: usize,
    /// When it last had a turn or, if it had none, when its first login arrived. The least is next.
    served: u64,
}

struct Waiting {
    number: u64,
    applicant: Applicant,
    /// Not before its delay has passed.
    ready: bool,
    granted: oneshot::Sender<Turn>,
}

/// The right to count and check one login. Dropping it gives the next login its turn.
pub struct Turn {
    line: Arc<Line>,
    subject: Box<str>,
}

/// A place in the line, which is given up when it is dropped.
struct Place {
    line: Arc<Line>,
    number: u64,
}

impl Line {
    pub fn new(most_waiting: usize, turns: usize) -> Self {
        Self { state: Mutex::default(), most_waiting, turns }
    }

    /// How many logins wait for their turn.
    pub fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// Waits for a turn, and at least for `delay`. `None` where there is no room, or another login needs it more.
    pub async fn turn(self: &Arc<Self>, applicant: Applicant, delay: Duration) -> Option<Turn> {
        let (granted, mut turn) = oneshot::channel();
        let number = self.state().enter(applicant, delay.is_zero(), granted, self.most_waiting)?;
        let _place = Place { line: Arc::clone(self), number };
        if !delay.is_zero() {
            // Before it is ready it gets no turn, but it may have to give up its place.
            if tokio::time::timeout(delay, &mut turn).await.is_ok() {
                return None;
            }
            self.state().ready(number);
        }
        self.grant();
        turn.await.ok()
    }

    /// Gives out the turns that are free.
    fn grant(self: &Arc<Self>) {
        loop {
            let Some((subject, granted)) = self.state().next(self.turns) else { return };
            // The lock is not held here. A turn whose login has just gone comes back, and is given to the next one.
            drop(granted.send(Turn { line: Arc::clone(self), subject }));
        }
    }

    /// Nothing panics under the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// The number of the place, if there is one.
    fn enter(&mut self, applicant: Applicant, ready: bool, granted: oneshot::Sender<Turn>, most: usize) -> Option<u64> {
        let of_account = self.waiting.iter().filter(|waiting| waiting.applicant.subject == applicant.subject).count();
        if of_account >= (most / ACCOUNT_SHARE).max(1) {
            return None;
        }
        if self.waiting.len() >= most {
            let last = self.dispensable(&applicant)?;
            self.leave(last);
        }
        let number = self.tick();
        let flow = self.flows.entry(applicant.flow()).or_insert(FlowState { waiting: 0, served: number });
        flow.waiting += 1;
        self.waiting.push(Waiting { number, applicant, ready, granted });
        Some(number)
    }

    /// Whose place a newcomer gets in a full line: that of the last login of the largest flow, unless it is about as
    /// small as the newcomer's own.
    fn dispensable(&self, newcomer: &Applicant) -> Option<u64> {
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
        self.waiting.iter().rev().find(|waiting| waiting.applicant.flow() == flow).map(|waiting| waiting.number)
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
        let flow = waiting.applicant.flow();
        if let Some(state) = self.flows.get_mut(&flow) {
            state.waiting -= 1;
            if state.waiting == 0 {
                self.flows.remove(&flow);
            }
        }
        waiting
    }

    /// The login that is next, if a turn is free. It has the turn from then on.
    fn next(&mut self, turns: usize) -> Option<(Box<str>, oneshot::Sender<Turn>)> {
        if self.in_turn.len() >= turns {
            return None;
        }
        let known_first = self.known_in_a_row < KNOWN_IN_A_ROW;
        let may_go = |waiting: &Waiting| waiting.ready && !self.in_turn.contains(&waiting.applicant.subject);
        let order = |waiting: &Waiting| {
            let served = self.flows.get(&waiting.applicant.flow()).map_or(0, |flow| flow.served);
            (waiting.applicant.known_device != known_first, served, waiting.number)
        };
        let candidates = self.waiting.iter().enumerate().filter(|(_, waiting)| may_go(waiting));
        let (at, _) = candidates.min_by_key(|(_, waiting)| order(waiting))?;
        let now = self.tick();
        let Waiting { applicant, granted, .. } = self.take(at);
        if let Some(flow) = self.flows.get_mut(&applicant.flow()) {
            flow.served = now;
        }
        self.known_in_a_row = if applicant.known_device { self.known_in_a_row.saturating_add(1) } else { 0 };
        self.in_turn.insert(applicant.subject.clone());
        Some((applicant.subject, granted))
    }
}

impl Applicant {
    fn flow(&self) -> Flow {
        (self.network, self.known_device)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.line.state().in_turn.remove(&self.subject);
        self.line.grant();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.line.state().leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    /// A login of an account; devices that are known to it are numbered from 1 on, 0 is any other.
    fn applicant(address: u8, account: &str, device: u8) -> Applicant {
        let network = ClientPrefix::of(IpAddr::from([192, 0, 2, address]));
        Applicant { subject: format!("{account}/{device}").into(), known_device: device > 0, network }
    }

    /// A line whose logins are carried out one after another; each says its name when it has its turn.
    struct Scene {
        line: Arc<Line>,
        turns: tokio::sync::mpsc::Sender<(String, Turn)>,
        taken: tokio::sync::mpsc::Receiver<(String, Turn)>,
    }

    impl Scene {
        fn new(most_waiting: usize, turns: usize) -> Self {
            let (sender, taken) = tokio::sync::mpsc::channel(10_000);
            Self { line: Arc::new(Line::new(most_waiting, turns)), turns: sender, taken }
        }

        /// Waits in a task; says `busy NAME` where it gets no turn. Returns when it stands in the line.
        async fn enter(&self, name: &str, applicant: Applicant) -> tokio::task::JoinHandle<Option<String>> {
            let (line, turns, name) = (Arc::clone(&self.line), self.turns.clone(), name.to_owned());
            let task = tokio::spawn(async move {
                match line.turn(applicant, Duration::ZERO).await {
                    Some(turn) => turns.send((name, turn)).await.map(|()| None).unwrap_or(None),
                    None => Some(name),
                }
            });
            tokio::task::yield_now().await;
            task
        }

        /// The next one that has its turn, which it holds until the answer is dropped.
        async fn next(&mut self) -> (String, Turn) {
            self.taken.recv().await.unwrap()
        }

        /// Carries out what waits, and names it in order.
        async fn order(&mut self, count: usize) -> Vec<String> {
            let mut order = Vec::new();
            for _ in 0..count {
                order.push(self.next().await.0);
            }
            order
        }
    }

    #[tokio::test]
    async fn an_account_has_one_turn_at_a_time_and_each_device_that_it_knows_another() {
        let mut scene = Scene::new(100, 10);
        for (name, account, device) in
            [("one", "ada", 0), ("two", "ada", 0), ("known", "ada", 1), ("other", "ada", 2), ("bob", "bob", 0)]
        {
            scene.enter(name, applicant(1, account, device)).await;
        }
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(scene.next().await);
        }
        let names: Vec<&str> = held.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["one", "known", "other", "bob"]);
        assert_eq!((scene.line.waiting(), scene.taken.is_empty()), (1, true), "the second guess at ada's waits");
        drop(held.swap_remove(0));
        assert_eq!(scene.next().await.0, "two");
    }

    #[tokio::test]
    async fn addresses_take_turns_however_many_logins_come_from_one_of_them() {
        let mut scene = Scene::new(1000, 1);
        scene.enter("first", applicant(9, "first", 0)).await;
        let first = scene.next().await;
        for number in 0..100 {
            scene.enter("crowd", applicant(1, &format!("c{number}"), 0)).await;
        }
        for (name, address) in [("b1", 2), ("b2", 2), ("c1", 3)] {
            scene.enter(name, applicant(address, name, 0)).await;
        }
        drop(first);
        assert_eq!(scene.order(6).await, ["crowd", "b1", "c1", "crowd", "b2", "crowd"]);
    }

    /// A flood from ever new addresses: each of them comes behind those that wait already.
    #[tokio::test]
    async fn new_addresses_do_not_go_before_those_that_wait() {
        let mut scene = Scene::new(1000, 1);
        scene.enter("first", applicant(1, "first", 0)).await;
        let mut current = scene.next().await;
        for name in ["crowd1", "crowd2"] {
            scene.enter(name, applicant(1, name, 0)).await;
        }
        let mut order = Vec::new();
        for address in 2..12 {
            scene.enter("new", applicant(address, "new", 0)).await;
            scene.enter("new", applicant(address + 100, "newer", 0)).await;
            drop(current);
            current = scene.next().await;
            order.push(current.0.clone());
        }
        let crowd: Vec<usize> = (0..10).filter(|at| order[*at].starts_with("crowd")).collect();
        assert_eq!(crowd, [0, 3], "{order:?}");
    }

    #[tokio::test]
    async fn known_devices_get_two_of_three_turns_and_keep_nobody_out() {
        let mut scene = Scene::new(1000, 1);
        scene.enter("first", applicant(9, "first", 0)).await;
        let first = scene.next().await;
        for number in 0..20 {
            scene.enter("stranger", applicant(1, &format!("s{number}"), 0)).await;
        }
        for number in 0..4 {
            scene.enter("known", applicant(1, &format!("k{number}"), 1)).await;
        }
        drop(first);
        let order = scene.order(7).await;
        assert_eq!(order, ["known", "known", "stranger", "known", "known", "stranger", "stranger"]);
    }

    #[tokio::test]
    async fn a_full_line_has_room_for_who_has_less_of_it() {
        let mut scene = Scene::new(12, 1);
        scene.enter("first", applicant(9, "first", 0)).await;
        let first = scene.next().await;
        let mut crowd = Vec::new();
        for number in 0..12 {
            let name = format!("crowd{number}");
            crowd.push(scene.enter(&name, applicant(1, &name, 0)).await);
        }
        let late = scene.enter("late", applicant(1, "late", 0)).await;
        assert_eq!(late.await.unwrap().as_deref(), Some("late"), "one more of the crowd finds it full");
        scene.enter("neighbour", applicant(2, "neighbour", 0)).await;
        assert_eq!(crowd.pop().unwrap().await.unwrap().as_deref(), Some("crowd11"), "the last one makes room");
        scene.enter("known", applicant(1, "known", 1)).await;
        assert_eq!(crowd.pop().unwrap().await.unwrap().as_deref(), Some("crowd10"), "and for a known device");
        assert_eq!(scene.line.waiting(), 12);
        drop(first);
        assert_eq!(scene.order(3).await, ["known", "crowd0", "neighbour"]);
    }

    #[tokio::test]
    async fn one_account_takes_a_quarter_of_the_line_and_no_more() {
        let mut scene = Scene::new(40, 1);
        scene.enter("first", applicant(9, "first", 0)).await;
        let _first = scene.next().await;
        let mut refused = 0;
        for address in 0..30 {
            let guess = scene.enter("guess", applicant(address, "ada", 0)).await;
            tokio::task::yield_now().await;
            refused += usize::from(guess.is_finished());
        }
        assert_eq!((scene.line.waiting(), refused), (10, 20));
        scene.enter("ada", applicant(1, "ada", 1)).await;
        scene.enter("bob", applicant(1, "bob", 0)).await;
        assert_eq!(scene.line.waiting(), 12);
    }

    #[tokio::test]
    async fn who_goes_away_leaves_no_place_and_no_turn_behind() {
        let mut scene = Scene::new(100, 1);
        scene.enter("first", applicant(1, "ada", 0)).await;
        let first = scene.next().await;
        let mut gone = Vec::new();
        for number in 0..10 {
            gone.push(scene.enter("gone", applicant(1, &format!("g{number}"), 0)).await);
        }
        scene.enter("stays", applicant(1, "ada", 0)).await;
        for task in &gone {
            task.abort();
        }
        for task in gone {
            assert!(task.await.unwrap_err().is_cancelled());
        }
        assert_eq!(scene.line.waiting(), 1);
        drop(first);
        assert_eq!(scene.next().await.0, "stays");
        let state = scene.line.state();
        assert!(state.flows.is_empty() && state.waiting.is_empty() && state.in_turn.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_delayed_login_holds_up_no_other() {
        let scene = Scene::new(100, 1);
        let delay = Duration::from_secs(2);
        let began = tokio::time::Instant::now();
        let slowed = scene.line.turn(applicant(1, "slowed", 0), delay);
        let others = async {
            for number in 0..10 {
                scene.line.turn(applicant(2, &format!("o{number}"), 0), Duration::ZERO).await.unwrap();
            }
            assert_eq!((began.elapsed(), scene.line.waiting()), (Duration::ZERO, 1));
        };
        let (turn, ()) = tokio::join!(slowed, others);
        assert!(turn.is_some() && began.elapsed() >= delay);
    }
}
