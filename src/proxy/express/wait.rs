//! Waiting for an application, while its client may leave.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use pingora::{Error, ErrorType, Result};

use super::answer::Answer;
use super::application::{Application, Part};

/// The next part of the application's answer.
pub async fn heard<A: Answer>(application: &mut Application<'_>, answer: &mut A) -> Result<Part<A::Head>> {
    let mut part = pin!(application.part());
    poll_fn(|context| {
        if let Poll::Ready(part) = part.as_mut().poll(context) {
            return Poll::Ready(part.map_err(Error::into_up));
        }
        answer.poll_gone(context).map(|()| Err(Error::new_down(ErrorType::ConnectionClosed)))
    })
    .await
}
