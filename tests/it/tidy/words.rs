//! Words: nothing is defined under a name that the glossary of CONTRIBUTING.md has in its column "not", and no text has
//! a phrase of that column.

use std::collections::{BTreeMap, BTreeSet};

use super::book::documents;
use super::source::{Source, sources};
use super::tables::{quoted, rows, section};
use super::{at, read};

/// Files that still have such names or phrases, one a line. One that has none any more is taken out, and none is added.
const NOT_DONE: &str = include_str!("not_done.txt");

/// The column "not": identifiers in backticks, phrases in quotation marks.
struct Unwanted {
    identifiers: BTreeSet<String>,
    phrases: BTreeSet<String>,
}

fn unwanted() -> Unwanted {
    let document = read("CONTRIBUTING.md");
    let cells: Vec<String> =
        rows(section(&document, "Glossary")).into_iter().filter_map(|row| row.get(2).cloned()).collect();
    let phrases = |cell: &String| cell.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let unwanted = Unwanted {
        identifiers: cells.iter().flat_map(|cell| quoted(cell)).collect(),
        phrases: cells.iter().flat_map(phrases).collect(),
    };
    assert!(unwanted.identifiers.len() > 40 && unwanted.phrases.len() > 10, "the glossary was found");
    unwanted
}

/// The names that code defines: functions, types, their fields and variants, modules, constants.
fn defined(code: &str) -> BTreeSet<&str> {
    let name = |text| -> Option<&str> {
        let text: &str = text;
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
        Some(&text[..end]).filter(|name| !name.is_empty())
    };
    let mut names = BTreeSet::new();
    // The indentation at which the present type's fields or variants stand.
    let mut members = None;
    for line in code.lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        let mut rest = text;
        while let Some((modifier, further)) = rest.split_once(' ') {
            if !modifier.starts_with("pub") && !["async", "const", "unsafe", "static"].contains(&modifier) {
                break;
            }
            rest = further;
        }
        let is_constant = rest.len() < text.len() && (text.contains("const ") || text.contains("static "));
        match rest.split_once(' ') {
            Some(("fn" | "mod" | "type", named)) => names.extend(name(named)),
            Some((kind @ ("struct" | "enum" | "trait" | "union"), named)) => {
                names.extend(name(named));
                members = (kind != "trait" && text.ends_with('{')).then_some(indent + 4);
            }
            _ if members.is_some_and(|at| indent + 4 == at && text.starts_with('}')) => members = None,
            _ if members == Some(indent) || is_constant => names.extend(name(rest)),
            _ => {}
        }
    }
    names
}

/// Text on one line, without the marks of comments, so that a phrase may stand on two lines.
fn flowing(text: &str) -> String {
    let bare = |line: &str| -> String {
        let line = line.trim();
        let line = ["//!", "///", "//"].iter().find_map(|mark| line.strip_prefix(mark)).unwrap_or(line);
        format!("{} ", line.trim())
    };
    text.lines().map(bare).collect::<String>().to_lowercase()
}

/// What stands around a phrase in a text, whole words, the first time.
fn stands<'a>(flowing: &'a str, phrase: &str) -> Option<&'a str> {
    let is_word = |c: Option<char>| c.is_some_and(char::is_alphabetic);
    let found = flowing.match_indices(phrase).find(|(place, found)| {
        let (before, after) = (&flowing[..*place], &flowing[place + found.len()..]);
        let joins_before = is_word(phrase.chars().next()) && is_word(before.chars().next_back());
        let joins_after = is_word(phrase.chars().next_back()) && is_word(after.chars().next());
        !joins_before && !joins_after
    });
    let (place, _) = found?;
    let begin = flowing[..place].char_indices().rev().nth(30).map_or(0, |(at, _)| at);
    let end = flowing[place..].char_indices().nth(50).map_or(flowing.len(), |(at, _)| place + at);
    Some(&flowing[begin..end])
}

