//! The edge's own replies: named constructors that fix status, caching and closing, and their writer on the full path.
//!
//! What a reply says is decided by `sentry` and `proxy`. Nothing of ours may be stored by a cache, framed, or
//! leak a URL by Referer.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use serde_json::{Value, json};

use crate::config::FixedReply;
use crate::pages::{self, Branding};

static RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The request, as far as an error reply needs to know it. Nothing is looked up for that: who is signed in is known
/// where the request has shown it already.
pub struct ErrorContext<'a> {
    pub html: bool,
    /// Whether the same request may be sent again as it is: a GET or a HEAD.
    pub repeats: bool,
    pub request_id: &'a str,
    pub branding: &'a Branding,
    /// The name of the user whose session was verified.
    pub user: Option<&'a str>,
    /// The address of the list of applications, where one may be named.
    pub applications: Option<String>,
    /// This host's sign-out, where a user may be signed in.
    pub sign_out: Option<&'static str>,
}

impl ErrorContext<'_> {
    /// For a request to a host that is not ours: no page says what else there is.
    pub fn bare(self) -> Self {
        Self { repeats: false, user: None, applications: None, sign_out: None, ..self }
    }
}

/// A whole response.
#[derive(Clone, Debug)]
pub struct Reply {
    status: StatusCode,
    fields: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    close: bool,
    /// Whether this is a page for an error, which a service may have one of its own for.
    is_error_page: bool,
}

