//! The pages that people see: signing in, signed out, the list of applications, and what went wrong.
//!
//! Values in, HTML out. This is not the reply: status, headers and the Content-Security-Policy are written in
//! `reply`, and which page is due is decided by `sentry` and by `proxy`'s rescue, which call it. Everything put
//! into a page is escaped by askama. No page has a script or fetches anything, and all of them carry the same
//! `<style>`, which [`style_hash`] names, so that the policy gets by without `'unsafe-inline'`.

use std::fmt;
use std::sync::LazyLock;

use askama::Template;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

/// How a site presents itself on every page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branding {
    /// Heading of the sign-in page.
    pub title: String,
    /// An image as a `data:` URI; the policy lets a page load no other.
    pub logo: Option<String>,
    /// A line under the title of the sign-in page, and in the footer of the others.
    pub text: Option<String>,
}

impl Default for Branding {
    fn default() -> Self {
        Self { title: "Sign in".to_owned(), logo: None, text: None }
    }
}

// askama without its `config` feature looks for a `path` in `templates/` at the top level alone. A template
// that is extended is looked for from the crate's root, where Cargo runs rustc; hence each page's one-line source.

/// The form. It has no room for a password, so none can be put back.
#[derive(Template)]
#[template(ext = "html", source = r#"{% extends "src/pages/login.html" %}"#)]
pub struct Login<'a> {
    pub branding: &'a Branding,
    pub csrf: &'a str,
    /// Empty when there is none.
    pub redirect_url: &'a str,
    /// Empty when there is none.
    pub state: &'a str,
    /// As it was typed before.
    pub username: &'a str,
    /// The host that the user is on the way to.
    pub destination: Option<&'a str>,
    pub notice: Option<Notice>,
    pub request_id: &'a str,
}

/// What the form says above its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    WrongCredentials,
    MissingFields,
    /// Idle too long, or signed out.
    SessionEnded,
    FormTooOld,
    TooManyAttempts {
        retry_after_s: u64,
    },
    /// As many logins as we can check at once are being checked.
    Busy,
    /// The user directory cannot be read, so it is not known whether the password is right.
    DirectoryAway,
    StoreAway,
    /// A fault of the edge itself.
    Failed,
    /// The login could not be recorded in the audit log.
    Unrecorded,
    /// The browser did not send our cookie back.
    CookieNotKept,
    /// The account's services and roles do not fit into a cookie.
    TooLarge,
}

/// Where a page leads on. Absent parts are left out; what is there has been shown by the request itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ways<'a> {
    /// Who is signed in.
    pub user: Option<&'a str>,
    /// The address to try again; empty is the page's own.
    pub again: Option<&'a str>,
    /// The list of the user's applications.
    pub applications: Option<&'a str>,
    pub sign_out: Option<&'a str>,
}

/// A refusal or a fault; its constructor gives the text.
#[derive(Template)]
#[template(ext = "html", source = r#"{% extends "src/pages/problem.html" %}"#)]
pub struct Problem<'a> {
    pub branding: &'a Branding,
    pub status: u16,
    pub title: &'a str,
    pub text: &'a str,
    pub request_id: &'a str,
    pub ways: Ways<'a>,
}

/// After a logout.
#[derive(Template)]
#[template(ext = "html", source = r#"{% extends "src/pages/signed_out.html" %}"#)]
pub struct SignedOut<'a> {
    pub branding: &'a Branding,
    /// What is to be said of other applications, unless the session has ended in all of them.
    pub elsewhere: Option<&'a str>,
    /// Where to sign in again.
    pub sign_in: Option<&'a str>,
    pub request_id: &'a str,
}

/// Asks for confirmation before a logout that another site may have started.
#[derive(Template)]
#[template(ext = "html", source = r#"{% extends "src/pages/confirm_logout.html" %}"#)]
pub struct ConfirmLogout<'a> {
    pub branding: &'a Branding,
    /// Where the one button posts to.
    pub action: &'a str,
    pub request_id: &'a str,
}

/// The sign-on host's own page for someone who is signed in.
#[derive(Template)]
#[template(ext = "html", source = r#"{% extends "src/pages/home.html" %}"#)]
pub struct Home<'a> {
    pub branding: &'a Branding,
    pub user: &'a str,
    /// Name and address of each.
    pub services: &'a [(String, String)],
    /// Where the sign-out button posts to.
    pub logout: &'a str,
    pub request_id: &'a str,
}

/// Instead of one more redirect to a browser that never brings the cookie.
#[derive(Template)]
#[template(ext = "html", source = r#"{% extends "src/pages/loop.html" %}"#)]
pub struct Loop<'a> {
    pub branding: &'a Branding,
    /// The application's host.
    pub host: &'a str,
    pub request_id: &'a str,
    pub ways: Ways<'a>,
}

/// Bytes of a logo that a page of a fault may have. Such a page is sent whole, and never from a cache, to many people at
/// once when something is wrong.
const LARGEST_LOGO_OF_A_PROBLEM: usize = 32 * 1024;

impl Branding {
    /// The logo, if it is small.
    fn small_logo(&self) -> Option<&str> {
        self.logo.as_deref().filter(|logo| logo.len() <= LARGEST_LOGO_OF_A_PROBLEM)
    }
}

/// The beginning of a reference, to be read out over the telephone.
fn short(request_id: &str) -> &str {
    const CHARACTERS: usize = 8;
    request_id.char_indices().nth(CHARACTERS).map_or(request_id, |(end, _)| &request_id[..end])
}

