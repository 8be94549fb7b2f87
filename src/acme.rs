//! Challenges of certificate authorities (ACME `http-01`, RFC 8555 §8.3): what a client such as certbot has put into a
//! folder, for an authority to fetch over plain HTTP.
//!
//! The folder may be on a disk that hangs, so it is read outside the request workers, by a few threads at once, within
//! a deadline. Only a regular file in it is served, and no link is followed.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use tokio::sync::Semaphore;

use crate::blocking::BlockingThreads;
use crate::config::Faults;

/// The path below which an authority requests challenges.
const PREFIX: &str = "/.well-known/acme-challenge/";
/// Clients that are given the root of a web site write below these, others into the folder itself.
const WEBROOT_FOLDERS: [&str; 2] = [".well-known", "acme-challenge"];
/// A file's name has no more bytes.
const MAX_TOKEN_BYTES: usize = 255;
/// A token and the thumbprint of a key are some hundred bytes.
const MAX_FILE_BYTES: u64 = 16 << 10;
/// Threads that may wait for the disk: fewer than there are for what blocks, so that others find one (`server::workers`).
const MAX_READS: usize = 4;
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Returns the token of a challenge that a path requests, in any spelling; `None` where the path is not that of a
/// challenge.
pub fn challenge_token(path: &str) -> Option<&str> {
    path.strip_prefix(PREFIX)
}

/// Adds what is wrong with the folder that a configuration names.
pub fn check_root(root: Option<&PathBuf>, threads: &BlockingThreads, faults: &mut Faults) {
    let Some(root) = root else { return };
    let looked_at = root.clone();
    let look = move || std::fs::read_dir(&looked_at).map(drop);
    let key = "server.acme_challenge.root";
    let write = "name the folder that the ACME client writes to, such as /var/lib/acme";
    match threads.look([(root.clone(), look)].into_iter()).remove(root) {
        Some(Ok(())) => {}
        Some(Err(error)) => faults.add(key, format!("cannot read the folder {}: {error}", root.display()), write),
        None => faults.warn(key, format!("the file system of {} does not answer", root.display()), write),
    }
}

/// The result of reading a challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChallengeFile {
    Content(Bytes),
    Missing,
    /// The file is there, or may be, and cannot be read.
    Unreadable,
    /// The disk does not answer, or too many reads wait for it already.
    TimedOut,
}

/// One value for the process, whatever its configuration: a thread that waits for a disk outlives a reload.
pub struct Challenges {
    permits: Arc<Semaphore>,
}

impl Default for Challenges {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(MAX_READS)) }
    }
}

impl Challenges {
    pub async fn read(&self, root: &Path, token: &str) -> ChallengeFile {
        if !is_token(token) {
            return ChallengeFile::Missing;
        }
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else { return ChallengeFile::TimedOut };
        let (root, token) = (root.to_owned(), token.to_owned());
        #[expect(clippy::disallowed_methods, reason = "authorities read rarely, and only a few threads wait")]
        let reading = tokio::task::spawn_blocking(move || {
            // Held until the thread is free again, also where the request was given up.
            let _permit = permit;
            read(&root, &token)
        });
        match tokio::time::timeout(READ_TIMEOUT, reading).await {
            Ok(Ok(Ok(bytes))) => ChallengeFile::Content(bytes),
            Ok(Ok(Err(error))) if error.kind() == io::ErrorKind::NotFound => ChallengeFile::Missing,
            Ok(Ok(Err(_))) | Ok(Err(_)) => ChallengeFile::Unreadable,
            Err(_) => ChallengeFile::TimedOut,
        }
    }
}

/// RFC 8555 §8.3: of the alphabet of base64url, so it is the name of a file and never a path.
fn is_token(text: &str) -> bool {
    (1..=MAX_TOKEN_BYTES).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn read(root: &Path, token: &str) -> io::Result<Bytes> {
    let root = File::open(root)?;
    let below =
        WEBROOT_FOLDERS.iter().try_fold(root.try_clone()?, |folder, name| open(&folder, name, OFlag::O_DIRECTORY));
    match below.and_then(|folder| regular(&folder, token)) {
        Ok(bytes) => Ok(bytes),
        Err(error) => match regular(&root, token) {
            // An error of a file that exists is more telling than that the other file does not exist.
            Err(other) if other.kind() == io::ErrorKind::NotFound => Err(error),
            result => result,
        },
    }
}

/// Opens a file of a folder. A link is not followed, and a pipe without a writer does not block.
fn open(folder: &impl AsFd, name: &str, kind: OFlag) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | kind;
    let missing = |error: nix::errno::Errno| match error {
        // A link, or no folder: as if it were not there.
        nix::errno::Errno::ELOOP | nix::errno::Errno::ENOTDIR => io::ErrorKind::NotFound.into(),
        other => io::Error::from(other),
    };
    openat(folder, name, flags, Mode::empty()).map(File::from).map_err(missing)
}

