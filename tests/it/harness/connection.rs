//! One connection to an edge, kept open from request to request.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;

use super::client::connect;
use super::runtime;

pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    port: u16,
}

impl Connection {
    /// Opens one over TLS, under a server name.
    pub fn open(edge: SocketAddr, name: &str) -> std::io::Result<Self> {
        runtime().block_on(async {
            let stream = connect(edge, name, &[b"http/1.1"]).await?;
            let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
            let (sender, connection) = handshake.map_err(std::io::Error::other)?;
            tokio::spawn(connection);
            Ok(Self { sender, port: edge.port() })
        })
    }

    /// Status and body; an error when the connection is gone.
    pub fn get(&mut self, host: &str, path: &str) -> Result<(u16, String), hyper::Error> {
        self.ask(host, path, &[])
    }

    pub fn ask(&mut self, host: &str, path: &str, fields: &[(&str, &str)]) -> Result<(u16, String), hyper::Error> {
        let mut request = Request::get(path).header("host", format!("{host}:{}", self.port));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        self.send(request.body(Full::default()).unwrap())
    }

    #[allow(dead_code, reason = "tests/clients, which has this harness too, sends no body so")]
    pub fn post(&mut self, host: &str, path: &str, body: &'static str) -> Result<(u16, String), hyper::Error> {
        let request = Request::post(path).header("host", format!("{host}:{}", self.port));
        self.send(request.body(Full::from(body)).unwrap())
    }

    fn send(&mut self, request: Request<Full<Bytes>>) -> Result<(u16, String), hyper::Error> {
        runtime().block_on(async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await?.to_bytes();
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        })
    }
}
