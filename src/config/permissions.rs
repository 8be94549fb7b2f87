//! Warnings about files that every user of the machine may read, or change.
//!
//! What a group may do is left alone: operators give a renewal program, a backup or the service itself its rights by a
//! group. Only files that exist are judged: a missing file is a fault of the code that reads it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Config, Faults, KeyMaterial, SecretSource, Service};

const ALL_MAY_READ: u32 = 0o004;
const ALL_MAY_WRITE: u32 = 0o002;
/// In such a folder only its owner may put another file in the place of one.
const STICKY: u32 = 0o1000;

/// What a file is to the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    /// What its reader can sign, decrypt or sign in with, or try passwords against.
    Secrets,
    /// What the edge believes.
    Trust,
}

/// Adds a warning for each file named in `config`, and for the configuration file, that all may read or write.
pub fn warn_of_permissions(config: &Config, faults: &mut Faults) {
    let mut judge = |place: &str, path: &Path, holds: Holds| {
        if let Some((what, write)) = fault_of(path, holds) {
            faults.warn(place, what, write);
        }
    };
    for (place, source) in secrets(config) {
        if let SecretSource::File(path) = source {
            // Public halves are secrets by their type, and no secret.
            judge(&place, path, if place.ends_with(".public_key") { Holds::Trust } else { Holds::Secrets });
        }
    }
    for (place, path, holds) in files(config) {
        judge(&place, path, holds);
    }
    let written_here = secrets(config).find(|(_, source)| matches!(source, SecretSource::Value(_)));
    let file = faults.file().to_owned();
    match written_here.map(|(place, _)| place) {
        Some(place) => judge_file(&place, &file, Holds::Secrets, faults),
        None => judge_file("", &file, Holds::Trust, faults),
    }
}

/// The configuration file itself; a secret in it is named as the reason.
fn judge_file(place: &str, file: &Path, holds: Holds, faults: &mut Faults) {
    if let Some((what, write)) = fault_of(file, holds) {
        faults.warn(place, format!("of this configuration file: {what}"), write);
    }
}

/// Returns what is wrong with the permissions of a file, and the remedy. The path is left out: the fault names its key.
fn fault_of(path: &Path, holds: Holds) -> Option<(String, String)> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder_mode = std::fs::metadata(folder).map_or(0, |folder| folder.permissions().mode());
    let may = if mode & ALL_MAY_WRITE != 0 {
        "write"
    } else if mode & ALL_MAY_READ != 0 && holds == Holds::Secrets {
        "read"
    } else if folder_mode & ALL_MAY_WRITE != 0 && folder_mode & STICKY == 0 {
        let what =
            format!("every user of this machine may replace it: its folder has mode {:04o}", folder_mode & 0o7777);
        return Some((what, "take it away with chmod o-w".into()));
    } else {
        return None;
    };
    let what = format!("every user of this machine may {may} it: it has mode {:04o}", mode & 0o7777);
    Some((what, "take it away with chmod o-rwx".into()))
}

/// Every secret with the place of its key.
fn secrets(config: &Config) -> impl Iterator<Item = (String, &SecretSource)> {
    let keys = config.sentry.keys.iter().map(|key| {
        let (name, source) = match &key.material {
            KeyMaterial::Secret(source) => ("secret", source),
            KeyMaterial::Private(source) => ("private_key", source),
            KeyMaterial::Public(source) => ("public_key", source),
        };
        (format!("{}.{name}", key.place), source)
    });
    let tickets = config.tls.tickets.secret.iter().map(|source| ("tls.tickets.secret".to_owned(), source));
    let admin = config.server.admin.tokens.iter().map(|token| (token.place.clone(), &token.secret));
    let mut fields: Vec<_> = config.services.iter().flat_map(Service::field_secrets).collect();
    fields.sort_by_key(|(place, _)| *place);
    fields.dedup_by_key(|(place, _)| *place);
    keys.chain(tickets).chain(admin).chain(fields.into_iter().map(|(place, source)| (place.to_owned(), source)))
}

/// Every other file with the place of its key.
fn files(config: &Config) -> Vec<(String, &Path, Holds)> {
    let mut files: Vec<(String, &Path, Holds)> = Vec::new();
    for pair in &config.tls.certificates {
        files.push((format!("{}.key", pair.place), &pair.key, Holds::Secrets));
        files.push((format!("{}.certificate", pair.place), &pair.certificate, Holds::Trust));
    }
    for host in &config.tls.hosts {
        files.extend(host.clients.iter().map(|clients| {
            let ca: &Path = &clients.ca;
            (format!("{}.client_ca", host.place), ca, Holds::Trust)
        }));
    }
    for tls in config.pools.iter().filter_map(|pool| pool.tls.as_ref()) {
        files.extend(tls.ca.iter().map(|ca| (format!("{}.ca", tls.place), ca.as_path(), Holds::Trust)));
        if let Some(client) = &tls.client {
            files.push((format!("{}.client_key", tls.place), &client.key, Holds::Secrets));
            files.push((format!("{}.client_certificate", tls.place), &client.certificate, Holds::Trust));
        }
    }
    files.extend(config.users.file().map(|path| ("users.sqlite.path".into(), path, Holds::Secrets)));
    files
        .extend(config.sentry.login.logo.iter().map(|logo| ("sentry.login.logo".into(), logo.as_path(), Holds::Trust)));
    files
}
