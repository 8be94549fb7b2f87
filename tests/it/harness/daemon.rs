//! An edge in a process of its own: `sentry-edge run -c FILE`, as an operator starts, reloads and stops it.

use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex};

use super::client::{Client, Response, client};
use super::edge::{Builder, events, log_lines, metric};
use super::{eventually, process};

/// A `sentry-edge` that runs, and what it has printed so far.
pub struct Running {
    child: Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
}

/// One that serves.
pub struct Daemon {
    pub process: Running,
    pub address: SocketAddr,
    pub folder: tempfile::TempDir,
    pub file: PathBuf,
    admin: SocketAddr,
}

impl Running {
    pub fn start(arguments: &[&str]) -> Self {
        Self::watch(process::start(arguments))
    }

    /// A process that was started with its outputs as pipes.
    pub fn watch(mut child: Child) -> Self {
        let stdout = gather(child.stdout.take().unwrap());
        let stderr = gather(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    /// One whose outputs are somebody else's.
    pub fn unheard(child: Child) -> Self {
        Self { child, stdout: Arc::default(), stderr: Arc::default() }
    }

    pub fn stdout(&self) -> String {
        self.stdout.lock().unwrap().clone()
    }

    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// What stands between `before` and the end of its line on standard error, once it is there.
    fn told(&mut self, before: &str) -> String {
        let mut found = None;
        eventually(before, || {
            let text = self.stderr();
            found = text.lines().find_map(|line| Some(line.split_once(before)?.1.trim().to_owned()));
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() || found.is_some(), "ended early: {}", self.stderr());
            found.is_some()
        });
        found.unwrap()
    }

    /// Bytes, of a line of `/proc/PID/status`: `VmRSS` is what it has, `VmHWM` the most that it ever had.
    pub fn memory(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':')).unwrap();
        value.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Whether it has a handler for a signal.
    pub fn hears(&self, signal: u32) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << (signal - 1)) != 0
    }

    pub fn signal(&self, name: &str) {
        process::signal(&self.child, name);
    }

    #[allow(dead_code, reason = "tests/clients, which has this harness too, reads its memory")]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Its exit status, once it has ended.
    pub fn end(&mut self) -> ExitStatus {
        eventually("the process ends", || self.has_ended());
        self.child.wait().unwrap()
    }
}

/// Reads a pipe to its end beside the test.
fn gather(mut pipe: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let gathered = Arc::clone(&text);
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(read @ 1..) = pipe.read(&mut chunk) {
            gathered.lock().unwrap().push_str(&String::from_utf8_lossy(&chunk[..read]));
        }
    });
    text
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Builder {
    /// Serves in a process of its own.
    pub fn run(self) -> Daemon {
        self.run_with(|yaml| yaml)
    }

    /// The same, from a configuration that was edited.
    pub fn run_with(self, edit: impl FnOnce(String) -> String) -> Daemon {
        self.run_as(|yaml, _| edit(yaml), process::start)
    }

    /// Serves from a folder that was edited.
    pub fn run_in(self, edit: impl FnOnce(&std::path::Path)) -> Daemon {
        self.run_as(
            |yaml, folder| {
                edit(folder);
                yaml
            },
            process::start,
        )
    }

    /// Serves in a process whose program is a link in its folder, with these variables.
    pub fn run_linked(self, variables: &[(&str, &str)], edit: impl FnOnce(String) -> String) -> Daemon {
        self.run_as(|yaml, _| edit(yaml), |arguments| process::start_linked(arguments, variables))
    }

    /// Serves in a process that may have so many descriptors.
    pub fn run_with_descriptors(self, most: usize) -> Daemon {
        self.run_as(|yaml, _| yaml, |arguments| process::start_with_descriptors(most, arguments))
    }

    /// Serves in a process that starts with these limits of descriptors, the soft and the hard one.
    pub fn run_with_soft_limit(self, soft: usize, hard: usize) -> Daemon {
        self.run_as(|yaml, _| yaml, |arguments| process::start_with_soft_limit(soft, hard, arguments))
    }

    /// Serves from a folder that was edited, in a process with a limit: an option of `ulimit`, and its value.
    pub fn run_with_limit(self, limit: (&str, usize), edit: impl FnOnce(&std::path::Path)) -> Daemon {
        self.run_as(
            |yaml, folder| {
                edit(folder);
                yaml
            },
            |arguments| process::start_with_limit(limit, arguments),
        )
    }

    /// Serves in a process that finds this in its environment.
    pub fn run_with_variable(self, variable: (&str, &str)) -> Daemon {
        self.run_as(|yaml, _| yaml, |arguments| process::start_with_variable(variable, arguments))
    }

    fn run_as(
        self,
        edit: impl FnOnce(String, &std::path::Path) -> String,
        start: impl FnOnce(&[&str]) -> Child,
    ) -> Daemon {
        let (folder, file) = self.write();
        // It says on which ports it listens at this level.
        let yaml = std::fs::read_to_string(&file).unwrap().replace("level: warn", "level: info");
        std::fs::write(&file, edit(yaml, folder.path())).unwrap();
        let mut process = Running::watch(start(&["run", "-c", file.to_str().unwrap()]));
        let address = process.told("listening on https://").parse().unwrap();
        let admin = process.told("admin on http://").parse().unwrap();
        Daemon { process, address, folder, file, admin }
    }
}

impl Daemon {
    /// `https://NAME.test:PORT` with a path.
    pub fn url(&self, name: &str, path: &str) -> String {
        format!("https://{name}.test:{}{path}", self.address.port())
    }

    pub fn client(&self) -> Client {
        client(self.address)
    }

    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// GET on the admin listener.
    pub fn admin(&self, path: &str) -> Response {
        client(self.admin).get(&format!("http://admin.test{path}"))
    }

    /// The value of a metric, 0 when it was never touched.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        metric(&self.admin("/metrics").body, name, labels)
    }

    /// Changes the configuration file and sends SIGHUP. Returns when the edge has taken it up or refused it.
    pub fn reload(&self, edit: impl FnOnce(String) -> String) {
        let before = std::fs::read_to_string(&self.file).unwrap();
        let after = edit(before.clone());
        assert_ne!(before, after, "nothing was edited");
        std::fs::write(&self.file, after).unwrap();
        let reloads = || {
            ["ok", "refused"]
                .map(|r| self.metric("sentry_edge_config_reloads_total", &format!("result=\"{r}\"")))
                .iter()
                .sum::<f64>()
        };
        let so_far = reloads();
        self.process.signal("HUP");
        eventually("the configuration was read again", || reloads() > so_far);
    }

    /// The lines of a log file, once there are at least so many.
    pub fn log(&self, name: &str, at_least: usize) -> Vec<serde_json::Value> {
        log_lines(&self.folder.path().join(name), at_least)
    }

    /// The lines of an event in the audit log, once there are at least so many.
    pub fn events(&self, event: &str, at_least: usize) -> Vec<serde_json::Value> {
        events(&self.folder.path().join("audit.log"), event, at_least)
    }
}
