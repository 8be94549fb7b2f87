//! The faults of a configuration, each with its line, its key, what is wrong and what to write, and its warnings, with
//! which the configuration is served all the same.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::lines::Lines;

/// All faults and warnings of one file, each printed as one line: `FILE:LINE: key.path: what is wrong; what to write`.
/// A warning has `warning: ` before what is wrong.
#[derive(Debug)]
pub struct Faults {
    file: PathBuf,
    /// 16 hexadecimal digits of the SHA-256 of the text; empty where it could not be read.
    pub hash: String,
    lines: Lines,
    list: Vec<Fault>,
    warnings: Vec<Fault>,
    /// Lists that an element was removed from, and its index at that time.
    taken: Vec<(String, usize)>,
    /// Keys whose values were removed because of a fault. A fault because they are missing now would be noise.
    unread: Vec<String>,
}

/// A fault or a warning, depending on the list that it is in.
#[derive(Debug)]
struct Fault {
    line: Option<usize>,
    key: String,
    what: String,
    write: String,
}

/// The warnings of a configuration without faults, each as it is printed, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warnings(Vec<String>);

/// One fault or warning by its parts, for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FaultReport {
    #[serde(skip)]
    pub is_warning: bool,
    pub file: String,
    pub line: Option<usize>,
    /// Empty where the fault is the file's.
    pub key: String,
    pub what: String,
    pub write: String,
    /// All of it in one line, as it is printed.
    pub text: String,
}

impl Faults {
    pub fn new(file: &Path, text: &str) -> Self {
        Self {
            file: file.to_owned(),
            hash: String::new(),
            lines: Lines::of(text),
            list: Vec::new(),
            warnings: Vec::new(),
            taken: Vec::new(),
            unread: Vec::new(),
        }
    }

    /// Adds a fault at `key`, e.g. `services.iqueue.routes[0].path`. Its line is that of the key, or of the
    /// nearest one above it that the document has.
    pub fn add(&mut self, key: impl Into<String>, what: impl Into<String>, write: impl Into<String>) {
        let key = self.as_written(key.into());
        if self.unread.contains(&key) {
            return;
        }
        let line = self.lines.find(&key);
        self.list.push(Fault::new(line, &key, &what.into(), &write.into()));
    }

    /// Adds a warning at `key`: the configuration can be served, and does not do what its writer may expect of it.
    pub fn warn(&mut self, key: impl Into<String>, what: impl Into<String>, write: impl Into<String>) {
        let key = self.as_written(key.into());
        let line = self.lines.find(&key);
        self.warnings.push(Fault::new(line, &key, &what.into(), &write.into()));
    }

    /// The warnings so far.
    pub fn warnings(&self) -> Warnings {
        let mut sorted: Vec<&Fault> = self.warnings.iter().collect();
        sorted.sort_by_key(|warning| warning.line);
        Warnings(sorted.into_iter().map(|warning| self.print(warning, "warning: ")).collect())
    }

    pub fn add_at_line(&mut self, line: Option<usize>, what: impl Into<String>, write: impl Into<String>) {
        self.list.push(Fault::new(line, "", &what.into(), &write.into()));
    }

    /// Adds a fault at `key` that stands on the line of `beneath`, whose text is not shown.
    pub(super) fn add_beneath(&mut self, key: &str, beneath: &str, what: impl Into<String>, write: impl Into<String>) {
        let line = self.lines.find(&self.as_written(beneath.to_owned()));
        let key = self.as_written(key.to_owned());
        self.list.push(Fault::new(line, &key, &what.into(), &write.into()));
    }

    /// Where a key stands for the second time in one mapping, and where for the first, counted from 1.
    pub(super) fn doubled_key(&mut self) -> Option<(usize, usize)> {
        self.lines.doubled()
    }

    /// Adds a fault at the value of `key`, which is then left out of the configuration.
    pub(super) fn add_unread(&mut self, key: &str, what: impl Into<String>, write: impl Into<String>) {
        self.add(key, what, write);
        self.unread.push(self.as_written(key.to_owned()));
    }

    /// An element was taken out of the list at `key`, so that those behind it are one place further up than they
    /// are written.
    pub(super) fn moved_up(&mut self, key: &str, index: usize) {
        self.taken.push((key.to_owned(), index));
    }

    /// The last element taken is put back first.
    fn as_written(&self, mut key: String) -> String {
        for (list, taken) in self.taken.iter().rev() {
            let place = key.strip_prefix(list.as_str()).and_then(|rest| rest.strip_prefix('['));
            let Some((index, rest)) = place.and_then(|rest| rest.split_once(']')) else { continue };
            match index.parse::<usize>() {
                Ok(index) if index >= *taken => key = format!("{list}[{}]{rest}", index + 1),
                _ => {}
            }
        }
        key
    }

