//! An application behind the edge that remembers every request it got.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;

use super::runtime;

/// One request, as the origin saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// Path and query, byte for byte.
    pub target: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// Whether the body came to its end. No application takes a part for the whole.
    pub whole: bool,
}

impl Seen {
    /// All values of a field.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).collect()
    }

    /// The only value of a field; fails when there are several.
    pub fn one(&self, name: &str) -> Option<String> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} stands {} times: {all:?}", all.len());
        all.into_iter().next()
    }
}

type Answer = Arc<dyn Fn(&Seen) -> hyper::Response<Full<Bytes>> + Send + Sync>;

pub struct Origin {
    pub address: SocketAddr,
    /// A permit is an answer; there are plenty, unless answers are held back.
    answers: Arc<Semaphore>,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

/// An origin that answers 200 with `hello from NAME`.
pub fn origin(name: &str) -> Origin {
    let text = format!("hello from {name}");
    Origin::answering(move |_| hyper::Response::new(Full::new(Bytes::from(text.clone()))))
}

impl Origin {
    /// An origin with answers of its own.
    pub fn answering(answer: impl Fn(&Seen) -> hyper::Response<Full<Bytes>> + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), Duration::ZERO, Semaphore::MAX_PERMITS, Arc::new(answer))
    }

    /// An origin with answers of its own at this address.
    pub fn on(
        address: SocketAddr,
        answer: impl Fn(&Seen) -> hyper::Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        Self::at(address, Duration::ZERO, Semaphore::MAX_PERMITS, Arc::new(answer))
    }

    /// An origin at another address of this machine, with the same port as another one.
    pub fn beside(other: &Self, host: std::net::Ipv4Addr, name: &str) -> Self {
        let text = format!("hello from {name}");
        let answer = move |_: &Seen| hyper::Response::new(Full::new(Bytes::from(text.clone())));
        let address = SocketAddr::new(host.into(), other.address.port());
        Self::at(address, Duration::ZERO, Semaphore::MAX_PERMITS, Arc::new(answer))
    }

    /// An origin that takes requests and answers none until [`release`](Self::release).
    pub fn held() -> Self {
        let late = |_: &Seen| hyper::Response::new(Full::new("late".into()));
        Self::at("127.0.0.1:0".parse().unwrap(), Duration::ZERO, 0, Arc::new(late))
    }

    /// Lets an origin that holds back answer everything, also what is still to come.
    pub fn release(&self) {
        self.answers.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// An origin that thinks before it answers.
    pub fn slow(delay: Duration) -> Self {
        let late = |_: &Seen| hyper::Response::new(Full::new("late".into()));
        Self::at("127.0.0.1:0".parse().unwrap(), delay, Semaphore::MAX_PERMITS, Arc::new(late))
    }

    fn at(address: SocketAddr, delay: Duration, answers: usize, answer: Answer) -> Self {
        let answers = Arc::new(Semaphore::new(answers));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let listener = runtime().block_on(tokio::net::TcpListener::bind(address)).unwrap();
        let address = listener.local_addr().unwrap();
        let (remembered, permits) = (Arc::clone(&seen), Arc::clone(&answers));
        let task = runtime().spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (seen, permits, answer) = (Arc::clone(&remembered), Arc::clone(&permits), Arc::clone(&answer));
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        serve(request, Arc::clone(&seen), delay, Arc::clone(&permits), Arc::clone(&answer))
                    });
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .with_upgrades();
                    connection.await.ok();
                });
            }
        });
        Self { address, answers, seen, task }
    }

    /// Everything that has arrived so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The last request that arrived.
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("the origin has seen no request")
    }

    pub fn count(&self) -> usize {
        self.seen().len()
    }
}

async fn serve(
    request: Request<Incoming>,
    seen: Arc<Mutex<Vec<Seen>>>,
    delay: Duration,
    permits: Arc<Semaphore>,
    answer: Answer,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes().to_vec());
    let (whole, body) = (body.is_ok(), body.unwrap_or_default());
    let (method, target) = (parts.method.to_string(), parts.uri.to_string());
    let entry = Seen { method, target, headers: parts.headers, body, whole };
    seen.lock().unwrap().push(entry.clone());
    tokio::time::sleep(delay).await;
    let _permit = permits.acquire().await;
    Ok(answer(&entry))
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}
