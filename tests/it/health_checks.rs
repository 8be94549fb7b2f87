//! Active checks: which servers get requests by what they answer to the edge itself.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::Response as HttpResponse;

use crate::configuration::{GOOD, check, folder, without_marks};
use crate::harness::edge::metric;
use crate::harness::{Client, Edge, Origin, edge, eventually, free_address, origin};

const PUBLIC: &str = "access: public";
/// Often, so that tests are quick, and with time for an answer on a busy machine.
const OFTEN: &str = "interval: 500ms, fall: 2, rise: 2";
const HTTP: &str = "http: {path: \"/healthz?deep=1\"}, interval: 500ms, fall: 2, rise: 2";

/// An application that names itself, and answers checks with a status of the test's choice.
struct Application {
    origin: Origin,
    status: Arc<AtomicU16>,
}

fn application(name: &'static str) -> Application {
    let status = Arc::new(AtomicU16::new(200));
    let answered = Arc::clone(&status);
    let origin = Origin::answering(move |seen| match seen.target.starts_with("/healthz") {
        true => HttpResponse::builder().status(answered.load(Ordering::SeqCst)).body("".into()).unwrap(),
        false => HttpResponse::new(name.into()),
    });
    Application { origin, status }
}

impl Application {
    fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn checks(&self) -> usize {
        self.origin.seen().iter().filter(|seen| seen.target.starts_with("/healthz")).count()
    }
}

fn pool(servers: &[SocketAddr], health: &str) -> String {
    let servers: Vec<String> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    format!("{{servers: [{}], health: {{{health}}}}}", servers.join(", "))
}

fn edge_with(servers: &[SocketAddr], health: &str) -> Edge {
    let spare = origin("spare");
    edge().service_with("iqueue", &spare, PUBLIC).pool("iqueue", &pool(servers, health)).start()
}

/// One scrape, as checks go on from one to the next.
struct Scrape(String);

fn scrape(edge: &Edge) -> Scrape {
    Scrape(String::from_utf8(edge.inner.metrics().scrape().unwrap()).unwrap())
}

impl Scrape {
    fn is_up(&self, server: SocketAddr) -> bool {
        metric(&self.0, "sentry_edge_upstream_up", &format!("pool=\"iqueue\",server=\"{server}\"")) == 1.0
    }

    /// Checks of a server that have passed, failed, and got no answer in time.
    fn checks(&self, server: SocketAddr) -> [f64; 3] {
        RESULTS.map(|result| {
            let labels = format!("pool=\"iqueue\",result=\"{result}\",server=\"{server}\"");
            metric(&self.0, "sentry_edge_upstream_health_checks_total", &labels)
        })
    }

    fn has_series(&self, server: SocketAddr) -> bool {
        let is_it = |line: &str| line.contains("upstream_health_checks_total") && line.contains(&server.to_string());
        self.0.lines().any(is_it)
    }
}

const RESULTS: [&str; 3] = ["passed", "failed", "timeout"];

fn is_up(edge: &Edge, server: SocketAddr) -> bool {
    scrape(edge).is_up(server)
}

fn has_series(edge: &Edge, server: SocketAddr) -> bool {
    scrape(edge).has_series(server)
}

/// Who answers these requests, in turn.
fn answers(client: &mut Client, edge: &Edge, requests: usize) -> Vec<String> {
    let ask = |at: usize| {
        let response = client.ask(["GET", "POST"][at % 2], &edge.url("iqueue", "/")).send();
        assert_eq!(response.status, 200, "{}", response.body);
        response.body
    };
    (0..requests).map(ask).collect()
}

