//! What the tests are written with: an edge, origins, users, clients, a memcached, a browser. All real.
//!
//! Each part is a builder that reads aloud. Ports are the kernel's choice, files live in a folder of their own, and
//! everything stops when it is dropped.

pub mod application;
pub mod browser;
pub mod bystander;
pub mod certificates;
pub mod client;
pub mod connection;
pub mod daemon;
pub mod edge;
pub mod faulty;
pub mod forgery;
pub mod forgetful;
pub mod frames;
pub mod front;
pub mod http2;
pub mod memcached;
pub mod nginx;
pub mod observer;
pub mod openssl;
pub mod origin;
pub mod process;
pub mod raw;
pub mod recorder;
pub mod scripted;
pub mod service_manager;
pub mod spellings;
pub mod streaming;
pub mod tabs;
pub mod unix_socket;
pub mod visitor;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

pub use browser::{Browser, browser, browser_without_scripts};
pub use bystander::Bystander;
pub use client::{Client, Response, client};
pub use connection::Connection;
pub use daemon::{Daemon, Running};
pub use edge::{Edge, edge};
pub use faulty::{Fault, Faulty, faulty};
pub use forgetful::{Forgetful, forgetful};
pub use front::front;
pub use http2::Http2;
pub use memcached::{Memcached, memcached};
pub use nginx::Nginx;
pub use openssl::openssl;
pub use origin::{Origin, origin};
pub use raw::{Raw, raw};
pub use streaming::{Streaming, streaming};
pub use tabs::Tabs;
pub use visitor::{Visitor, visitor};

/// The runtime that clients and origins run on; edges have one of their own.
pub fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap())
}

/// How much a test does, where a target of the Makefile asks for more than every run does.
pub fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Writes a file that its owner alone may read, as keys and configurations with secrets are.
pub fn write_private(path: impl AsRef<std::path::Path>, content: impl AsRef<[u8]>) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// An address that refuses connections until a program is started there, and that is given to no other test: a socket is
/// bound to it for as long as this process runs. It does not listen, and with SO_REUSEADDR, which every server sets, it is in
/// no server's way; the kernel gives the port out to neither listeners nor connections meanwhile.
pub fn free_address() -> SocketAddr {
    static BOUND: Mutex<Vec<Socket>> = Mutex::new(Vec::new());
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    BOUND.lock().unwrap().push(socket);
    address
}

/// Sets a flag when it is dropped, after a panic as well: threads of a scope that work until the flag is set end then, and
/// the test fails with the panic instead of waiting for them.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How long is waited for what has to come, on a machine that has much else to do; what is not there by then never comes.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Asks until it is so. For what another process does in its own time; fails loudly when it never comes true.
pub fn eventually(what: &str, holds: impl FnMut() -> bool) {
    eventually_or(holds, || what.to_owned());
}

/// The same, with something to be said only when it never came true.
pub fn eventually_or(mut holds: impl FnMut() -> bool, what: impl FnOnce() -> String) {
    let begun = Instant::now();
    while !holds() {
        if begun.elapsed() > DEADLINE {
            panic!("never came true: {}", what());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until a number is what it has to be. For what is counted once a response is out.
#[track_caller]
pub fn comes_to(what: &str, expected: f64, read: impl Fn() -> f64) {
    eventually_or(|| read() == expected, || format!("{what}: {}, not {expected}", read()));
}
