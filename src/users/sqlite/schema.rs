//! Opening the file: how a connection is set up, and the migrations that bring a file to the present schema.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::{SqliteError, failed};

/// How long to wait for a writer in another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// Between tries where SQLite does not wait by itself.
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// `MIGRATIONS[n]` takes a file from `PRAGMA user_version` n to n + 1. Never edited once released, only added to.
///
/// `name` is canonical ([`super::UserName`]), times are Unix seconds but where it says otherwise.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE users (
        id            TEXT    NOT NULL PRIMARY KEY,
        name          TEXT    NOT NULL UNIQUE,
        email         TEXT,
        password_hash TEXT    NOT NULL,
        disabled      INTEGER NOT NULL CHECK (disabled IN (0, 1)),
        created_at    INTEGER NOT NULL,
        updated_at    INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE user_services (
        user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        service TEXT NOT NULL,
        PRIMARY KEY (user_id, service)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE user_roles (
        user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        role    TEXT NOT NULL,
        PRIMARY KEY (user_id, role)
    ) STRICT, WITHOUT ROWID;
",
    "
    -- Unix milliseconds: sessions that began before have ended.
    ALTER TABLE users ADD COLUMN ended_before INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX users_by_change ON users (updated_at);
",
    include_str!("changes.sql"),
];

pub(super) const VERSION: u32 = MIGRATIONS.len() as u32;

/// The first `count` steps, for a file of a former version.
#[cfg(test)]
pub(super) fn steps(count: usize) -> &'static [&'static str] {
    &MIGRATIONS[..count]
}

/// Makes an empty file unless there is one. SQLite would make it readable for all; its journal files take the
/// mode of the database.
pub(super) fn create_file(path: &Path) -> Result<(), SqliteError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(SqliteError::File { path: path.to_owned(), source }),
    }
}

pub(super) fn open(path: &Path) -> Result<Connection, SqliteError> {
    if !path.exists() {
        return Err(SqliteError::Missing(path.to_owned()));
    }
    // Without SQLITE_OPEN_URI, so that a path is a path, and without CREATE, see above.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed("opening the file"))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed("setting the busy timeout"))?;
    migrate(&mut connection, path)?;
    configure(&connection).map_err(failed("setting up the connection"))?;
    Ok(connection)
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "foreign_keys", true)?;
    // With write-ahead logging this loses at most the last commits when the machine itself fails, and never
    // consistency.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    log_ahead(connection)
}

/// Write-ahead logging lets logins read while the command line writes. The file stays in this mode.
///
/// Two processes that switch a new file at once each hold what the other needs; SQLite sees that and refuses at
/// once, whatever the busy timeout. So it is tried again, as long as the busy timeout would have waited.
#[expect(clippy::disallowed_methods, reason = "runs at the start and on the command line, never on a worker")]
fn log_ahead(connection: &Connection) -> rusqlite::Result<()> {
    let mut retries = BUSY_TIMEOUT.as_millis() / RETRY_AFTER.as_millis();
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())) {
            Err(error) if retries > 0 && error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                retries -= 1;
                thread::sleep(RETRY_AFTER);
            }
            done => return done,
        }
    }
}

/// All steps in one transaction that excludes other writers: of two processes that start at once, the second
/// finds nothing left to do.
fn migrate(connection: &mut Connection, path: &Path) -> Result<(), SqliteError> {
    let migrating = || failed("migrating the schema");
    let present = |connection: &Connection| -> Result<u32, SqliteError> {
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed("reading its version"))
    };
    if present(connection)? == VERSION {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(migrating())?;
    let found = present(&transaction)?;
    if found > VERSION {
        return Err(SqliteError::NewerSchema { path: path.to_owned(), found, ours: VERSION });
    }
    if found == 0 && !is_empty(&transaction).map_err(migrating())? {
        return Err(SqliteError::Foreign(path.to_owned()));
    }
    for step in MIGRATIONS.iter().skip(found as usize) {
        transaction.execute_batch(step).map_err(migrating())?;
    }
    transaction.pragma_update(None, "user_version", VERSION).map_err(migrating())?;
    transaction.commit().map_err(migrating())
}

fn is_empty(transaction: &Transaction<'_>) -> rusqlite::Result<bool> {
    transaction.query_row("SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))
}
