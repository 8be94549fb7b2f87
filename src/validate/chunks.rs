//! A chunked body, read beside Pingora and more strictly (RFC 9112 §7.1): where it ends, and whether any server could
//! find its end elsewhere.
//!
//! Pingora takes a line feed within an extension, an empty size, and extensions of kilobytes. What it forwards it
//! frames anew, so this does no harm behind the edge; but a message that two servers may read in two ways is not served
//! here. So whatever is not in the grammar of chunks, extensions and trailers is refused, but for blanks behind a size:
//! old servers pad it with them, and all agree that they mean nothing. Pure; called by `listener`.

use super::Malformed;

/// Extensions are practically unused, and many of them have been used for attacks on servers.
const LONGEST_EXTENSION: usize = 256;

/// All trailer fields together.
const LONGEST_TRAILERS: usize = 8 * 1024;

/// More could overflow a server that counts in 64 bits.
const MOST_DIGITS: u8 = 15;

/// How far a chunked body has been read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chunks(State);

#[derive(Clone, Copy, Debug)]
enum State {
    Size {
        digits: u8,
        size: u64,
    },
    /// Behind the size, after so many bytes.
    Extension {
        bytes: usize,
        size: u64,
        part: Part,
    },
    /// CR has come.
    SizeEnds {
        size: u64,
    },
    Data {
        left: u64,
    },
    /// What is to come after a chunk's data.
    Cr,
    Lf,
    /// At the beginning of a line of trailers, after so many bytes of them.
    TrailerBegins {
        bytes: usize,
    },
    TrailerName {
        bytes: usize,
    },
    Trailer {
        bytes: usize,
    },
    TrailerEnds {
        bytes: usize,
    },
    /// CR has come where a trailer would begin.
    LastLf,
    Done,
}

/// Of extensions, `;NAME` or `;NAME=VALUE`, with blanks around each of these.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// What came last is whole, and there may be an end, or another extension.
    Whole,
    /// `;` has come.
    BeforeName,
    Name,
    /// A blank has come behind it.
    AfterName,
    /// `=` has come.
    BeforeValue,
    Value,
    Quoted,
    /// `\` has come within quotes.
    Escaped,
}

impl Part {
    fn after(self, byte: u8) -> Option<Self> {
        let is_text = byte == b'\t' || (0x20..0x7f).contains(&byte);
        Some(match (self, byte) {
            (Self::Quoted, b'"') => Self::Whole,
            (Self::Quoted, b'\\') => Self::Escaped,
            (Self::Quoted | Self::Escaped, _) if is_text => Self::Quoted,
            (Self::Quoted | Self::Escaped, _) => return None,
            (Self::Name, b' ' | b'\t') => Self::AfterName,
            (Self::Value, b' ' | b'\t') => Self::Whole,
            (_, b' ' | b'\t') => self,
            (Self::Whole | Self::Name | Self::AfterName | Self::Value, b';') => Self::BeforeName,
            (Self::Name | Self::AfterName, b'=') => Self::BeforeValue,
            (Self::BeforeValue, b'"') => Self::Quoted,
            (Self::BeforeName | Self::Name, _) if is_of_token(byte) => Self::Name,
            (Self::BeforeValue | Self::Value, _) if is_of_token(byte) => Self::Value,
            _ => return None,
        })
    }

    fn may_end(self) -> bool {
        matches!(self, Self::Whole | Self::Name | Self::AfterName | Self::Value)
    }
}

/// RFC 9110 §5.6.2.
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl Default for State {
    fn default() -> Self {
        Self::Size { digits: 0, size: 0 }
    }
}

impl Chunks {
    pub fn is_done(&self) -> bool {
        matches!(self.0, State::Done)
    }

    /// How many of the bytes belong to the body.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            if let State::Data { left } = self.0 {
                let here = left.min((bytes.len() - at) as u64);
                at += here as usize;
                self.0 = if here == left { State::Cr } else { State::Data { left: left - here } };
            } else {
                self.0 = self.0.after(bytes[at])?;
                at += 1;
            }
        }
        Ok(at)
    }
}

