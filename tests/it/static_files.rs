//! Static files of a route: what is served of a folder and how, and that nothing else is.

use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::harness::edge::Builder;
use crate::harness::{Edge, Http2, Origin, Response, edge, eventually, origin, raw};

const FILES: &str = "{path: /app/, access: public, files: {root: site, fallback: /index.html}}";

/// A site with what is served, and beside it what is not.
fn builder(app: &Origin, routes: &str) -> Builder {
    edge()
        .service_with("iqueue", app, &format!("routes: [{routes}]"))
        .file("secret", "secret")
        .file("site/index.html", "<p>index")
        .file("site/app.js", "app of 26 letters: abcdefg")
        .file("site/app.js.br", "br of app.js")
        .file("site/app.js.gz", "gz of app.js")
        .file("site/only.css", "css")
        .file("site/only.css.gz", "gz of only.css")
        .file("site/plain.txt", "0123456789")
        .file("site/empty.txt", "")
        .file("site/deep/index.html", "<p>deep")
        .file("site/deep/x y.txt", "x y")
        .file("site/bare/x.txt", "x")
        .file("site/.env", "secret")
        .file("site/.git/config", "secret")
}

/// The folder that is served.
fn site(edge: &Edge) -> PathBuf {
    edge.folder.path().join("site")
}

