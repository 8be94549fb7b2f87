//! The fast path serves the most frequent requests: those without a body, over TLS, for applications that speak HTTP/1.1.
//!
//! Decisions, changes to header fields and the access record are the same functions as on the full path. Connections to
//! applications are made by Pingora's connector and are kept in `upstream::idle_pool`. What is left out is Pingora's proxy
//! between the two sides: a pair of tasks, of channels and of queues for each request, which serve bodies that flow both
//! ways at once. A request that may not be of this kind is declined before anything is counted or changed, and takes the
//! full path.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use pingora::{Error, ErrorType, Result};
use pingora_core::connectors::{ConnectorOptions, TransportConnector};
use pingora_core::protocols::http::HttpTask;
use tokio::io::AsyncWriteExt;

use super::client_connection::ClientConnection;
use super::context::{RequestContext, destination};
use super::decision::Decision;
use super::decision_log::{Declined, is_logged, log_decision};
use super::downstream::client_conn::{Client, Outcome};
use super::downstream::h2_stream::RequestStream;
use super::downstream::http1::Http1;
use super::downstream::http2::{self, Http2};
use super::downstream::parse;
use super::downstream::writer::ResponseWriter;
use super::dropped::RecordGuard;
use super::error_response::error_context;
use super::file_response::FastWriter;
use super::gateway::Gateway;
use super::headers::edit::HeaderPatch;
use super::headers::location::Scope;
use super::headers::route_fields;
use super::policy::{RouteMatch, match_route};
use super::record::RequestLine;
use super::request::RequestView;
use super::request::peer_address;
use super::upstream::connection::UpstreamConnection;
use super::upstream::idle_pool::IdlePool;
use super::upstream::parse::HeadRules;
use super::upstream::response::{ResponseEvent, UpstreamResponse};
use super::upstream::retry::Progress;
use super::upstream::{attempt, connection_auth};
use super::{error_response, file_response, headers, health, respond, static_files};
use crate::snapshot::Snapshot;
use crate::upstream::{ConnectionUse, Endpoint};
use crate::validate::RequestTarget;

/// Whether requests may take the fast path at all. `Off` sends all of them through Pingora's proxy, for tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FastPathMode {
    #[default]
    On,
    Off,
}

pub struct FastPath {
    gateway: Gateway,
    connector: TransportConnector,
    idle: IdlePool,
    mode: FastPathMode,
}

impl FastPath {
    /// Creates the fast path; `max_idle` bounds the idle upstream connections.
    pub fn new(gateway: Gateway, options: ConnectorOptions, max_idle: usize, mode: FastPathMode) -> Self {
        let connector = TransportConnector::new(Some(options));
        Self { gateway, connector, idle: IdlePool::new(max_idle), mode }
    }

    /// Serves a request over HTTP/1.1. `bytes` are what `read` returned; where the request is declined, the client's stream
    /// gets them back.
    pub async fn serve<C: Client>(&self, mut client: Box<C>, bytes: Bytes) -> Outcome<C> {
        let (head, connection) = (parse::parse(&bytes), client.secured());
        let Some(connection) = connection else { return decline(client, &bytes) };
        let decline = |client, reason| {
            if is_logged!() {
                connection.declined(reason);
            }
            decline(client, &bytes)
        };
        let Some(head) = head else { return decline(client, "request_head") };
        let request =
            RequestView { head: &head.parts, peer: client.address(), is_tls: true, connection: Some(&connection) };
        let snapshot = self.gateway.snapshot.load_full();
        if head.fields > snapshot.limits.header_count {
            return decline(client, "header_count");
        }
        let (target, route_match) = match self.eligible_route(&request, Some(&bytes), &snapshot) {
            Ok(taken) => taken,
            Err(reason) => return decline(client, reason),
        };
        connection.head_read();
        let mut ctx = RequestContext::begin(snapshot, self.gateway.drain.track_request());
        let (wanted, timeout) = (!head.closes, ctx.snapshot.timeouts.write);
        let mut writer = Http1::new(&mut *client, &request.head.method, wanted, &self.gateway.drain, timeout);
        let result = self.handle(&request, &target, route_match, &mut writer, &mut ctx).await;
        let (keeps_alive, is_complete) = (writer.keeps_alive(), writer.is_complete());
        match result {
            Ok(()) if keeps_alive => Outcome::KeepAlive(client),
            _ => {
                // A truncated response must not end with a clean TLS shutdown, which would make it look complete.
                if is_complete {
                    client.shutdown().await.ok();
                }
                Outcome::Close
            }
        }
    }

