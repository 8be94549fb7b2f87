//! What is decided for a request.

use crate::host::Authority;
use crate::reply::Reply;

/// What to do with a request.
pub enum Decision {
    Forward,
    /// A route of the sign-on's, asked for under this authority.
    SignOn(Authority),
    /// What a certificate authority asks for over plain HTTP.
    Challenge,
    Reply(Box<Reply>),
}

impl From<Reply> for Decision {
    fn from(reply: Reply) -> Self {
        Self::Reply(Box::new(reply))
    }
}
