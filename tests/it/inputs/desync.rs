//! The requests that the crate `http_desync_guardian` ships with its tests (AWS, Apache-2.0), which grades them by how
//! likely two servers disagree about them. Read from the package where cargo has it; nothing is copied.

use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize;

use super::Scene;
use crate::harness::process::text;
use crate::harness::raw;

#[derive(Deserialize)]
struct Case {
    name: String,
    uri: String,
    method: String,
    version: String,
    headers: Option<Vec<Header>>,
    expected: Expected,
}

#[derive(Deserialize)]
struct Header {
    name: String,
    value: serde_yaml::Value,
}

#[derive(Deserialize)]
struct Expected {
    tier: String,
}

/// Requests that are in order by the letter and not served here: their names, and why. Where the numbered list of bad
/// inputs demands the refusal, two lists disagree, and the number says which of them is followed.
const NOT_SERVED: [(&str, &str); 10] = [
    ("Different Transfer-Encoding headers", "15, 16, 25: codings beside `chunked`, and in several fields"),
    ("Different Transfer-Encoding headers combined", "15, 16: codings beside `chunked`"),
    ("Transfer-Encoding with a param: chunked;custom_param", "15, 19, 25: codings, parameters, several fields"),
    ("Correct TE OK", "15: `gzip, chunked`"),
    ("Transfer-Encoding: identity and chunked OK", "15, 16: `deflate, identity, chunked`"),
    ("Multiple transfer encoding headers in a single request OK", "15, 16, 25: as the first of these"),
    ("TE with custom parameters OK", "19: a parameter of `chunked`"),
    ("Compliant URL", "105 and 99: a fragment, which has no place in a request, and a backslash"),
    // No number demands it. No URI has such bytes (RFC 3986 §2), so that an application would get what is none, or
    // something else than was sent, which the list forbids for paths (91 to 108).
    ("International in URI", "bytes beyond ASCII can be forwarded neither as they are nor in another way"),
    ("Empty URI", "50: two blanks in a row; there is no request without a target"),
];

/// The folder of the crate's tests. Without a platform, `cargo metadata` wants every package of the lock file, those for
/// Windows too, which a machine that has only fetched what it builds does not have.
fn folder() -> PathBuf {
    let cargo = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO")).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        assert!(output.status.success(), "cargo {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let arguments = ["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host];
    let metadata: serde_json::Value = serde_json::from_str(&cargo(&arguments)).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let crate_of_them = packages.iter().find(|package| package["name"] == "http_desync_guardian").unwrap();
    PathBuf::from(crate_of_them["manifest_path"].as_str().unwrap()).with_file_name("tests")
}

fn cases() -> Vec<Case> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let read = |file: &PathBuf| -> Vec<Case> {
        serde_yaml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap_or_else(|e| panic!("{file:?}: {e}"))
    };
    files.iter().flat_map(read).collect()
}

impl Case {
    /// Its bytes, with the Host and the body that it leaves out. Characters are written as UTF-8, as its own tests do,
    /// or as the single bytes that they are meant for.
    /// `None` where there are none.
    fn bytes(&self, as_utf8: bool) -> Option<Vec<u8>> {
        let mut head = format!("{} {} {}\r\nHost: iqueue.test\r\n", self.method, self.uri, self.version);
        let mut body = String::new();
        for Header { name, value } in self.headers.iter().flatten() {
            let value = match value {
                serde_yaml::Value::String(text) => text.clone(),
                serde_yaml::Value::Number(number) => number.to_string(),
                _ => String::new(),
            };
            match (name.to_ascii_lowercase().as_str(), value.trim().parse::<usize>()) {
                ("content-length", Ok(length)) if length < 64 << 20 => body = "x".repeat(length),
                ("transfer-encoding", _) => body = "0\r\n\r\n".into(),
                _ => {}
            }
            head += &format!("{name}: {value}\r\n");
        }
        let text = head + "\r\n" + &body;
        if as_utf8 { Some(text.into_bytes()) } else { text.chars().map(|c| u8::try_from(c).ok()).collect() }
    }
}

const BEHIND: &str = "GET /behind HTTP/1.1\r\nHost: iqueue.test\r\nConnection: close\r\n\r\n";

#[test]
fn what_the_desync_guardian_calls_severe_is_refused_and_what_it_calls_compliant_is_served() {
    let scene = Scene::with("access: public");
    let (mut wrong, mut counts) = (Vec::new(), std::collections::BTreeMap::new());
    let mut exceptions: Vec<&str> = NOT_SERVED.iter().map(|(name, _)| *name).collect();
    for case in cases() {
        for as_utf8 in [true, false] {
            let Some(bytes) = case.bytes(as_utf8) else { continue };
            let before = scene.iqueue.count();
            let mut connection = raw(scene.edge.address(), "iqueue.test");
            connection.send([&bytes[..], BEHIND.as_bytes()].concat());
            println!("{}: {}", case.name, bytes[..bytes.len().min(300)].escape_ascii());
            // Not taken apart by lengths, as some of the requests are HEAD.
            let heard = String::from_utf8_lossy(&connection.rest()).into_owned();
            let answers: Vec<&str> = heard.split("HTTP/1.1 ").skip(1).collect();
            let seen = scene.iqueue.seen().split_off(before);
            let served = answers.iter().filter(|answer| answer.starts_with("200")).count();
            // Whatever it is: as many requests at the application as answers from it, and after a refusal nothing.
            let closed = answers.last().is_some_and(|last| last.to_ascii_lowercase().contains("connection: close\r\n"));
            let sound = seen.len() == served && closed && (served == answers.len() || answers.len() == 1);
            let known = NOT_SERVED.iter().find(|(name, _)| case.name == *name).map(|(name, _)| *name);
            let right = match case.expected.tier.as_str() {
                "Severe" => served == 0,
                "Compliant" if known.is_some() => served == 0,
                "Compliant" => served == 2,
                _ => true,
            };
            exceptions.retain(|name| Some(*name) != known);
            *counts.entry((case.expected.tier.clone(), served > 0)).or_insert(0) += 1;
            if !sound || !right {
                let statuses: Vec<&str> = answers.iter().map(|answer| &answer[..3]).collect();
                wrong.push(format!(
                    "{} ({}): {statuses:?}, {} seen: {}",
                    case.name,
                    case.expected.tier,
                    seen.len(),
                    bytes[..bytes.len().min(300)].escape_ascii()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases, of {counts:?}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(exceptions, [""; 0], "exceptions that are none any more");
    let of = |tier: &str| counts.iter().filter(|((of, _), _)| of == tier).map(|(_, count)| count).sum::<i32>();
    assert!(of("Severe") >= 100 && of("Compliant") >= 50, "the cases were found: {counts:?}");
}
