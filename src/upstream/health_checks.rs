//! Active checks of servers (`pools.NAME.health`): one task checks the servers of all pools, a bounded number at a time.
//!
//! It follows the configuration that is served and the addresses of names: the checks of a server end with the reload that
//! removes it, and what is known of an address that stays is kept. An address is up until its checks say otherwise. Where
//! all addresses of a pool are down, all are used: checks may fail for a reason that is not the servers', such as their
//! path, and must not take an application away (`balance`).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use pingora_core::connectors::TransportConnector;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use super::health_check::{self, Failure};
use super::server_state::AddressState;
use super::{ConnectionUse, Endpoint, Pool};
use crate::config::HealthCheck;
use crate::metrics::{CheckMetrics, CheckResult, Metrics};

/// Checks that run at once. One that is due waits for a place.
const MAX_CONCURRENT: usize = 256;
/// How often the list of what is checked is brought up to date.
const FOLLOW: Duration = Duration::from_millis(250);

type Outcome = Result<(), Failure>;

/// An address of a server that is checked.
struct Target {
    pool: Arc<Pool>,
    endpoint: Endpoint,
    address: Arc<AddressState>,
    metrics: CheckMetrics,
    /// Checks in a row that differ from what is known.
    differing: u32,
    due: Instant,
    /// When the last check began.
    begun: Instant,
    running: Option<AbortHandle>,
}

/// Addresses by the place of their state in memory, which they keep over reloads.
type Key = usize;

struct Checks {
    metrics: Arc<Metrics>,
    targets: HashMap<Key, Target>,
    /// Those that no check runs for, by the moment of the next one.
    due: BTreeSet<(Instant, Key)>,
    running: JoinSet<(Key, Outcome)>,
    /// Pools of which all addresses are down.
    down: HashSet<String>,
}

/// Runs for as long as the runtime lasts. `pools` returns those of the configuration that is served.
pub async fn run(pools: impl Fn() -> Vec<Arc<Pool>>, metrics: Arc<Metrics>) {
    let connector = Arc::new(TransportConnector::new(None));
    let mut checks = Checks::new(metrics);
    let mut follow = tokio::time::interval(FOLLOW);
    follow.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let next = checks.due.first().filter(|_| checks.running.len() < MAX_CONCURRENT).map(|(due, _)| *due);
        tokio::select! {
            _ = follow.tick() => checks.follow(pools(), Instant::now()),
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            Some(ended) = checks.running.join_next() => checks.ended(ended),
        }
        checks.start(&connector, Instant::now());
    }
}

