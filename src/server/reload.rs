//! Reload: the configuration file read again and swapped in whole, or refused whole.

use std::path::PathBuf;
use std::sync::Arc;

use super::layout_history::LayoutHistory;
use super::{Edge, check};
use crate::admin::api::AdminTokens;
use crate::admin::reload::ReloadOutcome;
use crate::blocking::BlockingThreads;
use crate::clock::Clock;
use crate::config::{self, Config, Faults, Sessions};
use crate::snapshot::{LoadedFiles, Snapshot};
use crate::tls::Certificates;
use crate::upstream::resolver::Resolver;

/// The files that a reload reads. Reading may wait for a file server that does not answer, so a running process has a
/// thread for it.
pub struct Reload {
    file: PathBuf,
    clock: Clock,
    /// Those that are served.
    certificates: Arc<Certificates>,
    names: Resolver,
    threads: Arc<BlockingThreads>,
}

/// The result of reading them.
pub struct ReloadedFiles(Result<Loaded, Faults>);

struct Loaded {
    config: Config,
    files: LoadedFiles,
    tokens: Option<AdminTokens>,
    /// Warnings alone.
    faults: Faults,
}

impl Reload {
    pub fn read(self) -> ReloadedFiles {
        ReloadedFiles(self.try_read())
    }

    fn try_read(&self) -> Result<Loaded, Faults> {
        let (config, mut faults) = config::read(&self.file)?;
        let loaded =
            LoadedFiles::read(&config, &self.clock, &self.certificates, &self.names, &self.threads, &mut faults);
        let tokens = AdminTokens::read(&config.server.admin, &mut faults);
        match (faults.is_empty(), loaded) {
            (true, Some(files)) => Ok(Loaded { config, files, tokens, faults }),
            _ => Err(faults),
        }
    }
}

impl Edge {
    /// Reloads the configuration. The previous one stays in use when the file has any fault. Returns the changed keys
    /// that take effect only after a restart.
    pub fn reload(&mut self) -> Result<Vec<&'static str>, Faults> {
        let read = self.begin_reload().read();
        self.end_reload(read)
    }

    /// The first half of a reload, which needs no edge.
    pub fn begin_reload(&self) -> Reload {
        // A directory that was put in its place is seen without a signal too, a little later.
        self.shared.users.read_now();
        Reload {
            file: self.file.clone(),
            clock: self.shared.clock.clone(),
            certificates: self.tls.certificates(),
            names: self.shared.names.clone(),
            threads: Arc::clone(&self.shared.blocking),
        }
    }

    /// The second half.
    pub fn end_reload(&mut self, ReloadedFiles(read): ReloadedFiles) -> Result<Vec<&'static str>, Faults> {
        match read {
            Ok(read) => {
                let (hash, warnings) = (read.faults.hash.clone(), read.faults.reports());
                let restart_required = self.apply(read);
                let in_effect = ReloadOutcome::InEffect { hash, restart_required: restart_required.clone(), warnings };
                self.note_reload(in_effect);
                Ok(restart_required)
            }
            Err(faults) => {
                self.note_reload(ReloadOutcome::Refused(faults.reports()));
                Err(faults)
            }
        }
    }

    /// The reload has failed: its files could not be read in time.
    pub fn fail_reload(&self, why: &str) {
        self.note_reload(ReloadOutcome::Failed(why.to_owned()));
    }

    fn note_reload(&self, outcome: ReloadOutcome) {
        if let ReloadOutcome::InEffect { hash, .. } = &outcome {
            self.shared.metrics.operation.config_loaded(hash, Some(&self.status.hash()));
        }
        self.count_reload(matches!(outcome, ReloadOutcome::InEffect { .. }));
        self.status.reloaded(self.shared.clock.now(), outcome);
    }

    fn count_reload(&self, succeeded: bool) {
        let metrics = &self.shared.metrics;
        metrics.operation.config_reloads.with_label_values(&[if succeeded { "ok" } else { "refused" }]).inc();
        metrics.operation.config_last_reload_successful.set(i64::from(succeeded));
        if succeeded {
            let now = self.shared.clock.now().seconds();
            metrics.operation.config_last_reload_timestamp.set(i64::try_from(now).unwrap_or(i64::MAX));
        }
    }

    fn apply(&mut self, loaded: Loaded) -> Vec<&'static str> {
        let Loaded { config, files: LoadedFiles { tls, files }, tokens, faults } = loaded;
        check::warn(&faults.warnings());
        let snapshot = Snapshot::build(&config, files, &self.shared, &self.ports);
        let config = Arc::new(config);
        // First: who read files by the configuration before has to see that it is no longer the day's.
        let before = self.config.swap(Arc::clone(&config));
        tls.certificates.publish(&self.shared.metrics);
        if let Err(error) = self.tls.renew(tls) {
            // It depends on nothing that a file says, so this cannot be either.
            log::error!("cannot apply the TLS settings, the previous ones stay: {error}");
        }
        self.snapshot.store(Arc::new(snapshot));
        self.tokens.store(tokens.map(Arc::new));
        // After the snapshot, so that requests of the new one begin with the servers that it has.
        self.shared.servers.retain(&config.pools, &self.shared.metrics.traffic);
        for service in before.services.iter().filter(|service| !config.services.iter().any(|s| s.name == service.name))
        {
            self.shared.metrics.forget_service(&service.name);
        }
        match self.store.set_nodes(&config, &self.shared.metrics) {
            Ok(()) => drop(LayoutHistory::of(&config, &self.file).record_current(&config, self.shared.clock.now())),
            // Its addresses were looked at above, so this cannot be.
            Err(error) => log::error!("cannot apply the list of session servers, the previous one stays: {error}"),
        }
        let mut keys = needs_restart(&self.started_with, &config);
        if !self.has_api && !config.server.admin.tokens.is_empty() {
            keys.push("server.admin.tokens");
        }
        keys
    }
}

