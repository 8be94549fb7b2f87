//! Import files: one JSON object a line, as an older directory's export is easily written.
//!
//! ```json
//! {"name": "bob", "email": "bob@example.com", "services": ["iqueue"], "roles": ["admin"], "password_hash": "$2b$12$…"}
//! ```
//!
//! `name` and one of `password_hash` and `password` are required; `disabled` may be added. [`ImportFile::read`] reads and
//! checks a file, [`ImportFile::add_to`] adds its users to a directory. Called by the command line.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::fmt;
use std::io::{self, BufRead, Read};

use serde::Deserialize;
use serde::de::Deserializer;
use zeroize::Zeroizing;

use super::directory::{DirectoryError, UserRegistry};
use super::password::policy::Policy;
use super::password::{self, HashError};
use super::{Email, Grants, NewUser, Password, StoredHash, UserName};

/// A longer line is refused.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// The good lines and the bad lines of an import file, both in the order of the file.
#[derive(Debug, Default)]
pub struct ImportFile {
    entries: Vec<Entry>,
    faults: Vec<LineFault>,
}

/// A good line.
#[derive(Debug)]
struct Entry {
    line: usize,
    user: NewUser,
    secret: Secret,
}

#[derive(Debug)]
enum Secret {
    Hash(StoredHash),
    /// Hashed only when the whole file is good, because hashing is slow.
    Password(Password),
}

/// What is wrong with a line, and what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineFault {
    /// Counted from 1.
    pub line: usize,
    pub what: String,
}

/// Why no user of a file was added.
#[derive(Debug)]
pub enum ImportError {
    /// Every bad line, in the order of the file.
    Lines(Vec<LineFault>),
    Hash(HashError),
    Directory(DirectoryError),
}

/// A line as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    email: Option<String>,
    #[serde(default)]
    services: Vec<String>,
    #[serde(default)]
    roles: Vec<String>,
    password_hash: Option<Hidden>,
    password: Option<Hidden>,
    #[serde(default)]
    disabled: bool,
}

/// A text whose value appears in no error message, not even when it is of the wrong type.
struct Hidden(Zeroizing<String>);

impl ImportFile {
    /// Reads to the end, bad lines included. Fails only if reading itself fails. Blank lines are skipped.
    pub fn read(mut input: impl BufRead) -> io::Result<Self> {
        let mut file = Self::default();
        let mut first_lines = HashMap::new();
        let mut text = Zeroizing::new(Vec::new());
        for line in 1.. {
            let entry = match next_line(&mut input, &mut text)? {
                Line::End => break,
                Line::TooLong => Err(format!("the line is too long; at most {MAX_LINE_BYTES} bytes")),
                Line::Whole if text.trim_ascii().is_empty() => continue,
                Line::Whole => entry(line, &text),
            };
            match entry.and_then(|entry| first_of_its_name(entry, &mut first_lines)) {
                Ok(entry) => file.entries.push(entry),
                Err(what) => file.faults.push(LineFault { line, what }),
            }
        }
        Ok(file)
    }

    /// Records a fault for each line whose plain password the policy refuses. The password of a hash cannot be checked.
    pub fn check_passwords(&mut self, policy: Policy) {
        let is_fit = |entry: &Entry| match &entry.secret {
            Secret::Hash(_) => Ok(()),
            Secret::Password(password) => {
                policy.check(password, &entry.user.name, entry.user.email.as_ref().map(Email::as_str))
            }
        };
        let faults = self.entries.iter().filter_map(|entry| {
            is_fit(entry).err().map(|unfit| LineFault { line: entry.line, what: unfit.to_string() })
        });
        self.faults.extend(faults);
        // The entries may stay: a file with a fault is not imported at all.
        self.faults.sort_by_key(|fault| fault.line);
    }

    /// Returns the users of the good lines.
    pub fn names(&self) -> Vec<UserName> {
        self.entries.iter().map(|entry| entry.user.name.clone()).collect()
    }

    /// Removes the good lines that `check` refuses, and records its message as their fault.
    pub fn check_users(&mut self, check: impl Fn(&NewUser) -> Result<(), String>) {
        let mut faults = std::mem::take(&mut self.faults);
        self.entries.retain(|entry| match check(&entry.user) {
            Ok(()) => true,
            Err(what) => {
                faults.push(LineFault { line: entry.line, what });
                false
            }
        });
        faults.sort_by_key(|fault| fault.line);
        self.faults = faults;
    }

