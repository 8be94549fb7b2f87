//! Headers as balancers send them, split at every position, and malformed headers.

use super::*;

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [V2, &[command, family, length[0], length[1]], rest].concat()
}

fn inet_bytes() -> Vec<u8> {
    [&[192, 0, 2, 7, 10, 0, 0, 1][..], &51234_u16.to_be_bytes(), &443_u16.to_be_bytes()].concat()
}

fn inet6_bytes() -> Vec<u8> {
    let address = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    [&address("2001:db8::7")[..], &address("2001:db8::1"), &51234_u16.to_be_bytes(), &443_u16.to_be_bytes()].concat()
}

fn client(text: &str) -> Source {
    Source::Client(text.parse().unwrap())
}

/// Well-formed headers, and what they say.
fn good() -> Vec<(Vec<u8>, Source)> {
    let tlv = |kind: u8, value: &[u8]| [&[kind, 0, u8::try_from(value.len()).unwrap()], value].concat();
    let with_tlvs = [inet_bytes(), tlv(1, b"h2"), tlv(2, b"iqueue.test"), tlv(4, b"")].concat();
    let large = [inet6_bytes(), vec![0xea, 0x0f, 0xd9], vec![7; 4057]].concat();
    assert_eq!(large.len(), LONGEST_V2);
    vec![
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 51234 443\r\n".to_vec(), client("192.0.2.7:51234")),
        (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n".to_vec(), client("0.0.0.0:0")),
        (b"PROXY TCP6 2001:db8::7 ::1 65535 443\r\n".to_vec(), client("[2001:db8::7]:65535")),
        (b"PROXY UNKNOWN\r\n".to_vec(), Source::Unspecified),
        (
            b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535 and more of the same to the last byte.\r\n"
                .to_vec(),
            Source::Unspecified,
        ),
        (v2(0x21, 0x11, &inet_bytes()), client("192.0.2.7:51234")),
        (v2(0x21, 0x21, &inet6_bytes()), client("[2001:db8::7]:51234")),
        (v2(0x21, 0x11, &with_tlvs), client("192.0.2.7:51234")),
        (v2(0x21, 0x21, &large), client("[2001:db8::7]:51234")),
        (v2(0x21, 0x31, &[0; 216]), Source::Unspecified),
        (v2(0x21, 0x00, &[]), Source::Unspecified),
        (v2(0x20, 0x00, &[]), Source::Unspecified),
        // LOCAL, followed by bytes that are to be skipped.
        (v2(0x20, 0x11, b"skipped"), Source::Unspecified),
    ]
}

/// Returns the result for bytes that come in pieces of at most `step`, and how many were taken.
fn read(bytes: &[u8], step: usize) -> (Result<Option<Source>, Malformed>, usize) {
    let mut taken = 0;
    loop {
        match parse(&bytes[..taken]) {
            Err(malformed) => return (Err(malformed), taken),
            Ok(Parsed::Complete(source)) => return (Ok(Some(source)), taken),
            Ok(Parsed::Incomplete(more)) => {
                assert!(more > 0, "no progress");
                let there = (bytes.len() - taken).min(more).min(step);
                if there == 0 {
                    return (Ok(None), taken);
                }
                taken += there;
            }
        }
    }
}

#[test]
fn a_header_says_whose_the_connection_is_and_no_byte_after_it_is_taken() {
    for (header, source) in good() {
        let followed = [&header[..], b"\x16\x03\x01 TLS follows"].concat();
        for step in [1, 2, 3, 7, usize::MAX] {
            let shown = String::from_utf8_lossy(&header);
            assert_eq!(read(&followed, step), (Ok(Some(source)), header.len()), "{shown:?} by {step}");
        }
    }
}

#[test]
fn a_header_that_breaks_off_is_no_header() {
    for (header, _) in good() {
        for at in 0..header.len() {
            assert_eq!(read(&header[..at], usize::MAX).0, Ok(None), "{at} bytes of {header:?}");
        }
    }
}

#[test]
fn what_is_no_header_is_malformed() {
    let long = |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length - 16));
    assert_eq!(read(long(107).as_bytes(), 1).0, Ok(Some(Source::Unspecified)));
    let lines = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "proxy TCP4 192.0.2.7 10.0.0.1 51234 443\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 51234 443\n    ",
        "PROXY TCP4 192.0.2.7 10.0.0.1 51234 443\rX",
        "PROXY TCP4 192.0.2.7 10.0.0.1 51234\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 51234 443 1\r\n",
        "PROXY TCP4  192.0.2.7 10.0.0.1 51234 443\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 51234 443 \r\n",
        "PROXY TCP4 192.0.2.07 10.0.0.1 51234 443\r\n",
        "PROXY TCP4 192.0.2 10.0.0.1 51234 443\r\n",
        "PROXY TCP4 ::1 ::1 51234 443\r\n",
        "PROXY TCP6 192.0.2.7 10.0.0.1 51234 443\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 51234 443\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 65536 443\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 051234 443\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 +1234 443\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 -1 443\r\n",
        "PROXY UDP4 192.0.2.7 10.0.0.1 51234 443\r\n",
        "PROXY UNKNOWNS and so on\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 51234 443\u{e9}\r\n",
        &long(108),
        &"PROXY ".repeat(100),
    ];
    let mut headers: Vec<Vec<u8>> = lines.iter().map(|line| line.as_bytes().to_vec()).collect();
    headers.push(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a ClientHello".to_vec());
    headers.push(b"PROXY TCP4 \xff\xfe 10.0.0.1 51234 443\r\n".to_vec());
    // Another signature, version, command, family or protocol.
    let mut signature = v2(0x21, 0x11, &inet_bytes());
    signature[11] = b'\r';
    headers.push(signature);
    for (command, family) in [
        (0x01, 0x11),
        (0x11, 0x11),
        (0x31, 0x11),
        (0x22, 0x11),
        (0x2f, 0x11),
        (0x21, 0x12),
        (0x21, 0x10),
        (0x21, 0x41),
        (0x21, 0x01),
        (0x21, 0x13),
        (0x21, 0xff),
    ] {
        headers.push(v2(command, family, &inet_bytes()));
    }
    // Too short for its addresses, too long, or with TLVs that do not end where it does.
    headers.push(v2(0x21, 0x11, &inet_bytes()[..11]));
    headers.push(v2(0x21, 0x21, &inet6_bytes()[..35]));
    headers.push(v2(0x21, 0x31, &[0; 215]));
    headers.push(v2(0x21, 0x11, &[0; LONGEST_V2 + 1]));
    headers.push(v2(0x20, 0x00, &[0; 65_535]));
    for tlvs in [&[1][..], &[1, 0], &[1, 0, 1], &[1, 255, 255, 0], &[4, 0, 0, 1, 0, 2, 0]] {
        headers.push(v2(0x21, 0x11, &[&inet_bytes(), tlvs].concat()));
    }
    for header in headers {
        for step in [1, 5, usize::MAX] {
            let shown = String::from_utf8_lossy(&header[..header.len().min(120)]).into_owned();
            assert_eq!(read(&header, step).0, Err(Malformed), "{shown:?} by {step}");
        }
    }
}

#[test]
fn a_header_is_refused_as_soon_as_it_is_wrong() {
    assert_eq!(read(b"GET / HTTP/1.1\r\n", 1), (Err(Malformed), 1));
    assert_eq!(read(b"PRO", 1), (Ok(None), 3));
    // The family is wrong, and 4000 bytes are not waited for.
    let header = v2(0x21, 0x12, &[0; 4000]);
    assert_eq!(read(&header, usize::MAX), (Err(Malformed), FIXED_V2));
}

#[test]
fn no_bytes_make_it_panic_or_take_more_than_a_header_may_have() {
    let mut random = fastrand::Rng::with_seed(7);
    let headers = good();
    for round in 0..20_000 {
        // Good headers with some bytes changed, taken out or put in.
        let mut bytes = headers[round % headers.len()].0.clone();
        bytes.truncate(200);
        for _ in 0..random.usize(1..4) {
            let at = random.usize(0..bytes.len());
            match random.u8(0..3) {
                0 => bytes[at] = random.u8(..),
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, random.u8(..)),
            }
        }
        let (_, taken) = read(&bytes, random.usize(1..40));
        assert!(taken <= FIXED_V2 + LONGEST_V2);
    }
}
