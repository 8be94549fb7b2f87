//! The configurations in `config/examples`: each is a good one, and does what its first line says when it is served.
//!
//! An edge is a process, started with the example as it is but for the addresses of this machine: of its listeners, of
//! applications, of memcached servers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use sentry_edge::auth::keys;
use sentry_edge::clock::Clock;
use sentry_edge::config::{self, Algorithm};

use crate::example_pacs::ORTHANC;
use crate::harness::certificates::{Ca, ca};
use crate::harness::edge::PASSWORD;
use crate::harness::process::{sentry_edge_with_input, text};
use crate::harness::{
    Client, Memcached, Origin, Raw, Running, client, eventually, free_address, memcached, openssl, origin, raw,
    write_private,
};
use crate::tidy::{at, read};

/// A folder with an example and every file that it names.
pub struct Prepared {
    pub folder: tempfile::TempDir,
    file: PathBuf,
    clients: Ca,
}

/// An example that is served.
pub struct Site {
    _process: Running,
    prepared: Prepared,
    pub https: SocketAddr,
    http: SocketAddr,
    admin: SocketAddr,
}

/// Writes an example with these edits into a folder. A certificate covers its hosts, and keys and secrets are made.
pub fn prepare(text: &str, edits: &[(String, String)]) -> Prepared {
    let folder = tempfile::tempdir().unwrap();
    let edited = edits.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from.as_str()), "{from} is in the example");
        text.replace(from.as_str(), to)
    });
    let file = folder.path().join("edge.yaml");
    write_private(&file, &edited);
    let (config, faults) = config::read(&file).unwrap();
    assert_eq!(faults.to_string(), "");
    let clients = Ca::new();
    for name in ["tls", "keys"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let hosts = config.services.iter().flat_map(|service| service.hosts.iter().map(ToString::to_string));
    let hosts: Vec<String> = hosts.chain([config.sentry.host.to_string()]).collect();
    let certificate = ca().issue(&hosts.iter().map(String::as_str).collect::<Vec<_>>());
    for files in &config.tls.certificates {
        write_private(&files.certificate, &certificate.pem);
        write_private(&files.key, &certificate.key);
    }
    let secret = |source: &config::SecretSource, algorithm: Algorithm| {
        let config::SecretSource::File(path) = source else { panic!("an example's secrets are files") };
        write_private(path, keys::generate(algorithm).unwrap());
    };
    if let Some(users) = config.users.file().filter(|users| users.starts_with(folder.path())) {
        // An empty file is an empty directory.
        write_private(users, "");
    }
    config.tls.tickets.secret.iter().for_each(|source| secret(source, Algorithm::HS256));
    for key in &config.sentry.keys {
        let (config::KeyMaterial::Secret(source) | config::KeyMaterial::Private(source)) = &key.material else {
            panic!("an example's keys sign");
        };
        secret(source, key.algorithm);
    }
    for (_, source) in config.services.iter().flat_map(config::Service::field_secrets) {
        let config::SecretSource::File(path) = source else { panic!("an example's secrets are files") };
        write_private(path, format!("{ORTHANC}\n"));
    }
    for asked in config.tls.hosts.iter().filter_map(|host| host.clients.as_ref()) {
        write_private(&asked.ca, &clients.pem);
    }
    Prepared { folder, file, clients }
}

/// Serves an example; `edits` are its addresses elsewhere.
pub fn serve(name: &str, edits: &[(&str, String)]) -> Site {
    let example = read(&format!("config/examples/{name}.yaml"));
    let (https, http, admin) = (free_address(), free_address(), free_address());
    let ports =
        if example.contains("0.0.0.0:8443") { ("0.0.0.0:8443", "0.0.0.0:8080") } else { ("0.0.0.0:443", "0.0.0.0:80") };
    let own = [(ports.0, https), (ports.1, http), ("127.0.0.1:9090", admin)];
    // `0.0.0.0:80` is the beginning of `0.0.0.0:8080`, so the quotation marks are edited too.
    let own = own.map(|(from, to)| (format!("\"{from}\""), format!("\"{to}\"")));
    let edits = edits.iter().map(|(from, to)| ((*from).to_owned(), to.clone()));
    let prepared = prepare(&example, &own.into_iter().chain(edits).collect::<Vec<_>>());
    let services: Vec<String> = {
        let (config, _) = config::read(&prepared.file).unwrap();
        config.services.iter().map(|service| service.name.to_string()).collect()
    };
    let file = prepared.file.to_str().unwrap();
    let add: Vec<&str> = ["user", "add", "ada", "-c", file, "--role", "nurse", "--password-stdin", "--service"]
        .into_iter()
        .chain(services.iter().map(String::as_str))
        .collect();
    let added = sentry_edge_with_input(&add, &format!("{PASSWORD}\n"));
    assert!(added.status.success(), "{}", text(&added.stderr));
    let mut process = Running::start(&["run", "-c", file]);
    eventually("the example is served", || {
        assert!(!process.has_ended(), "{name}: {}", process.stderr());
        // Nothing listens yet, or it is ready.
        std::net::TcpStream::connect(admin).is_ok() && client(admin).get("http://admin.test/readyz").status == 200
    });
    Site { _process: process, prepared, https, http, admin }
}

