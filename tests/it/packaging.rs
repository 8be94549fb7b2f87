//! What is packaged: the units as systemd reads them, and the example for Kubernetes as the edge reads it. The packages
//! themselves are tried by `make package-test`.

use std::process::Command;

use sentry_edge::config;
use serde::Deserialize;
use serde_yaml::Value;

use crate::harness::write_private;
use crate::tidy::{at, read};

/// The units in a folder of their own, and the path of the service's. Its command is one that is on this machine, as the edge is not installed here.
fn unit() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sentry-edge.service");
    let text = read("systemd/sentry-edge.service");
    assert!(text.contains("\nExecStart=sentry-edge run "), "{text}");
    std::fs::write(&path, text.replace("=sentry-edge ", "=/bin/true ")).unwrap();
    std::fs::write(folder.path().join("sentry-edge.socket"), read("systemd/sentry-edge.socket")).unwrap();
    (folder, path.to_str().unwrap().to_owned())
}

/// Returns the status of `systemd-analyze`, and what it printed.
fn analyze(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("systemd-analyze").args(arguments).output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(printed).unwrap())
}

#[test]
fn systemd_has_nothing_to_say_about_the_units() {
    let (_folder, service) = unit();
    let socket = service.replace(".service", ".socket");
    assert_eq!(analyze(&["verify", "--man=no", &service, &socket]), (true, String::new()));
}

#[test]
fn the_unit_exposes_the_machine_to_no_more_than_1_8_of_10() {
    let (_folder, unit) = unit();
    let (is_within, printed) = analyze(&["security", "--offline=true", "--no-pager", "--threshold=18", &unit]);
    assert!(printed.contains("Overall exposure level"), "{printed}");
    assert!(is_within, "{printed}");
}

#[test]
fn a_crash_is_never_the_last_one() {
    let text = read("systemd/sentry-edge.service");
    for line in ["Restart=on-failure", "StartLimitIntervalSec=0"] {
        assert!(text.lines().any(|other| other == line), "{line}");
    }
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

/// A document of the example for Kubernetes.
#[derive(Deserialize)]
struct Object {
    kind: String,
    metadata: Name,
    #[serde(flatten)]
    rest: Value,
}

fn object(kind: &str, name: &str) -> Value {
    let text = read("packaging/kubernetes/sentry-edge.yaml");
    let documents = serde_yaml::Deserializer::from_str(&text);
    let mut objects = documents.map(|document| Object::deserialize(document).unwrap());
    let is_it = |object: &Object| object.kind == kind && object.metadata.name == name;
    objects.find(is_it).unwrap_or_else(|| panic!("{kind} {name}")).rest
}

#[test]
fn the_configuration_for_kubernetes_is_a_good_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.yaml");
    write_private(&file, object("ConfigMap", "sentry-edge")["data"]["edge.yaml"].as_str().unwrap());
    let (config, faults) = config::read(&file).unwrap();
    assert_eq!(faults.to_string(), "");
    let ports: Vec<_> = config.server.listeners.iter().map(|listener| listener.address.port()).collect();
    let container = &object("Deployment", "sentry-edge")["spec"]["template"]["spec"]["containers"][0];
    for (name, port) in [("https", ports[0]), ("http", ports[1]), ("admin", config.server.admin.address.port())] {
        let named = |declared: &&Value| declared["name"] == name;
        let declared = container["ports"].as_sequence().unwrap().iter().find(named).unwrap();
        assert_eq!(declared["containerPort"].as_u64(), Some(port.into()), "{name}");
    }
}

/// Kubernetes ends a pod that takes longer.
#[test]
fn a_pod_has_longer_to_end_than_the_drain_takes() {
    let pod = object("Deployment", "sentry-edge");
    let grace = pod["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.yaml");
    write_private(&file, object("ConfigMap", "sentry-edge")["data"]["edge.yaml"].as_str().unwrap());
    let (config, _) = config::read(&file).unwrap();
    let drain = config.server.drain.total();
    assert!(drain.as_secs() + 10 < grace, "{drain:?} {grace}");
}

/// Each mounted volume is there, and each secret is one that the README has made.
#[test]
fn volumes_and_secrets_of_the_example_agree_with_its_readme() {
    let readme = read("packaging/kubernetes/README.md");
    let pod = &object("Deployment", "sentry-edge")["spec"]["template"]["spec"];
    let volumes = pod["volumes"].as_sequence().unwrap();
    let names: Vec<&Value> = volumes.iter().map(|volume| &volume["name"]).collect();
    for container in ["initContainers", "containers"] {
        let mounts = pod[container][0]["volumeMounts"].as_sequence().unwrap();
        assert_eq!(mounts.iter().map(|mount| &mount["name"]).collect::<Vec<_>>(), names, "{container}");
    }
    for secret in volumes.iter().filter_map(|volume| volume["secret"]["secretName"].as_str()) {
        assert!(readme.contains(&format!(" {secret} ")), "{secret}");
    }
}

#[test]
fn every_file_that_the_package_is_to_hold_is_there() {
    let manifest = read("Cargo.toml");
    let assets = manifest.split_once("\nassets = [\n").unwrap().1.split_once("\n]\n").unwrap().0;
    assert!(assets.lines().count() > 10, "{assets}");
    for asset in assets.lines() {
        let source = asset.trim_start().strip_prefix("[\"").unwrap().split_once('"').unwrap().0;
        let folder = source.split_once('*').map_or(source, |(folder, _)| folder);
        let is_built = source.split('/').next() == Some("target");
        assert!(is_built || at(folder).exists(), "{source}");
    }
}
