//! `log.level: debug`: each decision of a request is one line with the request's id, on both request paths and over both
//! protocols, and no line has a secret.

use crate::harness::edge::{PASSWORD, TOKEN_COOKIE};
use crate::harness::{Client, edge, eventually, free_address, origin};

/// A request, the status that it gets, and what its lines say, in this order.
struct Case {
    what: &'static str,
    /// Whether the client has signed in.
    signed_in: bool,
    host: &'static str,
    path: &'static str,
    status: u16,
    lines: &'static [&'static str],
}

/// A query of an application; its value is nobody's business.
const QUERY: &str = "?q=value-of-a-query";

const CASES: [Case; 5] = [
    Case {
        what: "allowed",
        signed_in: true,
        host: "iqueue",
        path: "/page",
        status: 200,
        lines: &[
            "received method=GET path=\"/page\"",
            "PATH",
            "validated host=HOST",
            "ticket result=none",
            "route matched service=SERVICE route=",
            "token verified source=Cookie user=\"eva\"",
            "session accepted assurance=Session",
            "verdict outcome=allowed",
            "server chosen pool=SERVICE server=127.0.0.1:",
            "connected reused=",
            "response received status=200",
            "completed status=200",
        ],
    },
    Case {
        what: "login_required",
        signed_in: false,
        host: "iqueue",
        path: "/page",
        status: 401,
        lines: &[
            "received method=GET",
            "PATH",
            "validated host=HOST",
            "rate limit passed scope=edge",
            "route matched service=SERVICE",
            "token refused reason=no_token",
            "verdict outcome=login_required reason=no_token",
            "completed status=401",
        ],
    },
    Case {
        what: "forbidden",
        signed_in: true,
        host: "iqueue",
        path: "/director/page",
        status: 403,
        lines: &[
            "received method=GET",
            "PATH",
            "route matched service=SERVICE",
            "token verified user=Some(\"eva\")",
            "session accepted",
            "verdict outcome=forbidden reason=missing_role",
            "completed status=403",
        ],
    },
    Case {
        what: "421",
        signed_in: true,
        host: "unknown",
        path: "/page",
        status: 421,
        lines: &[
            "received method=GET",
            "full path taken fast_path_declined=no_route",
            "validated host=HOST",
            "misdirected reason=unknown_host",
            "completed status=421",
        ],
    },
    Case {
        what: "503",
        signed_in: false,
        host: "down",
        path: "/page",
        status: 503,
        lines: &[
            "received method=GET",
            "PATH",
            "verdict outcome=public",
            "server chosen pool=SERVICE",
            "connection failed error=ConnectRefused",
            "failed error=no_server status=503",
            "completed status=503",
        ],
    },
];

#[test]
fn each_decision_of_a_request_is_a_line_at_debug() {
    let application = origin("iqueue");
    let routes = "routes: [{path: /director, access: {roles: [director]}}]";
    let compressed = "compression: [gzip]";
    let down = format!("{{servers: [\"{}\"]}}", free_address());
    let daemon = edge()
        .service_with("iqueue", &application, routes)
        .service_with("iqueue-full", &application, &format!("{routes}, {compressed}"))
        .service_with("down", &application, "access: public")
        .pool("down", &down)
        .service_with("down-full", &application, &format!("access: public, {compressed}"))
        .pool("down-full", &down)
        .certificate(&["iqueue-full.test", "down.test", "down-full.test", "unknown.test"])
        .user("eva", &["iqueue", "iqueue-full"], &[])
        .server("limits: {requests_per_second: 1000}")
        .run_with(|yaml| yaml.replace("level: info", "level: debug"));
    let mut eva = daemon.client();
    eva.sign_in(&daemon.url("iqueue", "/"), "eva", PASSWORD);
    assert_eq!(eva.follow(&daemon.url("iqueue-full", "/")).last().unwrap().status, 200);
    for case in &CASES {
        for full in [false, true] {
            for http2 in [false, true] {
                let service = if full && case.status != 421 { format!("{}-full", case.host) } else { case.host.into() };
                let client = if case.signed_in { eva.clone() } else { daemon.client() };
                let mut client: Client = if http2 { client.http2() } else { client };
                let what = format!("{}, full path {full}, HTTP/2 {http2}", case.what);
                let url = daemon.url(&service, &format!("{}{QUERY}", case.path));
                let response = client.ask("GET", &url).accept("application/json").send();
                assert_eq!(response.status, case.status, "{what}: {}", response.body);
                let id = format!("request_id={}", response.header("x-request-id").unwrap());
                let of_this = || -> Vec<String> {
                    let text = daemon.process.stderr();
                    text.lines().filter(|line| line.ends_with(&id)).map(str::to_owned).collect()
                };
                eventually(&what, || of_this().iter().any(|line| line.contains("completed status")));
                let path = if full { "full path taken fast_path_declined=compression" } else { "fast path taken" };
                let lines = of_this();
                let mut rest = lines.iter();
                for expected in case.lines {
                    let expected = expected
                        .replace("PATH", path)
                        .replace("HOST", &format!("{service}.test"))
                        .replace("SERVICE", &service);
                    let is_it = |line: &String| line.contains(&format!(" DEBUG request: {expected}"));
                    assert!(rest.any(is_it), "{what}: no `{expected}` in its place:\n{}", lines.join("\n"));
                }
            }
        }
    }
    let log = daemon.process.stderr();
    let token = eva.cookie("iqueue.test", TOKEN_COOKIE).unwrap();
    for (what, secret) in
        [("token", token), ("password", PASSWORD), ("query", "value-of-a-query"), ("ticket", "requestID=")]
    {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "a line with the {what}");
    }
}

#[test]
fn no_decision_is_a_line_at_info() {
    let application = origin("iqueue");
    let daemon = edge().service_with("iqueue", &application, "access: public").run();
    let answer = daemon.client().get(&daemon.url("iqueue", "/"));
    assert_eq!(answer.status, 200);
    daemon.log("access.log", 1);
    daemon.process.signal("TERM");
    let mut process = daemon.process;
    process.end();
    let log = process.stderr();
    assert!(!log.contains("DEBUG") && !log.contains(answer.header("x-request-id").unwrap()), "{log}");
}
