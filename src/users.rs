//! Who may sign in: the user directory, password hashes, and the pool of threads that verifies passwords.
//!
//! [`UserDirectory`] and [`UserRegistry`] are the two interfaces of a directory (sign-on and administration); [`open()`]
//! opens the one that the configuration names. This module finds users and verifies passwords. It does not count failed
//! logins, store sessions, write audit lines or know HTTP: the login page (`sentry`) calls [`login::LoginPool`], the
//! command line (`cli::user`) and the admin API call [`UserRegistry`].

pub mod changes;
mod directory;
pub mod directory_worker;
mod entry;
mod hash_kind;
pub mod import;
pub mod instrumented;
pub mod login;
mod name;
mod open;
pub mod password;
mod sqlite;
mod stored_hash;
#[cfg(test)]
mod tests;
mod user;

pub use directory::{ChangesPage, DirectoryError, Source, UserDirectory, UserRegistry};
pub use entry::{BadEmail, BadGrant, Email, Grants, NewUser};
pub use hash_kind::HashKind;
pub use name::{BadUserName, UserName};
pub use open::{OpenDirectory, inspect, open, open_or_create};
pub use password::{BadPassword, Password};
pub use stored_hash::{BadHash, StoredHash};
pub use user::{User, UserId, UserState};
