//! An edge in this process, from a configuration file like anybody's.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sentry_edge::clock::Clock;
use sentry_edge::config::{self, UserStore};
use sentry_edge::server::{FastPathMode, Options, StartError};
use sentry_edge::users::{self, Email, Grants, NewUser, Password, StoredHash, UserName, UserRegistry, password};

use super::certificates::ca;
use super::client::{Client, Response, client};
use super::origin::Origin;
use super::write_private;

pub const PASSWORD: &str = "correct horse battery staple";
pub const HMAC_KEY: &str = "0123456789abcdef0123456789abcdef";
pub const TOKEN_COOKIE: &str = "__Host-JWTCookie";
pub const STATE_COOKIE: &str = "__Host-SSOState";

/// An edge being put together. Two services, iqueue and dextor, unless told otherwise. A clone starts another
/// edge with the same settings.
#[derive(Clone)]
pub struct Builder {
    domain: String,
    services: Vec<(String, String)>,
    pools: Vec<(String, String)>,
    sentry: String,
    sessions: String,
    server: String,
    drain: String,
    admin: String,
    listeners: String,
    keys: String,
    log: String,
    tls: String,
    certificates: Vec<Vec<String>>,
    users: Vec<(String, Vec<String>, Vec<String>)>,
    files: Vec<(String, String)>,
    balanced: bool,
    options: Options,
}

pub struct Edge {
    pub inner: sentry_edge::server::Edge,
    pub clock: Clock,
    /// Shared with its twins.
    pub folder: Arc<tempfile::TempDir>,
    domain: String,
    users: Vec<String>,
    balanced: bool,
    options: Options,
}

/// The request path of edges whose test does not name one. `make test` runs the HTTP modules a second time with
/// `FAST_PATH=off`, which only this line reads, so that their expectations hold for the full path too.
fn fast_path() -> FastPathMode {
    match std::env::var("FAST_PATH").as_deref() {
        Err(_) | Ok("on") => FastPathMode::On,
        Ok("off") => FastPathMode::Off,
        Ok(other) => panic!("FAST_PATH is `on` or `off`, not {other:?}"),
    }
}

/// An edge with Ada, who is registered for iqueue and dextor and an administrator.
pub fn edge() -> Builder {
    Builder {
        domain: "test".into(),
        services: Vec::new(),
        pools: Vec::new(),
        sentry: String::new(),
        sessions: "{store: memory}".into(),
        server: String::new(),
        drain: "5s".into(),
        admin: String::new(),
        listeners: String::new(),
        keys: format!("[{{id: main, algorithm: HS256, secret: {{value: {HMAC_KEY}}}}}]"),
        log: "{level: warn, access: {path: access.log}, audit: {path: audit.log}}".into(),
        tls: String::new(),
        certificates: Vec::new(),
        users: Vec::new(),
        files: Vec::new(),
        balanced: false,
        options: Options { fast_path: fast_path(), ..Options::default() },
    }
    .user("ada", &["iqueue", "dextor"], &["admin"])
}

impl Builder {
    /// Hosts end in this instead of `test`.
    pub fn domain(mut self, domain: &str) -> Self {
        self.domain = domain.into();
        self
    }

    /// A service on `NAME.DOMAIN`, served by one origin.
    pub fn service(self, name: &str, origin: &Origin) -> Self {
        self.service_with(name, origin, "")
    }

    /// The same, with more keys in YAML's flow style: `idle_timeout: 5m, routes: […]`.
    pub fn service_with(mut self, name: &str, origin: &Origin, more: &str) -> Self {
        self.pools.push((name.into(), format!("{{servers: [\"{}\"]}}", origin.address)));
        self.services.push((name.into(), more.into()));
        self
    }

    /// Replaces a service's pool.
    pub fn pool(mut self, name: &str, yaml: &str) -> Self {
        self.pools.retain(|(other, _)| other != name);
        self.pools.push((name.into(), yaml.into()));
        self
    }

    /// More keys of `sentry`, in flow style.
    pub fn sentry(mut self, more: &str) -> Self {
        self.sentry = format!(", {more}");
        self
    }

    pub fn keys(mut self, yaml: &str) -> Self {
        self.keys = yaml.into();
        self
    }

