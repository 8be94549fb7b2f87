//! What every user directory does: one suite, run against each implementation from its own tests. A new implementation
//! passes it with one `conformance!`.

use std::collections::BTreeSet;

use super::import::{ImportError, ImportFile};
use super::password::{self, Verified};
use super::{
    ChangesPage, DirectoryError, Email, Grants, NewUser, OpenDirectory, Password, StoredHash, User, UserDirectory,
    UserId, UserName, UserRegistry, UserState,
};
use crate::clock::UnixTime;

pub const OLD: &str = "pbkdf2_sha256$1000$seasalt2$XgorALNvukv0EvNvIdAcBJwO8QUoJFAMVs0bpNtXMZU=";
pub const NEW: &str = "$2b$04$abcdefghijklmnopqrstuupK.cmRFvC/IBnMAohxQPjjCITVc4r9a";
const THIRD: &str = "$pbkdf2-sha256$i=1000,l=32$MDEyMzQ1Njc4OWFiY2RlZg$m4CuPn9XPTj9ZY83fuXSmJmAUe2hCIgAYQLLVUExNS4";

/// A directory under test, empty at first.
pub trait Subject {
    /// Opens the directory as one more process does.
    fn open(&self) -> OpenDirectory;
}

macro_rules! conformance {
    ($subject:expr) => {
        $crate::users::tests::conformance! { @each $subject;
            a_user_who_was_added_is_found_with_everything
            a_user_without_anything_optional_is_found_too
            an_unknown_user_is_an_answer_and_no_failure
            a_name_is_taken_once_and_the_first_user_stays
            a_user_who_does_not_exist_cannot_be_shown_or_changed
            users_are_listed_by_name
            services_and_roles_are_granted_and_revoked
            a_user_is_disabled_and_enabled
            a_password_that_was_set_meanwhile_wins_over_the_replaced_hash
            what_one_process_writes_another_sees_at_once
            the_kinds_of_all_stored_hashes_are_returned
            an_import_adds_every_user_with_a_hash_that_verifies
            an_import_with_a_bad_line_adds_no_user_and_names_every_bad_line
            of_many_users_all_are_added_or_none
            an_import_that_loses_a_race_for_a_name_says_which_line
            added_users_are_no_changes_and_each_change_is_read_once
            a_session_that_began_before_its_end_is_older_than_the_state_says
            many_changes_are_read_one_page_at_a_time
            the_sessions_of_all_users_end_with_one_change_of_each
            states_and_names_of_known_users_are_returned_and_others_left_out
        }
    };
    (@each $subject:expr; $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                $crate::users::tests::$name(&$subject)
            }
        )*
    };
}
pub(crate) use conformance;

pub fn name(text: &str) -> UserName {
    UserName::parse(text).unwrap()
}

pub fn hash(text: &str) -> StoredHash {
    StoredHash::parse(text).unwrap()
}

fn grants(services: &[&str], roles: &[&str]) -> Grants {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Grants::parse(owned(services), owned(roles)).unwrap()
}

pub fn bob() -> NewUser {
    NewUser {
        name: name("bob"),
        email: Some(Email::parse("bob@example.com").unwrap()),
        grants: grants(&["iqueue", "dextor", "iqueue"], &["admin"]),
        disabled: false,
    }
}

fn hash_of(directory: &OpenDirectory, user: &str) -> String {
    directory.sign_on.find(&name(user)).unwrap().unwrap().1.as_str().to_owned()
}

pub fn import(registry: &dyn UserRegistry, text: &str) -> Result<usize, ImportError> {
    ImportFile::read(text.as_bytes()).unwrap().add_to(registry)
}

/// Returns lines of an import of so many users with the names `u0`, `u1` and so on.
pub fn many(count: usize) -> String {
    (0..count).map(|n| format!("{{\"name\":\"u{n}\",\"services\":[\"s\"],\"password_hash\":\"{NEW}\"}}\n")).collect()
}

