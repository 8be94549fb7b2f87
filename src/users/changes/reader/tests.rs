//! Tests with a directory whose results are prepared.

use std::sync::Mutex;

use super::*;
use crate::metrics::Metrics;
use crate::users::changes::DirectoryChanges;
use crate::users::{StoredHash, User, UserName};

/// A directory that returns the pages of a test one after another, and records the calls.
#[derive(Default)]
struct Readings {
    left: Mutex<Vec<Result<ChangesPage, DirectoryError>>>,
    calls: Mutex<Vec<u64>>,
    /// The users that exist.
    users: Mutex<Option<Vec<UserState>>>,
}

impl UserDirectory for Readings {
    fn find(&self, _: &UserName) -> Result<Option<(User, StoredHash)>, DirectoryError> {
        Ok(None)
    }

    fn replace_hash(&self, _: &UserId, _: &StoredHash, _: &StoredHash) -> Result<bool, DirectoryError> {
        Ok(false)
    }

    fn changed_since(&self, since: u64) -> Result<ChangesPage, DirectoryError> {
        self.calls.lock().unwrap().push(since);
        let mut left = self.left.lock().unwrap();
        if left.is_empty() { Ok(ChangesPage { last: since, ..ChangesPage::default() }) } else { left.remove(0) }
    }

    fn standing(&self, ids: &[&str]) -> Result<Vec<UserState>, DirectoryError> {
        let users = self.users.lock().unwrap().clone().unwrap_or_default();
        Ok(users.into_iter().filter(|user| ids.contains(&user.id.as_str())).collect())
    }

    fn ids(&self) -> Result<Option<HashSet<Box<str>>>, DirectoryError> {
        let users = self.users.lock().unwrap();
        Ok(users.as_ref().map(|users| users.iter().map(|user| user.id.as_str().into()).collect()))
    }
}

fn state(id: &str, disabled: bool, change: u64) -> UserState {
    UserState {
        id: UserId::from(id.to_owned()),
        disabled,
        services: Vec::new(),
        roles: Vec::new(),
        ended_before: UnixTime::default(),
        ended_by: 0,
        ended_formerly: UnixTime::default(),
        change,
    }
}

fn page(users: Vec<UserState>, more: bool, last: u64) -> Result<ChangesPage, DirectoryError> {
    Ok(ChangesPage { users, more, last, source: Source::default() })
}

/// A page of the file that came as number `file`, which was written to `version` times.
fn page_of(file: u64, version: u64, users: Vec<UserState>, last: u64) -> Result<ChangesPage, DirectoryError> {
    Ok(ChangesPage { users, more: false, last, source: Source { file, version } })
}

fn metrics() -> DirectoryMetrics {
    Metrics::new("test").unwrap().sign_on.directory
}

fn reader(readings: Vec<Result<ChangesPage, DirectoryError>>) -> (Reader, Arc<Readings>) {
    let directory = Arc::new(Readings { left: Mutex::new(readings), ..Readings::default() });
    let reader = Reader::new(directory.clone(), Arc::default(), Arc::default(), Clock::default(), metrics());
    (reader, directory)
}

#[test]
fn a_change_is_known_and_a_failing_directory_changes_nothing() {
    let (mut reader, directory) = reader(vec![
        page(vec![state("ada", true, 7)], false, 9),
        Err(DirectoryError::unavailable("gone")),
        page(vec![state("bob", false, 10)], false, 10),
    ]);
    let states = Arc::clone(&reader.states);
    let disabled = |name: &str| states.load().get(name).map(|state| state.disabled);
    assert_eq!(disabled("ada"), None);
    reader.read();
    assert_eq!(disabled("ada"), Some(true));
    reader.read();
    assert!(reader.fault.load().as_ref().is_some_and(|why| why.ends_with(": gone")));
    assert_eq!((disabled("ada"), reader.metrics.up.get()), (Some(true), 0));
    reader.read();
    assert_eq!((disabled("ada"), disabled("bob")), (Some(true), Some(false)));
    assert!(reader.fault.load().is_none());
    assert_eq!(reader.metrics.up.get(), 1);
    assert_eq!(*directory.calls.lock().unwrap(), [0, 7, 7]);
}

#[test]
fn pages_are_read_to_their_end_and_an_older_copy_from_its_beginning() {
    let (mut reader, directory) = reader(vec![
        page(vec![state("ada", true, 3), state("bob", false, 5)], true, 90),
        page(vec![state("cyd", false, 80)], false, 90),
        page(vec![], false, 20),
        page(vec![state("ada", false, 2), state("dan", true, 20)], false, 20),
    ]);
    let states = Arc::clone(&reader.states);
    reader.read();
    assert_eq!(states.load().len(), 3);
    reader.read();
    let disabled = |name: &str| states.load().get(name).map(|state| state.disabled);
    assert_eq!((disabled("ada"), disabled("bob"), disabled("dan")), (Some(false), Some(false), Some(true)));
    reader.read();
    assert_eq!(*directory.calls.lock().unwrap(), [0, 5, 80, 0, 20]);
}

