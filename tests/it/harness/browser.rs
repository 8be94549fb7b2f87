//! A real browser: headless Chromium, driven over WebDriver, that trusts the tests' CA and nothing else.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::{Value, json};
use url::Url;

use super::certificates::ca;
use super::{eventually, eventually_or, free_address, runtime};

pub struct Browser {
    pub client: Client,
    driver: Child,
    _home: tempfile::TempDir,
}

/// A tab, by the name that the driver and DevTools have for it.
pub struct Tab(String);

/// A fresh browser with an empty profile.
pub fn browser() -> Browser {
    start(json!({}))
}

/// A browser whose owner has switched scripts off.
pub fn browser_without_scripts() -> Browser {
    start(json!({ "profile.default_content_setting_values.javascript": 2 }))
}

fn start(preferences: Value) -> Browser {
    let home = tempfile::tempdir().unwrap();
    trust_ca(home.path());
    let port = free_address().port();
    let driver = Command::new("chromedriver")
        .arg(format!("--port={port}"))
        .env("HOME", home.path())
        .env_remove("XDG_DATA_HOME")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("chromedriver is installed: `make deps`");
    eventually("chromedriver listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let data = format!("--user-data-dir={}", home.path().join("profile").display());
    let arguments = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-sync",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-dev-shm-usage",
        &data,
    ];
    let capabilities = json!({
        "goog:chromeOptions": { "args": arguments, "prefs": preferences },
        "goog:loggingPrefs": { "browser": "ALL" },
        "acceptInsecureCerts": false,
    });
    let client = runtime().block_on(async {
        ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(capabilities.as_object().unwrap().clone())
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap()
    });
    Browser { client, driver, _home: home }
}

/// Chromium on Linux reads the CAs that a user trusts from an NSS database in the home folder.
fn trust_ca(home: &Path) {
    let database = home.join(".pki/nssdb");
    std::fs::create_dir_all(&database).unwrap();
    let pem = home.join("ca.pem");
    std::fs::write(&pem, &ca().pem).unwrap();
    let database = format!("sql:{}", database.display());
    for arguments in [
        vec!["-d", &database, "-N", "--empty-password"],
        vec!["-d", &database, "-A", "-t", "C,,", "-n", "tests", "-i", pem.to_str().unwrap()],
    ] {
        let done = Command::new("certutil").args(&arguments).status().expect("certutil is installed: `make deps`");
        assert!(done.success(), "certutil {arguments:?}");
    }
}

impl Browser {
    pub fn open(&self, url: &str) {
        runtime().block_on(self.client.goto(url)).unwrap();
    }

    pub fn address(&self) -> String {
        runtime().block_on(self.client.current_url()).unwrap().to_string()
    }

    pub fn title(&self) -> String {
        runtime().block_on(self.client.title()).unwrap()
    }

    /// Waits until this address stands in the address bar and its page is there.
    pub fn lands_on(&self, url: &str) {
        let arrived = || self.address() == url && self.run("return document.readyState") == "complete";
        eventually_or(arrived, || format!("at {} and not at {url}:\n{}", self.address(), self.text()));
    }

    /// Waits until a person sees this text.
    pub fn shows(&self, text: &str) {
        eventually_or(|| self.text().contains(text), || format!("no {text:?} at {}:\n{}", self.address(), self.text()));
    }

    /// Waits until there is such an element with this text in it.
    pub fn shows_in(&self, css: &str, text: &str) {
        let there = || self.text_of(css).is_some_and(|found| found.contains(text));
        eventually_or(there, || format!("no {text:?} in {css} at {}:\n{}", self.address(), self.text()));
    }

    /// The text of the page as a person sees it; none between two pages.
    pub fn text(&self) -> String {
        self.text_of("body").unwrap_or_default()
    }

    fn text_of(&self, css: &str) -> Option<String> {
        runtime().block_on(async { self.client.find(Locator::Css(css)).await.ok()?.text().await.ok() })
    }

    pub fn has(&self, css: &str) -> bool {
        runtime().block_on(async { !self.client.find_all(Locator::Css(css)).await.unwrap().is_empty() })
    }

    /// What a person has typed into a field, or a page has put there.
    pub fn value_of(&self, css: &str) -> String {
        runtime().block_on(async {
            let field = self.client.find(Locator::Css(css)).await.unwrap();
            field.prop("value").await.unwrap().unwrap_or_default()
        })
    }

    /// The `id` of what has the focus.
    pub fn focus(&self) -> String {
        runtime().block_on(async {
            let element = self.client.active_element().await.unwrap();
            element.attr("id").await.unwrap().unwrap_or_default()
        })
    }

    /// Types into whatever has the focus, as a keyboard does.
    pub fn type_text(&self, text: &str) {
        runtime().block_on(async { self.client.active_element().await.unwrap().send_keys(text).await.unwrap() });
    }

