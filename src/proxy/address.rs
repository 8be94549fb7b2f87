//! Replies to requests that came to the wrong address: another host, another scheme, another connection.

use http::StatusCode;
use pingora_proxy::Session;

use super::Gateway;
use super::connection::Connection;
use super::decide::{Decision, asked};
use super::exchange::Exchange;
use crate::host::{Authority, Host};
use crate::reply::Reply;

impl Gateway {
    /// What becomes of a request whose host is nobody's, or that has to come in another way. `sentry`: the host is the
    /// sign-on's; the exchange knows the service that it is otherwise.
    pub(super) fn misaddressed(
        &self,
        session: &Session,
        exchange: &mut Exchange,
        authority: &Authority,
        sentry: bool,
    ) -> Option<Decision> {
        if !sentry && exchange.service.is_none() {
            return Some(misdirected(session, exchange));
        }
        if !sentry && let Some(refusal) = self.too_fast(session, exchange) {
            return Some(refusal);
        }
        if !is_tls(session) {
            return Some(to_https(session, authority, exchange.snapshot.https_port));
        }
        (!is_covered(session, &authority.host)).then(|| elsewhere(session, exchange))
    }
}

/// `421`: not for us. Says nothing of what is.
pub fn misdirected(session: &Session, exchange: &Exchange) -> Decision {
    let text = "Nothing is served under this name here.";
    Reply::problem(&asked(session, exchange), StatusCode::MISDIRECTED_REQUEST, "Unknown address", text).into()
}

pub fn is_tls(session: &Session) -> bool {
    session.digest().is_some_and(|digest| digest.ssl_digest.is_some())
}

/// Plain HTTP is only ever sent to the same place over TLS.
fn to_https(session: &Session, authority: &Authority, port: Option<u16>) -> Decision {
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let target = session.req_header().uri.path_and_query().map_or("/", |target| target.as_str());
    Reply::moved(&format!("https://{}{port}{target}", authority.host)).into()
}

/// Whether the certificate of the request's connection is good for the host. HTTP/2 clients send requests for all
/// hosts of a certificate over one connection (RFC 9113 §9.1.1); for another, nobody has shown them who we are.
fn is_covered(session: &Session, host: &Host) -> bool {
    Connection::of(session.as_downstream()).is_none_or(|connection| connection.covers(host))
}

/// `421` (RFC 9110 §15.5.20): served here, on a connection of its own.
fn elsewhere(session: &Session, exchange: &mut Exchange) -> Decision {
    exchange.reason = Some("certificate");
    let text = "This address is served on a connection of its own. Try again.";
    Reply::problem(&asked(session, exchange), StatusCode::MISDIRECTED_REQUEST, "Another connection", text).into()
}
