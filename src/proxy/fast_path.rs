//! The short way, for what is asked most: requests without a body, over TLS, for applications that speak HTTP/1.1.
//!
//! Decisions, changes to heads, and the end of an exchange are those of every other request; connections to
//! applications are made by Pingora, and rest in `idle`. What is left out is Pingora's proxy between the two sides: a
//! pair of tasks, of channels and of queues for each request, for bodies that flow both ways at once. What is not sure
//! to be of this kind is left to Pingora before anything was counted or changed.

use super::decision::Decision;
use super::decision_log::{Declined, is_logged, log_decision};
use super::error_response::asked;
use super::request::peer_address;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use pingora::{Error, ErrorType, Result};
use pingora_core::connectors::{ConnectorOptions, TransportConnector};
use pingora_core::protocols::http::HttpTask;
use pingora_timeout::timeout;
use tokio::io::AsyncWriteExt;

use super::client_connection::Connection;
use super::context::{RequestContext, destination};
use super::downstream::client_conn::{Client, Served};
use super::downstream::h2_stream::RequestStream;
use super::downstream::http1::Http1;
use super::downstream::http2::{self, Http2};
use super::downstream::parse;
use super::downstream::writer::Answer;
use super::gateway::Gateway;
use super::headers::edit::Written;
use super::policy::{Place, locate};
use super::record::RequestLine;
use super::request::RequestView;
use super::upstream::connection::Link;
use super::upstream::idle_pool::Idle;
use super::upstream::response::{Application, Part};
use super::upstream::{attempt, connection_auth};
use super::{error_response, headers};
use crate::config::MOST_RETRIES;
use crate::reply::Reply;
use crate::snapshot::Snapshot;
use crate::upstream::Endpoint;
use crate::validate::Target;

/// Whether requests may take the fast path at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FastPath {
    #[default]
    On,
    Off,
}

pub struct Express {
    gateway: Gateway,
    connector: TransportConnector,
    idle: Idle,
    fast_path: FastPath,
}

impl Express {
    /// `most_idle`: connections that rest, at most.
    pub fn new(gateway: Gateway, options: ConnectorOptions, most_idle: usize, fast_path: FastPath) -> Self {
        let connector = TransportConnector::new(Some(options));
        Self { gateway, connector, idle: Idle::new(most_idle), fast_path }
    }

    /// `bytes` are what `read` has brought.
    pub async fn serve<C: Client>(&self, mut client: Box<C>, bytes: Bytes) -> Served<C> {
        let (head, connection) = (parse::parse(&bytes), client.secured());
        let Some(connection) = connection else { return left(client, &bytes) };
        let left = |client, reason| {
            if is_logged!() {
                connection.declined(reason);
            }
            left(client, &bytes)
        };
        let Some(head) = head else { return left(client, "request_head") };
        let request =
            RequestView { head: &head.parts, peer: client.address(), is_tls: true, connection: Some(&connection) };
        let snapshot = self.gateway.snapshot.load_full();
        if head.fields > snapshot.limits.header_count {
            return left(client, "header_count");
        }
        let (target, place) = match self.takes(&request, Some(&bytes), &snapshot) {
            Ok(taken) => taken,
            Err(reason) => return left(client, reason),
        };
        connection.head_read();
        let mut ctx = RequestContext::begin(snapshot, self.gateway.drain.track_request());
        let keeps = !head.closes && !self.gateway.drain.is_draining();
        let mut answer = Http1::new(&mut *client, &request.head.method, keeps, ctx.snapshot.timeouts.write);
        let served = self.conduct(&request, &target, place, &mut answer, &mut ctx).await;
        let (keeps, is_whole) = (answer.keeps(), answer.is_whole());
        match served {
            Ok(()) if keeps => Served::Kept(client),
            _ => {
                // An answer that broke off must not look as if it had ended; and whoever is gone needs no farewell.
                if is_whole {
                    client.shutdown().await.ok();
                }
                Served::Closed
            }
        }
    }

