//! One request, from its head to its line in the log, on one of two paths.
//!
//! The **fast path** serves what is ordinary: requests without a body for applications that speak HTTP/1.1. The **full
//! path** is Pingora's proxy, with its phases as filters. A path may differ from the other in how bytes move, never in
//! what is allowed, changed or recorded: each rule has one home that both call.
//!
//! The files are a ladder, and each imports only files below it (`tests/it/tidy/layers.rs` holds it):
//! | step | files |
//! |---|---|
//! | 11 | `dispatch` |
//! | 10 | `fast_path`, `full_path` |
//! | 9 | `file_response`, `long_lived` |
//! | 8 | `downstream::http1`, `downstream::http2`, `dropped`, `recheck`, `respond` |
//! | 7 | `downstream::writer`, `headers::upstream_response`, `policy`, `record`, `request_body`, `upstream::response` |
//! | 6 | `acme_challenge`, `limits`, `maintenance`, `misdirected`, `route_rules`, `sso`, `static_files`, `upstream::attempt`, `upstream::parse` |
//! | 5 | `buffering`, `client_ip`, `compress`, `downstream::parse`, `error_response`, `headers::upstream_request`, `health`, `upstream::connection_auth` |
//! | 4 | `cancel`, `downstream::client_conn`, `headers::route_fields`, `request`, `route_reply`, `verdict_record` |
//! | 3 | `client_connection`, `context`, `headers::response_rules` |
//! | 2 | `downstream::h2_stream::session`, `gateway`, `headers`, `upstream::idle_pool` |
//! | 1 | `compressors`, `decision`, `decision_log`, `downstream`, `downstream::h2_stream`, `headers::edit`, `headers::location`, `headers::request_rules`, `headers::response_kind`, `idle_state`, `preflight`, `upstream`, `upstream::connection`, `upstream::retry`, `upstream::rewind`, `upstream::server_cookie` |

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
mod dropped;
mod error_response;
pub mod fast_path;
mod file_response;
mod full_path;
mod gateway;
pub mod headers;
mod health;
mod idle_state;
mod limits;
mod long_lived;
mod maintenance;
mod misdirected;
mod policy;
mod preflight;
mod recheck;
mod record;
mod request;
mod request_body;
mod respond;
mod route_reply;
mod route_rules;
mod sso;
mod static_files;
pub mod upstream;
mod verdict_record;

pub use cancel::{CancelState, run_until_cancelled};
pub use client_connection::{ClientConnection, ReadState};
pub use compressors::CompressionSlots;
pub use dispatch::Cancellable;
pub use downstream::client_conn::{Client, Outcome};
pub use downstream::h2_stream::{Accepted, RequestStream};
pub use downstream::parse::read;
pub use fast_path::{FastPath, FastPathMode};
pub use gateway::{Gateway, UnknownClients};
pub use idle_state::{IdleSince, IdleTracker};
pub use request::peer_address;
