//! The queue of a log, the thread that writes it, and the reports of lines that are lost.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use serde_json::json;
use tokio::sync::oneshot;

use super::sink::{Sink, Target, WriteError, WriteLocks, count_lines};
use crate::clock::Clock;
use crate::metrics::LogMetrics;

/// The names of the logs, as labels have them.
pub const ACCESS: &str = "access-log";
pub const AUDIT: &str = "audit-log";
pub const PROCESS: &str = "process-log";
pub const NAMES: [&str; 3] = [ACCESS, AUDIT, PROCESS];

/// Bytes of buffer that the writer keeps after a rush.
const MAX_SPARE_BYTES: usize = 1 << 20;

/// A log has recovered when no line was lost for this time.
const RECOVERY_TIME: Duration = Duration::from_secs(1);

/// The interval between two attempts to open a file.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// How many bytes may be queued, and how long lines are collected before they are written together.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    pub bytes: usize,
    pub gather: Duration,
}

/// The logs of one process, and what they have in common.
pub struct SharedLogs {
    pub metrics: LogMetrics,
    /// Logs that write to the same file, pipe or terminal take turns.
    pub locks: WriteLocks,
    pub open: Mutex<Vec<Arc<Queue>>>,
}

/// The lines that the writer of one log has not written yet.
pub struct Queue {
    name: &'static str,
    limits: QueueLimits,
    state: Mutex<State>,
    /// There is something for the writer to do.
    has_work: Condvar,
    /// The writer has ended.
    writer_ended: Condvar,
    dropped: IntCounter,
    errors: IntCounter,
    /// Used to find the log that reports errors of the process log.
    logs: Weak<SharedLogs>,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    /// Lines that the writer has taken and not yet written.
    being_written: u64,
    /// Of queued lines: notified when they have been written, and dropped when they are lost.
    confirmations: Vec<oneshot::Sender<()>>,
    reopen: bool,
    /// No more lines will come.
    ending: bool,
    /// The writer has ended, or is no longer waited for.
    closed: bool,
    loss: Option<Loss>,
}

/// Lines are being lost, and that was reported.
struct Loss {
    lines: u64,
    last: Instant,
    /// Something was written since.
    written_since: bool,
}

/// A report about the state of a log.
enum HealthChange {
    Failing { reason: String },
    Recovered { lost: u64 },
}

/// The next work of the writer.
struct Work {
    bytes: Vec<u8>,
    confirmations: Vec<oneshot::Sender<()>>,
    reopen: bool,
    ending: bool,
}

/// Opens the target and starts the writer. Waits for the file to open for `timeout` at most, and continues without it
/// then: lines are queued.
pub fn start(queue: &Arc<Queue>, target: Target, locks: &WriteLocks, timeout: Duration) -> io::Result<()> {
    let (opened, answer) = sync_channel(1);
    let (of_thread, locks, place) = (Arc::clone(queue), locks.clone(), target.to_string());
    std::thread::Builder::new().name(queue.name.into()).spawn(move || of_thread.write_to(target, &locks, &opened))?;
    match answer.recv_timeout(timeout) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => {
            log::warn!("{}: {place} has not opened yet; lines wait for it", queue.name);
            Ok(())
        }
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the log's thread has ended")),
    }
}

impl Queue {
    pub fn new(name: &'static str, limits: QueueLimits, metrics: &LogMetrics, logs: Weak<SharedLogs>) -> Self {
        Self {
            name,
            limits,
            state: Mutex::default(),
            has_work: Condvar::new(),
            writer_ended: Condvar::new(),
            dropped: metrics.dropped(name),
            errors: metrics.errors(name),
            logs,
        }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn is_losing_lines(&self) -> bool {
        self.lock().loss.is_some()
    }

    /// Queues lines. It never waits for the writer: where there is no room, the lines are lost and counted.
    pub fn push(&self, lines: &[u8]) {
        self.enqueue(lines, None);
    }

    /// The same; the receiver is notified when the lines have been written, and gets an error when they are lost.
    pub fn push_confirmed(&self, lines: &[u8]) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.enqueue(lines, Some(sender));
        receiver
    }