    /// More keys of `server`, in flow style.
    pub fn server(mut self, more: &str) -> Self {
        self.server = format!(", {more}");
        self
    }

    /// Replaces how long the edge takes to stop.
    pub fn server_drain(mut self, drain: &str) -> Self {
        self.drain = drain.into();
        self
    }

    /// More keys of `server.admin`, in flow style.
    pub fn admin(mut self, more: &str) -> Self {
        self.admin = format!(", {more}");
        self
    }

    /// More keys of both listeners, in flow style.
    pub fn listeners(mut self, more: &str) -> Self {
        self.listeners = format!(", {more}");
        self
    }

    /// Replaces the whole of `log`.
    pub fn log(mut self, yaml: &str) -> Self {
        self.log = yaml.into();
        self
    }

    /// More keys of `tls`, in flow style.
    pub fn tls(mut self, more: &str) -> Self {
        self.tls = format!(", {more}");
        self
    }

    /// One more certificate, in the edge's folder as `extra0.pem`, then `extra1.pem` and so on.
    pub fn certificate(mut self, names: &[&str]) -> Self {
        self.certificates.push(names.iter().map(|name| (*name).to_owned()).collect());
        self
    }

    pub fn memcached(self, address: &str) -> Self {
        self.memcached_within(address, "5s")
    }

    /// The same, with the time that an answer to a look-up may take. A login may always take longer than a busy machine
    /// needs.
    pub fn memcached_within(self, address: &str, timeout: &str) -> Self {
        self.sessions(&format!(
            "{{store: memcached, memcached: {{servers: [\"{address}\"], timeout: {timeout}, sign_on_timeout: 10s}}, \
             on_outage: deny}}"
        ))
    }

    /// Replaces the whole of `sessions`, in flow style.
    pub fn sessions(mut self, yaml: &str) -> Self {
        self.sessions = yaml.into();
        self
    }

    /// Behind something that spreads port 443 over several edges, so that no URL names a port.
    pub fn balanced(mut self) -> Self {
        self.balanced = true;
        self
    }

    /// Resolves names of servers by this instead of the system's resolver.
    pub fn lookup(mut self, lookup: impl Fn(&str) -> std::io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        self.options.lookup = Some(Arc::new(lookup));
        self
    }

    /// Whether requests may take the fast path, whatever the rest of the run does.
    pub fn fast_path(mut self, fast_path: FastPathMode) -> Self {
        self.options.fast_path = fast_path;
        self
    }

    pub fn user(mut self, name: &str, services: &[&str], roles: &[&str]) -> Self {
        let owned = |list: &[&str]| list.iter().map(|item| (*item).to_owned()).collect();
        self.users.push((name.into(), owned(services), owned(roles)));
        self
    }

    /// A file beside the configuration.
    pub fn file(mut self, name: &str, content: &str) -> Self {
        self.files.push((name.into(), content.into()));
        self
    }

    fn yaml(&self) -> String {
        let extra = |at: usize| format!(", {{certificate: extra{at}.pem, key: extra{at}.key}}");
        let extra: String = (0..self.certificates.len()).map(extra).collect();
        let listeners = &self.listeners;
        let mut yaml = format!(
            "server: {{listeners: [{{address: \"127.0.0.1:0\", protocol: https{listeners}}}, {{address: \"127.0.0.1:0\", protocol: http{listeners}}}], \
             admin: {{address: \"127.0.0.1:0\"{}}}, drain: {}{}}}\n\
             log: {}\n\
             tls: {{certificates: [{{certificate: edge.pem, key: edge.key}}{}]{}}}\n\
             sentry: {{host: sentry.{}, keys: {}{}}}\n\
             sessions: {}\nusers: {{refresh: 20ms, sqlite: {{path: users.db}}}}\nservices:\n",
            self.admin,
            self.drain,
            self.server,
            self.log,
            extra,
            self.tls,
            self.domain,
            self.keys,
            self.sentry,
            self.sessions,
        );
        for (name, more) in &self.services {
            let comma = if more.is_empty() { "" } else { ", " };
            let hosts =
                if more.contains("hosts:") { String::new() } else { format!("hosts: [{name}.{}], ", self.domain) };
            writeln!(yaml, "  {name}: {{{hosts}pool: {name}{comma}{more}}}").unwrap();
        }
        yaml.push_str("pools:\n");
        for (name, pool) in &self.pools {
            writeln!(yaml, "  {name}: {pool}").unwrap();
        }
        yaml
    }

