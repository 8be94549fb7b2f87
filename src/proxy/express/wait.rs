//! Waiting for an application, while its client may leave.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use pingora::{Error, ErrorType, Result};

use super::Client;
use super::application::{Application, Part};

/// The next part of the application's answer. What was written to the client before goes out meanwhile.
pub async fn heard<C: Client>(application: &mut Application<'_>, client: &mut C) -> Result<Part> {
    let mut part = pin!(application.part());
    let mut asks_ahead = false;
    poll_fn(|context| {
        if let Poll::Ready(part) = part.as_mut().poll(context) {
            return Poll::Ready(part.map_err(Error::into_up));
        }
        if !asks_ahead {
            match client.poll_readable(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(false) => return Poll::Ready(Err(Error::new_down(ErrorType::ConnectionClosed))),
                // It is heard in its turn; whether it leaves cannot be seen before.
                Poll::Ready(true) => asks_ahead = true,
            }
        }
        // Errors show at the next write.
        let _ = Pin::new(&mut *client).poll_flush(context);
        Poll::Pending
    })
    .await
}
