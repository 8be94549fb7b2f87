//! The conformance suite of user directories, and what only a file can do. Every test has a file of its own; two
//! directories on one file stand for two processes.

use std::error::Error;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Barrier;
use std::thread;

use tempfile::TempDir;

use super::*;
use crate::users::directory::{Source, UserRegistry};
use crate::users::tests::{NEW, OLD, Subject, bob, changes, conformance, hash, import, last, name};
use crate::users::{NewUser, OpenDirectory};

conformance!(File::new());

struct File {
    folder: TempDir,
    clock: Clock,
}

impl File {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), clock: Clock::default() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("users.db")
    }

    fn open(&self) -> SqliteDirectory {
        SqliteDirectory::open_or_create(&self.path(), self.clock.clone()).unwrap()
    }

    /// Opens the file as another program does.
    fn raw(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }
}

impl Subject for File {
    fn open(&self) -> OpenDirectory {
        OpenDirectory::of(File::open(self))
    }
}

#[test]
fn logins_read_on_while_another_process_writes() {
    let file = File::new();
    let edge = file.open();
    edge.add(&bob(), &hash(OLD)).unwrap();
    let writer = file.raw();
    writer.execute_batch("BEGIN IMMEDIATE; UPDATE users SET disabled = 1").unwrap();
    assert!(!edge.find(&name("bob")).unwrap().unwrap().0.disabled);
    writer.execute_batch("COMMIT").unwrap();
    assert!(edge.find(&name("bob")).unwrap().unwrap().0.disabled);
}

#[test]
fn many_processes_may_start_on_a_new_file_at_once() {
    for _ in 0..10 {
        let file = File::new();
        // Made beforehand because these are threads: the one that closes the file it has made would take from
        // the others the locks that POSIX gives to a process as a whole.
        schema::create_file(&file.path()).unwrap();
        let start = Barrier::new(8);
        thread::scope(|scope| {
            for number in 0..8 {
                let (file, start) = (&file, &start);
                scope.spawn(move || {
                    start.wait();
                    let directory = file.open();
                    let user = NewUser { name: name(&format!("user{number}")), ..bob() };
                    directory.add(&user, &hash(OLD)).unwrap();
                });
            }
        });
        assert_eq!(file.open().list().unwrap().len(), 8);
    }
}

#[test]
fn a_new_file_can_be_read_by_its_owner_alone() {
    let file = File::new();
    let directory = file.open();
    directory.add(&bob(), &hash(OLD)).unwrap();
    let mut files = 0;
    for entry in std::fs::read_dir(file.folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
        files += 1;
    }
    assert_eq!(files, 1, "the directory is one file");
}

#[test]
fn a_file_is_set_up_as_the_code_says() {
    let file = File::new();
    let directory = file.open();
    let pragma = |name: &str| -> String {
        let connection = directory.connection().unwrap();
        let query = format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}");
        connection.query_row(&query, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(pragma("journal_mode"), "delete");
    assert_eq!(pragma("foreign_keys"), "1");
    assert_eq!(pragma("synchronous"), "2");
    assert_eq!(pragma("user_version"), schema::VERSION.to_string());
    let odd = directory.connection().unwrap().execute("INSERT INTO user_roles VALUES ('missing', 'admin')", []);
    assert!(odd.is_err(), "a role needs its user");
}

#[test]
fn an_empty_file_becomes_a_directory_and_a_missing_one_only_when_requested() {
    let file = File::new();
    let missing = SqliteDirectory::open(&file.path(), Clock::default());
    assert!(matches!(missing, Err(SqliteError::Missing(path)) if path == file.path()));
    assert!(!file.path().exists(), "looking makes no file");

    std::fs::write(file.path(), "").unwrap();
    let directory = SqliteDirectory::open(&file.path(), Clock::default()).unwrap();
    directory.add(&bob(), &hash(OLD)).unwrap();
    drop(directory);
    assert_eq!(file.open().list().unwrap().len(), 1, "opening again keeps what is there");
}

#[test]
fn a_newer_schema_is_refused_and_left_as_it_is() {
    let file = File::new();
    drop(file.open());
    file.raw().pragma_update(None, "user_version", schema::VERSION + 1).unwrap();
    let error = SqliteDirectory::open(&file.path(), Clock::default()).map(drop).unwrap_err();
    assert!(
        matches!(error, SqliteError::NewerSchema { found, ours, .. } if (found, ours) == (schema::VERSION + 1, schema::VERSION))
    );
    assert!(error.to_string().ends_with("run the newer one that made it"), "{error}");
    let version: u32 = file.raw().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, schema::VERSION + 1);
}

