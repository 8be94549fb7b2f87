//! One browser, one user: which of a browser's sessions is its current one, and what happens to the others.
//!
//! The browser's record in the store names its current session. A login ends the session that it finds there and
//! replaces it by its own; a logout ends it and records the time; and a session that comes to the sign-on host and is
//! not the current one is ended if it is the older. The decisions are pure functions; the methods below them use the
//! store.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::device::{self, Device};
use super::{Event, Sentry};
use crate::auth::cookie::{self, Lookup};
use crate::auth::token::Verified;
use crate::auth::{Guard, Reason, Verdict};
use crate::clock::UnixTime;
use crate::request::Head;
use crate::sessions::key::NoRandomness;
use crate::sessions::{DeviceKey, DeviceRecord, Found, SessionKey, SessionStore, StoreError, Swap, find_with_retry};
use crate::users::UserName;

/// Maximum number of cookies of our name that are read; an ordinary browser sends one.
const MAX_COOKIES: usize = 4;

/// Added to the lifetime of an end: a store's clock ticks in seconds, and the clocks of other edges may be behind.
const MARGIN: Duration = Duration::from_secs(60);

/// Number of swaps that are tried before the store counts as busy: each one that fails was overtaken by another login
/// or logout of this browser.
const MAX_SWAPS: usize = 8;

/// A record that is further ahead than this was written with a wrong clock, and no login is dated after it.
const MAX_CLOCK_LEAD: Duration = Duration::from_secs(300);

/// The order of a session and the record of the browser that sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionOrder {
    /// It is the browser's current session.
    Current,
    /// Its login is later than everything in the record: it replaces the session there.
    Newer,
    /// Another login is later, or the browser has logged out since.
    Superseded,
}

/// Compares a session with the record of its browser. Times are whole seconds, as in tokens. Of two logins in one
/// second the record has the last one, and so it is with a login and a logout: a login after the logout would be in the
/// record.
pub fn session_order(session: &SessionKey, auth_time: UnixTime, record: Option<&DeviceRecord>) -> SessionOrder {
    match record {
        Some(record) if record.session.as_ref() == Some(session) => SessionOrder::Current,
        Some(record) if auth_time <= record.auth_time.max(record.signed_out) => SessionOrder::Superseded,
        Some(_) | None => SessionOrder::Newer,
    }
}

/// Returns the time of a login: never before what its browser did earlier, though the clocks of edges differ.
pub fn auth_time(now: UnixTime, record: Option<&DeviceRecord>) -> UnixTime {
    let now = UnixTime::from_seconds(now.seconds());
    let before = record.map_or(now, |record| record.auth_time.max(record.signed_out));
    if before <= now.plus(MAX_CLOCK_LEAD) { now.max(before) } else { now }
}

/// Returns the record after a login, or after a logout if `session` is `None`. `number` is higher than every number
/// seen before.
pub fn next_record(
    seen: Option<&DeviceRecord>,
    session: Option<&SessionKey>,
    at: UnixTime,
    number: u64,
) -> DeviceRecord {
    let before = seen.cloned().unwrap_or_default();
    let number = number.max(DeviceRecord::after(seen));
    match session {
        Some(session) => {
            DeviceRecord { number, session: Some(session.clone()), auth_time: at, signed_out: before.signed_out }
        }
        None => {
            DeviceRecord { number, session: None, auth_time: before.auth_time, signed_out: at.max(before.auth_time) }
        }
    }
}

pub fn key(device: &Device) -> DeviceKey {
    DeviceKey::new(device.id().as_bytes())
}

/// Returns whether the user of this token has signed in with this browser, according to the cookie that our key signed.
pub fn has_signed_in(device: &Device, verified: &Verified) -> bool {
    UserName::parse(&verified.claims().name).is_ok_and(|name| device.knows(&name))
}

/// An active session that may become the current one of its browser.
pub struct SessionCandidate<'a> {
    pub session: &'a SessionKey,
    /// Time of its login.
    pub at: UnixTime,
    /// Until when the end of a session is remembered.
    pub until: UnixTime,
    /// Lifetime of the browser's record.
    pub lifetime: Duration,
    /// The guard that has to forget ended sessions.
    pub guard: Option<&'a Guard>,
}

