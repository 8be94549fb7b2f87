//! The head of an HTTP/1 message, read in the obvious way: line by line, as RFC 9112 §2.2 and §5 say it.

use std::collections::BTreeMap;

pub struct Head {
    /// The request line or the status line.
    pub first: Vec<u8>,
    /// In their order, names as they are written, values without the blanks around them.
    pub fields: Vec<(String, Vec<u8>)>,
    /// How many bytes the head has.
    pub length: usize,
    /// Whether it begins at its first byte, and all of its lines end in CRLF.
    pub is_strict: bool,
}

/// The values of each name in lower case, in their order: all that a recipient may go by (RFC 9110 §5.3).
pub type Values = BTreeMap<String, Vec<Vec<u8>>>;

/// `None` for what is no head, and for half of one. Takes a bare LF for the end of a line, and skips blank lines before
/// the first, as a recipient may; a line that is folded is refused.
pub fn read(bytes: &[u8]) -> Option<Head> {
    let mut head = Head { first: Vec::new(), fields: Vec::new(), length: 0, is_strict: true };
    let mut is_first = true;
    loop {
        let rest = &bytes[head.length..];
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        head.length += end + 1;
        let line = rest[..end].strip_suffix(b"\r");
        head.is_strict &= line.is_some();
        match line.unwrap_or(&rest[..end]) {
            b"" if is_first => head.is_strict = false,
            b"" => return Some(head),
            line if is_first => {
                head.first = line.to_vec();
                is_first = false;
            }
            line => head.fields.push(field(line)?),
        }
    }
}

fn field(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, mut value) = (&line[..colon], &line[colon + 1..]);
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if name.is_empty() || !name.iter().all(is_token) {
        return None;
    }
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    let is_text = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    value.iter().all(is_text).then(|| (String::from_utf8_lossy(name).into_owned(), value.to_vec()))
}

pub fn values<N: AsRef<str>, V: AsRef<[u8]>>(fields: impl IntoIterator<Item = (N, V)>) -> Values {
    let mut values = Values::new();
    for (name, value) in fields {
        values.entry(name.as_ref().to_ascii_lowercase()).or_default().push(value.as_ref().to_vec());
    }
    values
}
