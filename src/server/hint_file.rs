//! Hints of replicated sessions in a file: ends of sessions that a session server has missed. Where this process ends
//! before it could replay one to the server, the next process does. Otherwise a server that was unreachable at a logout
//! might bring the session back.
//!
//! Each process has a file of its own beside the list of session servers (`layout_history`), and a lock on a second one
//! for as long as it runs. A process takes over the files whose lock is free: at its start, before it serves requests,
//! and every few seconds from then on, as the process before it may still be draining. A file is written whole or not
//! at all, readable by its owner alone; it exists only while a hint is pending.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use super::layout_history;
use crate::clock::{Clock, UnixTime};
use crate::config::Config;
use crate::sessions::SessionKey;
use crate::sessions::key::random_base64url;
use crate::sessions::replicated::Cluster;
use crate::sessions::replicated::hints::{Hint, MAX_HINTS};
use crate::sessions::replicated::node::Node;

/// The interval between two scans for files whose process has ended.
const SCAN_INTERVAL: Duration = Duration::from_secs(3);
/// The interval between two writes: changes in between are written together.
const WRITE_INTERVAL: Duration = Duration::from_millis(50);
/// The largest file that is read; the ones that are written are shorter.
const MAX_FILE_BYTES: u64 = MAX_HINTS as u64 * 512;
/// How long a hint may matter: as long as memcached keeps anything.
const MAX_LIFETIME: Duration = Duration::from_secs(31 * 24 * 60 * 60);

/// The pending hints of this process, in the file where the next process finds them.
pub struct HintFile {
    folder: PathBuf,
    /// The prefix of the names of all files of this configuration.
    name_prefix: String,
    own: Mutex<OwnState>,
    /// Whether the last scan found a file that it could not read, which is logged once.
    unread_logged: AtomicBool,
}

#[derive(Default)]
struct OwnState {
    /// While there is a file.
    file: Option<OwnFile>,
    /// Whether the last write failed, which is logged once.
    write_failure_logged: bool,
}

struct OwnFile {
    file: PathBuf,
    lock: PathBuf,
    /// Locked until it is closed, by the system if need be.
    _locked: File,
}

/// The hints of a process that has ended.
struct OrphanedFile {
    hints: Vec<Hint>,
    file: PathBuf,
    lock: PathBuf,
    /// Held for as long as this is, so that one process takes it over.
    _locked: Option<File>,
}

/// Why a file was not read.
#[derive(Debug)]
enum ReadError {
    /// It cannot be read now, as with too many open files or a disk that fails for a moment: the next scan may read it.
    Temporary(io::Error),
    /// The content is not a list, and never will be.
    Damaged(String),
}

/// The content of a file.
#[derive(Serialize, Deserialize)]
struct Record {
    ends: Vec<HintRecord>,
}

#[derive(Serialize, Deserialize)]
struct HintRecord {
    server: String,
    session: String,
    /// Unix seconds.
    until: u64,
}

impl HintFile {
    pub fn of(config: &Config, file: &Path) -> Self {
        let folder = layout_history::folder(config);
        // A path without a folder is in the working directory, and an empty path cannot be listed.
        let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
        Self::new(folder, &layout_history::name_of(file))
    }

    fn new(folder: PathBuf, configuration: &str) -> Self {
        Self {
            folder,
            name_prefix: format!("session-ends-{configuration}-"),
            own: Mutex::default(),
            unread_logged: AtomicBool::new(false),
        }
    }

    /// Takes over the hints of processes that have ended: passes them to `resume`, which returns whether there was room
    /// for them, and writes them together with all other `pending` ones into this process's own file. Only then are the
    /// files of those processes removed. Where the hints are not kept here, because the disk is full or this process
    /// ends first, the next scan finds the files again. Blocks.
    pub fn take_over(
        &self,
        now: UnixTime,
        resume: impl FnOnce(Vec<Hint>) -> bool,
        pending: impl FnOnce() -> Vec<Hint>,
    ) {
        let inherited = self.orphaned(now);
        let had_room = resume(inherited.iter().flat_map(|one| one.hints.iter().cloned()).collect());
        // The locks are held until here, so that one process takes over what another has left.
        if self.write(pending) && had_room {
            inherited.into_iter().for_each(OrphanedFile::remove);
        }
    }

    fn orphaned(&self, now: UnixTime) -> Vec<OrphanedFile> {
        let names = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let stems = names.filter_map(|name| {
            name.strip_suffix(".json").filter(|stem| stem.starts_with(&self.name_prefix)).map(str::to_owned)
        });
        let mut unread = Vec::new();
        let inherited = stems.filter_map(|stem| {
            self.read_orphan(&stem, now).unwrap_or_else(|error| {
                unread.push(format!("{stem}.json ({error})"));
                None
            })
        });
        let inherited = inherited.collect();
        if !self.unread_logged.swap(!unread.is_empty(), Ordering::Relaxed) && !unread.is_empty() {
            let (folder, unread) = (self.folder.display(), unread.join(", "));
            log::error!(
                "{folder}: cannot read {unread}; session servers miss these ends of sessions until it can be read"
            );
        }
        inherited
    }

