//! `run`: serve until a signal says otherwise.

use std::path::Path;

use clap::Args;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{ConfigFile, Failure, warn};
use crate::clock::Clock;
use crate::config::Level;
use crate::server::{Edge, Options};

#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    file: ConfigFile,
    /// Validate the configuration and exit.
    #[arg(short = 't', long = "test")]
    test: bool,
}

impl Run {
    pub fn carry_out(self) -> Result<(), Failure> {
        let path = self.file.path()?;
        if self.test {
            let (_, warnings) = crate::server::check(path, &Clock::default()).map_err(Failure::because)?;
            warn(&warnings);
            println!("{}: good", path.display());
            return Ok(());
        }
        serve(path, |_| {})
    }
}

/// What a signal asks for.
enum Wish {
    Reload,
    StopGently,
    StopNow,
}

/// Serves a configuration until SIGTERM (drain) or SIGINT (now). `started` is called once sockets listen.
pub(super) fn serve(path: &Path, started: impl FnOnce(&Edge)) -> Result<(), Failure> {
    let read = crate::config::read(path);
    init_log(read.as_ref().map_or(Level::Info, |(config, _)| config.log.level));
    let read = read.map_err(Failure::because)?;
    let mut edge = Edge::start_with(path, read, Clock::default(), Options::default()).map_err(Failure::because)?;
    let signals = edge.block_on(async { Signals::new() });
    let mut signals =
        signals.ok_or_else(|| Failure::Failed("the edge is not running".into()))?.map_err(Failure::because)?;
    // Said once signals are heard: whoever reads it may send one.
    for address in edge.https_addresses() {
        log::info!("listening on https://{address}");
    }
    log::info!("admin on http://{}", edge.admin_address());
    // Without a service manager there is nobody to notify, which is no fault.
    sd_notify::notify(&[NotifyState::Ready]).ok();
    started(&edge);
    loop {
        let wish = edge.block_on(signals.next()).unwrap_or(Wish::StopNow);
        match wish {
            Wish::Reload => reload(&mut edge),
            Wish::StopGently => {
                log::info!("draining");
                sd_notify::notify(&[NotifyState::Stopping]).ok();
                let cut = edge.stop_gently(signals.hurry());
                log::info!("stopped; {cut} requests were cut off");
                return Ok(());
            }
            Wish::StopNow => return Ok(()),
        }
    }
}

fn reload(edge: &mut Edge) {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        sd_notify::notify(&[NotifyState::Reloading, now]).ok();
    }
    match edge.reload() {
        Ok(needs_restart) => {
            log::info!("configuration reloaded");
            if !needs_restart.is_empty() {
                log::warn!("restart_required: {}", needs_restart.join(", "));
            }
        }
        Err(faults) => log::error!("configuration refused, the old one stays:\n{faults}"),
    }
    sd_notify::notify(&[NotifyState::Ready]).ok();
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Until somebody will not wait for the drain any longer.
    async fn hurry(&mut self) {
        while !matches!(self.next().await, Wish::StopNow) {}
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::StopGently,
            _ = self.interrupt.recv() => Wish::StopNow,
            _ = self.hang_up.recv() => Wish::Reload,
        }
    }
}

fn init_log(level: Level) {
    let level = match level {
        Level::Error => log::LevelFilter::Error,
        Level::Warn => log::LevelFilter::Warn,
        Level::Info => log::LevelFilter::Info,
        Level::Debug => log::LevelFilter::Debug,
    };
    // Pingora reports clients' misbehaviour line by line as errors; the access log and metrics have it.
    env_logger::Builder::new()
        .filter_level(level)
        .filter_module("pingora", log::LevelFilter::Off)
        .filter_module("pingora_core", log::LevelFilter::Off)
        .filter_module("pingora_proxy", log::LevelFilter::Off)
        .try_init()
        .ok();
}