    /// One stream. Gives it back where it is for Pingora.
    pub async fn serve_stream(&self, mut stream: Box<RequestStream>) -> Option<Box<RequestStream>> {
        let connection = Connection::of_stream(&stream).cloned();
        let peer = peer_address(stream.peer());
        let is_tls = stream.digest().ssl_digest.is_some();
        let snapshot = self.gateway.snapshot.load_full();
        let (Some(connection), true) = (connection, is_tls) else { return declined(stream, "plain_http") };
        if !http2::is_plain(&stream) {
            return declined(stream, "request_head");
        }
        let request = RequestView { head: stream.head(), peer, is_tls, connection: Some(&connection) };
        let (target, place) = match self.takes(&request, None, &snapshot) {
            Ok(taken) => taken,
            Err(reason) => return declined(stream, reason),
        };
        let head = http2::taken(&mut stream);
        let request = RequestView { head: &head, peer, is_tls, connection: Some(&connection) };
        connection.head_read();
        let mut ctx = RequestContext::begin(snapshot, self.gateway.drain.track_request());
        stream.set_write_timeout(Some(ctx.snapshot.timeouts.write));
        let mut answer = Http2::new(&mut stream, &head.method);
        // A stream that breaks off is reset when it is dropped, after what was written before.
        self.conduct(&request, &target, place, &mut answer, &mut ctx).await.ok();
        None
    }

    /// From the first decision to the end.
    async fn conduct<A: Answer>(
        &self,
        request: &RequestView<'_>,
        target: &Target,
        place: Place,
        answer: &mut A,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        self.gateway.identify(request, ctx);
        log_decision!(ctx, "fast path taken");
        let served = match self.gateway.judge(request, target, place, ctx).await {
            Decision::Forward => self.forward(request, answer, ctx).await,
            Decision::Answer(reply) => write(*reply, request, answer, ctx).await,
            // Left to Pingora.
            Decision::SignOn(_) | Decision::Challenge => Err(Error::new(ErrorType::InternalError)),
        };
        if let Err(error) = &served {
            fail(error, request, answer, ctx).await;
        }
        let (status, bytes_sent) = (answer.status(), answer.bytes());
        let now = Instant::now();
        attempt::ended(ctx, served.as_ref().err().map(AsRef::as_ref), now);
        self.gateway.settle(ctx, || RequestLine::of(request.head), status, bytes_sent, now);
        served
    }

    /// Where the request goes, if it is one for the fast path, else why it is not. Counts and changes nothing.
    fn takes(
        &self,
        request: &RequestView<'_>,
        raw: Option<&[u8]>,
        snapshot: &Snapshot,
    ) -> Result<(Target, Place), &'static str> {
        if self.fast_path == FastPath::Off {
            return Err("off");
        }
        let target = self.gateway.inspect(request, raw, snapshot).map_err(|_| "malformed")?;
        let place = locate(&target, snapshot);
        let (Some(service), Some(route)) = (&place.service, place.route) else { return Err("no_route") };
        let route = service.at(route);
        let pool = &snapshot.pools[route.pool];
        if !route.compression.is_empty() {
            return Err("compression");
        }
        if pool.speaks_http2() {
            return Err("http2_upstream");
        }
        if connection_auth::is_private(request, pool) {
            return Err("private_connection");
        }
        Ok((target, place))
    }

    async fn forward<A: Answer>(
        &self,
        request: &RequestView<'_>,
        answer: &mut A,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        let mut done = self.attempt(request, answer, ctx).await;
        // Each pool's own number of retries is held by `attempt`; what is left are connections that were closed meanwhile.
        for _ in 0..MOST_RETRIES {
            let again = done.as_ref().is_err_and(|error| error.retry()) && !answer.is_begun();
            if !again {
                break;
            }
            done = self.attempt(request, answer, ctx).await;
        }
        done
    }

    /// One server.
    async fn attempt<A: Answer>(
        &self,
        request: &RequestView<'_>,
        answer: &mut A,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        let (endpoint, now) = attempt::next(ctx, None)?;
        let (pool, read_timeout) = destination(ctx)?;
        let (key, timeouts) = (pool.key(endpoint), pool.timeouts(read_timeout));
        let taken = self.idle.take(key, now).filter(|_| !pool.is_private());
        let (link, reused) = match taken {
            Some(link) => (link, true),
            // Rare, and large.
            None => (Box::pin(self.connect(ctx, endpoint)).await?, false),
        };
        log_decision!(ctx, "connected reused={reused}");
        let snapshot = Arc::clone(&ctx.snapshot);
        let mut application = Application::new(link, request.head, &snapshot.cookie_names, timeouts);
        if let Err(mut error) = self.fetch(&mut application, request, answer, ctx).await {
            error.retry.decide_reuse(reused);
            return Err(error);
        }
        if ctx.upstream_in_doubt || destination(ctx)?.0.is_private() {
            // The next request on it might be taken for one of this client, or get a response that was for it.
            return Ok(());
        }
        if let Some(link) = application.into_kept().await {
            self.idle.keep(key, link, Instant::now(), timeouts.idle);
        }
        Ok(())
    }

    async fn connect(&self, ctx: &mut RequestContext, endpoint: Endpoint) -> Result<Link> {
        let (pool, read_timeout) = destination(ctx)?;
        let peer = pool.peer(endpoint, read_timeout, false, None);
        self.connector.new_stream(&peer).await.map(Link::new).map_err(|mut error| {
            error.as_up();
            attempt::not_connected(ctx, &mut error);
            error.into_up()
        })
    }

    /// Asks, and passes on what is answered.
    async fn fetch<A: Answer>(
        &self,
        application: &mut Application<'_>,
        request: &RequestView<'_>,
        answer: &mut A,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        let mut head = Written::of(request.head, headers::MOST_SET);
        self.gateway.introduce(request, &mut head, ctx)?;
        application.ask(&head.wire()).await.map_err(Error::into_up)?;
        loop {
            let task = match heard(application, answer).await? {
                Part::Task(task) => task,
                Part::Ordinary(ordinary) => {
                    ctx.status = ordinary.status.as_u16();
                    log_decision!(ctx, "response received status={}", ctx.status);
                    let end = ordinary.length == 0;
                    answer.passed(ordinary, ctx.request_id.value()).await?;
                    if end {
                        return answer.finish().await;
                    }
                    continue;
                }
            };
            match task {
                HttpTask::Header(mut response, end) => {
                    self.gateway.head_came(request, &mut response, ctx)?;
                    answer.head(response, end).await?;
                    if end {
                        return answer.finish().await;
                    }
                }
                HttpTask::Body(body, end) => {
                    let bytes = body.unwrap_or_default();
                    // The last ones begin no stream.
                    if !end || ctx.unsettled.is_some() {
                        self.gateway.bytes_passed(request, Some(&bytes), ctx)?;
                    }
                    let bytes = self.gateway.hold(request, bytes, 0, ctx);
                    answer.piece(bytes, end).await?;
                    ctx.bytes_sent = answer.bytes();
                    if end {
                        return answer.finish().await;
                    }
                }
                HttpTask::Failed(error) => return Err(error.into_up()),
                HttpTask::UpgradedBody(..) => return Err(Error::new(ErrorType::InternalError).into_up()),
                HttpTask::Trailer(_) => {}
                HttpTask::Done => return answer.finish().await,
            }
        }
    }
}