impl Site {
    /// The configuration.
    pub fn file(&self) -> &str {
        self.prepared.file.to_str().unwrap()
    }

    pub fn url(&self, host: &str, path: &str) -> String {
        format!("https://{host}.example.com:{}{path}", self.https.port())
    }

    fn client(&self) -> Client {
        client(self.https)
    }

    /// A browser in which ada has signed in at a service.
    fn signed_in(&self, host: &str) -> Client {
        let mut browser = self.client();
        let last = browser.sign_in(&self.url(host, "/"), "ada", PASSWORD).pop().unwrap();
        assert_eq!(last.status, 200, "{}", last.body);
        browser
    }
}

pub fn to(origin: &Origin) -> String {
    origin.address.to_string()
}

#[test]
fn every_example_is_a_good_configuration_and_says_what_it_is_for() {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(at("config/examples")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.lines().nth(1).is_some_and(|line| line.starts_with("# ")),
            "{} says what it is for",
            path.display()
        );
        let (_, faults) = config::parse(&path, &text).unwrap();
        // Folders that it names are not on this machine.
        let faults = faults.to_string();
        let faults: Vec<&str> = faults.lines().filter(|fault| !fault.contains("No such file")).collect();
        assert_eq!(faults, [""; 0], "{}", path.display());
        names.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
    }
    for name in [
        "one-machine",
        "several-edges",
        "behind-balancer",
        "websockets",
        "cors-between-services",
        "client-certificates",
        "pacs-viewer",
    ] {
        assert!(names.iter().any(|there| there == name), "{name}: {names:?}");
        let prepared = prepare(&read(&format!("config/examples/{name}.yaml")), &[]);
        let checked = sentry_edge::server::check(&prepared.file, &Clock::default());
        let (_, warnings) = checked.unwrap_or_else(|faults| panic!("{name}: {faults}"));
        assert_eq!(warnings.to_string(), "", "{name}");
    }
}

#[test]
fn one_machine_serves_two_applications_with_one_sign_on() {
    let (iqueue, dextor) = (origin("iqueue"), origin("dextor"));
    let site = serve("one-machine", &[("127.0.0.1:9001", to(&iqueue)), ("127.0.0.1:9002", to(&dextor))]);
    assert_eq!(site.client().get(&site.url("iqueue", "/status")).status, 200, "public");
    assert_eq!(site.client().get(&site.url("iqueue", "/")).status, 401);
    let redirect = client(site.http).get(&format!("http://iqueue.example.com:{}/x", site.http.port()));
    assert_eq!((redirect.status, redirect.location()), (308, Some(site.url("iqueue", "/x"))));
    let mut browser = site.signed_in("iqueue");
    assert_eq!(iqueue.last().one("x-forwarded-user").as_deref(), Some("ada"));
    assert_eq!(browser.get(&site.url("iqueue", "/admin/")).status, 403, "ada is no admin");
    let there = browser.follow(&site.url("dextor", "/"));
    assert_eq!(there.last().unwrap().body, "hello from dextor");
    assert!(there.iter().all(|hop| !hop.body.contains("username")), "no second login");
    let metrics = client(site.admin).get("http://admin.test/metrics");
    assert!(metrics.body.contains("sentry_edge_build_info"));
}

#[test]
fn several_edges_share_sessions_that_outlive_one_memcached() {
    let (iqueue, other) = (origin("iqueue"), origin("iqueue"));
    let (mut first, second): (Memcached, Memcached) = (memcached(), memcached());
    let edits = [
        ("10.0.0.1:11211", first.address()),
        ("10.0.0.2:11211", second.address()),
        ("10.0.0.11:9001", to(&iqueue)),
        ("10.0.0.12:9001", to(&other)),
    ];
    let site = serve("several-edges", &edits);
    // Another edge: the same files, other ports.
    let (https, http, admin) = (free_address(), free_address(), free_address());
    let text = [(site.https, https), (site.http, http), (site.admin, admin)]
        .iter()
        .fold(std::fs::read_to_string(&site.prepared.file).unwrap(), |text, (from, to)| {
            text.replace(&from.to_string(), &to.to_string())
        });
    let file = site.prepared.folder.path().join("second.yaml");
    write_private(&file, text);
    let mut process = Running::start(&["run", "-c", file.to_str().unwrap()]);
    eventually("the second edge is ready", || {
        assert!(!process.has_ended(), "{}", process.stderr());
        std::net::TcpStream::connect(admin).is_ok() && client(admin).get("http://admin.test/readyz").status == 200
    });
    let mut browser = site.signed_in("iqueue");
    browser.move_to(https);
    let url = format!("https://iqueue.example.com:{}/", https.port());
    assert_eq!(browser.get(&url).status, 200, "signed in at the other edge, too");
    first.kill();
    assert_eq!(browser.get(&url).status, 200, "each session is on both servers");
    browser.move_to(site.https);
    assert_eq!(browser.get(&site.url("iqueue", "/")).status, 200);
}

