//! The pool of idle connections to applications, for the fast path.
//!
//! Pingora's pool starts a task for each idle connection, to notice when the server closes it, and asks the kernel for the
//! peer's address whenever one is acquired. Here a connection is checked when it is acquired, and all of them once a
//! second by one sweeper task. That costs a request two look-ups in a map.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::connection::UpstreamConnection;

/// The time between two sweeps over all idle connections.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

pub struct IdlePool {
    state: Arc<Mutex<PoolState>>,
    /// The largest number of idle connections, over all keys.
    max_idle: usize,
}

#[derive(Default)]
struct PoolState {
    /// The key identifies a server and how it is connected to. The connection that has been idle for the longest is first.
    by_key: HashMap<u64, VecDeque<IdleConnection>, ahash::RandomState>,
    count: usize,
    /// Whether the sweeper task is running.
    has_sweeper: bool,
}

struct IdleConnection {
    connection: UpstreamConnection,
    since: Instant,
    until: Instant,
}

impl IdleConnection {
    fn is_usable(&mut self, now: Instant) -> bool {
        self.until > now && self.connection.is_idle()
    }
}

impl IdlePool {
    pub fn new(max_idle: usize) -> Self {
        Self { state: Arc::default(), max_idle }
    }

    /// Returns a connection with this key that is usable as far as the kernel knows. The one that was released last is
    /// tried first, as the server is the least likely to close it at this moment.
    pub fn acquire(&self, key: u64, now: Instant) -> Option<UpstreamConnection> {
        loop {
            let mut idle = lock(&self.state).acquire(key)?;
            if idle.is_usable(now) {
                return Some(idle.connection);
            }
        }
    }

    /// Puts a connection into the pool for at most `time`. Where the pool is full, another idle connection is closed.
    pub fn release(&self, key: u64, connection: UpstreamConnection, since: Instant, time: Duration) {
        let mut state = lock(&self.state);
        let evicted = if state.count < self.max_idle { None } else { state.evict_oldest(key) };
        state.by_key.entry(key).or_default().push_back(IdleConnection { connection, since, until: since + time });
        state.count += 1;
        if !std::mem::replace(&mut state.has_sweeper, true) {
            tokio::spawn(sweep(Arc::downgrade(&self.state)));
        }
        drop(state);
        // Closing a socket is a system call, so it happens after the lock is released.
        drop(evicted);
    }
}

impl PoolState {
    fn acquire(&mut self, key: u64) -> Option<IdleConnection> {
        let idle = self.by_key.get_mut(&key)?.pop_back()?;
        self.count -= 1;
        Some(idle)
    }

    /// Removes the connection of this key that has been idle for the longest; without one, that of some other key.
    fn evict_oldest(&mut self, key: u64) -> Option<IdleConnection> {
        let of_key = self.by_key.get_mut(&key).and_then(VecDeque::pop_front);
        let idle = of_key.or_else(|| self.by_key.values_mut().find_map(VecDeque::pop_front))?;
        self.count -= 1;
        Some(idle)
    }

    /// Removes the connections of a key that have expired or were closed by the server, and returns them, so that they are
    /// closed outside of the lock. A connection that was released less than `SWEEP_INTERVAL` ago is not looked at: it is
    /// likely to be acquired soon, which checks it.
    ///
    /// The queue is ordered by release time. It consists of `candidates` connections that are to be checked, followed by
    /// those that are too recent.
    fn evict_expired(&mut self, key: u64, now: Instant) -> Vec<IdleConnection> {
        let Some(connections) = self.by_key.get_mut(&key) else { return Vec::new() };
        let candidates = connections.partition_point(|idle| idle.since + SWEEP_INTERVAL <= now);
        let mut expired = Vec::new();
        // 1. Each candidate is taken from the front. A usable one goes to the back, so the candidates keep their order.
        for _ in 0..candidates {
            let Some(mut first) = connections.pop_front() else { break };
            if first.is_usable(now) { connections.push_back(first) } else { expired.push(first) }
        }
        // 2. Now the recent ones stand before the usable candidates. Rotating the queue by their number restores the order.
        let in_use = connections.len() - (candidates - expired.len());
        connections.rotate_left(in_use);
        // 3. A key without connections is removed, so that the map does not grow with servers that are gone.
        if connections.is_empty() {
            self.by_key.remove(&key);
        }
        self.count -= expired.len();
        expired
    }
}

/// Sweeps the pool once in `SWEEP_INTERVAL`, for as long as it has connections. `release` starts another sweeper.
async fn sweep(state: Weak<Mutex<PoolState>>) {
    let mut has_more = true;
    while has_more {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        let Some(state) = state.upgrade() else { return };
        let keys: Vec<u64> = lock(&state).by_key.keys().copied().collect();
        for key in keys {
            // The lock is held for one key at a time, and connections are closed after it is released.
            let expired = lock(&state).evict_expired(key, Instant::now());
            drop(expired);
        }
        let mut state = lock(&state);
        has_more = state.count > 0;
        state.has_sweeper = has_more;
    }
}

