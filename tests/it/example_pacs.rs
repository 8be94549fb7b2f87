//! `config/examples/pacs-viewer.yaml`, request by request: what its comments promise, over both versions of HTTP.

use hyper::Response as HttpResponse;

use crate::examples::{Site, serve, to};
use crate::harness::edge::{PASSWORD, TOKEN_COOKIE};
use crate::harness::observer::{Asking, Observed, Observer, Protocol};
use crate::harness::process::{sentry_edge_with_input, text};
use crate::harness::{Origin, client, raw, runtime};

const HOST: &str = "pacs.example.com";

/// What the file of the example has.
pub const ORTHANC: &str = "Basic b3J0aGFuYzpodXNo";

struct Pacs {
    site: Site,
    viewer: Origin,
    orthanc: Origin,
}

fn application(name: &'static str) -> Origin {
    Origin::answering(move |_| {
        let response = HttpResponse::builder().header("server", name).header("x-powered-by", "Express");
        response.body(format!("hello from {name}").into()).unwrap()
    })
}

fn pacs() -> Pacs {
    let (viewer, orthanc) = (application("viewer"), application("orthanc"));
    let site = serve("pacs-viewer", &[("127.0.0.1:3000", to(&viewer)), ("127.0.0.1:8042", to(&orthanc))]);
    for (user, role) in [("rita", "pacs-admin"), ("ben", "radiology")] {
        let file = site.file();
        let add = ["user", "add", user, "-c", file, "--role", role, "--password-stdin", "--service", "pacs"];
        let added = sentry_edge_with_input(&add, &format!("{PASSWORD}\n"));
        assert!(added.status.success(), "{}", text(&added.stderr));
    }
    Pacs { site, viewer, orthanc }
}

impl Pacs {
    /// The cookie of who has signed in.
    fn cookie(&self, user: &str) -> String {
        let mut browser = client(self.site.https);
        let last = browser.sign_in(&self.site.url("pacs", "/viewer"), user, PASSWORD).pop().unwrap();
        assert_eq!(last.status, 200, "{}", last.body);
        format!("{TOKEN_COOKIE}={}", browser.cookie(HOST, TOKEN_COOKIE).unwrap())
    }

    fn ask(&self, protocol: Protocol, asking: &Asking<'_>) -> Observed {
        runtime().block_on(async {
            Observer::connect(self.site.https, HOST, protocol).await.ask(HOST, asking).await.unwrap()
        })
    }

    fn status(&self, cookie: &str, method: &str, path: &str) -> u16 {
        let fields = [("user-agent", "test/1"), ("cookie", cookie), ("authorization", "Basic ZXZpbA==")];
        let asking = Asking { method, path, body: None, fields: &fields[if cookie.is_empty() { 2 } else { 0 }..] };
        let statuses = [Protocol::Http11, Protocol::Http2].map(|protocol| self.ask(protocol, &asking).status);
        assert_eq!(statuses[0], statuses[1], "{method} {path}: both versions of HTTP");
        statuses[0]
    }
}

#[test]
fn a_pacs_viewer_edge_request_by_request() {
    let pacs = pacs();
    let [rita, ben, ada] = ["rita", "ben", "ada"].map(|user| pacs.cookie(user));
    for (method, path, anonymous, of_rita, of_ben, of_ada) in [
        ("GET", "/", 401, 302, 302, 302),
        ("GET", "/metrics", 403, 403, 403, 403),
        ("GET", "/viewer?StudyInstanceUIDs=1.2.3", 401, 200, 200, 200),
        ("PATCH", "/viewer", 401, 405, 405, 405),
        ("GET", "/assets/app.js", 200, 200, 200, 200),
        ("POST", "/assets/app.js", 405, 405, 405, 405),
        ("GET", "/shares/abc", 200, 200, 200, 200),
        ("GET", "/orthanc/studies", 401, 200, 200, 403),
        ("DELETE", "/orthanc/studies/1", 401, 200, 200, 403),
        ("POST", "/orthanc/tools/reset", 401, 200, 403, 403),
        ("GET", "/ORTHANC/tools/reset", 400, 400, 400, 400),
        ("GET", "/orthanc//tools/reset", 400, 400, 400, 400),
        ("GET", "/dicom-web/studies", 401, 200, 200, 403),
        ("DELETE", "/dicom-web/studies/1", 401, 405, 405, 403),
        ("TRACE", "/orthanc/studies", 405, 405, 405, 405),
    ] {
        for (cookie, status) in [("", anonymous), (&*rita, of_rita), (&*ben, of_ben), (&*ada, of_ada)] {
            assert_eq!(pacs.status(cookie, method, path), status, "{method} {path} {cookie:.20}");
        }
    }
}

