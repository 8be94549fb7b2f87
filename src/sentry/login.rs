//! `/login`: the form, and what happens when it is sent.
//!
//! Failures are counted, and parallel attempts wait in turn: see `throttle`. Unknown user, wrong password and disabled
//! account get one message; the audit log has the cause.

pub(super) mod attempt;
mod open_session;
mod password_login;
mod throttle;

use http::{HeaderMap, StatusCode, header};

use super::Sentry;
use super::csrf::Forgery;
use super::identity_provider::{IdentityProvider, LoginMethod};
use super::loop_guard::Flow;
use super::return_url::{Parameter, ReturnUrl, Target, parameter};
use super::state::StateHash;
use crate::audit_log::Event;
use crate::auth::{Identity, Reason, Verdict};
use crate::pages::{self, Notice};
use crate::reply::Reply;
use crate::request::Head;
use crate::sessions::StoreError;
use attempt::Attempt;
use open_session::OpenedSession;
use password_login::PasswordLogin;
pub use throttle::account_counter;

/// Maximum bytes of a login form.
pub const MAX_FORM_BYTES: usize = 16 * 1024;

/// Seconds after which a login may be tried again, if the failure is ours.
const RETRY_AFTER_S: u64 = 2;

/// The audit log's `host` of a login that leads to no application.
const NO_DESTINATION: &str = "none";

/// The contents of a login page.
struct Form<'a> {
    status: StatusCode,
    notice: Option<Notice>,
    username: &'a str,
    url: Option<&'a ReturnUrl>,
    state: Option<&'a StateHash>,
}

