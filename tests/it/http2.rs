//! HTTP/2 from clients that mean no good: floods, bombs, and peers that take their time. Each attack is on one connection;
//! it is ended, it costs little, and others are served meanwhile.

use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;

use crate::harness::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    Wire, frame, head,
};
use crate::harness::{Bystander, DEADLINE, Edge, Origin, comes_to, edge, eventually, origin};

/// What an attack may make the edge grow by.
const MOST_GROWTH: u64 = 64 << 20;

/// A public service, so that nobody has to sign in.
fn open_service(origin: &Origin) -> crate::harness::edge::Builder {
    edge().service_with("iqueue", origin, "access: public")
}

fn limits_reached(edge: &Edge, limit: &str) -> f64 {
    edge.metric("sentry_edge_limits_reached_total", &format!("limit=\"{limit}\""))
}

/// Runs an attack on an edge in a process of its own. It is to end with the connection closed.
fn attack(attack: impl FnOnce(&mut Wire)) {
    let iqueue = origin("iqueue");
    let daemon = open_service(&iqueue).run();
    let bystander = Bystander::of(daemon.address);
    let before = daemon.process.memory("VmRSS");
    let mut wire = Wire::open(daemon.address, "iqueue.test", &[]);
    // A connection that has asked for something, and so may stay.
    assert!(wire.ask(1, END_STREAM, "GET", &[]));
    eventually("it is answered", || wire.heard().is_over(1));
    attack(&mut wire);
    wire.is_closed_by_the_edge();
    bystander.was_served();
    let grown = daemon.process.memory("VmHWM").saturating_sub(before);
    println!("the process grew by {} KiB", grown >> 10);
    assert!(grown < MOST_GROWTH);
}

/// Sends a frame over and over, until the edge has had enough.
fn flood(wire: &mut Wire, most: usize, frame: &[u8]) {
    let batch = frame.repeat(500);
    for _ in 0..most / 500 {
        if !wire.send(&batch) {
            return;
        }
    }
}

// Attacks.

#[test]
fn streams_that_are_opened_and_reset_end_the_connection() {
    attack(|wire| {
        for stream in (3..2_000).step_by(2) {
            let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
            let asked = frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("GET", "iqueue.test", &[]));
            if !wire.send([asked, reset].concat()) {
                return;
            }
        }
    });
}

#[test]
fn streams_that_are_reset_one_by_one_end_the_connection_too() {
    attack(|wire| {
        for stream in (3..10_000).step_by(2) {
            wire.ask(stream, END_STREAM, "GET", &[]);
            // The edge has time to begin with each.
            std::thread::sleep(Duration::from_micros(200));
            if !wire.send(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())) {
                return;
            }
        }
    });
}

#[test]
fn a_head_that_goes_on_for_ever_ends_the_connection() {
    attack(|wire| {
        wire.send(frame(HEADERS, 0, 3, &head("GET", "iqueue.test", &[])));
        // A field written out, of 14 bytes: 10 MiB of them.
        let fields = [&[0, 4][..], b"fuzz", &[7], b"1234567"].concat().repeat(1000);
        flood(wire, 1000, &frame(CONTINUATION, 0, 3, &fields));
    });
}

#[test]
fn empty_pieces_of_a_head_end_the_connection() {
    attack(|wire| {
        wire.send(frame(HEADERS, 0, 3, &head("GET", "iqueue.test", &[])));
        flood(wire, 1_000_000, &frame(CONTINUATION, 0, 3, b""));
    });
}

#[test]
fn heads_that_unfold_to_many_times_their_size_cost_little() {
    let iqueue = origin("iqueue");
    let daemon = open_service(&iqueue).run();
    let bystander = Bystander::of(daemon.address);
    let before = daemon.process.memory("VmRSS");
    // No byte of an answer is taken, so that whatever is held is held on to.
    let mut wire = Wire::open(daemon.address, "iqueue.test", &[(4, 0)]);
    for at in 0..100 {
        let stream = 2 * at + 1;
        // Into the table, once, and then a byte each for what stands there.
        let mut block = head("GET", "iqueue.test", &[]);
        block.extend([0x40, 1, b'a', 0]);
        block.extend(vec![0xbe; 32_000]);
        let (first, rest) = block.split_at(16_000);
        let (second, third) = rest.split_at(16_000);
        wire.send(frame(HEADERS, END_STREAM, stream, first));
        wire.send(frame(CONTINUATION, 0, stream, second));
        wire.send(frame(CONTINUATION, END_HEADERS, stream, third));
    }
    eventually("each is refused", || {
        let heard = wire.heard();
        heard.closed || (0..100).all(|at| heard.is_over(2 * at + 1) || heard.is_answered(2 * at + 1))
    });
    assert_eq!(iqueue.seen().iter().filter(|seen| seen.headers.contains_key("a")).count(), 0, "none is forwarded");
    bystander.was_served();
    let grown = daemon.process.memory("VmHWM").saturating_sub(before);
    println!("the process grew by {} KiB", grown >> 10);
    assert!(grown < MOST_GROWTH);
}

