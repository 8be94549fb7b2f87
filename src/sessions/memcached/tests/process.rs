//! A real memcached, on a socket in a directory of its own; killed when dropped.

#![expect(clippy::disallowed_methods, reason = "waits for another process, which does not signal that it is ready")]

use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub struct Memcached {
    child: Child,
    server: String,
    directory: TempDir,
}

impl Memcached {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("memcached.sock");
        let child = spawn(&["-s", socket.to_str().unwrap()]);
        let memcached = Self { child, server: format!("unix://{}", socket.display()), directory };
        memcached.await_answer();
        memcached
    }

    /// Starts a server on a loopback port, which is the second value.
    pub fn start_tcp() -> (Self, u16) {
        Self::start_tcp_on("127.0.0.1")
    }

    pub fn start_tcp_on(host: &str) -> (Self, u16) {
        // The port is free when it is chosen; if another process takes it first, the next is tried.
        for _ in 0..20 {
            let port = TcpListener::bind((host, 0)).unwrap().local_addr().unwrap().port();
            let mut child = spawn(&["-l", host, "-p", &port.to_string()]);
            let deadline = Instant::now() + Duration::from_secs(10);
            while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
                if std::net::TcpStream::connect((host, port)).is_ok() {
                    let (server, directory) = (format!("{host}:{port}"), tempfile::tempdir().unwrap());
                    return (Self { child, server, directory }, port);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("no memcached on any port");
    }

    pub fn server(&self) -> &str {
        &self.server
    }

    /// Returns a client of its own, to read or damage what the server holds.
    pub async fn client(&self) -> async_memcached::Client {
        async_memcached::Client::new(&self.server).await.unwrap()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts the server again, empty, on the same socket. Returns when it answers.
    pub fn restart(&mut self) {
        self.child = spawn(&["-s", self.directory.path().join("memcached.sock").to_str().unwrap()]);
        self.await_answer();
    }

    /// Returns when every thread has stopped: the signal takes effect some time after it was sent.
    pub fn freeze(&self) {
        self.signal("-STOP");
        let tasks = format!("/proc/{}/task", self.child.id());
        let is_stopped = |task: std::io::Result<std::fs::DirEntry>| {
            let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            status.lines().any(|line| line.starts_with("State:\tT"))
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !std::fs::read_dir(&tasks).unwrap().all(is_stopped) {
            assert!(Instant::now() < deadline, "memcached does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    fn await_answer(&self) {
        let socket = self.directory.path().join("memcached.sock");
        let deadline = Instant::now() + Duration::from_secs(10);
        while UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < deadline, "memcached does not answer");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Memcached {
    fn drop(&mut self) {
        // SIGKILL ends a frozen process too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(listen: &[&str]) -> Child {
    Command::new("memcached")
        // memcached refuses to run as root without -u; for other users it ignores -u.
        .args(["-u", "root", "-t", "1", "-m", "64", "-U", "0"])
        .args(listen)
        .stderr(Stdio::null())
        .spawn()
        .expect("the tests need the memcached program: apt-get install memcached")
}
