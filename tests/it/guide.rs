//! The guide: its commands are run as they are written, and every configuration on any page is loaded.
//!
//! A block of YAML that is a part of a configuration is loaded within one. A block that is none of ours, or cannot be
//! loaded, has `<!-- not loaded: REASON -->` above it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sentry_edge::config;
use serde_yaml::{Mapping, Value};

use crate::examples::prepare;
use crate::harness::edge::PASSWORD;
use crate::harness::{Running, client, eventually, free_address, memcached, origin, write_private};
use crate::tidy::{pages, read};

/// Commands that no test runs, by how they begin, and the reason.
const NOT_RUN: [(&str, &str); 15] = [
    ("make demo", "tests/it/demo.rs runs the demonstration; this one builds it first"),
    ("make build", "the tests have a build of their own"),
    ("make ", "the tests have a build of their own"),
    ("export PATH=", "the tests name the program that was built for them"),
    ("useradd ", "changes the accounts of the machine"),
    ("install ", "changes folders of the machine"),
    ("systemctl ", "there is no systemd where the tests run"),
    ("journalctl ", "there is no systemd where the tests run"),
    ("sudo ", "needs the account that the page has made"),
    ("sqlite3 ", "directory:: makes the same copy with the library"),
    ("scp ", "needs another machine"),
    ("ssh ", "needs another machine"),
    ("grep ", "searches a log of an installation"),
    ("apt", "changes the packages of the machine"),
    ("nginx ", "needs an installation of nginx with the page's files"),
];

/// A block of code of a page.
struct Block {
    page: String,
    line: usize,
    language: String,
    text: String,
    /// Whether a comment above it says why it is not loaded.
    is_excused: bool,
}

fn blocks() -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for (page, text) in pages() {
        let (mut open, mut before) = (false, "");
        for (at, line) in text.lines().enumerate() {
            if let Some(language) = line.strip_prefix("```") {
                open = !open;
                if open {
                    let is_excused = before.starts_with("<!-- not loaded: ") && before.len() > 30;
                    let language = language.trim().to_owned();
                    blocks.push(Block { page: page.clone(), line: at + 1, language, text: String::new(), is_excused });
                }
            } else if open {
                let block = blocks.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            } else if !line.trim().is_empty() {
                before = line;
            }
        }
        assert!(!open, "{page}: a block of code does not end");
    }
    blocks
}