    /// Reads one file, if its process has ended. An error says that it cannot be read now.
    fn read_orphan(&self, stem: &str, now: UnixTime) -> io::Result<Option<OrphanedFile>> {
        let (file, lock) = (self.folder.join(format!("{stem}.json")), self.folder.join(format!("{stem}.lock")));
        // Without a lock the process has ended half-way.
        let locked = match File::open(&lock) {
            Ok(locked) if locked.try_lock().is_ok() => Some(locked),
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        match read(&file, now) {
            Ok(hints) => return Ok(Some(OrphanedFile { hints, file, lock, _locked: locked })),
            // Another process has taken it over in between.
            Err(ReadError::Temporary(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(ReadError::Temporary(error)) => return Err(error),
            Err(ReadError::Damaged(why)) => {
                let aside = file.with_extension("damaged");
                log::error!(
                    "{}: damaged hint file, renamed to {}: {why}; session servers may miss ends of sessions",
                    file.display(),
                    aside.display()
                );
                std::fs::rename(&file, &aside)?;
            }
        }
        std::fs::remove_file(&lock).ok();
        Ok(None)
    }

    /// Replaces the list by all pending hints. Returns whether that was written. The list is made under the lock, so of
    /// two writers the one that comes last writes the later list. Blocks.
    pub fn write(&self, pending: impl FnOnce() -> Vec<Hint>) -> bool {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let written = self.try_write(&mut own.file, &pending());
        if let Err(error) = &written
            && !own.write_failure_logged
        {
            let folder = self.folder.display();
            log::error!("{folder}: cannot write the ends of sessions that session servers have missed: {error}");
        }
        own.write_failure_logged = written.is_err();
        written.is_ok()
    }

    fn try_write(&self, own_file: &mut Option<OwnFile>, hints: &[Hint]) -> io::Result<()> {
        if hints.is_empty() {
            return own_file.take().map_or(Ok(()), |own| own.remove());
        }
        let own = match own_file {
            Some(own) => own,
            None => own_file.insert(self.create_own_file()?),
        };
        let end = |hint: &Hint| HintRecord {
            server: hint.server.clone(),
            session: hint.session.as_str().to_owned(),
            until: hint.until.seconds(),
        };
        let record = Record { ends: hints.iter().map(end).collect() };
        let draft = own.file.with_extension("draft");
        let mut file = owner_only().truncate(true).open(&draft)?;
        file.write_all(&serde_json::to_vec(&record)?)?;
        file.sync_data()?;
        std::fs::rename(&draft, &own.file)?;
        // The rename must reach the disk before the files that it replaces are removed. Not every file system supports
        // that.
        File::open(&self.folder).and_then(|folder| folder.sync_all()).ok();
        Ok(())
    }

    /// Creates a file under a name that none has had, and the lock that shows that its process lives.
    fn create_own_file(&self) -> io::Result<OwnFile> {
        let random = random_base64url::<9>().map_err(|_| io::Error::other("no randomness"))?;
        let stem = format!("{}{random}", self.name_prefix);
        let (file, lock) = (self.folder.join(format!("{stem}.json")), self.folder.join(format!("{stem}.lock")));
        let locked = owner_only().create_new(true).open(&lock)?;
        locked.try_lock().map_err(io::Error::from)?;
        Ok(OwnFile { file, lock, _locked: locked })
    }

    /// Takes over the hints of earlier processes before any request is served, and starts the task that keeps the file.
    pub fn begin<M: Node>(self, cluster: Option<&Arc<Cluster<M>>>, clock: &Clock, runtime: &Runtime) -> Arc<Self> {
        let hint_file = Arc::new(self);
        if let Some(cluster) = cluster {
            let _within = runtime.enter();
            hint_file.take_over_for(cluster, clock.now());
            runtime.spawn(Arc::clone(&hint_file).run(Arc::clone(cluster), clock.clone()));
        }
        hint_file
    }

    fn take_over_for<M: Node>(&self, cluster: &Cluster<M>, now: UnixTime) {
        self.take_over(now, |hints| cluster.restore_hints(hints), || cluster.hints().all());
    }

    /// Writes the pending hints whenever they change, and takes over those of other processes. Ends with the process.
    async fn run<M: Node>(self: Arc<Self>, cluster: Arc<Cluster<M>>, clock: Clock) {
        let mut changes = cluster.hints().changes();
        loop {
            let (hint_file, owing, now) = (Arc::clone(&self), Arc::clone(&cluster), clock.now());
            #[expect(clippy::disallowed_methods, reason = "one at a time, and no request waits for it")]
            let looked = tokio::task::spawn_blocking(move || hint_file.take_over_for(&owing, now));
            // A panic has been logged.
            looked.await.ok();
            tokio::time::sleep(WRITE_INTERVAL).await;
            // A change, or time for another look.
            if let Ok(Err(_)) = tokio::time::timeout(SCAN_INTERVAL, changes.changed()).await {
                return;
            }
        }
    }
}

impl OwnFile {
    fn remove(&self) -> io::Result<()> {
        ignore_missing(std::fs::remove_file(&self.file))?;
        ignore_missing(std::fs::remove_file(&self.lock))
    }
}

impl OrphanedFile {
    /// Called when its hints are kept elsewhere. A file that cannot be removed is taken over once more, which does no
    /// harm.
    fn remove(self) {
        if ignore_missing(std::fs::remove_file(&self.file)).is_ok() {
            std::fs::remove_file(&self.lock).ok();
        }
    }
}

/// A file that is already gone need not be removed.
fn ignore_missing(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn owner_only() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options
}

fn read(file: &Path, now: UnixTime) -> Result<Vec<Hint>, ReadError> {
    let damaged = |why: &dyn std::fmt::Display| ReadError::Damaged(why.to_string());
    if std::fs::metadata(file)?.len() > MAX_FILE_BYTES {
        return Err(damaged(&"it is too large"));
    }
    let record: Record = serde_json::from_slice(&std::fs::read(file)?).map_err(|error| damaged(&error))?;
    let hint = |end: HintRecord| {
        let session = SessionKey::parse(&end.session).ok_or_else(|| damaged(&"a key that is no session's"))?;
        // A clock that was ahead must not have it replayed for ever.
        let until = UnixTime::from_seconds(end.until).min(now.plus(MAX_LIFETIME));
        Ok(Hint { server: end.server, session, until })
    };
    let hints: Result<Vec<Hint>, ReadError> = record.ends.into_iter().take(MAX_HINTS).map(hint).collect();
    Ok(hints?.into_iter().filter(|hint| hint.until > now).collect())
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Temporary(error)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::sessions::SessionId;

    const NOW: UnixTime = UnixTime::from_seconds(1_700_000_000);

    fn hint(server: &str, left: u64) -> Hint {
        let session = SessionId::random().unwrap().key();
        Hint { server: server.into(), session, until: NOW.plus(Duration::from_secs(left)) }
    }

    fn files(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn hint_file(folder: &tempfile::TempDir) -> HintFile {
        HintFile::new(folder.path().to_owned(), "0123")
    }

    /// Takes over what has been left, as a process that keeps nothing of it.
    fn taken(hint_file: &HintFile) -> Vec<Hint> {
        let mut taken = Vec::new();
        hint_file.take_over(
            NOW,
            |hints| {
                taken = hints;
                true
            },
            Vec::new,
        );
        taken
    }

    #[test]
    fn what_a_process_has_left_is_taken_over_once_and_by_those_of_its_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let (before, after) = (hint_file(&folder), hint_file(&folder));
        let hints = [hint("a:1", 100), hint("b:1", 200)];
        before.write(|| vec![hint("c:1", 5)]);
        before.write(|| hints.to_vec());
        assert_eq!(files(folder.path()).len(), 2, "a list and a lock, no draft");
        assert_eq!(taken(&after), [], "its process lives");
        drop(before);
        assert_eq!(taken(&HintFile::new(folder.path().to_owned(), "4567")), []);
        assert_eq!(taken(&after), hints);
        assert_eq!(taken(&after), []);
        assert_eq!(files(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn what_is_inherited_is_always_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let (before, after) = (hint_file(&folder), hint_file(&folder));
        let (own, inherited) = (hint("a:1", 100), hint("b:1", 200));
        after.write(|| vec![own.clone()]);
        let own_file = files(folder.path()).into_iter().find(|name| name.ends_with(".json")).unwrap();
        before.write(|| vec![inherited.clone()]);
        drop(before);
        let kept = || -> Vec<Hint> {
            let lists = files(folder.path()).into_iter().filter(|name| name.ends_with(".json"));
            lists.flat_map(|name| read(&folder.path().join(name), NOW).unwrap()).collect()
        };
        // This process cannot write at the moment, as on a disk that is full.
        let draft = folder.path().join(&own_file).with_extension("draft");
        std::fs::create_dir(&draft).unwrap();
        for look in 1..=2 {
            let mut taken = Vec::new();
            after.take_over(
                NOW,
                |hints| {
                    taken = hints;
                    true
                },
                || vec![own.clone(), inherited.clone()],
            );
            assert_eq!(taken, std::slice::from_ref(&inherited), "look {look}: those sessions are found ended here");
            assert!(kept().contains(&inherited), "look {look}: {:?}", files(folder.path()));
        }
        std::fs::remove_dir(&draft).unwrap();
        after.take_over(
            NOW,
            |_| {
                assert!(kept().contains(&inherited), "before it is kept here");
                true
            },
            || vec![own.clone(), inherited.clone()],
        );
        assert_eq!(kept(), [own.clone(), inherited.clone()]);
        assert_eq!(files(folder.path()).len(), 2, "the file of the process that has ended is gone");
    }

    #[test]
    fn of_two_writers_the_later_one_writes_the_later_list() {
        let folder = tempfile::tempdir().unwrap();
        let one = hint_file(&folder);
        let pending = Mutex::new(vec![hint("a:1", 100)]);
        let all = || pending.lock().unwrap().clone();
        let (begun, has_begun) = std::sync::mpsc::sync_channel(1);
        let (ended, has_ended) = std::sync::mpsc::sync_channel::<()>(1);
        std::thread::scope(|scope| {
            let (one, all) = (&one, &all);
            scope.spawn(move || {
                one.write(|| {
                    let list = all();
                    begun.send(()).unwrap();
                    // The other one writes meanwhile, if it can.
                    has_ended.recv_timeout(Duration::from_millis(500)).ok();
                    list
                });
            });
            has_begun.recv().unwrap();
            pending.lock().unwrap().push(hint("b:1", 100));
            one.write(all);
            ended.send(()).ok();
        });
        drop(one);
        assert_eq!(taken(&hint_file(&folder)), *pending.lock().unwrap());
    }

    #[test]
    fn nothing_is_left_when_nothing_is_owed_and_what_is_over_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let one = hint_file(&folder);
        one.write(Vec::new);
        assert_eq!(files(folder.path()), Vec::<String>::new());
        one.write(|| vec![hint("a:1", 100)]);
        let name = files(folder.path()).remove(0);
        let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        one.write(Vec::new);
        assert_eq!(files(folder.path()), Vec::<String>::new());
        let kept = hint("a:1", 100);
        one.write(|| vec![hint("a:1", 0), kept.clone(), hint("a:1", u64::MAX / 4000)]);
        drop(one);
        let taken = taken(&hint_file(&folder));
        assert_eq!((taken.len(), &taken[0]), (2, &kept));
        assert!(taken[1].until <= NOW.plus(MAX_LIFETIME), "a clock that was ahead");
    }

    #[test]
    fn a_damaged_list_is_set_aside_and_does_not_prevent_a_start() {
        let folder = tempfile::tempdir().unwrap();
        for (at, odd) in
            ["", "{", "{\"ends\": [{\"server\": \"a\", \"session\": \"t:x\", \"until\": 1}]}", "\u{0}\u{1}"]
                .into_iter()
                .enumerate()
        {
            std::fs::write(folder.path().join(format!("session-ends-0123-{at}.json")), odd).unwrap();
        }
        std::fs::write(folder.path().join("session-ends-0123-9.json"), vec![b' '; MAX_FILE_BYTES as usize + 1])
            .unwrap();
        assert_eq!(taken(&hint_file(&folder)), []);
        assert!(files(folder.path()).iter().all(|name| name.ends_with(".damaged")), "{:?}", files(folder.path()));
        assert_eq!(files(folder.path()).len(), 5);
    }

    #[test]
    fn what_finds_no_room_or_cannot_be_read_at_the_moment_is_left_for_another_look() {
        let folder = tempfile::tempdir().unwrap();
        let (before, after) = (hint_file(&folder), hint_file(&folder));
        let pending = [hint("a:1", 100)];
        before.write(|| pending.to_vec());
        drop(before);
        after.take_over(NOW, |hints| hints.is_empty(), Vec::new);
        assert_eq!(files(folder.path()).len(), 2, "there was no room");
        let list = files(folder.path()).into_iter().find(|name| name.ends_with(".json")).unwrap();
        let (list, elsewhere) = (folder.path().join(list), folder.path().join("elsewhere"));
        std::fs::rename(&list, &elsewhere).unwrap();
        std::fs::create_dir(&list).unwrap();
        assert_eq!(taken(&after), [], "a folder cannot be read");
        std::fs::remove_dir(&list).unwrap();
        std::fs::rename(&elsewhere, &list).unwrap();
        assert_eq!(taken(&after), pending);
        assert_eq!(files(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn a_folder_that_cannot_be_written_ends_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let gone = HintFile::new(folder.path().join("not there"), "0123");
        gone.write(|| vec![hint("a:1", 100)]);
        assert_eq!(taken(&gone), []);
        gone.write(Vec::new);
    }
}
