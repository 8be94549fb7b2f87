//! `user …`: the user directory, from the command line. A change holds from the user's next login on.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{ConfigFile, Failure};
use crate::clock::Clock;
use crate::config::{self, Config, Users};
use crate::users::import::ImportFile;
use crate::users::sqlite::{ImportError, SqliteDirectory};
use crate::users::{self, Email, Grants, NewUser, Password, UserName, password};

#[derive(Args)]
pub struct User {
    #[command(flatten)]
    file: ConfigFile,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Add a user; the password comes from a prompt or from standard input.
    Add {
        name: String,
        #[command(flatten)]
        grants: GrantArguments,
        #[arg(long)]
        email: Option<String>,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// List all users.
    List {
        #[arg(long)]
        json: bool,
    },
    /// Show one user.
    Show {
        name: String,
        #[arg(long)]
        json: bool,
    },
    /// Set a new password.
    SetPassword {
        name: String,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Let nobody sign in under this name.
    Disable { name: String },
    /// Let a disabled user sign in again.
    Enable { name: String },
    /// Register a user for services, or give roles.
    Grant {
        name: String,
        #[command(flatten)]
        grants: GrantArguments,
    },
    /// Take services or roles from a user.
    Revoke {
        name: String,
        #[command(flatten)]
        grants: GrantArguments,
    },
    /// Add the users of a JSON-lines file, all of them or none.
    Import {
        /// One object a line: name, email, services, roles, and password or `password_hash`.
        file: PathBuf,
    },
}

#[derive(Args)]
struct GrantArguments {
    /// A service, by its name in the configuration.
    #[arg(long = "service", value_name = "SERVICE", num_args = 1..)]
    services: Vec<String>,
    #[arg(long = "role", value_name = "ROLE", num_args = 1..)]
    roles: Vec<String>,
}

#[derive(Args)]
struct PasswordSource {
    /// Read the password from the first line of standard input.
    #[arg(long)]
    password_stdin: bool,
}

impl User {
    pub fn carry_out(self) -> Result<(), Failure> {
        // Only a command that adds somebody may begin a directory; the others would hide a mistyped path.
        let may_create = matches!(self.command, Command::Add { .. } | Command::Import { .. });
        let (directory, config) = open_directory(&self.file, may_create)?;
        let known: Vec<&str> = config.services.iter().map(|service| &*service.name).collect();
        self.command.carry_out(&directory, &known)
    }
}

/// The directory of a configuration, which must be without fault.
pub(super) fn open_directory(file: &ConfigFile, may_create: bool) -> Result<(SqliteDirectory, Config), Failure> {
    let (config, faults) = config::read(file.path()?).map_err(Failure::because)?;
    let config = faults.or(config).map_err(Failure::because)?;
    let Users::Sqlite { path, .. } = &config.users;
    let open = if may_create { SqliteDirectory::open_or_create } else { SqliteDirectory::open };
    let directory = open(path, Clock::default())
        .map_err(|error| Failure::Failed(format!("{}: {}", path.display(), error.in_full())))?;
    Ok((directory, config))
}

impl Command {
    fn carry_out(self, directory: &SqliteDirectory, known: &[&str]) -> Result<(), Failure> {
        match self {
            Self::Add { name, grants, email, password } => {
                let email = email.as_deref().map(Email::parse).transpose().map_err(Failure::because)?;
                let new = NewUser { name: parse(&name)?, email, grants: grants.check(known)?, disabled: false };
                let hash = password::hash(&password.read()?).map_err(Failure::because)?;
                print(&directory.add(&new, &hash)?, false);
            }
            Self::List { json } => {
                for user in directory.list()? {
                    print(&user, json);
                }
            }
            Self::Show { name, json } => print(&directory.show(&parse(&name)?)?, json),
            Self::SetPassword { name, password } => {
                let name = parse(&name)?;
                let hash = password::hash(&password.read()?).map_err(Failure::because)?;
                directory.set_password_hash(&name, &hash)?;
            }
            Self::Disable { name } => directory.set_disabled(&parse(&name)?, true)?,
            Self::Enable { name } => directory.set_disabled(&parse(&name)?, false)?,
            Self::Grant { name, grants } => {
                let grants = grants.check(known)?;
                print(&directory.grant(&parse(&name)?, &grants)?, false);
            }
            // What is taken away may be a service that the configuration has no more.
            Self::Revoke { name, grants } => {
                let grants = Grants::parse(grants.services, grants.roles).map_err(Failure::because)?;
                print(&directory.revoke(&parse(&name)?, &grants)?, false);
            }
            Self::Import { file } => import(directory, &file)?,
        }
        Ok(())
    }
}

impl GrantArguments {
    fn check(self, known: &[&str]) -> Result<Grants, Failure> {
        if let Some(unknown) = self.services.iter().find(|service| !known.contains(&service.as_str())) {
            let text = format!("there is no service `{unknown}`; the configuration has: {}", known.join(", "));
            return Err(Failure::Failed(text));
        }
        Grants::parse(self.services, self.roles).map_err(Failure::because)
    }
}

impl PasswordSource {
    fn read(&self) -> Result<Password, Failure> {
        let text = if self.password_stdin {
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line).map_err(Failure::because)?;
            let line_end = line.trim_end_matches('\n').trim_end_matches('\r').len();
            line.truncate(line_end);
            line
        } else if std::io::stdin().is_terminal() {
            let first = rpassword::prompt_password("Password: ").map_err(Failure::because)?;
            let second = rpassword::prompt_password("Again: ").map_err(Failure::because)?;
            if first != second {
                return Err(Failure::Failed("the two passwords differ; nothing was changed".into()));
            }
            first
        } else {
            return Err(Failure::Usage("there is no terminal to ask at; use --password-stdin".into()));
        };
        Password::new(text).map_err(Failure::because)
    }
}

fn parse(name: &str) -> Result<UserName, Failure> {
    UserName::parse(name).map_err(Failure::because)
}

fn import(directory: &SqliteDirectory, file: &PathBuf) -> Result<(), Failure> {
    let named = |error: &dyn std::fmt::Display| Failure::Failed(format!("{}: {error}", file.display()));
    let input = std::fs::File::open(file).map_err(|error| named(&error))?;
    let entries = ImportFile::read(std::io::BufReader::new(input)).map_err(|error| named(&error))?;
    match directory.import(entries) {
        Ok(count) => {
            println!("{count} users imported");
            Ok(())
        }
        Err(ImportError::Lines(faults)) => {
            let lines: Vec<String> =
                faults.iter().map(|fault| format!("{}:{}: {}", file.display(), fault.line, fault.what)).collect();
            Err(Failure::Failed(lines.join("\n")))
        }
        Err(ImportError::Directory(error)) => Err(named(&error.in_full())),
        Err(error) => Err(named(&error)),
    }
}

fn print(user: &users::User, json: bool) {
    if json {
        println!("{}", as_json(user));
        return;
    }
    let state = if user.disabled { "  (disabled)" } else { "" };
    println!("{}{state}", user.name.as_str());
    println!("  id        {}", user.id.as_str());
    println!("  email     {}", user.email.as_deref().unwrap_or("-"));
    println!("  services  {}", user.services.join(", "));
    println!("  roles     {}", user.roles.join(", "));
    println!("  created   {}", user.created.rfc3339());
}

fn as_json(user: &users::User) -> Value {
    json!({
        "id": user.id.as_str(),
        "name": user.name.as_str(),
        "email": user.email,
        "services": user.services,
        "roles": user.roles,
        "disabled": user.disabled,
        "created": user.created.rfc3339(),
    })
}
