//! Authentication and authorization: cookie, token, session, fingerprint, entitlement, in that order.
//!
//! Decides and writes nothing: [`Guard::check`] returns a [`Verdict`]. It knows no HTTP status and no redirect;
//! `proxy` and `sentry` turn verdicts into replies. The only await is the session store's.

pub mod cookie;
pub mod fingerprint;
pub mod keys;
mod ring_provider;
pub mod token;
mod verdict;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, header};

use crate::clock::UnixTime;
use crate::config::{Access, Credentials};
use crate::metrics::Metrics;
use crate::sessions::{Fingerprint, SessionRecord, SessionStore, StoreError};
use cookie::Lookup;
use fingerprint::Fingerprinter;
use token::{Tokens, Verified};

pub use verdict::{Identity, Outcome, Reason, Source, Verdict};

/// Lets the rest of the process use our ring provider for JSON Web Tokens. Harmless when called again.
pub fn install_crypto() {
    ring_provider::install();
}

/// Checks who a request is from and whether they may.
pub struct Guard {
    tokens: Arc<Tokens>,
    cookie_name: String,
    fingerprints: Fingerprinter,
    store: Arc<dyn SessionStore>,
    metrics: Arc<Metrics>,
}

/// What a route asks of whoever comes.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// The `aud` that a token must carry here.
    pub audience: &'a str,
    /// The service that the user must be registered for; `None` on the sign-on host.
    pub service: Option<&'a str>,
    pub access: &'a Access,
    pub credentials: Credentials,
    /// Whether this request keeps the session from idling out.
    pub counts_as_activity: bool,
}

impl Guard {
    pub fn new(
        tokens: Arc<Tokens>,
        cookie_name: String,
        fingerprints: Fingerprinter,
        store: Arc<dyn SessionStore>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { tokens, cookie_name, fingerprints, store, metrics }
    }

    /// The whole chain. Slides the session's expiry in the same round trip that finds it.
    pub async fn check(&self, headers: &HeaderMap, demand: &Demand<'_>, now: UnixTime) -> Verdict {
        let begun = Instant::now();
        let credential = self.credential(headers, demand, now);
        self.metrics.token_duration.observe(begun.elapsed().as_secs_f64());
        let (verified, source) = match credential {
            Ok(credential) => credential,
            Err(reason) => return Verdict::Refused(reason),
        };
        let begun = Instant::now();
        let slide = demand.counts_as_activity.then(|| slide(&verified, now));
        let found = self.store.find(verified.session_key(), slide).await;
        self.metrics.session_duration.observe(begun.elapsed().as_secs_f64());
        let fingerprint = self.fingerprints.of(headers, verified.session_id());
        judge(verified, source, found, fingerprint, demand)
    }

    /// The first half, without a store: a token of this request that verifies and is meant for this place.
    pub fn credential(
        &self,
        headers: &HeaderMap,
        demand: &Demand<'_>,
        now: UnixTime,
    ) -> Result<(Arc<Verified>, Source), Reason> {
        let (token, source) = self.find_token(headers, demand.credentials)?;
        let verified = self.tokens.verify(token, now).map_err(Reason::Token)?;
        if verified.claims().aud != demand.audience {
            return Err(Reason::Token(token::Fault::WrongAudience));
        }
        Ok((verified, source))
    }

    /// A bearer token where the route takes one; else the cookie. Two cookies of our name count as none: one
    /// of them may have been planted by a sibling host.
    fn find_token<'a>(&self, headers: &'a HeaderMap, credentials: Credentials) -> Result<(&'a str, Source), Reason> {
        if credentials.bearer
            && let Some(token) = bearer(headers)
        {
            return Ok((token, Source::Bearer));
        }
        if !credentials.cookie {
            return Err(Reason::NoToken);
        }
        match cookie::find(headers, &self.cookie_name) {
            Lookup::One(token) => Ok((token, Source::Cookie)),
            Lookup::Absent => Err(Reason::NoToken),
            Lookup::Several => Err(Reason::SeveralCookies),
        }
    }

    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    pub fn fingerprints(&self) -> &Fingerprinter {
        &self.fingerprints
    }

    pub fn cookie_name(&self) -> &str {
        &self.cookie_name
    }
}

/// `Authorization: Bearer TOKEN`; the scheme is case-insensitive (RFC 9110 §11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let (field, None) = (fields.next()?, fields.next()) else { return None };
    let (scheme, token) = field.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

/// Whether a request is a program's: it brings a bearer token where one is taken, or nothing else is taken there.
/// Then a refusal is about that token, not about a person's cookie.
pub fn is_by_bearer(headers: &HeaderMap, credentials: Credentials) -> bool {
    credentials.bearer && (!credentials.cookie || bearer(headers).is_some())
}

/// How long the session may idle from now on: its timeout, but never past the token's absolute end.
pub fn slide(verified: &Verified, now: UnixTime) -> Duration {
    let left = UnixTime::from_seconds(verified.claims().exp).since(now);
    verified.idle_timeout().min(left).max(Duration::from_secs(1))
}

/// The second half, once the store has answered. Pure.
fn judge(
    verified: Arc<Verified>,
    source: Source,
    found: Result<Option<SessionRecord>, StoreError>,
    fingerprint: Fingerprint,
    demand: &Demand<'_>,
) -> Verdict {
    let record = match found {
        Err(error) => return Verdict::Refused(Reason::StoreAway(error)),
        Ok(None) => return Verdict::Refused(Reason::NoSession),
        Ok(Some(record)) => record,
    };
    if record.user != verified.claims().sub {
        return Verdict::Refused(Reason::NoSession);
    }
    if record.fingerprint != fingerprint {
        return Verdict::Refused(Reason::OtherBrowser);
    }
    let claims = verified.claims();
    if demand.service.is_some_and(|service| !claims.services.iter().any(|s| s == service)) {
        return Verdict::Refused(Reason::NotRegistered);
    }
    if let Access::Roles(roles) = demand.access
        && !roles.iter().any(|role| claims.roles.contains(role))
    {
        return Verdict::Refused(Reason::MissingRole);
    }
    Verdict::Known(Identity::new(verified, source))
}
