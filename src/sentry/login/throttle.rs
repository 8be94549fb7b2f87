//! Limits of login attempts: failures are counted, not attempts.
//!
//! A device that has signed in to the account before has its own count for that account; all others share the count of
//! the account, so that a stranger who guesses passwords locks out strangers alone. A count belongs to the account as
//! it is in the directory: its key has the number of the user's last change, so that a new password, `user enable` and
//! `user unlock` open the account on every edge, whichever store has the count, without a message to any of them.
//!
//! The address of a login decides how long it waits, and never whether it is tried.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::client_prefix::ClientPrefix;
use crate::config::Rate;
use crate::request::Head;
use crate::sentry::{DeviceId, Sentry};
use crate::sessions::{CounterKey, SessionStore, StoreError};
use crate::users::login::{Authentication, LoginError, LoginPermit, QueueKey};
use crate::users::{Password, UserName};

/// Delay of the next login for each failure of its address above the limit, and its maximum.
const DELAY_PER_FAILURE: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(2);

/// The account of a login attempt, and the device and client prefix that it comes from.
#[derive(Clone)]
pub(super) struct LoginSubject {
    pub name: UserName,
    /// The device, if it has signed in to this account before.
    pub known_device: Option<DeviceId>,
    pub network: ClientPrefix,
}

/// A login that may run now.
pub(super) struct ThrottledLogin {
    pub permit: LoginPermit,
    pub subject: LoginSubject,
    pub password: Password,
    pub store: Arc<dyn SessionStore>,
    pub per_account: Rate,
    pub per_address: Rate,
}

/// The result of a login attempt.
pub(super) enum Outcome {
    Checked(Authentication),
    /// The password was not checked. `left` is the time until the next one will be.
    Limited {
        is_user: bool,
        left: Duration,
    },
    StoreUnavailable(StoreError),
}

impl LoginSubject {
    pub fn queue_key(&self) -> QueueKey {
        let mut subject = self.name.as_str().to_owned();
        if let Some(device) = &self.known_device {
            // No name has a control character.
            subject.push('\0');
            URL_SAFE_NO_PAD.encode_string(device.as_bytes(), &mut subject);
        }
        QueueKey { subject: subject.into(), known_device: self.known_device.is_some(), network: self.network }
    }

    /// Returns the counter of this account's failures, or of the device's alone if it is known. `change` is the number
    /// of the user's last change; it is 0 for an unknown user and for a user who was never changed.
    pub fn counter(&self, change: u64) -> CounterKey {
        let Some(device) = &self.known_device else { return account_counter(&self.name, change) };
        let mut subject = account(&self.name, change);
        subject.push('\0');
        URL_SAFE_NO_PAD.encode_string(device.as_bytes(), &mut subject);
        CounterKey::new("device", &subject)
    }

    pub fn address_counter(&self) -> CounterKey {
        CounterKey::new("address", &self.network.to_string())
    }

    /// Returns the label of the limit that applies.
    pub fn limit(&self) -> &'static str {
        if self.known_device.is_some() { "failures_per_device" } else { "failures_per_account" }
    }
}

/// Returns the counter that all devices share which are new to the account.
pub fn account_counter(name: &UserName, change: u64) -> CounterKey {
    CounterKey::new("account", &account(name, change))
}

/// Returns the subject of a counter: an account since the user's last change.
fn account(name: &UserName, change: u64) -> String {
    match change {
        0 => name.as_str().to_owned(),
        // No name has a control character.
        change => format!("{name}\0{change}"),
    }
}

impl ThrottledLogin {
    /// Runs to its end, whether or not its client still waits. The failure that was counted in advance is taken back
    /// unless the password was wrong.
    pub async fn run(self) -> Outcome {
        let Self { permit, subject, password, store, per_account, per_address } = self;
        let change = match permit.change_of(&subject.name).await {
            Ok(change) => change,
            Err(cause) => return Outcome::Checked(Authentication::Unavailable { cause }),
        };
        let key = subject.counter(change.unwrap_or_default());
        // Counted before the password is checked: other edges may try this account at the same moment.
        let counted = match store.counter_incr(&key, per_account.per).await {
            Ok(counted) => counted,
            Err(error) => return Outcome::StoreUnavailable(error),
        };
        if counted.count > per_account.count {
            store.counter_decr(&key, &counted).await.ok();
            return Outcome::Limited { is_user: change.is_some(), left: counted.left };
        }
        let login = permit.authenticate(subject.name.clone(), password).await;
        // If the store fails now, one count too many is left, which expires.
        match &login {
            Authentication::Accepted(_) => store.counter_reset(&key).await.ok(),
            Authentication::Refused(_) if subject.known_device.is_none() => {
                store.counter_incr(&subject.address_counter(), per_address.per).await.map(drop).ok()
            }
            Authentication::Refused(_) => None,
            // No password was checked.
            Authentication::Busy | Authentication::Unavailable { .. } => store.counter_decr(&key, &counted).await.ok(),
        };
        Outcome::Checked(login)
    }
}