    /// Writes the folder that [`start`](Self::start) would start from, and answers its configuration.
    pub fn write(&self) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let wildcards = format!("*.{}", self.domain);
        let names = ["sentry", "iqueue", "dextor"].map(|name| format!("{name}.{}", self.domain));
        let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
        // Browsers take no wildcard below a top-level name.
        if self.domain != "localhost" {
            names.push(&wildcards);
        }
        let certificate = ca().issue(&names);
        write_private(folder.path().join("edge.pem"), certificate.pem);
        write_private(folder.path().join("edge.key"), certificate.key);
        for (at, names) in self.certificates.iter().enumerate() {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let certificate = ca().issue(&names);
            write_private(folder.path().join(format!("extra{at}.pem")), certificate.pem);
            write_private(folder.path().join(format!("extra{at}.key")), certificate.key);
        }
        write_private(folder.path().join("ca.pem"), &ca().pem);
        for (name, content) in &self.files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            write_private(path, content);
        }
        let file = folder.path().join("edge.yaml");
        write_private(&file, self.yaml());
        add_users(folder.path(), &self.users);
        (folder, file)
    }

    pub fn start(self) -> Edge {
        let (folder, file) = self.write();
        let clock = Clock::default();
        let inner =
            start(&file, clock.clone(), &self.options).unwrap_or_else(|error| panic!("{error}\n{}", self.yaml()));
        let users = self.users.iter().map(|(name, ..)| name.clone()).collect();
        let folder = Arc::new(folder);
        let (domain, balanced, options) = (self.domain, self.balanced, self.options);
        Edge { inner, clock, folder, domain, users, balanced, options }
    }
}

/// An edge from a file of `config/examples`, with `bob` as its user. See [`example_with`].
pub fn example(name: &str, certificates: &[&[&str]], services: &[&str], edit: impl FnOnce(String) -> String) -> Edge {
    example_with(name, certificates, &[("bob", services, &[])], &[], edit)
}

/// The same with these users (names, services and roles), with files in its folder, and with everything that it names below
/// `/etc/sentry-edge` and `/var/lib/sentry-edge` in that folder. `certificates` are the
/// names that each of its certificates covers, `edit` puts the
/// tests' servers in the place of those that it names.
pub fn example_with(
    name: &str,
    certificates: &[&[&str]],
    users: &[(&str, &[&str], &[&str])],
    files: &[(&str, &str)],
    edit: impl FnOnce(String) -> String,
) -> Edge {
    let folder = tempfile::tempdir().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples").join(name);
    let mut yaml = edit(std::fs::read_to_string(path).unwrap());
    for (there, here) in [
        ("0.0.0.0:443", "127.0.0.1:0"),
        ("0.0.0.0:80", "127.0.0.1:0"),
        ("127.0.0.1:9090", "127.0.0.1:0"),
        ("/etc/sentry-edge/", &*format!("{}/", folder.path().display())),
        ("/var/lib/sentry-edge/", &*format!("{}/", folder.path().display())),
    ] {
        yaml = yaml.replace(there, here);
    }
    yaml.push_str("log: {level: warn, access: {path: access.log}, audit: {path: audit.log}}\n");
    let document: serde_yaml::Value = serde_yaml::from_str(&yaml).unwrap();
    let text = |value: &serde_yaml::Value| PathBuf::from(value.as_str().unwrap());
    let write = |path: PathBuf, content: &str| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_private(path, content);
    };
    for (written, names) in document["tls"]["certificates"].as_sequence().unwrap().iter().zip(certificates) {
        let certificate = ca().issue(names);
        write(text(&written["certificate"]), &certificate.pem);
        write(text(&written["key"]), &certificate.key);
    }
    for key in document["sentry"]["keys"].as_sequence().unwrap() {
        write(text(&key["secret"]["file"]), HMAC_KEY);
    }
    let file = folder.path().join("edge.yaml");
    write_private(&file, &yaml);
    for (name, content) in files {
        write(folder.path().join(name), content);
    }
    let owned = |list: &[&str]| list.iter().map(|item| (*item).to_owned()).collect();
    let users: Vec<_> =
        users.iter().map(|(name, services, roles)| ((*name).to_owned(), owned(services), owned(roles))).collect();
    add_users(folder.path(), &users);
    let (clock, options) = (Clock::default(), Options { fast_path: fast_path(), ..Options::default() });
    let inner = start(&file, clock.clone(), &options).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    let domain = certificates[0][0].trim_start_matches("*.").to_owned();
    Edge {
        inner,
        clock,
        folder: Arc::new(folder),
        domain,
        users: users.into_iter().map(|(name, ..)| name).collect(),
        balanced: false,
        options,
    }
}

