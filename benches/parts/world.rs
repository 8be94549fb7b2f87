//! What the parts work on: a snapshot as the edge builds it, one session in a store in memory, and a browser's request.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use pingora_http::RequestHeader;
use sentry_edge::audit_log::AuditLog;
use sentry_edge::auth::streams::Streams;
use sentry_edge::auth::token::Claims;
use sentry_edge::blocking::BlockingThreads;
use sentry_edge::clock::{Clock, UnixTime};
use sentry_edge::config::{self, Config, Faults, OnWriteError, UserStore};
use sentry_edge::log_writer::LogWriter;
use sentry_edge::maintenance::MaintenanceSwitches;
use sentry_edge::metrics::Metrics;
use sentry_edge::proxy::headers;
use sentry_edge::sessions::memory::MemoryStore;
use sentry_edge::sessions::{SessionId, SessionRecord, SessionStore};
use sentry_edge::snapshot::{LoadedFiles, Ports, SharedState, Snapshot};
use sentry_edge::tls::Certificates;
use sentry_edge::upstream::resolver::Resolver;
use sentry_edge::users;
use sentry_edge::users::login::{LoginLimits, LoginPool};

pub const HOST: &str = "h0.iqueue.test";
pub const COOKIE: &str = "__Host-JWTCookie";

/// One service has so many hosts.
const HOSTS_OF_A_SERVICE: usize = 10;

const KEYS: &str = concat!(
    "sentry: {host: sentry.test, keys: [{id: main, algorithm: HS256, ",
    "secret: {value: 0123456789abcdef0123456789abcdef}}]}\n",
);

const POOLS: &str = "pools: {iqueue: {servers: [\"127.0.0.1:9001\"]}}\n";

/// Weights of servers, in turn.
const WEIGHTS: [u16; 3] = [1, 2, 3];

const HOURS_12: Duration = Duration::from_secs(12 * 3600);

pub struct World {
    pub snapshot: Snapshot,
    pub metrics: Arc<Metrics>,
    /// Of the request; it does not go on, so that nothing falls due while it is measured.
    pub now: UnixTime,
    pub claims: Claims,
    pub token: String,
    /// As it is when it is decided that it goes on.
    pub request: RequestHeader,
    pub request_id: HeaderValue,
    /// The same head as it came.
    pub raw: Vec<u8>,
}

/// An operator's configuration with so many hosts. Its certificates are missing, which is a fault that a snapshot can
/// be built without regard to.
pub fn config(hosts: usize) -> (Config, Faults) {
    config_with(hosts, POOLS)
}

fn config_with(hosts: usize, pools: &str) -> (Config, Faults) {
    let mut yaml = [KEYS, pools, "services:\n"].concat();
    for service in 0..hosts.div_ceil(HOSTS_OF_A_SERVICE) {
        let first = service * HOSTS_OF_A_SERVICE;
        let names: Vec<String> =
            (first..hosts.min(first + HOSTS_OF_A_SERVICE)).map(|at| format!("h{at}.iqueue.test")).collect();
        let routes = "[{path: /api, access: required}, {path: /status, access: public}]";
        writeln!(yaml, "  s{service}: {{hosts: [{}], pool: iqueue, routes: {routes}}}", names.join(", ")).unwrap();
    }
    config::parse(Path::new("edge.yaml"), &yaml).unwrap_or_else(|faults| panic!("{faults}"))
}

impl World {
    pub fn new(hosts: usize) -> Self {
        Self::of(config(hosts))
    }

    /// One pool, which chooses among so many servers in this way.
    pub fn with_servers(servers: usize, balance: &str) -> Self {
        let server = |at: usize| {
            let (host, weight) = (at % 250 + 1, WEIGHTS[at % WEIGHTS.len()]);
            format!("{{address: \"10.0.0.{host}:9001\", weight: {weight}}}")
        };
        let servers: Vec<String> = (0..servers).map(server).collect();
        let servers = servers.join(", ");
        Self::of(config_with(1, &format!("pools: {{iqueue: {{servers: [{servers}], balance: {balance}}}}}\n")))
    }