#[test]
fn what_changed_before_the_start_is_known_at_once_and_the_thread_ends_with_it() {
    let (reader, _) = reader(vec![page(vec![state("ada", true, 1)], false, 1)]);
    let changes =
        DirectoryChanges::start(reader.directory, std::time::Duration::from_secs(3600), Clock::default(), metrics())
            .unwrap();
    assert!(changes.state("ada").is_some_and(|state| state.disabled));
    assert!(changes.state("bob").is_none());
}

#[test]
fn another_file_is_read_whole_though_its_numbers_continue() {
    let mut ended = state("ada", false, 9);
    (ended.ended_before, ended.ended_by) = (UnixTime::from_seconds(500), 9);
    let (mut reader, directory) = reader(vec![
        page(vec![ended, state("bob", true, 10)], false, 10),
        page_of(1, 1, vec![state("cyd", false, 12)], 12),
        page_of(1, 1, vec![state("cyd", false, 12), state("dan", true, 4)], 12),
    ]);
    let there = |ids: &[&str]| Some(ids.iter().map(|id| state(id, false, 0)).collect());
    *directory.users.lock().unwrap() = there(&["ada", "bob", "cyd", "dan", "eve"]);
    let states = Arc::clone(&reader.states);
    reader.read();
    *directory.users.lock().unwrap() = there(&["ada", "bob", "cyd", "dan"]);
    reader.read();
    let of = |id: &str| states.load().get(id).cloned().unwrap();
    assert!(!of("bob").disabled, "he was enabled, or never disabled there");
    assert!(of("dan").disabled, "though that change has a low number");
    assert!(of("eve").disabled, "she is not there any more");
    assert_eq!((of("ada").ended_by, of("ada").ended_formerly), (0, UnixTime::from_seconds(500)));
    assert_eq!(*directory.calls.lock().unwrap(), [0, 10, 0]);
}

#[test]
fn a_file_that_was_written_to_is_read_on_and_one_that_was_overwritten_is_read_whole() {
    for (before, is_another) in [
        // The command line has changed bob: ada is as she was.
        (vec![state("ada", false, 5), state("bob", true, 6)], false),
        // It has changed ada: nothing is known that could be compared.
        (vec![state("ada", true, 6)], true),
        // Number 5 was given to bob there.
        (vec![state("bob", true, 5), state("ada", false, 6)], true),
        // To ada as well, for another change.
        (vec![state("ada", true, 5), state("bob", true, 6)], true),
    ] {
        let after: Vec<_> = before.iter().filter(|user| user.change > 5).cloned().collect();
        let (mut reader, directory) = reader(vec![
            page(vec![state("ada", false, 5)], false, 5),
            page_of(0, 1, after, 6),
            page_of(0, 1, before.clone(), 6),
            page_of(0, 1, before.clone(), 6),
        ]);
        reader.read();
        reader.read();
        let expected: &[u64] = if is_another { &[0, 5, 0, 0] } else { &[0, 5, 0] };
        assert_eq!(*directory.calls.lock().unwrap(), expected, "{before:?}");
        for user in before {
            let known = reader.states.load().get(user.id.as_str()).cloned();
            assert_eq!(known.as_deref(), Some(&user));
        }
    }
}

#[test]
fn a_user_who_is_missing_is_disabled_until_the_row_is_back() {
    let (mut reader, directory) =
        reader(vec![page(vec![], false, 2), page_of(0, 1, vec![], 2), page_of(0, 2, vec![], 2)]);
    let there = |ids: &[&str]| Some(ids.iter().map(|id| state(id, false, 0)).collect());
    for (ids, is_out) in [(&["ada", "bob"][..], false), (&["bob"][..], true), (&["ada", "bob"][..], false)] {
        *directory.users.lock().unwrap() = there(ids);
        reader.read();
        let states = reader.states.load();
        assert_eq!(states.get("ada").is_some_and(|state| state.disabled), is_out, "{ids:?}");
        assert!(!states.contains_key("bob"));
    }
}

#[test]
fn a_directory_is_another_one_where_something_differs_and_not_where_nothing_is_left_to_compare() {
    let after = || page_of(0, 1, vec![state("bob", true, 8)], 8).unwrap();
    for (compared, is_another) in [
        // Every user has changed since, as by the end of all sessions.
        (vec![state("ada", true, 8), state("bob", true, 9)], None),
        (vec![state("ada", false, 7), state("bob", true, 8)], Some(false)),
        (vec![state("ada", true, 7), state("bob", true, 8)], Some(true)),
    ] {
        let before = page_of(0, 0, vec![state("ada", false, 7)], 7);
        let (mut reader, _) = reader(vec![before, page_of(0, 1, compared, 9)]);
        reader.read();
        let found = match reader.origin(&after()).unwrap() {
            Origin::TheSame => Some(false),
            Origin::Another => Some(true),
            Origin::Unclear => None,
        };
        assert_eq!(found, is_another);
    }
}
