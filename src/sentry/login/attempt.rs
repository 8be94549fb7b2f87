//! A login form that was sent, and the session that a good one opens.

use std::time::Duration;

use http::StatusCode;
use zeroize::Zeroizing;

use super::Event;
use crate::pages::Notice;
use crate::request::Head;
use crate::sentry::claims::{claims, fits};
use crate::sentry::{Device, Sentry};
use crate::sessions::{FRESH_KEYS, SessionId, SessionRecord};
use crate::users::User;

/// The fields of the form. The password is wiped when dropped.
pub struct Attempt {
    pub username: String,
    pub password: Zeroizing<String>,
    pub csrf: String,
    pub redirect_url: Option<String>,
    pub state: Option<String>,
}

impl Attempt {
    /// `None` when a field stands twice: what the next reader would take is not for us to guess.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let mut fields: [Option<String>; 5] = Default::default();
        for (name, value) in url::form_urlencoded::parse(body) {
            let at = match &*name {
                "username" => 0,
                "password" => 1,
                "csrf" => 2,
                "redirectURL" => 3,
                "state" => 4,
                _ => continue,
            };
            if fields[at].replace(value.into_owned()).is_some() {
                return None;
            }
        }
        let [username, password, csrf, redirect_url, state] = fields;
        Some(Self {
            username: username.unwrap_or_default(),
            password: Zeroizing::new(password.unwrap_or_default()),
            csrf: csrf.unwrap_or_default(),
            redirect_url: redirect_url.filter(|url| !url.is_empty()),
            state: state.filter(|state| !state.is_empty()),
        })
    }
}

/// What the browser gets for a good password.
pub struct Opened {
    pub token: String,
    /// With this account's mark.
    pub device: Device,
}

/// A session that is not yet stored.
struct NewSession {
    id: SessionId,
    token: String,
    record: SessionRecord,
}

/// For a user without any service: the default of a service's idle timeout.
const IDLE_WITHOUT_SERVICES: Duration = Duration::from_secs(1800);

impl Sentry {
    /// Always under a fresh session id, never one that the browser brought (session fixation).
    pub(super) async fn open_session(
        &self,
        head: &Head<'_>,
        user: &User,
        destination: &str,
    ) -> Result<Opened, (StatusCode, Notice)> {
        let device = self.device_of_login(head).map_err(|_| no_session(head, &"no randomness"))?;
        let mut attempts = FRESH_KEYS;
        loop {
            let NewSession { id, token, record } = self.new_session(head, user, destination)?;
            let ttl = record.session_time_out.min(self.settings.token.lifetime);
            match self.store.insert(&id.key(), &record, ttl).await {
                Ok(()) => {
                    self.guard.signed_on(&id.key(), record.fingerprint, head.now);
                    self.count_login("accepted");
                    self.audit(head, Event::Login, Some(user.name.as_str()), Some(destination), None);
                    return Ok(Opened { token, device: device.with_account(&user.name) });
                }
                Err(error) if error.is_silence() && attempts > 1 => attempts -= 1,
                Err(error) => return Err(self.login_without_store(&error)),
            }
        }
    }

    fn new_session(&self, head: &Head<'_>, user: &User, destination: &str) -> Result<NewSession, (StatusCode, Notice)> {
        let id = SessionId::random().map_err(|_| no_session(head, &"no randomness"))?;
        let idle = self.session_time_out(user);
        let claims = claims(&self.settings, user, &id, idle, head.now);
        let token = self.guard.tokens().mint(&claims).map_err(|error| no_session(head, &error))?;
        if let Err(too_large) = fits(&self.settings, &claims, &token) {
            self.count_login("token_too_large");
            log::error!("request {}: user {} cannot sign in: {too_large}", head.request_id, claims.name);
            let reason = Some("token_too_large");
            self.audit(head, Event::LoginRefused, Some(&claims.name), Some(destination), reason);
            return Err((StatusCode::FORBIDDEN, Notice::TooLarge));
        }
        let record = SessionRecord {
            user: claims.sub,
            created: head.now,
            last_accessed: head.now,
            session_time_out: idle,
            fingerprint: self.guard.fingerprints().of(head.headers, &id),
            expires: head.now.plus(self.settings.token.lifetime),
        };
        Ok(NewSession { id, token, record })
    }

    /// The least idle timeout of the services that the user is registered for.
    fn session_time_out(&self, user: &User) -> Duration {
        let timeouts = user.services.iter().filter_map(|service| self.idle_timeouts.get(service.as_str()));
        timeouts.min().copied().unwrap_or(IDLE_WITHOUT_SERVICES)
    }
}

fn no_session(head: &Head<'_>, cause: &dyn std::fmt::Display) -> (StatusCode, Notice) {
    log::error!("request {}: no session could be opened: {cause}", head.request_id);
    (StatusCode::INTERNAL_SERVER_ERROR, Notice::Busy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_taken_exactly_and_a_doubled_one_is_refused() {
        let attempt = Attempt::parse(b"username=a%20b&password=+p%00w+&csrf=c&state=&other=x").unwrap();
        assert_eq!((attempt.username.as_str(), attempt.password.as_str()), ("a b", " p\0w "));
        assert_eq!((attempt.redirect_url, attempt.state), (None, None));
        assert!(Attempt::parse(b"username=a&username=b&password=x").is_none());
        assert!(Attempt::parse(b"username=a&password=x&password=y").is_none());
    }
}
