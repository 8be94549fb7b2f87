//! The two interfaces of a user directory: [`UserDirectory`] is what sign-on reads, [`UserRegistry`] is what
//! administrators change.
//!
//! SQLite is the embedded implementation. Another one (PostgreSQL, MySQL, an HTTP service) implements both traits, is
//! opened in `users/open.rs`, and has to pass the conformance suite in `users/tests.rs`.

use std::collections::{BTreeSet, HashSet};
use std::error::Error;
use std::fmt;

use super::{Grants, HashKind, NewUser, StoredHash, User, UserId, UserName, UserState};
use crate::clock::UnixTime;

/// What sign-on needs: users with their password hashes, and what has changed.
///
/// The calls are synchronous because they are made on threads of their own (login workers, the reader of changes) and by
/// the command line. Every implementation bounds how long a call waits.
///
/// An `Err` never means "no such user": an absent user is an answer, a failure is not.
pub trait UserDirectory: Send + Sync {
    /// Finds a user, disabled ones included, and the hash of the password.
    fn find(&self, name: &UserName) -> Result<Option<(User, StoredHash)>, DirectoryError>;

    /// Returns the number of the user's last change, as in [`UserState`], or `None` if there is no such user.
    fn change_of(&self, name: &UserName) -> Result<Option<u64>, DirectoryError> {
        Ok(self.find(name)?.map(|(user, _)| user.change))
    }

    /// Returns the kinds of the stored hashes: each refused login does the work of all of them, see [`HashKind`]. Called
    /// once, at start. A directory that cannot tell returns none, and a kind is learned from the first login that meets it.
    fn hash_kinds(&self) -> Result<BTreeSet<HashKind>, DirectoryError> {
        Ok(BTreeSet::new())
    }

    /// Replaces the hash `old` by `new`, and returns whether it did. When the stored hash is no longer `old`, another
    /// password was set meanwhile, and that one stays.
    fn replace_hash(&self, id: &UserId, old: &StoredHash, new: &StoredHash) -> Result<bool, DirectoryError>;

    /// Returns the present states of users that were changed after change number `since`, one page at a time, so that
    /// logins do not wait long for the directory. Changes are numbered and not dated, because clocks are corrected and
    /// differ between machines.
    fn changed_since(&self, since: u64) -> Result<ChangesPage, DirectoryError>;

    /// Returns the present states of users, whether they were ever changed or not. Users that do not exist are left out.
    fn standing(&self, _ids: &[&str]) -> Result<Vec<UserState>, DirectoryError> {
        Ok(Vec::new())
    }

    /// Returns the identities of all users, by which users that a copy lacks are found. `None` if the directory cannot
    /// tell.
    fn ids(&self) -> Result<Option<HashSet<Box<str>>>, DirectoryError> {
        Ok(None)
    }
}

/// What administrators do to users, from the command line and over the admin API.
///
/// A change of a user ([`set_password_hash`](Self::set_password_hash), [`set_disabled`](Self::set_disabled),
/// [`unlock`](Self::unlock), [`end_sessions`](Self::end_sessions), [`end_all_sessions`](Self::end_all_sessions), [`grant`](Self::grant), [`revoke`](Self::revoke)) gets
/// the next change number, by which every edge learns of it ([`UserDirectory::changed_since`]). A user who is only added
/// is no change: no session refers to that user yet. Each method that takes a name fails with
/// [`DirectoryError::NoSuchUser`] if there is no such user.
pub trait UserRegistry: Send + Sync {
    /// Adds a user, or fails with [`DirectoryError::UserExists`].
    fn add(&self, new: &NewUser, hash: &StoredHash) -> Result<User, DirectoryError>;

    /// Adds all users or, if one of the names is taken, none: [`DirectoryError::UserExists`].
    fn add_all(&self, users: &[(NewUser, StoredHash)]) -> Result<(), DirectoryError>;

    /// Returns all users, sorted by name.
    fn list(&self) -> Result<Vec<User>, DirectoryError>;

    /// Returns names and states of the users among `ids`, in no order. Other operations get their turn in between.
    fn known(&self, ids: &[&str]) -> Result<Vec<(UserName, UserState)>, DirectoryError>;

    /// Returns those of `names` that users have already.
    fn taken(&self, names: &[&UserName]) -> Result<Vec<UserName>, DirectoryError>;

    fn show(&self, name: &UserName) -> Result<User, DirectoryError>;

    /// Sets a password, and ends the sessions that the user has begun until now.
    fn set_password_hash(&self, name: &UserName, hash: &StoredHash) -> Result<(), DirectoryError>;

    /// Disables a user, which ends the user's sessions, or enables one, which does not bring them back.
    fn set_disabled(&self, name: &UserName, disabled: bool) -> Result<(), DirectoryError>;

    /// Forgets failed logins: they are counted per change number, and this is a change.
    fn unlock(&self, name: &UserName) -> Result<(), DirectoryError>;

    /// Ends every session that the user has begun until now.
    fn end_sessions(&self, name: &UserName) -> Result<(), DirectoryError>;

    /// Ends every session that any user has begun until now, and returns that moment, by the directory's clock. Each user
    /// is changed by it.
    fn end_all_sessions(&self) -> Result<UnixTime, DirectoryError>;

    /// Adds services and roles, and returns the user as changed. Those that the user has already are no error.
    fn grant(&self, name: &UserName, grants: &Grants) -> Result<User, DirectoryError>;

    /// Removes services and roles, and returns the user as changed. Those that the user does not have are no error.
    fn revoke(&self, name: &UserName, grants: &Grants) -> Result<User, DirectoryError>;
}

/// One page of the changes of a directory.
#[derive(Debug, Default)]
pub struct ChangesPage {
    /// Sorted by change number.
    pub users: Vec<UserState>,
    /// Whether there are more changes after the last of these.
    pub more: bool,
    /// The number of the directory's last change. It falls only when an older copy replaces the directory.
    pub last: u64,
    pub source: Source,
}

/// Where changes were read from. Change numbers of different sources may belong to different copies of the directory, each
/// of which has made changes of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Counts the files that have been at this path.
    pub file: u64,
    /// Counts how often another process than the edge has written to it.
    pub version: u64,
}

/// Why an operation of a user directory failed, and so had no effect.
#[derive(Debug)]
pub enum DirectoryError {
    UserExists(UserName),
    NoSuchUser(UserName),
    /// The directory did not answer. The cause is for operators and logs alone: a client learns that sign-in is
    /// unavailable, and nothing else.
    Unavailable(Box<dyn Error + Send + Sync>),
}

impl DirectoryError {
    pub fn unavailable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable(cause.into())
    }

    /// Returns the text for an operator: what failed, with all causes.
    pub fn in_full(&self) -> String {
        match self {
            Self::UserExists(_) | Self::NoSuchUser(_) => self.to_string(),
            Self::Unavailable(cause) => with_causes(&**cause),
        }
    }
}

/// Returns an error and what caused it, in one line.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UserExists(name) => write!(f, "there is a user {name} already"),
            Self::NoSuchUser(name) => write!(f, "there is no user {name}"),
            Self::Unavailable(_) => f.write_str("the user directory did not answer"),
        }
    }
}

impl Error for DirectoryError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::UserExists(_) | Self::NoSuchUser(_) => None,
            Self::Unavailable(cause) => Some(&**cause),
        }
    }
}
