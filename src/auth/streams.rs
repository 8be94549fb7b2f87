//! Streams: requests that last, such as WebSockets, event streams and long bodies, while somebody watches over them.
//!
//! A request is checked when it begins; a stream outlives that moment. It stands here from when it is known to be
//! one until it ends, with what keeps it open. `proxy` puts it here and says when bytes move; `watch` looks at it and
//! says when it is over; `proxy` then cuts it. Nothing here waits or asks a store.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::oneshot;

use super::token::{Fault, Verified};
use super::verdict::{Identity, Reason, is_revoked, lacks};
use crate::clock::UnixTime;
use crate::config::Access;
use crate::sessions::SessionKey;
use crate::users::UserState;

/// Locks that streams are spread over, by session. A power of two.
const SHARDS: usize = 16;

/// Every stream that is open.
pub struct Streams {
    shards: [Mutex<Shard>; SHARDS],
    hashes: ahash::RandomState,
    open: AtomicUsize,
    /// The same for people to see.
    gauge: IntGauge,
}

/// By session, so that a logout finds its own without looking at all others.
type Shard = HashMap<SessionKey, Vec<Arc<Stream>>, ahash::RandomState>;

/// What a stream's route asks of whoever has it open.
#[derive(Clone, Debug)]
pub struct Terms {
    pub service: Arc<str>,
    pub access: Access,
    /// Whether bytes that move keep the session from idling out.
    pub counts_as_activity: bool,
}

/// One of them.
pub struct Stream {
    pub(super) verified: Arc<Verified>,
    /// When the session began.
    begun: UnixTime,
    terms: Terms,
    /// Whether bytes moved since the last look.
    moved: AtomicBool,
    /// Milliseconds; 0 before the first look, which is therefore due at once: a logout that came between the
    /// request's check and this stream's registration is seen then.
    looked_at: AtomicU64,
    over: OnceLock<Reason>,
    /// Taken when the stream is told to end.
    cut: Mutex<Option<oneshot::Sender<()>>>,
}

/// A stream for as long as it is open; dropped when it has ended, in whatever way.
pub struct OpenStream {
    streams: Arc<Streams>,
    stream: Arc<Stream>,
}

impl Streams {
    pub fn new(gauge: IntGauge) -> Self {
        let hashes = ahash::RandomState::new();
        let shards = std::array::from_fn(|_| Mutex::new(Shard::with_hasher(hashes.clone())));
        Self { shards, hashes, open: AtomicUsize::new(0), gauge }
    }

    /// Begins to watch; `None` when `most` are watched already. What comes back beside the stream resolves when the
    /// stream is to end.
    pub fn open(
        self: &Arc<Self>,
        identity: &Identity,
        terms: Terms,
        most: usize,
    ) -> Option<(OpenStream, oneshot::Receiver<()>)> {
        if self.open.fetch_add(1, Ordering::AcqRel) >= most {
            self.open.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        self.gauge.inc();
        let (cut, is_cut) = oneshot::channel();
        let stream = Arc::new(Stream {
            verified: identity.verified_token(),
            begun: identity.begun(),
            terms,
            moved: AtomicBool::new(false),
            looked_at: AtomicU64::new(0),
            over: OnceLock::new(),
            cut: Mutex::new(Some(cut)),
        });
        self.put(&stream);
        Some((OpenStream { streams: Arc::clone(self), stream }, is_cut))
    }

    fn shard(&self, session: &SessionKey) -> std::sync::MutexGuard<'_, Shard> {
        let at = self.hashes.hash_one(session) as usize % SHARDS;
        // Nothing panics while it holds the lock.
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, stream: &Arc<Stream>) {
        let session = stream.verified.session_key();
        let mut shard = self.shard(session);
        match shard.get_mut(session) {
            Some(of_session) => of_session.push(Arc::clone(stream)),
            None => drop(shard.insert(session.clone(), vec![Arc::clone(stream)])),
        }
    }

    fn remove(&self, stream: &Arc<Stream>) {
        let session = stream.verified.session_key();
        let mut shard = self.shard(session);
        if let Some(of_session) = shard.get_mut(session) {
            if let Some(at) = of_session.iter().position(|other| Arc::ptr_eq(other, stream)) {
                of_session.swap_remove(at);
            }
            if of_session.is_empty() {
                shard.remove(session);
            }
        }
        drop(shard);
        self.open.fetch_sub(1, Ordering::AcqRel);
        self.gauge.dec();
    }

    /// A session has ended: so do its streams.
    pub fn end_session(&self, session: &SessionKey) {
        for stream in self.shard(session).get(session).into_iter().flatten() {
            stream.end(Reason::NoSession);
        }
    }

    /// Shows every stream to `look`, and lets others run between one lock's share and the next.
    pub(super) async fn each(&self, mut look: impl FnMut(&Arc<Stream>)) {
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).values().flatten().for_each(&mut look);
            tokio::task::yield_now().await;
        }
    }
}

impl Stream {
    /// Why it may not go on, as far as can be said without a store. `state` is the directory's latest word on its user,
    /// where that differs from the token's.
    pub(super) fn is_over(&self, state: Option<&UserState>, now: UnixTime) -> Option<Reason> {
        let claims = self.verified.claims();
        if now >= UnixTime::from_seconds(claims.exp) {
            return Some(Reason::Token(Fault::Expired));
        }
        let state = state?;
        if is_revoked(state, self.begun) {
            return Some(Reason::Revoked);
        }
        lacks(&state.services, &state.roles, Some(&self.terms.service), &self.terms.access)
    }

    /// Whether its session is to be asked for again.
    pub(super) fn is_due(&self, interval: Duration, now: UnixTime) -> bool {
        let last = UnixTime::from_millis(self.looked_at.load(Ordering::Relaxed));
        // A clock that was set back must not put the next look off.
        now < last || now.since(last) >= interval
    }

    pub(super) fn looked_at(&self, now: UnixTime) {
        self.looked_at.store(now.millis(), Ordering::Relaxed);
    }

    /// Whether somebody was active since this was last asked, if that counts here.
    pub(super) fn take_activity(&self) -> bool {
        self.moved.swap(false, Ordering::Relaxed) && self.terms.counts_as_activity
    }

    pub(super) fn note_activity(&self) {
        // Read first: a line of memory that only few write to is cheap for all who read it.
        if !self.moved.load(Ordering::Relaxed) {
            self.moved.store(true, Ordering::Relaxed);
        }
    }

    /// Has it cut. The first reason counts.
    pub(super) fn end(&self, reason: Reason) {
        if self.over.set(reason).is_ok()
            && let Some(cut) = self.cut.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            // Nobody listens when it has ended by itself.
            cut.send(()).ok();
        }
    }
}

impl OpenStream {
    /// Bytes passed, in either direction.
    pub fn moved(&self) {
        self.stream.note_activity();
    }

    /// Why it was told to end, if it was.
    pub fn over(&self) -> Option<&Reason> {
        self.stream.over.get()
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.streams.remove(&self.stream);
    }
}
