//! `check`: validates a configuration without serving it.

use std::path::PathBuf;

use clap::Args;

use super::{ConfigFile, Failure, output, warn};
use crate::clock::Clock;
use crate::config::{Config, Sessions};
use crate::metrics::Metrics;
use crate::server;
use crate::sessions::memcached::{MemcachedServer, Settings};
use crate::sessions::replicated::node::Node;
use crate::upstream::dial::dial;

#[derive(Args)]
pub struct Check {
    /// The YAML configuration file, as with `-c`.
    #[arg(value_name = "FILE", conflicts_with = "config")]
    named: Option<PathBuf>,
    #[command(flatten)]
    file: ConfigFile,
    /// Also dial the session store and every server of every pool.
    #[arg(long)]
    connect: bool,
    /// Take warnings for faults: exit 1 where there is one.
    #[arg(long)]
    strict: bool,
}

impl Check {
    pub fn run(self) -> Result<(), Failure> {
        let path = self.named.as_ref().map_or_else(|| self.file.path(), Ok)?;
        let (config, warnings) = server::check(path, &Clock::default()).map_err(Failure::because)?;
        if self.strict && !warnings.is_empty() {
            return Err(Failure::because(warnings));
        }
        warn(&warnings);
        if self.connect {
            connect(&config)?;
        }
        output::print(format_args!("{}: configuration OK", path.display()))
    }
}

/// Dials every server, and names each that cannot be reached.
fn connect(config: &Config) -> Result<(), Failure> {
    let mut unreachable = Vec::new();
    for pool in &config.pools {
        for server in &pool.servers {
            if let Err(error) = dial(pool, server) {
                unreachable.push(format!("pools.{}: {} cannot be reached: {error}", pool.name, server.name));
            }
        }
    }
    if let Sessions::Memcached { servers, timeout, sign_on_timeout, .. } = &config.sessions {
        for server in servers {
            let settings =
                Settings { server: server.address.clone(), timeout: *timeout, sign_on_timeout: *sign_on_timeout };
            if let Err(error) = ping(&settings) {
                unreachable.push(format!("sessions.memcached: {}: {error}", server.address));
            }
        }
    }
    if unreachable.is_empty() { Ok(()) } else { Err(Failure::Failed(unreachable.join("\n"))) }
}

fn ping(settings: &Settings) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let metrics = Metrics::new("check").map_err(|error| error.to_string())?;
    let server = MemcachedServer::new(settings, &metrics.sign_on.store).map_err(|error| error.to_string())?;
    runtime.block_on(server.ping()).map_err(|error| error.to_string())
}
