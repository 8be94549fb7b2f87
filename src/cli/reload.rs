//! `reload`: has the running edge read its configuration again, and says what came of it.

use clap::Args;

use super::control_client::{ControlClient, Reply};
use super::{ConfigFile, Failure, output};

#[derive(Args)]
pub struct Reload {
    #[command(flatten)]
    file: ConfigFile,
    /// Print the edge's response as JSON.
    #[arg(long)]
    json: bool,
}

impl Reload {
    pub fn run(self) -> Result<(), Failure> {
        let reply = ControlClient::of(&self.file)?.call("POST", "/api/reload", None)?;
        if self.json {
            output::print(&reply.body)?;
        }
        match reply.status {
            200 => {
                self.report(&reply);
                if self.json {
                    return Ok(());
                }
                let hash = reply.body["hash"].as_str().unwrap_or_default();
                output::print(format_args!("{}: configuration reloaded hash={hash}", self.file.path()?.display()))
            }
            422 => Err(Failure::Failed(faults(&reply))),
            _ => Err(Failure::because(reply.message())),
        }
    }

    /// Prints, as `check` does, what is in effect and may not do what is expected.
    fn report(&self, reply: &Reply) {
        for (_, text) in reply.texts("warnings") {
            output::note(text);
        }
        let keys = reply.body["restart_required"].as_array().map(Vec::as_slice).unwrap_or_default();
        if !keys.is_empty() {
            let keys: Vec<&str> = keys.iter().filter_map(|key| key.as_str()).collect();
            output::note(format_args!("restart_required: {}", keys.join(", ")));
        }
    }
}

/// Returns faults and warnings in the order of the file, as `check` prints them.
fn faults(reply: &Reply) -> String {
    let mut all = reply.texts("faults");
    all.extend(reply.texts("warnings"));
    all.sort_by_key(|(line, _)| *line);
    all.into_iter().map(|(_, text)| format!("{text}\n")).collect()
}
