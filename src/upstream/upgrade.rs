//! Connections for upgrades (WebSockets), which wait a moment before they let an answer be read.
//!
//! Pingora 0.9.1 carries the end of an upgrade request's empty body and the application's answer in one `select!`, in
//! any order. Where the answer is taken first, the end of that body is then taken for the end of the tunnel, and the
//! WebSocket closes right after its handshake (pingora#946). Both are ready at once when an application answers fast
//! or the machine is busy. So these connections answer the first reads with "not yet": that gives the loop turns in
//! which the end of the body alone is ready. Over TLS the handshake reads and writes first, so each of the first writes
//! begins this anew.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::{fmt, io};

use async_trait::async_trait;
use pingora::{Error, ErrorType, Result};
use pingora_core::connectors::L4Connect;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// In the first turn the end of the body is sent, in the second it is received; the others are to spare.
const TURNS: u8 = 4;

/// A handshake takes up to three, the request one or two.
const WRITES: u8 = 6;

/// Makes such connections.
#[derive(Debug)]
pub struct Connector;

/// TCP, or a Unix socket.
trait Socket: AsyncRead + AsyncWrite + fmt::Debug + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + fmt::Debug + Send + Sync + Unpin> Socket for S {}

#[derive(Debug)]
struct Patient {
    socket: Box<dyn Socket>,
    turns: u8,
    /// How many more writes make reads wait again.
    writes: u8,
}

#[async_trait]
impl L4Connect for Connector {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let socket = connect(address).await.map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
                _ => ErrorType::ConnectError,
            };
            Error::because(kind, format!("connecting to {address}"), error)
        })?;
        Ok(VirtualSocketStream::new(Box::new(Patient { socket, turns: TURNS, writes: WRITES })).into())
    }
}

async fn connect(address: &SocketAddr) -> io::Result<Box<dyn Socket>> {
    match address {
        SocketAddr::Inet(address) => {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            Ok(Box::new(socket))
        }
        SocketAddr::Unix(address) => {
            let path = address.as_pathname().ok_or_else(|| io::Error::other("a socket without a path"))?;
            Ok(Box::new(UnixStream::connect(path).await?))
        }
    }
}

impl VirtualSocket for Patient {
    /// `connect` has set what there is. Pools have no key for keep-alive, nor for what else may come.
    fn set_socket_option(&self, _option: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.turns > 0 {
            self.turns -= 1;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.socket).poll_read(context, into)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.writes > 0 {
            self.writes -= 1;
            self.turns = TURNS;
        }
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_is_there_already_is_read_after_some_turns_and_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = SocketAddr::Inet(listener.local_addr().unwrap());
        let (stream, accepted) = tokio::join!(Connector.connect(&address), listener.accept());
        let (mut stream, (mut application, _)) = (stream.unwrap(), accepted.unwrap());
        application.write_all(b"HTTP/1.1 101 ").await.unwrap();
        let mut answer = [0; 13];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 101 ");
        stream.write_all(b"hello").await.unwrap();
        stream.flush().await.unwrap();
        let mut heard = [0; 5];
        application.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
    }

    #[tokio::test]
    async fn a_closed_port_is_a_refusal() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = SocketAddr::Inet(listener.local_addr().unwrap());
        drop(listener);
        assert_eq!(Connector.connect(&address).await.unwrap_err().etype(), &ErrorType::ConnectRefused);
    }
}
