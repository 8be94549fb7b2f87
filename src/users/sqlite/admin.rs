//! What administrators do to the directory: add, list, show, change.
//!
//! Each change gets the next change number from the triggers in `changes.sql`. Sessions are not known here: that a change
//! ends them is stored with the user (`ended_before`), and the edges follow.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, ffi, named_params};

use super::error::failed;
use super::{SELECT_USER, SqliteDirectory, find, state, user};
use crate::clock::UnixTime;
use crate::users::directory::{DirectoryError, UserRegistry};
use crate::users::{Email, Grants, NewUser, StoredHash, User, UserId, UserName, UserState};

impl UserRegistry for SqliteDirectory {
    fn add(&self, new: &NewUser, hash: &StoredHash) -> Result<User, DirectoryError> {
        let now = self.now();
        self.write(|transaction| {
            insert(transaction, new, hash, now)?;
            show(transaction, &new.name)
        })
    }

    fn list(&self) -> Result<Vec<User>, DirectoryError> {
        let connection = self.connection()?;
        let mut statement =
            connection.prepare(&format!("{SELECT_USER} ORDER BY name")).map_err(failed("listing users"))?;
        let users = statement.query_map([], user).and_then(Iterator::collect);
        Ok(users.map_err(failed("listing users"))?)
    }

