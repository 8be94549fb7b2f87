//! A user as the directory knows one, and what has changed since a token was made.

use std::fmt;

use super::UserName;
use crate::clock::UnixTime;

/// A user's identity: the token's `sub`. It never changes, unlike the name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UserId(String);

/// What the directory stores about a user, except for the password hash.
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

/// The state of a user that decides whether tokens made earlier are still good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserState {
    pub id: UserId,
    pub disabled: bool,
    pub services: Vec<String>,
    pub roles: Vec<String>,
    /// When an administrator last ended the user's sessions, by the clock of the administrator's machine.
    pub ended_before: UnixTime,
    /// The number of the change that ended them; 0 means that there was none.
    pub ended_by: u64,
    /// The number of the last change of this user. A directory numbers its changes from 1.
    pub change: u64,
    /// When sessions were ended according to a copy of the directory that was in use before this one. A directory never
    /// sets this itself; see `changes::reader`.
    pub ended_formerly: UnixTime,
}

impl UserId {
    /// Returns a new random identity, a version 4 UUID.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for UserId {
    /// Takes an identity that a directory has stored.
    fn from(stored: String) -> Self {
        Self(stored)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
