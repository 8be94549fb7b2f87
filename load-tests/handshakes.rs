//! A client that connects, asks once and leaves, on a few threads, and says how often: for measuring TLS handshakes.
//!
//!     handshakes PORT CERTIFICATE SECONDS full|resumed COOKIE USER_AGENT
//!
//! With `resumed`, each connection offers the session of an earlier one. Started by the load tests; `cargo bench` starts
//! it without arguments.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made may end at once")]
#![allow(clippy::print_stdout, reason = "the figures are what it is for")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, Stream};

const HOST: &str = "localhost";

/// Enough to keep the proxy at work while the others compute.
const THREADS: usize = 8;

#[derive(Default)]
struct Count {
    done: u64,
    resumed: u64,
    failed: u64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, certificate, seconds, mode, cookie, user_agent] = arguments.as_slice() else { return };
    let config = Arc::new(config(certificate, mode == "resumed"));
    let fields = format!("Host: {HOST}:{port}\r\nUser-Agent: {user_agent}\r\nCookie: {cookie}\r\n");
    let request = format!("GET / HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
    let port: u16 = port.parse().unwrap();
    let end = Instant::now() + Duration::from_secs(seconds.parse().unwrap());
    let count = std::thread::scope(|scope| {
        let one = || {
            let mut count = Count::default();
            while Instant::now() < end {
                connect(&config, port, &request, &mut count);
            }
            count
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).fold(Count::default(), |sum, count| Count {
            done: sum.done + count.done,
            resumed: sum.resumed + count.resumed,
            failed: sum.failed + count.failed,
        })
    });
    println!("figures done={} resumed={} failed={}", count.done, count.resumed, count.failed);
}

fn config(certificate: &str, resumes: bool) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = if resumes { Resumption::in_memory_sessions(256) } else { Resumption::disabled() };
    config
}

/// One connection from its beginning to its end, with one request.
fn connect(config: &Arc<ClientConfig>, port: u16, request: &str, count: &mut Count) {
    let mut client = ClientConnection::new(Arc::clone(config), ServerName::try_from(HOST).unwrap()).unwrap();
    let mut answer = Vec::with_capacity(1024);
    let _ = TcpStream::connect(("127.0.0.1", port)).and_then(|mut socket| {
        socket.set_nodelay(true)?;
        let mut stream = Stream::new(&mut client, &mut socket);
        stream.write_all(request.as_bytes())?;
        // Some end a connection without saying so, which is an error after the answer, and none of ours.
        stream.read_to_end(&mut answer)
    });
    count.done += 1;
    count.resumed += u64::from(client.handshake_kind() == Some(HandshakeKind::Resumed));
    count.failed += u64::from(!answer.starts_with(b"HTTP/1.1 200"));
}