    /// Serves a request over HTTP/2. Returns the stream where the request is for the full path.
    pub async fn serve_stream(&self, mut stream: Box<RequestStream>) -> Option<Box<RequestStream>> {
        let connection = ClientConnection::of_stream(&stream).cloned();
        let peer = peer_address(stream.peer());
        let is_tls = stream.digest().ssl_digest.is_some();
        let snapshot = self.gateway.snapshot.load_full();
        let (Some(connection), true) = (connection, is_tls) else { return declined(stream, "plain_http") };
        if !http2::is_plain(&stream) {
            return declined(stream, "request_head");
        }
        let request = RequestView { head: stream.head(), peer, is_tls, connection: Some(&connection) };
        let (target, route_match) = match self.eligible_route(&request, None, &snapshot) {
            Ok(taken) => taken,
            Err(reason) => return declined(stream, reason),
        };
        let head = http2::taken(&mut stream);
        let request = RequestView { head: &head, peer, is_tls, connection: Some(&connection) };
        connection.head_read();
        let mut ctx = RequestContext::begin(snapshot, self.gateway.drain.track_request());
        stream.set_write_timeout(Some(ctx.snapshot.timeouts.write));
        let mut writer = Http2::new(&mut stream, &head.method);
        // A stream whose response is incomplete is reset when it is dropped, after what was written before.
        self.handle(&request, &target, route_match, &mut writer, &mut ctx).await.ok();
        None
    }

    /// Handles a request from the first decision to its access record.
    async fn handle<A: ResponseWriter>(
        &self,
        request: &RequestView<'_>,
        target: &RequestTarget,
        route_match: RouteMatch,
        writer: &mut A,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        self.gateway.identify(request, ctx);
        log_decision!(ctx, "fast path taken");
        let mut guard = RecordGuard::new(&self.gateway, request, ctx);
        let ctx = &mut *guard.ctx;
        let result = match self.gateway.authorize(request, target, route_match, ctx).await {
            Decision::Forward => self.forward(request, writer, ctx).await,
            Decision::Reply(reply) => respond::write_to(*reply, request, writer, ctx).await,
            // Boxed, so that other requests do not make room for it.
            Decision::File => Box::pin(self.respond_with_file(request, writer, ctx)).await,
            // `eligible_route` has declined these, so this is unreachable in practice.
            Decision::SignOn(_) | Decision::Challenge => Err(Error::new(ErrorType::InternalError)),
        };
        if let Err(error) = &result
            && let Some(error_reply) = error_response::failed(ctx, error, false)
            && !writer.headers_sent()
        {
            let reply = error_reply.reply(&error_context(request, ctx));
            respond::write_to(reply, request, writer, ctx).await.ok();
        }
        let (status, bytes_sent) = (writer.status(), writer.body_bytes_sent());
        let error = result.as_ref().err().map(AsRef::as_ref);
        self.gateway.finish(ctx, error, || RequestLine::of(request.head), status, bytes_sent);
        guard.is_recorded = true;
        result
    }

