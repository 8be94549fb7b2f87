//! An edge in a process of its own with a program behind it, somebody who is signed in, and clients of other makes.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::harness::edge::{Builder, PASSWORD};
use crate::harness::{Browser, Client, Daemon, Origin, browser, edge, origin};

/// A program of `tests/clients/programs` under the interpreter and with the libraries that `tests/clients/setup` saw to.
pub fn program(name: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let installed = root.join("target/clients");
    assert!(installed.join("package-lock.json").exists(), "clients are missing: `make deps`");
    let mut command = match name.rsplit('.').next() {
        Some("py") => Command::new(installed.join("python/bin/python")),
        // Not in the suite, which does not need Go.
        Some("go") => return built(name),
        _ => Command::new("node"),
    };
    command.env("NODE_PATH", installed.join("node/node_modules"));
    command.arg(root.join("tests/clients/programs").join(name));
    command
}

/// A program of Go, once it is built.
fn built(name: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let binary = root.join("target/clients").join(name.trim_end_matches(".go"));
    let source = root.join("tests/clients/programs").join(name);
    run(Command::new("go").args(["build", "-o"]).arg(&binary).arg(source));
    Command::new(binary)
}

/// An application that runs until it is dropped.
pub struct Application {
    child: Child,
    pub address: SocketAddr,
}

/// Starts one, which says on its first line on which port it listens.
pub fn application(name: &str) -> Application {
    let mut child = program(name).stdout(Stdio::piped()).spawn().expect("node and python are installed: `make deps`");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port: u16 =
        line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{name}: {line}")).parse().unwrap();
    Application { child, address: ([127, 0, 0, 1], port).into() }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// An edge with one service, `iqueue`, and Ada's cookie for it.
pub struct Scene {
    pub edge: Daemon,
    pub client: Client,
    /// Has the page that Ada signs in for.
    _welcome: Origin,
}

/// With the application below a path, in a pool of which more keys begin with a comma.
pub fn scene(path: &str, application: SocketAddr, pool: &str) -> Scene {
    scene_with(path, application, pool, |builder| builder)
}

pub fn scene_with(path: &str, application: SocketAddr, pool: &str, more: impl FnOnce(Builder) -> Builder) -> Scene {
    let welcome = origin("iqueue");
    let builder = edge()
        .service_with(
            "iqueue",
            &welcome,
            &format!("compression: [zstd, br, gzip], routes: [{{path: {path}, pool: application}}]"),
        )
        .pool("application", &format!("{{servers: [\"{application}\"]{pool}}}"))
        // One user's clients call themselves by different names.
        .sentry("fingerprint: []");
    let edge = more(builder).run();
    let mut client = edge.client();
    client.sign_in(&edge.url("iqueue", "/"), "ada", PASSWORD);
    assert!(!client.cookie_field("iqueue.test").is_empty());
    Scene { edge, client, _welcome: welcome }
}

impl Scene {
    pub fn ca(&self) -> PathBuf {
        self.edge.folder.path().join("ca.pem")
    }

    pub fn cookie(&self) -> String {
        self.client.cookie_field("iqueue.test")
    }

    /// A client that is told where the edge is and, by `cookie`, who it is.
    pub fn client(&self, name: &str, cookie: &str) -> Command {
        let mut command = program(name);
        command
            .env("EDGE_HOST", "iqueue.test")
            .env("EDGE_PORT", self.edge.address.port().to_string())
            .env("CA", self.ca())
            .env("COOKIE", cookie)
            // What may be set for the machine has no say here.
            .env_remove("https_proxy")
            .env_remove("HTTPS_PROXY");
        command
    }

    /// curl, as a stranger.
    pub fn curl_unknown(&self) -> Command {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "120"]);
        command.arg("--cacert").arg(self.ca());
        command.args(["--resolve", &format!("iqueue.test:{}:127.0.0.1", self.edge.address.port())]);
        command
    }

    /// curl, as Ada.
    pub fn curl(&self) -> Command {
        let mut command = self.curl_unknown();
        command.args(["--cookie", &self.cookie()]);
        command
    }

    pub fn url(&self, path: &str) -> String {
        self.edge.url("iqueue", path)
    }
}

/// Runs a client to its end, which must be a good one, and answers what it printed.
pub fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    let told = || String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {}\n{}", command.get_program(), output.status, told());
    output.stdout
}

/// An edge below a name that browsers resolve themselves, with pages and, under `/ws`, WebSockets behind it; and a
/// browser at its first page, in which Ada has signed in.
pub fn in_a_browser(pages: SocketAddr, sockets: SocketAddr) -> (Daemon, Browser) {
    let edge = edge()
        .domain("app.localhost")
        .service_with(
            "iqueue",
            &origin("nobody"),
            "compression: [zstd, br, gzip], routes: [{path: /ws, pool: sockets}]",
        )
        .pool("iqueue", &format!("{{servers: [\"{pages}\"]}}"))
        .pool("sockets", &format!("{{servers: [\"{sockets}\"]}}"))
        .run();
    let browser = browser();
    let page = format!("https://iqueue.app.localhost:{}/", edge.address.port());
    browser.open(&page);
    browser.fill_in("#username", "ada");
    browser.fill_in("#password", PASSWORD);
    browser.click("button");
    browser.lands_on(&page);
    (edge, browser)
}
