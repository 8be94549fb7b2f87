//! Queries as browsers and programs write them, over HTTP/1.1 and HTTP/2: what passes does so byte for byte, the sign-on
//! leads back to it, and what is refused is so in both.

use sentry_edge::server::FastPathMode;

use crate::harness::edge::{PASSWORD, TOKEN_COOKIE};
use crate::harness::frames::{END_HEADERS, END_STREAM, HEADERS, Wire, frame};
use crate::harness::{Client, Edge, Origin, edge, eventually, origin, raw};

struct Scene {
    edge: Edge,
    iqueue: Origin,
}

fn scene(fast_path: FastPathMode) -> Scene {
    let iqueue = origin("iqueue");
    let edge = edge().service("iqueue", &iqueue).fast_path(fast_path).start();
    Scene { edge, iqueue }
}

/// What Chromium and Firefox send as it is (WHATWG URL, "query state"), and what only programs do.
const PASSES: [&str; 14] = [
    "u=DOM\\jdoe",
    "\\",
    "a=^b",
    "a={b}",
    "a={\\u0041:[1,2]}|c",
    "a=`b`",
    "a='b'",
    "a=%",
    "a=100%",
    "a=%zz&b=%4",
    "a=~!$*()+,;:@/?",
    "?",
    "a=[b]",
    "a&&=&%%%",
];

const REFUSED: [&[u8]; 9] =
    [b"a=\"b\"", b"a=<b", b"a>b", b"a=\xe9", b"a=\xc3\xa9", b"a=\x7f", b"a=\x01", b"a=\x85b", b"a=\xa0b"];

impl Scene {
    fn over_http1(&self, client: &Client, query: &[u8]) -> u16 {
        let cookie = client.cookie("iqueue.test", TOKEN_COOKIE).unwrap();
        let mut request = b"GET /s?".to_vec();
        request.extend(query);
        let rest = format!(
            " HTTP/1.1\r\nHost: iqueue.test:{}\r\nUser-Agent: test/1\r\nCookie: {TOKEN_COOKIE}={cookie}\r\n\r\n",
            self.edge.address().port()
        );
        request.extend(rest.bytes());
        raw(self.edge.address(), "iqueue.test").send(request).answer().map_or(0, |answer| answer.status)
    }

    /// The first byte of the answer's HPACK says its status where it is one of the common ones: 200 is 0x88, 400 is 0x8c.
    /// `None` when the stream was reset, or the connection closed: h2 takes no text that is not UTF-8.
    fn over_http2(&self, client: &Client, query: &[u8]) -> Option<u8> {
        let cookie = client.cookie("iqueue.test", TOKEN_COOKIE).unwrap();
        let authority = format!("iqueue.test:{}", self.edge.address().port());
        let mut block = vec![0x82, 0x87];
        let long = |block: &mut Vec<u8>, text: &[u8]| {
            // An integer with a prefix of seven bits (RFC 7541 §5.1).
            let mut length = text.len();
            if length < 127 {
                block.push(length as u8);
            } else {
                block.push(127);
                length -= 127;
                while length >= 128 {
                    block.push((length % 128) as u8 | 128);
                    length /= 128;
                }
                block.push(length as u8);
            }
            block.extend(text);
        };
        for (name, value) in [(4, [b"/s?", query].concat()), (1, authority.into_bytes())] {
            block.push(name);
            long(&mut block, &value);
        }
        for (name, value) in [("user-agent", "test/1"), ("cookie", &format!("{TOKEN_COOKIE}={cookie}"))] {
            block.push(0);
            long(&mut block, name.as_bytes());
            long(&mut block, value.as_bytes());
        }
        let mut wire = Wire::open(self.edge.address(), "iqueue.test", &[]);
        wire.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block));
        let over = || wire.heard().is_answered(1) || wire.heard().was_reset(1) || wire.is_closed();
        eventually("the stream is answered, or refused", over);
        wire.heard().all(HEADERS).next().map(|(_, payload)| payload[0])
    }
}

#[test]
fn what_browsers_send_as_it_is_reaches_the_application_byte_for_byte_and_the_rest_is_refused() {
    for fast_path in [FastPathMode::On, FastPathMode::Off] {
        let scene = scene(fast_path);
        let client = scene.edge.signed_in();
        for query in PASSES {
            for http2 in [false, true] {
                let what = format!("{query}, HTTP/2: {http2}, {fast_path:?}");
                if http2 {
                    assert_eq!(scene.over_http2(&client, query.as_bytes()), Some(0x88), "{what}");
                } else {
                    assert_eq!(scene.over_http1(&client, query.as_bytes()), 200, "{what}");
                }
                assert_eq!(scene.iqueue.last().target, format!("/s?{query}"), "{what}");
            }
        }
        let seen = scene.iqueue.count();
        for query in REFUSED {
            let what = format!("{:?}, {fast_path:?}", query.escape_ascii().to_string());
            assert_eq!(scene.over_http1(&client, query), 400, "{what}");
            assert!(matches!(scene.over_http2(&client, query), None | Some(0x8c)), "{what}");
        }
        assert_eq!(scene.iqueue.count(), seen);
    }
}

