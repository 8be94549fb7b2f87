//! Current user: the signed-in user as JSON, for scripts. The request does not extend the session.

use http::StatusCode;
use serde_json::json;

use super::Sentry;
use crate::auth::{Reason, Verdict};
use crate::clock::UnixTime;
use crate::reply::Reply;
use crate::request::Head;

impl Sentry {
    /// Replies `200` also if no user is signed in, and `503` if the store is unavailable.
    pub(super) async fn current_user(&self, head: &Head<'_>, service: Option<&str>) -> Reply {
        let verdict = match service {
            Some(_) => self.authenticate(head, service, false).await,
            None => self.signed_in(head, false).await,
        };
        let identity = match verdict {
            Verdict::Allowed(identity) => identity,
            Verdict::Refused(Reason::StoreUnavailable(_)) => return self.store_unavailable(head),
            Verdict::Refused(_) => return Reply::json(StatusCode::OK, &json!({ "currentUser": null })),
        };
        let claims = identity.verified().claims();
        let body = json!({ "currentUser": {
            "id": claims.sub,
            "name": claims.name,
            "email": claims.email,
            "roles": identity.roles(),
            "services": identity.services(),
            "session": {
                "idle_timeout_s": claims.idle,
                "expires_at": UnixTime::from_seconds(claims.exp).rfc3339(),
            },
        }});
        Reply::json(StatusCode::OK, &body)
    }
}
