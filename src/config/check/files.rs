//! `files` of a route: settings that name files below a folder. Whether that is there is looked at with the other files.

use http::HeaderValue;

use super::{Check, defaults};
use crate::config::{Files, file};
use crate::path::FilePath;

pub fn files(check: &mut Check<'_>, key: &str, written: &file::Files) -> Files {
    let root = written.root.as_deref().filter(|root| !root.is_empty()).map(|root| check.path(root));
    if root.is_none() {
        check.fault(key, "no `root`", "name the folder with the files, such as /srv/www");
    }
    let index = written.index.as_deref().unwrap_or(defaults::FILES_INDEX);
    let is_name = !index.contains('/') && FilePath::of_setting(&format!("/{index}")).is_some();
    if !is_name {
        check.fault(format!("{key}.index"), format!("`{index}` is no name of a file"), "write one such as index.html");
    }
    Files {
        index: if is_name { index } else { defaults::FILES_INDEX }.to_owned(),
        fallback: written.fallback.as_deref().and_then(|text| fallback(check, &format!("{key}.fallback"), text)),
        cache_control: written.cache_control.as_deref().and_then(|text| cache_control(check, key, text)),
        // Nothing is looked for where no folder is named.
        root: root.unwrap_or_default(),
    }
}

fn fallback(check: &mut Check<'_>, key: &str, text: &str) -> Option<FilePath> {
    let path = FilePath::of_setting(text);
    if path.is_none() {
        let what = format!("`{}` is no path of a file below `root`", text.escape_debug());
        check.fault(key, what, "write one such as /index.html");
    }
    path
}

fn cache_control(check: &mut Check<'_>, key: &str, text: &str) -> Option<HeaderValue> {
    let value = HeaderValue::try_from(text).ok().filter(|value| !text.trim().is_empty() && value.to_str().is_ok());
    if value.is_none() {
        let what = format!("`{}` is no value of a field", text.escape_debug());
        check.fault(format!("{key}.cache_control"), what, "write one such as `public, max-age=3600`");
    }
    value
}
