//! Lines to a file or to standard output, written by a thread of its own so that no request waits for a disk.
//!
//! The queue is bounded: a writer that falls behind loses lines and counts them, and never slows the edge.
//! `access_log` and `audit_log` say what a line holds.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use prometheus::IntCounter;

use crate::config::LogTarget;

/// How long lines gather before they are written, where there are many: else every request would wake the writer, which
/// would write one line and sleep again. What a crash loses is so much.
pub const GATHER: Duration = Duration::from_millis(20);

/// Lines that may wait for the writer.
const QUEUE: usize = 65_536;

/// A handle to the writer. When it is dropped, what was queued is written first.
pub struct LogWriter {
    queue: Option<SyncSender<String>>,
    dropped: IntCounter,
    thread: Option<JoinHandle<()>>,
}

impl LogWriter {
    /// Opens the target. A file is appended to, and created for its owner and group alone. A line is written within
    /// `gather`, together with those that came meanwhile.
    pub fn open(target: &LogTarget, name: &str, gather: Duration, dropped: IntCounter) -> io::Result<Self> {
        let output: Box<dyn Write + Send> = match target {
            LogTarget::Off => return Ok(Self { queue: None, dropped, thread: None }),
            LogTarget::Stdout => Box::new(io::stdout()),
            LogTarget::File(path) => Box::new(append(path)?),
        };
        let (queue, lines) = sync_channel(QUEUE);
        let thread =
            std::thread::Builder::new().name(name.into()).spawn(move || write_lines(output, &lines, gather))?;
        Ok(Self { queue: Some(queue), dropped, thread: Some(thread) })
    }

    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Queues one line, without its end.
    pub fn write(&self, line: String) {
        let Some(queue) = &self.queue else { return };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = queue.try_send(line) {
            self.dropped.inc();
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        drop(self.queue.take());
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

/// Writes what has gathered in one go, and flushes whenever nothing more waits.
#[expect(clippy::disallowed_methods, reason = "a thread of its own, which no request waits for")]
fn write_lines(output: Box<dyn Write + Send>, lines: &Receiver<String>, gather: Duration) {
    let mut output = BufWriter::with_capacity(64 * 1024, output);
    while let Ok(first) = lines.recv() {
        // Nobody has to wake who only sleeps.
        std::thread::sleep(gather);
        let mut next = Some(first);
        while let Some(mut line) = next {
            line.push('\n');
            // A full disk or a closed pipe loses log lines; it must not end the edge.
            output.write_all(line.as_bytes()).ok();
            next = lines.try_recv().ok();
        }
        output.flush().ok();
    }
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
            log.write(format!("line {n}"));
        }
        drop(log);
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count() as u64 + dropped.get(), 1000);
        assert!(text.starts_with("line 0\nline 1\n"));
    }

    #[test]
    fn a_target_that_cannot_be_opened_is_named() {
        let target = LogTarget::File("/nonexistent/access.log".into());
        let error = LogWriter::open(&target, "test-log", GATHER, IntCounter::new("d", "d").unwrap()).err().unwrap();
        assert!(error.to_string().contains("/nonexistent/access.log"));
    }
}
