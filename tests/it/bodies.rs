//! Request bodies in every cut, and the bytes that reach the application: the body, one end, and nothing behind it. Each
//! is followed by a request of another client on the same upstream connection, which has to be served as itself.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::harness::frames::{
    ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, Wire, frame, head,
};
use crate::harness::raw::Raw;
use crate::harness::recorder::{Parsed, Received, Recorded, Recorder, parse, recorder};
use crate::harness::{Edge, edge, eventually, eventually_or, origin, raw, runtime};

const PADDED: u8 = 0x8;
const GOAWAY: u8 = 0x7;
/// RFC 9113 §7: the client needs the response no longer, and nothing went wrong.
const NO_ERROR: u32 = 0;
const CANCEL: u32 = 8;

/// An edge with one public service, whose application this is. `more` are keys of the pool.
fn edge_before(application: SocketAddr, more: &str) -> Edge {
    let spare = origin("spare");
    let pool = format!("{{servers: [\"{application}\"]{more}}}");
    edge().service_with("iqueue", &spare, "access: public").pool("iqueue", &pool).start()
}

/// A request that has a body, and so takes the full path; answers the body of its response.
fn post(connection: &mut Raw, test: &str) -> String {
    let asked = format!("POST / HTTP/1.1\r\nHost: iqueue.test\r\nX-Test: {test}\r\nContent-Length: 3\r\n\r\nben");
    let answer = connection.send(asked).answer().unwrap_or_else(|| panic!("no answer to {test}"));
    format!("{} {}", answer.status, answer.text())
}

// Over HTTP/2.

/// One way to cut a body over HTTP/2.
struct Cut {
    name: String,
    method: &'static str,
    fields: Vec<(&'static str, String)>,
    /// What follows the head: kind, flags, payload.
    frames: Vec<(u8, u8, Vec<u8>)>,
    body: Vec<u8>,
    /// Whether each frame is sent when the one before it has been received.
    apart: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// On the last frame, or on the head where there is none.
    WithTheLast,
    InAnEmptyFrame,
    InAnEmptyPaddedFrame,
    /// RFC 9113 §8.1.
    InTrailers,
}

fn data(payload: &[u8], padded: bool) -> (u8, u8, Vec<u8>) {
    match padded {
        true => (DATA, PADDED, [&[7], payload, &[0; 7]].concat()),
        false => (DATA, 0, payload.to_vec()),
    }
}

/// A literal field without indexing (RFC 7541 §6.2.2).
const TRAILERS: &[u8] = b"\x00\x09x-trailer\x01a";

impl Cut {
    fn of(pieces: &[&[u8]], end: End, padded: bool, length: bool) -> Self {
        let mut frames: Vec<_> = pieces.iter().map(|piece| data(piece, padded)).collect();
        match end {
            End::WithTheLast => {
                if let Some((_, flags, _)) = frames.last_mut() {
                    *flags |= END_STREAM;
                }
            }
            End::InAnEmptyFrame => frames.push((DATA, END_STREAM, Vec::new())),
            End::InAnEmptyPaddedFrame => frames.push((DATA, END_STREAM | PADDED, [&[9][..], &[0; 9]].concat())),
            End::InTrailers => frames.push((HEADERS, END_STREAM | END_HEADERS, TRAILERS.to_vec())),
        }
        let body = pieces.concat();
        let sizes: Vec<usize> = pieces.iter().map(|piece| piece.len()).collect();
        let name = format!("pieces of {sizes:?} bytes, padded: {padded}, a length: {length}, the end {end:?}");
        let fields = if length { vec![("content-length", body.len().to_string())] } else { Vec::new() };
        Self { name, method: "POST", fields, frames, body, apart: false }
    }

    fn with(mut self, method: &'static str, fields: &[(&'static str, &str)]) -> Self {
        self.name = format!("{method} {fields:?}, {}", self.name);
        self.method = method;
        self.fields.extend(fields.iter().map(|(name, value)| (*name, (*value).to_owned())));
        self
    }

    fn apart(mut self) -> Self {
        self.apart = true;
        self.name += ", one by one";
        self
    }
}

