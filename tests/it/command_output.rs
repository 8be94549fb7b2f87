//! What commands say when they have done something, when they refuse to, and when nobody reads it any more.

use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use sentry_edge::users::{Grants, NewUser, Password, UserName, password};
use serde_json::Value;

use crate::harness::edge::PASSWORD;
use crate::harness::process::{sentry_edge_with_input, text};
use crate::harness::{Edge, Origin, edge, eventually, memcached, origin};

/// What a command has printed, and its status.
fn told(arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let output = sentry_edge_with_input(arguments, input);
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn file(edge: &Edge) -> String {
    edge.folder.path().join("edge.yaml").display().to_string()
}

/// Runs a command whose reader has gone before it prints its first byte.
fn without_reader(arguments: &[&str], input: &str, stderr: bool) -> (ExitStatus, String) {
    use std::io::Write;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_sentry-edge"));
    command.args(arguments).stdin(Stdio::piped()).stdout(writer.try_clone().unwrap());
    command.stderr(if stderr { Stdio::piped() } else { Stdio::from(writer) });
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    let output = child.wait_with_output().unwrap();
    (output.status, text(&output.stderr))
}

#[test]
fn no_command_minds_a_reader_that_has_gone() {
    let (origin, memcached) = (origin("app"), memcached());
    let edge = edge().service("iqueue", &origin).service("dextor", &origin).memcached(&memcached.address()).start();
    edge.signed_in();
    let file = file(&edge);
    let import = edge.folder.path().join("users.jsonl");
    std::fs::write(&import, "{\"name\":\"zoe\",\"password\":\"correct horse battery\"}\n").unwrap();
    let import = import.display().to_string();
    let token = edge.signed_in().cookie("iqueue.test", crate::harness::edge::TOKEN_COOKIE).unwrap().to_owned();
    let secret = "correct horse battery\n";
    let commands: Vec<(Vec<&str>, &str)> = vec![
        (vec!["--help"], ""),
        (vec!["--version"], ""),
        (vec!["user", "--help"], ""),
        (vec!["user", "add", "bob", "--password-stdin", "-c", &file], secret),
        (vec!["user", "list", "-c", &file], ""),
        (vec!["user", "list", "--json", "-c", &file], ""),
        (vec!["user", "show", "ada", "-c", &file], ""),
        (vec!["user", "show", "ada", "--json", "-c", &file], ""),
        (vec!["user", "grant", "bob", "--service", "iqueue", "-c", &file], ""),
        (vec!["user", "revoke", "bob", "--service", "iqueue", "-c", &file], ""),
        (vec!["user", "disable", "bob", "-c", &file], ""),
        (vec!["user", "enable", "bob", "-c", &file], ""),
        (vec!["user", "set-password", "bob", "--password-stdin", "-c", &file], secret),
        (vec!["user", "import", &import, "-c", &file], ""),
        (vec!["session", "list", "-c", &file], ""),
        (vec!["session", "list", "--json", "-c", &file], ""),
        (vec!["session", "list", "--limit", "1", "-c", &file], ""),
        (vec!["session", "end", "--user", "bob", "-c", &file], ""),
        (vec!["key", "generate", "--algorithm", "HS256"], ""),
        (vec!["key", "generate", "--algorithm", "ES256"], ""),
        (vec!["key", "generate", "--algorithm", "EdDSA"], ""),
        (vec!["token", "inspect", &token], ""),
        (vec!["token", "inspect"], &token),
        (vec!["check", "-c", &file], ""),
        (vec!["check", &file], ""),
        (vec!["run", "-t", "-c", &file], ""),
    ];
    for (arguments, input) in &commands {
        let (status, stderr) = without_reader(arguments, input, true);
        let expected = if arguments.contains(&"--limit") { "there are more than 1; --limit lists more\n" } else { "" };
        assert!(status.success() && stderr == expected, "{arguments:?}: {status}: {stderr}");
    }
    // Nor does one that has something to complain of.
    for (arguments, status) in [
        (&["user", "show", "nobody", "-c", &file][..], 1),
        (&["user", "show", "nobody"], 2),
        (&["nothing"], 2),
        (&["token", "inspect", "x"], 1),
        (&["check", "-c", "/nonexistent/edge.yaml"], 1),
        (&["run", "-c", "/nonexistent/edge.yaml"], 1),
    ] {
        let (ended, _) = without_reader(arguments, "", false);
        assert_eq!(ended.code(), Some(status), "{arguments:?}");
    }
    assert!(edge.directory().show(&UserName::parse("zoe").unwrap()).is_ok(), "what was asked for is done");
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sentry-edge"));
    command.args(["key", "generate", "--algorithm", "HS256"]).stdout(full);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("standard output cannot be written"), "{}", text(&output.stderr));
}

