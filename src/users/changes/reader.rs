//! Reads the changes of the directory, and notices when another directory has replaced it.
//!
//! Change numbers belong to one directory. A copy that was changed has numbers of its own. So everything is read again when
//! another file is at the path, when the numbers have gone back, or when the last changes in the file differ from those
//! that were read before. Then three groups get new states: the users that the new directory ever changed, the users that
//! only the former one changed, and the users that no longer exist, who count as disabled. Sessions that the former
//! directory ended stay ended.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::clock::{Clock, UnixTime};
use crate::metrics::DirectoryMetrics;
use crate::users::directory::{ChangesPage, DirectoryError, Source, UserDirectory, with_causes};
use crate::users::{UserId, UserState};

/// The number of known changes that are compared after another process has written to the file.
const COMPARED: u64 = 500;

/// Users that are read at once, so that logins do not wait long for the directory.
const AT_ONCE: usize = 500;

/// States by the identity of the user.
pub type States = HashMap<Box<str>, Arc<UserState>>;

/// Where a page of changes comes from, compared with the last one.
enum Origin {
    TheSame,
    Another,
    /// It may be either. All is read again, which does no harm to the same directory.
    Unclear,
}

pub struct Reader {
    directory: Arc<dyn UserDirectory>,
    states: Arc<ArcSwap<States>>,
    fault: Arc<ArcSwapOption<String>>,
    clock: Clock,
    metrics: DirectoryMetrics,
    /// The number of the last change that was read.
    since: u64,
    /// The number of the last change that the directory had at the last read, of users or of others.
    last: Option<u64>,
    source: Source,
    /// The users that the directory had at the last read.
    ids: HashSet<Box<str>>,
}

impl Reader {
    pub fn new(
        directory: Arc<dyn UserDirectory>,
        states: Arc<ArcSwap<States>>,
        fault: Arc<ArcSwapOption<String>>,
        clock: Clock,
        metrics: DirectoryMetrics,
    ) -> Self {
        let (since, last, source) = (0, None, Source::default());
        Self { directory, states, fault, clock, metrics, since, last, source, ids: HashSet::new() }
    }

    /// Reads the changes since the last read. A failure leaves the states as they are, and is logged once.
    pub fn read(&mut self) {
        match self.read_changes() {
            Ok(()) => {
                self.metrics.up.set(1);
                self.metrics.last_read.set(i64::try_from(self.clock.now().seconds()).unwrap_or(i64::MAX));
                if self.fault.swap(None).is_some() {
                    log::warn!("user directory: it answers again: logins work, and changes of users take effect");
                }
            }
            Err(error) => {
                self.metrics.up.set(0);
                let why = with_causes(&error);
                if self.fault.load().is_none() {
                    log::error!("user directory: away: logins fail, and changes of users do not take effect: {why}");
                }
                self.fault.store(Some(Arc::new(why)));
            }
        }
    }

    fn read_changes(&mut self) -> Result<(), DirectoryError> {
        let page = self.directory.changed_since(self.since)?;
        let (last, source) = (Some(page.last), page.source);
        match self.origin(&page)? {
            Origin::Another => {
                log::warn!("user directory: replaced by another or an older one: all changes are read again");
                self.read_all(&page)?;
            }
            Origin::Unclear => self.read_all(&page)?,
            Origin::TheSame => {
                self.apply(page);
                if (last, source) != (self.last, self.source) {
                    self.compare_ids()?;
                }
            }
        }
        (self.last, self.source) = (last, source);
        Ok(())
    }

    /// Returns whether the page comes from another directory than the last one.
    fn origin(&self, page: &ChangesPage) -> Result<Origin, DirectoryError> {
        if page.source.file != self.source.file || page.last < self.since {
            return Ok(Origin::Another);
        }
        if page.source == self.source || self.since == 0 {
            return Ok(Origin::TheSame);
        }
        // The file was written to by the command line, or overwritten in place. In the first case users that were not
        // changed since have the states that were read; in the second, numbers that were read belong to other changes.
        let before = self.directory.changed_since(self.since.saturating_sub(COMPARED))?;
        let states = self.states.load();
        let known = |now: &UserState| states.get(now.id.as_str()).is_some_and(|state| is_the_same(state, now));
        let mut compared = before.users.iter().filter(|user| user.change <= self.since).peekable();
        if compared.peek().is_none() {
            // All of these users have changed since, as by the end of all sessions, or the directory has none of these
            // changes: nothing can be compared.
            return Ok(Origin::Unclear);
        }
        Ok(if compared.all(known) { Origin::TheSame } else { Origin::Another })
    }

