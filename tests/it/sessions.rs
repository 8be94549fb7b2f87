//! Who is signed in, and their end: `session list` and the admin API, against real stores.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sentry_edge::clock::Clock;
use sentry_edge::sessions::{Fingerprint, SessionId, SessionRecord};
use sentry_edge::users::UserName;
use serde_json::Value;

use crate::harness::edge::{Builder, TOKEN_COOKIE};
use crate::harness::process::{sentry_edge, text};
use crate::harness::{
    Client, Edge, Memcached, Origin, Response, client, edge, eventually, memcached, origin, write_private,
};

const TOKEN: &str = "an-admin-token-of-more-than-32-bytes";
/// Nothing in it is refused in a name, and much of it means something in a URL.
const ODD: &str = "anna+lena&co=50%@example.com";

fn name(text: &str) -> UserName {
    UserName::parse(text).unwrap()
}

fn with_token() -> Builder {
    edge().admin(&format!("token: {{value: {TOKEN}}}"))
}

fn with_store(origin: &Origin, memcached: &Memcached) -> Builder {
    with_token()
        .service("iqueue", origin)
        .service("dextor", origin)
        .user("bob", &["iqueue"], &[])
        .user(ODD, &["iqueue"], &[])
        .memcached(&memcached.address())
}

fn signed_in(edge: &Edge, user: &str) -> Client {
    let mut client = edge.client();
    edge.sign_in(&mut client, "iqueue", user);
    client
}

fn opens(edge: &Edge, browser: &mut Client) -> bool {
    browser.open(&edge.url("iqueue", "/")).status == 200
}

// The command.

