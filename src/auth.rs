//! Authentication and authorization: cookie, token, session, fingerprint, entitlement, in that order.
//!
//! Decides and writes nothing: [`Guard::check`] returns a [`Verdict`]. It knows no HTTP status and no redirect;
//! `proxy` and `sentry` turn verdicts into replies. The only await is the session store's.

pub mod cookie;
mod evaluate;
pub mod fingerprint;
mod identity_headers;
pub mod keys;
pub mod last_access;
pub mod outage;
pub mod recent_sessions;
mod ring_provider;
pub mod stream_check;
pub mod streams;
pub mod token;
mod user_agent;
mod verdict;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, header};

use crate::clock::UnixTime;
use crate::config::{Credentials, OutagePolicy};
use crate::metrics::Metrics;
use crate::sessions::{Fingerprint, Found, SessionKey, SessionRecord, SessionStore, StallRetry, StoreError};
use crate::users::changes::Watch;
use cookie::Lookup;
pub use evaluate::Requirement;
use evaluate::{AuthInputs, Request, SessionStatus, evaluate, refusal};
use fingerprint::Fingerprinter;
use last_access::Recorder;
use recent_sessions::RecentSessions;
use streams::Streams;
use token::{Tokens, Verified};

use verdict::is_revoked;
pub use verdict::{Assurance, Identity, Outcome, Reason, Source, Verdict};

/// Lets the rest of the process use our ring provider for JSON Web Tokens. Harmless when called again.
pub fn install_crypto() {
    ring_provider::install();
}

/// Checks who a request is from and whether they may.
pub struct Guard {
    tokens: Arc<Tokens>,
    cookie_name: String,
    fingerprints: Fingerprinter,
    sessions: Sessions,
    metrics: Arc<Metrics>,
}

/// Where the guard learns whether a session lives.
pub struct Sessions {
    pub store: Arc<dyn SessionStore>,
    /// False with `store: none`: the token alone decides.
    pub checked: bool,
    pub seen: Arc<RecentSessions>,
    pub recorder: Recorder,
    /// What has become of users since their tokens were made.
    pub users: Arc<Watch>,
    pub streams: Arc<Streams>,
    /// How often the session of a stream is asked for.
    pub stream_interval: Duration,
}

/// A verdict, and what stands beside it in logs.
pub struct AuthDecision {
    pub verdict: Verdict,
    /// The token of a refusal, where its signature was verified: it names the user. It proves no living session.
    pub refused: Option<Arc<Verified>>,
    pub took: Duration,
}

impl AuthDecision {
    /// The name of the user who was refused.
    pub fn refused_user(&self) -> Option<&str> {
        self.refused.as_ref().map(|verified| verified.claims().name.as_str())
    }
}

impl Guard {
    pub fn new(
        tokens: Arc<Tokens>,
        cookie_name: String,
        fingerprints: Fingerprinter,
        sessions: Sessions,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { tokens, cookie_name, fingerprints, sessions, metrics }
    }

    /// The whole chain. Slides the session's expiry in the same round trip that finds it, and only for who may pass.
    pub async fn check(&self, headers: &HeaderMap, requirement: &Requirement<'_>, now: UnixTime) -> AuthDecision {
        let started = Instant::now();
        let credential = self.credential(headers, requirement, now);
        let token_checked_at = Instant::now();
        let token_time = token_checked_at.duration_since(started);
        self.metrics.sign_on.token_duration.observe(token_time.as_secs_f64());
        let (verified, source) = match credential {
            Ok(credential) => credential,
            Err(reason) => {
                let refused = self.refused_token(headers, requirement, &reason);
                return AuthDecision { verdict: Verdict::Refused(reason), refused, took: token_time };
            }
        };
        let fingerprint = self.fingerprints.of_cached(headers, verified.session_id(), verified.fingerprint_cache());
        let state = self.sessions.users.state(&verified.claims().sub);
        let refusal = refusal(verified.claims(), state.as_deref(), requirement);
        let request = Request::new(headers, fingerprint, &self.fingerprints);
        let inputs = AuthInputs { verified, source, request, state, refusal };
        let (verdict, refused) = self.decide(inputs, requirement, now).await;
        // One look at the clock ends both.
        let ended = Instant::now();
        self.metrics.sign_on.session_duration.observe(ended.duration_since(token_checked_at).as_secs_f64());
        AuthDecision { verdict, refused, took: ended.duration_since(started) }
    }

    /// The token that was refused for this reason, if it is one that we signed: a refusal for its times or its audience
    /// comes after its signature has been verified.
    #[cold]
    fn refused_token(
        &self,
        headers: &HeaderMap,
        requirement: &Requirement<'_>,
        reason: &Reason,
    ) -> Option<Arc<Verified>> {
        let (token, _) = self.find_token(headers, requirement.credentials).ok().filter(|_| reason.names_a_user())?;
        self.tokens.remembered(token)
    }

