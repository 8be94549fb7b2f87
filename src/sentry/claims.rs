//! The claims of a login, and whether its token fits into a cookie: browsers drop a larger cookie silently, and the
//! sign-in would loop. Used by `login`, and by the command line before a user gets more roles or services.

use std::time::Duration;

use crate::auth::cookie::MAX_COOKIE_BYTES;
use crate::auth::token::{CannotSign, Claims, Tokens};
use crate::clock::UnixTime;
use crate::config;
use crate::sessions::SessionId;
use crate::users::User;

use super::Sentry;

/// Returns the claims of the sign-on host's own token. `idle` is the idle timeout of the session.
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
    /// Bytes of the cookie, including its name.
    pub bytes: usize,
}

impl std::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the sign-in cookie would have {} bytes, and browsers keep {MAX_COOKIE_BYTES}", self.bytes)
    }
}

/// Checks that browsers keep a cookie with this token, and the cookies with the tokens that the user's services get for
/// it. The token of a service has the service's name where this one has the sign-on host's.
pub fn fits(settings: &config::Sentry, claims: &Claims, token: &str) -> Result<(), TooLarge> {
    let audiences = claims.services.iter().map(|service| Sentry::service_audience(settings, service).len());
    let longer = audiences.max().unwrap_or_default().saturating_sub(claims.aud.len());
    // Base64 takes four bytes for three.
    let bytes = settings.cookie.name.len() + 1 + token.len() + (longer * 4).div_ceil(3);
    if bytes <= MAX_COOKIE_BYTES { Ok(()) } else { Err(TooLarge { bytes }) }
}

/// Checks the same for a login that has not happened yet. The outer error is that the key cannot sign.
pub fn would_fit(
    settings: &config::Sentry,
    tokens: &Tokens,
    user: &User,
    now: UnixTime,
) -> Result<Result<(), TooLarge>, CannotSign> {
    let Ok(session) = SessionId::random() else { return Ok(Ok(())) };
    // The longest idle timeout that a token can have.
    let claims = claims(settings, user, &session, settings.token.lifetime, now);
    Ok(fits(settings, &claims, &tokens.mint(&claims)?))
}