    pub fn fill_in(&self, css: &str, text: &str) {
        runtime().block_on(async {
            let field = self.client.find(Locator::Css(css)).await.unwrap();
            field.clear().await.unwrap();
            field.send_keys(text).await.unwrap();
        });
    }

    pub fn click(&self, css: &str) {
        runtime().block_on(async { self.client.find(Locator::Css(css)).await.unwrap().click().await.unwrap() });
    }

    pub fn run(&self, script: &str) -> Value {
        runtime().block_on(self.client.execute(script, Vec::new())).unwrap()
    }

    /// Awaits a promise of the page's: `fetch('/x').then(…)`.
    pub fn wait_for(&self, promise: &str) -> Value {
        let script = format!("const done = arguments[0]; ({promise}).then(done, error => done(String(error)));");
        runtime().block_on(self.client.execute_async(&script, Vec::new())).unwrap()
    }

    pub fn open_tab(&self, url: &str) {
        runtime().block_on(async {
            let tab = self.client.new_window(true).await.unwrap();
            self.client.switch_to_window(tab.handle).await.unwrap();
        });
        self.open(url);
    }

    /// Opens tabs without waiting for any of them, as a browser that restores them.
    pub fn restore_tabs(&self, urls: &[String]) -> Vec<Tab> {
        let open = |url| self.devtools("Target.createTarget", json!({ "url": url }));
        urls.iter().map(|url| Tab(open(url)["targetId"].as_str().unwrap().to_owned())).collect()
    }

    /// The tab that is looked at.
    pub fn tab(&self) -> Tab {
        Tab(runtime().block_on(self.client.window()).unwrap().into())
    }

    pub fn switch_to(&self, tab: &Tab) {
        let handle = tab.0.clone().try_into().unwrap();
        runtime().block_on(self.client.switch_to_window(handle)).unwrap();
    }

    pub fn back(&self) {
        runtime().block_on(self.client.back()).unwrap();
    }

    pub fn forward(&self) {
        runtime().block_on(self.client.forward()).unwrap();
    }

    pub fn reload(&self) {
        runtime().block_on(self.client.refresh()).unwrap();
    }

    /// Into the page's n-th frame, from 0, until [`leave_frame`](Self::leave_frame).
    pub fn enter_frame(&self, n: u16) {
        runtime().block_on(self.client.clone().enter_frame(n)).unwrap();
    }

    pub fn leave_frame(&self) {
        runtime().block_on(self.client.clone().enter_parent_frame()).unwrap();
    }

    /// To the tab that was opened first.
    pub fn first_tab(&self) {
        runtime().block_on(async {
            let first = self.client.windows().await.unwrap().remove(0);
            self.client.switch_to_window(first).await.unwrap();
        });
    }

    /// Asks Chromium over its DevTools protocol.
    pub fn devtools(&self, method: &str, parameters: Value) -> Value {
        self.command("goog/cdp/execute", json!({ "cmd": method, "params": parameters }))
    }

    /// All cookies that it keeps, of all hosts.
    pub fn cookies(&self) -> Vec<Value> {
        self.devtools("Storage.getCookies", json!({}))["cookies"].as_array().unwrap().clone()
    }

    pub fn cookie(&self, host: &str, name: &str) -> Option<Value> {
        let ends = format!(".{host}");
        self.cookies().into_iter().find(|cookie| {
            let domain = cookie["domain"].as_str().unwrap();
            cookie["name"] == name && (domain == host || domain == ends)
        })
    }

    /// The addresses that the tab's history keeps.
    pub fn history(&self) -> Vec<String> {
        let history = self.devtools("Page.getNavigationHistory", json!({}));
        let entries = history["entries"].as_array().unwrap();
        entries.iter().map(|entry| entry["url"].as_str().unwrap().to_owned()).collect()
    }

    /// What assistive technology is told: `role name` of everything that has a name.
    pub fn accessible(&self) -> Vec<String> {
        self.devtools("Accessibility.enable", json!({}));
        let tree = self.devtools("Accessibility.getFullAXTree", json!({}));
        let nodes = tree["nodes"].as_array().unwrap().iter().filter(|node| node["ignored"] != true);
        let part = |node: &Value, part: &str| node[part]["value"].as_str().unwrap_or_default().to_owned();
        nodes.map(|node| format!("{} {}", part(node, "role"), part(node, "name"))).collect()
    }

    /// The lines of the console since the last call.
    pub fn console(&self) -> Vec<String> {
        let lines = self.command("se/log", json!({ "type": "browser" }));
        lines.as_array().unwrap().iter().map(|line| line["message"].as_str().unwrap().to_owned()).collect()
    }

    fn command(&self, path: &'static str, body: Value) -> Value {
        runtime().block_on(self.client.issue_cmd(Vendor { path, body })).unwrap()
    }
}

/// A command of chromedriver's own.
#[derive(Debug)]
struct Vendor {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Vendor {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _url: &Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.body.to_string()))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        runtime().block_on(self.client.clone().close()).ok();
        self.driver.kill().ok();
        self.driver.wait().ok();
    }
}
