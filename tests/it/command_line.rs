//! The commands beside `run` and `check`: users, keys, tokens, help, as somebody types them.

use std::path::PathBuf;

use sentry_edge::users::{Password, UserName, password};
use serde_json::Value;

use crate::harness::edge::{HMAC_KEY, PASSWORD, TOKEN_COOKIE};
use crate::harness::process::{sentry_edge_with_input, text};
use crate::harness::{Edge, Origin, edge, eventually, origin};

/// An edge that serves iqueue and dextor, and the commands that are given to its configuration.
struct Desk {
    edge: Edge,
    file: PathBuf,
    _origin: Origin,
}

const PASSWORD_SET: &str = "the password of ada was set; open sessions end within 20ms\n";

/// What a command left behind.
struct Done {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

fn desk() -> Desk {
    let origin = origin("iqueue");
    let edge = edge().service("iqueue", &origin).service("dextor", &origin).start();
    let file = edge.folder.path().join("edge.yaml");
    Desk { edge, file, _origin: origin }
}

fn tell(arguments: &[&str], input: &str) -> Done {
    let output = sentry_edge_with_input(arguments, input);
    Done { status: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

impl Done {
    /// Its standard output, if it went well and complained of nothing.
    fn well(self) -> String {
        assert_eq!((self.status, self.stderr.as_str()), (Some(0), ""), "{}", self.stdout);
        self.stdout
    }

    /// Its standard error, if it was refused and printed nothing else.
    fn refused(self) -> String {
        assert_eq!((self.status, self.stdout.as_str()), (Some(1), ""), "{}", self.stderr);
        assert!(!self.stderr.trim().is_empty(), "a refusal says why");
        self.stderr
    }
}

impl Desk {
    /// `sentry-edge user … -c FILE`, with something on standard input.
    fn user_with(&self, arguments: &[&str], input: &str) -> Done {
        let file = self.file.to_str().unwrap();
        tell(&[&["user"], arguments, &["-c", file]].concat(), input)
    }

    fn user(&self, arguments: &[&str]) -> Done {
        self.user_with(arguments, "")
    }

    fn show(&self, name: &str) -> Value {
        serde_json::from_str(&self.user(&["show", name, "--json"]).well()).unwrap()
    }

    /// The status of the login page's answer: 303 when the user is let in.
    fn sign_in(&self, name: &str, password: &str) -> u16 {
        let mut client = self.edge.client();
        let form = client.follow(&self.edge.url("iqueue", "/")).pop().unwrap();
        client.fill_in(&form, name, password).status
    }

    /// The hash that the directory holds.
    fn stored_hash(&self, name: &str) -> String {
        let path = self.edge.folder.path().join("users.db");
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.query_row("SELECT password_hash FROM users WHERE name = ?1", [name], |row| row.get(0)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let lines = self.user(&["list", "--json"]).well();
        let name = |line: &str| serde_json::from_str::<Value>(line).unwrap()["name"].as_str().unwrap().to_owned();
        lines.lines().map(name).collect()
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.edge.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

// Users.

/// A line of standard input with a password that may be set.
const FIT_LINE: &str = "marble kettle tuesday rain\n";

#[test]
fn a_password_that_is_easy_to_guess_is_refused_with_what_to_do_and_an_old_one_goes_on_working() {
    let desk = desk();
    set_password(&desk, "ada", "pw");
    for (input, words) in [
        ("pw\n", "has 2 characters; write 12 or more"),
        ("hunter2hunt\n", "has 11 characters; write 12 or more"),
        ("Password123!\n", "one of the first that a guesser tries"),
        ("qwertyuiop12\n", "one of the first that a guesser tries"),
        ("Ada-Ada-Ada-2026\n", "the user's own name"),
        ("ada@example.com\n", "the user's own name"),
        ("moc.elpmaxe@ada\n", "the user's own name"),
    ] {
        for arguments in [
            &["set-password", "ada", "--password-stdin"][..],
            &["add", "adah", "--email", "ada@example.com", "--password-stdin"],
        ] {
            let told = desk.user_with(arguments, input).refused();
            assert!(told.contains(words) && told.contains("four words"), "{arguments:?} {input:?}: {told}");
            assert!(!told.contains(input.trim_end()), "{told}");
        }
    }
    assert_eq!(desk.names(), ["ada"]);
    assert_eq!(desk.sign_in("ada", "pw"), 303, "it was set before there was a rule");
    desk.user_with(&["set-password", "ada", "--password-stdin"], FIT_LINE).well();
    assert_eq!(desk.sign_in("ada", FIT_LINE.trim_end()), 303);
}

#[test]
fn the_least_length_of_a_password_is_configured() {
    let desk = desk();
    let yaml = std::fs::read_to_string(&desk.file).unwrap();
    std::fs::write(&desk.file, yaml.replace("users: {", "users: {password: {least: 8}, ")).unwrap();
    desk.user_with(&["add", "bob", "--password-stdin"], "kV9#tq!\n").refused();
    desk.user_with(&["add", "bob", "--password-stdin"], "kV9#tq!L\n").well();
    std::fs::write(&desk.file, yaml.replace("users: {", "users: {password: {least: 7}, ")).unwrap();
    let told = desk.user_with(&["add", "eve", "--password-stdin"], FIT_LINE).refused();
    assert!(told.contains("users.password.least") && told.contains("write 8 to 64"), "{told}");
}

#[test]
fn an_account_is_unlocked_and_one_that_is_not_locked_too() {
    let desk = desk();
    for _ in 0..5 {
        assert_eq!(desk.sign_in("ada", "wrong"), 401);
    }
    assert_eq!(desk.sign_in("ada", PASSWORD), 429);
    assert!(desk.user(&["unlock", "ADA"]).well().starts_with("ada was unlocked"));
    assert_eq!(desk.sign_in("ada", PASSWORD), 303);
    desk.user(&["unlock", "ada"]).well();
    assert!(desk.user(&["unlock", "nobody"]).refused().contains("there is no user nobody"));
}

/// As a version without a rule for passwords did.
fn set_password(desk: &Desk, user: &str, text: &str) {
    let hash = password::hash(&Password::new(text.into()).unwrap()).unwrap();
    desk.edge.directory().set_password_hash(&UserName::parse(user).unwrap(), &hash).unwrap();
}

#[test]
fn a_user_who_was_added_can_sign_in_and_is_shown() {
    let desk = desk();
    let add =
        ["add", "Bob", "--service", "iqueue", "--role", "auditor", "--email", "bob@example.com", "--password-stdin"];
    let told = desk.user_with(&add, "  a secret with blanks \n").well();
    assert!(told.contains("bob") && !told.contains("secret"), "{told}");
    assert_eq!(desk.sign_in("bob", "  a secret with blanks "), 303, "exactly as it was typed");
    assert_eq!(desk.sign_in("bob", "a secret with blanks"), 401);

    let shown = desk.show("bob");
    assert_eq!((&shown["name"], &shown["email"]), (&"bob".into(), &"bob@example.com".into()));
    assert_eq!((&shown["services"], &shown["roles"]), (&vec!["iqueue"].into(), &vec!["auditor"].into()));
    assert_eq!(shown["disabled"], false);
    assert!(shown["id"].as_str().unwrap().len() == 36 && shown["created"].is_string(), "{shown}");
    let keys: Vec<&str> = shown.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys.len(), 7, "nothing of the password: {keys:?}");
    assert_eq!(desk.names(), ["ada", "bob"], "sorted by name");
    let list = desk.user(&["list"]).well();
    assert!(list.contains("ada") && list.contains("bob@example.com") && !list.contains("argon2"), "{list}");
}

#[test]
fn a_password_is_one_line_of_standard_input() {
    let desk = desk();
    for (number, input, password) in [
        (1, "the first of two\nsecond\n", "the first of two"),
        (2, "without a line end", "without a line end"),
        (3, "from another planet\r\n", "from another planet"),
    ] {
        let name = format!("user{number}");
        desk.user_with(&["add", &name, "--service", "iqueue", "--password-stdin"], input).well();
        assert_eq!(desk.sign_in(&name, password), 303, "row {number}");
    }
    let long = "x".repeat(1025);
    for (number, input, words) in [(4, "", "empty"), (5, "\n", "empty"), (6, long.as_str(), "too long")] {
        let told = desk.user_with(&["add", "eve", "--password-stdin"], input).refused();
        assert!(told.contains(words), "row {number}: {told}");
    }
    assert!(!desk.names().contains(&"eve".to_owned()));
}

#[test]
fn a_password_is_never_taken_from_an_argument() {
    let desk = desk();
    for arguments in [
        &["add", "eve", "--password", "hunter2"][..],
        &["add", "eve", "--password=hunter2"],
        &["add", "eve", "hunter2"],
        &["set-password", "ada", "hunter2"],
        &["set-password", "ada", "--password", "hunter2"],
        // No terminal to ask at, and nobody said that standard input has it.
        &["add", "eve"],
        &["set-password", "ada"],
    ] {
        let done = desk.user_with(arguments, "hunter2\n");
        assert_eq!((done.status, done.stdout.as_str()), (Some(2), ""), "{arguments:?}: {}", done.stderr);
    }
    assert_eq!(desk.names(), ["ada"]);
    assert_eq!(desk.sign_in("ada", PASSWORD), 303, "her password is the old one");
    for command in ["add", "set-password"] {
        let help = tell(&["user", command, "--help"], "").well();
        assert!(help.contains("--password-stdin") && !help.contains("--password "), "{help}");
    }
}

#[test]
fn a_service_that_the_configuration_does_not_have_is_refused() {
    let desk = desk();
    for arguments in [
        &["add", "eve", "--service", "iqueue", "--service", "iqeue", "--password-stdin"][..],
        &["grant", "ada", "--service", "iqeue"],
    ] {
        let told = desk.user_with(arguments, FIT_LINE).refused();
        assert!(told.contains("no service `iqeue`") && told.contains("iqueue") && told.contains("dextor"), "{told}");
    }
    assert_eq!(desk.names(), ["ada"]);
    assert_eq!(desk.show("ada")["services"], Value::from(vec!["dextor", "iqueue"]));
}

#[test]
fn what_makes_no_user_is_refused_with_the_reason() {
    let desk = desk();
    for (number, arguments, words) in [
        (1, &["add", "ada", "--password-stdin"][..], "there is a user ada already"),
        (2, &["add", "ADA", "--password-stdin"], "there is a user ada already"),
        (3, &["add", "b c", "--password-stdin"], "white space"),
        (4, &["add", "", "--password-stdin"], "empty"),
        (5, &["add", "eve", "--email", "nobody", "--password-stdin"], "e-mail"),
        (6, &["add", "eve", "--role", "a,b", "--password-stdin"], "comma"),
        (7, &["show", "nobody"], "there is no user nobody"),
        (8, &["set-password", "nobody", "--password-stdin"], "there is no user nobody"),
        (9, &["disable", "nobody"], "there is no user nobody"),
        (10, &["enable", "nobody"], "there is no user nobody"),
        (11, &["grant", "nobody", "--service", "iqueue"], "there is no user nobody"),
        (12, &["revoke", "nobody", "--role", "x"], "there is no user nobody"),
        (13, &["import", "/nonexistent/users.jsonl"], "/nonexistent/users.jsonl: No such file"),
    ] {
        let told = desk.user_with(arguments, FIT_LINE).refused();
        assert!(told.contains(words), "row {number}: {told}");
    }
    assert_eq!(desk.names(), ["ada"]);
}

#[test]
fn a_new_password_takes_the_place_of_the_old_one() {
    let desk = desk();
    assert_eq!(
        desk.user_with(&["set-password", "ada", "--password-stdin"], "quite another one\n").well(),
        PASSWORD_SET
    );
    assert_eq!(desk.sign_in("ada", PASSWORD), 401);
    assert_eq!(desk.sign_in("ada", "quite another one"), 303);
    desk.user_with(&["set-password", "ada", "--password-stdin"], "\n").refused();
    assert_eq!(desk.sign_in("ada", "quite another one"), 303, "a refusal changes nothing");
}

#[test]
fn a_disabled_user_cannot_sign_in_and_an_enabled_one_can() {
    let desk = desk();
    desk.user(&["disable", "ada"]).well();
    assert_eq!(desk.sign_in("ada", PASSWORD), 401);
    assert_eq!(desk.show("ada")["disabled"], true);
    assert!(desk.user(&["list"]).well().contains("(disabled)"));
    desk.user(&["disable", "ada"]).well();
    desk.user(&["enable", "ADA"]).well();
    assert_eq!(desk.sign_in("ada", PASSWORD), 303);
    assert_eq!(desk.show("ada")["disabled"], false);
}

#[test]
fn grants_are_given_and_taken() {
    let desk = desk();
    desk.user_with(&["add", "bob", "--password-stdin"], FIT_LINE).well();
    assert_eq!((&desk.show("bob")["services"], &desk.show("bob")["email"]), (&Value::Array(vec![]), &Value::Null));
    desk.user(&["grant", "bob", "--service", "iqueue", "dextor", "--role", "auditor"]).well();
    desk.user(&["grant", "bob", "--service", "iqueue", "--role", "admin"]).well();
    let shown = desk.show("bob");
    assert_eq!(
        (&shown["services"], &shown["roles"]),
        (&vec!["dextor", "iqueue"].into(), &vec!["admin", "auditor"].into())
    );
    // A service that the configuration has no more can be taken all the same.
    desk.user(&["revoke", "bob", "--service", "dextor", "--service", "long-gone", "--role", "auditor"]).well();
    let shown = desk.show("bob");
    assert_eq!((&shown["services"], &shown["roles"]), (&vec!["iqueue"].into(), &vec!["admin"].into()));

    let mut client = desk.edge.client();
    client.sign_in(&desk.edge.url("iqueue", "/"), "bob", FIT_LINE.trim_end());
    assert_eq!(client.open(&desk.edge.url("iqueue", "/")).status, 200);
    assert_eq!(client.follow(&desk.edge.url("dextor", "/")).pop().unwrap().status, 403, "not registered");
}

#[test]
fn a_good_file_is_imported_and_an_older_hash_is_rewritten_at_the_first_login() {
    let desk = desk();
    // Low cost: what counts here is the format.
    let older = bcrypt::hash("an older secret", 4).unwrap();
    let file = desk.write(
        "users.jsonl",
        &format!(
            "{{\"name\":\"bob\",\"email\":\"bob@example.com\",\"services\":[\"iqueue\"],\"roles\":[\"admin\"],\"password_hash\":\"{older}\"}}\n\n\
             {{\"name\":\"eve\",\"services\":[\"iqueue\"],\"password\":\"plain but long enough\"}}\n\
             {{\"name\":\"zoe\",\"password\":\"plain but long enough\",\"disabled\":true}}\n"
        ),
    );
    assert_eq!(desk.user(&["import", &file]).well(), "3 users imported\n");
    assert_eq!(desk.names(), ["ada", "bob", "eve", "zoe"]);
    assert_eq!(desk.show("bob")["roles"], Value::from(vec!["admin"]));
    assert_eq!(desk.stored_hash("bob"), older, "as the older directory wrote it");
    assert!(desk.stored_hash("eve").starts_with("$argon2id$"), "a plain password is hashed");

    assert_eq!(desk.sign_in("bob", "another secret"), 401);
    assert_eq!(desk.stored_hash("bob"), older, "a wrong password rewrites nothing");
    assert_eq!(desk.sign_in("bob", "an older secret"), 303);
    eventually("the hash is rewritten", || desk.stored_hash("bob").starts_with("$argon2id$"));
    assert_eq!(desk.sign_in("bob", "an older secret"), 303, "and still is that password's");
    assert_eq!(desk.sign_in("eve", "plain but long enough"), 303);
    assert_eq!(desk.sign_in("zoe", "plain but long enough"), 401, "imported as disabled");
}

#[test]
fn a_file_with_any_bad_line_is_imported_not_at_all_and_every_bad_line_is_named() {
    let desk = desk();
    let file = desk.write(
        "users.jsonl",
        "{\"name\":\"bob\",\"services\":[\"iqueue\"],\"password\":\"good and long enough\"}\n\
         no json\n\
         {\"name\":\"ada\",\"password\":\"it is taken already\"}\n\
         {\"name\":\"carl\",\"password\":\"x\",\"shoe_size\":44}\n\
         {\"name\":\"bob\",\"password\":\"twice\"}\n\
         {\"name\":\"dora\",\"password_hash\":\"hunter2hunter2\"}\n\
         {\"name\":\"emil\"}\n\
         {\"name\":\"fritz\",\"password\":\"Password123!\"}\n\
         {\"name\":\"gerda\",\"password\":\"pw\"}\n",
    );
    let told = desk.user(&["import", &file]).refused();
    let lines: Vec<&str> = told.lines().collect();
    let expected = [
        (2, "no JSON object"),
        (3, "there is a user ada already"),
        (4, "unknown field `shoe_size`"),
        (5, "on line 1 already"),
        (6, "no known format"),
        (7, "neither password_hash nor password"),
        (8, "one of the first that a guesser tries"),
        (9, "has 2 characters; write 12 or more"),
    ];
    assert_eq!(lines.len(), expected.len(), "{told}");
    for (line, (number, words)) in lines.iter().zip(expected) {
        assert!(line.starts_with(&format!("{file}:{number}: ")) && line.contains(words), "line {number}: {line}");
    }
    assert!(!told.contains("hunter2"), "{told}");
    assert_eq!(desk.names(), ["ada"], "the good line neither");
}

#[test]
fn commands_that_only_look_do_not_begin_a_directory() {
    let desk = desk();
    let yaml = std::fs::read_to_string(&desk.file).unwrap();
    let elsewhere = desk.write("elsewhere.yaml", &yaml.replace("users.db", "other.db"));
    for arguments in [&["list"][..], &["show", "ada"], &["disable", "ada"], &["grant", "ada", "--role", "x"]] {
        let told = tell(&[&["user", "-c", &elsewhere], arguments].concat(), "").refused();
        assert!(told.contains("other.db"), "{arguments:?}: {told}");
        assert!(!desk.edge.folder.path().join("other.db").exists(), "{arguments:?}");
    }
    tell(&["user", "add", "bob", "--password-stdin", "-c", &elsewhere], FIT_LINE).well();
    let mode = {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(desk.edge.folder.path().join("other.db")).unwrap().permissions().mode()
    };
    assert_eq!(mode & 0o777, 0o600, "a directory of passwords is its owner's alone");

    let nowhere = desk.write("nowhere.yaml", &yaml.replace("users.db", "none/users.db"));
    let told = tell(&["user", "add", "bob", "--password-stdin", "-c", &nowhere], FIT_LINE).refused();
    assert!(told.contains("none/users.db") && told.contains("No such file"), "it says why: {told}");
    let foreign = desk.write("foreign.yaml", &yaml.replace("users.db", "edge.pem"));
    let told = tell(&["user", "list", "-c", &foreign], "").refused();
    assert!(told.contains("edge.pem") && told.contains("not a database"), "it says why: {told}");
}

#[test]
fn a_faulty_configuration_is_told_and_nothing_is_changed() {
    let desk = desk();
    let yaml = std::fs::read_to_string(&desk.file).unwrap();
    std::fs::write(&desk.file, yaml.replace("drain: 5s", "drain: soon")).unwrap();
    let told = desk.user(&["disable", "ada"]).refused();
    assert!(told.contains("server.drain"), "{told}");
    std::fs::write(&desk.file, yaml).unwrap();
    assert_eq!(desk.show("ada")["disabled"], false);
}

// Keys.

#[test]
fn a_key_of_each_algorithm_is_made_and_a_configuration_with_it_checks_and_signs() {
    for (algorithm, material) in
        [("HS256", "secret"), ("ES256", "private_key"), ("EdDSA", "private_key"), ("RS256", "private_key")]
    {
        let generate = || tell(&["key", "generate", "--algorithm", algorithm], "").well();
        let (key, another) = (generate(), generate());
        assert_ne!(key, another, "{algorithm}");
        assert_eq!(key.starts_with("-----BEGIN PRIVATE KEY-----\n"), algorithm != "HS256", "{algorithm}: {key}");
        let iqueue = origin("iqueue");
        let keys = format!("[{{id: made, algorithm: {algorithm}, {material}: {{file: made.key}}}}]");
        let daemon = {
            let builder = edge().service("iqueue", &iqueue).service("dextor", &iqueue).keys(&keys);
            builder.file("made.key", &key).run()
        };
        let checked = tell(&["check", "-c", daemon.file.to_str().unwrap()], "").well();
        assert!(checked.ends_with(": configuration OK\n"), "{algorithm}: {checked}");
        let mut client = daemon.client();
        let page = client.sign_in(&daemon.url("iqueue", "/"), "ada", PASSWORD).pop().unwrap();
        assert_eq!(page.body, "hello from iqueue", "{algorithm}");
        let token = client.cookie("iqueue.test", TOKEN_COOKIE).unwrap();
        let shown: Value = serde_json::from_str(&tell(&["token", "inspect", token], "").well()).unwrap();
        assert_eq!((&shown["header"]["alg"], &shown["header"]["kid"]), (&algorithm.into(), &"made".into()));
        let published = client.get(&daemon.url("sentry", "/.well-known/jwks.json")).json();
        let count = published["keys"].as_array().unwrap().len();
        assert_eq!(count, usize::from(algorithm != "HS256"), "{algorithm}: a secret is not published: {published}");
        assert!(published["keys"].as_array().unwrap().iter().all(|key| key.get("d").is_none()), "{published}");
    }
}

#[test]
fn no_other_algorithm_is_offered() {
    for algorithm in ["none", "hs256", "HS512", "RS512", "ES384", ""] {
        let done = tell(&["key", "generate", "--algorithm", algorithm], "");
        assert_eq!((done.status, done.stdout.as_str()), (Some(2), ""), "{algorithm}");
    }
}

// Tokens.

#[test]
fn a_token_is_shown_from_an_argument_and_from_standard_input() {
    let desk = desk();
    let client = desk.edge.signed_in();
    let token = client.cookie("iqueue.test", TOKEN_COOKIE).unwrap();
    let by_argument = tell(&["token", "inspect", token], "").well();
    for arguments in [&["token", "inspect", "-"][..], &["token", "inspect"]] {
        assert_eq!(tell(arguments, &format!("{token}\n")).well(), by_argument, "{arguments:?}");
    }
    let shown: Value = serde_json::from_str(&by_argument).unwrap();
    assert_eq!((&shown["header"]["alg"], &shown["header"]["kid"]), (&"HS256".into(), &"main".into()));
    assert_eq!((&shown["claims"]["name"], &shown["claims"]["email"]), (&"ada".into(), &"ada@example.com".into()));
    assert_eq!(shown["signature"], "not checked", "and it does not pretend to have judged it");
    assert_eq!(shown["times"]["state"], "within its time");
    assert!(shown["times"]["expires"].as_str().unwrap().ends_with('Z'), "{shown}");
    let signature = token.rsplit('.').next().unwrap();
    assert!(!by_argument.contains(signature), "what is shown cannot be used as a token");
}

#[test]
fn what_is_no_token_is_refused_with_the_reason() {
    for (number, token, words) in [
        (1, "", "three parts"),
        (2, "a", "three parts"),
        (3, "a.b", "three parts"),
        (4, "a.b.c.d.e", "three parts"),
        (5, "!.b.c", "base64url"),
        (6, "aGk.aGk.x", "not JSON"),
        (7, "e30.e3=.x", "base64url"),
    ] {
        let told = tell(&["token", "inspect", "-"], token).refused();
        assert!(told.contains(words), "row {number}: {told}");
    }
    let endless = tell(&["token", "inspect"], &"a".repeat(1 << 20)).refused();
    assert!(endless.len() < 1000, "it is not printed back");
    // Claims of other shapes are shown as they are.
    assert!(tell(&["token", "inspect", "e30.e30.x"], "").well().contains("\"claims\": {}"));
    assert!(tell(&["token", "inspect", "W10.bnVsbA.x"], "").well().contains("\"claims\": null"));
}

// Help.

#[test]
fn help_names_every_command_and_version_the_version() {
    let help = tell(&["--help"], "").well();
    for command in ["run", "check", "demo", "user", "session", "key", "token"] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(command)), "{command} is not in\n{help}");
        let own = tell(&[command, "--help"], "").well();
        assert!(own.contains("Usage: sentry-edge"), "{own}");
        assert_eq!(tell(&["help", command], "").well(), own, "{command}");
    }
    let users = tell(&["user", "--help"], "").well();
    for command in ["add", "list", "show", "set-password", "disable", "enable", "grant", "revoke", "import"] {
        assert!(users.lines().any(|line| line.trim_start().starts_with(command)), "{command} is not in\n{users}");
    }
    assert_eq!(tell(&["--version"], "").well(), format!("sentry-edge {}\n", env!("CARGO_PKG_VERSION")));
    assert!(!help.contains(HMAC_KEY));
}