/// Returns all changes since then, of all pages.
pub fn changes(directory: &dyn UserDirectory, since: u64) -> Vec<UserState> {
    let (mut since, mut found) = (since, Vec::new());
    loop {
        let ChangesPage { users, more, last, .. } = directory.changed_since(since).unwrap();
        assert!(users.iter().is_sorted_by_key(|user| user.change), "in the order of their numbers");
        assert!(users.iter().all(|user| since < user.change && user.change <= last));
        since = users.last().map_or(since, |user| user.change);
        found.extend(users);
        if !more {
            return found;
        }
    }
}

pub fn last(directory: &dyn UserDirectory) -> u64 {
    directory.changed_since(0).unwrap().last
}

fn found(directory: &OpenDirectory, user: &str) -> User {
    directory.sign_on.find(&name(user)).unwrap().unwrap().0
}

pub fn a_user_who_was_added_is_found_with_everything(subject: &impl Subject) {
    let directory = subject.open();
    let added = directory.registry.add(&bob(), &hash(OLD)).unwrap();
    assert_eq!(added.services, ["dextor", "iqueue"], "sorted, and each once");
    assert_eq!(added.roles, ["admin"]);
    assert_eq!(added.email.as_deref(), Some("bob@example.com"));
    assert_eq!((added.id.as_str().is_empty(), added.disabled), (false, false));
    assert!(added.created > UnixTime::default());

    let (user, stored) = directory.sign_on.find(&name(" BOB ")).unwrap().unwrap();
    assert_eq!((&user, stored.as_str()), (&added, OLD));
    assert_eq!(directory.registry.show(&name("bob")).unwrap(), added);
    let eve = directory.registry.add(&NewUser { name: name("eve"), ..bob() }, &hash(OLD)).unwrap();
    assert_ne!(eve.id, added.id);
}

pub fn a_user_without_anything_optional_is_found_too(subject: &impl Subject) {
    let directory = subject.open();
    let eve = NewUser { name: name("eve"), email: None, grants: Grants::default(), disabled: true };
    let added = directory.registry.add(&eve, &hash(OLD)).unwrap();
    assert_eq!((&added.email, added.services.len(), added.roles.len(), added.disabled), (&None, 0, 0, true));
    assert_eq!(found(&directory, "eve"), added);
}

pub fn an_unknown_user_is_an_answer_and_no_failure(subject: &impl Subject) {
    let directory = subject.open();
    assert!(directory.sign_on.find(&name("eve")).unwrap().is_none());
    assert_eq!(directory.sign_on.change_of(&name("eve")).unwrap(), None);
    assert!(directory.registry.list().unwrap().is_empty());
    assert!(directory.sign_on.ids().unwrap().is_none_or(|ids| ids.is_empty()));
    assert_eq!(last(&*directory.sign_on), 0);
}

pub fn a_name_is_taken_once_and_the_first_user_stays(subject: &impl Subject) {
    let directory = subject.open();
    directory.registry.add(&bob(), &hash(OLD)).unwrap();
    let again = directory.registry.add(&NewUser { email: None, ..bob() }, &hash(NEW));
    assert!(matches!(again, Err(DirectoryError::UserExists(taken)) if taken == name("bob")));
    assert_eq!(directory.registry.list().unwrap().len(), 1);
    assert_eq!(hash_of(&directory, "bob"), OLD);
    let taken = directory.registry.taken(&[&name("ann"), &name("bob"), &name("eve")]).unwrap();
    assert_eq!(taken, [name("bob")]);
}

