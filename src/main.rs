//! The binary: arguments to a command, its result to an exit status. The only place that ends the process.

use std::process::ExitCode;

/// A request allocates some tens of times, and the system's allocator takes longer over each.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match sentry_edge::cli::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