    /// Adds every user of the file or, if any line is bad or any name is taken, none. Returns how many.
    ///
    /// Plain passwords are hashed before the directory is locked: some twenty milliseconds each.
    pub fn add_to(self, registry: &dyn UserRegistry) -> Result<usize, ImportError> {
        let Self { entries, mut faults } = self;
        let names: Vec<&UserName> = entries.iter().map(|entry| &entry.user.name).collect();
        let taken: HashSet<UserName> = registry.taken(&names)?.into_iter().collect();
        faults.extend(entries.iter().filter(|entry| taken.contains(&entry.user.name)).map(Entry::taken));
        if !faults.is_empty() {
            faults.sort_by_key(|fault| fault.line);
            return Err(ImportError::Lines(faults));
        }
        let lines: HashMap<UserName, LineFault> =
            entries.iter().map(|entry| (entry.user.name.clone(), entry.taken())).collect();
        let users = entries.into_iter().map(|Entry { user, secret, .. }| {
            Ok((
                user,
                match secret {
                    Secret::Hash(hash) => hash,
                    Secret::Password(password) => password::hash(&password)?,
                },
            ))
        });
        let users = users.collect::<Result<Vec<_>, _>>().map_err(ImportError::Hash)?;
        match registry.add_all(&users) {
            Ok(()) => Ok(users.len()),
            // The user was added by another process since the names were looked up.
            Err(DirectoryError::UserExists(name)) => Err(match lines.get(&name) {
                Some(fault) => ImportError::Lines(vec![fault.clone()]),
                None => ImportError::Directory(DirectoryError::UserExists(name)),
            }),
            Err(error) => Err(ImportError::Directory(error)),
        }
    }
}

impl Entry {
    /// Returns the fault of a line whose user is in the directory already.
    fn taken(&self) -> LineFault {
        let name = &self.user.name;
        LineFault { line: self.line, what: format!("there is a user {name} already; leave the line out") }
    }
}

enum Line {
    Whole,
    TooLong,
    End,
}

/// Reads one line into `text`, and never holds more than the bound of a line that is too long.
fn next_line(input: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<Line> {
    text.clear();
    let bound = MAX_LINE_BYTES as u64 + 1;
    if input.by_ref().take(bound).read_until(b'\n', text)? == 0 {
        return Ok(Line::End);
    }
    if text.ends_with(b"\n") || text.len() <= MAX_LINE_BYTES {
        return Ok(Line::Whole);
    }
    while !text.ends_with(b"\n") {
        text.clear();
        if input.by_ref().take(bound).read_until(b'\n', text)? == 0 {
            break;
        }
    }
    Ok(Line::TooLong)
}

fn entry(line: usize, text: &[u8]) -> Result<Entry, String> {
    // Serde would accept an array, as the fields in their order.
    if !text.trim_ascii_start().starts_with(b"{") {
        return Err("the line is no JSON object; write {\"name\": …, \"password_hash\": …}".into());
    }
    let written: Written = serde_json::from_slice(text).map_err(|error| describe(&error))?;
    let user = NewUser {
        name: UserName::parse(&written.name).map_err(|error| error.to_string())?,
        email: written.email.as_deref().map(Email::parse).transpose().map_err(|error| error.to_string())?,
        grants: Grants::parse(written.services, written.roles).map_err(|error| error.to_string())?,
        disabled: written.disabled,
    };
    let secret = match (written.password_hash, written.password) {
        (Some(hash), None) => Secret::Hash(StoredHash::parse(&hash.0).map_err(|error| error.to_string())?),
        (None, Some(Hidden(mut text))) => {
            Secret::Password(Password::new(std::mem::take(&mut *text)).map_err(|error| error.to_string())?)
        }
        (None, None) => return Err("neither password_hash nor password is there; write one of them".into()),
        (Some(_), Some(_)) => return Err("both password_hash and password are there; write one of them".into()),
    };
    Ok(Entry { line, user, secret })
}

/// Returns serde's message without its line number, which is always 1 here and would mislead.
fn describe(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let what = message.split(" at line ").next().unwrap_or(&message);
    format!("{what} (column {})", error.column())
}

fn first_of_its_name(entry: Entry, first_lines: &mut HashMap<UserName, usize>) -> Result<Entry, String> {
    let name = &entry.user.name;
    match first_lines.get(name) {
        Some(first) => Err(format!("user {name} is on line {first} already; keep one of the two")),
        None => {
            first_lines.insert(name.clone(), entry.line);
            Ok(entry)
        }
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self(Zeroizing::new(text))),
            _ => Err(serde::de::Error::custom("a password or its hash is not a text; write it in quotes")),
        }
    }
}

impl fmt::Display for LineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl From<DirectoryError> for ImportError {
    fn from(source: DirectoryError) -> Self {
        Self::Directory(source)
    }
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lines(faults) => {
                write!(f, "nothing was imported, {} bad line(s):", faults.len())?;
                faults.iter().try_for_each(|fault| write!(f, "\n{fault}"))
            }
            Self::Hash(_) | Self::Directory(_) => f.write_str("nothing was imported"),
        }
    }
}

