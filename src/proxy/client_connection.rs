//! The state of a client connection that the gateway and the stream below Pingora share.
//!
//! Pingora reads heads from a stream that knows nothing of HTTP, and does not signal that it is waiting for one. So the
//! gateway sets whether a head is expected or was read, and the stream holds the deadline in between. The state
//! travels as user data of Pingora's proxy digest, which nothing else uses towards clients.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use http::{HeaderValue, StatusCode};
use pingora::Result;
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_http::ResponseHeader;
use tokio::sync::Notify;

use super::downstream::h2_stream::RequestStream;
use super::headers;
use super::idle_state::IdleTracker;
use crate::buffers::Account;
use crate::host::{Host, HostPattern};
use crate::tls::{ClientCertificate, NegotiatedTls, Policy};
use crate::upstream::Owner;
use crate::validate::Malformed;

/// So much of request bodies is passed on before a client may run further ahead.
const RECEIVES: usize = 64 << 10;

/// One client connection, shared by its stream and its requests. A new one has its first head due.
#[derive(Debug, Default)]
pub struct ClientConnection {
    read_state: AtomicU8,
    /// The certificate and the negotiated parameters of a TLS connection.
    tls: Option<PresentedTls>,
    /// The connection comes from a balancer that speaks the PROXY protocol: forwarding fields of its requests are not
    /// trusted.
    pub is_introduced: bool,
    /// The listener's port as clients see it, where the configuration names one.
    pub public_port: Option<u16>,
    /// Why the bytes of this connection are refused; nothing is served on it from then on.
    refused: OnceLock<Malformed>,
    /// Whether the connection is idle, for the listener's connection limit.
    pub idle_tracker: Arc<IdleTracker>,
    /// The peer's address as the value of forwarding fields.
    forwarded_for_value: OnceLock<HeaderValue>,
    /// The owner of upstream connections that only requests on this connection may use; see `upstream::connection_auth`.
    owner: OnceLock<Owner>,
    /// Whether a request came that authenticates the connection that it goes out on.
    authenticated: AtomicBool,
    /// The account of the memory that the client's requests take; connections of operators have none.
    pub account: Option<Arc<Account>>,
    /// Bytes of responses that the client has taken: over HTTP/2 those of DATA frames.
    sent: AtomicU64,
    /// What Pingora reads ahead of the present response, over HTTP/1.
    ahead: AtomicUsize,
    /// Bytes of request bodies that applications have taken, over HTTP/2.
    received: AtomicUsize,
    /// The client may run further ahead with its bodies.
    receives: Notify,
    /// Why the fast path declined the present request, over HTTP/1, while decisions are logged.
    declined: Mutex<Option<&'static str>>,
}

#[derive(Debug)]
struct PresentedTls {
    /// The server name (SNI) of the client, which the certificate covers therefore.
    server_name: Box<str>,
    /// All that the certificate covers.
    names: Arc<[HostPattern]>,
    agreed: NegotiatedTls,
}

/// Why a request has to come on another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misdirected {
    /// The certificate that the client was shown is not good for the host.
    Certificate,
    /// The host requires a later TLS version, or a client certificate that was not requested on this connection.
    Policy,
}

/// What the next bytes from the client belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ReadState {
    /// A head, whose deadline runs.
    Head = 0,
    /// A head that may begin at any time: the connection is idle, and the deadline begins with the first byte.
    Idle = 1,
    /// A body, or nothing before there is a response; or an HTTP/2 connection with a request.
    Body = 2,
    /// What follows an upgrade.
    Upgraded = 3,
}

impl ClientConnection {
    /// Creates the state of a TLS connection whose client sent this server name and got a certificate for these names.
    pub fn with_tls(server_name: &str, names: Option<Arc<[HostPattern]>>, agreed: NegotiatedTls) -> Self {
        let names = names.unwrap_or_default();
        Self { tls: Some(PresentedTls { server_name: server_name.into(), names, agreed }), ..Self::default() }
    }

    /// Whether a request for a host with this policy may use this connection: the certificate that was sent to the client
    /// covers the host, and the negotiated TLS parameters satisfy the policy. Without TLS there is no requirement.
    pub fn serves(&self, host: &Host, policy: &Policy) -> Result<(), Misdirected> {
        let Some(tls) = &self.tls else { return Ok(()) };
        let covered = *tls.server_name == *host.as_str() || tls.names.iter().any(|name| name.matches(host));
        match covered {
            false => Err(Misdirected::Certificate),
            true if !policy.admits(&tls.agreed) => Err(Misdirected::Policy),
            true => Ok(()),
        }
    }

    /// Returns the client's certificate, if it presented one.
    pub fn client_certificate(&self) -> Option<&Arc<ClientCertificate>> {
        self.tls.as_ref()?.agreed.certificate.as_ref()
    }

    /// Returns the peer's address as a field value, formatted once for each connection.
    pub fn forwarded_for_value(&self, peer: IpAddr) -> Result<HeaderValue> {
        if let Some(value) = self.forwarded_for_value.get() {
            return Ok(value.clone());
        }
        let value = headers::address(peer)?;
        Ok(self.forwarded_for_value.get_or_init(|| value).clone())
    }

    pub fn owner(&self) -> Owner {
        *self.owner.get_or_init(Owner::unique)
    }

    pub fn authenticates(&self) {
        self.authenticated.store(true, Ordering::Relaxed);
    }