impl Sentry {
    /// `GET /login`. A user who is signed in already gets a page that says so, with a link that continues. Redirecting
    /// back to `/copyCookie` by itself could loop, because `/copyCookie` may have sent the browser here when another
    /// edge does not accept the same session.
    pub(super) async fn login_form(&self, head: &Head<'_>) -> Reply {
        let url = match self.return_url(head) {
            Ok(url) => url,
            Err(refusal) => return *refusal,
        };
        let state = self.state_hash(head);
        if head.is_framed() {
            return self.login_in_window_page(head, url.as_ref());
        }
        let notice = match self.signed_in(head, false).await {
            Verdict::Allowed(_) if is_password_requested(head) => None,
            Verdict::Allowed(identity) => return self.already_signed_in(head, &identity, url.as_ref(), state.as_ref()),
            Verdict::Refused(Reason::StoreUnavailable(_)) => Some(Notice::StoreAway),
            Verdict::Refused(reason) => reason.invalidates_cookie().then_some(Notice::SessionEnded),
        };
        let status = if notice == Some(Notice::StoreAway) { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        let form = Form { status, notice, username: "", url: url.as_ref(), state: state.as_ref() };
        let reply = self.form(head, &form);
        // A cookie whose session has ended stays until the next login overwrites it: a response that clears it may
        // arrive after the response to that login, and would leave a browser without a cookie whose session is active.
        if notice == Some(Notice::StoreAway) { reply.retry_after(RETRY_AFTER_S) } else { reply }
    }

    /// `POST /login`.
    pub(super) async fn login_post(&self, head: &Head<'_>, body: &[u8]) -> Reply {
        if !is_form(head.headers) {
            let text = "The sign-in form must be sent as application/x-www-form-urlencoded.";
            return self.problem(head, StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported form", text);
        }
        let Some(attempt) = Attempt::parse(body) else {
            let text = "The sign-in form contains a field twice. Open the sign-in page again.";
            return self.problem(head, StatusCode::BAD_REQUEST, "Invalid sign-in form", text);
        };
        // The form is sent to its own URL, which has the same parameters.
        let url = match attempt.redirect_url.as_deref() {
            Some(text) => self.validate_return_url(head, text).map(Some),
            None => self.return_url(head),
        };
        let url = match url {
            Ok(url) => url,
            Err(refusal) => return *refusal,
        };
        let state = attempt.state.as_deref().and_then(StateHash::parse).or_else(|| self.state_hash(head));
        let mut form = Form {
            status: StatusCode::FORBIDDEN,
            notice: None,
            username: &attempt.username,
            url: url.as_ref(),
            state: state.as_ref(),
        };
        if let Err(forgery) = self.csrf.check(head, &attempt.csrf) {
            self.count_login("forged");
            form.notice = Some(match forgery {
                Forgery::NoCookie => Notice::CookieNotKept,
                Forgery::OtherSite | Forgery::Mismatch => Notice::FormTooOld,
            });
            return self.form(head, &form);
        }
        let destination = url.as_ref().map_or(NO_DESTINATION, |url| url.host.as_str());
        match self.sign_in(head, LoginMethod::Password(&attempt), destination).await {
            Ok(OpenedSession { token, device }) => {
                let next = self.copy_cookie_url(head, url.as_ref(), state.as_ref(), Flow::SIGNED_IN);
                Reply::see_other(&next).with_cookie(self.token_cookie(&token)).with_cookie(device.cookie())
            }
            Err((status, notice)) => {
                (form.status, form.notice) = (status, Some(notice));
                let reply = self.form(head, &form);
                match notice {
                    Notice::TooManyAttempts { retry_after_s } => reply.retry_after(retry_after_s),
                    Notice::Busy | Notice::DirectoryAway | Notice::StoreAway | Notice::Unrecorded => {
                        reply.retry_after(RETRY_AFTER_S)
                    }
                    _ => reply,
                }
            }
        }
    }

    /// Signs a person in by one of the methods: the provider of the method returns the user, for whom a session is opened.
    /// Returns the sign-on host's token. `destination` is the host that the user is on the way to, for the log.
    async fn sign_in(
        &self,
        head: &Head<'_>,
        method: LoginMethod<'_>,
        destination: &str,
    ) -> Result<OpenedSession, (StatusCode, Notice)> {
        if !self.audit.admits_logins() {
            return Err(self.unrecorded(head, None, destination));
        }
        let user = match method {
            LoginMethod::Password(form) => PasswordLogin(self).identify(head, form, destination).await?,
        };
        self.open_session(head, &user, destination).await
    }

    /// Refuses a login that the audit log could not take. The line of this may find room again.
    fn unrecorded(&self, head: &Head<'_>, user: Option<&str>, destination: &str) -> (StatusCode, Notice) {
        self.count_login("unrecorded");
        self.audit(head, Event::LoginRefused, user, Some(destination), Some("unrecorded"));
        (StatusCode::SERVICE_UNAVAILABLE, Notice::Unrecorded)
    }

    fn login_without_store(&self, head: &Head<'_>, error: &StoreError) -> (StatusCode, Notice) {
        log::warn!("login: the session store failed request_id={}: {error}", head.request_id);
        self.count_login("unavailable");
        (StatusCode::SERVICE_UNAVAILABLE, Notice::StoreAway)
    }

    pub(super) fn count_login(&self, result: &str) {
        self.metrics.sign_on.logins.with_label_values(&[result]).inc();
    }

    fn already_signed_in(
        &self,
        head: &Head<'_>,
        identity: &Identity,
        url: Option<&ReturnUrl>,
        state: Option<&StateHash>,
    ) -> Reply {
        let go_on = match url {
            Some(_) => self.copy_cookie_url(head, url, state, Flow::NEW),
            None => format!("{}/", head.origin_of(&self.host)),
        };
        let form = self.sso_url(head, "/login", url, state);
        let other = format!("{form}{}prompt=login", if form.contains('?') { '&' } else { '?' });
        let page = pages::SignedIn {
            branding: &self.branding,
            user: &identity.verified().claims().name,
            destination: url.map(|url| url.host.as_str()),
            go_on: &go_on,
            other: &other,
            request_id: head.request_id,
        };
        Reply::page(StatusCode::OK, page.render(), "")
    }

    /// Our forms are not shown inside another page, which could disguise them.
    fn login_in_window_page(&self, head: &Head<'_>, url: Option<&ReturnUrl>) -> Reply {
        let host = url.map_or(self.host.as_str(), |url| url.host.as_str());
        let (branding, why, href) = (&self.branding, pages::Why::OwnFrame, &*head.url());
        let page = pages::Beside { branding, host, why, href, request_id: head.request_id };
        Reply::frameable(StatusCode::OK, page.render())
    }

    fn form(&self, head: &Head<'_>, form: &Form<'_>) -> Reply {
        let is_error = form.status.is_client_error() || form.status.is_server_error();
        if is_error && !head.accepts_html() {
            return form_as_json(head, form);
        }
        let (Ok(token), Ok(device)) = (self.csrf.token(head), self.device_cookie_of_form(head)) else {
            return self.internal(head, &"no randomness for a form");
        };
        let redirect_url = form.url.map(|url| url.without_tickets(&self.tickets)).unwrap_or_default();
        let page = pages::Login {
            branding: &self.branding,
            csrf: &token.field,
            redirect_url: &redirect_url,
            state: form.state.map(StateHash::as_str).unwrap_or_default(),
            username: form.username,
            destination: form.url.map(|url| url.host.as_str()),
            notice: form.notice,
            request_id: head.request_id,
        };
        // Browsers check the redirects after a form against its page's policy, as far as this form leads.
        let leads_on = form.url.filter(|url| url.target != Target::Landing);
        let sources = leads_on.map(|url| format!(" {}", url.origin())).unwrap_or_default();
        let reply = Reply::form(form.status, page.render(), &sources);
        let reply = reply.with_cookie(token.cookie).with_cookie(device);
        if form.status == StatusCode::UNAUTHORIZED {
            // RFC 9110 §11.6.1 requires a challenge; browsers show no dialog for a scheme that they do not know.
            reply.with(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Form realm=\"sign-in\""))
        } else {
            reply
        }
    }
}

/// The message of the form as JSON, for a program that signs in.
fn form_as_json(head: &Head<'_>, form: &Form<'_>) -> Reply {
    let (code, message) = match form.notice {
        Some(notice) => (notice.code(), notice.to_string()),
        None => ("login_refused", "The sign-in was refused.".to_owned()),
    };
    Reply::error(form.status, code, &message, head.request_id)
}

/// Returns whether the form is requested even for a user who is signed in (OpenID Connect Core §3.1.2.1, `prompt`).
fn is_password_requested(head: &Head<'_>) -> bool {
    parameter(head.query, "prompt") == Parameter::One("login".into())
}

fn is_form(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}
