//! Range requests: which bytes of a file a client wants (RFC 9110 §14).

use std::ops::Range;

/// What a Range field asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Everything: there is no field, it is malformed or of another unit, or it has several ranges. A server may ignore such
    /// a field (§14.2), and clients that send several ranges read a whole file too.
    Whole,
    /// `206`
    Part(Range<u64>),
    /// `416`
    Unsatisfiable,
}

/// Reads the value of a Range field for a file of `length` bytes.
pub fn wanted(field: &[u8], length: u64) -> Wanted {
    let Some(set) = byte_ranges(field) else { return Wanted::Whole };
    let mut parts = Vec::new();
    for spec in set.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|spec| !spec.is_empty()) {
        match part(spec, length) {
            None => return Wanted::Whole,
            Some(part) if part.is_empty() => {}
            // Several would be several parts of one body.
            Some(_) if !parts.is_empty() => return Wanted::Whole,
            Some(part) => parts.push(part),
        }
    }
    match parts.pop() {
        Some(part) => Wanted::Part(part),
        // A suffix of an empty file is all of it, which no `Content-Range` can say.
        None if length == 0 && set.trim_ascii().starts_with(b"-") => Wanted::Whole,
        None => Wanted::Unsatisfiable,
    }
}

/// The set of a field in bytes. Names of units have no case (§14.1).
fn byte_ranges(field: &[u8]) -> Option<&[u8]> {
    let at = field.iter().position(|byte| *byte == b'=')?;
    let (unit, set) = (&field[..at], &field[at + 1..]);
    let is_empty = set.iter().all(|byte| matches!(byte, b',' | b' ' | b'\t'));
    (unit.trim_ascii().eq_ignore_ascii_case(b"bytes") && !is_empty).then_some(set)
}

/// The bytes of one range, none where it begins beyond the end; `None` for a range that is malformed.
fn part(spec: &[u8], length: u64) -> Option<Range<u64>> {
    let at = spec.iter().position(|byte| *byte == b'-')?;
    let (first, last) = (&spec[..at], &spec[at + 1..]);
    if first.is_empty() {
        let suffix = number(last)?;
        return Some(length.saturating_sub(suffix)..length);
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    (first <= last).then(|| first.min(length)..last.saturating_add(1).min(length))
}

/// Digits and nothing else. A number that is too large is beyond the end of every file.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(std::str::from_utf8(digits).ok()?.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_sent_and_everything_else_is_the_whole_file_or_none() {
        for (field, expected) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=0-9", Wanted::Part(0..10)),
            ("bytes=0-", Wanted::Part(0..10)),
            ("bytes=3-5", Wanted::Part(3..6)),
            ("bytes=9-", Wanted::Part(9..10)),
            ("bytes=5-99", Wanted::Part(5..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-99", Wanted::Part(0..10)),
            ("Bytes=1-2", Wanted::Part(1..3)),
            ("bytes= 1-2 ", Wanted::Part(1..3)),
            ("bytes=1-2,", Wanted::Part(1..3)),
            ("bytes=5-99999999999999999999999", Wanted::Part(5..10)),
            ("bytes=0-18446744073709551615", Wanted::Part(0..10)),
            ("bytes=1-2, 20-30", Wanted::Part(1..3)),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=10-20", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=20-30, 40-", Wanted::Unsatisfiable),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("bytes=0-0,-1", Wanted::Whole),
            ("bytes=5-3", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("bytes=,", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=1", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=1-2-3", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=0x1-2", Wanted::Whole),
            ("items=0-1", Wanted::Whole),
            ("bytes", Wanted::Whole),
            ("", Wanted::Whole),
        ] {
            assert_eq!(wanted(field.as_bytes(), 10), expected, "{field}");
        }
    }

    #[test]
    fn an_empty_file_has_no_range() {
        assert_eq!(wanted(b"bytes=0-", 0), Wanted::Unsatisfiable);
        assert_eq!(wanted(b"bytes=0-0", 0), Wanted::Unsatisfiable);
        assert_eq!(wanted(b"bytes=-5", 0), Wanted::Whole);
    }
}
