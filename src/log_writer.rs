//! Writes log lines to a file, to standard output or to standard error, each log on a thread of its own: no request, no
//! signal and no exit of the process waits for a disk, a terminal or the reader of a pipe.
//!
//! The queue is bounded. Lines that a log cannot take are lost and counted (`log_lines_dropped_total`,
//! `log_write_errors_total`), which is reported once when it begins and once when it is over, in another log. `queue`
//! has the queue and the thread, `sink` writes whole lines, [`process`] is what the `log` crate's macros write to.
//! `access_log` and `audit_log` define what a line contains.

pub mod process;
mod queue;
mod sink;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::oneshot;

use crate::config::LogTarget;
use crate::metrics::LogMetrics;
use queue::{Queue, QueueLimits, SharedLogs};
use sink::{Target, WriteLocks};

pub use queue::{ACCESS, AUDIT, NAMES, PROCESS};

/// How long lines are collected before they are written, where there are many: otherwise every request would wake the
/// writer, which would write one line and sleep again. A crash loses the lines of that time.
pub const GATHER: Duration = Duration::from_millis(20);

/// How long the exit of the process waits for the last lines. Lines that a blocked pipe does not take by then are lost.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a start waits for a file to open. A file that takes longer, on a server that does not answer, is opened
/// while requests are served.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of lines that may wait for a writer.
const QUEUE_BYTES: usize = 32 << 20;

/// The same limit for the process log, which has few lines.
const PROCESS_QUEUE_BYTES: usize = 4 << 20;

/// Most lines are shorter.
const LINE_BYTES: usize = 512;

/// The logs of one process, and what they have in common.
#[derive(Clone)]
pub struct Logs(Arc<SharedLogs>);

/// Accepts lines. Dropping it writes the remaining ones, and waits `FLUSH_TIMEOUT` for that.
pub struct LogWriter(Option<Arc<Queue>>);

impl Logs {
    pub fn new(metrics: LogMetrics) -> Self {
        Self(Arc::new(SharedLogs { metrics, locks: WriteLocks::default(), open: Mutex::default() }))
    }

    pub fn metrics(&self) -> &LogMetrics {
        &self.0.metrics
    }

    /// Opens the target. A file is appended to, and created for its owner and group alone. A line is written within
    /// `gather`, together with those that come in that time.
    pub fn open(&self, target: &LogTarget, name: &'static str, gather: Duration) -> io::Result<LogWriter> {
        let target = match target {
            LogTarget::Off => return Ok(LogWriter::off()),
            LogTarget::Stdout => Target::Stdout,
            LogTarget::File(path) => Target::of_path(path),
        };
        self.start(target, name, QueueLimits { bytes: QUEUE_BYTES, gather })
    }

    /// The process log, on standard error.
    fn open_process_log(&self) -> io::Result<LogWriter> {
        self.start(Target::Stderr, PROCESS, QueueLimits { bytes: PROCESS_QUEUE_BYTES, gather: Duration::ZERO })
    }

    fn start(&self, target: Target, name: &'static str, limits: QueueLimits) -> io::Result<LogWriter> {
        let queue = Arc::new(Queue::new(name, limits, &self.0.metrics, Arc::downgrade(&self.0)));
        queue::start(&queue, target, &self.0.locks, OPEN_TIMEOUT)?;
        self.all().push(Arc::clone(&queue));
        Ok(LogWriter(Some(queue)))
    }

    /// Has each writer reopen its file. Each line goes whole to the old file or to the new one.
    pub fn reopen(&self) {
        self.all().iter().for_each(|queue| queue.reopen());
    }

    /// Writes the remaining lines of all logs but the process log, which records how many could not be written in time.
    pub fn close(&self) {
        let until = Instant::now() + FLUSH_TIMEOUT;
        let others: Vec<_> = self.all().iter().filter(|queue| queue.name() != PROCESS).cloned().collect();
        others.iter().for_each(|queue| queue.end());
        for queue in others {
            queue.close(until);
        }
    }

    /// The same, and then the process log.
    pub fn close_with_process_log(&self) {
        self.close();
        let process: Vec<_> = self.all().iter().filter(|queue| queue.name() == PROCESS).cloned().collect();
        process.iter().for_each(|queue| queue.close(Instant::now() + FLUSH_TIMEOUT));
    }

    fn all(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Queue>>> {
        self.0.all()
    }
}

impl LogWriter {
    /// Takes lines and keeps none.
    pub fn off() -> Self {
        Self(None)
    }

    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Queues one entry as a line of JSON.
    pub fn write(&self, entry: &impl Serialize) {
        let Some(queue) = &self.0 else { return };
        let mut line = Vec::with_capacity(LINE_BYTES);
        // A struct of strings and numbers always serializes.
        if serde_json::to_writer(&mut line, entry).is_ok() {
            line.push(b'\n');
            queue.push(&line);
        }
    }

    /// The same; the receiver is notified when the line has been written, and gets an error when it is lost.
    pub fn write_confirmed(&self, entry: &impl Serialize) -> Option<oneshot::Receiver<()>> {
        let queue = self.0.as_ref()?;
        let mut line = serde_json::to_vec(entry).ok()?;
        line.push(b'\n');
        Some(queue.push_confirmed(&line))
    }

    pub fn is_losing_lines(&self) -> bool {
        self.0.as_ref().is_some_and(|queue| queue.is_losing_lines())
    }

    /// Queues a text of whole lines.
    pub fn write_text(&self, text: &str) {
        if let Some(queue) = &self.0 {
            queue.push(text.as_bytes());
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        if let Some(queue) = self.0.take() {
            queue.close(Instant::now() + FLUSH_TIMEOUT);
        }
    }
}

/// Returns whether a log path is a file, and not a name of standard output or standard error.
pub fn is_file(path: &Path) -> bool {
    matches!(Target::of_path(path), Target::File(_))
}

#[cfg(test)]
mod tests;