    async fn respond_with_file<A: ResponseWriter>(
        &self,
        request: &RequestView<'_>,
        writer: &mut A,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        match static_files::find(&self.gateway, request, ctx).await {
            Ok(file) => file_response::write(&self.gateway, file, FastWriter { request, writer }, ctx).await,
            Err(reply) => respond::write_to(*reply, request, writer, ctx).await,
        }
    }

    /// Where the request goes, if it is one for the fast path, else why it is not. Counts and changes nothing.
    fn eligible_route(
        &self,
        request: &RequestView<'_>,
        raw: Option<&[u8]>,
        snapshot: &Snapshot,
    ) -> Result<(RequestTarget, RouteMatch), &'static str> {
        if self.mode == FastPathMode::Off {
            return Err("off");
        }
        if health::is_health_check(request, snapshot) {
            return Err("health");
        }
        let target = self.gateway.inspect(request, raw, snapshot).map_err(|_| "malformed")?;
        let route_match = match_route(&target, snapshot);
        let (Some(service), Some(route)) = (&route_match.service, route_match.route) else { return Err("no_route") };
        let route = service.at(route);
        // A reply of the edge's own needs nothing of what follows.
        let Some(pool) = route.pool.map(|pool| &snapshot.pools[pool]) else { return Ok((target, route_match)) };
        if !route.config.compression.is_empty() {
            return Err("compression");
        }
        if pool.speaks_http2() {
            return Err("http2_upstream");
        }
        if connection_auth::is_private(request, pool) {
            return Err("private_connection");
        }
        Ok((target, route_match))
    }

    async fn forward<A: ResponseWriter>(
        &self,
        request: &RequestView<'_>,
        writer: &mut A,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        loop {
            match self.attempt(request, writer, ctx).await {
                // `retry` bounds how often.
                Err(error) if error.retry() => {}
                result => return result,
            }
        }
    }

    /// Tries one server of the pool.
    async fn attempt<A: ResponseWriter>(
        &self,
        request: &RequestView<'_>,
        writer: &mut A,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        let (endpoint, now) = attempt::next(request, ctx, None)?;
        let (pool, read_timeout) = destination(ctx)?;
        let (key, timeouts) = (pool.key(endpoint), pool.timeouts(read_timeout));
        let may_reuse = !attempt::wants_new_connection(ctx);
        let taken = may_reuse.then(|| self.idle.acquire(key, now)).flatten().filter(|_| !pool.is_private());
        let (connection, reused) = match taken {
            Some(connection) => (connection, true),
            // Boxed, because connecting is rare and its future is large.
            None => (Box::pin(self.connect(ctx, endpoint)).await?, false),
        };
        log_decision!(ctx, "connected reused={reused}");
        let snapshot = Arc::clone(&ctx.snapshot);
        let fields = route_fields::of_response(ctx).cloned();
        let our_cookies = snapshot.own_cookies.names();
        let rules = HeadRules { our_cookies, fields: fields.as_deref(), scope: location_scope(ctx) };
        let mut upstream = UpstreamResponse::new(connection, request.head, rules, timeouts);
        if ctx.server_cookie.is_some() {
            upstream.edit_head();
        }
        if let Err(mut error) = self.fetch(&mut upstream, request, writer, ctx).await {
            let progress = Progress {
                is_reused: reused,
                is_unanswered: upstream.is_unanswered(),
                is_unwritten: upstream.is_unwritten(),
                is_body_kept: true,
                is_trial: false,
            };
            attempt::failed(&request.head.method, ctx, &mut error, progress);
            return Err(error);
        }
        if ctx.upstream_out_of_sync || destination(ctx)?.0.is_private() {
            // The connection is not reused: the next request on it might be authenticated as this client, or get a
            // response that was meant for this one.
            return Ok(());
        }
        if let Some(connection) = upstream.into_reusable().await {
            self.idle.release(key, connection, Instant::now(), timeouts.idle);
        }
        Ok(())
    }

    async fn connect(&self, ctx: &mut RequestContext, endpoint: Endpoint) -> Result<UpstreamConnection> {
        let (pool, read_timeout) = destination(ctx)?;
        let peer = pool.peer(endpoint, read_timeout, ConnectionUse::Kept, None);
        self.connector.new_stream(&peer).await.map(UpstreamConnection::new).map_err(|mut error| {
            error.as_up();
            attempt::not_connected(ctx, &mut error);
            error.into_up()
        })
    }

    /// Sends the request and passes the response on to the client, event by event.
    async fn fetch<A: ResponseWriter>(
        &self,
        upstream: &mut UpstreamResponse<'_>,
        request: &RequestView<'_>,
        writer: &mut A,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        let most = headers::MOST_SET + route_fields::most_set(ctx);
        let mut head = HeaderPatch::of(request.head, most).with_target(ctx.upstream_target.as_deref());
        self.gateway.set_forwarding_headers(request, &mut head, ctx)?;
        upstream.send_request(&head.wire()).await.map_err(Error::into_up)?;
        loop {
            let task = match next_event(upstream, writer).await? {
                ResponseEvent::Task(task) => task,
                ResponseEvent::FixedLength(response) => {
                    ctx.status = response.status.as_u16();
                    attempt::responded(ctx, ctx.status);
                    log_decision!(ctx, "response received status={}", ctx.status);
                    let end = response.length == 0;
                    writer.write_passthrough_head(response, ctx.request_id.value()).await?;
                    if end {
                        return writer.finish().await;
                    }
                    continue;
                }
            };
            match task {
                HttpTask::Header(mut response, end) => {
                    self.gateway.filter_response_head(request, &mut response, ctx)?;
                    writer.write_head(response, end).await?;
                    if end {
                        return writer.finish().await;
                    }
                }
                HttpTask::Body(body, end) => {
                    let bytes = body.unwrap_or_default();
                    // The last bytes of a response do not make it a long-lived stream.
                    if !end || ctx.on_drop.is_some() {
                        self.gateway.watch_body_bytes(request, Some(&bytes), ctx)?;
                    }
                    let bytes = self.gateway.hold(request, bytes, 0, ctx);
                    writer.write_body(bytes, end).await?;
                    ctx.bytes_sent = writer.body_bytes_sent();
                    if end {
                        return writer.finish().await;
                    }
                }
                HttpTask::Failed(error) => return Err(error.into_up()),
                HttpTask::UpgradedBody(..) => return Err(Error::new(ErrorType::InternalError).into_up()),
                HttpTask::Trailer(_) => {}
                HttpTask::Done => return writer.finish().await,
            }
        }
    }
}