impl Error for ImportError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Lines(_) => None,
            Self::Hash(source) => Some(source),
            Self::Directory(source) => Some(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuupK.cmRFvC/IBnMAohxQPjjCITVc4r9a";

    fn read(text: &str) -> ImportFile {
        ImportFile::read(text.as_bytes()).unwrap()
    }

    fn only_fault(line: &str) -> String {
        let file = read(line);
        assert!(file.entries.is_empty(), "{line}");
        let [fault] = &file.faults[..] else { panic!("{line}: {:?}", file.faults) };
        fault.what.clone()
    }

    #[test]
    fn a_full_line_and_a_short_one_are_read() {
        let file = read(&format!(
            "{{\"name\":\"Bob\",\"email\":\"bob@example.com\",\"services\":[\"iqueue\"],\"roles\":[\"admin\"],\
             \"password_hash\":\"{BCRYPT}\",\"disabled\":true}}\r\n\n  \n{{\"name\":\"eve\",\"password\":\" x \"}}"
        ));
        assert_eq!(file.faults, []);
        let [bob, eve] = &file.entries[..] else { panic!("two users") };
        assert_eq!((bob.line, bob.user.name.as_str(), bob.user.disabled), (1, "bob", true));
        assert_eq!(bob.user.email.as_ref().map(Email::as_str), Some("bob@example.com"));
        assert_eq!(
            (bob.user.grants.services(), bob.user.grants.roles()),
            (&["iqueue".into()][..], &["admin".into()][..])
        );
        assert!(matches!(&bob.secret, Secret::Hash(hash) if hash.as_str() == BCRYPT));
        assert_eq!((eve.line, &eve.user.email, eve.user.disabled), (4, &None, false));
        assert!(matches!(&eve.secret, Secret::Password(_)));
    }

    #[test]
    fn every_bad_line_is_named_with_what_to_write() {
        let file = read(
            "{\"name\":\"a\",\"password\":\"x\"}\nnot json\n{\"name\":\"b c\",\"password\":\"x\"}\n\
             {\"name\":\"d\"}\n{\"name\":\"Ａ\",\"password\":\"y\"}\n",
        );
        let lines: Vec<String> = file.faults.iter().map(LineFault::to_string).collect();
        assert_eq!(
            lines,
            [
                "line 2: the line is no JSON object; write {\"name\": …, \"password_hash\": …}",
                "line 3: the user name has white space inside; write it as one word",
                "line 4: neither password_hash nor password is there; write one of them",
                "line 5: user a is on line 1 already; keep one of the two",
            ]
        );
    }

    #[test]
    fn a_line_that_is_almost_a_user_is_refused() {
        for (line, hint) in [
            ("{\"name\":\"a\",\"password\":\"x\",\"password_hash\":\"y\"}", "both"),
            ("{\"name\":\"a\",\"password\":\"x\",\"admin\":true}", "unknown field `admin`"),
            ("{\"name\":\"a\",\"name\":\"b\",\"password\":\"x\"}", "duplicate field `name`"),
            ("{\"password\":\"x\"}", "missing field `name`"),
            ("{\"name\":\"a\",\"password\":\"\"}", "the password is empty"),
            ("{\"name\":\"a\",\"password_hash\":\"secret\"}", "no known format"),
            ("{\"name\":\"a\",\"password\":\"x\",\"email\":\"a\"}", "e-mail"),
            ("{\"name\":\"a\",\"password\":\"x\",\"roles\":[\"a,b\"]}", "commas"),
            ("{\"name\":\"a\",\"password\":\"x\"} {}", "trailing characters"),
            ("{\"name\":\"a\",\"password\":\"x\"", "EOF while parsing an object (column 26)"),
            ("[\"a\",null,[],[],null,\"x\",false]", "no JSON object"),
            ("\u{feff}{\"name\":\"a\",\"password\":\"x\"}", "no JSON object"),
        ] {
            let what = only_fault(line);
            assert!(what.contains(hint), "{line}: {what}");
        }
        assert!(ImportFile::read(&b"{\"name\":\"a\xff\",\"password\":\"x\"}"[..]).unwrap().entries.is_empty());
    }

    #[test]
    fn no_message_shows_a_password() {
        for line in [
            "{\"name\":\"a\",\"password\":73313373}",
            "{\"name\":\"a\",\"password\":[\"73313373\"]}",
            "{\"name\":\"a\",\"password_hash\":73313373}",
            "{\"name\":\"a\",\"password_hash\":\"73313373\"}",
        ] {
            let what = only_fault(line);
            assert!(!what.contains("73313373"), "{what}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_whole_and_the_next_is_read() {
        let line = |padding: usize| format!("{}{{\"name\":\"a\",\"password\":\"x\"}}", " ".repeat(padding - 27));
        assert_eq!(line(100).len(), 100);
        assert_eq!(read(&line(MAX_LINE_BYTES)).entries.len(), 1, "the longest");
        assert_eq!(read(&format!("{}\n", line(MAX_LINE_BYTES))).entries.len(), 1, "the line feed does not count");

        let file = read(&format!("{}\n{{\"name\":\"b\",\"password\":\"x\"}}\n", line(5 * MAX_LINE_BYTES)));
        assert_eq!(file.faults, [LineFault { line: 1, what: "the line is too long; at most 65536 bytes".into() }]);
        assert_eq!((file.entries.len(), file.entries[0].line), (1, 2));
        assert!(only_fault(&line(MAX_LINE_BYTES + 1)).contains("too long"), "at the end of the file");
    }

    #[test]
    fn an_empty_file_has_no_users_and_no_faults() {
        let file = read("");
        assert!(file.entries.is_empty() && file.faults.is_empty());
    }
}
