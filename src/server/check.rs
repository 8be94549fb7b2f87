//! Validates a configuration without serving it, and logs its warnings when it is served.

use std::path::Path;

use super::needs;
use crate::admin::api::AdminTokens;
use crate::blocking::BlockingThreads;
use crate::clock::Clock;
use crate::config::{self, Config, Faults, Warnings};
use crate::snapshot::LoadedFiles;
use crate::tls::Certificates;
use crate::upstream::resolver::Resolver;

/// Everything that `check` can say of a file without binding or dialling: reads it and the files that it names, and looks
/// at what a start opens.
pub fn check(file: &Path, clock: &Clock) -> Result<(Config, Warnings), Faults> {
    let (config, mut faults) = config::read(file)?;
    let names = Resolver::unobserved();
    let threads = BlockingThreads::new().map_err(|error| {
        let mut faults = Faults::new(file, "");
        faults.add("", format!("no threads to look at files: {error}"), "end other processes, or raise their limits");
        faults
    })?;
    let loaded = LoadedFiles::read(&config, clock, &Certificates::default(), &names, &threads, &mut faults);
    AdminTokens::read(&config.server.admin, &mut faults);
    if let Some(loaded) = &loaded {
        // A running edge has a task that warns of them, day by day.
        loaded.tls.certificates.warn_of_ends(clock.now(), &mut faults);
    }
    needs::inspect(&config, &mut faults);
    match (faults.is_empty(), loaded) {
        (true, Some(_)) => Ok((config, faults.warnings())),
        _ => Err(faults),
    }
}

/// Logs the warnings of a configuration that is applied.
pub(super) fn warn(warnings: &Warnings) {
    for warning in warnings.iter() {
        log::warn!("{warning}");
    }
}
