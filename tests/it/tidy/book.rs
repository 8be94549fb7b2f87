//! The book in `docs/` and the documents beside it: links and anchors lead somewhere, every page is in the summary, and
//! none is longer than what is read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::tables::{quoted, rows};
use super::{at, read};

/// The documents of the top folder.
const TOP: [&str; 5] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];

/// Lines of a page, of README.md and of ARCHITECTURE.md, at most.
const LONGEST_PAGE: usize = 400;
const LONGEST_README: usize = 100;
const LONGEST_ARCHITECTURE: usize = 150;

/// Every page of the book by its path, such as `docs/guide/users.md`.
pub fn pages() -> BTreeMap<String, String> {
    fn gather(folder: &Path, pages: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                gather(&path, pages);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let name = path.strip_prefix(at("")).unwrap().to_str().unwrap().to_owned();
                pages.insert(name, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut pages = BTreeMap::new();
    gather(&at("docs"), &mut pages);
    pages
}

/// The pages, and the documents of the top folder that are there.
pub fn documents() -> BTreeMap<String, String> {
    let top = TOP.iter().filter(|name| at(name).exists()).map(|name| ((*name).to_owned(), read(name)));
    pages().into_iter().chain(top).collect()
}

/// A document's lines outside of its blocks of code.
fn prose(document: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    document.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

/// The anchor of a heading, as GitHub and mdBook make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// Where a link to a document may lead within it.
fn anchors(document: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in prose(document) {
        let text = line.trim_start_matches('#');
        if text.len() < line.len() && text.starts_with(' ') {
            let anchor = anchor(text);
            let mut numbered = (1..).map(|number| format!("{anchor}-{number}"));
            let free = if anchors.contains(&anchor) { numbered.find(|name| !anchors.contains(name)) } else { None };
            anchors.insert(free.unwrap_or(anchor));
        }
    }
    anchors
}

/// What a document's links lead to, but for addresses elsewhere.
fn links(document: &str) -> Vec<String> {
    let mut links = Vec::new();
    for line in prose(document) {
        let text: String = line.split('`').step_by(2).collect();
        for link in text.split("](").skip(1) {
            let target = link.split(')').next().unwrap();
            if !target.contains("://") && !target.starts_with("mailto:") {
                links.push(target.to_owned());
            }
        }
    }
    links
}

/// A link's document, as the paths of `documents` are written, and the anchor in it.
fn resolved(document: &str, link: &str) -> (String, Option<String>) {
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor.to_owned())));
    if file.is_empty() {
        return (document.to_owned(), anchor);
    }
    let mut path = PathBuf::from(document);
    path.pop();
    for part in Path::new(file).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            part => path.push(part),
        }
    }
    (path.to_str().unwrap().to_owned(), anchor)
}

#[test]
fn links_and_anchors_lead_to_what_is_there() {
    let documents = documents();
    let anchors: BTreeMap<&str, BTreeSet<String>> =
        documents.iter().map(|(name, text)| (name.as_str(), anchors(text))).collect();
    let (mut faults, mut followed) = (Vec::new(), 0);
    for (name, text) in &documents {
        for link in links(text) {
            followed += 1;
            let (target, anchor) = resolved(name, &link);
            if !at(&target).exists() {
                faults.push(format!("{name}: {link} is not there"));
            } else if name.starts_with("docs/") && !target.starts_with("docs/") {
                faults.push(format!("{name}: {link} leaves the book: name the file, without a link"));
            } else if let Some(anchor) = anchor
                && !anchors.get(target.as_str()).is_some_and(|anchors| anchors.contains(&anchor))
            {
                faults.push(format!("{name}: {target} has no heading for #{anchor}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(followed > 100, "the links were found: {followed}");
}

#[test]
fn every_page_is_in_the_summary_once() {
    let summary = "docs/SUMMARY.md";
    let mut listed: Vec<String> = links(&read(summary)).iter().map(|link| resolved(summary, link).0).collect();
    listed.sort();
    let mut pages = pages();
    pages.remove(summary);
    assert_eq!(listed, pages.into_keys().collect::<Vec<_>>());
}

/// `sentry_edge_NAME`, in rules for alerts for example. A histogram has three series.
#[test]
fn every_series_that_a_document_names_is_in_the_table_of_metrics() {
    let known: BTreeSet<String> =
        rows(&read("docs/reference/metrics.md")).iter().flat_map(|row| quoted(&row[0])).collect();
    let mut named = 0;
    for (document, text) in documents() {
        for rest in text.split("sentry_edge_").skip(1) {
            let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_' && !c.is_ascii_digit());
            let name = &rest[..end.unwrap_or(rest.len())];
            let bare = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let is_known = known.contains(name) || bare.is_some_and(|name| known.contains(name));
            // `sentry_edge_` alone is the prefix; one before `/` or `.` is a path of the program or its documentation.
            let is_series = !name.is_empty() && !rest[name.len()..].starts_with(['/', '.']);
            assert!(is_known || !is_series, "{document} names sentry_edge_{name}, which is in no table");
            named += usize::from(is_known);
        }
    }
    assert!(named > 10, "the names were found: {named}");
}

/// The page's is served by a test.
#[test]
fn the_readme_shows_the_configuration_of_the_first_service() {
    let first = |text: &str| text.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap().to_owned();
    assert_eq!(first(&read("README.md")), first(&read("docs/guide/first-service.md")));
}

#[test]
fn documents_are_of_a_length_that_is_read() {
    let documents = documents();
    for (name, text) in &documents {
        let longest = match name.as_str() {
            "README.md" => LONGEST_README,
            "ARCHITECTURE.md" => LONGEST_ARCHITECTURE,
            // Grows with every release.
            "CHANGELOG.md" => usize::MAX,
            _ => LONGEST_PAGE,
        };
        let lines = text.lines().count();
        assert!(lines <= longest, "{name} has {lines} lines, over {longest}");
    }
    assert!(documents.len() > 30, "the book was found: {:?}", documents.keys());
}

#[test]
fn anchors_and_links_are_read_as_mdbook_reads_them() {
    let document = "# One `two`: three, four\n```\n# no\n[no](no.md)\n```\n## Again\n## Again\n`[no](no)` [a](b.md#c) [d](#e) \
                    [f](https://g)";
    assert_eq!(anchors(document).into_iter().collect::<Vec<_>>(), ["again", "again-1", "one-two-three-four"]);
    assert_eq!(links(document), ["b.md#c", "#e"]);
    assert_eq!(resolved("docs/a/b.md", "../c/d.md#e"), ("docs/c/d.md".into(), Some("e".into())));
    assert_eq!(resolved("docs/a/b.md", "#e"), ("docs/a/b.md".into(), Some("e".into())));
}
