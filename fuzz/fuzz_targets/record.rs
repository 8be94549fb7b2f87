//! Session records as a store gives them back: what is taken is what we would have written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sentry_edge::sessions::record::SessionRecord;

fuzz_target!(|data: &[u8]| {
    let Some(record) = SessionRecord::decode(data) else { return };
    assert_eq!(record.encode(), data, "{record:?}");
});