    /// Runs one statement per identity, of some microseconds each, and releases the connection after every few.
    fn known(&self, ids: &[&str]) -> Result<Vec<(UserName, UserState)>, DirectoryError> {
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

    fn show(&self, name: &UserName) -> Result<User, DirectoryError> {
        let connection = self.connection()?;
        show(&connection, name)
    }

    fn set_password_hash(&self, name: &UserName, hash: &StoredHash) -> Result<(), DirectoryError> {
        const SET: &str = "UPDATE users SET password_hash = :hash, updated_at = :now, ended_before = :millis
                           WHERE name = :name";
        let parameters = named_params! {
            ":hash": hash.as_str(), ":now": self.now(), ":millis": self.now_millis(), ":name": name.as_str(),
        };
        let changed = self.connection()?.execute(SET, parameters).map_err(failed("setting a password"))?;
        one_user(changed, name)
    }

    fn set_disabled(&self, name: &UserName, disabled: bool) -> Result<(), DirectoryError> {
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

    /// Sets the name to itself, which the trigger counts as a change.
    fn unlock(&self, name: &UserName) -> Result<(), DirectoryError> {
        const UNLOCK: &str = "UPDATE users SET name = name, updated_at = :now WHERE name = :name";
        let parameters = named_params! { ":now": self.now(), ":name": name.as_str() };
        let changed = self.connection()?.execute(UNLOCK, parameters).map_err(failed("unlocking a user"))?;
        one_user(changed, name)
    }

    fn end_sessions(&self, name: &UserName) -> Result<(), DirectoryError> {
        const END: &str = "UPDATE users SET ended_before = :millis, updated_at = :now WHERE name = :name";
        let parameters = named_params! { ":millis": self.now_millis(), ":now": self.now(), ":name": name.as_str() };
        let changed = self.connection()?.execute(END, parameters).map_err(failed("ending sessions"))?;
        one_user(changed, name)
    }

    /// One statement and one transaction: the triggers give each user a change number, some microseconds each.
    fn end_all_sessions(&self) -> Result<UnixTime, DirectoryError> {
        const END: &str = "UPDATE users SET ended_before = :millis, updated_at = :now";
        let until = self.clock.now();
        let millis = i64::try_from(until.millis()).unwrap_or(i64::MAX);
        let parameters = named_params! { ":millis": millis, ":now": self.now() };
        self.connection()?.execute(END, parameters).map_err(failed("ending all sessions"))?;
        Ok(until)
    }

    fn grant(&self, name: &UserName, grants: &Grants) -> Result<User, DirectoryError> {
        self.change_grants(name, grants, give)
    }

    fn revoke(&self, name: &UserName, grants: &Grants) -> Result<User, DirectoryError> {
        self.change_grants(name, grants, take)
    }

    fn add_all(&self, users: &[(NewUser, StoredHash)]) -> Result<(), DirectoryError> {
        let now = self.now();
        self.write(|transaction| users.iter().try_for_each(|(new, hash)| insert(transaction, new, hash, now)))
    }

    fn taken(&self, names: &[&UserName]) -> Result<Vec<UserName>, DirectoryError> {
        let connection = self.connection()?;
        let mut statement =
            connection.prepare("SELECT 1 FROM users WHERE name = ?1").map_err(failed("looking for users"))?;
        let mut taken = Vec::new();
        for &name in names {
            if statement.exists([name.as_str()]).map_err(failed("looking for users"))? {
                taken.push(name.clone());
            }
        }
        Ok(taken)
    }
}

impl SqliteDirectory {
    fn now_millis(&self) -> i64 {
        i64::try_from(self.clock.now().millis()).unwrap_or(i64::MAX)
    }

    fn change_grants(
        &self,
        name: &UserName,
        grants: &Grants,
        change: impl Fn(&Transaction<'_>, &UserId, &Grants) -> rusqlite::Result<()>,
    ) -> Result<User, DirectoryError> {
        const TOUCH: &str = "UPDATE users SET updated_at = :now WHERE name = :name RETURNING id";
        let parameters = named_params! { ":now": self.now(), ":name": name.as_str() };
        self.write(|transaction| {
            let id: Option<String> = transaction
                .query_row(TOUCH, parameters, |row| row.get(0))
                .optional()
                .map_err(failed("changing what a user may use"))?;
            let id = id.map(UserId::from).ok_or_else(|| DirectoryError::NoSuchUser(name.clone()))?;
            change(transaction, &id, grants).map_err(failed("changing what a user may use"))?;
            show(transaction, name)
        })
    }

    /// Runs `work` in a transaction, committed only if all of it succeeds.
    fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, DirectoryError>) -> Result<T, DirectoryError> {
        let mut connection = self.connection()?;
        // Immediate: a deferred transaction that reads before it writes may fail where waiting would have helped.
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed("beginning a transaction"))?;
        let done = work(&transaction)?;
        transaction.commit().map_err(failed("committing a transaction"))?;
        Ok(done)
    }
}

fn show(connection: &Connection, name: &UserName) -> Result<User, DirectoryError> {
    let found = find(connection, name)?;
    found.map(|(user, _)| user).ok_or_else(|| DirectoryError::NoSuchUser(name.clone()))
}

fn insert(transaction: &Transaction<'_>, new: &NewUser, hash: &StoredHash, now: i64) -> Result<(), DirectoryError> {
    const INSERT: &str = "
        INSERT INTO users (id, name, email, password_hash, disabled, created_at, updated_at)
        VALUES (:id, :name, :email, :hash, :disabled, :now, :now)";
    // No session refers yet to a user who is only being added, so this is no change that edges have to read.
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
        Ok(_) => {
            give(transaction, &id, &new.grants).map_err(failed("adding a user"))?;
            transaction.execute(UNCHANGED, [id.as_str()]).map_err(failed("adding a user"))?;
            Ok(())
        }
        // The name is the only UNIQUE column; two equal identities would be a PRIMARYKEY violation.
        Err(error) if error.sqlite_error().is_some_and(|it| it.extended_code == ffi::SQLITE_CONSTRAINT_UNIQUE) => {
            Err(DirectoryError::UserExists(new.name.clone()))
        }
        Err(error) => Err(failed("adding a user")(error).into()),
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

fn one_user(changed: usize, name: &UserName) -> Result<(), DirectoryError> {
    if changed == 1 { Ok(()) } else { Err(DirectoryError::NoSuchUser(name.clone())) }
}
