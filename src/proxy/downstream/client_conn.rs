//! A client's connection over HTTP/1.1, as far as a request needs it.

use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::proxy::client_connection::ClientConnection;

/// A client's connection, as far as a request needs it.
pub trait Client: AsyncRead + AsyncWrite + Send + Unpin {
    /// Ready when the client has sent something, or never will again. Takes nothing.
    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<bool>;

    /// What was read is to be read again.
    fn give_back(&mut self, bytes: &[u8]);

    /// The same as to write them, without a copy. `Err` has them again where that cannot be.
    fn take_over(&mut self, bytes: Vec<u8>) -> Result<(), Vec<u8>>;

    fn address(&self) -> IpAddr;

    /// `None` without TLS.
    fn secured(&self) -> Option<Arc<ClientConnection>>;
}

/// What has become of a request.
pub enum Outcome<C> {
    /// It is for Pingora, which can read it from its beginning.
    Declined(Box<C>),
    /// It is over, and the client may send another.
    KeepAlive(Box<C>),
    /// It is over, and so is the connection.
    Close,
}
