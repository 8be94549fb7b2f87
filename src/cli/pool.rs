//! `pool …`: how the servers of pools stand at the running edge, and what an administrator sets for one of them.

use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::control_client::{ControlClient, path_segment};
use super::{ConfigFile, Failure, output};

/// The time between two looks at a server that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

#[derive(Args)]
pub struct Pool {
    #[command(flatten)]
    file: ConfigFile,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List pools and their servers: state, requests in flight, ejection, last failure.
    List {
        /// Print the edge's response as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give a server no new requests: those in flight end, and sticky clients of the server stay.
    Drain {
        #[command(flatten)]
        server: Server,
        /// Wait for so long until no request is in flight any more; exit 1 when there still is one.
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        wait: Option<Duration>,
    },
    /// Give a server requests again.
    Enable {
        #[command(flatten)]
        server: Server,
    },
    /// Give a server no request at all.
    Disable {
        #[command(flatten)]
        server: Server,
    },
}

#[derive(Args)]
struct Server {
    /// The pool, as the configuration names it.
    pool: String,
    /// The server, as the configuration writes it.
    server: String,
    /// Print the edge's response as JSON.
    #[arg(long)]
    json: bool,
}

impl Pool {
    pub fn run(self) -> Result<(), Failure> {
        let client = ControlClient::of(&self.file)?;
        match self.command {
            Command::List { json } => list(&client, json),
            Command::Drain { server, wait } => server.set(&client, "draining", wait),
            Command::Enable { server } => server.set(&client, "active", None),
            Command::Disable { server } => server.set(&client, "disabled", None),
        }
    }
}

fn list(client: &ControlClient, json: bool) -> Result<(), Failure> {
    let reply = client.call("GET", "/api/pools", None)?;
    let Some(pools) = reply.body["pools"].as_array() else { return Err(Failure::because(reply.message())) };
    if json {
        return output::print(&reply.body);
    }
    let lines = pools.iter().flat_map(|pool| {
        let name = pool["name"].as_str().unwrap_or_default().to_owned();
        std::iter::once(name).chain(pool["servers"].as_array().into_iter().flatten().map(readable))
    });
    output::print(lines.collect::<Vec<_>>().join("\n"))
}

/// Returns one server in a line.
fn readable(server: &Value) -> String {
    let text = |key: &str| server[key].as_str().unwrap_or_default();
    let number = |key: &str| server[key].as_u64().unwrap_or_default();
    let (address, state) = (text("address"), text("state"));
    let mut line = format!("  {address}  {state}, {} in flight, weight {}", number("in_flight"), number("weight"));
    if server["backup"] == true {
        line.push_str(", backup");
    }
    if let Some(until) = server["ejected_until"].as_str() {
        line.push_str(&format!(", ejected until {until}"));
    }
    if let Some(reason) = server["last_failure"]["reason"].as_str() {
        let at = server["last_failure"]["at"].as_str().unwrap_or_default();
        line.push_str(&format!(", last failure {reason} at {at}"));
    }
    line
}

impl Server {
    fn set(&self, client: &ControlClient, state: &str, wait: Option<Duration>) -> Result<(), Failure> {
        let (pool, server) = (path_segment(&self.pool), path_segment(&self.server));
        let path = format!("/api/pools/{pool}/servers/{server}");
        let reply = client.call("PUT", &path, Some(&json!({ "state": state })))?;
        if reply.status != 200 {
            return Err(Failure::because(reply.message()));
        }
        let mut in_flight = reply.body["in_flight"].as_u64().unwrap_or_default();
        if let Some(wait) = wait {
            in_flight = self.wait(client, in_flight, wait)?;
        }
        if self.json {
            let mut body = reply.body;
            body["in_flight"] = json!(in_flight);
            output::print(&body)?;
        } else {
            let (pool, server) = (&self.pool, &self.server);
            output::print(format_args!("{pool} {server} is {state}, {in_flight} in flight"))?;
        }
        match wait {
            Some(wait) if in_flight > 0 => {
                let wait = humantime::format_duration(wait);
                Err(Failure::Failed(format!("{in_flight} requests are still in flight after {wait}")))
            }
            _ => Ok(()),
        }
    }

    /// Waits until nothing is in flight at the server, and returns what is when the time is up.
    #[expect(clippy::disallowed_methods, reason = "a command, which serves no request")]
    fn wait(&self, client: &ControlClient, mut in_flight: u64, wait: Duration) -> Result<u64, Failure> {
        let deadline = Instant::now() + wait;
        while in_flight > 0 && Instant::now() < deadline {
            thread::sleep(LOOK_AGAIN);
            let reply = client.call("GET", "/api/pools", None)?;
            let pools = reply.body["pools"].as_array().into_iter().flatten();
            let servers = pools.filter(|pool| pool["name"] == *self.pool).flat_map(|pool| pool["servers"].as_array());
            let server = servers.flatten().find(|server| server["address"] == *self.server);
            let Some(server) = server else {
                return Err(Failure::Failed("the configuration does not have the server any more".into()));
            };
            in_flight = server["in_flight"].as_u64().unwrap_or_default();
        }
        Ok(in_flight)
    }
}
