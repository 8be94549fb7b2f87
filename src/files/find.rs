//! Opens a regular file below a root, and nothing else: no link leads out, not one that is put in its place meanwhile
//! either, and nothing is opened that could hang or act, such as a FIFO or a device.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{Mode, SFlag, fstat};

/// How often a path is looked up again because names were changed at the same moment.
const ATTEMPTS: usize = 4;

/// What is at a path.
#[derive(Debug)]
pub enum Found {
    File(File),
    Folder,
    /// Nothing that is served: nothing at all, what is neither a file nor a folder, or a link that leads out.
    Nothing,
}

/// A folder that nothing leads out of.
pub struct Root(OwnedFd);

impl Root {
    /// Opens the folder anew for each request, so that a link to it may be changed, as a deployment does. Links on the way
    /// to it are the administrator's, and are followed.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open(path, flags, Mode::empty()).map(Self).map_err(io::Error::from)
    }

    /// Opens what is at a relative path. Errors when the file system fails, or does not allow it.
    pub fn find(&self, path: &[u8]) -> io::Result<Found> {
        let mut result = Ok(Found::Nothing);
        for _ in 0..ATTEMPTS {
            result = self.try_find(path);
            // A name was changed while the kernel followed a link (openat2(2)), or the file has a lease (fcntl(2)).
            if !matches!(result, Err(Errno::EAGAIN)) {
                break;
            }
        }
        match result {
            Err(
                // Nothing of that name; or a link that leads out, or round in a circle.
                Errno::ENOENT | Errno::ENOTDIR | Errno::EXDEV | Errno::ELOOP | Errno::ENAMETOOLONG | Errno::ENXIO,
            ) => Ok(Found::Nothing),
            result => result.map_err(io::Error::from),
        }
    }

    fn try_find(&self, path: &[u8]) -> Result<Found, Errno> {
        if path.is_empty() {
            return Ok(Found::Folder);
        }
        // First without opening it: to open a FIFO or a device may wait, or do something.
        let looked_at = self.beneath(path, OFlag::O_PATH)?;
        match kind(&looked_at)? {
            SFlag::S_IFREG => {}
            SFlag::S_IFDIR => return Ok(Found::Folder),
            _ => return Ok(Found::Nothing),
        }
        // Another file may have its name by now, which must be a regular one too; a FIFO does not block.
        let opened = self.beneath(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
        Ok(if kind(&opened)? == SFlag::S_IFREG { Found::File(File::from(opened)) } else { Found::Nothing })
    }

    fn beneath(&self, path: &[u8], flags: OFlag) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
        match openat2(&self.0, path, how) {
            // A kernel before 5.6, or a container whose filter of system calls does not know it.
            Err(Errno::ENOSYS | Errno::EPERM) => walk(&self.0, path, flags),
            result => result,
        }
    }
}

