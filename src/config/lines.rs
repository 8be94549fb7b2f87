//! Where each key of the document stands.
//!
//! serde_yaml says the place of a syntax error but forgets places afterwards, so a second, light pass over the
//! events of a YAML parser remembers the line of every key. It is made when the first line is looked up: a good file
//! has nothing to tell of. Called by `config` alone.

use std::collections::HashMap;
use std::fmt;

use saphyr_parser::{Event, Parser};
use zeroize::Zeroizing;

/// Of one document.
pub enum Lines {
    /// The document, which may hold secrets.
    Unread(Zeroizing<String>),
    Read(Places),
}

/// Key path to line, both as an operator sees them: `pools.a.servers[1]`, counted from 1.
#[derive(Default)]
pub struct Places {
    lines: HashMap<String, usize>,
    /// The first key that stands twice in one mapping: the line of the second one, and of the first.
    doubled: Option<(usize, usize)>,
}

impl Lines {
    pub fn of(text: &str) -> Self {
        Self::Unread(Zeroizing::new(text.to_owned()))
    }

    /// The line of `key`, or of its nearest parent in the document.
    pub fn find(&mut self, key: &str) -> Option<usize> {
        self.places()?.find(key)
    }

    /// Where a key stands for the second time in one mapping, and where for the first.
    pub fn doubled(&mut self) -> Option<(usize, usize)> {
        self.places()?.doubled
    }

    fn places(&mut self) -> Option<&Places> {
        if let Self::Unread(text) = self {
            *self = Self::Read(Places::of(text));
        }
        match self {
            Self::Read(places) => Some(places),
            Self::Unread(_) => None,
        }
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lines")
    }
}

impl Places {
    /// Reads what it can; a document that does not parse has no lines here, its error has one of its own.
    fn of(text: &str) -> Self {
        let mut all = Self::default();
        let mut places: Vec<Place> = Vec::new();
        for event in Parser::new_from_str(text) {
            let Ok((event, span)) = event else { break };
            all.note(&event, span.start.line(), &mut places);
        }
        all
    }

    fn note(&mut self, event: &Event<'_>, line: usize, places: &mut Vec<Place>) {
        match event {
            Event::MappingStart(..) => {
                let path = self.enter(places, line);
                places.push(Place { path, kind: Kind::Mapping { key: None } });
            }
            Event::SequenceStart(..) => {
                let path = self.enter(places, line);
                places.push(Place { path, kind: Kind::Sequence { next: 0 } });
            }
            Event::MappingEnd | Event::SequenceEnd => {
                places.pop();
            }
            Event::Scalar(text, ..) => self.scalar(text, line, places),
            Event::Alias(_) => {
                self.enter(places, line);
            }
            _ => {}
        }
    }

    fn scalar(&mut self, text: &str, line: usize, places: &mut [Place]) {
        if let Some(Place { path, kind: Kind::Mapping { key: key @ None } }) = places.last_mut() {
            let full = if path.is_empty() { text.to_owned() } else { format!("{path}.{text}") };
            if let Some(first) = self.lines.insert(full.clone(), line) {
                self.doubled.get_or_insert((line, first));
            }
            *key = Some(full);
        } else {
            self.enter(places, line);
        }
    }

    /// The path of the value that begins now.
    fn enter(&mut self, places: &mut [Place], line: usize) -> String {
        let Some(place) = places.last_mut() else { return String::new() };
        match &mut place.kind {
            Kind::Mapping { key } => key.take().unwrap_or_default(),
            Kind::Sequence { next } => {
                let path = format!("{}[{next}]", place.path);
                *next += 1;
                self.lines.insert(path.clone(), line);
                path
            }
        }
    }

    fn find(&self, key: &str) -> Option<usize> {
        let mut key = key;
        loop {
            if let Some(line) = self.lines.get(key) {
                return Some(*line);
            }
            key = &key[..key.rfind(['.', '['])?];
        }
    }
}

struct Place {
    path: String,
    kind: Kind,
}

enum Kind {
    /// The key whose value comes next, as a full path.
    Mapping {
        key: Option<String>,
    },
    Sequence {
        next: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_knows_its_line() {
        let mut lines = Lines::of("a:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n\"e.f\": 3\n");
        assert_eq!(lines.find("a.b"), Some(2));
        assert_eq!(lines.find("a.c[1].d"), Some(5));
        assert_eq!(lines.find("a.c[1].missing"), Some(5));
        assert_eq!(lines.find("nowhere"), None);
        assert_eq!(lines.doubled(), None);
    }

    #[test]
    fn a_key_that_stands_twice_is_found_with_both_its_lines() {
        assert_eq!(Lines::of("a:\n  b: 1\nc:\n  b: 1\n  x: 2\n  b: 3\n").doubled(), Some((6, 4)));
        assert_eq!(Lines::of("a: 1\nb: [{c: 1}, {c: 2}]\na: 2\n").doubled(), Some((3, 1)));
    }
}
