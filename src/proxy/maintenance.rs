//! A service in maintenance: who gets through, and what the others get.

use http::StatusCode;

use super::context::RequestContext;
use super::decision::Decision;
use super::decision_log::log_decision;
use super::error_response::error_context;
use super::request::RequestView;
use crate::auth::{Outcome, Requirement, Verdict};
use crate::reply::Reply;
use crate::request::Head;
use crate::routes::Service;

/// The reason in the log and in the metrics, and the code of the reply.
const MAINTENANCE: &str = "maintenance";

/// After so many seconds a request is worth another try.
const RETRY_SECONDS: u64 = 60;

/// Whether a request for a service in maintenance gets through, to what is decided for every other request: by the client's
/// address, or by the session of a user with a role that is an exception. `demanded` is what its route demands.
pub async fn gets_through(head: &Head<'_>, service: &Service, demanded: Requirement<'_>, ctx: &RequestContext) -> bool {
    let Some(except) = &service.config.maintenance else { return false };
    let is_excepted = |client| except.addresses.iter().any(|network| network.contains(&client));
    if ctx.client.is_some_and(is_excepted) {
        return true;
    }
    let Some(access) = &except.access else { return false };
    // Whether the session is extended is decided with the request itself.
    let requirement = Requirement { access, extends_session: false, ..demanded };
    let judged = ctx.snapshot.guard.check(head.headers, &requirement, head.now).await;
    matches!(judged.verdict, Verdict::Allowed(_))
}

/// What every other request gets.
pub fn refusal(request: &RequestView<'_>, ctx: &mut RequestContext) -> Decision {
    log_decision!(ctx, "maintenance refused");
    ctx.outcome = Some(Outcome::Unavailable.label());
    ctx.reason = Some(MAINTENANCE);
    if let Some(service) = &ctx.service {
        service.metrics.maintenance.inc();
    }
    let context = error_context(request, ctx);
    let text = "This application is being maintained and will be back soon.";
    let reply = Reply::problem_of(&context, StatusCode::SERVICE_UNAVAILABLE, MAINTENANCE, "Down for maintenance", text);
    reply.retry_after(RETRY_SECONDS).refreshing(&context, RETRY_SECONDS).into()
}
