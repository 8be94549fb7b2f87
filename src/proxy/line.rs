//! The access-log line of an exchange that has ended.

use http::Version;
use pingora_proxy::Session;

use super::exchange::Exchange;
use super::{Gateway, authority, destination};
use crate::access_log;

impl Gateway {
    pub(super) fn write_access_line(&self, session: &Session, exchange: &Exchange, status: u16, seconds: f64) {
        let request = session.req_header();
        let parameter = &exchange.snapshot.ticket_parameter;
        let redacted = request.uri.query().and_then(|query| access_log::without_secrets(query, parameter));
        let server = exchange.tried.last().zip(destination(exchange).ok());
        self.access.write(&access_log::Entry {
            time: self.clock.now().rfc3339(),
            request_id: &exchange.request_id,
            client: exchange.client,
            method: request.method.as_str(),
            host: access_log::shortened(authority(request)),
            path: access_log::shortened(request.uri.path()),
            query: redacted.as_deref().or(request.uri.query()).map(access_log::shortened),
            protocol: if request.version == Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" },
            status,
            bytes: session.body_bytes_sent(),
            duration: seconds,
            service: exchange.service.as_ref().map_or("none", |service| &service.name),
            outcome: exchange.outcome,
            reason: exchange.reason,
            user: exchange.identity.as_ref().map(|identity| identity.verified().claims().name.as_str()),
            auth_duration: exchange.auth_seconds,
            server: server.map(|(server, (pool, _))| pool.server(*server).name.as_str()),
            upstream_duration: exchange.upstream_begun.map(|begun| begun.elapsed().as_secs_f64()),
            error: exchange.error,
        });
    }
}
