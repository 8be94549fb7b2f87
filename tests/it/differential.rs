//! Both request paths held against each other: requests and responses that are drawn from a seed go through an edge with
//! the fast path on and through one with it off, and all that can be seen of them is compared: what the client gets, what
//! becomes of its connection and of the application's, what the application hears, the access log, the metrics.
//!
//! `DIFFERENTIAL_CASES` says how many (`make differential CASES=100000`), `DIFFERENTIAL_SEED` from where on. A case
//! depends on its own seed alone, which is printed with what differs.

mod draw;

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

use sentry_edge::server::FastPath;
use serde_json::Value;

use crate::express::builder_before;
use crate::harness::observer::{Asking, End, Observed, Observer};
use crate::harness::scripted::{Asked, Scripted, scripted};
use crate::harness::{Edge, eventually, runtime};
use draw::{Case, draw};

const HOST: &str = "iqueue.test";

/// What may differ, and why it may. Everything else is a fault of one of the paths.
const MAY_DIFFER: [(&str, &str); 7] = [
    ("date", "RFC 9110 §6.6.1: Pingora writes its own over HTTP/1.1, the fast path adds one where there is none"),
    ("x-request-id", "drawn for each request"),
    ("the case of field names", "RFC 9110 §5.1: it has no meaning; the fast path leaves it, the full path does not"),
    ("time, duration, auth_duration, upstream_duration, request_id, server", "of each request or edge its own"),
    ("interim responses before a 502", "RFC 9110 §15.2: the full path takes them in together with what is refused"),
    ("a connection that is not used again once", "RFC 9112 §9.3: Pingora's pool may be busy with it for a moment"),
    ("where in a body it is cut off", "RFC 9112 §8: a part is a part; how much of it arrives is a matter of time"),
];

/// Cases that are compared at once: log lines gather for some milliseconds before they are written.
const BATCH: usize = 20;

/// Of one case on one path.
struct Seen {
    path: String,
    response: Option<Observed>,
    /// To the next request on the same connection; `None` when it was closed.
    next: Option<(u16, String)>,
    /// What the application heard of the request, once for each attempt.
    heard: Vec<Vec<String>>,
    /// Whether the next request came to it on the same connection.
    is_kept: Option<bool>,
    /// Lines of the access log, added when all are there.
    lines: Vec<BTreeMap<String, Value>>,
}

/// One of the paths.
struct Side {
    edge: Edge,
    application: Scripted,
    /// Requests that were counted.
    settled: u64,
    /// Those whose lines were read.
    logged: u64,
    /// How much of the access log was read.
    read: u64,
    metrics: BTreeMap<String, f64>,
}

impl Seen {
    /// Each part in words, and what is long by its length and a hash.
    fn parts(&self) -> [(&'static str, String); 6] {
        let response = self.response.as_ref().map(|response| {
            let body = (response.body.len(), ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(&response.body));
            let Observed { interim, version, status, reason, fields, end, .. } = response;
            format!("{interim:?} {version} {status} {reason:?} {fields:?} {body:?} {end:?}")
        });
        [
            ("response", format!("{response:?}")),
            ("next", format!("{:?}", self.next)),
            ("attempts", self.heard.len().to_string()),
            ("heard", format!("{:?}", self.heard)),
            ("is_kept", format!("{:?}", self.is_kept)),
            ("lines", format!("{:?}", self.lines)),
        ]
    }

    /// What differs.
    fn against(&self, other: &Self) -> String {
        let parts = self.parts().into_iter().zip(other.parts()).filter(|(one, other)| one != other);
        parts.map(|((what, on), (_, off))| format!("\n  {what} on:  {on}\n  {what} off: {off}")).collect()
    }
}

impl Side {
    fn new(path: FastPath) -> Self {
        let application = scripted();
        let edge = builder_before(application.address).fast_path(path).start();
        let mut side = Self { edge, application, settled: 0, logged: 0, read: 0, metrics: BTreeMap::new() };
        side.metrics = side.counters();
        side
    }

