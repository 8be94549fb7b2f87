//! What applications answer, by the rules of both request paths.
#![no_main]

#[path = "../checks/reader.rs"]
mod reader;
#[path = "../checks/upstream_response.rs"]
mod upstream_response;

libfuzzer_sys::fuzz_target!(|data: &[u8]| upstream_response::check(data));
