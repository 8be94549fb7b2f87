//! The header of the PROXY protocol, versions 1 and 2 (HAProxy, `doc/proxy-protocol.txt`). The parser is pure: it takes
//! the bytes received so far and returns the address of the client that the balancer names. It never requests a byte
//! that may not belong to the header, because TLS follows it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What the bytes received so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// At least so many more bytes belong to the header.
    Incomplete(usize),
    Complete(Source),
}

/// The client of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Client(SocketAddr),
    /// `LOCAL`, `UNKNOWN`, or a family without addresses: the connection is the balancer's own, or the balancer cannot
    /// say whose it is.
    Unspecified,
}

/// The bytes are not a header, or not one for a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// `PROXY UNKNOWN\r\n`.
const SHORTEST_V1: usize = 15;
/// §2.1: "a 108-byte buffer is always enough", with the zero that ends a C string.
const LONGEST_V1: usize = 107;
/// Signature, command, family, length.
const FIXED_V2: usize = 16;
/// Addresses and TLVs. Those with a client's certificate are the largest in use.
const LONGEST_V2: usize = 4096;

/// Parses the header. `bytes` are all bytes received so far, and no more than the last call requested.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let begins = |signature: &[u8]| bytes.iter().zip(signature).all(|(byte, wanted)| byte == wanted);
    if begins(V1) {
        parse_v1(bytes)
    } else if begins(V2) {
        parse_v2(bytes)
    } else {
        Err(Malformed)
    }
}

fn parse_v1(bytes: &[u8]) -> Result<Parsed, Malformed> {
    if bytes.len() < SHORTEST_V1 {
        return Ok(Parsed::Incomplete(SHORTEST_V1 - bytes.len()));
    }
    match bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        // A line end takes two more.
        None if bytes.len() + 2 <= LONGEST_V1 => Ok(Parsed::Incomplete(2)),
        None => Err(Malformed),
        Some(at) => match &bytes[at..] {
            b"\r\n" if bytes.len() <= LONGEST_V1 => source_v1(&bytes[V1.len()..at]).map(Parsed::Complete),
            b"\r" if bytes.len() < LONGEST_V1 => Ok(Parsed::Incomplete(1)),
            _ => Err(Malformed),
        },
    }
}

/// `TCP4 SOURCE DESTINATION PORT PORT`, each after exactly one space; whatever follows `UNKNOWN` is to be ignored.
fn source_v1(line: &[u8]) -> Result<Source, Malformed> {
    let line = std::str::from_utf8(line).map_err(|_| Malformed)?;
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(Source::Unspecified);
    }
    let fields: Vec<&str> = line.split(' ').collect();
    let [family, source, destination, source_port, destination_port] = fields[..] else { return Err(Malformed) };
    let address = |text: &str| -> Result<IpAddr, Malformed> {
        match family {
            "TCP4" => text.parse().map(IpAddr::V4).map_err(|_| Malformed),
            "TCP6" => text.parse().map(IpAddr::V6).map_err(|_| Malformed),
            _ => Err(Malformed),
        }
    };
    let (source, _) = (address(source)?, address(destination)?);
    let (port, _) = (port(source_port)?, port(destination_port)?);
    Ok(Source::Client(SocketAddr::new(source, port)))
}

/// Digits alone, and no zero before them: one spelling for each port.
fn port(text: &str) -> Result<u16, Malformed> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).ok_or(Malformed)
}

fn parse_v2(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_V2>() else {
        // The shortest header of either version: which one it is may not be known yet.
        let shortest = if bytes.is_empty() { SHORTEST_V1 } else { FIXED_V2 };
        return Ok(Parsed::Incomplete(shortest - bytes.len()));
    };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST_V2 || rest.len() > length {
        return Err(Malformed);
    }
    // A header that is already wrong is refused without waiting for the rest of it.
    let kind = kind_v2(command, family, length)?;
    if rest.len() < length {
        return Ok(Parsed::Incomplete(length - rest.len()));
    }
    let (addresses, tlvs) = rest.split_at(kind.addresses());
    // §2.2: what comes after LOCAL's fixed part is to be skipped.
    if kind != Kind::Local {
        check_tlvs(tlvs)?;
    }
    Ok(Parsed::Complete(match kind {
        Kind::Inet => Source::Client(inet(addresses).ok_or(Malformed)?),
        Kind::Inet6 => Source::Client(inet6(addresses).ok_or(Malformed)?),
        Kind::Local | Kind::Unspecified | Kind::Unix => Source::Unspecified,
    }))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Local,
    Unspecified,
    Inet,
    Inet6,
    Unix,
}

impl Kind {
    /// Bytes of both addresses and ports.
    fn addresses(self) -> usize {
        match self {
            Self::Local | Self::Unspecified => 0,
            Self::Inet => 12,
            Self::Inet6 => 36,
            Self::Unix => 216,
        }
    }
}

fn kind_v2(command: u8, family: u8, length: usize) -> Result<Kind, Malformed> {
    let kind = match (command, family) {
        (0x20, _) => Kind::Local,
        (0x21, 0x00) => Kind::Unspecified,
        (0x21, 0x11) => Kind::Inet,
        (0x21, 0x21) => Kind::Inet6,
        (0x21, 0x31) => Kind::Unix,
        // Other versions and commands, datagrams (which do not come over TCP), and undefined values.
        _ => return Err(Malformed),
    };
    if length < kind.addresses() { Err(Malformed) } else { Ok(kind) }
}

fn inet(addresses: &[u8]) -> Option<SocketAddr> {
    let (source, rest) = addresses.split_first_chunk::<4>()?;
    Some(SocketAddr::new(Ipv4Addr::from(*source).into(), u16::from_be_bytes(*rest.get(4..)?.first_chunk()?)))
}

fn inet6(addresses: &[u8]) -> Option<SocketAddr> {
    let (source, rest) = addresses.split_first_chunk::<16>()?;
    Some(SocketAddr::new(Ipv6Addr::from(*source).into(), u16::from_be_bytes(*rest.get(16..)?.first_chunk()?)))
}

/// Type, length, value, to the end. None of them is of use here.
fn check_tlvs(mut tlvs: &[u8]) -> Result<(), Malformed> {
    while !tlvs.is_empty() {
        let (head, rest) = tlvs.split_first_chunk::<3>().ok_or(Malformed)?;
        let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
        tlvs = rest.get(length..).ok_or(Malformed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