fn regular(folder: &impl AsFd, name: &str) -> io::Result<Bytes> {
    let file = open(folder, name, OFlag::empty())?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(about.len().min(MAX_FILE_BYTES)).unwrap_or_default());
    // It may have grown since.
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[tokio::test]
    async fn a_regular_file_of_the_folder_is_found_and_nothing_else() {
        let (outside, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = folder.path();
        let write = |name: &str, text: &str| std::fs::write(root.join(name), text).unwrap();
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        write("plain", "plain.print");
        write("empty", "");
        write("largest", &"x".repeat(16 << 10));
        write("larger", &"x".repeat((16 << 10) + 1));
        write("a.b", "dots");
        std::fs::create_dir(root.join("folder")).unwrap();
        symlink(outside.path().join("secret"), root.join("link")).unwrap();
        symlink("plain", root.join("inner")).unwrap();
        nix::unistd::mkfifo(&root.join("pipe"), Mode::S_IRWXU).unwrap();
        std::fs::create_dir_all(root.join(".well-known/acme-challenge")).unwrap();
        write(".well-known/acme-challenge/nested", "nested.print");
        write(".well-known/acme-challenge/plain", "the one below goes first");
        let challenges = Challenges::default();
        let found = |text: &str| ChallengeFile::Content(Bytes::copy_from_slice(text.as_bytes()));
        for (token, expected) in [
            ("plain", found("the one below goes first")),
            ("nested", found("nested.print")),
            ("empty", found("")),
            ("largest", found(&"x".repeat(16 << 10))),
            ("larger", ChallengeFile::Unreadable),
            ("none", ChallengeFile::Missing),
            ("folder", ChallengeFile::Missing),
            ("link", ChallengeFile::Missing),
            ("inner", ChallengeFile::Missing),
            ("pipe", ChallengeFile::Missing),
            ("a.b", ChallengeFile::Missing),
            ("", ChallengeFile::Missing),
            (".", ChallengeFile::Missing),
            ("..", ChallengeFile::Missing),
            ("../plain", ChallengeFile::Missing),
            ("folder/../plain", ChallengeFile::Missing),
            ("/etc/passwd", ChallengeFile::Missing),
            ("%70lain", ChallengeFile::Missing),
            ("pl\0ain", ChallengeFile::Missing),
            ("plain ", ChallengeFile::Missing),
            ("pläin", ChallengeFile::Missing),
        ] {
            assert_eq!(challenges.read(root, token).await, expected, "{token:?}");
        }
        assert_eq!(challenges.read(root, &"x".repeat(256)).await, ChallengeFile::Missing);
        assert_eq!(challenges.read(&root.join("none"), "plain").await, ChallengeFile::Missing);
        std::fs::remove_dir_all(root.join(".well-known")).unwrap();
        symlink(outside.path(), root.join(".well-known")).unwrap();
        std::fs::create_dir(outside.path().join("acme-challenge")).unwrap();
        std::fs::write(outside.path().join("acme-challenge/nested"), "secret").unwrap();
        assert_eq!(challenges.read(root, "nested").await, ChallengeFile::Missing, "behind a link");
        assert_eq!(challenges.read(root, "plain").await, found("plain.print"));
    }

    #[tokio::test]
    async fn no_more_than_a_few_wait_for_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("plain"), "plain").unwrap();
        let challenges = Challenges::default();
        let all = Arc::clone(&challenges.permits).acquire_many_owned(4).await.unwrap();
        assert_eq!(challenges.read(folder.path(), "plain").await, ChallengeFile::TimedOut);
        drop(all);
        assert!(matches!(challenges.read(folder.path(), "plain").await, ChallengeFile::Content(_)));
    }
}
