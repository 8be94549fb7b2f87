//! The changes that a route's configuration makes to header fields, on both request paths: of requests on their way to an
//! application, of responses on their way to a client.

use std::sync::Arc;

use http::StatusCode;
use pingora::Result;
use pingora_http::ResponseHeader;

use super::edit::HeaderEdit;
use crate::proxy::context::RequestContext;
use crate::routes::rules::{RequestFields, ResponseFields};

/// Returns the changes of a request's fields, `None` for most routes.
pub fn of_request(ctx: &RequestContext) -> Option<&RequestFields> {
    ctx.service.as_ref().and_then(|service| service.at(ctx.route).request_fields.as_deref())
}

/// Returns the changes of the fields of a response to the request, `None` for most routes.
pub fn of_response(ctx: &RequestContext) -> Option<&Arc<ResponseFields>> {
    ctx.service.as_ref().and_then(|service| service.at(ctx.route).response_fields.as_ref())
}

/// Returns how many fields of a request are changed at most, beside the edge's own.
pub fn most_set(ctx: &RequestContext) -> usize {
    of_request(ctx).map_or(0, |fields| fields.removed.len() + fields.set.len())
}

/// Changes a request's fields, after the edge's own are set: no name of these is among them.
pub fn change_request(fields: &mut impl HeaderEdit, changes: &RequestFields) {
    for name in &changes.removed {
        fields.remove(name);
    }
    for (name, value) in &changes.set {
        fields.set(name, value.clone());
    }
}

/// Changes the fields of a response: of an application's, a file's, or one that the configuration has. Not those of
/// interim responses, which are not what a client keeps; but those of a `101`, which is the last of its kind.
pub fn change_response(response: &mut ResponseHeader, ctx: &RequestContext) -> Result<()> {
    let Some(changes) = of_response(ctx) else { return Ok(()) };
    if response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(());
    }
    for name in &changes.removed {
        response.remove_header(name);
    }
    for (name, value) in &changes.set {
        response.insert_header(name.clone(), value.clone())?;
    }
    Ok(())
}
