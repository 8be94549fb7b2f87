//! Where a request goes: exact paths, redirects, fixed replies, prefixes, and who is admitted to each of them.

mod access;
mod actions;
mod example;
mod prefixes;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::harness::client::connect;
use crate::harness::{DEADLINE, Edge, Origin, edge, origin, runtime};

/// How a request comes to the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Over HTTP/1.1, by the fast path where that is on.
    Http1,
    /// Over HTTP/1.1 with a field that the fast path leaves to the full path.
    Full,
    Http2,
}

const WAYS: [Way; 3] = [Way::Http1, Way::Full, Way::Http2];

/// A request whose target is sent byte for byte.
#[derive(Clone, Copy)]
struct Ask<'a> {
    way: Way,
    method: &'a str,
    host: &'a str,
    /// The host of the connection, where it is another one.
    name: Option<&'a str>,
    target: &'a str,
    fields: &'a [(&'a str, &'a str)],
    body: &'a str,
}

/// A GET to iqueue.
fn get(target: &str) -> Ask<'_> {
    Ask { way: Way::Http1, method: "GET", host: "iqueue.test", name: None, target, fields: &[], body: "" }
}

struct Got {
    status: u16,
    headers: hyper::HeaderMap,
    body: String,
}

impl Got {
    /// The only value of a field.
    fn one(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.get_all(name).iter();
        let first = all.next().map(|value| value.to_str().unwrap());
        assert!(all.next().is_none(), "{name} stands twice: {:?}", self.headers);
        first
    }

    fn location(&self) -> Option<&str> {
        self.one("location")
    }
}

impl<'a> Ask<'a> {
    fn by(self, way: Way) -> Self {
        Self { way, ..self }
    }

    fn method(self, method: &'a str) -> Self {
        Self { method, ..self }
    }

    fn host(self, host: &'a str) -> Self {
        Self { host, ..self }
    }

    fn connected_to(self, name: &'a str) -> Self {
        Self { name: Some(name), ..self }
    }

    fn with(self, fields: &'a [(&'a str, &'a str)]) -> Self {
        Self { fields, ..self }
    }

    fn body(self, body: &'a str) -> Self {
        Self { body, ..self }
    }

    fn send(self, edge: &Edge) -> Got {
        let name = self.name.unwrap_or_else(|| self.host.split(':').next().unwrap());
        let is_http2 = self.way == Way::Http2;
        let uri = if is_http2 { format!("https://{}{}", self.host, self.target) } else { self.target.to_owned() };
        let mut request = Request::builder().method(self.method).uri(uri).header("user-agent", "test/1");
        if !is_http2 {
            request = request.header("host", self.host);
        }
        if self.way == Way::Full {
            request = request.header("keep-alive", "5");
        }
        for (name, value) in self.fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(self.body.as_bytes()))).unwrap();
        let (alpn, address): (&[u8], _) = (if is_http2 { b"h2" } else { b"http/1.1" }, edge.address());
        let answered = async {
            let io = TokioIo::new(connect(address, name, &[alpn]).await.unwrap());
            let response = if is_http2 {
                let (mut sender, connection) =
                    hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
                tokio::spawn(connection);
                sender.send_request(request).await
            } else {
                let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
                tokio::spawn(connection);
                sender.send_request(request).await
            };
            let (parts, body) =
                response.unwrap_or_else(|error| panic!("{} {}: {error}", self.method, self.target)).into_parts();
            let body = String::from_utf8_lossy(&body.collect().await.unwrap().to_bytes()).into_owned();
            Got { status: parts.status.as_u16(), headers: parts.headers, body }
        };
        let answered = runtime().block_on(async { tokio::time::timeout(DEADLINE, answered).await });
        answered.unwrap_or_else(|_| panic!("no response: {} {} {}", self.method, self.host, self.target))
    }
}

/// An edge with these keys of iqueue, and the application behind it.
fn scene(service: &str) -> (Edge, Origin) {
    let iqueue = origin("iqueue");
    let edge = edge().service_with("iqueue", &iqueue, service).user("bob", &["iqueue"], &[]).start();
    (edge, iqueue)
}

/// The Cookie field of a user who has signed in at iqueue. `page` has to be one that leads to the sign-on.
fn cookie_of(edge: &Edge, user: &str, page: &str) -> String {
    let mut client = edge.client();
    let form = client.follow(&edge.url("iqueue", page)).pop().unwrap();
    let sent = edge.send_login(&mut client, &form, user, crate::harness::edge::PASSWORD);
    assert_eq!(sent.status, 303, "{}", sent.body);
    client.follow(&sent.location().unwrap());
    client.cookie_field("iqueue.test")
}
