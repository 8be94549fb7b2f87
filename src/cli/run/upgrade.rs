//! SIGUSR2: starts the program anew, and hands the sockets to the new process when that has everything that it needs.
//!
//! Whatever fails of that leaves this process serving as before. The work is done on a thread of its own, since a file
//! system may take its time to start a program.

mod program;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::server::upgrade::UpgradeSource;
use crate::server::upgrade::successor::{UpgradeError, UpgradeSocket};
pub use program::Program;
use program::StartedProcess;

/// How long the end of this process waits for that of a process that was to take over from it.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The upgrades of this process, one at a time.
pub struct Upgrades {
    /// `None` where this process cannot be replaced.
    program: Option<Program>,
    /// `None` until the edge serves.
    pub source: Option<UpgradeSource>,
    /// Set while one is under way; becomes true when it is to end.
    stop: Option<Arc<AtomicBool>>,
    outcomes: (mpsc::Sender<UpgradeOutcome>, mpsc::Receiver<UpgradeOutcome>),
}

/// What came of an upgrade.
pub enum UpgradeOutcome {
    /// The process with this id serves in the place of this one, which has to drain.
    Replaced(u32),
    /// This process serves on. Why has been logged and counted.
    Failed,
}

/// Why an attempt has come to nothing.
struct Failure {
    /// The value of the label `result`.
    result: &'static str,
    why: String,
}

impl Upgrades {
    pub fn new(program: Option<Program>) -> Self {
        Self { program, source: None, stop: None, outcomes: mpsc::channel(1) }
    }

    pub fn is_under_way(&self) -> bool {
        self.stop.is_some()
    }

    /// Begins an upgrade. `name` is the signal's.
    pub fn begin(&mut self, name: &str, is_draining: bool) {
        let refusal = match &self.source {
            None => "this process does not serve yet",
            Some(_) if is_draining => "this process drains",
            Some(_) if self.is_under_way() => "another one is under way",
            Some(source) => match self.try_begin(source.clone()) {
                Ok(stop) => {
                    log::info!("{name}: an upgrade begins");
                    self.stop = Some(stop);
                    return;
                }
                Err(refusal) => refusal,
            },
        };
        log::warn!("{name}: no upgrade: {refusal}; nothing was done");
        if let Some(source) = &self.source {
            source.count("refused");
        }
    }

    fn try_begin(&self, source: UpgradeSource) -> Result<Arc<AtomicBool>, &'static str> {
        let Some(program) = self.program.clone() else { return Err("this command cannot be replaced while it runs") };
        if std::process::id() == 1 {
            return Err("this process has the id 1, and a container ends with it");
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (outcomes, stopped) = (self.outcomes.0.clone(), Arc::clone(&stop));
        let work = move || {
            let outcome = upgrade(&program, &source, &stopped);
            outcomes.blocking_send(outcome).ok();
        };
        let started = thread::Builder::new().name("upgrade".into()).spawn(work);
        started.map(|_| stop).map_err(|_| "no thread can be started")
    }

    /// Waits for the outcome of the upgrade that is under way.
    pub async fn outcome(&mut self) -> UpgradeOutcome {
        let outcome = self.outcomes.1.recv().await.unwrap_or(UpgradeOutcome::Failed);
        self.stop = None;
        outcome
    }

    /// This process ends: no other one is to take over from it any more.
    pub fn stop(&self) {
        if let Some(stop) = &self.stop {
            stop.store(true, Ordering::Release);
        }
    }

    /// Waits until that is so.
    pub async fn stopped(&mut self) {
        if self.is_under_way() {
            self.stop();
            tokio::time::timeout(STOP_TIMEOUT, self.outcome()).await.ok();
        }
    }
}

fn upgrade(program: &Program, source: &UpgradeSource, stop: &AtomicBool) -> UpgradeOutcome {
    if source.loses_sessions() {
        log::warn!(
            "upgrade: sessions.store is memory, so every session ends with this process, and users have to sign in again"
        );
    }
    match attempt(program, source, stop) {
        Ok(pid) => {
            log::info!("upgrade: process {pid} serves in the place of this one, which drains");
            source.count("ok");
            UpgradeOutcome::Replaced(pid)
        }
        Err(Failure { result, why }) => {
            log::error!("upgrade failed, this process serves on: {why}");
            source.count(result);
            UpgradeOutcome::Failed
        }
    }
}

/// Returns the id of the process that serves in the place of this one. One that does not is ended.
fn attempt(program: &Program, source: &UpgradeSource, stop: &AtomicBool) -> Result<u32, Failure> {
    let timeout = source.timeout();
    let deadline = Instant::now() + timeout;
    let failed = |why: String| Failure { result: "failed", why };
    let path = source.socket_path().ok_or_else(|| {
        failed("there is no runtime directory, over which it could go; name one (server.runtime_dir)".into())
    })?;
    let socket = UpgradeSocket::bind(&path).map_err(|error| failed(format!("{}: {error}", path.display())))?;
    let mut process = program.start(&path).map_err(|error| failed(format!("{program} cannot be started: {error}")))?;
    let pid = process.id();
    log::info!("upgrade: started process {pid}: {program}");
    let still = || match () {
        () if stop.load(Ordering::Acquire) => Err("this process is stopped".to_owned()),
        () if Instant::now() >= deadline => Err(format!("the new process does not serve within {timeout:?}")),
        () => process.check_runs(),
    };
    let replaced = socket.hand_over(pid, source, still).and_then(|successor| successor.replace(source));
    match replaced {
        Ok(()) => {
            process.release();
            Ok(pid)
        }
        Err(error) => {
            let result = if Instant::now() >= deadline { "timeout" } else { "failed" };
            Err(Failure { result, why: because(&error, &mut process) })
        }
    }
}

/// Returns why a process has not taken over. One that has closed its connection has mostly ended, and then how.
fn because(error: &UpgradeError, process: &mut StartedProcess) -> String {
    let ended = match error {
        UpgradeError::Gone => process.ended_soon(),
        _ => None,
    };
    ended.unwrap_or_else(|| error.to_string())
}
