//! Backup servers, limits of what one server has at a time, servers at Unix sockets, and requests that are sent again.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::unix_socket::unix_socket_before;
use crate::harness::{Edge, Origin, edge, eventually, free_address, origin, raw, streaming};

/// One service for anybody with this pool.
fn edge_with(pool: &str) -> Edge {
    let spare = origin("spare");
    edge().service_with("iqueue", &spare, "access: public").pool("iqueue", pool).start()
}

fn statuses(edge: &Edge, method: &'static str, requests: usize) -> Vec<u16> {
    let mut client = edge.client();
    (0..requests).map(|_| client.ask(method, &edge.url("iqueue", "/")).send().status).collect()
}

fn retries(edge: &Edge, result: &str) -> f64 {
    edge.metric("sentry_edge_upstream_retries_total", &format!("pool=\"iqueue\",result=\"{result}\""))
}

#[test]
fn a_backup_server_gets_requests_only_while_no_other_may_take_them() {
    let (one, two, backup) = (origin("one"), origin("two"), origin("backup"));
    let address = |origin: &Origin| origin.address;
    let edge = edge_with(&format!(
        "{{servers: [{{address: \"{}\", backup: true}}, \"{}\", \"{}\"], eject: {{for: 60s, at_most: 60s}}}}",
        address(&backup),
        address(&one),
        address(&two)
    ));
    assert_eq!(statuses(&edge, "GET", 10), [200; 10]);
    assert_eq!([one.count(), two.count(), backup.count()], [5, 5, 0]);
    // All of the others may be ejected, as this one is well.
    let dead = [free_address(), free_address()];
    let edge = edge_with(&format!(
        "{{servers: [\"{}\", \"{}\", {{address: \"{}\", backup: true}}], eject: {{for: 60s, at_most: 60s}}}}",
        dead[0],
        dead[1],
        address(&backup)
    ));
    for method in ["GET", "POST"] {
        assert_eq!(statuses(&edge, method, 10), [200; 10], "{method}");
    }
    let failed = |server: SocketAddr| {
        let labels = format!("pool=\"iqueue\",result=\"failed\",server=\"{server}\"");
        edge.metric("sentry_edge_upstream_requests_total", &labels)
    };
    assert_eq!((backup.count(), dead.map(failed)), (20, [2.0, 2.0]));
}

#[test]
fn a_server_has_no_more_requests_at_a_time_than_it_may_and_the_next_one_gets_them() {
    for (pool, server) in [(", in_flight: 2", ""), ("", ", connections: 2"), (", in_flight: 2", ", connections: 5")] {
        let (held, other) = (Origin::held(), origin("other"));
        let limited = |more: &str| {
            let limit = format!("{{address: \"{}\"{server}}}", held.address);
            edge_with(&format!("{{servers: [{limit}{more}]{pool}}}"))
        };
        let edge = limited("");
        let send = |edge: &Edge, method: &str| {
            let mut client = raw(edge.address(), "iqueue.test");
            client.send(format!("{method} / HTTP/1.1\r\nHost: iqueue.test\r\nContent-Length: 0\r\n\r\n"));
            client
        };
        let under_way = |edge: &Edge| {
            edge.metric("sentry_edge_upstream_in_flight", &format!("pool=\"iqueue\",server=\"{}\"", held.address))
        };
        // One on each path, as one of them has a body.
        let mut waiting = vec![send(&edge, "GET"), send(&edge, "POST")];
        eventually("two are under way", || under_way(&edge) == 2.0);
        for method in ["GET", "POST", "HEAD"] {
            let refused = edge.client().ask(method, &edge.url("iqueue", "/")).send();
            assert_eq!((refused.status, refused.header("retry-after")), (503, Some("10")), "{pool}{server}: {method}");
        }
        assert_eq!(edge.access_log(3)[0]["error"].as_str(), Some("no_server"));
        // A backup server takes what is too much for the others.
        let spill = limited(&format!(", {{address: \"{}\", backup: true}}", other.address));
        waiting.extend([send(&spill, "GET"), send(&spill, "GET")]);
        eventually("two are under way", || under_way(&spill) == 2.0);
        assert_eq!(statuses(&spill, "GET", 3), [200; 3]);
        assert_eq!(statuses(&spill, "POST", 3), [200; 3]);
        assert_eq!(other.count(), 6, "{pool}{server}");
        held.release();
        assert!(waiting.iter_mut().all(|client| client.status() == 200));
        eventually("there is room again", || edge.client().get(&edge.url("iqueue", "/")).status == 200);
        assert_eq!(other.count(), 6);
    }
}

