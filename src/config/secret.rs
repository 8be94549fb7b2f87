//! Secrets: where they are named in the file, and their bytes, which cannot be printed.

use std::path::PathBuf;

use zeroize::Zeroizing;

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
    /// Reads it. One trailing line end is not part of a secret that stands in a file or variable.
    /// The message says what is wrong and never quotes the secret.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads variables")]
    pub fn read(&self) -> Result<Secret, String> {
        let mut bytes = match self {
            Self::Env(name) => std::env::var(name)
                .map(String::into_bytes)
                .map_err(|_| format!("the environment variable {name} is not set"))?,
            Self::File(path) => {
                std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?
            }
            Self::Value(value) => value.as_bytes().to_vec(),
        };
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
        match self {
            Self::Env(name) => write!(f, "env {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Value(_) => f.write_str("value …"),
        }
    }
}
