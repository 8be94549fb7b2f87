//! Opens the user directory that the configuration names. This is the only place that chooses an implementation.

use std::sync::Arc;

use super::directory::{DirectoryError, UserDirectory, UserRegistry};
use super::sqlite::{self, SqliteDirectory};
use crate::clock::Clock;
use crate::config::UserStore;

/// A user directory that is open, by its two interfaces.
pub struct OpenDirectory {
    pub sign_on: Arc<dyn UserDirectory>,
    pub registry: Arc<dyn UserRegistry>,
}

/// Opens a directory that exists. A mistyped path must not start an edge where no user can sign in.
pub fn open(store: &UserStore, clock: Clock) -> Result<OpenDirectory, DirectoryError> {
    let UserStore::Sqlite { path } = store;
    SqliteDirectory::open(path, clock).map(OpenDirectory::of).map_err(|error| error.at(path))
}

/// Looks whether there is a directory that [`open`] could open. Nothing in it is changed.
pub fn inspect(store: &UserStore) -> Result<(), DirectoryError> {
    let UserStore::Sqlite { path } = store;
    sqlite::inspect(path).map_err(|error| error.at(path))
}

/// Opens a directory, or creates an empty one.
pub fn open_or_create(store: &UserStore, clock: Clock) -> Result<OpenDirectory, DirectoryError> {
    let UserStore::Sqlite { path } = store;
    SqliteDirectory::open_or_create(path, clock).map(OpenDirectory::of).map_err(|error| error.at(path))
}

impl OpenDirectory {
    /// Returns the two interfaces of one directory.
    pub(super) fn of<D: UserDirectory + UserRegistry + 'static>(directory: D) -> Self {
        let directory = Arc::new(directory);
        Self { sign_on: Arc::clone(&directory) as Arc<dyn UserDirectory>, registry: directory }
    }
}