#[test]
fn a_server_at_a_unix_socket_is_like_any_other() {
    let (application, streaming) = (origin("application"), streaming());
    let (socket, stream) = (unix_socket_before(application.address), unix_socket_before(streaming.address));
    let edge = edge_with(&format!("{{servers: [\"{}\"]}}", socket.server));
    let mut client = edge.client();
    for method in ["GET", "POST", "GET", "HEAD", "PUT"] {
        let body = if method == "POST" || method == "PUT" { "a body" } else { "" };
        let response = client.ask(method, &edge.url("iqueue", "/x")).body(body).send();
        assert_eq!(response.status, 200, "{method}: {}", response.body);
        assert_eq!((application.last().method.as_str(), application.last().body), (method, body.as_bytes().to_vec()));
    }
    let labels = format!("pool=\"iqueue\",result=\"answered\",server=\"{}\"", socket.server);
    eventually("they are counted", || edge.metric("sentry_edge_upstream_requests_total", &labels) == 5.0);

    let edge = edge_with(&format!("{{servers: [\"{}\"]}}", stream.server));
    let mut connection = raw(edge.address(), "iqueue.test");
    connection.send(
        "GET /ws HTTP/1.1\r\nHost: iqueue.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert!(connection.first_line().contains("101"));
    connection.hear("\r\n\r\n");
    connection.send(b"\x81\x85\0\0\0\0hello");
    connection.hear("hello");

    // Nobody listens there, and then somebody does.
    drop(stream);
    let gone = edge_with(&format!("{{servers: [\"unix:///nowhere/app.sock\", \"{}\"]}}", socket.server));
    assert_eq!(statuses(&gone, "GET", 6), [200; 6]);
    assert_eq!(statuses(&gone, "POST", 6), [200; 6]);
    assert_eq!(gone.metric("sentry_edge_upstream_up", "pool=\"iqueue\",server=\"unix:///nowhere/app.sock\""), 0.0);
}

/// An application that answers the first request of each connection, and takes the second one and closes.
fn closing_with_the_second() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (mut socket, count) = (socket.unwrap(), Arc::clone(&count));
            std::thread::spawn(move || {
                let mut chunk = [0; 4096];
                if matches!(socket.read(&mut chunk), Ok(1..)) {
                    let body = if chunk.starts_with(b"HEAD") { "" } else { "hello" };
                    write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{body}").unwrap();
                }
                if matches!(socket.read(&mut chunk), Ok(1..)) {
                    count.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    (address, taken)
}

#[test]
fn after_a_kept_connection_closed_a_get_or_head_is_sent_again_and_nothing_else() {
    for (policy, is_repeated) in [("", true), (", retry: {on: [connect]}", false), (", retries: 0", false)] {
        for (method, is_safe) in
            [("GET", true), ("HEAD", true), ("DELETE", false), ("OPTIONS", false), ("PUT", false), ("POST", false)]
        {
            let (address, taken) = closing_with_the_second();
            let edge = edge_with(&format!("{{servers: [\"{address}\"]{policy}}}"));
            let mut client = edge.client();
            let what = format!("{method}{policy}");
            // The request path of a method keeps connections of its own.
            assert_eq!(client.ask(method, &edge.url("iqueue", "/")).send().status, 200, "{what}");
            let status = client.ask(method, &edge.url("iqueue", "/")).send().status;
            let is_sent_again = is_safe && is_repeated;
            assert_eq!(status, if is_sent_again { 200 } else { 502 }, "{what}");
            assert_eq!(taken.load(Ordering::SeqCst), 1, "{what}: it was taken");
            assert_eq!(retries(&edge, "answered"), f64::from(u8::from(is_sent_again)), "{what}");
            let up = format!("pool=\"iqueue\",server=\"{address}\"");
            assert_eq!(edge.metric("sentry_edge_upstream_up", &up), 1.0, "{what}");
        }
    }
}

#[test]
fn after_no_response_in_time_a_get_is_sent_again_where_that_is_written() {
    for (on, method, expected) in [
        ("[connect, closed, timeout]", "GET", 200),
        ("[timeout]", "HEAD", 200),
        ("[timeout]", "POST", 504),
        ("[connect, closed]", "GET", 504),
    ] {
        let (held, alive) = (Origin::held(), origin("alive"));
        let edge = edge_with(&format!(
            "{{servers: [\"{}\", \"{}\"], timeouts: {{read: 300ms}}, retry: {{on: {on}}}}}",
            held.address, alive.address
        ));
        let response = edge.client().ask(method, &edge.url("iqueue", "/")).send();
        assert_eq!(response.status, expected, "{on} {method}");
        assert_eq!((held.count(), alive.count()), (1, usize::from(expected == 200)), "{on} {method}");
    }
}

#[test]
fn a_budget_bounds_what_is_sent_again() {
    // A response is counted once it is out, so that the last one of the requests so far may be missing.
    for (percent, sent_again) in [(0, 10.0..=10.0), (20, 29.0..=30.0)] {
        let (dead, alive) = (free_address(), origin("alive"));
        let edge = edge_with(&format!(
            "{{servers: [\"{dead}\", \"{}\"], eject: false, retry: {{budget_percent: {percent}}}}}",
            alive.address
        ));
        let seen = statuses(&edge, "GET", 100);
        let (answered, refused) = (retries(&edge, "answered"), retries(&edge, "over_budget"));
        assert_eq!(answered + refused, 50.0, "every other request has met the dead server");
        assert!(sent_again.contains(&answered), "{percent}: {answered}");
        assert_eq!(seen.iter().filter(|status| **status == 503).count() as f64, refused);
    }
}