fn start(app: &Origin) -> Edge {
    let edge = builder(app, FILES).start();
    let site = site(&edge);
    symlink("../secret", site.join("out")).unwrap();
    symlink(edge.folder.path().join("secret"), site.join("absolute")).unwrap();
    symlink("..", site.join("up")).unwrap();
    symlink("plain.txt", site.join("inner.txt")).unwrap();
    symlink("/dev/zero", site.join("zero")).unwrap();
    nix::unistd::mkfifo(&site.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    edge
}

/// A request with these fields, over HTTP/1.1 and over HTTP/2; both responses are alike.
fn ask(edge: &Edge, method: &'static str, path: &str, fields: &[(&str, &str)]) -> Response {
    let [first, second] = [false, true].map(|http2| {
        let client = edge.client();
        let mut client = if http2 { client.http2() } else { client };
        let url = edge.url("iqueue", path);
        fields.iter().fold(client.ask(method, &url), |asking, (name, value)| asking.field(name, value)).send()
    });
    assert_eq!(first.status, second.status, "{method} {path} {fields:?}");
    // Those of errors have the id of their request.
    assert!(first.status >= 400 || first.body == second.body, "{method} {path} {fields:?}");
    for name in ["etag", "content-type", "content-encoding", "content-range", "vary", "location"] {
        assert_eq!(first.header(name), second.header(name), "{method} {path} {fields:?} {name}");
    }
    first
}

fn get(edge: &Edge, path: &str) -> Response {
    ask(edge, "GET", path, &[])
}

#[test]
fn files_are_served_with_their_type_and_what_a_cache_needs() {
    let app = origin("app");
    let edge = start(&app);
    for (path, body, content_type) in [
        ("/app/", "<p>index", "text/html; charset=utf-8"),
        ("/app/index.html", "<p>index", "text/html; charset=utf-8"),
        ("/app/app.js", "app of 26 letters: abcdefg", "text/javascript; charset=utf-8"),
        ("/app/only.css?v=1", "css", "text/css; charset=utf-8"),
        ("/app/plain.txt", "0123456789", "text/plain; charset=utf-8"),
        ("/app/empty.txt", "", "text/plain; charset=utf-8"),
        ("/app/inner.txt", "0123456789", "text/plain; charset=utf-8"),
        ("/app/deep/", "<p>deep", "text/html; charset=utf-8"),
        ("/app/deep/x%20y.txt", "x y", "text/plain; charset=utf-8"),
        ("/app/app.js.gz", "gz of app.js", "application/gzip"),
    ] {
        let file = get(&edge, path);
        assert_eq!((file.status, file.body.as_str()), (200, body), "{path}");
        assert_eq!(file.header("content-type"), Some(content_type), "{path}");
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(file.header("accept-ranges"), Some("bytes"), "{path}");
        assert_eq!(file.header("cache-control"), Some("no-cache"), "{path}");
        assert_eq!(file.header("content-length"), Some(body.len().to_string().as_str()), "{path}");
        assert!(file.header("etag").is_some_and(|tag| tag.starts_with('"')) && file.header("last-modified").is_some());
        let head = ask(&edge, "HEAD", path, &[]);
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        for name in ["content-type", "content-length", "etag", "last-modified", "cache-control", "accept-ranges"] {
            assert_eq!(head.header(name), file.header(name), "{path} {name}");
        }
    }
    assert_eq!(app.count(), 0);
}

#[test]
fn nothing_outside_of_the_folder_is_served_and_nothing_hidden() {
    let app = origin("app");
    let edge = start(&app);
    for path in [
        "/app/../secret",
        "/app/%2e%2e/secret",
        "/app/..%2fsecret",
        "/app/%2e%2e%2fsecret",
        "/app/%252e%252e%252fsecret",
        "/app/..%5csecret",
        "/app/..\\secret",
        "/app/deep/../../secret",
        "/app/deep/..%2f..%2fsecret",
        "/app/.%2e/secret",
        "/app/..;/secret",
        "/app/..%00/secret",
        "/app/%c0%ae%c0%ae/secret",
        "/app/out",
        "/app/absolute",
        "/app/up/secret",
        "/app/up/edge.key",
        "/app/zero",
        "/app/fifo",
        "/app/fifo/x",
        "/app/.env",
        "/app/%2eenv",
        "/app/.git/config",
        "/app/.git/",
        "/app/deep/.",
        "/app/plain.txt/",
        "/app/plain.txt%00.html",
        "/app/plain.txt/x",
        "/app//plain.txt",
        "/app//etc/passwd",
        "/app/PLAIN.TXT",
        "/app/plain.txt.",
        "/app/plain.txt::$DATA",
        "/app/bare/",
        "/app/none",
        "/app/none.html",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: iqueue.test\r\nUser-Agent: test/1\r\n\r\n");
        let answer = raw(edge.address(), "iqueue.test").send(request).answer().unwrap();
        assert!([400, 401, 404].contains(&answer.status), "{path}: {}", answer.head);
        assert!(!answer.text().contains("secret") && !answer.text().contains("PRIVATE"), "{path}");
    }
    assert_eq!(
        get(&edge, "/app/bare/x.txt").status,
        200,
        "a folder without an index lists nothing and serves its files"
    );
}

#[test]
fn a_copy_that_is_good_is_not_sent_again() {
    let app = origin("app");
    let edge = start(&app);
    let file = get(&edge, "/app/plain.txt");
    let (tag, date) = (file.header("etag").unwrap(), file.header("last-modified").unwrap());
    let long_ago = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (fields, status) in [
        (&[("if-none-match", tag)][..], 304),
        (&[("if-none-match", "\"x\""), ("if-modified-since", date)], 200),
        (&[("if-modified-since", date)], 304),
        (&[("if-modified-since", long_ago)], 200),
        (&[("if-match", tag)], 200),
        (&[("if-match", "\"x\"")], 412),
        (&[("if-unmodified-since", long_ago)], 412),
        (&[("if-unmodified-since", date)], 200),
    ] {
        for method in ["GET", "HEAD"] {
            let response = ask(&edge, method, "/app/plain.txt", fields);
            assert_eq!(response.status, status, "{method} {fields:?}");
            if status == 304 {
                assert_eq!((response.header("etag"), response.body.as_str()), (Some(tag), ""), "{fields:?}");
                assert_eq!(response.header("cache-control"), Some("no-cache"), "{fields:?}");
                assert_eq!(response.header("content-length"), None, "{fields:?}");
            }
        }
    }
    // Another content of the same length at the same second is another version.
    std::fs::write(site(&edge).join("plain.txt"), "9876543210").unwrap();
    let changed = ask(&edge, "GET", "/app/plain.txt", &[("if-none-match", tag)]);
    assert_eq!((changed.status, changed.body.as_str()), (200, "9876543210"));
    // A copy of the same time and length, as a second edge serves it, has the same tag.
    let (path, copy) = (site(&edge).join("plain.txt"), site(&edge).join("copy.txt"));
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&copy, "9876543210").unwrap();
    std::fs::File::options().write(true).open(&copy).unwrap().set_modified(modified).unwrap();
    let tag = changed.header("etag").unwrap();
    assert_eq!(get(&edge, "/app/copy.txt").header("etag"), Some(tag));
    assert_eq!(ask(&edge, "GET", "/app/copy.txt", &[("if-none-match", tag)]).status, 304);
    std::fs::write(&copy, "987654321").unwrap();
    std::fs::File::options().write(true).open(&copy).unwrap().set_modified(modified).unwrap();
    assert_eq!(ask(&edge, "GET", "/app/copy.txt", &[("if-none-match", tag)]).status, 200, "another length");
}