    fn of((config, mut faults): (Config, Faults)) -> Self {
        let clock = Clock::default();
        let (names, threads) = (Resolver::unobserved(), BlockingThreads::new().unwrap());
        let loaded =
            LoadedFiles::read(&config, &clock, &Certificates::default(), &names, &threads, &mut faults).unwrap();
        let metrics = Arc::new(Metrics::new("bench").unwrap());
        let store = Arc::new(MemoryStore::new(clock.clone(), 1_000));
        let lasting = lasting(&clock, &metrics, Arc::clone(&store) as _);
        let snapshot = Snapshot::build(&config, loaded.files, &lasting, &Ports::new([(443, None)].into_iter()));
        let now = clock.now();
        let claims = claims(snapshot.guard.tokens().issuer(), now);
        let token = snapshot.guard.tokens().mint(&claims).unwrap();
        let mut request = request(&token);
        let id = SessionId::parse(&claims.sid).unwrap();
        let record = SessionRecord {
            user: claims.sub.clone(),
            created: now,
            last_accessed: now,
            idle_timeout: HOURS_12,
            fingerprint: snapshot.guard.fingerprints().of(&request.headers, &id),
            expires: now.plus(HOURS_12),
        };
        super::at_once(store.insert(&id.key(), &record, HOURS_12)).unwrap();
        let raw = raw(&request);
        headers::rewrite(&mut request, |_| {});
        let request_id = HeaderValue::from_str("3e0d9c6a-54a5-4a3e-8d5e-0a4f2ad6f6a4").unwrap();
        Self { snapshot, metrics, now, claims, token, request, request_id, raw }
    }
}

/// What outlives a snapshot: no log, no users, nobody who signs in.
fn lasting(clock: &Clock, metrics: &Arc<Metrics>, store: Arc<dyn SessionStore>) -> SharedState {
    let folder = tempfile::tempdir().unwrap();
    let users = UserStore::Sqlite { path: folder.path().join("users.db") };
    let directory = users::open_or_create(&users, clock.clone()).unwrap().sign_on;
    let limits = LoginLimits { workers: 1, queue: 1, deadline: Duration::from_secs(1) };
    SharedState {
        clock: clock.clone(),
        metrics: Arc::clone(metrics),
        store,
        sessions_are_checked: true,
        rates: Arc::default(),
        seen: Arc::default(),
        private: Arc::default(),
        servers: Arc::default(),
        names: Resolver::unobserved(),
        maintenance: Arc::new(MaintenanceSwitches::new(metrics.traffic.maintenance.clone())),
        blocking: Arc::new(BlockingThreads::new().unwrap()),
        streams: Arc::new(Streams::new(metrics.traffic.streams.clone())),
        users: Arc::default(),
        logins: Arc::new(LoginPool::start(directory, limits).unwrap()),
        audit: Arc::new(AuditLog::new(
            LogWriter::off(),
            OnWriteError::Count,
            metrics.operation.audit_events_suppressed.clone(),
        )),
    }
}

fn claims(issuer: &str, now: UnixTime) -> Claims {
    let now = now.seconds();
    Claims {
        iss: issuer.into(),
        sub: "0198c1a2-3b4c-7d5e-8f60-718293a4b5c6".into(),
        name: "ada".into(),
        email: Some("ada@example.com".into()),
        roles: vec!["clerk".into(), "admin".into()],
        services: vec!["s0".into(), "s1".into()],
        sid: SessionId::random().unwrap().as_str().into(),
        dir: Some(0),
        jti: "5c0f6a0e-7f64-4c55-93a2-3f0a6f4d2b11".into(),
        auth_time: now,
        iat: now,
        nbf: now,
        exp: now + HOURS_12.as_secs(),
        aud: "s0".into(),
        idle: 1800,
    }
}

/// As a browser asks an application's page for data, with cookies of the application's before and after ours.
fn request(token: &str) -> RequestHeader {
    let mut request = RequestHeader::build("GET", b"/api/orders/17?fields=name,state", Some(16)).unwrap();
    for (name, value) in [
        ("Host", HOST),
        (
            "User-Agent",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/149.0.0.0 Safari/537.36",
        ),
        ("Accept", "application/json, text/plain, */*"),
        ("Accept-Language", "en-US,en;q=0.9"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("Referer", "https://h0.iqueue.test/orders"),
        ("Sec-Fetch-Dest", "empty"),
        ("Sec-Fetch-Mode", "cors"),
        ("Sec-Fetch-Site", "same-origin"),
    ] {
        request.append_header(name, value).unwrap();
    }
    let cookies = format!("theme=dark; _ga=GA1.1.1299783.1763; {COOKIE}={token}; lang=en; csrftoken=6hT2bLxVwz0Qq");
    request.append_header("Cookie", cookies).unwrap();
    request
}

fn raw(request: &RequestHeader) -> Vec<u8> {
    let mut raw = format!("{} {} HTTP/1.1\r\n", request.method, request.uri).into_bytes();
    for (name, value) in &request.headers {
        raw.extend_from_slice(name.as_str().as_bytes());
        raw.extend_from_slice(b": ");
        raw.extend_from_slice(value.as_bytes());
        raw.extend_from_slice(b"\r\n");
    }
    raw.extend_from_slice(b"\r\n");
    raw
}
