//! A connection of async-memcached.

/// A connection to a server, with a number of its own.
pub struct Client {
    pub inner: async_memcached::Client,
    pub number: u64,
}
