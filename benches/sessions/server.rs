//! A memcached process of the bench's own, on a socket in a folder of its own.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Memcached {
    child: Child,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Memcached {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("memcached.sock");
        let child = spawn(&socket);
        Self { child, socket, _folder: folder }
    }

    pub fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn restart(&mut self) {
        self.child = spawn(&self.socket);
    }

    /// `STOP` or `CONT`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub fn tell(&self, line: &str) -> Vec<String> {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.write_all(format!("{line}\r\n").as_bytes()).unwrap();
        let ends = |line: &String| ["END", "OK"].contains(&line.as_str());
        BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !ends(line)).collect()
    }

    pub fn stats(&self) -> HashMap<String, u64> {
        let stat = |line: String| {
            let mut words = line.strip_prefix("STAT ")?.split(' ');
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        };
        self.tell("stats").into_iter().filter_map(stat).collect()
    }

    /// Stores many values at once, as fast as the server takes them.
    pub fn fill<'a>(&self, items: impl Iterator<Item = (&'a str, &'a [u8])>) {
        let stream = UnixStream::connect(&self.socket).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut writer = BufWriter::with_capacity(1 << 16, stream);
        for (key, value) in items {
            // Quiet: only a refusal is answered, and at the end the `mn`.
            write!(writer, "ms {key} {} T1800 q\r\n", value.len()).unwrap();
            writer.write_all(value).unwrap();
            writer.write_all(b"\r\n").unwrap();
        }
        writer.write_all(b"mn\r\n").unwrap();
        writer.flush().unwrap();
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, "MN\r\n", "every value was stored");
    }
}

impl Drop for Memcached {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn spawn(socket: &PathBuf) -> Child {
    std::fs::remove_file(socket).ok();
    let child = Command::new("memcached")
        .args(["-u", "root", "-t", "1", "-m", "1024", "-U", "0", "-s"])
        .arg(socket)
        .stderr(Stdio::null())
        .spawn()
        .expect("the bench needs the memcached program: apt-get install memcached");
    let deadline = Instant::now() + Duration::from_secs(10);
    while UnixStream::connect(socket).is_err() {
        assert!(Instant::now() < deadline, "memcached does not answer");
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}
