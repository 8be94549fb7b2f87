//! The admin API's token: read once from where the configuration says, compared in constant time.

use http::{HeaderMap, header};
use ring::hmac;
use ring::rand::SystemRandom;

use crate::config::{Admin, Faults};

/// Bytes that a token has at least, as many as an HS256 secret.
const MIN_BYTES: usize = 32;

const KEY: &str = "server.admin.token";

/// Holds a keyed hash and not the token: comparing hashes under a random key reveals nothing of the token, its length
/// included.
pub struct AdminToken {
    key: hmac::Key,
    tag: hmac::Tag,
}

/// The result of comparing the token of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenCheck {
    Valid,
    Invalid,
    Missing,
}

impl AdminToken {
    /// `None` when there is none, and so no API; or when there is a fault.
    pub fn read(admin: &Admin, faults: &mut Faults) -> Option<Self> {
        let secret = match admin.token.as_ref()?.read() {
            Ok(secret) => secret,
            Err(what) => {
                faults.add(KEY, what, "point it at the token, or remove the key to have no admin API");
                return None;
            }
        };
        if secret.bytes().len() < MIN_BYTES {
            let what = format!("the token has {} bytes", secret.bytes().len());
            faults.add(KEY, what, format!("use {MIN_BYTES} or more; `openssl rand -hex 32` makes one"));
            return None;
        }
        if !secret.bytes().iter().all(u8::is_ascii_graphic) {
            faults.add(KEY, "the token cannot stand in a header", "use letters and digits, no spaces");
            return None;
        }
        let Some(token) = Self::new(secret.bytes()) else {
            faults.add(KEY, "the system's random source failed", "try again");
            return None;
        };
        Some(token)
    }

    fn new(token: &[u8]) -> Option<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok()?;
        let tag = hmac::sign(&key, token);
        Some(Self { key, tag })
    }

    /// Two Authorization fields are refused like a wrong one: a proxy before the edge may have checked the other one.
    pub fn check(&self, headers: &HeaderMap) -> TokenCheck {
        let mut fields = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else {
            return if headers.contains_key(header::AUTHORIZATION) { TokenCheck::Invalid } else { TokenCheck::Missing };
        };
        match bearer(field.as_bytes()) {
            Some(token) if hmac::verify(&self.key, token, self.tag.as_ref()).is_ok() => TokenCheck::Valid,
            _ => TokenCheck::Invalid,
        }
    }
}

fn bearer(field: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = field.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http::HeaderValue;
    use zeroize::Zeroizing;

    use super::*;
    use crate::config::SecretSource;

    const TEXT: &str = "0123456789abcdef0123456789abcdef";

    fn read(text: &str) -> Result<AdminToken, String> {
        let source = SecretSource::Value(Zeroizing::new(text.to_owned()));
        let admin = Admin { address: ([127, 0, 0, 1], 0).into(), token: Some(source) };
        let mut faults = Faults::new(Path::new("edge.yaml"), "");
        let token = AdminToken::read(&admin, &mut faults);
        assert_eq!(token.is_some(), faults.is_empty());
        token.ok_or_else(|| faults.to_string())
    }

    fn checked(fields: &[&str]) -> TokenCheck {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(field).unwrap());
        }
        read(TEXT).unwrap().check(&headers)
    }

    #[test]
    fn only_the_whole_token_under_the_right_scheme_is_right() {
        let right = format!("Bearer {TEXT}");
        assert_eq!(checked(&[&right]), TokenCheck::Valid);
        assert_eq!(checked(&[&format!("bearer {TEXT}")]), TokenCheck::Valid);
        assert_eq!(checked(&[]), TokenCheck::Missing);
        for wrong in ["", "Bearer", "Bearer ", TEXT, &right[..right.len() - 1], &format!("{right}0"), "Basic eDp5"] {
            assert_eq!(checked(&[wrong]), TokenCheck::Invalid, "{wrong}");
        }
        assert_eq!(checked(&[&format!("Basic {TEXT}")]), TokenCheck::Invalid);
        assert_eq!(checked(&[&right, &right]), TokenCheck::Invalid, "two of them");
    }

    #[test]
    fn a_token_that_is_short_or_fits_no_header_is_a_fault_that_does_not_quote_it() {
        assert!(read(TEXT).is_ok());
        for bad in ["", "short", &TEXT[1..], &format!("{TEXT} x"), &format!("{TEXT}é"), &format!("{TEXT}\tx")] {
            let fault = read(bad).map(|_| ()).unwrap_err();
            assert!(fault.contains("server.admin.token"), "{fault}");
            assert!(bad.is_empty() || !fault.contains(bad), "{fault}");
        }
    }

    #[test]
    fn a_token_is_not_printed() {
        assert_eq!(format!("{:?}", read(TEXT).unwrap()), "AdminToken(…)");
    }
}
