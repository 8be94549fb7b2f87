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

use super::streams::{Full, OpenStream, Opening, Over, Stream};
use super::token::Verified;
use super::verdict::{Identity, Reason, Source, is_revoked, lacks};
use super::{Demand, Guard, Sessions, slide};
use crate::client_prefix::ClientPrefix;
use crate::clock::{Clock, UnixTime};
use crate::config::Access;
use crate::sessions::Found;

/// Look-ups of streams under way at once, so that they share batches and leave room for requests.
const AT_ONCE: usize = 64;

/// Streams that are held against a new configuration without a pause for others: with other keys each session's token is
/// verified anew, which may take 0.1 ms.
const WITHOUT_PAUSE: usize = 16;

/// What a tick has found.
pub struct Swept {
    /// Streams whose sessions are to be asked for.
    pub due: Vec<Arc<Stream>>,
    /// Those that were not held against the configuration of the day.
    pub stale: Vec<Arc<Stream>>,
}

impl Guard {
    /// Takes a stream under watch. The second part resolves when it is to end.
    pub fn watch(&self, identity: &Identity, opening: Opening) -> Result<(OpenStream, oneshot::Receiver<()>), Full> {
        self.sessions.streams.open(identity, opening)
    }

    /// The same of a public route, for a client.
    pub fn watch_public(
        &self,
        client: ClientPrefix,
        opening: Opening,
    ) -> Result<(OpenStream, oneshot::Receiver<()>), Full> {
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
    pub async fn sweep(&self, generation: u64, now: UnixTime) -> Swept {
        let Sessions { streams, users, checked, stream_interval, .. } = &self.sessions;
        let (mut due, mut stale) = (Vec::new(), Vec::new());
        let look = |stream: &Arc<Stream>| {
            let verified = stream.session.as_ref().map(|session| &session.verified);
            let state = verified.and_then(|verified| users.state(&verified.claims().sub));
            if let Some(over) = stream.is_over(state.as_deref(), now) {
                stream.end(over);
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
        Swept { due, stale }
    }

    /// Why a new request of this session would be refused, as far as can be said without its fields and the store.
    pub fn refuses(&self, identity: &Identity, demand: &Demand<'_>, now: UnixTime) -> Option<Reason> {
        let verified: &Verified = identity.verified();
        match self.tokens.verify(verified.token(), now) {
            Ok(again) if again.claims().aud == demand.audience => {}
            Ok(_) => return Some(Reason::Token(super::token::Fault::WrongAudience)),
            Err(fault) => return Some(Reason::Token(fault)),
        }
        let claims = verified.claims();
        let state = self.sessions.users.state(&claims.sub);
        if state.as_ref().is_some_and(|state| is_revoked(state, claims)) {
            return Some(Reason::Revoked);
        }
        if *demand.access == Access::Public {
            return None;
        }
        let credentials = demand.credentials;
        let taken = if identity.source() == Source::Bearer { credentials.bearer } else { credentials.cookie };
        if !taken {
            return Some(Reason::NoToken);
        }
        let (services, roles) =
            state.as_ref().map_or((&claims.services, &claims.roles), |state| (&state.services, &state.roles));
        lacks(services, roles, demand.service, demand.access)
    }

    /// Asks for the sessions of these streams, some at a time, and ends those whose session is gone.
    pub async fn look_at_all(self: Arc<Self>, due: Vec<Arc<Stream>>, clock: Clock) {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        for stream in due {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let (guard, now) = (Arc::clone(&self), clock.now());
            tokio::spawn(async move {
                guard.look_at(&stream, now).await;
                drop(place);
            });
        }
        // Until the last ones have their answer.
        places.acquire_many(AT_ONCE as u32).await.ok();
    }

    pub(super) async fn look_at(&self, stream: &Stream, now: UnixTime) {
        let Some(session) = &stream.session else { return };
        let (verified, key) = (&session.verified, session.verified.session_key());
        let slide = stream.take_activity().then(|| slide(verified));
        match self.sessions.store.find(key, slide).await {
            Ok(Found::Active(record)) if record.user == verified.claims().sub => {
                stream.looked_at(now);
                if let Some(ttl) = slide {
                    self.sessions.recorder.note(key, &record, now, ttl);
                }
            }
            // A session of that id, but another's.
            Ok(Found::Active(_)) => stream.end(Over::Refused(Reason::NoSession)),
            Ok(Found::Ended | Found::Missing) => self.forget(key),
            Err(_) if slide.is_some() => stream.note_activity(),
            Err(_) => {}
        }
    }
}

/// Holds streams against the configuration of the day, and ends those that it does not let in.
pub async fn hold_again(stale: Vec<Arc<Stream>>, clock: &Clock) {
    for some in stale.chunks(WITHOUT_PAUSE) {
        some.iter().for_each(|stream| stream.hold_again(clock.now()));
        tokio::task::yield_now().await;
    }
}

/// Three looks within an idle timeout, so that one may be late.
fn interval(configured: Duration, idle_timeout: Duration) -> Duration {
    configured.min(idle_timeout / 3)
}
