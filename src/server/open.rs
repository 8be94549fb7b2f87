//! What an edge opens at its start: logs, the session store, the user directory, and what outlives a reload.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::StartError;
use super::hint_file::HintFile;
use super::layout_history::LayoutHistory;
use super::stores;
use crate::access_log::AccessLog;
use crate::admin::status::ListenerStatus;
use crate::audit_log::AuditLog;
use crate::auth::streams::Streams;
use crate::blocking::BlockingThreads;
use crate::clock::Clock;
use crate::config::{Config, Sessions};
use crate::listener::BoundListeners;
use crate::log_writer::{self, GATHER, Logs};
use crate::maintenance::MaintenanceSwitches;
use crate::metrics::Metrics;
use crate::snapshot::SharedState;
use crate::upstream::resolver::Resolver;

/// Opens the user directory and makes what outlives a snapshot.
pub fn shared_state(
    config: &Config,
    store: &stores::Store,
    clock: Clock,
    metrics: Arc<Metrics>,
    audit: Arc<AuditLog>,
    (names, blocking): (Resolver, Arc<BlockingThreads>),
) -> Result<SharedState, StartError> {
    let directory = stores::open_sign_on(config, &clock, &metrics)?;
    Ok(SharedState {
        store: Arc::clone(&store.sessions),
        sessions_are_checked: !matches!(config.sessions, Sessions::None),
        seen: Arc::default(),
        streams: Arc::new(Streams::new(metrics.traffic.streams.clone())),
        rates: Arc::default(),
        users: Arc::new(stores::watch_users(config, Arc::clone(&directory), &clock, &metrics)?),
        logins: Arc::new(stores::login_pool(config, directory)?),
        maintenance: Arc::new(MaintenanceSwitches::new(metrics.traffic.maintenance.clone())),
        blocking,
        clock,
        metrics,
        audit,
        private: Arc::default(),
        servers: Arc::default(),
        names,
    })
}

pub fn listener_statuses(bound: &BoundListeners) -> Vec<ListenerStatus> {
    let https = bound.https.iter().map(|(bound, _)| ("https", bound.address));
    let http = bound.http.iter().map(|bound| ("http", bound.address));
    let all = https.chain(http).chain([("admin", bound.admin.address)]);
    all.map(|(protocol, address)| ListenerStatus { protocol, address }).collect()
}

pub fn logs(config: &Config, logs: &Logs, metrics: &Metrics) -> Result<(Arc<AccessLog>, Arc<AuditLog>), StartError> {
    let open = |target, name, gather| logs.open(target, name, gather).map_err(StartError::Log);
    let access = AccessLog::new(open(&config.log.access, log_writer::ACCESS, GATHER)?);
    let audit = open(&config.log.audit, log_writer::AUDIT, Duration::ZERO)?;
    let audit =
        AuditLog::new(audit, config.log.audit_on_write_error, metrics.operation.audit_events_suppressed.clone());
    log::debug!("start: logs opened");
    Ok((Arc::new(access), Arc::new(audit)))
}

/// Opens the session store, with the layouts before this one, and takes over the hints of processes that have ended.
pub fn store(
    config: &Config,
    file: &Path,
    clock: &Clock,
    metrics: &Metrics,
    runtime: &Runtime,
) -> Result<(stores::Store, Arc<HintFile>), StartError> {
    let store = stores::session_store(&config.sessions, clock, metrics)?;
    let former = LayoutHistory::of(config, file).record_current(config, clock.now());
    store.remember(config, &former, metrics).map_err(|error| StartError::Store(error.to_string()))?;
    let hint_file = HintFile::begin(HintFile::of(config, file), store.cluster.as_ref(), clock, runtime);
    log::debug!("start: session store ready previous_layouts={}", former.len());
    Ok((store, hint_file))
}
