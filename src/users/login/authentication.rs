//! The result of a login: who signed in, why a login was refused, or why no password could be verified.

use std::error::Error;
use std::fmt;

use crate::users::User;
use crate::users::directory::DirectoryError;
use crate::users::password::HashError;

/// The result of a login.
#[derive(Debug)]
#[must_use]
pub enum Authentication {
    Accepted(User),
    Refused(Refusal),
    /// The queue is full, or the deadline passed.
    Busy,
    Unavailable {
        cause: LoginError,
    },
}

/// Why a login was refused. For the audit log alone: the client gets the same response, in the same time, for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    UnknownUser,
    WrongPassword,
    /// The password was right.
    Disabled,
}

/// Why no password could be verified. For the log.
#[derive(Debug)]
pub enum LoginError {
    Directory(DirectoryError),
    Hash(HashError),
    /// The worker panicked at this login, and continues with the next.
    Panicked,
}

impl From<DirectoryError> for LoginError {
    fn from(source: DirectoryError) -> Self {
        Self::Directory(source)
    }
}

impl From<HashError> for LoginError {
    fn from(source: HashError) -> Self {
        Self::Hash(source)
    }
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory(_) => "a login could not look up its user",
            Self::Hash(_) => "a login could not check its password",
            Self::Panicked => "a login made its worker panic",
        })
    }
}

impl Error for LoginError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Directory(source) => Some(source),
            Self::Hash(source) => Some(source),
            Self::Panicked => None,
        }
    }
}