    async fn run(&mut self, case: &Case) -> Seen {
        let own = self.application.script(case.script.clone());
        let path = format!("{own}{}", case.query);
        let fields: Vec<_> = case.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let asking = Asking { method: case.method, path: &path, body: case.body, fields: &fields };
        let mut client = Observer::connect(self.edge.address(), HOST, case.protocol).await;
        if case.is_warm {
            // From here on the connection to the application is one that was used before.
            client.ask(HOST, &Asking { path: "/probe", ..asking.clone() }).await;
            self.settles(1).await;
            client = Observer::connect(self.edge.address(), HOST, case.protocol).await;
        }
        self.application.take_asked();
        let mut response = client.ask(HOST, &asking).await;
        if let Some(response) = &mut response {
            normalize(response);
        }
        self.settles(1).await;
        // With the same fields, so that it takes the same path; the application closes afterwards.
        let last = Asking { path: "/last", ..asking };
        let next = client.ask(HOST, &last).await.filter(|next| next.status != 0);
        if next.is_none() {
            Observer::connect(self.edge.address(), HOST, case.protocol).await.ask(HOST, &last).await;
        }
        self.settles(1).await;
        let asked = self.application.take_asked();
        let (probes, heard): (Vec<Asked>, Vec<Asked>) =
            asked.into_iter().partition(|asked| asked.head.contains(" /last "));
        let is_kept = heard.last().zip(probes.last()).map(|(case, probe)| case.connection == probe.connection);
        let heard = heard.iter().map(|asked| heard_fields(&asked.head)).collect();
        Seen {
            path: own,
            response,
            next: next.map(|next| (next.status, next.text())),
            heard,
            is_kept,
            lines: Vec::new(),
        }
    }

