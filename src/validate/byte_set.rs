//! Sets of bytes as look-up tables: a membership test is one step, and each request needs it for some hundred bytes.

pub struct ByteSet([bool; 256]);

/// The bytes of method, target and version in a request line. Pingora cuts a fragment off, and some servers take a backslash for a slash.
pub static REQUEST_LINE_BYTES: ByteSet = ByteSet::graphic_except(b"#\\");

/// The same, up to a query.
pub static PATH_BYTES: ByteSet = ByteSet::graphic_except(b"#\\?");

/// What a field's name is of where it means the same to every server: nginx drops others by default.
pub static NAME_BYTES: ByteSet = {
    let mut table = ByteSet::graphic_except(b"");
    let mut byte = b'!';
    while byte <= b'~' {
        table.0[byte as usize] = byte.is_ascii_alphanumeric() || byte == b'-';
        byte += 1;
    }
    table
};

impl ByteSet {
    /// The visible characters of ASCII, less some.
    pub const fn graphic_except(others: &[u8]) -> Self {
        let mut table = [false; 256];
        let mut byte = b'!';
        while byte <= b'~' {
            table[byte as usize] = true;
            byte += 1;
        }
        let mut at = 0;
        while at < others.len() {
            table[others[at] as usize] = false;
            at += 1;
        }
        Self(table)
    }

    pub fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte)]
    }

    /// Whether a text is of these alone.
    pub fn contains_all(&self, text: &[u8]) -> bool {
        text.iter().all(|byte| self.contains(*byte))
    }

    /// What a text begins with of these alone, and the rest.
    pub fn split_prefix<'a>(&self, text: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        text.split_at(text.iter().position(|byte| !self.contains(*byte)).unwrap_or(text.len()))
    }
}
