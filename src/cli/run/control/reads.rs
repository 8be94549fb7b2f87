//! The reads of a reload, on a thread of their own, one at a time and with a deadline. A thread that hangs at a file
//! cannot be ended, so their number is limited.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Threads that read, including those that have timed out.
const MAX_THREADS: usize = 4;

/// The size of each thread's stack, the same as the main thread's.
const STACK_BYTES: usize = 8 << 20;

pub struct FileReads {
    limit: Duration,
    /// The number of the last one.
    last: u64,
    /// The deadline of the read in progress.
    deadline: Option<Instant>,
    /// Each thread holds one more.
    threads: Arc<()>,
}

impl FileReads {
    pub fn new(limit: Duration) -> Self {
        Self { limit, last: 0, deadline: None, threads: Arc::default() }
    }

    /// `None` while nothing is read.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Has `read` called with its number, on another thread.
    pub fn begin(&mut self, read: impl FnOnce(u64) + Send + 'static) -> io::Result<()> {
        if Arc::strong_count(&self.threads) > MAX_THREADS {
            return Err(io::Error::other("several reloads before it still wait for their files"));
        }
        let (number, thread) = (self.last + 1, Arc::clone(&self.threads));
        std::thread::Builder::new().name("reload".into()).stack_size(STACK_BYTES).spawn(move || {
            read(number);
            drop(thread);
        })?;
        (self.last, self.deadline) = (number, Some(Instant::now() + self.limit));
        Ok(())
    }

    /// Returns whether this read is still the current one, and ends it.
    pub fn finish(&mut self, number: u64) -> bool {
        let is_awaited = self.deadline.is_some() && number == self.last;
        if is_awaited {
            self.deadline = None;
        }
        is_awaited
    }

    /// The read in progress has timed out, and its result will be ignored.
    pub fn give_up(&mut self) {
        self.deadline = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    /// Begins a read that waits for a message, and then sends its number.
    fn begin(reads: &mut FileReads, read: &SyncSender<u64>) -> io::Result<SyncSender<()>> {
        let (end, ended): (_, Receiver<()>) = sync_channel(1);
        let read = read.clone();
        reads.begin(move |number| {
            ended.recv().ok();
            read.send(number).ok();
        })?;
        Ok(end)
    }

    #[test]
    fn what_was_given_up_is_not_taken_up_later_and_only_so_many_hang() {
        let (read, has_read) = sync_channel(MAX_THREADS);
        let mut reads = FileReads::new(Duration::from_secs(60));
        let mut hanging = Vec::new();
        for _ in 0..MAX_THREADS {
            assert_eq!(reads.deadline(), None);
            hanging.push(begin(&mut reads, &read).unwrap());
            assert!(reads.deadline().is_some_and(|deadline| deadline > Instant::now()));
            reads.give_up();
        }
        assert!(begin(&mut reads, &read).is_err(), "all hang");
        assert_eq!(reads.deadline(), None);
        hanging.remove(0).send(()).unwrap();
        assert_eq!(has_read.recv().unwrap(), 1);
        assert!(!reads.finish(1), "it was given up");
        let last = loop {
            // Until the first one's thread has ended.
            if let Ok(last) = begin(&mut reads, &read) {
                break last;
            }
        };
        hanging.remove(0).send(()).unwrap();
        assert_eq!(has_read.recv().unwrap(), 2);
        assert!(!reads.finish(2), "another is under way");
        last.send(()).unwrap();
        assert_eq!(has_read.recv().unwrap(), MAX_THREADS as u64 + 1);
        assert!(reads.finish(MAX_THREADS as u64 + 1));
        assert!(!reads.finish(MAX_THREADS as u64 + 1), "once");
    }
}