/// All of them.
fn cuts() -> Vec<Cut> {
    let long = [b'x'; 16_000];
    let bodies: [&[&[u8]]; 9] = [
        &[],
        &[b"a"],
        &[b"ab", b"c"],
        &[b"a", b"b", b"c", b"d", b"e"],
        &[&long, &long, b"c"],
        &[b"", b"a"],
        &[b"a", b"", b"", b"b", b""],
        &[b"", b"", b""],
        // As long as a last chunk, and made of one.
        &[b"0\r\n\r\n"],
    ];
    let mut cuts = Vec::new();
    for pieces in bodies {
        for end in [End::WithTheLast, End::InAnEmptyFrame, End::InAnEmptyPaddedFrame, End::InTrailers] {
            for (padded, length) in [(false, false), (false, true), (true, false), (true, true)] {
                cuts.push(Cut::of(pieces, end, padded, length));
                if !padded {
                    cuts.push(Cut::of(pieces, end, padded, length).apart());
                }
            }
        }
    }
    for method in ["PUT", "DELETE", "GET"] {
        for end in [End::WithTheLast, End::InAnEmptyFrame, End::InTrailers] {
            for pieces in [&[][..], &[&b"ab"[..]], &[b"ab", b"c"]] {
                if method == "GET" && pieces.is_empty() && end == End::WithTheLast {
                    // It has no body, and takes the fast path.
                    continue;
                }
                cuts.push(Cut::of(pieces, end, false, false).with(method, &[]));
            }
        }
    }
    for end in [End::WithTheLast, End::InAnEmptyFrame] {
        cuts.push(Cut::of(&[b"ab"], end, false, false).with("POST", &[("expect", "100-continue")]).apart());
        cuts.push(Cut::of(&[b"ab"], end, false, true).with("PUT", &[("expect", "100-continue")]));
    }
    cuts
}

/// A client over HTTP/2, and the stream that it will use next.
struct Uploader {
    wire: Wire,
    stream: u32,
    pings: usize,
}

impl Uploader {
    fn open(edge: &Edge) -> Self {
        Self { wire: Wire::open(edge.address(), "iqueue.test", &[]), stream: 1, pings: 0 }
    }

    /// The head and what follows of a cut.
    fn send(&mut self, cut: &Cut, test: &str) {
        let mut fields = vec![("x-test", test)];
        fields.extend(cut.fields.iter().map(|(name, value)| (*name, value.as_str())));
        let ends = if cut.frames.is_empty() { END_STREAM } else { 0 };
        let mut block = head(cut.method, "iqueue.test", &fields);
        // `head` knows two methods by their number: others are written out.
        if !["GET", "POST"].contains(&cut.method) {
            let method = [&[0x02, cut.method.len() as u8], cut.method.as_bytes()].concat();
            block.splice(..1, method);
        }
        let mut sent = vec![frame(HEADERS, END_HEADERS | ends, self.stream, &block)];
        sent.extend(cut.frames.iter().map(|(kind, flags, payload)| frame(*kind, *flags, self.stream, payload)));
        if cut.apart {
            for frame in sent {
                assert!(self.wire.send(frame));
                self.is_heard();
            }
        } else {
            assert!(self.wire.send(sent.concat()));
        }
    }

    /// Waits until the edge has read what was sent; then its task for the stream has a moment of its own.
    fn is_heard(&mut self) {
        self.wire.send(frame(PING, 0, 0, &[1; 8]));
        self.pings += 1;
        eventually("the edge has read it", || self.wire.heard().all(PING).count() >= self.pings);
        std::thread::sleep(Duration::from_millis(2));
    }

    fn finish(&mut self) {
        let stream = self.stream;
        eventually("the stream is over", || self.wire.heard().is_over(stream));
        self.stream += 2;
    }
}

/// Waits, each time that it is called, for one more line of the access log: it is written when the upstream connection
/// has gone back to the pool, or was closed.
fn logged(edge: &Edge) -> impl FnMut() {
    let (log, mut lines) = (edge.folder.path().join("access.log"), 0);
    move || {
        lines += 1;
        let count = || std::fs::read(&log).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count();
        eventually("the request is over", || count() >= lines);
    }
}

