//! Resolves the names of servers to all of their addresses, again and again.
//!
//! A configuration may name thousands of servers, and one whose DNS is away must not keep the others from being served: a
//! start and a reload wait for `START` at most, in all. A name without an address by then is left out and resolved
//! in the background, and what had addresses keeps them for as long as its DNS gives no other. The system's resolver may
//! block without a limit, so look-ups have threads of their own, a bounded number at a time.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::metrics::ResolverMetrics;

/// How long a start or a reload waits for names, in all.
const START: Duration = Duration::from_millis(500);
/// The pause between two look-ups of a name that has no address yet.
const RETRY: Duration = Duration::from_secs(1);
/// The interval at which due names are collected.
const TICK: Duration = Duration::from_millis(250);
/// Concurrent look-ups, each on a thread. As many names may hang without holding up the others.
const WORKERS: usize = 64;
/// The stack of such a thread. The system's resolver needs some tens of KiB.
const STACK_BYTES: usize = 512 << 10;
/// Addresses that are used of one name; more are left out.
const MAX_ADDRESSES: usize = 64;

/// Returns the addresses of a name, with any port.
pub type Lookup = Arc<dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// The names that are followed: those of the configuration that is served, and of one that is being read.
#[derive(Clone)]
pub struct Resolver {
    shared: Arc<Shared>,
}

struct Shared {
    lookup: Lookup,
    metrics: Option<ResolverMetrics>,
    state: Mutex<State>,
    /// Notified when a look-up has ended.
    answered: Condvar,
}

#[derive(Default)]
struct State {
    by_host: HashMap<String, Weak<ResolvedName>>,
    /// Names that wait for a look-up.
    waiting: VecDeque<Arc<ResolvedName>>,
    workers: usize,
    /// Workers that are in a look-up.
    resolving: usize,
}

/// A name and its addresses.
pub struct ResolvedName {
    host: String,
    /// With port 0 and sorted, so that the order of an answer makes no difference.
    addresses: ArcSwap<Vec<SocketAddr>>,
    /// Milliseconds between two look-ups.
    every: AtomicU64,
    progress: Mutex<Progress>,
}

struct Progress {
    /// Whether a look-up waits or runs.
    under_way: bool,
    /// Whether a look-up has ended, with or without addresses.
    is_answered: bool,
    /// Whether the last look-up failed.
    is_failing: bool,
    due: Instant,
}

