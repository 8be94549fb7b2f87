//! The audit log's lines of commands that change users: what an administrator did stands beside what users do.
//!
//! A command is a process of its own, so it appends to the file that the configuration names, whole lines in one write,
//! as the edge does. It makes no such file, which would be its own and not the edge's; where the log is standard output
//! there is none to append to.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

use super::output;
use crate::clock::Clock;
use crate::config::{Config, LogTarget};
use crate::log_writer;
use crate::users::{Grants, UserName};

/// One change of one user.
#[derive(Clone, Copy)]
pub enum Change<'a> {
    Added(&'a Grants),
    Imported,
    PasswordSet,
    Disabled,
    Enabled,
    Unlocked,
    Granted(&'a Grants),
    Revoked(&'a Grants),
    SessionsEnded,
}

/// Absent parts are left out.
#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    /// All users.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    all: bool,
    change: &'static str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    services: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    roles: &'a [String],
    /// The user id of the command's process.
    #[serde(skip_serializing_if = "Option::is_none")]
    actor_uid: Option<u32>,
    /// The user who became that one by `sudo`, as sudo says.
    #[serde(skip_serializing_if = "Option::is_none")]
    sudo_user: Option<&'a str>,
}

/// Writes that these users were changed. The change itself is done: a log that cannot be written is said.
pub fn write(config: &Config, change: Change<'_>, users: &[UserName]) {
    let users: Vec<Option<&str>> = users.iter().map(|user| Some(user.as_str())).collect();
    write_lines(config, change, &users);
}

/// Writes that all users were changed, in one line.
pub fn write_for_all(config: &Config, change: Change<'_>) {
    write_lines(config, change, &[None]);
}

fn write_lines(config: &Config, change: Change<'_>, users: &[Option<&str>]) {
    let LogTarget::File(path) = &config.log.audit else { return };
    if !log_writer::is_file(path) {
        return;
    }
    let time = Clock::default().now().rfc3339();
    #[expect(clippy::disallowed_methods, reason = "sudo says who called it in a variable, and in no other way")]
    let sudo_user = std::env::var("SUDO_USER").ok();
    let actor_uid = std::fs::metadata("/proc/self").ok().map(|process| process.uid());
    let mut text = Vec::new();
    for &user in users {
        let (services, roles) =
            change.grants().map_or((&[][..], &[][..]), |grants| (grants.services(), grants.roles()));
        let (event, sudo_user) = ("user_changed", sudo_user.as_deref());
        let line = Line {
            time: &time,
            event,
            user,
            all: user.is_none(),
            change: change.name(),
            services,
            roles,
            actor_uid,
            sudo_user,
        };
        if serde_json::to_writer(&mut text, &line).is_ok() {
            text.push(b'\n');
        }
    }
    match append(path, &text) {
        Ok(()) => {}
        // The edge has not run yet, or its log was just moved away.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => output::note(format_args!("the change is not in the audit log: {}: {error}", path.display())),
    }
}

/// Appends to a regular file only: to open a pipe would wait for its reader.
fn append(path: &Path, text: &[u8]) -> io::Result<()> {
    if !std::fs::metadata(path)?.is_file() {
        return Ok(());
    }
    OpenOptions::new().append(true).open(path)?.write_all(text)
}

impl Change<'_> {
    fn name(self) -> &'static str {
        match self {
            Self::Added(_) => "added",
            Self::Imported => "imported",
            Self::PasswordSet => "password_set",
            Self::Disabled => "disabled",
            Self::Enabled => "enabled",
            Self::Unlocked => "unlocked",
            Self::Granted(_) => "granted",
            Self::Revoked(_) => "revoked",
            Self::SessionsEnded => "sessions_ended",
        }
    }

    fn grants(&self) -> Option<&Grants> {
        match self {
            Self::Added(grants) | Self::Granted(grants) | Self::Revoked(grants) => Some(grants),
            _ => None,
        }
    }
}