/// What a recorder has been sent since it had this; by connection, and only where there is something.
fn since(recorder: &Recorder, before: &[Recorded]) -> Vec<Vec<u8>> {
    let new = recorder.connections().into_iter().enumerate();
    let new = new.map(|(at, after)| after.bytes[before.get(at).map_or(0, |old| old.bytes.len())..].to_vec());
    new.filter(|bytes| !bytes.is_empty()).collect()
}

/// Whether a request of hers is among the bytes.
fn of_ana(bytes: &[u8]) -> bool {
    String::from_utf8_lossy(bytes).to_ascii_lowercase().contains("x-test: ana")
}

/// Takes apart what came on one connection; `Err` where it is not whole requests and nothing else.
fn requests(bytes: &[u8]) -> Result<Vec<Received>, String> {
    let (mut requests, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        match parse(&bytes[at..]) {
            Parsed::Whole(request) => {
                at += request.length;
                requests.push(request);
            }
            other => return Err(format!("{other:?}: {:?}", bytes[at..].escape_ascii().to_string())),
        }
    }
    Ok(requests)
}

/// Whether these were the upload and then the other client's request, on one connection.
fn verify(came: &[Vec<u8>], body: &[u8]) -> Result<(), String> {
    let [bytes] = came else { return Err(format!("on {} connections", came.len())) };
    let requests = requests(bytes)?;
    let [upload, other] = &requests[..] else { return Err(format!("{} requests", requests.len())) };
    if upload.body != body {
        return Err(format!("another body: {:?}", upload.body.escape_ascii().to_string()));
    }
    if other.body != b"ben" {
        return Err(format!("another's body: {:?}", other.body.escape_ascii().to_string()));
    }
    Ok(())
}

/// Sends each upload and, on the same upstream connection, another client's request; answers what was wrong.
fn faults_of(uploads: impl Iterator<Item = (String, Vec<u8>, Box<dyn FnOnce(&Edge, &str)>)>) -> Vec<String> {
    let recorder = recorder();
    let edge = edge_before(recorder.address, "");
    let mut faults = Vec::new();
    let mut logged = logged(&edge);
    for (name, body, upload) in uploads {
        let before = recorder.connections();
        upload(&edge, "ana");
        logged();
        let answer = post(&mut raw(edge.address(), "iqueue.test"), "ben");
        logged();
        let came = since(&recorder, &before);
        let verified = if answer == "200 ben" { verify(&came, &body) } else { Err(format!("ben hears {answer}")) };
        if let Err(fault) = verified {
            faults.push(format!("{name}: {fault}"));
        }
    }
    faults
}

