//! What single hosts ask of connections beyond what all do: a least version of TLS, a client's certificate. Numbers are
//! those of the list of bad inputs in the threat report.

use std::time::{Duration, SystemTime};

use crate::harness::certificates::{Ca, ca};
use crate::harness::raw::{Ended, raw_plain};
use crate::harness::{Edge, Origin, Visitor, edge, eventually, openssl, origin, visitor};

const PUBLIC: &str = "access: public";
const WANTS: &str = "access: public, tls: {client_ca: clients.pem}";
const LIKES: &str = "access: public, tls: {client_ca: clients.pem, client_certificate: optional}";
const MODERN: &str = "access: public, tls: {min_version: \"1.3\"}";

struct Scene {
    edge: Edge,
    /// Whose certificates iqueue asks for.
    issuer: Ca,
    iqueue: Origin,
    dextor: Origin,
}

/// iqueue as it says, and dextor, which asks for nothing.
fn scene(iqueue_says: &str) -> Scene {
    let (iqueue, dextor, issuer) = (origin("iqueue"), origin("dextor"), Ca::new());
    let edge = edge()
        .service_with("iqueue", &iqueue, iqueue_says)
        .service_with("dextor", &dextor, PUBLIC)
        .file("clients.pem", &issuer.pem)
        .start();
    Scene { edge, issuer, iqueue, dextor }
}

fn get(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn forged(host: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Client-Cert: Hash=0;Subject=\"CN=root\"\r\nClient-Cert: :AA==:\r\n\r\n"
    )
}

/// What an application was told, and nothing that the client said itself.
fn told(origin: &Origin) -> Option<String> {
    let seen = origin.last();
    assert_eq!(seen.one("client-cert"), None);
    seen.one("x-forwarded-client-cert")
}

fn failures(edge: &Edge, reason: &str) -> f64 {
    edge.metric("sentry_edge_tls_handshake_failures_total", &format!("reason=\"{reason}\""))
}

/// It was the edge that refused, with this alert.
fn assert_refused(refusal: &str, alert: &str) {
    assert!(refusal.starts_with("received fatal alert") && refusal.contains(alert), "{alert}: {refusal}");
}

fn both() -> [&'static rustls::SupportedProtocolVersion; 2] {
    [&rustls::version::TLS12, &rustls::version::TLS13]
}

#[test]
fn a_service_that_wants_certificates_is_there_for_those_who_show_one_of_its_issuers() {
    let Scene { edge, issuer, iqueue, .. } = &scene(WANTS);
    let address = edge.address();
    let ada = issuer.issue_client("ada");
    for version in both() {
        let mut connection = Visitor::showing_over(version, &ada).visit(address, "iqueue.test");
        assert_eq!(connection.send(forged("iqueue.test")).status(), 200, "{version:?}");
        let told = told(iqueue).expect("the application hears of it");
        let (hash, subject) = told.split_once(';').unwrap();
        assert_eq!((hash.len(), subject), ("Hash=".len() + 64, "Subject=\"CN=ada\""), "{told}");
    }
    let refused = |visitor: &Visitor| visitor.refusal(address, "iqueue.test");
    assert_refused(&refused(&visitor()), "CertificateRequired");
    assert_refused(&refused(&Visitor::showing(&Ca::new().issue_client("ada"))), "");
    let ended = issuer.issue_client_until("ada", SystemTime::now() - Duration::from_secs(3600));
    assert_refused(&refused(&Visitor::showing(&ended)), "CertificateExpired");
    // A certificate of a server, from the same issuer.
    assert_refused(&refused(&Visitor::showing(&issuer.issue_server("ada.test"))), "");
    assert_eq!(iqueue.count(), 2);
    eventually("refusals are counted by reason", || failures(edge, "client_certificate") == 4.0);
    let line = &edge.access_log(2)[0];
    assert_eq!(line["client_certificate"].as_str().unwrap().len(), 64, "{line}");
}

