//! `session …`: lists and ends the sessions of users who are signed in.

mod list;

use clap::{Args, Subcommand};

use super::control_client::{CallError, ControlClient};
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
    /// List the sessions in the shared store, or those of the running edge. Listing does not extend them.
    List(list::List),
    /// End every session of a user, or of all users, on every edge that shares the user directory, within moments.
    End(End),
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct End {
    /// End the sessions of this user.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Sign everybody out.
    #[arg(long)]
    all: bool,
}

impl Session {
    pub fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::List(list) => list.run(&self.file),
            Command::End(End { user: Some(user), .. }) => end(Some(&user), &self.file),
            Command::End(_) => end(None, &self.file),
        }
    }
}

/// Has the running edge do it, which ends the sessions in the store as well. Without one the user directory alone is
/// changed, by which no edge accepts any of them.
fn end(user: Option<&str>, file: &ConfigFile) -> Result<(), Failure> {
    let name = user.map(UserName::parse).transpose().map_err(Failure::because)?;
    let query = match &name {
        Some(name) => url::form_urlencoded::Serializer::new(String::new()).append_pair("user", name.as_str()).finish(),
        None => "all=true".to_owned(),
    };
    match ControlClient::of(file)?.brief().call("DELETE", &format!("/api/sessions?{query}"), None) {
        Ok(reply) if reply.body["effective_within"].is_string() => {
            // Where the store could not be reached.
            if reply.status != 200 {
                output::note(reply.message());
            }
            ended(name.as_ref(), reply.body["effective_within"].as_str().unwrap_or_default())
        }
        // It has done nothing, or cannot say.
        Ok(reply) if reply.is_busy() || reply.status >= 500 => {
            output::note(format_args!("{}; the user directory is changed without the edge", reply.message()));
            end_in_directory(name.as_ref(), file)
        }
        Ok(reply) => Err(Failure::because(reply.message())),
        Err(CallError::NoEdge(_)) => end_in_directory(name.as_ref(), file),
        Err(CallError::Failed(why)) => {
            output::note(format_args!("{why}; the user directory is changed without the edge"));
            end_in_directory(name.as_ref(), file)
        }
    }
}

fn end_in_directory(name: Option<&UserName>, file: &ConfigFile) -> Result<(), Failure> {
    let (registry, config) = open_registry(file, false)?;
    match name {
        Some(name) => {
            registry.end_sessions(name)?;
            audit::write(&config, audit::Change::SessionsEnded, std::slice::from_ref(name));
        }
        None => {
            registry.end_all_sessions()?;
            audit::write_for_all(&config, audit::Change::SessionsEnded);
        }
    }
    ended(name, &humantime::format_duration(config.users.refresh).to_string())
}

fn ended(name: Option<&UserName>, within: &str) -> Result<(), Failure> {
    match name {
        Some(name) => output::print(format_args!("sessions of {name} end within {within}")),
        None => output::print(format_args!("all sessions end within {within}")),
    }
}