#[test]
fn a_body_over_http2_reaches_an_http1_application_once_and_whole_in_every_cut() {
    let uploads = cuts().into_iter().map(|cut| {
        let (name, body) = (cut.name.clone(), cut.body.clone());
        let upload = move |edge: &Edge, test: &str| {
            let mut ana = Uploader::open(edge);
            ana.send(&cut, test);
            ana.finish();
        };
        (name, body, Box::new(upload) as Box<dyn FnOnce(&Edge, &str)>)
    });
    let faults = faults_of(uploads);
    assert!(faults.is_empty(), "{} cuts went wrong:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn uploads_and_other_clients_at_once_are_not_mixed_up() {
    let recorder = recorder();
    let edge = edge_before(recorder.address, "");
    let address = edge.address();
    let others: Vec<_> = (0..2)
        .map(|other| {
            std::thread::spawn(move || {
                let mut connection = raw(address, "iqueue.test");
                (0..150)
                    .map(|turn| format!("{other}-{turn}"))
                    .filter(|t| post(&mut connection, t) != format!("200 {t}"))
                    .count()
            })
        })
        .collect();
    let mut ana = Uploader::open(&edge);
    for turn in 0..100 {
        let end = if turn % 2 == 0 { End::InAnEmptyFrame } else { End::InTrailers };
        let pieces = [&b"ab"[..]; 3];
        ana.send(&Cut::of(&pieces[..turn % 4], end, false, false), "ana");
        ana.finish();
    }
    let wrong: usize = others.into_iter().map(|other| other.join().unwrap()).sum();
    assert_eq!(wrong, 0, "wrong answers to other clients");
    for recorded in recorder.connections() {
        requests(&recorded.bytes).unwrap();
    }
}

// To an application that speaks HTTP/2.

/// One request: its `x-test`, its body, and whether that came to its end.
type Seen = Arc<Mutex<Vec<(String, Vec<u8>, bool)>>>;

/// An HTTP/2 application that answers with `x-test`.
fn h2c() -> (SocketAddr, Seen) {
    let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let kept = Arc::clone(&seen);
    runtime().spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            let service = service_fn(move |request: hyper::Request<Incoming>| {
                let kept = Arc::clone(&kept);
                async move {
                    let (head, mut body) = request.into_parts();
                    let test = head.headers.get("x-test").map_or("", |test| test.to_str().unwrap()).to_owned();
                    let (mut bytes, mut whole) = (Vec::new(), true);
                    while let Some(part) = body.frame().await {
                        match part {
                            Ok(part) => bytes.extend_from_slice(part.data_ref().map_or(&[], |data| data)),
                            Err(_) => {
                                whole = false;
                                break;
                            }
                        }
                    }
                    kept.lock().unwrap().push((test.clone(), bytes, whole));
                    Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::from(test))))
                }
            });
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(serving.serve_connection(TokioIo::new(socket), service));
        }
    });
    (address, seen)
}

#[test]
fn a_body_over_http2_reaches_an_http2_application_once_and_whole_in_every_cut() {
    let (address, seen) = h2c();
    let edge = edge_before(address, ", protocol: h2c");
    let mut faults = Vec::new();
    for cut in cuts() {
        seen.lock().unwrap().clear();
        let mut ana = Uploader::open(&edge);
        ana.send(&cut, "ana");
        ana.finish();
        let answer = post(&mut raw(edge.address(), "iqueue.test"), "ben");
        let seen = seen.lock().unwrap().clone();
        let wanted = [("ana".to_owned(), cut.body, true), ("ben".to_owned(), b"ben".to_vec(), true)];
        if answer != "200 ben" || seen != wanted {
            faults.push(format!("{}: ben hears {answer}, and the application {seen:?}", cut.name));
        }
    }
    assert!(faults.is_empty(), "{} cuts went wrong:\n{}", faults.len(), faults.join("\n"));
}

// Cancelled.

/// How a client breaks off.
#[derive(Clone, Copy, Debug)]
enum Break {
    Reset(u32),
    /// GOAWAY, and the end of the connection.
    Leave,
    /// The end of the connection alone.
    Vanish,
    /// A last frame that does not make up the length that was told (RFC 9113 §8.1.1).
    TooShort,
    TooLong,
}

/// What an upload does before it is broken off.
fn begun() -> Vec<Cut> {
    let mut begun = Vec::new();
    for pieces in [&[][..], &[&b"abc"[..]], &[b"a", b"b"], &[b"a", b""]] {
        for length in [false, true] {
            for apart in [false, true] {
                let mut cut = Cut::of(pieces, End::WithTheLast, false, false);
                cut.frames.iter_mut().for_each(|(_, flags, _)| *flags &= !END_STREAM);
                if cut.frames.is_empty() {
                    // So that the head does not end the stream.
                    cut.frames.push((DATA, 0, Vec::new()));
                }
                if length {
                    cut.fields.push(("content-length", "5".into()));
                }
                cut.name = format!("{pieces:?}, a length: {length}, one by one: {apart}");
                cut.apart = apart;
                begun.push(cut);
            }
        }
    }
    begun
}

fn break_off(ana: &mut Uploader, how: Break) {
    let stream = ana.stream;
    let sent = match how {
        Break::Reset(code) => frame(RST_STREAM, 0, stream, &code.to_be_bytes()),
        Break::Leave => frame(GOAWAY, 0, 0, &[0; 8]),
        Break::Vanish => Vec::new(),
        Break::TooShort => frame(DATA, END_STREAM, stream, b""),
        Break::TooLong => frame(DATA, END_STREAM, stream, b"0123456789"),
    };
    ana.wire.send(sent);
    if matches!(how, Break::Leave | Break::Vanish) {
        ana.wire.close();
    }
}

