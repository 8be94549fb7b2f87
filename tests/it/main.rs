//! All integration tests in one binary: the edge as its users meet it, over TLS, with real processes.

mod harness;

// The sign-on flow, arrow by arrow, header by header.
mod flow;

// Configurations with faults: each is named, all at once, with its line.
mod configuration;

// The binary in operation: start, reload, drain, stop, logs, limits.
mod operation;
