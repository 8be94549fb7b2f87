//! `pools.NAME.tls`: the identity that servers of a pool have to prove. The files are read by `upstream`.

use super::{Check, file};
use crate::config::{ClientKey, Location, PoolServer, PoolTls};

impl Check<'_> {
    /// A Unix socket has no host that a certificate could name.
    pub(super) fn names_to_verify(&mut self, pool: &str, tls: Option<&PoolTls>, servers: &[PoolServer]) {
        let has_no_host = |server: &PoolServer| matches!(server.location, Location::Unix(_));
        if tls.is_some_and(|tls| tls.server_name.is_none()) && servers.iter().any(has_no_host) {
            let key = format!("{pool}.tls.server_name");
            self.fault(key, "missing, and a Unix socket has no host name", "name what the certificate is for");
        }
    }

    /// `h2` is TLS with or without the key, `h2c` is never.
    pub(super) fn pool_tls(
        &mut self,
        pool: &str,
        protocol: Option<file::PoolProtocol>,
        written: Option<&file::PoolTls>,
    ) -> Option<PoolTls> {
        let place = format!("{pool}.tls");
        let nothing = file::PoolTls::default();
        let written = match (protocol, written) {
            (Some(file::PoolProtocol::H2c), Some(_)) => {
                self.fault(&place, "`h2c` is HTTP/2 without TLS", "write `protocol: h2`, or remove this");
                return None;
            }
            (Some(file::PoolProtocol::H2), None) => &nothing,
            (_, None) => return None,
            (_, Some(written)) => written,
        };
        let name = written.server_name.clone();
        if let Some(name) = name.as_ref().filter(|name| rustls::pki_types::ServerName::try_from(name.as_str()).is_err())
        {
            let what = format!("`{name}` is no name that a certificate could be for");
            self.fault(format!("{place}.server_name"), what, "write a host name or an address, without a port");
        }
        if name.as_ref().is_some_and(|name| name.split('.').next().is_some_and(|label| label.contains('_'))) {
            // Pingora would send, and verify, the name with `-` in its place.
            let write = "name what the certificate is for";
            self.fault(format!("{place}.server_name"), "`_` in the first label, which host names do not have", write);
        }
        let client = match (&written.client_certificate, &written.client_key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                Some(ClientKey { certificate: self.path(certificate), key: self.path(key) })
            }
            (None, Some(_)) => {
                self.fault(format!("{place}.client_certificate"), "missing", "name the PEM file that the key is for");
                None
            }
            (Some(_), None) => {
                self.fault(format!("{place}.client_key"), "missing", "name a PEM file with the certificate's key");
                None
            }
        };
        Some(PoolTls { server_name: name, ca: written.ca.as_ref().map(|ca| self.path(ca)), client, place })
    }
}