#[test]
fn a_command_says_what_it_has_done() {
    let origin = origin("app");
    let edge = edge().service("iqueue", &origin).service("dextor", &origin).start();
    let file = file(&edge);
    for (arguments, input, words) in [
        (&["user", "add", "Bob", "--password-stdin"][..], "correct horse battery\n", &["bob was added"][..]),
        (
            &["user", "grant", "bob", "--service", "iqueue", "dextor", "--role", "nurse"],
            "",
            &["bob was granted service iqueue, dextor and role nurse", "within 20ms"],
        ),
        (&["user", "grant", "bob", "--role", "x"], "", &["bob was granted role x;"]),
        (&["user", "revoke", "bob", "--role", "x"], "", &["bob no longer has role x;", "within 20ms"]),
        (&["user", "disable", "bob"], "", &["bob was disabled", "open sessions end within 20ms"]),
        (&["user", "enable", "bob"], "", &["bob was enabled"]),
        (
            &["user", "set-password", "bob", "--password-stdin"],
            "correct horse staple\n",
            &["password of bob was set", "open sessions end within 20ms"],
        ),
        (&["session", "end", "--user", "bob"], "", &["bob", "within 20ms"]),
        (&["check"], "", &["configuration OK"]),
    ] {
        let arguments = [arguments, &["-c", &file]].concat();
        let (status, stdout, stderr) = told(&arguments, input);
        assert_eq!((status, stderr.as_str()), (Some(0), ""), "{arguments:?}");
        words.iter().for_each(|words| assert!(stdout.contains(words), "{arguments:?}: {stdout}"));
    }
}

#[test]
fn an_import_names_every_line_with_a_service_that_is_not_there() {
    let origin = origin("app");
    let edge = edge().service("iqueue", &origin).service("dextor", &origin).start();
    let users = "{\"name\":\"a\",\"services\":[\"iqueue\"],\"password\":\"correct horse 1\"}\n\
                 {\"name\":\"b\",\"services\":[\"iqueu\"],\"password\":\"correct horse 2\"}\n\n\
                 {\"name\":\"c\",\"services\":[\"dextor\",\"IQUEUE\",\"pacs\"],\"password\":\"correct horse 3\"}\n\
                 {\"name\":\"d\",\"services\":[\"iqueue\",\"x y\"],\"password\":\"correct horse 4\"}\n\
                 not json\n";
    let path = edge.folder.path().join("users.jsonl");
    std::fs::write(&path, users).unwrap();
    let path = path.display().to_string();
    let (status, stdout, stderr) = told(&["user", "import", &path, "-c", &file(&edge)], "");
    assert_eq!((status, stdout.as_str()), (Some(1), ""), "{stderr}");
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 4, "{stderr}");
    for (line, (number, words)) in
        lines.iter().zip([(2, "`iqueu`"), (4, "`IQUEUE`, `pacs`"), (5, "`x y`"), (6, "no JSON object")])
    {
        assert!(line.starts_with(&format!("{path}:{number}: ")) && line.contains(words), "{line}");
    }
    assert!(lines[0].contains("the configuration has: dextor, iqueue"), "{}", lines[0]);
    assert_eq!(edge.directory().list().unwrap().len(), 1, "nobody was added");
}

/// Three hundred services, as many as a large hospital has.
fn many_services() -> Vec<String> {
    (0..300).map(|at| format!("ward-{at:03}-records")).collect()
}

