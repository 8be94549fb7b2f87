//! The body of a call: little JSON, in little time.

use http::{HeaderMap, header};
use pingora_core::protocols::http::ServerSession;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::response::ApiResponse;
use crate::admin::deadlines;

/// No call needs more than some names.
const MAX_BYTES: usize = 16 << 10;

/// Reads a body to its end. The caller has shown that the API is open to it, so that no other body takes memory.
pub async fn read(session: &mut ServerSession, headers: &HeaderMap) -> Result<Vec<u8>, ApiResponse> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > MAX_BYTES) {
        return Err(ApiResponse::body_too_large(MAX_BYTES));
    }
    let read = async {
        let mut body = Vec::new();
        let broken = |_| ApiResponse::bad_request("the body cannot be read");
        while let Some(bytes) = session.read_request_body().await.map_err(broken)? {
            if body.len() + bytes.len() > MAX_BYTES {
                return Err(ApiResponse::body_too_large(MAX_BYTES));
            }
            body.extend_from_slice(&bytes);
        }
        if announced.is_some_and(|length| length != body.len()) {
            return Err(ApiResponse::bad_request("the body is shorter than announced"));
        }
        Ok(body)
    };
    timeout(deadlines::BODY, read).await.unwrap_or_else(|_| Err(ApiResponse::body_too_slow()))
}

/// Whether a body says nothing.
pub fn is_empty(body: &[u8]) -> bool {
    let is_empty_object = |object: serde_json::Map<_, _>| object.is_empty();
    body.is_empty() || parse(body).is_some_and(is_empty_object)
}

/// Reads a body as a JSON object. `None` where it is none of this shape.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    // By itself serde takes a list for an object, too.
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).ok()?;
    serde_json::from_value(object.into()).ok()
}