#[test]
fn a_huge_value_in_huffmans_code_ends_the_connection() {
    attack(|wire| {
        // `0` takes five bits: 6.5 MiB of nothing are 10 MiB of them. The length is HPACK's, 7 bits and then the rest.
        let length = (65 << 20) / 10_usize;
        let mut field = vec![0, 1, b'a', 0xff];
        let mut rest = length - 127;
        while rest >= 128 {
            field.push((rest % 128) as u8 | 0x80);
            rest /= 128;
        }
        field.push(rest as u8);
        wire.send(frame(HEADERS, 0, 3, &[head("GET", "iqueue.test", &[]), field].concat()));
        let piece = frame(CONTINUATION, 0, 3, &[0; 16_000]);
        for _ in 0..length / 16_000 {
            if !wire.send(&piece) {
                return;
            }
        }
        wire.send(frame(CONTINUATION, END_HEADERS, 3, &vec![0; length % 16_000]));
    });
}

#[test]
fn data_without_a_byte_ends_the_connection() {
    attack(|wire| {
        wire.ask(3, 0, "POST", &[]);
        flood(wire, 1_000_000, &frame(DATA, 0, 3, b""));
    });
    attack(|wire| {
        wire.ask(3, 0, "POST", &[]);
        // One byte, which says that there is no padding.
        flood(wire, 1_000_000, &frame(DATA, 0x8, 3, &[0]));
    });
}

#[test]
fn pings_without_end_end_the_connection() {
    attack(|wire| flood(wire, 1_000_000, &frame(PING, 0, 0, &[7; 8])));
}

#[test]
fn settings_without_end_end_the_connection() {
    attack(|wire| flood(wire, 1_000_000, &frame(SETTINGS, 0, 0, &[])));
    attack(|wire| flood(wire, 1_000_000, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff].repeat(100))));
}

#[test]
fn priorities_without_end_end_the_connection() {
    attack(|wire| flood(wire, 1_000_000, &frame(PRIORITY, 0, 3, &[0, 0, 0, 5, 1])));
}

#[test]
fn windows_that_are_opened_without_end_end_the_connection() {
    attack(|wire| flood(wire, 1_000_000, &frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())));
}

#[test]
fn what_ends_a_flood_is_counted() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).start();
    let mut wire = Wire::open(edge.address(), "iqueue.test", &[]);
    flood(&mut wire, 100_000, &frame(PING, 0, 0, &[7; 8]));
    wire.is_closed_by_the_edge();
    comes_to("http2_flood", 1.0, || limits_reached(&edge, "http2_flood"));
}

#[test]
fn a_client_that_pings_for_each_small_message_is_let_be() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).start();
    let mut wire = Wire::open(edge.address(), "iqueue.test", &[]);
    // As grpc-go does, one at a time: far fewer than a KiB travels with each.
    for at in 0..3_000_u64 {
        assert!(wire.send(frame(PING, 0, 0, &at.to_be_bytes())), "closed at {at}");
    }
    wire.ask(1, END_STREAM, "GET", &[]);
    assert_eq!(limits_reached(&edge, "http2_flood"), 0.0);
}

#[test]
fn a_client_that_pings_now_and_then_is_let_be() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).start();
    let mut wire = Wire::open(edge.address(), "iqueue.test", &[]);
    for at in 0..500 {
        assert!(wire.send(frame(PING, 0, 0, &[7; 8])));
        assert!(wire.ask(2 * at + 1, END_STREAM, "GET", &[]));
        eventually("it is answered", || wire.heard().is_over(2 * at + 1));
    }
    assert_eq!(wire.heard().all(PING).count(), 500);
    assert!(!wire.is_closed());
}

