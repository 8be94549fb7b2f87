//! Watching over streams: whether each may go on, asked again and again while it is open.
//!
//! What this process knows by itself, the token's end, the certificate's and the directory's word, is looked at on every
//! tick; after a reload each stream is held against the new configuration, as a new request would be. The store
//! is asked for each session once in an interval, and with a slide when bytes have moved. A store that gives no answer
//! ends no stream, whatever the policy: it would tear down every WebSocket for its own fault; it is asked again at the
//! next tick. `server` ticks.

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

/// Look-ups of streams under way at once, so that they share batches and leave room for requests.
const CONCURRENT_LOOKUPS: usize = 64;

/// Streams that are held against a new configuration without a pause for others: with other keys each session's token is
/// verified anew, which may take 0.1 ms.
const RECHECKS_PER_YIELD: usize = 16;

/// What a tick has found.
pub struct SweepResult {
    /// Streams whose sessions are to be asked for.
    pub due: Vec<Arc<Stream>>,
    /// Those that were not held against the configuration of the day.
    pub stale: Vec<Arc<Stream>>,
}

impl Guard {
    /// Takes a stream under watch. The second part resolves when it is to end.
    pub fn register_stream(
        &self,
        identity: &Identity,
        opening: NewStream,
    ) -> Result<(OpenStream, oneshot::Receiver<()>), StreamsFull> {
        self.sessions.streams.open(identity, opening)
    }

    /// The same of a public route, for a client.
    pub fn register_public_stream(
        &self,
        client: ClientPrefix,
        opening: NewStream,
    ) -> Result<(OpenStream, oneshot::Receiver<()>), StreamsFull> {
        self.sessions.streams.open_public(client, opening)
    }

    /// When a request of a public route is a stream.
    pub fn public_stream_interval(&self) -> Duration {
        self.sessions.stream_interval
    }

    /// How often the session behind a token is asked for. A session that idles out sooner than that is asked for
    /// sooner, or a stream's bytes would come too late to keep it.
    pub fn stream_interval(&self, identity: &Identity) -> Duration {
        interval(self.sessions.stream_interval, identity.verified().idle_timeout())
    }

    /// Ends what is over, without asking anybody. `generation` is that of the configuration of the day.
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

    /// Why a new request of this session would be refused, as far as can be said without its fields and the store.
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

    /// Asks for the sessions of these streams, some at a time, and ends those whose session is gone.
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
        // Until the last ones have their answer.
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
            // A session of that id, but another's.
            Ok(Found::Active(_)) => stream.end(EndReason::Refused(Reason::NoSession)),
            Ok(Found::Ended | Found::Missing) => self.forget(key),
            Err(_) if idle_ttl.is_some() => stream.note_activity(),
            Err(_) => {}
        }
    }
}

/// Holds streams against the configuration of the day, and ends those that it does not let in.
pub async fn recheck(stale: Vec<Arc<Stream>>, clock: &Clock) {
    for some in stale.chunks(RECHECKS_PER_YIELD) {
        some.iter().for_each(|stream| stream.recheck(clock.now()));
        tokio::task::yield_now().await;
    }
}

/// Three looks within an idle timeout, so that one may be late.
fn interval(configured: Duration, idle_timeout: Duration) -> Duration {
    configured.min(idle_timeout / 3)
}
