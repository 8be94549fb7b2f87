//! `session …`: what an administrator does to the sessions of users who are signed in.

use clap::{Args, Subcommand};

use super::user::open_directory;
use super::{ConfigFile, Failure};
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
    /// End every session of a user, on every edge that shares the user directory, within moments.
    End {
        #[arg(long, value_name = "NAME")]
        user: String,
    },
}

impl Session {
    pub fn carry_out(self) -> Result<(), Failure> {
        let Command::End { user } = self.command;
        let name = UserName::parse(&user).map_err(Failure::because)?;
        let (directory, config) = open_directory(&self.file, false)?;
        directory.end_sessions(&name)?;
        println!("sessions of {name} end within {}", humantime::format_duration(config.users.refresh()));
        Ok(())
    }
}
