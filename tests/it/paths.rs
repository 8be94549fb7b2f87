//! Rules of routes against spellings of a path: a signed-in user without the role sends hundreds of them, over HTTP/1.1 on
//! the fast path and on the full path and over HTTP/2, and no server that is modelled here would find any of those that
//! the edge forwards below a path that the user may not open. `tests/clients` asks real servers the same.

use url::Url;

use crate::harness::edge::TOKEN_COOKIE;
use crate::harness::raw::http2_request;
use crate::harness::spellings::spellings;
use crate::harness::{Edge, Origin, edge, origin, raw};

/// A server's name, and what it makes of a path.
type Model = (&'static str, fn(&str) -> String);

/// What servers make of a path. Each is modelled by itself, with nothing of the edge's own.
const SERVERS: &[Model] = &[
    ("one that takes it as it is", str::to_owned),
    ("Node's URL", |path| {
        Url::parse("http://host/").unwrap().join(path).map_or_else(|_| String::new(), |url| url.path().into())
    }),
    ("Express", |path| path.to_lowercase()),
    ("Flask", |path| resolved(&decoded(path), true).to_lowercase()),
    ("Starlette", decoded),
    ("nginx", |path| resolved(&decoded(path), true)),
    ("nginx that merges no slashes", |path| resolved(&decoded(path), false)),
    ("nginx before Tomcat", |path| resolved(&decoded(&without_parameters(&resolved(&decoded(path), true))), true)),
    ("Tomcat", |path| resolved(&decoded(&without_parameters(path)), true)),
    ("Spring", |path| decoded(&without_parameters(path)).replace("//", "/")),
    ("IIS", |path| windows(&decoded(path))),
    ("Windows behind a proxy", |path| windows(&decoded(&decoded(path)))),
    ("PHP behind a rewrite", |path| {
        resolved(&decoded(&decoded(path)), true).split(['?', '#', '\0']).next().unwrap().into()
    }),
    ("one that leaves control characters out", |path| resolved(&visible(&decoded(path)), true)),
    ("one that folds Unicode", |path| resolved(&narrow(&visible(&decoded(path))), true)),
];

fn decoded(path: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), path.as_bytes());
    while !rest.is_empty() {
        let digits = rest.get(1..3).filter(|_| rest[0] == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(octet) => (bytes.push(octet), rest = &rest[3..]),
            None => (bytes.push(rest[0]), rest = &rest[1..]),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Without dot segments (RFC 3986 §5.2.4).
fn resolved(path: &str, merges: bool) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            "" if merges => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

fn without_parameters(path: &str) -> String {
    path.split('/').map(|segment| segment.split(';').next().unwrap()).collect::<Vec<_>>().join("/")
}

fn windows(path: &str) -> String {
    let path = resolved(&path.replace('\\', "/"), true).to_lowercase();
    let name = |segment: &'_ str| {
        segment.split(":$").next().unwrap().split("::").next().unwrap().trim_end_matches(['.', ' ']).to_owned()
    };
    resolved(&path.split('/').map(name).collect::<Vec<_>>().join("/"), true)
}

fn visible(path: &str) -> String {
    path.chars().filter(|c| !c.is_control() && !matches!(c, '\u{ad}' | '\u{200b}' | '\u{feff}' | '\u{fffd}')).collect()
}

fn narrow(path: &str) -> String {
    let narrow = |c: char| match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap(),
        '\u{a0}' | '\u{3000}' => ' ',
        c => c,
    };
    path.chars().map(narrow).collect::<String>().to_lowercase()
}