    fn enqueue(&self, lines: &[u8], confirmation: Option<oneshot::Sender<()>>) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        if state.bytes.len() + lines.len() > self.limits.bytes {
            let begins = state.lose(count_lines(lines));
            drop(state);
            self.dropped.inc_by(count_lines(lines));
            if begins {
                let reason = format!("nothing takes them, and {} MiB wait already", self.limits.bytes >> 20);
                self.report(&HealthChange::Failing { reason });
            }
            return;
        }
        let is_first = state.bytes.is_empty();
        state.bytes.extend_from_slice(lines);
        state.confirmations.extend(confirmation);
        drop(state);
        if is_first {
            self.has_work.notify_one();
        }
    }

    /// Has the writer reopen its file, once it has written the lines that are queued now.
    pub fn reopen(&self) {
        self.lock().reopen = true;
        self.has_work.notify_one();
    }

    /// No more lines will come.
    pub fn end(&self) {
        self.lock().ending = true;
        self.has_work.notify_one();
    }

    /// Waits until `until` for the last lines to be written; those that are not are counted as lost.
    pub fn close(&self, until: Instant) {
        self.end();
        let state = self.lock();
        let left = until.saturating_duration_since(Instant::now());
        let waited = self.writer_ended.wait_timeout_while(state, left, |state| !state.closed);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if !std::mem::replace(&mut state.closed, true) {
            // Some of those that are being written may have gone out; of a batch that is cut off, all count.
            let lost = count_lines(&state.bytes) + state.being_written;
            drop(state);
            self.dropped.inc_by(lost);
            if self.name != PROCESS {
                log::error!(
                    "{}: the last lines are lost, at most {lost}: they could not be written in time",
                    self.name
                );
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer's life: opens the target, then writes what has gathered in one go, again and again, until nothing is
    /// left and nothing will come.
    fn write_to(&self, target: Target, locks: &WriteLocks, opened: &SyncSender<io::Result<()>>) {
        if let Some(mut sink) = self.open(target, locks, opened) {
            let mut failed_at = None;
            let mut gathered = Vec::new();
            loop {
                let work = self.next(gathered);
                gathered = work.bytes;
                let again = failed_at.is_some_and(|at: Instant| at.elapsed() >= RETRY_INTERVAL);
                if !gathered.is_empty() {
                    if again {
                        // A file on a server that came back may want to be opened anew; if not, it is no worse.
                        failed_at = None;
                        sink.reopen().ok();
                    }
                    match sink.write(&gathered) {
                        Ok(()) => self.written(work.confirmations),
                        Err(failure) => {
                            failed_at.get_or_insert_with(Instant::now);
                            self.failed(&failure);
                        }
                    }
                } else if work.ending {
                    break;
                }
                if work.reopen
                    && let Err(error) = sink.reopen()
                {
                    self.errors.inc();
                    log::error!("{}: {sink} cannot be reopened, the old file is kept: {error}", self.name);
                }
                gathered.clear();
                // The buffer may be large after a burst of lines, or after a file that was slow.
                gathered.shrink_to(MAX_SPARE_BYTES);
            }
        }
        self.lock().closed = true;
        self.writer_ended.notify_all();
    }

    /// Returns `None` when the start has failed because the target cannot be opened, or when the log was closed first.
    #[expect(clippy::disallowed_methods, reason = "a thread of its own, which no request waits for")]
    fn open(&self, target: Target, locks: &WriteLocks, opened: &SyncSender<io::Result<()>>) -> Option<Sink> {
        loop {
            match Sink::open(target.clone(), locks.clone()) {
                Ok(sink) => {
                    opened.try_send(Ok(())).ok();
                    return Some(sink);
                }
                Err(error) => {
                    self.errors.inc();
                    if opened.try_send(Err(error)).is_ok() {
                        return None;
                    }
                }
            }
            if self.lock().ending {
                return None;
            }
            std::thread::sleep(RETRY_INTERVAL);
        }
    }

    /// Waits for work, and for the lines that come right after it. `spare` is an empty buffer for the next lines.
    #[expect(clippy::disallowed_methods, reason = "a thread of its own, which no request waits for")]
    fn next(&self, mut spare: Vec<u8>) -> Work {
        let mut state = self.lock();
        loop {
            let nothing = |state: &mut State| state.bytes.is_empty() && !state.ending && !state.reopen;
            if state.loss.is_none() {
                state = self.has_work.wait_while(state, nothing).unwrap_or_else(PoisonError::into_inner);
            } else {
                // The loss may be over although no further line came.
                let waited = self.has_work.wait_timeout_while(state, RECOVERY_TIME, nothing);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            if !nothing(&mut state) {
                break;
            }
            if let Some(lost) = state.recover() {
                drop(state);
                self.report(&HealthChange::Recovered { lost });
                state = self.lock();
            }
        }
        let gathers = !state.ending;
        drop(state);
        if gathers {
            // A thread that only sleeps need not be woken.
            std::thread::sleep(self.limits.gather);
        }
        let mut state = self.lock();
        std::mem::swap(&mut spare, &mut state.bytes);
        state.being_written = count_lines(&spare);
        let confirmations = std::mem::take(&mut state.confirmations);
        Work { bytes: spare, confirmations, reopen: std::mem::take(&mut state.reopen), ending: state.ending }
    }

    fn written(&self, confirmations: Vec<oneshot::Sender<()>>) {
        for confirmation in confirmations {
            // An error means that the login has not waited.
            confirmation.send(()).ok();
        }
        let mut state = self.lock();
        state.being_written = 0;
        if let Some(loss) = &mut state.loss {
            loss.written_since = true;
        }
        if let Some(lost) = state.recover() {
            drop(state);
            self.report(&HealthChange::Recovered { lost });
        }
    }

    fn failed(&self, failure: &WriteError) {
        self.errors.inc();
        self.dropped.inc_by(failure.lost);
        let mut state = self.lock();
        state.being_written = 0;
        let begins = state.lose(failure.lost);
        drop(state);
        if begins {
            self.report(&HealthChange::Failing { reason: failure.error.to_string() });
        }
    }

    /// Reported in another log, as this one may not accept it; a gap is reported in the log itself as well.
    fn report(&self, change: &HealthChange) {
        let name = self.name;
        match change {
            HealthChange::Failing { reason } if name != PROCESS => log::error!("{name}: lines are lost: {reason}"),
            HealthChange::Recovered { lost } => log::warn!("{name}: lines are written again; {lost} were lost"),
            HealthChange::Failing { .. } => {}
        }
        let other = self.logs.upgrade().filter(|_| name == PROCESS).and_then(|logs| logs.log_for_process_log_errors());
        if let Some(other) = &other {
            other.push(&self.line(change));
        } else if name == AUDIT && matches!(change, HealthChange::Recovered { .. }) {
            self.push(&self.line(change));
        }
    }

    /// A line of JSON, as the audit log has them.
    fn line(&self, change: &HealthChange) -> Vec<u8> {
        let time = Clock::default().now().rfc3339();
        let entry = match change {
            HealthChange::Failing { reason } => {
                json!({"time": time, "event": "log_failed", "log": self.name, "reason": reason})
            }
            HealthChange::Recovered { lost } => {
                json!({"time": time, "event": "log_recovered", "log": self.name, "lost_lines": lost})
            }
        };
        format!("{entry}\n").into_bytes()
    }
}

impl SharedLogs {
    /// The queues of all logs that are open.
    pub fn all(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Queue>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log that says what is wrong with the process log: the audit log, or the access log where that is off or
    /// loses lines itself.
    fn log_for_process_log_errors(&self) -> Option<Arc<Queue>> {
        let all = self.all();
        let working = |name: &str| all.iter().find(|queue| queue.name() == name && !queue.is_losing_lines()).cloned();
        working(AUDIT).or_else(|| working(ACCESS))
    }
}

impl State {
    /// Returns whether the loss begins with these lines.
    fn lose(&mut self, lines: u64) -> bool {
        let begins = self.loss.is_none();
        let loss = self.loss.get_or_insert(Loss { lines: 0, last: Instant::now(), written_since: false });
        loss.lines += lines;
        loss.last = Instant::now();
        loss.written_since = false;
        begins
    }

    /// Returns how many lines were lost, where the loss is over.
    fn recover(&mut self) -> Option<u64> {
        let is_over = |loss: &&mut Loss| loss.written_since && loss.last.elapsed() >= RECOVERY_TIME;
        let lost = self.loss.as_mut().filter(is_over)?.lines;
        self.loss = None;
        Some(lost)
    }
}
