//! One request, from its head to its line in the log, on one of two paths.
//!
//! The **fast path** serves what is ordinary: requests without a body for applications that speak HTTP/1.1. The **full
//! path** is Pingora's proxy, with its phases as filters. A path may differ from the other in how bytes move, never in
//! what is allowed, changed or recorded: each rule has one home that both call.
//!
//! The files are a ladder, and each imports only files below it (`tests/it/tidy.rs` holds it):
//! | step | files |
//! |---|---|
//! | 10 | `dispatch` |
//! | 9 | `fast_path`, `full_path` |
//! | 8 | `sso`, `acme_challenge`, `request_body`, `long_lived`, `headers::upstream_response` |
//! | 7 | `recheck` |
//! | 6 | `policy` |
//! | 5 | `misdirected`, `downstream::http1`, `downstream::http2` |
//! | 4 | `limits`, `upstream::attempt`, `upstream::response`, `downstream::writer`, `compress`, `buffering`, `client_ip`, `respond` |
//! | 3 | `error_response`, `headers::upstream_request`, `upstream::connection_auth`, `upstream::parse`, `downstream::parse`, `record` |
//! | 2 | `request`, `cancel`, `downstream::client_conn` |
//! | 1 | `gateway`, `context`, `client_connection`, `headers::response_rules` |
//! | 0 | what imports nothing of `proxy` but `headers` and its parts |

mod acme_challenge;
mod buffering;
mod cancel;
mod client_connection;
mod client_ip;
mod compress;
mod compressors;
mod context;
mod decision;
mod decision_log;
mod dispatch;
pub mod downstream;
mod error_response;
pub mod fast_path;
mod full_path;
mod gateway;
pub mod headers;
mod idle_state;
mod limits;
mod long_lived;
mod misdirected;
mod policy;
mod preflight;
mod recheck;
mod record;
mod request;
mod request_body;
mod respond;
mod sso;
pub mod upstream;

pub use cancel::{CancelState, run_until_cancelled};
pub use client_connection::{ClientConnection, ReadState};
pub use compressors::CompressionSlots;
pub use dispatch::Cancellable;
pub use downstream::client_conn::{Client, Outcome};
pub use downstream::h2_stream::{Accepted, RequestStream};
pub use downstream::parse::read;
pub use fast_path::{FastPath, FastPathMode};
pub use gateway::{Gateway, UnknownClients};
pub use idle_state::{IdleSince, Seat};
pub use request::peer_address;
