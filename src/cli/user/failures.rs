//! The failed logins that `user show` prints: those of devices that are new to the account. They are read from the session
//! store that the edges share; no other process can read those that an edge counts in its own memory.

use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::Clock;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::sentry::account_counter;
use crate::server::session_store;
use crate::sessions::Count;
use crate::users::User;

/// The failed logins that count against an account, and their limit.
pub struct Failures {
    count: Count,
    limit: u64,
}

impl Failures {
    /// Reads the failures of a user. `None` if no store is shared or it does not answer: the rest is shown in any case.
    pub fn of(user: &User, config: &Config) -> Option<Self> {
        if !config.sessions.is_shared() {
            return None;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let store = session_store(&config.sessions, &Clock::default(), &Metrics::new("user-show").ok()?).ok()?;
        let counter = account_counter(&user.name, user.change);
        let count = runtime.block_on(async { store.sessions.counter_get(&counter).await }).ok()?;
        Some(Self { count, limit: config.sentry.login.failures_per_account.count })
    }

    fn is_locked(&self) -> bool {
        self.count.count >= self.limit
    }

    pub fn as_json(&self) -> Value {
        json!({
            "count": self.count.count,
            "limit": self.limit,
            "locked": self.is_locked(),
            "forgotten_in_s": self.count.left.as_secs(),
        })
    }

    pub fn in_words(&self) -> String {
        let left = humantime::format_duration(Duration::from_secs(self.count.left.as_secs()));
        let Self { count: Count { count, .. }, limit } = self;
        match self.is_locked() {
            true => format!("{count} of {limit}: locked for devices that are new to the account, for {left}"),
            false if *count == 0 => "none".into(),
            false => format!("{count} of {limit}, forgotten in {left}"),
        }
    }
}