/// The same by hand, name by name: no link is followed at all.
fn walk(root: &OwnedFd, path: &[u8], flags: OFlag) -> Result<OwnedFd, Errno> {
    let mut names = path.split(|byte| *byte == b'/').peekable();
    let mut folder = root.try_clone().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))?;
    while let Some(name) = names.next() {
        if name == b".." {
            return Err(Errno::EXDEV);
        }
        let name = OsStr::from_bytes(name);
        if names.peek().is_none() {
            let opened = openat(folder.as_fd(), name, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
            return Ok(opened);
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        folder = openat(folder.as_fd(), name, flags, Mode::empty())?;
    }
    Err(Errno::ENOENT)
}

fn kind(file: &OwnedFd) -> Result<SFlag, Errno> {
    fstat(file).map(|about| SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder with a site and what must not be reached from it.
    fn scene() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let site = folder.path().join("site");
        std::fs::create_dir_all(site.join("deep/er")).unwrap();
        std::fs::write(folder.path().join("secret"), "secret").unwrap();
        std::fs::create_dir(folder.path().join("outside")).unwrap();
        std::fs::write(folder.path().join("outside/secret"), "secret").unwrap();
        std::fs::write(site.join("index.html"), "index").unwrap();
        std::fs::write(site.join("deep/er/x.js"), "x").unwrap();
        symlink("deep/er", site.join("inner")).unwrap();
        symlink("er/x.js", site.join("deep/x.js")).unwrap();
        symlink("../secret", site.join("out")).unwrap();
        symlink(folder.path().join("secret"), site.join("absolute")).unwrap();
        symlink(site.join("index.html"), site.join("home")).unwrap();
        symlink("../outside", site.join("outside")).unwrap();
        symlink("/proc/self/root", site.join("magic")).unwrap();
        symlink("circle", site.join("circle")).unwrap();
        symlink("/dev/zero", site.join("device")).unwrap();
        nix::unistd::mkfifo(&site.join("fifo"), Mode::S_IRWXU).unwrap();
        drop(std::os::unix::net::UnixListener::bind(site.join("socket")).unwrap());
        folder
    }

    fn text(found: Found) -> Option<String> {
        let Found::File(mut file) = found else { return None };
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        Some(text)
    }

    #[test]
    fn a_regular_file_below_the_root_is_found_and_nothing_else() {
        let folder = scene();
        let root = Root::open(&folder.path().join("site")).unwrap();
        for (path, expected) in [
            ("index.html", Some("index")),
            ("deep/er/x.js", Some("x")),
            ("inner/x.js", Some("x")),
            ("deep/x.js", Some("x")),
            ("out", None),
            ("absolute", None),
            ("home", None),
            ("outside/secret", None),
            ("magic/etc/passwd", None),
            ("circle", None),
            ("device", None),
            ("fifo", None),
            ("socket", None),
            ("none", None),
            ("index.html/x", None),
            ("../secret", None),
            ("deep/../../secret", None),
        ] {
            assert_eq!(text(root.find(path.as_bytes()).unwrap()).as_deref(), expected, "{path}");
        }
        assert!(matches!(root.find(&[b'x'; 300]), Ok(Found::Nothing)));
        assert!(matches!(root.find(&b"x/".repeat(3000)), Ok(Found::Nothing)));
        for folder in ["", "deep", "inner"] {
            assert!(matches!(root.find(folder.as_bytes()), Ok(Found::Folder)), "{folder}");
        }
    }

    #[test]
    fn without_openat2_no_link_is_followed() {
        let folder = scene();
        let root = Root::open(&folder.path().join("site")).unwrap();
        let opened = |path: &str| walk(&root.0, path.as_bytes(), OFlag::O_RDONLY | OFlag::O_NONBLOCK);
        for path in ["index.html", "deep/er/x.js"] {
            assert!(opened(path).is_ok(), "{path}");
        }
        for path in
            ["../secret", "inner/x.js", "deep/x.js", "out", "absolute", "outside/secret", "magic/etc/passwd", "circle"]
        {
            assert!(opened(path).is_err(), "{path}");
        }
    }

    /// Two threads exchange a file with a link that leads out, over and over.
    #[test]
    fn a_link_that_is_put_in_place_meanwhile_leads_nowhere() {
        let folder = scene();
        let site = folder.path().join("site");
        std::fs::write(site.join("swapped"), "index").unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::fs::write(site.join("new"), "index").unwrap();
                    std::fs::rename(site.join("new"), site.join("swapped")).unwrap();
                    symlink("../secret", site.join("new")).unwrap();
                    std::fs::rename(site.join("new"), site.join("swapped")).unwrap();
                }
            });
            let root = Root::open(&site).unwrap();
            let (mut found, mut looks) = (0, 0);
            // More often where the other thread has no time to put the file in place.
            while looks < 2_000 || (found == 0 && looks < 2_000_000) {
                looks += 1;
                if let Ok(Found::File(mut file)) = root.find(b"swapped") {
                    let mut text = String::new();
                    file.read_to_string(&mut text).unwrap();
                    assert!(!text.contains("secret"));
                    found += 1;
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(found > 0, "the file was found now and then");
        });
    }
}
