//! Two edges share three memcached processes, each session on two of them. While servers are killed, frozen and
//! emptied one after another, users stay signed in, no user gets another user's session, and ended sessions stay ended.

use http_body_util::Full;

use crate::harness::edge::{Builder, PASSWORD};
use crate::harness::{Client, Edge, Memcached, Origin, edge, eventually, memcached};

const USERS: [&str; 3] = ["ada", "bob", "cleo"];

struct Scene {
    edges: [Edge; 2],
    memcacheds: Vec<Memcached>,
    _origins: [Origin; 2],
}

/// An application that greets the user whom the identity headers name.
fn greeting() -> Origin {
    Origin::answering(|seen| {
        let user = seen.one("x-forwarded-user").unwrap_or_else(|| "nobody".into());
        hyper::Response::new(Full::new(format!("hello {user}").into()))
    })
}

fn sessions(servers: &[&Memcached], copies: usize, timeout: &str) -> String {
    let servers: Vec<String> = servers.iter().map(|server| format!("\"{}\"", server.address())).collect();
    let servers = servers.join(", ");
    format!("{{store: memcached, memcached: {{servers: [{servers}], copies: {copies}, timeout: {timeout}}}}}")
}

fn builder(origins: &[Origin; 2]) -> Builder {
    edge()
        .service("iqueue", &origins[0])
        .service("dextor", &origins[1])
        .user("bob", &["iqueue", "dextor"], &[])
        .user("cleo", &["iqueue"], &[])
        .balanced()
}

fn scene(copies: usize) -> Scene {
    let memcacheds: Vec<Memcached> = (0..3).map(|_| memcached()).collect();
    let origins = [greeting(), greeting()];
    let builder = builder(&origins).sessions(&sessions(&memcacheds.iter().collect::<Vec<_>>(), copies, "1s"));
    Scene { edges: [builder.clone().start(), builder.start()], memcacheds, _origins: origins }
}

impl Scene {
    /// Signs in through one edge.
    fn signed_in(&self, user: &str, edge: usize) -> Client {
        let mut browser = self.edges[edge].client();
        let page = browser.sign_in(&self.edges[edge].url("iqueue", "/"), user, PASSWORD).pop().unwrap();
        assert_eq!((page.status, page.body), (200, format!("hello {user}")));
        browser
    }

    /// What a browser sees through each edge.
    fn seen_by(&self, browser: &Client) -> Vec<(u16, String)> {
        let see = |edge: &Edge| {
            let answer = browser.clone().through(edge.address()).open(&edge.url("iqueue", "/"));
            (answer.status, answer.body)
        };
        self.edges.iter().map(see).collect()
    }

    fn all_are_greeted(&self, browsers: &[(&str, Client)], when: &str) {
        for (user, browser) in browsers {
            for seen in self.seen_by(browser) {
                assert_eq!(seen, (200, format!("hello {user}")), "{user}, {when}");
            }
        }
    }

    /// Living sessions on all servers together, copies counted.
    fn copies(&self) -> usize {
        let records = self.memcacheds.iter().flat_map(Memcached::session_records);
        records.filter(|record| !record.starts_with("1 ended")).count()
    }

    /// Users come back, and their requests restore what was lost.
    fn is_whole_again(&self, browsers: &[(&str, Client)]) {
        eventually("each session has both its copies", || {
            self.all_are_greeted(browsers, "while copies are restored");
            self.copies() == 2 * browsers.len()
        });
    }
}

/// What befalls a server, and how it comes back.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Killed,
    Frozen,
    Emptied,
}

impl Fault {
    fn befalls(self, server: &mut Memcached) {
        match self {
            Self::Killed => server.kill(),
            Self::Frozen => server.freeze(),
            Self::Emptied => assert_eq!(server.tell("flush_all"), "OK"),
        }
    }

    fn is_over(self, server: &mut Memcached) {
        match self {
            Self::Killed => server.start(),
            Self::Frozen => server.thaw(),
            Self::Emptied => {}
        }
    }
}

