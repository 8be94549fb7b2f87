//! Which server of a pool a request goes to: by the requests that servers have in flight, and by the cookie of its client.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use hyper::Response as HttpResponse;

use crate::configuration::{GOOD, check, folder, without_marks};
use crate::harness::observer::{Asking, Observer, PROTOCOLS};
use crate::harness::{Client, Edge, Origin, edge, eventually, free_address, origin, raw, runtime};

const PUBLIC: &str = "access: public";
const COOKIE: &str = "iqueue_server";

/// A server that names itself, and tries to set the cookie of the edge. It keeps no connection, so that it is away at once
/// when it ends.
fn server(name: &'static str) -> Origin {
    Origin::answering(move |_| answer(name))
}

fn answer(name: &'static str) -> HttpResponse<http_body_util::Full<hyper::body::Bytes>> {
    let response = HttpResponse::builder().header("connection", "close").header("set-cookie", "application=1");
    let response = response.header("set-cookie", format!("{COOKIE}=forged; Path=/"));
    response.header("cache-control", "public, max-age=60").body(name.into()).unwrap()
}

fn pool(servers: &[&Origin], balance: &str) -> String {
    let servers: Vec<String> = servers.iter().map(|server| format!("\"{}\"", server.address)).collect();
    format!("{{servers: [{}], balance: {balance}}}", servers.join(", "))
}

fn sticky_edge(servers: &[&Origin]) -> Edge {
    let pool = pool(servers, &format!("{{sticky: {{cookie: {COOKIE}}}}}"));
    edge().service_with("iqueue", servers[0], PUBLIC).pool("iqueue", &pool).start()
}

/// The server that answers, and the value of the cookie that is set with the answer.
fn get(client: &mut Client, edge: &Edge) -> (String, Option<String>) {
    let response = client.get(&edge.url("iqueue", "/"));
    assert_eq!(response.status, 200, "{}", response.body);
    let set = response.set_cookie(COOKIE).map(|cookie| cookie.split([';', '=']).nth(1).unwrap().to_owned());
    (response.body, set)
}

fn with_cookie(edge: &Edge, value: &str) -> Client {
    let mut client = edge.client();
    client.set_cookie(&edge.host("iqueue"), COOKIE, value);
    client
}

#[test]
fn a_client_stays_with_its_server_and_the_application_neither_sees_nor_sets_the_cookie() {
    let servers = [server("one"), server("two"), server("three")];
    let edge = sticky_edge(&servers.each_ref());
    for mut client in [edge.client(), edge.client().http2()] {
        let first = client.get(&edge.url("iqueue", "/"));
        let (name, set) = (first.body.clone(), first.set_cookie(COOKIE).unwrap());
        let value = set.strip_suffix("; Path=/; Secure; HttpOnly; SameSite=Lax").unwrap().split_once('=').unwrap().1;
        assert_eq!(value.len(), 22, "{value}");
        assert_eq!(first.set_cookies().len(), 2, "the application's own is set too: {:?}", first.set_cookies());
        for method in ["GET", "POST", "GET", "PUT", "HEAD", "GET", "DELETE"] {
            let body = if ["POST", "PUT"].contains(&method) { "text" } else { "" };
            let response = client.ask(method, &edge.url("iqueue", "/")).body(body).send();
            assert_eq!((response.status, response.set_cookies()), (200, vec!["application=1"]), "{method}");
            if method != "HEAD" {
                assert_eq!(response.body, name, "{method}");
            }
        }
        let seen: Vec<String> =
            servers.iter().flat_map(|server| server.seen()).filter_map(|seen| seen.one("cookie")).collect();
        assert!(
            seen.contains(&"application=1".to_owned()) && !seen.iter().any(|cookie| cookie.contains(COOKIE)),
            "{seen:?}"
        );
    }
    let others: BTreeSet<String> = (0..3).map(|_| get(&mut edge.client(), &edge).0).collect();
    assert_eq!(others.len(), 3, "clients without a cookie take turns");
}