// Peers that take their time.

#[test]
fn no_more_streams_are_open_at_once_than_were_agreed_on() {
    let iqueue = Origin::held();
    let edge = open_service(&iqueue).start();
    let mut wire = Wire::open(edge.address(), "iqueue.test", &[]);
    for at in 0..120 {
        assert!(wire.ask(2 * at + 1, END_STREAM, "GET", &[]));
    }
    eventually("the rest is refused", || wire.heard().all(RST_STREAM).count() >= 20);
    eventually("the others are at the application", || iqueue.count() == 100);
    let heard = wire.heard();
    assert_eq!((heard.setting(3), heard.all(RST_STREAM).count()), (Some(100), 20));
    iqueue.release();
    eventually("and are answered", || wire.heard().all(HEADERS).count() == 100);
}

#[test]
fn an_upload_may_run_ahead_of_the_edge() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).start();
    let mut wire = Wire::open(edge.address(), "iqueue.test", &[]);
    eventually("it says how far", || wire.heard().setting(4).is_some() && wire.heard().all(WINDOW_UPDATE).count() > 0);
    assert_eq!(wire.heard().setting(4), Some(512 << 10));
    // In all, beside the 64 KiB that every connection begins with.
    let granted = |wire: &Wire| {
        let heard = wire.heard();
        let updates = heard.all(WINDOW_UPDATE).filter(|(stream, _)| *stream == 0);
        updates.map(|(_, by)| u32::from_be_bytes(by.try_into().unwrap())).sum::<u32>() + 65_535
    };
    assert_eq!(granted(&wire), 128 << 10);
    // From here on it holds for streams as well.
    assert!(wire.send(frame(SETTINGS, ACK, 0, &[])));
    assert!(wire.ask(1, 0, "POST", &[]));
    let pieces = |wire: &mut Wire, count| {
        for _ in 0..count {
            assert!(wire.send(frame(DATA, 0, 1, &[b'x'; 16_384])));
        }
    };
    pieces(&mut wire, 4);
    eventually("the application takes it, and so there may be more", || granted(&wire) >= 1 << 20);
    pieces(&mut wire, 28);
    assert!(wire.send(frame(DATA, END_STREAM, 1, b"")));
    eventually("it is answered", || wire.heard().is_over(1));
    assert_eq!(iqueue.last().body.len(), 512 << 10);
}

#[test]
fn a_body_that_stops_is_not_waited_for() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).pool("iqueue", &patient(&iqueue)).server("timeouts: {read: 400ms}").start();
    for length in [&[][..], &[("content-length", "100")]] {
        let mut wire = Wire::open(edge.address(), "iqueue.test", &[]);
        assert!(wire.ask(1, 0, "POST", length));
        assert!(wire.send(frame(DATA, 0, 1, b"half")));
        eventually("it is reset", || wire.heard().was_reset(1));
        assert!(wire.ask(3, END_STREAM, "GET", &[]));
        eventually("the connection is good for others", || wire.heard().is_over(3));
    }
    let lines = edge.access_log(4);
    let errors: Vec<_> = lines.iter().filter(|line| line["method"] == "POST").map(|line| &line["error"]).collect();
    assert_eq!(errors, ["client_timeout"; 2]);
    assert_eq!(lines.iter().filter(|line| line["status"] == 499).count(), 2);
    assert!(!got_a_body(&iqueue), "no application got a part for the whole");
}

/// Whether an application took what it got of a body for the whole of it.
fn got_a_body(origin: &Origin) -> bool {
    origin.seen().iter().any(|request| !request.body.is_empty())
}

/// A pool whose application has more time than the client.
fn patient(origin: &Origin) -> String {
    format!("{{servers: [\"{}\"], timeouts: {{read: 1h, write: 100ms}}}}", origin.address)
}

#[test]
fn a_body_that_comes_slowly_but_surely_is_taken() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).pool("iqueue", &patient(&iqueue)).server("timeouts: {read: 2s}").start();
    let mut wire = Wire::open(edge.address(), "iqueue.test", &[]);
    assert!(wire.ask(1, 0, "POST", &[]));
    for _ in 0..12 {
        assert!(wire.send(frame(DATA, 0, 1, &[b'x'; 1000])));
        std::thread::sleep(Duration::from_millis(250));
    }
    assert!(wire.send(frame(DATA, END_STREAM, 1, b"")));
    eventually("it is answered", || wire.heard().is_over(1));
    assert!(!wire.heard().was_reset(1));
    assert_eq!(iqueue.last().body.len(), 12_000);
}

