//! Look-ups count hashes: a worker computes one hash for every look-up that succeeds, right after it.

#![expect(clippy::disallowed_methods, reason = "these channels carry a handful of values")]

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::task::{Context, Poll, Waker};

use super::*;
use crate::client_prefix::ClientPrefix;
use crate::clock::UnixTime;
use crate::users::{ChangesPage, User};

const OUTDATED: &str = "pbkdf2_sha256$1000$seasalt2$XgorALNvukv0EvNvIdAcBJwO8QUoJFAMVs0bpNtXMZU=";
const RIGHT: &str = "hunter2 päss";
const FOREVER: Duration = Duration::from_secs(600);

/// Users `bob` and `gone` (disabled); looking up `panic` and `broken` does as they are called.
struct TestDirectory {
    users: Mutex<HashMap<UserName, (User, StoredHash)>>,
    look_ups: AtomicUsize,
    threads: Mutex<HashSet<String>>,
    gate: Option<Gate>,
    /// The gate holds up the first look-up alone.
    only_first: bool,
    replaced: mpsc::Sender<()>,
    read_only: bool,
}

/// Look-ups report that they have begun, and wait to be let through until the other end is dropped.
struct Gate {
    begun: mpsc::Sender<()>,
    open: Mutex<mpsc::Receiver<()>>,
}

impl TestDirectory {
    fn new() -> (Self, mpsc::Receiver<()>) {
        let users = ["bob", "gone"].map(|user| {
            let user = User {
                id: UserId::from(format!("id of {user}")),
                name: name(user),
                email: None,
                disabled: user == "gone",
                services: vec![],
                roles: vec![],
                created: UnixTime::default(),
                change: 0,
            };
            (user.name.clone(), (user, StoredHash::parse(OUTDATED).unwrap()))
        });
        let (replaced, was_replaced) = mpsc::channel();
        let directory = Self {
            users: Mutex::new(users.into()),
            look_ups: AtomicUsize::new(0),
            threads: Mutex::default(),
            gate: None,
            only_first: false,
            replaced,
            read_only: false,
        };
        (directory, was_replaced)
    }

    /// With a gate: a receiver of beginnings, and what to drop to let everything through.
    fn gated() -> (Self, mpsc::Receiver<()>, mpsc::Sender<()>) {
        let (begun, has_begun) = mpsc::channel();
        let (opener, open) = mpsc::channel();
        let (mut directory, _) = Self::new();
        directory.gate = Some(Gate { begun, open: Mutex::new(open) });
        (directory, has_begun, opener)
    }

    fn look_ups(&self) -> usize {
        self.look_ups.load(Ordering::SeqCst)
    }
}

impl UserDirectory for TestDirectory {
    fn find(&self, name: &UserName) -> Result<Option<(User, StoredHash)>, DirectoryError> {
        let earlier = self.look_ups.fetch_add(1, Ordering::SeqCst);
        self.threads.lock().unwrap().insert(thread::current().name().unwrap().to_owned());
        if let Some(gate) = self.gate.as_ref().filter(|_| earlier == 0 || !self.only_first) {
            gate.begun.send(()).ok();
            let _ = gate.open.lock().unwrap().recv();
        }
        match name.as_str() {
            "panic" => panic!("the directory panics, as the test wants it"),
            "broken" => Err(DirectoryError::unavailable("the disk is gone")),
            _ => Ok(self.users.lock().unwrap().get(name).cloned()),
        }
    }

    fn changed_since(&self, _: u64) -> Result<ChangesPage, DirectoryError> {
        Ok(ChangesPage::default())
    }

    fn replace_hash(&self, id: &UserId, old: &StoredHash, new: &StoredHash) -> Result<bool, DirectoryError> {
        if self.read_only {
            return Err(DirectoryError::unavailable("read-only"));
        }
        let mut users = self.users.lock().unwrap();
        let entry = users.values_mut().find(|(user, _)| user.id == *id).unwrap();
        assert_eq!(entry.1.as_str(), old.as_str());
        entry.1 = new.clone();
        self.replaced.send(()).ok();
        Ok(true)
    }
}