#[test]
fn a_connection_that_outlives_its_clients_certificate_is_of_no_more_use_for_it() {
    for says in [WANTS, LIKES] {
        let Scene { edge, issuer, .. } = &scene(says);
        let ada = issuer.issue_client_until("ada", SystemTime::now() + Duration::from_secs(8));
        let mut connection = Visitor::showing(&ada).visit(edge.address(), "iqueue.test");
        assert_eq!(connection.send(get("iqueue.test")).status(), 200);
        eventually("the certificate ends", || connection.send(get("iqueue.test")).status() == 421);
    }
}

#[test]
fn a_service_that_likes_certificates_is_told_of_good_ones_and_refuses_bad_ones() {
    let Scene { edge, issuer, iqueue, .. } = &scene(LIKES);
    assert_eq!(visitor().visit(edge.address(), "iqueue.test").send(forged("iqueue.test")).status(), 200);
    assert_eq!(told(iqueue), None);
    let ada = Visitor::showing(&issuer.issue_client("ada"));
    assert_eq!(ada.visit(edge.address(), "iqueue.test").send(forged("iqueue.test")).status(), 200);
    assert!(told(iqueue).unwrap().ends_with("Subject=\"CN=ada\""));
    let stranger = Visitor::showing(&Ca::new().issue_client("ada")).refusal(edge.address(), "iqueue.test");
    assert_refused(&stranger, "");
}

/// Input 134.
#[test]
fn a_host_that_asks_for_certificates_is_not_served_on_another_hosts_connection() {
    for says in [WANTS, LIKES] {
        let Scene { edge, issuer, iqueue, dextor } = &scene(says);
        let ada = Visitor::showing(&issuer.issue_client("ada"));
        for client in [visitor(), ada.clone()] {
            let mut connection = client.visit(edge.address(), "dextor.test");
            let refused = connection.send(get("iqueue.test")).answer().unwrap();
            assert_eq!(refused.status, 421, "{says}");
            assert!(!refused.text().contains("ertificate"), "{}", refused.text());
            assert_eq!(connection.send(get("dextor.test")).status(), 200, "the connection is kept");
            let fields = [(":method", "GET"), (":scheme", "https"), (":authority", "iqueue.test"), (":path", "/")];
            let ended = client.http2().visit(edge.address(), "dextor.test").http2_request(&fields);
            assert_eq!(ended, Ended::Answered(0), "421, which has no number of its own");
        }
        assert_eq!(iqueue.count(), 0);
        assert_eq!(edge.access_log(1)[0]["reason"], "tls_policy");
        // The other way round a client has shown more than it had to, which is not passed on.
        let mut connection = ada.visit(edge.address(), "iqueue.test");
        assert_eq!(connection.send(forged("dextor.test")).status(), 200);
        assert_eq!(told(dextor), None);
        let fields = [(":method", "GET"), (":scheme", "https"), (":authority", "iqueue.test"), (":path", "/")];
        let ended = ada.http2().visit(edge.address(), "iqueue.test").http2_request(&fields);
        assert_eq!(ended, Ended::Answered(200));
    }
}

