//! Between the gateway and an application: attempts at the servers of a pool, the cookie that names one, and connections of
//! the fast path.

pub mod attempt;
pub mod connection;
pub mod connection_auth;
pub mod idle_pool;
pub mod parse;
pub mod response;
pub mod retry;
pub mod rewind;
pub mod server_cookie;
