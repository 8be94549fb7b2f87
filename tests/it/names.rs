//! Servers that have names: all of their addresses are used, those that are down cost nobody a response, and a name that
//! leads nowhere keeps no other application from being served. And what a server that swallows packets may cost.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use socket2::{Domain, Socket, Type};

use crate::harness::edge::Builder;
use crate::harness::{Edge, Origin, Running, edge, eventually, eventually_or, free_address, origin};

/// What the DNS of these tests says.
#[derive(Clone, Default)]
struct Dns(Arc<Mutex<HashMap<String, Says>>>);

#[derive(Clone)]
enum Says {
    Addresses(Vec<&'static str>),
    /// It does not answer, for as long as the test lasts.
    Nothing,
}

impl Dns {
    fn say(&self, name: &str, says: Says) {
        self.0.lock().unwrap().insert(name.into(), says);
    }

    fn leads(&self, name: &str, addresses: &[&'static str]) {
        self.say(name, Says::Addresses(addresses.to_vec()));
    }

    fn edge(&self) -> Builder {
        let dns = self.clone();
        edge().lookup(move |name| {
            let says = dns.0.lock().unwrap().get(name).cloned();
            match says {
                Some(Says::Addresses(addresses)) => {
                    Ok(addresses.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 0)).collect())
                }
                Some(Says::Nothing) => loop {
                    std::thread::park();
                },
                None => Err(io::Error::other("no such name")),
            }
        })
    }
}

/// A service for anybody, on a pool of its own.
fn serving(builder: Builder, name: &str, servers: &[String], more: &str) -> Builder {
    let spare = origin("spare");
    let servers: Vec<String> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    let pool = format!("{{servers: [{}]{more}}}", servers.join(", "));
    builder.service_with(name, &spare, "access: public").pool(name, &pool)
}

fn statuses(edge: &Edge, service: &str, requests: usize) -> Vec<u16> {
    let mut client = edge.client();
    (0..requests).map(|_| client.get(&edge.url(service, "/")).status).collect()
}

fn failed(edge: &Edge, server: &str) -> f64 {
    edge.metric(
        "sentry_edge_upstream_requests_total",
        &format!("pool=\"iqueue\",result=\"failed\",server=\"{server}\""),
    )
}

/// A listener whose queue is full: the kernel leaves the next connection unanswered, as a firewall does that drops.
struct Silent {
    listener: Socket,
    _waiting: Vec<Socket>,
}

fn silent(address: SocketAddr) -> Silent {
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let listener = socket();
    listener.bind(&address.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let waiting = (0..4).map(|_| {
        let client = socket();
        client.set_nonblocking(true).unwrap();
        client.connect(&address).ok();
        client
    });
    let waiting = waiting.collect();
    Silent { listener, _waiting: waiting }
}

impl Silent {
    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap().as_socket().unwrap()
    }
}

const QUICK: &str = ", timeouts: {connect: 100ms}";

#[test]
fn a_silent_server_is_waited_for_by_its_share_of_the_requests() {
    let dead = silent(([127, 0, 0, 1], 0).into());
    for living in 1..=4 {
        let origins: Vec<Origin> = (0..living).map(|_| origin("alive")).collect();
        let servers: Vec<String> = std::iter::once(dead.address())
            .chain(origins.iter().map(|origin| origin.address))
            .map(|address| address.to_string())
            .collect();
        // Without ejection, so that it keeps its share.
        let keys = format!("{QUICK}, eject: false, retry: {{budget_percent: 100}}");
        let edge = serving(edge(), "iqueue", &servers, &keys).start();
        let requests = 12 * (living + 1);
        // Of each kind, because the two request paths, and what has a body, choose alike.
        for method in ["GET", "POST"] {
            let before = failed(&edge, &servers[0]);
            std::thread::scope(|scope| {
                for http2 in [false, true, false, true] {
                    let edge = &edge;
                    scope.spawn(move || {
                        let mut client = if http2 { edge.client().http2() } else { edge.client() };
                        for _ in 0..requests / 4 {
                            assert_eq!(client.ask(method, &edge.url("iqueue", "/")).send().status, 200);
                        }
                    });
                }
            });
            let waited = failed(&edge, &servers[0]) - before;
            assert_eq!(waited, 12.0, "{method}: one in {} of {requests} waits", living + 1);
        }
    }
}

#[test]
fn every_address_of_a_name_is_used_and_one_that_is_down_fails_no_request() {
    let dns = Dns::default();
    let here = origin("one");
    let also_here = Origin::beside(&here, Ipv4Addr::new(127, 0, 0, 2), "two");
    let dropped = silent(SocketAddr::new(Ipv4Addr::new(127, 0, 0, 3).into(), here.address.port()));
    let server = format!("app.test:{}", here.address.port());
    for (addresses, one, two) in [
        (&["127.0.0.1", "127.0.0.2"][..], 10, 10),
        (&["::1", "127.0.0.1"], 20, 0),
        (&["127.0.0.1", "::1"], 20, 0),
        (&["127.0.0.2", "127.0.0.4", "127.0.0.5", "127.0.0.6", "::1"], 0, 20),
        (&["127.0.0.3", "127.0.0.1"], 20, 0),
    ] {
        dns.leads("app.test", addresses);
        for retries in [0, 2] {
            let builder = dns.edge();
            let edge =
                serving(builder, "iqueue", std::slice::from_ref(&server), &format!("{QUICK}, retries: {retries}"))
                    .start();
            let before = [here.count(), also_here.count()];
            for method in ["GET", "POST"] {
                let mut client = edge.client();
                for _ in 0..10 {
                    let answer = client.ask(method, &edge.url("iqueue", "/")).send();
                    assert_eq!(answer.status, 200, "{method} with {retries} retries at {addresses:?}: {}", answer.body);
                }
            }
            let seen = [here.count() - before[0], also_here.count() - before[1]];
            assert_eq!(seen, [one, two], "{addresses:?}, {retries} retries");
        }
    }
    drop(dropped);
}

