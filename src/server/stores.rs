//! The session store and the user directory, opened as the configuration says.

use std::sync::Arc;
use std::time::Duration;

use super::StartError;
use crate::clock::Clock;
use crate::config::{Config, MemcachedServer as Listed, Sessions};
use crate::metrics::{Metrics, StoreMetrics};
use crate::sessions::SessionStore;
use crate::sessions::instrumented::{Instrumented, StoreMonitors};
use crate::sessions::memcached::{InvalidAddress, MemcachedServer, Settings};
use crate::sessions::memory::MemoryStore;
use crate::sessions::replicated::{Cluster, NodeConfig, PreviousLayout};
use crate::sessions::stateless::StatelessStore;
use crate::users::changes::DirectoryChanges;
use crate::users::instrumented::Instrumented as InstrumentedDirectory;
use crate::users::login::{LoginLimits, LoginPool};
use crate::users::{self, OpenDirectory, UserDirectory, UserRegistry};

/// After a change of the servers, how long the previous layouts are read at least. To read them longer than a session
/// may be idle does no harm.
const MIN_LAYOUT_RETENTION: Duration = Duration::from_secs(60 * 60);

/// Tickets, and as many counters, that are kept in this process with `store: none`.
const STATELESS_CAPACITY: usize = 100_000;

/// The session store and, where it has servers whose list may change, the same once more.
pub struct Store {
    pub sessions: Arc<dyn SessionStore>,
    pub cluster: Option<Arc<Cluster<MemcachedServer>>>,
}

pub fn session_store(sessions: &Sessions, clock: &Clock, metrics: &Metrics) -> Result<Store, StartError> {
    let metrics = &metrics.sign_on.store;
    let monitors = StoreMonitors::new(metrics, clock);
    let alone = |sessions: Arc<dyn SessionStore>| Store { sessions, cluster: None };
    Ok(match sessions {
        Sessions::Memory { capacity } => {
            alone(Arc::new(Instrumented::new(MemoryStore::new(clock.clone(), *capacity), "memory", &monitors)))
        }
        // Tickets and failure counters still need a place; sessions are not kept at all.
        Sessions::None => {
            let memory = MemoryStore::new(clock.clone(), STATELESS_CAPACITY);
            alone(Arc::new(Instrumented::new(StatelessStore::new(memory), "none", &monitors)))
        }
        Sessions::Memcached { servers, copies, timeout, sign_on_timeout, .. } => {
            let connect = |server: &NodeConfig| connect(server, [*timeout, *sign_on_timeout], metrics);
            let cluster = Cluster::new(&server_list(servers), *copies, clock.clone(), metrics, connect)
                .map_err(|error| StartError::Store(error.to_string()))?;
            let cluster = Arc::new(cluster);
            Store { sessions: Arc::clone(&cluster) as Arc<dyn SessionStore>, cluster: Some(cluster) }
        }
    })
}

impl Store {
    /// Applies another list of servers. Whether sessions are kept on servers at all cannot change in place, nor can the
    /// timeouts of servers that stay.
    pub fn set_nodes(&self, config: &Config, metrics: &Metrics) -> Result<(), InvalidAddress> {
        let (Some(cluster), Sessions::Memcached { servers, copies, timeout, sign_on_timeout, .. }) =
            (&self.cluster, &config.sessions)
        else {
            return Ok(());
        };
        let metrics = &metrics.sign_on.store;
        let connect = |server: &NodeConfig| connect(server, [*timeout, *sign_on_timeout], metrics);
        cluster.set_nodes(&server_list(servers), *copies, layout_retention(config), connect)
    }

    /// Adds previous layouts that are read as well: those that this machine has had (`recorded`) and those that the
    /// configuration names.
    pub fn remember(
        &self,
        config: &Config,
        recorded: &[PreviousLayout],
        metrics: &Metrics,
    ) -> Result<(), InvalidAddress> {
        let (Some(cluster), Sessions::Memcached { former, copies, timeout, sign_on_timeout, .. }) =
            (&self.cluster, &config.sessions)
        else {
            return Ok(());
        };
        let metrics = &metrics.sign_on.store;
        let named = former.iter().map(|servers| PreviousLayout {
            servers: server_list(servers),
            copies: *copies,
            keep: layout_retention(config),
        });
        let all: Vec<PreviousLayout> = recorded.iter().cloned().chain(named).collect();
        cluster.add_previous_layouts(&all, |server| connect(server, [*timeout, *sign_on_timeout], metrics))
    }
}

/// How long a previous layout is read: as long as a session that is stored there may be idle.
pub fn layout_retention(config: &Config) -> Duration {
    let longest_idle = config.services.iter().map(|service| service.idle_timeout).max().unwrap_or_default();
    longest_idle.max(MIN_LAYOUT_RETENTION)
}

pub fn server_list(servers: &[Listed]) -> Vec<NodeConfig> {
    servers.iter().map(|server| NodeConfig { name: server.address.clone(), weight: server.weight }).collect()
}

fn connect(
    server: &NodeConfig,
    timeouts: [Duration; 2],
    metrics: &StoreMetrics,
) -> Result<MemcachedServer, InvalidAddress> {
    let [timeout, sign_on_timeout] = timeouts;
    MemcachedServer::new(&Settings { server: server.name.clone(), timeout, sign_on_timeout }, metrics)
}

fn open_users(config: &Config, clock: &Clock) -> Result<OpenDirectory, StartError> {
    users::open(&config.users.store, clock.clone()).map_err(|error| StartError::Users(error.in_full()))
}

/// Opens the directory for sign-on: logins and the reader of changes use it, and their operations are counted.
pub fn open_sign_on(config: &Config, clock: &Clock, metrics: &Metrics) -> Result<Arc<dyn UserDirectory>, StartError> {
    let directory = open_users(config, clock)?.sign_on;
    Ok(Arc::new(InstrumentedDirectory::new(directory, metrics.sign_on.directory.clone())))
}

/// Opens the directory once more for the admin API, so that an administrator's operation delays no login.
pub fn open_registry(config: &Config, clock: &Clock) -> Result<Arc<dyn UserRegistry>, StartError> {
    Ok(open_users(config, clock)?.registry)
}

pub fn login_pool(config: &Config, directory: Arc<dyn UserDirectory>) -> Result<LoginPool, StartError> {
    let login = &config.sentry.login;
    let limits = LoginLimits { workers: login.workers, queue: login.queue, deadline: login.deadline };
    LoginPool::start(directory, limits).map_err(StartError::Runtime)
}

pub fn watch_users(
    config: &Config,
    directory: Arc<dyn UserDirectory>,
    clock: &Clock,
    metrics: &Metrics,
) -> Result<DirectoryChanges, StartError> {
    let metrics = metrics.sign_on.directory.clone();
    DirectoryChanges::start(directory, config.users.refresh, clock.clone(), metrics).map_err(StartError::Runtime)
}
