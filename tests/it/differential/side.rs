//! One of the two request paths: an edge that takes it, its application, and all that can be seen of a case.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

use sentry_edge::server::FastPathMode;
use serde_json::Value;

use super::combinations::{Break, Status};
use super::draw::Case;
use crate::harness::observer::{Asking, End, Observed, Observer};
use crate::harness::scripted::{Asked, Scripted, scripted};
use crate::harness::{Edge, edge, eventually, origin};

const HOST: &str = "iqueue.test";
const REQUEST_ID: &str = "x-request-id: ";

/// Of one case on one path.
pub struct Seen {
    path: String,
    response: Option<Observed>,
    /// To the next request on the same connection; `None` when it was closed.
    next: Option<(u16, String)>,
    /// What the application heard of the request, once for each attempt.
    heard: Vec<Vec<String>>,
    /// Whether it came on the connection that had been used before, where there was one.
    is_reused: Option<bool>,
    /// Whether the next request came to it on the same connection.
    is_kept: Option<bool>,
    /// Under which the client, the application and the log have it: one.
    ids: BTreeSet<String>,
    /// Lines of the access log, added when all are there.
    lines: Vec<BTreeMap<String, Value>>,
}

/// One of the paths.
pub struct Side {
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
    fn parts(&self) -> [(&'static str, String); 8] {
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
            ("is_reused", format!("{:?}", self.is_reused)),
            ("is_kept", format!("{:?}", self.is_kept)),
            ("ids", self.ids.len().to_string()),
            ("lines", format!("{:?}", self.lines)),
        ]
    }

    /// What differs.
    pub fn against(&self, other: &Self) -> String {
        let parts = self.parts().into_iter().zip(other.parts()).filter(|(one, other)| one != other);
        parts.map(|((what, on), (_, off))| format!("\n  {what} on:  {on}\n  {what} off: {off}")).collect()
    }
}

impl Side {
    pub fn new(path: FastPathMode) -> Self {
        let application = scripted();
        let (spare, servers) =
            (origin("spare"), format!("{{servers: [\"{}\"], timeouts: {{read: 2s}}}}", application.address));
        // Below `/changed` fields are set and removed, those of the case among them.
        let routes = "access: public, routes: [{path: /private, access: {roles: [admin]}}, {path: /changed, \
                      request_headers: {set: {X-Two: ours, X-New: 1}, remove: [Accept, X-Latin, X-Empty]}, \
                      response_headers: {set: {X-Two: ours, Cache-Control: private, X-New: 1}, remove: [Server, Set-Cookie, ETag]}}]";
        let edge = edge().service_with("iqueue", &spare, routes).pool("iqueue", &servers).fast_path(path).start();
        let mut side = Self { edge, application, settled: 0, logged: 0, read: 0, metrics: BTreeMap::new() };
        side.metrics = side.counters();
        side
    }

    pub async fn run(&mut self, case: &Case) -> Seen {
        let own = format!("{}{}", case.folder, self.application.script(case.script.clone()));
        let path = format!("{own}{}", case.query);
        let fields: Vec<_> = case.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let asking = Asking { method: case.of.method, path: &path, body: case.body, fields: &fields };
        let mut client = Observer::connect(self.edge.address(), HOST, case.of.protocol).await;
        if case.is_warm {
            // From here on the connection to the application is one that was used before.
            client.ask(HOST, &Asking { path: "/probe", ..asking.clone() }).await;
            self.settles(1).await;
            client = Observer::connect(self.edge.address(), HOST, case.of.protocol).await;
        }
        let warm = self.application.take_asked().last().map(|probe| probe.connection).filter(|_| case.is_warm);
        let mut response = match case.of.breaks {
            Break::EarlyResponse => client.ask_slowly(HOST, &asking).await,
            _ => client.ask(HOST, &asking).await,
        };
        let mut ids = BTreeSet::new();
        if let Some(response) = &mut response {
            ids.extend(response.fields.iter().filter_map(|field| field.strip_prefix(REQUEST_ID)).map(str::to_owned));
            normalize(response, case.of.status);
        }
        self.settles(1).await;
        let asked = self.application.take_asked();
        ids.extend(asked.iter().flat_map(|asked| heard_id(&asked.head)));
        // With the same fields, so that it takes the same path; the application closes afterwards.
        let last = Asking { path: "/last", ..asking };
        let next = client.ask(HOST, &last).await.filter(|next| next.status != 0);
        if next.is_none() {
            Observer::connect(self.edge.address(), HOST, case.of.protocol).await.ask(HOST, &last).await;
        }
        self.settles(1).await;
        let (heard, probes): (Vec<Asked>, Vec<Asked>) = (asked, self.application.take_asked());
        let is_reused = heard.first().zip(warm).map(|(case, warm)| case.connection == warm);
        let is_kept = heard.last().zip(probes.last()).map(|(case, probe)| case.connection == probe.connection);
        let heard = heard.iter().map(|asked| heard_fields(&asked.head)).collect();
        let next = next.map(|next| (next.status, next.text()));
        Seen { path: own, response, next, heard, is_reused, is_kept, ids, lines: Vec::new() }
    }

    /// Waits until so many more requests were counted: by then their connections to the application have been given back.
    async fn settles(&mut self, requests: u64) {
        self.settled += requests;
        while (self.edge.metric_sum("sentry_edge_requests_total") as u64) < self.settled {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Adds the lines of the log to what was seen, and answers what the metrics have gained.
    pub fn close(&mut self, seen: &mut [Seen]) -> BTreeMap<String, f64> {
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
            let ids = seen.lines.iter_mut().filter_map(|line| line.remove("request_id"));
            seen.ids.extend(ids.map(|id| id.as_str().unwrap_or_default().to_owned()));
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

fn normalize(response: &mut Observed, status: Status) {
    for fields in std::iter::once(&mut response.fields).chain(response.interim.iter_mut().map(|(_, fields)| fields)) {
        for field in fields.iter_mut() {
            // That there are some is compared.
            for name in ["date: ", REQUEST_ID, "location: ", "set-cookie: "] {
                let is_drawn = status == Status::OfTheEdge || name == REQUEST_ID || name.starts_with("date");
                if is_drawn && field.starts_with(name) {
                    field.truncate(name.len());
                }
            }
        }
        fields.sort();
        fields.dedup_by(|one, other| one == other && one.starts_with("date: "));
    }
    // The pages of the edge name the request.
    if response.status == 502 || status == Status::OfTheEdge {
        response.interim.clear();
        if !response.body.is_empty() {
            response.body = b"a page".to_vec();
        }
        response.fields.retain(|field| !field.starts_with("content-length: "));
    }
    if response.end == End::Cut {
        response.body.clear();
    }
}

fn heard_id(head: &str) -> Option<String> {
    let fields = head.split("\r\n").filter_map(|line| line.split_once(": "));
    fields.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("x-request-id")).map(|(_, value)| value.to_owned())
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
    for own in ["time", "duration", "auth_duration", "upstream_duration", "server"] {
        fields.remove(own);
    }
    let is_of_the_edge =
        fields["status"] == 502 || fields["path"].as_str().is_some_and(|path| path.starts_with("/private"));
    let is_cut = fields.get("error").is_some_and(|error| !error.is_null());
    // Of a page that names the request, or of what was cut off.
    if is_of_the_edge {
        let has_some = fields["bytes"] != 0;
        fields.insert("bytes".into(), has_some.into());
    } else if is_cut {
        fields.remove("bytes");
    }
    fields
}
