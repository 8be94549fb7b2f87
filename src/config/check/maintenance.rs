//! `error_pages` and `maintenance` of a service.

use std::collections::BTreeMap;
use std::path::PathBuf;

use http::StatusCode;

use super::Check;
use crate::config::file::{self, ErrorStatus};
use crate::config::{Access, Maintenance};

/// The statuses, with their files, which are read later with the other files.
pub fn error_pages(
    check: &mut Check<'_>,
    place: &str,
    written: &BTreeMap<ErrorStatus, String>,
) -> Vec<(StatusCode, PathBuf)> {
    let mut pages = Vec::new();
    for (ErrorStatus(status), path) in written {
        let key = format!("{place}.error_pages.{status}");
        let is_number = status.bytes().all(|b| b.is_ascii_digit());
        let code = status.parse().ok().filter(|code| is_number && (400..600).contains(code));
        match code.and_then(|code| StatusCode::from_u16(code).ok()) {
            Some(code) if path.is_empty() => check.fault(key, format!("no page for {code}"), "name a file with HTML"),
            Some(code) => pages.push((code, check.path(path))),
            None => check.fault(key, format!("`{status}` is not the status of an error"), "write one of 400 to 599"),
        }
    }
    pages
}

/// The maintenance of a service. Its file is looked for with the other files.
pub fn maintenance(check: &mut Check<'_>, place: &str, written: &file::Maintenance) -> Maintenance {
    let key = format!("{place}.maintenance");
    let file = written.file.as_deref().map(|path| check.path(path));
    if written.file.as_deref() == Some("") {
        check.fault(format!("{key}.file"), "empty", "name a file, such as /run/iqueue.maintenance");
    }
    let roles = &written.except.roles;
    Maintenance {
        file: file.filter(|_| written.file.as_deref() != Some("")),
        addresses: check.networks(&format!("{key}.except.addresses"), &written.except.addresses),
        access: (!roles.is_empty()).then(|| Access::Roles(roles.clone())),
    }
}