/// Input 135.
#[test]
fn a_session_of_a_plain_host_is_not_resumed_where_a_certificate_is_asked_for_nor_is_one_from_there() {
    let Scene { edge, issuer, iqueue, .. } = &scene(WANTS);
    let folder = edge.folder.path();
    let ada = issuer.issue_client("ada");
    std::fs::write(folder.join("ada.pem"), &ada.pem).unwrap();
    std::fs::write(folder.join("ada.key"), &ada.key).unwrap();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("ada.pem"), path("ada.key"));
    let shown = ["-cert", &certificate, "-key", &key];
    for version in ["-tls1_2", "-tls1_3"] {
        let (plain, ours) = (path(&format!("plain{version}")), path(&format!("ours{version}")));
        let visit = |name: &str, more: &[&str]| openssl(edge.address(), name, &[&[version], more].concat());
        assert!(visit("dextor.test", &["-sess_out", &plain]).is_new());
        assert!(visit("dextor.test", &["-sess_in", &plain]).is_resumed(), "{version}: it is a good one");
        let before = iqueue.count();
        let tried = visit("iqueue.test", &["-sess_in", &plain]);
        assert!(!tried.is_resumed() && tried.status() == 0, "{version}: {}", tried.text);
        assert_eq!(iqueue.count(), before);
        let full = visit("iqueue.test", &[&shown[..], &["-sess_in", &plain, "-sess_out", &ours]].concat());
        assert!(full.is_new() && full.status() == 200, "{version}: {}", full.text);
        // Each connection of that host proves it anew; without a ticket there may be nothing to save.
        if std::fs::exists(&ours).unwrap() {
            let again = visit("iqueue.test", &[&shown[..], &["-sess_in", &ours]].concat());
            assert!(again.is_new() && again.status() == 200, "{version}: {}", again.text);
            assert_eq!(visit("iqueue.test", &["-sess_in", &ours]).status(), 0, "{version}");
        }
    }
}

#[test]
fn a_ticket_from_before_a_host_asked_for_certificates_opens_nothing() {
    let mut scene = scene(PUBLIC);
    let edge = &mut scene.edge;
    for version in ["-tls1_2", "-tls1_3"] {
        let saved = edge.folder.path().join(format!("saved{version}"));
        let saved = saved.to_str().unwrap();
        assert_eq!(openssl(edge.address(), "iqueue.test", &[version, "-sess_out", saved]).status(), 200);
        edge.reload_with(|yaml| yaml.replace(PUBLIC, WANTS));
        let tried = openssl(edge.address(), "iqueue.test", &[version, "-sess_in", saved]);
        assert!(!tried.is_resumed() && tried.status() == 0, "{version}: {}", tried.text);
        edge.reload_with(|yaml| yaml.replace(WANTS, PUBLIC));
    }
}

#[test]
fn two_services_with_issuers_of_their_own_do_not_take_each_others_clients() {
    let (iqueue, dextor) = (origin("iqueue"), origin("dextor"));
    let (ours, theirs) = (Ca::new(), Ca::new());
    let edge = edge()
        .service_with("iqueue", &iqueue, WANTS)
        .service_with("dextor", &dextor, &WANTS.replace("clients", "others"))
        .file("clients.pem", &ours.pem)
        .file("others.pem", &theirs.pem)
        .start();
    let mut connection = Visitor::showing(&ours.issue_client("ada")).visit(edge.address(), "iqueue.test");
    assert_eq!(connection.send(get("dextor.test")).status(), 421);
    assert_eq!(connection.send(get("iqueue.test")).status(), 200);
    assert_eq!(dextor.count(), 0);
}

#[test]
fn a_host_may_ask_for_a_later_version_than_all_do() {
    let Scene { edge, iqueue, .. } = &scene(MODERN);
    let [old, new] = both().map(Visitor::of);
    assert_refused(&old.refusal(edge.address(), "iqueue.test"), "ProtocolVersion");
    eventually("it is counted", || failures(edge, "version") == 1.0);
    let mut coalesced = old.visit(edge.address(), "dextor.test");
    assert_eq!(coalesced.send(get("iqueue.test")).status(), 421);
    assert_eq!(coalesced.send(get("dextor.test")).status(), 200);
    assert_eq!(iqueue.count(), 0);
    assert_eq!(new.visit(edge.address(), "dextor.test").send(get("iqueue.test")).status(), 200, "it has what it asks");
    assert_eq!(new.visit(edge.address(), "iqueue.test").send(get("iqueue.test")).status(), 200);
}