#[test]
fn a_body_that_is_broken_off_is_never_taken_for_whole_and_its_connection_is_not_used_again() {
    let recorder = recorder();
    let edge = edge_before(recorder.address, "");
    let ways =
        [Break::Reset(NO_ERROR), Break::Reset(CANCEL), Break::Leave, Break::Vanish, Break::TooShort, Break::TooLong];
    let mut faults = Vec::new();
    for how in ways {
        for cut in begun() {
            let told = !cut.fields.is_empty();
            if !told && matches!(how, Break::TooShort | Break::TooLong) {
                continue;
            }
            let before = recorder.connections();
            let mut ana = Uploader::open(&edge);
            ana.send(&cut, "ana");
            break_off(&mut ana, how);
            // A stream that was reset at once may never have been a request.
            let answer = post(&mut raw(edge.address(), "iqueue.test"), "ben");
            let came = since(&recorder, &before);
            let mixed = came.iter().any(|bytes| of_ana(bytes) && parse(bytes) != Parsed::Partial);
            if answer != "200 ben" || mixed {
                let came: Vec<_> = came.iter().map(|bytes| bytes.escape_ascii().to_string()).collect();
                faults.push(format!("{how:?} after {}: ben hears {answer}, and the application {came:?}", cut.name));
            }
        }
    }
    assert!(faults.is_empty(), "{} went wrong:\n{}", faults.len(), faults.join("\n"));
    // All but the one that ben's requests came on.
    let open = || recorder.connections().iter().filter(|recorded| !recorded.closed).count();
    eventually_or(|| open() <= 1, || format!("the others are closed, but {} are open", open()));
}

#[test]
fn a_request_that_is_reset_before_its_answer_takes_its_connection_with_it() {
    let recorder = recorder();
    let edge = edge_before(recorder.address, "");
    for end in [End::WithTheLast, End::InAnEmptyFrame, End::InTrailers] {
        for code in [NO_ERROR, CANCEL] {
            let before = recorder.connections();
            let mut ana = Uploader::open(&edge);
            ana.send(&Cut::of(&[b"abc"], end, false, false).with("POST", &[("x-late", "1")]), "ana");
            eventually("the application has it", || {
                since(&recorder, &before).iter().any(|bytes| matches!(parse(bytes), Parsed::Whole(_)))
            });
            break_off(&mut ana, Break::Reset(code));
            let used = |recorded: &Recorded| String::from_utf8_lossy(&recorded.bytes).contains("x-late");
            eventually("the connection is closed", || {
                recorder.connections().iter().filter(|r| used(r)).all(|r| r.closed)
            });
            assert_eq!(post(&mut raw(edge.address(), "iqueue.test"), "ben"), "200 ben", "{end:?} {code}");
        }
    }
}

#[test]
fn a_broken_body_is_broken_to_an_http2_application_too() {
    let (address, seen) = h2c();
    let edge = edge_before(address, ", protocol: h2c");
    for how in
        [Break::Reset(NO_ERROR), Break::Reset(CANCEL), Break::Leave, Break::Vanish, Break::TooShort, Break::TooLong]
    {
        for cut in begun() {
            if cut.fields.is_empty() && matches!(how, Break::TooShort | Break::TooLong) {
                continue;
            }
            let mut ana = Uploader::open(&edge);
            ana.send(&cut, "ana");
            break_off(&mut ana, how);
            assert_eq!(post(&mut raw(edge.address(), "iqueue.test"), "ben"), "200 ben", "{how:?} after {}", cut.name);
        }
    }
    let whole: Vec<_> =
        seen.lock().unwrap().iter().filter(|(test, _, whole)| test == "ana" && *whole).cloned().collect();
    assert!(whole.is_empty(), "taken for whole: {whole:?}");
}

// Over HTTP/1.1.

