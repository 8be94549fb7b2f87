//! TLS session tickets (RFC 5077, RFC 8446 §4.6.1): sealed under keys that all edges with the same secret derive alike.
//!
//! No state is kept: a ticket names the period that it was made in, and the key is derived from the secret and that
//! period. So a browser resumes on any worker, on any edge, and after a restart. Without a secret in the configuration
//! one is made at random when the process starts, and tickets are good within that process.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;

use crate::clock::Clock;
use crate::config::{self, Faults, Secret};

/// As much as goes into the key of a period.
const SECRET_BYTES: usize = 32;

/// The period stands before the nonce, in seconds over the length of a period.
const PERIOD_LEN: usize = 8;

/// Longer than any ticket of ours: a session is a few hundred bytes without client certificates.
const MAX_TICKET_BYTES: usize = 4096;

/// Seals and opens tickets for all listeners.
pub struct Tickets {
    secrets: ArcSwap<Secrets>,
    rotation: Duration,
    clock: Clock,
}

#[derive(Clone)]
struct Secrets {
    /// Under which tickets are made.
    present: Arc<Root>,
    /// The one before it; tickets that were made then are still taken.
    former: Option<Former>,
}

#[derive(Clone)]
struct Former {
    root: Arc<Root>,
    /// The last period in which an edge may have made tickets under it: one that names a later one is no edge's, but of
    /// the client because of which the secret was changed.
    last_period: u64,
}

/// A secret, in the form that keys are derived from.
pub struct Root {
    prk: Prk,
    /// Whether it came from the configuration.
    configured: bool,
    /// Tells two secrets apart without keeping them.
    digest: ring::digest::Digest,
}

impl Root {
    /// Reads the configuration's secret, or makes one. `None` when a fault was added.
    pub fn load(tickets: &config::Tickets, faults: &mut Faults) -> Option<Self> {
        let key = "tls.tickets.secret";
        let Some(source) = &tickets.secret else {
            let mut bytes = [0; SECRET_BYTES];
            if SystemRandom::new().fill(&mut bytes).is_err() {
                faults.add(key, "the system gives no randomness to make one of", "write one");
                return None;
            }
            return Some(Self::new(&Secret::new(bytes.to_vec()), false));
        };
        match source.read() {
            Ok(secret) if secret.bytes().len() < SECRET_BYTES => {
                let what = format!("{} bytes are too few", secret.bytes().len());
                faults.add(key, what, "use 32 or more, such as `sentry-edge key generate --algorithm HS256` makes");
                None
            }
            Ok(secret) => Some(Self::new(&secret, true)),
            Err(what) => {
                faults.add(key, what, "name a secret of 32 bytes or more");
                None
            }
        }
    }

    fn new(secret: &Secret, configured: bool) -> Self {
        Self {
            prk: Salt::new(HKDF_SHA256, b"sentry-edge TLS tickets").extract(secret.bytes()),
            configured,
            digest: ring::digest::digest(&ring::digest::SHA256, secret.bytes()),
        }
    }

    /// The key of a period. `None` means a defect of ours: the length is the algorithm's own.
    fn key(&self, period: [u8; PERIOD_LEN]) -> Option<LessSafeKey> {
        let info = [&b"key of period "[..], &period[..]];
        self.prk.expand(&info, &AES_256_GCM).ok().map(UnboundKey::from).map(LessSafeKey::new)
    }

    fn seal(&self, period: [u8; PERIOD_LEN], session: &[u8]) -> Option<Vec<u8>> {
        // Random, for edges share the key and no counter: far below 2^32 tickets in a period.
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(PERIOD_LEN + NONCE_LEN + session.len() + MAX_TAG_LEN);
        ticket.extend_from_slice(&period);
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(session);
        let (_, sealed) = ticket.split_at_mut(PERIOD_LEN + NONCE_LEN);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.key(period)?.seal_in_place_separate_tag(nonce, Aad::from(period), sealed).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn open(&self, period: [u8; PERIOD_LEN], nonce: [u8; NONCE_LEN], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut session = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let length = self.key(period)?.open_in_place(nonce, Aad::from(period), &mut session).ok()?.len();
        session.truncate(length);
        Some(session)
    }
}

impl Tickets {
    pub fn new(root: Root, rotation: Duration, clock: Clock) -> Self {
        let secrets = Secrets { present: Arc::new(root), former: None };
        Self { secrets: ArcSwap::from_pointee(secrets), rotation, clock }
    }

    /// Takes up the secret of a new configuration; one that was made at random stays where there is still none.
    pub fn renew(&self, root: Root) {
        let present = Arc::clone(&self.secrets.load().present);
        let the_same = present.digest.as_ref() == root.digest.as_ref();
        if !the_same && (present.configured || root.configured) {
            // Other edges take the new one up a little later.
            let former = Former { root: present, last_period: self.period() + 1 };
            self.secrets.store(Arc::new(Secrets { present: Arc::new(root), former: Some(former) }));
        }
    }

