//! Paths: the canonical form is canonical, an obvious reading agrees with it, a path that may have public access is read
//! alike by every server, and no server finds another route than ours for what is let through.
//!
//! Servers are modelled here by what they may do to a path, each step written anew: nothing is shared with the readings
//! that the edge makes. Letters before the first slash are steps of one more server, in an order of its own: see [`step`].

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use sentry_edge::blocking::BlockingThreads;
use sentry_edge::config::{self, Access};
use sentry_edge::host::Host;
use sentry_edge::maintenance::MaintenanceSwitches;
use sentry_edge::metrics::Metrics;
use sentry_edge::path::CanonicalPath;
use sentry_edge::routes::Routes;
use sentry_edge::routes::rules::FieldSecrets;

/// Services by their paths for anybody and for administrators, where the longest wins.
const SERVICES: [(&str, &[(&str, bool)]); 3] = [
    ("below.test", &[("/", false), ("/admin", true)]),
    ("above.test", &[("/", true), ("/open", false)]),
    ("between.test", &[("/", false), ("/a", true), ("/a/b", false), ("/a/b/c", true)]),
];

fn routes() -> &'static Routes {
    static ROUTES: OnceLock<Routes> = OnceLock::new();
    ROUTES.get_or_init(|| {
        let access = |guarded: bool| if guarded { "{roles: [admin]}" } else { "required" };
        let service = |(host, rules): &(&str, &[(&str, bool)])| {
            let rules = rules.iter().map(|(path, guarded)| format!("{{path: {path}, access: {}}}", access(*guarded)));
            let (name, rules) = (host.split('.').next().unwrap(), rules.collect::<Vec<_>>().join(", "));
            format!("  {name}: {{hosts: [{host}], pool: p, routes: [{rules}]}}\n")
        };
        let yaml = format!(
            "server: {{listeners: [{{address: \"127.0.0.1:443\"}}]}}\ntls: {{certificates: []}}\n\
             sentry: {{host: sentry.test, keys: []}}\nservices:\n{}pools: {{p: {{servers: [\"127.0.0.1:1\"]}}}}\n",
            SERVICES.iter().map(service).collect::<String>()
        );
        // Its other parts are faulty, which is nothing to paths.
        let (config, faults) = config::parse("fuzz.yaml".as_ref(), &yaml).expect("it can be read");
        assert!(!faults.to_string().contains("routes"), "{faults}");
        let metrics = Metrics::new("fuzz").expect("they are named");
        let threads = BlockingThreads::new().map(Arc::new).expect("there are resources");
        let switches = MaintenanceSwitches::new(metrics.traffic.maintenance.clone());
        let secrets = FieldSecrets::default();
        Routes::build(&config.services, |_| String::new(), |_| Some(0), &switches, &threads, &secrets, &metrics)
    })
}

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (steps, raw) = text.split_at(text.find('/').unwrap_or(text.len()));
    let Ok(path) = CanonicalPath::of(raw) else { return };
    hold_canonical(raw, &path);
    hold_routes(steps, raw, &path);
}

/// Each escape decoded, once; `None` for what is none, and for a NUL.
fn decode(raw: &str) -> Option<Vec<u8>> {
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
    (!bytes.contains(&0)).then_some(bytes)
}

/// The same by servers that leave alone what is no escape.
fn decode_what_can_be(text: &[u8], keep: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let digits =
            text.get(at + 1..at + 3).filter(|digits| text[at] == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        let octet = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        let octet = octet.filter(|octet| !keep.contains(octet));
        bytes.push(octet.unwrap_or(text[at]));
        at += if octet.is_some() { 3 } else { 1 };
    }
    bytes
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
    let twice = decode(decoded).and_then(|twice| String::from_utf8(twice).ok()).unwrap_or_else(|| decoded.to_owned());
    let all = cut(&twice.replace('\\', "/"));
    vec![decoded.replace('\\', "/"), cut(decoded), twice, all]
}

fn cut(path: &str) -> String {
    path.split('/').map(|segment| segment.split(';').next().unwrap_or("")).collect::<Vec<_>>().join("/")
}

