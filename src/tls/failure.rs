//! The reason of a failed handshake, as a metric has it. Scanners fail handshakes all day: they are counted by reason,
//! and not logged one by one.

use std::io;

use rustls::{Error, PeerIncompatible};

/// Returns the label for a failed handshake with a client whose server name a certificate covers.
pub fn reason(error: &io::Error) -> &'static str {
    let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<Error>()) else { return "gone" };
    match error {
        Error::PeerIncompatible(
            PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => "version",
        Error::PeerIncompatible(_) => "parameters",
        Error::NoApplicationProtocol => "alpn",
        Error::NoCertificatesPresented | Error::InvalidCertificate(_) => "client_certificate",
        Error::AlertReceived(_) => "refused",
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_)
        | Error::PeerSentOversizedRecord
        | Error::DecryptError => "malformed",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, CertificateError};

    use super::*;

    #[test]
    fn each_kind_of_failure_has_its_reason() {
        for (error, expected) in [
            (Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered), "version"),
            (Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon), "parameters"),
            (Error::NoApplicationProtocol, "alpn"),
            (Error::NoCertificatesPresented, "client_certificate"),
            (Error::InvalidCertificate(CertificateError::Expired), "client_certificate"),
            (Error::AlertReceived(AlertDescription::UnknownCA), "refused"),
            (Error::DecryptError, "malformed"),
            (Error::EncryptError, "other"),
        ] {
            assert_eq!(reason(&io::Error::new(io::ErrorKind::InvalidData, error.clone())), expected, "{error}");
        }
        assert_eq!(reason(&io::ErrorKind::UnexpectedEof.into()), "gone");
    }
}
