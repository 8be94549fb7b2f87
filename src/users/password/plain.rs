//! A password in plain text, as a user typed it.

use std::error::Error;
use std::fmt;

use zeroize::Zeroizing;

/// A password exactly as it was typed: nothing is trimmed or normalised. It is wiped when dropped.
pub struct Password(Zeroizing<String>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPassword {
    Empty,
    TooLong,
}

impl Password {
    /// Far above the 64 characters that ASVS 5.0 §6.2.9 requires, and low enough that hashing stays cheap.
    pub const MAX_BYTES: usize = 1024;

    /// Takes ownership of the text, so that no copy of it stays in memory.
    pub fn new(text: String) -> Result<Self, BadPassword> {
        let text = Zeroizing::new(text);
        match text.len() {
            0 => Err(BadPassword::Empty),
            1..=Self::MAX_BYTES => Ok(Self(text)),
            _ => Err(BadPassword::TooLong),
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
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

impl Error for BadPassword {}
