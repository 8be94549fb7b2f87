//! Limits the audit lines of clients that are not signed in: a number for each address and a number in all, in a
//! minute.
//!
//! A client that sends such requests by the thousand would otherwise fill the disk, or hide the lines that matter.
//! Called by `audit_log` alone.

use std::collections::HashMap;

use crate::client_prefix::ClientPrefix;
use crate::clock::UnixTime;

/// Lines in a minute: more than the mishaps of a hospital behind one address.
pub const MAX_PER_CLIENT: u32 = 60;
pub const MAX_TOTAL: u32 = 600;

const MINUTE_SECONDS: u64 = 60;

/// The lines of the current minute. Holds [`MAX_TOTAL`] clients at most.
#[derive(Debug, Default)]
pub struct AnonymousRate {
    minute: u64,
    in_all: u32,
    of_client: HashMap<ClientPrefix, u32>,
    suppressed: bool,
}

/// Whether an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateDecision {
    Write,
    /// It is counted and not written. The first one in a minute is reported.
    Suppress {
        first: bool,
    },
}

impl AnonymousRate {
    pub fn take(&mut self, client: ClientPrefix, now: UnixTime) -> RateDecision {
        let minute = now.seconds() / MINUTE_SECONDS;
        if minute != self.minute {
            *self = Self { minute, ..Self::default() };
        }
        let written = self.of_client.get(&client).copied().unwrap_or_default();
        if self.in_all >= MAX_TOTAL || written >= MAX_PER_CLIENT {
            return RateDecision::Suppress { first: !std::mem::replace(&mut self.suppressed, true) };
        }
        self.in_all += 1;
        self.of_client.insert(client, written + 1);
        RateDecision::Write
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixTime = UnixTime::from_seconds(1_200_000_000);

    fn client(number: u32) -> ClientPrefix {
        ClientPrefix::of(std::net::Ipv4Addr::from(number).into())
    }

    #[test]
    fn a_client_has_a_share_that_is_full_again_after_a_minute() {
        let mut rate = AnonymousRate::default();
        assert!((0..MAX_PER_CLIENT).all(|_| rate.take(client(1), START) == RateDecision::Write));
        assert_eq!(rate.take(client(1), START), RateDecision::Suppress { first: true });
        assert_eq!(rate.take(client(1), START), RateDecision::Suppress { first: false }, "reported once");
        assert_eq!(rate.take(client(2), START), RateDecision::Write, "another's share is its own");
        let later = UnixTime::from_seconds(START.seconds() + MINUTE_SECONDS);
        assert_eq!(rate.take(client(1), later), RateDecision::Write);
        assert_eq!(rate.take(client(1), START), RateDecision::Write, "a clock that was set back");
    }

    #[test]
    fn all_together_have_one_too_and_what_is_remembered_is_bounded() {
        let mut rate = AnonymousRate::default();
        let written = (0..100_000).filter(|number| rate.take(client(*number), START) == RateDecision::Write).count();
        assert_eq!(written, MAX_TOTAL as usize);
        assert!(rate.of_client.len() <= MAX_TOTAL as usize);
    }
}