#[test]
fn a_value_that_the_edge_did_not_make_for_this_pool_is_replaced() {
    let servers = [server("one"), server("two")];
    let list = pool(&servers.each_ref(), &format!("{{sticky: {{cookie: {COOKIE}}}}}"));
    let edge = edge()
        .service_with("iqueue", &servers[0], PUBLIC)
        .service_with("dextor", &servers[0], PUBLIC)
        .pool("iqueue", &list)
        .pool("dextor", &list)
        .start();
    let of_dextor = edge.client().get(&edge.url("dextor", "/"));
    let of_dextor = of_dextor.set_cookie(COOKIE).unwrap().split([';', '=']).nth(1).unwrap().to_owned();
    let (name, good) = get(&mut edge.client(), &edge);
    let good = good.unwrap();
    let address = servers[0].address.to_string();
    for bad in ["", "0", "one", &address, "AAAAAAAAAAAAAAAAAAAAAA", &good[1..], &good.to_lowercase(), &of_dextor] {
        let mut client = with_cookie(&edge, bad);
        let (_, set) = get(&mut client, &edge);
        assert!(set.is_some_and(|set| set != bad), "{bad}");
    }
    // Of several the good one counts.
    let host = edge.host("iqueue");
    for field in [format!("{COOKIE}=junk; {COOKIE}={good}"), format!("a=1; {COOKIE}={good}; {COOKIE}=junk")] {
        for _ in 0..3 {
            let response = edge.client().ask("GET", &edge.url("iqueue", "/")).field("Cookie", &field).send();
            assert_eq!((response.body.as_str(), response.set_cookie(COOKIE)), (name.as_str(), None), "{host} {field}");
        }
    }
}

#[test]
fn a_client_whose_server_is_away_gets_another_one_and_stays_with_that() {
    for method in ["GET", "POST"] {
        let mut servers = ["one", "two", "three"].map(|name| (name, server(name))).into_iter().collect::<Vec<_>>();
        let edge = sticky_edge(&servers.iter().map(|(_, server)| server).collect::<Vec<_>>());
        let mut client = edge.client();
        let (name, _) = get(&mut client, &edge);
        servers.retain(|(other, _)| *other != name);
        let response = client.ask(method, &edge.url("iqueue", "/")).send();
        assert_eq!(response.status, 200, "{method}");
        assert!(
            response.body != name && response.set_cookie(COOKIE).is_some(),
            "{method}: a cookie for another server"
        );
        for _ in 0..3 {
            assert_eq!(get(&mut client, &edge), (response.body.clone(), None), "{method}");
        }
    }
}

#[test]
fn a_client_leaves_a_backup_server_as_soon_as_another_one_is_back() {
    for method in ["GET", "POST"] {
        let (primary, backup) = (server("primary"), server("backup"));
        let address = primary.address;
        let edge = edge()
            .service_with("iqueue", &backup, PUBLIC)
            .pool(
                "iqueue",
                &format!(
                    "{{servers: [\"{address}\", {{address: \"{}\", backup: true}}], \
                     eject: {{for: 100ms, at_most: 100ms}}, balance: {{sticky: {{cookie: {COOKIE}}}}}}}",
                    backup.address
                ),
            )
            .start();
        let mut client = edge.client();
        assert_eq!(get(&mut client, &edge).0, "primary", "{method}");
        drop(primary);
        assert_eq!(client.ask(method, &edge.url("iqueue", "/")).send().body, "backup", "{method}");
        assert_eq!(get(&mut client, &edge), ("backup".into(), None), "{method}: it stays while the other one is away");
        eventually("the server's port is free", || std::net::TcpListener::bind(address).is_ok());
        let _primary = Origin::on(address, |_| answer("primary"));
        eventually("it goes back", || client.ask(method, &edge.url("iqueue", "/")).send().body == "primary");
        assert_eq!(get(&mut client, &edge).0, "primary", "{method}");
    }
}

#[test]
fn a_client_stays_with_its_server_through_reloads_and_restarts_of_the_edge_and_of_the_server() {
    // Where no other test begins to listen while the servers are away.
    let addresses = [(); 3].map(|()| free_address());
    let start = |address: SocketAddr, name| Origin::on(address, move |_| answer(name));
    let [one, two, three] = [start(addresses[0], "one"), start(addresses[1], "two"), start(addresses[2], "three")];
    let mut edge = sticky_edge(&[&one, &two, &three]);
    let mut client = edge.client();
    let (name, cookie) = get(&mut client, &edge);
    let (cookie, stays) = (cookie.unwrap(), (name.clone(), None));
    // One server more before the others, and one less.
    for (before, after) in
        [("servers: [", "servers: [\"127.0.0.1:1\", "), ("servers: [\"127.0.0.1:1\", ", "servers: [")]
    {
        edge.reload_with(|yaml| yaml.replace(before, after));
        for _ in 0..4 {
            assert_eq!(get(&mut client, &edge), stays, "after a reload");
        }
    }
    let twin = edge.twin();
    for _ in 0..4 {
        assert_eq!(get(&mut with_cookie(&twin, &cookie), &twin), stays, "at another edge");
    }
    edge.restart();
    for _ in 0..4 {
        assert_eq!(get(&mut with_cookie(&edge, &cookie), &edge), stays, "after a restart of the edge");
    }
    drop((one, two, three));
    let again = |address: SocketAddr, name| {
        eventually("the server's port is free", || std::net::TcpListener::bind(address).is_ok());
        start(address, name)
    };
    let _servers = [again(addresses[0], "one"), again(addresses[1], "two"), again(addresses[2], "three")];
    for _ in 0..4 {
        assert_eq!(get(&mut with_cookie(&edge, &cookie), &edge), stays, "after a restart of the server");
    }
}

