//! A service manager that passes sockets, as systemd does (`service_manager.py`).

use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use super::daemon::Running;
use super::{DEADLINE, eventually, process};

pub struct ServiceManager {
    process: Running,
    /// Its service ends with it.
    orders: Option<ChildStdin>,
    /// The addresses of its sockets, in their order.
    pub addresses: Vec<String>,
}

impl ServiceManager {
    /// Binds sockets for a `sentry-edge run` that it does not start yet. `variables` are its own.
    pub fn bind(sockets: &[&str], config: &Path, variables: &[(&str, &str)]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/harness/service_manager.py");
        let mut child = Command::new("python3")
            .arg(script)
            .args(sockets)
            .args(["--", process::BINARY, "run", "-c", config.to_str().unwrap()])
            .env("RUNTIME_DIRECTORY", config.parent().unwrap())
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take();
        let mut manager = Self { process: Running::watch(child), orders, addresses: Vec::new() };
        eventually("its sockets are bound", || manager.process.stdout().lines().count() == sockets.len());
        manager.addresses = manager.process.stdout().lines().map(str::to_owned).collect();
        manager
    }

    pub fn order(&mut self, order: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
    }

    /// How many lines of standard output begin with this.
    pub fn count(&self, line: &str) -> usize {
        self.process.stdout().lines().filter(|printed| printed.starts_with(line)).count()
    }

    /// The process that it has started last.
    pub fn pid(&self) -> u32 {
        let started =
            || self.process.stdout().lines().filter_map(|line| line.strip_prefix("started ")?.parse().ok()).next_back();
        eventually("it has started one", || started().is_some());
        started().unwrap()
    }

    /// What its services have logged.
    pub fn log(&self) -> String {
        self.process.stderr()
    }
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        drop(self.orders.take());
        // Its service would live on without it. A second panic would end the tests of the whole process.
        let begun = std::time::Instant::now();
        while !self.process.has_ended() && begun.elapsed() < DEADLINE {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(std::thread::panicking() || self.process.has_ended(), "it ends with its service");
    }
}
