//! What is decided for a request, at `log.level: debug`: one line for each decision, with the request's id.
//!
//! At every other level a line costs one comparison: nothing is evaluated, allocated or formatted. A line names hosts,
//! paths, services, servers, users, statuses and reasons. It never has a token, a ticket, a cookie or a query.

use std::fmt::Arguments;

/// The component in the process log; tests and operators filter by it.
pub const COMPONENT: &str = "request";

/// Why the fast path declined a request over HTTP/2, in the extensions of its head. Over HTTP/1 the connection has it.
#[derive(Clone, Copy)]
pub struct Declined(pub &'static str);

/// Whether these lines are written.
macro_rules! is_logged {
    () => {
        log::log_enabled!(target: $crate::proxy::decision_log::COMPONENT, log::Level::Debug)
    };
}

/// `log_decision!(ctx, "route matched service={name}")`.
macro_rules! log_decision {
    ($ctx:expr, $($argument:tt)+) => {
        if $crate::proxy::decision_log::is_logged!() {
            $crate::proxy::decision_log::write(&$ctx.request_id, format_args!($($argument)+));
        }
    };
}

pub(crate) use {is_logged, log_decision};

#[cold]
#[inline(never)]
pub fn write(request_id: &str, decision: Arguments<'_>) {
    log::debug!(target: COMPONENT, "{decision} request_id={request_id}");
}
