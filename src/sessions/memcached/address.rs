//! The address of a memcached server, checked when the configuration is read. No name is resolved here.

use std::net::Ipv6Addr;

/// Parsed from `host:port`, `[ipv6]:port` or `unix:///path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host name or an address. A name is resolved for each connection.
    Tcp { host: String, port: u16 },
    /// An absolute path.
    Unix(String),
}

/// An address of a server that cannot be used, found when the configuration is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidAddress {
    server: String,
    fault: &'static str,
}

impl Address {
    pub fn parse(text: &str) -> Result<Self, InvalidAddress> {
        match text.strip_prefix("unix://") {
            Some(path) => Self::unix(text, path),
            None => Self::tcp(text),
        }
    }

    fn unix(text: &str, path: &str) -> Result<Self, InvalidAddress> {
        if !path.starts_with('/') {
            return Err(InvalidAddress::new(text, "a socket needs an absolute path: unix:///run/memcached.sock"));
        }
        // async-memcached takes the path out of a URL without decoding it, so only a path that a URL does not encode works.
        let is_unchanged = url::Url::parse(text).is_ok_and(|url| url.path() == path);
        if !is_unchanged {
            return Err(InvalidAddress::new(
                text,
                "the socket's path may hold letters, digits, `/`, `-`, `_` and `.` only",
            ));
        }
        Ok(Self::Unix(path.to_owned()))
    }

    fn tcp(text: &str) -> Result<Self, InvalidAddress> {
        let wanted = || InvalidAddress::new(text, "write host:port, [ipv6]:port or unix:///path");
        let (host, port) = text.rsplit_once(':').ok_or_else(wanted)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wanted)?;
        if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            let address: Ipv6Addr = inner.parse().map_err(|_| wanted())?;
            return Ok(Self::Tcp { host: address.to_string(), port });
        }
        let plausible = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if host.is_empty() || !host.bytes().all(plausible) {
            return Err(wanted());
        }
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

impl InvalidAddress {
    fn new(server: &str, fault: &'static str) -> Self {
        Self { server: server.to_owned(), fault }
    }
}

impl std::fmt::Display for InvalidAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} cannot be used as a memcached server: {}", self.server, self.fault)
    }
}

impl std::error::Error for InvalidAddress {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_host_with_a_port_or_a_socket() {
        let tcp = |host: &str, port| Ok(Address::Tcp { host: host.to_owned(), port });
        assert_eq!(Address::parse("10.0.0.1:11211"), tcp("10.0.0.1", 11211));
        assert_eq!(Address::parse("cache-1.internal:22"), tcp("cache-1.internal", 22));
        assert_eq!(Address::parse("[::1]:11211"), tcp("::1", 11211));
        assert_eq!(Address::parse("[2001:DB8:0::1]:1"), tcp("2001:db8::1", 1));
        assert_eq!(Address::parse("unix:///run/memcached.sock"), Ok(Address::Unix("/run/memcached.sock".into())));
    }

    #[test]
    fn what_cannot_work_is_refused_with_a_reason() {
        for bad in [
            "",
            "10.0.0.1",
            ":11211",
            "host:",
            "host:0",
            "::1",
            "2001:db8::1:11211",
            "[::1]",
            "[localhost]:11211",
            "[127.0.0.1]:11211",
            "host:65536",
            "tcp://host:11211",
            "a b:1",
            "unix://run/x",
            "unix:///run/mem cached",
            "unix:///run/../x",
            "unix:///run/é",
            "host:11211\r\n",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }
}
