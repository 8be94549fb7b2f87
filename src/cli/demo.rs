//! `demo`: the whole sign-on flow on one machine, with a CA, two applications and a user that it creates.
//!
//! It writes an ordinary configuration into its folder: `run -c DIR/edge.yaml` serves the same while the two applications
//! run.

mod application;
mod folder;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;

use clap::Args;

use super::{Failure, output, run};
use application::Applications;
use folder::Folder;

#[derive(Args)]
pub struct Demo {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8443", value_name = "IP:PORT")]
    listen: SocketAddr,
    /// The folder for certificates, users and the configuration.
    #[arg(long, default_value = "demo-data", value_name = "DIR")]
    data: PathBuf,
    /// Store sessions in this memcached instead of in the process.
    #[arg(long, value_name = "IP:PORT")]
    memcached: Option<String>,
    /// The address of the admin listener: /metrics, /livez, /readyz.
    #[arg(long, default_value = "127.0.0.1:9090", value_name = "IP:PORT")]
    admin: SocketAddr,
}

/// The services of the demonstration, each an application of its own.
pub const SERVICES: [&str; 2] = ["iqueue", "dextor"];

impl Demo {
    pub fn run(self) -> Result<(), Failure> {
        let applications = Applications::start(&SERVICES).map_err(Failure::because)?;
        let folder = Folder::prepare(&self.data).map_err(Failure::Failed)?;
        let settings = folder::Settings {
            listen: self.listen,
            admin: self.admin,
            memcached: self.memcached.as_deref(),
            applications: applications.addresses(),
        };
        let file = folder.write_configuration(&settings).map_err(Failure::Failed)?;
        folder.add_user(&SERVICES).map_err(Failure::Failed)?;
        // Its applications are in this process, so no other one can take over.
        run::serve(&file, None, move |addresses| {
            let port = addresses.first().map_or(self.listen.port(), SocketAddr::port);
            let welcome = welcome(&folder, port);
            // On a thread of its own, because a terminal that is stopped blocks it.
            thread::spawn(move || output::print(welcome).ok());
        })
    }
}

fn welcome(folder: &Folder, port: u16) -> String {
    let credentials = folder.credentials();
    let (name, password) = credentials.split_once('\n').unwrap_or((&credentials, ""));
    format!(
        "\n  Open      https://iqueue.localhost:{port}/\n  \
           then      https://dextor.localhost:{port}/   (no second login)\n  \
           sign in   {name}  {}\n  \
           sign out  https://sentry.localhost:{port}/logout\n\n  \
           The browser will warn of an unknown CA: trust {} or continue.\n  \
           Ctrl-C ends the demonstration.\n",
        password.trim(),
        folder.ca().display(),
    )
}
