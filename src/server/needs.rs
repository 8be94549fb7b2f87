//! What a start opens beside the files of the configuration, looked at without a change: the user directory, the logs,
//! the runtime directory. Whatever of it would stop `run` is a fault of `check`.

use std::io::ErrorKind;
use std::path::Path;

use nix::unistd::{AccessFlags, access};
use rustix::process::{Resource, getrlimit};

use super::control_socket;
use crate::config::{Config, Faults, LogTarget, defaults};
use crate::log_writer;
use crate::users;

/// Open files of a connection: the client's, and the one to the application that serves its request.
const FILES_PER_CONNECTION: u64 = 2;

/// Adds a fault for each thing that is missing. Where a key itself is wrong, its default says nothing.
pub fn inspect(config: &Config, faults: &mut Faults) {
    if !faults.concern("users")
        && let Err(error) = users::inspect(&config.users.store)
    {
        let write = "add the first user, or name the file that has the users";
        faults.add("users.sqlite.path", error.in_full(), write);
    }
    let is_log_wrong = faults.concern("log");
    for (key, target) in [("log.access.path", &config.log.access), ("log.audit.path", &config.log.audit)] {
        if let LogTarget::File(path) = target
            && !is_log_wrong
            && log_writer::is_file(path)
            && let Some(what) = fault_of_log(path)
        {
            faults.add(key, what, "give this user the right to write there, or name another path");
        }
    }
    if let Some(folder) = &config.server.runtime_dir
        && !faults.concern("server.runtime_dir")
    {
        let write = "name a folder of the edge's own, such as /run/sentry-edge";
        if let Err(what) = control_socket::inspect(folder) {
            faults.add("server.runtime_dir", what, write);
        } else if let Some(what) = control_socket::exposure(folder) {
            faults.warn("server.runtime_dir", what, write);
        }
    }
    warn_of_open_files(config, faults);
}

/// Returns why a log could not be opened, if it could not.
fn fault_of_log(path: &Path) -> Option<String> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Some(format!("{shown} is a folder")),
        Ok(_) => denied(path, AccessFlags::W_OK),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let folder = path.parent()?;
            match std::fs::metadata(folder) {
                Ok(found) if !found.is_dir() => Some(format!("{} is no folder", folder.display())),
                Ok(_) => denied(folder, AccessFlags::W_OK | AccessFlags::X_OK),
                Err(error) => Some(format!("its folder {}: {error}", folder.display())),
            }
        }
        Err(error) => Some(format!("{shown}: {error}")),
    }
}

fn denied(path: &Path, wanted: AccessFlags) -> Option<String> {
    let error = access(path, wanted).err()?;
    Some(format!("{} cannot be written to: {}", path.display(), error.desc()))
}

/// Only where a number was chosen: `check` may run in a shell with other limits than the service.
fn warn_of_open_files(config: &Config, faults: &mut Faults) {
    let connections = config.server.limits.connections;
    let Some(limit) = getrlimit(Resource::Nofile).maximum else { return };
    let needed = FILES_PER_CONNECTION.saturating_mul(connections as u64);
    if connections > defaults::CONNECTIONS && needed > limit {
        let what =
            format!("{connections} connections need {needed} open files with their requests; {limit} are allowed here");
        let write = "raise the hard limit (LimitNOFILE= of the unit, `ulimit -Hn`), or write fewer";
        faults.warn("server.limits.connections", what, write);
    }
}