#[test]
fn a_range_is_sent_alone() {
    let app = origin("app");
    let edge = start(&app);
    let tag = get(&edge, "/app/plain.txt").header("etag").unwrap().to_owned();
    for (fields, status, body, range) in [
        (&[("range", "bytes=2-4")][..], 206, "234", Some("bytes 2-4/10")),
        (&[("range", "bytes=-3")], 206, "789", Some("bytes 7-9/10")),
        (&[("range", "bytes=7-")], 206, "789", Some("bytes 7-9/10")),
        (&[("range", "bytes=5-99")], 206, "56789", Some("bytes 5-9/10")),
        (&[("range", "bytes=0-0"), ("if-range", &tag)], 206, "0", Some("bytes 0-0/10")),
        (&[("range", "bytes=0-0"), ("if-range", "\"x\"")], 200, "0123456789", None),
        (&[("range", "bytes=0-0"), ("if-range", "\"x\""), ("if-range", "\"x\"")], 200, "0123456789", None),
        (&[("range", "bytes=0-0"), ("if-range", &tag), ("if-range", &tag)], 200, "0123456789", None),
        (&[("range", "bytes=0-0"), ("range", "bytes=0-0")], 200, "0123456789", None),
        (&[("range", "bytes=0-1,4-5")], 200, "0123456789", None),
        (&[("range", "bytes=5-2")], 200, "0123456789", None),
        (&[("range", "pages=1-2")], 200, "0123456789", None),
    ] {
        let response = ask(&edge, "GET", "/app/plain.txt", fields);
        assert_eq!((response.status, response.body.as_str()), (status, body), "{fields:?}");
        assert_eq!(response.header("content-range"), range, "{fields:?}");
        assert_eq!(response.header("content-length"), Some(body.len().to_string().as_str()), "{fields:?}");
    }
    for (path, field, range) in [
        ("/app/plain.txt", "bytes=10-", "bytes */10"),
        ("/app/plain.txt", "bytes=-0", "bytes */10"),
        ("/app/empty.txt", "bytes=0-", "bytes */0"),
    ] {
        let response = ask(&edge, "GET", path, &[("range", field)]);
        assert_eq!((response.status, response.header("content-range")), (416, Some(range)), "{path} {field}");
    }
    let head = ask(&edge, "HEAD", "/app/plain.txt", &[("range", "bytes=2-4")]);
    assert_eq!((head.status, head.header("content-length")), (200, Some("10")), "a range is of a GET alone");
}

