//! The files of src/ as the other rules read them: their code, their tests apart, and what they import.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::at;

/// A file of src/.
pub struct Source {
    /// As in `auth/keys.rs`.
    pub name: String,
    pub text: String,
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
    pub fn room(&self) -> &str {
        self.name.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// As in `auth::keys`.
    pub fn module(&self) -> String {
        self.name.trim_end_matches(".rs").replace('/', "::")
    }

    /// Whether it holds tests and nothing else.
    pub fn is_test(&self) -> bool {
        self.name.split('/').any(|part| part == "tests" || part == "tests.rs")
    }

    /// Its lines up to the module of its tests.
    pub fn lines(&self) -> Vec<&str> {
        let lines: Vec<&str> = self.text.lines().collect();
        let tests = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests {"));
        lines[..tests.unwrap_or(lines.len())].to_vec()
    }

    /// The same, without comments.
    pub fn code(&self) -> String {
        self.lines().into_iter().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    }

    /// The lines of its `//!`.
    pub fn introduction(&self) -> String {
        self.text.lines().map_while(|line| line.strip_prefix("//!")).map(|line| format!("{}\n", line.trim())).collect()
    }
}

fn is_of_a_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// One leaf of a `use` declaration: its path, the name that it has here, and whether it is passed on (`pub use`).
#[derive(Debug, PartialEq, Eq)]
pub struct Import {
    path: Vec<String>,
    name: String,
    is_public: bool,
}

/// Every leaf of every `use` declaration, and the code without them.
pub fn imports(code: &str) -> (Vec<Import>, String) {
    let (mut imports, mut rest) = (Vec::new(), String::new());
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let Some((is_public, begun)) = declaration(line) else {
            rest.push_str(line);
            rest.push('\n');
            continue;
        };
        let mut tree = begun.to_owned();
        while !tree.contains(';') {
            let Some(line) = lines.next() else { break };
            tree.push_str(line.trim());
        }
        leaves(tree.split(';').next().unwrap(), &[], is_public, &mut imports);
    }
    (imports, rest)
}

/// What stands behind `use` in a line that begins a declaration, and whether that is public.
fn declaration(line: &str) -> Option<(bool, &str)> {
    let line = line.trim_start();
    if let Some(tree) = line.strip_prefix("use ") {
        return Some((false, tree));
    }
    let rest = line.strip_prefix("pub")?;
    let rest = if rest.starts_with('(') { rest.split_once(')')?.1 } else { rest };
    Some((true, rest.strip_prefix(" use ")?))
}

/// The leaves of `a::{self, b::{c, d as e}}`.
fn leaves(tree: &str, before: &[String], is_public: bool, imports: &mut Vec<Import>) {
    let tree = tree.trim();
    if tree.is_empty() {
        return;
    }
    let mut path = before.to_vec();
    if let Some((prefix, list)) = tree.split_once('{') {
        path.extend(prefix.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned));
        let list = list.strip_suffix('}').unwrap();
        let (mut depth, mut begun) = (0, 0);
        for (at, byte) in list.bytes().enumerate().chain([(list.len(), b',')]) {
            depth += i32::from(byte == b'{') - i32::from(byte == b'}');
            if depth == 0 && byte == b',' {
                leaves(&list[begun..at], &path, is_public, imports);
                begun = at + 1;
            }
        }
        return;
    }
    let (leaf, alias) = tree.split_once(" as ").map_or((tree, None), |(leaf, alias)| (leaf, Some(alias.trim())));
    path.extend(leaf.split("::").map(|part| part.trim().to_owned()));
    if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
        path.pop();
    }
    let name = alias.or(path.last().map(String::as_str)).unwrap_or_default().to_owned();
    imports.push(Import { path, name, is_public });
}

