//! What the gateway and the stream below Pingora tell each other of a client's connection.
//!
//! Pingora reads heads from a stream that knows nothing of HTTP, and tells nobody that it is waiting for one. So the
//! gateway says where a head is due and where it has been read, and the stream holds the deadline in between. It
//! travels as user data of Pingora's proxy digest, which nothing else uses towards clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};

use http::StatusCode;
use pingora::Result;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_http::ResponseHeader;

use crate::host::{Host, HostPattern};

/// One client connection, shared by its stream and its requests. A new one has its first head due.
#[derive(Debug, Default)]
pub struct Connection {
    reading: AtomicU8,
    /// Over HTTP/1: bytes that Pingora was given and that no request accounts for.
    unaccounted: AtomicI64,
    /// Since a request that did not say how long it is.
    lost_count: AtomicBool,
    /// What the client was shown over TLS.
    shown: Option<Shown>,
    /// From a balancer that did not say for whom: nothing that is said on it of its origin is believed.
    pub is_anonymous: bool,
}

#[derive(Debug)]
struct Shown {
    /// Which the client asked for, and which the certificate covers therefore.
    server_name: Box<str>,
    /// All that the certificate covers.
    names: Arc<[HostPattern]>,
}

/// What the next bytes from the client belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reading {
    /// A head, whose deadline runs.
    Head = 0,
    /// A head that may begin at any time: the connection is idle, and the deadline begins with the first byte.
    Between = 1,
    /// A body, or what follows an upgrade; or an HTTP/2 connection that has asked for something.
    Past = 2,
}

impl Connection {
    /// One over TLS, whose client asked for this name and was shown a certificate for these.
    pub fn shown(server_name: &str, names: Option<Arc<[HostPattern]>>) -> Self {
        let names = names.unwrap_or_default();
        Self { shown: Some(Shown { server_name: server_name.into(), names }), ..Self::default() }
    }

    /// Whether the certificate that the client was shown covers a host. Without TLS none was needed.
    pub fn covers(&self, host: &Host) -> bool {
        self.shown.as_ref().is_none_or(|shown| {
            *shown.server_name == *host.as_str() || shown.names.iter().any(|name| name.matches(host))
        })
    }

    pub fn reading(&self) -> Reading {
        match self.reading.load(Ordering::Relaxed) {
            0 => Reading::Head,
            1 => Reading::Between,
            _ => Reading::Past,
        }
    }

    /// The first byte of a head has come.
    pub fn head_begins(&self) {
        self.set(Reading::Head);
    }

    /// A request's head is there: so many bytes, body included. `None` where that cannot be told.
    pub fn head_read(&self, request: Option<u64>) {
        self.set(Reading::Past);
        match request.map(i64::try_from) {
            Some(Ok(bytes)) => drop(self.unaccounted.fetch_sub(bytes, Ordering::Relaxed)),
            _ => self.lost_count.store(true, Ordering::Relaxed),
        }
    }

    pub fn bytes_came(&self, bytes: usize) {
        // More than fit do not come in one read.
        self.unaccounted.fetch_add(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// After a request whose body was read: whether nothing of the next one came with it.
    pub fn all_is_read(&self) -> bool {
        !self.lost_count.load(Ordering::Relaxed) && self.unaccounted.load(Ordering::Relaxed) == 0
    }

    /// The request is over and another may come. The first head of a connection is due without that.
    pub fn head_may_come(&self) {
        if self.reading() == Reading::Past {
            self.set(Reading::Between);
        }
    }

    fn set(&self, reading: Reading) {
        self.reading.store(reading as u8, Ordering::Relaxed);
    }

    /// For a stream to carry. Pingora wants a response in it, which nobody reads.
    pub fn digest(self: &Arc<Self>) -> Result<Arc<ProxyDigest>> {
        let response = ResponseHeader::build_no_case(StatusCode::OK, Some(0))?;
        Ok(Arc::new(ProxyDigest::new(Box::new(response), Some(Box::new(Arc::clone(self))))))
    }

    /// The connection that a request came on; `None` where the stream is not one of ours.
    pub fn of(session: &ServerSession) -> Option<&Arc<Self>> {
        session.digest()?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_head_is_due_at_once_and_later_ones_when_they_begin() {
        let connection = Connection::default();
        connection.head_may_come();
        assert_eq!(connection.reading(), Reading::Head);
        connection.head_read(Some(0));
        assert_eq!(connection.reading(), Reading::Past);
        connection.head_may_come();
        assert_eq!(connection.reading(), Reading::Between);
        connection.head_begins();
        assert_eq!(connection.reading(), Reading::Head);
    }

    #[test]
    fn all_is_read_when_requests_account_for_what_came() {
        let connection = Connection::default();
        connection.bytes_came(100);
        connection.head_read(Some(100));
        assert!(connection.all_is_read());
        connection.bytes_came(130);
        connection.head_read(Some(100));
        assert!(!connection.all_is_read(), "30 bytes are the next request's");
        connection.head_read(Some(30));
        assert!(connection.all_is_read());
        connection.bytes_came(50);
        connection.head_read(None);
        connection.bytes_came(50);
        connection.head_read(Some(50));
        assert!(!connection.all_is_read(), "once it is not known, it never is again");
    }

    #[test]
    fn a_certificate_covers_what_it_names_and_plain_http_everything() {
        let names: Arc<[HostPattern]> = [HostPattern::parse("*.a.test").unwrap()].into();
        let connection = Connection::shown("x.a.test", Some(names));
        let covers = |host: &str| connection.covers(&Host::parse(host).unwrap());
        assert!(covers("x.a.test") && covers("y.a.test"));
        assert!(!covers("a.test") && !covers("b.test") && !covers("z.y.a.test"));
        assert!(Connection::default().covers(&Host::parse("b.test").unwrap()));
    }

    #[test]
    fn a_digest_leads_back_to_its_connection() {
        let connection = Arc::new(Connection::default());
        let digest = connection.digest().unwrap();
        let found: &Arc<Connection> = digest.user_data.as_ref().unwrap().downcast_ref().unwrap();
        assert!(Arc::ptr_eq(found, &connection));
    }
}