#[test]
fn a_file_of_something_else_is_refused_and_left_as_it_is() {
    let file = File::new();
    file.raw().execute_batch("CREATE TABLE auth_user (id INTEGER)").unwrap();
    let foreign = SqliteDirectory::open(&file.path(), Clock::default());
    assert!(matches!(foreign, Err(SqliteError::Foreign(_))));
    let tables: u32 = file.raw().query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
    assert_eq!(tables, 1);

    let text = File::new();
    std::fs::write(text.path(), "name,password\nbob,hunter2\n".repeat(100)).unwrap();
    let error = SqliteDirectory::open(&text.path(), Clock::default()).map(drop).unwrap_err();
    assert!(matches!(&error, SqliteError::Database { .. }), "{error}");
    assert!(error.source().unwrap().to_string().contains("not a database"));
}

#[test]
fn a_file_that_cannot_be_made_says_why() {
    let file = File::new();
    let path = file.folder.path().join("no/such/folder/users.db");
    let error = SqliteDirectory::open_or_create(&path, Clock::default()).map(drop).unwrap_err();
    assert!(matches!(&error, SqliteError::File { source, .. } if source.kind() == io::ErrorKind::NotFound));
    assert!(error.to_string().contains("users.db"));
}

#[test]
fn a_row_edited_into_nonsense_is_a_failure_and_not_an_unknown_user() {
    let file = File::new();
    let directory = file.open();
    directory.add(&bob(), &hash(OLD)).unwrap();
    file.raw().execute("UPDATE users SET password_hash = 'hunter2'", []).unwrap();
    let error = directory.find(&name("bob")).unwrap_err();
    let whole = format!("{error:?}");
    assert!(!whole.contains("hunter2"), "{whole}");
    assert_eq!(directory.list().unwrap().len(), 1, "a bad hash does not hide the user from the operator");
}

#[test]
fn what_is_written_by_hand_is_a_change_as_well() {
    let file = File::new();
    let directory = file.open();
    directory.add(&bob(), &hash(OLD)).unwrap();
    let id = directory.show(&name("bob")).unwrap().id.as_str().to_owned();
    let raw = file.raw();
    raw.pragma_update(None, "foreign_keys", true).unwrap();
    for (sql, disabled) in [
        ("UPDATE users SET disabled = 1", true),
        ("UPDATE users SET disabled = 0, email = 'x@example.com'", false),
        ("UPDATE users SET name = 'bobby'", false),
        ("UPDATE users SET ended_before = 17", false),
        ("UPDATE users SET ended_before = 17", false),
        ("INSERT INTO user_roles SELECT id, 'nurse' FROM users", false),
        ("UPDATE user_roles SET role = 'doctor' WHERE role = 'nurse'", false),
        ("DELETE FROM user_roles", false),
        ("UPDATE user_services SET service = 'other' WHERE service = 'iqueue'", false),
        ("DELETE FROM user_services", false),
        ("REPLACE INTO users SELECT id, name, email, password_hash, 1, 0, 0, 0, 0, 0 FROM users", true),
        ("DELETE FROM users", true),
    ] {
        let before = last(&directory);
        raw.execute(sql, []).unwrap();
        let after = changes(&directory, before);
        assert_eq!(
            after.iter().map(|user| (user.id.as_str(), user.disabled)).collect::<Vec<_>>(),
            [(id.as_str(), disabled)],
            "{sql}"
        );
    }
    assert_eq!(changes(&directory, 0).len(), 1, "that he is gone is remembered");
    raw.execute("INSERT INTO users (id, name, password_hash, disabled, created_at, updated_at) VALUES (?1, 'bob', 'x', 0, 1, 1)", [&id]).unwrap();
    assert!(changes(&directory, 0).iter().all(|user| !user.disabled), "until he is back");
}

