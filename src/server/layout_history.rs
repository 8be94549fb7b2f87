//! The lists of memcached servers that this machine has had, in a small file, so that a process that starts with
//! another list knows where sessions were stored before, as a process does that lives through the change.
//!
//! The file is in the service's state folder (`$STATE_DIRECTORY`, as systemd sets it), or else beside the user
//! directory, where the edge may write in any case. It is a convenience: a file that cannot be read or written is
//! logged, and costs some users a login. `sessions.memcached.former` says the same to a machine that has had no other
//! list.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::digest;
use serde::{Deserialize, Serialize};

use super::stores::{layout_retention, server_list};
use crate::clock::UnixTime;
use crate::config::{Config, MAX_FORMER, Sessions};
use crate::sessions::replicated::{NodeConfig, PreviousLayout};

/// The file of one configuration.
pub struct LayoutHistory(PathBuf);

/// The content of the file.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    now: ServerList,
    /// The last one first.
    former: Vec<FormerList>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ServerList {
    /// Address and weight, in the order of the addresses.
    servers: Vec<(String, u32)>,
    copies: usize,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FormerList {
    list: ServerList,
    /// Unix seconds. An entry of another version that does not name it has ended; the list in use is read all the same.
    #[serde(default)]
    read_until: u64,
}

impl LayoutHistory {
    /// Edges with other configurations may share the folder, so the file is named by the configuration's own path.
    pub fn of(config: &Config, file: &Path) -> Self {
        Self(folder(config).join(format!("session-servers-{}.json", name_of(file))))
    }

    /// Records the list that is in use from `now` on, and returns those before it that may still hold sessions.
    pub fn record_current(&self, config: &Config, now: UnixTime) -> Vec<PreviousLayout> {
        let Sessions::Memcached { servers, copies, .. } = &config.sessions else { return Vec::new() };
        let mut servers: Vec<_> = server_list(servers).into_iter().map(|server| (server.name, server.weight)).collect();
        servers.sort();
        let before = self.read();
        let record =
            next_record(before.as_ref(), ServerList { servers, copies: *copies }, now, layout_retention(config));
        if before.as_ref() != Some(&record)
            && let Err(error) = self.write(&record)
        {
            log::warn!("cannot write the list of session servers to {}: {error}", self.0.display());
        }
        record.former.iter().map(|ended| ended.as_former(now)).collect()
    }

    fn read(&self) -> Option<Record> {
        let text = std::fs::read(&self.0).ok()?;
        serde_json::from_slice(&text)
            .inspect_err(|error| log::warn!("{}: not a list of session servers: {error}", self.0.display()))
            .ok()
    }

    /// Written whole or not at all: a process that reads meanwhile, or after a crash, has the record before this one.
    fn write(&self, record: &Record) -> std::io::Result<()> {
        let draft = self.0.with_extension(format!("{}.draft", std::process::id()));
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        serde_json::to_writer(&mut file, record)?;
        file.flush()?;
        std::fs::rename(&draft, &self.0)
    }
}

/// The folder where the edge may keep its state.
#[expect(clippy::disallowed_methods, reason = "systemd names the state folder in a variable, and in no other way")]
pub fn folder(config: &Config) -> PathBuf {
    match std::env::var("STATE_DIRECTORY") {
        // systemd names several with colons between them.
        Ok(folders) if !folders.is_empty() => PathBuf::from(folders.split(':').next().unwrap_or_default()),
        _ => config.users.file().and_then(Path::parent).unwrap_or(Path::new("")).to_owned(),
    }
}

/// 16 characters that identify the configuration's own path.
pub fn name_of(file: &Path) -> String {
    let real = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let hash = digest::digest(&digest::SHA256, real.as_os_str().as_encoded_bytes());
    hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the content of the file once `list` is in use. Pure.
fn next_record(before: Option<&Record>, list: ServerList, now: UnixTime, keep: Duration) -> Record {
    let ends = now.plus(keep).seconds();
    let mut former = Vec::new();
    if let Some(before) = before {
        former.push(FormerList { list: before.now.clone(), read_until: ends });
        // A clock that was ahead when this was written must not have them read for ever.
        let until = |ended: &FormerList| ended.read_until.min(ends);
        former.extend(
            before.former.iter().map(|ended| FormerList { list: ended.list.clone(), read_until: until(ended) }),
        );
    }
    former.retain(|ended| ended.read_until > now.seconds() && ended.list != list && !ended.list.servers.is_empty());
    let mut seen = Vec::new();
    former.retain(|ended| {
        let is_new = !seen.contains(&ended.list);
        seen.push(ended.list.clone());
        is_new
    });
    former.truncate(MAX_FORMER);
    Record { now: list, former }
}

impl FormerList {
    fn as_former(&self, now: UnixTime) -> PreviousLayout {
        let server =
            |(name, weight): &(String, u32)| NodeConfig { name: name.clone(), weight: (*weight).clamp(1, 256) };
        PreviousLayout {
            servers: self.list.servers.iter().map(server).collect(),
            copies: self.list.copies.clamp(1, crate::config::MAX_COPIES),
            keep: UnixTime::from_seconds(self.read_until).since(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Duration = Duration::from_secs(3600);
    const START: UnixTime = UnixTime::from_seconds(1_000_000);

    fn list(names: &[&str]) -> ServerList {
        ServerList { servers: names.iter().map(|name| ((*name).to_owned(), 1)).collect(), copies: 1 }
    }

    fn names(record: &Record) -> Vec<Vec<&str>> {
        record.former.iter().map(|ended| ended.list.servers.iter().map(|(name, _)| name.as_str()).collect()).collect()
    }

    #[test]
    fn former_lists_are_known_as_long_as_sessions_may_lie_there() {
        let first = next_record(None, list(&["a", "b"]), START, KEEP);
        assert_eq!(names(&first), Vec::<Vec<&str>>::new());
        let again = next_record(Some(&first), list(&["a", "b"]), START.plus(KEEP), KEEP);
        assert_eq!(again, first, "a restart with the same list is no change");
        let second = next_record(Some(&again), list(&["b", "c"]), START.plus(KEEP), KEEP);
        assert_eq!(names(&second), [["a", "b"]]);
        let third = next_record(Some(&second), list(&["d"]), START.plus(KEEP + KEEP / 2), KEEP);
        assert_eq!(names(&third), [["b", "c"], ["a", "b"]], "the last one first");
        let back = next_record(Some(&third), list(&["b", "c"]), START.plus(KEEP + KEEP / 2), KEEP);
        assert_eq!(names(&back), [vec!["d"], vec!["a", "b"]], "what is in use is no former one");
        let late = next_record(Some(&back), list(&["b", "c"]), START.plus(2 * KEEP), KEEP);
        assert_eq!(names(&late), [["d"]]);
        assert_eq!(late.former[0].as_former(START.plus(2 * KEEP)).keep, KEEP / 2);
    }

    #[test]
    fn an_entry_without_an_end_does_not_hide_the_list_in_use() {
        let text = r#"{"now":{"servers":[["a",1]],"copies":1},"former":[{"list":{"servers":[["b",1]],"copies":1}}]}"#;
        let record: Record = serde_json::from_str(text).unwrap();
        assert_eq!((&record.now, record.former[0].read_until), (&list(&["a"]), 0));
        let next = next_record(Some(&record), list(&["c"]), START, KEEP);
        assert_eq!(names(&next), [["a"]], "the entry has ended, and the list that was in use is a former one now");
    }

    #[test]
    fn a_clock_that_was_ahead_and_many_changes_have_no_list_read_for_ever() {
        let ahead = START.plus(1000 * KEEP);
        let first = next_record(None, list(&["a"]), ahead, KEEP);
        let second = next_record(Some(&first), list(&["b"]), ahead, KEEP);
        let third = next_record(Some(&second), list(&["c"]), START, KEEP);
        assert!(third.former.iter().all(|ended| ended.as_former(START).keep <= KEEP), "{third:?}");
        let mut record = third;
        for number in 0..20 {
            record = next_record(Some(&record), list(&[&number.to_string()]), START, KEEP);
        }
        assert_eq!(record.former.len(), MAX_FORMER);
    }

    #[test]
    fn what_is_written_is_read_again_and_what_is_no_record_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let history = LayoutHistory(folder.path().join("servers.json"));
        assert_eq!(history.read(), None);
        let record = next_record(Some(&next_record(None, list(&["a"]), START, KEEP)), list(&["b"]), START, KEEP);
        history.write(&record).unwrap();
        assert_eq!(history.read(), Some(record));
        std::fs::write(&history.0, "{\"now\": 5}").unwrap();
        assert_eq!(history.read(), None);
        let files = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(files, 1, "no draft is left");
    }
}
