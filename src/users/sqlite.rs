//! The embedded user directory: one SQLite file, shared by the edge and the command line.
//!
//! This file implements [`UserDirectory`], what sign-on reads. `sqlite/admin.rs` implements `UserRegistry`,
//! `sqlite/file.rs` follows a file that is replaced, `sqlite/schema.rs` opens and migrates. It knows rows, and no policy.

mod admin;
mod error;
mod file;
mod schema;

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, named_params};

use super::{ChangesPage, DirectoryError, HashKind, StoredHash, User, UserDirectory, UserId, UserName, UserState};
use crate::clock::{Clock, UnixTime};
use error::{SqliteError, failed};
use file::{ConnectionGuard, File};

/// A user directory in an SQLite file.
///
/// There is one connection behind a lock: a look-up takes microseconds where the password check takes tens of
/// milliseconds, so login workers do not queue here. A writer in another process delays them for the busy timeout (2 s)
/// at most. If another file takes the place of this one, it is opened instead, provided that it is a good directory: see
/// `sqlite/file.rs`.
pub struct SqliteDirectory {
    file: File,
    clock: Clock,
}

/// Looks whether [`SqliteDirectory::open`] could open a file, without a change to it.
pub fn inspect(path: &Path) -> Result<(), SqliteError> {
    schema::inspect(path)
}

impl SqliteDirectory {
    /// Opens a directory that exists, and migrates it if its schema is of an older version.
    pub fn open(path: &Path, clock: Clock) -> Result<Self, SqliteError> {
        Ok(Self { file: File::open(path)?, clock })
    }

    /// Opens a directory, or creates an empty one that only its owner can read (mode 0600).
    pub fn open_or_create(path: &Path, clock: Clock) -> Result<Self, SqliteError> {
        schema::create_file(path)?;
        Self::open(path, clock)
    }

    fn connection(&self) -> Result<ConnectionGuard<'_>, SqliteError> {
        self.file.connection()
    }

    fn read<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&ConnectionGuard<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, DirectoryError> {
        Ok(work(&self.connection()?).map_err(failed(doing))?)
    }

    fn now(&self) -> i64 {
        i64::try_from(self.clock.now().seconds()).unwrap_or(i64::MAX)
    }
}

impl UserDirectory for SqliteDirectory {
    fn find(&self, name: &UserName) -> Result<Option<(User, StoredHash)>, DirectoryError> {
        let connection = self.connection()?;
        Ok(find(&connection, name)?)
    }

    fn hash_kinds(&self) -> Result<BTreeSet<HashKind>, DirectoryError> {
        self.read("reading the kinds of hashes", |connection| {
            let mut statement = connection.prepare("SELECT password_hash FROM users")?;
            let mut rows = statement.query([])?;
            let mut kinds = BTreeSet::new();
            while let Some(row) = rows.next()? {
                // A hash that cannot be parsed fails the login of its user, and no other.
                let hash = row.get_ref("password_hash")?.as_str().ok().and_then(|text| StoredHash::parse(text).ok());
                kinds.extend(hash.map(|hash| hash.kind()));
            }
            Ok(kinds)
        })
    }

    fn replace_hash(&self, id: &UserId, old: &StoredHash, new: &StoredHash) -> Result<bool, DirectoryError> {
        const REPLACE: &str = "UPDATE users SET password_hash = :new, updated_at = :now
                               WHERE id = :id AND password_hash = :old";
        self.read("replacing an outdated hash", |connection| {
            let parameters = named_params! {
                ":new": new.as_str(), ":now": self.now(), ":id": id.as_str(), ":old": old.as_str(),
            };
            Ok(connection.execute(REPLACE, parameters)? == 1)
        })
    }

    fn changed_since(&self, since: u64) -> Result<ChangesPage, DirectoryError> {
        self.read("reading what changed", |connection| {
            // Read first: a change that is made between the two statements is returned by the next call.
            let last = connection.prepare("SELECT last FROM changes")?.query_row([], |row| row.get::<_, i64>(0))?;
            let mut statement = connection.prepare(SELECT_CHANGED)?;
            let parameters = named_params! {
                ":since": i64::try_from(since).unwrap_or(i64::MAX), ":most": CHANGES_AT_ONCE as i64,
            };
            let users: Vec<UserState> = statement.query_map(parameters, state)?.collect::<Result<_, _>>()?;
            let more = users.len() == CHANGES_AT_ONCE;
            Ok(ChangesPage { more, users, last: number(last), source: connection.source() })
        })
    }