fn name(text: &str) -> UserName {
    UserName::parse(text).unwrap()
}

fn password(text: &str) -> Password {
    Password::new(text.to_owned()).unwrap()
}

fn pool(directory: TestDirectory, workers: usize, queue: usize) -> (LoginPool, Arc<TestDirectory>) {
    let directory = Arc::new(directory);
    let limits = LoginLimits { workers, queue, deadline: FOREVER };
    let shared: Arc<dyn UserDirectory> = directory.clone();
    // Without a backup worker: some of the tests hold up the worker.
    (LoginPool::start_with(&shared, limits, FOREVER, FOREVER).unwrap(), directory)
}

/// Logs in as from a device of its own that the account knows, so that it waits only for the workers.
async fn log_in(pool: &LoginPool, user: &str, typed: &str) -> Authentication {
    static DEVICES: AtomicUsize = AtomicUsize::new(0);
    let subject = format!("{user} {}", DEVICES.fetch_add(1, Ordering::Relaxed)).into();
    let network = ClientPrefix::of(std::net::IpAddr::from([192, 0, 2, 1]));
    match pool.acquire(QueueKey { subject, known_device: true, network }, Duration::ZERO).await {
        Some(permit) => permit.authenticate(name(user), password(typed)).await,
        None => Authentication::Busy,
    }
}

/// Each thread holds the directory as long as it lives.
fn until_the_threads_have_ended(directory: &Arc<TestDirectory>) {
    while Arc::strong_count(directory) > 1 {
        thread::yield_now();
    }
}

fn poll_once<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn each_login_gets_its_result() {
    let (directory, _) = TestDirectory::new();
    let (pool, directory) = pool(directory, 2, 10);
    assert!(matches!(log_in(&pool, "bob", RIGHT).await, Authentication::Accepted(user) if user.name == name("bob")));
    for (user, typed, why) in [
        ("bob", "wrong", Refusal::WrongPassword),
        ("eve", RIGHT, Refusal::UnknownUser),
        ("gone", RIGHT, Refusal::Disabled),
        ("gone", "wrong", Refusal::WrongPassword),
    ] {
        let login = log_in(&pool, user, typed).await;
        assert!(matches!(login, Authentication::Refused(refusal) if refusal == why), "{user}, {typed}: {login:?}");
    }
    assert_eq!(directory.look_ups(), 5);
}

#[tokio::test]
async fn an_outdated_hash_is_rewritten_at_the_login_and_only_then() {
    let (directory, was_replaced) = TestDirectory::new();
    let (pool, directory) = pool(directory, 1, 10);
    // One worker: an answer says that it has done with the login before.
    for (user, typed) in [("bob", "wrong"), ("gone", RIGHT), ("eve", RIGHT)] {
        assert!(matches!(log_in(&pool, user, typed).await, Authentication::Refused(_)));
    }
    assert!(was_replaced.try_recv().is_err());

    assert!(matches!(log_in(&pool, "bob", RIGHT).await, Authentication::Accepted(_)));
    was_replaced.recv().unwrap();
    assert!(directory.users.lock().unwrap()[&name("bob")].1.is_current());

    assert!(matches!(log_in(&pool, "bob", RIGHT).await, Authentication::Accepted(_)));
    assert!(matches!(log_in(&pool, "bob", "wrong").await, Authentication::Refused(Refusal::WrongPassword)));
    assert!(was_replaced.try_recv().is_err(), "a current hash stays");
}

#[tokio::test]
async fn a_login_stands_though_its_hash_cannot_be_rewritten() {
    let (mut directory, _) = TestDirectory::new();
    directory.read_only = true;
    let (pool, _) = pool(directory, 1, 10);
    for _ in 0..2 {
        assert!(matches!(log_in(&pool, "bob", RIGHT).await, Authentication::Accepted(_)));
    }
}