struct ListOutput {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

fn list(edge: &Edge, arguments: &[&str]) -> ListOutput {
    let file = edge.folder.path().join("edge.yaml");
    let output = sentry_edge(&[&["session", "list", "-c", file.to_str().unwrap()], arguments].concat());
    ListOutput { status: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

impl ListOutput {
    /// One object a line.
    fn sessions(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn whole(self) -> Self {
        assert_eq!((self.status, self.stderr.as_str()), (Some(0), ""));
        self
    }
}

fn users(sessions: &[Value]) -> Vec<&str> {
    sessions.iter().map(|session| session["user"].as_str().unwrap()).collect()
}

/// The session id in a browser's token, which is a secret.
fn session_id(edge: &Edge, browser: &Client) -> (String, String) {
    let token = browser.cookie(&edge.host("iqueue"), TOKEN_COOKIE).unwrap().to_owned();
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    (token, claims["sid"].as_str().unwrap().to_owned())
}

#[test]
fn the_living_sessions_are_listed_with_names_times_and_places_and_no_secret() {
    let (origin, memcached) = (origin("app"), memcached());
    let edge = with_store(&origin, &memcached).start();
    let (ada, _bob, _odd) = (signed_in(&edge, "ada"), signed_in(&edge, "bob"), signed_in(&edge, ODD));
    let mut gone = signed_in(&edge, "ada");
    assert_eq!(gone.sign_out(&edge.url("iqueue", "/.sentry/logout")).status, 200);

    let reply = list(&edge, &["--json"]).whole();
    let sessions = reply.sessions();
    assert_eq!(users(&sessions), ["ada", ODD, "bob"], "by name, and the user who signed out is not there");
    let hers = &sessions[0];
    let fields: Vec<&str> = hers.as_object().unwrap().keys().map(String::as_str).collect();
    let wanted =
        ["created", "ended", "expires", "idle_expires_at", "key", "last_accessed", "servers", "user", "user_id"];
    assert_eq!(fields, wanted);
    assert_eq!(hers["user_id"], edge.directory().show(&name("ada")).unwrap().id.as_str());
    assert_eq!((&hers["ended"], &hers["servers"]), (&Value::Null, &serde_json::json!([memcached.address()])));
    let moment = |field: &str| humantime::parse_rfc3339(hers[field].as_str().unwrap()).unwrap();
    let lifetime = moment("expires").duration_since(moment("created")).unwrap();
    assert!(lifetime >= Duration::from_secs(12 * 3600 - 2) && lifetime <= Duration::from_secs(12 * 3600));
    let idle = moment("idle_expires_at").duration_since(moment("created")).unwrap();
    assert!(idle > Duration::from_secs(1790) && idle < Duration::from_secs(1860), "{idle:?}");
    assert!(memcached.keys("s:").contains(&hers["key"].as_str().unwrap().to_owned()));

    // memcached's crawler passes over what was in use just now, as it was by the look above.
    let mut readable = list(&edge, &["--user", " ADA "]).whole();
    eventually("she is listed", || {
        readable = list(&edge, &["--user", " ADA "]).whole();
        readable.stdout.starts_with("ada\n  user id ")
    });
    assert!(readable.stdout.contains("(in 29m") || readable.stdout.contains("(in 30m"), "{}", readable.stdout);
    assert_eq!(readable.stdout.lines().filter(|line| !line.starts_with(' ')).count(), 1, "hers alone");
    let (token, sid) = session_id(&edge, &ada);
    for output in [&reply.stdout, &readable.stdout] {
        assert!(!output.contains(&sid) && !output.contains(&token) && !output.contains("test/1"));
    }
}

#[test]
fn a_name_is_taken_as_it_is_written_and_one_that_nobody_has_is_an_error() {
    let (origin, memcached) = (origin("app"), memcached());
    let edge = with_store(&origin, &memcached).start();
    let _browsers = (signed_in(&edge, "ada"), signed_in(&edge, ODD));
    let reply = list(&edge, &["--json", "--user", ODD]).whole();
    assert_eq!(users(&reply.sessions()), [ODD]);
    assert_eq!(list(&edge, &["--json", "--user", "bob"]).whole().stdout, "", "he is not signed in");
    for (wrong, why) in [("eve", "there is no user eve"), ("ada lovelace", "white space")] {
        let reply = list(&edge, &["--user", wrong]);
        assert_eq!((reply.status, reply.stdout.as_str()), (Some(1), ""));
        assert!(reply.stderr.contains(why), "{}", reply.stderr);
    }
}

#[test]
fn sessions_that_the_directory_has_ended_are_marked() {
    let (origin, memcached) = (origin("app"), memcached());
    let edge = with_store(&origin, &memcached).start();
    let _browsers = (signed_in(&edge, "ada"), signed_in(&edge, "bob"), signed_in(&edge, ODD));
    edge.directory().set_disabled(&name("bob"), true).unwrap();
    edge.directory().end_sessions(&name("ada")).unwrap();
    let _again = signed_in(&edge, "ada");
    let sessions = list(&edge, &["--json"]).whole().sessions();
    let marks: Vec<_> = sessions.iter().map(|it| (it["user"].as_str().unwrap(), it["ended"].as_str())).collect();
    let wanted = [("ada", Some("ended")), ("ada", None), (ODD, None), ("bob", Some("disabled"))];
    assert_eq!(marks, wanted, "the older of hers comes first");
    assert!(list(&edge, &[]).whole().stdout.contains("\nbob  (disabled)\n"));
}

#[test]
fn a_limit_cuts_the_list_and_says_so() {
    let (origin, memcached) = (origin("app"), memcached());
    let edge = with_store(&origin, &memcached).start();
    let _browsers = (signed_in(&edge, "ada"), signed_in(&edge, "ada"), signed_in(&edge, "bob"));
    let reply = list(&edge, &["--json", "--limit", "2"]);
    assert_eq!((reply.status, reply.sessions().len()), (Some(0), 2));
    assert_eq!(reply.stderr, "there are more than 2; --limit lists more\n");
    assert_eq!(list(&edge, &["--json", "--limit", "3"]).whole().sessions().len(), 3);
    assert_eq!(list(&edge, &["--limit", "0"]).status, Some(2));
}

#[test]
fn of_three_servers_each_session_is_told_once_and_a_dead_server_is_named() {
    let (origin, mut servers) = (origin("app"), [memcached(), memcached(), memcached()]);
    let addresses: Vec<String> = servers.iter().map(|server| format!("\"{}\"", server.address())).collect();
    let sessions = |copies| {
        let servers = addresses.join(", ");
        format!("{{store: memcached, memcached: {{servers: [{servers}], copies: {copies}, timeout: 1s}}}}")
    };
    let edge = with_token().service("iqueue", &origin).sessions(&sessions(2)).start();
    let mut browsers: Vec<Client> = (0..8).map(|_| signed_in(&edge, "ada")).collect();
    // A copy is made when a session is used.
    for browser in &mut browsers {
        assert!(opens(&edge, browser));
    }
    let lying =
        |reply: &ListOutput| reply.sessions().iter().map(|it| it["servers"].as_array().unwrap().len()).sum::<usize>();
    eventually("all have two copies", || lying(&list(&edge, &["--json"]).whole()) == 16);
    let keys = |reply: &ListOutput| -> BTreeSet<String> {
        reply.sessions().iter().map(|session| session["key"].as_str().unwrap().to_owned()).collect()
    };
    let reply = list(&edge, &["--json"]).whole();
    assert_eq!((reply.sessions().len(), keys(&reply).len()), (8, 8));

    servers[1].kill();
    let reply = list(&edge, &["--json"]);
    assert_eq!(reply.status, Some(1), "what is missing is a failure");
    assert!(reply.stderr.starts_with(&format!("sessions.memcached: {}: ", servers[1].address())), "{}", reply.stderr);
    assert_eq!(reply.stderr.matches("sessions.memcached: ").count(), 1, "{}", reply.stderr);
    assert_eq!(keys(&reply).len(), 8, "the other copies are listed");
    assert!(!reply.stdout.contains(&servers[1].address()));
    let answer = api(&edge, "GET", "/api/sessions");
    assert_eq!((answer.status, &answer.json()["error"]), (503, &Value::from("store_away")));
    assert_eq!(answer.json()["sessions"].as_array().unwrap().len(), 8);
    assert_eq!(answer.json()["unreachable"][0]["server"], servers[1].address());
}

#[test]
fn what_no_other_process_can_see_is_said_and_where_to_ask() {
    let origin = origin("app");
    for (sessions, why) in [("{store: memory}", "/api/sessions"), ("{store: none}", "no sessions are kept")] {
        let edge = with_token().service("iqueue", &origin).sessions(sessions).start();
        let reply = list(&edge, &[]);
        assert_eq!((reply.status, reply.stdout.as_str()), (Some(1), ""));
        assert!(reply.stderr.contains(why) && reply.stderr.contains("sessions.store"), "{}", reply.stderr);
    }
}

/// Stores sessions of a user, whether or not the directory knows one of that id.
fn fill(memcached: &Memcached, user_id: &str, count: usize) {
    use std::io::Write;
    let now = Clock::default().now();
    let record = SessionRecord {
        user: user_id.into(),
        created: now,
        last_accessed: now,
        idle_timeout: Duration::from_secs(1800),
        fingerprint: Fingerprint::new([7; 16]),
        expires: now.plus(Duration::from_secs(3600)),
    };
    let value = String::from_utf8(record.encode()).unwrap();
    let mut stream = std::os::unix::net::UnixStream::connect(memcached.socket()).unwrap();
    for _ in 0..count {
        let key = SessionId::random().unwrap().key();
        write!(stream, "set {} 0 1800 {} noreply\r\n{value}\r\n", key.as_str(), value.len()).unwrap();
    }
    drop(stream);
    let items = || memcached.stat("curr_items") >= count as u64;
    eventually("they are stored", items);
}

#[test]
fn twenty_thousand_sessions_are_listed_while_everybody_works_on() {
    let (origin, memcached) = (origin("app"), memcached());
    let edge = with_store(&origin, &memcached).start();
    let mut ada = signed_in(&edge, "ada");
    fill(&memcached, "a-user-of-another-directory", 20_000);
    let listing = std::thread::scope(|scope| {
        let listing = scope.spawn(|| list(&edge, &["--json", "--limit", "30000"]));
        let mut opened = 0;
        while !listing.is_finished() {
            assert!(opens(&edge, &mut ada), "request {opened} while it is listed");
            opened += 1;
        }
        listing.join().unwrap()
    });
    let sessions = listing.whole().sessions();
    assert!((20_000..=20_001).contains(&sessions.len()), "{}", sessions.len());
    assert!(sessions.iter().filter(|session| session["user"].is_null()).count() == 20_000, "unknown, and listed");
    let reply = list(&edge, &["--json"]);
    assert_eq!((reply.sessions().len(), reply.status), (10_000, Some(0)), "the default limit");
    let answer = api(&edge, "GET", "/api/sessions");
    assert_eq!((answer.status, &answer.json()["truncated"]), (200, &Value::from(true)));
    assert_eq!(answer.json()["sessions"].as_array().unwrap().len(), 10_000);
    let answer = api(&edge, "GET", "/api/sessions?user=ada");
    assert_eq!((answer.json()["sessions"].as_array().unwrap().len(), &answer.json()["truncated"]), (1, &false.into()));
}

// The admin API.

fn ask(edge: &Edge, method: &'static str, path: &str, fields: &[(&str, &str)]) -> Response {
    let mut client = client(edge.inner.admin_address());
    let url = format!("http://admin.test{path}");
    fields.iter().fold(client.ask(method, &url), |asking, (name, value)| asking.field(name, value)).send()
}

fn api(edge: &Edge, method: &'static str, path: &str) -> Response {
    ask(edge, method, path, &[("authorization", &format!("Bearer {TOKEN}"))])
}

/// A name as a query has it.
fn query(user: &str) -> String {
    url::form_urlencoded::Serializer::new(String::new()).append_pair("user", user).finish()
}

#[test]
fn without_a_token_in_the_configuration_there_is_no_api() {
    let origin = origin("app");
    let edge = edge().service("iqueue", &origin).start();
    for method in ["GET", "DELETE", "POST"] {
        let answer = api(&edge, method, "/api/sessions?user=ada");
        assert_eq!(answer.status, 404);
        assert!(answer.body.contains("server.admin.token"), "{}", answer.body);
    }
    assert_eq!(edge.admin("/livez").status, 200);
}

#[test]
fn whoever_does_not_show_the_token_learns_nothing() {
    let origin = origin("app");
    let edge = with_token().service("iqueue", &origin).start();
    let right = format!("Bearer {TOKEN}");
    let nothing = ask(&edge, "GET", "/api/sessions", &[]);
    assert_eq!((nothing.status, nothing.json()["error"].as_str()), (401, Some("no_token")));
    assert_eq!(nothing.header("www-authenticate"), Some("Bearer realm=\"sentry-edge admin\""));
    assert_eq!(nothing.header("cache-control"), Some("no-store"));
    let wrong_ones = ["Bearer x", "Bearer ", &right[..right.len() - 1], &right.to_uppercase(), TOKEN, "Basic eDp5"];
    for wrong in wrong_ones {
        // Without the right token every path has the same response.
        for path in ["/api/sessions", "/api/else", "/api/sessions?limit=x"] {
            let answer = ask(&edge, "GET", path, &[("authorization", wrong)]);
            assert_eq!((answer.status, answer.json()["error"].as_str()), (401, Some("wrong_token")), "{wrong}");
            assert!(answer.header("www-authenticate").unwrap().contains("invalid_token"));
        }
    }
    let twice = ask(&edge, "GET", "/api/sessions", &[("authorization", &right), ("authorization", &right)]);
    assert_eq!(twice.status, 401);
    let of_a_page = ask(&edge, "GET", "/api/sessions", &[("authorization", &right), ("origin", "http://admin.test")]);
    assert_eq!((of_a_page.status, of_a_page.json()["error"].as_str()), (403, Some("origin")));
    let wrong = edge.metric("sentry_edge_admin_api_requests_total", "result=\"wrong_token\"");
    assert_eq!(wrong, (wrong_ones.len() * 3 + 1) as f64);

    let audit = edge.audit(wrong_ones.len() * 3 + 3);
    assert!(audit.iter().all(|line| line["event"] == "api_refused" && line["client"] == "127.0.0.1"));
    assert_eq!(audit[0]["reason"], "no_token");
    assert_eq!(audit.last().unwrap()["reason"], "origin");
    let log = std::fs::read_to_string(edge.folder.path().join("audit.log")).unwrap();
    assert!(!log.contains(TOKEN) && !log.contains(&TOKEN[..16]));
}

#[test]
fn many_wrong_tokens_at_once_are_turned_away_and_the_right_one_is_not_held_up() {
    let origin = origin("app");
    let edge = with_token().service("iqueue", &origin).start();
    std::thread::scope(|scope| {
        let guess = || ask(&edge, "GET", "/api/sessions", &[("authorization", "Bearer x")]);
        // One address may have 16 connections, and that of the one with the right token is one of them.
        let guesses: Vec<_> = (0..14).map(|_| scope.spawn(guess)).collect();
        assert_eq!(api(&edge, "GET", "/api/sessions").status, 200);
        let answers: Vec<Response> = guesses.into_iter().map(|guess| guess.join().unwrap()).collect();
        assert!(answers.iter().all(|answer| [401, 429].contains(&answer.status)));
        assert!(answers.iter().filter(|answer| answer.status == 401).count() >= 8);
        assert!(answers.iter().any(|answer| answer.status == 429));
        for turned_away in answers.iter().filter(|answer| answer.status == 429) {
            assert_eq!(turned_away.header("retry-after"), Some("1"));
            assert_eq!(turned_away.header("connection"), Some("close"), "each guess costs a connection");
        }
    });
}

#[test]
fn the_api_lists_what_the_command_lists() {
    let (origin, memcached) = (origin("app"), memcached());
    let edge = with_store(&origin, &memcached).start();
    let (ada, _bob, _odd) = (signed_in(&edge, "ada"), signed_in(&edge, "bob"), signed_in(&edge, ODD));
    let answer = api(&edge, "GET", "/api/sessions");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.header("x-request-id").is_some());
    let reply = answer.json();
    assert_eq!(reply["sessions"], Value::from(list(&edge, &["--json"]).whole().sessions()));
    assert_eq!((&reply["truncated"], &reply["unreachable"]), (&Value::from(false), &serde_json::json!([])));
    let (token, sid) = session_id(&edge, &ada);
    assert!(!answer.body.contains(&sid) && !answer.body.contains(&token) && !answer.body.contains(TOKEN));

    let odd = api(&edge, "GET", &format!("/api/sessions?{}", query(ODD))).json();
    assert_eq!(users(odd["sessions"].as_array().unwrap()), [ODD]);
    let cut = api(&edge, "GET", "/api/sessions?limit=2").json();
    assert_eq!((cut["sessions"].as_array().unwrap().len(), &cut["truncated"]), (2, &Value::from(true)));
    let listed = edge.events("sessions_listed", 3);
    assert_eq!(listed.iter().map(|line| line["user"].as_str()).collect::<Vec<_>>(), [None, Some(ODD), None]);
    assert!(listed.iter().all(|line| line.get("reason").is_none()));
}

#[test]
fn what_the_api_does_not_understand_it_does_not_do() {
    let origin = origin("app");
    let edge = with_token().service("iqueue", &origin).start();
    let mut ada = edge.signed_in();
    for (method, path, status, error) in [
        ("GET", "/api/sessions?user=nobody", 404, "unknown_user"),
        ("DELETE", "/api/sessions?user=nobody", 404, "unknown_user"),
        ("GET", "/api/sessions?user=ada%20lovelace", 400, "bad_request"),
        ("GET", "/api/sessions?limit=0", 400, "bad_request"),
        ("GET", "/api/sessions?whatever=1", 400, "bad_request"),
        ("DELETE", "/api/sessions", 400, "bad_request"),
        ("DELETE", "/api/sessions?user=ada&user=ada", 400, "bad_request"),
        ("DELETE", "/api/sessions?user=ada&limit=1", 400, "bad_request"),
        ("POST", "/api/sessions?user=ada", 405, "method"),
        ("PUT", "/api/sessions?user=ada", 405, "method"),
        ("GET", "/api/", 404, "no_such_path"),
        ("DELETE", "/api/sessions/?user=ada", 404, "no_such_path"),
    ] {
        let answer = api(&edge, method, path);
        let reply = (answer.status, answer.json()["error"].as_str().unwrap().to_owned());
        assert_eq!(reply, (status, error.to_owned()), "{method} {path}: {}", answer.body);
        assert_eq!(answer.header("allow"), (status == 405).then_some("GET, DELETE"));
    }
    let head = api(&edge, "HEAD", "/api/sessions");
    assert_eq!((head.status, head.body.as_str()), (405, ""));
    let mut client = client(edge.inner.admin_address());
    let with_body = client
        .ask("DELETE", "http://admin.test/api/sessions?user=ada")
        .field("authorization", &format!("Bearer {TOKEN}"))
        .body("user=ada")
        .send();
    assert_eq!((with_body.status, with_body.header("connection")), (400, Some("close")));
    assert!(opens(&edge, &mut ada), "nothing has ended");
}

#[test]
fn a_users_sessions_end_on_every_edge_though_all_other_keys_were_evicted() {
    let (origin, memcached) = (origin("app"), memcached());
    let one = with_store(&origin, &memcached).balanced().start();
    let other = one.twin();
    let mut adas = [signed_in(&one, "ada"), signed_in(&one, "ada")];
    let mut bob = signed_in(&one, "bob");
    let through = |edge: &Edge, browser: &mut Client| opens(edge, browser.through(edge.address()));
    for browser in &mut adas {
        assert!(through(&one, browser) && through(&other, browser));
    }
    let others: Vec<String> = ["t:", "c:"].iter().flat_map(|prefix| memcached.keys(prefix)).collect();
    for key in others {
        memcached.tell(&format!("delete {key}"));
    }
    // A listing passes over what the server has in use at that moment.
    eventually("the sessions are there", || memcached.session_records().len() == 3);

    let answer = api(&other, "DELETE", "/api/sessions?user=Ada");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json(), serde_json::json!({"user": "ada", "ended": 2, "effective_within": "20ms"}));
    for browser in &mut adas {
        assert!(!through(&one, browser) && !through(&other, browser), "the store has it at once");
    }
    assert!(through(&one, &mut bob) && through(&other, &mut bob), "others stay signed in");
    assert_eq!(users(&list(&one, &["--json"]).whole().sessions()), ["bob"]);
    eventually("a new login is not one of them", || {
        let mut again = one.client();
        again.sign_in(&one.url("iqueue", "/"), "ada", crate::harness::edge::PASSWORD).pop().unwrap().status == 200
            && through(&other, &mut again)
    });
    let ended = other.events("sessions_ended", 1).remove(0);
    assert_eq!((ended["user"].as_str(), ended.get("reason")), (Some("ada"), None));
    assert_eq!(other.metric("sentry_edge_admin_api_requests_total", "result=\"ok\""), 1.0);
}

#[test]
fn thousands_of_sessions_of_a_user_end_and_those_of_others_do_not() {
    let (origin, memcached) = (origin("app"), memcached());
    let edge = with_store(&origin, &memcached).start();
    let mut bob = signed_in(&edge, "bob");
    fill(&memcached, edge.directory().show(&name("ada")).unwrap().id.as_str(), 2500);
    fill(&memcached, "a-user-of-another-directory", 500);
    let answer = api(&edge, "DELETE", "/api/sessions?user=ada");
    assert_eq!((answer.status, &answer.json()["ended"]), (200, &Value::from(2500)));
    assert_eq!(list(&edge, &["--user", "ada"]).whole().stdout, "");
    assert_eq!(list(&edge, &["--json"]).whole().sessions().len(), 501);
    assert!(opens(&edge, &mut bob));
}

#[test]
fn sessions_in_memory_are_listed_and_ended_too() {
    let origin = origin("app");
    let edge = with_token().service("iqueue", &origin).user("bob", &["iqueue"], &[]).start();
    let (mut ada, mut bob) = (signed_in(&edge, "ada"), signed_in(&edge, "bob"));
    let reply = api(&edge, "GET", "/api/sessions").json();
    assert_eq!(users(reply["sessions"].as_array().unwrap()), ["ada", "bob"]);
    assert_eq!(reply["sessions"][0]["servers"], serde_json::json!([]));
    let answer = api(&edge, "DELETE", "/api/sessions?user=ada");
    assert_eq!((answer.status, &answer.json()["ended"]), (200, &Value::from(1)));
    assert!(!opens(&edge, &mut ada) && opens(&edge, &mut bob));
    assert_eq!(users(api(&edge, "GET", "/api/sessions").json()["sessions"].as_array().unwrap()), ["bob"]);
    let answer = api(&edge, "DELETE", "/api/sessions?user=ada");
    assert_eq!((answer.status, &answer.json()["ended"]), (200, &Value::from(0)), "there is none left");
}

#[test]
fn where_no_sessions_are_kept_the_directory_ends_them() {
    let origin = origin("app");
    let edge = with_token().service("iqueue", &origin).sessions("{store: none}").start();
    let mut ada = edge.signed_in();
    assert_eq!(api(&edge, "GET", "/api/sessions").json()["error"], "no_sessions_kept");
    let answer = api(&edge, "DELETE", "/api/sessions?user=ada");
    assert_eq!((answer.status, &answer.json()["ended"]), (200, &Value::Null));
    eventually("she has to sign in", || !opens(&edge, &mut ada));
}

#[test]
fn while_the_store_is_away_the_directory_still_hears_of_the_end() {
    let (origin, memcached) = (origin("app"), memcached());
    // What waits for the store gives up soon.
    let edge = with_store(&origin, &memcached).memcached_within(&memcached.address(), "1s").start();
    let mut ada = edge.signed_in();
    memcached.freeze();
    let answer = api(&edge, "DELETE", "/api/sessions?user=ada");
    assert_eq!(answer.status, 503, "{}", answer.body);
    let reply = answer.json();
    assert_eq!((&reply["error"], &reply["ended"]), (&Value::from("store_away"), &Value::Null));
    assert!(reply["message"].as_str().unwrap().contains("the user directory has it"), "{reply}");
    assert_eq!(reply["unreachable"][0]["server"], memcached.address());
    let listed = api(&edge, "GET", "/api/sessions");
    assert_eq!((listed.status, &listed.json()["sessions"]), (503, &serde_json::json!([])));
    memcached.thaw();
    eventually("the store answers", || edge.admin("/readyz").status == 200);
    assert!(!opens(&edge, &mut ada), "though the store has her session");
    assert_eq!(list(&edge, &["--json"]).whole().sessions()[0]["ended"], "ended");
    let ended = edge.events("sessions_ended", 1).remove(0);
    assert_eq!((ended["user"].as_str(), ended["reason"].as_str()), (Some("ada"), Some("incomplete")));
}

#[test]
fn a_directory_that_does_not_answer_ends_nothing_and_says_so() {
    let (origin, memcached) = (origin("app"), memcached());
    let edge = with_store(&origin, &memcached).start();
    let mut ada = edge.signed_in();
    let other = rusqlite::Connection::open(edge.folder.path().join("users.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let answer = api(&edge, "DELETE", "/api/sessions?user=ada");
    assert_eq!((answer.status, answer.json()["error"].as_str()), (503, Some("directory_away")));
    other.execute_batch("ROLLBACK").unwrap();
    assert!(opens(&edge, &mut ada));
}

// The token's place in the configuration.

fn faults(token: &str) -> String {
    let (folder, file) = edge().service("iqueue", &origin("app")).admin(&format!("token: {token}")).write();
    let output = sentry_edge(&["check", "-c", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    drop(folder);
    text(&output.stderr)
}

#[test]
fn a_token_that_is_no_good_is_a_fault_that_does_not_repeat_it() {
    let short = faults("{value: correct horse}");
    assert!(short.contains("server.admin.token: the token has 13 bytes; use 32 or more"), "{short}");
    assert!(faults("{value: 'correct horse battery staple, correct'}").contains("cannot stand in a header"));
    assert!(faults("{file: nowhere}").contains("server.admin.token: this file cannot be read"));
    assert!(faults("{env: SENTRY_EDGE_NO_SUCH_VARIABLE}").contains("this environment variable is not set"));
    for odd in ["correct-horse-battery-staple-correct", "{correct horse: 1}", "[correct, horse]", "{}"] {
        let reply = faults(odd);
        assert!(reply.contains("server.admin.token") && !reply.contains("horse"), "{odd}: {reply}");
    }
}

#[test]
fn a_reload_takes_up_another_token_and_the_former_one_opens_nothing_any_more() {
    let origin = origin("app");
    let mut edge = with_token().service("iqueue", &origin).start();
    let file = edge.folder.path().join("edge.yaml");
    let yaml = std::fs::read_to_string(&file).unwrap();
    let other = "another-admin-token-of-more-than-32-bytes";
    let status = |edge: &Edge, token: &str| {
        ask(edge, "GET", "/api/sessions", &[("authorization", &format!("Bearer {token}"))]).status
    };
    std::fs::write(&file, yaml.replace(TOKEN, other)).unwrap();
    assert!(edge.inner.reload().unwrap().is_empty());
    assert_eq!((status(&edge, TOKEN), status(&edge, other)), (401, 200));
    std::fs::write(&file, yaml.replace(TOKEN, "short")).unwrap();
    assert!(edge.inner.reload().unwrap_err().to_string().contains("server.admin.token"));
    assert_eq!(status(&edge, other), 200, "a configuration with faults changes nothing");
    // The file of the token alone has changed.
    let secret = edge.folder.path().join("api.token");
    write_private(&secret, TOKEN);
    std::fs::write(&file, yaml.replace(&format!("{{value: {TOKEN}}}"), "{file: api.token}")).unwrap();
    assert!(edge.inner.reload().unwrap().is_empty());
    assert_eq!((status(&edge, TOKEN), status(&edge, other)), (200, 401));
    write_private(&secret, other);
    assert!(edge.inner.reload().unwrap().is_empty());
    assert_eq!((status(&edge, TOKEN), status(&edge, other)), (401, 200));
    // None at all.
    std::fs::write(&file, yaml.replace(&format!("token: {{value: {TOKEN}}}"), "tokens: {}")).unwrap();
    assert!(edge.inner.reload().unwrap().is_empty());
    assert_eq!(status(&edge, other), 404);
}

#[test]
fn the_first_token_of_an_edge_without_an_api_is_named_as_one_that_wants_a_new_process() {
    let origin = origin("app");
    let mut edge = edge().service("iqueue", &origin).admin("tokens: {}").start();
    let file = edge.folder.path().join("edge.yaml");
    let yaml = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, yaml.replace("tokens: {}", &format!("token: {{value: {TOKEN}}}"))).unwrap();
    assert_eq!(edge.inner.reload().unwrap(), ["server.admin.tokens"]);
    std::fs::write(&file, &yaml).unwrap();
    assert!(edge.inner.reload().unwrap().is_empty());
}