#[test]
fn a_server_that_fails_its_checks_gets_no_requests_until_it_passes_them() {
    let (one, two) = (application("one"), application("two"));
    let addresses = [one.origin.address, two.origin.address];
    let edge = edge_with(&addresses, HTTP);
    let mut client = edge.client();
    assert!(addresses.iter().all(|server| is_up(&edge, *server)), "up until proven otherwise");
    eventually("the series are there with the first look", || has_series(&edge, addresses[0]));
    for status in [503, 404, 400] {
        one.answer(status);
        eventually("it is down", || !is_up(&edge, addresses[0]));
        assert_eq!(answers(&mut client, &edge, 6), ["two"; 6], "{status}");
        one.answer(302);
        eventually("it is up", || is_up(&edge, addresses[0]));
        let names = answers(&mut client, &edge, 8);
        assert!(names.contains(&"one".to_owned()) && names.contains(&"two".to_owned()), "{names:?}");
    }
    let scrape = scrape(&edge);
    let [passed, failed, _] = scrape.checks(addresses[0]);
    assert!(failed >= 6.0 && passed >= 6.0, "two of each decide: {passed} passed, {failed} failed");
    assert_eq!(scrape.checks(addresses[1])[1], 0.0, "the other one has failed none");
    let seen = one.origin.seen().into_iter().find(|seen| seen.target == "/healthz?deep=1").unwrap();
    assert_eq!((seen.method.as_str(), seen.one("host")), ("GET", Some(addresses[0].to_string())));
    assert_eq!(seen.one("user-agent").as_deref(), Some("sentry-edge-health-check"));
    assert!(seen.one("cookie").is_none() && seen.body.is_empty());
}

#[test]
fn where_all_servers_fail_their_checks_all_are_used() {
    let (one, two) = (application("one"), application("two"));
    let addresses = [one.origin.address, two.origin.address];
    let edge = edge_with(&addresses, HTTP);
    one.answer(500);
    two.answer(500);
    eventually("both are down", || !addresses.iter().any(|server| is_up(&edge, *server)));
    let names = answers(&mut edge.client(), &edge, 12);
    assert!(names.contains(&"one".to_owned()) && names.contains(&"two".to_owned()), "{names:?}");
    two.answer(200);
    eventually("one is up", || is_up(&edge, addresses[1]));
    assert_eq!(answers(&mut edge.client(), &edge, 6), ["two"; 6]);
}

/// A server that answers everything with these bytes, and goes on to send `drip` for ever, if there is one.
fn saying(said: &'static [u8], drip: Option<&'static [u8]>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            std::thread::spawn(move || {
                if socket.read(&mut [0; 4096]).is_ok_and(|read| read > 0) && socket.write_all(said).is_ok() {
                    while drip.is_some_and(|drip| socket.write_all(drip).is_ok()) {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            });
        }
    });
    address
}

#[test]
fn what_a_server_answers_decides_by_its_head_alone_and_none_holds_up_the_checks_of_others() {
    let drip = Some(&b"x"[..]);
    let rows = [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"[..], drip, "passed"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", None, "passed"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", None, "passed"),
        (b"HTTP/1.0 200 OK\r\n\r\n", drip, "passed"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", None, "failed"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 1000000\r\n\r\n", drip, "failed"),
        (b"nonsense\r\n\r\n", None, "failed"),
        (b"", None, "failed"),
        (b"HTTP/1.1 200 OK\r\nX: ", drip, "timeout"),
        (b"HTTP/1.1 1", Some(&b"0"[..]), "failed"),
    ];
    // At once, each before an edge of its own, as checks that have time for an answer on a busy machine are far apart.
    std::thread::scope(|scope| {
        for (said, drip, result) in rows {
            scope.spawn(move || assert_checked(said, drip, result));
        }
    });
}

