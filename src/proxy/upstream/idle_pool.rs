//! Connections to applications that rest between two requests.
//!
//! Pingora's pool starts a task for each that rests, to notice its end, and has the kernel say where it leads whenever
//! one is taken. Here a connection is looked at when it is taken, and all of them once a second: that costs a request
//! two looks at a map.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::connection::Link;

/// Between two looks at all of them.
const PAUSE: Duration = Duration::from_secs(1);

pub struct Idle {
    shelves: Arc<Mutex<Shelves>>,
    /// At most so many rest.
    most: usize,
}

#[derive(Default)]
struct Shelves {
    /// By what their servers have in common; the longest resting first.
    by_key: HashMap<u64, VecDeque<Resting>, ahash::RandomState>,
    resting: usize,
    /// Whether somebody looks after them.
    is_swept: bool,
}

struct Resting {
    link: Link,
    since: Instant,
    until: Instant,
}

impl Resting {
    fn is_good(&mut self, now: Instant) -> bool {
        self.until > now && self.link.is_quiet()
    }
}

impl Idle {
    pub fn new(most: usize) -> Self {
        Self { shelves: Arc::default(), most }
    }

    /// One that leads to a server of this kind, and was not closed as far as is known here. The one that came last is the
    /// least likely to be closed at this moment.
    pub fn take(&self, key: u64, now: Instant) -> Option<Link> {
        loop {
            let mut resting = lock(&self.shelves).take(key)?;
            if resting.is_good(now) {
                return Some(resting.link);
            }
        }
    }

    /// Where there is no more room, another that rests is closed.
    pub fn keep(&self, key: u64, link: Link, since: Instant, time: Duration) {
        let mut shelves = lock(&self.shelves);
        let gone = if shelves.resting < self.most { None } else { shelves.any(key) };
        shelves.by_key.entry(key).or_default().push_back(Resting { link, since, until: since + time });
        shelves.resting += 1;
        if !std::mem::replace(&mut shelves.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(&self.shelves)));
        }
        drop(shelves);
        // To close it is the kernel's work: not while others wait.
        drop(gone);
    }
}

impl Shelves {
    fn take(&mut self, key: u64) -> Option<Resting> {
        let resting = self.by_key.get_mut(&key)?.pop_back()?;
        self.resting -= 1;
        Some(resting)
    }

    /// The longest resting of this key; without one, of some other.
    fn any(&mut self, key: u64) -> Option<Resting> {
        let of_key = self.by_key.get_mut(&key).and_then(VecDeque::pop_front);
        let resting = of_key.or_else(|| self.by_key.values_mut().find_map(VecDeque::pop_front))?;
        self.resting -= 1;
        Some(resting)
    }

    /// Takes out those of a key that are of no use any more. Whoever rests for less than a pause is in use, and looked at
    /// by whoever takes it.
    fn spent(&mut self, key: u64, now: Instant) -> Vec<Resting> {
        let Some(shelf) = self.by_key.get_mut(&key) else { return Vec::new() };
        let resting = shelf.partition_point(|resting| resting.since + PAUSE <= now);
        let mut spent = Vec::new();
        for _ in 0..resting {
            let Some(mut first) = shelf.pop_front() else { break };
            if first.is_good(now) { shelf.push_back(first) } else { spent.push(first) }
        }
        // Those that are in use have come to the front.
        let in_use = shelf.len() - (resting - spent.len());
        shelf.rotate_left(in_use);
        if shelf.is_empty() {
            self.by_key.remove(&key);
        }
        self.resting -= spent.len();
        spent
    }
}

/// As long as there are any.
async fn sweep(shelves: Weak<Mutex<Shelves>>) {
    let mut goes_on = true;
    while goes_on {
        tokio::time::sleep(PAUSE).await;
        let Some(shelves) = shelves.upgrade() else { return };
        let keys: Vec<u64> = lock(&shelves).by_key.keys().copied().collect();
        for key in keys {
            // One kind of server at a time, and closed when the lock is free again.
            let spent = lock(&shelves).spent(key, Instant::now());
            drop(spent);
        }
        let mut shelves = lock(&shelves);
        goes_on = shelves.resting > 0;
        shelves.is_swept = goes_on;
    }
}

