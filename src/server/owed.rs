//! Ends of sessions that a session server has not heard of, in a file: where this process ends before it could tell the
//! server, the next one does. Else a server that was cut off at a logout might bring the session back.
//!
//! Each process has a file of its own beside the list of session servers (`history`), and a lock on a second one for as
//! long as it runs. A process takes over the files whose lock is free: at its start, before it serves anybody, and every
//! few seconds from then on, as the one before it may still be draining. A file is written whole or not at all, for its
//! owner alone; it is there only while something is owed.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use super::history;
use crate::clock::{Clock, UnixTime};
use crate::config::Config;
use crate::sessions::SessionKey;
use crate::sessions::cluster::Cluster;
use crate::sessions::cluster::debts::{Debt, MOST};
use crate::sessions::cluster::member::Member;
use crate::sessions::key::random_base64url;

/// Between two looks for files whose process has ended.
const LOOK: Duration = Duration::from_secs(3);
/// Between two writes: what comes meanwhile goes into one.
const PAUSE: Duration = Duration::from_millis(50);
/// Bytes of a file that is read; ours are shorter.
const LARGEST: u64 = MOST as u64 * 512;
/// How long an end may matter: as long as memcached keeps anything.
const LONGEST: Duration = Duration::from_secs(31 * 24 * 60 * 60);

/// What this process owes, as others will find it.
pub struct Ledger {
    folder: PathBuf,
    /// With what the names of all files of this configuration begin.
    family: String,
    own: Mutex<Own>,
}

#[derive(Default)]
struct Own {
    /// While there is a file.
    held: Option<Held>,
    /// Whether the last write failed, which is said once.
    is_failing: bool,
}

struct Held {
    file: PathBuf,
    lock: PathBuf,
    /// Locked until it is closed, by the system if need be.
    _locked: File,
}

/// What stands in a file.
#[derive(Serialize, Deserialize)]
struct Record {
    ends: Vec<End>,
}

#[derive(Serialize, Deserialize)]
struct End {
    server: String,
    session: String,
    /// Unix seconds.
    until: u64,
}

impl Ledger {
    pub fn of(config: &Config, file: &Path) -> Self {
        let folder = history::folder(config);
        // A name without a folder is one of the folder that the process runs in, which cannot be listed by no name.
        let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
        Self::new(folder, &history::name_of(file))
    }

    fn new(folder: PathBuf, configuration: &str) -> Self {
        Self { folder, family: format!("session-ends-{configuration}-"), own: Mutex::default() }
    }

    /// What processes that have ended have left to be told. Their files go; one that cannot be read is set aside.
    pub fn take_over(&self, now: UnixTime) -> Vec<Debt> {
        let names = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let stems: Vec<String> = names
            .filter_map(|name| {
                name.strip_suffix(".json").filter(|stem| stem.starts_with(&self.family)).map(str::to_owned)
            })
            .collect();
        stems.iter().flat_map(|stem| self.take_over_one(stem, now)).collect()
    }

    fn take_over_one(&self, stem: &str, now: UnixTime) -> Vec<Debt> {
        let (file, lock) = (self.folder.join(format!("{stem}.json")), self.folder.join(format!("{stem}.lock")));
        // Held until the end, so that one process takes it. Without a lock the process has ended half-way.
        let _locked = match File::open(&lock) {
            Ok(locked) if locked.try_lock().is_ok() => Some(locked),
            Ok(_) => return Vec::new(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => return Vec::new(),
        };
        let debts = match read(&file, now) {
            Ok(debts) => {
                std::fs::remove_file(&file).ok();
                debts
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                let aside = file.with_extension("damaged");
                log::error!(
                    "{}: no list of ended sessions can be read here, and session servers may not hear of them ({error}); \
                     it is set aside as {}",
                    file.display(),
                    aside.display()
                );
                std::fs::rename(&file, &aside).ok();
                Vec::new()
            }
        };
        std::fs::remove_file(&lock).ok();
        debts
    }

    /// Puts this list in the place of the one before it. Blocks.
    pub fn write(&self, debts: &[Debt]) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        match self.try_write(&mut own.held, debts) {
            Ok(()) => own.is_failing = false,
            Err(error) => {
                if !own.is_failing {
                    let folder = self.folder.display();
                    log::error!("what session servers have not heard is not kept in {folder}: {error}");
                }
                own.is_failing = true;
            }
        }
    }

    fn try_write(&self, held: &mut Option<Held>, debts: &[Debt]) -> io::Result<()> {
        if debts.is_empty() {
            return held.take().map_or(Ok(()), |held| held.remove());
        }
        let held = match held {
            Some(held) => held,
            None => held.insert(self.hold()?),
        };
        let end = |debt: &Debt| End {
            server: debt.server.clone(),
            session: debt.session.as_str().to_owned(),
            until: debt.until.seconds(),
        };
        let record = Record { ends: debts.iter().map(end).collect() };
        let draft = held.file.with_extension("draft");
        let mut file = owners_alone().truncate(true).open(&draft)?;
        file.write_all(&serde_json::to_vec(&record)?)?;
        file.sync_data()?;
        std::fs::rename(&draft, &held.file)
    }

    /// A name that no file has had, and the lock that says that its process lives.
    fn hold(&self) -> io::Result<Held> {
        let random = random_base64url::<9>().map_err(|_| io::Error::other("no randomness"))?;
        let stem = format!("{}{random}", self.family);
        let (file, lock) = (self.folder.join(format!("{stem}.json")), self.folder.join(format!("{stem}.lock")));
        let locked = owners_alone().create_new(true).open(&lock)?;
        locked.try_lock().map_err(io::Error::from)?;
        Ok(Held { file, lock, _locked: locked })
    }

