//! Opens the session after a correct password: the browser's own one again if the same user signs in once more, and
//! otherwise a fresh one, after the browser's former sessions were ended.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::audit_log::{self, Event};
use crate::auth::token::{Claims, Verified};
use crate::auth::{Reason, Verdict};
use crate::clock::UnixTime;
use crate::pages::Notice;
use crate::request::Head;
use crate::sentry::claims::{claims, fits};
use crate::sentry::device_session::{self, SessionOrder, session_order};
use crate::sentry::{Device, Sentry};
use crate::sessions::{
    DeviceKey, DeviceRecord, FRESH_KEY_ATTEMPTS, Found, SessionId, SessionKey, SessionRecord, StoreError,
    find_with_retry,
};
use crate::users::User;

/// What the browser gets for a correct password.
pub struct OpenedSession {
    pub token: String,
    /// Includes this account's mark.
    pub device: Device,
}

/// Why no session was opened.
enum Failure {
    Store(StoreError),
    Shown(StatusCode, Notice),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A login with a correct password.
struct AcceptedLogin<'a> {
    head: &'a Head<'a>,
    user: &'a User,
    /// The host that the user is on the way to, for the log.
    destination: &'a str,
}

/// A session of the login, stored or renewed, whose token was not sent yet.
struct Granted {
    token: String,
    /// Where the session is a new one.
    fresh: Option<SessionKey>,
}

/// A session that is not yet stored, or not yet renewed.
struct NewSession {
    id: SessionId,
    token: String,
    record: SessionRecord,
}

/// Idle timeout of a user without any service: the default idle timeout of a service.
const IDLE_WITHOUT_SERVICES: Duration = Duration::from_secs(1800);

/// Number of tries. Another login in the same browser may end a session between its look-up and its renewal.
const MAX_TRIALS: usize = 3;

impl Sentry {
    /// A session that the browser has is reused only if it is active and belongs to this same user, so only this user
    /// can have opened it: never one that was planted (session fixation). All other sessions of the browser are ended
    /// first, and if that cannot be confirmed the login fails.
    pub(super) async fn open_session(
        &self,
        head: &Head<'_>,
        user: &User,
        destination: &str,
    ) -> Result<OpenedSession, (StatusCode, Notice)> {
        let known = self.device(head);
        let device = known.clone().map_or_else(|| self.device_of_login(head), Ok);
        let device = device.map_err(|_| no_session(head, &"no randomness"))?;
        let login = AcceptedLogin { head, user, destination };
        let mut outcome = Ok(None);
        for _ in 0..MAX_TRIALS {
            outcome = self.open(&login, &device_session::key(&device), known.is_some()).await;
            if !matches!(outcome, Ok(None)) {
                break;
            }
        }
        match outcome {
            Ok(Some(granted)) => {
                self.record_login(&login, &granted).await?;
                self.count_login("accepted");
                Ok(OpenedSession { token: granted.token, device: device.with_account(&user.name) })
            }
            Ok(None) => Err(self.login_without_store(head, &StoreError::Busy)),
            Err(Failure::Store(error)) => Err(self.login_without_store(head, &error)),
            Err(Failure::Shown(status, notice)) => Err((status, notice)),
        }
    }

    /// Writes the login into the audit log, if it may not go on without that. An error refuses it: its token is not sent.
    async fn record_login(&self, login: &AcceptedLogin<'_>, granted: &Granted) -> Result<(), (StatusCode, Notice)> {
        let AcceptedLogin { head, user, destination } = login;
        let (event, client, request_id) = (Event::Login, head.client, head.request_id);
        let (name, host) = (Some(user.name.as_str()), Some(*destination));
        let entry = audit_log::Entry { event, client, request_id, user: name, host, reason: None };
        if self.audit.record_login(head.now, entry).await {
            return Ok(());
        }
        if let Some(session) = &granted.fresh {
            self.store.end(session, self.tombstone_expiry(head.now)).await.ok();
        }
        Err(self.unrecorded(head, name, destination))
    }

    /// Returns `None` if the session ended meanwhile.
    async fn open(
        &self,
        login: &AcceptedLogin<'_>,
        key: &DeviceKey,
        is_known: bool,
    ) -> Result<Option<Granted>, Failure> {
        let head = login.head;
        let seen = if is_known { self.store.device(key).await? } else { None };
        let tokens = self.tokens_of(head, &Self::audience(&self.settings));
        let own = self.own_session(head, login.user, &tokens, seen.as_ref()).await?;
        let auth_time = device_session::auth_time(head.now, seen.as_ref());
        // This comes before any session is ended: a login that cannot succeed ends nothing.
        let session = match &own {
            Some(own) => self.prepare(login, own.session_id().clone(), auth_time)?,
            None => self.prepare_fresh(login, auth_time)?,
        };
        self.end_others(head, &tokens, own.as_deref()).await?;
        let (session, token) = match &own {
            Some(own) => match self.renew(login, session).await? {
                Some(token) => (own.session_key().clone(), token),
                None => return Ok(None),
            },
            None => self.insert(login, session, auth_time).await?,
        };
        if let Err(error) = self.swap_current_session(key, seen, &session, auth_time, head.now).await {
            if own.is_none() {
                // Its token was never sent.
                self.store.end(&session, self.tombstone_expiry(head.now)).await.ok();
            }
            return Err(error.into());
        }
        // A login in between has ended the sessions that the browser had, including this one.
        let lives = own.is_none() || matches!(find_with_retry(&*self.store, &session, None).await?, Found::Active(_));
        let fresh = own.is_none().then_some(session);
        Ok(lives.then_some(Granted { token, fresh }))
    }

