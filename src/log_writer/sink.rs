//! The target of a log. Lines are written whole, whatever the target is and whatever else writes to it.

use std::collections::HashMap;
use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// A write of so many bytes to a pipe is not mixed with what other processes write to it (PIPE_BUF of Linux).
const ATOMIC_WRITE_BYTES: usize = 4096;

/// The pause before another attempt, where another process that shares the descriptor has made it non-blocking.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// The target to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Stdout,
    Stderr,
    File(PathBuf),
}

/// One lock for each file, pipe or terminal that a log of this process is written to, by device and inode.
#[derive(Clone, Default)]
pub struct WriteLocks(Arc<Mutex<HashMap<Inode, Weak<Mutex<()>>>>>);

type Inode = (u64, u64);

/// An open log.
pub struct Sink {
    target: Target,
    locks: WriteLocks,
    file: File,
    inode: Inode,
    lock: Arc<Mutex<()>>,
    /// Not a pipe, a socket or a terminal.
    is_regular: bool,
    torn: Option<Torn>,
}

/// A line whose end is missing in the file, because the disk was full. It is completed before anything else is written.
struct Torn {
    line: Vec<u8>,
    written: usize,
}

/// A write that failed.
#[derive(Debug)]
pub struct WriteError {
    pub error: io::Error,
    pub lost: u64,
}

impl Target {
    /// The two names that many configurations have for what is no file: a socket of journald cannot be opened by them.
    pub fn of_path(path: &Path) -> Self {
        match path.to_str() {
            Some("/dev/stdout") => Self::Stdout,
            Some("/dev/stderr") => Self::Stderr,
            _ => Self::File(path.to_owned()),
        }
    }

    fn open(&self) -> io::Result<File> {
        // A descriptor of our own, so that nothing of this waits where the standard library flushes at the end.
        match self {
            Self::Stdout => Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
            Self::Stderr => Ok(File::from(io::stderr().as_fd().try_clone_to_owned()?)),
            Self::File(path) => append(path).map_err(|error| {
                // The error names the path: it may be the only message about a start that failed.
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            }),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::Stderr => f.write_str("standard error"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl WriteLocks {
    fn of(&self, inode: Inode) -> Arc<Mutex<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = locks.get(&inode).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        locks.insert(inode, Arc::downgrade(&lock));
        lock
    }
}

impl Sink {
    pub fn open(target: Target, locks: WriteLocks) -> io::Result<Self> {
        let file = target.open()?;
        let metadata = file.metadata()?;
        let inode = inode(&metadata);
        let is_regular = metadata.is_file();
        let torn = if is_regular { end_of_torn_line(&target) } else { None };
        Ok(Self { lock: locks.of(inode), target, locks, file, inode, is_regular, torn })
    }

    /// Reopens a file, which may have been moved meanwhile. If it cannot be opened, the old one stays in use.
    pub fn reopen(&mut self) -> io::Result<()> {
        if !matches!(self.target, Target::File(_)) {
            return Ok(());
        }
        let mut new = Self::open(self.target.clone(), self.locks.clone())?;
        if let Some(mut torn) = self.torn.take() {
            if new.inode != self.inode {
                // Its beginning is in the other file: here it stands whole.
                torn.written = 0;
            }
            new.torn = Some(torn);
        }
        *self = new;
        Ok(())
    }

    /// Writes whole lines. Lines that cannot be written are lost, except for one that was cut, which is completed
    /// later. A file that was deleted, or whose folder was, is made anew.
    pub fn write(&mut self, lines: &[u8]) -> Result<(), WriteError> {
        if self.is_deleted() {
            self.reopen().map_err(|error| WriteError { error, lost: count_lines(lines) })?;
        }
        let lock = Arc::clone(&self.lock);
        let _turn = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(torn) = &mut self.torn {
            let (written, result) = write_all(&mut self.file, &torn.line[torn.written..]);
            torn.written += written;
            result.map_err(|error| WriteError { error, lost: count_lines(lines) })?;
            self.torn = None;
        }
        let mut rest = lines;
        while !rest.is_empty() {
            let length = if self.is_regular { rest.len() } else { whole_lines(rest) };
            let (written, result) = write_all(&mut self.file, &rest[..length]);
            if let Err(error) = result {
                return Err(WriteError { error, lost: self.tear(rest, written) });
            }
            rest = &rest[length..];
        }
        Ok(())
    }

    /// Whether the file has no name any more, so that what is written to it is read by none. One that was moved has one.
    fn is_deleted(&self) -> bool {
        self.is_regular && self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    /// Called when only `written` bytes of these lines could be written. Returns how many lines are lost.
    pub(super) fn tear(&mut self, lines: &[u8], written: usize) -> u64 {
        let begins = memchr::memrchr(b'\n', &lines[..written]).map_or(0, |at| at + 1);
        if begins == written {
            return count_lines(&lines[written..]);
        }
        let ends = memchr::memchr(b'\n', &lines[written..]).map_or(lines.len(), |at| written + at + 1);
        self.torn = Some(Torn { line: lines[begins..ends].to_owned(), written: written - begins });
        count_lines(&lines[ends..])
    }
}

impl fmt::Display for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.fmt(f)
    }
}

/// Opening a named pipe for writing blocks while it has no reader, so it is opened for both.
fn append(path: &Path) -> io::Result<File> {
    if std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo()) {
        return OpenOptions::new().read(true).write(true).open(path);
    }
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// Returns the end of a line that must be written first, to a file whose last line an earlier process could not
/// complete.
fn end_of_torn_line(target: &Target) -> Option<Torn> {
    let Target::File(path) = target else { return None };
    let mut file = File::open(path).ok()?;
    file.seek(SeekFrom::End(-1)).ok()?;
    let mut last = [0];
    file.read_exact(&mut last).ok()?;
    (last != *b"\n").then(|| Torn { line: b"\n".to_vec(), written: 0 })
}

fn inode(metadata: &Metadata) -> Inode {
    (metadata.dev(), metadata.ino())
}

/// The length of as many whole lines as one write may have, or of one that is longer.
fn whole_lines(lines: &[u8]) -> usize {
    let first = &lines[..lines.len().min(ATOMIC_WRITE_BYTES)];
    if first.len() == lines.len() {
        return first.len();
    }
    let end = memchr::memrchr(b'\n', first).or_else(|| memchr::memchr(b'\n', lines));
    end.map_or(lines.len(), |at| at + 1)
}

/// Also returns how many bytes were written.
#[expect(clippy::disallowed_methods, reason = "the writer's own thread, which no request waits for")]
pub(super) fn write_all(file: &mut File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(some) => written += some,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(RETRY_PAUSE),
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

pub(super) fn count_lines(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}
