//! A user directory that counts its operations in the metrics.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::directory::{ChangesPage, DirectoryError, UserDirectory};
use super::{HashKind, StoredHash, User, UserId, UserName, UserState};
use crate::metrics::DirectoryMetrics;

pub struct Instrumented {
    directory: Arc<dyn UserDirectory>,
    metrics: DirectoryMetrics,
}

impl Instrumented {
    pub fn new(directory: Arc<dyn UserDirectory>, metrics: DirectoryMetrics) -> Self {
        Self { directory, metrics }
    }

    fn counted<T>(
        &self,
        operation: &'static str,
        done: Result<T, DirectoryError>,
        result: impl FnOnce(&T) -> &'static str,
    ) -> Result<T, DirectoryError> {
        self.metrics.count(operation, done.as_ref().map_or("failed", result));
        done
    }
}

impl UserDirectory for Instrumented {
    fn find(&self, name: &UserName) -> Result<Option<(User, StoredHash)>, DirectoryError> {
        let result = |found: &Option<_>| if found.is_some() { "ok" } else { "miss" };
        self.counted("find", self.directory.find(name), result)
    }

    fn hash_kinds(&self) -> Result<BTreeSet<HashKind>, DirectoryError> {
        self.counted("hash_kinds", self.directory.hash_kinds(), |_| "ok")
    }

    fn replace_hash(&self, id: &UserId, old: &StoredHash, new: &StoredHash) -> Result<bool, DirectoryError> {
        let result = |replaced: &bool| if *replaced { "ok" } else { "miss" };
        self.counted("replace_hash", self.directory.replace_hash(id, old, new), result)
    }

    fn changed_since(&self, since: u64) -> Result<ChangesPage, DirectoryError> {
        self.counted("changed_since", self.directory.changed_since(since), |_| "ok")
    }

    fn standing(&self, ids: &[&str]) -> Result<Vec<UserState>, DirectoryError> {
        self.counted("standing", self.directory.standing(ids), |_| "ok")
    }

    fn ids(&self) -> Result<Option<HashSet<Box<str>>>, DirectoryError> {
        self.counted("ids", self.directory.ids(), |_| "ok")
    }
}
