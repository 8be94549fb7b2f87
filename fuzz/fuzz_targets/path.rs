//! Paths: the canonical form is canonical, an obvious reading agrees with it, and a path that may have public access
//! is read alike by every server.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sentry_edge::path::CanonicalPath;

/// Each escape decoded, once; `None` for what is none, and for what is no text.
fn decode(raw: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut at = 0;
    while at < raw.len() {
        let byte = raw.as_bytes()[at];
        if byte == b'%' {
            let digits = raw.get(at + 1..at + 3).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            at += 3;
        } else {
            bytes.push(byte);
            at += 1;
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

/// As servers read it that leave out control characters.
fn visible(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// Dot segments and empty ones gone (RFC 3986 §5.2.4); `None` for what climbs above the root.
fn flatten(path: &str) -> Option<Vec<&str>> {
    let mut kept = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()?),
            _ => kept.push(segment),
        }
    }
    Some(kept)
}

/// Every octet that could mean something escaped.
fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// The readings of servers that take `\` for `/`, cut segments at `;`, decode twice, or do all of it.
fn lenient_readings(decoded: &str) -> Vec<String> {
    let cut = |path: &str| -> String {
        path.split('/').map(|segment| segment.split(';').next().unwrap_or("")).collect::<Vec<_>>().join("/")
    };
    let twice = decode(decoded).unwrap_or_else(|| decoded.to_owned());
    let all = cut(&twice.replace('\\', "/"));
    vec![decoded.replace('\\', "/"), cut(decoded), twice, all]
}

fuzz_target!(|raw: &str| {
    let Ok(path) = CanonicalPath::of(raw) else { return };
    let text = path.as_str();
    let decoded = decode(raw).expect("what cannot be decoded is refused");
    assert!(raw.starts_with('/') && text.starts_with('/'));
    // A rule is matched by whole segments, and none of them is left to be read again.
    let segments: Vec<&str> = text.split('/').filter(|segment| !segment.is_empty()).collect();
    assert_eq!(flatten(text).as_ref(), Some(&segments), "{raw:?} is {text:?}");
    let again = CanonicalPath::of(&encode(text)).expect("the canonical form can be read");
    assert_eq!(again.as_str(), text, "of {raw:?}");

    if !decoded.contains(';') {
        assert_eq!(Some(segments), flatten(&decoded), "{raw:?} is {text:?}");
    }
    if path.is_canonical() {
        assert_eq!(text, decoded, "{raw:?}");
        for reading in lenient_readings(&decoded) {
            let reading = flatten(&reading).expect("nobody sees it climb");
            assert_eq!(flatten(text), Some(reading), "{raw:?} may be public, and is read in two ways");
        }
        let seen: Vec<String> = flatten(text).into_iter().flatten().map(visible).collect();
        let trimmed = visible(&decoded);
        assert_eq!(
            flatten(&trimmed).expect("nobody sees it climb"),
            seen,
            "{raw:?} has segments that can be overlooked"
        );
    }
    for (end, _) in text.match_indices('/').skip(1).chain([(text.len(), "")]) {
        let rule = &text[..end];
        let rule = rule.strip_suffix('/').unwrap_or(rule);
        assert!(path.is_under(if rule.is_empty() { "/" } else { rule }), "{text:?} is not under {rule:?}");
        // Of one with control characters, the rule that is written without them.
        let plain = visible(rule);
        assert!(!path.is_canonical() || path.may_be_under(if plain.is_empty() { "/" } else { &plain }));
    }
    assert!(!path.is_under(&format!("{}x", text.trim_end_matches('/'))));
});
