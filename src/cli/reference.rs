//! `schema`, `completion` and `man`: what other programs are to know about this one, from the same definitions that it
//! runs by.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Failure, command, output};
use crate::config::schema;

/// Prints the JSON Schema of the configuration.
pub fn print_schema() -> Result<(), Failure> {
    output::print(schema::printed().trim_end())
}

#[derive(Args)]
pub struct Completion {
    /// The shell that the script is for.
    shell: Shell,
}

/// The shells that the documents say how to set up.
#[derive(Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Completion {
    pub fn run(self) -> Result<(), Failure> {
        let shell = match self.shell {
            Shell::Bash => clap_complete::Shell::Bash,
            Shell::Zsh => clap_complete::Shell::Zsh,
            Shell::Fish => clap_complete::Shell::Fish,
        };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command(), "sentry-edge", &mut script);
        output::print(String::from_utf8_lossy(&script).trim_end())
    }
}

#[derive(Args)]
pub struct Man {
    /// The folder that the pages are written to; it has to be there.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Man {
    /// Writes a page for each command.
    pub fn run(self) -> Result<(), Failure> {
        clap_mangen::generate_to(command(), &self.folder)
            .map_err(|error| Failure::because(format_args!("{}: {error}", self.folder.display())))
    }
}
