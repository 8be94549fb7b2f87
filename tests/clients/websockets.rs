//! WebSockets as their users have them: two libraries on either side, and a browser.

use serde_json::json;

use crate::scene::{Scene, application, in_a_browser, run, scene};

const SERVERS: [&str; 2] = ["websocket_server.py", "websocket_server.cjs"];
const CLIENTS: [&str; 2] = ["websocket_client.py", "websocket_client.cjs"];

#[test]
fn texts_bytes_pings_and_close_codes_pass_between_any_two_libraries() {
    for server in SERVERS {
        let application = application(server);
        let scene = scene("/ws", application.address, "");
        for client in CLIENTS {
            println!("{client} and {server}");
            run(&mut scene.client(client, &scene.cookie()));
        }
    }
}

#[test]
fn a_handshake_from_another_site_or_without_a_session_is_refused_and_the_application_hears_of_none() {
    let application = application(SERVERS[0]);
    let scene = scene("/ws", application.address, "");
    let before = heard(&scene);
    assert_ne!(before, "", "the first page was");
    let own = format!("https://iqueue.test:{}", scene.edge.address.port());
    for client in CLIENTS {
        for (cookie, origin, status) in
            [(&*scene.cookie(), "https://evil.test", "400"), ("", &own, "401"), ("__Host-JWTCookie=forged", "", "401")]
        {
            run(scene.client(client, cookie).args(["refused", status, origin]));
        }
    }
    assert_eq!(heard(&scene), before);
}

/// What the application was asked so far, as the edge counts it.
fn heard(scene: &Scene) -> String {
    let metrics = scene.edge.admin("/metrics").body;
    metrics.lines().filter(|line| line.starts_with("sentry_edge_upstream_requests_total")).collect()
}

#[test]
fn a_browser_talks_over_a_websocket_and_both_sides_close_it_with_their_codes() {
    let (page, sockets) = (application("live.cjs"), application(SERVERS[1]));
    let (edge, browser) = in_a_browser(page.address, sockets.address);
    let conversation = "(async () => {
        const open = () => new Promise((done, fail) => {
            const socket = new WebSocket(`wss://${location.host}/ws`);
            socket.binaryType = 'arraybuffer';
            socket.onopen = () => done(socket);
            socket.onerror = () => fail('no WebSocket');
        });
        const ask = (socket, message) => new Promise((done) => {
            socket.onmessage = (event) => done(event.data);
            socket.send(message);
        });
        const closed = (socket) => new Promise((done) => {
            socket.onclose = (event) => done(`${event.code} ${event.reason}`);
        });
        const sum = async (data) => new Uint8Array(await crypto.subtle.digest('SHA-256', data)).join();
        const found = [];
        let socket = await open();
        found.push(await ask(socket, 'who'));
        const text = 'é'.repeat(512 * 1024);
        found.push(await ask(socket, text) === text);
        const bytes = new Uint8Array(1 << 20);
        for (let at = 0; at < bytes.length; at += 65536) crypto.getRandomValues(bytes.subarray(at, at + 65536));
        found.push(await sum(await ask(socket, bytes)) === await sum(bytes));
        found.push(await ask(socket, 'ping me'));
        const end = closed(socket);
        socket.close(4001, 'enough said');
        found.push(await end);
        socket = await open();
        let last;
        do last = await ask(socket, 'last close'); while (last !== '4001 enough said');
        const other = closed(socket);
        socket.send('close 4002 that is all');
        found.push(await other);
        return found;
    })()";
    let found = browser.wait_for(conversation);
    assert_eq!(found, json!(["ada", true, true, "pong heard", "4001 enough said", "4002 that is all"]));
    drop(edge);
}