    /// A request that is refused must not keep a session alive: a thief's would keep it from idling out, and a disabled
    /// user's polling browser would too. All that decides but the session itself is known before the store is asked,
    /// and its fingerprint from the first time on that it was found with this token. So a good request still needs one
    /// round trip; the first one of a token, which cannot be told from a thief's, has a second one to slide.
    async fn decide(
        &self,
        inputs: AuthInputs<'_>,
        requirement: &Requirement<'_>,
        now: UnixTime,
    ) -> (Verdict, Option<Arc<Verified>>) {
        let verified = &*inputs.verified;
        let idle_ttl = requirement.extends_session.then(|| verified.idle_ttl());
        let may_extend = inputs.refusal.is_none()
            && verified.session_fingerprint().is_some_and(|bound| inputs.is_same_browser(bound));
        let mut status = self.session_status(verified, idle_ttl.filter(|_| may_extend), requirement, now).await;
        let mut result = evaluate(&inputs, &status);
        if !may_extend && idle_ttl.is_some() && result.is_ok() && matches!(status, SessionStatus::Active(_)) {
            let extended = self.session_status(verified, idle_ttl, requirement, now).await;
            // It may have ended in between. Where nothing is heard, what was heard before holds.
            if matches!(extended, SessionStatus::Active(_) | SessionStatus::Ended) {
                result = evaluate(&inputs, &extended);
                status = extended;
            }
        }
        match result {
            Ok(assurance) => {
                if let SessionStatus::Active(record) = &status {
                    self.record_admission(verified, record, idle_ttl, requirement, now);
                }
                (Verdict::Allowed(Identity::new(inputs.verified, inputs.source, assurance, inputs.state)), None)
            }
            Err(reason) => (Verdict::Refused(reason), Some(inputs.verified)),
        }
    }

    async fn session_status(
        &self,
        verified: &Verified,
        idle_ttl: Option<Duration>,
        requirement: &Requirement<'_>,
        now: UnixTime,
    ) -> SessionStatus {
        let Sessions { store, checked, .. } = &self.sessions;
        if !checked {
            return SessionStatus::AssumedActive { assurance: Assurance::Token, fingerprint: None };
        }
        let key = verified.session_key();
        match store.find(key, idle_ttl).await {
            Ok(Found::Active(record)) => SessionStatus::Active(record),
            Ok(Found::Ended | Found::Missing) => {
                self.forget(key);
                SessionStatus::Ended
            }
            Err(error) => match self.status_without_store(error, verified, requirement, now) {
                // Rare, and large.
                SessionStatus::Unknown(error) if error.is_unavailable() => {
                    Box::pin(self.wait(error, verified, idle_ttl, requirement, now)).await
                }
                status => status,
            },
        }
    }

    /// How a session stands after the store has failed.
    fn status_without_store(
        &self,
        error: StoreError,
        verified: &Verified,
        requirement: &Requirement<'_>,
        now: UnixTime,
    ) -> SessionStatus {
        let Sessions { store, seen, .. } = &self.sessions;
        let key = verified.session_key();
        outage::session_status(error, store.is_down(key), (key, verified.last_seen().get()), seen, requirement, now)
    }

    /// Asks again for as long as the store may only have stalled: a request that waits for half a second is better than
    /// one that is refused. It ends with an answer, or when a policy speaks.
    async fn wait(
        &self,
        mut error: StoreError,
        verified: &Verified,
        idle_ttl: Option<Duration>,
        requirement: &Requirement<'_>,
        now: UnixTime,
    ) -> SessionStatus {
        let (store, key) = (&*self.sessions.store, verified.session_key());
        let stall = StallRetry::new(store, key);
        while stall.pause().await {
            match store.find(key, idle_ttl).await {
                Ok(Found::Active(record)) => return SessionStatus::Active(record),
                Ok(Found::Ended | Found::Missing) => {
                    self.forget(key);
                    return SessionStatus::Ended;
                }
                Err(again) => match self.status_without_store(again, verified, requirement, now) {
                    SessionStatus::Unknown(again) if again.is_unavailable() => error = again,
                    status => return status,
                },
            }
        }
        SessionStatus::Unknown(error)
    }

    /// Notes a request that was let in: for an outage, for the record's last access, and for this token's next request.
    fn record_admission(
        &self,
        verified: &Verified,
        record: &SessionRecord,
        idle_ttl: Option<Duration>,
        requirement: &Requirement<'_>,
        now: UnixTime,
    ) {
        let Sessions { seen, recorder, .. } = &self.sessions;
        verified.set_session_fingerprint(record.fingerprint);
        if matches!(requirement.on_outage, OutagePolicy::Recent { .. }) {
            match verified.last_seen().get() {
                Some(found) => found.touch(now),
                None => drop(verified.last_seen().set(seen.remember(verified.session_key(), record.fingerprint, now))),
            }
        }
        if let Some(ttl) = idle_ttl {
            recorder.note(verified.session_key(), record, now, ttl);
        }
    }

    /// A login or a redemption has just found or made this session: an outage policy knows it from now on, before its
    /// first request.
    pub fn note_sign_on(&self, session: &SessionKey, fingerprint: Fingerprint, now: UnixTime) {
        self.sessions.seen.note_sign_on(session, fingerprint, now);
    }

    /// False where no session is kept, and a token alone says who may pass.
    pub fn checks_sessions(&self) -> bool {
        self.sessions.checked
    }

    /// Whether the directory has ended the session behind a token.
    pub fn is_revoked(&self, verified: &Verified) -> bool {
        let claims = verified.claims();
        self.sessions.users.state(&claims.sub).is_some_and(|state| is_revoked(&state, claims))
    }

    /// A session has ended, here or elsewhere: no policy may vouch for it any more, and its streams end.
    pub fn forget(&self, session: &SessionKey) {
        self.sessions.seen.forget(session);
        self.sessions.streams.end_session(session);
    }

    /// The first half, without a store: a token of this request that verifies and is meant for this place.
    pub fn credential(
        &self,
        headers: &HeaderMap,
        requirement: &Requirement<'_>,
        now: UnixTime,
    ) -> Result<(Arc<Verified>, Source), Reason> {
        let (token, source) = self.find_token(headers, requirement.credentials)?;
        let verified = self.tokens.verify(token, now).map_err(Reason::Token)?;
        if verified.claims().aud != requirement.audience {
            return Err(Reason::Token(token::TokenError::WrongAudience));
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
