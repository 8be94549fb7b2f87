//! Passwords: how one is hashed and verified.
//!
//! New hashes are Argon2id with OWASP's parameters; [`StoredHash`] reads what older directories wrote. Everything here uses
//! processor time on purpose: it is called on login workers and by the command line, never on a request worker.

pub mod parameters;
pub mod plain;
pub mod policy;

use argon2::password_hash::Error as Argon2Error;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use ring::pbkdf2;

use super::StoredHash;
use super::stored_hash::Scheme;
pub use parameters::HashError;
use parameters::{LANES, MEMORY_KIB, OUTPUT_BYTES, PASSES};
pub use plain::{BadPassword, Password};

/// bcrypt reads no more bytes of a password than this.
const BCRYPT_MAX_BYTES: usize = 72;

/// The result of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verified {
    Match,
    /// The password is right. Its hash has another algorithm, or is weaker than a new one, and should be replaced.
    MatchOutdated,
    NoMatch,
}

/// Hashes a password with the parameters of new hashes and a random salt.
pub fn hash(password: &Password) -> Result<StoredHash, HashError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(OUTPUT_BYTES)).map_err(Argon2Error::from)?;
    let ours = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    Ok(StoredHash::ours(ours.hash_password(password.as_bytes())?))
}

/// Verifies a password. The comparison takes constant time.
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

/// Verifies a password against a bcrypt hash.
///
/// bcrypt ignores what follows the 72nd byte, and a password that contains its terminator can equal a shorter one (`a` and
/// `a\0a` repeat to the same key). Such a password is refused even if bcrypt accepts it: a prefix must neither open an
/// account nor be hashed anew as if it were the password. Its owner needs a new password.
fn verify_bcrypt(password: &[u8], stored: &str) -> Result<bool, HashError> {
    let matches = bcrypt::verify(password, stored)?;
    let read_whole = password.len() <= BCRYPT_MAX_BYTES && !password.contains(&0);
    Ok(matches && read_whole)
}

#[cfg(test)]
mod tests;
