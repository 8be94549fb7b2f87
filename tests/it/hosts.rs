//! Whom a request is for: the host it names, the port, the certificate and TLS that it comes by.
//!
//! Numbers are those of the list of bad inputs in the threat report.

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use crate::harness::client::{client, connect};
use crate::harness::raw::raw_plain;
use crate::harness::{Edge, Origin, edge, eventually, origin, raw, runtime};

const PUBLIC: &str = "access: public";

struct Scene {
    edge: Edge,
    iqueue: Origin,
    dextor: Origin,
}

fn scene() -> Scene {
    let (iqueue, dextor) = (origin("iqueue"), origin("dextor"));
    let edge = edge().service_with("iqueue", &iqueue, PUBLIC).service_with("dextor", &dextor, PUBLIC);
    let edge = edge.certificate(&["nobody.test"]).start();
    Scene { edge, iqueue, dextor }
}

#[test]
fn a_host_that_nobody_configured_gets_421_and_no_hint_of_what_is_there() {
    let scene = scene();
    for (number, host) in [
        ("121", "xn--queue-2of.test"),
        ("122", "iqueue.test.evil.com"),
        ("123", "evil-iqueue.test"),
        ("123", "a.iqueue.test"),
        ("123", "test"),
        ("123", "evil.example"),
        ("124", "localhost"),
    ] {
        for accept in ["text/html", "application/json"] {
            let request = format!("GET /.sentry/currentUser HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\n\r\n");
            let answer = raw(scene.edge.address(), "iqueue.test").send(request).answer().unwrap();
            assert_eq!(answer.status, 421, "input {number}: {host}");
            let text = answer.text().to_lowercase();
            for hint in ["iqueue", "dextor", "sentry", "pool", "127.0.0.1"] {
                assert!(!text.contains(hint), "input {number}: {host}: the answer speaks of {hint}: {text}");
            }
            assert_eq!(answer.header("location"), None);
            assert_eq!(answer.header("set-cookie"), None);
            assert_eq!(answer.header("server"), None);
        }
    }
    assert_eq!((scene.iqueue.count(), scene.dextor.count()), (0, 0));
}

/// Input 113 again: policy too, not routing alone.
#[test]
fn another_spelling_of_a_host_is_guarded_like_the_first_and_redirects_by_the_canonical_name() {
    let iqueue = origin("iqueue");
    let edge = edge().service("iqueue", &iqueue).start();
    for host in ["IQUEUE.TeSt", "iqueue.test.", "iqueue.test:443", "IQUEUE.TEST.:443"] {
        let request = format!("GET /a?b HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\n\r\n");
        let answer = raw(edge.address(), "iqueue.test").send(request).answer().unwrap();
        assert_eq!(answer.status, 302, "{host}");
        let expected = "https://sentry.test/noCookie?redirectURL=https%3A%2F%2Fiqueue.test%2Fa%3Fb&state=";
        assert!(answer.header("location").unwrap().starts_with(expected), "{host}: {:?}", answer.header("location"));
    }
    assert_eq!(iqueue.count(), 0);
}

#[test]
fn an_unknown_host_gets_421_over_http_2_too() {
    let scene = scene();
    let mut client = scene.edge.client().http2();
    assert_eq!(client.get(&scene.edge.url("nobody", "/")).status, 421);
    assert_eq!(client.get(&scene.edge.url("iqueue", "/")).status, 200);
}

/// Input 133.
#[test]
fn a_request_is_routed_by_its_host_and_not_by_the_name_that_chose_the_certificate() {
    let scene = scene();
    let mut connection = raw(scene.edge.address(), "dextor.test");
    for (host, text) in [("iqueue.test", "hello from iqueue"), ("dextor.test", "hello from dextor")] {
        let answer = connection.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).answer().unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, text));
    }
}

#[test]
fn a_wildcard_host_covers_one_label_and_an_exact_host_goes_before_it() {
    let (iqueue, dextor) = (origin("iqueue"), origin("dextor"));
    let edge = edge()
        .service_with("iqueue", &iqueue, "hosts: [\"*.test\"], access: public")
        .service_with("dextor", &dextor, "hosts: [dextor.test], access: public")
        .start();
    for (host, expected) in [
        ("iqueue.test", (200, "hello from iqueue")),
        ("anything.test", (200, "hello from iqueue")),
        ("dextor.test", (200, "hello from dextor")),
        ("DEXTOR.test.", (200, "hello from dextor")),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let answer = raw(edge.address(), "iqueue.test").send(request).answer().unwrap();
        assert_eq!((answer.status, answer.text().as_str()), expected, "{host}");
    }
    for (host, status) in [("a.b.test", 421), ("test", 421), ("*.test", 400), ("sentry.test", 302)] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(raw(edge.address(), "iqueue.test").send(request).status(), status, "{host}");
    }
}

