//! A listener whose clients connect to another port than the one that it is bound to, as behind a port that a container
//! publishes.

use url::Url;

use crate::harness::edge::{Builder, PASSWORD};
use crate::harness::raw::raw_plain;
use crate::harness::{Edge, Origin, Response, edge, origin, raw};

const ADA: &str = "ada";

fn before(iqueue: &Origin, listeners: &str) -> Builder {
    edge().service("iqueue", iqueue).service("dextor", iqueue).listeners(listeners)
}

/// Everything that an answer leads to, decoded as often as it is encoded in itself.
fn led_to(answer: &Response) -> String {
    let mut text = format!("{:?} {}", answer.location(), answer.body);
    for _ in 0..3 {
        text = text.replace("%3A", ":").replace("%2F", "/").replace("%253A", ":").replace("%25", "%");
    }
    text
}

/// From the first page to the page that was asked for, by `port`; no answer on the way may say `bound`.
fn walk(edge: &Edge, port: &str, bound: u16) {
    let mut browser = edge.client();
    for (service, form) in [("iqueue", true), ("dextor", false)] {
        let page = format!("https://{service}.test{port}/a?b=c");
        let hops = if form { browser.sign_in(&page, ADA, PASSWORD) } else { browser.follow(&page) };
        for hop in &hops {
            let told = led_to(hop);
            assert!(!told.contains(&format!(":{bound}")), "{}: {told}", hop.url);
            if let Some(location) = hop.location() {
                let url = Url::parse(&location).unwrap();
                let said = url.port().map(|port| format!(":{port}")).unwrap_or_default();
                assert_eq!(said, port, "{} leads to {location}", hop.url);
            }
        }
        let last = hops.last().unwrap();
        assert_eq!((last.status, last.url.as_str()), (200, page.as_str()));
    }
    let landing = browser.open(&format!("https://sentry.test{port}/"));
    assert!(landing.body.contains(&format!("https://dextor.test{port}/")), "{}", landing.body);
    let refused = edge.client().get(&format!("https://iqueue.test{port}/x"));
    let login_url = refused.json()["login_url"].as_str().unwrap().to_owned();
    assert!(login_url.starts_with(&format!("https://sentry.test{port}/noCookie?")), "{login_url}");
}

#[test]
fn a_sign_on_says_the_public_port_from_the_first_redirect_to_the_page() {
    let iqueue = origin("iqueue");
    for (public, port) in [(443, ""), (9443, ":9443")] {
        let edge = before(&iqueue, &format!("public_port: {public}")).start();
        walk(&edge, port, edge.address().port());
        assert_eq!(iqueue.last().one("x-forwarded-port"), Some(public.to_string()));
        assert_eq!(iqueue.last().one("x-forwarded-host"), Some(format!("dextor.test{port}")));
    }
}

/// As from a proxy in front that connects to the listener's own port and says so, or that leaves the port out.
#[test]
fn links_say_the_public_port_whatever_the_host_field_says() {
    let iqueue = origin("iqueue");
    for (public, said) in [(443, ""), (9443, ":9443")] {
        let edge = before(&iqueue, &format!("public_port: {public}")).start();
        let bound = edge.address().port();
        for host in ["iqueue.test".to_owned(), format!("iqueue.test:{bound}"), format!("iqueue.test:{public}")] {
            let request = format!("GET /a HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\n\r\n");
            let answer = raw(edge.address(), "iqueue.test").send(request).answer().unwrap();
            let location = answer.header("location").unwrap().replace("%3A", ":").replace("%2F", "/");
            let expected = format!("https://sentry.test{said}/noCookie?redirectURL=https://iqueue.test{said}/a&");
            assert!(location.starts_with(&expected), "{host}: {location}");
        }
        // A port that is nobody's is refused as ever.
        let request = "GET /a HTTP/1.1\r\nHost: iqueue.test:9444\r\n\r\n";
        assert_eq!(raw(edge.address(), "iqueue.test").send(request).status(), 400);
    }
}

#[test]
fn plain_http_is_redirected_to_the_public_port() {
    let iqueue = origin("iqueue");
    for (public, said) in [(443, ""), (9443, ":9443")] {
        let edge = before(&iqueue, &format!("public_port: {public}")).start();
        for host in ["iqueue.test", "iqueue.test:8080", "sentry.test"] {
            let request = format!("GET /a?b HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let answer = raw_plain(edge.http_address()).send(request).answer().unwrap();
            let expected = format!("https://{}{said}/a?b", host.split(':').next().unwrap());
            assert_eq!((answer.status, answer.header("location")), (308, Some(expected.as_str())), "{host}");
        }
    }
}

#[test]
fn a_return_url_may_name_any_public_port_and_no_other() {
    let iqueue = origin("iqueue");
    let edge = before(&iqueue, "public_port: 9443").start();
    let bound = edge.address().port();
    for (port, status) in
        [(":9443".to_owned(), 200), (format!(":{bound}"), 200), (String::new(), 200), (":9444".into(), 400)]
    {
        let url = format!("https://iqueue.test{port}/x");
        let target: String = url::form_urlencoded::byte_serialize(url.as_bytes()).collect();
        let form = edge.client().open(&format!("https://sentry.test:9443/login?redirectURL={target}"));
        assert_eq!(form.status, status, "{port}");
    }
}

#[test]
fn a_page_on_the_public_port_may_open_a_websocket() {
    let iqueue = origin("iqueue");
    let edge = edge().service_with("iqueue", &iqueue, "access: public").listeners("public_port: 9443").start();
    let bound = edge.address().port();
    for (host, origin, status) in [
        ("iqueue.test:9443".to_owned(), "https://iqueue.test:9443", 200),
        ("iqueue.test".to_owned(), "https://iqueue.test:9443", 200),
        (format!("iqueue.test:{bound}"), "https://iqueue.test:9443", 200),
        ("iqueue.test:9443".to_owned(), "https://iqueue.test", 400),
        ("iqueue.test:9443".to_owned(), "https://iqueue.test:9444", 400),
    ] {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nOrigin: {origin}\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        assert_eq!(raw(edge.address(), "iqueue.test").send(request).status(), status, "{host} {origin}");
    }
}

#[test]
fn each_listener_says_its_own_public_port() {
    let iqueue = origin("iqueue");
    let two = ", {address: \"127.0.0.1:0\", protocol: https, public_port: 9444}], admin:";
    let (folder, file) = before(&iqueue, "public_port: 9443").write();
    let yaml = std::fs::read_to_string(&file).unwrap().replacen("], admin:", two, 1);
    std::fs::write(&file, yaml).unwrap();
    let edge = sentry_edge::server::Edge::start(&file, sentry_edge::clock::Clock::default()).unwrap();
    for (at, said) in [(0, 9443), (1, 9444)] {
        // The client has the other one's in its Host, which is known as well.
        for host in ["iqueue.test", "iqueue.test:9443", "iqueue.test:9444"] {
            let request = format!("GET /a HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\n\r\n");
            let answer = raw(edge.https_addresses()[at], "iqueue.test").send(request).answer().unwrap();
            let location = answer.header("location").unwrap();
            assert!(location.starts_with(&format!("https://sentry.test:{said}/noCookie")), "{at} {host}: {location}");
        }
    }
    let answer =
        raw_plain(edge.http_addresses()[0]).send("GET / HTTP/1.1\r\nHost: iqueue.test\r\n\r\n").answer().unwrap();
    assert_eq!(answer.header("location"), Some("https://iqueue.test:9443/"));
    drop(folder);
}
