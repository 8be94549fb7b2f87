//! A user directory whose operations are counted.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::{Changes, DirectoryError, HashKind, StoredHash, User, UserDirectory, UserId, UserName, UserState};
use crate::metrics::DirectoryMetrics;

pub struct Observed {
    directory: Arc<dyn UserDirectory>,
    metrics: DirectoryMetrics,
}

impl Observed {
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

impl UserDirectory for Observed {
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

    fn changed_since(&self, since: u64) -> Result<Changes, DirectoryError> {
        self.counted("changed_since", self.directory.changed_since(since), |_| "ok")
    }

    fn standing(&self, ids: &[&str]) -> Result<Vec<UserState>, DirectoryError> {
        self.counted("standing", self.directory.standing(ids), |_| "ok")
    }

    fn ids(&self) -> Result<Option<HashSet<Box<str>>>, DirectoryError> {
        self.counted("ids", self.directory.ids(), |_| "ok")
    }
}
