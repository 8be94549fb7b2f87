//! What may import what: top-level modules by their layers, files without a circle, and the ladders inside `proxy` and `listener`.

use std::collections::{BTreeMap, BTreeSet};

use super::read;
use super::source::{Graph, Source, sources};
use super::tables::{quoted, rows, section};

/// Top-level modules of one layer may not use one another, but for these.
const SIBLINGS: &[(&str, &str)] = &[
    ("main", "cli"),
    ("sentry", "auth"),
    ("config", "host"),
    ("config", "path"),
    ("request", "clock"),
    ("request", "host"),
];

/// Circles that are still there, by their files. One that has gone is taken out, and none is added.
const CIRCLES: &[&[&str]] = &[];

/// Top-level modules whose files are a ladder, which their `//!` shows.
const LADDERS: [&str; 2] = ["proxy", "listener"];

/// The top-level modules that a file names.
fn uses(source: &Source) -> BTreeSet<String> {
    let code = source.code();
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
    assert_eq!(uses(&source).into_iter().collect::<Vec<_>>(), ["c", "d", "f"]);
}

/// The layer of each top-level module, as ARCHITECTURE.md has it.
fn layers() -> BTreeMap<String, f32> {
    let document = read("ARCHITECTURE.md");
    let mut layers = BTreeMap::new();
    for row in rows(section(&document, "Layers")) {
        let Ok(layer) = row[0].parse::<f32>() else { continue };
        for room in quoted(&row[1]) {
            assert!(layers.insert(room.clone(), layer).is_none(), "{room} is in two layers");
        }
    }
    layers
}

#[test]
fn imports_run_downward() {
    let layers = layers();
    let mut upward = Vec::new();
    let mut siblings = BTreeSet::new();
    for source in sources().iter().filter(|source| !source.is_test() && source.name != "lib.rs") {
        let room = source.room();
        let layer = layers.get(room).unwrap_or_else(|| panic!("{room} is in no layer of ARCHITECTURE.md"));
        for used in uses(source) {
            let lower = layers.get(&used).unwrap_or_else(|| panic!("{}: {used} is in no layer", source.name));
            if used == room || lower < layer {
                continue;
            }
            let sibling = SIBLINGS.iter().find(|(from, to)| *from == room && *to == used);
            match sibling {
                Some(arrow) => drop(siblings.insert(*arrow)),
                None => upward.push(format!("{} (layer {layer}) uses {used} (layer {lower})", source.name)),
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
    assert_eq!(rooms, layers.into_keys().collect(), "ARCHITECTURE.md has the modules that there are");
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

#[test]
fn no_files_import_each_other_in_a_circle() {
    let found = Graph::of(&sources()).circles();
    let known: BTreeSet<Vec<String>> =
        CIRCLES.iter().map(|circle| circle.iter().map(|module| (*module).to_owned()).collect()).collect();
    let shown = |circles: Vec<&Vec<String>>| {
        circles.into_iter().map(|files| format!("{files:?}")).collect::<Vec<_>>().join("\n")
    };
    let new = shown(found.difference(&known).collect());
    assert!(new.is_empty(), "files import each other in a circle; move what they share to a file below them:\n{new}");
    let gone = shown(known.difference(&found).collect());
    assert!(gone.is_empty(), "no circle any more, and to be taken out of the list:\n{gone}");
}

/// The steps that the `//!` of a room shows: `| 3 | \`a\`, \`b::c\` |`, the highest first.
fn steps(introduction: &str) -> BTreeMap<String, u32> {
    let mut steps = BTreeMap::new();
    for row in rows(introduction) {
        let Ok(step) = row[0].parse() else { continue };
        for file in quoted(&row[1]) {
            assert!(steps.insert(file.clone(), step).is_none(), "`{file}` is on two steps");
        }
    }
    steps
}

/// The lowest step that each file of a room can be on.
fn lowest_steps(graph: &Graph, room: &str) -> BTreeMap<String, u32> {
    fn step<'a>(graph: &'a Graph, room: &'a str, module: &'a str, known: &mut BTreeMap<&'a str, u32>) -> u32 {
        if let Some(step) = known.get(module) {
            return *step;
        }
        // In a circle, which another test reports, there is no lowest step.
        known.insert(module, 0);
        let below = graph.within(room, module).map(|below| step(graph, room, below, known)).max().unwrap_or_default();
        known.insert(module, below + 1);
        below + 1
    }
    let mut known = BTreeMap::new();
    for module in graph.arrows.keys().filter(|module| module.starts_with(&format!("{room}::"))) {
        step(graph, room, module, &mut known);
    }
    known.into_iter().map(|(module, step)| (module[room.len() + 2..].to_owned(), step)).collect()
}

/// What is wrong with a ladder.
fn climbs(graph: &Graph, room: &str, steps: &BTreeMap<String, u32>) -> Vec<String> {
    let lowest = lowest_steps(graph, room);
    let mut faults = Vec::new();
    for file in lowest.keys().filter(|file| !steps.contains_key(*file)) {
        faults.push(format!("`{file}` is on no step"));
    }
    for file in steps.keys().filter(|file| !lowest.contains_key(*file)) {
        faults.push(format!("`{file}` is on a step and is no file"));
    }
    for (file, step) in steps {
        for below in graph.within(room, &format!("{room}::{file}")) {
            let below = &below[room.len() + 2..];
            if steps.get(below).is_some_and(|other| other >= step) {
                faults.push(format!("`{file}` (step {step}) imports `{below}` (step {})", steps[below]));
            }
        }
    }
    faults
}

/// The table as it could be, for the message of the test.
fn table(lowest: &BTreeMap<String, u32>) -> String {
    let mut steps: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for (file, step) in lowest {
        steps.entry(*step).or_default().push(format!("`{file}`"));
    }
    steps.iter().rev().map(|(step, files)| format!("//! | {step} | {} |\n", files.join(", "))).collect()
}

#[test]
fn files_of_a_ladder_import_only_what_is_below_them() {
    let sources = sources();
    let graph = Graph::of(&sources);
    for room in LADDERS {
        let face = sources.iter().find(|source| source.name == format!("{room}.rs")).unwrap();
        let steps = steps(&face.introduction());
        let faults = climbs(&graph, room, &steps);
        let table = table(&lowest_steps(&graph, room));
        assert!(faults.is_empty(), "{}\nsrc/{room}.rs could say:\n{table}", faults.join("\n"));
    }
}

#[test]
fn a_climb_and_a_file_without_a_step_are_found() {
    let source = |name: &str, text: &str| Source { name: name.into(), text: text.into() };
    let sources = [
        source("room.rs", "//! | 2 | `a` |\n//! | 1 | `b`, `gone` |\n//! | 1 | `b::c` |"),
        source("room/a.rs", "use super::b::X;"),
        source("room/b.rs", "use c::Y;"),
        source("room/b/c.rs", ""),
        source("room/d.rs", "use crate::room::a;"),
    ];
    let graph = Graph::of(&sources);
    let faults = climbs(&graph, "room", &steps(&sources[0].introduction()));
    assert_eq!(
        faults,
        ["`d` is on no step", "`gone` is on a step and is no file", "`b` (step 1) imports `b::c` (step 1)"]
    );
    let lowest = lowest_steps(&graph, "room");
    assert_eq!(table(&lowest), "//! | 4 | `d` |\n//! | 3 | `a` |\n//! | 2 | `b` |\n//! | 1 | `b::c` |\n");
}
