//! `server.health`: what a load balancer asks before it sends clients here. Answered on every listener of clients, whatever
//! host the request names, and with nothing but a status: anyone may ask.

use http::{HeaderValue, Method, StatusCode, Version, header};

use super::decision::Decision;
use super::request::RequestView;
use crate::drain::Drain;
use crate::reply::Reply;
use crate::snapshot::Snapshot;
use crate::validate::Malformed;

/// Whether a request is for the health path. Balancers that probe by HTTP/1.0 may leave out Host; HTTP/1.1 demands one
/// (RFC 9112 §3.2).
pub fn is_health_check(request: &RequestView<'_>, snapshot: &Snapshot) -> bool {
    let Some(path) = snapshot.health.as_deref() else { return false };
    let head = request.head;
    let names_host = || head.uri.authority().is_some() || head.headers.contains_key(header::HOST);
    // The head may be a placeholder for bytes that are no request.
    let is_refused = || {
        request.connection.is_some_and(|connection| connection.refused().is_some())
            || head.extensions.get::<Malformed>().is_some()
    };
    head.uri.path() == path && (head.version == Version::HTTP_10 || names_host()) && !is_refused()
}

/// `200` while the edge takes requests, `503` while it drains. It counts against no rate: a balancer that gets a `429`
/// takes the edge out of service.
pub fn answer(request: &RequestView<'_>, drain: &Drain) -> Decision {
    if ![Method::GET, Method::HEAD].contains(&request.head.method) {
        let reply = Reply::bare(StatusCode::METHOD_NOT_ALLOWED);
        return reply.with(header::ALLOW, HeaderValue::from_static("GET, HEAD")).closing().into();
    }
    Reply::bare(status(drain.is_leaving())).into()
}

const fn status(is_leaving: bool) -> StatusCode {
    if is_leaving { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_that_drains_is_not_healthy() {
        let drain = Drain::default();
        let status = |method: &Method| {
            let head = http::Request::builder().method(method).uri("/.sentry/health").body(()).unwrap().into_parts().0;
            let peer = std::net::Ipv4Addr::LOCALHOST.into();
            let request = RequestView { head: &head, peer, is_tls: true, connection: None };
            match answer(&request, &drain) {
                Decision::Reply(reply) => reply.status(),
                _ => panic!("{method}: no reply"),
            }
        };
        assert_eq!([Method::GET, Method::HEAD].map(|method| status(&method)), [StatusCode::OK; 2]);
        drain.begin();
        assert_eq!([Method::GET, Method::HEAD].map(|method| status(&method)), [StatusCode::SERVICE_UNAVAILABLE; 2]);
        assert_eq!(status(&Method::POST), StatusCode::METHOD_NOT_ALLOWED);
    }
}
