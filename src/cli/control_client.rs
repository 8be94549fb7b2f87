//! Calls a running edge over its control socket, which is found by the configuration file.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

use super::{ConfigFile, Failure};
use crate::admin::api::CONFIGURATION_FIELD;
use crate::config;
use crate::config::runtime_dir::{CONTROL_SOCKET, configuration_id, places};

/// How long the edge may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_AFTER: Duration = Duration::from_millis(20);
/// How long it may be silent; it gives up a call itself before that.
const SILENCE: Duration = Duration::from_secs(80);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a response: a list of 10,000 sessions has some 4 MB.
const MAX_RESPONSE: u64 = 64 << 20;
const MAX_FIELDS: usize = 64;

/// The edge that runs with a configuration, if there is one.
pub struct ControlClient {
    file: PathBuf,
    id: String,
    /// Where its socket may be.
    places: Vec<PathBuf>,
    /// Why the file could not be read, if it could not: then the socket may also be where the file says.
    unread: Option<String>,
}

/// The response of an edge.
pub struct Reply {
    pub status: u16,
    pub body: Value,
}

/// Why there is no response.
pub enum CallError {
    /// No edge runs with this configuration, as far as this user can see. The text says where one was looked for.
    NoEdge(String),
    Failed(String),
}

impl ControlClient {
    pub fn of(file: &ConfigFile) -> Result<Self, Failure> {
        let file = file.path()?;
        // Faults do not matter: the edge runs with what the file said before.
        let (written, unread) = match config::read(file) {
            Ok((config, _)) => (config.server.runtime_dir, None),
            Err(faults) => (None, Some(faults.to_string())),
        };
        let (id, places) = (configuration_id(file), places(written.as_deref(), file));
        Ok(Self { file: file.clone(), id, places, unread })
    }

    /// Makes a call. Several edges may have their sockets at the places; each answers for its own configuration alone.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Reply, CallError> {
        let mut seen = Vec::new();
        for place in &self.places {
            let socket = place.join(CONTROL_SOCKET);
            let stream = match connect(&socket) {
                Ok(stream) => stream,
                Err(error) => {
                    seen.push(format!("  {}: {}", socket.display(), reason(&error)));
                    continue;
                }
            };
            let reply = self.exchange(stream, method, path, body);
            let failed = |error: io::Error| CallError::Failed(format!("{}: {error}", socket.display()));
            match reply.map_err(failed)? {
                reply if reply.status == 421 => seen.push(format!("  {}: {}", socket.display(), reply.message())),
                reply => return Ok(reply),
            }
        }
        let unread = self.unread.as_deref().unwrap_or_default();
        let file = self.file.display();
        Err(CallError::NoEdge(format!("{unread}no edge answers for {file}; looked at\n{}", seen.join("\n"))))
    }

    fn exchange(&self, mut stream: UnixStream, method: &str, path: &str, body: Option<&Value>) -> io::Result<Reply> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: control\r\nConnection: close\r\n{CONFIGURATION_FIELD}: {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.id,
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        let mut response = Vec::new();
        stream.take(MAX_RESPONSE).read_to_end(&mut response)?;
        parse(&response).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the edge sent no complete response"))
    }
}

/// Returns a name as a part of a path: everything but unreserved characters is escaped (RFC 3986 §2.3).
pub fn path_segment(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let escaped = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    name.bytes().map(escaped).collect()
}

/// Connects without waiting longer than the time limit: a full queue would block for as long as it is full.
#[expect(clippy::disallowed_methods, reason = "a command, which serves no request")]
fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let (address, deadline) = (SockAddr::unix(path)?, Instant::now() + CONNECT_TIMEOUT);
    loop {
        match socket.connect(&address) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                thread::sleep(RETRY_AFTER);
            }
            connected => break connected?,
        }
    }
    socket.set_nonblocking(false)?;
    let stream = UnixStream::from(OwnedFd::from(socket));
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    Ok(stream)
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is none".into(),
        ErrorKind::ConnectionRefused => "its edge has ended".into(),
        ErrorKind::PermissionDenied => "it is for root and for the user that the edge runs as".into(),
        ErrorKind::WouldBlock => "its edge accepts no connection".into(),
        _ => error.to_string(),
    }
}

/// Parses a response of a connection that was closed behind it.
fn parse(response: &[u8]) -> Option<Reply> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(response).ok()? else { return None };
    let announced = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"))?;
    let announced: usize = std::str::from_utf8(announced.value).ok()?.parse().ok()?;
    let body = response[length..].get(..announced)?;
    Some(Reply { status: head.code?, body: serde_json::from_slice(body).ok()? })
}

impl Reply {
    /// Returns what a refusal says.
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or("the edge has refused it, and did not say why")
    }

    /// Returns the texts of a list of faults or warnings.
    pub fn texts(&self, list: &str) -> Vec<(Option<u64>, &str)> {
        let all = self.body[list].as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().filter_map(|it| Some((it["line"].as_u64(), it["text"].as_str()?))).collect()
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NoEdge(text) | CallError::Failed(text) => Self::Failed(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_segment_whatever_is_in_it() {
        for (name, segment) in [
            ("iqueue", "iqueue"),
            ("[::1]:9001", "%5B%3A%3A1%5D%3A9001"),
            ("unix:///run/app.sock", "unix%3A%2F%2F%2Frun%2Fapp.sock"),
            ("a b%é?#", "a%20b%25%C3%A9%3F%23"),
        ] {
            assert_eq!(path_segment(name), segment);
        }
    }

    #[test]
    fn only_a_whole_response_is_one() {
        let whole = b"HTTP/1.1 422 Unprocessable Entity\r\nContent-Length: 15\r\n\r\n{\"message\":\"x\"}";
        let reply = parse(whole).unwrap();
        assert_eq!((reply.status, reply.message()), (422, "x"));
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut]).is_none(), "{cut}");
        }
        for bad in
            ["", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n{}", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"]
        {
            assert!(parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