#[test]
fn the_whole_flow_goes_on_while_servers_die_and_return_and_nobody_is_logged_out() {
    let mut scene = scene(2);
    let browsers: Vec<(&str, Client)> =
        USERS.iter().enumerate().map(|(at, user)| (*user, scene.signed_in(user, at % 2))).collect();
    for (round, fault) in [Fault::Killed, Fault::Frozen, Fault::Emptied].into_iter().enumerate() {
        for server in 0..3 {
            let when = format!("while server {server} is {fault:?}");
            fault.befalls(&mut scene.memcacheds[server]);
            scene.all_are_greeted(&browsers, &when);

            // A newcomer signs in through one edge, is handed to the other service, and leaves through the other.
            let edge = (round + server) % 2;
            let mut newcomer = scene.signed_in("bob", edge);
            let hops = newcomer.follow(&scene.edges[edge].url("dextor", "/"));
            assert_eq!(hops.last().unwrap().body, "hello bob", "{when}: {:?}", hops.last().unwrap().url);
            let kept = newcomer.clone();
            let other = &scene.edges[1 - edge];
            let left = newcomer.through(other.address()).sign_out(&other.url("dextor", "/.sentry/logout"));
            assert_eq!(left.status, 200, "{when}: {}", left.body);
            for (status, body) in scene.seen_by(&kept) {
                assert_eq!(status, 302, "{when}, after the logout: {body}");
            }

            fault.is_over(&mut scene.memcacheds[server]);
            for (status, _) in scene.seen_by(&kept) {
                assert_eq!(status, 302, "{fault:?} server {server} is back and brings no session back");
            }
            scene.is_whole_again(&browsers);
        }
    }
}

#[test]
fn with_one_copy_the_loss_of_a_server_logs_nobody_out_and_newcomers_get_in() {
    let mut scene = scene(1);
    let browsers: Vec<(&str, Client)> = (0..6).map(|_| ("ada", scene.signed_in("ada", 0))).collect();
    scene.memcacheds[1].kill();
    for _ in 0..3 {
        for (_, browser) in &browsers {
            for (status, body) in scene.seen_by(browser) {
                assert!(status == 503 || (status, body.as_str()) == (200, "hello ada"), "{status}: {body}");
            }
        }
        let newcomer = scene.signed_in("bob", 0);
        assert_eq!(scene.edges[1].admin("/readyz").status, 200, "most sessions are served");
        drop(newcomer);
    }
}

#[test]
fn one_server_can_be_replaced_by_others_in_place_and_nobody_notices() {
    let (old, new) = (memcached(), [memcached(), memcached()]);
    let origins = [greeting(), greeting()];
    let before = sessions(&[&old], 1, "1s");
    let mut edge = builder(&origins).sessions(&before).start();
    let mut browser = edge.client();
    browser.sign_in(&edge.url("iqueue", "/"), "ada", PASSWORD);

    let during = sessions(&[&old, &new[0], &new[1]], 2, "1s");
    edge.reload_with(|yaml| yaml.replace(&before, &during));
    assert_eq!(browser.open(&edge.url("iqueue", "/")).body, "hello ada", "with two more servers");
    let after = sessions(&[&new[0], &new[1]], 2, "1s");
    edge.reload_with(|yaml| yaml.replace(&during, &after));
    eventually("the session has moved", || {
        assert_eq!(browser.open(&edge.url("iqueue", "/")).body, "hello ada", "without the old server");
        new.iter().all(|server| server.session_records().len() == 1)
    });
    drop(old);
    assert_eq!(browser.open(&edge.url("iqueue", "/")).body, "hello ada", "when it is gone for good");

    let slower = after.replace("1s", "2s");
    let file = edge.folder.path().join("edge.yaml");
    let yaml = std::fs::read_to_string(&file).unwrap().replace(&after, &slower);
    std::fs::write(&file, yaml).unwrap();
    assert_eq!(edge.inner.reload().unwrap(), ["sessions.store"], "the timeout needs a restart, and that is reported");
}

#[test]
fn each_server_is_told_of_by_its_name() {
    let scene = scene(2);
    scene.signed_in("ada", 0);
    for server in &scene.memcacheds {
        let labels = format!("server=\"{}\"", server.address());
        assert_eq!(scene.edges[0].admin("/readyz").status, 200);
        assert_eq!(scene.edges[0].metric("sentry_edge_session_store_up", &labels), 1.0);
    }
    assert!(scene.edges[0].metric_sum("sentry_edge_session_store_batch_size_count") > 0.0);
    assert_eq!(scene.edges[0].metric("sentry_edge_session_store_tombstones_owed", ""), 0.0);
}