    /// Ends the browser's sessions except its own one.
    async fn end_others(
        &self,
        head: &Head<'_>,
        tokens: &[Arc<Verified>],
        own: Option<&Verified>,
    ) -> Result<(), StoreError> {
        self.end_unverified(head).await?;
        for other in tokens.iter().filter(|other| own.is_none_or(|own| own.session_key() != other.session_key())) {
            if !matches!(find_with_retry(&*self.store, other.session_key(), None).await?, Found::Active(_)) {
                continue;
            }
            self.end_confirmed(other.session_key(), head.now).await?;
            let (user, host) = (Some(other.claims().name.as_str()), Some(head.host.as_str()));
            self.audit(head, Event::Logout, user, host, Some("another_login"));
        }
        Ok(())
    }

    /// Returns the session of the browser, if this user may reuse it.
    async fn own_session(
        &self,
        head: &Head<'_>,
        user: &User,
        tokens: &[Arc<Verified>],
        seen: Option<&DeviceRecord>,
    ) -> Result<Option<Arc<Verified>>, StoreError> {
        if !self.guard.checks_sessions() {
            return Ok(None);
        }
        // Of two cookies it is not known which one is this browser's.
        let [own] = tokens else { return Ok(None) };
        if own.claims().sub != user.id.as_str()
            || session_order(own.session_key(), own.authenticated_at(), seen) == SessionOrder::Superseded
        {
            return Ok(None);
        }
        match self.authenticate(head, None, false).await {
            Verdict::Allowed(_) => Ok(Some(Arc::clone(own))),
            Verdict::Refused(Reason::StoreUnavailable(error)) => Err(error),
            Verdict::Refused(_) => Ok(None),
        }
    }

    /// Returns `None` if the session is no longer active.
    async fn renew(&self, login: &AcceptedLogin<'_>, session: NewSession) -> Result<Option<String>, Failure> {
        let NewSession { id, token, record } = session;
        let Found::Active(before) = find_with_retry(&*self.store, &id.key(), None).await? else { return Ok(None) };
        let record = SessionRecord { created: before.created, fingerprint: before.fingerprint, ..record };
        let renewed = self.store.renew(&id.key(), &record, self.ttl(&record)).await?;
        self.guard.note_sign_on(&id.key(), record.fingerprint, login.head.now);
        Ok(renewed.then_some(token))
    }

    async fn insert(
        &self,
        login: &AcceptedLogin<'_>,
        mut session: NewSession,
        auth_time: UnixTime,
    ) -> Result<(SessionKey, String), Failure> {
        let mut attempts = FRESH_KEY_ATTEMPTS;
        loop {
            let NewSession { id, token, record } = session;
            match self.store.insert(&id.key(), &record, self.ttl(&record)).await {
                Ok(()) => {
                    self.guard.note_sign_on(&id.key(), record.fingerprint, login.head.now);
                    return Ok((id.key(), token));
                }
                Err(error) if error.is_unavailable() && attempts > 1 => attempts -= 1,
                Err(error) => return Err(error.into()),
            }
            session = self.prepare_fresh(login, auth_time)?;
        }
    }

    fn ttl(&self, record: &SessionRecord) -> Duration {
        record.idle_timeout.min(self.settings.token.lifetime)
    }

    fn prepare_fresh(&self, login: &AcceptedLogin<'_>, auth_time: UnixTime) -> Result<NewSession, Failure> {
        let id = SessionId::random().map_err(|_| shown(no_session(login.head, &"no randomness")))?;
        self.prepare(login, id, auth_time)
    }

    fn prepare(&self, login: &AcceptedLogin<'_>, id: SessionId, auth_time: UnixTime) -> Result<NewSession, Failure> {
        let AcceptedLogin { head, user, destination } = login;
        let idle = self.idle_timeout(user);
        let claims = Claims { auth_time: auth_time.seconds(), ..claims(&self.settings, user, &id, idle, head.now) };
        let token = self.guard.tokens().mint(&claims).map_err(|error| shown(no_session(head, &error)))?;
        if let Err(too_large) = fits(&self.settings, &claims, &token) {
            self.count_login("token_too_large");
            log::error!("login: token too large user={} request_id={}: {too_large}", claims.name, head.request_id);
            let reason = Some("token_too_large");
            self.audit(head, Event::LoginRefused, Some(&claims.name), Some(destination), reason);
            return Err(Failure::Shown(StatusCode::FORBIDDEN, Notice::TooLarge));
        }
        let record = SessionRecord {
            user: claims.sub,
            created: head.now,
            last_accessed: head.now,
            idle_timeout: idle,
            fingerprint: self.guard.fingerprints().of(head.headers, &id),
            expires: head.now.plus(self.settings.token.lifetime),
        };
        Ok(NewSession { id, token, record })
    }

    /// Returns the shortest idle timeout of the services that the user is registered for.
    fn idle_timeout(&self, user: &User) -> Duration {
        let timeouts = user.services.iter().filter_map(|service| self.idle_timeouts.get(service.as_str()));
        timeouts.min().copied().unwrap_or(IDLE_WITHOUT_SERVICES)
    }
}

fn shown((status, notice): (StatusCode, Notice)) -> Failure {
    Failure::Shown(status, notice)
}

fn no_session(head: &Head<'_>, cause: &dyn std::fmt::Display) -> (StatusCode, Notice) {
    log::error!("login: no session could be opened request_id={}: {cause}", head.request_id);
    (StatusCode::INTERNAL_SERVER_ERROR, Notice::Failed)
}
