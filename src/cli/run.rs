//! `run`: serve until a signal says otherwise.
//!
//! The main thread handles signals and does nothing that could block; starting, reloading and draining the edge happen
//! on a thread of its own (`control`). So a signal takes effect at once, also while a start or a reload waits for a
//! disk or a name server.

mod control;
mod notify;
mod open_files;
mod reloads;
mod signals;
mod upgrade;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::{ConfigFile, Failure, output, warn};
use crate::admin::reload::{ReloadOutcome, ReloadRequest, ReloadRequests};
use crate::clock::Clock;
use crate::config::{Level, effective};
use crate::listener::inherited::InheritedSockets;
use crate::log_writer::{self, LogWriter, Logs};
use crate::metrics::LogMetrics;
use crate::server::ProcessContext;
use crate::server::upgrade::UPGRADE_VARIABLE;
use control::{ControlCommand, ControlEvent, ControlThread};
use notify::{EXTENSION_INTERVAL, Notifier, State};
use reloads::Reloads;
use signals::{SignalAction, Signals};
pub(super) use upgrade::Program;
use upgrade::{UpgradeOutcome, Upgrades};

/// The time beyond `server.drain` for requests that are cut off then.
const FORCE_TIMEOUT: Duration = Duration::from_secs(4);

#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    file: ConfigFile,
    /// Validate the configuration and exit.
    #[arg(short = 't', long = "test")]
    test: bool,
    /// Validate the configuration, print what is in effect, defaults included and secrets left out, and exit.
    #[arg(short = 'T', long = "test-and-print")]
    print: bool,
}

impl Run {
    pub fn run(self) -> Result<(), Failure> {
        let path = self.file.path()?;
        if self.test || self.print {
            let (config, warnings) = crate::server::check(path, &Clock::default()).map_err(Failure::because)?;
            warn(&warnings);
            return match self.print {
                true => output::print(effective::printed(path, &config).map_err(Failure::because)?.trim_end()),
                false => output::print(format_args!("{}: configuration OK", path.display())),
            };
        }
        let program = Program::of_this_process().map_err(Failure::because)?;
        serve(path, Some(program), |_| {})
    }
}

/// Serves a configuration until a signal ends it. `program` is what an upgrade starts, where there can be one. `started` is called once sockets listen, and must not wait.
pub(super) fn serve(path: &Path, program: Option<Program>, started: impl FnOnce(&[SocketAddr])) -> Result<(), Failure> {
    // Before anything is opened, which would get the numbers of descriptors that were not passed.
    let sockets = InheritedSockets::from_service_manager().map_err(Failure::because)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::because)?;
    // Before any work is done: no signal ends a process that is only starting by its default action.
    let signals = runtime.block_on(async { Signals::new() }).map_err(Failure::because)?;
    let logs = Logs::new(LogMetrics::new(&log_writer::NAMES).map_err(Failure::because)?);
    // This level applies until the configuration has been read, which may take long and so is not done here.
    let log = log_writer::process::install(&logs, Level::Info, Clock::default()).map_err(Failure::because)?;
    open_files::raise_limit();
    let (reload_requests, requests) = ReloadRequests::channel();
    let upgrade_socket = program.as_ref().and_then(|_| upgrade_socket());
    let context = ProcessContext { logs: logs.clone(), sockets, taken_over: None };
    let (control, events) = ControlThread::start(path.to_owned(), context, upgrade_socket, reload_requests)?;
    let process = Process {
        control,
        logs,
        signals,
        notifier: Notifier::start(),
        reloads: Reloads::default(),
        upgrades: Upgrades::new(program),
        drain: None,
        shutdown: None,
    };
    let result = runtime.block_on(process.run(events, requests, &log, started));
    // A resolver may still be at work for the edge, and is not waited for.
    runtime.shutdown_background();
    result
}

/// Returns where the process waits that has started this one to take over from it.
#[expect(clippy::disallowed_methods, reason = "one process says it to another, and no operator to either")]
fn upgrade_socket() -> Option<PathBuf> {
    std::env::var_os(UPGRADE_VARIABLE).map(PathBuf::from)
}