impl State {
    fn after(self, byte: u8) -> Result<Self, Malformed> {
        let is_text = byte == b'\t' || (0x20..0x7f).contains(&byte);
        Ok(match (self, byte) {
            (Self::Size { digits, size }, _) if byte.is_ascii_hexdigit() && digits < MOST_DIGITS => {
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                Self::Size { digits: digits + 1, size: size << 4 | u64::from(digit) }
            }
            (Self::Size { digits: 1.., size }, b'\r') => Self::SizeEnds { size },
            (Self::Size { digits: 1.., size }, b';' | b' ' | b'\t') => {
                let part = if byte == b';' { Part::BeforeName } else { Part::Whole };
                Self::Extension { bytes: 0, size, part }
            }
            (Self::Extension { size, part, .. }, b'\r') if part.may_end() => Self::SizeEnds { size },
            (Self::Extension { bytes, size, part }, _) if bytes < LONGEST_EXTENSION => {
                let part = part.after(byte).ok_or(Malformed::Framing)?;
                Self::Extension { bytes: bytes + 1, size, part }
            }
            (Self::SizeEnds { size: 0 }, b'\n') => Self::TrailerBegins { bytes: 0 },
            (Self::SizeEnds { size }, b'\n') => Self::Data { left: size },
            (Self::Cr, b'\r') => Self::Lf,
            (Self::Lf, b'\n') => Self::default(),
            (Self::TrailerBegins { .. }, b'\r') => Self::LastLf,
            (Self::TrailerBegins { bytes } | Self::TrailerName { bytes }, _)
                if is_of_token(byte) && bytes < LONGEST_TRAILERS =>
            {
                Self::TrailerName { bytes: bytes + 1 }
            }
            (Self::TrailerName { bytes }, b':') => Self::Trailer { bytes: bytes + 1 },
            (Self::Trailer { bytes }, _) if (is_text || byte >= 0x80) && bytes < LONGEST_TRAILERS => {
                Self::Trailer { bytes: bytes + 1 }
            }
            (Self::Trailer { bytes }, b'\r') => Self::TrailerEnds { bytes },
            (Self::TrailerEnds { bytes }, b'\n') => Self::TrailerBegins { bytes },
            (Self::LastLf, b'\n') => Self::Done,
            _ => return Err(Malformed::Framing),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left behind the body; in one piece and byte by byte.
    fn rest(body: &str) -> Result<&str, Malformed> {
        let mut whole = Chunks::default();
        let taken = whole.take(body.as_bytes());
        let mut single = Chunks::default();
        let one_by_one = body.bytes().try_fold(0, |sum, byte| single.take(&[byte]).map(|taken| sum + taken));
        assert_eq!(taken, one_by_one, "{body:?}");
        let taken = taken?;
        assert!(whole.is_done() || taken == body.len(), "{body:?}");
        Ok(&body[taken..])
    }

    #[test]
    fn a_body_ends_where_its_last_chunk_and_its_trailers_do() {
        assert_eq!(rest("5\r\nhello\r\n0\r\n\r\nGET"), Ok("GET"));
        assert_eq!(rest("0\r\n\r\n"), Ok(""));
        assert_eq!(rest("00A ;a=\"b c\"\r\n0123456789\r\n1\r\n\n\r\n0;x\r\nA: b\r\nC: \u{e9}\r\n\r\n\r\n"), Ok("\r\n"));
        assert_eq!(rest("5 \t\r\nhello\r\n0\r\n\r\n"), Ok(""), "a padded size");
        assert_eq!(rest("1 ; a ; b = c;d=\"\\\" \";e= f\r\nx\r\n0\r\n\r\n"), Ok(""));
        assert_eq!(rest("0\r\nA:\r\nb-C:d: e\r\n\r\n"), Ok(""));
        assert_eq!(rest("5\r\nhel"), Ok(""), "more may come");
    }

    #[test]
    fn what_two_servers_may_read_in_two_ways_is_refused() {
        let long = |begin: &str, bytes: usize, end: &str| format!("{begin}{}{end}", "a".repeat(bytes));
        for body in [
            "5;\nhello\r\n0\r\n\r\n",
            "5;a\rb\r\nhello\r\n0\r\n\r\n",
            "5;\0\r\nhello\r\n0\r\n\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "-5\r\n",
            "+5\r\n",
            " 5\r\n",
            "\r\n",
            ";\r\n",
            "5\r\nhello!!\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "FFFFFFFFFFFFFFFFF\r\n",
            "0000000000000005\r\n",
            "0\r\n\n",
            "0\r\nA: b\n\r\n",
            "0\r\nA: b\rc\r\n",
            "0\r\n\0: b\r\n",
            // Extensions that are none.
            "5 a\r\n",
            "5;\r\n",
            "5;;a\r\n",
            "5;=b\r\n",
            "5;a=\r\n",
            "5;a=b=c\r\n",
            "5;a=\"b\r\n",
            "5;a=\"b\"c\r\n",
            "5;a=\"\\\r\n",
            "5;a b\r\n",
            "5;a,b\r\n",
            "5;\"a\"\r\n",
            "5,5\r\n",
            // Trailers that are none: a line without a name, and a folded one.
            "0\r\nA\r\n",
            "0\r\n: b\r\n",
            "0\r\nA : b\r\n",
            "0\r\n A: b\r\n",
            "0\r\nA: b\r\n c\r\n",
            "0\r\nA(b): c\r\n",
            "0\r\nGET / HTTP/1.1\r\n",
            &long("1;", 300, "\r\n"),
            &long("0\r\nA: ", 9000, "\r\n\r\n"),
            &format!("0\r\n{}\r\n", "A: bcdefgh\r\n".repeat(1000)),
        ] {
            assert_eq!(rest(body), Err(Malformed::Framing), "{body:?}");
        }
    }
}
