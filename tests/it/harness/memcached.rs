//! A real memcached process on a socket of its own, that can be killed, frozen and brought back.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::eventually;
use super::process::signal;

/// What the reply begins with while another crawl is under way.
const BUSY: &str = "BUSY";

pub struct Memcached {
    child: Option<Child>,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

pub fn memcached() -> Memcached {
    let folder = tempfile::tempdir().unwrap();
    let mut memcached = Memcached { child: None, socket: folder.path().join("memcached.sock"), _folder: folder };
    memcached.start();
    memcached
}

impl Memcached {
    /// As the configuration names it.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    pub fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    pub fn start(&mut self) {
        std::fs::remove_file(&self.socket).ok();
        let child = Command::new("memcached")
            .args(["-m", "64", "-u", "root", "-s"])
            .arg(&self.socket)
            .stderr(Stdio::null())
            .spawn()
            .expect("memcached is installed: `make deps`");
        self.child = Some(child);
        eventually("memcached listens", || std::os::unix::net::UnixStream::connect(&self.socket).is_ok());
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// None of its threads answers any more when this returns.
    pub fn freeze(&self) {
        let child = self.child.as_ref().unwrap();
        signal(child, "STOP");
        let tasks = format!("/proc/{}/task", child.id());
        let is_stopped = |stat: String| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'));
        eventually("all its threads have stopped", || {
            let mut threads = std::fs::read_dir(&tasks).unwrap().map(|thread| thread.unwrap().path().join("stat"));
            threads.all(|stat| std::fs::read_to_string(stat).is_ok_and(is_stopped))
        });
    }

    pub fn thaw(&self) {
        signal(self.child.as_ref().unwrap(), "CONT");
    }

    /// The values of all session records that it holds.
    pub fn session_records(&self) -> Vec<String> {
        self.keys("s:").iter().map(|key| self.value(key)).collect()
    }

    /// The keys that begin with a prefix and have not expired.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        self.keys_of(prefix).into_iter().filter(|key| !self.value(key).is_empty()).collect()
    }

    fn keys_of(&self, prefix: &str) -> Vec<String> {
        // The crawler skips items that are locked at that moment, as they are while the server moves them to another list; a
        // few looks at once would all fall into that moment.
        let look = |number: u64| {
            std::thread::sleep(Duration::from_millis(4 * number));
            loop {
                let lines = self.lines("lru_crawler metadump all");
                // The server crawls by itself as well, one at a time.
                if !lines.last().is_some_and(|line| line.starts_with(BUSY)) {
                    return lines;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        let mut dumped: Vec<String> = (0..5).flat_map(look).collect();
        dumped.sort_unstable();
        dumped.dedup_by(|a, b| a.split(' ').next() == b.split(' ').next());
        let keys = dumped.iter().filter_map(|line| line.strip_prefix("key=")?.split(' ').next());
        keys.map(|key| key.replace("%3A", ":")).filter(|key| key.starts_with(prefix)).collect()
    }

    /// One of the server's own figures.
    pub fn stat(&self, name: &str) -> u64 {
        let line = format!("STAT {name} ");
        self.lines("stats").iter().find_map(|stat| stat.strip_prefix(&line)?.parse().ok()).unwrap()
    }

    /// How many commands on keys it has been sent since it started.
    pub fn commands_on_keys(&self) -> u64 {
        let counted = ["STAT cmd_get ", "STAT cmd_set ", "STAT cmd_touch ", "STAT cmd_meta ", "STAT cmd_flush "];
        let count = |line: &String| counted.iter().find_map(|name| line.strip_prefix(name)?.parse::<u64>().ok());
        self.lines("stats").iter().filter_map(count).sum()
    }

    /// Sends one line and answers the reply's lines before its `END`, or up to the line that has none after it.
    fn lines(&self, command: &str) -> Vec<String> {
        use std::io::{BufRead, BufReader, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(&self.socket).unwrap();
        stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut lines = Vec::new();
        for line in BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| line != "END") {
            lines.push(line);
            if lines[lines.len() - 1].starts_with(BUSY) {
                break;
            }
        }
        lines
    }

    /// The values under keys that begin with a prefix, byte for byte.
    pub fn raw_values(&self, prefix: &str) -> Vec<Vec<u8>> {
        use std::io::{BufRead, BufReader, Read, Write};
        let value = |key: &String| {
            let stream = std::os::unix::net::UnixStream::connect(&self.socket).unwrap();
            (&stream).write_all(format!("get {key}\r\n").as_bytes()).unwrap();
            let (mut reader, mut line) = (BufReader::new(stream), String::new());
            reader.read_line(&mut line).unwrap();
            let length = line.trim().rsplit(' ').next().and_then(|length| length.parse().ok()).unwrap_or(0);
            let mut value = vec![0; length];
            reader.read_exact(&mut value).unwrap();
            value
        };
        self.keys_of(prefix).iter().map(value).collect()
    }

    /// Empty when there is no such key.
    pub fn value(&self, key: &str) -> String {
        self.lines(&format!("get {key}")).into_iter().nth(1).unwrap_or_default()
    }

    /// Sends one line and answers the reply's first line.
    pub fn tell(&self, line: &str) -> String {
        use std::io::{BufRead, BufReader, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(&self.socket).unwrap();
        stream.write_all(format!("{line}\r\n").as_bytes()).unwrap();
        let mut reply = String::new();
        BufReader::new(stream).read_line(&mut reply).unwrap();
        reply.trim().to_owned()
    }
}

impl Drop for Memcached {
    fn drop(&mut self) {
        self.kill();
    }
}
