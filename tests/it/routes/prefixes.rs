//! Prefixes that are cut off or added, on every way to an application, and the `Location` of what it answers.

use http_body_util::Full;
use hyper::body::Bytes;

use super::{WAYS, Way, get};
use crate::harness::{Edge, Origin, edge, origin, raw};

const PREFIXES: &str = "access: public, routes: [\
    {path: /strip/, strip_prefix: true}, \
    {path: /both/, strip_prefix: true, add_prefix: /v2}, \
    {path: /add/, add_prefix: /v2/}, \
    {path: /café, strip_prefix: true}, \
    {exact: /one, strip_prefix: true}, \
    {path: /user, access: required}]";

fn scene() -> (Edge, Origin) {
    super::scene(PREFIXES)
}

#[test]
fn a_prefix_is_cut_off_or_added_byte_for_byte() {
    let (edge, iqueue) = scene();
    // A public route is for paths in canonical form alone.
    let cookie = super::cookie_of(&edge, "bob", "/user");
    for way in WAYS {
        for (sent, received, prefix) in [
            ("/strip", "/", Some("/strip")),
            ("/strip/", "/", Some("/strip")),
            ("/strip?a=b", "/?a=b", Some("/strip")),
            ("/strip/a/b?c=/d//e", "/a/b?c=/d//e", Some("/strip")),
            ("/strip/a%2Fb/%C3%A9;v=1", "/a%2Fb/%C3%A9;v=1", Some("/strip")),
            ("/strip/a//b", "/a//b", Some("/strip")),
            ("/strip/strip", "/strip", Some("/strip")),
            ("/both", "/v2/", Some("/both")),
            ("/both/a?b", "/v2/a?b", Some("/both")),
            ("/add/a?b", "/v2/add/a?b", None),
            ("/caf%C3%A9/a", "/a", Some("/caf%C3%A9")),
            ("/one?a", "/?a", Some("/one")),
            ("/stripped/a", "/stripped/a", None),
            ("/a/strip/b", "/a/strip/b", None),
        ] {
            // What a client says of a prefix is not taken.
            let got =
                get(sent).with(&[("x-forwarded-prefix", "/mine"), ("cookie", cookie.as_str())]).by(way).send(&edge);
            assert_eq!(got.status, 200, "{way:?} {sent}");
            let seen = iqueue.last();
            assert_eq!(
                (seen.target.as_str(), seen.one("x-forwarded-prefix").as_deref()),
                (received, prefix),
                "{way:?} {sent}"
            );
            assert_eq!(seen.one("host").as_deref(), Some("iqueue.test"), "{way:?} {sent}");
        }
    }
}

#[test]
fn a_body_goes_with_the_rest_of_the_path() {
    let (edge, iqueue) = scene();
    for way in WAYS {
        let got = get("/both/upload?a").method("POST").body("a body").by(way).send(&edge);
        assert_eq!(got.status, 200, "{way:?}");
        let seen = iqueue.last();
        assert_eq!((seen.target.as_str(), seen.body.as_slice()), ("/v2/upload?a", &b"a body"[..]), "{way:?}");
    }
}

#[test]
fn a_path_that_cannot_be_divided_at_the_prefix_is_refused() {
    let (edge, iqueue) = scene();
    for way in WAYS {
        for sent in [
            "/STRIP/a",
            "/%73trip/a",
            "//strip/a",
            "/strip;x/a",
            "/strip%2fa",
            "/caf%c3%a9/a",
            "/strip//host/a",
            "/strip/%2fhost",
            "/strip/%5chost",
            "/strip/%252fhost",
            "/strip/;/host",
            "/strip/../a",
            "/strip/a/../../b",
            "/strip/%2e%2e/a",
            "/x/../strip/a",
        ] {
            assert_eq!(get(sent).by(way).send(&edge).status, 400, "{way:?} {sent}");
        }
    }
    assert_eq!(iqueue.count(), 0);
}

/// An application that speaks HTTP/2 in the clear, and answers with the path of the request.
fn http2_application() -> std::net::SocketAddr {
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let runtime = crate::harness::runtime();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let answer = service_fn(|request: hyper::Request<hyper::body::Incoming>| async move {
                let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
                let prefix =
                    request.headers().get("x-forwarded-prefix").map(|value| value.to_str().unwrap().to_owned());
                let text = format!("{path} {} {}", request.uri().authority().unwrap(), prefix.unwrap_or_default());
                let response = hyper::Response::builder().header("location", "/next");
                Ok::<_, std::convert::Infallible>(response.body(Full::new(Bytes::from(text))).unwrap())
            });
            tokio::spawn(async move {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                server.serve_connection(TokioIo::new(socket), answer).await.ok();
            });
        }
    });
    address
}

