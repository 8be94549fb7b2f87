//! Bare Pingora: TLS in front, one origin behind, nothing in between. What sentry-edge adds is measured against it.
//!
//!     bare ADDRESS CERTIFICATE KEY ORIGIN THREADS
//!
//! Everything is stock: Pingora's server, its listener, HTTP/2 for who asks for it, its runtime with work stealing. Only the pool of idle connections
//! to the origin is as large as the edge's. Started by the load tests; `cargo bench` starts it without arguments.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot be set up may end at once")]

use async_trait::async_trait;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

struct Bare {
    origin: String,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _context: &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(&self.origin, false, String::new())))
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, certificate, key, origin, threads] = arguments.as_slice() else { return };
    let conf = ServerConf {
        threads: threads.parse().unwrap(),
        upstream_keepalive_pool_size: 512,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    };
    rustls::crypto::ring::default_provider().install_default().ok();
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut proxy = http_proxy_service(&server.configuration, Bare { origin: origin.clone() });
    let mut settings = TlsSettings::intermediate(certificate, key).unwrap();
    settings.enable_h2();
    proxy.add_tls_with_settings(address, None, settings);
    server.add_service(proxy);
    server.run_forever();
}
