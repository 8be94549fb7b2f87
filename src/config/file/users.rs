//! The `users` part of the document: the user directory.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::units::Time;

/// The user directory.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Users {
    /// The kind of directory. *Restart*
    pub store: Option<UserStore>,
    /// How often the edge reads what has changed in the directory, for users who are signed in. The database counts its
    /// changes, so nothing is read where there are none, and no clock that is wrong hides one. Another file in its
    /// place is seen as soon. *Restart*
    pub refresh: Option<Time>,
    /// For `store: sqlite`.
    pub sqlite: Sqlite,
    /// What a password has to be when it is set. Passwords that were set before, and imported hashes, go on working.
    pub password: PasswordRules,
}

/// What a password has to be when it is set. Passwords that were set before, and imported hashes, go on working.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PasswordRules {
    /// The least number of characters, 8 to 64. *Restart*
    pub least: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UserStore {
    /// An SQLite file on this machine.
    Sqlite,
}

/// The user directory in an SQLite file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Sqlite {
    /// The file. `user add` or `user import` makes it, readable by its owner alone; the edge does not start without it.
    /// Example: `/var/lib/sentry-edge/users.db`. *Restart*
    pub path: Option<String>,
}