#[test]
fn the_sign_on_host_may_ask_as_well() {
    let iqueue = origin("iqueue");
    let issuer = Ca::new();
    let edge = edge()
        .service_with("iqueue", &iqueue, PUBLIC)
        .sentry("tls: {min_version: \"1.3\", client_ca: clients.pem}")
        .file("clients.pem", &issuer.pem)
        .start();
    let page = "GET /login HTTP/1.1\r\nHost: sentry.test\r\n\r\n";
    assert_refused(&visitor().refusal(edge.address(), "sentry.test"), "CertificateRequired");
    assert_eq!(visitor().visit(edge.address(), "iqueue.test").send(page).status(), 421);
    let ada = Visitor::showing(&issuer.issue_client("ada"));
    assert_eq!(ada.visit(edge.address(), "sentry.test").send(page).status(), 200);
    assert_eq!(visitor().visit(edge.address(), "iqueue.test").send(get("iqueue.test")).status(), 200);
}

#[test]
fn an_exact_host_below_a_wildcard_has_its_own_services_word() {
    let (iqueue, dextor, issuer) = (origin("iqueue"), origin("dextor"), Ca::new());
    // Nobody takes a wildcard right below a top-level name.
    let edge = edge()
        .domain("app.test")
        .service_with("iqueue", &iqueue, &format!("hosts: [\"*.app.test\"], {WANTS}"))
        .service_with("dextor", &dextor, &format!("hosts: [dextor.app.test], {PUBLIC}"))
        .file("clients.pem", &issuer.pem)
        .start();
    assert_refused(&visitor().refusal(edge.address(), "any.app.test"), "CertificateRequired");
    let mut connection = visitor().visit(edge.address(), "DEXTOR.app.test");
    assert_eq!(connection.send(get("dextor.app.test")).status(), 200);
    for spelling in ["any.app.test", "ANY.app.test.", "iqueue.app.test:443"] {
        assert_eq!(connection.send(get(spelling)).status(), 421, "{spelling}");
    }
    assert_eq!(visitor().visit(edge.address(), "sentry.app.test").send(get("sentry.app.test")).status(), 302);
}

#[test]
fn a_reload_holds_for_connections_that_are_open() {
    let mut scene = scene(PUBLIC);
    let edge = &mut scene.edge;
    let mut kept = visitor().visit(edge.address(), "iqueue.test");
    assert_eq!(kept.send(get("iqueue.test")).status(), 200);
    edge.reload_with(|yaml| yaml.replace(PUBLIC, WANTS));
    assert_eq!(kept.send(get("iqueue.test")).status(), 421);
    let ada = Visitor::showing(&scene.issuer.issue_client("ada"));
    let mut of_ada = ada.visit(edge.address(), "iqueue.test");
    assert_eq!(of_ada.send(get("iqueue.test")).status(), 200);
    // Another issuer in the same file.
    let other = Ca::new();
    std::fs::write(edge.folder.path().join("clients.pem"), &other.pem).unwrap();
    edge.reload_with(|yaml| yaml);
    assert_eq!(of_ada.send(get("iqueue.test")).status(), 421, "its issuer is nobody any more");
    assert_refused(&ada.refusal(edge.address(), "iqueue.test"), "");
    let bob = Visitor::showing(&other.issue_client("bob"));
    assert_eq!(bob.visit(edge.address(), "iqueue.test").send(get("iqueue.test")).status(), 200);
    // A file with a fault changes nothing.
    std::fs::write(edge.folder.path().join("clients.pem"), "").unwrap();
    let faults = edge.inner.reload().unwrap_err().to_string();
    assert!(faults.contains("services.iqueue.tls.client_ca: ") && faults.contains("holds no certificate"), "{faults}");
    assert_eq!(bob.visit(edge.address(), "iqueue.test").send(get("iqueue.test")).status(), 200);
}

