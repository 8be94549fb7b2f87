//! The file of the directory, which another file may replace at any time: a copy from another machine, a backup that was
//! restored, garbage.
//!
//! The path is checked before each use. If another file is there than the one that was opened, or another process has
//! written to it, the connection is closed and the file is opened again, because SQLite alone would keep using the file
//! that it has open. A file that is not a good directory is not used: then there is no directory until it is repaired.

use std::fs::Metadata;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::error::{SqliteError, failed};
use super::schema;
use crate::users::Source;

/// A bad file is tried again after this time though it looks the same: another process may have locked it.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A directory's file and the one connection to it.
pub struct File {
    path: PathBuf,
    opened: Mutex<Opened>,
}

struct Opened {
    /// A connection to an empty database in memory while the file is bad.
    connection: Connection,
    is_good: bool,
    /// The file as it was when it was last opened, or tried.
    stamp: Option<FileStamp>,
    source: Source,
    fault: Option<Fault>,
}

/// Why the file cannot be used.
struct Fault {
    why: String,
    at: Instant,
}

/// What distinguishes a file from another one, and from itself before it was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The connection, locked until this is dropped.
pub struct ConnectionGuard<'a> {
    opened: MutexGuard<'a, Opened>,
    path: &'a Path,
    /// The number of rows that the connection had written when it was locked.
    written: u64,
}

impl File {
    /// Opens a file that exists. [`schema::open`] migrates it to the present schema.
    pub fn open(path: &Path) -> Result<Self, SqliteError> {
        let before = FileStamp::of(path).ok();
        let connection = schema::open(path)?;
        // A file that replaced this one meanwhile is not the one that is open. It is opened at the first use.
        let stamp = FileStamp::of(path).ok().filter(|now| before.is_some_and(|before| before.inode == now.inode));
        let opened = Opened { connection, is_good: true, stamp, source: Source::default(), fault: None };
        Ok(Self { path: path.to_owned(), opened: Mutex::new(opened) })
    }

    /// Returns the connection to the file that is at the path now.
    pub fn connection(&self) -> Result<ConnectionGuard<'_>, SqliteError> {
        // A panic while it was held leaves at most a transaction that was rolled back, so poison means nothing here.
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.reopen_if_changed(&self.path)?;
        let written = opened.connection.total_changes();
        Ok(ConnectionGuard { opened, path: &self.path, written })
    }
}

impl Opened {
    fn reopen_if_changed(&mut self, path: &Path) -> Result<(), SqliteError> {
        let stamp = match FileStamp::of(path) {
            Ok(stamp) => stamp,
            Err(error) => {
                // The file that is open may have been moved anywhere.
                self.close()?;
                self.stamp = None;
                self.fault = None;
                return Err(match error.kind() {
                    io::ErrorKind::NotFound => SqliteError::Missing(path.to_owned()),
                    _ => SqliteError::NoGood { path: path.to_owned(), why: error.to_string() },
                });
            }
        };
        if self.stamp == Some(stamp) {
            if self.is_good {
                return Ok(());
            }
            if let Some(fault) = self.fault.as_ref().filter(|fault| fault.at.elapsed() < RETRY_AFTER) {
                return Err(SqliteError::NoGood { path: path.to_owned(), why: fault.why.clone() });
            }
        }
        self.reopen(path, stamp)
    }

    fn reopen(&mut self, path: &Path, stamp: FileStamp) -> Result<(), SqliteError> {
        let same_file = self.stamp.is_some_and(|before| before.inode == stamp.inode);
        // A file that was in use all the time, and was only written to, need not be checked from end to end.
        let is_known = same_file && self.is_good;
        self.close()?;
        self.stamp = Some(stamp);
        self.source.version += 1;
        if !same_file {
            self.source.file += 1;
        }
        match schema::reopen(path, is_known) {
            Ok(connection) => {
                if !is_known {
                    log::info!("user directory: opened the new file path={}", path.display());
                }
                (self.connection, self.is_good, self.fault) = (connection, true, None);
                Ok(())
            }
            Err(error) => {
                let why = error.in_full();
                self.fault = Some(Fault { why: why.clone(), at: Instant::now() });
                Err(SqliteError::NoGood { path: path.to_owned(), why })
            }
        }
    }

    /// Closes the file.
    fn close(&mut self) -> Result<(), SqliteError> {
        if std::mem::take(&mut self.is_good) {
            self.connection = Connection::open_in_memory().map_err(failed("closing the file"))?;
        }
        Ok(())
    }
}

impl ConnectionGuard<'_> {
    pub fn source(&self) -> Source {
        self.opened.source
    }
}

impl Deref for ConnectionGuard<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.opened.connection
    }
}

impl DerefMut for ConnectionGuard<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.opened.connection
    }
}

impl Drop for ConnectionGuard<'_> {
    /// Takes note of the file if this connection has written to it, so that it is not opened again for that. Another file
    /// that has replaced it meanwhile is still opened.
    fn drop(&mut self) {
        if self.opened.connection.total_changes() != self.written
            && let Ok(now) = FileStamp::of(self.path)
            && self.opened.stamp.is_some_and(|before| before.inode == now.inode)
        {
            self.opened.stamp = Some(now);
        }
    }
}

impl FileStamp {
    fn of(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|metadata| Self::from(&metadata))
    }
}

impl From<&Metadata> for FileStamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