impl Reply {
    fn new(status: StatusCode, content_type: Option<&'static str>, body: impl Into<Bytes>) -> Self {
        let mut reply =
            Self { status, fields: Vec::with_capacity(8), body: body.into(), close: false, is_error_page: false };
        reply.fields.push((header::CACHE_CONTROL, HeaderValue::from_static("no-store")));
        reply.fields.push((header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")));
        // No other site may load it as an image or a script, whatever it is.
        reply.fields.push((RESOURCE_POLICY.clone(), HeaderValue::from_static("same-origin")));
        if let Some(content_type) = content_type {
            reply.fields.push((header::CONTENT_TYPE, HeaderValue::from_static(content_type)));
            reply.fields.push((header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")));
        }
        reply
    }

    /// A status and nothing else.
    pub fn bare(status: StatusCode) -> Self {
        Self::new(status, None, Bytes::new())
    }

    /// `302`: go there by GET. The location is one that we built.
    pub fn redirect(location: &str) -> Self {
        Self::to(StatusCode::FOUND, location)
    }

    /// `303`: the form was taken, go there by GET, and do not send it again (RFC 9700 §4.12: never 307).
    pub fn see_other(location: &str) -> Self {
        Self::to(StatusCode::SEE_OTHER, location)
    }

    /// `308`: the same request, there, for good.
    pub fn moved(location: &str) -> Self {
        Self::to(StatusCode::PERMANENT_REDIRECT, location)
    }

    /// `307`: the same request, with its body, there.
    pub fn repeat(location: &str) -> Self {
        Self::to(StatusCode::TEMPORARY_REDIRECT, location)
    }

    fn to(status: StatusCode, location: &str) -> Self {
        match HeaderValue::try_from(location) {
            Ok(location) => Self::new(status, None, Bytes::new()).with(header::LOCATION, location),
            // The edge's own URLs are ASCII. Should one not be, there is no redirect.
            Err(_) => Self::json(StatusCode::INTERNAL_SERVER_ERROR, &json!({"error": "internal"})),
        }
    }

    /// A redirect of a route. The location is one that the configuration has, with what may be kept of the request. Other
    /// than on the way of a sign-on, the page that a request comes from is no secret, and pages of other sites may load an
    /// image by way of an old address.
    pub fn configured_redirect(status: StatusCode, location: &str) -> Self {
        let reply = Self::to(status, location);
        let kept = [header::LOCATION, header::CACHE_CONTROL];
        let fields = reply.fields.into_iter().filter(|(name, _)| kept.contains(name)).collect();
        Self { fields, ..reply }
    }

    /// A fixed reply of a route, as the configuration has it. It may be for signed-in users alone, so no cache keeps it.
    pub fn fixed(status: StatusCode, content_type: Option<&HeaderValue>, body: Bytes) -> Self {
        let body = if FixedReply::is_bodiless(status) { Bytes::new() } else { body };
        let mut reply = Self { status, fields: Vec::with_capacity(4), body, close: false, is_error_page: false };
        reply.fields.push((header::CACHE_CONTROL, HeaderValue::from_static("no-store")));
        if let Some(content_type) = content_type {
            reply.fields.push((header::CONTENT_TYPE, content_type.clone()));
            reply.fields.push((header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")));
        }
        reply
    }

    /// A page under a Content-Security-Policy that allows our inline style and nothing else. `form_targets` are
    /// origins that a form of the page may lead to: browsers hold redirects after a POST against them.
    pub fn page(status: StatusCode, html: String, form_targets: &str) -> Self {
        let style = pages::style_hash();
        let policy = format!(
            "default-src 'none'; style-src '{style}'; img-src data:; form-action 'self'{form_targets}; \
             frame-ancestors 'none'; base-uri 'none'"
        );
        let reply = Self::new(status, Some("text/html; charset=utf-8"), html)
            .with(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"))
            .with(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
        match HeaderValue::try_from(policy) {
            Ok(policy) => reply.with(header::CONTENT_SECURITY_POLICY, policy),
            Err(_) => reply,
        }
    }

    /// A page that may be shown inside pages of any site: it has a link and no form, so there is nothing to be tricked
    /// into.
    pub fn frameable(status: StatusCode, html: String) -> Self {
        let style = pages::style_hash();
        let policy =
            format!("default-src 'none'; style-src '{style}'; img-src data:; form-action 'none'; base-uri 'none'");
        let reply = Self::new(status, Some("text/html; charset=utf-8"), html);
        match HeaderValue::try_from(policy) {
            Ok(policy) => reply.with(header::CONTENT_SECURITY_POLICY, policy),
            Err(_) => reply,
        }
    }

    /// A page with a form that leads back to us. Under `no-referrer` a browser from before Fetch Metadata posts it with
    /// `Origin: null`; under this policy with its own origin, and other sites learn as little of its address.
    pub fn form(status: StatusCode, html: String, form_targets: &str) -> Self {
        let mut reply = Self::page(status, html, form_targets);
        for (name, value) in &mut reply.fields {
            if *name == header::REFERRER_POLICY {
                *value = HeaderValue::from_static("same-origin");
            }
        }
        reply
    }

    /// An error, as a page for clients that read pages and as JSON for the others. `text` is for the public.
    pub fn problem(context: &ErrorContext<'_>, status: StatusCode, title: &str, text: &str) -> Self {
        Self::problem_of(context, status, &code(status), title, text)
    }

    /// The same with a code that is more specific than the status.
    pub fn problem_of(context: &ErrorContext<'_>, status: StatusCode, code: &str, title: &str, text: &str) -> Self {
        let unsaved = !context.repeats && may_have_been_lost(status);
        let text = if unsaved { format!("{text} What you sent may not have been saved.") } else { text.to_owned() };
        if !context.html {
            return Self::error(status, code, &text, context.request_id);
        }
        let page = pages::Problem {
            branding: context.branding,
            status: status.as_u16(),
            title,
            text: &text,
            request_id: context.request_id,
            ways: pages::Ways {
                user: context.user,
                again: (context.repeats && may_pass(status)).then_some(""),
                applications: context.applications.as_deref(),
                sign_out: context.sign_out,
            },
        };
        Self { is_error_page: true, ..Self::page(status, page.render(), "") }
    }

    /// For a fault that passes by itself: a page tries again after so many seconds, without a script. What was sent by
    /// another method than GET is never sent again for the person who did.
    pub fn refreshing(self, context: &ErrorContext<'_>, seconds: u64) -> Self {
        if context.html && context.repeats { self.with(header::REFRESH, HeaderValue::from(seconds)) } else { self }
    }

    /// An error as JSON, for programs: `code` is for them to decide by, `message` a sentence for the public.
    pub fn error(status: StatusCode, code: &str, message: &str, request_id: &str) -> Self {
        Self::json(status, &json!({"error": code, "message": message, "request_id": request_id}))
    }

    /// `401` as JSON, with the address that a person would sign in at.
    pub fn login_required(reason: &str, message: &str, login_url: &str, request_id: &str) -> Self {
        let body = json!({
            "error": "login_required", "reason": reason, "message": message, "login_url": login_url,
            "request_id": request_id,
        });
        Self::json(StatusCode::UNAUTHORIZED, &body)
    }

    pub fn json(status: StatusCode, value: &Value) -> Self {
        // The policy holds where JSON is opened as a page of its own, or in a frame.
        Self::new(status, Some("application/json"), value.to_string()).with(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
        )
    }

    /// Bytes of a file, which a browser makes nothing of (RFC 8555 §8.3).
    pub fn octets(body: Bytes) -> Self {
        Self::new(StatusCode::OK, Some("application/octet-stream"), body)
    }

    /// What is the same for everybody, and public: caches may keep it for so long.
    pub fn cacheable(mut self, seconds: u64) -> Self {
        self.fields.retain(|(name, _)| *name != header::CACHE_CONTROL);
        match HeaderValue::try_from(format!("public, max-age={seconds}")) {
            Ok(value) => self.with(header::CACHE_CONTROL, value),
            Err(_) => self,
        }
    }

    /// Adds a field.
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.fields.push((name, value));
        self
    }

    /// Leaves fields out, and sets others in the place of those of the same name.
    pub fn changed(mut self, removed: &[HeaderName], set: &[(HeaderName, HeaderValue)]) -> Self {
        let is_set = |name: &HeaderName| set.iter().any(|(other, _)| other == name);
        self.fields.retain(|(name, _)| !removed.contains(name) && !is_set(name));
        self.fields.extend_from_slice(set);
        self
    }

    /// Adds a cookie; a cookie that could not be built is left out.
    pub fn with_cookie(self, cookie: Option<HeaderValue>) -> Self {
        match cookie {
            Some(cookie) => self.with(header::SET_COOKIE, cookie),
            None => self,
        }
    }

    pub fn retry_after(self, seconds: u64) -> Self {
        self.with(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Whether a page of the service's own may stand in the place of this one.
    pub const fn is_error_page(&self) -> bool {
        self.is_error_page
    }

    /// Keeps the edge's own page, as those of the sign-on say what a person can do about it.
    pub fn without_error_page(self) -> Self {
        Self { is_error_page: false, ..self }
    }

    /// Puts a page that an administrator has written in the place of the edge's. Status and other fields stay. It is
    /// self-contained: the policy lets it load nothing and run nothing.
    pub fn with_page(mut self, html: String) -> Self {
        const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; \
                              form-action 'none'; frame-ancestors 'none'; base-uri 'none'";
        for (name, value) in &mut self.fields {
            if *name == header::CONTENT_SECURITY_POLICY {
                *value = HeaderValue::from_static(POLICY);
            }
        }
        Self { body: html.into(), is_error_page: false, ..self }
    }

    /// Closes the connection: after a request whose end is in doubt.
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    pub const fn closes(&self) -> bool {
        self.close
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The first value of a field, for tests and logs.
    pub fn field(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }

    pub fn fields(&self) -> &[(HeaderName, HeaderValue)] {
        &self.fields
    }

    pub fn body(&self) -> &Bytes {
        &self.body
    }

    pub fn head(&self, request_id: &str) -> pingora::Result<ResponseHeader> {
        let mut head = ResponseHeader::build_no_case(self.status, Some(self.fields.len() + 2))?;
        for (name, value) in &self.fields {
            head.append_header(name.clone(), value.clone())?;
        }
        head.insert_header("x-request-id", request_id)?;
        // Neither has a body, and only the first may not say so (RFC 9110 §8.6); a 304 would speak of another response.
        if ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&self.status) {
            head.insert_header(header::CONTENT_LENGTH, self.body.len())?;
        }
        Ok(head)
    }

    /// Writes to the client. The connection is kept unless the reply, or Pingora, says otherwise.
    /// Errors when the client has not taken it within `deadline`: Pingora bounds the writing of bodies, not of heads.
    pub async fn write(self, session: &mut Session, request_id: &str, deadline: Duration) -> pingora::Result<()> {
        match tokio::time::timeout(deadline, self.write_all(session, request_id)).await {
            Ok(written) => written,
            Err(_) => Err(pingora::Error::new_down(pingora::ErrorType::WriteTimedout)),
        }
    }

    async fn write_all(self, session: &mut Session, request_id: &str) -> pingora::Result<()> {
        let bodiless = session.req_header().method == http::Method::HEAD || self.body.is_empty();
        let head = self.head(request_id)?;
        if self.close {
            session.as_downstream_mut().set_keepalive(None);
        } else {
            linger(session);
        }
        session.write_response_header(Box::new(head), bodiless).await?;
        if bodiless {
            // Over HTTP/2 nothing else ends the stream where the request has failed, and it would be reset.
            return session.as_downstream_mut().finish_body().await;
        }
        session.write_response_body(Some(self.body), true).await
    }
}

/// Whether the same request may be answered differently a moment later, or once the user has other rights.
fn may_pass(status: StatusCode) -> bool {
    let lasts = status.is_client_error();
    !lasts || matches!(status, StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST | StatusCode::TOO_MANY_REQUESTS)
}

/// Whether an application may have had a part of the request, or would have had it.
fn may_have_been_lost(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT
}

/// The code of an error without a more specific one: the reason phrase of its status.
fn code(status: StatusCode) -> String {
    status.canonical_reason().unwrap_or("error").to_ascii_lowercase().replace([' ', '-'], "_").replace('\'', "")
}

/// Pingora closes when it answers before the request's body is there, and the reset takes the reply with it
/// (RFC 9112 §9.6). So the rest is read away, within the drain
/// timeout that `proxy` sets. Not where the client waits for `100 Continue` before it sends its body: it
/// may come now or not, and what is read next would be a guess.
pub fn linger(session: &mut Session) {
    if session.req_header().headers.contains_key(header::EXPECT) {
        return;
    }
    session.as_downstream_mut().set_close_on_response_before_downstream_finish(false);
}