    /// Applies new changes, page by page. If a page fails, those before it are applied, and the next read gets the rest.
    fn apply(&mut self, mut page: ChangesPage) {
        let mut changed = Vec::new();
        loop {
            self.since = page.users.last().map_or(self.since, |user| user.change);
            changed.append(&mut page.users);
            if !page.more {
                break;
            }
            match self.directory.changed_since(self.since) {
                Ok(next) if next.source.file == self.source.file => page = next,
                Ok(_) | Err(_) => break,
            }
        }
        if changed.is_empty() {
            return;
        }
        let former = self.states.load();
        let mut states = States::clone(&former);
        for mut state in changed {
            state.ended_formerly = former.get(state.id.as_str()).map_or(state.ended_formerly, |it| it.ended_formerly);
            states.insert(state.id.as_str().into(), Arc::new(state));
        }
        self.states.store(Arc::new(states));
    }

    /// Reads all states of what may be another directory, and keeps what is known of users that it never changed.
    fn read_all(&mut self, first: &ChangesPage) -> Result<(), DirectoryError> {
        let mut read: HashMap<Box<str>, UserState> = HashMap::new();
        let mut since = 0;
        loop {
            let page = self.directory.changed_since(since)?;
            if page.source.file != first.source.file {
                return Err(DirectoryError::unavailable("another file replaced it while it was read"));
            }
            since = page.users.last().map_or(since, |user| user.change);
            read.extend(page.users.into_iter().map(|user| (user.id.as_str().into(), user)));
            if !page.more {
                break;
            }
        }
        let ids = self.directory.ids()?;
        let former = self.states.load_full();
        let mut silent: Vec<&str> = former.keys().map(AsRef::as_ref).filter(|id| !read.contains_key(*id)).collect();
        // A directory that cannot list its users says nothing of the silent ones either, whose states stay.
        if let Some(ids) = &ids {
            silent.retain(|id| ids.contains(*id));
            let gone = former.keys().chain(&self.ids).filter(|id| !ids.contains(*id) && !read.contains_key(*id));
            let gone: Vec<_> = gone.cloned().collect();
            for ids in silent.chunks(AT_ONCE) {
                let standing = self.directory.standing(ids)?;
                read.extend(standing.into_iter().map(|user| (user.id.as_str().into(), user)));
            }
            read.extend(gone.into_iter().map(|id| (id.clone(), absent(&id))));
        } else {
            read.extend(silent.iter().filter_map(|id| Some(((*id).into(), UserState::clone(former.get(*id)?)))));
        }
        let now = self.clock.now();
        for (id, state) in &mut read {
            // A time in the future comes from a wrong clock, and must keep no user out.
            let ended = |it: &Arc<UserState>| it.ended_before.max(it.ended_formerly).min(now);
            let formerly = former.get(id).map_or(UnixTime::default(), ended);
            if formerly > state.ended_before {
                state.ended_formerly = formerly;
            }
        }
        self.states.store(Arc::new(read.into_iter().map(|(id, state)| (id, Arc::new(state))).collect()));
        self.since = since;
        self.ids = ids.unwrap_or_default();
        Ok(())
    }

    /// Compares the users that exist with those of the last read: a user whose row is gone counts as disabled, and one whose
    /// row is back has its state again.
    fn compare_ids(&mut self) -> Result<(), DirectoryError> {
        let Some(ids) = self.directory.ids()? else { return Ok(()) };
        let former = self.states.load_full();
        let is_out = |id: &str| former.get(id).is_some_and(|state| state.disabled);
        let gone: Vec<_> = self.ids.iter().filter(|id| !ids.contains(*id) && !is_out(id)).cloned().collect();
        let back = former.iter().filter(|(id, state)| is_absent(state) && ids.contains(*id));
        let back: Vec<&str> = back.map(|(id, _)| id.as_ref()).collect();
        if !gone.is_empty() || !back.is_empty() {
            let mut states = States::clone(&former);
            states.extend(gone.into_iter().map(|id| (id.clone(), Arc::new(absent(&id)))));
            for ids in back.chunks(AT_ONCE) {
                let standing = self.directory.standing(ids)?;
                states.extend(standing.into_iter().map(|user| (user.id.as_str().into(), Arc::new(user))));
            }
            self.states.store(Arc::new(states));
        }
        self.ids = ids;
        Ok(())
    }
}

fn is_the_same(known: &UserState, now: &UserState) -> bool {
    let now = UserState { ended_formerly: known.ended_formerly, ..now.clone() };
    *known == now
}

/// Returns the state of a user that is not in the directory.
fn absent(id: &str) -> UserState {
    UserState {
        id: UserId::from(id.to_owned()),
        disabled: true,
        services: Vec::new(),
        roles: Vec::new(),
        ended_before: UnixTime::default(),
        ended_by: 0,
        change: 0,
        ended_formerly: UnixTime::default(),
    }
}

/// Returns whether this is the state of [`absent`]: disabling a user in a directory always has a change number.
fn is_absent(state: &UserState) -> bool {
    state.disabled && state.change == 0
}

#[cfg(test)]
mod tests;
