//! Tokens made by hand: what an attacker, or a careless colleague with the key, might present.
//!
//! Deliberately without a JWT library, which would refuse to make most of these.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::Value;

use super::edge::HMAC_KEY;

pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// One part of a token, decoded: 0 is the header, 1 the payload, 2 the signature.
pub fn part(token: &str, at: usize) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(token.split('.').nth(at).unwrap()).unwrap()
}

pub fn header_of(token: &str) -> Value {
    serde_json::from_slice(&part(token, 0)).unwrap()
}

pub fn claims_of(token: &str) -> Value {
    serde_json::from_slice(&part(token, 1)).unwrap()
}

/// Header and payload, whatever their bytes, with the HMAC under some key.
pub fn hmac_signed(header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>, key: &[u8]) -> String {
    let message = format!("{}.{}", base64url(header), base64url(payload));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes());
    format!("{message}.{}", base64url(signature))
}

/// The same, under the edge's own key.
pub fn signed(header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
    hmac_signed(header, payload, HMAC_KEY.as_bytes())
}

/// Claims with some of them replaced; `null` takes one out.
pub fn with(claims: &Value, changes: Value) -> String {
    let mut claims = claims.clone();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    claims.to_string()
}