#[test]
fn the_version_that_all_hosts_ask_for_may_be_raised_by_a_reload() {
    let iqueue = origin("iqueue");
    let mut edge = edge().service_with("iqueue", &iqueue, PUBLIC).tls("min_version: \"1.2\"").start();
    let [old, new] = both().map(Visitor::of);
    let mut kept = old.visit(edge.address(), "iqueue.test");
    assert_eq!(kept.send(get("iqueue.test")).status(), 200);
    let file = edge.folder.path().join("edge.yaml");
    let yaml = std::fs::read_to_string(&file).unwrap().replace("min_version: \"1.2\"", "min_version: \"1.3\"");
    std::fs::write(&file, yaml).unwrap();
    assert_eq!(edge.inner.reload().unwrap(), [""; 0], "nothing waits for a restart");
    assert_eq!(kept.send(get("iqueue.test")).status(), 421);
    assert_refused(&old.refusal(edge.address(), "iqueue.test"), "ProtocolVersion");
    assert_eq!(new.visit(edge.address(), "iqueue.test").send(get("iqueue.test")).status(), 200);
}

#[test]
fn what_is_wrong_with_it_is_said_with_what_to_write() {
    let iqueue = origin("iqueue");
    let dextor = "tls: {client_ca: edge.key}";
    let builder = edge()
        .service_with("iqueue", &iqueue, "tls: {min_version: \"1.1\", client_certificate: required}")
        .service_with("dextor", &iqueue, dextor)
        .sentry("tls: {client_ca: nowhere.pem, client_certificate: maybe}");
    let (_folder, file) = builder.write();
    let faults = sentry_edge::server::check(&file, &Default::default()).err().unwrap().to_string();
    for expected in [
        "services.iqueue.tls.min_version: `1.1` is not offered; write \"1.2\" or \"1.3\"",
        "services.iqueue.tls.client_ca: missing: client certificates are requested and no CA is named; name the PEM file",
        "services.dextor.tls.client_ca: ",
        "edge.key holds no certificate; name a PEM file with the CA certificates of clients",
        "sentry.tls.client_ca: cannot read ",
        "sentry.tls.client_certificate: ",
    ] {
        assert!(faults.contains(expected), "{expected}: {faults}");
    }
}

#[test]
fn a_certificate_of_the_edges_own_issuer_is_none_of_the_clients() {
    let Scene { edge, iqueue, .. } = &scene(WANTS);
    let refused = Visitor::showing(&ca().issue_client("ada")).refusal(edge.address(), "iqueue.test");
    assert_refused(&refused, "");
    assert_eq!(iqueue.count(), 0);
}

#[test]
fn a_handshake_that_takes_too_long_is_ended_wherever_it_stands() {
    let edge = edge().service("iqueue", &origin("iqueue")).server("timeouts: {tls_handshake: 200ms}").start();
    // Nothing, and the beginning of a ClientHello.
    for (count, bytes) in [(1.0, &b""[..]), (2.0, &[22, 3, 1, 2, 0, 1])] {
        let mut silent = raw_plain(edge.address());
        silent.send(bytes);
        assert_eq!(silent.rest(), b"");
        eventually("it is counted", || failures(&edge, "timeout") == count);
    }
}

#[test]
fn handshakes_that_fail_are_counted_by_reason() {
    let Scene { edge, .. } = &scene(MODERN);
    let address = edge.address();
    visitor().refusal(address, "unknown.example");
    Visitor::of(&rustls::version::TLS12).refusal(address, "iqueue.test");
    let mut plain = raw_plain(address);
    plain.send("GET / HTTP/1.1\r\n\r\n");
    plain.rest();
    drop(std::net::TcpStream::connect(address).unwrap());
    drop(raw_plain(address));
    let labels = "result=\"failed\",resumed=\"false\",version=\"none\"";
    eventually("each has its reason", || {
        [("server_name", 1.0), ("version", 1.0), ("malformed", 1.0), ("gone", 2.0)]
            .iter()
            .all(|(reason, count)| failures(edge, reason) == *count)
            && edge.metric("sentry_edge_tls_handshakes_total", labels) == 5.0
    });
}
