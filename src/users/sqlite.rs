//! The embedded user directory: one SQLite file, shared by the edge and the command line.
//!
//! Here is what a login needs; the operations of the command line stand in `sqlite/admin.rs`, opening
//! and migrating in `sqlite/schema.rs`. Knows rows, not policy.

mod admin;
mod file;
mod schema;

use std::collections::{BTreeSet, HashSet};
use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, named_params};

use super::{Changes, DirectoryError, HashKind, StoredHash, User, UserDirectory, UserId, UserName, UserState};
use crate::clock::{Clock, UnixTime};
pub use admin::ImportError;
use file::{File, Held};

/// A user directory in an SQLite file.
///
/// One connection behind a lock: a look-up takes microseconds where the password check beside it takes tens of
/// milliseconds, so login workers do not queue here. A writer in another process holds them up for the busy
/// timeout (2 s) at most. Another file in its place is opened in its stead, if it is a good one: see `sqlite/file.rs`.
pub struct SqliteDirectory {
    file: File,
    clock: Clock,
}

/// Why an operation on the file did not happen. For the operator and the log.
#[derive(Debug)]
pub enum SqliteError {
    UserExists(UserName),
    NoSuchUser(UserName),
    /// There is no file.
    Missing(PathBuf),
    /// The file is an SQLite database of something else.
    Foreign(PathBuf),
    /// The file cannot be used, whatever is at the path now.
    NoGood {
        path: PathBuf,
        why: String,
    },
    /// SQLite finds a fault in the file.
    Damaged {
        path: PathBuf,
        found: String,
    },
    /// It was put in the place of another while the edge runs.
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
    /// Nobody came to ask it: too many wait, or the question panicked.
    NoAnswer,
    /// `doing` completes "the user database failed at …".
    Database {
        doing: &'static str,
        source: rusqlite::Error,
    },
}

impl SqliteDirectory {
    /// Opens a directory that exists, and migrates it if it is of an older version.
    pub fn open(path: &Path, clock: Clock) -> Result<Self, SqliteError> {
        Ok(Self { file: File::open(path)?, clock })
    }

    /// Opens a directory, or makes an empty one that its owner alone can read (mode 0600).
    pub fn open_or_create(path: &Path, clock: Clock) -> Result<Self, SqliteError> {
        schema::create_file(path)?;
        Self::open(path, clock)
    }

    fn connection(&self) -> Result<Held<'_>, SqliteError> {
        self.file.connection()
    }

    fn read<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Held<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, DirectoryError> {
        let done = self.connection().and_then(|connection| work(&connection).map_err(failed(doing)));
        done.map_err(DirectoryError::new)
    }

    fn now(&self) -> i64 {
        i64::try_from(self.clock.now().seconds()).unwrap_or(i64::MAX)
    }
}

impl SqliteError {
    /// With its cause, for an operator.
    pub fn in_full(&self) -> String {
        match self.source() {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }
}

impl UserDirectory for SqliteDirectory {
    fn find(&self, name: &UserName) -> Result<Option<(User, StoredHash)>, DirectoryError> {
        self.connection().and_then(|connection| find(&connection, name)).map_err(DirectoryError::new)
    }

    fn hash_kinds(&self) -> Result<BTreeSet<HashKind>, DirectoryError> {
        self.read("reading the kinds of hashes", |connection| {
            let mut statement = connection.prepare("SELECT password_hash FROM users")?;
            let mut rows = statement.query([])?;
            let mut kinds = BTreeSet::new();
            while let Some(row) = rows.next()? {
                // One that cannot be read fails its user's login, and no other.
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

    fn changed_since(&self, since: u64) -> Result<Changes, DirectoryError> {
        self.read("reading what changed", |connection| {
            // First: a change that comes in between is told of by the next call.
            let last = connection.prepare("SELECT last FROM changes")?.query_row([], |row| row.get::<_, i64>(0))?;
            let mut statement = connection.prepare(SELECT_CHANGED)?;
            let parameters = named_params! {
                ":since": i64::try_from(since).unwrap_or(i64::MAX), ":most": CHANGES_AT_ONCE as i64,
            };
            let users: Vec<UserState> = statement.query_map(parameters, state)?.collect::<Result<_, _>>()?;
            let more = users.len() == CHANGES_AT_ONCE;
            Ok(Changes { more, users, last: number(last), source: connection.source() })
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

/// Users read while the connection is held: some ten milliseconds.
const CHANGES_AT_ONCE: usize = 1000;

/// No name is read here: one that was edited into nonsense must not hide the changes of all others. A user whose row is
/// gone counts as disabled.
const SELECT_CHANGED: &str = "
    SELECT id, disabled, ended_before, ended_by, change,
           (SELECT json_group_array(service ORDER BY service) FROM user_services WHERE user_id = id) AS services,
           (SELECT json_group_array(role ORDER BY role) FROM user_roles WHERE user_id = id) AS roles
    FROM users WHERE change > :since
    UNION ALL
    SELECT id, 1, 0, change, change, '[]', '[]' FROM deleted_users WHERE change > :since
    ORDER BY change LIMIT :most";

/// A user with services and roles in one statement, so that all of it is of one moment.
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

/// Of what we write none is below zero.
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

// Somebody may have edited the file by hand, so what it holds is parsed like anything else from outside.

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

fn failed(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> SqliteError {
    move |source| SqliteError::Database { doing, source }
}

impl fmt::Display for SqliteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UserExists(name) => write!(f, "there is a user {name} already"),
            Self::NoSuchUser(name) => write!(f, "there is no user {name}"),
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
            Self::NoAnswer => f.write_str("the user database was not asked"),
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

#[cfg(test)]
mod tests;
