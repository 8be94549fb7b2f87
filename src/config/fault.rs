//! What is wrong with a configuration: every fault with its place, what is wrong and what to write.

use std::fmt;
use std::path::{Path, PathBuf};

use super::lines::Lines;

/// All faults of one file, printed as `FILE:LINE: key.path: what is wrong; what to write`.
#[derive(Debug)]
pub struct Faults {
    file: PathBuf,
    lines: Lines,
    list: Vec<Fault>,
    /// Lists that an element was taken out of, and which, each as it was counted then.
    taken: Vec<(String, usize)>,
    /// Values that were taken out for what was said of them; that they are missing now is no news.
    unread: Vec<String>,
}

#[derive(Debug)]
struct Fault {
    line: Option<usize>,
    key: String,
    what: String,
    write: String,
}

impl Faults {
    pub fn new(file: &Path, text: &str) -> Self {
        Self { file: file.to_owned(), lines: Lines::of(text), list: Vec::new(), taken: Vec::new(), unread: Vec::new() }
    }

    /// Adds a fault at `key`, e.g. `services.iqueue.routes[0].path`. Its line is that of the key, or of the
    /// nearest one above it that the document has.
    pub fn add(&mut self, key: impl Into<String>, what: impl Into<String>, write: impl Into<String>) {
        let key = self.as_written(key.into());
        if self.unread.contains(&key) {
            return;
        }
        let line = self.lines.find(&key);
        self.list.push(Fault { line, key, what: what.into(), write: write.into() });
    }

    pub fn add_at_line(&mut self, line: Option<usize>, what: impl Into<String>, write: impl Into<String>) {
        self.list.push(Fault { line, key: String::new(), what: what.into(), write: write.into() });
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

    /// Whether anything at `key` or below it is wrong.
    pub fn concern(&self, key: &str) -> bool {
        let key = self.as_written(key.to_owned());
        let below = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
        self.list.iter().any(|fault| fault.key.strip_prefix(&key).is_some_and(below))
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// `Ok` with the value when nothing was wrong.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&Fault> = self.list.iter().collect();
        sorted.sort_by_key(|fault| fault.line);
        for fault in sorted {
            write!(f, "{}", self.file.display())?;
            if let Some(line) = fault.line {
                write!(f, ":{line}")?;
            }
            if !fault.key.is_empty() {
                write!(f, ": {}", fault.key)?;
            }
            writeln!(f, ": {}; {}", fault.what, fault.write)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
