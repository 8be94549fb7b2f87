//! One HTTP/2 connection to an edge with several streams on it, whose responses are read as they come.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::client::connect;
use super::runtime;

pub struct Http2 {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

/// A response of which more may come.
pub struct Arriving {
    pub status: u16,
    body: Incoming,
    heard: String,
}

impl Http2 {
    pub fn open(edge: SocketAddr, host: &str) -> Self {
        let sender = runtime().block_on(async {
            let io = TokioIo::new(connect(edge, host, &[b"h2"]).await.unwrap());
            let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            sender
        });
        Self { sender, host: host.to_owned() }
    }

    pub fn get(&mut self, path: &str, cookie: &str) -> Arriving {
        let request = Request::get(format!("https://{}{path}", self.host))
            .header("user-agent", "test/1")
            .header("cookie", cookie)
            .body(Full::default())
            .unwrap();
        let response = runtime().block_on(self.sender.send_request(request)).unwrap();
        Arriving { status: response.status().as_u16(), body: response.into_body(), heard: String::new() }
    }
}

impl Arriving {
    /// Waits for these words.
    pub fn hear(&mut self, words: &str) {
        while !self.heard.contains(words) {
            let frame = runtime().block_on(self.body.frame()).expect("it ended").expect("it broke");
            self.heard.push_str(&String::from_utf8_lossy(frame.data_ref().unwrap()));
        }
        self.heard.clear();
    }

    /// Waits for its end; `Err` when it did not come to one by itself.
    pub fn end(self) -> Result<String, hyper::Error> {
        let body = runtime().block_on(self.body.collect())?;
        Ok(self.heard + &String::from_utf8_lossy(&body.to_bytes()))
    }
}
