//! `user …`: manages the user directory from the command line.

mod failures;
mod shown;

use std::cell::OnceCell;
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};

use self::shown::{as_json, shown};
use super::audit::Change;
use super::{ConfigFile, Failure, audit, output};
use crate::auth::keys::Keys;
use crate::auth::token::Tokens;
use crate::clock::Clock;
use crate::config::{self, Config, Faults};
use crate::metrics::Metrics;
use crate::sentry::claims::would_fit;
use crate::users::import::{ImportError, ImportFile, LineFault};
use crate::users::password::policy::Policy;
use crate::users::{self, Email, Grants, NewUser, Password, StoredHash, UserName, UserRegistry, password};
use failures::Failures;

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
        /// The name that the user signs in with.
        name: String,
        #[command(flatten)]
        grants: GrantArguments,
        /// The user's e-mail address, which applications receive.
        #[arg(long)]
        email: Option<String>,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// List all users.
    List {
        /// Print JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Show one user.
    Show {
        /// The name that the user signs in with.
        name: String,
        /// Print JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Set a new password. It also unlocks the account.
    SetPassword {
        /// The name that the user signs in with.
        name: String,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Disable a user, who can no longer sign in.
    Disable {
        /// The name that the user signs in with.
        name: String,
    },
    /// Enable a disabled user. It also unlocks the account.
    Enable {
        /// The name that the user signs in with.
        name: String,
    },
    /// Unlock an account after failed logins, on every edge.
    Unlock {
        /// The name that the user signs in with.
        name: String,
    },
    /// Register a user for services, or grant roles.
    Grant {
        /// The name that the user signs in with.
        name: String,
        #[command(flatten)]
        grants: GrantArguments,
    },
    /// Revoke services or roles of a user.
    Revoke {
        /// The name that the user signs in with.
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
    /// A role: a name that routes require and applications receive.
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
    pub fn run(self) -> Result<(), Failure> {
        // Only a command that adds users may create a directory: the others would hide a mistyped path.
        let may_create = matches!(self.command, Command::Add { .. } | Command::Import { .. });
        let (registry, config) = open_registry(&self.file, may_create)?;
        let commands = UserCommands { registry, config, tokens: OnceCell::new() };
        match self.command {
            Command::Add { name, grants, email, password } => commands.add(&name, grants, email.as_deref(), &password),
            Command::List { json } => commands.list(json),
            Command::Show { name, json } => commands.show(&parse(&name)?, json),
            Command::SetPassword { name, password } => commands.set_password(&parse(&name)?, &password),
            Command::Disable { name } => commands.disable(&parse(&name)?),
            Command::Enable { name } => commands.enable(&parse(&name)?),
            Command::Unlock { name } => commands.unlock(&parse(&name)?),
            Command::Grant { name, grants } => commands.grant(&parse(&name)?, grants),
            Command::Revoke { name, grants } => commands.revoke(&parse(&name)?, grants),
            Command::Import { file } => commands.import(&file),
        }
    }
}

/// Opens the user directory of a configuration, which must have no faults.
pub(super) fn open_registry(file: &ConfigFile, may_create: bool) -> Result<(Arc<dyn UserRegistry>, Config), Failure> {
    let (config, faults) = config::read(file.path()?).map_err(Failure::because)?;
    let config = faults.or(config).map_err(Failure::because)?;
    let open = if may_create { users::open_or_create } else { users::open };
    let directory = open(&config.users.store, Clock::default())?;
    Ok((directory.registry, config))
}

/// The commands, on the user directory of a configuration.
struct UserCommands {
    registry: Arc<dyn UserRegistry>,
    config: Config,
    /// Made at the first use; `None` if the configuration's key cannot sign.
    tokens: OnceCell<Option<Tokens>>,
}

impl UserCommands {
    fn add(
        &self,
        name: &str,
        grants: GrantArguments,
        email: Option<&str>,
        password: &PasswordSource,
    ) -> Result<(), Failure> {
        let email = email.map(Email::parse).transpose().map_err(Failure::because)?;
        let new = NewUser { name: parse(name)?, email, grants: self.parse_grants(grants)?, disabled: false };
        self.check_size(&tentative(&new)).map_err(Failure::Failed)?;
        let hash = self.hash(&password.read()?, &new.name, new.email.as_ref().map(Email::as_str))?;
        let user = self.registry.add(&new, &hash)?;
        self.audit(Change::Added(&new.grants), &user.name);
        output::print(format_args!("{} was added\n{}", user.name, shown(&user, false)))
    }

    fn list(&self, json: bool) -> Result<(), Failure> {
        let users = self.registry.list()?;
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        let mut written = users.iter().try_for_each(|user| writeln!(out, "{}", shown(user, json)));
        written = written.and_then(|()| out.flush());
        output::printed(written)
    }

    fn show(&self, name: &UserName, json: bool) -> Result<(), Failure> {
        let user = self.registry.show(name)?;
        let failures = Failures::of(&user, &self.config);
        if !json {
            let failures = failures.map(|failures| format!("\n  {:<9} {}", "failures", failures.in_words()));
            return output::print(format_args!("{}{}", shown(&user, false), failures.unwrap_or_default()));
        }
        let mut value = as_json(&user);
        if let Some(failures) = failures {
            value["failed_logins"] = failures.as_json();
        }
        output::print(value)
    }

    fn set_password(&self, name: &UserName, password: &PasswordSource) -> Result<(), Failure> {
        let user = self.registry.show(name)?;
        let hash = self.hash(&password.read()?, name, user.email.as_deref())?;
        self.registry.set_password_hash(name, &hash)?;
        self.audit(Change::PasswordSet, name);
        output::print(format_args!("the password of {name} was set; open sessions end within {}", self.within()))
    }

    fn disable(&self, name: &UserName) -> Result<(), Failure> {
        self.registry.set_disabled(name, true)?;
        self.audit(Change::Disabled, name);
        output::print(format_args!("{name} was disabled; open sessions end within {}", self.within()))
    }

    fn enable(&self, name: &UserName) -> Result<(), Failure> {
        self.registry.set_disabled(name, false)?;
        self.audit(Change::Enabled, name);
        output::print(format_args!("{name} was enabled and may sign in again; earlier sessions stay ended"))
    }

    /// Unlocks an account whether it is locked or not, which only the session store that counted the failures knows.
    fn unlock(&self, name: &UserName) -> Result<(), Failure> {
        self.registry.unlock(name)?;
        self.audit(Change::Unlocked, name);
        output::print(format_args!("{name} was unlocked; failed logins until now no longer count"))
    }

    fn policy(&self) -> Policy {
        Policy { least: self.config.users.min_password_length }
    }

    /// Checks a password against the policy and hashes it.
    fn hash(&self, password: &Password, name: &UserName, email: Option<&str>) -> Result<StoredHash, Failure> {
        self.policy().check(password, name, email).map_err(Failure::because)?;
        password::hash(password).map_err(Failure::because)
    }

    fn grant(&self, name: &UserName, grants: GrantArguments) -> Result<(), Failure> {
        let grants = self.parse_grants(grants)?;
        let mut user = self.registry.show(name)?;
        merge(&mut user.services, grants.services());
        merge(&mut user.roles, grants.roles());
        self.check_size(&user).map_err(Failure::Failed)?;
        let user = self.registry.grant(name, &grants)?;
        self.audit(Change::Granted(&grants), name);
        let within = self.within();
        output::print(format_args!(
            "{name} was granted {}; open sessions have it within {within}\n{}",
            listed(&grants),
            shown(&user, false)
        ))
    }

    /// Revokes services and roles, also services that the configuration no longer has.
    fn revoke(&self, name: &UserName, grants: GrantArguments) -> Result<(), Failure> {
        let grants = Grants::parse(grants.services, grants.roles).map_err(Failure::because)?;
        let user = self.registry.revoke(name, &grants)?;
        self.audit(Change::Revoked(&grants), name);
        let within = self.within();
        output::print(format_args!(
            "{name} no longer has {}; open sessions lose it within {within}\n{}",
            listed(&grants),
            shown(&user, false)
        ))
    }

    fn import(&self, path: &Path) -> Result<(), Failure> {
        let named = |error: &dyn std::fmt::Display| Failure::Failed(format!("{}: {error}", path.display()));
        let input = std::fs::File::open(path).map_err(|error| named(&error))?;
        let mut file = ImportFile::read(std::io::BufReader::new(input)).map_err(|error| named(&error))?;
        file.check_users(|user| {
            self.check_services(user.grants.services()).and_then(|()| self.check_size(&tentative(user)))
        });
        file.check_passwords(self.policy());
        let names = file.names();
        match file.add_to(&*self.registry) {
            Ok(count) => {
                audit::write(&self.config, Change::Imported, &names);
                output::print(format_args!("{count} users imported"))
            }
            Err(ImportError::Lines(faults)) => {
                let line = |fault: &LineFault| format!("{}:{}: {}", path.display(), fault.line, fault.what);
                Err(Failure::Failed(faults.iter().map(line).collect::<Vec<_>>().join("\n")))
            }
            Err(ImportError::Directory(error)) => Err(named(&error.in_full())),
            Err(error) => Err(named(&error)),
        }
    }

    fn audit(&self, change: Change<'_>, user: &UserName) {
        audit::write(&self.config, change, std::slice::from_ref(user));
    }

    /// Returns how long it takes until a change has effect on every edge that shares the directory.
    fn within(&self) -> humantime::FormattedDuration {
        humantime::format_duration(self.config.users.refresh)
    }

    /// Parses grants, whose services must be in the configuration.
    fn parse_grants(&self, grants: GrantArguments) -> Result<Grants, Failure> {
        self.check_services(&grants.services).map_err(Failure::Failed)?;
        Grants::parse(grants.services, grants.roles).map_err(Failure::because)
    }

    fn check_services(&self, services: &[String]) -> Result<(), String> {
        const MOST_NAMED: usize = 20;
        let known: Vec<&str> = self.config.services.iter().map(|service| &*service.name).collect();
        let unknown: Vec<String> =
            services.iter().filter(|name| !known.contains(&name.as_str())).map(|name| format!("`{name}`")).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let more = if known.len() > MOST_NAMED { ", …" } else { "" };
        let shown = known[..known.len().min(MOST_NAMED)].join(", ");
        Err(format!("there is no service {}; the configuration has: {shown}{more}", unknown.join(", ")))
    }

    /// Checks that the user could sign in with these services and roles: they are in the token, which has to fit in a cookie.
    fn check_size(&self, user: &users::User) -> Result<(), String> {
        let Some(tokens) = self.tokens.get_or_init(|| tokens(&self.config)) else { return Ok(()) };
        let fit =
            would_fit(&self.config.sentry, tokens, user, Clock::default().now()).map_err(|error| error.to_string())?;
        fit.map_err(|too_large| {
            let (services, roles) = (user.services.len(), user.roles.len());
            format!(
                "{} could not sign in with {services} services and {roles} roles: {too_large}; give fewer, or roles in \
                 the place of services",
                user.name
            )
        })
    }
}

/// Returns what signs tokens for this configuration. The faults of its keys are reported by `check`.
fn tokens(config: &Config) -> Option<Tokens> {
    let settings = &config.sentry;
    crate::auth::install_crypto();
    let keys = Keys::load(settings, &mut Faults::new(Path::new(""), ""))?;
    let cache = Metrics::new("user").ok()?.sign_on.token_cache;
    Some(Tokens::new(Arc::new(keys), settings.token.issuer.clone(), settings.token.leeway, 1, cache))
}

/// Returns the user as it would be after it was added.
fn tentative(new: &NewUser) -> users::User {
    users::User {
        id: users::UserId::random(),
        name: new.name.clone(),
        email: new.email.as_ref().map(|email| email.as_str().to_owned()),
        disabled: new.disabled,
        services: new.grants.services().to_vec(),
        roles: new.grants.roles().to_vec(),
        created: Clock::default().now(),
        change: u64::from(u32::MAX),
    }
}

fn merge(held: &mut Vec<String>, given: &[String]) {
    let fresh: Vec<String> = given.iter().filter(|name| !held.contains(name)).cloned().collect();
    held.extend(fresh);
}

/// Describes grants in a sentence.
fn listed(grants: &Grants) -> String {
    let of = |what: &str, names: &[String]| match names {
        [] => None,
        names => Some(format!("{what} {}", names.join(", "))),
    };
    let parts = [of("service", grants.services()), of("role", grants.roles())];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "nothing".into() } else { parts.join(" and ") }
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
            return Err(Failure::Usage("there is no terminal for a prompt; use --password-stdin".into()));
        };
        Password::new(text).map_err(Failure::because)
    }
}

fn parse(name: &str) -> Result<UserName, Failure> {
    UserName::parse(name).map_err(Failure::because)
}
