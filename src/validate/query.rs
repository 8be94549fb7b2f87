//! The one judge of what may stand in a query, over HTTP/1.1 and over HTTP/2.
//!
//! What browsers send as it is passes byte for byte (WHATWG URL, "query state"), though RFC 3986 §3.4 has some of it
//! escaped: `\\`, `^`, `` ` ``, `{`, `|`, `}`, `'`, and a `%` before anything. What browsers always escape, and servers
//! read in different ways or not at all, is refused: blanks and control characters, where a request line may end; bytes
//! beyond ASCII, of which Python's `http.server` takes 0x85 and 0xA0 for blanks; `"`, `<`, `>`, which no HTTP/2 stack of
//! ours reads; and `#`, behind which there is a fragment to some.

use super::byte_set::ByteSet;

pub static QUERY_BYTES: ByteSet = ByteSet::graphic_except(b"\"#<>");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_browsers_send_as_it_is_passes_and_nothing_that_ends_a_request_line() {
        for byte in 0..=u8::MAX {
            let expected = (0x21..0x7f).contains(&byte) && !b"\"<>#".contains(&byte);
            assert_eq!(QUERY_BYTES.contains_all(&[b'a', b'=', byte, b'z']), expected, "{byte:#x}");
        }
        assert!(QUERY_BYTES.contains_all(b""));
    }
}
