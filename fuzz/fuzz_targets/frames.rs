//! HTTP/2 frames below h2: however they are cut into reads, it comes to the same, and to what an obvious reading says.
#![no_main]

use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use sentry_edge::listener::h2_flood::FrameScanner;

/// Whether a head is under way at the end, and how many there were: frame by frame, from the whole of it.
fn slowly(bytes: &[u8]) -> (bool, u64) {
    let (mut in_head, mut heads) = (false, 0);
    let mut rest = bytes.get(24..).unwrap_or_default();
    while let Some((head, payload)) = rest.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if head[3] == 1 {
            in_head = true;
            heads += 1;
        }
        if payload.len() < length {
            break;
        }
        if (head[3] == 1 || head[3] == 9) && head[4] & 4 != 0 {
            in_head = false;
        }
        rest = &payload[length..];
    }
    (in_head, heads)
}

fuzz_target!(|data: &[u8]| {
    let Some((piece, bytes)) = data.split_first() else { return };
    let now = Instant::now();
    let read = |piece: usize| {
        let mut frames = FrameScanner::default();
        let flood = bytes.chunks(piece.max(1)).any(|part| frames.received(part, || now).is_err());
        (frames.in_head(), frames.heads(), flood)
    };
    let (in_head, heads, flood) = read(bytes.len());
    // A flood is seen sooner in smaller pieces, and then no more is read.
    for other in [read(1), read(usize::from(*piece))] {
        assert!(flood || other == (in_head, heads, false), "{other:?} in pieces");
    }
    assert_eq!((in_head, heads), slowly(bytes));
    // No more frames than the bytes have room for.
    assert!(!flood || bytes.len() > 9 * 1000);
});