fn lock(shelves: &Mutex<Shelves>) -> MutexGuard<'_, Shelves> {
    shelves.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use pingora_core::protocols::l4::stream::Stream;

    use super::*;

    const LATER: Duration = Duration::from_secs(60);

    struct Servers {
        listener: TcpListener,
        /// The servers' ends.
        ends: Vec<TcpStream>,
    }

    impl Servers {
        fn new() -> Self {
            Self { listener: TcpListener::bind("127.0.0.1:0").unwrap(), ends: Vec::new() }
        }

        fn connect(&mut self) -> Link {
            let ours = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
            ours.set_nonblocking(true).unwrap();
            self.ends.push(self.listener.accept().unwrap().0);
            Link::new(Box::new(Stream::from(tokio::net::TcpStream::from_std(ours).unwrap())))
        }
    }

    fn resting(idle: &Idle) -> usize {
        lock(&idle.shelves).resting
    }

    #[tokio::test]
    async fn a_connection_is_taken_once_and_for_its_own_kind_of_server() {
        let (mut servers, idle, now) = (Servers::new(), Idle::new(9), Instant::now());
        idle.keep(1, servers.connect(), now, LATER);
        assert!(idle.take(2, now).is_none());
        assert!(idle.take(1, now).is_some());
        assert!(idle.take(1, now).is_none());
        assert_eq!(resting(&idle), 0);
    }

    #[tokio::test]
    async fn one_whose_time_is_up_is_not_taken() {
        let (mut servers, idle, now) = (Servers::new(), Idle::new(9), Instant::now());
        idle.keep(1, servers.connect(), now, LATER);
        assert!(idle.take(1, now + LATER).is_none());
        assert_eq!(resting(&idle), 0);
    }

    #[tokio::test]
    async fn one_that_was_closed_or_on_which_something_came_is_not_taken() {
        for says in [&b""[..], b"HTTP/1.1 408 Request Timeout\r\n\r\n"] {
            let (mut servers, idle, now) = (Servers::new(), Idle::new(9), Instant::now());
            idle.keep(1, servers.connect(), now, LATER);
            idle.keep(1, servers.connect(), now, LATER);
            let mut end = servers.ends.pop().unwrap();
            end.write_all(says).unwrap();
            let open = Some(end).filter(|_| !says.is_empty());
            // Until the kernel has told.
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(idle.take(1, now).is_some(), "the other one");
            assert!(idle.take(1, now).is_none());
            drop(open);
        }
    }

    #[tokio::test]
    async fn of_many_that_were_closed_none_is_taken_and_all_are_swept() {
        // More than a task of tokio's may do in one turn.
        const MANY: usize = 300;
        let (mut servers, idle, now) = (Servers::new(), Idle::new(2 * MANY), Instant::now());
        (0..MANY).for_each(|_| idle.keep(1, servers.connect(), now, LATER));
        servers.ends.clear();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(idle.take(1, now).is_none());
        (0..MANY).for_each(|_| idle.keep(1, servers.connect(), now, LATER));
        let good = servers.ends.split_off(MANY - 1);
        servers.ends.clear();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let spent = lock(&idle.shelves).spent(1, now + PAUSE);
        assert_eq!((spent.len(), resting(&idle)), (MANY - 1, good.len()));
    }

    #[tokio::test]
    async fn the_sweep_leaves_alone_what_is_in_use_and_the_order() {
        let (mut servers, idle, now) = (Servers::new(), Idle::new(9), Instant::now());
        for times in 0..4 {
            idle.keep(1, servers.connect(), now + times * PAUSE, LATER);
        }
        servers.ends.remove(1);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut shelves = lock(&idle.shelves);
        assert_eq!(shelves.spent(1, now + 2 * PAUSE).len(), 1);
        let since: Vec<_> = shelves.by_key[&1].iter().map(|resting| resting.since).collect();
        assert_eq!(since, [now, now + 2 * PAUSE, now + 3 * PAUSE]);
    }

    #[tokio::test]
    async fn where_there_is_no_more_room_one_goes() {
        let (mut servers, idle, now) = (Servers::new(), Idle::new(2), Instant::now());
        for key in [1, 2, 2, 3] {
            idle.keep(key, servers.connect(), now, LATER);
        }
        assert_eq!(resting(&idle), 2);
        assert!(idle.take(3, now).is_some(), "whoever came last has room");
    }

    #[tokio::test]
    async fn those_that_nobody_takes_are_closed_and_then_nobody_looks_any_more() {
        let (mut servers, idle, now) = (Servers::new(), Idle::new(9), Instant::now());
        idle.keep(1, servers.connect(), now, LATER);
        idle.keep(1, servers.connect(), now, Duration::ZERO);
        drop(servers.ends.remove(0));
        while lock(&idle.shelves).is_swept {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(resting(&idle), 0);
        assert!(lock(&idle.shelves).by_key.is_empty());
        idle.keep(1, servers.connect(), now, LATER);
        assert!(lock(&idle.shelves).is_swept, "and again when there is one");
    }
}
