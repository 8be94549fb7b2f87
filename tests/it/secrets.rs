//! No secret is printed, wherever it stands in the configuration and in whatever shape it was written there: not in a
//! fault or a warning, and not by `Debug`.

use sentry_edge::clock::Clock;
use sentry_edge::config;

use crate::configuration::{GOOD, check, folder, without_marks};
use crate::harness::edge::HMAC_KEY;
use crate::harness::{edge, eventually, origin};

/// What must not be printed, as a text and as a number.
const SLIP: &str = "hunter2-hunter2-hunter2";
const NUMBER: &str = "73313373733137337331337373313373";

/// Where a secret stands, and the parts of the document that hold one: this of the good configuration is replaced, and
/// `@` is what was written.
#[rustfmt::skip]
const PLACES: &[(&str, &str, &str)] = &[
    ("sentry.keys[].secret", "secret: {value: SECRET}", "secret: @"),
    ("sentry.keys[].private_key", "public_key: {file: public.pem}", "private_key: @"),
    ("sentry.keys[].public_key", "public_key: {file: public.pem}", "public_key: @"),
    ("tls.tickets.secret", "  certificates:\n", "  tickets: {secret: @, rotation: 1h}\n  certificates:\n"),
    ("server.admin.token", "  admin: {address: \"127.0.0.1:9090\"}", "  admin: {token: @}"),
    // The parts that they stand in, and other keys there.
    ("sentry.keys[]", "    - id: second\n      algorithm: ES256\n      public_key: {file: public.pem}\n", "    - @\n"),
    ("sentry.keys", "    - id: main\n      algorithm: HS256\n      secret: {value: SECRET}\n    - id: second\n      algorithm: ES256\n      public_key: {file: public.pem}\n", "    @\n"),
    ("sentry.keys[].id", "id: second", "id: @"),
    ("sentry.keys[].algorithm", "algorithm: ES256", "algorithm: @"),
    ("sentry.keys[].allow_weak", "algorithm: ES256", "algorithm: ES256\n      allow_weak: @"),
    ("sentry.token.sign_with", "sign_with: main", "sign_with: @"),
    ("tls.tickets", "  certificates:\n", "  tickets: @\n  certificates:\n"),
    ("tls.tickets.rotation", "  certificates:\n", "  tickets: {rotation: @}\n  certificates:\n"),
    ("server.admin", "  admin: {address: \"127.0.0.1:9090\"}", "  admin: @"),
    ("server.admin.address", "  admin: {address: \"127.0.0.1:9090\"}", "  admin: {address: @}"),
];

/// What is written there; `@` is the secret.
#[rustfmt::skip]
const SHAPES: &[&str] = &[
    "@", "\"@\"", "'@'", "[@]", "[[@]]", "{@}", "{@: }", "{@: x}", "{x: @}", "{@: @}", "{@: [@]}", "{@: {@: @}}", "{? @ : x}", "{[@]: x}", "{{@: x}: y}",
    "{value: @}", "{value: [@]}", "{value: {@}}", "{value: {@: x}}", "{value: {x: @}}", "{vlaue: @}", "{VALUE: @}", "{value.@: x}",
    "{env: @}", "{env: [@]}", "{env: {@: x}}", "{file: @}", "{file: folder/@}", "{file: /@}", "{file: [@]}", "{file: {@: x}}",
    "{value: @, env: X}", "{value: @, file: X}", "{env: @, file: @}", "{value: @, @: x}", "{value: long-enough-to-be-a-secret-of-32-bytes, @: x}",
    "{value: @, value: @}", "{@: x, @: y}", "[{@: x, @: y}]", "{value: {@: x, @: y}}",
    "\"@", "'@", "{value: @", "[@", "*@", "&@ x", "&x @", "!@ x", "!<@> x", "!@!x y", "!x @", "{value: !@ x}", "{!@ x: y}", "{@: !x y}",
    "!!int @", "!!float @", "!!bool @", "!!null @", "!!binary @", "!!map @", "!!seq @", "{value: !!int @}", "{@: !!int x}", "{env: !!bool @}",
    "{secret: @}", "{secret: {value: @}}", "{token: @}", "{token: {value: @}}", "{id: x, algorithm: HS256, @: x}", "{id: x, algorithm: HS256, secret: @}",
    "{id: @, algorithm: HS256, secret: @}", "{id: @, algorithm: @}", "{address: @}", "{address: @, token: @}", "{rotation: @}", "{rotation: @, secret: @}",
    "|\n            @", ">-\n            @", "@: x", "@ : @", "- @", "@ # a comment", "% @", "{<<: @}", "{<<: {@: x}}", "{<<: [{value: @}]}",
];

/// What `check` says of a configuration, and what `Debug` makes of it.
fn printed(text: &str) -> [String; 2] {
    let (_folder, file) = folder(text);
    let said = match sentry_edge::server::check(&file, &Clock::default()) {
        Ok((_, warnings)) => format!("{warnings}\n{warnings:?}"),
        Err(faults) => format!("{faults}\n{faults:?}"),
    };
    [said, config::read(&file).map(|(config, _)| format!("{config:#?}")).unwrap_or_default()]
}

