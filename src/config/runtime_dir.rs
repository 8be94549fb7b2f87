//! Where an edge has its runtime directory (`server.runtime_dir`), and where commands look for that of a running edge.
//!
//! Both go by the configuration file, so that a command needs `-c FILE` and nothing else.

use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};

/// The socket's name in the runtime directory.
pub const CONTROL_SOCKET: &str = "control.sock";

/// The longest path of a socket, in bytes: `sun_path` of unix(7) has 108 with the zero at its end.
pub const MAX_SOCKET_PATH: usize = 107;

/// The runtime directory of the shipped systemd unit; those of edges without one are folders in it.
const SHARED: &str = "/run/sentry-edge";

/// In a folder with this bit only the owner of an entry, of the folder and root rename the entry.
const STICKY: u32 = 0o1000;

/// The variable in which systemd names the directories that it has made (`RuntimeDirectory=`).
const VARIABLE: &str = "RUNTIME_DIRECTORY";

/// Returns 16 hexadecimal digits of the SHA-256 of `bytes`: enough to tell configurations apart, and not to find one that
/// has the same.
pub fn short_hash(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Returns by what a configuration file is known: the hash of its real path.
pub fn configuration_id(file: &Path) -> String {
    let real = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    short_hash(real.as_os_str().as_bytes())
}

/// Returns the runtime directory of an edge that is started with this file; `written` is the key's value.
pub fn runtime_dir(written: Option<&Path>, file: &Path) -> PathBuf {
    choose(written, from_environment(), file)
}

/// Returns the folders in which the socket of a running edge may be, the likeliest first. The configuration may have been
/// edited since the edge was started, and systemd sets its variable for the service alone, so it may be in any of them;
/// the edge that answers there says whether the configuration is its own.
pub fn places(written: Option<&Path>, file: &Path) -> Vec<PathBuf> {
    all_places(written, from_environment(), file)
}

/// Whether other users than the owner may write to a folder. A group of the owner's number is the owner's alone, as most
/// systems make one for each user.
pub fn others_may_write(folder: &Metadata) -> bool {
    let writers = if folder.gid() == folder.uid() { 0o002 } else { 0o022 };
    folder.mode() & writers != 0
}

/// Checks that only `owners` can put another folder in the place of this one: no folder above it belongs to other
/// users or may be written to by them, save with the sticky bit, as /tmp has it. The folder itself is not looked at.
pub fn check_parents(folder: &Path, owners: &[u32]) -> Result<(), String> {
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Links are followed: what counts is where the folder is.
    let parent = std::fs::canonicalize(parent).map_err(|error| format!("{}: {error}", parent.display()))?;
    for above in parent.ancestors() {
        let found = std::fs::symlink_metadata(above).map_err(|error| format!("{}: {error}", above.display()))?;
        let (name, mode) = (above.display(), found.mode());
        if !owners.contains(&found.uid()) {
            return Err(format!("{name} above it belongs to user id {}", found.uid()));
        }
        if others_may_write(&found) && mode & STICKY == 0 {
            return Err(format!("others may write to {name} above it: it has mode {:04o}", mode & 0o7777));
        }
    }
    Ok(())
}

fn choose(written: Option<&Path>, environment: Option<PathBuf>, file: &Path) -> PathBuf {
    written.map(Path::to_owned).or(environment).unwrap_or_else(|| own_folder(file))
}

fn all_places(written: Option<&Path>, environment: Option<PathBuf>, file: &Path) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = Vec::new();
    let shared = [own_folder(file), PathBuf::from(SHARED)];
    for place in written.map(Path::to_owned).into_iter().chain(environment).chain(shared) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

fn own_folder(file: &Path) -> PathBuf {
    Path::new(SHARED).join(configuration_id(file))
}

/// systemd separates several directories by colons; the first one is ours.
#[expect(clippy::disallowed_methods, reason = "systemd names the directory in a variable, and in no other way")]
fn from_environment() -> Option<PathBuf> {
    let value = std::env::var_os(VARIABLE)?;
    let first = value.as_bytes().split(|byte| *byte == b':').next().unwrap_or_default();
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(first));
    path.is_absolute().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_comes_before_the_environment_and_both_before_the_folder_of_the_file() {
        let (file, written) = (Path::new("/no/such/edge.yaml"), Path::new("/srv/edge"));
        let environment = || Some(PathBuf::from("/run/unit"));
        let own = PathBuf::from("/run/sentry-edge").join(short_hash(b"/no/such/edge.yaml"));
        assert_eq!(choose(Some(written), environment(), file), written);
        assert_eq!(choose(None, environment(), file), Path::new("/run/unit"));
        assert_eq!(choose(None, None, file), own);
        let all = [written, Path::new("/run/unit"), &own, Path::new("/run/sentry-edge")].map(Path::to_owned);
        assert_eq!(all_places(Some(written), environment(), file), all);
        assert_eq!(all_places(None, Some("/run/sentry-edge".into()), file), [PathBuf::from(SHARED), own]);
    }

    #[test]
    fn a_folder_is_safe_when_no_other_user_can_replace_what_is_above_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let above = folder.path().join("above");
        let below = above.join("between/run");
        std::fs::create_dir_all(&below).unwrap();
        let own = std::fs::metadata(&above).unwrap().uid();
        for (mode, good) in [(0o700, true), (0o755, true), (0o1777, true), (0o777, false), (0o702, false)] {
            std::fs::set_permissions(&above, std::fs::Permissions::from_mode(mode)).unwrap();
            let checked = check_parents(&below, &[0, own]);
            assert_eq!(checked.is_ok(), good, "{mode:o}: {checked:?}");
        }
        std::fs::set_permissions(&above, std::fs::Permissions::from_mode(0o700)).unwrap();
        let stranger = check_parents(&below, &[4_000_000]).unwrap_err();
        assert!(stranger.contains(&format!("belongs to user id {own}")), "{stranger}");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&above, &link).unwrap();
        std::fs::set_permissions(&above, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(check_parents(&link.join("run"), &[0, own]).is_err(), "a link leads there");
    }

    #[test]
    fn a_configuration_is_known_by_its_real_path() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("edge.yaml"), folder.path().join("link.yaml"));
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(configuration_id(&file), configuration_id(&link));
        assert_ne!(configuration_id(&file), configuration_id(&folder.path().join("other.yaml")));
        // As `printf %s /etc/sentry-edge/edge.yaml | sha256sum | cut -c1-16` has it.
        assert_eq!(short_hash(b"/etc/sentry-edge/edge.yaml").len(), 16);
        assert_eq!(short_hash(b"abc"), "ba7816bf8f01cfea");
    }
}
