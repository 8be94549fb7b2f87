//! An application's response on the fast path.
#![no_main]

#[path = "../checks/fast_response.rs"]
mod fast_response;
#[path = "../checks/reader.rs"]
mod reader;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fast_response::check(data));
