//! Trusted proxies that do not say for whom they ask: counted each time, and said once.

use crate::harness::{eventually, origin, raw};

const UNKNOWN: &str = "sentry_edge_unknown_clients_total";

#[test]
fn a_client_that_cannot_be_made_out_is_counted_each_time_and_said_once() {
    let iqueue = origin("iqueue");
    let daemon = crate::harness::edge()
        .service_with("iqueue", &iqueue, "access: public")
        .server("trusted_proxies: [\"127.0.0.0/8\"]")
        .run();
    let ask = |fields: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: iqueue.test\r\n{fields}\r\n");
        assert_eq!(raw(daemon.address, "iqueue.test").send(request).status(), 200, "{fields}");
        iqueue.last().one("x-real-ip").unwrap()
    };
    let counted =
        || ["unreadable", "other_field"].map(|reason| daemon.metric(UNKNOWN, &format!("reason=\"{reason}\"")));
    assert_eq!(counted(), [0.0, 0.0]);
    for fields in ["X-Forwarded-For: 203.0.113.7:51234\r\n", "X-Forwarded-For: unknown, [2001:db8::7]:1\r\n", ""] {
        ask(fields);
    }
    assert_eq!(counted(), [0.0, 0.0], "nothing is missing");
    let mut unreadable = 0.0;
    for (fields, client) in [
        ("X-Forwarded-For: \u{1b}[31m\"unknown\r\n".replace('\u{1b}', ""), "127.0.0.1"),
        ("X-Forwarded-For: unknown\r\n".into(), "127.0.0.1"),
        ("X-Forwarded-For: 203.0.113.7, _hidden\r\n".into(), "127.0.0.1"),
        ("X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-For: fe80::1%eth0, 127.0.0.9\r\n".into(), "127.0.0.9"),
        (format!("X-Forwarded-For: {}unknown\r\n", "127.0.0.9, ".repeat(1000)), "127.0.0.1"),
    ] {
        assert_eq!(ask(&fields), client, "{fields:.60}");
        unreadable += 1.0;
        assert_eq!(counted(), [unreadable, 0.0], "{fields:.60}");
    }
    for fields in ["Forwarded: for=203.0.113.7\r\n", "X-Real-IP: 203.0.113.7\r\n"] {
        assert_eq!(ask(fields), "127.0.0.1");
    }
    assert_eq!(counted(), [unreadable, 2.0]);
    let said = || daemon.process.stderr().matches("client cannot be made out").count();
    eventually("it is said", || said() > 0);
    let text = daemon.process.stderr();
    assert_eq!(said(), 1, "{text}");
    assert!(text.contains("element=\"[31m\\\"unknown\" proxy=127.0.0.1"), "{text}");
}

#[test]
fn what_a_client_says_without_a_trusted_proxy_is_not_looked_at() {
    let iqueue = origin("iqueue");
    let edge = crate::harness::edge().service_with("iqueue", &iqueue, "access: public").start();
    for fields in ["X-Forwarded-For: unknown", "Forwarded: for=1.2.3.4", "X-Real-IP: 1.2.3.4"] {
        let request = format!("GET / HTTP/1.1\r\nHost: iqueue.test\r\n{fields}\r\n\r\n");
        assert_eq!(raw(edge.address(), "iqueue.test").send(request).status(), 200);
    }
    assert_eq!(edge.metric_sum(UNKNOWN), 0.0);
}