pub fn a_user_who_does_not_exist_cannot_be_shown_or_changed(subject: &impl Subject) {
    let directory = subject.open();
    let registry = &*directory.registry;
    let (missing, some) = (name("missing"), grants(&["iqueue"], &[]));
    let results = [
        registry.show(&missing).map(drop),
        registry.set_password_hash(&missing, &hash(OLD)),
        registry.set_disabled(&missing, true),
        registry.set_disabled(&missing, false),
        registry.unlock(&missing),
        registry.end_sessions(&missing),
        registry.grant(&missing, &some).map(drop),
        registry.revoke(&missing, &some).map(drop),
    ];
    for (at, result) in results.into_iter().enumerate() {
        assert!(matches!(result, Err(DirectoryError::NoSuchUser(name)) if name == missing), "{at}");
    }
    assert!(registry.list().unwrap().is_empty());
    assert_eq!(last(&*directory.sign_on), 0, "what failed is no change");
}

pub fn users_are_listed_by_name(subject: &impl Subject) {
    let directory = subject.open();
    for user in ["eve", "bob", "ärger"] {
        directory.registry.add(&NewUser { name: name(user), ..bob() }, &hash(OLD)).unwrap();
    }
    let names: Vec<_> = directory.registry.list().unwrap().into_iter().map(|user| user.name.to_string()).collect();
    assert_eq!(names, ["bob", "eve", "ärger"]);
}

pub fn services_and_roles_are_granted_and_revoked(subject: &impl Subject) {
    let directory = subject.open();
    let registry = &*directory.registry;
    registry.add(&bob(), &hash(OLD)).unwrap();
    registry.add(&NewUser { name: name("eve"), ..bob() }, &hash(OLD)).unwrap();

    let more = registry.grant(&name("bob"), &grants(&["iqueue", "third"], &["auditor"])).unwrap();
    assert_eq!(more.services, ["dextor", "iqueue", "third"]);
    assert_eq!(more.roles, ["admin", "auditor"]);
    let less = registry.revoke(&name("bob"), &grants(&["dextor", "never had"], &["admin"])).unwrap();
    assert_eq!(less.services, ["iqueue", "third"]);
    assert_eq!(less.roles, ["auditor"]);
    assert_eq!(registry.show(&name("bob")).unwrap(), less);
    assert_eq!(found(&directory, "bob"), less);
    assert_eq!(registry.show(&name("eve")).unwrap().services, ["dextor", "iqueue"], "others keep theirs");
}

pub fn a_user_is_disabled_and_enabled(subject: &impl Subject) {
    let directory = subject.open();
    directory.registry.add(&bob(), &hash(OLD)).unwrap();
    for disabled in [true, true, false] {
        directory.registry.set_disabled(&name("bob"), disabled).unwrap();
        assert_eq!(found(&directory, "bob").disabled, disabled);
    }
}

pub fn a_password_that_was_set_meanwhile_wins_over_the_replaced_hash(subject: &impl Subject) {
    let (edge, command_line) = (subject.open(), subject.open());
    let id = edge.registry.add(&bob(), &hash(OLD)).unwrap().id;

    command_line.registry.set_password_hash(&name("bob"), &hash(NEW)).unwrap();
    assert!(!edge.sign_on.replace_hash(&id, &hash(OLD), &hash(THIRD)).unwrap());
    assert_eq!(hash_of(&edge, "bob"), NEW);

    assert!(edge.sign_on.replace_hash(&id, &hash(NEW), &hash(THIRD)).unwrap(), "nothing has changed meanwhile");
    assert_eq!(hash_of(&command_line, "bob"), THIRD);
    assert!(!edge.sign_on.replace_hash(&UserId::from("other".to_owned()), &hash(THIRD), &hash(OLD)).unwrap());
}

pub fn what_one_process_writes_another_sees_at_once(subject: &impl Subject) {
    let (edge, command_line) = (subject.open(), subject.open());
    assert!(edge.sign_on.find(&name("bob")).unwrap().is_none());
    command_line.registry.add(&bob(), &hash(OLD)).unwrap();
    assert!(edge.sign_on.find(&name("bob")).unwrap().is_some());
    command_line.registry.revoke(&name("bob"), &grants(&["iqueue"], &["admin"])).unwrap();
    assert_eq!(edge.registry.show(&name("bob")).unwrap().services, ["dextor"]);
}