fn edge_with_many() -> (Edge, Origin) {
    let origin = origin("app");
    let builder = edge().service("iqueue", &origin);
    let builder = many_services().iter().fold(builder, |builder, name| builder.service(name, &origin));
    (builder.start(), origin)
}

#[test]
fn grants_that_would_not_fit_in_a_cookie_are_refused_when_they_are_given() {
    let (edge, _origin) = edge_with_many();
    let file = file(&edge);
    let services = many_services();
    let names: Vec<&str> = services.iter().map(String::as_str).collect();
    let all = [&["--service"], &names[..]].concat();
    let too_many = |arguments: &[&str], input: &str| {
        let (status, stdout, stderr) = told(arguments, input);
        assert_eq!((status, stdout.as_str()), (Some(1), ""), "{stderr}");
        for words in ["could not sign in with 30", "services", "browsers keep 4096"] {
            assert!(stderr.contains(words), "{words}: {stderr}");
        }
        stderr
    };
    too_many(&[&["user", "grant", "ada", "-c", &file], &all[..]].concat(), "");
    too_many(&[&["user", "add", "bob", "--password-stdin", "-c", &file], &all[..]].concat(), "correct horse battery\n");
    let line = |name: &str, services: &[&str]| {
        serde_json::json!({"name": name, "services": services, "password": "correct horse battery"}).to_string()
    };
    let path = edge.folder.path().join("users.jsonl");
    std::fs::write(&path, format!("{}\n{}\n", line("carol", &names[..3]), line("dan", &names))).unwrap();
    let stderr = too_many(&["user", "import", path.to_str().unwrap(), "-c", &file], "");
    assert!(stderr.contains(":2: dan could not sign in") && !stderr.contains(":1:"), "{stderr}");
    assert_eq!(edge.directory().list().unwrap().len(), 1);
    // Little by little is no way around it, and who has as much as fits can sign in everywhere.
    let mut given = 0;
    while told(&["user", "grant", "ada", "--service", names[given], names[given + 1], "-c", &file], "").0 == Some(0) {
        given += 2;
        assert!(given < 290, "it never ends");
        if given < 60 {
            let some = [&["user", "grant", "ada", "-c", &file, "--service"], &names[..60]].concat();
            assert_eq!(told(&some, "").0, Some(0));
            given = 60;
        }
    }
    assert!((100..290).contains(&given), "{given}");
    let mut browser = edge.client();
    let hops = edge.sign_in(&mut browser, "iqueue", "ada");
    assert_eq!(hops.last().unwrap().status, 200);
    let token = browser.cookie("iqueue.test", crate::harness::edge::TOKEN_COOKIE).unwrap();
    assert!(token.len() > 3800, "{} bytes", token.len());
}

#[test]
fn a_user_who_has_too_much_all_the_same_is_told_what_to_do() {
    let (edge, _origin) = edge_with_many();
    let new = NewUser {
        name: UserName::parse("eve").unwrap(),
        email: None,
        grants: Grants::parse(many_services(), Vec::new()).unwrap(),
        disabled: false,
    };
    let hash = password::hash(&Password::new(PASSWORD.into()).unwrap()).unwrap();
    edge.directory().add(&new, &hash).unwrap();
    let mut browser = edge.client();
    let form = browser.follow(&edge.url("iqueue", "/")).pop().unwrap();
    let answer = browser.fill_in(&form, "eve", PASSWORD);
    assert_eq!(answer.status, 403, "{}", answer.body);
    for words in ["more applications and roles", "administrator", answer.header("x-request-id").unwrap()] {
        assert!(answer.body.contains(words), "{words}: {}", answer.body);
    }
    let refused = || -> Option<Value> { edge.audit(0).into_iter().find(|line| line["event"] == "login_refused") };
    eventually("the audit log has it", || refused().is_some());
    let line = refused().unwrap();
    assert_eq!((&line["user"], &line["reason"]), (&"eve".into(), &"token_too_large".into()), "{line}");
}

