//! `sentry-edge demo`, as somebody tries it for the first time: one command, a browser, a user name and a password.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::harness::edge::TOKEN_COOKIE;
use crate::harness::process::{sentry_edge, text};
use crate::harness::{Client, Running, client, eventually, free_address, memcached};

const HOSTS: [&str; 3] = ["sentry", "iqueue", "dextor"];

/// A demonstration that runs in a folder.
struct Demo {
    process: Running,
    address: SocketAddr,
    admin: SocketAddr,
    data: PathBuf,
}

fn demo(data: &Path, more: &[&str]) -> Demo {
    let (address, admin) = (free_address(), free_address());
    let (listen, tell) = (address.to_string(), admin.to_string());
    let own = ["demo", "--listen", &listen, "--admin", &tell, "--data", data.to_str().unwrap()];
    let mut process = Running::start(&[&own[..], more].concat());
    eventually("the URL is printed", || {
        assert!(!process.has_ended() || process.stdout().contains("https://"), "{}", process.stderr());
        process.stdout().contains("Ctrl-C")
    });
    Demo { process, address, admin, data: data.to_owned() }
}

impl Demo {
    fn url(&self, name: &str, path: &str) -> String {
        format!("https://{name}.localhost:{}{path}", self.address.port())
    }

    fn client(&self) -> Client {
        client(self.address).trusting(&self.data.join("ca.pem"))
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.data.join(name)).unwrap()
    }

    /// User name and password, as the file has them.
    fn credentials(&self) -> (String, String) {
        let text = self.read("credentials");
        let lines: Vec<&str> = text.lines().collect();
        let [name, password] = lines[..] else { panic!("two lines: {text:?}") };
        (name.into(), password.into())
    }

    fn stop(mut self) {
        self.process.signal("INT");
        assert_eq!(self.process.end().code(), Some(0), "{}", self.process.stderr());
    }
}

/// First access, second access, other service, sign-out: what the documents draw, with what the folder holds.
fn the_whole_flow(demo: &Demo) {
    let (name, password) = demo.credentials();
    let mut browser = demo.client();
    let form = browser.follow(&demo.url("iqueue", "/?a=b")).pop().unwrap();
    assert_eq!(form.url.split('?').next().unwrap(), demo.url("sentry", "/login"));
    assert_eq!(browser.fill_in(&form, &name, "a wrong password").status, 401);
    let page = browser.sign_in(&demo.url("iqueue", "/?a=b"), &name, &password).pop().unwrap();
    assert_eq!((page.status, page.url.as_str()), (200, demo.url("iqueue", "/?a=b").as_str()));
    assert!(page.body.contains(&format!("<strong id=user>{name}</strong>")), "{}", page.body);
    assert!(page.body.contains("<code id=path>/?a=b</code>"), "{}", page.body);
    assert!(!page.body.contains(TOKEN_COOKIE), "the application is not shown the token");

    let hops = browser.follow(&demo.url("dextor", "/"));
    assert!(hops.iter().all(|hop| !hop.body.contains("name=\"password\"")), "no second login");
    let page = hops.last().unwrap();
    assert!(page.body.contains("<h1>dextor</h1>") && page.body.contains(&name), "{}", page.body);

    assert_eq!(browser.sign_out(&demo.url("iqueue", "/.sentry/logout")).status, 200);
    for service in ["iqueue", "dextor"] {
        let last = browser.follow(&demo.url(service, "/")).pop().unwrap();
        assert!(last.body.contains("name=\"password\""), "{service} asks for the login again");
    }
}

#[test]
fn one_command_shows_the_whole_flow() {
    let folder = tempfile::tempdir().unwrap();
    let demo = demo(&folder.path().join("made/on/the/spot"), &[]);
    let told = demo.process.stdout();
    for name in ["iqueue", "dextor"] {
        assert!(told.contains(&demo.url(name, "/")), "{told}");
    }
    let (name, password) = demo.credentials();
    assert!(told.contains(&name) && told.contains(&password), "what to sign in with: {told}");
    assert!(told.contains(demo.data.join("ca.pem").to_str().unwrap()), "what to trust: {told}");
    the_whole_flow(&demo);
    let ready = client(demo.admin).get("http://admin.test/readyz");
    assert_eq!(ready.status, 200, "{}", ready.body);
    demo.stop();
}

#[test]
fn the_flow_works_over_http_2() {
    let folder = tempfile::tempdir().unwrap();
    let demo = demo(folder.path(), &[]);
    let (name, password) = demo.credentials();
    let mut browser = demo.client().http2();
    let page = browser.sign_in(&demo.url("dextor", "/"), &name, &password).pop().unwrap();
    assert!(page.status == 200 && page.body.contains("<h1>dextor</h1>"), "{}", page.body);
    demo.stop();
}

#[test]
fn sessions_can_be_in_a_real_memcached() {
    let memcached = memcached();
    let folder = tempfile::tempdir().unwrap();
    let demo = demo(folder.path(), &["--memcached", &memcached.address()]);
    assert!(demo.read("edge.yaml").contains(&memcached.address()));
    let (name, password) = demo.credentials();
    let mut browser = demo.client();
    browser.sign_in(&demo.url("iqueue", "/"), &name, &password);
    assert_eq!(memcached.session_records().len(), 1, "the session is there");
    the_whole_flow(&demo);
    demo.stop();
}