#[test]
fn a_client_gets_the_variant_that_it_prefers() {
    let app = origin("app");
    let edge = start(&app);
    let mut tags = Vec::new();
    for (path, accepts, body, coding) in [
        ("/app/app.js", "gzip, deflate, br", "br of app.js", Some("br")),
        ("/app/app.js", "gzip", "gz of app.js", Some("gzip")),
        ("/app/app.js", "br;q=0.2, gzip;q=0.9", "gz of app.js", Some("gzip")),
        ("/app/app.js", "br;q=0, gzip;q=0", "app of 26 letters: abcdefg", None),
        ("/app/app.js", "zstd", "app of 26 letters: abcdefg", None),
        ("/app/only.css", "br, gzip", "gz of only.css", Some("gzip")),
        ("/app/only.css", "br", "css", None),
    ] {
        let response = ask(&edge, "GET", path, &[("accept-encoding", accepts)]);
        assert_eq!((response.status, response.body.as_str()), (200, body), "{path} {accepts}");
        assert_eq!(response.header("content-encoding"), coding, "{path} {accepts}");
        assert_eq!(response.header("vary"), Some("Accept-Encoding"), "{path} {accepts}");
        let kind = if path.ends_with(".js") { "text/javascript; charset=utf-8" } else { "text/css; charset=utf-8" };
        assert_eq!(response.header("content-type"), Some(kind), "{path} {accepts}");
        tags.push((path, coding, response.header("etag").unwrap().to_owned()));
    }
    for (path, coding, tag) in &tags {
        for (other_path, other, other_tag) in &tags {
            assert_eq!(path == other_path && coding == other, tag == other_tag, "{path} {coding:?} {other:?}");
        }
    }
    let fresh = ask(&edge, "GET", "/app/app.js", &[("accept-encoding", "br"), ("if-none-match", &tags[0].2)]);
    assert_eq!((fresh.status, fresh.header("vary")), (304, Some("Accept-Encoding")));
    let part = ask(&edge, "GET", "/app/app.js", &[("accept-encoding", "br"), ("range", "bytes=0-1")]);
    assert_eq!((part.status, part.body.as_str(), part.header("content-encoding")), (206, "br", Some("br")));
    assert_eq!(get(&edge, "/app/plain.txt").header("vary"), None, "it has one form");
}