/// Makes the user directory of a folder: names, services and roles.
fn add_users(folder: &Path, users: &[(String, Vec<String>, Vec<String>)]) {
    let store = UserStore::Sqlite { path: folder.join("users.db") };
    let registry = users::open_or_create(&store, Clock::default()).unwrap().registry;
    for (name, services, roles) in users {
        let new = NewUser {
            name: UserName::parse(name).unwrap(),
            email: Email::parse(&format!("{name}@example.com")).ok(),
            grants: Grants::parse(services.clone(), roles.clone()).unwrap(),
            disabled: false,
        };
        registry.add(&new, stored_hash()).unwrap();
    }
}

fn start(file: &Path, clock: Clock, options: &Options) -> Result<sentry_edge::server::Edge, StartError> {
    let read = config::read(file).map_err(StartError::Config)?;
    sentry_edge::server::Edge::start_with(file, read, clock, options.clone())
}

/// Hashed once for the whole run: it is slow on purpose.
fn stored_hash() -> &'static StoredHash {
    static HASH: OnceLock<StoredHash> = OnceLock::new();
    HASH.get_or_init(|| password::hash(&Password::new(PASSWORD.into()).unwrap()).unwrap())
}

/// The value of a metric in a scrape.
pub fn metric(scrape: &str, name: &str, labels: &str) -> f64 {
    let line = if labels.is_empty() { format!("{name} ") } else { format!("{name}{{{labels}}} ") };
    scrape.lines().find_map(|l| l.strip_prefix(&line)).map_or(0.0, |value| value.parse().unwrap())
}