#[test]
fn a_server_that_stays_away_is_left_alone_and_that_is_counted() {
    let mut scene = scene(2);
    let browsers = [("ada", scene.signed_in("ada", 0))];
    let labels = format!("server=\"{}\"", scene.memcacheds[0].address());
    scene.memcacheds[0].kill();
    eventually("it rests", || {
        scene.all_are_greeted(&browsers, "while a server is dead");
        scene.edges[0].admin("/readyz");
        scene.edges[0].metric("sentry_edge_session_store_breaker_open_total", &labels) > 0.0
    });
    assert_eq!(scene.edges[0].metric("sentry_edge_session_store_up", &labels), 0.0);
}

#[test]
fn an_edge_that_is_started_with_another_list_sends_nobody_to_the_login() {
    let origins = [greeting(), greeting()];
    // The lists by their servers' numbers, one after the other, and the copies with each.
    let stories: [&[(&[usize], usize)]; 4] = [
        &[(&[0, 1], 1), (&[1, 2, 3], 1)],
        &[(&[0, 1], 1), (&[2, 3], 2)],
        &[(&[0, 1, 2], 2), (&[1, 2, 3], 1), (&[3], 1)],
        &[(&[0, 1], 1), (&[1, 2, 3], 1), (&[0, 1], 1)],
    ];
    for lists in stories {
        for reloads_first in [false, true] {
            let memcacheds: Vec<Memcached> = (0..4).map(|_| memcached()).collect();
            let of = |(numbers, copies): &(&[usize], usize)| {
                sessions(&numbers.iter().map(|number| &memcacheds[*number]).collect::<Vec<_>>(), *copies, "1s")
            };
            let mut edge = builder(&origins).sessions(&of(&lists[0])).start();
            let sign_in = |_| {
                let mut browser = edge.client();
                browser.sign_in(&edge.url("iqueue", "/"), "ada", PASSWORD);
                browser
            };
            let mut browsers: Vec<Client> = (0..8).map(sign_in).collect();
            let mut left = browsers.pop().unwrap();
            assert_eq!(left.clone().sign_out(&edge.url("iqueue", "/.sentry/logout")).status, 200);
            for pair in lists.windows(2) {
                if reloads_first {
                    edge.reload_with(|yaml| yaml.replace(&of(&pair[0]), &of(&pair[1])));
                } else {
                    let file = edge.folder.path().join("edge.yaml");
                    let yaml = std::fs::read_to_string(&file).unwrap().replace(&of(&pair[0]), &of(&pair[1]));
                    std::fs::write(&file, yaml).unwrap();
                }
                edge.restart();
            }
            let to_the_login = browsers
                .iter_mut()
                .filter_map(|browser| {
                    browser.move_to(edge.address());
                    let answer = browser.open(&edge.url("iqueue", "/"));
                    (answer.status != 200).then_some(answer.status)
                })
                .count();
            assert_eq!(to_the_login, 0, "{lists:?}, reloaded first: {reloads_first}: of 7 users");
            left.move_to(edge.address());
            assert_eq!(
                left.open(&edge.url("iqueue", "/")).status,
                302,
                "{lists:?}: a session that has ended stays ended"
            );
        }
    }
}

#[test]
fn an_edge_on_a_new_machine_is_told_the_former_lists_by_its_configuration() {
    let origins = [greeting(), greeting()];
    let memcacheds: Vec<Memcached> = (0..4).map(|_| memcached()).collect();
    let of = |numbers: &[usize]| numbers.iter().map(|number| &memcacheds[*number]).collect::<Vec<_>>();
    let old = builder(&origins).sessions(&sessions(&of(&[0, 1]), 1, "1s")).start();
    let browsers: Vec<Client> = (0..20)
        .map(|_| {
            let mut browser = old.client();
            browser.sign_in(&old.url("iqueue", "/"), "ada", PASSWORD);
            browser
        })
        .collect();
    let former: Vec<String> = of(&[0, 1]).iter().map(|server| format!("\"{}\"", server.address())).collect();
    let with_former =
        sessions(&of(&[1, 2, 3]), 1, "1s").replace("copies:", &format!("former: [[{}]], copies:", former.join(", ")));
    let new = builder(&origins).sessions(&with_former).start();
    for browser in &browsers {
        let mut browser = browser.clone();
        browser.move_to(new.address());
        assert_eq!(browser.open(&new.url("iqueue", "/")).status, 200);
    }
}
