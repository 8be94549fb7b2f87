//! What the command line does to the directory: add, list, show, change, import.
//!
//! Ending the sessions of a user who was disabled or got another password is the caller's part: this room does
//! not know sessions.

use std::error::Error;
use std::fmt;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, ffi, named_params};

use super::{SELECT_USER, SqliteDirectory, SqliteError, failed, find, state, user};
use crate::users::import::{Entry, ImportFile, LineFault, Secret};
use crate::users::password::{self, HashError};
use crate::users::{Email, Grants, NewUser, StoredHash, User, UserId, UserName, UserState};

/// Why nothing was imported.
#[derive(Debug)]
pub enum ImportError {
    /// Every bad line, in the order of the file.
    Lines(Vec<LineFault>),
    Hash(HashError),
    Directory(SqliteError),
}

impl SqliteDirectory {
    pub fn add(&self, new: &NewUser, hash: &StoredHash) -> Result<User, SqliteError> {
        let now = self.now();
        self.write(|transaction| {
            insert(transaction, new, hash, now)?;
            show(transaction, &new.name)
        })
    }

    /// All users by name.
    pub fn list(&self) -> Result<Vec<User>, SqliteError> {
        let connection = self.connection()?;
        let mut statement =
            connection.prepare(&format!("{SELECT_USER} ORDER BY name")).map_err(failed("listing users"))?;
        let users = statement.query_map([], user).and_then(Iterator::collect);
        users.map_err(failed("listing users"))
    }

    /// Names and states of those of `ids` that are users, in no order. A statement each, of some microseconds; others
    /// have their turn after every few.
    pub fn known(&self, ids: &[&str]) -> Result<Vec<(UserName, UserState)>, SqliteError> {
        const AT_ONCE: usize = 100;
        let mut known = Vec::new();
        for ids in ids.chunks(AT_ONCE) {
            let connection = self.connection()?;
            let mut statement =
                connection.prepare(&format!("{SELECT_USER} WHERE id = ?1")).map_err(failed("naming users"))?;
            for id in ids {
                let found = statement.query_row([id], |row| Ok((row.get("name")?, state(row)?))).optional();
                known.extend(found.map_err(failed("naming users"))?);
            }
        }
        Ok(known)
    }

    pub fn show(&self, name: &UserName) -> Result<User, SqliteError> {
        show(&*self.connection()?, name)
    }

    /// Whoever was signed in with the old password no longer is.
    pub fn set_password_hash(&self, name: &UserName, hash: &StoredHash) -> Result<(), SqliteError> {
        const SET: &str = "UPDATE users SET password_hash = :hash, updated_at = :now, ended_before = :millis
                           WHERE name = :name";
        let parameters = named_params! {
            ":hash": hash.as_str(), ":now": self.now(), ":millis": self.now_millis(), ":name": name.as_str(),
        };
        let changed = self.connection()?.execute(SET, parameters).map_err(failed("setting a password"))?;
        one_user(changed, name)
    }

    /// Disabling ends the user's sessions; enabling does not bring them back.
    pub fn set_disabled(&self, name: &UserName, disabled: bool) -> Result<(), SqliteError> {
        const DISABLE: &str =
            "UPDATE users SET disabled = 1, updated_at = :now, ended_before = :millis WHERE name = :name";
        const ENABLE: &str = "UPDATE users SET disabled = 0, updated_at = :now WHERE name = :name";
        let (now, millis) = (self.now(), self.now_millis());
        let connection = self.connection()?;
        let changed = if disabled {
            connection.execute(DISABLE, named_params! { ":now": now, ":millis": millis, ":name": name.as_str() })
        } else {
            connection.execute(ENABLE, named_params! { ":now": now, ":name": name.as_str() })
        };
        one_user(changed.map_err(failed("disabling or enabling a user"))?, name)
    }

    /// Forgets failed logins: they are counted for the user as of the last change, and this is one.
    pub fn unlock(&self, name: &UserName) -> Result<(), SqliteError> {
        const UNLOCK: &str = "UPDATE users SET name = name, updated_at = :now WHERE name = :name";
        let parameters = named_params! { ":now": self.now(), ":name": name.as_str() };
        let changed = self.connection()?.execute(UNLOCK, parameters).map_err(failed("unlocking a user"))?;
        one_user(changed, name)
    }

