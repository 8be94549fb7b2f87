//! What HTTP/2 connections of clients may do at once: how much they send, and how many requests.

use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options};

/// What a client may send of one body before we have taken it. With the 64 KiB of RFC 9113 §6.9.2 an upload waits for
/// us after every 64 KiB: at 50 ms a round trip, that is 1.3 MB a second and no more.
const STREAM_WINDOW_BYTES: u32 = 512 << 10;
/// The same for all bodies of a connection: what a client can make us hold while applications take nothing.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

pub fn options() -> H2Options {
    // Pingora's bounds on heads and on requests at once hold only where its options are the beginning.
    let mut options = default_h2_options();
    options.initial_window_size(STREAM_WINDOW_BYTES).initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    options
}