fn is_under(path: &str, rule: &str) -> bool {
    path.strip_prefix(rule).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Bob, who has no role, and an application that remembers what it was asked.
struct Scene {
    edge: Edge,
    iqueue: Origin,
    cookie: String,
}

fn scene(service: &str) -> Scene {
    let iqueue = origin("iqueue");
    let edge = edge().service_with("iqueue", &iqueue, service).user("bob", &["iqueue"], &[]).start();
    let mut bob = edge.client();
    let form = bob.follow(&edge.url("iqueue", "/open")).pop().unwrap();
    let sent = edge.send_login(&mut bob, &form, "bob", crate::harness::edge::PASSWORD);
    bob.follow(&sent.location().unwrap());
    let cookie = format!("{TOKEN_COOKIE}={}", bob.cookie("iqueue.test", TOKEN_COOKIE).unwrap());
    Scene { edge, iqueue, cookie }
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Fast,
    Full,
    Http2,
}

impl Scene {
    /// The targets that the application has seen of this path.
    fn forwarded(&self, way: Way, path: &str) -> Vec<String> {
        let before = self.iqueue.count();
        match way {
            Way::Http2 => {
                let fields = [
                    (":method", "GET"),
                    (":scheme", "https"),
                    (":authority", "iqueue.test"),
                    (":path", path),
                    ("user-agent", "test/1"),
                    ("cookie", &self.cookie),
                ];
                http2_request(self.edge.address(), "iqueue.test", &fields);
            }
            Way::Fast | Way::Full => {
                let more = if matches!(way, Way::Full) { "Keep-Alive: 5\r\n" } else { "" };
                let sent = format!(
                    "GET {path} HTTP/1.1\r\nHost: iqueue.test\r\nUser-Agent: test/1\r\nCookie: {}\r\n{more}\r\n",
                    self.cookie
                );
                assert_ne!(raw(self.edge.address(), "iqueue.test").send(sent).status(), 0, "{path}");
            }
        }
        self.iqueue.seen().into_iter().skip(before).map(|seen| seen.target).collect()
    }

    /// Sends every spelling every way. `is_guarded` of what a server makes of a path: whether it is for others alone.
    fn holds(&self, rule: &str, is_guarded: fn(&str) -> bool) {
        let spellings = spellings(rule);
        assert!(spellings.len() >= 200, "{}", spellings.len());
        let (mut sent, mut forwarded, mut hits) = (0, 0, Vec::new());
        for spelling in &spellings {
            for way in [Way::Fast, Way::Full, Way::Http2] {
                sent += 1;
                for target in self.forwarded(way, spelling) {
                    forwarded += 1;
                    assert_eq!(target, *spelling, "byte for byte");
                    let who = SERVERS.iter().filter(|(_, read)| is_guarded(&read(&target))).map(|(name, _)| *name);
                    let who: Vec<&str> = who.collect();
                    if !who.is_empty() {
                        hits.push(format!("{way:?} {target}: {}", who.join(", ")));
                    }
                }
            }
        }
        println!("{rule}: {sent} sent, {forwarded} forwarded, {} run a guarded handler", hits.len());
        assert!(hits.is_empty(), "{} of {sent} run a guarded handler:\n{}", hits.len(), hits.join("\n"));
    }
}

#[test]
fn no_spelling_carries_a_user_past_a_role_below_an_open_path() {
    let scene = scene("routes: [{path: /admin/, access: {roles: [admin]}}]");
    scene.holds("/admin", |path| is_under(path, "/admin"));
}

#[test]
fn no_spelling_carries_a_user_past_a_role_above_an_open_path() {
    let scene = scene("access: {roles: [admin]}, routes: [{path: /open, access: required}]");
    scene.holds("/open", |path| !is_under(path, "/open"));
}

#[test]
fn no_spelling_carries_a_user_past_a_role_between_open_paths() {
    let scene = scene("routes: [{path: /api, access: {roles: [admin]}}, {path: /api/open, access: required}]");
    scene.holds("/api/open", |path| is_under(path, "/api") && !is_under(path, "/api/open"));
}

/// What an application gets that no rule divides is what was sent, whatever it looks like.
#[test]
fn ordinary_paths_pass_byte_for_byte_with_one_rule_and_with_several() {
    for service in ["", "routes: [{path: /admin/, access: {roles: [admin]}}]"] {
        let scene = scene(service);
        for path in [
            "/page;jsessionid=1",
            "/cars;color=red;year=2012/wheels",
            "/@scope%2fpackage",
            "/~ada/notes",
            "/v1/projects/p:batchGet",
            "/api/v4/projects/group%2Fsub%2Fname/issues",
            "/proxy/https://host.example/x",
            "/c++/a+b,c=d&e!(f)'g'$h",
            "/wiki/Washington_D.C.",
            "/wiki/100%25",
            "/files/%E6%97%A5%E6%9C%AC%E8%AA%9E/a%20b.png",
            "/files/cafe%CC%81.pdf",
            "/files/caf%E9.pdf",
            "/assets//app.js",
            "/compare/v1...v2",
            "/uploads/%7B3F2504E0%7D",
            "/odata/Patients('42')/Name",
            "/administrator",
        ] {
            for way in [Way::Fast, Way::Full, Way::Http2] {
                assert_eq!(scene.forwarded(way, path), [path], "{service}: {way:?}");
            }
        }
    }
}

/// One rule decides the same for every path, so there is nothing to agree on.
#[test]
fn a_service_with_one_rule_gets_dot_segments_as_they_are() {
    let scene = scene("");
    for path in ["/a/../b", "/a/%2e%2e/b", "/a/..;/b", "/a/.", "/ADMIN/x", "/a%5c..%5cb"] {
        for way in [Way::Fast, Way::Full, Way::Http2] {
            assert_eq!(scene.forwarded(way, path), [path], "{way:?}");
        }
    }
}
