//! `config/examples/micro-service-proxy.yaml`, request by request: fixed replies, denials, roles by path, static files,
//! a maintenance mode with exceptions, and pages of its own for errors.

use crate::harness::edge::{PASSWORD, example_with};
use crate::harness::{Client, Edge, Origin, Response, eventually, origin};

const HOST: &str = "data.example.org";

struct Scene {
    edge: Edge,
    user: Origin,
    index: Origin,
    guppy: Origin,
    orthanc: Origin,
    portal: Origin,
}

fn scene() -> Scene {
    let [portal, user, index, guppy, orthanc] = ["portal", "user", "index", "guppy", "orthanc"].map(origin);
    let users: [(&str, &[&str], &[&str]); 3] = [
        ("bob", &["commons"], &["researcher", "member"]),
        ("eve", &["commons"], &["imaging", "curator"]),
        ("dev", &["commons"], &["developer"]),
    ];
    let files = [
        ("pages/no-access.html", "<p>Apply for access with {{reference}}"),
        ("pages/away.html", "<p>The commons is away"),
        ("portal/index.html", "<p>portal"),
        ("portal/app.js", "portal()"),
    ];
    let edge = example_with("micro-service-proxy.yaml", &[&["*.example.org"]], &users, &files, |yaml| {
        let yaml = yaml.replace("server:\n", "server:\n  trusted_proxies: [127.0.0.1]\n");
        let yaml = yaml.replace("/run/commons.maintenance", "maintenance");
        [
            ("10.0.0.10:8000", &portal),
            ("10.0.0.11:8000", &user),
            ("10.0.0.12:8000", &index),
            ("10.0.0.13:8000", &guppy),
            ("10.0.0.14:8042", &orthanc),
        ]
        .into_iter()
        .fold(yaml, |yaml, (named, origin)| yaml.replace(named, &origin.address.to_string()))
    });
    Scene { edge, user, index, guppy, orthanc, portal }
}

impl Scene {
    fn url(&self, path: &str) -> String {
        format!("https://{HOST}:{}{path}", self.edge.address().port())
    }

    fn signed_in(&self, name: &str) -> Client {
        let mut client = self.edge.client();
        // A page that needs a sign-on, and that nobody here may see: the sign-on has ended by then.
        client.sign_in(&self.url("/user/me"), name, PASSWORD);
        client
    }

    fn get(&self, client: &Client, path: &str) -> [Response; 2] {
        [client.clone(), client.clone().http2()].map(|mut client| client.get(&self.url(path)))
    }

    #[track_caller]
    fn gives(&self, client: &Client, path: &str, status: u16, body: &str) {
        for response in self.get(client, path) {
            assert_eq!((response.status, response.body.as_str()), (status, body), "{path}");
        }
    }
}

#[test]
fn each_path_has_its_own_rule() {
    let scene = scene();
    let (anonymous, bob, eve) = (scene.edge.client(), scene.signed_in("bob"), scene.signed_in("eve"));
    scene.gives(&anonymous, "/_status", 200, "healthy");
    scene.gives(&anonymous, "/robots.txt", 200, "User-agent: *\nDisallow: /\n");
    scene.gives(&anonymous, "/app.js", 200, "portal()");
    scene.gives(&anonymous, "/index/blob/7", 200, "hello from index");
    assert_eq!(scene.index.last().target, "/blob/7");
    for path in ["/user/me", "/guppy/graph", "/orthanc/studies", "/workspace/", "/index/admin/x"] {
        assert!(scene.get(&anonymous, path).iter().all(|response| response.status == 401), "{path}");
    }
    scene.gives(&bob, "/user/me", 200, "hello from user");
    let seen = scene.user.last();
    assert_eq!((seen.target.as_str(), seen.one("x-forwarded-prefix").as_deref()), ("/me", Some("/user")));
    for client in [&anonymous, &bob, &eve] {
        assert!(scene.get(client, "/user/metrics").iter().all(|response| response.status == 403));
    }
    scene.gives(&bob, "/guppy/graph?q=1", 200, "hello from guppy");
    assert_eq!(scene.guppy.last().target, "/graph?q=1");
    scene.gives(&bob, "/workspace/x", 200, "hello from portal");
    scene.gives(&eve, "/orthanc/studies", 200, "hello from orthanc");
    assert_eq!(scene.orthanc.last().target, "/v2/studies");
    scene.gives(&eve, "/index/admin/x", 200, "hello from index");
    for (client, path) in [(&bob, "/orthanc/x"), (&bob, "/index/admin/x"), (&eve, "/guppy/x"), (&eve, "/workspace/")] {
        assert!(scene.get(client, path).iter().all(|response| response.status == 403), "{path}");
    }
    for (path, status, location) in
        [("/workspace/hub/logout", 302, "/.sentry/logout"), ("/jupyter/lab?x=1", 301, "/workspace/lab?x=1")]
    {
        for response in scene.get(&bob, path) {
            assert_eq!((response.status, response.location().as_deref()), (status, Some(location)), "{path}");
        }
    }
    assert_eq!(scene.portal.last().target, "/workspace/x");
}

#[test]
fn people_without_access_read_where_to_get_it_and_deep_links_lead_to_the_portal() {
    let scene = scene();
    let mut eve = scene.signed_in("eve");
    let page = eve.open(&scene.url("/guppy/x"));
    let reference = page.header("x-request-id").unwrap();
    assert_eq!((page.status, page.body.as_str()), (403, format!("<p>Apply for access with {reference}").as_str()));
    assert_eq!(eve.get(&scene.url("/guppy/x")).json()["error"], "forbidden");
    let mut anonymous = scene.edge.client();
    for path in ["/", "/discovery", "/discovery/study/12?tab=files"] {
        let page = anonymous.open(&scene.url(path));
        assert_eq!((page.status, page.body.as_str()), (200, "<p>portal"), "{path}");
    }
    assert_eq!(anonymous.get(&scene.url("/discovery.js")).status, 404);
}

#[test]
fn in_maintenance_developers_and_the_monitoring_get_through() {
    let scene = scene();
    let (bob, dev) = (scene.signed_in("bob"), scene.signed_in("dev"));
    std::fs::write(scene.edge.folder.path().join("maintenance"), "").unwrap();
    eventually("maintenance is on", || scene.edge.metric("sentry_edge_maintenance", "service=\"commons\"") == 1.0);
    let admitted = [("/_status", 200), ("/app.js", 200), ("/user/me", 401), ("/index/x", 200), ("/user/metrics", 403)];
    for (path, status) in admitted {
        for client in [&bob, &scene.edge.client()] {
            for response in scene.get(client, path) {
                assert_eq!((response.status, response.header("retry-after")), (503, Some("60")), "{path}");
                assert_eq!(response.json()["error"], "maintenance", "{path}");
            }
        }
        let monitoring = scene.edge.client().ask("GET", &scene.url(path)).field("x-forwarded-for", "192.0.2.9").send();
        assert_eq!(monitoring.status, status, "{path}: as ever");
    }
    assert_eq!(bob.clone().open(&scene.url("/")).body, "<p>The commons is away");
    scene.gives(&dev, "/_status", 200, "healthy");
    scene.gives(&dev, "/guppy/x", 200, "hello from guppy");
    assert!(scene.get(&dev, "/user/metrics").iter().all(|response| response.status == 403));
    std::fs::remove_file(scene.edge.folder.path().join("maintenance")).unwrap();
    eventually("maintenance is off", || scene.edge.metric("sentry_edge_maintenance", "service=\"commons\"") == 0.0);
    scene.gives(&bob, "/guppy/x", 200, "hello from guppy");
}
