//! The command line: one file a command. Prints results on standard output and faults on standard error.
//!
//! Exit status: 0 fine, 1 refused or failed, 2 wrong usage. No secret is ever taken from an argument.

mod audit;
mod check;
mod control_client;
mod demo;
mod key;
mod output;
mod pool;
mod reference;
mod reload;
mod run;
mod service;
mod session;
mod token;
mod user;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::Warnings;
use crate::users::DirectoryError;

/// An edge proxy with inline single sign-on.
#[derive(Parser)]
#[command(name = "sentry-edge", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve.
    Run(run::Run),
    /// Have the running edge read its configuration again, and print its faults.
    Reload(reload::Reload),
    /// Validate everything: file, certificates, keys, names.
    Check(check::Check),
    /// Show the whole sign-on flow on this machine, with two small applications.
    Demo(demo::Demo),
    /// Look after users.
    User(user::User),
    /// Look after the sessions of users who are signed in.
    Session(session::Session),
    /// Look at the servers of pools at the running edge, and drain, disable or enable one.
    Pool(pool::Pool),
    /// Switch the maintenance of services of the running edge.
    Service(service::Service),
    /// Make keys.
    Key(key::KeyCommand),
    /// Look into tokens.
    Token(token::TokenCommand),
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
    /// Print a completion script for a shell.
    Completion(reference::Completion),
    /// Write a manual page for each command.
    #[command(hide = true)]
    Man(reference::Man),
}

/// Where the configuration is; every command that needs it takes it the same way.
#[derive(Args)]
struct ConfigFile {
    /// The YAML configuration file.
    #[arg(short = 'c', long = "config", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

impl ConfigFile {
    fn path(&self) -> Result<&PathBuf, Failure> {
        self.config.as_ref().ok_or_else(|| Failure::Usage("name the configuration with -c FILE".into()))
    }
}

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// clap's own message, which may be the help text.
    Arguments(clap::Error),
    Usage(String),
    /// Refused or failed; the text is whole lines.
    Failed(String),
    /// The same, and the process log has it.
    Logged,
}

impl Failure {
    fn because(cause: impl std::fmt::Display) -> Self {
        Self::Failed(cause.to_string())
    }

    /// Prints it and says how the process is to end.
    pub fn report(self) -> ExitCode {
        match self {
            Self::Arguments(error) => {
                error.print().ok();
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
            }
            Self::Usage(text) => {
                output::note(text);
                ExitCode::from(2)
            }
            Self::Failed(text) => {
                output::note(text.trim_end());
                ExitCode::FAILURE
            }
            Self::Logged => ExitCode::FAILURE,
        }
    }
}

/// Prints the warnings of a configuration that has no faults.
fn warn(warnings: &Warnings) {
    if !warnings.is_empty() {
        output::note(warnings.to_string().trim_end());
    }
}

impl From<DirectoryError> for Failure {
    fn from(error: DirectoryError) -> Self {
        Self::Failed(error.in_full())
    }
}

/// Returns the definition of every command, for what is made of it: completion, manual pages, the reference.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command that the arguments name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<(), Failure> {
    match Cli::try_parse_from(arguments).map_err(Failure::Arguments)?.command {
        Command::Run(run) => run.run(),
        Command::Reload(reload) => reload.run(),
        Command::Check(check) => check.run(),
        Command::Demo(demo) => demo.run(),
        Command::User(user) => user.run(),
        Command::Session(session) => session.run(),
        Command::Service(service) => service.run(),
        Command::Pool(pool) => pool.run(),
        Command::Key(key) => key.run(),
        Command::Token(token) => token.run(),
        Command::Schema => reference::print_schema(),
        Command::Completion(completion) => completion.run(),
        Command::Man(man) => man.run(),
    }
}