#[test]
fn an_http2_application_receives_the_rest_of_the_path_too() {
    let pool = format!("{{servers: [\"{}\"], protocol: h2c}}", http2_application());
    let edge = edge().service_with("iqueue", &origin("spare"), PREFIXES).pool("iqueue", &pool).start();
    for way in WAYS {
        for (sent, received, location) in [
            ("/strip/a?b", "/a?b iqueue.test /strip", "/strip/next"),
            ("/strip", "/ iqueue.test /strip", "/strip/next"),
            ("/both/a", "/v2/a iqueue.test /both", "/both/next"),
            ("/plain", "/plain iqueue.test ", "/next"),
        ] {
            let got = get(sent).by(way).send(&edge);
            assert_eq!(
                (got.status, got.body.as_str(), got.location()),
                (200, received, Some(location)),
                "{way:?} {sent}"
            );
        }
    }
}

#[test]
fn a_websocket_opens_below_a_prefix() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let pool = format!("{{servers: [\"{}\"]}}", listener.local_addr().unwrap());
    let application = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let (mut head, mut chunk) = (String::new(), [0; 4096]);
        while !head.contains("\r\n\r\n") {
            let read = socket.read(&mut chunk).unwrap();
            head.push_str(&String::from_utf8_lossy(&chunk[..read]));
        }
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello";
        socket.write_all(answer.as_bytes()).unwrap();
        // The client closes.
        let _ = socket.read(&mut chunk);
        head.lines().next().unwrap().to_owned()
    });
    let edge = edge().service_with("iqueue", &origin("spare"), PREFIXES).pool("iqueue", &pool).start();
    let mut connection = raw(edge.address(), "iqueue.test");
    connection.send(
        "GET /both/socket?a HTTP/1.1\r\nHost: iqueue.test\r\nUser-Agent: test/1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    connection.hear("101");
    connection.hear("hello");
    drop(connection);
    assert_eq!(application.join().unwrap(), "GET /v2/socket?a HTTP/1.1");
}

/// An application that answers with the `Location` in its query; `SELF` is its own address.
fn redirecting(name: &str) -> Origin {
    let own = std::sync::Arc::new(std::sync::OnceLock::new());
    let of_answer = std::sync::Arc::clone(&own);
    let origin = Origin::answering(move |seen| {
        let location = seen.target.split_once("?to=").map_or("", |(_, to)| to);
        let own: &std::net::SocketAddr = of_answer.get().unwrap();
        let location = location.replace("SELF", &own.to_string());
        hyper::Response::builder().status(302).header("location", location).body(Full::default()).unwrap()
    });
    own.set(origin.address).unwrap_or_else(|_| panic!("{name} has one address"));
    origin
}

