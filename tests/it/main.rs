//! All integration tests in one binary: the edge as its users meet it, over TLS, with real processes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test that does not get what it expects ends; and it waits for other processes"
)]

mod harness;

// The sign-on as a person meets it, in a real Chromium.
mod browser;
mod cluster;
// Walks through the sign-on in Chromium: two people, restored tabs, frames, workers, history.
mod route_fields;
mod route_rules;
mod walks;
// The traces of the sign-on's model: tabs, people, late replies, edges that disagree.
mod traces;
// The sign-on flow, arrow by arrow, header by header.
mod flow;
// One browser, one person: tabs, people, places of logout, in every order.
mod one_browser;
// What passes while the session store is away, by policy; and without any store.
mod outage_policy;
// An administrator's word on live sessions.
mod revocation;
// The user directory's file, and what may be put in its place.
mod directory;
// Requests that last: what keeps their session, and what ends them.
mod streams;
// The same while the configuration changes.
mod reloads;
// Who is signed in: `session list`, and the admin API that lists and ends.
mod sessions;
// What the session store holds: tables that anybody can fill, values that others read, expiries.
mod store;
// Signing in with user name and password: what is told, counted and refused.
mod login;
// Who is kept out after failed logins, for how long, and who is not.
mod lockout;

// What an application hears of a request: identity and origin, by the edge alone.
mod headers;
mod health_checks;
// The units, and what is packaged.
mod packaging;
// gRPC as it is on the wire: HTTP/2 to the application, messages both ways, trailers.
mod grpc;
// Whom a request is for: host, port, certificate, TLS.
mod hosts;
// The port that clients connect to, where a listener is bound to another.
mod public_port;
// Pages of other origins: their preflights and their WebSockets.
mod cross_origin;
// Several requests on one connection, when it ends, and bodies that are asked for first.
mod keepalive;
// Request bodies in every cut, byte for byte at the application.
mod bodies;
// Responses that are compressed on their way, and those that are not.
mod compression;
// Requests that could be read in two ways, and paths that could.
mod hygiene;
// Rules of routes, for every spelling of a path.
mod paths;
// Where a request goes: exact paths, redirects, fixed replies, prefixes, and who is admitted to each of them.
mod routes;
// What may stand in a query, in requests and in the addresses that a sign-on leads back to.
mod queries;
// What the fuzzer has found worth keeping, and what must hold of it.
mod seeds;
// The numbered list of bad inputs, as a table; the desync guardian's cases; the same asked of nginx.
mod inputs;
// Where a sign-on may lead, and what its pages repeat.
mod return_urls;
// Who gets in, and what the others are told.
mod access;
// The agents that one device sends within a session.
mod devices;
// The pages that people see when something is wrong.
mod problem_pages;
// Services in maintenance, and pages of their own for errors.
mod error_pages;
mod maintenance;
mod micro_services;
mod static_files;
// What refusals say: to scripts as JSON, and to the audit log with the user's name.
mod refusals;
// Upstream connections that an application has authenticated, and whose they are.
mod private_connections;
// Servers behind the edge: turns, failures, limits, bodies.
mod names;
mod upstream;
// Servers that fail: what is noticed of them, and what clients get meanwhile.
mod sick_servers;
// Backup servers, limits of single servers, Unix sockets, requests that are sent again.
mod protection;
// The short way to them, and the long one.
mod express;
mod express_http2;
// The two held against each other with what a seed draws.
mod differential;
// What applications answer, in order and out of it, and what clients get of that.
mod responses;
// TLS to those servers.
mod upstream_tls;
// The session store away, frozen, restarted, emptied, full or lying.
mod outage;
mod stalls;
mod unfit_store;
// Logouts that a session server has not heard of.
mod owed;
// The hand-off's one-time ticket: redeemed once, in time, at its host, by its browser.
mod tickets;
// The token: forgeries of every kind, keys and their rotation, audiences, the cache of verified tokens.
mod tokens;
// Cookies and bearer tokens: ours among others, what an application sees of them and may set.
mod cookies;
// Configurations with faults: each is named, all at once, with its line.
mod configuration;
// What a start needs beside its file.
mod needs;
// What is no fault and is said all the same: by `check`, at start and at a reload.
mod warnings;
// Files as editors on Windows save them.
mod encodings;
// Secrets in every shape that they can be written in, none of which is printed.
mod secrets;
// Keys that verify nothing or sign for everybody, names that say something else already.
mod keys;
// The binary in operation: start, reload, drain, stop, logs, limits.
mod operation;
// The control socket and the admin API: who may call, what they call, and what comes of it.
mod control;
// Commands beside an edge that hangs, is busy or is none.
mod commands;
// The servers of a pool replaced under load, without a lost request.
mod deploys;
// A stop without a lost request.
mod drains;
// Logs that nobody reads, that are closed, or whose disk is full.
mod logs;
// Log files that are moved, deleted or have no room.
mod log_files;
// Lines at `log.level: debug`.
mod decision_log;
// Sockets that a service manager has bound.
mod activation;
// A process that takes over from the one that runs.
mod upgrades;
// What each signal does.
mod hanging_files;
mod signals;
// HTTP/2 from clients that mean no good.
mod http2;
mod windows;
// Who is let in, how fast they have to be, and how much of them there may be.
mod gate;
// Many who take their time at once, and a process that can open no more.
mod crowds;
// What one of many can take of what there is for all.
mod shares;
// Behind a balancer that speaks the PROXY protocol.
mod balancer;
mod balancing;
// Behind a proxy that says for whom it asks.
mod behind_nginx;
// The same where it does not.
mod unknown_clients;
// Certificate authorities that ask whether a host is ours.
mod acme;
// TLS with clients that come again.
mod handshakes;
// What single hosts ask of connections: a least version, a client's certificate.
mod host_tls;
// Certificates while the edge runs.
mod renewal;
// Users, keys and tokens from the command line.
mod command_line;
// What they print, to readers that listen and to some that do not.
mod command_output;
// The demonstration: one command, and the whole flow with what it made on the spot.
mod demo;
// What a machine has to have for the tests to run: nothing that only an earlier run leaves behind.
mod fresh_machine;
// Defaults: those in effect are those of config/defaults.rs and of the documents.
mod defaults;
// The house rules: floors, lengths, documents in step with the code.
mod tidy;
// The pages, the schema and the scripts that are made of the source.
mod reference;
mod schema;
// Configurations by need, and the pages of the guide, as they are followed.
mod example_pacs;
mod examples;
mod guide;
mod incidents;