/// A request over HTTP/1.1, in the pieces in which it is sent, and its body.
fn cuts_of_http1() -> Vec<(String, Vec<String>, Vec<u8>)> {
    let head = |fields: &str| format!("POST / HTTP/1.1\r\nHost: iqueue.test\r\nX-Test: ana\r\n{fields}\r\n");
    let chunked = head("Transfer-Encoding: chunked\r\n");
    let mut cuts = Vec::new();
    for (sent, body) in [
        ("0\r\n\r\n", ""),
        ("3\r\nabc\r\n0\r\n\r\n", "abc"),
        ("1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", "abc"),
        ("5\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n"),
    ] {
        for at in 0..=sent.len() {
            let pieces = vec![chunked.clone() + &sent[..at], sent[at..].to_owned()];
            cuts.push((format!("{sent:?} cut at {at}"), pieces, body.into()));
        }
        let bytes = sent.chars().map(String::from);
        cuts.push((
            format!("{sent:?} byte by byte"),
            std::iter::once(chunked.clone()).chain(bytes).collect(),
            body.into(),
        ));
    }
    for body in ["", "a", "abc", "0\r\n\r\n"] {
        let told = head(&format!("Content-Length: {}\r\n", body.len()));
        for at in 0..=body.len() {
            let pieces = vec![told.clone() + &body[..at], body[at..].to_owned()];
            cuts.push((format!("a length, {body:?} cut at {at}"), pieces, body.into()));
        }
    }
    cuts.push(("no body".into(), vec![head("")], Vec::new()));
    for fields in ["Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n"] {
        let body = if fields.starts_with('C') { "abc" } else { "3\r\nabc\r\n0\r\n\r\n" };
        let expecting = head(&format!("Expect: 100-continue\r\n{fields}"));
        cuts.push((format!("asked for, {fields:?}"), vec![expecting, body.into()], b"abc".to_vec()));
    }
    cuts
}

