//! sentry-edge: an identity-aware edge proxy with built-in single sign-on.
//!
//! It terminates TLS, routes by host and path, and authenticates and authorizes every request. The
//! sign-on service ("Sentry": single sign-on, not Sentry.io) lives in the same process: one login opens every
//! application that a user is registered for, one logout ends all of them, and applications learn the user from
//! headers that no client can forge. The library is there so that `tests/` use the real thing; the binary is
//! [`cli`] and a `main` of ten lines. `docs/` says what users type and scrape, ARCHITECTURE.md and `docs/design/` why it is so.
//!
//! # The life of a request
//!
//! ```text
//! bytes
//!   └ listener             accept, connection limit, TLS within a deadline     (tls: server name -> certificate)
//!       └ proxy            fast path or full path (Pingora's filters); both call the same rules
//!           ├ validate     head          -> Target, or why it could be read in two ways
//!           ├ routes       host, path    -> Service and Route, or 421
//!           ├ sentry       SSO route     -> Reply       (noCookie, login, copyCookie, redeem, logout, currentUser)
//!           ├ auth         headers       -> Verdict     (cookie -> token -> session -> fingerprint -> entitlement)
//!           │   ├ sessions session key   -> record, none, or unavailable        (memory, memcached)
//!           │   └ users    user id       -> changes of the user since
//!           ├ upstream     pool          -> the next server
//!           ├ headers      strip what clients must not send, set what the edge sends
//!           └ reply        the edge's own responses
//!       └ record           one metrics sample, one access-log line, from the request's context alone
//! ```
//!
//! What decides writes nothing, and what writes decides nothing. The order of decisions is policy and is in one
//! file, `proxy::policy`, with the numbers that docs/design/request-paths.md gives them.
//!
//! # The map, in reading order
//!
//! - [`proxy`]: the gateway. `policy` is the order of decisions, `context` what a request learns on its way, `headers`
//!   what applications and browsers get, `error_response` the reply to a failure, `long_lived` and `cancel` requests that last.
//! - [`auth`]: the guard. `token`, `keys`, `cookie`, `fingerprint`, and `outage` for a store that does not answer;
//!   `streams` and `stream_check` for requests that last.
//! - [`sentry`]: the sign-on routes, one file a route; `return_url` is the one judge of where a browser may be sent.
//! - [`validate`], [`path`], [`host`], [`request`]: what a request says, parsed once.
//! - [`routes`], [`upstream`]: where it goes.
//! - [`sessions`]: records, tickets and counters behind one small trait.
//! - [`users`]: the directory, passwords, and the pool of threads that checks them.
//! - [`reply`], [`pages`]: the edge's own responses. [`access_log`], [`audit_log`], [`log_writer`]: logs. [`rate_limit`]: requests per client. [`compression`]: of applications' responses.
//!   [`maintenance`]: services in maintenance. [`error_pages`]: a service's own pages for errors. [`files`]: static files.
//! - [`config`]: one YAML file in, types that cannot be wrong out, every fault at once.
//! - [`snapshot`]: all that a reload replaces, as one value. [`tls`]: the certificates.
//! - `listener`: client connections. `admin`: the admin listener and its API. [`server`]: where everything is made and put together; reload, drain, upgrade.
//! - [`cli`]: one file a command. [`clock`], [`metrics`], [`drain`], [`client_prefix`], `quota`, `deadline`, `descriptors`, `framing`, [`blocking`]: primitives.
//!
//! # Invariants
//!
//! - Imports run downward: cli, server, listener, admin, proxy, snapshot, decisions (auth, sentry, routes, upstream, validate),
//!   mechanisms (sessions, users, reply, logs), tls and pages, data. Siblings do not import each other; `sentry` may use `auth`.
//! - `pingora_proxy::Session` is named in `proxy`, `reply` and `listener` alone, so policy is tested without a proxy.
//! - `auth` knows no HTTP status. `sessions` knows keys, bytes and expiries, and no policy. `metrics` imports nothing,
//!   and its labels come from bounded sets.
//! - An [`auth::Identity`] is made by the guard alone, and no request is forwarded with a user's name without one.
//! - Absent and failed are different answers: an error of a store or a directory never means "not there".
//! - A request takes the snapshot once and sees one configuration from start to end.
//! - Every wait for something that is not ours has a deadline. Every cache and every queue has a bound.
//! - What clients send becomes no key of the store, no label and no redirect as it is.
//! - Secrets cannot be printed, and are wiped when dropped. There is no mutable `static`.

pub mod access_log;
mod acme;
mod admin;
pub mod audit_log;
pub mod auth;
pub mod blocking;
pub mod buffers;
pub mod cli;
pub mod client_prefix;
pub mod clock;
pub mod compression;
pub mod config;
mod deadline;
mod descriptors;
pub mod drain;
pub mod error_pages;
pub mod files;
mod framing;
pub mod host;
pub mod listener;
pub mod log_writer;
pub mod maintenance;
pub mod metrics;
pub mod pages;
pub mod path;
pub mod proxy;
mod quota;
pub mod rate_limit;
pub mod reply;
pub mod request;
pub mod routes;
pub mod sentry;
pub mod server;
pub mod sessions;
pub mod snapshot;
pub mod tls;
pub mod upstream;
pub mod users;
pub mod validate;
