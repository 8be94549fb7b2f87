//! Limits of streams for one session, one user and one client, so that none of them fills the table and other users are
//! refused.

use std::sync::Arc;

use crate::client_prefix::ClientPrefix;
use crate::quota::{Permit, Quota};
use crate::sessions::SessionKey;

/// Maximum for one session: more than a browser with many tabs ever has, each with an event stream or two.
const OF_SESSION: usize = 200;
/// Maximum for one user, who may be signed in with many browsers: an account that a whole ward shares.
const OF_USER: usize = 2000;
/// Maximum for one client prefix on public routes: a hospital behind one address.
const OF_CLIENT: usize = 10_000;

/// The owner of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    Session(SessionKey),
    /// The client of a public route.
    Client(ClientPrefix),
}

/// Counts the streams of each.
#[derive(Default)]
pub struct Shares(Arc<Quota<ShareKey>>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ShareKey {
    Holder(Holder),
    User(Box<str>),
}

/// What one stream uses of the limit of its holder and, if that is a session, of its user.
pub struct Share {
    _of_holder: Permit<ShareKey>,
    _of_user: Option<Permit<ShareKey>>,
}

impl Shares {
    /// Takes a place for one more stream in a table of `most` places. Returns `None` if the holder, or the user, is at
    /// its limit. In a small table a session has at most a quarter, and a user or a client at most a half.
    pub fn take(&self, holder: &Holder, user: Option<&str>, most: usize) -> Option<Share> {
        let enter = |owner: ShareKey| {
            let share = share(&owner, most);
            self.0.acquire(owner, share)
        };
        let of_holder = enter(ShareKey::Holder(holder.clone()))?;
        let of_user = match user {
            Some(user) => Some(enter(ShareKey::User(user.into()))?),
            None => None,
        };
        Some(Share { _of_holder: of_holder, _of_user: of_user })
    }
}

fn share(owner: &ShareKey, most: usize) -> usize {
    let (share, part) = match owner {
        ShareKey::Holder(Holder::Session(_)) => (OF_SESSION, most / 4),
        ShareKey::User(_) => (OF_USER, most / 2),
        ShareKey::Holder(Holder::Client(_)) => (OF_CLIENT, most / 2),
    };
    share.min(part).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> Holder {
        Holder::Client(ClientPrefix::of(address.parse().unwrap()))
    }

    #[test]
    fn a_client_has_a_share_and_others_have_theirs() {
        let shares = Shares::default();
        let mut taken: Vec<_> = (0..50).map(|_| shares.take(&client("2001:db8::1"), None, 100).unwrap()).collect();
        assert!(shares.take(&client("2001:db8::2"), None, 100).is_none(), "one /64");
        assert!(shares.take(&client("2001:db8:0:1::1"), None, 100).is_some());
        taken.pop();
        assert!(shares.take(&client("2001:db8::2"), None, 100).is_some(), "a place is free again");
    }

    #[test]
    fn a_share_is_never_the_whole_of_a_table_that_has_room_for_two() {
        let network = ClientPrefix::of("192.0.2.1".parse().unwrap());
        for most in [2, 3, 4, 10, 100, 1000, 100_000, 10_000_000] {
            for owner in [ShareKey::User("u1".into()), ShareKey::Holder(Holder::Client(network))] {
                assert!((1..most).contains(&share(&owner, most)), "{owner:?} of {most}");
            }
        }
    }
}