/// Returns the part of the session store's settings that cannot change in place: everything but its list of servers.
fn restart_only_settings(sessions: &Sessions) -> Sessions {
    match sessions {
        Sessions::Memcached { timeout, sign_on_timeout, .. } => Sessions::Memcached {
            servers: Vec::new(),
            former: Vec::new(),
            copies: 1,
            timeout: *timeout,
            sign_on_timeout: *sign_on_timeout,
        },
        others => others.clone(),
    }
}

/// Keys whose new value does not take effect in place.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    /// The name of a key, if its value has changed.
    fn changed<T: PartialEq>(key: &'static str, old: &T, new: &T) -> Option<&'static str> {
        (old != new).then_some(key)
    }
    let (limits, new_limits) = (&old.server.limits, &new.server.limits);
    let (timeouts, new_timeouts) = (&old.server.timeouts, &new.server.timeouts);
    let (login, new_login) = (&old.sentry.login, &new.sentry.login);
    [
        changed("server.listeners", &old.server.listeners, &new.server.listeners),
        changed("server.admin.address", &old.server.admin.address, &new.server.admin.address),
        changed("server.runtime_dir", &old.server.runtime_dir, &new.server.runtime_dir),
        changed("server.threads", &old.server.threads, &new.server.threads),
        changed("server.limits.connections", &limits.connections, &new_limits.connections),
        changed("server.limits.buffer_bytes", &limits.buffer_bytes, &new_limits.buffer_bytes),
        changed(
            "server.limits.buffer_bytes_per_address",
            &limits.buffer_bytes_per_address,
            &new_limits.buffer_bytes_per_address,
        ),
        changed("server.timeouts.tls_handshake", &timeouts.tls_handshake, &new_timeouts.tls_handshake),
        // HTTP/1 connections take the new value, HTTP/2 connections keep the one that they began with.
        changed("server.timeouts.keepalive", &timeouts.keepalive, &new_timeouts.keepalive),
        changed("sentry.login.workers", &login.workers, &new_login.workers),
        changed("sentry.login.queue", &login.queue, &new_login.queue),
        changed("sentry.login.deadline", &login.deadline, &new_login.deadline),
        changed("tls.tickets.rotation", &old.tls.tickets.rotation, &new.tls.tickets.rotation),
        changed("sessions.store", &restart_only_settings(&old.sessions), &restart_only_settings(&new.sessions)),
        changed("users", &old.users, &new.users),
        changed("log", &old.log, &new.log),
    ]
    .into_iter()
    .flatten()
    .collect()
}