#[test]
fn a_second_start_keeps_ca_credentials_and_with_a_memcached_the_sessions() {
    let memcached = memcached();
    let folder = tempfile::tempdir().unwrap();
    let first = demo(folder.path(), &["--memcached", &memcached.address()]);
    let kept = ["ca.pem", "edge.pem", "edge.key", "jwt.key", "credentials"];
    let before = kept.map(|name| first.read(name));
    let (name, password) = first.credentials();
    let mut browser = first.client();
    browser.sign_in(&first.url("iqueue", "/"), &name, &password);
    let token = browser.cookie("iqueue.localhost", TOKEN_COOKIE).unwrap().to_owned();
    first.stop();

    let second = demo(folder.path(), &["--memcached", &memcached.address()]);
    assert_eq!(kept.map(|name| second.read(name)), before);
    assert!(second.read("edge.yaml").contains(&second.address.to_string()), "the configuration is of this start");
    let mut again = second.client();
    again.set_cookie("iqueue.localhost", TOKEN_COOKIE, &token);
    assert_eq!(again.open(&second.url("iqueue", "/")).status, 200, "still signed in");
    the_whole_flow(&second);
    second.stop();
}

#[test]
fn the_credentials_file_decides_which_password_holds() {
    let folder = tempfile::tempdir().unwrap();
    demo(folder.path(), &[]).stop();
    std::fs::write(folder.path().join("credentials"), "demo\nmy own password\n").unwrap();
    let again = demo(folder.path(), &[]);
    assert_eq!(again.credentials().1, "my own password");
    the_whole_flow(&again);
    again.stop();
}

#[test]
fn what_it_writes_is_an_ordinary_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let demo = demo(folder.path(), &[]);
    let file = folder.path().join("edge.yaml");
    let checked = sentry_edge(&["check", "-c", file.to_str().unwrap(), "--connect"]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    let demo_yaml = demo.read("edge.yaml");
    demo.stop();
    let checked = sentry_edge(&["check", "-c", file.to_str().unwrap()]);
    assert_eq!(text(&checked.stdout), format!("{}: configuration OK\n", file.display()), "{}", text(&checked.stderr));

    // Its own applications are gone; the sign-on host is there all the same.
    std::fs::write(&file, demo_yaml.replace("level: warn", "level: info")).unwrap();
    let mut served = Running::start(&["run", "-c", file.to_str().unwrap()]);
    let mut browser = client(demo_address(&file)).trusting(&folder.path().join("ca.pem"));
    eventually("it serves", || {
        assert!(!served.has_ended(), "{}", served.stderr());
        served.stderr().contains("admin on")
    });
    let url = format!("https://sentry.localhost:{}/login", demo_address(&file).port());
    assert_eq!(browser.open(&url).status, 200);
    served.signal("TERM");
    assert_eq!(served.end().code(), Some(0));
}

/// Where a configuration that the demonstration wrote listens.
fn demo_address(file: &Path) -> SocketAddr {
    let (config, faults) = sentry_edge::config::read(file).unwrap();
    assert!(faults.is_empty(), "{faults}");
    config.server.listeners[0].address
}

#[test]
fn what_is_secret_is_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let demo = demo(folder.path(), &[]);
    for name in ["edge.key", "jwt.key", "credentials", "users.db", "edge.yaml"] {
        let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}: {mode:o}");
    }
    let names =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    for name in names {
        assert!(
            !name.ends_with(".new") && !name.contains("ca.key"),
            "nothing half written, and no CA key to lose: {name}"
        );
    }
    let (_, password) = demo.credentials();
    assert!(password.len() >= 16, "a password that nobody guesses: {password}");
    let key = demo.read("jwt.key");
    for log in ["access.log", "audit.log"] {
        let written = demo.read(log);
        assert!(!written.contains(&password) && !written.contains(key.trim()), "{log}");
    }
    demo.stop();
}

#[test]
fn each_folder_has_secrets_of_its_own() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (demo(one.path(), &[]), demo(other.path(), &[]));
    for name in ["ca.pem", "edge.key", "jwt.key", "credentials"] {
        assert_ne!(first.read(name), second.read(name), "{name}");
    }
    first.stop();
    second.stop();
}

#[test]
fn the_certificate_covers_the_three_hosts_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let demo = demo(folder.path(), &[]);
    for name in HOSTS {
        assert_ne!(demo.client().get(&demo.url(name, "/")).status, 421, "{name}");
    }
    let asked = std::panic::catch_unwind(|| demo.client().get(&demo.url("other", "/")));
    assert!(asked.is_err(), "no handshake for another name");
    demo.stop();
}

#[test]
fn what_stands_in_the_way_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    let (data, free) = (folder.path().join("data"), free_address().to_string());
    let (data, file) = (data.to_str().unwrap(), file.to_str().unwrap());
    for (number, arguments, status, words) in [
        (1, ["--listen", &address, "--admin", &free, "--data", data], 1, "cannot listen on"),
        (2, ["--listen", &free, "--admin", &address, "--data", data], 1, "cannot listen on"),
        (3, ["--listen", &free, "--admin", &free, "--data", file], 1, file),
        (4, ["--listen", "8443", "--admin", &free, "--data", data], 2, "--listen"),
        (5, ["--listen", &free, "--memcached", "nonsense", "--data", data], 1, "sessions.memcached.servers"),
    ] {
        let ended = sentry_edge(&[&["demo"], &arguments[..]].concat());
        let told = text(&ended.stderr);
        assert_eq!(ended.status.code(), Some(status), "row {number}: {told}");
        assert!(told.contains(words), "row {number}: {told}");
        assert_eq!(text(&ended.stdout), "", "row {number}");
    }
}