impl Sentry {
    pub(super) fn subject(&self, head: &Head<'_>, name: UserName) -> LoginSubject {
        let device = self.device(head).filter(|device| device.knows(&name));
        LoginSubject { name, known_device: device.map(|device| device.id()), network: ClientPrefix::of(head.client) }
    }

    /// Returns how long a login has to wait because of the failures of its address. A known device of the account never
    /// waits, however many share its address.
    async fn delay(&self, subject: &LoginSubject) -> Result<Duration, StoreError> {
        if subject.known_device.is_some() {
            return Ok(Duration::ZERO);
        }
        let failures = self.store.counter_get(&subject.address_counter()).await?.count;
        let limit = self.settings.login.failures_per_address.count;
        if failures < limit {
            return Ok(Duration::ZERO);
        }
        self.metrics.limit_reached("failures_per_address");
        let beyond = u32::try_from(failures - limit + 1).unwrap_or(u32::MAX);
        Ok(DELAY_PER_FAILURE.saturating_mul(beyond).min(MAX_DELAY))
    }

    /// Waits for the login's permit, counts it and has its password checked.
    pub(super) async fn check_password(&self, subject: &LoginSubject, password: Password) -> Outcome {
        let delay = match self.delay(subject).await {
            Ok(delay) => delay,
            Err(error) => return Outcome::StoreUnavailable(error),
        };
        let Some(permit) = self.logins.acquire(subject.queue_key(), delay).await else {
            return Outcome::Checked(Authentication::Busy);
        };
        let (per_account, per_address) =
            (self.settings.login.failures_per_account, self.settings.login.failures_per_address);
        let (subject, store) = (subject.clone(), Arc::clone(&self.store));
        // This is a task of its own: a client that disconnects must not leave a count for a password that was never
        // checked.
        let check_password =
            tokio::spawn(ThrottledLogin { permit, subject, password, store, per_account, per_address }.run());
        let panicked = |_| Outcome::Checked(Authentication::Unavailable { cause: LoginError::Panicked });
        check_password.await.unwrap_or_else(panicked)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::clock::{Clock, UnixTime};
    use crate::sessions::memory::MemoryStore;
    use crate::users::login::{LoginLimits, LoginPool};
    use crate::users::{ChangesPage, DirectoryError, StoredHash, User, UserDirectory, UserId};

    const RIGHT: &str = "hunter2 päss";
    const CHEAP: &str = "pbkdf2_sha256$1000$seasalt2$XgorALNvukv0EvNvIdAcBJwO8QUoJFAMVs0bpNtXMZU=";

    /// `ada`, `gone`, who is disabled, and names at which it fails in the midst of a login.
    struct Directory;

    impl UserDirectory for Directory {
        fn find(&self, name: &UserName) -> Result<Option<(User, StoredHash)>, DirectoryError> {
            let user = User {
                id: UserId::from(format!("id of {name}")),
                name: name.clone(),
                email: None,
                disabled: name.as_str() == "gone",
                services: vec![],
                roles: vec![],
                created: UnixTime::default(),
                change: 7,
            };
            match name.as_str() {
                "ada" | "gone" => Ok(Some((user, StoredHash::parse(CHEAP).unwrap()))),
                "broken" => Err(DirectoryError::unavailable("the disk is gone")),
                "panic" => panic!("the directory panics, as the test wants it"),
                _ => Ok(None),
            }
        }

        fn change_of(&self, name: &UserName) -> Result<Option<u64>, DirectoryError> {
            match name.as_str() {
                "missing" => Err(DirectoryError::unavailable("the disk is gone")),
                "ghost" => Ok(None),
                _ => Ok(Some(7)),
            }
        }

        fn replace_hash(&self, _: &UserId, _: &StoredHash, _: &StoredHash) -> Result<bool, DirectoryError> {
            Ok(false)
        }

        fn changed_since(&self, _: u64) -> Result<ChangesPage, DirectoryError> {
            Ok(ChangesPage::default())
        }
    }

    struct Scene {
        logins: LoginPool,
        store: Arc<MemoryStore>,
    }

    impl Scene {
        fn new(deadline: Duration) -> Self {
            let limits = LoginLimits { workers: 1, queue: 10, deadline };
            let logins = LoginPool::start(Arc::new(Directory), limits).unwrap();
            Self { logins, store: Arc::new(MemoryStore::new(Clock::default(), 1000)) }
        }

        async fn check_password(&self, subject: &LoginSubject, password: &str) -> Outcome {
            let rate = |count| Rate { count, per: Duration::from_secs(900) };
            let permit = self.logins.acquire(subject.queue_key(), Duration::ZERO).await.unwrap();
            let (subject, store) = (subject.clone(), self.store.clone());
            let password = Password::new(password.to_owned()).unwrap();
            ThrottledLogin { permit, subject, password, store, per_account: rate(3), per_address: rate(3) }.run().await
        }

        /// Of the account or device, and of the address.
        async fn counts(&self, subject: &LoginSubject, change: u64) -> (u64, u64) {
            let count = async |key| self.store.counter_get(&key).await.unwrap().count;
            (count(subject.counter(change)).await, count(subject.address_counter()).await)
        }
    }

    fn subject(user: &str) -> LoginSubject {
        let network = ClientPrefix::of(IpAddr::from([192, 0, 2, 1]));
        LoginSubject { name: UserName::parse(user).unwrap(), known_device: None, network }
    }

    #[tokio::test]
    async fn a_wrong_password_counts_and_what_was_not_tried_is_given_back() {
        for (user, password, change, counts) in [
            ("ada", RIGHT, 7, (0, 0)),
            ("ada", "wrong", 7, (1, 1)),
            ("gone", RIGHT, 7, (1, 1)),
            ("ghost", "wrong", 0, (1, 1)),
            ("broken", "wrong", 7, (0, 0)),
            ("panic", "wrong", 7, (0, 0)),
            ("missing", "wrong", 7, (0, 0)),
        ] {
            let scene = Scene::new(Duration::from_secs(600));
            let subject = subject(user);
            let _ = scene.check_password(&subject, password).await;
            assert_eq!(scene.counts(&subject, change).await, counts, "{user}, {password}");
        }
    }

    #[tokio::test]
    async fn a_login_whose_deadline_passes_counts_nothing() {
        let scene = Scene::new(Duration::ZERO);
        let outcome = scene.check_password(&subject("ada"), "wrong").await;
        assert!(matches!(outcome, Outcome::Checked(Authentication::Busy | Authentication::Unavailable { .. })));
        assert_eq!(scene.counts(&subject("ada"), 7).await, (0, 0));
    }

    #[tokio::test]
    async fn what_is_refused_is_given_back_and_a_right_password_forgets_the_rest() {
        let scene = Scene::new(Duration::from_secs(600));
        let ada = subject("ada");
        for _ in 0..2 {
            assert!(matches!(scene.check_password(&ada, "wrong").await, Outcome::Checked(Authentication::Refused(_))));
        }
        assert!(matches!(scene.check_password(&ada, RIGHT).await, Outcome::Checked(Authentication::Accepted(_))));
        assert_eq!(scene.counts(&ada, 7).await, (0, 2));
        for _ in 0..3 {
            assert!(matches!(scene.check_password(&ada, "wrong").await, Outcome::Checked(Authentication::Refused(_))));
        }
        for _ in 0..4 {
            let outcome = scene.check_password(&ada, RIGHT).await;
            assert!(matches!(outcome, Outcome::Limited { is_user: true, left } if !left.is_zero()));
            assert_eq!(scene.counts(&ada, 7).await, (3, 5), "neither the account's nor the address's grows");
        }
    }

    #[test]
    fn accounts_devices_and_changes_have_counters_of_their_own() {
        let names = ["ada", "ada7", "ad", "bob"];
        let counters: Vec<_> =
            names.iter().flat_map(|name| [0, 1, 7, 17].map(|change| subject(name).counter(change))).collect();
        for (at, one) in counters.iter().enumerate() {
            assert!(counters.iter().skip(at + 1).all(|other| one != other), "{at}");
        }
    }
}
