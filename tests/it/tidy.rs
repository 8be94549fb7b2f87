//! The house rules that a compiler does not know: layers, lengths, words, and documents that say what the code says.

use std::path::{Path, PathBuf};

mod book;
mod commands;
mod documents;
mod layers;
mod sizes;
mod source;
mod tables;
mod words;

pub use book::pages;
pub use source::sources;
pub use tables::{quoted, rows, section};

pub fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub fn read(path: &str) -> String {
    std::fs::read_to_string(at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
