//! The house rules that a compiler does not know: floors, lengths, and documents that say what the code says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use sentry_edge::auth::keys;
use sentry_edge::clock::Clock;
use sentry_edge::config::{self, Algorithm};

use crate::harness::certificates::ca;

/// Lines of a file, its tests apart.
const LONGEST_FILE: usize = 400;
const LONGEST_FUNCTION: usize = 70;

/// Rooms of one floor may not use one another, but for these.
const SIBLINGS: &[(&str, &str)] = &[
    ("main", "cli"),
    ("sentry", "auth"),
    ("config", "host"),
    ("config", "path"),
    ("request", "clock"),
    ("request", "host"),
];

/// A file of src/.
pub struct Source {
    /// As in `auth/keys.rs`.
    pub name: String,
    text: String,
}

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub fn read(path: &str) -> String {
    std::fs::read_to_string(at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub fn sources() -> Vec<Source> {
    fn gather(folder: &Path, sources: &mut Vec<Source>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                gather(&path, sources);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(at("src")).unwrap().to_str().unwrap().to_owned();
                sources.push(Source { name, text: std::fs::read_to_string(&path).unwrap() });
            }
        }
    }
    let mut sources = Vec::new();
    gather(&at("src"), &mut sources);
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(sources.len() > 50, "the sources were found");
    sources
}

