//! What the fuzz targets of heads and paths hold, held for their seeds without a fuzzer.

#[path = "../../fuzz/checks/fast_request.rs"]
mod fast_request;
#[path = "../../fuzz/checks/fast_response.rs"]
mod fast_response;
#[path = "../../fuzz/checks/path.rs"]
mod path;
#[path = "../../fuzz/checks/reader.rs"]
mod reader;
#[path = "../../fuzz/checks/upstream_response.rs"]
mod upstream_response;

use std::panic::catch_unwind;
use std::path::Path;

/// Every seed of a target, and how many there are at least.
fn replay(target: &str, least: usize, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut seeds = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let seed = std::fs::read(&path).unwrap();
        seeds += 1;
        assert!(catch_unwind(|| check(&seed)).is_ok(), "{} breaks what `{target}` holds", path.display());
    }
    assert!(seeds >= least, "{seeds} seeds of {target}");
}

#[test]
fn heads_of_requests_on_the_fast_path_are_read_as_they_are_written() {
    replay("fast_request", 10, fast_request::check);
}

#[test]
fn heads_of_responses_on_the_fast_path_are_read_as_they_are_written() {
    replay("fast_response", 10, fast_response::check);
}

#[test]
fn responses_of_applications_have_one_meaning_or_are_refused() {
    replay("upstream_response", 10, upstream_response::check);
}

#[test]
fn paths_have_one_canonical_form_and_one_route() {
    replay("path", 10, path::check);
}
