//! What the guard answers: an [`Identity`], or the [`Reason`] why not. Each reason is a fact of its own, with
//! its own reply, label and log line.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::identity_headers::{self, IdentityHeaders};
use super::token::{Claims, TokenError, Verified};
use crate::clock::UnixTime;
use crate::config::Access;
use crate::sessions::StoreError;
use crate::users::UserState;

#[derive(Debug)]
pub enum Verdict {
    /// Token and session agree, and the route admits this user.
    Allowed(Identity),
    Refused(Reason),
}

/// Who the request is from. Only the guard makes one, so nothing is forwarded as somebody without a check.
#[derive(Clone, Debug)]
pub struct Identity {
    verified: Arc<Verified>,
    source: Source,
    assurance: Assurance,
    /// The directory's word, where it is newer than the token's.
    state: Option<Arc<UserState>>,
}

/// What stands behind an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assurance {
    /// The store said that the session lives.
    Session,
    /// There is no store (`store: none`).
    Token,
    /// The store is away; this process saw the session live a moment ago.
    OutageRecent,
    /// The store is away, and the token is good.
    OutageTokenOnly,
}

impl Assurance {
    /// The `reason` of a pass that an outage policy granted; `none` of an ordinary one.
    pub fn label(self) -> &'static str {
        match self {
            Self::Session | Self::Token => "none",
            Self::OutageRecent => "outage_recent",
            Self::OutageTokenOnly => "outage_token_only",
        }
    }
}

/// Where the token was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Cookie,
    Bearer,
}

impl Identity {
    pub(super) fn new(
        verified: Arc<Verified>,
        source: Source,
        assurance: Assurance,
        state: Option<Arc<UserState>>,
    ) -> Self {
        Self { verified, source, assurance, state }
    }

    /// What the user is registered for, as of now.
    pub fn services(&self) -> &[String] {
        self.state.as_ref().map_or(&self.verified.claims().services, |state| &state.services)
    }

    /// The user's roles, as of now.
    pub fn roles(&self) -> &[String] {
        self.state.as_ref().map_or(&self.verified.claims().roles, |state| &state.roles)
    }

    /// Name and email for an application.
    pub fn identity_headers(&self) -> &IdentityHeaders {
        self.verified.identity_headers()
    }

    /// The user's roles, as of now, for an application.
    pub fn roles_header(&self) -> HeaderValue {
        self.state
            .as_ref()
            .map_or_else(|| self.identity_headers().roles.clone(), |state| identity_headers::roles(&state.roles))
    }

    /// The token's claims with services and roles as of now.
    pub fn claims(&self) -> Claims {
        Claims { services: self.services().to_vec(), roles: self.roles().to_vec(), ..self.verified.claims().clone() }
    }

    pub fn assurance(&self) -> Assurance {
        self.assurance
    }

    pub fn verified(&self) -> &Verified {
        &self.verified
    }

    pub(super) fn verified_token(&self) -> Arc<Verified> {
        Arc::clone(&self.verified)
    }

    pub fn source(&self) -> Source {
        self.source
    }
}

/// Clocks of machines that share a directory differ by that much at most. Where only moments tell whether a login came
/// before an end, it did if it came this little after it.
const CLOCKS_DIFFER: Duration = Duration::from_secs(5);

/// Whether a token's session is not to live on, by the directory's word. The directory's own numbers tell what came
/// after what, whatever the clocks of the machines say; moments decide only for tokens that have no number, or one that
/// this directory has not come to, because an older copy was put in its place.
pub(super) fn is_revoked(state: &UserState, claims: &Claims) -> bool {
    if state.disabled {
        return true;
    }
    // Nothing is known of zero, and an `auth_time` that is absent is zero too.
    if state.ended_formerly > UnixTime::default() && UnixTime::from_seconds(claims.auth_time) <= state.ended_formerly {
        return true;
    }
    match claims.dir {
        Some(known) if known <= state.change => known < state.ended_by,
        _ if state.ended_by == 0 => false,
        _ => UnixTime::from_seconds(claims.auth_time) <= state.ended_before.plus(CLOCKS_DIFFER),
    }
}

/// What a user is short of, where somebody must be registered and have one of some roles.
pub(super) fn missing_entitlement(
    services: &[String],
    roles: &[String],
    service: Option<&str>,
    access: &Access,
) -> Option<Reason> {
    if service.is_some_and(|service| !services.iter().any(|s| s == service)) {
        return Some(Reason::NotRegistered);
    }
    match access {
        Access::Roles(wanted) if !wanted.iter().any(|role| roles.contains(role)) => Some(Reason::MissingRole),
        _ => None,
    }
}

/// Why a request may not pass. Stays in the house: clients learn the outcome, logs and metrics the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    NoToken,
    /// More than one cookie of our name.
    SeveralCookies,
    Token(TokenError),
    /// The store knows no such session: it ended, idled out, or was never here.
    NoSession,
    /// The store gave no answer; whether the session lives is not known.
    StoreUnavailable(StoreError),
    /// The user was disabled, or their sessions were ended.
    Revoked,
    OtherBrowser,
    NotRegistered,
    MissingRole,
}

/// The kinds of reply that a refusal leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    LoginRequired,
    Forbidden,
    Unavailable,
}

impl Outcome {
    pub fn label(self) -> &'static str {
        match self {
            Self::LoginRequired => "login_required",
            Self::Forbidden => "forbidden",
            Self::Unavailable => "unavailable",
        }
    }
}

impl Reason {
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::NotRegistered | Self::MissingRole => Outcome::Forbidden,
            Self::StoreUnavailable(_) => Outcome::Unavailable,
            _ => Outcome::LoginRequired,
        }
    }

    pub fn label(&self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::SeveralCookies => "several_cookies",
            Self::Token(error) => error.label(),
            Self::NoSession => "no_session",
            Self::StoreUnavailable(_) => "store_away",
            Self::Revoked => "revoked",
            Self::OtherBrowser => "fingerprint",
            Self::NotRegistered => "not_registered",
            Self::MissingRole => "missing_role",
        }
    }

    /// Whether a token that we signed led here, so that a user of ours stands behind it.
    pub fn names_a_user(&self) -> bool {
        match self {
            Self::NoToken | Self::SeveralCookies | Self::StoreUnavailable(_) => false,
            Self::Token(error) => {
                matches!(
                    error,
                    TokenError::WrongAudience | TokenError::Expired | TokenError::Outlived | TokenError::NotYetValid
                )
            }
            _ => true,
        }
    }

    /// Whether the cookie that led here can never be good again, so that the browser should forget it. Not after a failure
    /// of ours, not when it may be good in the browser that it was made for, and not where another clock, a reload or
    /// another edge may find it good: a key that is not known here yet, a token of an edge whose clock is ahead.
    pub fn invalidates_cookie(&self) -> bool {
        match self {
            Self::Token(error) => {
                matches!(error, TokenError::Malformed | TokenError::BadSignature | TokenError::Expired)
            }
            Self::NoSession | Self::Revoked => true,
            _ => false,
        }
    }
}
