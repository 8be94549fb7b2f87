//! A real browser: headless Chromium, driven over WebDriver, that trusts the tests' CA.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::json;

use super::certificates::ca;
use super::{eventually, runtime};

pub struct Browser {
    pub client: Client,
    driver: Child,
    _home: tempfile::TempDir,
}

pub fn browser() -> Browser {
    let home = tempfile::tempdir().unwrap();
    trust_ca(home.path());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let driver = Command::new("chromedriver")
        .arg(format!("--port={port}"))
        .env("HOME", home.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("chromedriver is installed: `make deps`");
    eventually("chromedriver listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let arguments = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    ];
    let data = format!("--user-data-dir={}", home.path().join("profile").display());
    let arguments: Vec<&str> = arguments.into_iter().chain([data.as_str()]).collect();
    let capabilities = json!({ "goog:chromeOptions": { "args": arguments } });
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

    /// The text of the page as a person sees it.
    pub fn text(&self) -> String {
        self.text_of("body")
    }

    pub fn text_of(&self, css: &str) -> String {
        runtime().block_on(async { self.client.find(Locator::Css(css)).await.unwrap().text().await.unwrap() })
    }

    pub fn has(&self, css: &str) -> bool {
        runtime().block_on(async { !self.client.find_all(Locator::Css(css)).await.unwrap().is_empty() })
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

    pub fn run(&self, script: &str) -> serde_json::Value {
        runtime().block_on(self.client.execute(script, Vec::new())).unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        runtime().block_on(self.client.clone().close()).ok();
        self.driver.kill().ok();
        self.driver.wait().ok();
    }
}
