//! Both request paths held against each other: requests and responses that are drawn from a seed go through an edge with
//! the fast path on and through one with it off, and all that can be seen of them is compared: what the client gets, what
//! becomes of its connection and of the application's, what the application hears, the access log, the metrics.
//!
//! The cases walk through every status class × framing × break point × method × protocol (`combinations`), and what those
//! leave open is drawn. `DIFFERENTIAL_CASES` says how many (`make differential CASES=100000`), `DIFFERENTIAL_SEED` from
//! where on. A case depends on its own seed alone, which is printed with what differs. `tests/planted/run` holds that
//! faults are found.

mod combinations;
mod draw;
mod fields;
mod side;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use sentry_edge::server::FastPathMode;

use crate::harness::runtime;
use combinations::{Coverage, cases_for};
use draw::{Case, draw};
use side::{Seen, Side};

/// What may differ, and why it may. Everything else is a fault of one of the paths.
const MAY_DIFFER: [(&str, &str); 8] = [
    ("date", "RFC 9110 §6.6.1: Pingora writes its own over HTTP/1.1, the fast path adds one where there is none"),
    ("x-request-id", "drawn for each request"),
    ("the case of field names", "RFC 9110 §5.1: it has no meaning; the fast path leaves it, the full path does not"),
    ("time, duration, auth_duration, upstream_duration, server", "of each request or edge its own"),
    ("interim responses before a 502", "RFC 9110 §15.2: the full path takes them in together with what is refused"),
    ("a connection that is not used again once", "RFC 9112 §9.3: Pingora's pool may be busy with it for a moment"),
    (
        "whether an end is noticed at once",
        "RFC 9112 §9.6: when a connection breaks off, or a response comes early; once",
    ),
    ("where in a body it is cut off", "RFC 9112 §8: a part is a part; how much of it arrives is a matter of time"),
];

/// Cases that are compared at once: log lines gather for some milliseconds before they are written.
const BATCH: usize = 20;

/// No more are looked for than are printed.
const ENOUGH: usize = 20;

#[derive(Default)]
struct Found {
    differing: Vec<String>,
    /// Cases that differed once and not again.
    of_a_moment: usize,
    /// Cases that were compared.
    cases: u64,
}

impl Found {
    fn add(&mut self, other: Self) {
        self.differing.extend(other.differing);
        self.of_a_moment += other.of_a_moment;
        self.cases += other.cases;
    }
}

/// Runs cases, until there are enough that differ.
fn compare(seeds: impl Iterator<Item = u64>, differing: &AtomicUsize, enough: usize) -> Found {
    let mut sides = [FastPathMode::On, FastPathMode::Off].map(Side::new);
    let mut found = Found::default();
    let mut seeds = seeds.peekable();
    while seeds.peek().is_some() && differing.load(Ordering::Relaxed) < enough {
        let cases: Vec<(u64, Case)> = seeds.by_ref().take(BATCH).map(|seed| (seed, draw(seed))).collect();
        found.cases += cases.len() as u64;
        let before = found.differing.len();
        let [on, off] = sides.each_mut().map(|side| run(side, &cases.iter().map(|(_, case)| case).collect::<Vec<_>>()));
        let mut same = true;
        for (((seed, case), on), off) in cases.iter().zip(&on.0).zip(&off.0) {
            let mut difference = on.against(off);
            same &= difference.is_empty();
            // What is a matter of a moment does not come again and again.
            let mut again = if may_pass(case, &difference) { 4 } else { 0 };
            while again > 0 && may_pass(case, &difference) {
                again -= 1;
                let [on, off] = sides.each_mut().map(|side| run(side, &[case]).0);
                difference = on[0].against(&off[0]);
                found.of_a_moment += usize::from(difference.is_empty());
            }
            if !difference.is_empty() {
                found.differing.push(format!("seed {seed}: {case:?}{difference}"));
            }
        }
        // The same for what they gained together: a connection whose end is noticed late costs one attempt more.
        let mut gained = [on.1, off.1];
        let mut again = if same { 4 } else { 0 };
        while again > 0 && gained[0] != gained[1] {
            again -= 1;
            let cases: Vec<_> = cases.iter().map(|(_, case)| case).collect();
            gained = sides.each_mut().map(|side| run(side, &cases).1);
            found.of_a_moment += usize::from(gained[0] == gained[1]);
        }
        if same && gained[0] != gained[1] {
            let seeds: Vec<u64> = cases.iter().map(|(seed, _)| *seed).collect();
            let [on, off] = gained;
            found.differing.push(format!("seeds {seeds:?}, metrics\n  on:  {on:?}\n  off: {off:?}"));
        }
        differing.fetch_add(found.differing.len() - before, Ordering::Relaxed);
    }
    found
}

/// What was seen of these cases on one path, and what its metrics gained.
fn run(side: &mut Side, cases: &[&Case]) -> (Vec<Seen>, BTreeMap<String, f64>) {
    let mut seen: Vec<Seen> = runtime().block_on(async {
        let mut seen = Vec::new();
        for case in cases {
            seen.push(side.run(case).await);
        }
        seen
    });
    let gained = side.close(&mut seen);
    (seen, gained)
}

/// Whether it is worth another look: on one of the paths a connection to the application was not used again, or what the
/// edge has noticed when it matters is a matter of time.
fn may_pass(case: &Case, difference: &str) -> bool {
    let mut lines = difference.lines().map(str::trim_start).filter(|line| !line.is_empty()).peekable();
    let differs = lines.peek().is_some();
    let is_reused_by_one = difference.contains("\n  is_reused ");
    differs && (case.is_of_a_moment || is_reused_by_one || lines.all(|line| line.starts_with("is_kept ")))
}

#[test]
fn both_paths_come_to_the_same_whatever_is_asked_and_answered() {
    let variable = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = variable("DIFFERENTIAL_SEED").unwrap_or(1);
    let cases = variable("DIFFERENTIAL_CASES").unwrap_or(600);
    // The planted faults are found once.
    let enough = variable("DIFFERENTIAL_ENOUGH").map_or(ENOUGH, |enough| usize::try_from(enough).unwrap());
    const THREADS: u64 = 2;
    let differing = AtomicUsize::new(0);
    let mut found = Found::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let seeds = (0..cases).filter(move |case| case % THREADS == thread).map(move |case| seed + case);
                scope.spawn(|| compare(seeds, &differing, enough))
            })
            .collect();
        threads.into_iter().for_each(|thread| found.add(thread.join().unwrap()));
    });
    let coverage = Coverage::of(seed..seed + cases);
    println!(
        "{} cases, at least {} of each combination; {} for 200 of each; {} differed once and not again\n{}",
        found.cases,
        coverage.least(),
        cases_for(200),
        found.of_a_moment,
        coverage.table()
    );
    let allowed: Vec<String> = MAY_DIFFER.iter().map(|(what, why)| format!("  {what}: {why}")).collect();
    assert!(
        found.differing.is_empty(),
        "{} of {} cases differ, DIFFERENTIAL_SEED={seed}; run one with its seed and DIFFERENTIAL_CASES=1\n{}\nonly this \
         may differ:\n{}",
        found.differing.len(),
        found.cases,
        found.differing.iter().take(ENOUGH).cloned().collect::<Vec<_>>().join("\n"),
        allowed.join("\n"),
    );
    assert!(coverage.least() >= cases / cases_for(1), "a walk that leaves out combinations");
}

/// So that a change of the source takes the planted faults along; whether they are found costs a build for each.
#[test]
fn each_planted_fault_has_one_place_in_the_source() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run = Command::new("python3").arg(folder.join("tests/planted/run")).arg("--check").output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}
