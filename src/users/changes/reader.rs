//! Reads what has changed in the directory, and sees when it has become another one.
//!
//! Numbers of changes are those of one directory. A copy that somebody worked on has numbers of its own, so where another
//! file is in its place, or the numbers have gone back, or what the file says of the last changes is not what is known of
//! them, everything is read anew: who was ever changed by the new one's word, how the others stand of whom the former one
//! said something, and who is not there any more and so counts as disabled. Sessions that the former one ended stay ended.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::clock::{Clock, UnixTime};
use crate::metrics::DirectoryMetrics;
use crate::users::directory::{ChangesPage, DirectoryError, Source, UserDirectory, with_causes};
use crate::users::{UserId, UserState};

/// So many of the last known changes are compared where something else has written to the file.
const COMPARED: u64 = 500;

/// Users who are asked for at once, so that logins do not wait long for the directory.
const AT_ONCE: usize = 500;

/// States by the identity of the user.
pub type States = HashMap<Box<str>, Arc<UserState>>;

pub struct Reader {
    directory: Arc<dyn UserDirectory>,
    states: Arc<ArcSwap<States>>,
    fault: Arc<ArcSwapOption<String>>,
    clock: Clock,
    metrics: DirectoryMetrics,
    /// The number of the last change that is known, and where it was read.
    since: u64,
    /// The number of the last change that there was, of users or of others.
    last: Option<u64>,
    source: Source,
    /// Everybody whom the directory had when it was last asked.
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

    pub fn read(&mut self) {
        match self.news() {
            Ok(()) => {
                self.metrics.up.set(1);
                self.metrics.last_read.set(i64::try_from(self.clock.now().seconds()).unwrap_or(i64::MAX));
                if self.fault.swap(None).is_some() {
                    log::warn!("user directory: it answers again: logins go on, and changes of users are seen");
                }
            }
            Err(error) => {
                self.metrics.up.set(0);
                let why = with_causes(&error);
                if self.fault.load().is_none() {
                    log::error!("user directory: away: nobody can log in, and changes of users are not seen: {why}");
                }
                self.fault.store(Some(Arc::new(why)));
            }
        }
    }

    fn news(&mut self) -> Result<(), DirectoryError> {
        let page = self.directory.changed_since(self.since)?;
        let (last, source) = (Some(page.last), page.source);
        if self.is_another(&page)? {
            self.read_anew(&page)?;
        } else {
            self.follow(page);
            if (last, source) != (self.last, self.source) {
                self.look_who_is_there()?;
            }
        }
        (self.last, self.source) = (last, source);
        Ok(())
    }

    /// Whether the numbers are another directory's.
    fn is_another(&self, page: &ChangesPage) -> Result<bool, DirectoryError> {
        if page.source.file != self.source.file || page.last < self.since {
            return Ok(true);
        }
        if page.source == self.source || self.since == 0 {
            return Ok(false);
        }
        // Written to by the command line, or overwritten in place. In the first case whoever was not changed since is as
        // known; in the second numbers that were given already were given to others.
        let before = self.directory.changed_since(self.since.saturating_sub(COMPARED))?;
        let states = self.states.load();
        let known = |now: &UserState| states.get(now.id.as_str()).is_some_and(|state| is_the_same(state, now));
        let mut compared = before.users.iter().filter(|user| user.change <= self.since).peekable();
        if compared.peek().is_none() {
            // All of them have changed since, or none of them is there.
            return Ok(true);
        }
        Ok(!compared.all(known))
    }

    /// What is new, page by page. What was read before a page failed counts; the rest comes with the next look.
    fn follow(&mut self, mut page: ChangesPage) {
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

    /// Another directory is there: all that it says, and what was known of users of whom it says nothing.
    fn read_anew(&mut self, first: &ChangesPage) -> Result<(), DirectoryError> {
        log::warn!("user directory: it has become another one, or an older one: all that ever changed is read again");
        let mut read: HashMap<Box<str>, UserState> = HashMap::new();
        let mut since = 0;
        loop {
            let page = self.directory.changed_since(since)?;
            if page.source.file != first.source.file {
                return Err(DirectoryError::unavailable("another file came while it was read"));
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
        // A directory that does not say who there is has said nothing of these either, and what was known stays.
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
            // A moment that lies ahead is a wrong clock's, and must keep nobody out.
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

    /// Who was there and is not has lost their place, whatever took it; and who was away may be there again.
    fn look_who_is_there(&mut self) -> Result<(), DirectoryError> {
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

/// Of a user who is not in the directory.
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

/// Whoever a directory has disabled was changed by that.
fn is_absent(state: &UserState) -> bool {
    state.disabled && state.change == 0
}

#[cfg(test)]
mod tests;
