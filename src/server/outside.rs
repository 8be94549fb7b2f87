//! What the edge has outside itself: the session store and the user directory, opened as the configuration says.

use std::sync::Arc;

use super::StartError;
use crate::clock::Clock;
use crate::config::{Config, Sessions, Users};
use crate::metrics::Metrics;
use crate::sessions::SessionStore;
use crate::sessions::memcached::{self, MemcachedStore};
use crate::sessions::memory::MemoryStore;
use crate::sessions::observed::Observed;
use crate::sessions::without::WithoutSessions;
use crate::users::login::{LoginLimits, LoginPool};
use crate::users::sqlite::SqliteDirectory;
use crate::users::watch::Watch;

/// Tickets, and as many counters, that fit into this process with `store: none`.
const TICKETS_WITHOUT_STORE: usize = 100_000;

pub fn session_store(
    sessions: &Sessions,
    clock: &Clock,
    metrics: &Metrics,
) -> Result<Arc<dyn SessionStore>, StartError> {
    Ok(match sessions {
        Sessions::Memory { capacity } => {
            Arc::new(Observed::new(MemoryStore::new(clock.clone(), *capacity), "memory", &metrics.sign_on.store))
        }
        // Tickets and failure counters still need a place; sessions are not kept at all.
        Sessions::None => {
            let memory = MemoryStore::new(clock.clone(), TICKETS_WITHOUT_STORE);
            Arc::new(Observed::new(WithoutSessions::new(memory), "none", &metrics.sign_on.store))
        }
        Sessions::Memcached { server, timeout } => {
            let store = MemcachedStore::new(&memcached::Settings { server: server.clone(), timeout: *timeout })
                .map_err(|error| StartError::Store(error.to_string()))?;
            Arc::new(Observed::new(store, server, &metrics.sign_on.store))
        }
    })
}

pub fn open_users(config: &Config, clock: &Clock) -> Result<Arc<SqliteDirectory>, StartError> {
    let Users::Sqlite { path, .. } = &config.users;
    // A mistyped path must not start an edge at which nobody can sign in.
    let directory = SqliteDirectory::open(path, clock.clone())
        .map_err(|error| StartError::Users(format!("{}: {}", path.display(), error.in_full())))?;
    Ok(Arc::new(directory))
}

pub fn login_pool(config: &Config, directory: Arc<SqliteDirectory>) -> Result<LoginPool, StartError> {
    let login = &config.sentry.login;
    let limits = LoginLimits { workers: login.workers, queue: login.queue, deadline: login.deadline };
    LoginPool::start(directory, limits).map_err(StartError::Runtime)
}

pub fn watch_users(config: &Config, directory: Arc<SqliteDirectory>, clock: &Clock) -> Result<Watch, StartError> {
    let Users::Sqlite { refresh, .. } = &config.users;
    Watch::start(directory, clock.clone(), config.sentry.token.lifetime, *refresh).map_err(StartError::Runtime)
}
