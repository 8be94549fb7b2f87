//! What the log and the later phases of a request learn of its verdict.

use super::context::RequestContext;
use super::decision_log::{is_logged, log_decision};
use crate::auth::{AuthDecision, Reason, Verdict};
use crate::sentry::RedeemOutcome;

/// The `reason` in the log of a preflight that was admitted without identity.
const PREFLIGHT: &str = "preflight";

/// What became of the ticket in a request's URL.
pub fn ticket_result(ticket: &RedeemOutcome) -> &'static str {
    match ticket {
        RedeemOutcome::NoTicket => "none",
        RedeemOutcome::Reply(_) => "answered",
        RedeemOutcome::NotRedeemable { .. } => "not_redeemed",
        RedeemOutcome::Failed(_) => "refused",
    }
}

/// One line each for the token, the session and the verdict. `None` is a route that wants no identity.
#[cold]
fn log_verdict(ctx: &RequestContext, judged: Option<&AuthDecision>) {
    let Some(AuthDecision { verdict, refused, .. }) = judged else {
        log_decision!(ctx, "verdict outcome=public preflight={}", ctx.is_preflight);
        return;
    };
    let reason = match verdict {
        Verdict::Allowed(identity) => {
            let user = &identity.verified().claims().name;
            log_decision!(ctx, "token verified source={:?} user={user:?}", identity.source());
            log_decision!(ctx, "session accepted assurance={:?}", identity.assurance());
            log_decision!(ctx, "verdict outcome=allowed");
            return;
        }
        Verdict::Refused(reason) => reason,
    };
    let user = refused.as_ref().map(|verified| &*verified.claims().name);
    match reason {
        Reason::NoToken | Reason::SeveralCookies | Reason::Token(_) => {
            log_decision!(ctx, "token refused reason={} user={user:?}", reason.label());
        }
        Reason::NoSession | Reason::StoreUnavailable(_) | Reason::Revoked | Reason::OtherBrowser => {
            log_decision!(ctx, "token verified user={user:?}");
            log_decision!(ctx, "session refused reason={}", reason.label());
        }
        Reason::Denied => {}
        Reason::NotRegistered | Reason::MissingRole => {
            log_decision!(ctx, "token verified user={user:?}");
            log_decision!(ctx, "session accepted");
        }
    }
    log_decision!(ctx, "verdict outcome={} reason={}", reason.outcome().label(), reason.label());
}

/// Stores the verdict for the log and for the phases that follow. `None` is a request without identity.
pub fn record(ctx: &mut RequestContext, judged: Option<AuthDecision>, route: usize) {
    if is_logged!() {
        log_verdict(ctx, judged.as_ref());
    }
    ctx.route = route;
    let Some(AuthDecision { verdict, took, .. }) = judged else {
        ctx.outcome = Some("public");
        ctx.reason = ctx.is_preflight.then_some(PREFLIGHT);
        return;
    };
    ctx.auth_seconds = Some(took.as_secs_f64());
    match verdict {
        Verdict::Allowed(identity) => {
            ctx.outcome = Some("allowed");
            ctx.reason = Some(identity.assurance().label()).filter(|label| *label != "none");
            ctx.identity = Some(identity);
        }
        Verdict::Refused(reason) => {
            ctx.outcome = Some(reason.outcome().label());
            ctx.reason = Some(reason.label());
        }
    }
}
