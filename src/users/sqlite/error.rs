//! Why the SQLite file could not be opened or used.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::users::directory::{DirectoryError, with_causes};

/// Why an operation on the file failed. For the operator and the log.
#[derive(Debug)]
pub enum SqliteError {
    /// There is no file.
    Missing(PathBuf),
    /// The file is an SQLite database of another program.
    Foreign(PathBuf),
    /// The file that is at the path now cannot be used.
    NoGood {
        path: PathBuf,
        why: String,
    },
    /// SQLite finds the file to be corrupt.
    Damaged {
        path: PathBuf,
        found: String,
    },
    /// The file replaced another one while the edge runs, and was not migrated.
    OlderSchema {
        path: PathBuf,
        found: u32,
        ours: u32,
    },
    /// A newer sentry-edge has migrated the file.
    NewerSchema {
        path: PathBuf,
        found: u32,
        ours: u32,
    },
    File {
        path: PathBuf,
        source: io::Error,
    },
    /// `doing` completes "the user database failed at …".
    Database {
        doing: &'static str,
        source: rusqlite::Error,
    },
}

/// Returns what turns an error of SQLite into one that says what was being done.
pub fn failed(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> SqliteError {
    move |source| SqliteError::Database { doing, source }
}

impl SqliteError {
    /// Returns the text for an operator: what failed, with its cause.
    pub fn in_full(&self) -> String {
        with_causes(self)
    }

    /// Returns the failure to open the file at `path`.
    pub fn at(&self, path: &Path) -> DirectoryError {
        DirectoryError::unavailable(format!("{}: {}", path.display(), self.in_full()))
    }
}

impl From<SqliteError> for DirectoryError {
    fn from(error: SqliteError) -> Self {
        Self::unavailable(error)
    }
}

impl fmt::Display for SqliteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => {
                write!(f, "there is no user directory at {}; make one with `user add`", path.display())
            }
            Self::Foreign(path) => {
                write!(f, "{} is the database of something else; name a file of its own", path.display())
            }
            Self::NewerSchema { path, found, ours } => write!(
                f,
                "{} has schema version {found} and this sentry-edge knows {ours}; run the newer one that made it",
                path.display()
            ),
            Self::NoGood { path, why } => write!(f, "what is at {} is no user directory: {why}", path.display()),
            Self::Damaged { path, found } => write!(f, "{} is damaged: {}", path.display(), found.replace('\n', " ")),
            Self::OlderSchema { path, found, ours } => write!(
                f,
                "{} has schema version {found} and this sentry-edge wants {ours}; `sentry-edge user list` brings it there",
                path.display()
            ),
            Self::File { path, .. } => write!(f, "cannot make {}", path.display()),
            Self::Database { doing, .. } => write!(f, "the user database failed at {doing}"),
        }
    }
}

impl Error for SqliteError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::File { source, .. } => Some(source),
            Self::Database { source, .. } => Some(source),
            _ => None,
        }
    }
}
