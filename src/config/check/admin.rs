//! `server.admin` and `server.runtime_dir`: who may administer a running edge, and where its control socket is.

use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Check, defaults, file};
use crate::config::reading::Sealed;
use crate::config::runtime_dir::{CONTROL_SOCKET, MAX_SOCKET_PATH};
use crate::config::{Admin, AdminRole, AdminToken};

const TOKENS: &str = "server.admin.tokens";

/// The name of the token of `server.admin.token`.
const ONLY: &str = "admin";

/// Names are in the audit log and in metrics' neighbourhood: short, and without anything to escape.
const MAX_NAME: usize = 31;

pub(super) fn admin(check: &mut Check<'_>, written: file::Admin) -> Admin {
    let address = written.address.as_deref().unwrap_or(defaults::ADMIN_ADDRESS).parse();
    if address.is_err() {
        // Not quoted: the token may have been written here.
        check.fault("server.admin.address", "this is no address", "write IP:PORT, such as 127.0.0.1:9090");
    }
    let mut tokens = Vec::new();
    if let Some(secret) = written.token.and_then(|token| check.secret("server.admin.token", &token)) {
        let place = "server.admin.token".to_owned();
        tokens.push(AdminToken { place, name: ONLY.into(), role: AdminRole::Admin, secret });
    }
    for (name, sealed) in written.tokens {
        tokens.extend(token(check, &name, sealed));
    }
    if tokens.iter().filter(|token| &*token.name == ONLY).count() > 1 {
        let write = format!("remove one of `server.admin.token` and `{TOKENS}.{ONLY}`");
        check.fault("server.admin.token", "there are two tokens of the name `admin`", write);
    }
    Admin { address: address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))), tokens }
}

/// Until it is certain that this is a token with a name, the name is not shown: a secret may have been written in its
/// place.
fn token(check: &mut Check<'_>, name: &str, sealed: Sealed<file::AdminToken>) -> Option<AdminToken> {
    let write = "write NAME: {secret: {file: PATH}, role: admin}, or `role: help_desk`";
    let place = format!("{TOKENS}.{name}");
    let (Some(file::AdminToken { secret: Some(secret), role: Some(role) }), true) = (sealed.sound(), is_name(name))
    else {
        let what = "this is no token with a name of up to 31 letters, digits, `-`, `_` and `.`, a secret and a role";
        check.faults.add_beneath(TOKENS, &place, what, write);
        return None;
    };
    let secret = check.secret(&format!("{place}.secret"), &secret)?;
    Some(AdminToken { place: format!("{place}.secret"), name: name.into(), role, secret })
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(plain)
}

/// Checks the key without making the folder. `None` where it is not written.
pub(super) fn runtime_dir(check: &mut Check<'_>, written: Option<&str>) -> Option<PathBuf> {
    const KEY: &str = "server.runtime_dir";
    let write = "name a folder of the edge's own, such as /run/sentry-edge";
    let path = check.path(written?);
    if path.join(CONTROL_SOCKET).as_os_str().as_bytes().len() > MAX_SOCKET_PATH {
        let what = format!("too long: the path of the socket in it may have {MAX_SOCKET_PATH} bytes");
        check.fault(KEY, what, "name a folder with a shorter path");
    } else if let Some(file) = first_that_is_no_folder(&path) {
        check.fault(KEY, format!("{} is no folder", file.display()), write);
    }
    Some(path)
}

/// Returns the first part of a path that is something else than a folder, if there is one.
fn first_that_is_no_folder(path: &Path) -> Option<&Path> {
    let existing = path.ancestors().find(|path| path.symlink_metadata().is_ok())?;
    (!existing.is_dir()).then_some(existing)
}