/// The paths that code spells out where it uses them: `crate::a::b`, `super::c`.
pub fn inline_paths(code: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for first in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(first) {
            let before = &code[..at];
            // `pub(in super::super)` and a longer path have a beginning of their own.
            if before.ends_with(is_of_a_name) || before.ends_with("::") {
                continue;
            }
            let end = code[at..].find(|c: char| !is_of_a_name(c) && c != ':').map_or(code.len(), |end| at + end);
            let path: Vec<String> =
                code[at..end].split("::").take_while(|part| !part.is_empty()).map(str::to_owned).collect();
            paths.push(path);
        }
    }
    paths
}

/// Which file imports which, by their modules. A re-export leads to the file that defines the name.
pub struct Graph {
    pub arrows: BTreeMap<String, BTreeSet<String>>,
}

/// The modules of a crate, and the names that each imports.
struct Names {
    modules: BTreeSet<String>,
    imported: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

impl Graph {
    pub fn of(sources: &[Source]) -> Self {
        let is_read = |source: &&Source| !source.is_test() && !["lib.rs", "main.rs"].contains(&source.name.as_str());
        let mut names = Names { modules: sources.iter().map(Source::module).collect(), imported: BTreeMap::new() };
        let mut used: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
        for source in sources.iter().filter(is_read) {
            let module = source.module();
            let (imports, rest) = imports(&source.code());
            let used = used.entry(module.clone()).or_default();
            let imported = names.imported.entry(module.clone()).or_default();
            for import in imports {
                let Some(path) = absolute(&import.path, &module, &names.modules) else { continue };
                imported.insert(import.name, path.clone());
                // A face imports nothing by what it passes on.
                if !import.is_public {
                    used.push(path);
                }
            }
            used.extend(inline_paths(&rest).iter().filter_map(|path| absolute(path, &module, &names.modules)));
        }
        let arrows = used.iter().map(|(module, paths)| {
            let mut to: BTreeSet<String> = paths.iter().filter_map(|path| names.definer(path, 0)).collect();
            to.retain(|other| other != module && used.contains_key(other));
            (module.clone(), to)
        });
        Self { arrows: arrows.collect() }
    }

    /// The modules that `from` leads to, by any number of arrows.
    fn reached(&self, from: &str) -> BTreeSet<&str> {
        let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(module) = open.pop() {
            for next in self.arrows.get(module).into_iter().flatten() {
                if reached.insert(next.as_str()) {
                    open.push(next);
                }
            }
        }
        reached
    }

    /// Every set of files that lead to one another.
    pub fn circles(&self) -> BTreeSet<Vec<String>> {
        let reached: BTreeMap<&str, BTreeSet<&str>> =
            self.arrows.keys().map(|module| (module.as_str(), self.reached(module))).collect();
        let mut circles = BTreeSet::new();
        for (module, to) in &reached {
            if to.contains(module) {
                let circle = to.iter().filter(|other| reached[*other].contains(module));
                circles.insert(circle.map(|other| (*other).to_owned()).collect());
            }
        }
        circles
    }

    /// The files of a room that a file of it imports, but for the room's own face.
    pub fn within<'a>(&'a self, room: &'a str, module: &str) -> impl Iterator<Item = &'a str> {
        let inside = format!("{room}::");
        self.arrows.get(module).into_iter().flatten().map(String::as_str).filter(move |to| to.starts_with(&inside))
    }
}

/// A path from the crate's root; `None` where it leads out of the crate.
fn absolute(path: &[String], module: &str, modules: &BTreeSet<String>) -> Option<Vec<String>> {
    let here: Vec<String> = module.split("::").map(str::to_owned).collect();
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some(here.into_iter().chain(path[1..].iter().cloned()).collect()),
        "super" => {
            let up = path.iter().take_while(|part| *part == "super").count();
            let kept = here.len().checked_sub(up)?;
            Some(here[..kept].iter().cloned().chain(path[up..].iter().cloned()).collect())
        }
        first => {
            let child = format!("{module}::{first}");
            modules.contains(&child).then(|| here.into_iter().chain(path.iter().cloned()).collect())
        }
    }
}

