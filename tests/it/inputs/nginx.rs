//! The same inputs asked of nginx, which many put in our place: a table of what both do, and why where they differ.
//!
//! `make compare` starts the nginx of this machine and writes the table, NGINX.md. Every run of the tests holds what the
//! table says of us against what we do, so that it cannot grow old on our side.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::elsewhere::NOT_THERE;
use super::{Row, Scene, converse, framing, heads, hosts, number, paths};
use crate::harness::certificates::ca;
use crate::harness::raw::Answer;
use crate::harness::{Origin, eventually, free_address, origin};

/// Why we do what nginx does not, and the other way round: numbers, and the reason. Every difference has one.
const WHY: &[(&[u16], &str)] = &[
    (
        &[27, 33, 35, 36],
        "nginx frames the body anew, as we do, so nothing is smuggled behind it; but two readers could find two ends, and without a bound it costs",
    ),
    (&[40], "RFC 9110 §10.1.1 leaves it open; nobody here can keep an expectation that we do not know"),
    (&[41], "nginx leaves handshakes to the application; a page of another site could open one with the user's cookie"),
    (&[42], "nginx takes CR CR LF for the end of a line; RFC 9112 §2.2 knows CRLF"),
    (
        &[43],
        "RFC 9112 §2.2 lets a server take a bare LF for the end of a line; not all do, and one behind another may see more fields",
    ),
    (&[45], "nginx drops a line that is no field; others refuse it, or take it for a part of the one before"),
    (&[49], "nginx has room for 8 KiB in a line; our bound is on the whole head"),
    (
        &[50, 51],
        "RFC 9112 §3 asks for one blank, and lets a server take more; where they belong to the target is then a guess",
    ),
    (&[52], "there is no HTTP/1.2; nginx takes it for 1.1"),
    (&[57, 59], "we pass on the methods that we know; nginx passes on any word"),
    (&[60], "bytes beyond ASCII are no part of a target (RFC 3986 §2); servers decode them differently"),
    (
        &[95, 100, 101, 107],
        "some applications read it as a path that climbs out of /public; nginx does not, and passes it on by the rule for /public",
    ),
    (
        &[105],
        "nginx cuts the fragment off and goes by what is left; an application behind another proxy may go by the whole",
    ),
    (
        &[108],
        "nginx decodes before it chooses a rule; an application that does not would serve another path than /public",
    ),
    (&[116], "a port that we do not listen on is another address; nginx goes by the name alone"),
];

/// A section of the table: how both are set up, and the inputs.
struct Section {
    title: &'static str,
    service: &'static str,
    locations: &'static str,
    rows: Vec<Row>,
}

fn sections() -> Vec<Section> {
    let (open, all) = ("access: public", "location / { proxy_pass http://iqueue; }");
    vec![
        Section { title: "Where a message ends", service: open, locations: all, rows: framing::rows() },
        Section { title: "Heads", service: open, locations: all, rows: heads::rows() },
        Section { title: "Hosts", service: open, locations: all, rows: hosts::rows(443) },
        Section {
            title: "Paths, where `/public` is open and everything else wants a login",
            service: "routes: [{path: /public, access: public}]",
            locations: "location /public { proxy_pass http://iqueue; } location / { return 401; }",
            // One of the two forms of each that differ by what a browser accepts.
            rows: paths::rows().into_iter().filter(|row| row.status != 302 && !row.shown().contains("html")).collect(),
        },
    ]
}

/// What became of an input: its status, and what the application saw of it.
fn told(answers: &[Answer], application: &Origin, before: usize) -> String {
    let status = answers.first().map_or("closed".to_owned(), |answer| answer.status.to_string());
    let seen = application.seen().into_iter().skip(before).filter(|seen| seen.whole && seen.target != "/behind");
    let seen: Vec<String> = seen
        .map(|seen| {
            let target: String = seen.target.chars().take(40).collect();
            let body = if seen.body.is_empty() { String::new() } else { format!(", {} bytes", seen.body.len()) };
            format!("{} {target}{body}", seen.method)
        })
        .collect();
    if seen.is_empty() { status } else { format!("{status}, passed on as `{}`", seen.join("`, `").replace('|', "\\|")) }
}

fn is_served(told: &str) -> bool {
    told.contains("passed on")
}

