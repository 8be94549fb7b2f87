//! Passwords: how one is taken, hashed and verified.
//!
//! New hashes are Argon2id with OWASP's parameters; what older directories wrote is understood by
//! [`StoredHash`]. Everything here burns processor time on purpose: it is called on login workers and by the
//! command line, never on a request worker.

pub mod policy;

use std::error::Error;
use std::fmt;

use argon2::password_hash::Error as Argon2Error;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use ring::pbkdf2;
use zeroize::Zeroizing;

use super::StoredHash;
use super::stored_hash::Scheme;

/// OWASP Password Storage Cheat Sheet: Argon2id with at least 19 MiB, two passes, one lane.
pub(super) const MEMORY_KIB: u32 = 19_456;
pub(super) const PASSES: u32 = 2;
const LANES: u32 = 1;
/// RFC 9106 §4 recommends a tag of 256 bits and a salt of 128.
pub(super) const OUTPUT_BYTES: usize = 32;
pub(super) const SALT_BYTES: usize = 16;

/// bcrypt reads no more of a password than this.
const BCRYPT_MAX_BYTES: usize = 72;

/// A password as it was typed, exactly: nothing trimmed, nothing normalised. Cleared when dropped.
pub struct Password(Zeroizing<String>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPassword {
    Empty,
    TooLong,
}

/// What a verification found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verified {
    Match,
    /// The password is right; its hash is of another algorithm or weaker than ours and should be replaced.
    MatchOutdated,
    NoMatch,
}

/// Hashing failed for a reason that says nothing about the password: no memory, no random numbers.
#[derive(Debug)]
pub enum HashError {
    Argon2(Argon2Error),
    Bcrypt(bcrypt::BcryptError),
}

impl Password {
    /// Far above the 64 characters that ASVS 5.0 §6.2.9 asks for, and low enough that nobody has us hash a book.
    pub const MAX_BYTES: usize = 1024;

    /// Takes the text over, so that no copy of it stays behind.
    pub fn new(text: String) -> Result<Self, BadPassword> {
        let text = Zeroizing::new(text);
        match text.len() {
            0 => Err(BadPassword::Empty),
            1..=Self::MAX_BYTES => Ok(Self(text)),
            _ => Err(BadPassword::TooLong),
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn as_str(&self) -> &str {
        &self.0
    }
}

/// Hashes a password with today's parameters and a fresh salt.
pub fn hash(password: &Password) -> Result<StoredHash, HashError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(OUTPUT_BYTES)).map_err(Argon2Error::from)?;
    let ours = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    Ok(StoredHash::ours(ours.hash_password(password.as_bytes())?))
}

/// Compares in constant time.
pub fn verify(password: &Password, stored: &StoredHash) -> Result<Verified, HashError> {
    let password = password.as_bytes();
    let matches = match stored.scheme() {
        // Algorithm, version and parameters are those of the stored hash.
        Scheme::Argon2(phc) => match Argon2::default().verify_password(password, &**phc) {
            Ok(()) => true,
            Err(Argon2Error::PasswordInvalid) => false,
            Err(error) => return Err(error.into()),
        },
        Scheme::Bcrypt => verify_bcrypt(password, stored.as_str())?,
        Scheme::Pbkdf2(it) => pbkdf2::verify(it.prf, it.iterations, &it.salt, password, &it.derived).is_ok(),
    };
    Ok(match matches {
        true if stored.is_current() => Verified::Match,
        true => Verified::MatchOutdated,
        false => Verified::NoMatch,
    })
}

/// bcrypt ignores what follows the 72nd byte, and a password that contains its terminator can equal a shorter one
/// (`a` and `a\0a` repeat to the same key). So such a password does not match, whatever the hash says: a prefix
/// must not open an account, nor be rewritten as if it were the password. Its owner needs a new one set.
fn verify_bcrypt(password: &[u8], stored: &str) -> Result<bool, HashError> {
    let matches = bcrypt::verify(password, stored)?;
    let read_whole = password.len() <= BCRYPT_MAX_BYTES && !password.contains(&0);
    Ok(matches && read_whole)
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(hidden)")
    }
}

impl fmt::Display for BadPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the password is empty"),
            Self::TooLong => write!(f, "the password is too long; at most {} bytes", Password::MAX_BYTES),
        }
    }
}

impl fmt::Display for HashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the password could not be hashed")
    }
}

impl Error for BadPassword {}

impl Error for HashError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Argon2(source) => Some(source),
            Self::Bcrypt(source) => Some(source),
        }
    }
}

impl From<Argon2Error> for HashError {
    fn from(source: Argon2Error) -> Self {
        Self::Argon2(source)
    }
}

impl From<argon2::Error> for HashError {
    fn from(source: argon2::Error) -> Self {
        Self::Argon2(source.into())
    }
}

impl From<bcrypt::BcryptError> for HashError {
    fn from(source: bcrypt::BcryptError) -> Self {
        Self::Bcrypt(source)
    }
}

#[cfg(test)]
mod tests;
