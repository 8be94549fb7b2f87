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
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

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

/// Writes a file that its owner alone may read, as keys and configurations with secrets are.
pub fn write_private(path: impl AsRef<std::path::Path>, content: impl AsRef<[u8]>) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// An address on which nobody listens, below the ports that the kernel gives out, so that it stays so.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 100) as u16 * 100;
    std::iter::repeat_with(|| SocketAddr::from(([127, 0, 0, 1], first + NEXT.fetch_add(1, Ordering::Relaxed) % 2000)))
        .find(|address| std::net::TcpListener::bind(address).is_ok())
        .unwrap()
}

/// Asks until it is so. For what another process does in its own time; fails loudly when it never comes true.
pub fn eventually(what: &str, holds: impl FnMut() -> bool) {
    eventually_or(holds, || what.to_owned());
}

/// The same, with something to be said only when it never came true.
pub fn eventually_or(mut holds: impl FnMut() -> bool, what: impl FnOnce() -> String) {
    let begun = Instant::now();
    while !holds() {
        if begun.elapsed() > Duration::from_secs(20) {
            panic!("never came true: {}", what());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
