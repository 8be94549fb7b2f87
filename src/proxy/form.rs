//! Reading the body of a sign-on route: bounded in bytes and in time, before anybody looks at what it says.

use std::time::Duration;

use http::StatusCode;
use pingora_proxy::Session;

use crate::sentry::{LARGEST_FORM, SsoRoute};

/// Time for the whole of a login form to arrive.
const DEADLINE: Duration = Duration::from_secs(10);

/// A login's form, within its limits; nothing for routes that take no body.
pub async fn read_form(session: &mut Session, route: SsoRoute) -> pingora::Result<Result<Vec<u8>, StatusCode>> {
    if !route.takes_body() {
        return Ok(Ok(Vec::new()));
    }
    let mut body = Vec::new();
    let read = async {
        while let Some(chunk) = session.as_downstream_mut().read_request_body().await? {
            if body.len() + chunk.len() > LARGEST_FORM {
                return Ok(Err(StatusCode::PAYLOAD_TOO_LARGE));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Ok(()))
    };
    match tokio::time::timeout(DEADLINE, read).await {
        Ok(Ok(Ok(()))) => Ok(Ok(body)),
        Ok(Ok(Err(status))) => Ok(Err(status)),
        Ok(Err(error)) => Err(error),
        Err(_) => Ok(Err(StatusCode::REQUEST_TIMEOUT)),
    }
}