/// Documents and the edge's own pages, and what of them is looked at.
fn texts() -> BTreeMap<String, String> {
    let mut texts = documents();
    for entry in std::fs::read_dir(at("src/pages")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "html") {
            let name = path.strip_prefix(at("")).unwrap().to_str().unwrap().to_owned();
            texts.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
    // The words of its older sections are history.
    let changes = texts.get_mut("CHANGELOG.md").unwrap();
    *changes = changes.split("\n## ").take(2).collect();
    let contributing = texts.get_mut("CONTRIBUTING.md").unwrap();
    let glossary = section(contributing, "Glossary").to_owned();
    *contributing = contributing.replace(&glossary, "");
    texts
}

/// By file: what it has that it may not have.
fn faults() -> BTreeMap<String, Vec<String>> {
    let unwanted = unwanted();
    let mut faults: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut phrases = |name: String, text: &str| {
        let flowing = flowing(text);
        for phrase in &unwanted.phrases {
            if let Some(around) = stands(&flowing, phrase) {
                faults.entry(name.clone()).or_default().push(format!("\"{phrase}\" in “{around}”"));
            }
        }
    };
    for (name, text) in texts() {
        phrases(name, &text);
    }
    let sources = sources();
    for source in &sources {
        phrases(format!("src/{}", source.name), &source.text);
    }
    for source in &sources {
        for name in names(source).intersection(&unwanted.identifiers) {
            faults.entry(format!("src/{}", source.name)).or_default().push(format!("defines `{name}`"));
        }
    }
    faults
}

/// What a file defines, and the name of the file itself.
fn names(source: &Source) -> BTreeSet<String> {
    let code = source.code();
    let module = source.module();
    let own = module.rsplit("::").next().unwrap_or_default().to_owned();
    defined(&code).into_iter().map(str::to_owned).chain([own]).collect()
}

#[test]
fn names_and_texts_use_the_terms_of_the_glossary() {
    let faults = faults();
    let not_done: BTreeSet<&str> = NOT_DONE.lines().filter(|line| !line.is_empty()).collect();
    let shown = |(name, faults): (&String, &Vec<String>)| format!("{name}: {}\n", faults.join("; "));
    let new: String = faults.iter().filter(|(name, _)| !not_done.contains(name.as_str())).map(shown).collect();
    assert!(new.is_empty(), "words that CONTRIBUTING.md replaces:\n{new}");
    let gone: Vec<_> = not_done.iter().filter(|name| !faults.contains_key(**name)).collect();
    assert!(gone.is_empty(), "without such words now, and to be taken out of the list: {gone:?}");
}

#[test]
fn definitions_are_found_and_uses_are_not() {
    let code = "pub(crate) async fn one(two: A) {\n    let three = 4;\n    five();\n}\nmod six;\npub struct Seven<'a> {\n    \
                pub eight: B,\n    nine: C,\n}\nenum Ten {\n    Eleven,\n    Twelve {\n        thirteen: D,\n    },\n    \
                Fourteen(E),\n}\nimpl F {\n    const FIFTEEN: u8 = 1;\n    pub const fn sixteen() {}\n}\ntrait Seventeen {\n    \
                fn eighteen();\n}\ntype Nineteen = G;\nstruct Twenty;";
    let expected = [
        "Eleven",
        "FIFTEEN",
        "Fourteen",
        "Nineteen",
        "Seven",
        "Seventeen",
        "Ten",
        "Twelve",
        "Twenty",
        "eight",
        "eighteen",
        "nine",
        "one",
        "six",
        "sixteen",
    ];
    assert_eq!(defined(code).into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn phrases_are_whole_words_over_line_ends() {
    for (text, phrase, expected) in [
        ("/// It goes the short\n/// way round.", "the short way", true),
        ("the shortest way", "the short way", false),
        ("Nobody!", "nobody", true),
        ("let told_peer = 1;", "told", true),
        ("stolder", "told", false),
        ("the directory's word comes first", "'s word", true),
        ("the directory's words", "'s word", false),
    ] {
        assert_eq!(stands(&flowing(text), phrase).is_some(), expected, "{text}");
    }
}