#[test]
fn no_shape_of_a_secret_is_printed_at_any_place() {
    let (mut told, mut tried) = (Vec::new(), 0);
    for (place, good, bad) in PLACES {
        assert_eq!(GOOD.matches(good).count(), 1, "{place}: `{good}` stands once");
        for shape in SHAPES {
            for slip in [SLIP, NUMBER] {
                let written = bad.replace('@', &shape.replace('@', slip));
                let [mut said, debug] = printed(&without_marks(&GOOD.replace(good, &written)));
                tried += 1;
                // The name of a key is in every token; so `Debug` may show it, and a fault may not: it is no name yet.
                if !["sentry.keys[].id", "sentry.token.sign_with"].contains(place) && !shape.contains("id: @") {
                    said += &debug;
                }
                if let Some(line) = said.lines().find(|line| line.contains("hunter2") || line.contains("733137")) {
                    told.push(format!("{place} as {shape}: {}", &line[..line.len().min(200)]));
                }
            }
        }
    }
    assert!(told.is_empty(), "{} of {tried} are printed:\n{}", told.len(), told.join("\n"));
}

#[test]
fn secrets_that_are_in_order_are_not_printed_either() {
    let text = GOOD
        .replace("  certificates:\n", "  tickets: {secret: {value: @1}}\n  certificates:\n")
        .replace("\"127.0.0.1:9090\"}", "\"127.0.0.1:9090\", token: {value: @2}}")
        .replace("{value: SECRET}", "{value: @3}");
    let secrets = ["1", "2", "3"].map(|number| format!("{SLIP}-and-some-more-{number}"));
    let text = (1..).zip(&secrets).fold(text, |text, (number, secret)| text.replace(&format!("@{number}"), secret));
    let (_folder, file) = folder(&without_marks(&text));
    assert_eq!(check(&file).status, Some(0), "{}", check(&file).stderr);
    let [said, debug] = printed(&without_marks(&text));
    assert_eq!(debug.matches("value …").count(), 3, "{debug}");
    assert!(!said.contains("hunter2") && !debug.contains("hunter2"), "{said}{debug}");
}

#[test]
fn a_reload_that_is_refused_logs_no_secret() {
    let iqueue = origin("iqueue");
    let daemon = edge().service("iqueue", &iqueue).run();
    for slip in [format!("{{{SLIP}: x}}"), SLIP.into(), format!("{{file: {SLIP}}}"), format!("{{env: {SLIP}}}")] {
        daemon.reload(|yaml| yaml.replace(&format!("{{value: {HMAC_KEY}}}"), &slip));
        eventually("it is refused", || daemon.process.stderr().contains("configuration refused"));
        assert!(!daemon.process.stderr().contains("hunter2"), "{}", daemon.process.stderr());
        daemon.reload(|yaml| yaml.replace(&slip, &format!("{{value: {HMAC_KEY}}}")));
    }
}

#[test]
fn a_key_that_stands_twice_is_told_by_its_lines_and_a_byte_order_mark_is_no_fault() {
    for (edit, second, first) in [
        (("threads: 2", "threads: 2\n  threads: 3"), 3, 2),
        (("  dextor:\n", "  iqueue:\n"), 48, 40),
        (("      secret: {value: SECRET}\n", "      secret: {value: SECRET}\n      id: main\n"), 30, 27),
        (("\n    retries: 2", "\n    servers: []\n    retries: 2"), 54, 53),
    ] {
        assert_eq!(GOOD.matches(edit.0).count(), 1, "{edit:?}");
        let (_folder, file) = folder(&without_marks(&GOOD.replace(edit.0, edit.1)));
        let checked = check(&file);
        let begin = format!("{}:{second}: a key that is on line {first} already; ", file.display());
        assert!(checked.status == Some(1) && checked.stderr.starts_with(&begin), "{begin}: {}", checked.stderr);
        assert_eq!(checked.stderr.lines().count(), 1, "{}", checked.stderr);
    }
    let (_folder, file) = folder(&format!("\u{feff}{}", without_marks(GOOD)));
    let checked = check(&file);
    assert_eq!((checked.status, checked.stderr.as_str()), (Some(0), ""), "as an editor on Windows saves it");
}

#[test]
fn no_fault_quotes_the_password_of_a_url() {
    let url = "https://eve:hunter2@iqueue.test:1/x";
    for (good, bad) in [
        ("path: /status,", "path: /status, redirect: {to: @},"),
        ("path: /status,", "path: /status, redirect: {to: \"@ y\"},"),
        ("path: /status,", "path: @,"),
        ("idle_timeout: 30m", "websocket_origins: [\"@\"]"),
        ("idle_timeout: 30m", "addresses: {allow: [\"@\"]}"),
        ("idle_timeout: 30m", "methods: [\"@\"]"),
        ("hosts: [iqueue.test]", "hosts: [\"@\"]"),
        ("host: sentry.test", "host: \"@\""),
        ("\"127.0.0.1:8443\"", "\"@\""),
        ("\"10.0.0.0/8\"", "\"@\""),
        ("\"127.0.0.1:9001\"", "\"@\""),
        ("    retries: 2", "    health: {http: {path: \"@\"}}"),
        ("    retries: 2", "    health: {http: {host: \"@\"}}"),
        ("    retries: 2", "    tls: {server_name: \"@\"}"),
        ("    pool: first", "    pool: \"@\""),
        ("  first:", "  \"@\":"),
        ("sessions: {store: memory}", "sessions: {store: memcached, memcached: {servers: [\"@\", \"@\"]}}"),
        ("sessions:", "unknown_hosts: {redirect: \"@\"}\nsessions:"),
    ] {
        assert_eq!(GOOD.matches(good).count(), 1, "{good}");
        for url in [url, "http://eve:hunter2@iqueue.test/", "//eve:hunter2@iqueue.test", "eve:hunter2@bücher.test:1"] {
            let [said, _] = printed(&without_marks(&GOOD.replace(good, &bad.replace('@', url))));
            assert!(!said.is_empty(), "{bad}: {url}");
            assert!(!said.contains("hunter2"), "{bad}: {url}: {said}");
        }
    }
}
