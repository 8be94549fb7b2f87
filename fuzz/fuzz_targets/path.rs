//! The readings of a path, and the rules that hold for all of them.
#![no_main]

#[path = "../checks/path.rs"]
mod path;

libfuzzer_sys::fuzz_target!(|data: &[u8]| path::check(data));