#[test]
fn locations_that_no_client_could_follow_are_repaired() {
    let iqueue = redirecting("iqueue");
    let service = "access: public, routes: [{path: /strip/, strip_prefix: true}, {path: /both/, strip_prefix: true, \
                   add_prefix: /v2}, {path: /off/, strip_prefix: true, location_repair: false}]";
    let edge = edge().service_with("iqueue", &iqueue, service).start();
    let port = edge.address().port();
    let own = format!("iqueue.test:{port}");
    let elsewhere = format!("http://{}/", crate::harness::free_address());
    for way in WAYS {
        for (path, to, expected) in [
            ("/a", "http://iqueue.test/new", "https://AUTHORITY/new"),
            ("/a", "http://IQUEUE.test:34871/new?a#b", "https://AUTHORITY/new?a#b"),
            ("/a", "http://SELF/new", "https://AUTHORITY/new"),
            ("/a", "https://SELF/new", "https://AUTHORITY/new"),
            ("/a", "http://SELF", "https://AUTHORITY"),
            ("/a", "/new", "/new"),
            ("/a", "new", "new"),
            ("/a", "?new", "?new"),
            ("/a", "https://other.test/new", "https://other.test/new"),
            ("/a", "http://other.test/new", "http://other.test/new"),
            ("/a", "http://iqueue.test.other.test/", "http://iqueue.test.other.test/"),
            ("/a", elsewhere.as_str(), elsewhere.as_str()),
            ("/strip/a", "/new", "/strip/new"),
            ("/strip/a", "/strip/new", "/strip/new"),
            ("/strip/a", "new", "new"),
            ("/strip", "new", "/strip/new"),
            ("/strip/a", "http://SELF/new", "https://AUTHORITY/strip/new"),
            ("/strip/a", "http://iqueue.test/new", "https://AUTHORITY/strip/new"),
            ("/strip/a", "https://AUTHORITY/new", "https://AUTHORITY/strip/new"),
            ("/strip/a", "https://other.test/new", "https://other.test/new"),
            ("/both/a", "/v2/new", "/both/new"),
            ("/both/a", "http://SELF/v2/new", "https://AUTHORITY/both/new"),
            ("/off/a", "/new", "/new"),
            ("/off/a", "http://iqueue.test/new", "http://iqueue.test/new"),
        ] {
            let to = to.replace("AUTHORITY", &own);
            let got = get(&format!("{path}?to={}", to.replace('#', "%23"))).host(&own).by(way).send(&edge);
            // The fragment came escaped, as no request has one.
            let location = got.location().map(|location| location.replace("%23", "#"));
            let expected = expected.replace("AUTHORITY", &own);
            assert_eq!(location.as_deref(), Some(expected.as_str()), "{way:?} {path} {to}");
        }
        // As the client wrote it.
        for host in ["iQueue.test", "iqueue.test.", "iqueue.test:443"] {
            let got = get("/a?to=http://iqueue.test/new").host(host).by(way).send(&edge);
            let name =
                if way == Way::Http2 { got.location().unwrap().to_owned() } else { format!("https://{host}/new") };
            assert_eq!(got.location(), Some(name.as_str()), "{way:?}");
            assert!(name.starts_with("https://i") && name.ends_with("/new"), "{name}");
        }
    }
}

#[test]
fn no_path_of_an_application_leads_to_another_host_once_its_prefix_is_cut_off() {
    let paths = ["/v2//evil.test/", "/v2/\\evil.test/", "/v2/\t/evil.test/", "/v2/\t\\\tevil.test/"];
    let iqueue = Origin::answering(move |seen| {
        let at: usize = seen.target.rsplit('/').next().unwrap().parse().unwrap();
        hyper::Response::builder().status(302).header("location", paths[at]).body(Full::default()).unwrap()
    });
    let service =
        "access: public, routes: [{path: /add, add_prefix: /v2}, {path: /both, strip_prefix: true, add_prefix: /v2}]";
    let edge = edge().service_with("iqueue", &iqueue, service).start();
    for way in WAYS {
        for route in ["/add", "/both"] {
            for (at, path) in paths.iter().enumerate() {
                let asked = format!("{route}/{at}");
                let got = get(&asked).by(way).send(&edge);
                let base = url::Url::parse(&format!("https://iqueue.test{asked}")).unwrap();
                let led = base.join(got.location().unwrap()).unwrap();
                let expected = if route == "/add" { "//evil.test/" } else { "/both//evil.test/" };
                assert_eq!((led.host_str(), led.path()), (Some("iqueue.test"), expected), "{way:?} {route} {path:?}");
            }
        }
    }
}

/// The server is named by the configuration, and so is it by itself.
#[test]
fn a_server_that_writes_its_own_name_is_followed() {
    let iqueue = redirecting("iqueue");
    let (address, port) = (iqueue.address, iqueue.address.port());
    let pool = format!("{{servers: [\"app.internal:{port}\"]}}");
    let edge = edge()
        .service_with("iqueue", &origin("spare"), "access: public")
        .pool("iqueue", &pool)
        .lookup(move |_| Ok(vec![address]))
        .start();
    for way in WAYS {
        for to in [format!("http://app.internal:{port}/new"), format!("http://127.0.0.1:{port}/new")] {
            let got = get(&format!("/a?to={to}")).by(way).send(&edge);
            assert_eq!(got.location(), Some("https://iqueue.test/new"), "{way:?} {to}");
        }
        let other = "http://app.internal:1/new";
        assert_eq!(get(&format!("/a?to={other}")).by(way).send(&edge).location(), Some(other), "{way:?}");
    }
}
