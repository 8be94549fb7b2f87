//! A fake server that is scripted by a test, for what a real one would not do on request.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// One connection that the store made.
pub struct Peer(BufReader<TcpStream>);

/// The lines of one request: a whole batch up to its `mn`, or a single command.
pub struct Request(Vec<String>);

/// Serves each connection with `script`, which gets the number of the connection, from 0. Returns the address.
pub async fn serve<F, S>(script: S) -> String
where
    S: Fn(usize, Peer) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            tokio::spawn(script(number, Peer(BufReader::new(stream))));
        }
    });
    address
}

impl Peer {
    /// Returns the next request; `None` when the store has closed the connection.
    pub async fn request(&mut self) -> Option<Request> {
        let mut lines = vec![self.line().await?];
        while lines[0].ends_with(" q") && lines.last().is_some_and(|line| line != "mn") {
            lines.push(self.line().await?);
        }
        if let Some(length) = lines[0].strip_prefix("ms ").and_then(|rest| rest.split(' ').nth(1)) {
            let mut data = vec![0; length.parse::<usize>().unwrap() + 2];
            self.0.read_exact(&mut data).await.ok()?;
        }
        Some(Request(lines))
    }

    pub async fn say(&mut self, text: &str) {
        // The store may have closed the connection, which the test has to notice.
        let _ = self.0.get_mut().write_all(text.as_bytes()).await;
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let length = self.0.read_line(&mut line).await.ok()?;
        (length > 0).then(|| line.trim_end().to_owned())
    }
}

impl Request {
    /// Returns the name of the command.
    pub fn command(&self) -> &str {
        self.0[0].split(' ').next().unwrap_or_default()
    }

    /// Returns the keys, in their order.
    pub fn keys(&self) -> Vec<&str> {
        self.0.iter().filter_map(|line| line.split(' ').nth(1)).collect()
    }

    pub fn key(&self) -> &str {
        self.keys()[0]
    }
}