pub fn the_kinds_of_all_stored_hashes_are_returned(subject: &impl Subject) {
    let directory = subject.open();
    directory.registry.add(&bob(), &hash(OLD)).unwrap();
    directory.registry.add(&NewUser { name: name("eve"), ..bob() }, &hash(NEW)).unwrap();
    let kinds = directory.sign_on.hash_kinds().unwrap();
    // A directory that cannot tell returns none of them.
    assert!(kinds.is_empty() || kinds == BTreeSet::from([hash(OLD).kind(), hash(NEW).kind()]), "{kinds:?}");
}

pub fn an_import_adds_every_user_with_a_hash_that_verifies(subject: &impl Subject) {
    let directory = subject.open();
    let lines = format!(
        "{{\"name\":\"Bob\",\"services\":[\"iqueue\"],\"password_hash\":\"{NEW}\"}}\n\
         {{\"name\":\"eve\",\"roles\":[\"admin\"],\"password\":\" x\",\"disabled\":true}}\n"
    );
    assert_eq!(import(&*directory.registry, &lines).unwrap(), 2);
    assert_eq!(directory.registry.show(&name("bob")).unwrap().services, ["iqueue"]);
    assert_eq!(hash_of(&directory, "bob"), NEW);
    let (eve, stored) = directory.sign_on.find(&name("eve")).unwrap().unwrap();
    assert!(eve.disabled && eve.roles == ["admin"] && stored.is_current());
    let password = Password::new(" x".into()).unwrap();
    assert_eq!(password::verify(&password, &stored).unwrap(), Verified::Match);
    assert_eq!(import(&*directory.registry, "").unwrap(), 0);
}

pub fn an_import_with_a_bad_line_adds_no_user_and_names_every_bad_line(subject: &impl Subject) {
    let directory = subject.open();
    directory.registry.add(&bob(), &hash(OLD)).unwrap();
    let good = |name: &str| format!("{{\"name\":\"{name}\",\"password_hash\":\"{NEW}\"}}\n");
    let lines = [good("a"), "{}\n".into(), good("BOB"), good("c"), "x\n".into()].concat();
    let Err(ImportError::Lines(faults)) = import(&*directory.registry, &lines) else { panic!("imported") };
    assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [2, 3, 5]);
    assert!(faults[1].what.starts_with("there is a user bob already"), "{}", faults[1]);
    assert_eq!(directory.registry.list().unwrap().len(), 1);
    assert_eq!(hash_of(&directory, "bob"), OLD);
}

pub fn of_many_users_all_are_added_or_none(subject: &impl Subject) {
    let directory = subject.open();
    directory.registry.add(&NewUser { name: name("b"), ..bob() }, &hash(OLD)).unwrap();
    let users = ["a", "b", "c"].map(|user| (NewUser { name: name(user), ..bob() }, hash(NEW)));
    let added = directory.registry.add_all(&users);
    assert!(matches!(added, Err(DirectoryError::UserExists(taken)) if taken == name("b")));
    assert_eq!(directory.registry.list().unwrap().len(), 1, "user a was not added either");
    directory.registry.add_all(&[users[0].clone(), users[2].clone()]).unwrap();
    assert_eq!(directory.registry.list().unwrap().len(), 3);
    assert_eq!(hash_of(&directory, "b"), OLD);
}

/// A registry to which another process adds the users between the look at the names and the import.
struct Raced<'a>(&'a OpenDirectory);