impl Checks {
    fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, targets: HashMap::new(), due: BTreeSet::new(), running: JoinSet::new(), down: HashSet::new() }
    }

    /// Takes up the addresses that there are now, and forgets those that there are no more.
    fn follow(&mut self, pools: Vec<Arc<Pool>>, now: Instant) {
        let mut present = HashSet::new();
        for pool in pools.into_iter().filter(|pool| pool.config.health.is_some()) {
            for (endpoint, address) in pool.addresses() {
                let key = Arc::as_ptr(&address) as Key;
                present.insert(key);
                self.take_up(key, &pool, endpoint, address, now);
            }
        }
        let gone: Vec<Key> = self.targets.keys().filter(|key| !present.contains(key)).copied().collect();
        for key in gone {
            self.forget(key);
        }
        self.look_at_pools();
    }

    fn take_up(&mut self, key: Key, pool: &Arc<Pool>, endpoint: Endpoint, address: Arc<AddressState>, now: Instant) {
        let Some(health) = &pool.config.health else { return };
        if let Some(target) = self.targets.get_mut(&key) {
            if Arc::ptr_eq(&target.pool, pool) {
                return;
            }
            (target.pool, target.endpoint) = (Arc::clone(pool), endpoint);
            // The interval may be shorter now.
            if target.running.is_none() && target.due > now + health.interval {
                self.due.remove(&(target.due, key));
                target.due = now + health.interval;
                self.due.insert((target.due, key));
            }
            return;
        }
        // Not all at once.
        let due = now + health.interval.mul_f64(fastrand::f64());
        let metrics = self.metrics.traffic.checks(&pool.config.name, &pool.server(endpoint.server).name);
        let pool = Arc::clone(pool);
        self.due.insert((due, key));
        let target = Target { pool, endpoint, address, metrics, differing: 0, due, begun: now, running: None };
        self.targets.insert(key, target);
    }

    /// The checks of an address end, and with them what they have found.
    fn forget(&mut self, key: Key) {
        let Some(target) = self.targets.remove(&key) else { return };
        self.due.remove(&(target.due, key));
        if let Some(running) = &target.running {
            running.abort();
        }
        target.address.set_down(false);
        let is_of_server =
            |other: &Target| other.pool.config.name == target.pool.config.name && other.server() == target.server();
        if !self.targets.values().any(is_of_server) {
            self.metrics.traffic.forget_checks(&target.pool.config.name, target.server());
        }
    }

    /// Starts checks that are due, as long as there are places.
    fn start(&mut self, connector: &Arc<TransportConnector>, now: Instant) {
        while self.running.len() < MAX_CONCURRENT {
            let Some((due, key)) = self.due.first().copied().filter(|(due, _)| *due <= now) else { return };
            self.due.remove(&(due, key));
            let Some(target) = self.targets.get_mut(&key) else { continue };
            let Some(health) = target.pool.config.health.clone() else { continue };
            // A connection that is closed afterwards.
            let peer = target.pool.peer(target.endpoint, None, ConnectionUse::Once, None);
            let host = host(&target.pool, target.endpoint);
            let connector = Arc::clone(connector);
            let check =
                async move { (key, health_check::check(&connector, peer, &health.check, &host, health.timeout).await) };
            target.begun = now;
            target.running = Some(self.running.spawn(check));
        }
    }

    fn ended(&mut self, ended: Result<(Key, Outcome), JoinError>) {
        match ended {
            Ok((key, outcome)) => self.note(key, outcome),
            Err(error) if error.is_cancelled() => {}
            Err(error) => {
                log::error!("upstream: a health check ended with a panic");
                let is_it = |target: &&Target| target.running.as_ref().map(AbortHandle::id) == Some(error.id());
                let key = self.targets.values().find(is_it).map(|target| Arc::as_ptr(&target.address) as Key);
                if let Some(key) = key {
                    self.note(key, Err(Failure::Error("panic".into())));
                }
            }
        }
    }

    /// Notes the outcome of a check, and when the next one is due.
    fn note(&mut self, key: Key, outcome: Outcome) {
        // It may have been forgotten, while the check had ended already.
        let Some(target) = self.targets.get_mut(&key) else { return };
        target.running = None;
        let Some(health) = target.pool.config.health.clone() else { return };
        target.due = Instant::now() + health.interval.mul_f64(0.9 + 0.2 * fastrand::f64());
        self.due.insert((target.due, key));
        target.metrics.count(match &outcome {
            Ok(()) => CheckResult::Passed,
            Err(Failure::Timeout) => CheckResult::TimedOut,
            Err(_) => CheckResult::Failed,
        });
        if outcome.is_ok() {
            let has_response = matches!(health.check, HealthCheck::Http { .. });
            target.pool.state.check_passed(&target.address, target.begun.into_std(), has_response);
        }
        if outcome.is_ok() != target.address.is_down() {
            target.differing = 0;
            return;
        }
        target.differing += 1;
        let enough = if outcome.is_ok() { health.rise } else { health.fall };
        if target.differing >= enough {
            target.differing = 0;
            target.change(&outcome, enough);
            self.look_at_pools();
        }
    }

    /// Says when all addresses of a pool are down.
    fn look_at_pools(&mut self) {
        let mut up: HashMap<&str, bool> = HashMap::new();
        for target in self.targets.values() {
            *up.entry(target.pool.config.name.as_str()).or_default() |= !target.address.is_down();
        }
        let down: HashSet<String> = up.into_iter().filter(|(_, up)| !up).map(|(pool, _)| pool.to_owned()).collect();
        for pool in down.difference(&self.down) {
            log::warn!("upstream: all servers of the pool fail their checks, and all of them are used pool={pool}");
        }
        self.down = down;
    }
}

impl Target {
    /// Returns the name of its server.
    fn server(&self) -> &str {
        &self.pool.server(self.endpoint.server).name
    }

    /// An address that was up is down, or the other way.
    fn change(&self, outcome: &Outcome, checks: u32) {
        self.address.set_down(outcome.is_err());
        let (pool, server) = (&self.pool.config.name, self.server());
        let at = &self.address.target;
        match outcome {
            Ok(()) => {
                self.address.slow_start.begin(std::time::Instant::now());
                log::warn!(
                    "upstream: server is up pool={pool} server={server} address={at} reason=check checks={checks}"
                );
            }
            Err(failure) => log::warn!(
                "upstream: server is down pool={pool} server={server} address={at} reason=check_{failure} checks={checks}"
            ),
        }
    }
}

/// Returns the `Host` of a check over HTTP.
fn host(pool: &Pool, endpoint: Endpoint) -> String {
    let configured = match pool.config.health.as_ref().map(|health| &health.check) {
        Some(HealthCheck::Http { host, .. }) => host.clone(),
        _ => None,
    };
    let server_name = || pool.config.tls.as_ref().and_then(|tls| tls.server_name.clone());
    let written = || match endpoint.address {
        Some(_) => pool.server(endpoint.server).name.clone(),
        // A Unix socket has no name that a host could be.
        None => "localhost".to_owned(),
    };
    configured.or_else(server_name).unwrap_or_else(written)
}