/// The nginx of this machine, with the job of an edge.
struct Nginx {
    process: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Nginx {
    fn start(application: &Origin, locations: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let at = folder.path().to_str().unwrap();
        let certificate = ca().issue(&["iqueue.test"]);
        std::fs::write(folder.path().join("edge.pem"), certificate.pem).unwrap();
        std::fs::write(folder.path().join("edge.key"), certificate.key).unwrap();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|of| format!("{of}_temp_path {at}/{of};\n"))
            .concat();
        let configuration = format!(
            "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/error.log;\nevents {{}}\nhttp {{\n{temporary}\
             access_log off;\nserver_tokens off;\nkeepalive_timeout 2s;\nclient_header_timeout 2s;\nclient_body_timeout 2s;\n\
             ssl_certificate {at}/edge.pem;\nssl_certificate_key {at}/edge.key;\n\
             upstream iqueue {{ server {}; keepalive 8; }}\n\
             map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}\n\
             server {{ listen {address} ssl default_server; return 421; }}\n\
             server {{ listen {address} ssl; server_name iqueue.test;\nproxy_http_version 1.1;\n\
             proxy_set_header Host $host;\nproxy_set_header Upgrade $http_upgrade;\n\
             proxy_set_header Connection $connection_upgrade;\n{locations} }}\n}}\n",
            application.address,
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, configuration).unwrap();
        let mut command = Command::new("nginx");
        command
            .args(["-p", at, "-c", file.to_str().unwrap(), "-e", "stderr"])
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let process = command.spawn().expect("nginx is installed: .ci/deps compare");
        eventually("nginx listens", || std::net::TcpStream::connect(address).is_ok());
        Self { process, address, folder }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        assert!(self.folder.path().exists());
    }
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/inputs/NGINX.md")
}

/// Of every input: its number, how it is shown, and what we do.
fn ours() -> Vec<(Section, Vec<String>)> {
    sections()
        .into_iter()
        .map(|section| {
            let scene = Scene::with(section.service);
            let ask = |row: &Row| {
                let before = scene.iqueue.count();
                told(&converse(scene.edge.address(), &row.sent), &scene.iqueue, before)
            };
            let told = section.rows.iter().map(ask).collect();
            (section, told)
        })
        .collect()
}

fn begin(row: &Row, ours: &str) -> String {
    format!("| {} | `{}` | {ours} |", row.number, row.shown().replace('`', "'"))
}

fn write(asked: &[(Section, Vec<String>)]) {
    let version = Command::new("nginx").arg("-v").output().unwrap().stderr;
    let version = String::from_utf8(version).unwrap().trim().replace("nginx version: nginx/", "nginx ");
    let date = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    let mut text = format!(
        "# The bad inputs, asked of us and of nginx\n\n\
         Written by `make compare` on {}, with {version} of Debian, TLS, and `proxy_pass` to the same application.\n\
         Numbers are those of the list of bad inputs; `⏎` is CRLF, and `Host: iqueue.test` is left out.\n\
         Both are given the input and, behind it on the same connection, another request.\n",
        &date[..10],
    );
    let mut unexplained = Vec::new();
    let (mut both, mut alone, mut theirs) = (0, 0, 0);
    for (section, ours) in asked {
        write!(text, "\n## {}\n\n| | sent | we | nginx | why we differ |\n|---|---|---|---|---|\n", section.title)
            .unwrap();
        let application = origin("iqueue");
        let nginx = Nginx::start(&application, section.locations);
        for (row, ours) in section.rows.iter().zip(ours) {
            let before = application.count();
            let they = told(&converse(nginx.address, &row.sent), &application, before);
            match (is_served(ours), is_served(&they)) {
                (true, true) | (false, false) => both += 1,
                (false, true) => alone += 1,
                (true, false) => theirs += 1,
            }
            let why = WHY.iter().find(|(numbers, _)| numbers.contains(&number(row.number))).map(|(_, why)| *why);
            let differs = is_served(ours) != is_served(&they);
            if differs && why.is_none() {
                unexplained.push(format!("{} {they}", begin(row, ours)));
            }
            let why = why.filter(|_| differs).unwrap_or_default();
            writeln!(text, "{} {they} | {why} |", begin(row, ours)).unwrap();
        }
    }
    text.push_str("\n## Where we do not do what the list says\n\n| | sent | we | because |\n|---|---|---|---|\n");
    for (section, ours) in asked {
        for (row, ours) in section.rows.iter().zip(ours) {
            if let Some(reason) = row.instead {
                writeln!(text, "{} {reason} |", begin(row, ours)).unwrap();
            }
        }
    }
    for (numbers, reason) in NOT_THERE {
        writeln!(text, "| {} to {} | | | not there: {reason} |", numbers.start(), numbers.end()).unwrap();
    }
    write!(
        text,
        "\n## In all\n\nBoth pass on, or both do not: {both}. nginx alone passes on: {alone}. We alone pass on: {theirs}.\n"
    )
    .unwrap();
    std::fs::write(file(), text).unwrap();
    assert!(unexplained.is_empty(), "differences without a reason:\n{}", unexplained.join("\n"));
}

#[test]
fn what_the_comparison_with_nginx_says_of_us_is_so() {
    let asked = ours();
    if std::env::var_os("COMPARE").is_some() {
        write(&asked);
    }
    let text = std::fs::read_to_string(file()).unwrap();
    for (section, told) in &asked {
        for (row, ours) in section.rows.iter().zip(told) {
            let line = begin(row, ours);
            let reason = row.instead.unwrap_or_default();
            assert!(text.contains(reason), "NGINX.md does not say: {reason}\nwrite it anew: make compare");
            assert!(
                text.contains(&line),
                "NGINX.md does not say, or not any more: {line}\nwrite it anew: make compare"
            );
        }
    }
}