#[test]
fn check_takes_the_file_by_itself() {
    let origin = origin("app");
    let (_folder, path): (_, PathBuf) = edge().service("iqueue", &origin).write();
    let path = path.display().to_string();
    assert_eq!(told(&["check", &path], ""), (Some(0), format!("{path}: configuration OK\n"), String::new()));
    let (status, _, stderr) = told(&["check"], "");
    assert!(status == Some(2) && stderr.contains("-c FILE"), "{stderr}");
    assert_eq!(told(&["check", &path, "-c", &path], "").0, Some(2));
}

/// Where the audit log is standard output, that of the edge is meant and not that of the command.
#[test]
fn no_line_of_the_audit_log_gets_into_the_output_of_a_command() {
    let origin = origin("app");
    let edge = edge().service("iqueue", &origin).user("bob", &["iqueue"], &[]).start();
    let text = std::fs::read_to_string(file(&edge)).unwrap();
    for stream in ["/dev/stdout", "/dev/stderr"] {
        let of_command = edge.folder.path().join("other.yaml");
        let changed = text.replace("audit.log", stream);
        assert_ne!(changed, text);
        std::fs::write(&of_command, changed).unwrap();
        let outputs = ["out", "err"].map(|name| edge.folder.path().join(name));
        let [out, err] = outputs.each_ref().map(|path| std::fs::File::create(path).unwrap());
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sentry-edge"));
        command.args(["user", "disable", "bob", "-c", of_command.to_str().unwrap()]);
        assert!(command.stdout(out).stderr(err).status().unwrap().success());
        let said = outputs.map(|path| std::fs::read_to_string(path).unwrap()).concat();
        // The end of such a line, as the command's own words may stand over its beginning.
        assert!(said.contains("disabled") && !said.contains("actor_uid"), "{stream}: {said}");
    }
}

#[test]
fn what_an_administrator_did_stands_in_the_audit_log() {
    let origin = origin("app");
    let edge = edge().service("iqueue", &origin).start();
    let file = file(&edge);
    // The edge has made the file.
    eventually("there is a log", || edge.folder.path().join("audit.log").exists());
    let users = edge.folder.path().join("users.jsonl");
    let line = |name: &str| format!("{{\"name\":\"{name}\",\"password\":\"correct horse battery\"}}\n");
    std::fs::write(&users, line("dan") + &line("fay")).unwrap();
    let secret = "correct horse battery\n";
    for (arguments, input) in [
        (&["user", "add", "bob", "--service", "iqueue", "--password-stdin"][..], secret),
        (&["user", "grant", "bob", "--role", "nurse"], ""),
        (&["user", "revoke", "bob", "--service", "iqueue"], ""),
        (&["user", "disable", "bob"], ""),
        (&["user", "enable", "bob"], ""),
        (&["user", "unlock", "bob"], ""),
        (&["user", "set-password", "bob", "--password-stdin"], "another correct horse\n"),
        (&["user", "import", users.to_str().unwrap()], ""),
        (&["session", "end", "--user", "bob"], ""),
        // What is refused is no change, and who only looks changes nothing.
        (&["user", "disable", "nobody"], ""),
        (&["user", "show", "bob"], ""),
        (&["user", "list"], ""),
    ] {
        told(&[arguments, &["-c", &file]].concat(), input);
    }
    let changes: Vec<Value> = edge.audit(10).into_iter().filter(|line| line["event"] == "user_changed").collect();
    let told: Vec<_> =
        changes.iter().map(|line| (line["user"].as_str().unwrap(), line["change"].as_str().unwrap())).collect();
    let expected = [
        ("bob", "added"),
        ("bob", "granted"),
        ("bob", "revoked"),
        ("bob", "disabled"),
        ("bob", "enabled"),
        ("bob", "unlocked"),
        ("bob", "password_set"),
        ("dan", "imported"),
        ("fay", "imported"),
        ("bob", "sessions_ended"),
    ];
    assert_eq!(told, expected);
    assert_eq!((&changes[0]["services"], &changes[1]["roles"]), (&vec!["iqueue"].into(), &vec!["nurse"].into()));
    assert!(changes.iter().all(|line| line["actor_uid"].is_u64() && line["time"].is_string()), "{changes:?}");
    let written = std::fs::read_to_string(edge.folder.path().join("audit.log")).unwrap();
    assert!(!written.contains("correct horse") && !written.contains("argon2"), "{written}");
}
