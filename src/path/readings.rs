//! The readings of a path: every text that a server may find in it.
//!
//! Servers differ in what they do to a path before they look for its handler: some decode it, once or twice, before they
//! divide it at its slashes or after, some merge slashes, some cut parameters off. Each of that is a small step here, and
//! the readings are what the steps make of a path in any order and any selection, until nothing new comes out. A route is
//! only found where all readings agree on it (see `routes`), so it holds for an application whichever steps it takes.

use unicode_normalization::UnicodeNormalization;

use super::BadPath;

/// Readings of one path, at most, and their bytes in all. A path in a browser has one to four; more is made up, and each
/// costs the same work again.
const MOST_READINGS: usize = 64;
const MOST_BYTES: usize = 128 * 1024;

/// What a server may do to a path; `None` when it changes nothing.
type Step = fn(&[u8]) -> Option<Vec<u8>>;

const STEPS: [Step; 12] = [
    decode,
    decode_all_but_separators,
    take_backslashes_for_slashes,
    cut_parameters,
    merge_slashes,
    take_authority_off,
    cut_query_off,
    leave_out_unseen,
    cut_streams,
    trim_segments,
    compose,
    take_for_latin_1,
];

/// All readings of the raw path of a request target; `Err` when one of them has a dot segment, or there are too many.
pub fn of(raw: &str) -> Result<Vec<Vec<u8>>, BadPath> {
    // What no client may write as it is, all write alike: without decoding a server compares it in its escaped form.
    close_over(decoded(raw.as_bytes(), |octet| !octet.is_ascii() || b" \"<>^`{|}".contains(&octet)))
}

/// Whether a decoded text has no other reading than itself.
pub fn is_single(text: &str) -> bool {
    close_over(text.as_bytes().to_vec()).is_ok_and(|readings| readings.len() == 1)
}

fn close_over(first: Vec<u8>) -> Result<Vec<Vec<u8>>, BadPath> {
    let mut bytes = first.len();
    let mut readings = vec![checked(first)?];
    let mut at = 0;
    while at < readings.len() {
        for step in STEPS {
            let Some(next) = step(&readings[at]).filter(|next| !readings.contains(next)) else { continue };
            bytes += next.len();
            if readings.len() == MOST_READINGS || bytes > MOST_BYTES {
                return Err(BadPath);
            }
            readings.push(checked(next)?);
        }
        at += 1;
    }
    Ok(readings)
}

/// No browser sends a dot segment, and servers remove them in too many ways (before or after slashes are merged, with
/// parameters or without), so there is no reading to agree on. Windows takes blanks and further dots away from them.
fn checked(reading: Vec<u8>) -> Result<Vec<u8>, BadPath> {
    let is_dots = |segment: &[u8]| segment.contains(&b'.') && segment.iter().all(|byte| matches!(byte, b'.' | b' '));
    // Overlong UTF-8, which is none, and was taken for a dot or a slash by decoders that do not look.
    let is_overlong =
        |pair: &[u8]| matches!(pair, [0xc0 | 0xc1, 0x80..=0xbf] | [0xe0, 0x80..=0x9f] | [0xf0, 0x80..=0x8f]);
    let is_bad = reading.split(|byte| *byte == b'/').any(is_dots) || reading.windows(2).any(is_overlong);
    if is_bad { Err(BadPath) } else { Ok(reading) }
}

fn decode(text: &[u8]) -> Option<Vec<u8>> {
    text.contains(&b'%').then(|| decoded(text, |_| true))
}

/// As who divides a path at its slashes first (Node's `new URL`, Go's `EscapedPath`): `%2F` is a part of a segment, and no
/// segment of a rule.
fn decode_all_but_separators(text: &[u8]) -> Option<Vec<u8>> {
    text.contains(&b'%').then(|| decoded(text, |octet| !matches!(octet, b'/' | b'\\')))
}

/// WHATWG's URL, and Windows.
fn take_backslashes_for_slashes(text: &[u8]) -> Option<Vec<u8>> {
    let slashes = |byte: &u8| if *byte == b'\\' { b'/' } else { *byte };
    text.contains(&b'\\').then(|| text.iter().map(slashes).collect())
}

/// Java: `/a;v=1/b` is `/a/b`.
fn cut_parameters(text: &[u8]) -> Option<Vec<u8>> {
    text.contains(&b';').then(|| by_segment(text, |segment| before(segment, |byte| byte == b';')))
}

