//! Secrets: where they are named in the file, and their bytes, which cannot be printed.

use std::path::PathBuf;

use zeroize::Zeroizing;

use super::{BYTE_ORDER_MARK, is_utf16};

/// Where a secret is to be read from.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    Env(String),
    File(PathBuf),
    Value(Zeroizing<String>),
}

/// The bytes of a secret; wiped when dropped, never printed.
pub struct Secret(Zeroizing<Vec<u8>>);

impl SecretSource {
    /// Reads the secret. One trailing line end in a file or variable is not part of it.
    /// The message says what is wrong and never quotes what was written: not the secret, and not the name of a variable
    /// or file either, which is the secret itself where one key was taken for another.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads variables")]
    pub fn read(&self) -> Result<Secret, String> {
        let mut bytes = match self {
            Self::Env(name) => match std::env::var(name) {
                Ok(text) => text.into_bytes(),
                Err(std::env::VarError::NotPresent) => return Err("this environment variable is not set".into()),
                Err(std::env::VarError::NotUnicode(_)) => return Err("this environment variable is no text".into()),
            },
            Self::File(path) => std::fs::read(path).map_err(|error| format!("this file cannot be read: {error}"))?,
            Self::Value(value) => value.as_bytes().to_vec(),
        };
        if matches!(self, Self::File(_)) && (bytes.starts_with(BYTE_ORDER_MARK.as_bytes()) || is_utf16(&bytes)) {
            // Another program that has this secret may read other bytes from such a file.
            return Err("this file begins with a byte order mark or is in UTF-16, as editors on Windows save text; \
                        save it as UTF-8 without one"
                .into());
        }
        if bytes.ends_with(b"\n") {
            bytes.pop();
            if bytes.ends_with(b"\r") {
                bytes.pop();
            }
        }
        if bytes.is_empty() { Err("the secret is empty".into()) } else { Ok(Secret(Zeroizing::new(bytes))) }
    }
}

impl Secret {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl std::fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Env(_) => "env …",
            Self::File(_) => "file …",
            Self::Value(_) => "value …",
        })
    }
}
