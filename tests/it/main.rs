//! All integration tests in one binary: the edge as its users meet it, over TLS, with real processes.

mod harness;

// The sign-on flow, arrow by arrow, header by header.
mod flow;
// The hand-off's one-time ticket: redeemed once, in time, at its host, by its browser.
mod tickets;
// The token: forgeries of every kind, keys and their rotation, audiences, the cache of verified tokens.
mod tokens;
// Cookies and bearer tokens: ours among others, what an application sees of them and may set.
mod cookies;
