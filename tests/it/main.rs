//! All integration tests in one binary: the edge as its users meet it, over TLS, with real processes.

mod harness;

// The sign-on as a person meets it, in a real Chromium.
mod browser;
// The sign-on flow, arrow by arrow, header by header.
mod flow;
// Signing in with user name and password: what is told, counted and refused.
mod login;
// The session store away, frozen, restarted, emptied, full or lying.
mod outage;
