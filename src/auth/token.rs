//! Tokens: minted, verified, cached. A token is a JWT (RFC 7519): it is signed, and readable by anyone.
//!
//! This follows RFC 8725: one algorithm for each key, `kid` looked up in a fixed map, an explicit `typ`, no key or URL
//! taken from a header, no unknown `crit`. A token that was verified is cached under its whole text, so that the
//! signature is not checked again; `exp` and `nbf` are compared on every use.

mod claims;
mod verified;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Header, Validation, decode, decode_header, encode};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde::Deserialize;

use super::fingerprint::CachedFingerprint;
use super::identity_headers::IdentityHeaders;
use super::keys::Keys;
use crate::clock::UnixTime;
use crate::metrics::TokenCacheMetrics;
use crate::sessions::{SessionId, SessionKey};

pub use claims::Claims;
pub use verified::Verified;

/// The `typ` of a session token, and of the short-lived assertion for an application.
const SESSION_TYPE: &str = "session+jwt";
const ASSERTION_TYPE: &str = "assertion+jwt";

/// How far an application's clock may be behind ours.
const CLOCKS_DIFFER_SECONDS: u64 = 30;

/// Maximum bytes of a token. Browsers drop a larger cookie, so no longer token can be ours.
const MAX_TOKEN_BYTES: usize = 4096;

/// Latest `exp` in seconds: the end of the year 9999, after which RFC 3339 can write no date. No token of ours lives so
/// long.
const LATEST_EXPIRY: u64 = 253_402_300_799;

/// Maximum of `sentry.token.lifetime`.
const MAX_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Why a token is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    Malformed,
    UnknownKey,
    BadSignature,
    WrongIssuer,
    WrongAudience,
    Expired,
    /// Its login is older than `sentry.token.lifetime` allows, though `exp` has not come. After a reload, or on another
    /// edge, that may be different.
    Outlived,
    NotYetValid,
}

/// Mints and verifies tokens.
pub struct Tokens {
    keys: Arc<Keys>,
    issuer: String,
    leeway: Duration,
    lifetime: Duration,
    verified: Cache<Box<str>, Arc<Verified>, ByBytes, ahash::RandomState>,
    metrics: TokenCacheMetrics,
}

/// The weight of a cached token: its text twice (key and value), its claims, its identity headers, its cached
/// fingerprint, and the structures that hold them.
#[derive(Clone)]
struct ByBytes;

impl Weighter<Box<str>, Arc<Verified>> for ByBytes {
    fn weight(&self, token: &Box<str>, _: &Arc<Verified>) -> u64 {
        token.len() as u64 * 4 + CachedFingerprint::MAX_BYTES as u64 + 768
    }
}

/// The signing key failed; nothing was issued.
#[derive(Debug)]
pub struct CannotSign(jsonwebtoken::errors::Error);

impl std::fmt::Display for CannotSign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot sign a token: {}", self.0)
    }
}

impl std::error::Error for CannotSign {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

impl Tokens {
    /// `cache_bytes` bounds the memory of remembered tokens.
    pub fn new(
        keys: Arc<Keys>,
        issuer: String,
        leeway: Duration,
        cache_bytes: usize,
        metrics: TokenCacheMetrics,
    ) -> Self {
        let typical = 2560;
        let verified = Cache::with(
            cache_bytes / typical,
            cache_bytes as u64,
            ByBytes,
            ahash::RandomState::new(),
            Default::default(),
        );
        Self { keys, issuer, leeway, lifetime: MAX_LIFETIME, verified, metrics }
    }

    /// Limits the age of logins, also of those from before the configuration set the limit: a shorter lifetime protects
    /// against more than users that the directory has disabled.
    pub fn with_lifetime(self, lifetime: Duration) -> Self {
        Self { lifetime, ..self }
    }

    /// Verifies everything except the audience, which depends on where the token is used.
    pub fn verify(&self, token: &str, now: UnixTime) -> Result<Arc<Verified>, TokenError> {
        let verified = self.authentic(token)?;
        self.check_times(&verified, now)?;
        Ok(verified)
    }

    /// Verifies everything except audience and times: a session that is to be ended must not be spared because a clock
    /// is wrong.
    pub fn authentic(&self, token: &str) -> Result<Arc<Verified>, TokenError> {
        let verified = match self.verified.get(token) {
            Some(verified) => {
                self.metrics.hit.inc();
                verified
            }
            None => {
                self.metrics.miss.inc();
                let verified = Arc::new(self.verify_afresh(token)?);
                self.verified.insert(token.into(), Arc::clone(&verified));
                verified
            }
        };
        Ok(verified)
    }

    /// Returns the session that a token names, if another edge may accept the token and this one cannot verify it: it
    /// was signed with a key that is not known here yet, or no longer. That is enough to end the session, and for
    /// nothing else: only a client that has had a token of the session knows its id.
    pub fn named_unverified(&self, token: &str, now: UnixTime) -> Option<SessionKey> {
        #[derive(Deserialize)]
        struct Name {
            sid: String,
            exp: u64,
        }
        if !matches!(self.authentic(token), Err(TokenError::UnknownKey | TokenError::WrongIssuer)) {
            return None;
        }
        let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
        let Name { sid, exp } = serde_json::from_slice(&payload).ok()?;
        let session = SessionId::parse(&sid).filter(|_| now.seconds() < exp)?;
        Some(session.key())
    }

