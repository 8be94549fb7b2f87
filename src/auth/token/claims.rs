//! The claims of a token (RFC 7519 §4), as they are minted and read.

use serde::{Deserialize, Serialize};

/// The claims of a token. Only these are read; each must have its type, or the token is malformed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub iss: String,
    /// User id.
    pub sub: String,
    /// User name, as it was registered.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    pub roles: Vec<String>,
    /// The services that the user is registered for.
    pub services: Vec<String>,
    /// The specification's TokenID: names the session.
    pub sid: String,
    /// The number of the user's last change in the directory when the password was checked: a change that ended
    /// sessions ends this one if its number is higher. Tokens of a former version have none and are checked by
    /// `auth_time`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<u64>,
    pub jti: String,
    /// When the password was checked (OpenID Connect Core §2). Absent means long ago.
    #[serde(default)]
    pub auth_time: u64,
    pub iat: u64,
    pub nbf: u64,
    /// The session's absolute end.
    pub exp: u64,
    pub aud: String,
    /// Seconds: the specification's SESSION_TIME_OUT, so that the look-up of a session can set its new expiry in the
    /// same round trip.
    pub idle: u64,
}
