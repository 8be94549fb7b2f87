//! Ways to write the path of a rule, and paths below it, that one server or another takes for it; and ways to write what
//! looks like it and is something else to some.

/// What stands for the rule's last segment, to one server or another.
const NAMES: &[&str] = &[
    "NAME",
    "UPPER",
    "Title",
    "%FIRST",
    "%25FIRST",
    "NAME%20",
    "NAME.",
    "NAME%2e",
    "NAME::$DATA",
    "NAME:$I30:$INDEX_ALLOCATION",
    "NAME%09",
    "NAME%0A",
    "%00NAME",
    "NAME%2500",
    "NAME;",
    "NAME;x=y",
    "NAME%3B",
    "NAME%E2%80%8B",
    "%EF%BB%BFNAME",
    "NAME%C2%AD",
    "%WIDE",
    "NAME%FF",
    "NAME%3F",
    "NAME%23",
    "NAME%253Fx",
    "%C3%28NAME",
    "+NAME",
    "NAME%C2%A0",
    "NAME%E3%80%80",
];

/// Where it stands: `P` is what comes before it in the rule.
const PLACES: &[&str] = &[
    "P/S",
    "P/S/users",
    "P/S//users",
    "P//S/users",
    "/P//S/users",
    "P/S//../users",
    "P/S/x/../users",
    "P/S/./users",
    "P/x/../S/users",
    "P/x/..%2fS/users",
    "P/x%2f../S/users",
    "P/S/x%2f../../users",
    "P/S%2fusers",
    "P/S%5Cusers",
    "P%2fS/users",
    "P%5cS/users",
    "P/S%252fusers",
    "P/%2e/S/users",
    "P/x/%2e%2e/S/users",
    "P/x/..;/S/users",
    "P/;/S/users",
    "P/x;/../S/users",
    "P/S;x%2fy/users",
    "P/S;x%2f../users",
    "P/S/..",
    "P/S/.",
    "P/S/...",
    "P/x/%252e%252e/S/users",
    "P/x/.%0A./S/users",
    "P/x/%EF%BC%8E%EF%BC%8E/S/users",
    "P%EF%BC%8FS/users",
    "P/S%E2%88%95users",
    "//host/PS/users",
    "///PS/users",
    "/%5chostPS/users",
    "P/S/users/..",
    "P/%20/S/users",
    "P/%0D/S/users",
    "/.PS/users",
    "/x/..PS/users",
];

/// Full width: `ａ` for `a`.
fn wide(name: &str) -> String {
    name.bytes().map(|byte| format!("%EF%BD%{:02X}", byte - b'a' + 0x81)).collect()
}

/// Spellings of a rule's path and of what is below it.
pub fn spellings(rule: &str) -> Vec<String> {
    let (parent, name) = rule.rsplit_once('/').unwrap();
    let first = format!("{:02x}{}", name.as_bytes()[0], &name[1..]);
    let title = name[..1].to_uppercase() + &name[1..];
    let mut spellings = Vec::new();
    for place in PLACES {
        // Every name in a plain place, and some in every other.
        let names = if place.starts_with("P/S") && !place.contains("..") { NAMES } else { &NAMES[..5] };
        for spelt in names {
            let spelt = spelt.replace("%25FIRST", &format!("%25{first}")).replace("%FIRST", &format!("%{first}"));
            let spelt = spelt.replace("%WIDE", &wide(name)).replace("NAME", name);
            let spelt = spelt.replace("UPPER", &name.to_uppercase()).replace("Title", &title);
            spellings.push(place.replace('S', &spelt).replace('P', parent));
        }
    }
    spellings.sort();
    spellings.dedup();
    spellings
}