/// The process as its signals see it.
struct Process {
    control: ControlThread,
    logs: Logs,
    signals: Signals,
    notifier: Notifier,
    /// In progress, or waiting.
    reloads: Reloads,
    upgrades: Upgrades,
    /// How long a drain may take. `None` until the edge serves.
    drain: Option<Duration>,
    shutdown: Option<Shutdown>,
}

/// The process is ending.
struct Shutdown {
    force: Option<oneshot::Sender<()>>,
    deadline: Instant,
    /// When the service manager gets the next request for more time.
    extension: Option<Instant>,
}

impl Process {
    async fn run(
        mut self,
        mut events: mpsc::Receiver<ControlEvent>,
        mut requests: mpsc::Receiver<ReloadRequest>,
        log: &Arc<LogWriter>,
        started: impl FnOnce(&[SocketAddr]),
    ) -> Result<(), Failure> {
        let mut started = Some(started);
        let result = loop {
            let deadline = self.shutdown.as_ref().map(|end| end.deadline);
            let extension = self.shutdown.as_ref().and_then(|end| end.extension);
            tokio::select! {
                event = events.recv() => match event {
                    Some(ControlEvent::Started { https, drain, upgrade }) => {
                        self.drain = Some(drain);
                        self.upgrades.source = Some(upgrade);
                        self.notifier.send(State::Ready);
                        if let Some(started) = started.take() {
                            started(&https);
                        }
                    }
                    // Until now it was the other process's id that the manager knew.
                    Some(ControlEvent::Replaced) => self.notifier.send(State::ReadyAs(std::process::id())),
                    Some(ControlEvent::Reloaded { drain, outcome }) => self.reloaded(drain, &outcome),
                    Some(ControlEvent::Stopped) => break Ok(()),
                    Some(ControlEvent::Failed(text)) => {
                        log.write_text(&format!("{}\n", text.trim_end()));
                        break Err(Failure::Logged);
                    }
                    None => {
                        log::error!("the control thread has ended unexpectedly");
                        break Err(Failure::Logged);
                    }
                },
                Some(ReloadRequest(waiter)) = requests.recv() => self.reload_requested(waiter),
                outcome = self.upgrades.outcome(), if self.upgrades.is_under_way() => self.upgraded(&outcome),
                (name, action) = self.signals.next() => if self.handle_signal(&name, action) {
                    break Ok(());
                },
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    log::error!("the drain has timed out: exiting with requests in flight");
                    break Ok(());
                }
                () = sleep_until(extension.unwrap_or_else(Instant::now)), if extension.is_some() => self.extend(),
            }
        };
        self.upgrades.stopped().await;
        self.logs.close_with_process_log();
        result
    }

    /// Answers whether the process is to end at once.
    fn handle_signal(&mut self, name: &str, action: SignalAction) -> bool {
        match (action, &mut self.shutdown) {
            (SignalAction::StopNow, None) => {
                log::info!("{name}: stopped at once");
                return self.begin_shutdown(None);
            }
            (SignalAction::StopNow, Some(end)) => {
                log::info!("{name}: the drain ends here");
                // Dropped is as good as sent.
                drop(end.force.take());
                end.deadline = end.deadline.min(Instant::now() + FORCE_TIMEOUT);
            }
            (SignalAction::Drain, Some(_)) => log::info!("{name}: draining already; SIGINT stops at once"),
            (SignalAction::Drain, None) if self.drain.is_none() => {
                log::info!("{name}: stopped before it served");
                return true;
            }
            (SignalAction::Drain, None) => {
                log::info!("{name}: draining");
                return self.begin_shutdown(self.drain);
            }
            (SignalAction::Reload, Some(_)) => {
                log::info!("{name}: draining, so no reload; logs are opened again");
                self.logs.reopen();
            }
            (SignalAction::Reload, None) => {
                self.logs.reopen();
                if self.upgrades.is_under_way() {
                    log::warn!("{name}: no reload: an upgrade is under way; logs are opened again");
                    return false;
                }
                self.reload(None);
            }
            (SignalAction::Reopen, _) => {
                log::info!("{name}: logs are opened again");
                self.logs.reopen();
            }
            (SignalAction::Upgrade, shutdown) => {
                let is_draining = shutdown.is_some();
                self.upgrades.begin(name, is_draining);
            }
            (SignalAction::Ignore, _) => log::info!("{name}: means nothing here; nothing was done"),
        }
        false
    }

    /// `drain` is how long requests in flight may take; `None` cuts them at once. They are recorded in both cases. Answers
    /// whether the process is to end at once, because it does not serve yet.
    fn begin_shutdown(&mut self, drain: Option<Duration>) -> bool {
        if self.drain.is_none() {
            return true;
        }
        self.notifier.send(State::Stopping);
        self.begin_drain(drain, Some(Instant::now() + EXTENSION_INTERVAL), ControlCommand::Drain);
        false
    }

    /// An upgrade has ended.
    fn upgraded(&mut self, outcome: &UpgradeOutcome) {
        let UpgradeOutcome::Replaced(pid) = outcome else { return };
        // The service goes on, so its manager learns of no stop.
        self.notifier.send(State::ReadyAs(*pid));
        if self.shutdown.is_none() {
            self.begin_drain(self.drain, None, ControlCommand::Leave);
        }
    }

    /// `extension` is when more time is first requested of the service manager, where that waits for the end.
    fn begin_drain(
        &mut self,
        drain: Option<Duration>,
        extension: Option<Instant>,
        command: impl FnOnce(oneshot::Receiver<()>) -> ControlCommand,
    ) {
        self.reloads.stop();
        self.upgrades.stop();
        let (force, forced) = oneshot::channel();
        // There is always room: see `control::MAX_COMMANDS`.
        self.control.0.try_send(command(forced)).ok();
        let (force, deadline) = (drain.map(|_| force), Instant::now() + drain.unwrap_or_default() + FORCE_TIMEOUT);
        self.shutdown = Some(Shutdown { force, deadline, extension });
    }

    /// Has the service manager go on waiting for the end of the drain.
    fn extend(&mut self) {
        self.notifier.send(State::Draining);
        if let Some(end) = &mut self.shutdown {
            end.extension = Some(Instant::now() + EXTENSION_INTERVAL);
        }
    }

    /// A call of the API wants a reload, which does what SIGHUP does.
    fn reload_requested(&mut self, waiter: oneshot::Sender<ReloadOutcome>) {
        self.logs.reopen();
        match self.shutdown {
            // An error means that the caller has gone.
            Some(_) => drop(waiter.send(ReloadOutcome::Stopping)),
            None if self.upgrades.is_under_way() => {
                log::warn!("a reload was requested over the API: no reload: an upgrade is under way");
                let why = "an upgrade is under way; request it again when that has ended";
                drop(waiter.send(ReloadOutcome::Failed(why.into())));
            }
            None => {
                log::info!("a reload was requested over the API");
                self.reload(Some(waiter));
            }
        }
    }

    fn reload(&mut self, waiter: Option<oneshot::Sender<ReloadOutcome>>) {
        if self.reloads.request(waiter) {
            self.begin_reload();
        }
    }

    fn begin_reload(&mut self) {
        // There is always room: see `control::MAX_COMMANDS`.
        self.control.0.try_send(ControlCommand::Reload).ok();
        if self.drain.is_some() {
            self.notifier.send(State::Reloading);
        }
    }

    fn reloaded(&mut self, drain: Duration, outcome: &ReloadOutcome) {
        self.drain = Some(drain);
        // A drain that was requested meanwhile takes as long as the new configuration says.
        if let Some(end) = self.shutdown.as_mut().filter(|end| end.force.is_some()) {
            end.deadline = end.deadline.max(Instant::now() + drain + FORCE_TIMEOUT);
        }
        if self.reloads.end(outcome) {
            self.begin_reload();
        } else if self.shutdown.is_none() {
            self.notifier.send(State::Ready);
        }
    }
}
