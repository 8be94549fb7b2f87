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
use crate::config::{Access, Credentials, OutagePolicy};
use crate::metrics::Metrics;
use crate::sessions::{Fingerprint, Found, SessionKey, SessionRecord, SessionStore, StallRetry, StoreError};
use crate::users::changes::Watch;
use cookie::Lookup;
use evaluate::{Evidence, Request, Standing, judge, refusal};
use fingerprint::Fingerprinter;
use last_access::Recorder;
use outage::RecentlySeen;
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
    pub seen: Arc<RecentlySeen>,
    pub recorder: Recorder,
    /// What has become of users since their tokens were made.
    pub users: Arc<Watch>,
    pub streams: Arc<Streams>,
    /// How often the session of a stream is asked for.
    pub stream_interval: Duration,
}

/// A verdict, and what stands beside it in logs.
pub struct Judged {
    pub verdict: Verdict,
    /// The token of a refusal, where its signature was verified: it names the user. It proves no living session.
    pub refused: Option<Arc<Verified>>,
    pub took: Duration,
}

impl Judged {
    /// The name of the user who was refused.
    pub fn refused_user(&self) -> Option<&str> {
        self.refused.as_ref().map(|verified| verified.claims().name.as_str())
    }
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
    /// What to do while the store gives no answer.
    pub on_outage: OutagePolicy,
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
    pub async fn check(&self, headers: &HeaderMap, demand: &Demand<'_>, now: UnixTime) -> Judged {
        let begun = Instant::now();
        let credential = self.credential(headers, demand, now);
        let looked_at = Instant::now();
        let looked_for = looked_at.duration_since(begun);
        self.metrics.sign_on.token_duration.observe(looked_for.as_secs_f64());
        let (verified, source) = match credential {
            Ok(credential) => credential,
            Err(reason) => {
                let refused = self.refused_token(headers, demand, &reason);
                return Judged { verdict: Verdict::Refused(reason), refused, took: looked_for };
            }
        };
        let fingerprint = self.fingerprints.known(headers, verified.session_id(), verified.seen());
        let state = self.sessions.users.state(&verified.claims().sub);
        let refusal = refusal(verified.claims(), state.as_deref(), demand);
        let request = Request::new(headers, fingerprint, &self.fingerprints);
        let evidence = Evidence { verified, source, request, state, refusal };
        let (verdict, refused) = self.judged(evidence, demand, now).await;
        // One look at the clock ends both.
        let ended = Instant::now();
        self.metrics.sign_on.session_duration.observe(ended.duration_since(looked_at).as_secs_f64());
        Judged { verdict, refused, took: ended.duration_since(begun) }
    }

    /// The token that was refused for this reason, if it is one that we signed: a refusal for its times or its audience
    /// comes after its signature has been verified.
    #[cold]
    fn refused_token(&self, headers: &HeaderMap, demand: &Demand<'_>, reason: &Reason) -> Option<Arc<Verified>> {
        let (token, _) = self.find_token(headers, demand.credentials).ok().filter(|_| reason.is_of_a_user())?;
        self.tokens.remembered(token)
    }

    /// A request that is refused must not keep a session alive: a thief's would keep it from idling out, and a disabled
    /// user's polling browser would too. All that decides but the session itself is known before the store is asked,
    /// and its fingerprint from the first time on that it was found with this token. So a good request still needs one
    /// round trip; the first one of a token, which cannot be told from a thief's, has a second one to slide.
    async fn judged(
        &self,
        evidence: Evidence<'_>,
        demand: &Demand<'_>,
        now: UnixTime,
    ) -> (Verdict, Option<Arc<Verified>>) {
        let verified = &*evidence.verified;
        let slide = demand.counts_as_activity.then(|| slide(verified));
        let is_good = evidence.refusal.is_none() && verified.bound().is_some_and(|bound| evidence.is_of(bound));
        let mut standing = self.standing(verified, slide.filter(|_| is_good), demand, now).await;
        let mut ruling = judge(&evidence, &standing);
        if !is_good && slide.is_some() && ruling.is_ok() && matches!(standing, Standing::Lives(_)) {
            let slid = self.standing(verified, slide, demand, now).await;
            // It may have ended in between. Where nothing is heard, what was heard before holds.
            if matches!(slid, Standing::Lives(_) | Standing::Gone) {
                ruling = judge(&evidence, &slid);
                standing = slid;
            }
        }
        match ruling {
            Ok(assurance) => {
                if let Standing::Lives(record) = &standing {
                    self.note(verified, record, slide, demand, now);
                }
                (Verdict::Known(Identity::new(evidence.verified, evidence.source, assurance, evidence.state)), None)
            }
            Err(reason) => (Verdict::Refused(reason), Some(evidence.verified)),
        }
    }

