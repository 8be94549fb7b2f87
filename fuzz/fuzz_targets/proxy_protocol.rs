//! The header of the PROXY protocol, from a socket that gives as much at a time as it likes: it comes to the same, and
//! nothing that follows the header is taken.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sentry_edge::listener::proxy_protocol::{Malformed, Parsed, Source, parse};

/// What it came to, and the bytes that were taken for it; `None` when the sender left in the middle.
type Outcome = Option<(Result<Source, Malformed>, usize)>;

/// As `listener::proxy_header` reads: never more than is asked for, and `most` of that at a time.
fn read(mut socket: &[u8], most: usize) -> Outcome {
    let mut header = Vec::new();
    loop {
        let more = match parse(&header) {
            Ok(Parsed::Complete(source)) => return Some((Ok(source), header.len())),
            Ok(Parsed::Incomplete(more)) => more,
            Err(malformed) => return Some((Err(malformed), header.len())),
        };
        assert!(more > 0, "it waits for nothing");
        assert!(header.len() + more <= 16 + 4096, "a header has a longest length");
        let (taken, rest) = socket.split_at(more.min(most).min(socket.len()));
        if taken.is_empty() {
            return None;
        }
        header.extend_from_slice(taken);
        socket = rest;
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((most, socket)) = data.split_first() else { return };
    let whole = read(socket, usize::MAX);
    let drops = read(socket, 1);
    let pieces = read(socket, usize::from(*most).max(1));
    // Of a bad header a byte more or less may be read; it is bad however it comes.
    for other in [drops, pieces] {
        match (whole, other) {
            (Some((Ok(source), taken)), other) => assert_eq!(other, Some((Ok(source), taken))),
            (Some((Err(_), _)), Some((result, _))) => assert!(result.is_err()),
            (None, Some((result, _))) => assert!(result.is_err()),
            (Some((Err(_), _)), None) => panic!("drops hide what is wrong"),
            (None, None) => {}
        }
    }
    if let Some((Ok(source), taken)) = whole {
        assert_eq!(read(&socket[..taken], usize::MAX), whole, "what follows a header is no part of it");
        let Source::Client(address) = source else { return };
        let family = if address.is_ipv4() { "TCP4 " } else { "TCP6 " };
        let any = if address.is_ipv4() { "127.0.0.1" } else { "::1" };
        let again = format!("PROXY {family}{} {any} {} 443\r\n", address.ip(), address.port());
        assert_eq!(read(again.as_bytes(), usize::MAX), Some((Ok(source), again.len())));
    }
});
