//! Uploads of no known length over HTTP/2, whose end comes in a frame of its own, beside the requests of another client:
//! with curl, Node and httpx, to an application that says what it got. Nobody gets a wrong answer.
//!
//! `UPLOADS` and `POSTS` say how many, and `BODY_SERVER` names the application's program, for more than the suite has
//! time for: `UPLOADS=200 POSTS=20000 BODY_SERVER=body_server.go cargo test --test clients uploads -- --nocapture`.

use std::io::Write;
use std::process::{Child, Stdio};
use std::thread::JoinHandle;

use ring::digest::{SHA256, digest};

use crate::harness::raw::{Raw, raw};
use crate::scene::{Scene, application, run, scene};

/// From the environment, or this.
fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn server() -> String {
    std::env::var("BODY_SERVER").unwrap_or_else(|_| "body_server.cjs".into())
}

/// What the application answers to a body.
fn wanted(test: &str, body: &[u8]) -> String {
    let hash: String = digest(&SHA256, body).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("200 {test} {} {hash}", body.len())
}

/// Posts so often as another client, Ada on another browser, on connections that are kept; answers the wrong answers.
fn post(scene: &Scene, client: usize, count: usize) -> JoinHandle<Vec<String>> {
    let (address, cookie) = (scene.edge.address, scene.cookie());
    std::thread::spawn(move || {
        let open = || raw(address, "iqueue.test");
        let mut connection: Raw = open();
        let mut wrong = Vec::new();
        for turn in 0..count {
            let (test, body) = (format!("post-{client}-{turn}"), format!("{turn}").repeat(turn % 5));
            let asked = format!(
                "POST /bodies HTTP/1.1\r\nHost: iqueue.test:{}\r\nUser-Agent: test/1\r\nCookie: {cookie}\r\n\
                 X-Test: {test}\r\nContent-Length: {}\r\n\r\n{body}",
                address.port(),
                body.len()
            );
            let answer = connection.send(asked).answer();
            let told = answer.map_or("nothing".into(), |answer| format!("{} {}", answer.status, answer.text()));
            if told != wanted(&test, body.as_bytes()) {
                wrong.push(format!("{test}: {told}"));
                connection = open();
            }
        }
        wrong
    })
}

/// A `curl -T -` that has its body, and has not been waited for.
fn upload(scene: &Scene, number: usize) -> (String, Vec<u8>, Child) {
    let (test, body) = (format!("curl-{number}"), format!("line of {number}\n").repeat(number % 50).into_bytes());
    let mut curl = scene.curl();
    curl.args(["--http2", "--request", "POST", "--upload-file", "-", "--write-out", "\n%{http_code} %{http_version}"]);
    curl.args(["--header", &format!("X-Test: {test}")]).arg(scene.url("/bodies"));
    let mut curl = curl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Dropped, and so closed: that is its end.
    curl.stdin.take().unwrap().write_all(&body).unwrap();
    (test, body, curl)
}

#[test]
fn uploads_of_curl_and_posts_of_another_client_at_once_get_their_own_answers() {
    let application = application(&server());
    let scene = scene("/bodies", application.address, "");
    let (uploads, posts) = (number("UPLOADS", 20), number("POSTS", 1000));
    let others: Vec<_> = (0..2).map(|client| post(&scene, client, posts / 2)).collect();
    let begun: Vec<_> = (0..uploads).map(|number| upload(&scene, number)).collect();
    let mut wrong = Vec::new();
    for (test, body, curl) in begun {
        let output = curl.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let (text, status) = told.rsplit_once('\n').unwrap_or_default();
        if format!("200 {text}") != wanted(&test, &body) || status != "200 2" {
            wrong.push(format!("{test}: {told:?}"));
        }
    }
    let wrong_uploads = wrong.len();
    wrong.extend(others.into_iter().flat_map(|other| other.join().unwrap()));
    println!(
        "{}: {wrong_uploads} of {uploads} uploads and {} of {posts} posts got a wrong answer",
        server(),
        wrong.len() - wrong_uploads
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn uploads_of_other_libraries_arrive_whole_and_leave_the_connection_good() {
    let application = application(&server());
    let scene = scene("/bodies", application.address, "");
    for program in ["uploader.cjs", "uploader.py"] {
        let other = post(&scene, 0, 200);
        run(scene.client(program, &scene.cookie()).arg("40"));
        let wrong = other.join().unwrap();
        assert!(wrong.is_empty(), "beside {program}: {}", wrong.join("\n"));
    }
}
