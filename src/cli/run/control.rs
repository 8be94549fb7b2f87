//! The thread that owns the edge: it starts it, applies reloads, and drains it.
//!
//! The files that a reload reads may be on a file server that does not answer. So they are read on a thread of their
//! own, and neither the drain nor the next reload waits for that.

mod reads;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::{Failure, open_files};
use crate::admin::deadlines;
use crate::admin::reload::{ReloadOutcome, ReloadRequests};
use crate::clock::Clock;
use crate::log_writer::process;
use crate::server::upgrade::UpgradeSource;
use crate::server::upgrade::predecessor::Predecessor;
use crate::server::{Edge, Options, ProcessContext, ReloadedFiles};
use reads::FileReads;

/// The size of the thread's stack, the same as the main thread's.
const STACK_BYTES: usize = 8 << 20;

/// Orders that may wait: a reload, a drain, and what reloads have read.
const MAX_COMMANDS: usize = 16;

/// Commands to the control thread.
pub enum ControlCommand {
    Reload,
    /// The files that a reload has read, with its number.
    Read(u64, Box<ReloadedFiles>),
    /// Drains until it is done, or the sender sends or is dropped.
    Drain(oneshot::Receiver<()>),
    /// The same, while another process serves in the place of this one.
    Leave(oneshot::Receiver<()>),
}

/// What the control thread reports.
pub enum ControlEvent {
    Started {
        https: Vec<SocketAddr>,
        drain: Duration,
        upgrade: UpgradeSource,
    },
    /// This process serves in the place of the one before it.
    Replaced,
    Failed(String),
    Reloaded {
        drain: Duration,
        outcome: ReloadOutcome,
    },
    Stopped,
}

/// The thread that has the edge.
pub struct ControlThread(pub SyncSender<ControlCommand>);

impl ControlThread {
    /// `reloads` is where the edge's API requests reloads, and `upgrade_socket` where a process waits that this one takes
    /// over from.
    pub fn start(
        path: PathBuf,
        context: ProcessContext,
        upgrade_socket: Option<PathBuf>,
        reloads: ReloadRequests,
    ) -> Result<(Self, mpsc::Receiver<ControlEvent>), Failure> {
        let (orders, received) = sync_channel(MAX_COMMANDS);
        let (events, outcomes) = mpsc::channel(8);
        let own = orders.clone();
        std::thread::Builder::new()
            .name("control".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let started = start(&path, context, upgrade_socket.as_deref(), reloads);
                work(started, own, &received, events);
            })
            .map_err(Failure::because)?;
        Ok((Self(orders), outcomes))
    }
}