impl SessionCandidate<'_> {
    /// Makes this session the current one of its browser, and returns whether it is. It is compared again with each
    /// record that another request has written meanwhile: a login in another tab must not be ended by an older session.
    ///
    /// If there is no record, one is made only if the user has signed in with this browser (`may_begin`) and the store
    /// has lost it: any client can get device cookies, and one account could fill the store with their records. A
    /// session that came with a fresh device cookie is ended by the next login all the same, because that login gets
    /// the session's own cookie.
    pub async fn become_current(
        &self,
        store: &dyn SessionStore,
        key: &DeviceKey,
        may_begin: bool,
    ) -> Result<bool, StoreError> {
        let (mut seen, mut number) = (store.device(key).await?, 0);
        for _ in 0..MAX_SWAPS {
            match session_order(self.session, self.at, seen.as_ref()) {
                SessionOrder::Current => return Ok(true),
                SessionOrder::Newer if seen.is_none() && !may_begin => return Ok(true),
                SessionOrder::Newer => {}
                SessionOrder::Superseded => {
                    end_confirmed(store, self.guard, self.session, self.until).await?;
                    return Ok(false);
                }
            }
            match self.try_swap(store, key, seen.as_ref(), &mut number).await? {
                Swap::Done => return Ok(true),
                Swap::Found(there) => seen = there,
            }
        }
        Err(StoreError::Busy)
    }

    /// Tries once to write it to the record as the current session, after ending the session that is there.
    async fn try_swap(
        &self,
        store: &dyn SessionStore,
        key: &DeviceKey,
        seen: Option<&DeviceRecord>,
        number: &mut u64,
    ) -> Result<Swap, StoreError> {
        if let Some(other) = seen.and_then(|seen| seen.session.as_ref()).filter(|other| *other != self.session) {
            end_confirmed(store, self.guard, other, self.until).await?;
        }
        let next = next_record(seen, Some(self.session), self.at, *number);
        *number = next.number;
        store.swap_device(key, seen, &next, self.lifetime).await
    }
}

/// Ends a session so that no edge accepts it any more. Servers that have been unavailable for long count as lost with
/// all that they held.
async fn end_confirmed(
    store: &dyn SessionStore,
    guard: Option<&Guard>,
    session: &SessionKey,
    until: UnixTime,
) -> Result<(), StoreError> {
    let ended = store.end(session, until).await;
    // Only after the end: a request in between may have seen the session active.
    if let Some(guard) = guard {
        guard.forget(session);
    }
    ended?;
    if store.may_resurface(session) { Err(StoreError::TimedOut) } else { Ok(()) }
}

impl Sentry {
    /// Returns the device of a request to the sign-on host. Two device cookies count as none: it is not known which one
    /// is the browser's.
    pub fn device(&self, head: &Head<'_>) -> Option<Device> {
        match cookie::find(head.headers, device::COOKIE) {
            Lookup::One(value) => self.devices.parse(value),
            Lookup::Absent | Lookup::Several => None,
        }
    }

    /// Returns the device cookie that a login form sets, if the browser has none of ours.
    pub(super) fn device_cookie_of_form(&self, head: &Head<'_>) -> Result<Option<HeaderValue>, NoRandomness> {
        match self.device(head) {
            Some(_) => Ok(None),
            None => Ok(self.devices.fresh()?.cookie()),
        }
    }

    /// Returns the device of a login. A browser without a device cookie of ours gets its first.
    pub(super) fn device_of_login(&self, head: &Head<'_>) -> Result<Device, NoRandomness> {
        self.device(head).map_or_else(|| self.devices.fresh(), Ok)
    }

    /// Returns who is signed in at the sign-on host. A session that this browser has superseded is ended and not
    /// accepted.
    pub(super) async fn signed_in(&self, head: &Head<'_>, extends_session: bool) -> Verdict {
        let verdict = self.authenticate(head, None, extends_session).await;
        let (Verdict::Allowed(identity), Some(device)) = (&verdict, self.device(head)) else { return verdict };
        match self.make_current(head, identity.verified(), &device).await {
            Ok(true) => verdict,
            Ok(false) => Verdict::Refused(Reason::NoSession),
            Err(error) => Verdict::Refused(Reason::StoreUnavailable(error)),
        }
    }

    async fn make_current(&self, head: &Head<'_>, own: &Verified, device: &Device) -> Result<bool, StoreError> {
        let may_begin = has_signed_in(device, own);
        let candidate = self.candidate(own.session_key(), own.authenticated_at(), head.now);
        let is_current = candidate.become_current(&*self.store, &key(device), may_begin).await?;
        if !is_current {
            let (user, host) = (own.claims().name.as_str(), self.host.as_str());
            self.audit(head, Event::Logout, Some(user), Some(host), Some("outlived"));
        }
        Ok(is_current)
    }

    fn candidate<'a>(&'a self, session: &'a SessionKey, at: UnixTime, now: UnixTime) -> SessionCandidate<'a> {
        SessionCandidate {
            session,
            at,
            until: self.tombstone_expiry(now),
            lifetime: self.longest_session_lifetime(),
            guard: Some(&self.guard),
        }
    }

