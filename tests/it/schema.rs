//! `sentry-edge schema` and `run -T`: what is said about a configuration from outside agrees with what `check` says.
//!
//! The judge of the schema is a library of another author.

use std::path::{Path, PathBuf};

use boon::{Compiler, SchemaIndex, Schemas};
use sentry_edge::config;
use sentry_edge::config::effective::HIDDEN;
use serde_json::Value;

use crate::configuration::{self, GOOD, folder, run, without_marks};
use crate::harness::edge::HMAC_KEY;
use crate::tidy::{at, read};

/// The committed schema, compiled.
struct Judge {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Judge {
    fn new() -> Self {
        let schema: Value = serde_json::from_str(&read("config/edge.schema.json")).unwrap();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource("edge.schema.json", schema).unwrap();
        let index = compiler.compile("edge.schema.json", &mut schemas).unwrap();
        Self { schemas, index }
    }

    /// What is wrong with a configuration, in the words of the library.
    fn faults(&self, yaml: &str) -> Option<String> {
        let document: serde_yaml::Value = serde_yaml::from_str(yaml).ok()?;
        let document = serde_json::to_value(document).unwrap();
        self.schemas.validate(&document, self.index).err().map(|error| format!("{error:#}"))
    }
}

/// Every configuration of config/ and its examples.
fn configurations() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["config", "config/examples"] {
        for entry in std::fs::read_dir(at(folder)).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                found.push(path);
            }
        }
    }
    assert!(found.iter().any(|path| path.ends_with("config/edge.yaml")), "{found:?}");
    found
}

