//! Inputs 109 to 128: whom a request is for. Connections come under iqueue's name, and iqueue is public.

use super::{Like, Row, Scene};

#[test]
fn a_request_is_for_one_host_in_every_reading_or_refused() {
    let scene = Scene::with("access: public");
    scene.ask(&rows(scene.edge.address().port()));
}

fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\n{fields}\r\n")
}

/// `port` is the edge's own.
pub fn rows(port: u16) -> Vec<Row> {
    let mut rows = malformed();
    for (number, host) in [
        ("121", "xn--queue-2of.test"),
        ("122", "iqueue.test.evil.com"),
        ("123", "evil-iqueue.test"),
        ("123", "a.iqueue.test"),
        ("123", "test"),
        ("123", "evil.example"),
        ("124", "localhost"),
    ] {
        rows.push(Row::answered(number, 421, get("/", &format!("Host: {host}\r\n"))));
    }
    for (number, host) in [
        ("113", "IQUEUE.TeSt".to_owned()),
        ("114", "iqueue.test.".to_owned()),
        ("115", "iqueue.test:443".to_owned()),
        ("115", format!("iqueue.test:{port}")),
        ("115", format!("IQueue.Test.:{port}")),
    ] {
        rows.push(Row::served(number, get("/", &format!("Host: {host}\r\n")), |seen| assert_eq!(seen.target, "/")));
    }
    let absolute: [(&str, Like); 4] = [
        ("http://iqueue.test/a?b", |seen| assert_eq!(seen.target, "/a?b")),
        ("https://iqueue.test/a:b%20c?d=%2F//+&&e", |seen| assert_eq!(seen.target, "/a:b%20c?d=%2F//+&&e")),
        ("http://iqueue.test", |seen| assert_eq!(seen.target, "/")),
        ("http://iqueue.test?b", |seen| assert_eq!(seen.target, "/?b")),
    ];
    rows.extend(absolute.map(|(target, like)| Row::served("127", get(target, "Host: iqueue.test\r\n"), like)));
    rows
}

fn malformed() -> Vec<Row> {
    let long = format!("Host: {}.test\r\n", "a".repeat(300));
    let rows: &[(&str, &str, &str)] = &[
        ("109", "/", ""),
        ("110", "/", "Host:\r\n"),
        ("110", "/", "Host: \t \r\n"),
        ("111", "/", "Host: iqueue.test\r\nHost: iqueue.test\r\n"),
        ("111", "/", "Host: iqueue.test\r\nHost: dextor.test\r\n"),
        ("111", "/", "Host: iqueue.test\r\nhost: evil.example\r\n"),
        ("112", "/", "Host: iqueue.test, evil\r\n"),
        ("112", "/", "Host: iqueue.test dextor.test\r\n"),
        ("116", "/", "Host: iqueue.test:1\r\n"),
        ("116", "/", "Host: iqueue.test:80\r\n"),
        ("116", "/", "Host: iqueue.test:99999\r\n"),
        ("116", "/", "Host: iqueue.test:80:80\r\n"),
        ("116", "/", "Host: iqueue.test:1.2\r\n"),
        ("116", "/", "Host: iqueue.test:\r\n"),
        ("116", "/", "Host: iqueue.test:+443\r\n"),
        ("116", "/", "Host: iqueue.test: 443\r\n"),
        ("117", "/", "Host: user@iqueue.test\r\n"),
        ("117", "/", "Host: user:x@iqueue.test\r\n"),
        ("118", "/", "Host: iqueue.test/..\r\n"),
        ("118", "/", "Host: iqueue.test?\r\n"),
        ("118", "/", "Host: iqueue.test#\r\n"),
        ("119", "/", "Host: iqueue.test\0\r\n"),
        ("120", "/", "Host: ..iqueue.test\r\n"),
        ("120", "/", "Host: .iqueue.test\r\n"),
        ("120", "/", "Host: iqueue..test\r\n"),
        ("120", "/", "Host: iqueue.test..\r\n"),
        ("120", "/", "Host: .\r\n"),
        ("121", "/", "Host: \u{456}queue.test\r\n"),
        ("124", "/", "Host: 127.0.0.1\r\n"),
        ("124", "/", "Host: [::1]\r\n"),
        ("124", "/", "Host: [::1\r\n"),
        ("124", "/", "Host: *.test\r\n"),
        ("125", "/", &long),
        ("126", "http://evil/", "Host: iqueue.test\r\n"),
        ("126", "https://dextor.test/", "Host: iqueue.test\r\n"),
        ("126", "http://iqueue.test@evil/", "Host: iqueue.test\r\n"),
        ("128", "https:/\\evil/", "Host: iqueue.test\r\n"),
        ("128", "http:/evil/", "Host: iqueue.test\r\n"),
        ("128", "http:///evil/", "Host: iqueue.test\r\n"),
    ];
    rows.iter().map(|(number, target, fields)| Row::refused(number, 400, get(target, fields))).collect()
}