impl UserRegistry for Raced<'_> {
    fn add(&self, new: &NewUser, hash: &StoredHash) -> Result<User, DirectoryError> {
        self.0.registry.add(new, hash)
    }
    fn add_all(&self, users: &[(NewUser, StoredHash)]) -> Result<(), DirectoryError> {
        self.0.registry.add_all(users)
    }
    fn list(&self) -> Result<Vec<User>, DirectoryError> {
        self.0.registry.list()
    }
    fn known(&self, ids: &[&str]) -> Result<Vec<(UserName, UserState)>, DirectoryError> {
        self.0.registry.known(ids)
    }
    fn taken(&self, names: &[&UserName]) -> Result<Vec<UserName>, DirectoryError> {
        let taken = self.0.registry.taken(names);
        self.add(&NewUser { name: name("b"), ..bob() }, &hash(OLD))?;
        taken
    }
    fn show(&self, name: &UserName) -> Result<User, DirectoryError> {
        self.0.registry.show(name)
    }
    fn set_password_hash(&self, name: &UserName, hash: &StoredHash) -> Result<(), DirectoryError> {
        self.0.registry.set_password_hash(name, hash)
    }
    fn set_disabled(&self, name: &UserName, disabled: bool) -> Result<(), DirectoryError> {
        self.0.registry.set_disabled(name, disabled)
    }
    fn unlock(&self, name: &UserName) -> Result<(), DirectoryError> {
        self.0.registry.unlock(name)
    }
    fn end_sessions(&self, name: &UserName) -> Result<(), DirectoryError> {
        self.0.registry.end_sessions(name)
    }
    fn end_all_sessions(&self) -> Result<UnixTime, DirectoryError> {
        self.0.registry.end_all_sessions()
    }
    fn grant(&self, name: &UserName, grants: &Grants) -> Result<User, DirectoryError> {
        self.0.registry.grant(name, grants)
    }
    fn revoke(&self, name: &UserName, grants: &Grants) -> Result<User, DirectoryError> {
        self.0.registry.revoke(name, grants)
    }
}

pub fn an_import_that_loses_a_race_for_a_name_says_which_line(subject: &impl Subject) {
    let directory = subject.open();
    let text = ["a", "b"].map(|name| format!("{{\"name\":\"{name}\",\"password_hash\":\"{NEW}\"}}\n")).concat();
    let imported = ImportFile::read(text.as_bytes()).unwrap().add_to(&Raced(&directory));
    let Err(ImportError::Lines(faults)) = imported else { panic!("imported") };
    assert_eq!((faults.len(), faults[0].line), (1, 2));
    assert_eq!(directory.registry.list().unwrap().len(), 1, "user a was not added either");
}

pub fn added_users_are_no_changes_and_each_change_is_read_once(subject: &impl Subject) {
    let (edge, command_line) = (subject.open(), subject.open());
    assert_eq!(import(&*command_line.registry, &many(2500)).unwrap(), 2500);
    command_line.registry.add(&bob(), &hash(OLD)).unwrap();
    assert_eq!(changes(&*edge.sign_on, 0), [], "nothing is to be read of an import");

    let bob = name("bob");
    type Change = fn(&dyn UserRegistry, &UserName);
    let all: [(&str, Change, bool); 8] = [
        ("disable", |it, bob| it.set_disabled(bob, true).unwrap(), true),
        ("enable", |it, bob| it.set_disabled(bob, false).unwrap(), false),
        ("end", |it, bob| it.end_sessions(bob).unwrap(), true),
        ("end in the same millisecond", |it, bob| it.end_sessions(bob).unwrap(), true),
        ("another password", |it, bob| it.set_password_hash(bob, &hash(NEW)).unwrap(), true),
        ("unlock", |it, bob| it.unlock(bob).unwrap(), false),
        ("grant", |it, bob| drop(it.grant(bob, &grants(&["third"], &[])).unwrap()), false),
        ("revoke", |it, bob| drop(it.revoke(bob, &grants(&[], &["admin"])).unwrap()), false),
    ];
    for (what, change, ends) in all {
        let before = last(&*edge.sign_on);
        change(&*command_line.registry, &bob);
        let after = changes(&*edge.sign_on, before);
        assert_eq!(after.len(), 1, "{what}: once, as it is now");
        assert_eq!(after[0].ended_by > before, ends, "{what}");
        assert_eq!(edge.sign_on.change_of(&bob).unwrap(), Some(after[0].change), "a login learns the number");
        assert_eq!(found(&edge, "bob").change, after[0].change);
        assert_eq!(changes(&*edge.sign_on, after[0].change), [], "{what}: and not again");
    }
    let before = last(&*edge.sign_on);
    let id = edge.registry.show(&bob).unwrap().id;
    assert!(edge.sign_on.replace_hash(&id, &hash(NEW), &hash(OLD)).unwrap());
    assert_eq!(changes(&*edge.sign_on, before), [], "a hash that is replaced at a login is no change");
}