    /// The configuration file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Whether anything at `key` or below it is wrong.
    pub fn concern(&self, key: &str) -> bool {
        let key = without_password(&self.as_written(key.to_owned()));
        let below = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
        self.list.iter().any(|fault| fault.key.strip_prefix(&key).is_some_and(below))
    }

    /// Whether there is no fault; warnings are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Faults, warnings apart.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// `Ok` with the value when nothing was wrong.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }

    /// Faults and warnings by their parts, in the order in which they are printed.
    pub fn reports(&self) -> Vec<FaultReport> {
        let report = |(fault, severity): (&Fault, &str)| FaultReport {
            is_warning: !severity.is_empty(),
            file: self.file.display().to_string(),
            line: fault.line,
            key: fault.key.clone(),
            what: fault.what.clone(),
            write: fault.write.clone(),
            text: self.print(fault, severity),
        };
        self.sorted().into_iter().map(report).collect()
    }

    /// Faults and warnings in the order of the file, each with what stands before a warning.
    fn sorted(&self) -> Vec<(&Fault, &'static str)> {
        let faults = self.list.iter().map(|fault| (fault, ""));
        let warnings = self.warnings.iter().map(|warning| (warning, "warning: "));
        let mut sorted: Vec<(&Fault, &str)> = faults.chain(warnings).collect();
        sorted.sort_by_key(|(fault, _)| fault.line);
        sorted
    }

    /// One line, without its end.
    fn print(&self, fault: &Fault, severity: &str) -> String {
        let line = fault.line.map(|line| format!(":{line}")).unwrap_or_default();
        let key = if fault.key.is_empty() { String::new() } else { format!(": {}", fault.key) };
        format!("{}{line}{key}: {severity}{}; {}", self.file.display(), fault.what, fault.write)
    }
}

impl Fault {
    fn new(line: Option<usize>, key: &str, what: &str, write: &str) -> Self {
        Self { line, key: without_password(key), what: without_password(what), write: without_password(write) }
    }
}

/// Removes the user name and the password of the URL that a text quotes. What is quoted may be no URL yet, so everything up
/// to the last `@` goes. A path, which begins with a slash, is none.
fn without_password(text: &str) -> String {
    let Some(end) = text.rfind('@') else { return text.to_owned() };
    let before = &text[..end];
    // A password may have quotes in it, and so may what was quoted before it.
    let is_opening = |quote: &usize| before[..*quote].chars().next_back().is_none_or(|last| " (:=".contains(last));
    let mut quotes = before.match_indices('`').map(|(quote, _)| quote).filter(is_opening).peekable();
    let begin = match (before.find("//"), quotes.peek()) {
        (Some(scheme), _) => scheme + 2,
        // `user:password@host`.
        (None, Some(_)) => match quotes.find(|quote| !text[quote + 1..].starts_with('/')) {
            Some(quote) => quote + 1,
            None => return text.to_owned(),
        },
        // In other quotes too is what was written, which may have blanks in it.
        (None, None) => match (before.find(['"', '`']), before.rfind(' ').map_or(0, |space| space + 1)) {
            (Some(quote), _) => quote + 1,
            (None, begin) if text[begin..].starts_with('/') => return text.to_owned(),
            (None, begin) => begin,
        },
    };
    format!("{}***{}", &text[..begin], &text[end..])
}

/// Faults and warnings together, in the order of the file.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sorted().into_iter().try_for_each(|(fault, severity)| writeln!(f, "{}", self.print(fault, severity)))
    }
}

impl Warnings {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl fmt::Display for Warnings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|warning| writeln!(f, "{warning}"))
    }
}

impl std::error::Error for Faults {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_fault_quotes_a_password_and_every_path_is_shown_in_full() {
        for (text, shown) in [
            ("`https://user:pw@host/` is no URL", "`https://***@host/` is no URL"),
            ("`user:pw@host` is no URL", "`***@host` is no URL"),
            ("`user:p`w@host` is no URL", "`***@host` is no URL"),
            ("`user:p `w@host` is no URL", "`***@host` is no URL"),
            ("`/a b` is not `user:pw@host`", "`/a b` is not `***@host`"),
            ("`/a b` is not `user:p /`w@host`", "`/a b` is not `***@host`"),
            ("`a` is not `user:pw@host`", "`***@host`"),
            ("value \"user:p /w@host\"", "value \"***@host\""),
            ("user:pw@host", "***@host"),
            ("`/x/edge@prod/a.pem` is missing", "`/x/edge@prod/a.pem` is missing"),
            ("/x/edge@prod/a.pem: No such file", "/x/edge@prod/a.pem: No such file"),
            ("cannot read /x/edge@prod/a.pem: No such file", "cannot read /x/edge@prod/a.pem: No such file"),
        ] {
            assert_eq!(without_password(text), shown);
        }
    }
}