impl ResolvedName {
    /// Returns the addresses of the last successful look-up, with port 0; empty before the first one.
    pub fn addresses(&self) -> arc_swap::Guard<Arc<Vec<SocketAddr>>> {
        self.addresses.load()
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn has_address(&self) -> bool {
        !self.addresses.load().is_empty()
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolver {
    /// Without a `lookup` the system's resolver is used.
    pub fn new(lookup: Option<Lookup>, metrics: Option<ResolverMetrics>) -> Self {
        let lookup = lookup.unwrap_or_else(|| Arc::new(|host: &str| Ok((host, 0).to_socket_addrs()?.collect())));
        Self { shared: Arc::new(Shared { lookup, metrics, state: Mutex::default(), answered: Condvar::new() }) }
    }

    /// Uses the system's resolver and no metrics.
    pub fn unobserved() -> Self {
        Self::new(None, None)
    }

    /// Follows a name for as long as the result is held. `every` is how often it is resolved.
    pub fn follow(&self, host: &str, every: Duration) -> Arc<ResolvedName> {
        self.shared.lock().name(host, every)
    }

    /// Follows all of these names, and waits for those that were never looked up, for `START` at most. The caller checks
    /// which of them have addresses.
    pub fn prepare(&self, wanted: &[(&str, Duration)]) -> Vec<Arc<ResolvedName>> {
        let deadline = Instant::now() + START;
        let mut state = self.shared.lock();
        let names: Vec<Arc<ResolvedName>> = wanted.iter().map(|(host, every)| state.name(host, *every)).collect();
        let mut open: Vec<&Arc<ResolvedName>> = names.iter().filter(|name| !name.progress().is_answered).collect();
        open.iter().for_each(|name| state.enqueue(name));
        self.shared.start_workers(&mut state);
        while let Some(name) = open.last() {
            if name.progress().is_answered {
                open.pop();
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.shared.answered.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        names
    }

    /// Resolves due names again, for as long as the runtime lasts.
    pub async fn run(self) {
        loop {
            tokio::time::sleep(TICK).await;
            self.enqueue_due(Instant::now());
        }
    }

    fn enqueue_due(&self, now: Instant) {
        let mut state = self.shared.lock();
        let mut due = Vec::new();
        state.by_host.retain(|host, name| match name.upgrade() {
            Some(name) => {
                if name.progress().due <= now {
                    due.push(name);
                }
                true
            }
            None => {
                if let Some(metrics) = &self.shared.metrics {
                    metrics.forget(host);
                }
                false
            }
        });
        due.iter().for_each(|name| state.enqueue(name));
        self.shared.start_workers(&mut state);
    }
}

impl State {
    fn name(&mut self, host: &str, every: Duration) -> Arc<ResolvedName> {
        let every = every.as_millis() as u64;
        if let Some(name) = self.by_host.get(host).and_then(Weak::upgrade) {
            name.every.store(every, Ordering::Relaxed);
            return name;
        }
        let progress = Progress { under_way: false, is_answered: false, is_failing: false, due: Instant::now() };
        let name = Arc::new(ResolvedName {
            host: host.to_owned(),
            addresses: ArcSwap::default(),
            every: every.into(),
            progress: progress.into(),
        });
        self.by_host.insert(host.to_owned(), Arc::downgrade(&name));
        name
    }

    /// Queues a look-up, unless one is under way: a resolver that hangs is not called twice for one name.
    fn enqueue(&mut self, name: &Arc<ResolvedName>) {
        if !std::mem::replace(&mut name.progress().under_way, true) {
            self.waiting.push_back(Arc::clone(name));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts as many workers as there are names that wait, and [`WORKERS`] at most in all, because a look-up may take
    /// long. Workers end when no name waits.
    fn start_workers(self: &Arc<Self>, state: &mut State) {
        while state.workers < WORKERS && state.workers - state.resolving < state.waiting.len() {
            let shared = Arc::clone(self);
            let thread = std::thread::Builder::new().name("names".into()).stack_size(STACK_BYTES);
            let started = thread.spawn(move || shared.work());
            if let Err(error) = started {
                // The names are taken by the running workers, or with the next tick.
                log::warn!("upstream: no thread to resolve names error={error}");
                return;
            }
            state.workers += 1;
        }
    }

    fn work(&self) {
        loop {
            let next = {
                let mut state = self.lock();
                let next = state.waiting.pop_front();
                match next {
                    Some(_) => state.resolving += 1,
                    None => state.workers -= 1,
                }
                next
            };
            let Some(name) = next else { return };
            let answer = (self.lookup)(&name.host);
            self.note(&name, answer);
            // Under the lock, so that a thread that has checked and is about to wait does not miss the notification.
            let mut state = self.lock();
            state.resolving -= 1;
            self.answered.notify_all();
        }
    }

    fn note(&self, name: &ResolvedName, answer: io::Result<Vec<SocketAddr>>) {
        let (addresses, error) = match answer {
            Ok(addresses) => (in_order(addresses), "no address".to_owned()),
            Err(error) => (Vec::new(), error.to_string()),
        };
        let (host, known) = (&name.host, name.addresses.load_full());
        let failed = addresses.is_empty();
        if let Some(metrics) = &self.metrics {
            metrics.note(host, failed, if failed { known.len() } else { addresses.len() });
        }
        let mut progress = name.progress();
        if failed && !progress.is_failing && !known.is_empty() {
            let kept = listed(&known);
            log::warn!("upstream: name does not resolve, its addresses are kept name={host} kept={kept} error={error}");
        }
        if !failed && *known != addresses {
            // The first answer after a start is not logged, unless a failed one came before it.
            if progress.is_answered {
                let now = listed(&addresses);
                log::info!("upstream: addresses of a name have changed name={host} addresses={now}");
            }
            name.addresses.store(Arc::new(addresses));
        } else if !failed && progress.is_failing {
            log::info!("upstream: name resolves again name={host}");
        }
        let every = Duration::from_millis(name.every.load(Ordering::Relaxed));
        let pause = if failed && known.is_empty() { RETRY.min(every) } else { every };
        *progress = Progress { under_way: false, is_answered: true, is_failing: failed, due: Instant::now() + pause };
    }
}

/// Returns the addresses for the log, without their port, which has no meaning.
fn listed(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(",")
}

fn in_order(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    addresses.iter_mut().for_each(|address| address.set_port(0));
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::metrics::Metrics;

    const EVERY: Duration = Duration::from_secs(10);

    fn names(lookup: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Resolver {
        Resolver::new(Some(Arc::new(lookup)), Some(Metrics::new("test").unwrap().traffic.names.clone()))
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// Resolves a name again as if the time between two look-ups had passed.
    fn resolve_again(names: &Resolver, name: &ResolvedName, is_done: impl Fn() -> bool) {
        name.progress().due = Instant::now();
        names.enqueue_due(Instant::now());
        let begun = Instant::now();
        while !is_done() {
            assert!(begun.elapsed() < Duration::from_secs(20));
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_system_knows_this_machine() {
        let names = Resolver::unobserved();
        let held = names.prepare(&[("localhost", EVERY), ("no-such-host.invalid", EVERY)]);
        assert!(held[0].has_address() && held[0].addresses().iter().all(|address| address.ip().is_loopback()));
        assert!(!held[1].has_address());
    }

    #[test]
    fn a_resolver_that_hangs_is_waited_for_once_and_not_called_again() {
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let (hang, hangs) = std::sync::mpsc::sync_channel::<()>(1);
        let hangs = Mutex::new(hangs);
        let names = names(move |host| {
            if host == "good" {
                return Ok(addresses(&["10.0.0.1:0"]));
            }
            count.fetch_add(1, Ordering::Relaxed);
            let _ = hangs.lock().unwrap().recv();
            Ok(addresses(&["10.0.0.9:0"]))
        });
        let held = names.prepare(&[("hangs", EVERY), ("good", EVERY)]);
        assert!(held[1].has_address(), "the others are there");
        assert!(!held[0].has_address());
        resolve_again(&names, &held[0], || true);
        let again = names.prepare(&[("hangs", EVERY)]);
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        drop(hang);
        resolve_again(&names, &again[0], || again[0].has_address());
    }

    #[test]
    fn a_question_that_hangs_holds_up_no_later_one() {
        let (hang, hangs) = std::sync::mpsc::sync_channel::<()>(1);
        let (begun, begins) = std::sync::mpsc::sync_channel::<()>(1);
        let (hangs, begun) = (Mutex::new(hangs), Mutex::new(begun));
        let names = names(move |host| {
            if host == "hangs" {
                begun.lock().unwrap().send(()).unwrap();
                let _ = hangs.lock().unwrap().recv();
            }
            Ok(addresses(&["10.0.0.1:0"]))
        });
        let _held = names.prepare(&[("hangs", EVERY)]);
        begins.recv().unwrap();
        let later = names.follow("later", EVERY);
        resolve_again(&names, &later, || later.has_address());
        drop(hang);
    }

    #[test]
    fn the_last_good_answer_is_kept_and_a_new_one_taken_up() {
        let answer = Arc::new(Mutex::new(Some(addresses(&["10.0.0.2:80", "[::1]:0", "10.0.0.1:0", "10.0.0.2:0"]))));
        let given = Arc::clone(&answer);
        let names = names(move |_| given.lock().unwrap().clone().ok_or_else(|| io::Error::other("away")));
        let name = names.prepare(&[("app", EVERY)]).pop().unwrap();
        let first = addresses(&["10.0.0.1:0", "10.0.0.2:0", "[::1]:0"]);
        assert_eq!(**name.addresses(), first);
        for none in [None, Some(Vec::new())] {
            *answer.lock().unwrap() = none;
            resolve_again(&names, &name, || name.progress().is_failing && !name.progress().under_way);
            assert_eq!(**name.addresses(), first);
        }
        *answer.lock().unwrap() = Some(addresses(&["10.0.0.3:0"]));
        resolve_again(&names, &name, || **name.addresses() == addresses(&["10.0.0.3:0"]));
        assert!(Arc::ptr_eq(&name, &names.follow("app", EVERY)), "a reload finds it as it is");
    }

    #[test]
    fn a_name_that_is_no_longer_held_is_forgotten() {
        let names = names(|_| Ok(addresses(&["10.0.0.1:0"])));
        let held = names.prepare(&[("app", EVERY); 40]);
        assert_eq!(names.shared.lock().by_host.len(), 1);
        drop(held);
        // The thread that has resolved it may hold it for a moment longer.
        let begun = Instant::now();
        while !names.shared.lock().by_host.is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(20));
            names.enqueue_due(Instant::now());
            std::thread::yield_now();
        }
    }
}
