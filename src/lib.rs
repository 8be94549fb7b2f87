//! sentry-edge: an edge proxy that signs people on.
//!
//! It terminates TLS, routes by host and path, and decides for each request who is asking and whether they may. The
//! sign-on service ("Sentry": single sign-on, not Sentry.io) lives in the same process: one login opens every
//! application that a user is registered for, one logout ends all of them, and applications learn the user from
//! headers that no client can forge. The library is there so that `tests/` use the real thing; the binary is
//! [`cli`] and a `main` of ten lines. README.md says what users type and scrape, ARCHITECTURE.md why it is so.
//!
//! # The life of a request
//!
//! ```text
//! bytes
//!   └ server::listener     accept, connection limit, TLS within a deadline     (tls: server name -> certificate)
//!       └ proxy            Pingora's phases, in Pingora's order; each asks and then acts
//!           ├ hygiene      head          -> Target, or why it could be read in two ways
//!           ├ routes       host, path    -> Service and Route, or nobody of ours
//!           ├ sentry       SSO route     -> Reply       (noCookie, login, copyCookie, redeem, logout, currentUser)
//!           ├ auth         headers       -> Verdict     (cookie -> token -> session -> fingerprint -> entitlement)
//!           │   ├ sessions session key   -> record, none, or no answer          (memory, memcached)
//!           │   └ users    user id       -> what became of the user since
//!           ├ upstream     pool          -> the server whose turn it is
//!           ├ headers      strip what clients must not say, set what we say
//!           └ reply        the only writer of responses that we make ourselves
//!       └ the end          one metrics sample, one access-log line, from the Exchange alone
//! ```
//!
//! Whoever decides writes nothing, and whoever writes decides nothing. The order of decisions is policy and stands in
//! one function, `proxy::decide`, with the numbers that ARCHITECTURE.md gives them.
//!
//! # The map, in reading order
//!
//! - [`proxy`]: the gateway. `decide` is the order of decisions, `exchange` what a request learns on its way, `headers`
//!   what applications hear, `rescue` what clients learn of a failure, `stream` and `cut` what becomes of those that last.
//! - [`auth`]: the guard. `token`, `keys`, `cookie`, `fingerprint`, and `outage` for a store that gives no answer;
//!   `streams` and `watch` for requests that last.
//! - [`sentry`]: the sign-on routes, one file a route; `return_url` is the one judge of where a browser may be sent.
//! - [`hygiene`], [`path`], [`host`], [`request`]: what a request says, parsed once.
//! - [`routes`], [`upstream`]: where it goes.
//! - [`sessions`]: records, tickets and counters behind one small trait.
//! - [`users`]: the directory, passwords, and the pool of threads that checks them.
//! - [`reply`], [`pages`]: what we answer ourselves. [`access_log`], [`audit_log`], [`log_writer`]: what we write down. [`rates`]: how fast each client asks. [`compression`]: of what applications answer.
//! - [`config`]: one YAML file in, types that cannot be wrong out, every fault at once.
//! - [`snapshot`]: all that a reload replaces, as one value. [`tls`]: the certificates.
//! - [`server`]: where everything is made and put together; reload, drain, the admin listener and its API.
//! - [`cli`]: one file a command. [`clock`], [`metrics`], [`drain`], [`network`], `crowd`, `patience`: primitives.
//!
//! # Invariants
//!
//! - Imports run downward: cli, server, proxy, snapshot, decisions (auth, sentry, routes, upstream, hygiene),
//!   mechanisms (sessions, users, reply, logs), tls and pages, data. Siblings do not import each other; `sentry` may use `auth`.
//! - `pingora_proxy::Session` is named in `proxy`, `reply` and `server` alone, so policy is tested without a proxy.
//! - `auth` knows no HTTP status. `sessions` knows keys, bytes and expiries, and no policy. `metrics` imports nobody,
//!   and its labels come from bounded sets.
//! - An [`auth::Identity`] is made by the guard alone, and nothing is forwarded as somebody without one.
//! - Absent and failed are different answers: an error of a store or a directory never means "not there".
//! - A request takes the snapshot once and sees one configuration from start to end.
//! - Every wait for something that is not ours has a deadline. Every cache and every queue has a bound.
//! - What clients send becomes no key of the store, no label and no redirect as it is.
//! - Secrets cannot be printed, and are wiped when dropped. There is no mutable `static`.

pub mod access_log;
mod acme;
pub mod audit_log;
pub mod auth;
pub mod buffers;
pub mod cli;
pub mod clock;
pub mod compression;
pub mod config;
mod crowd;
pub mod drain;
pub mod host;
pub mod hygiene;
pub mod log_writer;
pub mod metrics;
pub mod network;
pub mod pages;
pub mod path;
mod patience;
pub mod proxy;
pub mod rates;
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