impl Source {
    /// The top-level module that it belongs to.
    fn room(&self) -> &str {
        self.name.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// Whether it holds tests and nothing else.
    fn is_test(&self) -> bool {
        self.name.split('/').any(|part| part == "tests" || part == "tests.rs")
    }

    /// Its lines up to the module of its tests.
    fn lines(&self) -> Vec<&str> {
        let lines: Vec<&str> = self.text.lines().collect();
        let tests = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests {"));
        lines[..tests.unwrap_or(lines.len())].to_vec()
    }

    /// The same, without comments.
    pub fn code(&self) -> String {
        self.lines().into_iter().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    }

    /// The rooms that it names.
    fn uses(&self) -> BTreeSet<String> {
        let code = self.code();
        let mut rooms = BTreeSet::new();
        for from in ["crate::", "sentry_edge::"] {
            for (place, _) in code.match_indices(from) {
                let whole = !code[..place].ends_with(|c: char| c.is_alphanumeric() || c == '_');
                if whole {
                    rooms.extend(first_names(&code[place + from.len()..]));
                }
            }
        }
        rooms
    }
}

/// `a::b…` names `a`; `{a, b::{c, d}}` names `a` and `b`.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(list) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut depth, mut names, mut begun) = (1, Vec::new(), 0);
    for (place, byte) in list.bytes().enumerate() {
        depth += i32::from(byte == b'{') - i32::from(byte == b'}');
        if depth == 0 || (depth == 1 && byte == b',') {
            names.push(name(&list[begun..place]));
            begun = place + 1;
        }
        if depth == 0 {
            break;
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn names_are_read_from_use_declarations() {
    assert_eq!(first_names("auth::{self, Guard};"), ["auth"]);
    assert_eq!(first_names("{auth::{self, Guard}, clock, host::Host,};\nuse x;"), ["auth", "clock", "host"]);
    let source = Source {
        name: "a/b.rs".into(),
        text: "//! crate::no\nuse crate::{c, d};\nlet x = pub_crate::e + crate::f::g();\n#[cfg(test)]\nmod tests {\n    use crate::h;".into(),
    };
    assert_eq!(source.room(), "a");
    assert_eq!(source.uses().into_iter().collect::<Vec<_>>(), ["c", "d", "f"]);
}

/// The cells of a document's table rows, between its bars.
pub fn rows(document: &str) -> Vec<Vec<String>> {
    let row = |line: &str| -> Option<Vec<String>> {
        let inside = line.trim().strip_prefix('|')?.strip_suffix('|')?;
        Some(inside.split(" | ").map(|cell| cell.trim().to_owned()).collect())
    };
    document.lines().filter_map(row).collect()
}

/// What stands in backticks.
pub fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The part of a document under a heading.
fn section<'a>(document: &'a str, heading: &str) -> &'a str {
    let (_, rest) = document.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no `{heading}`"));
    rest.split("\n## ").next().unwrap()
}

// The source.

#[test]
fn every_file_says_what_it_is() {
    for source in sources() {
        let first = source.text.lines().next().unwrap_or_default();
        let says = first.strip_prefix("//! ").is_some_and(|text| text.len() > 10);
        assert!(says, "{} begins with {first:?} and not with what it is", source.name);
        assert!(!source.name.ends_with("mod.rs"), "{}: a module is a file of its name", source.name);
    }
}

#[test]
fn files_and_functions_are_of_a_length_that_is_read() {
    let mut long = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let lines = source.lines();
        if lines.len() > LONGEST_FILE {
            long.push(format!("{}: {} lines", source.name, lines.len()));
        }
        for (number, length) in functions(&lines) {
            if length > LONGEST_FUNCTION {
                long.push(format!("{}:{number}: a function of {length} lines", source.name));
            }
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// Where each function begins and how many lines it has. The formatter sees to it that it ends at its indentation.
fn functions(lines: &[&str]) -> Vec<(usize, usize)> {
    let mut functions = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let text = line.trim_start();
        let before = text.split("fn ").next().unwrap();
        let modifier = |word: &str| word.starts_with("pub") || ["const", "async", "unsafe"].contains(&word);
        if !text.contains("fn ") || !before.split_whitespace().all(modifier) {
            continue;
        }
        let indent = &line[..line.len() - text.len()];
        let end = format!("{indent}}}");
        // A declaration of a trait's, over several lines, has no body.
        let parameters = lines[at + 1..].iter().find(|line| line.starts_with(&format!("{indent})")));
        let is_declaration = text.ends_with('(') && parameters.is_some_and(|line| line.ends_with(';'));
        if !is_declaration
            && !text.ends_with(['}', ';'])
            && let Some(length) = lines[at..].iter().position(|line| *line == end)
        {
            functions.push((at + 1, length + 1));
        }
    }
    functions
}

#[test]
fn the_length_of_a_function_is_counted() {
    let text = "impl A {\n    pub async fn b(\n        c: D,\n    ) -> E {\n        if x {\n        }\n    }\n    fn f() {}\n}\ntrait T {\n    fn h(\n        c: D,\n    ) -> E;\n    fn i() {\n    }\n}\n/// not a fn here\nfn g() {\n}";
    assert_eq!(functions(&text.lines().collect::<Vec<_>>()), [(2, 6), (14, 2), (18, 2)]);
}

/// Each room's floor, as ARCHITECTURE.md has it.
fn floors() -> BTreeMap<String, f32> {
    let document = read("ARCHITECTURE.md");
    let mut floors = BTreeMap::new();
    for row in rows(section(&document, "Rooms and floors")) {
        let Ok(floor) = row[0].parse::<f32>() else { continue };
        for room in quoted(&row[1]) {
            assert!(floors.insert(room.clone(), floor).is_none(), "{room} is on two floors");
        }
    }
    floors
}

#[test]
fn imports_run_downward() {
    let floors = floors();
    let mut upward = Vec::new();
    let mut siblings = BTreeSet::new();
    for source in sources().iter().filter(|source| !source.is_test() && source.name != "lib.rs") {
        let room = source.room();
        let floor = floors.get(room).unwrap_or_else(|| panic!("{room} is on no floor of ARCHITECTURE.md"));
        for used in source.uses() {
            let lower = floors.get(&used).unwrap_or_else(|| panic!("{}: {used} is on no floor", source.name));
            if used == room || lower < floor {
                continue;
            }
            let sibling = SIBLINGS.iter().find(|(from, to)| *from == room && *to == used);
            match sibling {
                Some(arrow) => drop(siblings.insert(*arrow)),
                None => upward.push(format!("{} (floor {floor}) uses {used} (floor {lower})", source.name)),
            }
        }
    }
    assert!(upward.is_empty(), "{}", upward.join("\n"));
    assert_eq!(
        siblings,
        SIBLINGS.iter().copied().collect(),
        "an arrow between siblings that is used no more is taken out"
    );
    for (from, to) in SIBLINGS {
        assert!(!SIBLINGS.contains(&(*to, *from)), "{from} and {to} would be a ring");
    }
    let rooms: BTreeSet<String> =
        sources().iter().map(|source| source.room().to_owned()).filter(|room| room != "lib").collect();
    assert_eq!(rooms, floors.into_keys().collect(), "ARCHITECTURE.md has the rooms that there are");
}

#[test]
fn what_belongs_to_one_room_is_named_nowhere_else() {
    for (word, rooms) in [
        ("pingora_proxy::", &["listener", "proxy", "reply", "server"][..]),
        ("rusqlite", &["users"]),
        ("jsonwebtoken", &["auth"]),
        ("serde_yaml", &["config"]),
        ("async_memcached", &["sessions"]),
        ("clap::", &["cli"]),
        ("askama", &["pages"]),
    ] {
        let mut found = BTreeSet::new();
        for source in sources().iter().filter(|source| source.code().contains(word)) {
            assert!(rooms.contains(&source.room()), "{} names {word}", source.name);
            found.insert(source.room().to_owned());
        }
        assert_eq!(found.len(), rooms.len(), "{word} is named in {rooms:?}, and is in {found:?}");
    }
    for source in sources() {
        let code = source.code();
        assert!(source.room() != "auth" || !code.contains("StatusCode"), "{}: auth knows no HTTP status", source.name);
        assert!(!code.contains("static mut"), "{}: nothing global changes", source.name);
        // The second makes certificates, which want the system's time.
        let may_ask = ["clock.rs", "cli/demo/folder.rs"].contains(&source.name.as_str());
        assert!(may_ask || !code.contains("SystemTime::now"), "{}: ask a Clock", source.name);
    }
}

// Documents.

/// Every key that the document's shapes have, as README.md writes it: `server.listeners[].address`.
fn configuration_keys() -> BTreeSet<String> {
    let shapes: String = sources()
        .iter()
        .filter(|source| source.name.starts_with("config/file"))
        .map(|source| source.code() + "\n")
        .collect();
    let mut structs: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let mut current = None;
    for line in shapes.lines() {
        if let Some(name) = line.strip_prefix("pub struct ").and_then(|rest| rest.strip_suffix(" {")) {
            structs.insert(name.to_owned(), Vec::new());
            current = Some(name);
        } else if line == "}" {
            current = None;
        } else if let (Some(name), Some((key, kind))) =
            (current, line.strip_prefix("    pub ").and_then(|field| field.trim_end_matches(',').split_once(": ")))
        {
            structs.get_mut(name).unwrap().push((key.to_owned(), kind.to_owned()));
        }
    }
    let mut keys = BTreeSet::new();
    gather_keys(&structs, "File", "", &mut keys);
    keys
}

/// A shape with a secret among its keys stands sealed wherever it stands, so that nothing of what was written there is
/// quoted: see `config/reading.rs`.
#[test]
fn every_shape_with_a_secret_in_it_is_sealed() {
    let mut shapes: BTreeMap<String, String> = BTreeMap::new();
    for source in sources().iter().filter(|source| source.name.starts_with("config/file")) {
        for shape in source.code().split("\npub struct ").skip(1) {
            let (name, fields) = shape.split_once(" {\n").unwrap();
            shapes.insert(name.to_owned(), fields.split("\n}").next().unwrap().to_owned());
        }
    }
    let of_type = |fields: &str, shape: &str| -> Vec<String> {
        let is_it = |line: &&str| {
            line.split(": ").nth(1).is_some_and(|kind| kind.split(['<', '>', ',']).any(|part| part == shape))
        };
        fields.lines().filter(is_it).map(str::to_owned).collect()
    };
    let mut holders = BTreeSet::new();
    for (name, fields) in &shapes {
        if !of_type(fields, "Secret").is_empty() {
            holders.insert(name.clone());
        }
    }
    assert_eq!(
        holders.iter().map(String::as_str).collect::<Vec<_>>(),
        ["Admin", "Key", "Tickets"],
        "those that were known when this was written"
    );
    for holder in &holders {
        let places: Vec<String> = shapes.values().flat_map(|fields| of_type(fields, holder)).collect();
        assert!(!places.is_empty(), "{holder} stands somewhere");
        for place in places {
            assert!(
                place.contains(&format!("Sealed<{holder}>")),
                "{holder} holds a secret and is not sealed: {}",
                place.trim()
            );
        }
    }
}

fn gather_keys(
    structs: &BTreeMap<String, Vec<(String, String)>>,
    shape: &str,
    place: &str,
    keys: &mut BTreeSet<String>,
) {
    for (key, kind) in &structs[shape] {
        let (mut kind, mut full) = (kind.as_str(), format!("{place}{key}"));
        for (wrapper, added) in [("Option<", ""), ("Vec<", "[]"), ("BTreeMap<String, ", ".NAME"), ("Sealed<", "")] {
            if let Some(inner) = kind.strip_prefix(wrapper) {
                kind = inner.trim_end_matches('>');
                full.push_str(added);
            }
        }
        // A secret is one value to an operator, however it is written.
        if structs.contains_key(kind) && kind != "Secret" {
            gather_keys(structs, kind, &format!("{full}."), keys);
        } else {
            keys.insert(full.trim_end_matches("[]").to_owned());
        }
    }
}

#[test]
fn the_readme_has_every_configuration_key_and_no_other() {
    let keys = configuration_keys();
    assert!(keys.contains("server.listeners[].address") && keys.contains("services.NAME.routes[].pool"), "{keys:#?}");
    let mut documented = BTreeSet::new();
    for row in rows(&read("README.md")) {
        let names = quoted(&row[0]);
        let Some((parent, _)) = names.first().and_then(|first| first.rsplit_once('.')) else { continue };
        if !["server", "log", "tls", "sentry", "sessions", "users", "services", "pools"]
            .contains(&parent.split('.').next().unwrap())
        {
            continue;
        }
        for name in &names {
            let full = if name.contains('.') { name.clone() } else { format!("{parent}.{name}") };
            documented.insert(full.trim_end_matches("[]").to_owned());
        }
    }
    assert_eq!(documented.difference(&keys).collect::<Vec<_>>(), [""; 0], "documented, and not there");
    assert_eq!(keys.difference(&documented).collect::<Vec<_>>(), [""; 0], "there, and not documented");
}

#[test]
fn the_sample_has_every_configuration_key() {
    let sample = read("config/edge.yaml");
    let mut written = BTreeSet::new();
    gather_written(&serde_yaml::from_str(&sample).unwrap(), "", &mut written);
    // What cannot stand beside something else is told in a comment.
    let comments: String =
        sample.lines().filter_map(|line| line.split_once('#')).map(|(_, text)| format!("{text}\n")).collect();
    let missing: Vec<String> = configuration_keys()
        .into_iter()
        .filter(|key| !written.contains(key) && !comments.contains(&format!("{}:", key.rsplit('.').next().unwrap())))
        .collect();
    assert_eq!(missing, [""; 0], "keys that config/edge.yaml does not show");
}

fn gather_written(value: &serde_yaml::Value, place: &str, keys: &mut BTreeSet<String>) {
    keys.insert(place.trim_end_matches("[]").to_owned());
    match value {
        serde_yaml::Value::Mapping(mapping) => {
            for (key, value) in mapping {
                let key = if ["services", "pools"].contains(&place) { "NAME" } else { key.as_str().unwrap() };
                gather_written(value, &format!("{place}{}{key}", if place.is_empty() { "" } else { "." }), keys);
            }
        }
        serde_yaml::Value::Sequence(list) => {
            for value in list {
                gather_written(value, &format!("{place}[]"), keys);
            }
        }
        _ => {}
    }
}

#[test]
fn the_readme_has_every_metric_and_no_other() {
    let mut made = BTreeSet::new();
    for source in sources().iter().filter(|source| source.room() == "metrics") {
        let code = source.code();
        for method in [".counters(", ".gauges(", ".gauge(", ".int_gauges(", ".histogram(", ".histograms("] {
            for (place, _) in code.match_indices(method) {
                let argument = code[place + method.len()..].trim_start();
                made.extend(argument.strip_prefix('"').map(|text| text.split('"').next().unwrap().to_owned()));
            }
        }
    }
    assert!(made.len() > 20 && made.contains("requests_total"), "{made:?}");
    let readme = read("README.md");
    let rows = rows(section(&readme, "Metrics"));
    let documented: BTreeSet<String> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
    assert_eq!(documented.difference(&made).collect::<Vec<_>>(), [""; 0], "documented, and not there");
    assert_eq!(made.difference(&documented).collect::<Vec<_>>(), [""; 0], "there, and not documented");
}

/// The sample in a folder where every file that it names is there.
fn sample() -> (tempfile::TempDir, PathBuf, String) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    let text = ["/etc/sentry-edge", "/var/lib/sentry-edge", "/var/log/sentry-edge"]
        .iter()
        .fold(read("config/edge.yaml"), |text, place| text.replace(place, root));
    let file = folder.path().join("edge.yaml");
    std::fs::write(&file, &text).unwrap();
    let (config, faults) = config::read(&file).unwrap();
    assert!(faults.is_empty(), "{faults}");
    let write = |path: &Path, text: &str| {
        assert!(path.starts_with(folder.path()), "{} is none of the sample's folders", path.display());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let hosts = config.services.iter().flat_map(|service| service.hosts.iter().map(ToString::to_string));
    let hosts: Vec<String> = hosts.chain([config.sentry.host.to_string()]).collect();
    let certificate = ca().issue(&hosts.iter().map(String::as_str).collect::<Vec<_>>());
    for files in &config.tls.certificates {
        write(&files.certificate, &certificate.pem);
        write(&files.key, &certificate.key);
    }
    for issuer in config.pools.iter().filter_map(|pool| pool.tls.as_ref()?.ca.as_ref()) {
        write(issuer, &ca().pem);
    }
    let Some(config::SecretSource::File(secret)) = &config.tls.tickets.secret else {
        panic!("the sample's secret is a file");
    };
    write(secret, &keys::generate(Algorithm::HS256).unwrap());
    for key in &config.sentry.keys {
        let (config::KeyMaterial::Secret(source) | config::KeyMaterial::Private(source)) = &key.material else {
            panic!("the sample's keys sign");
        };
        let config::SecretSource::File(path) = source else { panic!("the sample's keys are files") };
        write(path, &keys::generate(key.algorithm).unwrap());
    }
    (folder, file, text)
}

#[test]
fn the_sample_is_a_good_configuration() {
    let (_folder, file, _) = sample();
    let checked = sentry_edge::server::check(&file, &Clock::default());
    assert!(checked.is_ok(), "{}", checked.err().unwrap());
    let (config, _) = config::read(&file).unwrap();
    assert!(
        config.sentry.keys.iter().any(|key| key.algorithm == Algorithm::ES256),
        "it shows a key that can be published"
    );
}

#[test]
fn what_the_sample_calls_a_default_is_one() {
    let (_folder, file, text) = sample();
    let read =
        |text: &str| config::parse(&file, text).map(|(config, faults)| (format!("{config:#?}"), faults.to_string()));
    let (whole, _) = read(&text).unwrap();
    let mut marked = 0;
    for (at, line) in text.lines().enumerate().filter(|(_, line)| line.contains("# default")) {
        if line.trim_start().starts_with('#') {
            continue;
        }
        marked += 1;
        let without: Vec<&str> =
            text.lines().enumerate().filter(|(other, _)| *other != at).map(|(_, line)| line).collect();
        let (config, faults) = read(&without.join("\n")).unwrap_or_else(|faults| panic!("without `{line}`: {faults}"));
        assert_eq!(faults, "", "without `{line}`");
        let difference = whole.lines().zip(config.lines()).find(|(before, after)| before != after);
        assert!(config == whole, "`{}` is no default: {difference:?}", line.trim());
    }
    assert!(marked > 40, "the marks were found: {marked}");
}

#[test]
fn documents_lead_only_to_what_is_there() {
    for document in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs/design/pingora-notes.md"] {
        let folder = at(document).parent().unwrap().to_owned();
        for link in read(document).split("](").skip(1) {
            let target = link.split(')').next().unwrap().split('#').next().unwrap();
            if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                assert!(folder.join(target).exists(), "{document} leads to {target}");
            }
        }
    }
}

#[test]
fn sums_that_wrap_end_their_task_in_a_release_too() {
    let manifest = read("Cargo.toml");
    let profile = manifest.split("[profile.release.package.sentry-edge]\n").nth(1).expect("the crate's own profile");
    assert!(profile.starts_with("overflow-checks = true\n"), "{}", &profile[..40]);
}
