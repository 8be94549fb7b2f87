//! The state of pools and of their servers, which outlives reloads, and the decision which addresses are ejected.
//!
//! An address is ejected when it has failed as often as `eject.failures` says, and only as many as
//! `eject.max_ejection_percent` allows, as more that fail at once may have a cause that is not theirs; never the last one.
//! Where there is a good backup server, all others may be ejected: this is what it is for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::ejection::{Failure, Standing};
use super::retry_budget::RetryBudget;
use super::server_state::{AddressState, ServerState};
use crate::config::{self, Eject};
use crate::metrics::{Metrics, RetryMetrics, TrafficMetrics};

/// The state of all pools. One process has one of these.
#[derive(Default)]
pub struct PoolStates {
    by_name: Mutex<HashMap<String, Arc<PoolState>, ahash::RandomState>>,
    out_of_turn: Arc<OutOfTurn>,
}

/// The state of one pool.
pub struct PoolState {
    name: String,
    servers: Mutex<BTreeMap<String, Arc<ServerState>>>,
    /// Held while it is decided whether an address is ejected, as that depends on the others.
    deciding: Mutex<()>,
    out_of_turn: Arc<OutOfTurn>,
    budget: RetryBudget,
    pub(super) retries: RetryMetrics,
}

/// The addresses that are ejected or the last resort: those that `probe` looks at.
#[derive(Default)]
pub struct OutOfTurn(Mutex<Vec<Weak<AddressState>>>);

impl PoolStates {
    /// Returns the state of a pool; a new one where there is none of this name.
    pub(super) fn pool(&self, name: &str, metrics: &Metrics) -> Arc<PoolState> {
        let mut by_name = lock(&self.by_name);
        if let Some(pool) = by_name.get(name) {
            return Arc::clone(pool);
        }
        let pool = Arc::new(PoolState {
            name: name.to_owned(),
            servers: Mutex::default(),
            deciding: Mutex::default(),
            out_of_turn: Arc::clone(&self.out_of_turn),
            budget: RetryBudget::default(),
            retries: metrics.traffic.retries(name),
        });
        by_name.insert(name.to_owned(), Arc::clone(&pool));
        pool
    }

    /// Returns the state of a server by its pool and by its address as the configuration writes it.
    pub fn server(&self, pool: &str, server: &str) -> Option<Arc<ServerState>> {
        let pool = lock(&self.by_name).get(pool).map(Arc::clone)?;
        lock(&pool.servers).get(server).map(Arc::clone)
    }

    /// Forgets pools and servers that are no longer configured, with their metrics. Requests that are under way there go on.
    pub fn retain(&self, configured: &[config::Pool], metrics: &TrafficMetrics) {
        let mut by_name = lock(&self.by_name);
        by_name.retain(|name, state| {
            let pool = configured.iter().find(|pool| pool.name == *name);
            let written = |server: &str| pool.is_some_and(|pool| pool.servers.iter().any(|other| other.name == server));
            lock(&state.servers).retain(|server, _| {
                let is_configured = written(server);
                if !is_configured {
                    metrics.forget_server(name, server);
                }
                is_configured
            });
            if pool.is_none() {
                metrics.forget_pool(name);
            }
            pool.is_some()
        });
    }

    pub(super) fn out_of_turn(&self) -> Arc<OutOfTurn> {
        Arc::clone(&self.out_of_turn)
    }
}

impl PoolState {
    /// Returns the state of a server; a new one where the pool has none of this name.
    pub(super) fn server(&self, name: &str, metrics: &Metrics) -> Arc<ServerState> {
        let mut servers = lock(&self.servers);
        let new = || Arc::new(ServerState::new(&self.name, name, metrics.traffic.upstream(&self.name, name)));
        Arc::clone(servers.entry(name.to_owned()).or_insert_with(new))
    }

    /// Notes that an attempt at an address has failed by the server's fault. `in_body`: its response had begun.
    pub fn failed(&self, address: &AddressState, failure: Failure, in_body: bool, pool: &config::Pool, attempt: Tried) {
        let Some(policy) = &pool.eject else { return };
        let Tried { is_trial, now } = attempt;
        // Of failures that come at once, one ejects.
        let _deciding = lock(&self.deciding);
        let has_enough = address.health.count_failure(failure, in_body, policy);
        let was = address.health.standing();
        // The request may have begun before the ejection, and then it is not news.
        let is_news = if was.takes_turns() { has_enough } else { is_trial };
        let Some(server) = address.server().filter(|_| is_news) else { return };
        let standing = if self.may_eject(address, policy) {
            Standing::Ejected
        } else if failure.is_of_connecting() {
            Standing::LastResort
        } else {
            Standing::Kept
        };
        let (name, of, at, reason) = (&self.name, server.name(), &address.target, failure.reason());
        if standing == Standing::Kept {
            address.health.keep();
            if was != standing {
                log::warn!(
                    "upstream: server fails and is not ejected, as too many are or it is the last one pool={name} \
                     server={of} address={at} reason={reason}"
                );
            }
        } else {
            let time = address.health.eject(standing, failure, now, policy, pool.timeouts.connect);
            let time = time.as_secs_f64();
            match (standing, was == standing) {
                (_, true) => log::debug!("upstream: server still fails pool={name} server={of} reason={reason}"),
                (Standing::Ejected, false) => {
                    server.metrics.ejected(failure.reason());
                    log::warn!(
                        "upstream: server ejected pool={name} server={of} address={at} reason={reason} for={time:.1}s"
                    );
                }
                _ => log::warn!(
                    "upstream: server cannot be connected to and gets requests only when no other may take them \
                     pool={name} server={of} address={at} reason={reason}"
                ),
            }
            self.out_of_turn.add(address);
        }
        server.publish_up();
    }

