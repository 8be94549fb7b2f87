//! Who may log in: users, their password hashes, and the pool that checks passwords.
//!
//! This room finds users and verifies passwords. It does not count failures, keep sessions, write audit lines or
//! know HTTP: the login page (`sentry`) calls [`login::LoginPool`], the command line (`cli::user`) calls
//! [`sqlite::SqliteDirectory`].

pub mod clerk;
mod entry;
mod hash_kind;
pub mod import;
pub mod login;
mod name;
pub mod password;
pub mod sqlite;
mod stored_hash;
pub mod watch;

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;

use crate::clock::UnixTime;
pub use entry::{BadEmail, BadGrant, Email, Grants, NewUser};
pub use hash_kind::HashKind;
pub use name::{BadUserName, UserName};
pub use password::{BadPassword, Password};
pub use stored_hash::{BadHash, StoredHash};

/// A user's identity, which never changes, unlike the name: the token's `sub`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UserId(String);

/// What the directory knows about a user, the password hash apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub name: UserName,
    pub email: Option<String>,
    pub disabled: bool,
    /// Names of the services that the user is registered for, sorted.
    pub services: Vec<String>,
    /// Sorted.
    pub roles: Vec<String>,
    pub created: UnixTime,
}

/// What has become of a user since tokens were made that may still live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserState {
    pub id: UserId,
    pub disabled: bool,
    pub services: Vec<String>,
    pub roles: Vec<String>,
    /// Sessions that began before this moment have ended.
    pub ended_before: UnixTime,
    /// When this was written.
    pub changed: UnixTime,
}

/// Where users live.
///
/// A trait because SQLite is only the embedded directory: PostgreSQL, MySQL or an HTTP service may stand here
/// (`users.store`). Synchronous because it is called on login workers and by the command line, where waiting
/// holds up nobody else; every implementation bounds how long it waits.
///
/// An `Err` never means "no such user": absence is an answer, a failure is not.
pub trait UserDirectory: Send + Sync {
    /// Finds a user, disabled ones too, and the hash of the password.
    fn find(&self, name: &UserName) -> Result<Option<(User, StoredHash)>, DirectoryError>;

    /// The kinds of hashes that users have, which every refusal of a login has to cost: see [`HashKind`]. Asked once,
    /// at start. Of a directory that does not say, a kind is known from the first login on that meets it.
    fn hash_kinds(&self) -> Result<BTreeSet<HashKind>, DirectoryError> {
        Ok(BTreeSet::new())
    }

    /// Puts `new` in the place of `old`. Answers whether it did: when the stored hash is no longer `old`, somebody
    /// has set another password meanwhile, and that one stays.
    fn replace_hash(&self, id: &UserId, old: &StoredHash, new: &StoredHash) -> Result<bool, DirectoryError>;

    /// The users that were written at or after `since`, as they are now.
    fn changed_since(&self, since: UnixTime) -> Result<Vec<UserState>, DirectoryError>;
}

/// The directory could not answer. For the log, through its sources; the client is told that logins are
/// unavailable, and nothing else.
#[derive(Debug)]
pub struct DirectoryError(Box<dyn Error + Send + Sync>);

impl UserId {
    /// A new random identity, a version 4 UUID.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for UserId {
    /// An identity that a directory has stored.
    fn from(stored: String) -> Self {
        Self(stored)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl DirectoryError {
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the user directory did not answer")
    }
}

impl Error for DirectoryError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}
