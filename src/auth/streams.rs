//! Streams: long-lived requests, such as WebSockets, event streams and long bodies, which are checked again while they
//! are open.
//!
//! A request is checked when it begins; a stream outlives that moment. It is registered here from the time when it
//! proves to be one until it ends, with what keeps it open. `proxy` registers it and reports when bytes move;
//! `stream_check` checks it and decides when it has to end; `proxy` then closes it. Nothing in this file waits or uses
//! the store.

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

/// Number of locks that the streams are spread over, by holder. A power of two.
const SHARDS: usize = 16;

/// Every stream that is open.
pub struct Streams {
    shards: [Mutex<Shard>; SHARDS],
    hashes: ahash::RandomState,
    shares: Shares,
    /// Number of streams of signed-in users.
    open: AtomicUsize,
    /// The same number as a metric.
    gauge: IntGauge,
    /// Number of streams of public routes.
    public: AtomicUsize,
    /// The number of the latest configuration.
    generations: AtomicU64,
}

/// Streams by holder, so that a logout finds those of its session without visiting all others.
type Shard = HashMap<Holder, Vec<Arc<Stream>>, ahash::RandomState>;

/// One long-lived request.
pub struct Stream {
    holder: Holder,
    /// `None` on a public route.
    pub(super) session: Option<Session>,
    _share: Share,
    terms: Mutex<Terms>,
    admission: Box<dyn Admission>,
    /// The number of the configuration that it was last checked against.
    generation: AtomicU64,
    /// Whether bytes moved since the last check.
    moved: AtomicBool,
    /// Time of the last look-up of its session in milliseconds. 0 before the first one, which is therefore due at once:
    /// it sees a logout that came between the check of the request and the registration of the stream.
    checked_at: AtomicU64,
    reason: OnceLock<EndReason>,
    /// Taken when the stream has to end.
    cut: Mutex<Option<oneshot::Sender<()>>>,
}

/// The session that a stream belongs to.
pub(super) struct Session {
    pub verified: Arc<Verified>,
}

/// The registration of a stream. Dropping it, when the stream has ended in whatever way, removes the stream.
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

    /// Returns a number for a new configuration, higher than those before it.
    pub fn generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::Relaxed)
    }

    /// Registers a stream of a signed-in user. The receiver resolves when the stream has to end.
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

    /// Registers a stream of a public route for this client.
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

    /// Ends the streams of a session that has ended.
    pub fn end_session(&self, session: &SessionKey) {
        let holder = Holder::Session(session.clone());
        for stream in self.shard(&holder).get(&holder).into_iter().flatten() {
            stream.end(EndReason::Refused(Reason::NoSession));
        }
    }

    /// Calls `visit` with every stream, and yields to other tasks between one shard and the next.
    pub(super) async fn each(&self, mut visit: impl FnMut(&Arc<Stream>)) {
        for shard in &self.shards {
            locked(shard).values().flatten().for_each(&mut visit);
            tokio::task::yield_now().await;
        }
    }
}

fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks.
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stream {
    /// Returns why the stream has to end, as far as that is known without the store. `state` is the directory's latest
    /// state of its user, if it differs from the token's claims.
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

    /// Returns whether there is a newer configuration than the one that it was checked against.
    pub(super) fn is_stale(&self, generation: u64) -> bool {
        self.generation.load(Ordering::Relaxed) != generation
    }

    /// Checks it against the current configuration, whose terms then apply to it.
    pub(super) fn recheck(&self, now: UnixTime) {
        match self.admission.recheck(now) {
            Ok((generation, terms)) => {
                *locked(&self.terms) = terms;
                self.generation.store(generation, Ordering::Relaxed);
            }
            Err(reason) => self.end(reason),
        }
    }

    /// Returns whether the session is due for a look-up.
    pub(super) fn is_due(&self, interval: Duration, now: UnixTime) -> bool {
        let last = UnixTime::from_millis(self.checked_at.load(Ordering::Relaxed));
        // A clock that was set back must not delay the next look-up.
        now < last || now.since(last) >= interval
    }

    pub(super) fn checked_at(&self, now: UnixTime) {
        self.checked_at.store(now.millis(), Ordering::Relaxed);
    }

    /// Returns whether bytes moved since the last call, if that extends the session here.
    pub(super) fn take_activity(&self) -> bool {
        self.moved.swap(false, Ordering::Relaxed) && locked(&self.terms).extends_session
    }

    pub(super) fn note_activity(&self) {
        // Read first: a cache line that is rarely written is cheap for all that read it.
        if !self.moved.load(Ordering::Relaxed) {
            self.moved.store(true, Ordering::Relaxed);
        }
    }

    /// Ends the stream. The first reason is the one that counts.
    pub(super) fn end(&self, reason: EndReason) {
        if self.reason.set(reason).is_ok() {
            // The receiver is gone if the stream has ended by itself.
            locked(&self.cut).take().map(|cut| cut.send(()));
        }
    }
}

impl OpenStream {
    /// Records that bytes passed in either direction.
    pub fn note_activity(&self) {
        self.stream.note_activity();
    }

    /// Returns why it had to end, if it had to.
    pub fn end_reason(&self) -> Option<&EndReason> {
        self.stream.reason.get()
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.streams.remove(&self.stream);
    }
}