fn lock(state: &Mutex<PoolState>) -> MutexGuard<'_, PoolState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
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

        fn connect(&mut self) -> UpstreamConnection {
            let ours = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
            ours.set_nonblocking(true).unwrap();
            self.ends.push(self.listener.accept().unwrap().0);
            UpstreamConnection::new(Box::new(Stream::from(tokio::net::TcpStream::from_std(ours).unwrap())))
        }
    }

    fn count(pool: &IdlePool) -> usize {
        lock(&pool.state).count
    }

    #[tokio::test]
    async fn a_connection_is_taken_once_and_for_its_own_kind_of_server() {
        let (mut servers, idle, now) = (Servers::new(), IdlePool::new(9), Instant::now());
        idle.release(1, servers.connect(), now, LATER);
        assert!(idle.acquire(2, now).is_none());
        assert!(idle.acquire(1, now).is_some());
        assert!(idle.acquire(1, now).is_none());
        assert_eq!(count(&idle), 0);
    }

    #[tokio::test]
    async fn one_whose_time_is_up_is_not_taken() {
        let (mut servers, idle, now) = (Servers::new(), IdlePool::new(9), Instant::now());
        idle.release(1, servers.connect(), now, LATER);
        assert!(idle.acquire(1, now + LATER).is_none());
        assert_eq!(count(&idle), 0);
    }

    #[tokio::test]
    async fn one_that_was_closed_or_on_which_something_came_is_not_taken() {
        for says in [&b""[..], b"HTTP/1.1 408 Request Timeout\r\n\r\n"] {
            let (mut servers, idle, now) = (Servers::new(), IdlePool::new(9), Instant::now());
            idle.release(1, servers.connect(), now, LATER);
            idle.release(1, servers.connect(), now, LATER);
            let mut end = servers.ends.pop().unwrap();
            end.write_all(says).unwrap();
            let open = Some(end).filter(|_| !says.is_empty());
            // The kernel needs a moment to deliver it.
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(idle.acquire(1, now).is_some(), "the other one");
            assert!(idle.acquire(1, now).is_none());
            drop(open);
        }
    }

    #[tokio::test]
    async fn of_many_that_were_closed_none_is_taken_and_all_are_swept() {
        // More than a task of tokio's may do in one turn.
        const MANY: usize = 300;
        let (mut servers, idle, now) = (Servers::new(), IdlePool::new(2 * MANY), Instant::now());
        (0..MANY).for_each(|_| idle.release(1, servers.connect(), now, LATER));
        servers.ends.clear();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(idle.acquire(1, now).is_none());
        (0..MANY).for_each(|_| idle.release(1, servers.connect(), now, LATER));
        let good = servers.ends.split_off(MANY - 1);
        servers.ends.clear();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let expired = lock(&idle.state).evict_expired(1, now + SWEEP_INTERVAL);
        assert_eq!((expired.len(), count(&idle)), (MANY - 1, good.len()));
    }

    #[tokio::test]
    async fn the_sweep_leaves_alone_what_is_in_use_and_the_order() {
        let (mut servers, idle, now) = (Servers::new(), IdlePool::new(9), Instant::now());
        for times in 0..4 {
            idle.release(1, servers.connect(), now + times * SWEEP_INTERVAL, LATER);
        }
        servers.ends.remove(1);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut state = lock(&idle.state);
        assert_eq!(state.evict_expired(1, now + 2 * SWEEP_INTERVAL).len(), 1);
        let since: Vec<_> = state.by_key[&1].iter().map(|idle| idle.since).collect();
        assert_eq!(since, [now, now + 2 * SWEEP_INTERVAL, now + 3 * SWEEP_INTERVAL]);
    }

    #[tokio::test]
    async fn where_there_is_no_more_room_one_goes() {
        let (mut servers, idle, now) = (Servers::new(), IdlePool::new(2), Instant::now());
        for key in [1, 2, 2, 3] {
            idle.release(key, servers.connect(), now, LATER);
        }
        assert_eq!(count(&idle), 2);
        assert!(idle.acquire(3, now).is_some(), "the connection that was released last has room");
    }

    #[tokio::test]
    async fn idle_ones_are_closed_and_then_none_is_looked_for() {
        let (mut servers, idle, now) = (Servers::new(), IdlePool::new(9), Instant::now());
        idle.release(1, servers.connect(), now, LATER);
        idle.release(1, servers.connect(), now, Duration::ZERO);
        drop(servers.ends.remove(0));
        while lock(&idle.state).has_sweeper {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(count(&idle), 0);
        assert!(lock(&idle.state).by_key.is_empty());
        idle.release(1, servers.connect(), now, LATER);
        assert!(lock(&idle.state).has_sweeper, "and again when there is one");
    }
}
