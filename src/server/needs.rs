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

/// Where a service manager makes folders for its services (`LogsDirectory=`, `StateDirectory=`, `RuntimeDirectory=`).
const MADE_BY_THE_UNIT: [&str; 3] = ["/var/log", "/var/lib", "/run"];

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
            && let Some(found) = look_at_log(path)
        {
            match found {
                Found::Fault(what) => {
                    faults.add(key, what, "give this user the right to write there, or name another path");
                }
                Found::ToBeMade(what) => {
                    let write = "`LogsDirectory=` of the systemd unit makes it at the start; otherwise make it";
                    faults.warn(key, what, write);
                }
            }
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

/// What is wrong with the place of a log.
enum Found {
    Fault(String),
    /// Its folder is missing, and is one that a service manager makes.
    ToBeMade(String),
}

/// Returns why a log could not be opened, if it could not.
fn look_at_log(path: &Path) -> Option<Found> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Some(Found::Fault(format!("{shown} is a folder"))),
        Ok(_) => denied(path, AccessFlags::W_OK).map(Found::Fault),
        Err(error) if error.kind() == ErrorKind::NotFound => look_at_folder(parent(path)?),
        Err(error) => Some(Found::Fault(format!("{shown}: {error}"))),
    }
}

fn look_at_folder(folder: &Path) -> Option<Found> {
    let shown = folder.display();
    match std::fs::metadata(folder) {
        Ok(found) if !found.is_dir() => Some(Found::Fault(format!("{shown} is no folder"))),
        Ok(_) => denied(folder, AccessFlags::W_OK | AccessFlags::X_OK).map(Found::Fault),
        Err(error) => {
            let what = format!("its folder {shown}: {error}");
            let is_to_be_made = error.kind() == ErrorKind::NotFound
                && folder.symlink_metadata().is_err()
                && parent(folder)
                    .is_some_and(|above| MADE_BY_THE_UNIT.iter().any(|of_unit| above == Path::new(of_unit)));
            Some(if is_to_be_made { Found::ToBeMade(what) } else { Found::Fault(what) })
        }
    }
}

/// The folder of a path. That of a name alone is where the process is.
fn parent(path: &Path) -> Option<&Path> {
    path.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
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