fn work(
    started: Result<(Edge, Option<Predecessor>), String>,
    own: SyncSender<ControlCommand>,
    orders: &Receiver<ControlCommand>,
    events: mpsc::Sender<ControlEvent>,
) {
    let (edge, predecessor) = match started {
        Ok(started) => started,
        Err(text) => {
            events.blocking_send(ControlEvent::Failed(text)).ok();
            return;
        }
    };
    log_start(&edge);
    let mut control = Control { edge, reads: FileReads::new(deadlines::RELOAD_FILES), own, events };
    control.send(ControlEvent::Started {
        https: control.edge.https_addresses().to_vec(),
        drain: control.edge.drain_time(),
        upgrade: control.edge.upgrade_source().clone(),
    });
    if let Some(predecessor) = predecessor {
        control.replace(predecessor);
    }
    loop {
        match control.next(orders) {
            Ok(ControlCommand::Reload) => control.reload(),
            Ok(ControlCommand::Read(number, read)) => control.apply(number, *read),
            Ok(ControlCommand::Drain(force)) => return control.drain(force, Edge::shutdown_gracefully),
            Ok(ControlCommand::Leave(force)) => return control.drain(force, Edge::leave_to_successor),
            Err(RecvTimeoutError::Timeout) => control.give_up(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// The configuration is read here and not on the thread that handles signals, because reading may hang as well.
fn start(
    path: &Path,
    mut context: ProcessContext,
    upgrade_socket: Option<&Path>,
    reloads: ReloadRequests,
) -> Result<(Edge, Option<Predecessor>), String> {
    let read = crate::config::read(path).map_err(|faults| faults.to_string())?;
    process::set_level(read.0.log.level);
    let connections = read.0.server.limits.connections;
    let options = Options { control_socket: true, reloads: Some(reloads), ..Options::default() };
    let predecessor = upgrade_socket.map(|socket| take_over(socket, &mut context)).transpose()?;
    let edge = Edge::start_in(context, path, read, Clock::default(), options).map_err(|error| error.to_string())?;
    // Now that there is a log to say so in where standard error takes nothing.
    open_files::warn_if_too_few(connections);
    Ok((edge, predecessor))
}

fn take_over(socket: &Path, context: &mut ProcessContext) -> Result<Predecessor, String> {
    let (predecessor, sockets, taken_over) = Predecessor::take_over(socket)
        .map_err(|error| format!("cannot take over from the edge that runs, at {}: {error}", socket.display()))?;
    context.sockets = sockets;
    context.taken_over = Some(taken_over);
    Ok(predecessor)
}

/// Logs what has started, so that a log says what the lines after this are about.
fn log_start(edge: &Edge) {
    let status = edge.status();
    let (version, file) = (env!("CARGO_PKG_VERSION"), status.file().display());
    log::info!("started version={version} config={file} hash={}", status.hash());
    let pools: Vec<String> = edge.pools().iter().map(|(name, servers)| format!("{name} ({servers})")).collect();
    log::info!("pools and their servers: {}", pools.join(", "));
    for address in edge.https_addresses() {
        log::info!("listening on https://{address}");
    }
    for address in edge.http_addresses() {
        log::info!("listening on http://{address}");
    }
    if let Some(path) = edge.control_socket() {
        log::info!("control socket at {}", path.display());
    }
    log::info!("admin on http://{}", edge.admin_address());
}

/// Completes when a drain is to end.
type Forced = Pin<Box<dyn Future<Output = ()>>>;

struct Control {
    edge: Edge,
    reads: FileReads,
    /// The sender that the reading threads use.
    own: SyncSender<ControlCommand>,
    events: mpsc::Sender<ControlEvent>,
}

impl Control {
    fn next(&self, orders: &Receiver<ControlCommand>) -> Result<ControlCommand, RecvTimeoutError> {
        match self.reads.deadline() {
            Some(deadline) => orders.recv_timeout(deadline.saturating_duration_since(Instant::now())),
            None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// One at a time: the next order comes when this one has been answered.
    fn reload(&mut self) {
        let (reload, own) = (self.edge.begin_reload(), self.own.clone());
        let begun = self.reads.begin(move |number| {
            // An error means that the process is ending.
            own.send(ControlCommand::Read(number, Box::new(reload.read()))).ok();
        });
        if let Err(error) = begun {
            self.fail(&error.to_string());
        }
    }

    fn apply(&mut self, number: u64, read: ReloadedFiles) {
        if !self.reads.finish(number) {
            log::warn!("files of a reload that timed out were read later and are ignored");
            return;
        }
        match self.edge.end_reload(read) {
            Ok(needs_restart) => {
                log::info!("configuration reloaded hash={}", self.edge.status().hash());
                if !needs_restart.is_empty() {
                    log::warn!("restart_required: {}", needs_restart.join(", "));
                }
            }
            Err(faults) => log::error!("configuration refused, the old one stays:\n{faults}"),
        }
        self.reloaded();
    }

    fn give_up(&mut self) {
        self.reads.give_up();
        self.fail(&format!("its files were not read within {} s", deadlines::RELOAD_FILES.as_secs()));
    }

    fn fail(&mut self, why: &str) {
        self.edge.fail_reload(why);
        log::error!("configuration refused, the old one stays: {why}");
        self.reloaded();
    }

    fn reloaded(&mut self) {
        let last = self.edge.status().last_reload();
        let outcome =
            last.map_or_else(|| ReloadOutcome::Failed("it was not noted".into()), |last| last.outcome.clone());
        self.send(ControlEvent::Reloaded { drain: self.edge.drain_time(), outcome });
    }

    /// The process before this one stops accepting connections. Where it does not answer it has ended, and this one is the
    /// edge all the same.
    fn replace(&self, predecessor: Predecessor) {
        match predecessor.replace(self.edge.control_socket()) {
            Ok(()) => log::info!("upgrade: this process serves in the place of the one before it"),
            Err(error) => log::warn!("upgrade: the process before this one has ended meanwhile: {error}"),
        }
        self.edge.upgrade_source().replaced();
        self.send(ControlEvent::Replaced);
    }

    fn drain(self, force: oneshot::Receiver<()>, end: impl FnOnce(Edge, Forced) -> u64) {
        let Self { edge, events, .. } = self;
        let cut = end(edge, Box::pin(async { drop(force.await) }));
        log::info!("stopped; {cut} requests were cut off");
        events.blocking_send(ControlEvent::Stopped).ok();
    }

    /// An error means that the process is ending.
    fn send(&self, event: ControlEvent) {
        self.events.blocking_send(event).ok();
    }
}
