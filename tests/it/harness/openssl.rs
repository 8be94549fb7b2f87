//! OpenSSL's own client, which saves sessions to files: what somebody else's implementation makes of the edge.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use super::certificates::ca;

/// What it printed.
pub struct Visit {
    pub text: String,
}

/// Asks an edge for `/` of a host over a connection of its own, with these further arguments of `s_client`.
pub fn openssl(edge: SocketAddr, host: &str, arguments: &[&str]) -> Visit {
    let trusted = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(trusted.path(), &ca().pem).unwrap();
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &edge.to_string(), "-servername", host, "-ign_eof", "-verify_return_error"])
        .arg("-CAfile")
        .arg(trusted.path())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    // One whose handshake failed may have gone already.
    client.stdin.take().unwrap().write_all(request.as_bytes()).ok();
    let output = client.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Visit { text }
}

impl Visit {
    /// Whether the session was one from before.
    pub fn is_resumed(&self) -> bool {
        self.text.lines().any(|line| line.starts_with("Reused, TLS"))
    }

    /// Whether a session was made.
    pub fn is_new(&self) -> bool {
        self.text.lines().any(|line| line.starts_with("New, TLS"))
    }

    /// Of the response, 0 when there was none.
    pub fn status(&self) -> u16 {
        let line = self.text.lines().find_map(|line| line.split_once("HTTP/1.1 "));
        line.and_then(|(_, rest)| rest.split(' ').next()?.parse().ok()).unwrap_or(0)
    }
}
