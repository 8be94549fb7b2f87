//! The cost of verifying a stored hash: its kind, and dummy work of the same cost.
//!
//! A directory may hold hashes of several kinds, whose verification takes from 2 ms to a second. A client that guesses names
//! would learn from the time of a refusal which kind a user has, and so which users exist. Therefore every refusal does the
//! work of all kinds that the directory holds: see [`KnownKinds`]. Called by the login workers.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};

use argon2::{Algorithm, Argon2, Params, Version};
use ring::pbkdf2;

use super::password::parameters::{HashError, MEMORY_KIB, OUTPUT_BYTES, PASSES, SALT_BYTES};
use super::password::plain::Password;

/// Microseconds of a worker that a refusal may take beyond the hash of its own user. Imported bcrypt hashes of cost 12 are
/// within it. Logins have few workers: with a more expensive kind a few guesses would delay all other logins.
const MOST_MICROS: u64 = 250_000;

/// The most kinds that are remembered; a directory that was imported has two or three.
const MOST_KINDS: usize = 16;

/// Hashes of one kind take the same time to verify, for every user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HashKind {
    Argon2 { algorithm: Algorithm, version: Version, memory_kib: u32, passes: u32, lanes: u32 },
    Bcrypt { cost: u32 },
    Pbkdf2 { digest: Digest, iterations: NonZeroU32, blocks: usize },
}

/// The hash function of PBKDF2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Digest {
    Sha256,
    Sha512,
}

impl Digest {
    pub const fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn prf(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }
}

impl HashKind {
    /// The kind of new hashes.
    pub const OURS: Self = Self::Argon2 {
        algorithm: Algorithm::Argon2id,
        version: Version::V0x13,
        memory_kib: MEMORY_KIB,
        passes: PASSES,
        lanes: 1,
    };

    /// Returns about what one costs on the machine that the bounds were measured on. Only the order and the sum matter.
    fn micros(self) -> u64 {
        match self {
            Self::Argon2 { memory_kib, passes, .. } => u64::from(memory_kib) * u64::from(passes) * 2 / 5,
            Self::Bcrypt { cost } => 48 << cost,
            Self::Pbkdf2 { digest: Digest::Sha256, iterations, blocks } => {
                u64::from(iterations.get()) * blocks as u64 * 177 / 1000
            }
            Self::Pbkdf2 { digest: Digest::Sha512, iterations, blocks } => {
                u64::from(iterations.get()) * blocks as u64 * 400 / 1000
            }
        }
    }

    /// Does the work of verifying a password against a hash of this kind, without a comparison.
    pub fn verify_dummy(self, password: &Password) -> Result<(), HashError> {
        match self {
            Self::Argon2 { algorithm, version, memory_kib, passes, lanes } => {
                let params = Params::new(memory_kib, passes, lanes, Some(OUTPUT_BYTES))?;
                let mut output = [0; OUTPUT_BYTES];
                let argon2 = Argon2::new(algorithm, version, params);
                argon2.hash_password_into(password.as_bytes(), &[0; SALT_BYTES], &mut output)?;
                std::hint::black_box(output);
            }
            Self::Bcrypt { cost } => {
                // Cuts a longer password as `bcrypt::verify` does.
                std::hint::black_box(bcrypt::hash_with_salt(password.as_bytes(), cost, [0; 16])?);
            }
            Self::Pbkdf2 { digest, iterations, blocks } => {
                let mut output = vec![0; digest.bytes() * blocks.max(1)];
                pbkdf2::derive(digest.prf(), iterations, &[0; SALT_BYTES], password.as_bytes(), &mut output);
                std::hint::black_box(output);
            }
        }
        Ok(())
    }
}

/// The kinds of hashes that the directory holds, as far as they were met.
#[derive(Debug)]
pub struct KnownKinds {
    known: Mutex<BTreeSet<HashKind>>,
    /// The dummy work of refusals.
    #[cfg(test)]
    pub dummies: Mutex<Vec<HashKind>>,
}

impl KnownKinds {
    /// [`HashKind::OURS`] is always among them: it is what an unknown user costs.
    pub fn new(found: impl IntoIterator<Item = HashKind>) -> Self {
        let kinds = Self {
            known: Mutex::new(BTreeSet::from([HashKind::OURS])),
            #[cfg(test)]
            dummies: Mutex::default(),
        };
        found.into_iter().for_each(|kind| kinds.learn(kind));
        kinds
    }

    /// Adds the kind of a user's hash, which may have been imported since the directory was read.
    pub fn learn(&self, kind: HashKind) {
        let mut kinds = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if kinds.len() < MOST_KINDS {
            kinds.insert(kind);
        }
    }

