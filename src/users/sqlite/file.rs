//! The file under the directory, which another may take the place of at any time: a copy from another machine, a backup
//! that was restored, garbage.
//!
//! Before each use the file's place is looked at. Where something else is there than was opened, or something else than
//! this process has written to it, the connection is closed and the file opened again, as SQLite alone would go on with
//! what it has. What is no good directory does not take the place of a good one: there is none then, until the file is
//! mended.

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

/// A file that is no good is tried again after so long, though it looks the same: another process may have locked it.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// A directory's file and the one connection to it.
pub struct File {
    path: PathBuf,
    opened: Mutex<Opened>,
}

struct Opened {
    /// To an empty database in memory while what is there is no good.
    connection: Connection,
    is_good: bool,
    /// What was there when it was last opened, or tried.
    stamp: Option<FileStamp>,
    source: Source,
    fault: Option<Fault>,
}

/// Why what is there is no good.
struct Fault {
    why: String,
    at: Instant,
}

/// Everything by which a file is told from another, or from itself before somebody wrote to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The connection, for as long as nobody else may have it.
pub struct ConnectionGuard<'a> {
    opened: MutexGuard<'a, Opened>,
    path: &'a Path,
    /// Rows that this connection had written before.
    written: u64,
}

impl File {
    /// Opens a file that is there; [`schema::open`] brings it to the present schema.
    pub fn open(path: &Path) -> Result<Self, SqliteError> {
        let before = FileStamp::of(path).ok();
        let connection = schema::open(path)?;
        // Another file that has come meanwhile is not the one that is open: it is opened with the first use.
        let stamp = FileStamp::of(path).ok().filter(|now| before.is_some_and(|before| before.inode == now.inode));
        let opened = Opened { connection, is_good: true, stamp, source: Source::default(), fault: None };
        Ok(Self { path: path.to_owned(), opened: Mutex::new(opened) })
    }

    /// The connection to what is there now.
    pub fn connection(&self) -> Result<ConnectionGuard<'_>, SqliteError> {
        // A panic while it was held leaves at most a transaction that was rolled back, so poison means nothing here.
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.follow(&self.path)?;
        let written = opened.connection.total_changes();
        Ok(ConnectionGuard { opened, path: &self.path, written })
    }
}

impl Opened {
    fn follow(&mut self, path: &Path) -> Result<(), SqliteError> {
        let stamp = match FileStamp::of(path) {
            Ok(stamp) => stamp,
            Err(error) => {
                // What was there may be anywhere now.
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
            if let Some(fault) = self.fault.as_ref().filter(|fault| fault.at.elapsed() < TRY_AGAIN) {
                return Err(SqliteError::NoGood { path: path.to_owned(), why: fault.why.clone() });
            }
        }
        self.open_again(path, stamp)
    }

    fn open_again(&mut self, path: &Path, stamp: FileStamp) -> Result<(), SqliteError> {
        let same_file = self.stamp.is_some_and(|before| before.inode == stamp.inode);
        // The one that was in use all the time, and was written to, need not be read from end to end.
        let is_known = same_file && self.is_good;
        self.close()?;
        self.stamp = Some(stamp);
        self.source.version += 1;
        if !same_file {
            self.source.file += 1;
        }
        match schema::open_again(path, is_known) {
            Ok(connection) => {
                if !is_known {
                    log::info!("user directory: what is at {} now was opened", path.display());
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
    /// What was written here is no reason to open the file again; another file that has taken its place meanwhile is.
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
