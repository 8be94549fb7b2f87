//! The interface between a request over HTTP/1.1 and the listener's stream.

use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::proxy::client_connection::ClientConnection;

/// A client's connection, as far as a request needs it.
pub trait Client: AsyncRead + AsyncWrite + Send + Unpin {
    /// Is ready with `true` when bytes have arrived, and with `false` when the client has closed. Reads nothing.
    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<bool>;

    /// Puts bytes that were read back, to be read again.
    fn give_back(&mut self, bytes: &[u8]);

    /// Takes the bytes to write without a copy. Returns them in `Err` where that is not possible.
    fn take_over(&mut self, bytes: Vec<u8>) -> Result<(), Vec<u8>>;

    fn address(&self) -> IpAddr;

    /// Returns the state of a TLS connection; `None` without TLS.
    fn secured(&self) -> Option<Arc<ClientConnection>>;
}

/// The outcome of a request on the fast path.
pub enum Outcome<C> {
    /// The request is for the full path, which reads it from its first byte.
    Declined(Box<C>),
    /// The request is complete, and the client may send another.
    KeepAlive(Box<C>),
    /// The request has ended, and the connection is closed.
    Close,
}