fn assert_checked(said: &'static [u8], drip: Option<&'static [u8]>, result: &str) {
    let (server, well) = (saying(said, drip), application("well"));
    let health = "http: {status: 200-299}, interval: 1s, timeout: 1s, fall: 1, rise: 1";
    let edge = edge_with(&[server, well.origin.address], health);
    let text = String::from_utf8_lossy(said);
    let mut seen = scrape(&edge);
    eventually(&format!("checked: {text:?}"), || {
        seen = scrape(&edge);
        seen.checks(server).iter().sum::<f64>() >= 3.0
    });
    // On a busy machine an answer may come too late for a check.
    eventually(&format!("{result}: {text:?}"), || {
        seen = scrape(&edge);
        let is_counted =
            RESULTS.into_iter().zip(seen.checks(server)).any(|(name, count)| name == result && count > 0.0);
        is_counted && seen.is_up(server) == (result == "passed")
    });
    for (name, count) in RESULTS.into_iter().zip(seen.checks(server)) {
        let is_expected = [result, "timeout"].contains(&name);
        assert!(is_expected || count == 0.0, "{text:?}: {result} alone, and {name} {count} times");
    }
    let before = well.origin.count();
    eventually("the other server is checked", || well.origin.count() > before + 1);
}

#[test]
fn a_server_that_does_not_answer_is_given_its_timeout_and_no_more() {
    let (held, well) = (Origin::held(), application("well"));
    let servers = [held.address, well.origin.address];
    let edge = edge_with(&servers, "http: {}, interval: 500ms, timeout: 500ms, fall: 2, rise: 1");
    eventually("it is down", || !is_up(&edge, servers[0]));
    let [passed, failed, timeouts] = scrape(&edge).checks(servers[0]);
    assert!(timeouts >= 2.0 && passed + failed == 0.0, "{timeouts}");
    assert_eq!(answers(&mut edge.client(), &edge, 4), ["well"; 4]);
    held.release();
    eventually("it is up", || is_up(&edge, servers[0]));
}

#[test]
fn a_check_over_tcp_wants_a_connection_alone() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let servers = [silent.local_addr().unwrap(), free_address()];
    let edge = edge_with(&servers, &format!("tcp: true, {OFTEN}"));
    one_passes_and_the_other_is_down(&edge, servers);
}

fn one_passes_and_the_other_is_down(edge: &Edge, [good, bad]: [SocketAddr; 2]) {
    eventually("one is checked, the other down", || {
        let seen = scrape(edge);
        let [passed, ..] = seen.checks(good);
        passed >= 3.0 && seen.is_up(good) && !seen.is_up(bad)
    });
}

#[test]
fn checks_speak_the_protocol_of_the_pool() {
    let connections = Arc::new(AtomicUsize::new(0));
    let h2c = {
        let listener = crate::harness::runtime().block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let (address, counted) = (listener.local_addr().unwrap(), Arc::clone(&connections));
        crate::harness::runtime().spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let service = hyper::service::service_fn(|request: hyper::Request<hyper::body::Incoming>| async move {
                    let is_good = request.uri().authority().is_some_and(|authority| authority.as_str() == "app.test");
                    let status = if is_good { 200 } else { 500 };
                    let body = http_body_util::Full::<hyper::body::Bytes>::from("");
                    Ok::<_, std::convert::Infallible>(HttpResponse::builder().status(status).body(body).unwrap())
                });
                let executor = hyper_util::rt::TokioExecutor::new();
                tokio::spawn(
                    hyper::server::conn::http2::Builder::new(executor)
                        .serve_connection(hyper_util::rt::TokioIo::new(socket), service),
                );
            }
        });
        address
    };
    let http1 = application("one");
    let health = format!("http: {{host: app.test}}, {OFTEN}");
    let servers = [h2c, http1.origin.address];
    let list = pool(&servers, &health).replacen('{', "{protocol: h2c, ", 1);
    let spare = origin("spare");
    let edge = edge().service_with("iqueue", &spare, PUBLIC).pool("iqueue", &list).start();
    one_passes_and_the_other_is_down(&edge, servers);
    assert!(connections.load(Ordering::SeqCst) >= 3, "each check has a connection of its own");
}

