//! The client certificate of a connection: the value of a header field for applications, a fingerprint for the log.

use std::fmt::Write;

use http::HeaderValue;
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use crate::clock::UnixTime;

/// One that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// SHA-256 over the certificate, in hexadecimal.
    fingerprint: String,
    /// As Envoy writes `X-Forwarded-Client-Cert`: `Hash=…;Subject="…"`.
    header: HeaderValue,
    ends: UnixTime,
}

impl ClientCertificate {
    /// `None` when it cannot be read, which rustls would have refused.
    pub fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let fingerprint = digest(&SHA256, der).as_ref().iter().fold(String::new(), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        });
        let header = format!("Hash={fingerprint};Subject=\"{}\"", distinguished_name(certificate.subject()));
        let ends = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
        let header = HeaderValue::try_from(header).ok()?;
        Some(Self { fingerprint, header, ends: UnixTime::from_seconds(ends) })
    }

    /// A connection may last longer than the certificate that was good when it was made.
    pub fn has_ended(&self, now: UnixTime) -> bool {
        self.ends <= now
    }

    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Returns the value of `X-Forwarded-Client-Cert`.
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }
}

/// A name by RFC 4514, its most specific part first. Whatever could end a value, or the quotes around the whole, is
/// written in hexadecimal (§2.4), so that no name reads as two attributes.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|part| {
            let attributes = part.iter().map(|attribute| {
                let kind = oid2abbrev(attribute.attr_type(), oid_registry());
                let kind = kind.map_or_else(|_| attribute.attr_type().to_id_string(), str::to_owned);
                format!("{kind}={}", escaped(attribute.attr_value().data))
            });
            attributes.collect::<Vec<_>>().join("+")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

fn escaped(value: &[u8]) -> String {
    let last = value.len().saturating_sub(1);
    value.iter().enumerate().fold(String::new(), |mut text, (at, byte)| {
        let inside = byte.is_ascii_alphanumeric() || b"-._@:/()'*&!?[]".contains(byte);
        if inside || (*byte == b' ' && at != 0 && at != last) {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "\\{byte:02X}");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(names: &[(rcgen::DnType, &str)]) -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let certificate = params.self_signed(&key).unwrap();
        let certificate = ClientCertificate::of(certificate.der()).unwrap();
        assert_eq!(certificate.fingerprint().len(), 64);
        let text = certificate.header().to_str().unwrap().to_owned();
        text.strip_prefix(&format!("Hash={};", certificate.fingerprint())).unwrap().to_owned()
    }

    #[test]
    fn a_subject_is_written_with_its_most_specific_part_first() {
        use rcgen::DnType::{CommonName, CountryName, OrganizationName};
        let names = [(CountryName, "US"), (OrganizationName, "Clinic 1"), (CommonName, "ada@example.com")];
        assert_eq!(header(&names), "Subject=\"CN=ada@example.com,O=Clinic 1,C=US\"");
    }

    #[test]
    fn no_name_reads_as_two_attributes_or_ends_the_quotes() {
        use rcgen::DnType::CommonName;
        assert_eq!(header(&[(CommonName, "a\",O=b;Hash=c\\")]), "Subject=\"CN=a\\22\\2CO\\3Db\\3BHash\\3Dc\\5C\"");
        assert_eq!(header(&[(CommonName, " Zoë\r\n")]), "Subject=\"CN=\\20Zo\\C3\\AB\\0D\\0A\"");
    }
}