    /// Does the dummy work of a refusal, for which a hash of kind `own` was verified, or none.
    pub fn equalize(&self, own: Option<HashKind>, password: &Password) -> Result<(), HashError> {
        for kind in self.missing(own) {
            kind.verify_dummy(password)?;
            #[cfg(test)]
            self.dummies.lock().unwrap_or_else(PoisonError::into_inner).push(kind);
        }
        Ok(())
    }

    /// Returns the kinds whose work a refusal still has to do, so that all refusals do the same work. The most expensive
    /// kinds, which do not fit into [`MOST_MICROS`], are left out.
    pub fn missing(&self, own: Option<HashKind>) -> Vec<HashKind> {
        let mut kinds: Vec<HashKind> =
            self.known.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        kinds.sort_by_key(|kind| kind.micros());
        let mut micros = 0;
        kinds.retain(|kind| {
            let fits = micros + kind.micros() <= MOST_MICROS;
            micros += if fits { kind.micros() } else { 0 };
            fits || *kind == HashKind::OURS
        });
        kinds.retain(|kind| Some(*kind) != own);
        kinds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::users::StoredHash;

    fn pbkdf2(iterations: u32) -> HashKind {
        HashKind::Pbkdf2 { digest: Digest::Sha256, iterations: NonZeroU32::new(iterations).unwrap(), blocks: 1 }
    }

    /// Returns the work of a refusal, the verification of the user's own hash included.
    fn work(kinds: &KnownKinds, own: Option<HashKind>) -> Vec<HashKind> {
        let mut work: Vec<HashKind> = kinds.missing(own).into_iter().chain(own).collect();
        work.sort();
        work
    }

    #[test]
    fn every_refusal_costs_one_hash_of_each_kind_for_every_user() {
        let bcrypt = HashKind::Bcrypt { cost: 10 };
        for found in [
            vec![],
            vec![bcrypt],
            vec![HashKind::Bcrypt { cost: 4 }, bcrypt, pbkdf2(1_000_000)],
            vec![pbkdf2(29_000), pbkdf2(600_000)],
            vec![HashKind::Bcrypt { cost: 12 }],
        ] {
            let kinds = KnownKinds::new(found.clone());
            let unknown = work(&kinds, None);
            assert!(unknown.contains(&HashKind::OURS));
            for own in found.into_iter().chain([HashKind::OURS]) {
                assert_eq!(work(&kinds, Some(own)), unknown, "{own:?}");
            }
        }
    }

    #[test]
    fn a_kind_that_would_delay_all_logins_is_left_out_and_the_others_are_not() {
        let expensive = HashKind::Bcrypt { cost: 14 };
        let kinds = KnownKinds::new([expensive, HashKind::Bcrypt { cost: 10 }]);
        assert_eq!(work(&kinds, None), work(&KnownKinds::new([HashKind::Bcrypt { cost: 10 }]), None));
        let all = KnownKinds::new((4..=14).map(|cost| HashKind::Bcrypt { cost }));
        let micros: u64 = all.missing(None).into_iter().map(HashKind::micros).sum();
        assert!(micros <= MOST_MICROS && all.missing(None).len() > 3, "{micros}");
        let many = KnownKinds::new((1..1000).map(pbkdf2));
        assert!(many.missing(None).len() <= MOST_KINDS);
    }

    #[test]
    fn a_kind_that_is_learned_costs_every_refusal_from_then_on() {
        let kinds = KnownKinds::new([]);
        assert_eq!(work(&kinds, None), [HashKind::OURS]);
        kinds.learn(HashKind::Bcrypt { cost: 5 });
        assert_eq!(work(&kinds, None), work(&kinds, Some(HashKind::OURS)));
        assert_eq!(kinds.missing(None).len(), 2);
    }

    #[test]
    fn the_kind_of_each_format_is_recognised_and_has_dummy_work() {
        for (text, kind) in [
            ("$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", HashKind::Bcrypt { cost: 5 }),
            ("pbkdf2_sha256$1000$seasalt2$XgorALNvukv0EvNvIdAcBJwO8QUoJFAMVs0bpNtXMZU=", pbkdf2(1000)),
        ] {
            let kind_of = StoredHash::parse(text).unwrap().kind();
            assert_eq!(kind_of, kind);
            kind_of.verify_dummy(&Password::new("x".repeat(100)).unwrap()).unwrap();
        }
        let ours = super::super::password::hash(&Password::new("x".into()).unwrap()).unwrap();
        assert_eq!(ours.kind(), HashKind::OURS);
        ours.kind().verify_dummy(&Password::new("x\0y".into()).unwrap()).unwrap();
    }
}
