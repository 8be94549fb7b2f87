//! The folders that a configuration serves files of: whether they are there, and fit to be served.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::blocking::BlockingThreads;
use crate::config::{self, Action, Config, Faults};

const ROOT: &str = "name the folder with the files, such as /srv/www";

/// What a look at a folder has found.
struct Root {
    /// Its path without links.
    real: PathBuf,
    is_folder: bool,
    /// True where there is none to look for.
    has_fallback: bool,
}

impl Root {
    /// May block.
    fn at(root: &Path, fallback: Option<&OsStr>) -> io::Result<Self> {
        let real = std::fs::canonicalize(root)?;
        let has_fallback = fallback.is_none_or(|fallback| real.join(fallback).is_file());
        Ok(Self { is_folder: real.is_dir(), real, has_fallback })
    }
}

/// Adds what is wrong with the folders that a configuration serves files of. They are looked at all at once, as each may be
/// on a file system that does not answer: then its requests get `503`, and the others are served.
pub fn check_roots(config: &Config, threads: &BlockingThreads, faults: &mut Faults) {
    let routes = config.services.iter().flat_map(|service| {
        let key = move |at: usize| format!("services.{}.routes[{at}].files", service.name);
        service.routes.iter().enumerate().map(move |(at, route)| (key(at), &route.action))
    });
    let named = routes.filter_map(|(key, action)| match action {
        // That none is named was reported already.
        Action::Files(files) if !files.root.as_os_str().is_empty() => Some((key, files)),
        _ => None,
    });
    let named: Vec<_> = named.collect();
    let found = threads.look(named.iter().map(|(_, files)| {
        let (root, fallback) = (files.root.clone(), fallback(files).map(OsStr::to_owned));
        (place(files), move || Root::at(&root, fallback.as_deref()))
    }));
    for (key, files) in named {
        check_root(&key, files, found.get(&place(files)), faults);
    }
}

fn fallback(files: &config::Files) -> Option<&OsStr> {
    files.fallback.as_ref().map(|path| OsStr::from_bytes(path.as_bytes()))
}

/// Where is looked: two routes may have one root and two fallbacks.
fn place(files: &config::Files) -> PathBuf {
    fallback(files).map_or_else(|| files.root.clone(), |fallback| files.root.join(fallback))
}

fn check_root(key: &str, files: &config::Files, found: Option<&io::Result<Root>>, faults: &mut Faults) {
    let (root, place) = (files.root.display(), format!("{key}.root"));
    let own = faults.file().parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    // The configuration has just been read there.
    let own = own.and_then(|folder| std::fs::canonicalize(folder).ok());
    match found {
        None => {
            let what = format!("the file system of {root} does not answer");
            faults.warn(place, what, "see to it: until it does, requests for these files get 503");
        }
        Some(Err(error)) => faults.add(place, format!("cannot read the folder {root}: {error}"), ROOT),
        Some(Ok(found)) if !found.is_folder => faults.add(place, format!("{root} is no folder"), ROOT),
        Some(Ok(found)) if found.real.parent().is_none() => {
            faults.add(place, "the whole file system would be served", ROOT);
        }
        Some(Ok(found)) if own.is_some_and(|own| own.starts_with(&found.real)) => {
            let what = "the configuration is below it, and would be served with what is beside it";
            faults.add(place, what, "name a folder with nothing in it but the files to serve");
        }
        Some(Ok(found)) if !found.has_fallback => {
            let what = "there is no such file below `root`, so nothing falls back to it";
            faults.warn(format!("{key}.fallback"), what, "name a file that is there");
        }
        Some(Ok(_)) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn a_folder_whose_file_system_does_not_answer_is_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        std::fs::create_dir(at("good")).unwrap();
        let file = |text: &str| {
            let text = text.replace("HANGS", &at("hangs")).replace("GOOD", &at("good")).replace("NONE", &at("none"));
            let yaml = format!(
                "{{sentry: {{host: s.test, keys: [{{id: a, algorithm: HS256, secret: {{value: {0}}}}}]}}, \
                 pools: {{p: {{servers: ['127.0.0.1:1']}}}}, services: {{a: {{hosts: [a.test], pool: p, routes: [{text}]}}}}}}",
                "x".repeat(32)
            );
            config::parse(&folder.path().join("etc/edge.yaml"), &yaml).unwrap_or_else(|faults| panic!("{faults}"))
        };
        let threads = BlockingThreads::new().unwrap();
        let (release, wait) = sync_channel::<()>(0);
        let hang = std::iter::once((PathBuf::from(at("hangs")), move || wait.recv().is_ok()));
        assert!(threads.look(hang).is_empty());
        let (config, mut faults) = file("{path: /a, files: {root: HANGS}}, {path: /b, files: {root: GOOD}}");
        check_roots(&config, &threads, &mut faults);
        let text = faults.to_string();
        assert!(text.contains("routes[0].files.root: warning: the file system of"), "{text}");
        assert!(!text.contains("routes[0].files.root: cannot") && !text.contains("routes[1]"), "{text}");
        let (config, mut faults) = file("{path: /a, files: {root: HANGS}}, {path: /b, files: {root: NONE}}");
        check_roots(&config, &threads, &mut faults);
        assert!(faults.to_string().contains("routes[1].files.root: cannot read the folder"), "{faults}");
        drop(release);
    }
}
