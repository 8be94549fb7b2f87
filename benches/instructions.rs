//! How many instructions and allocations each part of the hot path costs: a count that a busy machine does not blur.
//!
//! Runs itself under valgrind's callgrind with a few repetitions of a part and then with more, and prints the difference
//! for one. valgrind hides some of the processor's instructions (SHA, wide vectors) from what it runs, so cryptography
//! counts for more here than it costs; compare a part with itself.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench that cannot be set up may end at once")]
#![allow(clippy::print_stdout, reason = "the table is what it is for")]

mod parts;

use std::alloc::System;
use std::process::Command;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Repetitions; the first also pay for what happens once.
const FEW: u64 = 100;
const MORE: u64 = 1_100;

/// Setting these up under valgrind takes minutes, and what they show is the cache, which is not counted.
const LEFT_OUT: &str = "100,000";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    match arguments.as_slice() {
        [part, times] if times.parse::<u64>().is_ok() => repeat(part, times.parse().unwrap()),
        chosen => table(chosen),
    }
}

fn repeat(part: &str, times: u64) {
    let (_, prepare) = parts::PARTS.iter().find(|(name, _)| *name == part).unwrap();
    let mut run = prepare();
    let before = Region::new(COUNTING);
    for _ in 0..times {
        run();
    }
    let change = before.change();
    println!("{} {}", change.allocations + change.reallocations, change.bytes_allocated);
}

/// All parts, or those whose names contain one of the words.
fn table(words: &[String]) {
    println!("{:32} {:>12} {:>12} {:>12}", "part", "instructions", "allocations", "bytes");
    for (name, _) in parts::PARTS {
        let chosen = words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
        if !chosen || name.contains(LEFT_OUT) {
            continue;
        }
        let (few, more) = (count(name, FEW), count(name, MORE));
        let each = |at: usize| (more[at] as f64 - few[at] as f64) / (MORE - FEW) as f64;
        println!("{name:32} {:12.0} {:12.1} {:12.0}", each(0), each(1), each(2));
    }
}

/// Instructions, allocations and bytes of a run under callgrind.
fn count(part: &str, times: u64) -> [u64; 3] {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().unwrap())
        .args([part, &times.to_string()])
        .output()
        .unwrap_or_else(|error| panic!("valgrind: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")).unwrap_or_else(|| panic!("{said}"));
    let printed = String::from_utf8_lossy(&output.stdout);
    let (allocations, bytes) = printed.trim().split_once(' ').unwrap();
    [collected.1, allocations, bytes].map(|number| number.trim().parse().unwrap())
}