#[test]
fn a_websocket_goes_to_the_server_of_its_client_and_may_be_the_first_to_get_the_cookie() {
    let upgrade = |name: &'static str| {
        Origin::answering(move |_| {
            let response = HttpResponse::builder().status(101).header("connection", "upgrade");
            response.header("upgrade", "websocket").header("x-from-origin", name).body("".into()).unwrap()
        })
    };
    let servers = [upgrade("one"), upgrade("two")];
    let edge = sticky_edge(&servers.each_ref());
    let host = edge.host("iqueue");
    let open = |cookie: Option<&str>| {
        let cookie = cookie.map(|value| format!("Cookie: {COOKIE}={value}\r\n")).unwrap_or_default();
        let mut connection = raw(edge.address(), &host);
        connection.send(format!(
            "GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{cookie}\r\n"
        ));
        let answer = connection.answer().unwrap();
        assert_eq!(answer.status, 101, "{}", answer.head);
        let set = answer.header("set-cookie").map(|set| set.split([';', '=']).nth(1).unwrap().to_owned());
        (answer.header("x-from-origin").unwrap().to_owned(), set)
    };
    let (name, cookie) = open(None);
    for _ in 0..4 {
        assert_eq!(open(cookie.as_deref()), (name.clone(), None));
    }
}

#[test]
fn shared_caches_do_not_store_the_response_that_sets_the_cookie() {
    let only = server("one");
    let edge = sticky_edge(&[&only]);
    for mut client in [edge.client(), edge.client().http2()] {
        let cache = |client: &mut Client| {
            client.get(&edge.url("iqueue", "/")).header("cache-control").map(str::to_owned).unwrap()
        };
        assert_eq!(cache(&mut client), "public, max-age=60, private");
        assert_eq!(cache(&mut client), "public, max-age=60", "as the application says, where no cookie is set");
    }
}

