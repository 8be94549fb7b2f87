//! How a person proves who they are.
//!
//! An [`IdentityProvider`] verifies what a browser sends and returns the user; `open_session` then opens the session, and
//! does not know which provider verified the user. Another way to sign in (OpenID Connect, SAML) is another
//! [`LoginMethod`] with a provider of its own: it shares neither the form nor the login pool, and everything after it.

use http::StatusCode;

use super::login::attempt::Attempt;
use crate::pages::Notice;
use crate::request::Head;
use crate::users::User;

/// A way to sign in, with what the browser sent for it.
pub enum LoginMethod<'a> {
    /// The login form, with user name and password.
    Password(&'a Attempt),
}

/// Verifies one kind of proof.
pub trait IdentityProvider {
    /// What a person sends as proof.
    type Proof;

    /// Returns the user whose identity was proved, or what the login page says instead. A provider counts and audits its
    /// own refusals; `destination` is the host that the user is on the way to, for the audit log.
    async fn identify(
        &self,
        head: &Head<'_>,
        proof: &Self::Proof,
        destination: &str,
    ) -> Result<User, (StatusCode, Notice)>;
}