    fn period(&self) -> u64 {
        self.clock.now().seconds() / self.rotation.as_secs().max(1)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    /// A ticket is good to the end of the period after its own, so for one period at least.
    fn lifetime(&self) -> u32 {
        u32::try_from(self.rotation.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.secrets.load().present.seal(self.period().to_be_bytes(), session)
    }

    /// Opens tickets of this period and the one before it; and of the next, for edges whose clocks are ahead.
    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > MAX_TICKET_BYTES {
            return None;
        }
        let (period, rest) = ticket.split_first_chunk::<PERIOD_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        if u64::from_be_bytes(*period).abs_diff(self.period()) > 1 {
            return None;
        }
        let secrets = self.secrets.load();
        let in_time = |former: &&Former| u64::from_be_bytes(*period) <= former.last_period;
        let former = || secrets.former.as_ref().filter(in_time)?.root.open(*period, *nonce, sealed);
        secrets.present.open(*period, *nonce, sealed).or_else(former)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn root(secret: &str) -> Root {
        Root::new(&Secret::new(secret.as_bytes().to_vec()), true)
    }

    fn tickets(secret: &str, clock: &Clock) -> Tickets {
        Tickets::new(root(secret), HOUR, clock.clone())
    }

    #[test]
    fn a_ticket_opens_wherever_the_secret_is_the_same_and_nowhere_else() {
        let clock = Clock::default();
        let (here, there) = (tickets("one", &clock), tickets("one", &clock));
        let ticket = here.encrypt(b"session").unwrap();
        assert_eq!(there.decrypt(&ticket).unwrap(), b"session");
        assert!(tickets("other", &clock).decrypt(&ticket).is_none());
        assert_ne!(here.encrypt(b"session").unwrap(), ticket, "two tickets do not look alike");
    }

    #[test]
    fn a_ticket_is_good_for_one_period_at_least_and_for_two_at_most() {
        let clock = Clock::default();
        let tickets = tickets("one", &clock);
        let ticket = tickets.encrypt(b"session").unwrap();
        clock.advance(HOUR);
        assert!(tickets.decrypt(&ticket).is_some());
        clock.advance(HOUR);
        assert!(tickets.decrypt(&ticket).is_none());
    }

    #[test]
    fn an_edge_whose_clock_is_behind_takes_a_ticket_of_the_next_period() {
        let (behind, ahead) = (Clock::default(), Clock::default());
        ahead.advance(HOUR);
        let ticket = tickets("one", &ahead).encrypt(b"session").unwrap();
        assert!(tickets("one", &behind).decrypt(&ticket).is_some());
    }

    #[test]
    fn a_ticket_that_was_changed_or_cut_opens_nothing() {
        let tickets = tickets("one", &Clock::default());
        let ticket = tickets.encrypt(b"session").unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert!(tickets.decrypt(&changed).is_none(), "byte {at}");
            assert!(tickets.decrypt(&ticket[..at]).is_none(), "{at} bytes");
        }
        assert!(tickets.decrypt(&[&ticket[..], &[0; MAX_TICKET_BYTES]].concat()).is_none());
    }

    #[test]
    fn a_new_secret_leaves_the_tickets_of_the_one_before_it_good() {
        let clock = Clock::default();
        let tickets = tickets("one", &clock);
        let old = tickets.encrypt(b"old").unwrap();
        tickets.renew(root("two"));
        tickets.renew(root("two"));
        assert_eq!(tickets.decrypt(&old).unwrap(), b"old");
        let new = tickets.encrypt(b"new").unwrap();
        assert!(super::tests::tickets("one", &clock).decrypt(&new).is_none());
        tickets.renew(root("three"));
        assert!(tickets.decrypt(&old).is_none());
    }

    /// A client that has got hold of a secret, which was changed for that reason, makes tickets of any period.
    #[test]
    fn a_secret_that_was_replaced_opens_nothing_two_periods_later() {
        let clock = Clock::default();
        let tickets = tickets("one", &clock);
        tickets.renew(root("two"));
        clock.advance(HOUR);
        let thief = super::tests::tickets("one", &clock);
        assert!(tickets.decrypt(&thief.encrypt(b"of an edge that reloads late").unwrap()).is_some());
        for _ in 0..3 {
            clock.advance(HOUR);
            assert!(tickets.decrypt(&thief.encrypt(b"forged").unwrap()).is_none());
        }
        assert!(tickets.decrypt(&tickets.encrypt(b"of today").unwrap()).is_some());
    }

    #[test]
    fn a_secret_made_at_random_outlives_reloads() {
        let mut faults = Faults::new(std::path::Path::new("edge.yaml"), "");
        let none = config::Tickets { secret: None, rotation: HOUR };
        let mut random = || Root::load(&none, &mut faults).unwrap();
        let (first, second) = (random(), random());
        let tickets = Tickets::new(first, HOUR, Clock::default());
        let ticket = tickets.encrypt(b"session").unwrap();
        tickets.renew(second);
        tickets.renew(random());
        assert!(tickets.decrypt(&ticket).is_some());
    }
}
