//! The fast path and the full one for clients that speak HTTP/2.

use sentry_edge::server::FastPathMode;

use crate::express::{PATHS, SAID, breaking_off, builder_before, edge_before, fields, saying};
use crate::harness::client::{Client, Response, client};
use crate::harness::frames::{END_STREAM, RST_STREAM, Wire, frame};
use crate::harness::{Origin, edge, eventually, origin};

fn ask(client: &mut Client, method: &'static str, path: &str, sent: &[(&str, &str)]) -> Response {
    let mut asking = client.ask(method, &format!("https://iqueue.test{path}"));
    for (name, value) in sent {
        asking = asking.field(name, value);
    }
    asking.send()
}

#[test]
fn an_application_receives_the_same_either_way() {
    let iqueue = origin("iqueue");
    let edge = edge().service_with("iqueue", &iqueue, "access: public");
    let sent = [
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x_odd", "1"),
        ("x-sentry-user", "eve"),
        ("accept", "*/*"),
        ("x-two", "1"),
        ("x-two", "2"),
        ("authorization", "Basic eDp5"),
        ("x-empty", ""),
        // As Firefox says.
        ("te", "trailers"),
    ];
    let heard = PATHS.map(|path| {
        let edge = edge.clone().fast_path(path).start();
        let answer = ask(&mut client(edge.address()).http2(), "GET", "/a/b?c=%64&e", &sent);
        assert_eq!((answer.status, answer.body.as_str()), (200, "hello from iqueue"));
        let seen = iqueue.last();
        (seen.method.clone(), seen.target.clone(), fields(&seen))
    });
    assert_eq!(heard[0], heard[1]);
    let said = |name: &str, value: &str| heard[0].2.contains(&(name.into(), value.into()));
    assert!(said("host", "iqueue.test") && said("cookie", "a=1; b=2") && said("x-forwarded-for", "127.0.0.1"));
}

#[test]
fn a_client_hears_the_same_either_way_whatever_the_application_says() {
    for said in SAID {
        let text = said.escape_ascii().to_string();
        let application = saying(said);
        let builder = builder_before(application.address);
        let heard = PATHS.map(|path| {
            let edge = builder.clone().fast_path(path).start();
            let answer = ask(&mut client(edge.address()).http2(), "GET", "/", &[]);
            assert!(answer.header("date").is_some(), "{text}: {path:?}");
            let differs = ["date", "x-request-id"];
            let fields = answer.headers.iter().filter(|(name, _)| !differs.contains(&name.as_str()));
            let mut fields: Vec<_> = fields.map(|(name, value)| format!("{name}: {value:?}")).collect();
            fields.sort();
            let body = if answer.status == 502 { String::new() } else { answer.body };
            (answer.status, fields, body)
        });
        assert_eq!(heard[0], heard[1], "{text}");
    }
}

#[test]
fn what_has_no_body_ends_with_its_head() {
    let application = saying(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    let edge = edge_before(application.address);
    let answer = ask(&mut client(edge.address()).http2(), "HEAD", "/", &[]);
    assert_eq!((answer.status, answer.header("content-length"), answer.body.as_str()), (200, Some("5"), ""));
    let line = edge.access_log(1).remove(0);
    assert_eq!((&line["protocol"], &line["bytes"]), (&"HTTP/2".into(), &0.into()));
}

#[test]
fn a_refusal_has_its_body_and_none_for_head() {
    let iqueue = origin("iqueue");
    let edge = edge().service("iqueue", &iqueue).start();
    let mut client = client(edge.address()).http2();
    let refused = ask(&mut client, "GET", "/", &[("accept", "application/json")]);
    assert_eq!(refused.status, 401);
    assert!(refused.body.contains("error"), "{}", refused.body);
    let line = edge.access_log(1).remove(0);
    assert_eq!((&line["status"], &line["bytes"]), (&401.into(), &refused.body.len().into()));
    let refused = ask(&mut client, "HEAD", "/", &[("accept", "application/json")]);
    assert_eq!((refused.status, refused.body.as_str()), (401, ""));
}

#[test]
fn an_answer_that_breaks_off_is_reset_and_its_connection_goes_on() {
    let edge = edge_before(breaking_off());
    let mut wire = Wire::open(edge.address(), "iqueue.test", &[]);
    for stream in [1, 3] {
        wire.ask(stream, END_STREAM, "GET", &[]);
        eventually("it is reset", || wire.heard().was_reset(stream));
        assert!(wire.heard().is_answered(stream), "its head had come");
    }
    assert!(!wire.is_closed());
    let line = edge.access_log(1).remove(0);
    assert_eq!((&line["status"], &line["bytes"], &line["error"]), (&200.into(), &5.into(), &"upstream_failed".into()));
}

#[test]
fn a_client_that_resets_its_stream_while_the_application_thinks_is_noticed() {
    let held = Origin::held();
    let edge = edge().service_with("iqueue", &held, "access: public").start();
    let mut wire = Wire::open(edge.address(), "iqueue.test", &[]);
    wire.ask(1, END_STREAM, "GET", &[]);
    eventually("the application has it", || held.count() == 1);
    wire.send(frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes()));
    let line = edge.access_log(1).remove(0);
    assert_eq!((&line["status"], &line["error"]), (&499.into(), &"client_gone".into()));
}

#[test]
fn a_client_that_takes_nothing_of_an_answer_is_cut_off_and_others_of_its_connection_go_on() {
    let large =
        saying(Box::leak([&b"HTTP/1.1 200 OK\r\nContent-Length: 65535\r\n\r\n"[..], &[b'x'; 65535]].concat().into()));
    let spare = origin("spare");
    let pool = format!("{{servers: [\"{}\"]}}", large.address);
    let edge = edge()
        .service_with("iqueue", &spare, "access: public")
        .pool("iqueue", &pool)
        .server("timeouts: {write: 300ms}")
        .start();
    // No byte of a body may be sent.
    let mut wire = Wire::open(edge.address(), "iqueue.test", &[(4, 0)]);
    for stream in [1, 3] {
        wire.ask(stream, END_STREAM, "GET", &[]);
        eventually("it is reset", || wire.heard().was_reset(stream));
    }
    assert!(!wire.is_closed());
    let line = edge.access_log(1).remove(0);
    assert_eq!((&line["status"], &line["error"]), (&200.into(), &"client_gone".into()));
}

#[test]
fn a_get_that_says_its_body_is_empty_takes_the_fast_path_and_says_nothing_of_it_to_the_application() {
    let iqueue = origin("iqueue");
    let edge = edge().service_with("iqueue", &iqueue, "access: public").fast_path(FastPathMode::On).start();
    for method in ["GET", "HEAD"] {
        let answer = ask(&mut client(edge.address()).http2(), method, "/a", &[("content-length", "0")]);
        assert_eq!(answer.status, 200);
        let seen = iqueue.last();
        assert_eq!((seen.method.as_str(), seen.one("content-length"), seen.body.len()), (method, None, 0));
    }
}