    /// Returns a token from the cache, whatever its times are: its signature was verified before.
    pub fn remembered(&self, token: &str) -> Option<Arc<Verified>> {
        self.verified.get(token)
    }

    /// A token is valid from `nbf` until before `exp`, each with the leeway for clocks that differ.
    fn check_times(&self, verified: &Verified, now: UnixTime) -> Result<(), TokenError> {
        let leeway = self.leeway.as_secs();
        if now.seconds() >= verified.ends.saturating_add(leeway) {
            let is_over = now.seconds() >= verified.claims.exp.saturating_add(leeway);
            Err(if is_over { TokenError::Expired } else { TokenError::Outlived })
        } else if now.seconds().saturating_add(leeway) < verified.claims.nbf {
            Err(TokenError::NotYetValid)
        } else {
            Ok(())
        }
    }

    fn verify_afresh(&self, token: &str) -> Result<Verified, TokenError> {
        if !is_compact(token) {
            return Err(TokenError::Malformed);
        }
        let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
        // RFC 7515 §4.1.11: a token with a critical extension that is not understood is refused.
        let plain = header.typ.as_deref() == Some(SESSION_TYPE) && header.crit.is_none() && !has_b64(&header);
        if !plain {
            return Err(TokenError::Malformed);
        }
        let key = header.kid.as_deref().and_then(|id| self.keys.verifying(id)).ok_or(TokenError::UnknownKey)?;
        let claims = decode::<Claims>(token, &key.key, &signature_and_issuer(key.algorithm, &self.issuer))
            .map_err(|error| token_error(error.kind()))?
            .claims;
        if claims.exp > LATEST_EXPIRY {
            return Err(TokenError::Malformed);
        }
        let session_id = SessionId::parse(&claims.sid).ok_or(TokenError::Malformed)?;
        let session_key = session_id.key();
        let identity_headers = IdentityHeaders::new(&claims);
        let (token, ends) = (token.into(), self.end_of(&claims));
        let (fingerprint_cache, session_fingerprint) = (CachedFingerprint::default(), OnceLock::new());
        let last_seen = OnceLock::new();
        Ok(Verified {
            token,
            claims,
            session_id,
            session_key,
            identity_headers,
            fingerprint_cache,
            ends,
            session_fingerprint,
            last_seen,
        })
    }

    /// A token is minted anew for each service, and its login is older than that: the older of both times counts.
    fn end_of(&self, claims: &Claims) -> u64 {
        let begun = if claims.auth_time == 0 { claims.iat } else { claims.iat.min(claims.auth_time) };
        claims.exp.min(begun.saturating_add(self.lifetime.as_secs()))
    }

    /// Signs a session token.
    pub fn mint(&self, claims: &Claims) -> Result<String, CannotSign> {
        self.sign(SESSION_TYPE, claims)
    }

    /// Signs an identity assertion for one application, valid for a minute. Its `iat` and `nbf` are a little in the
    /// past: libraries refuse a token whose `iat` or `nbf` is a second ahead of their clock, and most allow no leeway
    /// by default.
    pub fn assertion(&self, claims: &Claims, audience: &str, now: UnixTime) -> Result<String, CannotSign> {
        let issued = now.seconds().saturating_sub(CLOCKS_DIFFER_SECONDS);
        let mut claims = Claims { aud: audience.into(), iat: issued, nbf: issued, ..claims.clone() };
        claims.exp = claims.exp.min(now.seconds() + 60);
        self.sign(ASSERTION_TYPE, &claims)
    }

    fn sign(&self, typ: &str, claims: &Claims) -> Result<String, CannotSign> {
        let signing = self.keys.signing();
        let mut header = Header::new(signing.algorithm);
        header.typ = Some(typ.into());
        header.kid = Some(signing.id.clone());
        encode(&header, claims, &signing.key).map_err(CannotSign)
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }
}

/// Returns whether a token is three parts of base64url and nothing else (RFC 8725bis: a text with any other character
/// is no JWT).
fn is_compact(token: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.';
    token.len() <= MAX_TOKEN_BYTES && token.bytes().all(plain) && token.bytes().filter(|b| *b == b'.').count() == 2
}

/// Returns whether the header has `b64` (RFC 7797), an unencoded payload, which we never issue.
fn has_b64(header: &Header) -> bool {
    header.extras.get::<serde_json::Value>("b64").map(|value| value.is_some()).unwrap_or(true)
}

/// Times are checked by [`Tokens::check_times`], which has our clock; the audience is checked by the guard.
fn signature_and_issuer(algorithm: jsonwebtoken::Algorithm, issuer: &str) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.set_required_spec_claims(&["iss"]);
    validation.set_issuer(&[issuer]);
    validation
}

fn token_error(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidIssuer => TokenError::WrongIssuer,
        // A token with another algorithm than its key's is a forgery like any other.
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm | ErrorKind::InvalidKeyFormat => {
            TokenError::BadSignature
        }
        _ => TokenError::Malformed,
    }
}

impl TokenError {
    pub fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongAudience => "wrong_audience",
            Self::Expired | Self::Outlived => "expired",
            Self::NotYetValid => "not_yet_valid",
        }
    }
}