/// Whatever the configuration makes of the application's own cookies, and of what caches may store.
#[test]
fn fields_that_the_configuration_changes_take_neither_the_cookie_nor_its_privacy_away() {
    let application = || {
        Origin::answering(|seen| {
            let response = HttpResponse::builder().header("set-cookie", "a=1").header("cache-control", "no-cache");
            let status = if seen.headers.contains_key("upgrade") { 101 } else { 200 };
            let response = response.status(status).header("connection", "upgrade").header("upgrade", "websocket");
            response.body("".into()).unwrap()
        })
    };
    for (changes, cookies, cache) in [
        ("remove: [Set-Cookie]", &[][..], "no-cache, private"),
        ("set: {Set-Cookie: b=2}", &["b=2"], "no-cache, private"),
        ("set: {Cache-Control: \"public, max-age=60\"}", &["a=1"], "public, max-age=60, private"),
        ("remove: [Set-Cookie, Cache-Control]", &[], "private"),
        ("set: {CDN-Cache-Control: max-age=60}", &["a=1"], "no-cache, private"),
    ] {
        let only = application();
        let balanced = pool(&[&only], &format!("{{sticky: {{cookie: {COOKIE}}}}}"));
        let service = format!("{PUBLIC}, response_headers: {{{changes}}}");
        let edge = edge().service_with("iqueue", &only, &service).pool("iqueue", &balanced).start();
        for (protocol, method) in PROTOCOLS.into_iter().flat_map(|protocol| [(protocol, "GET"), (protocol, "POST")]) {
            let asking = Asking { method, path: "/", body: None, fields: &[] };
            let host = edge.host("iqueue");
            let response = runtime().block_on(async {
                Observer::connect(edge.address(), &host, protocol).await.ask(&host, &asking).await.unwrap()
            });
            let what = format!("{changes} {protocol:?} {method}");
            let (ours, others): (Vec<_>, Vec<_>) =
                response.all("set-cookie").into_iter().partition(|cookie| cookie.starts_with(COOKIE));
            assert_eq!((ours.len(), others), (1, cookies.to_vec()), "{what}");
            assert_eq!(response.all("cache-control"), [cache], "{what}");
            if changes.contains("CDN") {
                assert_eq!(response.all("cdn-cache-control"), ["max-age=60, private"], "{what}");
            }
        }
        let host = edge.host("iqueue");
        let answer = raw(edge.address(), &host)
            .send(format!(
                "GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ))
            .answer()
            .unwrap();
        assert_eq!(answer.status, 101);
        assert!(answer.head.contains(&format!("{COOKIE}=")), "{changes}: {}", answer.head);
    }
}

#[test]
fn the_server_with_fewer_requests_in_flight_gets_the_next_one() {
    let (held, free) = (Origin::held(), origin("free"));
    let list = pool(&[&held, &free], "least_request");
    let edge = edge().service_with("iqueue", &free, PUBLIC).pool("iqueue", &list).start();
    let host = edge.host("iqueue");
    let labels = format!("pool=\"iqueue\",server=\"{}\"", held.address);
    let is_busy = || edge.metric("sentry_edge_upstream_in_flight", &labels) >= 1.0;
    let mut waiting = Vec::new();
    while !is_busy() {
        let before = free.count();
        let mut client = raw(edge.address(), &host);
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        eventually("the request has arrived", || is_busy() || free.count() > before);
        waiting.push(client);
    }
    let mut client = edge.client();
    for method in ["GET", "POST"].repeat(15) {
        assert_eq!(client.ask(method, &edge.url("iqueue", "/")).send().body, "hello from free", "{method}");
    }
    held.release();
}

#[test]
fn policies_and_cookies_that_cannot_be_are_faults() {
    let with = |pools: &str| {
        let text =
            without_marks(GOOD).replace("pools:\n  first:\n", &format!("pools:\n  first:\n    balance: {pools}\n"));
        let (_folder, file) = folder(&text);
        check(&file).stderr
    };
    for balance in [
        "hash",
        "{hash: {header: X-User}}",
        "random",
        "ip_hash",
        "{sticky: yes}",
        "{sticky: {}}",
        "{sticky: {header: a}}",
        "[]",
    ] {
        let said = with(balance);
        let expected = "pools.first.balance: ";
        assert!(said.contains(expected) && said.contains("no other policies, such as a hash"), "{balance}: {said}");
    }
    for (name, what) in [
        ("\"a b\"", "cannot be the name of a cookie"),
        ("\"\"", "cannot be the name of a cookie"),
        ("\"a;b\"", "cannot be the name of a cookie"),
        ("\"a=b\"", "cannot be the name of a cookie"),
        ("\"\u{e9}\"", "cannot be the name of a cookie"),
        ("__Host-JWTCookie", "is a cookie of the sign-on"),
        ("__host-ssostate", "is a cookie of the sign-on"),
        ("__Host-SSODevice", "is a cookie of the sign-on"),
        ("__Host-SSOLogin", "is a cookie of the sign-on"),
        ("__Host-SSORound", "is a cookie of the sign-on"),
        ("__Host-SSOReturn", "is a cookie of the sign-on"),
        ("JSESSIONID", "warning: `JSESSIONID` is what many applications call"),
    ] {
        let said = with(&format!("{{sticky: {{cookie: {name}}}}}"));
        assert!(said.contains("pools.first.balance.sticky.cookie: ") && said.contains(what), "{name}: {said}");
    }
    assert_eq!(with("{sticky: {cookie: __Host-iqueue_server}}"), "");
    // Two pools of one host.
    let text = without_marks(GOOD)
        .replace("pools:\n  first:\n", "pools:\n  first:\n    balance: {sticky: {cookie: server}}\n")
        .replace("idle_timeout: 30m", "idle_timeout: 30m\n    response_headers: {set: {Set-Cookie: server=x}}");
    let (_folder, file) = folder(&text);
    let said = check(&file).stderr;
    assert!(
        said.contains("services.iqueue.response_headers.set.Set-Cookie: a cookie that only the edge sets"),
        "{said}"
    );

    let sticky = "    balance: {sticky: {cookie: server}}\n";
    let text = without_marks(GOOD).replace("pools:\n  first:\n", &format!("pools:\n  first:\n{sticky}")) + sticky;
    let check_text = |text: &str| {
        let (_folder, file) = folder(text);
        check(&file).stderr
    };
    assert_eq!(check_text(&text), "", "of two hosts");
    let theirs = without_marks(GOOD).replace("idle_timeout: 30m", "response_headers: {set: {Set-Cookie: server=x}}");
    let theirs = theirs + sticky;
    assert_eq!(check_text(&theirs), "", "the service does not use the pool");
    let said = check_text(&theirs.replace("path: /api/,", "path: /api/, pool: second,"));
    assert!(said.contains("Set-Cookie: a cookie that only the edge sets"), "{said}");
    let said = check_text(&text.replace("path: /api/,", "path: /api/, pool: second,"));
    assert!(said.contains("pools.second.balance.sticky.cookie: routes of `iqueue` lead to `first` too"), "{said}");
}