    fn standing(&self, ids: &[&str]) -> Result<Vec<UserState>, DirectoryError> {
        self.read("reading how users stand", |connection| {
            let mut statement = connection.prepare(&format!("{SELECT_USER} WHERE id = ?1"))?;
            let standing = ids.iter().filter_map(|id| statement.query_row([id], state).optional().transpose());
            standing.collect()
        })
    }

    fn ids(&self) -> Result<Option<HashSet<Box<str>>>, DirectoryError> {
        self.read("reading who there is", |connection| {
            let mut statement = connection.prepare("SELECT id FROM users")?;
            let ids = statement.query_map([], |row| row.get::<_, Box<str>>(0))?.collect::<Result<_, _>>()?;
            Ok(Some(ids))
        })
    }
}

/// Users that are read while the connection is held, which takes some ten milliseconds.
const CHANGES_AT_ONCE: usize = 1000;

/// The names of users are not read here: one that was edited into nonsense must not hide the changes of all others. A user
/// whose row was deleted counts as disabled.
const SELECT_CHANGED: &str = "
    SELECT id, disabled, ended_before, ended_by, change,
           (SELECT json_group_array(service ORDER BY service) FROM user_services WHERE user_id = id) AS services,
           (SELECT json_group_array(role ORDER BY role) FROM user_roles WHERE user_id = id) AS roles
    FROM users WHERE change > :since
    UNION ALL
    SELECT id, 1, 0, change, change, '[]', '[]' FROM deleted_users WHERE change > :since
    ORDER BY change LIMIT :most";

/// Reads a user with services and roles in one statement, so that all of it is of the same moment.
const SELECT_USER: &str = "
    SELECT id, name, email, disabled, created_at, ended_before, ended_by, change, password_hash,
           (SELECT json_group_array(service ORDER BY service) FROM user_services WHERE user_id = id) AS services,
           (SELECT json_group_array(role ORDER BY role) FROM user_roles WHERE user_id = id) AS roles
    FROM users";

fn find(connection: &Connection, name: &UserName) -> Result<Option<(User, StoredHash)>, SqliteError> {
    let with_hash = |row: &Row<'_>| Ok((user(row)?, row.get("password_hash")?));
    connection
        .query_row(&format!("{SELECT_USER} WHERE name = :name"), named_params! { ":name": name.as_str() }, with_hash)
        .optional()
        .map_err(failed("looking up a user"))
}

fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    let Names(services) = row.get("services")?;
    let Names(roles) = row.get("roles")?;
    Ok(User {
        id: UserId::from(row.get::<_, String>("id")?),
        name: row.get("name")?,
        email: row.get("email")?,
        disabled: row.get("disabled")?,
        services,
        roles,
        created: UnixTime::from_seconds(number(row.get("created_at")?)),
        change: number(row.get("change")?),
    })
}

fn state(row: &Row<'_>) -> rusqlite::Result<UserState> {
    let Names(services) = row.get("services")?;
    let Names(roles) = row.get("roles")?;
    Ok(UserState {
        id: UserId::from(row.get::<_, String>("id")?),
        disabled: row.get("disabled")?,
        services,
        roles,
        ended_before: UnixTime::from_millis(number(row.get("ended_before")?)),
        ended_by: number(row.get("ended_by")?),
        ended_formerly: UnixTime::default(),
        change: number(row.get("change")?),
    })
}

/// Reads a number. The edge writes none below zero.
fn number(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}

/// A JSON array of texts, as `json_group_array` makes it.
struct Names(Vec<String>);

impl FromSql for Names {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        serde_json::from_str(value.as_str()?).map(Self).map_err(FromSqlError::other)
    }
}

// The file may have been edited by hand, so its values are parsed like any other input.

impl FromSql for UserName {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::parse(value.as_str()?).map_err(FromSqlError::other)
    }
}

impl FromSql for StoredHash {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::parse(value.as_str()?).map_err(FromSqlError::other)
    }
}

#[cfg(test)]
mod tests;
