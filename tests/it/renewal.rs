//! Certificates while the edge runs: renewed files, files that do not fit, an end that comes near; and what a
//! certificate says of the requests on its connection.

use std::time::{Duration, SystemTime};

use crate::harness::certificates::{Certificate, ca};
use crate::harness::client::connect;
use crate::harness::raw::{Ended, http2_request};
use crate::harness::{Edge, edge, eventually, origin, raw, runtime};

const NAMES: [&str; 2] = ["sentry.test", "iqueue.test"];

/// What a client is shown, in DER.
fn shown(edge: &Edge) -> Vec<u8> {
    let stream = runtime().block_on(connect(edge.address(), "iqueue.test", &[b"http/1.1"])).unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn put(edge: &Edge, name: &str, text: &str) {
    std::fs::write(edge.folder.path().join(name), text).unwrap();
}

fn reloads(edge: &Edge, result: &str) -> f64 {
    edge.metric("sentry_edge_certificate_reloads_total", &format!("result=\"{result}\""))
}

fn get(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

#[test]
fn renewed_files_are_served_without_a_signal() {
    let iqueue = origin("iqueue");
    let edge = edge().service_with("iqueue", &iqueue, "access: public").tls("refresh: 50ms").start();
    let before = shown(&edge);
    let mut kept = raw(edge.address(), "iqueue.test");
    assert_eq!(kept.send(get("iqueue.test")).status(), 200);
    let Certificate { pem, key } = ca().issue(&NAMES);
    put(&edge, "edge.key", &key);
    put(&edge, "edge.pem", &pem);
    eventually("the new certificate is shown", || shown(&edge) != before);
    assert_eq!(reloads(&edge, "ok"), 1.0);
    assert_eq!(kept.send(get("iqueue.test")).status(), 200, "connections that are open stay so");
}

#[test]
fn files_that_do_not_fit_are_refused_until_they_do() {
    let iqueue = origin("iqueue");
    let edge = edge().service("iqueue", &iqueue).tls("refresh: 50ms").start();
    let before = shown(&edge);
    let Certificate { pem, key } = ca().issue(&NAMES);
    // The other half is yet to be written.
    put(&edge, "edge.pem", &pem);
    eventually("refused", || reloads(&edge, "refused") == 1.0);
    assert!(shown(&edge) == before, "the old one stays");
    // Garbage, nothing, too few names, one that has ended.
    put(&edge, "edge.pem", "-----BEGIN CERTIFICATE-----");
    eventually("refused", || reloads(&edge, "refused") == 2.0);
    std::fs::remove_file(edge.folder.path().join("edge.pem")).unwrap();
    eventually("refused", || reloads(&edge, "refused") == 3.0);
    for (number, other) in [ca().issue(&["sentry.test"]), ca().issue_ended(&NAMES)].into_iter().enumerate() {
        put(&edge, "edge.key", &other.key);
        put(&edge, "edge.pem", &other.pem);
        // A look may fall between the two files.
        eventually("refused", || reloads(&edge, "refused") >= 4.0 + number as f64);
    }
    assert!(shown(&edge) == before);
    put(&edge, "edge.key", &key);
    put(&edge, "edge.pem", &pem);
    eventually("taken up", || shown(&edge) != before);
    eventually("counted", || reloads(&edge, "ok") == 1.0);
}

#[test]
fn an_end_that_comes_near_is_told_once_for_each_certificate() {
    let day = Duration::from_secs(24 * 3600);
    let iqueue = origin("iqueue");
    let builder = edge().service("iqueue", &iqueue).tls("refresh: 50ms").certificate(&["month.example"]);
    let daemon = builder.run_in(|folder| {
        for (name, names, days) in [("edge", &NAMES[..], 5), ("extra0", &["month.example"], 20)] {
            let issued = ca().issue_until(names, SystemTime::now() + days * day);
            std::fs::write(folder.join(format!("{name}.pem")), issued.pem).unwrap();
            std::fs::write(folder.join(format!("{name}.key")), issued.key).unwrap();
        }
    });
    let told = |what: &str| daemon.process.stderr().lines().filter(|line| line.contains(what)).count();
    let week = "the certificate of sentry.test ends in 4 days";
    eventually("both are told", || told(week) == 1 && told("the certificate of month.example ends in 19 days") == 1);
    // Several looks later.
    let issued = ca().issue_until(&NAMES, SystemTime::now() + 100 * day);
    std::fs::write(daemon.folder.path().join("edge.key"), issued.key).unwrap();
    std::fs::write(daemon.folder.path().join("edge.pem"), issued.pem).unwrap();
    eventually("renewed", || told("certificates renewed") == 1);
    assert_eq!((told("sentry.test ends"), told("month.example ends")), (1, 1));
}

#[test]
fn when_each_certificate_ends_is_in_the_metrics_and_those_that_are_gone_are_not() {
    let seconds = |end: SystemTime| end.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as f64;
    let day = Duration::from_secs(24 * 3600);
    let iqueue = origin("iqueue");
    let mut edge = edge().service("iqueue", &iqueue).tls("refresh: 50ms").certificate(&["extra.example"]).start();
    let ends = |edge: &Edge, name: &str| {
        edge.metric("sentry_edge_certificate_expiry_timestamp_seconds", &format!("name=\"{name}\""))
    };
    let extra = ends(&edge, "extra.example");
    assert!((extra - seconds(SystemTime::now() + 300 * day)).abs() < 3600.0, "{extra}");
    let end = SystemTime::now() + 10 * day;
    let Certificate { pem, key } = ca().issue_until(&NAMES, end);
    put(&edge, "edge.key", &key);
    put(&edge, "edge.pem", &pem);
    eventually("the renewed one is there", || (ends(&edge, NAMES[0]) - seconds(end)).abs() < 2.0);
    assert_eq!(ends(&edge, "extra.example"), extra);
    edge.reload_with(|yaml| yaml.replace(", {certificate: extra0.pem, key: extra0.key}", ""));
    assert_eq!(ends(&edge, "extra.example"), 0.0);
}

// 421.

#[test]
fn a_host_that_the_connections_certificate_does_not_cover_wants_a_connection_of_its_own() {
    let (iqueue, dextor) = (origin("iqueue"), origin("dextor"));
    let edge = edge()
        .service_with("iqueue", &iqueue, "access: public")
        .service_with("dextor", &dextor, "access: public, hosts: [dextor.test, dextor.example]")
        .certificate(&["dextor.example"])
        .start();
    let mut connection = raw(edge.address(), "iqueue.test");
    assert_eq!(connection.send(get("dextor.test")).status(), 200, "one certificate covers both");
    let refused = connection.send(get("dextor.example")).answer().unwrap();
    assert_eq!(refused.status, 421);
    assert!(!refused.text().contains("dextor"), "{}", refused.text());
    assert_eq!(connection.send(get("iqueue.test")).status(), 200, "the connection is kept");
    assert_eq!(raw(edge.address(), "dextor.example").send(get("dextor.example")).status(), 200);
    // Where browsers do it.
    let coalesced = |authority: &str| {
        let fields = [(":method", "GET"), (":scheme", "https"), (":authority", authority), (":path", "/")];
        http2_request(edge.address(), "iqueue.test", &fields)
    };
    assert_eq!(coalesced("dextor.test"), Ended::Answered(200));
    assert_eq!(coalesced("dextor.example"), Ended::Answered(0), "a status without a number of its own");
    assert_eq!(dextor.seen().len(), 3);
}

// Strict-Transport-Security.

#[test]
fn our_own_pages_ask_browsers_to_come_back_over_tls_alone() {
    let iqueue = origin("iqueue");
    let start =
        |tls: &str| edge().service_with("iqueue", &iqueue, "routes: [{path: /open, access: public}]").tls(tls).start();
    let hsts = |edge: &Edge, url: &str| edge.client().open(url).header("strict-transport-security").map(str::to_owned);
    let edge = start("refresh: 5s");
    assert_eq!(hsts(&edge, &edge.url("iqueue", "/")).unwrap(), "max-age=31536000");
    assert_eq!(hsts(&edge, &edge.url("sentry", "/login")).unwrap(), "max-age=31536000");
    assert_eq!(hsts(&edge, &edge.url("iqueue", "/open")), None, "an application speaks for itself");
    let plain = raw_answer(&edge);
    assert!(plain.starts_with("HTTP/1.1 308") && !plain.to_lowercase().contains("strict-transport"), "{plain}");
    let edge = start("hsts: {max_age: 1h, include_subdomains: true}");
    assert_eq!(hsts(&edge, &edge.url("iqueue", "/")).unwrap(), "max-age=3600; includeSubDomains");
    let edge = start("hsts: off");
    assert_eq!(hsts(&edge, &edge.url("iqueue", "/")), None);
}

fn raw_answer(edge: &Edge) -> String {
    crate::harness::raw::raw_plain(edge.http_address()).send(get("iqueue.test")).answer().unwrap().head
}
