//! A deploy without a lost request: the servers of a pool are replaced one after the other while clients send requests,
//! as `docs/operations/deploy-without-loss.md` has it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};

use crate::harness::process::{sentry_edge, text};
use crate::harness::{Connection, Daemon, Stop, edge, eventually, free_address, setting};

/// Clients, each with a connection of its own.
const CLIENTS: usize = 6;

/// An application's process: when it stops, its sockets close, and whatever is under way is cut.
struct Server {
    address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Server {
    fn start(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(async {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(address).unwrap();
            socket.listen(1024).unwrap()
        });
        runtime.spawn(serve(listener));
        Self { address, runtime: Some(runtime) }
    }

    fn stop(&mut self) {
        self.runtime.take().unwrap().shutdown_timeout(Duration::from_secs(10));
    }

    fn start_again(&mut self) {
        *self = Self::start(self.address);
    }
}

async fn serve(listener: TcpListener) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service_fn(answer));
            connection.await.ok();
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    // Some requests take longer than the steps of a deploy.
    if body.starts_with(b"slow") {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(hyper::Response::new(Full::new(body)))
}

/// What the clients have seen.
#[derive(Default)]
struct Load {
    answered: AtomicUsize,
    failed: AtomicUsize,
    over: AtomicBool,
}

impl Load {
    /// One client: GET and POST in turn, none of which is sent again.
    fn send(&self, edge: SocketAddr, client: usize) {
        let mut connection = Connection::open(edge, "iqueue.test").unwrap();
        for turn in client.. {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let body = if turn % 20 == 0 { "slow" } else { "quick" };
            let outcome = match turn % 2 {
                0 => connection.post("iqueue.test", "/", body),
                _ => connection.get("iqueue.test", "/"),
            };
            if outcome.as_ref().is_ok_and(|(status, echo)| *status == 200 && (turn % 2 == 1 || echo == body)) {
                self.answered.fetch_add(1, Ordering::Relaxed);
            } else {
                self.failed.fetch_add(1, Ordering::Relaxed);
                println!("request failed: {outcome:?}");
                connection = Connection::open(edge, "iqueue.test").unwrap();
            }
        }
    }
}

fn pool(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = sentry_edge(&[&["pool"], arguments, &["-c", daemon.file.to_str().unwrap()]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// The page's steps, for one server.
fn deploy(daemon: &Daemon, server: &mut Server, load: &Load) {
    let address = server.address.to_string();
    let said = pool(daemon, &["drain", "iqueue", &address, "--wait", "60s"]);
    assert_eq!(said, format!("iqueue {address} is draining, 0 in flight\n"));
    server.stop();
    // The other server alone serves meanwhile.
    let before = load.answered.load(Ordering::Relaxed);
    eventually("requests are answered", || load.answered.load(Ordering::Relaxed) > before + 20);
    server.start_again();
    pool(daemon, &["enable", "iqueue", &address]);
}

#[test]
fn a_deploy_loses_no_request() {
    let mut servers = [Server::start(free_address()), Server::start(free_address())];
    let list = format!("{{servers: [\"{}\", \"{}\"]}}", servers[0].address, servers[1].address);
    let app = crate::harness::origin("app");
    let daemon = edge().service_with("iqueue", &app, "access: public").pool("iqueue", &list).run();
    let answers = |server: &Server| {
        // Labels are in the order of their names.
        let labels = format!("pool=\"iqueue\",result=\"answered\",server=\"{}\"", server.address);
        daemon.metric("sentry_edge_upstream_requests_total", &labels)
    };
    // `make deploys` asks for more.
    let (load, deploys, requests) = (Load::default(), setting("DEPLOYS", 3), setting("REQUESTS", 2_000));
    std::thread::scope(|scope| {
        let stop = Stop(&load.over);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                scope.spawn({
                    let load = &load;
                    move || load.send(daemon.address, client)
                })
            })
            .collect();
        for number in 0..deploys {
            // As many requests before each deploy as after it.
            let due = requests * number / deploys;
            eventually_answered(&load, due);
            for server in &mut servers {
                deploy(&daemon, server, &load);
                let before = answers(server);
                eventually("it takes its turns again", || answers(server) > before + 3.0);
            }
        }
        eventually_answered(&load, requests);
        drop(stop);
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
    let (answered, failed) = (load.answered.into_inner(), load.failed.into_inner());
    println!("{deploys} deploys of two servers: {failed} of {} requests failed", answered + failed);
    assert_eq!(failed, 0, "of {answered}");
    assert!(answered >= requests);
}

/// Waits without a time limit of its own: how long so many requests take is no matter of this test.
fn eventually_answered(load: &Load, count: usize) {
    while load.answered.load(Ordering::Relaxed) < count {
        let before = load.answered.load(Ordering::Relaxed);
        eventually("requests are answered", || load.answered.load(Ordering::Relaxed) > before);
    }
}
