//! TLS with clients that come again: which sessions are resumed, and where.

use std::sync::Arc;
use std::time::Duration;

use crate::harness::certificates::ca;
use crate::harness::{Edge, Origin, edge, eventually, openssl, origin, runtime};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A client that remembers sessions, as browsers do.
struct Returning(Arc<ClientConfig>);

fn returning(version: &'static SupportedProtocolVersion) -> Returning {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca().der.clone())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(16);
    config.enable_early_data = true;
    Returning(Arc::new(config))
}

impl Returning {
    /// Asks for a page on a connection of its own; answers whether its session was one from before.
    fn is_resumed(&self, edge: &Edge) -> bool {
        runtime().block_on(async {
            let socket = TcpStream::connect(edge.address()).await.unwrap();
            let name = ServerName::try_from("iqueue.test").unwrap();
            let mut stream = TlsConnector::from(Arc::clone(&self.0)).connect(name, socket).await.unwrap();
            assert!(!stream.get_ref().1.is_early_data_accepted(), "early data can be replayed");
            let request = "GET / HTTP/1.1\r\nHost: iqueue.test\r\nConnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut response = Vec::new();
            stream.read_to_end(&mut response).await.ok();
            assert!(response.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&response));
            stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
        })
    }
}

fn with_tickets(origin: &Origin, tickets: &str) -> Edge {
    edge().service_with("iqueue", origin, "access: public").tls(&format!("tickets: {tickets}")).start()
}

fn secret(text: &str) -> String {
    format!("{{secret: {{value: {text}}}}}")
}

fn both() -> [&'static SupportedProtocolVersion; 2] {
    [&rustls::version::TLS12, &rustls::version::TLS13]
}

#[test]
fn a_session_is_resumed_on_another_edge_and_after_a_restart() {
    let iqueue = origin("iqueue");
    let (mut first, second) = (with_tickets(&iqueue, &secret(SECRET)), with_tickets(&iqueue, &secret(SECRET)));
    for version in both() {
        let client = returning(version);
        assert!(!client.is_resumed(&first), "nobody has met before");
        assert!(client.is_resumed(&first));
        assert!(client.is_resumed(&second), "{version:?}");
    }
    let client = returning(&rustls::version::TLS13);
    assert!(!client.is_resumed(&first));
    first.restart();
    assert!(client.is_resumed(&first));
}

/// The same with OpenSSL's client, processes of their own, and the first of them gone before the third is there.
#[test]
fn a_saved_session_is_resumed_by_other_processes_that_have_the_secret() {
    let iqueue = origin("iqueue");
    let builder = edge().service_with("iqueue", &iqueue, "access: public").tls(&format!("tickets: {}", secret(SECRET)));
    let (first, second) = (builder.clone().run(), builder.clone().run());
    let folder = tempfile::tempdir().unwrap();
    let saved = |version: &str| folder.path().join(version).to_str().unwrap().to_owned();
    let visit = |address, version: &str, what: &str| {
        let visit = openssl(address, "iqueue.test", &[version, what, &saved(version)]);
        assert_eq!(visit.status(), 200, "{version}: {}", visit.text);
        visit
    };
    for version in ["-tls1_2", "-tls1_3"] {
        assert!(visit(first.address, version, "-sess_out").is_new());
        assert!(visit(first.address, version, "-sess_in").is_resumed(), "{version}");
        assert!(visit(second.address, version, "-sess_in").is_resumed(), "{version}: by another edge");
    }
    drop(first);
    let restarted = builder.run();
    for version in ["-tls1_2", "-tls1_3"] {
        assert!(visit(restarted.address, version, "-sess_in").is_resumed(), "{version}: after a restart");
    }
}

#[test]
fn edges_with_different_secrets_or_none_do_not_take_each_others_tickets() {
    let iqueue = origin("iqueue");
    let others = SECRET.replace('0', "9");
    let edges =
        [secret(SECRET), secret(&others), "{}".into(), "{}".into()].map(|tickets| with_tickets(&iqueue, &tickets));
    for version in both() {
        for pair in edges.windows(2) {
            let client = returning(version);
            assert!(!client.is_resumed(&pair[0]));
            assert!(client.is_resumed(&pair[0]), "its own it takes");
            assert!(!client.is_resumed(&pair[1]));
        }
    }
}

#[test]
fn a_ticket_is_not_good_for_ever() {
    let iqueue = origin("iqueue");
    let edge = with_tickets(&iqueue, &format!("{{secret: {{value: {SECRET}}}, rotation: 1h}}"));
    let client = returning(&rustls::version::TLS12);
    assert!(!client.is_resumed(&edge));
    edge.let_pass(Duration::from_secs(2 * 3600));
    assert!(!client.is_resumed(&edge), "two keys later");
    assert!(client.is_resumed(&edge));
}

#[test]
fn a_reload_with_another_secret_logs_nobody_out_of_their_sessions() {
    let iqueue = origin("iqueue");
    let mut edge = with_tickets(&iqueue, &secret(SECRET));
    let client = returning(&rustls::version::TLS13);
    assert!(!client.is_resumed(&edge));
    let file = edge.folder.path().join("edge.yaml");
    let yaml = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, yaml.replace(&secret(SECRET), &secret(&SECRET.replace('0', "9")))).unwrap();
    assert_eq!(edge.inner.reload().unwrap(), [""; 0]);
    assert!(client.is_resumed(&edge));
}

#[test]
fn handshakes_are_counted_by_version_and_whether_they_resumed() {
    let iqueue = origin("iqueue");
    let edge = with_tickets(&iqueue, "{}");
    for version in both() {
        let client = returning(version);
        assert!(!client.is_resumed(&edge));
        assert!(client.is_resumed(&edge));
        let name = if version.version == ProtocolVersion::TLSv1_2 { "1.2" } else { "1.3" };
        eventually("both are counted", || {
            ["true", "false"].iter().all(|resumed| {
                let labels = format!("result=\"ok\",resumed=\"{resumed}\",version=\"{name}\"");
                edge.metric("sentry_edge_tls_handshakes_total", &labels) == 1.0
            })
        });
    }
}

#[test]
fn a_secret_that_is_too_short_is_refused_with_what_to_do() {
    let iqueue = origin("iqueue");
    let builder = edge().service("iqueue", &iqueue).tls("tickets: {secret: {value: short}, rotation: 30s}");
    let (_folder, file) = builder.write();
    let faults = sentry_edge::server::check(&file, &Default::default()).err().unwrap().to_string();
    assert!(faults.contains("tls.tickets.secret: 5 bytes are too few; use 32 or more"), "{faults}");
    assert!(faults.contains("tls.tickets.rotation: out of bounds; write 1m to 3d"), "{faults}");
}
