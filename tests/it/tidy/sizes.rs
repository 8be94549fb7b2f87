//! Lengths that are read: of files, of functions, and of what belongs to one type.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, sources};

/// Lines of a file, its tests apart.
const LONGEST_FILE: usize = 400;
const LONGEST_FUNCTION: usize = 70;

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

/// Files of fewer lines that are one thing all the same.
const SHORTEST_FILE: usize = 30;
const SMALL: &[&str] = &["main.rs", "proxy/decision.rs", "validate/query.rs"];

#[test]
fn no_file_is_only_a_fragment() {
    let sources = sources();
    let is_small = |source: &&Source| !source.is_test() && source.text.lines().count() < SHORTEST_FILE;
    // A file that declares modules is their face, however short.
    let is_face = |source: &Source| source.code().lines().any(|line| line.contains("mod ") && line.ends_with(';'));
    let small: BTreeSet<&str> =
        sources.iter().filter(is_small).filter(|source| !is_face(source)).map(|source| source.name.as_str()).collect();
    let known: BTreeSet<&str> = SMALL.iter().copied().collect();
    let new: Vec<_> = small.difference(&known).collect();
    assert!(new.is_empty(), "less than {SHORTEST_FILE} lines: belongs to another file, or into the list: {new:?}");
    let gone: Vec<_> = known.difference(&small).collect();
    assert!(gone.is_empty(), "small no more, and to be taken out of the list: {gone:?}");
}

/// Files that one type's `impl` blocks stand in, at most.
const MOST_IMPL_FILES: usize = 3;
/// Types that are spread over more, by their room, and over how many. A number only shrinks. Steps of one process, each a
/// file: the gateway's of a request, the sign-on's routes, the checks of a configuration.
const SPREAD: &[(&str, &str, usize)] = &[
    ("config", "Check", 11),
    ("listener", "ListenerContext", 5),
    ("proxy", "Gateway", 13),
    ("sentry", "Sentry", 12),
    ("sessions", "Cluster", 4),
];

/// `impl<T> Name<T> where …` has the name `Name`; an implementation of a trait has none.
fn implemented(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("impl")?;
    let rest = match rest.strip_prefix('<') {
        Some(parameters) => {
            let mut depth = 1;
            let end = parameters.find(|c| {
                depth += i32::from(c == '<') - i32::from(c == '>');
                depth == 0
            })?;
            &parameters[end + 1..]
        }
        None => rest,
    };
    let rest = rest.strip_prefix(' ')?;
    if rest.contains(" for ") {
        return None;
    }
    let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').next()?;
    name.rsplit("::").next().filter(|name| !name.is_empty())
}

#[test]
fn one_type_is_implemented_in_few_files() {
    let mut files: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for name in source.lines().into_iter().filter_map(implemented) {
            files.entry((source.room().to_owned(), name.to_owned())).or_default().insert(source.name.clone());
        }
    }
    files.retain(|_, files| files.len() > MOST_IMPL_FILES);
    let most = |room: &str, name: &str| {
        let listed = SPREAD.iter().find(|(of, listed, _)| *of == room && *listed == name);
        listed.map_or(MOST_IMPL_FILES, |(.., most)| *most)
    };
    let new: Vec<_> = files.iter().filter(|((room, name), files)| files.len() > most(room, name)).collect();
    assert!(new.is_empty(), "a type is implemented in {MOST_IMPL_FILES} files at most: {new:#?}");
    let is_spread = |room: &str, name: &str| files.contains_key(&(room.to_owned(), name.to_owned()));
    let gone: Vec<_> = SPREAD.iter().filter(|(room, name, _)| !is_spread(room, name)).collect();
    assert!(gone.is_empty(), "spread no more, and to be taken out of the list: {gone:?}");
}

#[test]
fn the_type_of_an_implementation_is_read() {
    assert_eq!(implemented("impl Gateway {"), Some("Gateway"));
    assert_eq!(implemented("impl<A: B<C>> Cancellable<A> where A: D {"), Some("Cancellable"));
    assert_eq!(implemented("impl super::context::Thing<'_> {"), Some("Thing"));
    assert_eq!(implemented("impl Trait for Gateway {"), None);
    assert_eq!(implemented("implementing"), None);
}
