//! `tls`: versions and certificate files. What is in those files is looked at by the room `tls`.

use super::{Check, file};
use crate::config::{Certificate, Tls, TlsVersion};

impl Check<'_> {
    pub(super) fn tls(&mut self, tls: file::Tls) -> Tls {
        let min_version = match tls.min_version.as_deref() {
            None | Some("1.2") => TlsVersion::V1_2,
            Some("1.3") => TlsVersion::V1_3,
            Some(other) => {
                self.fault("tls.min_version", format!("`{other}` is not offered"), "write \"1.2\" or \"1.3\"");
                TlsVersion::V1_2
            }
        };
        if tls.certificates.is_empty() {
            self.fault("tls.certificates", "no certificate", "add {certificate: FILE, key: FILE}");
        }
        let mut certificates = Vec::new();
        for (at, written) in tls.certificates.iter().enumerate() {
            let place = format!("tls.certificates[{at}]");
            let mut file = |name: &str, path: &Option<String>| {
                if path.is_none() {
                    self.faults.add(format!("{place}.{name}"), "missing", "name a PEM file");
                }
                path.as_ref().map(|path| self.directory.join(path))
            };
            let (certificate, key) = (file("certificate", &written.certificate), file("key", &written.key));
            if let (Some(certificate), Some(key)) = (certificate, key) {
                certificates.push(Certificate { place, certificate, key });
            }
        }
        Tls { min_version, certificates }
    }
}