#[tokio::test]
async fn a_directory_that_fails_makes_logins_unavailable_and_not_wrong() {
    let (pool, _) = pool(TestDirectory::new().0, 1, 10);
    let Authentication::Unavailable { cause } = log_in(&pool, "broken", RIGHT).await else { panic!("answered") };
    let directory = cause.source().unwrap();
    assert_eq!(directory.source().unwrap().to_string(), "the disk is gone");
}

#[tokio::test]
async fn a_worker_survives_a_panic() {
    let (pool, directory) = pool(TestDirectory::new().0, 1, 10);
    for _ in 0..3 {
        let login = log_in(&pool, "panic", RIGHT).await;
        assert!(matches!(login, Authentication::Unavailable { cause: LoginError::Panicked }), "{login:?}");
    }
    assert!(matches!(log_in(&pool, "bob", RIGHT).await, Authentication::Accepted(_)));
    assert_eq!(*directory.threads.lock().unwrap(), HashSet::from(["login-0".to_owned()]));
}

#[tokio::test]
async fn a_full_queue_answers_busy_at_once() {
    let (directory, has_begun, opener) = TestDirectory::gated();
    let (pool, directory) = pool(directory, 1, 2);
    let mut running = pin!(log_in(&pool, "bob", RIGHT));
    assert!(poll_once(running.as_mut()).is_pending());
    has_begun.recv().unwrap();
    assert_eq!(pool.queued(), 0);

    // Two have their permit and wait for the worker, and two wait for their permit.
    let mut waiting = [(); 4].map(|()| Box::pin(log_in(&pool, "bob", RIGHT)));
    for login in &mut waiting {
        assert!(poll_once(login.as_mut()).is_pending());
    }
    assert_eq!(pool.queued(), 4);
    assert!(matches!(poll_once(pin!(log_in(&pool, "bob", RIGHT))), Poll::Ready(Authentication::Busy)));
    assert_eq!((pool.queued(), directory.look_ups()), (4, 1));

    drop(opener);
    assert!(matches!(running.await, Authentication::Accepted(_)));
    for login in waiting {
        assert!(matches!(login.await, Authentication::Accepted(_)));
    }
    assert_eq!(pool.queued(), 0);
}

#[tokio::test]
async fn nothing_is_computed_for_a_client_that_has_gone() {
    let (directory, has_begun, opener) = TestDirectory::gated();
    let (pool, directory) = pool(directory, 1, 10);
    let mut running = Box::pin(log_in(&pool, "bob", RIGHT));
    assert!(poll_once(running.as_mut()).is_pending());
    has_begun.recv().unwrap();
    for _ in 0..5 {
        assert!(poll_once(pin!(log_in(&pool, "bob", RIGHT))).is_pending(), "and dropped");
    }
    drop(running); // Its hash has begun: the result is dropped, and does no harm.
    drop(opener);
    assert!(matches!(log_in(&pool, "bob", RIGHT).await, Authentication::Accepted(_)));
    assert_eq!(directory.look_ups(), 2);
}

#[tokio::test]
async fn a_client_that_has_gone_keeps_no_place_in_the_queue() {
    let (directory, has_begun, opener) = TestDirectory::gated();
    let (pool, _) = pool(directory, 1, 1);
    let mut running = pin!(log_in(&pool, "bob", RIGHT));
    assert!(poll_once(running.as_mut()).is_pending());
    has_begun.recv().unwrap();
    for _ in 0..5 {
        assert!(poll_once(pin!(log_in(&pool, "eve", RIGHT))).is_pending(), "and dropped");
    }
    let mut waiting = [(); 3].map(|()| Box::pin(log_in(&pool, "bob", RIGHT)));
    for login in &mut waiting {
        assert!(poll_once(login.as_mut()).is_pending());
    }
    drop(opener);
    for login in waiting {
        assert!(matches!(login.await, Authentication::Accepted(_)));
    }
}