/// The lines of a log, once there are at least so many. The last one may be on its way, and is left out then.
pub fn log_lines(path: &std::path::Path, at_least: usize) -> Vec<serde_json::Value> {
    let read = || {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        text[..whole].to_owned()
    };
    super::eventually("the log has its lines", || read().lines().count() >= at_least);
    read().lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// The lines of an event in an audit log, once there are at least so many.
pub fn events(path: &std::path::Path, event: &str, at_least: usize) -> Vec<serde_json::Value> {
    let read = || log_lines(path, 0).into_iter().filter(|line| line["event"] == event).collect::<Vec<_>>();
    super::eventually_or(|| read().len() >= at_least, || format!("{at_least} times {event}: {:?}", log_lines(path, 0)));
    read()
}

impl Edge {
    pub fn address(&self) -> SocketAddr {
        self.inner.https_addresses()[0]
    }

    pub fn http_address(&self) -> SocketAddr {
        self.inner.http_addresses()[0]
    }

    pub fn host(&self, name: &str) -> String {
        format!("{name}.{}", self.domain)
    }

    /// `https://NAME.DOMAIN:PORT` with a path; without the port behind a balancer.
    pub fn url(&self, name: &str, path: &str) -> String {
        if self.balanced {
            return format!("https://{}{path}", self.host(name));
        }
        format!("https://{}:{}{path}", self.host(name), self.address().port())
    }

    /// Stops this edge and starts another from the same folder, on other ports.
    pub fn restart(&mut self) {
        let file = self.folder.path().join("edge.yaml");
        self.inner = start(&file, self.clock.clone(), &self.options).unwrap();
    }

    /// Another edge from the same folder, and so with the same users, on other ports.
    pub fn twin(&self) -> Self {
        let inner = start(&self.folder.path().join("edge.yaml"), self.clock.clone(), &self.options).unwrap();
        let (clock, folder) = (self.clock.clone(), Arc::clone(&self.folder));
        let (domain, users) = (self.domain.clone(), self.users.clone());
        Self { inner, clock, folder, domain, users, balanced: self.balanced, options: self.options.clone() }
    }

    /// Another edge of the same users and, by its own clock, from a configuration that was edited: what a second edge
    /// is while a change has reached only one of the two.
    pub fn twin_that_differs(&self, name: &str, clock: Clock, edit: impl FnOnce(String) -> String) -> Self {
        let yaml = edit(std::fs::read_to_string(self.folder.path().join("edge.yaml")).unwrap());
        let file = self.folder.path().join(format!("{name}.yaml"));
        write_private(&file, &yaml);
        let inner = start(&file, clock.clone(), &self.options).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
        let (domain, users) = (self.domain.clone(), self.users.clone());
        let folder = Arc::clone(&self.folder);
        Self { inner, clock, folder, domain, users, balanced: self.balanced, options: self.options.clone() }
    }

    /// A client that has signed in at a page of a service.
    pub fn signed_in_at(&self, service: &str, path: &str) -> Client {
        let mut client = self.client();
        let hops = client.sign_in(&self.url(service, path), &self.users[0], PASSWORD);
        assert_eq!(hops.last().unwrap().status, 200);
        client
    }

    /// A client over HTTP/1.1 that nobody has signed in.
    pub fn client(&self) -> Client {
        client(self.address())
    }

    /// A client that has signed in at iqueue as the first user and opened its first page.
    pub fn signed_in(&self) -> Client {
        let mut client = self.client();
        self.sign_in(&mut client, "iqueue", &self.users[0].clone());
        client
    }

    /// From a service's first page through the login to that page again; answers every response on the way.
    pub fn sign_in(&self, client: &mut Client, service: &str, user: &str) -> Vec<Response> {
        let hops = client.sign_in(&self.url(service, "/"), user, PASSWORD);
        assert_eq!(hops.last().unwrap().status, 200, "{}", hops.last().unwrap().body);
        hops
    }

    /// Fills in a login form and sends it.
    pub fn send_login(&self, client: &mut Client, form: &Response, user: &str, password: &str) -> Response {
        client.fill_in(form, user, password)
    }

    /// The user directory, as the command line opens it.
    pub fn directory(&self) -> Arc<dyn UserRegistry> {
        let store = UserStore::Sqlite { path: self.folder.path().join("users.db") };
        users::open(&store, self.clock.clone()).unwrap().registry
    }

    /// As if so much time had passed, for everything but memcached's own clock.
    pub fn let_pass(&self, time: Duration) {
        self.clock.advance(time);
    }

    /// The value of a metric, 0 when it was never touched. `labels` as in the text format: `a="b",c="d"`.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        metric(&String::from_utf8(self.inner.metrics().scrape().unwrap()).unwrap(), name, labels)
    }

    /// The sum of a metric over all its labels.
    pub fn metric_sum(&self, name: &str) -> f64 {
        let text = String::from_utf8(self.inner.metrics().scrape().unwrap()).unwrap();
        let of_this = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        text.lines().filter(of_this).map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// Rewrites the configuration file and has it read again.
    pub fn reload_with(&mut self, change: impl FnOnce(String) -> String) {
        let file = self.folder.path().join("edge.yaml");
        let yaml = change(std::fs::read_to_string(&file).unwrap());
        std::fs::write(&file, &yaml).unwrap();
        self.inner.reload().unwrap_or_else(|faults| panic!("{faults}\n{yaml}"));
    }

    /// The lines of the audit log, once there are at least so many.
    pub fn audit(&self, at_least: usize) -> Vec<serde_json::Value> {
        self.log("audit.log", at_least)
    }

    /// The lines of an event in the audit log, once there are at least so many.
    pub fn events(&self, event: &str, at_least: usize) -> Vec<serde_json::Value> {
        events(&self.folder.path().join("audit.log"), event, at_least)
    }

    pub fn access_log(&self, at_least: usize) -> Vec<serde_json::Value> {
        self.log("access.log", at_least)
    }

    fn log(&self, name: &str, at_least: usize) -> Vec<serde_json::Value> {
        log_lines(&self.folder.path().join(name), at_least)
    }

    /// GET on the admin listener.
    pub fn admin(&self, path: &str) -> Response {
        client(self.inner.admin_address()).get(&format!("http://admin.test{path}"))
    }
}
