//! A request's head on the fast path, as it came over HTTP/1.1.
#![no_main]

#[path = "../checks/fast_request.rs"]
mod fast_request;
#[path = "../checks/reader.rs"]
mod reader;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fast_request::check(data));
