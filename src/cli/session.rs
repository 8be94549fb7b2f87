//! `session …`: lists and ends the sessions of users who are signed in.

mod list;

use clap::{Args, Subcommand};

use super::user::open_registry;
use super::{ConfigFile, Failure, audit, output};
use crate::users::UserName;

#[derive(Args)]
pub struct Session {
    #[command(flatten)]
    file: ConfigFile,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the sessions in the shared store. Listing does not extend them.
    List(list::List),
    /// End every session of a user, on every edge that shares the user directory, within moments.
    End {
        /// The user's name.
        #[arg(long, value_name = "NAME")]
        user: String,
    },
}

impl Session {
    pub fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::List(list) => list.run(&self.file),
            Command::End { user } => end(&user, &self.file),
        }
    }
}

fn end(user: &str, file: &ConfigFile) -> Result<(), Failure> {
    let name = UserName::parse(user).map_err(Failure::because)?;
    let (registry, config) = open_registry(file, false)?;
    registry.end_sessions(&name)?;
    audit::write(&config, audit::Change::SessionsEnded, std::slice::from_ref(&name));
    output::print(format_args!("sessions of {name} end within {}", humantime::format_duration(config.users.refresh)))
}
