//! Documents say what the code says: keys, metrics, the sample, links.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use sentry_edge::auth::keys;
use sentry_edge::clock::Clock;
use sentry_edge::config::{self, Algorithm};

use super::book::documents;
use super::source::sources;
use super::tables::quoted;
use super::{at, read};
use crate::harness::certificates::ca;
use crate::reference::keys;

/// A shape with a secret among its keys stands sealed wherever it stands, so that nothing of what was written there is
/// quoted: see `config/reading.rs`.
#[test]
fn every_shape_with_a_secret_in_it_is_sealed() {
    let mut shapes: BTreeMap<String, String> = BTreeMap::new();
    for source in sources().iter().filter(|source| source.name.starts_with("config/file")) {
        for shape in source.code().split("\npub struct ").skip(1) {
            let (name, fields) = shape.split_once(" {\n").unwrap();
            shapes.insert(name.to_owned(), fields.split("\n}").next().unwrap().to_owned());
        }
    }
    let of_type = |fields: &str, shape: &str| -> Vec<String> {
        let is_it = |line: &&str| {
            line.split(": ").nth(1).is_some_and(|kind| kind.split(['<', '>', ',']).any(|part| part.trim() == shape))
        };
        fields.lines().filter(is_it).map(str::to_owned).collect()
    };
    let mut holders = BTreeSet::new();
    for (name, fields) in &shapes {
        // The value of a header field may be one.
        if ["Secret", "FieldValue"].iter().any(|secret| !of_type(fields, secret).is_empty()) {
            holders.insert(name.clone());
        }
    }
    assert_eq!(
        holders.iter().map(String::as_str).collect::<Vec<_>>(),
        ["Admin", "AdminToken", "Key", "RequestHeaders", "Tickets"],
        "those that were known when this was written"
    );
    for holder in &holders {
        let places: Vec<String> = shapes.values().flat_map(|fields| of_type(fields, holder)).collect();
        assert!(!places.is_empty(), "{holder} stands somewhere");
        for place in places {
            assert!(
                place.contains(&format!("Sealed<{holder}>")),
                "{holder} holds a secret and is not sealed: {}",
                place.trim()
            );
        }
    }
}

#[test]
fn the_reference_is_what_the_source_says() {
    crate::reference::is_what_the_source_says();
}

#[test]
fn the_sample_has_every_configuration_key() {
    let sample = read("config/edge.yaml");
    let mut written = BTreeSet::new();
    gather_written(&serde_yaml::from_str(&sample).unwrap(), "", &mut written);
    // What cannot stand beside something else is told in a comment.
    let comments: String =
        sample.lines().filter_map(|line| line.split_once('#')).map(|(_, text)| format!("{text}\n")).collect();
    let missing: Vec<String> = keys()
        .into_iter()
        .map(|(key, _)| key)
        .filter(|key| !written.contains(key) && !comments.contains(&format!("{}:", key.rsplit('.').next().unwrap())))
        .collect();
    assert_eq!(missing, [""; 0], "keys that config/edge.yaml does not show");
}

fn gather_written(value: &serde_yaml::Value, place: &str, keys: &mut BTreeSet<String>) {
    keys.insert(place.trim_end_matches("[]").to_owned());
    match value {
        serde_yaml::Value::Mapping(mapping) => {
            for (key, value) in mapping {
                let key = if ["services", "pools"].contains(&place) { "NAME" } else { key.as_str().unwrap() };
                gather_written(value, &format!("{place}{}{key}", if place.is_empty() { "" } else { "." }), keys);
            }
        }
        serde_yaml::Value::Sequence(list) => {
            for value in list {
                gather_written(value, &format!("{place}[]"), keys);
            }
        }
        _ => {}
    }
}

