//! gRPC as it is on the wire: HTTP/2 from the client to the application, messages both ways before either side ends,
//! and a status in trailers. The application speaks HTTP/2 and nothing else, with TLS and without.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::harness::certificates::ca;
use crate::harness::client::connect;
use crate::harness::front::Front;
use crate::harness::{Client, DEADLINE, Edge, edge, eventually, origin, raw, runtime};

type Frames = StreamBody<Stream>;

/// Frames as a test sends them.
struct Stream(mpsc::Receiver<Frame<Bytes>>);

impl futures_util::Stream for Stream {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|frame| frame.map(Ok))
    }
}

/// More than all windows on the way hold.
const FLOOD_BYTES: usize = 32 << 20;
/// Pieces of it that were sent.
static FLOODED: AtomicUsize = AtomicUsize::new(0);

/// Sends every message back as it comes, and then a status, with who the user is, in the trailers. `/Flood` sends
/// messages of its own before that.
async fn echo(request: Request<Incoming>) -> Result<Response<Frames>, Infallible> {
    let (frames, body) = mpsc::channel(16);
    let user = request.headers().get("x-forwarded-user").cloned();
    let te = request.headers().get("te").cloned();
    let floods = request.uri().path().ends_with("/Flood");
    let mut messages = request.into_body();
    tokio::spawn(async move {
        for _ in 0..if floods { FLOOD_BYTES / 65_536 } else { 0 } {
            frames.send(Frame::data(vec![0; 65_536].into())).await.ok();
            FLOODED.fetch_add(1, Ordering::SeqCst);
        }
        while let Some(Ok(frame)) = messages.frame().await {
            let Ok(message) = frame.into_data() else { continue };
            frames.send(Frame::data(message)).await.ok();
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        trailers.insert("user", user.unwrap_or(HeaderValue::from_static("nobody")));
        trailers.insert("te-was", te.unwrap_or(HeaderValue::from_static("absent")));
        frames.send(Frame::trailers(trailers)).await.ok();
    });
    Ok(Response::builder().header("content-type", "application/grpc").body(StreamBody::new(Stream(body))).unwrap())
}

fn application() -> SocketAddr {
    let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime().spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(socket), service_fn(echo));
            tokio::spawn(serving);
        }
    });
    address
}

fn scene() -> (Edge, Client) {
    scene_of(&format!("{{servers: [\"{}\"], protocol: h2c}}", application()))
}

fn scene_of(pool: &str) -> (Edge, Client) {
    // Where requests go is said by the pool alone; the login page is nobody's.
    let edge = edge()
        .service_with("iqueue", &origin("nobody"), "routes: [{path: /public.Service/, access: public}]")
        .pool("iqueue", pool)
        .start();
    let mut browser = edge.client();
    browser.sign_in(&edge.url("iqueue", "/"), "ada", crate::harness::edge::PASSWORD);
    (edge, browser)
}

/// A call under way.
struct Call {
    messages: mpsc::Sender<Frame<Bytes>>,
    response: Response<Incoming>,
}

async fn call(edge: &Edge, path: &str, cookie: &str) -> Call {
    let io = TokioIo::new(connect(edge.address(), "iqueue.test", &[b"h2"]).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let (messages, body) = mpsc::channel(16);
    let request = Request::post(edge.url("iqueue", path))
        .header("user-agent", "test/1")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("cookie", cookie)
        .body(StreamBody::new(Stream(body)))
        .unwrap();
    Call { messages, response: sender.send_request(request).await.unwrap() }
}

impl Call {
    async fn say(&self, message: &str) {
        self.messages.send(Frame::data(Bytes::from(message.to_owned()))).await.unwrap();
    }

    async fn hear(&mut self) -> Frame<Bytes> {
        let frame = tokio::time::timeout(DEADLINE, self.response.body_mut().frame());
        frame.await.expect("a frame comes").expect("it has not ended").expect("it has not broken")
    }
}

#[test]
fn messages_pass_both_ways_while_the_call_lasts_and_trailers_at_its_end() {
    messages_pass(scene());
}

#[test]
fn and_at_a_unix_socket() {
    let socket = crate::harness::unix_socket::unix_socket_before(application());
    messages_pass(scene_of(&format!("{{servers: [\"{}\"], protocol: h2c}}", socket.server)));
}

#[test]
fn and_over_tls_where_calls_share_a_connection() {
    let server = Front::offering(application(), &ca().issue(&["app.internal"]), &["h2"]);
    let address = server.address;
    let tls = "tls: {ca: ca.pem, server_name: app.internal}";
    let (edge, browser) = scene_of(&format!("{{servers: [\"{address}\"], protocol: h2, {tls}}}"));
    messages_pass((edge, browser));
    let shaken = server.shaken();
    assert!(shaken.iter().all(|one| one.protocol.as_deref() == Some("h2")), "{shaken:?}");
    assert_eq!(shaken.len(), 1, "the login's page came over it as well: {shaken:?}");
}

fn messages_pass((edge, browser): (Edge, Client)) {
    let cookie = browser.cookie_field("iqueue.test");
    runtime().block_on(async {
        let mut call = call(&edge, "/echo.Service/Chat", &cookie).await;
        assert_eq!(call.response.status(), 200);
        for message in ["one", "two", "three"] {
            call.say(message).await;
            assert_eq!(call.hear().await.into_data().unwrap(), message);
        }
        let Call { messages, response } = call;
        drop(messages);
        let trailers = response.into_body().collect().await.unwrap().trailers().cloned().expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["user"], "ada");
        assert_eq!(trailers["te-was"], "trailers", "gRPC servers insist on it");
    });
}

