//! The program of this process as a file, and a process that was started from it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::server::upgrade::UPGRADE_VARIABLE;

/// The time for a process that is ended to end by itself, and then for the system to end it.
const END_TIMEOUT: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The variables by which the service manager has passed sockets to this process, and to no other.
const ACTIVATION_VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// The file that this process was started from, by the path that was used, and its arguments. Another file may be there
/// by now, or the path may be a link that leads elsewhere: that is what an upgrade starts.
#[derive(Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// To be called at the start of the process, before the file may be replaced.
    #[expect(clippy::disallowed_methods, reason = "the command was found by PATH, and by nothing else")]
    pub fn of_this_process() -> io::Result<Self> {
        let mut arguments = std::env::args_os();
        let name = arguments.next().unwrap_or_default();
        let (file, folder) = (std::env::current_exe()?, std::env::current_dir()?);
        let search = std::env::var_os("PATH").unwrap_or_default();
        Ok(Self {
            path: find(&name, &folder, &search).filter(|path| leads_to(path, &file)).unwrap_or(file),
            arguments: arguments.collect(),
        })
    }

    /// Starts it in the working folder of this process, as one that is to take over from it.
    pub fn start(&self, upgrade_socket: &Path) -> io::Result<StartedProcess> {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).env(UPGRADE_VARIABLE, upgrade_socket);
        for variable in ACTIVATION_VARIABLES {
            command.env_remove(variable);
        }
        command.spawn().map(|child| StartedProcess { child, is_released: false })
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

/// Returns the path of a program by the name that it was started with, as a shell finds it.
fn find(name: &OsStr, folder: &Path, search: &OsStr) -> Option<PathBuf> {
    if Path::new(name).components().count() > 1 {
        return Some(folder.join(name));
    }
    std::env::split_paths(search).map(|place| folder.join(place).join(name)).find(|path| path.is_file())
}

/// Whether a path is a file's. The name that a process was started with may be anything.
fn leads_to(path: &Path, file: &Path) -> bool {
    std::fs::canonicalize(path).is_ok_and(|real| real == file)
}

/// A process that is to take over from this one. It is ended when this is dropped before that.
pub struct StartedProcess {
    child: Child,
    is_released: bool,
}

impl StartedProcess {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns an error that says how it has ended, if it has.
    pub fn check_runs(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(ended(status)),
            Err(error) => Err(format!("the new process cannot be watched: {error}")),
        }
    }

    /// Says how it has ended, where it does so now.
    pub fn ended_soon(&mut self) -> Option<String> {
        self.wait(END_TIMEOUT).map(ended)
    }

    /// It lives on without this process.
    pub fn release(mut self) {
        self.is_released = true;
    }

    #[expect(clippy::disallowed_methods, reason = "a thread of the upgrade alone")]
    fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline => thread::sleep(POLL_INTERVAL),
                _ => return None,
            }
        }
    }
}

fn ended(status: ExitStatus) -> String {
    format!("the new process has ended ({status}); its own lines are before this one")
}

impl Drop for StartedProcess {
    fn drop(&mut self) {
        if self.is_released || !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // It may serve already, and then has requests to finish.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM).ok();
        }
        if self.wait(END_TIMEOUT).is_none() {
            self.child.kill().ok();
            self.wait(END_TIMEOUT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_the_name_that_it_was_started_with() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("edge-1.0"), folder.path().join("edge"));
        std::fs::write(&real, "").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let search = std::env::join_paths([Path::new("/no/such/folder"), folder.path()]).unwrap();
        for name in ["./edge", "edge", link.to_str().unwrap()] {
            let found = find(OsStr::new(name), folder.path(), &search).unwrap();
            assert!(leads_to(&found, &std::fs::canonicalize(&real).unwrap()), "{name}: {}", found.display());
            assert!(found.ends_with("edge"), "the link, which may lead to another file by the next upgrade");
        }
        assert_eq!(find(OsStr::new("missing"), folder.path(), &search), None);
        assert!(!leads_to(&folder.path().join("missing"), &real));
    }
}