#[tokio::test]
async fn a_login_whose_deadline_passes_in_the_queue_is_busy_and_computes_nothing() {
    let (directory, has_begun, opener) = TestDirectory::gated();
    let (mut pool, directory) = pool(directory, 1, 10);
    let mut running = Box::pin(log_in(&pool, "bob", RIGHT));
    assert!(poll_once(running.as_mut()).is_pending());
    has_begun.recv().unwrap();
    drop(running);
    pool.deadline = Duration::ZERO;
    assert!(matches!(log_in(&pool, "bob", RIGHT).await, Authentication::Busy));
    drop(opener);
    while pool.queued() > 0 {
        thread::yield_now();
    }
    drop(pool);
    until_the_threads_have_ended(&directory);
    assert_eq!(directory.look_ups(), 1);
}

#[tokio::test]
async fn of_200_logins_at_once_no_more_are_checked_together_than_there_are_workers() {
    // A worker checks one password at a time, so its threads are the permits.
    let (pool, directory) = pool(TestDirectory::new().0, 2, 200);
    let pool = Arc::new(pool);
    let logins: Vec<_> = (0..200)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { log_in(&pool, "bob", "wrong").await })
        })
        .collect();
    for login in logins {
        assert!(matches!(login.await.unwrap(), Authentication::Refused(Refusal::WrongPassword)));
    }
    assert_eq!(directory.look_ups(), 200);
    let permitted = HashSet::from(["login-0".to_owned(), "login-1".to_owned()]);
    assert!(directory.threads.lock().unwrap().is_subset(&permitted));
}

#[tokio::test]
async fn a_pool_always_has_a_worker_and_a_place() {
    let (pool, _) = pool(TestDirectory::new().0, 0, 0);
    assert!(matches!(log_in(&pool, "bob", RIGHT).await, Authentication::Accepted(_)));
}

#[tokio::test]
async fn dropping_the_pool_ends_its_threads() {
    let (pool, directory) = pool(TestDirectory::new().0, 4, 10);
    assert!(matches!(log_in(&pool, "bob", RIGHT).await, Authentication::Accepted(_)));
    drop(pool);
    until_the_threads_have_ended(&directory);
}

#[tokio::test]
async fn a_login_whose_worker_makes_no_progress_is_taken_over_and_so_are_those_behind_it() {
    let (mut directory, has_begun, opener) = TestDirectory::gated();
    directory.only_first = true;
    let directory = Arc::new(directory);
    let limits = LoginLimits { workers: 1, queue: 10, deadline: FOREVER };
    let shared: Arc<dyn UserDirectory> = directory.clone();
    let pool = LoginPool::start_with(&shared, limits, Duration::ZERO, FOREVER).unwrap();
    drop(shared);
    for _ in 0..2 {
        assert!(matches!(log_in(&pool, "bob", RIGHT).await, Authentication::Accepted(_)));
    }
    has_begun.recv().unwrap();
    let both = HashSet::from(["login-0".to_owned(), "backup-0".to_owned()]);
    assert_eq!(*directory.threads.lock().unwrap(), both);
    // The worker still has the first one, and continues when it can.
    drop(opener);
    assert!(matches!(log_in(&pool, "bob", "wrong").await, Authentication::Refused(Refusal::WrongPassword)));
    drop(pool);
    until_the_threads_have_ended(&directory);
}