#[test]
fn orthanc_gets_its_password_and_a_patient_s_link_nothing() {
    let pacs = pacs();
    let ben = pacs.cookie("ben");
    for (path, target) in [
        ("/orthanc/studies?limit=1", "/studies?limit=1"),
        ("/orthanc", "/"),
        ("/dicom-web/studies", "/dicom-web/studies"),
    ] {
        assert_eq!(pacs.status(&ben, "GET", path), 200);
        let seen = pacs.orthanc.last();
        assert_eq!(seen.target, target, "{path}");
        assert_eq!(seen.one("authorization").as_deref(), Some(ORTHANC));
        assert_eq!((seen.one("remote-user").as_deref(), seen.one("cookie")), (Some("ben"), None));
    }
    assert_eq!(pacs.status("mine=1", "GET", "/shares/abc"), 200);
    let seen = pacs.viewer.last();
    assert_eq!((seen.one("authorization"), seen.one("cookie"), seen.one("remote-user")), (None, None, None));
    assert_eq!(pacs.status(&ben, "GET", "/viewer"), 200);
    assert_eq!(pacs.viewer.last().one("authorization").as_deref(), Some("Basic ZXZpbA=="), "its own elsewhere");
}

#[test]
fn uploads_have_the_limits_of_their_paths() {
    let pacs = pacs();
    let ben = pacs.cookie("ben");
    // Who says so much is not heard further; who may send so much is asked to.
    for (path, bytes, status) in [
        ("/viewer", 1u64 << 20, 100),
        ("/viewer", (1 << 20) + 1, 413),
        ("/orthanc/instances", 2 << 30, 100),
        ("/orthanc/instances", (2 << 30) + 1, 413),
        ("/dicom-web/studies", 512 << 20, 100),
        ("/dicom-web/studies", (512 << 20) + 1, 413),
        ("/orthanc/tools/lookup", (1 << 20) + 1, 413),
    ] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: test/1\r\nCookie: {ben}\r\nContent-Length: {bytes}\r\n\
             Expect: 100-continue\r\n\r\n"
        );
        let mut client = raw(pacs.site.https, HOST);
        assert_eq!(client.send(head).first_line().split(' ').nth(1), Some(&*status.to_string()), "{path} {bytes}");
    }
}

#[test]
fn responses_say_what_the_edge_wants_and_not_what_the_server_is() {
    let pacs = pacs();
    let ben = pacs.cookie("ben");
    for protocol in [Protocol::Http11, Protocol::Http2] {
        for path in ["/viewer", "/orthanc/studies"] {
            let fields = [("user-agent", "test/1"), ("cookie", ben.as_str())];
            let response = pacs.ask(protocol, &Asking { method: "GET", path, body: None, fields: &fields });
            assert_eq!(response.all("strict-transport-security"), ["max-age=31536000"]);
            assert_eq!(response.all("x-frame-options"), ["SAMEORIGIN"]);
            assert_eq!((response.all("server"), response.all("x-powered-by")), (vec![], vec![]), "{path}");
        }
    }
    let probe = "GET /.sentry/health HTTP/1.0\r\n\r\n";
    assert_eq!(raw(pacs.site.https, HOST).send(probe).status(), 200);
}
