//! What the token of a login says, and whether it fits into a cookie: browsers drop a larger one without a word, so that
//! a sign-in would go round in circles. Called by `login`, and by the command line before a user is given more.

use std::time::Duration;

use crate::auth::cookie::MAX_COOKIE_BYTES;
use crate::auth::token::{CannotSign, Claims, Tokens};
use crate::clock::UnixTime;
use crate::config;
use crate::sessions::SessionId;
use crate::users::User;

use super::Sentry;

/// Of the sign-on host's own token. `idle` is how long the session may idle.
pub fn claims(settings: &config::Sentry, user: &User, session: &SessionId, idle: Duration, begun: UnixTime) -> Claims {
    let now = begun.seconds();
    Claims {
        iss: settings.token.issuer.clone(),
        sub: user.id.as_str().into(),
        name: user.name.as_str().into(),
        email: user.email.clone(),
        roles: user.roles.clone(),
        services: user.services.clone(),
        sid: session.as_str().into(),
        dir: Some(user.change),
        jti: uuid::Uuid::new_v4().to_string(),
        auth_time: now,
        iat: now,
        nbf: now,
        exp: begun.plus(settings.token.lifetime).seconds(),
        aud: Sentry::audience(settings),
        idle: idle.as_secs().max(1),
    }
}

/// A token that is too large for a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// Bytes of the cookie, its name among them.
    pub bytes: usize,
}

impl std::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the sign-in cookie would have {} bytes, and browsers keep {MAX_COOKIE_BYTES}", self.bytes)
    }
}

/// Whether cookies with this token, and with those that the user's services get from it, are kept by browsers. A
/// service's token names the service where this one names the sign-on host.
pub fn fits(settings: &config::Sentry, claims: &Claims, token: &str) -> Result<(), TooLarge> {
    let audiences = claims.services.iter().map(|service| Sentry::service_audience(settings, service).len());
    let longer = audiences.max().unwrap_or_default().saturating_sub(claims.aud.len());
    // Base64 makes four bytes of three.
    let bytes = settings.cookie.name.len() + 1 + token.len() + (longer * 4).div_ceil(3);
    if bytes <= MAX_COOKIE_BYTES { Ok(()) } else { Err(TooLarge { bytes }) }
}

/// The same for a login that has not happened yet. The outer error is that the key cannot sign.
pub fn would_fit(
    settings: &config::Sentry,
    tokens: &Tokens,
    user: &User,
    now: UnixTime,
) -> Result<Result<(), TooLarge>, CannotSign> {
    let Ok(session) = SessionId::random() else { return Ok(Ok(())) };
    // The longest number that a timeout of ours is written with.
    let claims = claims(settings, user, &session, settings.token.lifetime, now);
    Ok(fits(settings, &claims, &tokens.mint(&claims)?))
}