    async fn standing(
        &self,
        verified: &Verified,
        slide: Option<Duration>,
        demand: &Demand<'_>,
        now: UnixTime,
    ) -> Standing {
        let Sessions { store, checked, .. } = &self.sessions;
        if !checked {
            return Standing::Vouched { assurance: Assurance::Token, fingerprint: None };
        }
        let key = verified.session_key();
        match store.find(key, slide).await {
            Ok(Found::Active(record)) => Standing::Lives(record),
            Ok(Found::Ended | Found::Missing) => {
                self.forget(key);
                Standing::Gone
            }
            Err(error) => match self.unheard(error, verified, demand, now) {
                // Rare, and large.
                Standing::Unknown(error) if error.is_unavailable() => {
                    Box::pin(self.wait(error, verified, slide, demand, now)).await
                }
                standing => standing,
            },
        }
    }

    /// How a session stands after the store has failed.
    fn unheard(&self, error: StoreError, verified: &Verified, demand: &Demand<'_>, now: UnixTime) -> Standing {
        let Sessions { store, seen, .. } = &self.sessions;
        let key = verified.session_key();
        outage::standing(error, store.is_down(key), (key, verified.found().get()), seen, demand, now)
    }

    /// Asks again for as long as the store may only have stalled: a request that waits for half a second is better than
    /// one that is refused. It ends with an answer, or when a policy speaks.
    async fn wait(
        &self,
        mut error: StoreError,
        verified: &Verified,
        slide: Option<Duration>,
        demand: &Demand<'_>,
        now: UnixTime,
    ) -> Standing {
        let (store, key) = (&*self.sessions.store, verified.session_key());
        let stall = StallRetry::new(store, key);
        while stall.pause().await {
            match store.find(key, slide).await {
                Ok(Found::Active(record)) => return Standing::Lives(record),
                Ok(Found::Ended | Found::Missing) => {
                    self.forget(key);
                    return Standing::Gone;
                }
                Err(again) => match self.unheard(again, verified, demand, now) {
                    Standing::Unknown(again) if again.is_unavailable() => error = again,
                    standing => return standing,
                },
            }
        }
        Standing::Unknown(error)
    }

    /// Notes a request that was let in: for an outage, for the record's last access, and for this token's next request.
    fn note(
        &self,
        verified: &Verified,
        record: &SessionRecord,
        slide: Option<Duration>,
        demand: &Demand<'_>,
        now: UnixTime,
    ) {
        let Sessions { seen, recorder, .. } = &self.sessions;
        verified.bind(record.fingerprint);
        if matches!(demand.on_outage, OutagePolicy::Recent { .. }) {
            match verified.found().get() {
                Some(found) => found.again(now),
                None => drop(verified.found().set(seen.remember(verified.session_key(), record.fingerprint, now))),
            }
        }
        if let Some(ttl) = slide {
            recorder.note(verified.session_key(), record, now, ttl);
        }
    }

    /// A login or a redemption has just found or made this session: an outage policy knows it from now on, before its
    /// first request.
    pub fn signed_on(&self, session: &SessionKey, fingerprint: Fingerprint, now: UnixTime) {
        self.sessions.seen.signed_on(session, fingerprint, now);
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

/// How long the session may idle from now on. Not cut to what is left until the token's end, which is looked at on
/// every use anyway: then each session would slide by a time of its own, and no two could share a round trip.
pub fn slide(verified: &Verified) -> Duration {
    verified.idle_timeout().max(Duration::from_secs(1))
}
