//! Keys that can be read and are unusable: no signature can ever verify with them, or anyone can sign.
//!
//! Called by `keys` when a configuration is loaded.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::{agreement, rand};
use rsa::BigUint;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::config::Algorithm;

const EC: &str = "1.2.840.10045.2.1";
const P256: &str = "1.2.840.10045.3.1.7";
const ED25519: &str = "1.3.101.112";
const RSA: &str = "1.2.840.113549.1.1.1";

/// Returns what an HMAC secret really is, if it is a key in one of the forms that keys are published in. Everyone with
/// the public half of such a pair could sign with it, as a secret is its bytes (RFC 8725 §2.1); and a private half was
/// meant for another algorithm.
pub fn disguised_key(secret: &[u8]) -> Option<&'static str> {
    let text = std::str::from_utf8(secret).unwrap_or_default().trim_start_matches('\u{feff}').trim();
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| text.starts_with(prefix));
    if text.contains("-----BEGIN") || text.contains("---- BEGIN") {
        return Some("a PEM file");
    }
    if begins(&["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-", "age1", "untrusted comment:"]) {
        return Some("a public key");
    }
    if begins(&["{", "["]) && text.contains("\"kty\"") {
        return Some("a JSON Web Key");
    }
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let compact: String = text.split_whitespace().collect();
    let decoded = [alphabet::STANDARD, alphabet::URL_SAFE]
        .iter()
        .find_map(|alphabet| GeneralPurpose::new(alphabet, lenient).decode(&compact).ok());
    let is_der = is_der_key(secret) || decoded.is_some_and(|decoded| is_der_key(&decoded));
    is_der.then_some("a key in DER form")
}

/// Returns whether the bytes are exactly one public key or certificate in DER.
fn is_der_key(bytes: &[u8]) -> bool {
    let whole = |rest: Result<&[u8], ()>| rest.is_ok_and(<[u8]>::is_empty);
    let public = SubjectPublicKeyInfo::from_der(bytes).map(|(rest, _)| rest).map_err(drop);
    let certificate = X509Certificate::from_der(bytes).map(|(rest, _)| rest).map_err(drop);
    let pkcs1 = rsa::pkcs1::RsaPublicKey::try_from(bytes).is_ok();
    whole(public) || whole(certificate) || pkcs1
}

/// Returns why a public key in PEM is not one of this algorithm, as far as its encoding says: the same bytes may be a
/// point on another curve, or a key for another use.
pub fn foreign_public_key(algorithm: Algorithm, pem: &[u8]) -> Option<String> {
    let certificate = CertificateDer::from_pem_slice(pem).ok();
    let spki = SubjectPublicKeyInfoDer::from_pem_slice(pem).ok();
    let info = match (&certificate, &spki) {
        (Some(der), _) => X509Certificate::from_der(der).ok()?.1.tbs_certificate.subject_pki,
        (None, Some(der)) => SubjectPublicKeyInfo::from_der(der).ok()?.1,
        // An encoding of its own algorithm, which says no more.
        (None, None) => return None,
    };
    let of = info.algorithm.algorithm.to_id_string();
    let curve = info.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok()).map(|oid| oid.to_id_string());
    let right = match algorithm {
        Algorithm::ES256 => of == EC && curve.as_deref() == Some(P256),
        Algorithm::EdDSA => of == ED25519,
        Algorithm::RS256 => of == RSA,
        Algorithm::HS256 => false,
    };
    (!right).then(|| {
        format!("a public key of another algorithm or curve, and no signature of {algorithm:?} ever verifies by it")
    })
}

/// Returns whether an uncompressed point is on P-256: with any other no signature verifies.
pub fn is_on_p256(point: &[u8]) -> bool {
    let random = rand::SystemRandom::new();
    let Ok(own) = agreement::EphemeralPrivateKey::generate(&agreement::ECDH_P256, &random) else { return true };
    let theirs = agreement::UnparsedPublicKey::new(&agreement::ECDH_P256, point);
    agreement::agree_ephemeral(own, &theirs, |_| ()).is_ok()
}

