//! What is decided for a request.

use crate::host::Authority;
use crate::reply::Reply;

/// What to do with a request.
pub enum Decision {
    Forward,
    /// A route of the sign-on, under this authority.
    SignOn(Authority),
    /// An ACME challenge, which a certificate authority fetches over plain HTTP.
    Challenge,
    Reply(Box<Reply>),
    /// One of the route's static files.
    File,
}

impl From<Reply> for Decision {
    fn from(reply: Reply) -> Self {
        Self::Reply(Box::new(reply))
    }
}