pub fn a_session_that_began_before_its_end_is_older_than_the_state_says(subject: &impl Subject) {
    let directory = subject.open();
    let added = directory.registry.add(&bob(), &hash(OLD)).unwrap();
    directory.registry.end_sessions(&name("bob")).unwrap();
    let [state] = &changes(&*directory.sign_on, 0)[..] else { panic!("one change") };
    assert_eq!((&state.id, state.disabled), (&added.id, false));
    assert_eq!((&state.services, &state.roles), (&added.services, &added.roles));
    assert!(state.ended_before >= added.created && state.ended_by == state.change);
    assert_eq!(state.ended_formerly, UnixTime::default(), "a directory never sets it");
}

pub fn many_changes_are_read_one_page_at_a_time(subject: &impl Subject) {
    let directory = subject.open();
    import(&*directory.registry, &many(1500)).unwrap();
    for user in directory.registry.list().unwrap() {
        directory.registry.unlock(&user.name).unwrap();
    }
    let first = directory.sign_on.changed_since(0).unwrap();
    assert!(first.more && first.users.len() < 1500, "{}", first.users.len());
    assert_eq!(changes(&*directory.sign_on, 0).len(), 1500);
}

pub fn the_sessions_of_all_users_end_with_one_change_of_each(subject: &impl Subject) {
    let (edge, command_line) = (subject.open(), subject.open());
    assert!(command_line.registry.end_all_sessions().is_ok(), "there may be no user yet");
    import(&*command_line.registry, &many(1200)).unwrap();
    let bob = command_line.registry.add(&bob(), &hash(OLD)).unwrap();
    command_line.registry.set_disabled(&bob.name, true).unwrap();
    let before = last(&*edge.sign_on);
    let until = command_line.registry.end_all_sessions().unwrap();
    let changed = changes(&*edge.sign_on, before);
    assert_eq!(changed.len(), 1201);
    assert!(changed.iter().all(|state| state.ended_before == until && state.ended_by == state.change));
    let disabled: Vec<_> = changed.iter().filter(|state| state.disabled).map(|state| state.id.clone()).collect();
    assert_eq!(disabled, [bob.id], "and nothing else has changed");
    assert_eq!(changes(&*edge.sign_on, last(&*edge.sign_on)), [], "each is read once");
}

pub fn states_and_names_of_known_users_are_returned_and_others_left_out(subject: &impl Subject) {
    let directory = subject.open();
    let bob = directory.registry.add(&bob(), &hash(OLD)).unwrap();
    let eve = directory.registry.add(&NewUser { name: name("eve"), ..self::bob() }, &hash(OLD)).unwrap();
    directory.registry.set_disabled(&eve.name, true).unwrap();

    let ids = ["no such id", eve.id.as_str()];
    let [(known, state)] = &directory.registry.known(&ids).unwrap()[..] else { panic!("one user") };
    assert_eq!((known, &state.id, state.disabled), (&eve.name, &eve.id, true));
    let standing = directory.sign_on.standing(&ids).unwrap();
    assert!(
        standing.is_empty() || standing == std::slice::from_ref(state),
        "a directory that cannot tell returns none"
    );
    if let Some(all) = directory.sign_on.ids().unwrap() {
        assert_eq!(all, [bob.id.as_str().into(), eve.id.as_str().into()].into());
    }
}
