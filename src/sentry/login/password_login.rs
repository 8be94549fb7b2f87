//! Sign-in with user name and password: the [`IdentityProvider`] of the login form.

use std::time::Duration;

use http::StatusCode;

use super::attempt::Attempt;
use super::throttle::Outcome;
use crate::audit_log::{self, Event};
use crate::pages::Notice;
use crate::request::Head;
use crate::sentry::Sentry;
use crate::sentry::identity_provider::IdentityProvider;
use crate::users::login::{Authentication, Refusal};
use crate::users::{Password, User, UserName};

/// Verifies passwords on the login pool, within the limits for failures (`throttle`).
pub struct PasswordLogin<'a>(pub &'a Sentry);

impl IdentityProvider for PasswordLogin<'_> {
    type Proof = Attempt;

    async fn identify(&self, head: &Head<'_>, form: &Attempt, destination: &str) -> Result<User, (StatusCode, Notice)> {
        let Self(sentry) = self;
        if form.username.trim().is_empty() || form.password.is_empty() {
            return Err((StatusCode::BAD_REQUEST, Notice::MissingFields));
        }
        let name = UserName::parse(&form.username);
        let password = Password::new(form.password.to_string());
        let (Ok(name), Ok(password)) = (name, password) else {
            // No account can have such a name or password, so no hash is computed.
            sentry.count_login("refused");
            sentry.audit_anonymous(head, Event::LoginRefused, Some(destination), Some("malformed"));
            return Err((StatusCode::UNAUTHORIZED, Notice::WrongCredentials));
        };
        let subject = sentry.subject(head, name);
        match sentry.check_password(&subject, password).await {
            Outcome::Checked(Authentication::Accepted(user)) => Ok(user),
            Outcome::Checked(Authentication::Refused(refusal)) => {
                // The name of no user may be a password in the wrong field: it is not logged.
                let known = (refusal != Refusal::UnknownUser).then_some(subject.name.as_str());
                Err(self.refuse(head, known, destination, label(refusal)))
            }
            Outcome::Checked(Authentication::Busy) => Err(self.busy()),
            Outcome::Checked(Authentication::Unavailable { cause }) => {
                sentry.count_login("unavailable");
                log::error!("login: the user directory failed request_id={}: {cause}", head.request_id);
                Err((StatusCode::SERVICE_UNAVAILABLE, Notice::DirectoryAway))
            }
            Outcome::Limited { is_user, left } => {
                let user = is_user.then_some(subject.name.as_str());
                Err(self.limited(head, subject.limit(), user, destination, left))
            }
            Outcome::StoreUnavailable(error) => Err(sentry.login_without_store(head, &error)),
        }
    }
}

impl PasswordLogin<'_> {
    /// Refuses a login beyond a limit. `left` is the time until the failures of the account, or of the device, are
    /// forgotten. The audit log names the user if there is one.
    fn limited(
        &self,
        head: &Head<'_>,
        limit: &'static str,
        user: Option<&str>,
        destination: &str,
        left: Duration,
    ) -> (StatusCode, Notice) {
        self.0.count_login("limited");
        self.0.metrics.limit_reached(limit);
        let (event, client, request_id) = (Event::LoginRefused, head.client, head.request_id);
        let (host, reason) = (Some(destination), Some(limit));
        // No password was verified: any client that knows the name can cause this event as often as it likes.
        self.0.audit.write_anonymous(head.now, audit_log::Entry { event, client, request_id, user, host, reason });
        let retry_after_s = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        (StatusCode::TOO_MANY_REQUESTS, Notice::TooManyAttempts { retry_after_s: retry_after_s.max(1) })
    }

    fn busy(&self) -> (StatusCode, Notice) {
        self.0.count_login("busy");
        self.0.metrics.limit_reached("login_queue");
        (StatusCode::SERVICE_UNAVAILABLE, Notice::Busy)
    }

    fn refuse(&self, head: &Head<'_>, user: Option<&str>, destination: &str, reason: &str) -> (StatusCode, Notice) {
        self.0.count_login("refused");
        self.0.audit(head, Event::LoginRefused, user, Some(destination), Some(reason));
        (StatusCode::UNAUTHORIZED, Notice::WrongCredentials)
    }
}

/// Returns the reason for the audit log. The client gets the same response for all of them.
fn label(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::UnknownUser => "unknown_user",
        Refusal::WrongPassword => "wrong_password",
        Refusal::Disabled => "disabled",
    }
}
