//! Lines of JSON to a file or to standard output, written by a thread of its own so that no request waits for a disk.
//!
//! What waits is bounded: a writer that falls behind loses lines and counts them, and never slows the edge.
//! `access_log` and `audit_log` say what a line holds.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use prometheus::IntCounter;
use serde::Serialize;

use crate::config::LogTarget;

/// How long lines gather before they are written, where there are many: else every request would wake the writer, which
/// would write one line and sleep again. What a crash loses is so much.
pub const GATHER: Duration = Duration::from_millis(20);

/// Bytes of lines that may wait for the writer.
const ROOM: usize = 32 << 20;

/// Most lines are shorter.
const LINE: usize = 512;

/// Room that the writer keeps after a rush.
const KEPT: usize = 1 << 20;

/// Accepts lines. Dropping it writes what is left, and waits for that.
pub struct LogWriter {
    waiting: Option<Arc<Waiting>>,
    dropped: IntCounter,
    thread: Option<JoinHandle<()>>,
}

/// What the writer has not written yet.
#[derive(Default)]
struct Waiting {
    lines: Mutex<Lines>,
    came: Condvar,
}

#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    /// None will come any more.
    over: bool,
}

impl LogWriter {
    /// Opens the target. A file is appended to, and created for its owner and group alone. A line is written within
    /// `gather`, together with those that came meanwhile.
    pub fn open(target: &LogTarget, name: &str, gather: Duration, dropped: IntCounter) -> io::Result<Self> {
        let output: Box<dyn Write + Send> = match target {
            LogTarget::Off => return Ok(Self { waiting: None, dropped, thread: None }),
            LogTarget::Stdout => Box::new(io::stdout()),
            LogTarget::File(path) => Box::new(append(path)?),
        };
        let waiting = Arc::<Waiting>::default();
        let of_thread = Arc::clone(&waiting);
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || of_thread.write_to(output, gather))?;
        Ok(Self { waiting: Some(waiting), dropped, thread: Some(thread) })
    }

    pub fn is_on(&self) -> bool {
        self.waiting.is_some()
    }

    /// Queues one entry as a line of JSON.
    pub fn write(&self, entry: &impl Serialize) {
        let Some(waiting) = &self.waiting else { return };
        let mut line = Vec::with_capacity(LINE);
        // A struct of strings and numbers always serializes.
        if serde_json::to_writer(&mut line, entry).is_ok() {
            line.push(b'\n');
            if !waiting.push(&line) {
                self.dropped.inc();
            }
        }
    }
}

impl Waiting {
    /// `false` where there is no room.
    fn push(&self, line: &[u8]) -> bool {
        let mut lines = self.lock();
        if lines.bytes.len() + line.len() > ROOM {
            return false;
        }
        let is_first = lines.bytes.is_empty();
        lines.bytes.extend_from_slice(line);
        drop(lines);
        if is_first {
            self.came.notify_one();
        }
        true
    }

    /// Writes what has gathered in one go, again and again, until nothing is left and nothing will come.
    #[expect(clippy::disallowed_methods, reason = "a thread of its own, which no request waits for")]
    fn write_to(&self, mut output: Box<dyn Write + Send>, gather: Duration) {
        let mut gathered = Vec::new();
        loop {
            let lines = self.lock();
            let nothing = |lines: &mut Lines| lines.bytes.is_empty() && !lines.over;
            drop(self.came.wait_while(lines, nothing).unwrap_or_else(PoisonError::into_inner));
            // Nobody has to wake who only sleeps.
            std::thread::sleep(gather);
            std::mem::swap(&mut gathered, &mut self.lock().bytes);
            if gathered.is_empty() {
                return;
            }
            // A full disk or a closed pipe loses log lines; it must not end the edge.
            output.write_all(&gathered).ok();
            output.flush().ok();
            gathered.clear();
            // After a rush, or a file that took long.
            gathered.shrink_to(KEPT);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            waiting.lock().over = true;
            waiting.came.notify_one();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn append(path: &std::path::Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    OpenOptions::new().append(true).create(true).mode(0o640).open(path).map_err(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_queued_is_written_before_the_handle_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let dropped = IntCounter::new("dropped", "lines").unwrap();
        let log = LogWriter::open(&LogTarget::File(path.clone()), "test-log", GATHER, dropped.clone()).unwrap();
        for n in 0..1000 {
            log.write(&n);
        }
        drop(log);
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count() as u64 + dropped.get(), 1000);
        assert!(text.starts_with("0\n1\n"));
    }

    #[test]
    fn what_there_is_no_room_for_is_lost_and_nothing_else() {
        let waiting = Waiting::default();
        assert!(waiting.push(&vec![b'x'; ROOM - 2]));
        assert!(!waiting.push(b"xyz"));
        assert!(waiting.push(b"xy"));
        assert_eq!(waiting.lock().bytes.len(), ROOM);
    }

    #[test]
    fn a_target_that_cannot_be_opened_is_named() {
        let target = LogTarget::File("/nonexistent/access.log".into());
        let error = LogWriter::open(&target, "test-log", GATHER, IntCounter::new("d", "d").unwrap()).err().unwrap();
        assert!(error.to_string().contains("/nonexistent/access.log"));
    }
}
