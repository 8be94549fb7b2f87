//! All integration tests in one binary: the edge as its users meet it, over TLS, with real processes.

mod harness;

// The sign-on flow, arrow by arrow, header by header.
mod flow;

// What an application hears of a request: identity and origin, by the edge alone.
mod headers;
// Whom a request is for: host, port, certificate, TLS.
mod hosts;
// Requests that could be read in two ways, and paths that could.
mod hygiene;
// Where a sign-on may lead, and what its pages repeat.
mod return_urls;
// Who gets in, and what the others are told.
mod access;
// Servers behind the edge: turns, failures, limits, bodies.
mod upstream;
