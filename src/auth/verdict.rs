//! The result of an authentication check: an [`Identity`], or the [`Reason`] of a refusal. Each reason is a fact of its
//! own, with its own reply, label and log line.

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
    /// Token and session match, and the route admits this user.
    Allowed(Identity),
    Refused(Reason),
}

/// The user that a request is from. Only the guard makes one, so nothing is forwarded with an identity that was not
/// checked.
#[derive(Clone, Debug)]
pub struct Identity {
    verified: Arc<Verified>,
    source: Source,
    assurance: Assurance,
    /// The directory's state of the user, if it is newer than the token's.
    state: Option<Arc<UserState>>,
}

/// What an identity is based on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assurance {
    /// The store confirmed that the session is active.
    Session,
    /// There is no store (`store: none`).
    Token,
    /// The store is unavailable; this process saw the session active a moment ago.
    OutageRecent,
    /// The store is unavailable, and the token is valid.
    OutageTokenOnly,
}

impl Assurance {
    /// Returns the `reason` label of a request that an outage policy allowed, and `none` for an ordinary one.
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

    /// Returns the services that the user is registered for now.
    pub fn services(&self) -> &[String] {
        self.state.as_ref().map_or(&self.verified.claims().services, |state| &state.services)
    }

    /// Returns the user's roles now.
    pub fn roles(&self) -> &[String] {
        self.state.as_ref().map_or(&self.verified.claims().roles, |state| &state.roles)
    }

    /// Returns name, email and session for an application.
    pub fn identity_headers(&self) -> &IdentityHeaders {
        self.verified.identity_headers()
    }

    /// Returns the user's roles now, as a header value for an application.
    pub fn roles_header(&self) -> HeaderValue {
        self.state
            .as_ref()
            .map_or_else(|| self.identity_headers().roles.clone(), |state| identity_headers::roles(&state.roles))
    }

    /// Returns the token's claims, with services and roles as they are now.
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

/// Clocks of machines that share a directory differ by at most this. Where only timestamps can say whether a login came
/// before a revocation, a login up to this much later counts as before it.
const CLOCKS_DIFFER: Duration = Duration::from_secs(5);

/// Returns whether the directory has ended the session of a token. The directory's own change numbers give the order,
/// whatever the clocks of the machines say; timestamps decide only for tokens that have no number, or a number that
/// this directory has not reached, because an older copy was restored.
pub(super) fn is_revoked(state: &UserState, claims: &Claims) -> bool {
    if state.disabled {
        return true;
    }
    // Zero means unknown, and an absent `auth_time` is zero too.
    if state.ended_formerly > UnixTime::default() && UnixTime::from_seconds(claims.auth_time) <= state.ended_formerly {
        return true;
    }
    match claims.dir {
        Some(known) if known <= state.change => known < state.ended_by,
        _ if state.ended_by == 0 => false,
        _ => UnixTime::from_seconds(claims.auth_time) <= state.ended_before.plus(CLOCKS_DIFFER),
    }
}

/// Returns the entitlement that a user lacks for a service and its access rule, if any.
pub(super) fn missing_entitlement(
    services: &[String],
    roles: &[String],
    service: Option<&str>,
    access: &Access,
) -> Option<Reason> {
    if *access == Access::Deny {
        return Some(Reason::Denied);
    }
    if service.is_some_and(|service| !services.iter().any(|s| s == service)) {
        return Some(Reason::NotRegistered);
    }
    match access {
        Access::Roles(wanted) if !wanted.iter().any(|role| roles.contains(role)) => Some(Reason::MissingRole),
        _ => None,
    }
}

/// Why a request is refused. Clients see the outcome alone; logs and metrics have the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    NoToken,
    /// More than one cookie of our name.
    SeveralCookies,
    Token(TokenError),
    /// The store has no such session: it ended, expired, or never existed.
    NoSession,
    /// The store gave no answer, so it is not known whether the session is active.
    StoreUnavailable(StoreError),
    /// The user was disabled, or their sessions were ended.
    Revoked,
    OtherBrowser,
    NotRegistered,
    MissingRole,
    /// The route admits no client.
    Denied,
}

/// The kinds of reply to a refusal.
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
            Self::NotRegistered | Self::MissingRole | Self::Denied => Outcome::Forbidden,
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
            Self::Denied => "denied",
        }
    }

    /// Returns whether the refusal is about a token that this edge signed, and so about one of our users.
    pub fn names_a_user(&self) -> bool {
        match self {
            Self::NoToken | Self::SeveralCookies | Self::StoreUnavailable(_) | Self::Denied => false,
            Self::Token(error) => {
                matches!(
                    error,
                    TokenError::WrongAudience | TokenError::Expired | TokenError::Outlived | TokenError::NotYetValid
                )
            }
            _ => true,
        }
    }

    /// Returns whether the cookie can never become valid again, so that the browser should delete it. It is kept after
    /// a failure of ours, if it may be valid in the browser that it was made for, and if another clock, a reload or
    /// another edge may accept it: for example a key that is not known here yet, or the token of an edge whose clock is
    /// ahead.
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