    /// Lets the session of a ticket replace the sessions of the service's own cookies, which it ends. A cookie's
    /// session with a later login stays, and the ticket is refused: whichever tab comes first, the last login counts.
    /// Returns whether the ticket's session may be used.
    pub(super) async fn replace_service_sessions(
        &self,
        head: &Head<'_>,
        service: &str,
        next: &Verified,
        opened: UnixTime,
    ) -> Result<bool, StoreError> {
        let mut followed = Vec::new();
        for before in self.tokens_of(head, &Self::service_audience(&self.settings, service)) {
            if before.session_key() == next.session_key() {
                continue;
            }
            if let Some(opened_before) = self.active_since(&before, None, head.now).await? {
                if (next.authenticated_at(), opened) < (before.authenticated_at(), opened_before) {
                    return Ok(false);
                }
                followed.push(before);
            }
        }
        for before in followed {
            self.end_confirmed(before.session_key(), head.now).await?;
            self.audit(
                head,
                Event::Logout,
                Some(&before.claims().name),
                Some(head.host.as_str()),
                Some("another_login"),
            );
        }
        Ok(true)
    }

    /// Returns when the session of a token was opened, and `None` if it is not active. Without a session store only the
    /// token's own expiry counts.
    pub(super) async fn active_since(
        &self,
        verified: &Verified,
        slide: Option<Duration>,
        now: UnixTime,
    ) -> Result<Option<UnixTime>, StoreError> {
        if !self.guard.checks_sessions() {
            return Ok((now < verified.ends()).then(UnixTime::default));
        }
        match find_with_retry(&*self.store, verified.session_key(), slide).await? {
            Found::Active(record) if record.user == verified.claims().sub => Ok(Some(record.created)),
            Found::Active(_) | Found::Ended | Found::Missing => Ok(None),
        }
    }

    /// Makes the session of a login the current one of the browser, and ends the session that is in the record before.
    pub(super) async fn swap_current_session(
        &self,
        key: &DeviceKey,
        mut seen: Option<DeviceRecord>,
        own: &SessionKey,
        at: UnixTime,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let (candidate, mut number) = (self.candidate(own, at, now), 0);
        for _ in 0..MAX_SWAPS {
            match candidate.try_swap(&*self.store, key, seen.as_ref(), &mut number).await? {
                Swap::Done => return Ok(()),
                Swap::Found(there) => seen = there,
            }
        }
        Err(StoreError::Busy)
    }

    /// Ends the browser's current session, and records the logout. `may_begin`: whether a record is made if there is
    /// none, see [`SessionCandidate::become_current`]. An error means that the store does not know the end yet, though
    /// the end may be kept for it.
    pub(super) async fn sign_device_out(
        &self,
        key: &DeviceKey,
        now: UnixTime,
        may_begin: bool,
    ) -> Result<(), StoreError> {
        let mut seen = self.store.device(key).await?;
        let (mut number, mut outcome) = (0, Ok(()));
        for _ in 0..MAX_SWAPS {
            if seen.is_none() && !may_begin {
                return outcome;
            }
            if let Some(session) = seen.as_ref().and_then(|seen| seen.session.as_ref()) {
                let ended = self.store.end(session, self.tombstone_expiry(now)).await;
                self.guard.forget(session);
                if ended.is_err() && !self.store.has_hint(session) {
                    // Only the record still names the session: the next logout or login ends it.
                    return ended;
                }
                outcome = outcome.and(ended);
            }
            let at = UnixTime::from_seconds(now.seconds());
            let next = next_record(seen.as_ref(), None, at, number);
            number = next.number;
            match self.store.swap_device(key, seen.as_ref(), &next, self.longest_session_lifetime()).await? {
                Swap::Done => return outcome,
                Swap::Found(there) => seen = there,
            }
        }
        Err(StoreError::Busy)
    }

    pub(super) async fn end_confirmed(&self, session: &SessionKey, now: UnixTime) -> Result<(), StoreError> {
        end_confirmed(&*self.store, Some(&self.guard), session, self.tombstone_expiry(now)).await
    }

    /// Returns the tokens of ours in this host's cookies, also those that have expired: their sessions may still be
    /// active.
    pub(super) fn tokens_of(&self, head: &Head<'_>, audience: &str) -> Vec<Arc<Verified>> {
        let tokens = cookie::all(head.headers, self.guard.cookie_name()).take(MAX_COOKIES);
        let authentic = tokens.filter_map(|token| self.guard.tokens().authentic(token).ok());
        authentic.filter(|verified| verified.claims().aud == audience).collect()
    }