/// Full width, which Unicode takes for the letters and signs of ASCII.
fn narrow(path: &str) -> String {
    let narrow = |c: char| match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
        '\u{2024}' => '.',
        '\u{a0}' | '\u{3000}' => ' ',
        '\u{212a}' => 'K',
        c => c,
    };
    path.chars().map(narrow).collect()
}

/// What a server may do to a path.
fn step(letter: char, text: &str) -> String {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match letter {
        'b' => text.replace('\\', "/"),
        'c' => cut(text),
        'd' => lossy(&decode_what_can_be(text.as_bytes(), b"")),
        // As who divides a path at its slashes first.
        'e' => lossy(&decode_what_can_be(text.as_bytes(), b"/\\")),
        'l' => text.to_lowercase(),
        'm' => segments(text).filter(|segment| !segment.is_empty()).fold(String::new(), |path, next| path + "/" + next),
        'n' => narrow(text),
        'q' => text.split(['?', '#', '\0']).next().unwrap_or_default().to_owned(),
        't' => segments(text).fold(String::new(), |path, next| path + "/" + next.trim_end_matches(['.', ' '])),
        'v' => visible(text).replace(['\u{fffd}', '\u{ad}', '\u{200b}', '\u{feff}'], ""),
        _ => text.to_owned(),
    }
}

fn segments(text: &str) -> impl Iterator<Item = &str> {
    text.split('/').skip(1)
}

/// All that comes of taking some of these steps in this order, each of them or none: most change nothing.
fn readings(raw: &str) -> BTreeSet<String> {
    const ORDERS: [&str; 2] = ["cdddnbcqvtlm", "ceeenbcqvtlm"];
    let mut all = BTreeSet::new();
    for order in ORDERS {
        let mut found = BTreeSet::from([raw.to_owned()]);
        for letter in order.chars() {
            found.extend(found.iter().map(|text| step(letter, text)).collect::<Vec<_>>());
        }
        all.extend(found);
    }
    all
}

/// Nobody finds another route than ours.
fn hold_routes(steps: &str, raw: &str, path: &CanonicalPath) {
    let own = steps.chars().take(8).fold(raw.to_owned(), |text, letter| step(letter, &text));
    let mut texts = readings(raw);
    texts.insert(own);
    for (host, rules) in SERVICES {
        let service = routes().find(&Host::parse(host).expect("a name")).expect("it is there");
        let Some(route) = service.route(path) else { continue };
        let ours = matches!(service.at(route).config.access, Access::Roles(_));
        for text in &texts {
            assert!(!segments(text).any(|segment| [".", ".."].contains(&segment)), "{raw:?} has dots in {text:?}");
            // To a parser of URLs, two slashes begin a host.
            let behind = text.starts_with("//").then(|| segments(text).skip_while(|name| name.is_empty()).skip(1));
            for found in [Some(segments(text).collect()), behind.map(Iterator::collect::<Vec<_>>)].into_iter().flatten()
            {
                let is_under = |rule: &str| {
                    let mut found = found.iter();
                    segments(rule).filter(|name| !name.is_empty()).all(|name| found.next() == Some(&name))
                };
                let rule = rules.iter().rev().find(|(rule, _)| is_under(rule)).expect("the root is one");
                assert_eq!(rule.1, ours, "{raw:?} on {host} is {found:?}, by {text:?}");
            }
        }
    }
}

fn hold_canonical(raw: &str, path: &CanonicalPath) {
    let text = path.as_str();
    let decoded = decode(raw).expect("what cannot be decoded is refused");
    assert!(raw.starts_with('/') && text.starts_with('/'));
    // A rule is matched by whole segments, and none of them is left to be read again.
    let segments: Vec<&str> = text.split('/').filter(|segment| !segment.is_empty()).collect();
    assert_eq!(flatten(text).as_ref(), Some(&segments), "{raw:?} is {text:?}");
    let again = CanonicalPath::of(&encode(text)).expect("the canonical form can be read");
    assert_eq!(again.as_str(), text, "of {raw:?}");

    let Ok(decoded) = String::from_utf8(decoded) else {
        assert!(!path.is_canonical(), "{raw:?} is no text");
        return;
    };
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
    }
    assert!(!path.is_under(&format!("{}x", text.trim_end_matches('/'))));
}