/// Which locations of the application may have to be repaired.
fn location_scope(ctx: &RequestContext) -> Scope {
    let forward = ctx.service.as_ref().and_then(|service| service.at(ctx.route).config.action.forward());
    forward.map_or(Scope::Off, Scope::of)
}

/// Gives a stream to the full path.
#[cold]
fn declined(mut stream: Box<RequestStream>, reason: &'static str) -> Option<Box<RequestStream>> {
    if is_logged!() {
        http2::annotate(&mut stream, Declined(reason));
    }
    Some(stream)
}

fn decline<C: Client>(mut client: Box<C>, bytes: &[u8]) -> Outcome<C> {
    client.give_back(bytes);
    Outcome::Declined(client)
}

/// Waits for the next event of the response, or for the client to close its connection.
async fn next_event<A: ResponseWriter>(
    upstream: &mut UpstreamResponse<'_>,
    writer: &mut A,
) -> Result<ResponseEvent<A::Head>> {
    let mut event = pin!(upstream.next_event());
    poll_fn(|context| {
        if let Poll::Ready(event) = event.as_mut().poll(context) {
            return Poll::Ready(event.map_err(Error::into_up));
        }
        writer.poll_closed(context).map(|()| Err(Error::new_down(ErrorType::ConnectionClosed)))
    })
    .await
}
