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
        Self { file: file.to_owned(), lines: Lines::of(text), list: Vec::new() }
    }

    /// Adds a fault at `key`, e.g. `services.iqueue.routes[0].path`. Its line is that of the key, or of the
    /// nearest one above it that the document has.
    pub fn add(&mut self, key: impl Into<String>, what: impl Into<String>, write: impl Into<String>) {
        let key = key.into();
        let line = self.lines.find(&key);
        self.list.push(Fault { line, key, what: what.into(), write: write.into() });
    }

    pub fn add_at_line(&mut self, line: Option<usize>, what: impl Into<String>, write: impl Into<String>) {
        self.list.push(Fault { line, key: String::new(), what: what.into(), write: write.into() });
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
