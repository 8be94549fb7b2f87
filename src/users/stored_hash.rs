//! Stored password hashes: which formats are understood, and how costly one may be.
//!
//! A hash is parsed at import and whenever a directory is read, so that one which cannot be verified, or would stall a login
//! worker, is refused there. [`super::password`] verifies.

use std::error::Error;
use std::fmt;
use std::num::NonZeroU32;

use argon2::password_hash::phc::PasswordHash;
use argon2::{ARGON2ID_IDENT, Algorithm, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::pbkdf2;

use super::hash_kind::{Digest, HashKind};
use super::password::parameters::{MEMORY_KIB, OUTPUT_BYTES, PASSES, SALT_BYTES};

/// Longer than any hash with a 64-byte salt and a 64-byte output.
const MAX_TEXT_BYTES: usize = 512;

// The most expensive hashes that are accepted take one to three seconds of a worker, until a login replaces them.
const MAX_ARGON2_MEMORY_KIB: u32 = 256 * 1024;
const MAX_ARGON2_PASSES: u32 = 10;
const MIN_BCRYPT_COST: u32 = 4;
const MAX_BCRYPT_COST: u32 = 14;
const MAX_PBKDF2_ITERATIONS: u32 = 2_000_000;

/// PBKDF2 verifies as many bytes as are stored: with no bytes every password would be right.
const PBKDF2_DERIVED_BYTES: std::ops::RangeInclusive<usize> = 16..=64;

/// A password hash, in the text form in which the directory stores it.
///
/// The accepted formats are Argon2 (PHC strings), bcrypt (`$2a$`, `$2b$`, `$2y$`) and PBKDF2 with SHA-256 or SHA-512: PHC
/// strings (`$pbkdf2-sha256$i=600000$…`), passlib's (`$pbkdf2-sha256$29000$…`) and Django's (`pbkdf2_sha256$…`).
#[derive(Clone)]
pub struct StoredHash {
    text: String,
    scheme: Scheme,
    kind: HashKind,
}

#[derive(Clone)]
pub(super) enum Scheme {
    Argon2(Box<PasswordHash>),
    /// The bcrypt crate parses the text itself.
    Bcrypt,
    Pbkdf2(Pbkdf2),
}

#[derive(Clone)]
pub(super) struct Pbkdf2 {
    pub prf: pbkdf2::Algorithm,
    pub iterations: NonZeroU32,
    pub salt: Vec<u8>,
    pub derived: Vec<u8>,
}

/// Why a text is not a hash that can be verified. It never contains the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHash {
    Unknown,
    Malformed { format: &'static str },
    OutOfBounds { what: &'static str, found: u32, most: u32 },
}

impl StoredHash {
    pub fn parse(text: &str) -> Result<Self, BadHash> {
        let (scheme, kind) = match text {
            _ if text.len() > MAX_TEXT_BYTES => return Err(BadHash::Unknown),
            _ if text.starts_with("$argon2") => {
                let (phc, kind) = parse_argon2(text)?;
                (Scheme::Argon2(Box::new(phc)), kind)
            }
            _ if ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| text.starts_with(prefix)) => {
                (Scheme::Bcrypt, HashKind::Bcrypt { cost: parse_bcrypt(text)? })
            }
            _ => {
                let hash = parse_pbkdf2(text)?;
                let digest = if hash.prf == pbkdf2::PBKDF2_HMAC_SHA512 { Digest::Sha512 } else { Digest::Sha256 };
                let blocks = hash.derived.len().div_ceil(digest.bytes());
                let kind = HashKind::Pbkdf2 { digest, iterations: hash.iterations, blocks };
                (Scheme::Pbkdf2(hash), kind)
            }
        };
        Ok(Self { text: text.to_owned(), scheme, kind })
    }

    /// Wraps a hash that was just made.
    pub(super) fn ours(phc: PasswordHash) -> Self {
        Self { text: phc.to_string(), scheme: Scheme::Argon2(Box::new(phc)), kind: HashKind::OURS }
    }

    /// Returns the kind, which is the cost of verifying.
    pub fn kind(&self) -> HashKind {
        self.kind
    }

    /// Returns the text to store. It is a secret: its reader can try passwords without limit.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether the hash is at least as strong as a new one.
    pub fn is_current(&self) -> bool {
        let Scheme::Argon2(phc) = &self.scheme else { return false };
        phc.algorithm == ARGON2ID_IDENT
            && phc.version == Some(Version::V0x13.into())
            && Params::try_from(&**phc).is_ok_and(|it| it.m_cost() >= MEMORY_KIB && it.t_cost() >= PASSES)
            && phc.hash.is_some_and(|hash| hash.len() >= OUTPUT_BYTES)
            && phc.salt.is_some_and(|salt| salt.len() >= SALT_BYTES)
    }

    pub(super) fn scheme(&self) -> &Scheme {
        &self.scheme
    }
}

fn parse_argon2(text: &str) -> Result<(PasswordHash, HashKind), BadHash> {
    const MALFORMED: BadHash = BadHash::Malformed { format: "an argon2 PHC string" };
    let mut phc = PasswordHash::new(text).map_err(|_| MALFORMED)?;
    // The reference implementation left the version out before 1.3, where the argon2 crate would assume 1.3.
    let version = *phc.version.get_or_insert(Version::V0x10.into());
    let algorithm = Algorithm::try_from(phc.algorithm.as_str()).map_err(|_| MALFORMED)?;
    let version = Version::try_from(version).map_err(|_| MALFORMED)?;
    let params = Params::try_from(&phc).map_err(|_| MALFORMED)?;
    if phc.salt.is_none() || phc.hash.is_none() {
        return Err(MALFORMED);
    }
    at_most("argon2 memory in KiB", params.m_cost(), MAX_ARGON2_MEMORY_KIB)?;
    at_most("argon2 passes", params.t_cost(), MAX_ARGON2_PASSES)?;
    let (memory_kib, passes, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
    Ok((phc, HashKind::Argon2 { algorithm, version, memory_kib, passes, lanes }))
}

/// Returns the cost; the bcrypt crate parses the rest itself.
fn parse_bcrypt(text: &str) -> Result<u32, BadHash> {
    const MALFORMED: BadHash = BadHash::Malformed { format: "a bcrypt hash" };
    let parts: bcrypt::HashParts = text.parse().map_err(|_| MALFORMED)?;
    if parts.get_cost() < MIN_BCRYPT_COST {
        return Err(MALFORMED);
    }
    at_most("bcrypt cost", parts.get_cost(), MAX_BCRYPT_COST)?;
    Ok(parts.get_cost())
}

fn parse_pbkdf2(text: &str) -> Result<Pbkdf2, BadHash> {
    const MALFORMED: BadHash = BadHash::Malformed { format: "a PBKDF2 hash" };
    let fields: Vec<&str> = text.split('$').collect();
    let (prf, is_phc, rest) = match fields[..] {
        ["", "pbkdf2-sha256", ref rest @ ..] => (pbkdf2::PBKDF2_HMAC_SHA256, true, rest),
        ["", "pbkdf2-sha512", ref rest @ ..] => (pbkdf2::PBKDF2_HMAC_SHA512, true, rest),
        ["pbkdf2_sha256", ref rest @ ..] => (pbkdf2::PBKDF2_HMAC_SHA256, false, rest),
        ["pbkdf2_sha512", ref rest @ ..] => (pbkdf2::PBKDF2_HMAC_SHA512, false, rest),
        _ => return Err(BadHash::Unknown),
    };
    let [parameters, salt, derived] = *rest else { return Err(MALFORMED) };
    let (iterations, salt, derived) = if is_phc {
        (phc_iterations(parameters), decode(salt), decode(derived))
    } else {
        // Django uses the characters of the salt as its bytes.
        (parameters.parse().ok(), Some(salt.as_bytes().to_vec()), STANDARD.decode(derived).ok())
    };
    let (Some(iterations), Some(salt), Some(derived)) = (iterations, salt, derived) else { return Err(MALFORMED) };
    if salt.is_empty() || !PBKDF2_DERIVED_BYTES.contains(&derived.len()) {
        return Err(MALFORMED);
    }
    at_most("PBKDF2 iterations", iterations.get(), MAX_PBKDF2_ITERATIONS)?;
    Ok(Pbkdf2 { prf, iterations, salt, derived })
}

/// Parses `i=600000`, `i=600000,l=32`, or the bare number of passlib. The length is that of the hash anyway.
fn phc_iterations(parameters: &str) -> Option<NonZeroU32> {
    let iterations = parameters.split_once(",l=").map_or(parameters, |(iterations, _)| iterations);
    iterations.strip_prefix("i=").unwrap_or(iterations).parse().ok()
}

/// Decodes base64 without padding, in the alphabet of PHC or of passlib, which writes `.` for `+`.
fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD_NO_PAD.decode(text.replace('.', "+")).ok()
}

fn at_most(what: &'static str, found: u32, most: u32) -> Result<(), BadHash> {
    if found > most { Err(BadHash::OutOfBounds { what, found, most }) } else { Ok(()) }
}

impl fmt::Debug for StoredHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredHash(hidden)")
    }
}

impl fmt::Display for BadHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str(
                "the password hash is of no known format; write an argon2, bcrypt ($2a$, $2b$, $2y$) or PBKDF2 \
                 (SHA-256 or SHA-512; PHC, passlib or Django) hash",
            ),
            Self::Malformed { format } => write!(f, "the password hash begins like {format} and is not one"),
            Self::OutOfBounds { what, found, most } => {
                write!(f, "{what} of the password hash is {found}, at most {most}; set a new password instead")
            }
        }
    }
}

impl Error for BadHash {}