    /// Notes that a response has come from an address, to an attempt that began at `begun`.
    pub fn succeeded(&self, address: &AddressState, begun: Instant) {
        if address.health.is_troubled() {
            self.recovered(address, begun, "response");
        }
    }

    /// Notes that an address has passed an active check that began at `begun`. That ends its ejection: a check with a
    /// response is as good as a trial, and one that only connects shows that connections can be made again.
    pub(super) fn check_passed(&self, address: &AddressState, begun: Instant, has_response: bool) {
        let is_out = !address.health.standing().takes_turns();
        if is_out && (has_response || address.health.ejected_by().is_some_and(Failure::is_of_connecting)) {
            self.recovered(address, begun, "check");
        }
    }

    #[cold]
    fn recovered(&self, address: &AddressState, begun: Instant, reason: &str) {
        let _deciding = lock(&self.deciding);
        let (now, was_out) = (Instant::now(), !address.health.standing().takes_turns());
        if address.health.succeed(begun, now) {
            if was_out {
                address.slow_start.begin(now);
            }
            let Some(server) = address.server() else { return };
            server.publish_up();
            let (name, of, at) = (&self.name, server.name(), &address.target);
            log::warn!("upstream: server is back pool={name} server={of} address={at} reason={reason}");
        }
    }

    /// Notes that a response has come to its end.
    pub fn completed(&self, address: &AddressState) {
        if address.health.is_troubled() {
            address.health.complete();
        }
    }

    /// A request comes in, so the budget of retries moves on; `attempts` returns how many there have been at its servers.
    pub(super) fn roll_budget(&self, attempts: impl FnOnce() -> u64, now: Instant) {
        self.budget.roll(attempts, now);
    }

    /// Takes the permission for one retry; `attempts` is how many there have been at its servers.
    pub(super) fn take_retry(&self, attempts: u64, percent: u8, now: Instant) -> bool {
        let is_allowed = self.budget.take(attempts, percent, now);
        if !is_allowed {
            self.retries.over_budget.inc();
        }
        is_allowed
    }

    /// Whether one more address may be ejected, this one. `deciding` is held.
    fn may_eject(&self, address: &AddressState, policy: &Eject) -> bool {
        let servers: Vec<_> = lock(&self.servers).values().map(Arc::clone).collect();
        let is_backup = address.server().is_some_and(|server| server.is_backup());
        let (mut total, mut ejected, mut in_turn, mut has_good_backup) = (0, 0, 0, false);
        for server in servers.iter().filter(|server| server.is_active()) {
            for other in server.addresses().iter() {
                let (standing, is_other) = (other.health.standing(), !std::ptr::eq(&**other, address));
                if is_other && other.takes_turns() {
                    in_turn += 1;
                    has_good_backup |= server.is_backup() && other.is_good();
                }
                if server.is_backup() == is_backup {
                    total += 1;
                    ejected += usize::from(is_other && standing == Standing::Ejected);
                }
            }
        }
        let percent = usize::from(policy.max_ejection_percent);
        // One at least, as a part of a small pool would be none.
        let most = (total * percent / 100).max(usize::from(percent > 0));
        in_turn > 0 && (ejected < most || (has_good_backup && !is_backup && percent > 0))
    }
}

/// What is known of an attempt that failed.
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    pub is_trial: bool,
    pub now: Instant,
}

impl OutOfTurn {
    fn add(&self, address: &AddressState) {
        let Some(server) = address.server() else { return };
        let addresses = server.addresses();
        let Some(address) = addresses.iter().find(|other| std::ptr::eq(&***other, address)) else { return };
        let mut list = lock(&self.0);
        if !list.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(address))) {
            list.push(Arc::downgrade(address));
        }
    }

    /// Returns the addresses that are out of turn, and forgets those that are so no more.
    pub(super) fn addresses(&self) -> Vec<Arc<AddressState>> {
        let mut addresses = Vec::new();
        lock(&self.0).retain(|address| {
            let address = address.upgrade().filter(|address| !address.health.standing().takes_turns());
            addresses.extend(address.iter().map(Arc::clone));
            address.is_some()
        });
        addresses
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::server_state::Target;
    use super::super::tests::written;
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test's own thread")]
    fn of_failures_that_come_at_once_one_ejects() {
        let metrics = Metrics::new("test").unwrap();
        let pool = PoolStates::default().pool("p", &metrics);
        let servers = ["a:80", "b:80"].map(|name| pool.server(name, &metrics));
        let [address, _other] = [0, 1].map(|at| servers[at].fixed(Target::Address(([127, 0, 0, 1], at as u16).into())));
        let second = Duration::from_secs(1);
        let eject =
            Eject { failures: 1, r#for: second, at_most: second, max_ejection_percent: 50, statuses: Vec::new() };
        let written = config::Pool { eject: Some(eject), ..written(Vec::new()) };
        let fail = || {
            let tried = Tried { is_trial: false, now: Instant::now() };
            pool.failed(&address, Failure::Closed, false, &written, tried);
        };
        std::thread::scope(|scope| {
            // Both come while another decision is made.
            let deciding = lock(&pool.deciding);
            scope.spawn(fail);
            scope.spawn(fail);
            std::thread::sleep(Duration::from_millis(50));
            drop(deciding);
        });
        assert_eq!(address.health.standing(), Standing::Ejected);
        let scrape = String::from_utf8(metrics.scrape().unwrap()).unwrap();
        let ejections = "upstream_ejections_total{pool=\"p\",reason=\"closed\",server=\"a:80\"} 1\n";
        assert!(scrape.contains(ejections), "{scrape}");
    }
}
