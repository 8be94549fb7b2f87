//! `service …`: what an administrator switches for one service of the running edge.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::control_client::{ControlClient, path_segment};
use super::{ConfigFile, Failure, output};

#[derive(Args)]
pub struct Service {
    #[command(flatten)]
    file: ConfigFile,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Switch the maintenance of a service on or off, for as long as the edge runs.
    Maintenance {
        /// The service, as the configuration names it.
        name: String,
        /// `on` or `off`. A service whose maintenance file exists stays in maintenance.
        state: Switch,
        /// Print the edge's response as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Switch {
    /// Users get a page that says so.
    On,
    /// The service is served again.
    Off,
}

impl Service {
    pub fn run(self) -> Result<(), Failure> {
        let Command::Maintenance { name, state, json } = self.command;
        let path = format!("/api/services/{}/maintenance", path_segment(&name));
        let body = json!({ "on": matches!(state, Switch::On) });
        let reply = ControlClient::of(&self.file)?.call("PUT", &path, Some(&body))?;
        if reply.status != 200 {
            return Err(Failure::because(reply.message()));
        }
        if json {
            return output::print(&reply.body);
        }
        let state = match (reply.body["on"] == true, matches!(state, Switch::On)) {
            (true, true) => "in maintenance",
            (true, false) => "still in maintenance, as its maintenance file is there",
            (false, _) => "not in maintenance",
        };
        output::print(format_args!("{name} is {state}"))
    }
}