/// Gives a stream to the full path.
#[cold]
fn declined(mut stream: Box<RequestStream>, reason: &'static str) -> Option<Box<RequestStream>> {
    if is_logged!() {
        http2::annotate(&mut stream, Declined(reason));
    }
    Some(stream)
}

fn left<C: Client>(mut client: Box<C>, bytes: &[u8]) -> Served<C> {
    client.give_back(bytes);
    Served::Left(client)
}

/// The next part of the application's answer.
async fn heard<A: Answer>(application: &mut Application<'_>, answer: &mut A) -> Result<Part<A::Head>> {
    let mut part = pin!(application.part());
    poll_fn(|context| {
        if let Poll::Ready(part) = part.as_mut().poll(context) {
            return Poll::Ready(part.map_err(Error::into_up));
        }
        answer.poll_gone(context).map(|()| Err(Error::new_down(ErrorType::ConnectionClosed)))
    })
    .await
}

async fn write<A: Answer>(reply: Reply, request: &RequestView<'_>, answer: &mut A, ctx: &RequestContext) -> Result<()> {
    let limit = super::respond::time_for_reply(request.head.version, &ctx.snapshot);
    let reply = super::respond::dressed(reply, true, &ctx.snapshot);
    if reply.closes() {
        answer.close();
    }
    let head = reply.head(&ctx.request_id)?;
    answer.head(Box::new(head), reply.body().is_empty()).await?;
    let Ok(written) = timeout(limit, answer.piece(reply.body().clone(), true)).await else {
        return Err(Error::new_down(ErrorType::WriteTimedout));
    };
    written?;
    answer.finish().await
}

/// Tells the client, if there is one and it has not heard anything yet.
async fn fail<A: Answer>(error: &Error, request: &RequestView<'_>, answer: &mut A, ctx: &mut RequestContext) {
    let rescue = error_response::rescue(error);
    error_response::log_failure(ctx, error, rescue.as_ref());
    let Some(rescue) = rescue else {
        ctx.error = Some("client_gone");
        return;
    };
    ctx.error = Some(rescue.label);
    if !answer.is_begun() {
        let reply = rescue.reply(&asked(request, ctx));
        write(reply, request, answer, ctx).await.ok();
    }
}