impl Names {
    /// The module whose file defines what a path names.
    fn definer(&self, path: &[String], depth: usize) -> Option<String> {
        for length in (1..=path.len()).rev() {
            let module = path[..length].join("::");
            if !self.modules.contains(&module) {
                continue;
            }
            if let Some(name) = path.get(length)
                && depth < 6
                && let Some(from) = self.imported.get(&module).and_then(|names| names.get(name))
            {
                let further: Vec<String> = from.iter().chain(&path[length + 1..]).cloned().collect();
                return self.definer(&further, depth + 1).or(Some(module));
            }
            return Some(module);
        }
        None
    }
}

fn source(name: &str, text: &str) -> Source {
    Source { name: name.into(), text: text.into() }
}

#[test]
fn leaves_of_use_declarations_are_read() {
    let read = |text: &str| -> Vec<String> {
        let (imports, _) = imports(text);
        let shown = |import: Import| {
            format!("{}{} {}", if import.is_public { "pub " } else { "" }, import.path.join("::"), import.name)
        };
        imports.into_iter().map(shown).collect()
    };
    assert_eq!(read("use a::b;"), ["a::b b"]);
    assert_eq!(read("    use super::{self, c::{d as e, f}};"), ["super super", "super::c::d e", "super::c::f f"]);
    assert_eq!(read("pub(crate) use a::{\n    b,\n    c,\n};\nlet x;"), ["pub a::b b", "pub a::c c"]);
    assert_eq!(read("pub use x::*;\nlet use_it = 1;"), ["pub x::* *"]);
    assert_eq!(
        inline_paths("a(crate::b::C::d(), super::e::<F>()) my_crate::g + pub(in crate::h)"),
        [vec!["crate", "b", "C", "d"], vec!["crate", "h"], vec!["super", "e"]]
    );
}

/// Each way to write an import, and the arrow that it is.
#[test]
fn imports_lead_to_the_file_that_defines_a_name() {
    for (text, expected) in [
        ("use crate::b::c::Deep;", &["b::c"][..]),
        ("use crate::b::Deep;", &["b::c"]),
        ("use crate::b::Own;", &["b"]),
        ("use crate::{b::{self, Deep}, d};", &["b", "b::c", "d"]),
        ("use super::d::f;", &["d"]),
        ("use self::child::X;", &["a::child"]),
        ("use child::X;", &["a::child"]),
        ("use child;", &["a::child"]),
        ("fn f() { crate::b::Deep::new() }", &["b::c"]),
        ("pub use child::X;", &[]),
        ("use std::fmt;\nuse other::b;", &[]),
        ("// use crate::b;\n/// crate::b::Own", &[]),
        ("#[cfg(test)]\nmod tests {\n    use crate::b::Own;\n}", &[]),
    ] {
        let sources = [
            source("a.rs", text),
            source("a/child.rs", ""),
            source("b.rs", "mod c;\npub use c::Deep;\npub struct Own;"),
            source("b/c.rs", "pub struct Deep;"),
            source("d.rs", ""),
        ];
        let graph = Graph::of(&sources);
        assert_eq!(graph.arrows["a"].iter().map(String::as_str).collect::<Vec<_>>(), expected, "{text}");
    }
}

#[test]
fn circles_of_files_are_found() {
    let sources = [
        source("a.rs", "use crate::b::X;"),
        source("b.rs", "pub use c::X;\nuse crate::d;"),
        source("b/c.rs", "use super::Y;"),
        source("d.rs", "use crate::e;"),
        source("e.rs", "use super::{a, d};"),
    ];
    let circles = Graph::of(&sources).circles();
    // `a` uses what `b::c` defines, which uses `b`, and so on.
    let expected = ["a", "b", "b::c", "d", "e"].map(str::to_owned).to_vec();
    assert_eq!(circles.into_iter().collect::<Vec<_>>(), [expected]);
    let sources = [source("a.rs", "use crate::b;"), source("b.rs", "use crate::c;"), source("c.rs", "use super::b;")];
    assert_eq!(
        Graph::of(&sources).circles().into_iter().collect::<Vec<_>>(),
        [["b".to_owned(), "c".to_owned()].to_vec()]
    );
}
