//! What the code that starts an edge may choose and a configuration may not.

pub use crate::proxy::FastPath;

/// The default is what the program runs with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// With `Off` every request takes the full path, so that tests can hold both paths against the same expectations.
    pub fast_path: FastPath,
}
