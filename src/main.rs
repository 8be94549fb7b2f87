//! The binary: arguments to a command, its result to an exit status. The only place that ends the process.

use std::process::ExitCode;

fn main() -> ExitCode {
    match sentry_edge::cli::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
