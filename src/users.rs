//! Who may log in: users, their password hashes, and the pool that checks passwords.
//!
//! This room finds users and verifies passwords. It does not count failures, keep sessions, write audit lines or
//! know HTTP: the login page (`sentry`) calls [`login::LoginPool`], the command line (`cli::user`) calls
//! [`sqlite::SqliteDirectory`].

pub mod changes;
pub mod directory_worker;
mod entry;
mod hash_kind;
pub mod import;
pub mod instrumented;
pub mod login;
mod name;
pub mod password;
pub mod sqlite;
mod stored_hash;

use std::collections::{BTreeSet, HashSet};
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
    /// The number of the last change of this user, as in [`UserState`].
    pub change: u64,
}

/// What has become of a user since tokens were made that may still live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserState {
    pub id: UserId,
    pub disabled: bool,
    pub services: Vec<String>,
    pub roles: Vec<String>,
    /// When an administrator last ended the user's sessions, by that machine's clock.
    pub ended_before: UnixTime,
    /// The number of the change that did; 0 is none.
    pub ended_by: u64,
    /// The number of the last change of this user. The directory counts its changes, from 1 on.
    pub change: u64,
    /// When sessions were ended by the word of a copy that was there before this one. The directory itself never says so.
    pub ended_formerly: UnixTime,
}

/// What has changed in a directory.
#[derive(Debug, Default)]
pub struct Changes {
    /// In the order of their numbers.
    pub users: Vec<UserState>,
    /// Whether there are more, after the last of these.
    pub more: bool,
    /// The number of the directory's last change. It falls only where an older copy was put in its place.
    pub last: u64,
    pub source: Source,
}

/// Where changes were read from. Numbers of different sources may be those of different copies, each with changes of its
/// own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Counts the files that have been in this place.
    pub file: u64,
    /// Counts how often something else than the edge has written to it.
    pub version: u64,
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

    /// The number of the user's last change, as in [`UserState`]; `None` where there is no such user.
    fn change_of(&self, name: &UserName) -> Result<Option<u64>, DirectoryError> {
        Ok(self.find(name)?.map(|(user, _)| user.change))
    }

    /// The kinds of hashes that users have, which every refusal of a login has to cost: see [`HashKind`]. Asked once,
    /// at start. Of a directory that does not say, a kind is known from the first login on that meets it.
    fn hash_kinds(&self) -> Result<BTreeSet<HashKind>, DirectoryError> {
        Ok(BTreeSet::new())
    }

    /// Puts `new` in the place of `old`. Answers whether it did: when the stored hash is no longer `old`, somebody
    /// has set another password meanwhile, and that one stays.
    fn replace_hash(&self, id: &UserId, old: &StoredHash, new: &StoredHash) -> Result<bool, DirectoryError>;

    /// The users that were changed after change number `since`, as they are now: some at a time, so that logins do not
    /// wait long for the directory. Numbers and not moments, because clocks are put right and differ between machines.
    fn changed_since(&self, since: u64) -> Result<Changes, DirectoryError>;

    /// How users stand now, whether they were ever changed or not. Those that are not there are left out.
    fn standing(&self, _ids: &[&str]) -> Result<Vec<UserState>, DirectoryError> {
        Ok(Vec::new())
    }

    /// The identities of all users, to see who is missing in another copy. `None` of a directory that does not say.
    fn ids(&self) -> Result<Option<HashSet<Box<str>>>, DirectoryError> {
        Ok(None)
    }
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