fn merge_slashes(text: &[u8]) -> Option<Vec<u8>> {
    let is_double = |at: usize| at > 0 && text[at] == b'/' && text[at - 1] == b'/';
    (0..text.len()).any(is_double).then(|| (0..text.len()).filter(|at| !is_double(*at)).map(|at| text[at]).collect())
}

/// `new URL("//a/b", base)`, as Node's servers read their requests, is `/b` on the host `a`.
fn take_authority_off(text: &[u8]) -> Option<Vec<u8>> {
    let rest = text.strip_prefix(b"//")?;
    let authority = rest.iter().position(|byte| *byte != b'/').unwrap_or(rest.len());
    let path = rest[authority..].iter().position(|byte| *byte == b'/').map_or(&b"/"[..], |at| &rest[authority + at..]);
    Some(path.to_vec())
}

/// A proxy that passes a decoded path on makes a query of `%3F`, and programs in C end at `%2500`.
fn cut_query_off(text: &[u8]) -> Option<Vec<u8>> {
    let path = before(text, |byte| matches!(byte, b'?' | b'#' | 0));
    (path.len() < text.len()).then(|| path.to_vec())
}

/// Without what is not seen: control characters, what Unicode calls ignorable (file systems of Macs do ignore it), and
/// bytes that are no UTF-8.
fn leave_out_unseen(text: &[u8]) -> Option<Vec<u8>> {
    let mut seen = Vec::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        let valid: String = chunk.valid().chars().filter(|c| !c.is_control() && !is_ignorable(*c)).collect();
        seen.extend_from_slice(valid.as_bytes());
    }
    (seen.len() < text.len()).then_some(seen)
}

/// `Default_Ignorable_Code_Point` of Unicode 16, and what stands for a byte that could not be read.
fn is_ignorable(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{fffd}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// File systems of Windows: `NAME::$DATA` and `NAME:$I30:$INDEX_ALLOCATION` are the file and the folder of that name.
fn cut_streams(text: &[u8]) -> Option<Vec<u8>> {
    let names_stream = |segment: &[u8]| segment.windows(2).any(|pair| pair == b":$");
    names_stream(text)
        .then(|| by_segment(text, |name| if names_stream(name) { before(name, |byte| byte == b':') } else { name }))
}

/// And blanks and dots at a name's end do not count.
fn trim_segments(text: &[u8]) -> Option<Vec<u8>> {
    let trimmed = by_segment(text, |mut name| {
        while let [rest @ .., b'.' | b' '] | [b' ', rest @ ..] = name {
            name = rest;
        }
        name
    });
    (trimmed.len() < text.len()).then_some(trimmed)
}

/// NFKC, as frameworks bring names into one form, and the look-alikes of slashes in the code pages of Windows.
fn compose(text: &[u8]) -> Option<Vec<u8>> {
    if text.is_ascii() {
        return None;
    }
    let slashes = |c: char| match c {
        '\u{2044}' | '\u{2215}' => '/',
        '\u{2216}' | '\u{a5}' | '\u{20a9}' => '\\',
        c => c,
    };
    let mut composed = Vec::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        // Some compositions hold a slash of those.
        let valid: String = chunk.valid().nfkc().map(slashes).collect();
        composed.extend_from_slice(valid.as_bytes());
        composed.extend_from_slice(chunk.invalid());
    }
    Some(composed)
}

/// `/caf%E9`, as applications write it that are older than UTF-8.
fn take_for_latin_1(text: &[u8]) -> Option<Vec<u8>> {
    let as_text = || text.iter().copied().map(char::from).collect::<String>().into_bytes();
    std::str::from_utf8(text).is_err().then(as_text)
}

/// With those escapes decoded that are wanted. What is no escape stays.
fn decoded(text: &[u8], wanted: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, behind @ ..] = rest {
        match escaped(rest).filter(|octet| wanted(*octet)) {
            Some(octet) => {
                bytes.push(octet);
                rest = &rest[3..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    bytes
}

/// The octet of the escape that a text begins with.
fn escaped(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    Some((digit(high)? * 16 + digit(low)?) as u8)
}

fn before(text: &[u8], ends: impl Fn(u8) -> bool) -> &[u8] {
    text.iter().position(|byte| ends(*byte)).map_or(text, |end| &text[..end])
}

fn by_segment(text: &[u8], change: impl Fn(&[u8]) -> &[u8]) -> Vec<u8> {
    text.split(|byte| *byte == b'/').map(change).collect::<Vec<_>>().join(&b'/')
}
