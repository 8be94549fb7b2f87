//! Streams: requests that last, such as WebSockets, event streams and long bodies, while somebody watches over them.
//!
//! A request is checked when it begins; a stream outlives that moment. It stands here from when it is known to be
//! one until it ends, with what keeps it open. `proxy` puts it here and says when bytes move; `watch` looks at it and
//! says when it is over; `proxy` then cuts it. Nothing here waits or asks a store.

mod shares;
mod terms;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::oneshot;

use super::token::{TokenError, Verified};
use super::verdict::{Identity, Reason, is_revoked, missing_entitlement};
use crate::client_prefix::ClientPrefix;
use crate::clock::UnixTime;
use crate::config::Access;
use crate::sessions::SessionKey;
use crate::users::UserState;
use shares::{Holder, Share, Shares};
pub use terms::{Admission, EndReason, NewStream, StreamsFull, Terms};

/// Locks that streams are spread over, by holder. A power of two.
const SHARDS: usize = 16;

/// Every stream that is open.
pub struct Streams {
    shards: [Mutex<Shard>; SHARDS],
    hashes: ahash::RandomState,
    shares: Shares,
    /// Of signed-in users.
    open: AtomicUsize,
    /// The same for people to see.
    gauge: IntGauge,
    /// Of public routes.
    public: AtomicUsize,
    /// How many configurations there have been.
    generations: AtomicU64,
}

/// By holder, so that a logout finds its own without looking at all others.
type Shard = HashMap<Holder, Vec<Arc<Stream>>, ahash::RandomState>;

/// One of them.
pub struct Stream {
    holder: Holder,
    /// Of a signed-in user.
    pub(super) session: Option<Session>,
    _share: Share,
    terms: Mutex<Terms>,
    admission: Box<dyn Admission>,
    /// Of the configuration that it was last held against.
    generation: AtomicU64,
    /// Whether bytes moved since the last look.
    moved: AtomicBool,
    /// Milliseconds; 0 before the first look, which is therefore due at once: a logout that came between the
    /// request's check and this stream's registration is seen then.
    checked_at: AtomicU64,
    reason: OnceLock<EndReason>,
    /// Taken when the stream is told to end.
    cut: Mutex<Option<oneshot::Sender<()>>>,
}

/// The session that a stream belongs to.
pub(super) struct Session {
    pub verified: Arc<Verified>,
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
        let (open, public) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { shards, hashes, shares: Shares::default(), open, gauge, public, generations: AtomicU64::new(0) }
    }

    /// A number for a configuration, later than those before it.
    pub fn generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::Relaxed)
    }

    /// Begins to watch a stream of a signed-in user. What comes back beside it resolves when it is to end.
    pub fn open(
        self: &Arc<Self>,
        identity: &Identity,
        opening: NewStream,
    ) -> Result<(OpenStream, oneshot::Receiver<()>), StreamsFull> {
        let session = Session { verified: identity.verified_token() };
        let holder = Holder::Session(session.verified.session_key().clone());
        let opened = self.admit(holder, Some(session), opening)?;
        self.gauge.inc();
        Ok(opened)
    }

    /// The same of a public route, for this client.
    pub fn open_public(
        self: &Arc<Self>,
        client: ClientPrefix,
        opening: NewStream,
    ) -> Result<(OpenStream, oneshot::Receiver<()>), StreamsFull> {
        self.admit(Holder::Client(client), None, opening)
    }

    fn admit(
        self: &Arc<Self>,
        holder: Holder,
        session: Option<Session>,
        opening: NewStream,
    ) -> Result<(OpenStream, oneshot::Receiver<()>), StreamsFull> {
        let NewStream { terms, admission, generation, most } = opening;
        let count = self.count(session.as_ref());
        if count.fetch_add(1, Ordering::AcqRel) >= most {
            count.fetch_sub(1, Ordering::AcqRel);
            return Err(StreamsFull::Total);
        }
        let user = session.as_ref().map(|session| session.verified.claims().sub.as_str());
        let Some(share) = self.shares.take(&holder, user, most) else {
            count.fetch_sub(1, Ordering::AcqRel);
            return Err(StreamsFull::Share);
        };
        let (cut, is_cut) = oneshot::channel();
        let stream = Arc::new(Stream {
            holder,
            session,
            _share: share,
            terms: Mutex::new(terms),
            admission,
            generation: AtomicU64::new(generation),
            moved: AtomicBool::new(false),
            checked_at: AtomicU64::new(0),
            reason: OnceLock::new(),
            cut: Mutex::new(Some(cut)),
        });
        self.put(&stream);
        Ok((OpenStream { streams: Arc::clone(self), stream }, is_cut))
    }

    const fn count(&self, session: Option<&Session>) -> &AtomicUsize {
        if session.is_some() { &self.open } else { &self.public }
    }

    fn shard(&self, holder: &Holder) -> MutexGuard<'_, Shard> {
        let at = self.hashes.hash_one(holder) as usize % SHARDS;
        locked(&self.shards[at])
    }

    fn put(&self, stream: &Arc<Stream>) {
        let mut shard = self.shard(&stream.holder);
        match shard.get_mut(&stream.holder) {
            Some(of_holder) => of_holder.push(Arc::clone(stream)),
            None => drop(shard.insert(stream.holder.clone(), vec![Arc::clone(stream)])),
        }
    }

    fn remove(&self, stream: &Arc<Stream>) {
        let mut shard = self.shard(&stream.holder);
        if let Some(of_holder) = shard.get_mut(&stream.holder) {
            if let Some(at) = of_holder.iter().position(|other| Arc::ptr_eq(other, stream)) {
                of_holder.swap_remove(at);
            }
            if of_holder.is_empty() {
                shard.remove(&stream.holder);
            }
        }
        drop(shard);
        self.count(stream.session.as_ref()).fetch_sub(1, Ordering::AcqRel);
        if stream.session.is_some() {
            self.gauge.dec();
        }
    }

    /// A session has ended: so do its streams.
    pub fn end_session(&self, session: &SessionKey) {
        let holder = Holder::Session(session.clone());
        for stream in self.shard(&holder).get(&holder).into_iter().flatten() {
            stream.end(EndReason::Refused(Reason::NoSession));
        }
    }

    /// Shows every stream to `look`, and lets others run between one lock's share and the next.
    pub(super) async fn each(&self, mut look: impl FnMut(&Arc<Stream>)) {
        for shard in &self.shards {
            locked(shard).values().flatten().for_each(&mut look);
            tokio::task::yield_now().await;
        }
    }
}

fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these.
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stream {
    /// Why it may not go on, as far as can be said without a store. `state` is the directory's latest word on its user,
    /// where that differs from the token's.
    pub(super) fn end_reason(&self, state: Option<&UserState>, now: UnixTime) -> Option<EndReason> {
        let terms = locked(&self.terms);
        if terms.certificate.as_ref().is_some_and(|certificate| certificate.has_ended(now)) {
            return Some(EndReason::CertificateEnded);
        }
        let session = self.session.as_ref()?;
        if now >= session.verified.ends() {
            return Some(EndReason::Refused(Reason::Token(TokenError::Expired)));
        }
        let state = state?;
        if is_revoked(state, session.verified.claims()) {
            return Some(EndReason::Refused(Reason::Revoked));
        }
        if terms.access == Access::Public {
            return None;
        }
        missing_entitlement(&state.services, &state.roles, Some(&terms.service), &terms.access).map(EndReason::Refused)
    }

    /// Whether there is a configuration that it was not held against.
    pub(super) fn is_stale(&self, generation: u64) -> bool {
        self.generation.load(Ordering::Relaxed) != generation
    }

    /// Holds it against the configuration of the day. From then on the terms of that one are its own.
    pub(super) fn recheck(&self, now: UnixTime) {
        match self.admission.recheck(now) {
            Ok((generation, terms)) => {
                *locked(&self.terms) = terms;
                self.generation.store(generation, Ordering::Relaxed);
            }
            Err(reason) => self.end(reason),
        }
    }

    /// Whether its session is to be asked for again.
    pub(super) fn is_due(&self, interval: Duration, now: UnixTime) -> bool {
        let last = UnixTime::from_millis(self.checked_at.load(Ordering::Relaxed));
        // A clock that was set back must not put the next look off.
        now < last || now.since(last) >= interval
    }

    pub(super) fn checked_at(&self, now: UnixTime) {
        self.checked_at.store(now.millis(), Ordering::Relaxed);
    }

    /// Whether bytes moved since this was last asked, if that counts here.
    pub(super) fn take_activity(&self) -> bool {
        self.moved.swap(false, Ordering::Relaxed) && locked(&self.terms).extends_session
    }

    pub(super) fn note_activity(&self) {
        // Read first: a line of memory that only few write to is cheap for all who read it.
        if !self.moved.load(Ordering::Relaxed) {
            self.moved.store(true, Ordering::Relaxed);
        }
    }

    /// Has it cut. The first reason counts.
    pub(super) fn end(&self, reason: EndReason) {
        if self.reason.set(reason).is_ok() {
            // The other end is gone when the stream has ended by itself.
            locked(&self.cut).take().map(|cut| cut.send(()));
        }
    }
}

impl OpenStream {
    /// Bytes passed, in either direction.
    pub fn note_activity(&self) {
        self.stream.note_activity();
    }

    /// Why it was told to end, if it was.
    pub fn end_reason(&self) -> Option<&EndReason> {
        self.stream.reason.get()
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.streams.remove(&self.stream);
    }
}