#[test]
fn an_application_that_waits_for_the_clients_body_is_not_to_blame() {
    let iqueue = origin("iqueue");
    let pool = format!("{{servers: [\"{}\"], timeouts: {{read: 400ms}}}}", iqueue.address);
    let edge = open_service(&iqueue).pool("iqueue", &pool).start();
    let mut wire = Wire::open(edge.address(), "iqueue.test", &[]);
    assert!(wire.ask(1, 0, "POST", &[]));
    assert!(wire.send(frame(DATA, 0, 1, b"half")));
    eventually("it is answered", || wire.heard().is_answered(1));
    let line = &edge.access_log(1)[0];
    assert_eq!((&line["status"], &line["error"]), (&408.into(), &"client_timeout".into()));
    assert_eq!(edge.metric_sum("sentry_edge_upstream_requests_total"), 0.0, "the server has failed nobody");
}

#[test]
fn a_body_that_drips_is_refused_with_a_length_and_without() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).server("limits: {min_body_rate: 100KiB}, timeouts: {read: 300ms}").start();
    for (at, length) in [&[][..], &[("content-length", "1000000")]].into_iter().enumerate() {
        let mut wire = Wire::open(edge.address(), "iqueue.test", &[]);
        assert!(wire.ask(1, 0, "POST", length));
        let stop = Instant::now() + DEADLINE;
        while !wire.heard().is_answered(1) {
            assert!(wire.send(frame(DATA, 0, 1, b"x")));
            assert!(Instant::now() < stop, "it may drip for ever");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(edge.access_log(at + 1)[at]["status"], 408);
    }
    comes_to("body_rate", 2.0, || limits_reached(&edge, "body_rate"));
    assert!(!got_a_body(&iqueue));
}

#[test]
fn a_later_head_has_a_deadline_while_other_streams_go_on() {
    let iqueue = Origin::held();
    let edge = open_service(&iqueue).server("limits: {header_timeout: 1s}").start();
    let mut wire = Wire::open(edge.address(), "iqueue.test", &[]);
    assert!(wire.ask(1, END_STREAM, "GET", &[]));
    eventually("the first is at the application", || iqueue.count() == 1);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!wire.is_closed(), "a request may take longer than a head");
    wire.send(frame(HEADERS, 0, 3, &head("GET", "iqueue.test", &[])));
    // As much as a frame may hold, of which a byte comes now and then.
    wire.send(&frame(CONTINUATION, 0, 3, &[0; 16_000])[..9]);
    let stop = Instant::now() + DEADLINE;
    while !wire.is_closed() {
        wire.send([0]);
        assert!(Instant::now() < stop, "it may drip for ever");
        std::thread::sleep(Duration::from_millis(40));
    }
    comes_to("header_timeout", 1.0, || limits_reached(&edge, "header_timeout"));
}

/// An application with a response that no kernel keeps for a client.
fn large() -> Origin {
    Origin::answering(|_| hyper::Response::new(Full::new(Bytes::from(vec![b'x'; 10 << 20]))))
}

#[test]
fn a_response_that_is_not_taken_is_cut_off() {
    let large = large();
    let edge = open_service(&large).server("timeouts: {write: 500ms}").start();
    // A window that is never opened again, of nothing and of a little.
    for window in [0, 1000] {
        let mut wire = Wire::open(edge.address(), "iqueue.test", &[(4, window)]);
        assert!(wire.ask(1, END_STREAM, "GET", &[]));
        eventually("it is reset", || wire.heard().was_reset(1));
        assert_eq!(wire.heard().data_bytes, window as usize);
    }
}

#[test]
fn a_response_that_is_taken_byte_by_byte_is_cut_off() {
    let large = large();
    let edge = open_service(&large).server("timeouts: {write: 500ms}").start();
    let mut wire = Wire::open(edge.address(), "iqueue.test", &[(4, 1)]);
    assert!(wire.ask(1, END_STREAM, "GET", &[]));
    let stop = Instant::now() + DEADLINE;
    while !wire.heard().was_reset(1) {
        wire.send(frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes()));
        assert!(Instant::now() < stop, "it may take it for ever");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(wire.heard().data_bytes < 10 << 20);
}