    /// Before anybody is served: what was left is taken up, and what is to come will be kept.
    pub fn begin<M: Member>(self, cluster: Option<&Arc<Cluster<M>>>, clock: &Clock, runtime: &Runtime) -> Arc<Self> {
        let ledger = Arc::new(self);
        if let Some(cluster) = cluster {
            let _within = runtime.enter();
            cluster.resume(ledger.take_over(clock.now()));
            runtime.spawn(Arc::clone(&ledger).keep(Arc::clone(cluster), clock.clone()));
        }
        ledger
    }

    /// Writes what the cluster owes whenever that changes, and takes over what others have left. Ends with the process.
    async fn keep<M: Member>(self: Arc<Self>, cluster: Arc<Cluster<M>>, clock: Clock) {
        let mut changes = cluster.debts().changes();
        loop {
            let (ledger, debts, now) = (Arc::clone(&self), cluster.debts().all(), clock.now());
            #[expect(clippy::disallowed_methods, reason = "one at a time, and no request waits for it")]
            let left = tokio::task::spawn_blocking(move || {
                ledger.write(&debts);
                ledger.take_over(now)
            });
            cluster.resume(left.await.unwrap_or_default());
            tokio::time::sleep(PAUSE).await;
            // A change, or time for another look.
            if let Ok(Err(_)) = tokio::time::timeout(LOOK, changes.changed()).await {
                return;
            }
        }
    }
}

impl Held {
    fn remove(&self) -> io::Result<()> {
        std::fs::remove_file(&self.file)?;
        std::fs::remove_file(&self.lock)
    }
}

fn owners_alone() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options
}

fn read(file: &Path, now: UnixTime) -> io::Result<Vec<Debt>> {
    if std::fs::metadata(file)?.len() > LARGEST {
        return Err(io::Error::other("it is too large"));
    }
    let record: Record = serde_json::from_slice(&std::fs::read(file)?)?;
    let debt = |end: End| {
        let session = SessionKey::parse(&end.session).ok_or_else(|| io::Error::other("a key that is no session's"))?;
        // A clock that was ahead must not have it told for ever.
        let until = UnixTime::from_seconds(end.until).min(now.plus(LONGEST));
        Ok(Debt { server: end.server, session, until })
    };
    let debts: io::Result<Vec<Debt>> = record.ends.into_iter().take(MOST).map(debt).collect();
    Ok(debts?.into_iter().filter(|debt| debt.until > now).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::sessions::SessionId;

    const NOW: UnixTime = UnixTime::from_seconds(1_700_000_000);

    fn debt(server: &str, left: u64) -> Debt {
        let session = SessionId::random().unwrap().key();
        Debt { server: server.into(), session, until: NOW.plus(Duration::from_secs(left)) }
    }

    fn files(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn ledger(folder: &tempfile::TempDir) -> Ledger {
        Ledger::new(folder.path().to_owned(), "0123")
    }

    #[test]
    fn what_a_process_has_left_is_taken_over_once_and_by_those_of_its_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let (before, after) = (ledger(&folder), ledger(&folder));
        let debts = [debt("a:1", 100), debt("b:1", 200)];
        before.write(&[debt("c:1", 5)]);
        before.write(&debts);
        assert_eq!(files(folder.path()).len(), 2, "a list and a lock, no draft");
        assert_eq!(after.take_over(NOW), [], "its process lives");
        drop(before);
        assert_eq!(Ledger::new(folder.path().to_owned(), "4567").take_over(NOW), []);
        assert_eq!(after.take_over(NOW), debts);
        assert_eq!(after.take_over(NOW), []);
        assert_eq!(files(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn nothing_is_left_when_nothing_is_owed_and_what_is_over_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let one = ledger(&folder);
        one.write(&[]);
        assert_eq!(files(folder.path()), Vec::<String>::new());
        one.write(&[debt("a:1", 100)]);
        let name = files(folder.path()).remove(0);
        let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        one.write(&[]);
        assert_eq!(files(folder.path()), Vec::<String>::new());
        let kept = debt("a:1", 100);
        one.write(&[debt("a:1", 0), kept.clone(), debt("a:1", u64::MAX / 4000)]);
        drop(one);
        let taken = ledger(&folder).take_over(NOW);
        assert_eq!((taken.len(), &taken[0]), (2, &kept));
        assert!(taken[1].until <= NOW.plus(LONGEST), "a clock that was ahead");
    }

    #[test]
    fn a_damaged_list_is_set_aside_and_keeps_nobody_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        for (at, odd) in
            ["", "{", "{\"ends\": [{\"server\": \"a\", \"session\": \"t:x\", \"until\": 1}]}", "\u{0}\u{1}"]
                .into_iter()
                .enumerate()
        {
            std::fs::write(folder.path().join(format!("session-ends-0123-{at}.json")), odd).unwrap();
        }
        std::fs::write(folder.path().join("session-ends-0123-9.json"), vec![b' '; LARGEST as usize + 1]).unwrap();
        assert_eq!(ledger(&folder).take_over(NOW), []);
        assert!(files(folder.path()).iter().all(|name| name.ends_with(".damaged")), "{:?}", files(folder.path()));
        assert_eq!(files(folder.path()).len(), 5);
    }

    #[test]
    fn a_folder_that_cannot_be_written_ends_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let gone = Ledger::new(folder.path().join("not there"), "0123");
        gone.write(&[debt("a:1", 100)]);
        assert_eq!(gone.take_over(NOW), []);
        gone.write(&[]);
    }
}