/// With what is dangerous in a redirect escaped, and everything else as it was.
#[test]
fn the_sign_on_leads_back_to_such_a_query() {
    let scene = scene(FastPathMode::On);
    let port = scene.edge.address().port();
    for query in PASSES {
        let request = format!("GET /s?{query} HTTP/1.1\r\nHost: iqueue.test:{port}\r\nAccept: text/html\r\n\r\n");
        let answer = raw(scene.edge.address(), "iqueue.test").send(request).answer().unwrap();
        let mut client = scene.edge.client();
        client.set_cookie("iqueue.test", "__Host-SSOState", {
            let cookie = answer.header("set-cookie").unwrap();
            cookie.split(['=', ';']).nth(1).unwrap()
        });
        let form = client.follow(answer.header("location").unwrap()).pop().unwrap();
        let sent = client.fill_in(&form, "ada", PASSWORD);
        let last = client.follow(&sent.location().unwrap()).pop().unwrap();
        let escaped: String = query
            .chars()
            .map(|c| if "\\^`{|}'".contains(c) { format!("%{:02X}", u32::from(c)) } else { c.to_string() })
            .collect();
        assert_eq!((last.status, scene.iqueue.last().target), (200, format!("/s?{escaped}")), "{query}");
    }
}

#[test]
fn an_address_that_is_too_long_for_a_redirect_is_kept_by_the_browser_or_the_page_says_so() {
    let scene = scene(FastPathMode::On);
    let edge = &scene.edge;
    let long = |length: usize| edge.url("iqueue", &format!("/report;v=1?x=a,b;c&q={}", "z".repeat(length)));
    for length in [2_000, 2_100, 3_000, 3_900] {
        for signed_in in [false, true] {
            let mut client = if signed_in { edge.signed_in() } else { edge.client() };
            client.forget_cookie("iqueue.test", TOKEN_COOKIE);
            let mut page = client.follow(&long(length)).pop().unwrap();
            if !signed_in {
                let wrong = client.fill_in(&page, "ada", "wrong");
                let sent = client.fill_in(&wrong, "ada", PASSWORD);
                page = client.follow(&sent.location().unwrap()).pop().unwrap();
            }
            assert_eq!((page.status, &page.url), (200, &long(length)), "{length}, signed in: {signed_in}");
            assert_eq!(client.cookie("iqueue.test", "__Host-SSOReturn"), None, "and it is kept no longer");
        }
    }
    // Two tabs: the browser keeps one address. The other tab is told.
    let mut client = edge.client();
    let forms = [2_500, 2_600].map(|length| client.follow(&long(length)).pop().unwrap());
    let sent = client.fill_in(&forms[0], "ada", PASSWORD);
    let page = client.follow(&sent.location().unwrap()).pop().unwrap();
    assert_eq!(page.status, 400);
    assert!(page.body.contains("could not be kept") && page.body.contains("href=\"/\""), "{}", page.body);
    let told = client.open(&forms[1].url);
    let go_on = told.body.split("class=\"button\" href=\"").nth(1).unwrap().split('"').next().unwrap();
    let page = client.follow(&go_on.replace("&#38;", "&")).pop().unwrap();
    assert_eq!((page.status, page.url), (200, long(2_600)));
    // One that no browser would keep.
    let mut client = edge.signed_in();
    client.forget_cookie("iqueue.test", TOKEN_COOKIE);
    let page = client.follow(&long(6_000)).pop().unwrap();
    assert_eq!(page.status, 400);
    assert!(page.body.contains("could not be kept"), "{}", page.body);
    assert_eq!(client.open(&edge.url("iqueue", "/")).status, 302, "the ticket of that page is gone");
    assert!(!scene.iqueue.seen().iter().any(|seen| seen.target.contains("requestID")));
}

#[test]
fn what_does_not_open_a_page_spends_neither_a_kept_address_nor_its_ticket() {
    let scene = scene(FastPathMode::On);
    let edge = &scene.edge;
    let page = edge.url("iqueue", &format!("/report?q={}", "z".repeat(2_500)));
    let mut client = edge.signed_in();
    client.forget_cookie("iqueue.test", TOKEN_COOKIE);
    let mut next = page.clone();
    while !next.contains("/.sentry/return/") || !next.contains("requestID=") {
        next = client.open(&next).location().unwrap();
    }
    let navigates = ("sec-fetch-mode", "navigate");
    for fields in [
        [navigates, ("sec-purpose", "prefetch")],
        [("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")],
        [("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")],
    ] {
        let asking = fields.iter().fold(client.ask("GET", &next), |asking, (name, value)| asking.field(name, value));
        assert_eq!(asking.send().status, 401, "{fields:?}");
    }
    let last = client.follow(&next).pop().unwrap();
    assert_eq!((last.status, last.url), (200, page));
}
