//! Answers that go on reach their reader piece by piece: whatever is sent is sent only when what was sent before it has
//! arrived, so that a buffer anywhere on the way would hold up everything for good.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use serde_json::json;

use crate::harness::eventually;
use crate::scene::{Scene, application, in_a_browser, scene};

/// Has the application send a text to all that listen.
fn say(scene: &mut Scene, text: &str) {
    let url = scene.url("/live/say");
    scene.client.ask("POST", &url).body(text).send();
}

/// Waits until so many listen.
fn until_there_are(scene: &mut Scene, listeners: &str) {
    let url = scene.url("/live/listeners");
    eventually("they listen", || scene.client.get(&url).body == listeners);
}

/// A curl that listens, and the lines that it hears.
struct Listening {
    curl: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Listening {
    fn to(scene: &Scene, path: &str, options: [&str; 2]) -> Self {
        let mut curl = scene.curl();
        curl.arg("--no-buffer").args(options).arg(scene.url(path)).stdout(Stdio::piped());
        let mut curl = curl.spawn().unwrap();
        let lines = BufReader::new(curl.stdout.take().unwrap()).lines();
        Self { curl, lines }
    }

    /// The next line that says something.
    fn hear(&mut self) -> String {
        self.lines.by_ref().map(Result::unwrap).find(|line| !line.is_empty()).expect("there is more")
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.curl.kill().ok();
        self.curl.wait().ok();
    }
}

#[test]
fn events_and_lines_arrive_at_curl_before_the_next_are_sent() {
    let application = application("live.cjs");
    let mut scene = scene("/live", application.address, "");
    for options in
        [["--http1.1", "--silent"], ["--http2", "--silent"], ["--http1.1", "--compressed"], ["--http2", "--compressed"]]
    {
        for (path, mark) in [("/live/events", "data: "), ("/live/lines", "")] {
            until_there_are(&mut scene, "0");
            let mut listening = Listening::to(&scene, path, options);
            until_there_are(&mut scene, "1");
            for number in 0..20 {
                let text = format!("{options:?} {number}");
                say(&mut scene, &text);
                assert_eq!(listening.hear(), format!("{mark}{text}"), "{path}");
            }
        }
    }
}

#[test]
fn a_long_poll_is_answered_when_there_is_something_to_say() {
    let application = application("live.cjs");
    let mut scene = scene("/live", application.address, "");
    for version in ["--http1.1", "--http2"] {
        for number in 0..5 {
            let text = format!("{version} {number}\n");
            let mut polling = Listening::to(&scene, "/live/poll", [version, "--compressed"]);
            say(&mut scene, &text);
            assert_eq!(polling.hear(), text.trim());
        }
    }
}

/// The page asks the application for the next event when it has heard the one before.
const EVENTS: &str = "new Promise((done) => {
    const say = (text) => fetch('/live/say', { method: 'POST', body: text });
    const heard = [];
    const events = new EventSource('/live/events');
    events.onopen = () => say('0');
    events.onerror = () => done('broken');
    events.onmessage = (event) => {
        heard.push(event.data);
        if (heard.length < 10) return say(String(heard.length));
        events.close();
        done(heard.join());
    };
})";

const LINES: &str = "(async () => {
    const say = (text) => fetch('/live/say', { method: 'POST', body: text });
    const response = await fetch('/live/lines');
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let heard = '';
    for (let number = 0; number < 10; number += 1) {
        await say(String(number));
        while (!heard.endsWith(`${number}\\n`)) heard += (await reader.read()).value;
    }
    await reader.cancel();
    return heard.trim().split('\\n').join();
})()";

const POLLS: &str = "(async () => {
    const heard = [];
    for (let number = 0; number < 5; number += 1) {
        const poll = fetch('/live/poll');
        await fetch('/live/say', { method: 'POST', body: String(number) });
        heard.push(await (await poll).text());
    }
    return heard.join();
})()";

#[test]
fn events_streams_and_polls_arrive_in_a_browser_before_the_next_are_sent() {
    let application = application("live.cjs");
    let (_edge, browser) = in_a_browser(application.address, application.address);
    // Polls first: they take what was said to nobody else.
    assert_eq!(browser.wait_for(POLLS), json!("0,1,2,3,4"));
    assert_eq!(browser.wait_for(EVENTS), json!("0,1,2,3,4,5,6,7,8,9"));
    assert_eq!(browser.wait_for(LINES), json!("0,1,2,3,4,5,6,7,8,9"));
}
