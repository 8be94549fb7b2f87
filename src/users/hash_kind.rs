//! What a stored hash costs to verify: its kind, and the same work without a hash.
//!
//! A directory may hold hashes of several kinds, whose verification takes from 2 ms to a second. A client that guesses would
//! learn by the time of a refusal which kind a user has, and so who exists. So every refusal does the work of all kinds
//! that the directory holds: see [`Kinds`]. Called by the login workers.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};

use argon2::{Algorithm, Argon2, Params, Version};
use ring::pbkdf2;

use super::Password;
use super::password::{HashError, MEMORY_KIB, OUTPUT_BYTES, PASSES, SALT_BYTES};

/// Microseconds of a worker that a refusal may take beyond its own user's hash: an import of bcrypt with cost 12 is
/// within it. Logins have few workers, so that a dearer kind would let a few guesses hold up everybody.
const MOST_MICROS: u64 = 250_000;

/// Kinds that are remembered; a directory that was imported has two or three.
const MOST_KINDS: usize = 16;

/// Hashes of one kind take the same time to verify, for every user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HashKind {
    Argon2 { algorithm: Algorithm, version: Version, memory_kib: u32, passes: u32, lanes: u32 },
    Bcrypt { cost: u32 },
    Pbkdf2 { digest: Digest, iterations: NonZeroU32, blocks: usize },
}

/// What PBKDF2 runs over.
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
    /// That of the hashes that we make.
    pub const OURS: Self = Self::Argon2 {
        algorithm: Algorithm::Argon2id,
        version: Version::V0x13,
        memory_kib: MEMORY_KIB,
        passes: PASSES,
        lanes: 1,
    };

    /// About what one costs, of the machine that the bounds were measured on. Only the order and the sum matter.
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

    /// Does the work of verifying a password against a hash of this kind, and compares nothing.
    pub fn spend(self, password: &Password) -> Result<(), HashError> {
        match self {
            Self::Argon2 { algorithm, version, memory_kib, passes, lanes } => {
                let params = Params::new(memory_kib, passes, lanes, Some(OUTPUT_BYTES))?;
                let mut output = [0; OUTPUT_BYTES];
                let argon2 = Argon2::new(algorithm, version, params);
                argon2.hash_password_into(password.as_bytes(), &[0; SALT_BYTES], &mut output)?;
                std::hint::black_box(output);
            }
            Self::Bcrypt { cost } => {
                // As `verify` does it, which cuts what is longer.
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

/// The kinds that a directory is known to hold.
#[derive(Debug)]
pub struct Kinds {
    known: Mutex<BTreeSet<HashKind>>,
    /// What refusals have spent beside their users' own.
    #[cfg(test)]
    pub spent: Mutex<Vec<HashKind>>,
}

impl Kinds {
    /// Ours is always among them: what unknown users cost.
    pub fn new(found: impl IntoIterator<Item = HashKind>) -> Self {
        let kinds = Self {
            known: Mutex::new(BTreeSet::from([HashKind::OURS])),
            #[cfg(test)]
            spent: Mutex::default(),
        };
        found.into_iter().for_each(|kind| kinds.note(kind));
        kinds
    }

    /// A user has a hash of this kind: one that was imported since the directory was looked through.
    pub fn note(&self, kind: HashKind) {
        let mut kinds = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if kinds.len() < MOST_KINDS {
            kinds.insert(kind);
        }
    }

    /// Spends what a refusal owes.
    pub fn spend(&self, own: Option<HashKind>, password: &Password) -> Result<(), HashError> {
        for kind in self.owed(own) {
            kind.spend(password)?;
            #[cfg(test)]
            self.spent.lock().unwrap_or_else(PoisonError::into_inner).push(kind);
        }
        Ok(())
    }

    /// What a refusal still has to spend, when a hash of kind `own` was verified for it, or none: so that what all
    /// refusals spend together is the same. Kinds that do not fit into the bound, the dearest, are not imitated.
    pub fn owed(&self, own: Option<HashKind>) -> Vec<HashKind> {
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

    /// Together with the user's own, every refusal spends the same.
    fn spent(kinds: &Kinds, own: Option<HashKind>) -> Vec<HashKind> {
        let mut spent: Vec<HashKind> = kinds.owed(own).into_iter().chain(own).collect();
        spent.sort();
        spent
    }

    #[test]
    fn every_refusal_spends_one_hash_of_each_kind_for_every_user() {
        let bcrypt = HashKind::Bcrypt { cost: 10 };
        for found in [
            vec![],
            vec![bcrypt],
            vec![HashKind::Bcrypt { cost: 4 }, bcrypt, pbkdf2(1_000_000)],
            vec![pbkdf2(29_000), pbkdf2(600_000)],
            vec![HashKind::Bcrypt { cost: 12 }],
        ] {
            let kinds = Kinds::new(found.clone());
            let unknown = spent(&kinds, None);
            assert!(unknown.contains(&HashKind::OURS));
            for own in found.into_iter().chain([HashKind::OURS]) {
                assert_eq!(spent(&kinds, Some(own)), unknown, "{own:?}");
            }
        }
    }

    #[test]
    fn a_kind_that_would_hold_up_everybody_is_not_imitated_and_the_others_are() {
        let dear = HashKind::Bcrypt { cost: 14 };
        let kinds = Kinds::new([dear, HashKind::Bcrypt { cost: 10 }]);
        assert_eq!(spent(&kinds, None), spent(&Kinds::new([HashKind::Bcrypt { cost: 10 }]), None));
        let all = Kinds::new((4..=14).map(|cost| HashKind::Bcrypt { cost }));
        let micros: u64 = all.owed(None).into_iter().map(HashKind::micros).sum();
        assert!(micros <= MOST_MICROS && all.owed(None).len() > 3, "{micros}");
        let many = Kinds::new((1..1000).map(pbkdf2));
        assert!(many.owed(None).len() <= MOST_KINDS);
    }

    #[test]
    fn a_kind_that_is_met_is_spent_from_then_on() {
        let kinds = Kinds::new([]);
        assert_eq!(spent(&kinds, None), [HashKind::OURS]);
        kinds.note(HashKind::Bcrypt { cost: 5 });
        assert_eq!(spent(&kinds, None), spent(&kinds, Some(HashKind::OURS)));
        assert_eq!(kinds.owed(None).len(), 2);
    }

    #[test]
    fn the_kind_of_each_format_is_known_and_can_be_spent() {
        for (text, kind) in [
            ("$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", HashKind::Bcrypt { cost: 5 }),
            ("pbkdf2_sha256$1000$seasalt2$XgorALNvukv0EvNvIdAcBJwO8QUoJFAMVs0bpNtXMZU=", pbkdf2(1000)),
        ] {
            let kind_of = StoredHash::parse(text).unwrap().kind();
            assert_eq!(kind_of, kind);
            kind_of.spend(&Password::new("x".repeat(100)).unwrap()).unwrap();
        }
        let ours = super::super::password::hash(&Password::new("x".into()).unwrap()).unwrap();
        assert_eq!(ours.kind(), HashKind::OURS);
        ours.kind().spend(&Password::new("x\0y".into()).unwrap()).unwrap();
    }
}