#[test]
fn a_directory_of_the_version_before_is_migrated_with_all_its_changes() {
    let file = File::new();
    let raw = file.raw();
    for step in schema::steps(2) {
        raw.execute_batch(step).unwrap();
    }
    raw.pragma_update(None, "user_version", 2).unwrap();
    // Never changed, disabled long ago, ended long ago, granted something since, and by a clock that was ahead.
    for (id, disabled, created, updated, ended) in [
        ("never", 0, 100, 100, 0),
        ("disabled", 1, 100, 100, 0),
        ("ended", 0, 100, 300, 300_000),
        ("granted", 0, 100, 200, 0),
        ("ahead", 0, 100, 9_999_999_999_i64, 0),
    ] {
        let insert = "INSERT INTO users VALUES (?1, ?1, NULL, ?2, ?3, ?4, ?5, ?6)";
        raw.execute(insert, rusqlite::params![id, OLD, disabled, created, updated, ended]).unwrap();
        raw.execute("INSERT INTO user_services VALUES (?1, 'iqueue')", [id]).unwrap();
    }
    drop(raw);
    for _ in 0..2 {
        let directory = file.open();
        let found = changes(&directory, 0);
        let states: Vec<_> = found.iter().map(|user| (user.id.as_str(), user.disabled, user.ended_by > 0)).collect();
        let wanted =
            [("disabled", true, true), ("granted", false, false), ("ended", false, true), ("ahead", false, false)];
        assert_eq!(states, wanted);
        assert_eq!(found[2].ended_before, UnixTime::from_seconds(300));
        assert_eq!(last(&directory), 4);
    }
    let directory = file.open();
    directory.set_disabled(&name("never"), true).unwrap();
    assert_eq!(changes(&directory, 4).iter().map(|user| user.id.as_str()).collect::<Vec<_>>(), ["never"]);
}

#[test]
fn many_changes_are_returned_a_page_at_a_time() {
    let file = File::new();
    let directory = file.open();
    let lines: String = (0..2500).map(|n| format!("{{\"name\":\"u{n}\",\"password_hash\":\"{NEW}\"}}\n")).collect();
    import(&directory, &lines).unwrap();
    file.raw().execute("UPDATE users SET disabled = 1", []).unwrap();
    let first = directory.changed_since(0).unwrap();
    assert_eq!((first.users.len(), first.more), (CHANGES_AT_ONCE, true));
    assert_eq!(changes(&directory, 0).len(), 2500);
}

#[test]
fn a_file_of_a_former_version_becomes_one_file_unless_another_process_has_it() {
    let file = File::new();
    drop(file.open());
    let other = file.raw();
    other.pragma_update(None, "journal_mode", "WAL").unwrap();
    other.execute("UPDATE changes SET last = last", []).unwrap();
    let mode = |directory: &SqliteDirectory| -> String {
        let connection = directory.connection().unwrap();
        connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap()
    };
    let beside = file.open();
    assert_eq!(mode(&beside), "wal", "it is served all the same");
    drop((beside, other));
    assert_eq!(mode(&file.open()), "delete");
    assert_eq!(std::fs::read_dir(file.folder.path()).unwrap().count(), 1);
}

#[test]
fn what_the_directory_writes_itself_is_no_other_source_and_what_others_write_is() {
    let file = File::new();
    let (edge, command_line) = (file.open(), file.open());
    let source = || edge.changed_since(0).unwrap().source;
    edge.add(&bob(), &hash(OLD)).unwrap();
    edge.set_disabled(&name("bob"), true).unwrap();
    assert_eq!(source(), Source::default());
    command_line.set_disabled(&name("bob"), false).unwrap();
    assert_eq!(source(), Source { file: 0, version: 1 });
    assert_eq!(source(), Source { file: 0, version: 1 }, "once");
    let copy = file.folder.path().join("copy");
    std::fs::copy(file.path(), &copy).unwrap();
    std::fs::rename(copy, file.path()).unwrap();
    assert_eq!(source(), Source { file: 1, version: 2 });
    assert!(edge.find(&name("bob")).unwrap().is_some());
}

#[test]
fn another_file_that_takes_its_place_during_a_write_is_another_source() {
    let file = File::new();
    let edge = file.open();
    edge.add(&bob(), &hash(OLD)).unwrap();
    let copy = file.folder.path().join("copy");
    std::fs::copy(file.path(), &copy).unwrap();
    let held = edge.file.connection().unwrap();
    assert_eq!(held.execute("UPDATE users SET password_hash = password_hash", []).unwrap(), 1);
    std::fs::rename(copy, file.path()).unwrap();
    drop(held);
    assert_eq!(edge.changed_since(0).unwrap().source, Source { file: 1, version: 1 });
}

#[test]
fn a_journal_of_another_database_is_removed_only_where_it_can_be_no_one_elses() {
    let file = File::new();
    drop(file.open());
    let log = file.folder.path().join("users.db-wal");
    std::fs::write(&log, "left by another").unwrap();
    drop(file.open());
    assert!(!log.exists());

    let other = file.raw();
    other.pragma_update(None, "journal_mode", "WAL").unwrap();
    other.execute("UPDATE changes SET last = 77", []).unwrap();
    assert!(log.exists());
    assert_eq!(file.open().changed_since(0).unwrap().last, 77, "in write-ahead mode it is the database's own");
}