/// The sample in a folder where every file that it names is there.
fn sample() -> (tempfile::TempDir, PathBuf, String) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    let text = ["/etc/sentry-edge", "/var/lib/sentry-edge", "/var/log/sentry-edge"]
        .iter()
        .fold(read("config/edge.yaml"), |text, place| text.replace(place, root));
    let file = folder.path().join("edge.yaml");
    std::fs::write(&file, &text).unwrap();
    let (config, faults) = config::read(&file).unwrap();
    assert!(faults.is_empty(), "{faults}");
    let write = |path: &Path, text: &str| {
        assert!(path.starts_with(folder.path()), "{} is none of the sample's folders", path.display());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let hosts = config.services.iter().flat_map(|service| service.hosts.iter().map(ToString::to_string));
    let hosts: Vec<String> = hosts.chain([config.sentry.host.to_string()]).collect();
    let certificate = ca().issue(&hosts.iter().map(String::as_str).collect::<Vec<_>>());
    for files in &config.tls.certificates {
        write(&files.certificate, &certificate.pem);
        write(&files.key, &certificate.key);
    }
    if let Some(users) = config.users.file() {
        // An empty file is an empty directory.
        write(users, "");
    }
    for issuer in config.pools.iter().filter_map(|pool| pool.tls.as_ref()?.ca.as_ref()) {
        write(issuer, &ca().pem);
    }
    let Some(config::SecretSource::File(secret)) = &config.tls.tickets.secret else {
        panic!("the sample's secret is a file");
    };
    write(secret, &keys::generate(Algorithm::HS256).unwrap());
    for key in &config.sentry.keys {
        let (config::KeyMaterial::Secret(source) | config::KeyMaterial::Private(source)) = &key.material else {
            panic!("the sample's keys sign");
        };
        let config::SecretSource::File(path) = source else { panic!("the sample's keys are files") };
        write(path, &keys::generate(key.algorithm).unwrap());
    }
    (folder, file, text)
}

#[test]
fn the_sample_is_a_good_configuration() {
    let (_folder, file, _) = sample();
    let checked = sentry_edge::server::check(&file, &Clock::default());
    assert!(checked.is_ok(), "{}", checked.err().unwrap());
    let (config, _) = config::read(&file).unwrap();
    assert!(
        config.sentry.keys.iter().any(|key| key.algorithm == Algorithm::ES256),
        "it shows a key that can be published"
    );
}

#[test]
fn what_the_sample_calls_a_default_is_one() {
    let (_folder, file, text) = sample();
    let read =
        |text: &str| config::parse(&file, text).map(|(config, faults)| (format!("{config:#?}"), faults.to_string()));
    let (whole, _) = read(&text).unwrap();
    let mut marked = 0;
    for (at, line) in text.lines().enumerate().filter(|(_, line)| line.contains("# default")) {
        if line.trim_start().starts_with('#') {
            continue;
        }
        marked += 1;
        let without: Vec<&str> =
            text.lines().enumerate().filter(|(other, _)| *other != at).map(|(_, line)| line).collect();
        let (config, faults) = read(&without.join("\n")).unwrap_or_else(|faults| panic!("without `{line}`: {faults}"));
        assert_eq!(faults, "", "without `{line}`");
        let difference = whole.lines().zip(config.lines()).find(|(before, after)| before != after);
        assert!(config == whole, "`{}` is no default: {difference:?}", line.trim());
    }
    assert!(marked > 40, "the marks were found: {marked}");
}

#[test]
fn sums_that_wrap_end_their_task_in_a_release_too() {
    let manifest = read("Cargo.toml");
    let profile = manifest.split("[profile.release.package.sentry-edge]\n").nth(1).expect("the crate's own profile");
    assert!(profile.starts_with("overflow-checks = true\n"), "{}", &profile[..40]);
}

/// `proxy/policy` and the like, whose first part is a room of src/.
#[test]
fn documents_name_only_files_that_are_there() {
    let rooms: BTreeSet<String> = sources().iter().map(|source| source.room().to_owned()).collect();
    let mut named = 0;
    // What the change log names may have gone since.
    for (document, text) in documents().iter().filter(|(document, _)| *document != "CHANGELOG.md") {
        for name in quoted(text) {
            let path = name.strip_prefix("src/").unwrap_or(&name).trim_end_matches('/');
            let is_path = path.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"/_.".contains(&b));
            let Some((room, _)) = path.split_once('/').filter(|(room, _)| is_path && rooms.contains(*room)) else {
                continue;
            };
            named += 1;
            let is_there = |place: PathBuf| place.exists() || place.with_extension("rs").exists();
            assert!(is_there(at("src").join(path)) || at(path).exists(), "{document} names `{name}`, not in `{room}`");
        }
    }
    assert!(named > 50, "the names were found: {named}");
}
