//! Replies to requests that came to the wrong address: another host, another scheme, another connection.

use http::StatusCode;

use super::client_connection::Elsewhere;
use super::context::Exchange;
use super::decision::Decision;
use super::error_response::asked;
use super::gateway::Gateway;
use super::request::Asking;
use crate::acme::asked_for;
use crate::host::{Authority, Host};
use crate::reply::Reply;

impl Gateway {
    /// What becomes of a request whose host is nobody's, or that has to come in another way. `sentry`: the host is the
    /// sign-on's; the exchange knows the service that it is otherwise.
    pub(super) fn misaddressed(
        &self,
        asking: &Asking<'_>,
        exchange: &mut Exchange,
        authority: &Authority,
        sentry: bool,
    ) -> Option<Decision> {
        if !sentry && exchange.service.is_none() {
            return Some(misdirected(asking, exchange));
        }
        if !sentry && let Some(refusal) = self.too_fast(asking, exchange) {
            return Some(refusal);
        }
        if !asking.is_tls && exchange.snapshot.acme_challenge.is_some() && asked_for(asking.head.uri.path()).is_some() {
            return Some(Decision::Challenge);
        }
        if !asking.is_tls {
            return Some(to_https(asking, authority, exchange.snapshot.https_port));
        }
        self.on_this_connection(asking, exchange, &authority.host).err()
    }

    /// HTTP/2 clients send requests for all hosts of a certificate over one connection (RFC 9113 §9.1.1). For others
    /// nobody has shown them who we are; and a host may ask more of connections than this one's did. Notes who the
    /// client has shown itself to be, for a host that asks.
    fn on_this_connection(&self, asking: &Asking<'_>, exchange: &mut Exchange, host: &Host) -> Result<(), Decision> {
        // Every connection over TLS is one of ours; of another nobody could say what it was made for.
        let Some(connection) = asking.connection else {
            return Err(elsewhere(asking, exchange, Elsewhere::Certificate));
        };
        let policy = exchange.snapshot.connections.of(host);
        if let Err(why) = connection.serves(host, policy) {
            return Err(elsewhere(asking, exchange, why));
        }
        if policy.asks() {
            let shown = connection.client_certificate();
            if shown.is_some_and(|shown| shown.has_ended(self.clock.now())) {
                return Err(elsewhere(asking, exchange, Elsewhere::Policy));
            }
            exchange.client_certificate = shown.cloned();
        }
        Ok(())
    }
}

/// `421`: not for us. Says nothing of what is.
pub fn misdirected(asking: &Asking<'_>, exchange: &Exchange) -> Decision {
    let text = "No application has this address here. Check the address, then try again.";
    Reply::problem(&asked(asking, exchange).bare(), StatusCode::MISDIRECTED_REQUEST, "Unknown address", text).into()
}

/// Plain HTTP is only ever sent to the same place over TLS.
fn to_https(asking: &Asking<'_>, authority: &Authority, port: Option<u16>) -> Decision {
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let target = asking.head.uri.path_and_query().map_or("/", |target| target.as_str());
    Reply::moved(&format!("https://{}{port}{target}", authority.host)).into()
}

/// `421` (RFC 9110 §15.5.20): served here, on a connection of its own.
fn elsewhere(asking: &Asking<'_>, exchange: &mut Exchange, why: Elsewhere) -> Decision {
    exchange.reason = Some(match why {
        Elsewhere::Certificate => "certificate",
        Elsewhere::Policy => "tls_policy",
    });
    let text = "This address needs a connection of its own. Please try again.";
    Reply::problem(&asked(asking, exchange), StatusCode::MISDIRECTED_REQUEST, "New connection needed", text).into()
}
