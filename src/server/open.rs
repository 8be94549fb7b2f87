//! What an edge opens at its start: logs, the session store, the user directory, and what outlives a reload.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::control_socket::{self, ControlSocket};
use super::hint_file::HintFile;
use super::layout_history::LayoutHistory;
use super::upgrade::predecessor::TakenOver;
use super::{Options, StartError, stores};
use crate::access_log::AccessLog;
use crate::admin::status::ListenerStatus;
use crate::audit_log::AuditLog;
use crate::auth::streams::Streams;
use crate::blocking::BlockingThreads;
use crate::clock::Clock;
use crate::config::{Config, OutagePolicy, Sessions};
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
    bound.all().map(|(protocol, bound)| ListenerStatus { protocol, address: bound.address }).collect()
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

/// Opens the control socket, where the process has one, and goes on with the counts of a process that this one takes over
/// from.
pub fn control_socket(
    config: &Config,
    file: &Path,
    options: &Options,
    taken_over: Option<TakenOver>,
    metrics: &Metrics,
) -> Result<Option<ControlSocket>, StartError> {
    let inherited = taken_over.and_then(|TakenOver { control, upgrades }| {
        metrics.operation.set_upgrades(&upgrades);
        control
    });
    match options.control_socket {
        true => control_socket::open(config, file, inherited).map_err(StartError::ControlSocket),
        false => Ok(None),
    }
}

/// How long a process that takes over waits for the session store's first answer.
const STORE_TIMEOUT: Duration = Duration::from_secs(3);
const STORE_RETRY: Duration = Duration::from_millis(50);

/// Checks that a process which takes over from another one can decide requests, as `/readyz` has it: the other one goes
/// on otherwise.
pub fn check_store(config: &Config, store: &stores::Store, runtime: &Runtime) -> Result<(), StartError> {
    let needs_answer = matches!(config.on_outage, OutagePolicy::Deny);
    runtime.block_on(async {
        let deadline = Instant::now() + STORE_TIMEOUT;
        loop {
            match store.sessions.ping().await {
                Err(error) if error.is_unavailable() && Instant::now() < deadline => {
                    tokio::time::sleep(STORE_RETRY).await;
                }
                Err(error) if needs_answer || !error.is_unavailable() => {
                    return Err(StartError::Store(error.to_string()));
                }
                _ => return Ok(()),
            }
        }
    })
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