    /// Ends every session that the user has begun until now.
    pub fn end_sessions(&self, name: &UserName) -> Result<(), SqliteError> {
        const END: &str = "UPDATE users SET ended_before = :millis, updated_at = :now WHERE name = :name";
        let parameters = named_params! { ":millis": self.now_millis(), ":now": self.now(), ":name": name.as_str() };
        let changed = self.connection()?.execute(END, parameters).map_err(failed("ending sessions"))?;
        one_user(changed, name)
    }

    fn now_millis(&self) -> i64 {
        i64::try_from(self.clock.now().millis()).unwrap_or(i64::MAX)
    }

    pub fn grant(&self, name: &UserName, grants: &Grants) -> Result<User, SqliteError> {
        self.change_grants(name, grants, give)
    }

    /// Takes services and roles; those the user does not have are no error. Answers the user as changed.
    pub fn revoke(&self, name: &UserName, grants: &Grants) -> Result<User, SqliteError> {
        self.change_grants(name, grants, take)
    }

    /// Adds every user of the file or, if any line is bad or any name is taken, none. Answers how many.
    ///
    /// Plain passwords are hashed before the database is locked: some twenty milliseconds each.
    pub fn import(&self, file: ImportFile) -> Result<usize, ImportError> {
        let mut faults = file.faults;
        faults.extend(self.taken(&file.entries)?);
        if !faults.is_empty() {
            faults.sort_by_key(|fault| fault.line);
            return Err(ImportError::Lines(faults));
        }
        let hashes = file.entries.iter().map(|entry| match &entry.secret {
            Secret::Hash(hash) => Ok(hash.clone()),
            Secret::Password(password) => password::hash(password),
        });
        let hashes = hashes.collect::<Result<Vec<_>, _>>().map_err(ImportError::Hash)?;
        self.insert_all(&file.entries, &hashes)
    }

    pub(super) fn insert_all(&self, entries: &[Entry], hashes: &[StoredHash]) -> Result<usize, ImportError> {
        let now = self.now();
        self.write(|transaction| {
            for (entry, hash) in entries.iter().zip(hashes) {
                insert(transaction, &entry.user, hash, now).map_err(|error| at_line(entry, error))?;
            }
            Ok(entries.len())
        })
    }

    /// The lines whose users are there already.
    fn taken(&self, entries: &[Entry]) -> Result<Vec<LineFault>, SqliteError> {
        let connection = self.connection()?;
        let mut statement =
            connection.prepare("SELECT 1 FROM users WHERE name = ?1").map_err(failed("looking for users"))?;
        let mut faults = Vec::new();
        for entry in entries {
            if statement.exists([entry.user.name.as_str()]).map_err(failed("looking for users"))? {
                faults.push(taken(entry));
            }
        }
        Ok(faults)
    }

    fn change_grants(
        &self,
        name: &UserName,
        grants: &Grants,
        change: impl Fn(&Transaction<'_>, &UserId, &Grants) -> rusqlite::Result<()>,
    ) -> Result<User, SqliteError> {
        const TOUCH: &str = "UPDATE users SET updated_at = :now WHERE name = :name RETURNING id";
        let parameters = named_params! { ":now": self.now(), ":name": name.as_str() };
        self.write(|transaction| {
            let id: Option<String> = transaction
                .query_row(TOUCH, parameters, |row| row.get(0))
                .optional()
                .map_err(failed("changing what a user may use"))?;
            let id = id.map(UserId::from).ok_or_else(|| SqliteError::NoSuchUser(name.clone()))?;
            change(transaction, &id, grants).map_err(failed("changing what a user may use"))?;
            show(transaction, name)
        })
    }

    /// Runs `work` in a transaction, committed only if all of it succeeds.
    fn write<T, E: From<SqliteError>>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, E>) -> Result<T, E> {
        let mut connection = self.connection()?;
        // Immediate: a transaction that reads first and writes later may fail where waiting would have helped.
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed("beginning a transaction"))?;
        let done = work(&transaction)?;
        transaction.commit().map_err(failed("committing a transaction"))?;
        Ok(done)
    }
}

