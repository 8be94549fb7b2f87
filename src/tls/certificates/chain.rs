//! The faults of a readable chain, by their cause: TLS libraries only report that a key is unusable, or that a name is
//! missing.

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

/// What is wrong, and with which of the two files.
#[derive(Debug, PartialEq, Eq)]
pub struct ChainError {
    pub key: &'static str,
    pub what: String,
    pub write: &'static str,
}

/// What rustls with ring signs with.
const KEYS: &str = "have one issued for a key on P-256 or P-384, for Ed25519, or for RSA of 2048 to 8192 bits";

/// Leaves alone what others find as well as this does.
pub fn check(chain: &[CertificateDer<'_>], key: &PrivateKeyDer<'static>) -> Result<(), ChainError> {
    let Some(first) = chain.first().and_then(|der| X509Certificate::from_der(der).ok()) else { return Ok(()) };
    if let Some(place) = place_of_leaf(chain, key).filter(|place| *place > 0) {
        return Err(ChainError {
            key: "certificate",
            what: format!("the certificate of this key is number {} of {} in the file", place + 1, chain.len()),
            write: "put it first, and then each after the one that it issued",
        });
    }
    if let Some(kind) = useless_key(&first.1) {
        return Err(ChainError {
            key: "certificate",
            what: format!("it is for {kind}, with which TLS is not spoken here"),
            write: KEYS,
        });
    }
    out_of_order(chain).map_or(Ok(()), Err)
}

/// Which of the certificates the key belongs to; `None` where it is of none, or of a kind that cannot be compared.
fn place_of_leaf(chain: &[CertificateDer<'_>], key: &PrivateKeyDer<'static>) -> Option<usize> {
    let provider = rustls::crypto::ring::default_provider();
    let key = provider.key_provider.load_private_key(key.clone_key()).ok()?;
    chain.iter().position(|der| {
        let certified = CertifiedKey::new(vec![der.clone().into_owned()], std::sync::Arc::clone(&key));
        certified.keys_match().is_ok()
    })
}

/// A public key that no certificate of a server may have here.
fn useless_key(certificate: &X509Certificate<'_>) -> Option<String> {
    let key = certificate.public_key();
    let (algorithm, parameters) = (key.algorithm.algorithm.to_id_string(), &key.algorithm.parameters);
    match algorithm.as_str() {
        "1.2.840.10045.2.1" => {
            let curve = parameters.as_ref().and_then(|curve| curve.as_oid().ok()).map(|curve| curve.to_id_string());
            match curve.as_deref() {
                Some("1.2.840.10045.3.1.7" | "1.3.132.0.34") => None,
                Some("1.3.132.0.35") => Some("a key on P-521".into()),
                Some("1.3.132.0.10") => Some("a key on secp256k1".into()),
                other => Some(format!("a key on the curve {}", other.unwrap_or("without a name"))),
            }
        }
        "1.2.840.113549.1.1.1" => match key.parsed() {
            Ok(PublicKey::RSA(rsa)) if !(2048..=8192).contains(&rsa.key_size()) => {
                Some(format!("an RSA key of {} bits", rsa.key_size()))
            }
            _ => None,
        },
        "1.3.101.112" => None,
        "1.3.101.113" => Some("an Ed448 key".into()),
        "1.2.840.10040.4.1" => Some("a DSA key".into()),
        other => Some(format!("a key of the kind {other}")),
    }
}

/// Each certificate but the last is issued by the next one (RFC 8446 §4.4.2); clients of TLS 1.2 rely on it. One that
/// issued none of the others does no harm, as old roots that are sent along.
fn out_of_order(chain: &[CertificateDer<'_>]) -> Option<ChainError> {
    let parsed: Vec<_> =
        chain.iter().filter_map(|der| X509Certificate::from_der(der).ok().map(|(_, parsed)| parsed)).collect();
    for (at, certificate) in parsed.iter().enumerate() {
        let issuer = certificate.issuer().as_raw();
        let is_self_issued = issuer == certificate.subject().as_raw();
        let issued_by_next = parsed.get(at + 1).is_none_or(|next| next.subject().as_raw() == issuer);
        if is_self_issued || issued_by_next {
            continue;
        }
        if let Some(place) = parsed.iter().position(|other| other.subject().as_raw() == issuer) {
            let what =
                format!("number {} in the file is issued by number {}, which does not follow it", at + 1, place + 1);
            return Some(ChainError {
                key: "certificate",
                what,
                write: "put each certificate after the one that it issued",
            });
        }
    }
    None
}
