//! A route's static files: the response to a request for one, or the reply in its place.

use http::{HeaderValue, StatusCode, header};

use super::context::RequestContext;
use super::decision_log::log_decision;
use super::error_response::error_context;
use super::gateway::Gateway;
use super::request::RequestView;
use crate::files::{FileReply, FileRequest, FileResponse, ReadError};
use crate::path::{self, FilePath};
use crate::reply::Reply;
use crate::request;
use crate::routes::Service;

/// The limit in the metrics that requests reach whose file system does not answer.
const FILE_READS: &str = "file_reads";

/// After so many seconds a file system may answer again.
const RETRY_SECONDS: u64 = 10;

/// Looks for the file of a request that its route has admitted. An error is the reply that it gets instead.
pub async fn find(
    gateway: &Gateway,
    request: &RequestView<'_>,
    ctx: &mut RequestContext,
) -> Result<FileResponse, Box<Reply>> {
    let (method, uri, headers) = (&request.head.method, &request.head.uri, request.headers());
    let reply = {
        let service = ctx.service.as_ref();
        let Some((service, files)) = service.and_then(|service| Some((service, service.at(ctx.route).files.as_ref()?)))
        else {
            return Err(Box::new(problem(request, ctx, StatusCode::NOT_FOUND)));
        };
        let route = &service.at(ctx.route).config;
        let path = match route.is_exact {
            // All that is below the root is the root's index.
            true => Some(FilePath::root()),
            false => FilePath::of_request(uri.path(), &route.path),
        };
        if !route.is_exact && path.as_ref().is_some_and(FilePath::names_folder) {
            let own = format!("{}{}", uri.path(), path::encoded(files.index()));
            if !service.may_show(ctx.route, &own) {
                return Err(Box::new(guarded_index(request, ctx, service, &own)));
            }
        }
        let may_show = |fallback: &FilePath| {
            let name = String::from_utf8_lossy(fallback.as_bytes());
            let folder = path::encoded(route.path.trim_end_matches('/'));
            route.is_exact || service.may_show(ctx.route, &format!("{folder}/{}", path::encoded(&name)))
        };
        let takes_fallback = request::loads_a_page(headers) && files.fallback().is_some_and(may_show);
        files.reply(FileRequest::new(method, headers, path, takes_fallback, gateway.clock.now())).await
    };
    let reply = match reply {
        FileReply::Response(response) => return Ok(response),
        FileReply::AddSlash => add_slash(uri),
        FileReply::Missing => problem(request, ctx, StatusCode::NOT_FOUND),
        FileReply::Unreadable => {
            ctx.error = Some("file_unreadable");
            problem(request, ctx, StatusCode::NOT_FOUND)
        }
        FileReply::PreconditionFailed => problem(request, ctx, StatusCode::PRECONDITION_FAILED),
        FileReply::RangeNotSatisfiable(length) => {
            let reply = problem(request, ctx, StatusCode::RANGE_NOT_SATISFIABLE);
            match HeaderValue::try_from(format!("bytes */{length}")) {
                Ok(value) => reply.with(header::CONTENT_RANGE, value),
                Err(_) => reply,
            }
        }
        FileReply::Failed(error) => {
            note_read_error(gateway, &error, ctx);
            problem(request, ctx, StatusCode::SERVICE_UNAVAILABLE).retry_after(RETRY_SECONDS)
        }
    };
    Err(Box::new(reply))
}

/// The reply for a folder whose index has a stricter rule at its own path: the way to that path, where that rule is held
/// against the request, if files are served there.
fn guarded_index(request: &RequestView<'_>, ctx: &RequestContext, service: &Service, own: &str) -> Reply {
    log_decision!(ctx, "index not shown: its own path has a stricter rule path={own:?}");
    if !service.serves_files_at(own) {
        return problem(request, ctx, StatusCode::NOT_FOUND);
    }
    let query = request.head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    Reply::configured_redirect(StatusCode::FOUND, &format!("{own}{query}"))
}

/// Notes for the log and the metrics why a file could not be read.
pub fn note_read_error(gateway: &Gateway, error: &ReadError, ctx: &mut RequestContext) {
    ctx.error = Some(error.label());
    if let ReadError::NoResult(_) = error {
        gateway.metrics.limit_reached(FILE_READS);
    }
    log_decision!(ctx, "file not read error={error:?}");
}

/// The address of a folder with its slash, as the client wrote it, so that the links of its index lead into it. The path
/// begins with one slash: no file has an empty name.
fn add_slash(uri: &http::Uri) -> Reply {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    Reply::configured_redirect(StatusCode::MOVED_PERMANENTLY, &format!("{}/{query}", uri.path()))
}

fn problem(request: &RequestView<'_>, ctx: &RequestContext, status: StatusCode) -> Reply {
    let (title, text) = match status {
        StatusCode::NOT_FOUND => ("Page not found", "There is no page at this address."),
        StatusCode::PRECONDITION_FAILED => ("File changed", "This file is not the version that was requested."),
        StatusCode::RANGE_NOT_SATISFIABLE => ("No such part", "This file is shorter than what was requested of it."),
        _ => ("Temporarily unavailable", "This file cannot be read right now. Please try again in a moment."),
    };
    Reply::problem(&error_context(request, ctx), status, title, text)
}