/// Adds a part of a configuration to one: mappings are merged, anything else takes the place of what was there.
fn merge(into: &mut Value, part: Value) {
    match (into, part) {
        (Value::Mapping(into), Value::Mapping(part)) => {
            for (key, value) in part {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, part) => *into = part,
    }
}

/// The pools that services and routes lead to, and that a part does not show.
fn add_pools(document: &mut Value) {
    let mut names = Vec::new();
    let pool = |value: &Value| value.get("pool").and_then(Value::as_str).map(str::to_owned);
    for service in document["services"].as_mapping().into_iter().flat_map(Mapping::values) {
        names.extend(pool(service));
        names.extend(service["routes"].as_sequence().into_iter().flatten().filter_map(pool));
    }
    let pools = document["pools"].as_mapping_mut().unwrap();
    for name in names {
        pools.entry(name.into()).or_insert_with(|| serde_yaml::from_str("servers: [\"127.0.0.1:9001\"]").unwrap());
    }
}

#[test]
fn every_configuration_on_a_page_is_loaded() {
    let base: Value = serde_yaml::from_str(&read("config/examples/one-machine.yaml")).unwrap();
    let known: Vec<String> = config::schema::schema()["properties"].as_object().unwrap().keys().cloned().collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.yaml");
    let (mut loaded, mut faults) = (0, Vec::new());
    for block in blocks().iter().filter(|block| block.language == "yaml" && !block.is_excused) {
        let place = format!("{}:{}", block.page, block.line);
        let part: Value = match serde_yaml::from_str(&block.text) {
            Ok(part) => part,
            Err(error) => {
                faults.push(format!("{place}: {error}"));
                continue;
            }
        };
        let Some(keys) = part.as_mapping() else {
            // A comment alone is nothing; anything else is a part without its place.
            if !part.is_null() {
                faults.push(format!("{place}: no mapping, so begin it at a key of the first level"));
            }
            continue;
        };
        if !keys.keys().any(|key| known.iter().any(|name| key == name.as_str())) {
            faults.push(format!("{place}: no key of ours; `<!-- not loaded: REASON -->` above it says what it is"));
            continue;
        }
        let mut document = base.clone();
        merge(&mut document, part);
        add_pools(&mut document);
        let text = serde_yaml::to_string(&document).unwrap();
        // A folder that is looked into has to be there.
        let text = text.replace("/var/lib/acme", folder.path().to_str().unwrap());
        match config::parse(&file, &text) {
            Ok((_, found)) if found.is_empty() => loaded += 1,
            Ok((_, found)) => faults.push(format!("{place}: {found}")),
            Err(found) => faults.push(format!("{place}: {found}")),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(loaded > 8, "the blocks were found: {loaded}");
}

/// The commands of a page of the guide, in their order: without comments, and with continued lines as one.
fn commands(page: &str) -> Vec<String> {
    let mut commands = Vec::new();
    for block in
        blocks().iter().filter(|block| block.page == page && ["", "sh", "bash"].contains(&block.language.as_str()))
    {
        for line in block.text.replace("\\\n", " ").lines() {
            let command = line.split("  #").next().unwrap().split(" # ").next().unwrap().trim();
            if !command.is_empty() && !command.starts_with('#') {
                commands.push(command.split_whitespace().collect::<Vec<_>>().join(" "));
            }
        }
    }
    commands
}

fn is_run(command: &str) -> bool {
    !NOT_RUN.iter().any(|(begin, _)| command.starts_with(begin))
}

/// Where the commands of a page are typed.
struct Desk {
    folder: PathBuf,
    /// What is replaced in them: ports and hosts of this machine.
    edits: Vec<(String, String)>,
}

impl Desk {
    /// Runs a command, and returns what it has printed. A password is typed where one is requested.
    fn run(&mut self, command: &str) -> String {
        let mut command = self.edits.iter().fold(command.to_owned(), |text, (from, to)| text.replace(from, to));
        if let Some(folder) = command.strip_prefix("cd ") {
            self.folder = self.folder.join(folder);
            return String::new();
        }
        if ["sentry-edge user add ", "sentry-edge user set-password "].iter().any(|begin| command.starts_with(begin)) {
            command.push_str(" --password-stdin");
        }
        let program = Path::new(env!("CARGO_BIN_EXE_sentry-edge")).parent().unwrap();
        let script = format!("set -e; umask 077; PATH=\"{}:$PATH\"; {command}", program.display());
        let mut child = Command::new("bash")
            .args(["-c", &script])
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        use std::io::Write;
        // A command that reads nothing may have ended already.
        child.stdin.take().unwrap().write_all(format!("{PASSWORD}\n").as_bytes()).ok();
        let output = child.wait_with_output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(output.status.success(), "`{command}` failed:\n{text}");
        text
    }
}

/// From the page's first command to a request through the edge.
#[test]
fn the_first_service_is_served_by_the_commands_of_its_page() {
    let page = "docs/guide/first-service.md";
    let (folder, iqueue) = (tempfile::tempdir().unwrap(), origin("iqueue"));
    let (https, http, admin) = (free_address(), free_address(), free_address());
    let yaml: Vec<String> =
        blocks().into_iter().filter(|b| b.page == page && b.language == "yaml").map(|b| b.text).collect();
    let yaml = yaml[0]
        .replace("\"0.0.0.0:443\"", &format!("\"{https}\""))
        .replace("\"0.0.0.0:80\"", &format!("\"{http}\""))
        .replace("127.0.0.1:9001", &iqueue.address.to_string())
        .replace("server:\n", &format!("server:\n  admin: {{address: \"{admin}\"}}\n"));
    let port = https.port();
    let edits =
        [(":443:".to_owned(), format!(":{port}:")), (".example.com/".to_owned(), format!(".example.com:{port}/"))];
    let mut desk = Desk { folder: folder.path().to_owned(), edits: edits.to_vec() };
    let (mut process, mut asked) = (None, false);
    for command in commands(page).iter().filter(|command| is_run(command)) {
        if command.contains("edge.yaml") {
            write_private(desk.folder.join("edge.yaml"), &yaml);
        }
        if command.starts_with("sentry-edge run") {
            assert_eq!(command, "sentry-edge run -c edge.yaml");
            let file = desk.folder.join("edge.yaml");
            let mut running = Running::start(&["run", "-c", file.to_str().unwrap()]);
            eventually("the edge is ready", || {
                assert!(!running.has_ended(), "{}", running.stderr());
                std::net::TcpStream::connect(admin).is_ok()
                    && client(admin).get("http://admin.test/readyz").status == 200
            });
            process = Some(running);
            continue;
        }
        let printed = desk.run(command);
        if command.starts_with("curl ") {
            assert!(process.is_some(), "the page starts the edge before it asks it");
            assert!(printed.contains(" 302") || printed.contains(" 401"), "`{command}`:\n{printed}");
            asked = true;
        }
    }
    assert!(asked, "the page ends with a request");
}

#[test]
fn users_are_managed_by_the_commands_of_the_page() {
    let page = "docs/guide/users.md";
    let (folder, store) = (tempfile::tempdir().unwrap(), memcached());
    let shared = format!("\nsessions: {{store: memcached, memcached: {{servers: [\"{}\"]}}}}\n", store.address());
    write_private(folder.path().join("edge.yaml"), read("config/examples/one-machine.yaml") + &shared);
    let import = format!("{{\"name\": \"ben\", \"services\": [\"iqueue\"], \"password\": \"{PASSWORD}\"}}\n");
    write_private(folder.path().join("users.jsonl"), import);
    std::fs::create_dir(folder.path().join("keys")).unwrap();
    let mut desk = Desk { folder: folder.path().to_owned(), edits: Vec::new() };
    // What signs is needed to say whether a user's grants fit into a cookie.
    desk.run("sentry-edge key generate --algorithm ES256 > keys/main.pem");
    let commands = commands(page);
    for command in commands.iter().filter(|command| is_run(command)) {
        let printed = desk.run(command);
        if command.contains("user show") {
            assert!(printed.contains("ada@example.com"), "{printed}");
        }
    }
    assert!(commands.len() > 10, "{commands:#?}");
    let listed = desk.run("sentry-edge user list -c edge.yaml");
    assert!(listed.contains("ada") && listed.contains("ben"), "{listed}");
}

/// A page with commands has a test above that runs them, or they are run here, beside a configuration.
#[test]
fn every_other_command_of_the_guide_is_run_or_has_a_reason_why_not() {
    let own = ["docs/guide/first-service.md", "docs/guide/users.md"];
    let mut run = 0;
    for page in pages().keys().filter(|page| page.starts_with("docs/guide/") && !own.contains(&page.as_str())) {
        let prepared = prepare(&read("config/examples/one-machine.yaml"), &[]);
        let mut desk = Desk { folder: prepared.folder.path().to_owned(), edits: Vec::new() };
        for command in commands(page).iter().filter(|command| is_run(command)) {
            desk.run(command);
            run += 1;
        }
    }
    assert!(run > 0, "commands were found");
}