#[test]
fn what_is_known_of_a_server_outlives_a_reload_that_keeps_it_and_its_checks_end_with_one_that_does_not() {
    let (one, two) = (application("one"), application("two"));
    let addresses = [one.origin.address, two.origin.address];
    let mut edge = edge_with(&addresses, HTTP);
    one.answer(500);
    eventually("it is down", || !is_up(&edge, addresses[0]));
    // Checks that are far apart, so that none comes between the reload and the look.
    edge.reload_with(|yaml| yaml.replace("interval: 500ms", "interval: 1h"));
    assert!(!is_up(&edge, addresses[0]));
    assert_eq!(answers(&mut edge.client(), &edge, 6), ["two"; 6], "known over a reload");
    edge.reload_with(|yaml| yaml.replace(&format!("health: {{{}}}", HTTP.replace("500ms", "1h")), "retries: 1"));
    eventually("without checks it is up", || is_up(&edge, addresses[0]));
    eventually("and has no series", || !has_series(&edge, addresses[0]));
    assert!(answers(&mut edge.client(), &edge, 6).contains(&"one".to_owned()));
    let checks = one.checks();
    edge.reload_with(|yaml| yaml.replace("retries: 1", &format!("health: {{{HTTP}}}")));
    eventually("checked again", || one.checks() > checks && !is_up(&edge, addresses[0]));
    let removed = format!("\"{}\", ", addresses[0]);
    edge.reload_with(|yaml| yaml.replace(&removed, ""));
    eventually("the series of a server that was removed go", || !has_series(&edge, addresses[0]));
    let (checks, others) = (one.checks(), two.checks());
    eventually("the other one is checked", || two.checks() > others + 2);
    assert!(one.checks() <= checks + 1, "one may have been under way");
}

#[test]
fn a_good_check_ends_an_ejection() {
    let (address, two) = (free_address(), application("two"));
    let health =
        "http: {path: /healthz}, interval: 500ms, fall: 100, rise: 1}, eject: {failures: 1, for: 1h, at_most: 1h";
    let edge = edge_with(&[address, two.origin.address], health);
    eventually("it is ejected", || {
        answers(&mut edge.client(), &edge, 2);
        !is_up(&edge, address)
    });
    let _one = Origin::on(address, |_| HttpResponse::new("one".into()));
    eventually("it is back long before its time", || is_up(&edge, address));
    eventually("it gets requests", || answers(&mut edge.client(), &edge, 4).contains(&"one".to_owned()));
}

#[test]
fn a_check_that_only_connects_ends_an_ejection_for_connections_alone() {
    let health = "tcp: true, interval: 100ms, fall: 100, rise: 1}, eject: {failures: 1, for: 1h, at_most: 1h";
    // It accepts connections, and closes them with the first request.
    let ill = saying(b"", None);
    let two = application("two");
    let edge = edge_with(&[ill, two.origin.address], health);
    let mut client = edge.client();
    eventually("it is ejected", || {
        client.ask("POST", &edge.url("iqueue", "/")).send();
        !is_up(&edge, ill)
    });
    let passed = || scrape(&edge).checks(ill)[0];
    let before = passed();
    eventually("it passes its checks", || passed() >= before + 3.0);
    assert!(!is_up(&edge, ill), "which say nothing of how it answers");
    assert_eq!(answers(&mut client, &edge, 6), ["two"; 6]);
    let dead = free_address();
    let edge = edge_with(&[dead, two.origin.address], health);
    eventually("it is ejected", || {
        answers(&mut edge.client(), &edge, 2);
        !is_up(&edge, dead)
    });
    let _one = Origin::on(dead, |_| HttpResponse::new("one".into()));
    eventually("it is back", || is_up(&edge, dead));
}