#[test]
fn a_call_without_a_session_is_refused_and_one_to_an_open_method_is_not() {
    let (edge, _) = scene();
    runtime().block_on(async {
        assert_eq!(call(&edge, "/echo.Service/Chat", "").await.response.status(), 401);
        let mut open = call(&edge, "/public.Service/Chat", "").await;
        open.say("hello").await;
        assert_eq!(open.hear().await.into_data().unwrap(), "hello");
        let Call { messages, response } = open;
        drop(messages);
        let trailers = response.into_body().collect().await.unwrap().trailers().cloned().expect("trailers");
        assert_eq!(trailers["user"], "nobody");
    });
}

#[test]
fn a_client_that_does_not_read_keeps_nobody_else_from_reading() {
    let (edge, browser) = scene();
    let cookie = browser.cookie_field("iqueue.test");
    runtime().block_on(async {
        let idle = call(&edge, "/echo.Service/Flood", &cookie).await;
        assert_eq!(idle.response.status(), 200);
        let mut sent = 0;
        while sent == 0 || sent < FLOODED.load(Ordering::SeqCst) {
            sent = FLOODED.load(Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(sent < FLOOD_BYTES / 65_536, "it stands still before all is sent");
        for number in 0..3 {
            let mut other = call(&edge, "/echo.Service/Chat", &cookie).await;
            other.say("still here").await;
            assert_eq!(other.hear().await.into_data().unwrap(), "still here", "{number}");
        }
        drop(idle);
    });
}

#[test]
fn a_call_is_cut_when_its_session_ends() {
    let (edge, mut browser) = scene();
    let cookie = browser.cookie_field("iqueue.test");
    let mut call = runtime().block_on(call(&edge, "/echo.Service/Chat", &cookie));
    runtime().block_on(async {
        call.say("one").await;
        call.hear().await;
    });
    eventually("it is watched", || edge.metric("sentry_edge_streams", "") == 1.0);
    assert_eq!(browser.sign_out(&edge.url("iqueue", "/.sentry/logout")).status, 200);
    let ended = runtime().block_on(async { call.response.into_body().collect().await });
    assert!(ended.is_err(), "reset, without trailers");
}

#[test]
fn an_http_1_client_is_served_by_such_a_pool_as_well() {
    let (edge, browser) = scene();
    let mut connection = raw(edge.address(), "iqueue.test");
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: {}\r\nUser-Agent: test/1\r\nCookie: {}\r\nContent-Length: 5\r\n\r\nhello",
        edge.url("iqueue", "").trim_start_matches("https://"),
        browser.cookie_field("iqueue.test"),
    );
    let answer = connection.send(head).answer().unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text(), "hello");
}

#[test]
fn a_client_that_asks_before_it_sends_is_served_when_its_patience_ends() {
    let (edge, browser) = scene();
    let mut connection = raw(edge.address(), "iqueue.test");
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: {}\r\nUser-Agent: test/1\r\nCookie: {}\r\nExpect: 100-continue\r\n\
         Content-Length: 5\r\n\r\n",
        edge.url("iqueue", "").trim_start_matches("https://"),
        browser.cookie_field("iqueue.test"),
    );
    // No answer will tell it to: such a server need not say 100, and over HTTP/2 nobody would hear it.
    let answer = connection.send(head).send("hello").answer().unwrap();
    assert_eq!((answer.status, answer.text()), (200, "hello".into()));
}