    pub fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::Relaxed)
    }

    /// Counts bytes of responses that the client has accepted.
    pub fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn bytes_sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Sets how much of the current response may be buffered while the client accepts nothing, over HTTP/1.
    pub fn reads_ahead(&self, bytes: usize) {
        self.ahead.store(bytes, Ordering::Relaxed);
    }

    pub fn bytes_ahead(&self) -> usize {
        self.ahead.load(Ordering::Relaxed)
    }

    /// Counts bytes of a request body that were passed on, over HTTP/2.
    pub fn received(&self, bytes: usize) {
        let before = self.received.fetch_add(bytes, Ordering::Relaxed);
        if before / RECEIVES != (before + bytes) / RECEIVES {
            self.receives.notify_one();
        }
    }

    /// Is ready when applications have accepted another `RECEIVES` bytes of bodies.
    pub async fn receives(&self) {
        self.receives.notified().await;
    }

    /// Notes for the full path why the fast path declined a request, which has no id yet.
    pub fn declined(&self, reason: &'static str) {
        *self.declined.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    pub fn take_declined(&self) -> Option<&'static str> {
        self.declined.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub fn read_state(&self) -> ReadState {
        match self.read_state.load(Ordering::Relaxed) {
            0 => ReadState::Head,
            1 => ReadState::Idle,
            2 => ReadState::Body,
            _ => ReadState::Upgraded,
        }
    }

    /// The first byte of a head has come.
    pub fn head_begins(&self) {
        self.set(ReadState::Head);
    }

    /// A request's head is there.
    pub fn head_read(&self) {
        self.set(ReadState::Body);
    }

    /// The request is over and another may come. The first head of a connection is due without that.
    pub fn head_may_come(&self) {
        self.reads_ahead(0);
        if self.read_state() == ReadState::Body {
            self.set(ReadState::Idle);
        }
    }

    /// The application has accepted an upgrade: all following bytes belong to it.
    pub fn set_upgraded(&self) {
        self.set(ReadState::Upgraded);
    }

    /// Refuses the connection's bytes. The first reason stays.
    pub fn refuse(&self, malformed: Malformed) {
        self.refused.get_or_init(|| malformed);
    }

    pub fn refused(&self) -> Option<Malformed> {
        self.refused.get().copied()
    }

    fn set(&self, read_state: ReadState) {
        self.read_state.store(read_state as u8, Ordering::Relaxed);
    }

    /// Returns the digest for the stream to carry. Pingora requires a response in it, which is not read.
    pub fn digest(self: &Arc<Self>) -> Result<Arc<ProxyDigest>> {
        let response = ResponseHeader::build_no_case(StatusCode::OK, Some(0))?;
        Ok(Arc::new(ProxyDigest::new(Box::new(response), Some(Box::new(Arc::clone(self))))))
    }

    /// The connection that a request came on; `None` where the stream is not one of ours.
    pub fn of(session: &ServerSession) -> Option<&Arc<Self>> {
        Self::in_digest(session.digest()?)
    }

    /// The same of a request over HTTP/2.
    pub fn of_stream(stream: &RequestStream) -> Option<&Arc<Self>> {
        Self::in_digest(stream.digest())
    }

    fn in_digest(digest: &Digest) -> Option<&Arc<Self>> {
        digest.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::TlsVersion;
    use crate::tls::Policies;

    #[test]
    fn the_first_head_is_due_at_once_and_later_ones_when_they_begin() {
        let connection = ClientConnection::default();
        connection.head_may_come();
        assert_eq!(connection.read_state(), ReadState::Head);
        connection.head_read();
        assert_eq!(connection.read_state(), ReadState::Body);
        connection.head_may_come();
        assert_eq!(connection.read_state(), ReadState::Idle);
        connection.head_begins();
        assert_eq!(connection.read_state(), ReadState::Head);
    }

    fn plain() -> (NegotiatedTls, Arc<Policy>) {
        let agreed = NegotiatedTls { version: TlsVersion::V1_2, requested_issuers: None, certificate: None };
        let yaml = "tls: {min_version: '1.2'}";
        let (config, mut faults) = crate::config::parse(Path::new("edge.yaml"), yaml).unwrap();
        let policies = Policies::load(&config.tls, &mut faults);
        (agreed, Arc::clone(policies.of(&Host::placeholder())))
    }

    #[test]
    fn a_certificate_covers_what_it_names_and_plain_http_everything() {
        let names: Arc<[HostPattern]> = [HostPattern::parse("*.a.test").unwrap()].into();
        let (agreed, policy) = plain();
        let connection = ClientConnection::with_tls("x.a.test", Some(names), agreed);
        let covers = |host: &str| connection.serves(&Host::parse(host).unwrap(), &policy).is_ok();
        assert!(covers("x.a.test") && covers("y.a.test"));
        assert!(!covers("a.test") && !covers("b.test") && !covers("z.y.a.test"));
        assert_eq!(ClientConnection::default().serves(&Host::parse("b.test").unwrap(), &policy), Ok(()));
    }

    #[test]
    fn a_digest_leads_back_to_its_connection() {
        let connection = Arc::new(ClientConnection::default());
        let digest = connection.digest().unwrap();
        let found: &Arc<ClientConnection> = digest.user_data.as_ref().unwrap().downcast_ref().unwrap();
        assert!(Arc::ptr_eq(found, &connection));
    }
}
