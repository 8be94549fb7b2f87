//! Opens the file: sets up the connection, and migrates the file to the present schema.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::error::{SqliteError, failed};

/// How long to wait for a writer in another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// The time between attempts where SQLite does not wait by itself.
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// `MIGRATIONS[n]` migrates a file from `PRAGMA user_version` n to n + 1. A step is never edited once it is released.
///
/// `name` is canonical ([`super::UserName`]). Times are Unix seconds unless stated otherwise.
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

/// Returns the first `count` steps, which make a file of a former version.
#[cfg(test)]
pub(super) fn steps(count: usize) -> &'static [&'static str] {
    &MIGRATIONS[..count]
}

/// Creates an empty file unless there is one. SQLite would make it readable for all users of the machine; its journal
/// files get the mode of the database.
pub(super) fn create_file(path: &Path) -> Result<(), SqliteError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(SqliteError::File { path: path.to_owned(), source }),
    }
}

/// Opens a file for the first time, and migrates it to the present schema.
pub(super) fn open(path: &Path) -> Result<Connection, SqliteError> {
    if !path.exists() {
        return Err(SqliteError::Missing(path.to_owned()));
    }
    remove_foreign_log(path)?;
    let mut connection = connect(path)?;
    migrate(&mut connection, path)?;
    configure(&connection).map_err(failed("setting up the connection"))?;
    Ok(connection)
}

/// Looks whether [`open`] could open a file and migrate it. Nothing in its folder is changed, so SQLite does not open it:
/// that would take a log beside it for its own, and write the log's pages into the file. Only the header is read (SQLite
/// file format §1.3, §1.6), so a newer schema that is in a write-ahead log alone is not seen.
pub(super) fn inspect(path: &Path) -> Result<(), SqliteError> {
    /// The header of the file, and the first fields of the header of its first page.
    const HEADER: usize = 108;
    let no_good = |why: String| SqliteError::NoGood { path: path.to_owned(), why };
    let is_file = match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(SqliteError::Missing(path.to_owned())),
        found => found.map_err(|error| no_good(error.to_string()))?.is_file(),
    };
    if !is_file {
        return Err(no_good("it is no file".into()));
    }
    let mut header = Vec::with_capacity(HEADER);
    let file = std::fs::File::open(path).map_err(|error| no_good(error.to_string()))?;
    file.take(HEADER as u64).read_to_end(&mut header).map_err(|error| no_good(error.to_string()))?;
    if header.is_empty() {
        return Ok(());
    }
    if header.len() < HEADER || !header.starts_with(b"SQLite format 3\0") {
        return Err(no_good("the file is not a database".into()));
    }
    let found = u32::from_be_bytes([header[60], header[61], header[62], header[63]]);
    // The entries of the schema that the first page has.
    let is_empty = header[103..105] == [0, 0];
    match found {
        found if found > VERSION => Err(SqliteError::NewerSchema { path: path.to_owned(), found, ours: VERSION }),
        0 if !is_empty => Err(SqliteError::Foreign(path.to_owned())),
        _ => Ok(()),
    }
}

/// Opens the file that is at the path while the edge runs, if it is a good directory of the present schema. It is never
/// migrated: an empty file may be one that is being copied. A file that `is_known` was only written to by another process,
/// and its integrity is not checked.
pub(super) fn reopen(path: &Path, is_known: bool) -> Result<Connection, SqliteError> {
    if !is_known {
        remove_foreign_log(path)?;
    }
    let connection = connect(path)?;
    match version(&connection)? {
        VERSION => {}
        0 => return Err(SqliteError::Foreign(path.to_owned())),
        found if found > VERSION => {
            return Err(SqliteError::NewerSchema { path: path.to_owned(), found, ours: VERSION });
        }
        found => return Err(SqliteError::OlderSchema { path: path.to_owned(), found, ours: VERSION }),
    }
    let checking = || failed("checking the file");
    if !is_known {
        let found: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0)).map_err(checking())?;
        if found != "ok" {
            return Err(SqliteError::Damaged { path: path.to_owned(), found });
        }
    }
    connection.query_row("SELECT last FROM changes", [], |row| row.get::<_, i64>(0)).map_err(checking())?;
    configure(&connection).map_err(failed("setting up the connection"))?;
    Ok(connection)
}

fn connect(path: &Path) -> Result<Connection, SqliteError> {
    // Without SQLITE_OPEN_URI, so that the path is never parsed as a URI, and without CREATE, see `create_file`.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed("opening the file"))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed("setting the busy timeout"))?;
    Ok(connection)
}

fn version(connection: &Connection) -> Result<u32, SqliteError> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed(
        "reading its version (a copy in write-ahead mode needs a folder that can be written to: make it with VACUUM INTO)",
    ))
}

/// Removes the write-ahead log of another database, which is left beside a file that was replaced. SQLite would take it for
/// the log of this database and write the other's pages into it. A database that is not in write-ahead mode has no log.
fn remove_foreign_log(path: &Path) -> Result<(), SqliteError> {
    /// The offset of the read and write versions in the header (SQLite file format §1.3.3); 2 is write-ahead.
    const MODES: usize = 18;
    let log = beside(path, "-wal");
    if !std::fs::metadata(&log).is_ok_and(|found| found.len() > 0) {
        return Ok(());
    }
    let mut header = [0; MODES + 2];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut header));
    if read.is_err() || header[MODES..] != [1, 1] {
        return Ok(());
    }
    for file in [log, beside(path, "-shm")] {
        match std::fs::remove_file(&file) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                return Err(SqliteError::File { path: file, source });
            }
            _ => {}
        }
    }
    log::warn!("user directory: removed the write-ahead log of another database path={}", path.display());
    Ok(())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "foreign_keys", true)?;
    // With a rollback journal no lower setting keeps the file intact when the machine itself fails.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // A file on a read-only file system stays as it is.
    if connection.is_readonly("main")? { Ok(()) } else { leave_write_ahead_mode(connection) }
}

/// Makes the whole directory one file. A former version used a write-ahead log, which a copy of the file would miss and a
/// file that replaces this one would get. Readers wait for a writer for as long as its commit takes.
///
/// The mode of a file can only be changed while no other process has it open. This is tried for as long as the busy timeout
/// would wait. Then the file stays as it is, and the next start may find it unused.
#[expect(clippy::disallowed_methods, reason = "runs at the start, after a change of files and on the command line")]
fn leave_write_ahead_mode(connection: &Connection) -> rusqlite::Result<()> {
    let mut retries = BUSY_TIMEOUT.as_millis() / RETRY_AFTER.as_millis();
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(())) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                if retries == 0 {
                    return Ok(());
                }
                retries -= 1;
                thread::sleep(RETRY_AFTER);
            }
            done => return done,
        }
    }
}

/// Runs all steps in one transaction that excludes other writers. Of two processes that start at once, the second finds
/// nothing left to do.
fn migrate(connection: &mut Connection, path: &Path) -> Result<(), SqliteError> {
    let migrating = || failed("migrating the schema");
    if version(connection)? == VERSION {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(migrating())?;
    let found = version(&transaction)?;
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

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))
}