#[test]
fn checks_over_tls_want_a_server_that_proves_its_name() {
    let (app, ca) = (application("app"), crate::harness::certificates::ca());
    let issued = || ca.issue(&["app.internal"]);
    let good = crate::harness::front(app.origin.address, &issued());
    let other = crate::harness::front(app.origin.address, &ca.issue(&["other.internal"]));
    let plain = application("plain");
    let servers = [good.address, other.address, plain.origin.address];
    for (protocol, check) in [("http1", "tcp: true"), ("http1", "http: {path: /healthz}"), ("h2", "tcp: true")] {
        let health = format!("{check}, {OFTEN}");
        let tls = format!("{{protocol: {protocol}, tls: {{ca: ca.pem, server_name: app.internal}}, ");
        let spare = origin("spare");
        let pool = pool(&servers, &health).replacen('{', &tls, 1);
        let edge = edge().service_with("iqueue", &spare, PUBLIC).pool("iqueue", &pool).start();
        good.show(&issued());
        eventually(&format!("{protocol} {check}: one is checked, the others are down"), || {
            let seen = scrape(&edge);
            seen.checks(servers[0])[0] >= 3.0 && servers.map(|server| seen.is_up(server)) == [true, false, false]
        });
        // A certificate that is not trusted any more, and one that is again.
        good.show(&ca.issue(&["another.internal"]));
        eventually(&format!("{protocol} {check}: it is down"), || !is_up(&edge, servers[0]));
        good.show(&issued());
        eventually(&format!("{protocol} {check}: it is up"), || is_up(&edge, servers[0]));
    }
}

#[test]
fn checks_that_cannot_be_are_faults() {
    for (health, key, what) in [
        ("{}", "health", "says nothing of what is checked"),
        ("{interval: 5s}", "health", "says nothing of what is checked"),
        ("{tcp: false}", "health", "says nothing of what is checked"),
        ("{http: {path: /a}, tcp: true}", "health.tcp", "write one of the two"),
        ("{http: {path: a}}", "health.http.path", "is no path of a request"),
        ("{http: {path: \"/a b\"}}", "health.http.path", "is no path of a request"),
        ("{http: {path: \"/a#b\"}}", "health.http.path", "is no path of a request"),
        ("{http: {path: \"https://a/\"}}", "health.http.path", "is no path of a request"),
        ("{http: {status: 2xx}}", "health.http.status", "a status such as 200"),
        ("{http: {status: 399-200}}", "health.http.status", "no range of statuses"),
        ("{http: {status: 100-200}}", "health.http.status", "no range of statuses"),
        ("{http: {status: 600}}", "health.http.status", "no range of statuses"),
        ("{http: {host: \"a b\"}}", "health.http.host", "is no host"),
        ("{http: {host: \"a@b\"}}", "health.http.host", "is no host"),
        ("{http: {body: ok}}", "health.http.body", "unknown key"),
        ("{grpc: {}}", "health.grpc", "unknown key"),
        ("{tcp: true, interval: 50ms}", "health.interval", "too short"),
        ("{tcp: true, interval: 1s, timeout: 2s}", "health.timeout", "longer than `interval`"),
        ("{tcp: true, fall: 0}", "health.fall", "0 checks"),
        ("{tcp: true, rise: 101}", "health.rise", "101 checks"),
    ] {
        let (_folder, file) = folder(&with(&format!("health: {health}")));
        let said = check(&file).stderr;
        assert!(said.contains(&format!("pools.first.{key}: ")) && said.contains(what), "{health}: {said}");
    }
    for good in [
        "health: {tcp: true}",
        "health: {http: {}}",
        "health: {http: {path: \"/a?b=c\", status: 200, host: \"app.test:80\"}, interval: 500ms}",
        "health: {http: {status: 200-599}, fall: 1, rise: 100}",
        "slow_start: 0s",
        "slow_start: 30s",
    ] {
        let (_folder, file) = folder(&with(good));
        assert_eq!(check(&file).stderr, "", "{good}");
    }
    let (_folder, file) = folder(&with("slow_start: fast"));
    assert!(check(&file).stderr.contains("pools.first.slow_start: "));
}

fn with(line: &str) -> String {
    without_marks(GOOD).replace("pools:\n  first:\n", &format!("pools:\n  first:\n    {line}\n"))
}
