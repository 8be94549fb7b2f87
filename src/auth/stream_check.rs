//! Checks streams while they are open: may each of them continue?
//!
//! What this process knows by itself (expiry of the token and of the client certificate, changes in the user directory)
//! is checked on every tick; after a reload each stream is checked against the new configuration, as a new request
//! would be. The store is queried once per interval for each session, and the session is extended if bytes have moved.
//! A store that gives no answer ends no stream, whatever the outage policy: it would close every WebSocket because of
//! its own failure. The look-up is repeated at the next tick. `server` runs the ticks.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use super::streams::{EndReason, NewStream, OpenStream, Stream, StreamsFull};
use super::token::Verified;
use super::verdict::{Identity, Reason, Source, is_revoked, missing_entitlement};
use super::{Guard, Requirement, Sessions};
use crate::client_prefix::ClientPrefix;
use crate::clock::{Clock, UnixTime};
use crate::config::Access;
use crate::sessions::Found;

/// Number of concurrent look-ups for streams, so that they share batches and leave room for requests.
const CONCURRENT_LOOKUPS: usize = 64;

/// Number of streams that are checked against a new configuration before the task yields: with other keys the token of
/// each session is verified again, which may take 0.1 ms.
const RECHECKS_PER_YIELD: usize = 16;

/// What a sweep has found.
pub struct SweepResult {
    /// Streams whose sessions are due for a look-up.
    pub due: Vec<Arc<Stream>>,
    /// Streams that were not checked against the current configuration yet.
    pub stale: Vec<Arc<Stream>>,
}

impl Guard {
    /// Registers a stream of a signed-in user. The receiver resolves when the stream has to end.
    pub fn register_stream(
        &self,
        identity: &Identity,
        opening: NewStream,
    ) -> Result<(OpenStream, oneshot::Receiver<()>), StreamsFull> {
        self.sessions.streams.open(identity, opening)
    }

    /// Registers a stream of a public route for a client.
    pub fn register_public_stream(
        &self,
        client: ClientPrefix,
        opening: NewStream,
    ) -> Result<(OpenStream, oneshot::Receiver<()>), StreamsFull> {
        self.sessions.streams.open_public(client, opening)
    }

    /// Returns after which time a request of a public route counts as a stream.
    pub fn public_stream_interval(&self) -> Duration {
        self.sessions.stream_interval
    }

    /// Returns how often the session of an identity is looked up. A session with a short idle timeout is looked up more
    /// often, or the bytes of a stream would be seen too late to extend it.
    pub fn stream_interval(&self, identity: &Identity) -> Duration {
        interval(self.sessions.stream_interval, identity.verified().idle_timeout())
    }

    /// Ends the streams that have to end, as far as that is known without the store. `generation` is the number of the
    /// current configuration.
    pub async fn sweep(&self, generation: u64, now: UnixTime) -> SweepResult {
        let Sessions { streams, users, checked, stream_interval, .. } = &self.sessions;
        let (mut due, mut stale) = (Vec::new(), Vec::new());
        let look = |stream: &Arc<Stream>| {
            let verified = stream.session.as_ref().map(|session| &session.verified);
            let state = verified.and_then(|verified| users.state(&verified.claims().sub));
            if let Some(reason) = stream.end_reason(state.as_deref(), now) {
                stream.end(reason);
                return;
            }
            if stream.is_stale(generation) {
                stale.push(Arc::clone(stream));
            }
            let interval = verified.map(|verified| interval(*stream_interval, verified.idle_timeout()));
            if *checked && interval.is_some_and(|interval| stream.is_due(interval, now)) {
                due.push(Arc::clone(stream));
            }
        };
        streams.each(look).await;
        SweepResult { due, stale }
    }

    /// Returns why a new request of this session would be refused, as far as that is known without its header fields
    /// and the store.
    pub fn would_refuse(&self, identity: &Identity, requirement: &Requirement<'_>, now: UnixTime) -> Option<Reason> {
        let verified: &Verified = identity.verified();
        match self.tokens.verify(verified.token(), now) {
            Ok(again) if again.claims().aud == requirement.audience => {}
            Ok(_) => return Some(Reason::Token(super::token::TokenError::WrongAudience)),
            Err(error) => return Some(Reason::Token(error)),
        }
        let claims = verified.claims();
        let state = self.sessions.users.state(&claims.sub);
        if state.as_ref().is_some_and(|state| is_revoked(state, claims)) {
            return Some(Reason::Revoked);
        }
        if *requirement.access == Access::Public {
            return None;
        }
        let credentials = requirement.credentials;
        let taken = if identity.source() == Source::Bearer { credentials.bearer } else { credentials.cookie };
        if !taken {
            return Some(Reason::NoToken);
        }
        let (services, roles) =
            state.as_ref().map_or((&claims.services, &claims.roles), |state| (&state.services, &state.roles));
        missing_entitlement(services, roles, requirement.service, requirement.access)
    }

    /// Looks up the sessions of these streams, a limited number at a time, and ends the streams whose session has
    /// ended.
    pub async fn check_sessions(self: Arc<Self>, due: Vec<Arc<Stream>>, clock: Clock) {
        let places = Arc::new(Semaphore::new(CONCURRENT_LOOKUPS));
        for stream in due {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let (guard, now) = (Arc::clone(&self), clock.now());
            tokio::spawn(async move {
                guard.check_session(&stream, now).await;
                drop(place);
            });
        }
        // Wait until the last look-ups are complete.
        places.acquire_many(CONCURRENT_LOOKUPS as u32).await.ok();
    }

    pub(super) async fn check_session(&self, stream: &Stream, now: UnixTime) {
        let Some(session) = &stream.session else { return };
        let (verified, key) = (&session.verified, session.verified.session_key());
        let idle_ttl = stream.take_activity().then(|| verified.idle_ttl());
        match self.sessions.store.find(key, idle_ttl).await {
            Ok(Found::Active(record)) if record.user == verified.claims().sub => {
                stream.checked_at(now);
                if let Some(ttl) = idle_ttl {
                    self.sessions.recorder.note(key, &record, now, ttl);
                }
            }
            // The session of that id belongs to another user.
            Ok(Found::Active(_)) => stream.end(EndReason::Refused(Reason::NoSession)),
            Ok(Found::Ended | Found::Missing) => self.forget(key),
            Err(_) if idle_ttl.is_some() => stream.note_activity(),
            Err(_) => {}
        }
    }
}

/// Checks streams against the current configuration, and ends those that it does not admit.
pub async fn recheck(stale: Vec<Arc<Stream>>, clock: &Clock) {
    for some in stale.chunks(RECHECKS_PER_YIELD) {
        some.iter().for_each(|stream| stream.recheck(clock.now()));
        tokio::task::yield_now().await;
    }
}

/// Three look-ups within an idle timeout, so that one of them may be late.
fn interval(configured: Duration, idle_timeout: Duration) -> Duration {
    configured.min(idle_timeout / 3)
}
