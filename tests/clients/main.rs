//! Real clients, signed in by cookie, through an edge in a process of its own: curl, Chromium, gRPC, WebSockets of two
//! libraries. What they talk to is written with the same libraries. `tests/clients/setup` installs what is not Debian's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test that does not get what it expects ends; and it waits for other processes"
)]
#![allow(dead_code, unused_imports, reason = "the harness is that of the other tests, which use all of it")]

#[path = "../it"]
mod it {
    pub mod harness;
}
use it::harness;

// Programs beside the edge, and an edge for them.
mod scene;

// A gigabyte each way over HTTP/1.1 and HTTP/2, and uploads that are refused before they begin.
mod bulk;
// Pages that are compressed on their way, and read by those who asked for that.
mod compressed;
// gRPC with grpcio.
mod grpc;
// Events, lines and long polls, each of which arrives before the next is sent.
mod live;
// Uploads of no known length over HTTP/2, beside another client's requests.
mod uploads;
// Which handlers of real applications a user without the role gets to run, however a path is spelled.
mod paths;
// WebSockets with `websockets`, `ws` and a browser.
mod websockets;