#[test]
fn behind_a_balancer_the_client_is_the_one_that_its_header_names() {
    let iqueue = origin("iqueue");
    let edits = [("127.0.0.1:9001", to(&iqueue)), ("\"10.0.0.5\", \"10.0.0.6\"", "\"127.0.0.1\"".to_owned())];
    let site = serve("behind-balancer", &edits);
    let header = b"PROXY TCP4 203.0.113.7 10.0.0.1 51234 443\r\n";
    let mut connection = Raw::announced(header, site.https, "iqueue.example.com").unwrap();
    let answer =
        connection.send("GET /x HTTP/1.1\r\nHost: iqueue.example.com\r\nAccept: text/html\r\n\r\n").answer().unwrap();
    assert_eq!(answer.status, 302, "{}", answer.text());
    let location = answer.header("location").unwrap().to_owned();
    assert!(location.starts_with("https://sentry.example.com/"), "the port that clients connect to: {location}");
    let log = eventually_lines(&site, "203.0.113.7");
    assert!(log.contains("\"client\":\"203.0.113.7\""), "{log}");
    assert_eq!(iqueue.count(), 0);
}

/// The process's output, once it has this: the example logs there.
fn eventually_lines(site: &Site, part: &str) -> String {
    eventually("the access log has it", || site._process.stdout().contains(part));
    site._process.stdout()
}

#[test]
fn websockets_are_opened_by_the_pages_that_the_example_names() {
    let board = Origin::answering(|seen| {
        let builder = hyper::Response::builder();
        match seen.one("upgrade") {
            Some(protocol) => builder.status(101).header("connection", "upgrade").header("upgrade", protocol),
            None => builder,
        }
        .body("board".into())
        .unwrap()
    });
    let site = serve("websockets", &[("127.0.0.1:9001", to(&board))]);
    let browser = site.signed_in("board");
    let own = format!("https://board.example.com:{}", site.https.port());
    for (origin, status) in
        [(own.as_str(), 101), ("https://portal.example.com", 101), ("https://elsewhere.example.org", 400)]
    {
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: board.example.com:{}\r\nCookie: {}\r\nUser-Agent: test/1\r\nOrigin: {origin}\r\n\
             Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            site.https.port(),
            browser.cookie_field("board.example.com")
        );
        assert_eq!(raw(site.https, "board.example.com").send(request).status(), status, "{origin}");
    }
}

#[test]
fn between_services_a_preflight_is_the_applications_and_the_request_after_it_is_a_users() {
    let (portal, api) = (origin("portal"), origin("api"));
    let site = serve("cors-between-services", &[("127.0.0.1:9001", to(&portal)), ("127.0.0.1:9002", to(&api))]);
    let preflight = |path: &str| {
        let mut stranger = site.client();
        let url = site.url("api", path);
        let asking = stranger.ask("OPTIONS", &url).field("origin", "https://portal.example.com");
        asking.field("access-control-request-method", "PUT").send().status
    };
    assert_eq!((preflight("/v1/patients"), api.count()), (200, 1));
    assert_eq!((preflight("/other"), api.count()), (401, 1));
    let mut browser = site.signed_in("portal");
    browser.follow(&site.url("api", "/v1/"));
    let answer =
        browser.ask("GET", &site.url("api", "/v1/patients")).field("origin", "https://portal.example.com").send();
    assert_eq!(answer.status, 200);
    assert_eq!(api.last().one("x-forwarded-user").as_deref(), Some("ada"));
}

#[test]
fn client_certificates_are_required_of_one_host_and_passed_on_from_another() {
    let (lab, devices) = (origin("lab"), origin("devices"));
    let site = serve("client-certificates", &[("127.0.0.1:9001", to(&lab)), ("127.0.0.1:9002", to(&devices))]);
    let certificate = site.prepared.clients.issue_client("scanner-7");
    let folder: &Path = site.prepared.folder.path();
    let (pem, key) = (folder.join("client.pem"), folder.join("client.key"));
    write_private(&pem, &certificate.pem);
    write_private(&key, &certificate.key);
    let showing = ["-cert", pem.to_str().unwrap(), "-key", key.to_str().unwrap()];
    assert_eq!(openssl(site.https, "lab.example.com", &[]).status(), 0, "no handshake");
    assert_eq!(openssl(site.https, "lab.example.com", &showing).status(), 401, "the sign-on comes after it");
    assert_eq!(openssl(site.https, "devices.example.com", &[]).status(), 200);
    assert_eq!(devices.last().one("x-forwarded-client-cert"), None);
    assert_eq!(openssl(site.https, "devices.example.com", &showing).status(), 200);
    let shown = devices.last().one("x-forwarded-client-cert").unwrap();
    assert!(shown.contains("scanner-7"), "{shown}");
}
