//! The parameters of new hashes, and the error of hashing.

use std::error::Error;
use std::fmt;

use argon2::password_hash::Error as Argon2Error;

/// OWASP Password Storage Cheat Sheet: Argon2id with at least 19 MiB, two passes, one lane.
pub const MEMORY_KIB: u32 = 19_456;
pub const PASSES: u32 = 2;
pub const LANES: u32 = 1;
/// RFC 9106 §4 recommends a tag of 256 bits and a salt of 128.
pub const OUTPUT_BYTES: usize = 32;
pub const SALT_BYTES: usize = 16;

/// Why hashing failed. It says nothing about the password: there was no memory, or there were no random numbers.
#[derive(Debug)]
pub enum HashError {
    Argon2(Argon2Error),
    Bcrypt(bcrypt::BcryptError),
}

impl fmt::Display for HashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the password could not be hashed")
    }
}

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
