//! `key generate`: a new key on standard output, to be kept in a file that only the edge can read.

use clap::{Args, Subcommand, ValueEnum};

use super::{Failure, output};
use crate::auth::keys;
use crate::config;

#[derive(Args)]
pub struct KeyCommand {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Print a new key: text for HS256, a PEM private key for the others.
    Generate {
        /// What the key is for: the `algorithm` of `sentry.keys`.
        #[arg(long, value_enum)]
        algorithm: Algorithm,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Algorithm {
    #[value(name = "HS256")]
    Hs256,
    #[value(name = "ES256")]
    Es256,
    #[value(name = "EdDSA")]
    EdDsa,
    #[value(name = "RS256")]
    Rs256,
}

impl KeyCommand {
    pub fn run(self) -> Result<(), Failure> {
        let Action::Generate { algorithm } = self.command;
        let algorithm = match algorithm {
            Algorithm::Hs256 => config::Algorithm::HS256,
            Algorithm::Es256 => config::Algorithm::ES256,
            Algorithm::EdDsa => config::Algorithm::EdDSA,
            Algorithm::Rs256 => config::Algorithm::RS256,
        };
        let key = keys::generate(algorithm).map_err(Failure::Failed)?;
        output::print(key.trim_end())
    }
}
