//! Challenges of certificate authorities: fetched over plain HTTP, for every host, from one folder and nothing beside it.

use std::os::unix::fs::symlink;

use crate::harness::raw::{Answer, raw_plain};
use crate::harness::{Edge, Origin, edge, origin, raw};

const ACME: &str = "/.well-known/acme-challenge";
const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";

struct Scene {
    edge: Edge,
    iqueue: Origin,
}

fn scene() -> Scene {
    let iqueue = origin("iqueue");
    let (folder, _) = edge().write();
    let root = folder.keep();
    std::fs::create_dir(root.join("acme")).unwrap();
    std::fs::write(root.join("acme").join(TOKEN), "the print of an account").unwrap();
    std::fs::write(root.join("acme/large"), "x".repeat(100_000)).unwrap();
    std::fs::create_dir(root.join("acme/folder")).unwrap();
    symlink("../edge.key", root.join("acme/link")).unwrap();
    let builder = edge()
        .service("iqueue", &iqueue)
        .service_with("wild", &iqueue, "hosts: [\"*.iqueue.test\"], access: public")
        .certificate(&["*.iqueue.test"])
        .server(&format!("acme_challenge: {{root: {}}}", root.join("acme").display()));
    Scene { edge: builder.start(), iqueue }
}

impl Scene {
    fn ask(&self, method: &str, host: &str, path: &str) -> Answer {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        raw_plain(self.edge.http_address()).send(request).answer().unwrap()
    }
}

#[test]
fn a_challenge_is_fetched_over_plain_http_for_every_host_that_is_ours() {
    let scene = scene();
    for host in ["iqueue.test", "IQUEUE.test.", "iqueue.test:80", "sentry.test", "a.iqueue.test"] {
        for path in [format!("{ACME}/{TOKEN}"), format!("{ACME}/{TOKEN}?x=1")] {
            let answer = scene.ask("GET", host, &path);
            assert_eq!((answer.status, answer.text().as_str()), (200, "the print of an account"), "{host} {path}");
            assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            assert_eq!(answer.header("strict-transport-security"), None);
        }
    }
    let unknown = scene.ask("GET", "evil.test", &format!("{ACME}/{TOKEN}"));
    assert_eq!(unknown.status, 421);
    for (method, status) in [("POST", 405), ("PUT", 405), ("DELETE", 405), ("OPTIONS", 405)] {
        let answer = scene.ask(method, "iqueue.test", &format!("{ACME}/{TOKEN}"));
        assert_eq!((answer.status, answer.header("allow")), (status, Some("GET, HEAD")), "{method}");
    }
    let request = format!("HEAD {ACME}/{TOKEN} HTTP/1.1\r\nHost: iqueue.test\r\nConnection: close\r\n\r\n");
    let mut connection = raw_plain(scene.edge.http_address());
    connection.send(request);
    let text = String::from_utf8(connection.rest()).unwrap().to_lowercase();
    assert!(text.starts_with("http/1.1 200 ") && text.contains("content-length: 23\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\n"), "{text}");
    assert_eq!(scene.iqueue.count(), 0);
}

#[test]
fn nothing_leads_out_of_the_folder_and_nothing_else_is_served() {
    let scene = scene();
    for (path, status) in [
        (format!("{ACME}/none"), 404),
        (format!("{ACME}/"), 404),
        (format!("{ACME}/folder"), 404),
        (format!("{ACME}/link"), 404),
        (format!("{ACME}/large"), 404),
        (format!("{ACME}/folder/x"), 404),
        (format!("{ACME}/{TOKEN}/"), 404),
        (format!("{ACME}/%4coqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"), 404),
        (format!("{ACME}/..%2fedge.key"), 404),
        (format!("{ACME}/%2e%2e%2fedge.key"), 404),
        (format!("{ACME}/../edge.key"), 404),
        (format!("{ACME}/%2e%2e/edge.key"), 404),
        (format!("{ACME}/..;/edge.key"), 404),
        (format!("{ACME}//{TOKEN}"), 404),
        (format!("{ACME}/{TOKEN};x"), 404),
        (format!("{ACME}/{TOKEN}%00"), 400),
        (format!("{ACME}/{}", "x".repeat(300)), 404),
        (format!("{ACME}/../../../../../etc/passwd"), 400),
        (ACME.to_owned(), 308),
        (format!("/.well-known//acme-challenge/{TOKEN}"), 308),
        (format!("/.well-known/x/../acme-challenge/{TOKEN}"), 308),
        (format!("/.Well-Known/acme-challenge/{TOKEN}"), 308),
        (format!("/%2ewell-known/acme-challenge/{TOKEN}"), 308),
        ("/".to_owned(), 308),
    ] {
        let answer = scene.ask("GET", "iqueue.test", &path);
        assert_eq!(answer.status, status, "{path}");
        assert!(!answer.text().contains("PRIVATE"), "{path}");
    }
}

/// An authority that was redirected there, or an application with a client of its own.
#[test]
fn over_https_the_path_is_the_applications() {
    let scene = scene();
    let request = |host: &str| format!("GET {ACME}/{TOKEN} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for (host, status) in [("iqueue.test", 401), ("sentry.test", 404)] {
        assert_eq!(raw(scene.edge.address(), host).send(request(host)).status(), status, "{host}");
    }
    let answer = raw(scene.edge.address(), "a.iqueue.test").send(request("a.iqueue.test")).answer().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello from iqueue"));
}

#[test]
fn without_the_key_the_path_is_redirected_as_any_other() {
    let iqueue = origin("iqueue");
    let edge = edge().service("iqueue", &iqueue).start();
    let request = format!("GET {ACME}/{TOKEN} HTTP/1.1\r\nHost: iqueue.test\r\n\r\n");
    let answer = raw_plain(edge.http_address()).send(request).answer().unwrap();
    assert_eq!(answer.status, 308);
}

#[test]
fn a_challenge_counts_against_the_rate_of_its_client_and_is_in_the_log() {
    let iqueue = origin("iqueue");
    let folder = tempfile::tempdir().unwrap();
    let more = format!("acme_challenge: {{root: {}}}, limits: {{requests_per_second: 1}}", folder.path().display());
    let edge = edge().service("iqueue", &iqueue).server(&more).start();
    let mut connection = raw_plain(edge.http_address());
    let request = format!("GET {ACME}/{TOKEN} HTTP/1.1\r\nHost: iqueue.test\r\n\r\n");
    let first = connection.send(&request).status();
    let limited = (0..100).any(|_| connection.send(&request).status() == 429);
    assert_eq!((first, limited), (404, true));
    let line = &edge.access_log(1)[0];
    assert_eq!((line["service"].as_str(), line["status"].as_u64()), (Some("iqueue"), Some(404)));
}
