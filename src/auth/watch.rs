//! Watching over streams: whether each may go on, asked again and again while it is open.
//!
//! What this process knows by itself, the token's end and the directory's word, is looked at on every tick. The store
//! is asked for each session once in an interval, and with a slide when bytes have moved. A store that gives no answer
//! ends no stream, whatever the policy: it would tear down every WebSocket for its own fault; it is asked again at the
//! next tick. `server` ticks.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use super::streams::{OpenStream, Stream, Terms};
use super::verdict::{Identity, Reason};
use super::{Guard, Sessions, slide};
use crate::clock::{Clock, UnixTime};
use crate::sessions::Found;

/// Look-ups of streams under way at once, so that they share batches and leave room for requests.
const AT_ONCE: usize = 64;

impl Guard {
    /// Takes a stream under watch; `None` when there are `most` already. The second part resolves when it is to end.
    pub fn watch(&self, identity: &Identity, terms: Terms, most: usize) -> Option<(OpenStream, oneshot::Receiver<()>)> {
        self.sessions.streams.open(identity, terms, most)
    }

    /// How often the session behind a token is asked for. A session that idles out sooner than that is asked for
    /// sooner, or a stream's bytes would come too late to keep it.
    pub fn stream_interval(&self, identity: &Identity) -> Duration {
        interval(self.sessions.stream_interval, identity.verified().idle_timeout())
    }

    /// Ends what is over, without asking anybody. Answers the streams whose sessions are to be asked for.
    pub async fn sweep(&self, now: UnixTime) -> Vec<Arc<Stream>> {
        let Sessions { streams, users, checked, stream_interval, .. } = &self.sessions;
        let mut due = Vec::new();
        let look = |stream: &Arc<Stream>| {
            let claims = stream.verified.claims();
            if let Some(reason) = stream.is_over(users.state(&claims.sub).as_deref(), now) {
                stream.end(reason);
            } else if *checked && stream.is_due(interval(*stream_interval, stream.verified.idle_timeout()), now) {
                due.push(Arc::clone(stream));
            }
        };
        streams.each(look).await;
        due
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
        let (verified, key) = (&stream.verified, stream.verified.session_key());
        let slide = stream.take_activity().then(|| slide(verified));
        match self.sessions.store.find(key, slide).await {
            Ok(Found::Lives(record)) if record.user == verified.claims().sub => {
                stream.looked_at(now);
                if let Some(ttl) = slide {
                    self.sessions.recorder.note(key, &record, now, ttl);
                }
            }
            // A session of that id, but another's.
            Ok(Found::Lives(_)) => stream.end(Reason::NoSession),
            Ok(Found::Ended | Found::Missing) => self.forget(key),
            Err(_) if slide.is_some() => stream.note_activity(),
            Err(_) => {}
        }
    }
}

/// Three looks within an idle timeout, so that one may be late.
fn interval(configured: Duration, idle_timeout: Duration) -> Duration {
    configured.min(idle_timeout / 3)
}
