//! Certificate authorities that ask over plain HTTP whether a host is ours, see `acme`.

use http::{HeaderValue, Method, StatusCode, header};

use super::context::RequestContext;
use super::error_response::error_context;
use super::gateway::Gateway;
use super::request::RequestView;
use crate::acme::{self, ChallengeFile};
use crate::reply::Reply;

impl Gateway {
    pub(super) async fn challenge(&self, request: &RequestView<'_>, ctx: &mut RequestContext) -> Box<Reply> {
        let problem = |ctx: &RequestContext, status, title, text| {
            Reply::problem(&error_context(request, ctx), status, title, text)
        };
        if ![Method::GET, Method::HEAD].contains(&request.head.method) {
            let text = "A challenge can only be fetched with GET or HEAD.";
            let reply = problem(ctx, StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", text);
            return Box::new(reply.with(header::ALLOW, HeaderValue::from_static("GET, HEAD")));
        }
        let found = match (&ctx.snapshot.acme_challenge, acme::challenge_token(request.head.uri.path())) {
            (Some(root), Some(token)) => self.challenges.read(root, token).await,
            _ => ChallengeFile::Missing,
        };
        ctx.error = match found {
            ChallengeFile::Content(_) | ChallengeFile::Missing => None,
            ChallengeFile::Unreadable => Some("challenge_unreadable"),
            ChallengeFile::TimedOut => Some("challenge_late"),
        };
        Box::new(match found {
            ChallengeFile::Content(bytes) => Reply::octets(bytes),
            ChallengeFile::Missing | ChallengeFile::Unreadable => {
                let text = "There is no challenge of this name.";
                problem(ctx, StatusCode::NOT_FOUND, "Not found", text)
            }
            ChallengeFile::TimedOut => {
                let text = "The challenge could not be read in time. Please try again in a moment.";
                problem(ctx, StatusCode::SERVICE_UNAVAILABLE, "Temporarily unavailable", text).retry_after(5)
            }
        })
    }
}