/// Returns whether 32 bytes are a point of edwards25519 (RFC 8032 §5.1.3) with which signatures prove something: with
/// one of the points of small order that have simple coordinates, anyone can sign.
pub fn is_on_edwards25519(public: &[u8]) -> bool {
    let Ok(mut bytes) = <[u8; 32]>::try_from(public) else { return false };
    bytes[31] &= 0x7f;
    let one = BigUint::from(1_u8);
    let p = (&one << 255) - BigUint::from(19_u8);
    let y = BigUint::from_bytes_le(&bytes);
    if y >= p || y <= one || y == &p - &one {
        return false;
    }
    let inverse = |number: &BigUint| number.modpow(&(&p - BigUint::from(2_u8)), &p);
    let d = (&p - BigUint::from(121_665_u32)) * inverse(&BigUint::from(121_666_u32)) % &p;
    let square = &y * &y % &p;
    let u = (&square + &p - &one) % &p;
    let v = (d * &square + &one) % &p;
    let x_squared = u * inverse(&v) % &p;
    // Euler's criterion: whether it has a root.
    x_squared.modpow(&((&p - &one) >> 1), &p) == one
}

/// Returns whether ring verifies with an RSA key of this modulus and exponent: 2048 to 8192 bits, odd, and an exponent
/// from 3 to 2^33.
pub fn is_usable_rsa(modulus: &BigUint, exponent: &BigUint) -> bool {
    let odd = |number: &BigUint| (number % BigUint::from(2_u8)) == BigUint::from(1_u8);
    let bounded = *exponent >= BigUint::from(3_u8) && exponent.bits() <= 33;
    (2048..=8192).contains(&modulus.bits()) && odd(modulus) && odd(exponent) && bounded
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use rcgen::PublicKeyData;

    use super::*;

    #[test]
    fn a_published_key_is_no_secret_in_any_form() {
        let pair = rcgen::KeyPair::generate().unwrap();
        let (pem, der) = (pair.public_key_pem(), pair.subject_public_key_info());
        let certificate = rcgen::CertificateParams::new(vec!["a.test".into()]).unwrap().self_signed(&pair).unwrap();
        let base64 = |bytes: &[u8]| STANDARD.encode(bytes).into_bytes();
        let url = URL_SAFE_NO_PAD.encode(&der).into_bytes();
        for bad in [
            pem.clone().into_bytes(),
            format!("\n  {pem}").into_bytes(),
            format!("\u{feff}{pem}").into_bytes(),
            format!("Bag Attributes\n{pem}").into_bytes(),
            pair.serialize_pem().into_bytes(),
            certificate.pem().into_bytes(),
            certificate.der().to_vec(),
            der.clone(),
            base64(&der),
            base64(certificate.der()),
            url,
            b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEkey operator@host".to_vec(),
            b"ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAI".to_vec(),
            b"---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----".to_vec(),
            br#"{"kty":"EC","crv":"P-256","x":"0123456789","y":"0123456789"}"#.to_vec(),
            br#" {"keys": [{"kty":"RSA","n":"0123456789","e":"AQAB"}]}"#.to_vec(),
        ] {
            assert!(disguised_key(&bad).is_some(), "{}", bad.escape_ascii());
        }
        for good in [
            "0123456789abcdef0123456789abcdef",
            "correct horse battery staple, and more",
            "{not json, but 32 bytes or more}",
        ] {
            assert_eq!(disguised_key(good.as_bytes()), None, "{good}");
        }
        let random = crate::sessions::key::random_base64url::<32>().unwrap();
        assert_eq!(disguised_key(random.as_bytes()), None);
        assert_eq!(disguised_key(&[0xff; 32]), None);
    }

    #[test]
    fn points_on_the_curves_are_distinguished_from_others() {
        let pair = rcgen::KeyPair::generate().unwrap();
        let mut point = pair.public_key_raw().to_vec();
        assert!(is_on_p256(&point));
        point[64] ^= 1;
        assert!(!is_on_p256(&point));
        for _ in 0..8 {
            let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
            assert!(is_on_edwards25519(pair.public_key_raw()));
        }
        let numbers = (0_u8..64).map(|first| [&[first][..], &[7; 31]].concat());
        let on = numbers.filter(|bytes| is_on_edwards25519(bytes)).count();
        assert!((16..48).contains(&on), "about half of all are: {on}");
        for small_order in [[0; 32], std::array::from_fn(|at| u8::from(at == 0))] {
            assert!(!is_on_edwards25519(&small_order));
        }
        assert!(!is_on_edwards25519(&[1; 31]));
    }
}
