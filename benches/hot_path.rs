//! How long each part of the hot path takes, by criterion: `cargo bench --bench hot_path`, or `… -- cookie` for those with
//! that name. For comparing two states of the source on one quiet machine; `instructions` counts where it is not quiet.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench that cannot be set up may end at once")]

mod parts;

use criterion::{Criterion, criterion_group, criterion_main};

fn hot_path(criterion: &mut Criterion) {
    for (name, prepare) in parts::PARTS {
        // Prepared once, and only when it is chosen: 100,000 hosts take a while.
        let mut run = None;
        criterion.bench_function(name, |bencher| bencher.iter(run.get_or_insert_with(prepare)));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots();
    targets = hot_path
}
criterion_main!(benches);