#[test]
fn a_person_signs_in_at_a_host_that_a_wildcard_covers() {
    let iqueue = origin("iqueue");
    let edge = edge().domain("app.test").service_with("iqueue", &iqueue, "hosts: [\"*.app.test\"]").start();
    let mut browser = edge.client();
    edge.sign_in(&mut browser, "clinic", "ada");
    assert_eq!(browser.open(&edge.url("clinic", "/x")).status, 200);
    assert_eq!(browser.open(&edge.url("other", "/x")).status, 302, "each host has a cookie of its own");
}

/// The certificate that the edge shows for a name.
fn shown(edge: &Edge, name: &str) -> Vec<u8> {
    let stream = runtime().block_on(connect(edge.address(), name, &[b"h2"])).unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn the_server_name_chooses_the_certificate_an_exact_one_before_a_wildcard() {
    let iqueue = origin("iqueue");
    let edge = edge()
        .domain("app.test")
        .service("iqueue", &iqueue)
        .certificate(&["special.app.test"])
        .certificate(&["*.other.example"])
        .start();
    let file = |name: &str| CertificateDer::from_pem_file(edge.folder.path().join(name)).unwrap().to_vec();
    for (name, expected) in [
        ("iqueue.app.test", "edge.pem"),
        ("anything.app.test", "edge.pem"),
        ("special.app.test", "extra0.pem"),
        ("SPECIAL.App.Test", "extra0.pem"),
        ("a.other.example", "extra1.pem"),
    ] {
        assert!(shown(&edge, name) == file(expected), "{name} is shown another certificate than {expected}");
    }
}

/// Input 136.
#[test]
fn without_a_server_name_that_is_ours_there_is_no_handshake() {
    let scene = scene();
    for name in ["unknown.example", "a.b.test", "test.evil.example", "127.0.0.1"] {
        let tried = runtime().block_on(connect(scene.edge.address(), name, &[b"http/1.1"]));
        let error = tried.err().unwrap_or_else(|| panic!("{name} was shown a certificate")).to_string();
        // The edge refused; it is not our client that did not like the certificate.
        assert!(error.contains("received fatal alert: UnrecognisedName"), "{name}: {error}");
    }
    assert!(runtime().block_on(connect(scene.edge.address(), "iqueue.test", &[b"http/1.1"])).is_ok());
}

#[test]
fn http_2_and_http_1_1_are_negotiated_and_nothing_else() {
    let scene = scene();
    let negotiated = |offered: &[&[u8]]| {
        let stream = runtime().block_on(connect(scene.edge.address(), "iqueue.test", offered)).ok()?;
        Some(stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
    };
    assert_eq!(negotiated(&[b"h2", b"http/1.1"]), Some(Some(b"h2".to_vec())));
    assert_eq!(negotiated(&[b"http/1.1", b"h2"]), Some(Some(b"h2".to_vec())), "our order decides");
    assert_eq!(negotiated(&[b"http/1.1"]), Some(Some(b"http/1.1".to_vec())));
    assert_eq!(negotiated(&[]), Some(None));
    assert_eq!(negotiated(&[b"spdy/3"]), None, "RFC 7301: no_application_protocol");
}

/// A ClientHello as a stock client of that version sends it: `[major, minor]`, cipher suites, server name.
fn client_hello(version: [u8; 2], suites: &[u16], name: &str) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let extension = |kind: u16, content: &[u8]| [&kind.to_be_bytes()[..], &sized(content)].concat();
    let server_name = sized(&[&[0][..], &sized(name.as_bytes())].concat());
    let groups = sized(&[0, 29, 0, 23]);
    let signatures = sized(&[4, 3, 8, 4, 4, 1]);
    let extensions =
        [extension(0, &server_name), extension(10, &groups), extension(11, &[1, 0]), extension(13, &signatures)];
    let suites: Vec<u8> = suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
    let hello = [&version[..], &[7; 32], &[0], &sized(&suites), &[1, 0], &sized(&extensions.concat())].concat();
    let length = u32::try_from(hello.len()).unwrap().to_be_bytes();
    let handshake = [&[1], &length[1..], &hello].concat();
    [&[22, 3, 1][..], &sized(&handshake)].concat()
}

/// The first record that comes back: its type, and of an alert its description.
fn first_record(edge: &Edge, hello: &[u8]) -> (u8, u8) {
    let mut connection = raw_plain(edge.address());
    connection.send(hello);
    // Half a handshake ends by the edge's own deadline; an alert at once.
    let rest = connection.rest();
    assert!(rest.len() >= 7, "no record came back: {rest:?}");
    (rest[0], if rest[0] == 21 { rest[6] } else { 0 })
}

const TLS_1_1: [u8; 2] = [3, 2];
const TLS_1_2: [u8; 2] = [3, 3];
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;

/// Input 138, and 137.
#[test]
fn old_tls_weak_suites_and_absurd_names_get_an_alert() {
    let iqueue = origin("iqueue");
    let edge = edge().service("iqueue", &iqueue).server("timeouts: {tls_handshake: 2s}").start();
    let (modern, all) = ([0xc02b, 0xc02c, 0xcca9], [0xc02b, 0xc009, 0xc013, 0xc014, 0x002f, 0x0035, 0x000a]);
    let (protocol_version, handshake_failure) = (70, 40);
    assert_eq!(
        first_record(&edge, &client_hello(TLS_1_2, &modern, "iqueue.test")),
        (HANDSHAKE, 0),
        "TLS 1.2 is served"
    );
    assert_eq!(first_record(&edge, &client_hello(TLS_1_1, &all, "iqueue.test")), (ALERT, protocol_version));
    assert_eq!(first_record(&edge, &client_hello([3, 1], &all, "iqueue.test")), (ALERT, protocol_version));
    for (what, suites) in [
        ("RC4", &[0x0005, 0xc007, 0xc011][..]),
        ("export", &[0x0003, 0x0008, 0x0014]),
        ("CBC", &[0xc009, 0xc013, 0xc00a, 0xc014]),
        ("no forward secrecy", &[0x009c, 0x009d, 0x002f]),
        ("no encryption", &[0x0000, 0x0001, 0x0002]),
    ] {
        let record = first_record(&edge, &client_hello(TLS_1_2, suites, "iqueue.test"));
        assert_eq!(record, (ALERT, handshake_failure), "{what}");
    }
    let long = first_record(&edge, &client_hello(TLS_1_2, &modern, &"a".repeat(300)));
    assert_eq!(long.0, ALERT, "input 137");
}

#[test]
fn with_min_version_1_3_a_client_of_1_2_cannot_connect_and_one_of_1_3_can() {
    let iqueue = origin("iqueue");
    let edge = edge().service_with("iqueue", &iqueue, PUBLIC).tls("min_version: \"1.3\"").start();
    assert_eq!(first_record(&edge, &client_hello(TLS_1_2, &[0xc02b, 0xc02c], "iqueue.test")), (ALERT, 70));
    assert_eq!(edge.client().get(&edge.url("iqueue", "/")).status, 200);
    let handshakes = |labels: &str| edge.metric("sentry_edge_tls_handshakes_total", labels);
    eventually("both are counted", || {
        handshakes("result=\"failed\",resumed=\"false\",version=\"none\"") == 1.0
            && handshakes("result=\"ok\",resumed=\"false\",version=\"1.3\"") == 1.0
    });
}

#[test]
fn plain_http_is_only_ever_sent_to_the_same_place_over_tls() {
    let scene = scene();
    let edge = &scene.edge;
    let port = edge.address().port();
    for (method, host, target) in [
        ("GET", "iqueue.test", "/"),
        ("GET", "iqueue.test", "/a/b?c=d&e=%20+"),
        ("GET", "iqueue.test", "//evil.example/%2e%2e"),
        ("GET", "IQUEUE.test.", "/a"),
        ("GET", "iqueue.test:80", "/a"),
        ("GET", "iqueue.test:8080", "/a"),
        ("POST", "iqueue.test", "/a"),
        ("GET", "dextor.test", "/.sentry/logout"),
        ("GET", "sentry.test", "/login?redirectURL=x"),
    ] {
        let request = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n");
        let answer = raw_plain(edge.http_address()).send(request).answer().unwrap();
        assert_eq!(answer.status, 308, "{method} {host} {target}");
        let name = host.split(':').next().unwrap().trim_end_matches('.').to_lowercase();
        let expected = format!("https://{name}:{port}{target}");
        assert_eq!(answer.header("location"), Some(expected.as_str()), "{method} {host} {target}");
        assert_eq!(answer.header("set-cookie"), None);
    }
    assert_eq!((scene.iqueue.count(), scene.dextor.count()), (0, 0));
}

#[test]
fn the_http_listener_redirects_nobody_to_a_host_that_is_not_ours() {
    let scene = scene();
    for (host, status) in [("evil.example", 421), ("a.iqueue.test", 421), ("127.0.0.1", 400), ("user@iqueue.test", 400)]
    {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let answer = raw_plain(scene.edge.http_address()).send(request).answer().unwrap();
        assert_eq!((answer.status, answer.header("location")), (status, None), "{host}");
    }
    let mut browser = client(scene.edge.http_address());
    let hops = browser.open("http://iqueue.test/login");
    assert_eq!(hops.location(), Some(scene.edge.url("iqueue", "/login")));
}

#[test]
fn http_without_tls_is_not_answered_on_the_tls_port() {
    let scene = scene();
    let mut plain = raw_plain(scene.edge.address());
    plain.send("GET / HTTP/1.1\r\nHost: iqueue.test\r\n\r\n");
    assert!(!plain.rest().starts_with(b"HTTP/"));
    assert_eq!(scene.iqueue.count(), 0);
}