#[test]
fn a_name_that_leads_nowhere_stops_no_other_application_and_is_followed() {
    let (dns, app) = (Dns::default(), origin("app"));
    let here = app.address.to_string();
    dns.say("hangs.test", Says::Nothing);
    let port = app.address.port();
    let names = ["absent.test", "hangs.test"].map(|name| format!("{name}:{port}"));
    let builder = serving(dns.edge(), "iqueue", std::slice::from_ref(&here), "");
    let mut edge = serving(builder, "dextor", &names, ", resolve: {every: 1s}").start();
    assert_eq!(statuses(&edge, "iqueue", 3), [200; 3]);
    assert_eq!(statuses(&edge, "dextor", 2), [503; 2], "there is no server");
    assert_eq!(edge.metric("sentry_edge_upstream_name_addresses", "name=\"absent.test\""), 0.0);

    // A reload goes through, though nothing has changed for the better.
    edge.reload_with(|yaml| {
        yaml.replace(&format!("servers: [\"{here}\"]"), &format!("servers: [\"gone.test:1\", \"{here}\"]"))
    });
    assert_eq!(statuses(&edge, "iqueue", 6), [200; 6], "and what leads nowhere is left out");

    dns.leads("absent.test", &["127.0.0.1"]);
    let mut client = edge.client();
    eventually("the name is found", || client.get(&edge.url("dextor", "/")).status == 200);
    assert_eq!(statuses(&edge, "dextor", 6), [200; 6]);
    assert_eq!(edge.metric("sentry_edge_upstream_name_addresses", "name=\"absent.test\""), 1.0);
    assert!(edge.metric("sentry_edge_upstream_name_resolutions_total", "result=\"failed\"") >= 1.0);
}

#[test]
fn a_name_that_moves_is_followed_and_its_last_good_answer_kept() {
    let (dns, one) = (Dns::default(), origin("one"));
    let two = Origin::beside(&one, Ipv4Addr::new(127, 0, 0, 2), "two");
    dns.leads("app.test", &["127.0.0.1"]);
    let server = format!("app.test:{}", one.address.port());
    let mut edge = serving(dns.edge(), "iqueue", &[server], ", resolve: {every: 1s}").start();
    assert_eq!(edge.client().get(&edge.url("iqueue", "/")).body, "hello from one");

    let failures = || edge.metric("sentry_edge_upstream_name_resolutions_total", "result=\"failed\"");
    let before = failures();
    dns.leads("app.test", &[]);
    eventually("it is asked for in vain", || failures() > before);
    assert_eq!(edge.client().get(&edge.url("iqueue", "/")).body, "hello from one", "the last good answer is kept");
    edge.reload_with(|yaml| yaml);
    assert_eq!(edge.client().get(&edge.url("iqueue", "/")).body, "hello from one", "over a reload as well");

    dns.leads("app.test", &["127.0.0.2"]);
    eventually("it has moved", || edge.client().get(&edge.url("iqueue", "/")).body == "hello from two");
    let seen = one.count();
    assert_eq!(statuses(&edge, "iqueue", 6), [200; 6]);
    assert_eq!((one.count(), two.count() >= 6), (seen, true), "all go there");

    edge.reload_with(|yaml| yaml.replace("app.test", "127.0.0.1"));
    assert_eq!(edge.client().get(&edge.url("iqueue", "/")).body, "hello from one");
    eventually("a name that is gone has no series", || {
        !edge.admin("/metrics").body.contains("upstream_name_addresses{name=\"app.test\"}")
    });
}

#[test]
fn a_name_without_an_address_is_a_warning() {
    let builder = serving(edge(), "iqueue", &["no-such-host.invalid:80".into(), free_address().to_string()], "");
    let (_folder, file) = builder.write();
    let file = file.to_str().unwrap();
    for (arguments, code) in [(&["check", "-c", file][..], 0), (&["check", "-c", file, "--strict"], 1)] {
        let mut check = Running::start(arguments);
        assert_eq!(check.end().code(), Some(code), "{}", check.stderr());
        let has_said = |said: String| said.contains("pools.iqueue.servers[0]") && said.contains("does not resolve");
        eventually_or(|| has_said(check.stderr()), || check.stderr());
    }
    let mut check = Running::start(&["check", "-c", file, "--connect"]);
    assert_eq!(check.end().code(), Some(1));
    eventually_or(|| check.stderr().contains("no-such-host.invalid:80 cannot be reached"), || check.stderr());
}