#[test]
fn the_command_prints_the_committed_schema() {
    let printed = run(&["schema"]);
    assert_eq!((printed.status, printed.stderr.as_str()), (Some(0), ""));
    assert!(printed.stdout == read("config/edge.schema.json"), "`make reference` renews config/edge.schema.json");
    let schema: Value = serde_json::from_str(&printed.stdout).unwrap();
    assert!(schema["$defs"]["Service"]["properties"]["hosts"].is_object());
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn every_configuration_that_is_there_validates() {
    let judge = Judge::new();
    for path in configurations() {
        let text = std::fs::read_to_string(&path).unwrap();
        let named = text.lines().next().unwrap_or_default().starts_with("# yaml-language-server: $schema=");
        assert!(named, "{} names the schema for editors on its first line", path.display());
        assert_eq!(judge.faults(&text), None, "{}", path.display());
    }
    assert_eq!(judge.faults(&without_marks(GOOD)), None);
}

/// Each row of the table of bad configurations whose fault is one of shape: an unknown key, a value of another kind, a
/// key that is missing. Others are faults of values, names and files, which no schema knows.
#[test]
fn what_check_refuses_for_its_shape_is_refused_by_the_schema() {
    let judge = Judge::new();
    let (mut passed, mut refused) = (Vec::new(), 0);
    for (number, text, what) in configuration::bad() {
        let faults = judge.faults(&text);
        let is_of_shape =
            ["unknown key", "expected ", "`HOST:PORT` or", "`public`, `required` or", "a number of threads", "such as"]
                .iter()
                .any(|part| what.contains(part));
        match (is_of_shape, faults) {
            (true, None) => passed.push(number),
            (_, Some(_)) => refused += 1,
            (false, None) => {}
        }
    }
    assert!(passed.is_empty(), "rows {passed:?} are good by the schema");
    assert!(refused > 20, "{refused} were refused");
}

/// Spellings of units: the schema and the reader agree about each.
#[test]
fn units_are_spelled_alike_for_the_schema_and_for_check() {
    let judge = Judge::new();
    for (key, good, bad) in [
        (
            "drain: 5s",
            &["250ms", "30s", "1h 30m", "2days", "1.5h", "90 s", "1h30m", "500us", "2weeks"][..],
            &["5", "soon", "-1s", "1 fortnight", "\"\"", "s", "5 s 3", "[5s]", "5s,"][..],
        ),
        (
            "header_bytes: 32KiB",
            &["32KiB", "64 KiB", "32768", "\"32768\"", "32768B", "1MiB"],
            &["32KB", "0", "-1", "1.5KiB", "KiB", "\"\"", "32kib", "{}"],
        ),
        (
            "failures_per_account: 5 per 15m",
            &["5 per 15m", "1 per 1h 30m"],
            &["5", "0 per 1m", "5 / 15m", "5 per 15", "five per 15m"],
        ),
    ] {
        let name = key.split(':').next().unwrap();
        for (values, is_good) in [(good, true), (bad, false)] {
            for value in values {
                let text = without_marks(GOOD).replace(key, &format!("{name}: {value}"));
                let text = if key.contains("per") {
                    text.replace(
                        &format!("{{{name}: {value}}}"),
                        &format!("{{{name}: \"{}\"}}", value.trim_matches('"')),
                    )
                } else {
                    text
                };
                let (_, faults) = config::parse(Path::new("/edge.yaml"), &text).unwrap();
                assert_eq!(faults.is_empty(), is_good, "check: {name}: {value}: {faults}");
                assert_eq!(
                    judge.faults(&text).is_none(),
                    is_good,
                    "schema: {name}: {value}: {:?}",
                    judge.faults(&text)
                );
            }
        }
    }
}

/// What `run -T` prints is a configuration with the same meaning, and nothing in it is left to a default.
#[test]
fn the_effective_configuration_means_the_same() {
    let judge = Judge::new();
    let mut texts: Vec<(PathBuf, String)> =
        configurations().into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect();
    let memcached = "store: memcached, memcached: {servers: [\"127.0.0.1:11211\", {address: \"127.0.0.1:11212\"}]}";
    texts.push(("/good/edge.yaml".into(), without_marks(GOOD)));
    texts.push(("/shared/edge.yaml".into(), without_marks(GOOD).replace("store: memory", memcached)));
    texts.push((
        "/mtls/edge.yaml".into(),
        without_marks(GOOD).replace("idle_timeout: 30m", "tls: {client_ca: ca.pem}\n    on_outage: {policy: recent}"),
    ));
    for (path, text) in texts {
        let (config, faults) = config::parse(&path, &text).unwrap();
        let document = serde_yaml::from_str(&text).unwrap();
        let printed = config::effective::effective(document, &config).unwrap();
        assert!(!printed.contains(HMAC_KEY), "{printed}");
        let printed = printed.replace(&format!("value: {HIDDEN}"), &format!("value: {HMAC_KEY}"));
        let (again, faults_again) = config::parse(&path, &printed).unwrap();
        assert_eq!(faults_again.to_string(), faults.to_string(), "{printed}");
        let words = |config: &config::Config| format!("{config:#?}");
        let (before, after) = (words(&config), words(&again));
        let difference = before.lines().zip(after.lines()).find(|(before, after)| before != after);
        assert!(again == config, "{}: {difference:?}\n{printed}", path.display());
        assert_eq!(judge.faults(&printed), None, "{printed}");
        for key in ["tls_handshake: 5s", "min_body_rate: 256B", "on_outage:", "issuer: https://sentry.", "sign_with: "]
        {
            assert!(printed.contains(key), "{key} is written out:\n{printed}");
        }
    }
}

/// What `run -T` prints for a configuration that `check` takes.
fn effective(text: &str) -> String {
    let (config, faults) = config::parse(Path::new("/edge.yaml"), text).unwrap();
    assert!(faults.is_empty(), "{faults}\n{text}");
    config::effective::effective(serde_yaml::from_str(text).unwrap(), &config).unwrap()
}

#[test]
fn no_tag_hides_a_secret_from_what_leaves_secrets_out() {
    let good = without_marks(GOOD);
    for (plain, tagged) in [
        ("secret: {value:", "secret: !x {value:"),
        ("  keys:\n    - id", "  keys: !x\n    - id"),
        ("    - id: main", "    - !x\n      id: main"),
        ("sentry:\n", "sentry: !x\n"),
        ("server:\n  threads", "!x\nserver:\n  threads"),
    ] {
        assert_eq!(good.matches(plain).count(), 1, "{plain}");
        let printed = effective(&good.replace(plain, tagged));
        assert!(!printed.contains(HMAC_KEY) && printed.contains(HIDDEN), "{tagged}: {printed}");
        assert_eq!(printed, effective(&good), "{tagged}: and nothing else is different");
    }
}

#[test]
fn a_field_of_requests_that_is_a_secret_in_all_likelihood_is_printed_by_its_name() {
    for (field, is_hidden) in [
        ("Authorization: hunter2", true),
        ("Authorization: 733137", true),
        ("X-Api-Key: 733137", true),
        ("X-Auth: true", true),
        ("X-Passcode: hunter2", true),
        ("X-Upstream: Basic hunter2", true),
        ("X-Upstream: bearer hunter2", true),
        ("X-Upstream: {value: hunter2}", true),
        ("733137: hunter2-token", false),
        ("X-Upstream: hunter2", false),
        ("X-Upstream: 733137", false),
    ] {
        for tag in ["", "!x "] {
            let text = format!("request_headers: {tag}{{set: {tag}{{{field}}}}}\n    idle_timeout: 30m");
            let printed = effective(&without_marks(GOOD).replace("idle_timeout: 30m", &text));
            let (name, value) = field.split_once(": ").unwrap();
            assert!(printed.contains(name), "{field}: {printed}");
            let value = value.split(' ').next_back().unwrap().trim_matches('}');
            let shown =
                printed.lines().any(|line| line.contains(name) && line.contains(value)) || printed.contains("hunter2");
            assert_eq!(!shown, is_hidden, "{field}: {printed}");
        }
    }
}

#[test]
fn a_number_is_a_key_with_quotes_and_without() {
    let numbers = |quote: &str| {
        without_marks(GOOD)
            .replace(
                "  iqueue:\n",
                &format!("  {quote}2048{quote}:\n    error_pages: {{{quote}502{quote}: public.pem}}\n"),
            )
            .replace("  first:\n", &format!("  {quote}7{quote}:\n"))
            .replace("pool: first", "pool: \"7\"")
    };
    let (quoted, plain) = (numbers("\""), numbers(""));
    let parsed = |text: &str| config::parse(Path::new("/edge.yaml"), text).unwrap().0;
    assert_eq!(effective(&quoted), effective(&plain));
    assert!(parsed(&quoted) == parsed(&plain));
    let twice = plain.replace("{502: public.pem}", "{502: public.pem, \"502\": users.db}");
    let fault = config::parse(Path::new("/edge.yaml"), &twice).map(|_| ()).unwrap_err().to_string();
    assert!(fault.contains("a key that is on line "), "{fault}");
}

#[test]
fn the_effective_configuration_is_printed_without_secrets_and_a_bad_one_is_refused() {
    let (_folder, file) = folder(&without_marks(GOOD));
    let file = file.to_str().unwrap();
    let printed = run(&["run", "-T", "-c", file]);
    assert_eq!((printed.status, printed.stderr.as_str()), (Some(0), ""));
    assert!(!printed.stdout.contains(HMAC_KEY), "{}", printed.stdout);
    assert!(
        printed.stdout.contains("  drain: 5s\n") && printed.stdout.contains("keepalive: 75s\n"),
        "{}",
        printed.stdout
    );
    assert!(printed.stdout.contains("file: public.pem"), "where a secret is read from is none: {}", printed.stdout);
    let (_folder, bad) = folder(&without_marks(GOOD).replace("drain: 5s", "drain: soon"));
    let refused = run(&["run", "-T", "-c", bad.to_str().unwrap()]);
    assert_eq!((refused.status, refused.stdout.as_str()), (Some(1), ""));
    assert!(refused.stderr.contains("server.drain: "), "{}", refused.stderr);
}

#[test]
fn shells_and_man_learn_every_command() {
    for (shell, sign) in [("bash", "complete -F"), ("zsh", "#compdef sentry-edge"), ("fish", "complete -c sentry-edge")]
    {
        let script = run(&["completion", shell]);
        assert_eq!((script.status, script.stderr.as_str()), (Some(0), ""), "{shell}");
        assert!(script.stdout.contains(sign), "{shell}");
        for word in ["set-password", "--password-stdin", "schema", "--connect"] {
            assert!(script.stdout.contains(word.trim_start_matches('-')), "{shell} knows {word}");
        }
    }
    assert_eq!(run(&["completion", "tcsh"]).status, Some(2));
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(&["man", folder.path().to_str().unwrap()]).status, Some(0));
    let page = std::fs::read_to_string(folder.path().join("sentry-edge-user-add.1")).unwrap();
    assert!(page.contains("password"), "{page}");
}