fn show(connection: &Connection, name: &UserName) -> Result<User, SqliteError> {
    let found = find(connection, name)?;
    found.map(|(user, _)| user).ok_or_else(|| SqliteError::NoSuchUser(name.clone()))
}

fn insert(transaction: &Transaction<'_>, new: &NewUser, hash: &StoredHash, now: i64) -> Result<(), SqliteError> {
    const INSERT: &str = "
        INSERT INTO users (id, name, email, password_hash, disabled, created_at, updated_at)
        VALUES (:id, :name, :email, :hash, :disabled, :now, :now)";
    // No session knows of a user who is only being made: there is no change to tell of.
    const UNCHANGED: &str = "UPDATE users SET change = 0, ended_by = 0 WHERE id = ?1";
    let id = UserId::random();
    let parameters = named_params! {
        ":id": id.as_str(),
        ":name": new.name.as_str(),
        ":email": new.email.as_ref().map(Email::as_str),
        ":hash": hash.as_str(),
        ":disabled": new.disabled,
        ":now": now,
    };
    match transaction.execute(INSERT, parameters) {
        Ok(_) => give(transaction, &id, &new.grants)
            .and_then(|()| transaction.execute(UNCHANGED, [id.as_str()]).map(drop))
            .map_err(failed("adding a user")),
        // The name is the only UNIQUE column; two equal identities would be a PRIMARYKEY violation.
        Err(error) if error.sqlite_error().is_some_and(|it| it.extended_code == ffi::SQLITE_CONSTRAINT_UNIQUE) => {
            Err(SqliteError::UserExists(new.name.clone()))
        }
        Err(error) => Err(failed("adding a user")(error)),
    }
}

fn give(transaction: &Transaction<'_>, id: &UserId, grants: &Grants) -> rusqlite::Result<()> {
    const SERVICE: &str = "INSERT OR IGNORE INTO user_services (user_id, service) VALUES (?1, ?2)";
    const ROLE: &str = "INSERT OR IGNORE INTO user_roles (user_id, role) VALUES (?1, ?2)";
    for_each(transaction, SERVICE, id, grants.services())?;
    for_each(transaction, ROLE, id, grants.roles())
}

fn take(transaction: &Transaction<'_>, id: &UserId, grants: &Grants) -> rusqlite::Result<()> {
    const SERVICE: &str = "DELETE FROM user_services WHERE user_id = ?1 AND service = ?2";
    const ROLE: &str = "DELETE FROM user_roles WHERE user_id = ?1 AND role = ?2";
    for_each(transaction, SERVICE, id, grants.services())?;
    for_each(transaction, ROLE, id, grants.roles())
}

fn for_each(transaction: &Transaction<'_>, sql: &str, id: &UserId, names: &[String]) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare(sql)?;
    names.iter().try_for_each(|name| statement.execute([id.as_str(), name]).map(drop))
}

fn one_user(changed: usize, name: &UserName) -> Result<(), SqliteError> {
    if changed == 1 { Ok(()) } else { Err(SqliteError::NoSuchUser(name.clone())) }
}

fn taken(entry: &Entry) -> LineFault {
    let name = &entry.user.name;
    LineFault { line: entry.line, what: format!("there is a user {name} already; leave the line out") }
}

/// Somebody may have added the user since we looked.
fn at_line(entry: &Entry, error: SqliteError) -> ImportError {
    match error {
        SqliteError::UserExists(_) => ImportError::Lines(vec![taken(entry)]),
        other => ImportError::Directory(other),
    }
}

impl From<SqliteError> for ImportError {
    fn from(source: SqliteError) -> Self {
        Self::Directory(source)
    }
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lines(faults) => {
                write!(f, "nothing was imported, {} bad line(s):", faults.len())?;
                faults.iter().try_for_each(|fault| write!(f, "\n{fault}"))
            }
            Self::Hash(_) | Self::Directory(_) => f.write_str("nothing was imported"),
        }
    }
}

impl Error for ImportError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Lines(_) => None,
            Self::Hash(source) => Some(source),
            Self::Directory(source) => Some(source),
        }
    }
}