#[tokio::test]
async fn a_login_that_has_waited_for_long_is_a_helpers_too() {
    let (mut directory, has_begun, opener) = TestDirectory::gated();
    directory.only_first = true;
    let directory = Arc::new(directory);
    let limits = LoginLimits { workers: 1, queue: 10, deadline: FOREVER };
    let shared: Arc<dyn UserDirectory> = directory.clone();
    let pool = LoginPool::start_with(&shared, limits, FOREVER, Duration::ZERO).unwrap();
    drop(shared);
    // Whichever of the two has the first one is held up.
    let mut held = Box::pin(log_in(&pool, "bob", RIGHT));
    assert!(poll_once(held.as_mut()).is_pending());
    has_begun.recv().unwrap();
    for _ in 0..3 {
        assert!(matches!(log_in(&pool, "bob", RIGHT).await, Authentication::Accepted(_)));
    }
    let both = HashSet::from(["login-0".to_owned(), "helper-0".to_owned()]);
    assert_eq!(*directory.threads.lock().unwrap(), both);
    drop(opener);
    assert!(matches!(held.await, Authentication::Accepted(_)));
    drop(pool);
    until_the_threads_have_ended(&directory);
}

/// Users with hashes of several kinds, some of them disabled, and one that does not exist: the same is computed for each
/// refusal. The hashes are counted and not their time, which no test can measure.
#[test]
fn every_refusal_computes_the_same_whatever_kind_of_hash_its_user_has() {
    let right = password(RIGHT);
    let hashes = [
        ("argon2", password::hash(&right).unwrap()),
        ("bcrypt", StoredHash::parse(&bcrypt::hash(RIGHT, 4).unwrap()).unwrap()),
        ("pbkdf2", StoredHash::parse(OUTDATED).unwrap()),
    ];
    let (directory, _) = TestDirectory::new();
    for (user, hash) in &hashes {
        for disabled in [false, true] {
            let known = name(&if disabled { format!("{user}-disabled") } else { (*user).to_owned() });
            let user = User {
                id: UserId::from(format!("id of {known}")),
                name: known.clone(),
                email: None,
                disabled,
                services: vec![],
                roles: vec![],
                created: UnixTime::default(),
                change: 0,
            };
            directory.users.lock().unwrap().insert(known, (user, hash.clone()));
        }
    }
    let kinds = KnownKinds::new(hashes.iter().map(|(_, hash)| hash.kind()));
    let dummies = |user: &str, typed: &str| {
        kinds.dummies.lock().unwrap().clear();
        let (login, _) = check(&directory, &kinds, &name(user), &password(typed)).unwrap();
        let own = hashes.iter().find(|(of, _)| user.starts_with(of)).map(|(_, hash)| hash.kind());
        let mut all: Vec<_> = kinds.dummies.lock().unwrap().iter().copied().chain(own).collect();
        all.sort();
        (matches!(login, Authentication::Refused(_)), all)
    };
    let (_, unknown) = dummies("eve", "wrong");
    assert_eq!(unknown.len(), 3, "{unknown:?}");
    for (user, _) in &hashes {
        assert_eq!(dummies(user, "wrong"), (true, unknown.clone()), "{user}");
        for typed in [RIGHT, "wrong"] {
            assert_eq!(
                dummies(&format!("{user}-disabled"), typed),
                (true, unknown.clone()),
                "{user}, disabled: {typed}"
            );
        }
    }
    let own = |user: &str| hashes.iter().find(|(of, _)| *of == user).unwrap().1.kind();
    assert_eq!(dummies("bcrypt", RIGHT), (false, vec![own("bcrypt")]), "a success costs its own");
}

/// An import while the edge runs.
#[test]
fn a_kind_that_is_met_for_the_first_time_is_computed_for_all_from_then_on() {
    let (directory, _) = TestDirectory::new();
    let kinds = KnownKinds::new([]);
    let dummies = |user: &str| {
        kinds.dummies.lock().unwrap().clear();
        let _ = check(&directory, &kinds, &name(user), &password("wrong")).unwrap();
        kinds.dummies.lock().unwrap().len()
    };
    assert_eq!([dummies("eve"), dummies("bob"), dummies("eve")], [1, 1, 2]);
}
