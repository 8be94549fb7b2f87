//! Certificate authorities that ask over plain HTTP whether a host is ours, see `acme`.

use http::{HeaderValue, Method, StatusCode, header};

use super::context::RequestContext;
use super::error_response::asked;
use super::gateway::Gateway;
use super::request::RequestView;
use crate::acme::{self, Found};
use crate::reply::Reply;

impl Gateway {
    pub(super) async fn challenge(&self, request: &RequestView<'_>, ctx: &mut RequestContext) -> Box<Reply> {
        let problem =
            |ctx: &RequestContext, status, title, text| Reply::problem(&asked(request, ctx), status, title, text);
        if ![Method::GET, Method::HEAD].contains(&request.head.method) {
            let text = "A challenge is fetched by GET.";
            let reply = problem(ctx, StatusCode::METHOD_NOT_ALLOWED, "Not this way", text);
            return Box::new(reply.with(header::ALLOW, HeaderValue::from_static("GET, HEAD")));
        }
        let found = match (&ctx.snapshot.acme_challenge, acme::asked_for(request.head.uri.path())) {
            (Some(root), Some(token)) => self.challenges.read(root, token).await,
            _ => Found::Nothing,
        };
        ctx.error = match found {
            Found::Challenge(_) | Found::Nothing => None,
            Found::Unreadable => Some("challenge_unreadable"),
            Found::Late => Some("challenge_late"),
        };
        Box::new(match found {
            Found::Challenge(bytes) => Reply::octets(bytes),
            Found::Nothing | Found::Unreadable => {
                let text = "There is no challenge of this name.";
                problem(ctx, StatusCode::NOT_FOUND, "Not found", text)
            }
            Found::Late => {
                let text = "The challenge could not be read in time. Try again in a moment.";
                problem(ctx, StatusCode::SERVICE_UNAVAILABLE, "Not now", text).retry_after(5)
            }
        })
    }
}
