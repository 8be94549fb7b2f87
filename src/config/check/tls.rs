//! `tls`, and what hosts require beyond it: versions and certificate files. The contents of the files are checked by the
//! module `tls`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Check, defaults, file, seconds, time};
use crate::config::reading::Sealed;
use crate::config::{Certificate, ClientCertificates, HostTls, Hsts, Tickets, Tls, TlsVersion};
use crate::host::HostPattern;

/// What hstspreload.org asks for: a year.
const PRELOAD_MAX_AGE: Duration = seconds(365 * 24 * 3600);

const MIN_ROTATION: Duration = seconds(60);
/// A ticket is good for two periods at most, and for seven days by RFC 8446 §4.6.1.
const MAX_ROTATION: Duration = seconds(3 * 24 * 3600);

impl Check<'_> {
    pub(super) fn tls(
        &mut self,
        tls: file::Tls,
        sentry: &file::Sentry,
        services: &BTreeMap<String, file::Service>,
    ) -> Tls {
        let min_version = self.min_version("tls", tls.min_version.as_deref(), defaults::TLS_MIN_VERSION);
        let sign_on: Vec<String> = sentry.host.iter().cloned().collect();
        let mut hosts = vec![self.host_tls("sentry".into(), &sign_on, &sentry.tls, min_version)];
        for (name, service) in services {
            hosts.push(self.host_tls(format!("services.{name}"), &service.hosts, &service.tls, min_version));
        }
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
        let tickets = self.tickets(tls.tickets);
        let hsts = self.hsts("tls.hsts", tls.hsts, Some(defaults::HSTS));
        Tls { min_version, hosts, certificates, tickets, refresh: time(tls.refresh, defaults::TLS_REFRESH), hsts }
    }

    pub(super) fn hsts(&mut self, key: &str, written: Option<file::Hsts>, default: Option<Hsts>) -> Option<Hsts> {
        let settings = match written {
            None => return default,
            Some(file::Hsts::Off(_)) => return None,
            Some(file::Hsts::On(settings)) => settings,
        };
        let file::HstsSettings { max_age, include_subdomains, preload } = settings;
        if preload && (!include_subdomains || max_age.0 < PRELOAD_MAX_AGE) {
            let what = "browsers' lists take no host with this";
            self.faults.warn(
                format!("{key}.preload"),
                what,
                "add `include_subdomains: true` and a `max_age` of 365d or more",
            );
        }
        Some(Hsts { max_age: max_age.0, include_subdomains, preload })
    }

    fn min_version(&mut self, place: &str, written: Option<&str>, default: TlsVersion) -> TlsVersion {
        match written {
            None => default,
            Some("1.2") => TlsVersion::V1_2,
            Some("1.3") => TlsVersion::V1_3,
            Some(other) => {
                let key = format!("{place}.min_version");
                self.fault(key, format!("`{other}` is not offered"), "write \"1.2\" or \"1.3\"");
                default
            }
        }
    }

    /// A host that is not a name has a fault of its own, from `hosts`.
    fn host_tls(&mut self, owner: String, hosts: &[String], written: &file::HostTls, default: TlsVersion) -> HostTls {
        let place = format!("{owner}.tls");
        let required = written
            .client_certificate
            .map_or(defaults::CLIENT_CERTIFICATE_REQUIRED, |wanted| wanted == file::ClientCertificate::Required);
        if written.client_certificate.is_some() && written.client_ca.is_none() {
            let write = "name the PEM file with the CA of the client certificates";
            self.fault(
                format!("{place}.client_ca"),
                "missing: client certificates are requested and no CA is named",
                write,
            );
        }
        let min_version = self.min_version(&place, written.min_version.as_deref(), default);
        if min_version < default {
            let write = "write a later version, or lower tls.min_version and raise it for the other hosts";
            self.fault(format!("{place}.min_version"), "less than tls.min_version", write);
        }
        HostTls {
            hosts: hosts.iter().filter_map(|host| HostPattern::parse(host).ok()).collect(),
            min_version,
            clients: written.client_ca.as_ref().map(|ca| ClientCertificates { ca: self.path(ca), required }),
            place,
        }
    }

    fn tickets(&mut self, written: Sealed<file::Tickets>) -> Tickets {
        let written = written.open("tls.tickets", self.faults);
        let secret = written.secret.as_ref().and_then(|secret| self.secret("tls.tickets.secret", secret));
        let rotation = time(written.rotation, defaults::TICKET_KEY_ROTATION);
        if !(MIN_ROTATION..=MAX_ROTATION).contains(&rotation) {
            self.fault("tls.tickets.rotation", "out of bounds", "write 1m to 3d");
        }
        Tickets { secret, rotation }
    }
}