#[test]
fn a_body_over_http1_reaches_the_application_once_and_whole_in_every_cut() {
    let uploads = cuts_of_http1().into_iter().map(|(name, pieces, body)| {
        let upload = move |edge: &Edge, _: &str| {
            let mut ana = raw(edge.address(), "iqueue.test");
            for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
                ana.send(piece);
                std::thread::sleep(Duration::from_millis(2));
            }
            while ana.answer().is_some_and(|answer| answer.status == 100) {}
        };
        (name, body, Box::new(upload) as Box<dyn FnOnce(&Edge, &str)>)
    });
    let faults = faults_of(uploads);
    assert!(faults.is_empty(), "{} cuts went wrong:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn a_body_over_http1_that_is_broken_off_anywhere_is_never_taken_for_whole_and_ends() {
    let recorder = recorder();
    let edge = edge_before(recorder.address, "");
    let mut logged = logged(&edge);
    let whole: BTreeSet<String> = cuts_of_http1().into_iter().map(|(_, pieces, _)| pieces.concat()).collect();
    let mut wrong = Vec::new();
    for sent in whole {
        let head = sent.find("\r\n\r\n").unwrap() + 4;
        // What has no body cannot be cut in it.
        for at in head..sent.len() {
            let before = recorder.connections();
            let mut ana = raw(edge.address(), "iqueue.test");
            ana.send(&sent[..at]);
            std::thread::sleep(Duration::from_millis(1));
            drop(ana);
            let answer = post(&mut raw(edge.address(), "iqueue.test"), "ben");
            // A line for each: neither goes on for ever, as one in the middle of a chunk's size once did (pingora#635).
            logged();
            logged();
            let came = since(&recorder, &before);
            if answer != "200 ben" || came.iter().any(|bytes| of_ana(bytes) && parse(bytes) != Parsed::Partial) {
                wrong.push(format!("{:?}: ben hears {answer}", &sent[head..at]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// RFC 9110 §9.3.4 and §15.5.14 let an application answer before it has the body. Until it has, the connection is not
/// good for another request.
#[test]
fn an_answer_that_comes_before_the_body_has_ended_does_not_set_the_connection_free() {
    let recorder = recorder();
    let edge = edge_before(recorder.address, "");
    let ends = [End::WithTheLast, End::InAnEmptyFrame, End::InTrailers].map(|end| (Some(end), Break::Vanish));
    let breaks = [Break::Reset(NO_ERROR), Break::Reset(CANCEL), Break::Leave, Break::Vanish].map(|how| (None, how));
    for (end, how) in ends.into_iter().chain(breaks) {
        let before = recorder.connections();
        let mut ana = Uploader::open(&edge);
        let mut cut = Cut::of(&[b"ab", b"c"], end.unwrap_or(End::WithTheLast), false, false);
        let rest = cut.frames.split_off(1);
        ana.send(&cut.with("POST", &[("x-early", "1")]), "ana");
        eventually("the answer is there", || ana.wire.heard().is_answered(ana.stream));
        assert_eq!(post(&mut raw(edge.address(), "iqueue.test"), "ben"), "200 ben", "{end:?}, {how:?}: meanwhile");
        match end {
            Some(_) => {
                for (kind, flags, payload) in rest {
                    ana.wire.send(frame(kind, flags, ana.stream, &payload));
                }
                ana.finish();
            }
            None => break_off(&mut ana, how),
        }
        for _ in 0..3 {
            assert_eq!(post(&mut raw(edge.address(), "iqueue.test"), "ben"), "200 ben", "{end:?}, {how:?}");
        }
        let came = since(&recorder, &before);
        for bytes in came.iter().filter(|bytes| of_ana(bytes)) {
            let begins_with_hers = parse(bytes);
            let good = match (&end, &begins_with_hers) {
                // It may be closed as well: the application has had its say.
                (Some(_), Parsed::Whole(request)) => request.body == b"abc" && requests(bytes).is_ok(),
                (_, Parsed::Partial) => true,
                _ => false,
            };
            assert!(good, "{end:?}, {how:?}: {:?}", bytes.escape_ascii().to_string());
        }
    }
}

// Refused, blocked, and answered with what is no answer.

#[test]
fn a_body_over_the_limit_is_never_taken_for_whole() {
    let recorder = recorder();
    let spare = origin("spare");
    let pool = format!("{{servers: [\"{}\"]}}", recorder.address);
    let edge = edge()
        .service_with("iqueue", &spare, "access: public")
        .pool("iqueue", &pool)
        .server("limits: {body_bytes: 8}")
        .start();
    for end in [End::WithTheLast, End::InAnEmptyFrame, End::InTrailers] {
        for pieces in [&[&b"0123456789"[..]][..], &[b"01234", b"56789"], &[b"01234567", b"8"]] {
            let cut = Cut::of(pieces, end, false, false);
            for cut in [Cut::of(pieces, end, false, false), cut.apart()] {
                let mut ana = Uploader::open(&edge);
                ana.send(&cut, "ana");
                ana.finish();
                assert_eq!(post(&mut raw(edge.address(), "iqueue.test"), "ben"), "200 ben", "{}", cut.name);
            }
        }
    }
    let mut ana = raw(edge.address(), "iqueue.test");
    let head = "POST / HTTP/1.1\r\nHost: iqueue.test\r\nX-Test: ana\r\nTransfer-Encoding: chunked\r\n\r\n";
    ana.send(format!("{head}5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n"));
    assert_eq!(ana.status(), 413);
    for recorded in recorder.connections() {
        let mut at = 0;
        while let Parsed::Whole(request) = parse(&recorded.bytes[at..]) {
            at += request.length;
            assert!(!of_ana(request.head.as_bytes()), "taken for whole: {request:?}");
        }
    }
}

/// An HTTP/2 application that takes nothing of a body, or answers with `garbage` when it has a head; and how many heads it
/// got.
fn odd_h2c(garbage: &'static [u8]) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heads = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&heads);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (mut socket, counted) = (socket.unwrap(), Arc::clone(&counted));
            std::thread::spawn(move || {
                // No settings of its own, and so a window of 64 KiB that is never opened.
                socket.write_all(&frame(SETTINGS, 0, 0, &[])).ok();
                let (mut received, mut chunk) = (Vec::new(), [0; 4096]);
                let mut preface = [0; 24];
                socket.read_exact(&mut preface).ok();
                while let Ok(read @ 1..) = socket.read(&mut chunk) {
                    received.extend_from_slice(&chunk[..read]);
                    while let Some(head) = received.get(..9) {
                        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
                        let kind = head[3];
                        if received.len() < 9 + length {
                            break;
                        }
                        received.drain(..9 + length);
                        if kind == HEADERS {
                            counted.fetch_add(1, Ordering::SeqCst);
                            socket.write_all(garbage).ok();
                        }
                    }
                }
            });
        }
    });
    (address, heads)
}

#[test]
fn a_stream_that_is_reset_while_the_application_takes_nothing_ends_at_once() {
    let (address, heads) = odd_h2c(b"");
    let edge = edge_before(address, ", protocol: h2c, timeouts: {write: 1h, read: 1h}");
    let mut ana = Uploader::open(&edge);
    // More than 64 KiB may be sent once the edge's settings are agreed on (RFC 9113 §6.9.2).
    let is_open = || ana.wire.heard().setting(4).is_some() && ana.wire.heard().all(WINDOW_UPDATE).count() > 0;
    eventually("the edge says how much", is_open);
    ana.wire.send(frame(SETTINGS, ACK, 0, &[]));
    let mut cut = Cut::of(&[&[b'x'; 16_000][..]; 8], End::WithTheLast, false, false);
    cut.frames.iter_mut().for_each(|(_, flags, _)| *flags &= !END_STREAM);
    ana.send(&cut, "ana");
    eventually_or(|| heads.load(Ordering::SeqCst) == 1, || format!("a head is there, but {heads:?} are"));
    ana.is_heard();
    break_off(&mut ana, Break::Reset(CANCEL));
    // Long before any timeout: what it held is free again (pingora#910).
    assert_eq!(edge.access_log(1)[0]["error"], "client_gone");
}

#[test]
fn a_request_that_must_not_be_repeated_is_not_when_an_http2_application_answers_nonsense() {
    // DATA on the connection itself: a connection error (RFC 9113 §6.1).
    let (address, heads) = odd_h2c(b"\0\0\x01\0\0\0\0\0\0x");
    let edge = edge_before(address, ", protocol: h2c, retries: 3");
    let answer = post(&mut raw(edge.address(), "iqueue.test"), "ana");
    assert!(answer.starts_with("502 "), "{answer}");
    // RFC 9110 §9.2.2 (pingora#979).
    assert_eq!(heads.load(Ordering::SeqCst), 1, "the POST went out more than once");
}

// A request whose kept connection is closed.

#[test]
fn a_body_is_not_sent_again_once_its_request_may_have_been_received() {
    let recorder = recorder();
    let edge = edge_before(recorder.address, "");
    let (mut faults, mut again) = (Vec::new(), 0);
    let mut logged = logged(&edge);
    for cut in cuts().into_iter().filter(|cut| cut.method == "PUT") {
        assert_eq!(post(&mut raw(edge.address(), "iqueue.test"), "ben"), "200 ben", "{}", cut.name);
        logged();
        let before = recorder.connections();
        // The kept one is closed just when the request comes: the application may have acted on it.
        recorder.close_a_kept_connection();
        let mut ana = Uploader::open(&edge);
        ana.send(&cut, "ana");
        ana.finish();
        logged();
        assert!(!recorder.is_to_close(), "{}: the kept connection was used", cut.name);
        let sent_again = !since(&recorder, &before).is_empty();
        again += usize::from(sent_again);
        let answer = post(&mut raw(edge.address(), "iqueue.test"), "ben");
        logged();
        let came = since(&recorder, &before);
        let whole = if sent_again { verify(&came, &cut.body) } else { Ok(()) };
        if answer != "200 ben" || whole.is_err() {
            faults.push(format!("{}: ben hears {answer}; {whole:?}", cut.name));
        }
    }
    assert!(faults.is_empty(), "{} went wrong:\n{}", faults.len(), faults.join("\n"));
    assert_eq!(again, 0, "some went out again");
}