/// The sign-in page for a person who is signed in.
#[derive(Template)]
#[template(ext = "html", source = r#"{% extends "src/pages/signed_in.html" %}"#)]
pub struct SignedIn<'a> {
    pub branding: &'a Branding,
    pub user: &'a str,
    /// The host that the user is on the way to.
    pub destination: Option<&'a str>,
    /// Address of the way on.
    pub go_on: &'a str,
    /// Address of the form.
    pub other: &'a str,
    pub request_id: &'a str,
}

/// Instead of a sign-on that could not end in this window or frame: a link that opens another window.
#[derive(Template)]
#[template(ext = "html", source = r#"{% extends "src/pages/beside.html" %}"#)]
pub struct Beside<'a> {
    pub branding: &'a Branding,
    /// The application's host.
    pub host: &'a str,
    pub why: Why,
    /// What the other window shows.
    pub href: &'a str,
    pub request_id: &'a str,
}

/// Why a sign-on does not begin where it was requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Inside a page of another site, where the application's cookies are not sent.
    ForeignFrame,
    /// Inside a page of this site, where the form is not shown.
    OwnFrame,
}

macro_rules! render {
    ($($page:ident)+) => {$(
        impl $page<'_> {
            /// The page as HTML in UTF-8.
            pub fn render(&self) -> String {
                Template::render(self).unwrap_or_else(|_| FALLBACK.to_owned())
            }
        }
    )+};
}

render! { Login Problem SignedOut ConfirmLogout Home Loop SignedIn Beside }

/// Writing into a String does not fail, but askama's signature allows it.
const FALLBACK: &str = "<!doctype html><html lang=\"en\"><title>Error</title>\
    <p>Something went wrong on our side. Please try again in a minute.</p></html>\n";

/// The one style of all pages as a CSP source: `sha256-` and the Base64 of its digest (CSP 3, section 2.3.1).
pub fn style_hash() -> &'static str {
    static HASH: LazyLock<String> = LazyLock::new(|| {
        // askama drops the newline at the end of a template.
        let style = include_str!("pages/style.css").trim_ascii_end();
        format!("sha256-{}", STANDARD.encode(digest(&SHA256, style.as_bytes())))
    });
    &HASH
}

impl Login<'_> {
    fn failed(&self) -> bool {
        self.notice.is_some_and(Notice::is_error)
    }

    fn doubts_username(&self) -> bool {
        match self.notice {
            Some(Notice::WrongCredentials) => true,
            Some(Notice::MissingFields) => self.username.is_empty(),
            _ => false,
        }
    }

    /// Of missing fields the form still knows the username alone: if that is there, the password was missing.
    fn doubts_password(&self) -> bool {
        match self.notice {
            Some(Notice::WrongCredentials) => true,
            Some(Notice::MissingFields) => !self.username.is_empty(),
            _ => false,
        }
    }
}

impl Notice {
    /// Whether an attempt failed (`role="alert"`), or the user only gets information (`role="status"`).
    pub fn is_error(self) -> bool {
        self != Self::SessionEnded
    }

    /// The same for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::WrongCredentials => "wrong_credentials",
            Self::MissingFields => "missing_fields",
            Self::SessionEnded => "session_ended",
            Self::FormTooOld => "form_too_old",
            Self::TooManyAttempts { .. } => "too_many_attempts",
            Self::Busy => "busy",
            Self::DirectoryAway => "directory_away",
            Self::StoreAway => "store_away",
            Self::Failed => "internal_error",
            Self::Unrecorded => "unrecorded",
            Self::CookieNotKept => "cookie_not_kept",
            Self::TooLarge => "token_too_large",
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WrongCredentials => {
                "The username or the password is not correct. Check that Caps Lock is off, then try again."
            }
            Self::MissingFields => "Enter both your username and your password.",
            Self::SessionEnded => {
                "Your session has ended: after some time without activity, because you signed out, or because an \
                 administrator ended it. Sign in again to continue."
            }
            Self::FormTooOld => "This page was open for too long. It has been renewed; please sign in again.",
            Self::TooManyAttempts { retry_after_s } => {
                return write!(f, "There were too many attempts to sign in. Please try again {}.", In(*retry_after_s));
            }
            Self::Busy => "Many people are signing in at this moment. Please try again in a few seconds.",
            Self::DirectoryAway => {
                "Your username and password cannot be checked right now. The fault is on our side. \
                 Please try again in a minute."
            }
            Self::StoreAway => {
                "Signing in is not possible right now. The fault is on our side, not with your password. \
                 Please try again in a minute."
            }
            Self::Failed => {
                "Something went wrong on our side, and you are not signed in. Please try again; if it happens again, \
                 give your administrator the reference below."
            }
            Self::Unrecorded => {
                "Signing in is not possible right now, because it could not be recorded. The fault is on our side, not \
                 with your password. Please try again in a minute."
            }
            Self::CookieNotKept => {
                "Your browser did not keep our cookie. Allow cookies for this site or leave private browsing, \
                 then sign in again."
            }
            Self::TooLarge => {
                "Your username and password are right, but your account has more applications and roles than one \
                 sign-in can hold. Ask your administrator to take some away, and give them the reference below."
            }
        })
    }
}

/// A number of seconds as text, rounded up, so that a user who comes back then is not too early.
struct In(u64);

impl fmt::Display for In {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.div_ceil(60), self.0.div_ceil(3600)) {
            (0 | 1, _) => f.write_str("in a minute"),
            (minutes @ ..=90, _) => write!(f, "in {minutes} minutes"),
            (_, hours) => write!(f, "in {hours} hours"),
        }
    }
}

#[cfg(test)]
mod tests;
