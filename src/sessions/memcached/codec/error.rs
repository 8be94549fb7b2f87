//! What the failures of async-memcached mean for the session store.

use std::fmt::Display;

use async_memcached::{Error, ErrorKind, Status};

use crate::sessions::StoreError;

pub fn store_error(error: Error) -> StoreError {
    match error {
        Error::Connect(_) | Error::Io(_) | Error::ConnectionClosed => unavailable(error),
        // SERVER_ERROR: the server has a problem of its own, or a proxy before it has one with the server behind.
        Error::Protocol(Status::Error(ErrorKind::Server(_))) => unavailable(error),
        Error::Protocol(Status::Error(ErrorKind::NonexistentCommand)) => {
            unfit("it does not know the commands that are used; memcached 1.6.10 or later is needed")
        }
        Error::Protocol(Status::Error(ErrorKind::Client(text))) if text.contains("unauthenticated") => {
            unfit("it wants a password (-Y), and has to be used without one")
        }
        Error::Protocol(_) | Error::ParseError(_) => protocol_error(error),
    }
}

/// memcached says "out of memory storing object" and "object too large for cache".
pub fn is_full(text: &str) -> bool {
    text.starts_with("out of memory") || text.starts_with("object too large")
}

pub fn unavailable(cause: impl Display) -> StoreError {
    StoreError::Unavailable { cause: printable(cause) }
}

pub fn protocol_error(cause: impl Display) -> StoreError {
    StoreError::Protocol { cause: printable(cause) }
}

pub fn other_key() -> StoreError {
    protocol_error("a response for another key")
}

fn unfit(cause: &str) -> StoreError {
    StoreError::Unfit { cause: cause.to_owned() }
}

/// A cause may quote the server, which may send anything: it is written to the log short and on one line.
fn printable(cause: impl Display) -> String {
    cause.to_string().chars().take(200).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_a_server_cannot_break_a_log_line() {
        let StoreError::Unavailable { cause } = unavailable("x\r\n\u{1b}[31mY".repeat(100)) else { panic!() };
        assert!(cause.len() < 2000 && cause.chars().all(|c| !c.is_control()), "{cause}");
    }
}
