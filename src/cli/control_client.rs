//! Calls a running edge over its control socket, which is found by the configuration file.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

use super::{ConfigFile, Failure, output};
use crate::admin::api::CONFIGURATION_FIELD;
use crate::admin::deadlines;
use crate::config;
use crate::config::runtime_dir::{CONTROL_SOCKET, check_parents, configuration_id, others_may_write, places};

/// How long the edge may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_AFTER: Duration = Duration::from_millis(20);
/// How long it may be silent after a request that takes it no time. One that is silent for longer hangs.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a call is made that the edge refuses because too many others are running, and the pauses between.
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_secs(1);
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
    /// Whether an edge has to show that it answers before it is called.
    probes: bool,
    attempts: usize,
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
        Ok(Self { file: file.clone(), id, places, unread, probes: false, attempts: ATTEMPTS })
    }

    /// For a command that can do without the edge: an edge that hangs is not waited for as long as a call may take, and one
    /// that refuses the call for now is not called again.
    pub fn brief(self) -> Self {
        Self { probes: true, attempts: 1, ..self }
    }

    /// Makes a call, again when the edge has too many others: then it has done nothing.
    #[expect(clippy::disallowed_methods, reason = "a command, which serves no request")]
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Reply, CallError> {
        for _ in 1..self.attempts {
            match self.call_once(method, path, body)? {
                reply if reply.is_busy() => thread::sleep(PAUSE),
                reply => return Ok(reply),
            }
        }
        self.call_once(method, path, body)
    }

    /// Several edges may have their sockets at the places; each answers for its own configuration alone.
    fn call_once(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Reply, CallError> {
        let mut seen = Vec::new();
        for place in &self.places {
            let socket = place.join(CONTROL_SOCKET);
            let mut stream = match connect_to_owner(place, &socket) {
                Ok(stream) => stream,
                Err(why) => {
                    seen.push(format!("  {}: {why}", socket.display()));
                    continue;
                }
            };
            let failed = |error: io::Error| CallError::Failed(format!("{}: {}", socket.display(), reason(&error)));
            if self.probes {
                probe(stream).map_err(failed)?;
                let again = connect_to_owner(place, &socket);
                stream = again.map_err(|why| CallError::Failed(format!("{}: {why}", socket.display())))?;
            }
            let reply = self.exchange(stream, method, path, body);
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
    stream.set_read_timeout(Some(deadlines::COMMAND))?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    Ok(stream)
}

/// Returns a connection to a process that may be believed, or says why there is none.
fn connect_to_owner(folder: &Path, socket: &Path) -> Result<UnixStream, String> {
    let stream = connect(socket).map_err(|error| reason(&error))?;
    check_owner(folder, &stream).map_err(|why| format!("not trusted: {why}"))?;
    Ok(stream)
}

/// Checks whose process is at the other end, as the kernel says (SO_PEERCRED of unix(7)): root's, this user's own, or that
/// of the owner of the folder, where no other user could have put it there.
fn check_owner(folder: &Path, stream: &UnixStream) -> Result<(), String> {
    let peer = getsockopt(stream, PeerCredentials).map_err(|error| error.to_string())?.uid();
    check_peer(folder, peer, rustix::process::geteuid().as_raw())
}

fn check_peer(folder: &Path, peer: u32, own: u32) -> Result<(), String> {
    if [0, own].contains(&peer) {
        return Ok(());
    }
    let folder = std::fs::canonicalize(folder).map_err(|error| error.to_string())?;
    let mut is_owned = false;
    for above in folder.ancestors() {
        let found = std::fs::metadata(above).map_err(|error| error.to_string())?;
        if found.uid() == peer && !others_may_write(&found) {
            is_owned = true;
            continue;
        }
        // In a folder such as /tmp any user makes folders.
        if !is_owned || found.mode() & 0o002 != 0 {
            break;
        }
        return check_parents(&above.join("folder"), &[0, own]);
    }
    Err(format!("its process is of user id {peer}, and this is no folder that was made for that user alone"))
}

/// Has the edge answer a request that waits for nothing, and closes the connection.
fn probe(mut stream: UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: control\r\nConnection: close\r\n\r\n")?;
    stream.read_exact(&mut [0])
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is none".into(),
        ErrorKind::ConnectionRefused => "its edge has ended".into(),
        ErrorKind::PermissionDenied => "it is for root and for the user that the edge runs as".into(),
        ErrorKind::WouldBlock => "its edge does not answer".into(),
        ErrorKind::UnexpectedEof => "its edge has closed the connection".into(),
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
    Some(Reply { status: head.code?, body: printable(serde_json::from_slice(body).ok()?) })
}

/// Escapes the control characters of every text. Some texts are those of other processes, and some end at a terminal.
fn printable(value: Value) -> Value {
    match value {
        Value::String(text) => output::printable(&text).into(),
        Value::Array(list) => list.into_iter().map(printable).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (output::printable(&key), printable(value))).collect(),
        scalar => scalar,
    }
}

impl Reply {
    /// Whether the edge has refused the call for now, and has done nothing.
    pub fn is_busy(&self) -> bool {
        self.status == 429
    }

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
    fn a_socket_of_another_user_is_trusted_only_in_a_folder_that_was_made_for_that_user() {
        use std::fs::{Permissions, create_dir_all, set_permissions};
        use std::os::unix::fs::{PermissionsExt, chown};
        let top = tempfile::tempdir().unwrap();
        let own = std::fs::metadata(top.path()).unwrap().uid();
        let folder = top.path().join("run/edge");
        create_dir_all(&folder).unwrap();
        for known in [0, own] {
            assert!(check_peer(&folder, known, own).is_ok());
        }
        let edge = 65_534;
        assert!(check_peer(&folder, edge, own).is_err(), "the folder is not that user's");
        // Root alone can give a folder away.
        if chown(&folder, Some(edge), None).is_err() {
            return;
        }
        assert_eq!(check_peer(&folder, edge, own), Ok(()));
        // A group of the same number is that user's alone.
        for above in [&folder, &top.path().join("run")] {
            chown(above, Some(edge), Some(edge)).unwrap();
            set_permissions(above, Permissions::from_mode(0o775)).unwrap();
            assert_eq!(check_peer(&folder, edge, own), Ok(()), "{}", above.display());
        }
        chown(&folder, Some(edge), Some(65_533)).unwrap();
        assert!(check_peer(&folder, edge, own).is_err(), "a group of others may write to it");
        assert!(check_peer(&folder, 65_533, own).is_err(), "nor a third one's");
        set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
        assert!(check_peer(&folder, edge, own).is_err(), "others may write to it");
        set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
        set_permissions(top.path().join("run"), Permissions::from_mode(0o1777)).unwrap();
        assert!(check_peer(&folder, edge, own).is_err(), "any user makes folders there");
    }

    #[test]
    fn only_a_whole_response_is_one() {
        let whole = b"HTTP/1.1 422 Unprocessable Entity\r\nContent-Length: 15\r\n\r\n{\"message\":\"x\"}";
        let reply = parse(whole).unwrap();
        assert_eq!((reply.status, reply.message()), (422, "x"));
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut]).is_none(), "{cut}");
        }
        let hostile = b"HTTP/1.1 422 X\r\nContent-Length: 29\r\n\r\n{\"message\":\"a\\u001b[2J\xc2\x9b\\nb\"}";
        assert_eq!(parse(hostile).unwrap().message(), "a\\u{1b}[2J\\u{9b}\\nb", "nothing for a terminal");
        for bad in
            ["", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n{}", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"]
        {
            assert!(parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