#[test]
fn a_navigation_to_what_does_not_exist_gets_the_fallback_and_nothing_else_does() {
    let app = origin("app");
    let edge = start(&app);
    let navigation = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"), ("accept", "text/html")];
    for (fields, falls_back) in [
        (&navigation[..], true),
        (&[("accept", "text/html,*/*;q=0.8")], true),
        (&[("sec-fetch-dest", "document")], true),
        (&[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")], true),
        (&[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "empty")], true),
        (&[], false),
        (&[("accept", "*/*")], false),
        (&[("accept", "text/html"), ("x-requested-with", "XMLHttpRequest")], false),
        (&[("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "script"), ("accept", "text/html")], false),
        (&[("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image"), ("accept", "text/html")], false),
        (&[("sec-fetch-dest", "style"), ("accept", "text/html")], false),
        (&[("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty"), ("accept", "text/html")], false),
    ] {
        for path in ["/app/orders/17", "/app/orders/", "/app/none.js", "/app/bare/", "/app/.env", "/app/out"] {
            let response = ask(&edge, "GET", path, fields);
            let expected = if falls_back { 200 } else { 404 };
            assert_eq!(response.status, expected, "{path} {fields:?}: {}", response.body);
            assert_eq!(response.body == "<p>index", falls_back, "{path} {fields:?}");
        }
    }
    // What is there is sent.
    assert_eq!(ask(&edge, "GET", "/app/plain.txt", &navigation).body, "0123456789");
    assert_eq!(ask(&edge, "HEAD", "/app/orders/17", &navigation).status, 200);
    std::fs::remove_file(site(&edge).join("index.html")).unwrap();
    assert_eq!(ask(&edge, "GET", "/app/orders/17", &navigation).status, 404);
}

#[test]
fn a_fallback_is_not_kept_under_the_address_of_a_script() {
    let app = origin("app");
    let files = "files: {root: site, fallback: /index.html, cache_control: \"public, max-age=3600\"}";
    let routes = format!("{{path: /app/, access: public, {files}}}, {{path: /own/, {files}}}");
    let edge = builder(&app, &routes).file("site/index.html.gz", "gz").start();
    let vary = "Accept-Encoding, Sec-Fetch-Mode, Sec-Fetch-Dest, Accept, X-Requested-With";
    let page = ("accept", "text/html");
    for path in ["/app/none.js", "/app/orders/17"] {
        let fallback = ask(&edge, "GET", path, &[page]);
        assert_eq!((fallback.status, fallback.body.as_str()), (200, "<p>index"), "{path}");
        assert_eq!(
            (fallback.header("cache-control"), fallback.header("vary")),
            (Some("no-cache"), Some(vary)),
            "{path}"
        );
        let tag = fallback.header("etag").unwrap();
        let fresh = ask(&edge, "GET", path, &[page, ("if-none-match", tag)]);
        assert_eq!((fresh.status, fresh.header("cache-control")), (304, Some("no-cache")), "{path}");
        assert_eq!(fresh.header("vary"), Some(vary), "{path}");
        let script = ask(&edge, "GET", path, &[("sec-fetch-dest", "script"), ("if-none-match", tag)]);
        assert_eq!((script.status, script.header("cache-control")), (404, Some("no-store")), "{path}");
    }
    let file = ask(&edge, "GET", "/app/", &[page]);
    let kept = Some("public, max-age=3600");
    assert_eq!((file.header("cache-control"), file.header("vary")), (kept, Some("Accept-Encoding")));
    // Behind a sign-on neither is for a cache that others share.
    let mut ada = edge.signed_in();
    for (path, expected) in [("/own/", "private, max-age=3600"), ("/own/none", "private, no-cache")] {
        let file = ada.ask("GET", &edge.url("iqueue", path)).accept("text/html").send();
        assert_eq!((file.status, file.header("cache-control")), (200, Some(expected)), "{path}");
    }
}

#[test]
fn the_rule_of_a_files_own_path_holds_where_it_is_sent_for_another_one() {
    let app = origin("app");
    let routes = "{path: /app/, access: public, files: {root: site, fallback: /deep/index.html}}, \
                  {exact: /app/deep/index.html, files: {root: site/deep}}, \
                  {exact: /app/kept/index.html, access: {roles: [boss]}}, \
                  {exact: /app/away/index.html, access: public, addresses: {allow: [10.0.0.0/8]}}, \
                  {exact: /app/free/index.html, redirect: {to: /app/free/}}, \
                  {exact: /app/open/index.html, access: public, redirect: {to: /app/open/}}, \
                  {exact: /app/gone/index.html, access: deny, redirect: {to: /app/gone/}}, \
                  {exact: /app/near/index.html, addresses: {allow: [10.0.0.0/8]}, redirect: {to: /app/near/}}, \
                  {path: /app/shut/, files: {root: site/shut}}, \
                  {exact: /app/shut/index.html, access: public, files: {root: site/shut}}";
    let mut builder = builder(&app, routes);
    for folder in ["kept", "away", "free", "open", "gone", "near", "shut"] {
        builder = builder.file(&format!("site/{folder}/index.html"), folder);
    }
    let edge = builder.start();
    let navigation = [("accept", "text/html")];
    let led = ask(&edge, "GET", "/app/deep/?a=1", &navigation);
    assert_eq!((led.status, led.location().as_deref()), (302, Some("/app/deep/index.html?a=1")), "{}", led.body);
    for path in ["/app/kept/", "/app/away/", "/app/gone/", "/app/near/", "/app/none", "/app/none/", "/app/bare/"] {
        let refused = ask(&edge, "GET", path, &navigation);
        assert_eq!(refused.status, 404, "{path}: {}", refused.body);
    }
    for (path, body) in
        [("/app/", "<p>index"), ("/app/free/", "free"), ("/app/open/", "open"), ("/app/deep/x%20y.txt", "x y")]
    {
        let file = get(&edge, path);
        assert_eq!((file.status, file.body.as_str()), (200, body), "{path}");
    }
    let mut ada = edge.signed_in();
    for (path, body) in [("/app/deep/index.html", "<p>deep"), ("/app/shut/", "shut")] {
        let file = ada.get(&edge.url("iqueue", path));
        assert_eq!((file.status, file.body.as_str()), (200, body), "{path}");
    }
}

#[test]
fn a_folder_leads_to_its_address_with_a_slash() {
    let app = origin("app");
    let edge = start(&app);
    for (path, location) in [
        ("/app", "/app/"),
        ("/app?a=b&c", "/app/?a=b&c"),
        ("/app/deep", "/app/deep/"),
        ("/app/deep?x=/y", "/app/deep/?x=/y"),
        ("/app/bare", "/app/bare/"),
    ] {
        let response = get(&edge, path);
        assert_eq!((response.status, response.location().as_deref()), (301, Some(location)), "{path}");
    }
    for path in ["/app//deep", "//evil.test/app/deep", "/app/deep%2f"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: iqueue.test\r\nUser-Agent: test/1\r\n\r\n");
        let answer = raw(edge.address(), "iqueue.test").send(request).answer().unwrap();
        assert!([400, 401, 404].contains(&answer.status), "{path}: {}", answer.head);
    }
}

#[test]
fn only_reading_is_served_and_access_comes_first() {
    let app = origin("app");
    let routes = "{path: /app/, files: {root: site}}, {path: /open/, access: public, files: {root: site}}, \
                  {path: /admin/, access: {roles: [boss]}, files: {root: site}}, \
                  {exact: /favicon.txt, access: public, files: {root: site, index: plain.txt, cache_control: \"public, max-age=60\"}}";
    let edge = builder(&app, routes).start();
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let response = edge.client().ask(method, &edge.url("iqueue", "/open/plain.txt")).body("x").send();
        assert_eq!((response.status, response.header("allow")), (405, Some("GET, HEAD")), "{method}");
        assert_eq!(edge.client().ask(method, &edge.url("iqueue", "/app/plain.txt")).body("x").send().status, 401);
    }
    let open = get(&edge, "/open/plain.txt");
    assert_eq!((open.status, open.header("cache-control")), (200, Some("no-cache")));
    let exact = get(&edge, "/favicon.txt");
    assert_eq!((exact.body.as_str(), exact.header("cache-control")), ("0123456789", Some("public, max-age=60")));
    assert_eq!(get(&edge, "/app/plain.txt").status, 401);
    assert_eq!(get(&edge, "/app/none").status, 401, "what is there is no stranger's business");
    assert_eq!(edge.client().open(&edge.url("iqueue", "/app/")).status, 302);
    let mut ada = edge.signed_in();
    let file = ada.get(&edge.url("iqueue", "/app/plain.txt"));
    assert_eq!((file.status, file.body.as_str()), (200, "0123456789"));
    assert_eq!(file.header("cache-control"), Some("private, no-cache"));
    assert_eq!(ada.get(&edge.url("iqueue", "/admin/plain.txt")).status, 403);
    assert_eq!(ada.ask("POST", &edge.url("iqueue", "/app/plain.txt")).body("x").send().status, 405);
    // A body that no file takes is no harm.
    assert_eq!(ada.ask("GET", &edge.url("iqueue", "/app/plain.txt")).body("x").send().status, 200);
    let is_it = |line: &serde_json::Value| line["path"] == "/app/plain.txt" && line["status"] == 200;
    let mut found = None;
    eventually("the file's line is in the log", || {
        found = edge.access_log(1).into_iter().find(is_it);
        found.is_some()
    });
    let line = found.unwrap();
    assert_eq!((&line["user"], &line["bytes"]), (&"ada".into(), &10.into()), "{line}");
}

/// As on every route; and no list of methods makes a file what it is not.
#[test]
fn a_method_that_no_file_has_is_refused_by_its_route() {
    let app = origin("app");
    let files = "access: public, files: {root: site}";
    let routes = format!(
        "{{path: /all/, {files}}}, {{path: /more/, methods: [POST, GET, PROPFIND], {files}}}, \
         {{path: /head/, methods: [HEAD], {files}}}, {{path: /user/, files: {{root: site}}}}"
    );
    let edge = builder(&app, &routes).start();
    let ada = edge.signed_in();
    for http2 in [false, true] {
        for (path, method, status, allow) in [
            ("/all/plain.txt", "POST", 405, "GET, HEAD"),
            ("/all/none", "DELETE", 405, "GET, HEAD"),
            ("/all/plain.txt", "OPTIONS", 405, "GET, HEAD"),
            ("/more/plain.txt", "POST", 405, "GET, HEAD"),
            ("/more/plain.txt", "PROPFIND", 405, "GET, HEAD"),
            ("/more/plain.txt", "PUT", 405, "GET, HEAD"),
            ("/more/plain.txt", "GET", 200, ""),
            ("/head/plain.txt", "GET", 405, "HEAD"),
            ("/head/plain.txt", "HEAD", 200, ""),
            ("/user/plain.txt", "POST", 405, "GET, HEAD"),
        ] {
            let mut client = if http2 { ada.clone().http2() } else { ada.clone() };
            let response = client.ask(method, &edge.url("iqueue", path)).send();
            let what = format!("{method} {path} HTTP/2: {http2}");
            assert_eq!((response.status, response.header("allow").unwrap_or_default()), (status, allow), "{what}");
        }
    }
    let is_it = |line: &&serde_json::Value| line["status"] == 405 && line["path"] != "/page";
    let mut refused = Vec::new();
    eventually("all of them are in the log", || {
        refused = edge.access_log(1).iter().filter(is_it).map(|line| line["reason"].to_string()).collect();
        refused.len() >= 16
    });
    assert_eq!(refused, ["\"method\""; 16]);
    assert_eq!(app.seen().iter().filter(|seen| seen.target.contains("txt")).count(), 0);
}

#[test]
fn a_folder_may_be_put_in_place_of_another_while_it_is_served() {
    let app = origin("app");
    let edge = builder(&app, "{path: /, access: public, files: {root: current}}").file("current/x.txt", "old").start();
    assert_eq!(get(&edge, "/x.txt").body, "old");
    let path = |name: &str| edge.folder.path().join(name);
    std::fs::create_dir(path("next")).unwrap();
    std::fs::write(path("next/x.txt"), "new").unwrap();
    std::fs::rename(path("current"), path("before")).unwrap();
    assert_eq!(get(&edge, "/x.txt").status, 404);
    symlink("next", path("current")).unwrap();
    assert_eq!(get(&edge, "/x.txt").body, "new");
}

/// Far more than the sockets between the edge and a client hold.
const LARGE: usize = 64 << 20;

fn large(edge: &Edge) -> PathBuf {
    let path = site(edge).join("large.bin");
    let mut file = std::fs::File::create(&path).unwrap();
    for _ in 0..LARGE >> 20 {
        file.write_all(&[b'x'; 1 << 20]).unwrap();
    }
    path
}

const LARGE_REQUEST: &str = "GET /app/large.bin HTTP/1.1\r\nHost: iqueue.test\r\nUser-Agent: test/1\r\n\r\n";

#[test]
fn a_file_that_is_cut_while_it_is_sent_ends_its_connection() {
    let app = origin("app");
    let edge = start(&app);
    let path = large(&edge);
    let mut connection = raw(edge.address(), "iqueue.test");
    connection.send(LARGE_REQUEST).hear("\r\n\r\n");
    std::fs::File::options().write(true).open(&path).unwrap().set_len(10).unwrap();
    assert!(connection.rest().len() < LARGE, "it ends before what was announced");
    assert_eq!(edge.access_log(1)[0]["error"], "file_changed");
    large(&edge);
    let arriving = Http2::open(edge.address(), "iqueue.test").get("/app/large.bin", "");
    assert_eq!(arriving.status, 200);
    std::fs::File::options().write(true).open(&path).unwrap().set_len(10).unwrap();
    assert!(arriving.end().is_err(), "the stream is reset");
    assert_eq!(edge.access_log(2)[1]["error"], "file_changed");
}

#[test]
fn a_client_that_does_not_read_loses_its_connection() {
    let app = origin("app");
    let edge = builder(&app, FILES).server("timeouts: {write: 1s}").start();
    large(&edge);
    let mut connection = raw(edge.address(), "iqueue.test");
    connection.send(LARGE_REQUEST).hear("\r\n\r\n");
    let lines = edge.access_log(1);
    assert!(lines[0]["bytes"].as_u64().unwrap() < LARGE as u64, "{}", lines[0]);
    assert_eq!((&lines[0]["status"], &lines[0]["error"]), (&200.into(), &"client_gone".into()));
    assert!(connection.rest().len() < LARGE);
}

#[test]
fn a_large_file_arrives_whole() {
    let app = origin("app");
    let edge = start(&app);
    large(&edge);
    for http2 in [false, true] {
        let client = edge.client();
        let mut client = if http2 { client.http2() } else { client };
        let url = edge.url("iqueue", "/app/large.bin");
        let whole = client.get(&url);
        assert_eq!((whole.status, whole.body.len()), (200, LARGE));
        let part = client.ask("GET", &url).field("range", &format!("bytes={}-", LARGE - 100_000)).send();
        assert_eq!((part.status, part.body.len()), (206, 100_000));
    }
}
