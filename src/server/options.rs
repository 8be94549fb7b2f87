//! Options for the code that starts an edge, which a configuration cannot set.

pub use crate::proxy::FastPathMode;

pub use crate::upstream::resolver::Lookup;

/// The default is what the program runs with.
#[derive(Clone, Default)]
pub struct Options {
    /// With `Off` every request takes the full path, so that tests can hold both paths against the same expectations.
    pub fast_path: FastPathMode,
    /// How names of servers are resolved, instead of by the system, so that tests need no DNS.
    pub lookup: Option<Lookup>,
}