    /// Waits until so many more requests were counted: by then their connections to the application have been given back.
    async fn settles(&mut self, requests: u64) {
        self.settled += requests;
        while (self.edge.metric_sum("sentry_edge_requests_total") as u64) < self.settled {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Adds the lines of the log to what was seen, and answers what the metrics have gained.
    fn close(&mut self, seen: &mut [Seen]) -> BTreeMap<String, f64> {
        let expected = usize::try_from(self.settled - self.logged).unwrap();
        self.logged = self.settled;
        let file = self.edge.folder.path().join("access.log");
        let (mut text, from) = (String::new(), self.read);
        eventually("the log has a line for each request", || {
            let mut log = std::fs::File::open(&file).unwrap();
            log.seek(SeekFrom::Start(from)).unwrap();
            text.clear();
            log.read_to_string(&mut text).unwrap();
            text.lines().count() >= expected && text.ends_with('\n')
        });
        self.read += text.len() as u64;
        let lines: Vec<_> = text.lines().map(line_fields).collect();
        for seen in seen {
            let of_case = |line: &&BTreeMap<String, Value>| line["path"] == seen.path.as_str();
            seen.lines = lines.iter().filter(of_case).cloned().collect();
        }
        let now = self.counters();
        let gained = now.iter().map(|(name, value)| (name.clone(), value - self.metrics.get(name).unwrap_or(&0.0)));
        let gained = gained.filter(|(_, gained)| *gained != 0.0).collect();
        self.metrics = now;
        gained
    }

    /// What counts, without what is measured.
    fn counters(&self) -> BTreeMap<String, f64> {
        let text = String::from_utf8(self.edge.inner.metrics().scrape().unwrap()).unwrap();
        let server = self.application.address.to_string();
        let counts = |name: &str| {
            let name = name.split('{').next().unwrap_or_default();
            // Connections may be another number, and the user directory is read in the background.
            let varies = ["sentry_edge_connections", "sentry_edge_user_directory"];
            let is_ours = name.starts_with("sentry_edge_") && !varies.iter().any(|varying| name.starts_with(varying));
            is_ours && (name.ends_with("_total") || name.ends_with("_count"))
        };
        text.lines()
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(name, _)| counts(name))
            .map(|(name, value)| (name.replace(&server, "SERVER"), value.parse().unwrap()))
            .collect()
    }
}

fn normalize(response: &mut Observed) {
    for fields in std::iter::once(&mut response.fields).chain(response.interim.iter_mut().map(|(_, fields)| fields)) {
        for field in fields.iter_mut() {
            // That there are some is compared.
            for name in ["date: ", "x-request-id: "] {
                if field.starts_with(name) {
                    field.truncate(name.len());
                }
            }
        }
        fields.sort();
        fields.dedup_by(|one, other| one == other && one.starts_with("date: "));
    }
    // The pages of the edge name the request.
    if response.status == 502 {
        response.interim.clear();
        response.body.clear();
        response.fields.retain(|field| !field.starts_with("content-length: "));
    }
    if response.end == End::Cut {
        response.body.clear();
    }
}

fn heard_fields(head: &str) -> Vec<String> {
    let mut fields: Vec<String> = head
        .split("\r\n")
        .map(|line| match line.split_once(": ") {
            Some((name, _)) if name.eq_ignore_ascii_case("x-request-id") => "x-request-id".into(),
            Some((name, value)) => format!("{}: {value}", name.to_ascii_lowercase()),
            None => line.to_owned(),
        })
        .collect();
    fields.sort();
    fields
}

fn line_fields(line: &str) -> BTreeMap<String, Value> {
    let mut fields: BTreeMap<String, Value> = serde_json::from_str(line).unwrap();
    for own in ["time", "duration", "auth_duration", "upstream_duration", "request_id", "server"] {
        fields.remove(own);
    }
    // Of a page that names the request, or of what was cut off.
    if fields["status"] == 502 || fields.get("error").is_some_and(|error| !error.is_null()) {
        fields.remove("bytes");
    }
    fields
}

/// Runs cases and answers what differed.
fn compare(seeds: impl Iterator<Item = u64>) -> Vec<String> {
    let mut sides = [FastPath::On, FastPath::Off].map(Side::new);
    let mut differing = Vec::new();
    let mut seeds = seeds.peekable();
    while seeds.peek().is_some() {
        let cases: Vec<(u64, Case)> = seeds.by_ref().take(BATCH).map(|seed| (seed, draw(seed))).collect();
        let [one, other] = sides.each_mut().map(|side| {
            let mut seen: Vec<Seen> = runtime().block_on(async {
                let mut seen = Vec::new();
                for (_, case) in &cases {
                    seen.push(side.run(case).await);
                }
                seen
            });
            let gained = side.close(&mut seen);
            (seen, gained)
        });
        let mut same = true;
        for (((seed, case), on), off) in cases.iter().zip(&one.0).zip(&other.0) {
            let mut difference = on.against(off);
            same &= difference.is_empty();
            // What is a matter of a moment does not come again and again.
            for _ in 0..4 {
                if !is_of_a_moment(&difference) {
                    break;
                }
                let [on, off] = sides.each_mut().map(|side| {
                    let mut seen = [runtime().block_on(side.run(case))];
                    side.close(&mut seen);
                    let [seen] = seen;
                    seen
                });
                difference = on.against(&off);
            }
            if !difference.is_empty() {
                differing.push(format!("seed {seed}: {case:?}{difference}"));
            }
        }
        if same && one.1 != other.1 {
            let seeds: Vec<u64> = cases.iter().map(|(seed, _)| *seed).collect();
            differing.push(format!("seeds {seeds:?}, metrics\n  on:  {:?}\n  off: {:?}", one.1, other.1));
        }
    }
    differing
}

/// Whether nothing differs but that one of the connections to the application was not used again.
fn is_of_a_moment(difference: &str) -> bool {
    let mut lines = difference.lines().filter(|line| !line.is_empty()).peekable();
    lines.peek().is_some() && lines.all(|line| line.trim_start().starts_with("is_kept "))
}

#[test]
fn both_paths_come_to_the_same_whatever_is_asked_and_answered() {
    let variable = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = variable("DIFFERENTIAL_SEED").unwrap_or(1);
    let cases = variable("DIFFERENTIAL_CASES").unwrap_or(400);
    const THREADS: u64 = 2;
    let differing: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let seeds = (0..cases).filter(move |case| case % THREADS == thread).map(move |case| seed + case);
                scope.spawn(|| compare(seeds))
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let allowed: Vec<String> = MAY_DIFFER.iter().map(|(what, why)| format!("  {what}: {why}")).collect();
    assert!(
        differing.is_empty(),
        "{} of {cases} cases differ, DIFFERENTIAL_SEED={seed}; run one with its seed and DIFFERENTIAL_CASES=1\n{}\nonly \
         this may differ:\n{}",
        differing.len(),
        differing.iter().take(20).cloned().collect::<Vec<_>>().join("\n"),
        allowed.join("\n"),
    );
}