    /// Ends the sessions of cookies that only another edge can verify, so that no login leaves the session of the
    /// browser's former user behind, and no logout its own. They are looked up first: an id that a client made up
    /// leaves nothing in the store.
    pub(super) async fn end_unverified(&self, head: &Head<'_>) -> Result<(), StoreError> {
        for token in cookie::all(head.headers, self.guard.cookie_name()).take(MAX_COOKIES) {
            let Some(session) = self.guard.tokens().named_unverified(token, head.now) else { continue };
            if matches!(find_with_retry(&*self.store, &session, None).await?, Found::Active(_)) {
                self.end_confirmed(&session, head.now).await?;
                self.audit(head, Event::Logout, None, Some(head.host.as_str()), Some("unverified"));
            }
        }
        Ok(())
    }

    /// Returns until when an end has to be remembered: no token of a session that was opened or renewed by now is valid
    /// any longer.
    pub(super) fn tombstone_expiry(&self, now: UnixTime) -> UnixTime {
        now.plus(self.longest_session_lifetime())
    }

    fn longest_session_lifetime(&self) -> Duration {
        self.settings.token.lifetime + self.settings.token.leeway + MARGIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::SessionId;

    fn session() -> SessionKey {
        SessionId::random().unwrap().key()
    }

    const fn at(seconds: u64) -> UnixTime {
        UnixTime::from_seconds(1_700_000_000 + seconds)
    }

    fn record(session: Option<&SessionKey>, auth_time: u64, signed_out: u64) -> DeviceRecord {
        let (auth_time, signed_out) = (at(auth_time), at(signed_out));
        DeviceRecord { number: 1, session: session.cloned(), auth_time, signed_out }
    }

    #[test]
    fn the_session_whose_password_was_typed_last_is_the_browsers() {
        let (own, other) = (session(), session());
        for (what, known, wanted) in [
            ("nothing is known", None, SessionOrder::Newer),
            ("it is the current one", Some(record(Some(&own), 10, 0)), SessionOrder::Current),
            ("though its moment is another edge's", Some(record(Some(&own), 12, 0)), SessionOrder::Current),
            (
                "though the logout before it was in the same second",
                Some(record(Some(&own), 10, 10)),
                SessionOrder::Current,
            ),
            ("another was typed later", Some(record(Some(&other), 11, 0)), SessionOrder::Superseded),
            (
                "another in the same second, which came last",
                Some(record(Some(&other), 10, 0)),
                SessionOrder::Superseded,
            ),
            ("another was typed before", Some(record(Some(&other), 9, 0)), SessionOrder::Newer),
            ("another before, and a logout after", Some(record(Some(&other), 5, 11)), SessionOrder::Superseded),
            ("a logout after it", Some(record(None, 10, 11)), SessionOrder::Superseded),
            ("a logout in the same second", Some(record(None, 10, 10)), SessionOrder::Superseded),
            ("a logout before it", Some(record(None, 5, 9)), SessionOrder::Newer),
        ] {
            assert_eq!(session_order(&own, at(10), known.as_ref()), wanted, "{what}");
        }
    }

    #[test]
    fn a_login_counts_as_made_after_all_that_its_browser_did_before() {
        for (known, wanted) in [
            (None, at(10)),
            (Some(record(None, 5, 6)), at(10)),
            (Some(record(None, 14, 6)), at(14)),
            (Some(record(None, 5, 13)), at(13)),
            (Some(record(None, 5, 100_000)), at(10)),
        ] {
            assert_eq!(auth_time(at(10), known.as_ref()), wanted);
        }
        let own = session();
        let after = |known: DeviceRecord| next_record(Some(&known), Some(&own), auth_time(at(10), Some(&known)), 0);
        for known in [record(None, 5, 13), record(Some(&session()), 14, 6)] {
            let next = after(known);
            assert_eq!(session_order(&own, next.auth_time, Some(&next)), SessionOrder::Current);
        }
    }

    #[test]
    fn a_logout_outlives_every_session_before_it_and_none_after_it() {
        let (own, later) = (session(), session());
        // The clock of the edge of the logout is behind that of the login.
        let out = next_record(Some(&record(Some(&own), 20, 0)), None, at(15), 0);
        assert_eq!((out.session.clone(), out.signed_out), (None, at(20)));
        assert_eq!(session_order(&own, at(20), Some(&out)), SessionOrder::Superseded);
        let again = next_record(Some(&out), Some(&later), auth_time(at(16), Some(&out)), 0);
        assert_eq!(session_order(&later, again.auth_time, Some(&again)), SessionOrder::Current);
        assert_eq!(session_order(&own, at(20), Some(&again)), SessionOrder::Superseded);
        assert!(again.number > out.number);
    }
}
