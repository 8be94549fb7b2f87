//! The admin API's tokens: read once from where the configuration says, compared in constant time.

use std::sync::Arc;

use http::{HeaderMap, header};
use ring::hmac;
use ring::rand::SystemRandom;

use crate::admin::actor::Actor;
use crate::config::{self, Admin, Faults, Secret};

/// Bytes that a token has at least, as many as an HS256 secret.
const MIN_BYTES: usize = 32;

/// Holds keyed hashes and no token: comparing hashes under a random key reveals nothing of a token, its length included.
pub struct AdminTokens {
    key: hmac::Key,
    tokens: Vec<(hmac::Tag, Arc<Actor>)>,
}

/// The result of comparing the token of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenCheck {
    Valid(Arc<Actor>),
    Invalid,
    Missing,
}

impl AdminTokens {
    /// `None` when there is none, and so no API on the listener; or when there is a fault.
    pub fn read(admin: &Admin, faults: &mut Faults) -> Option<Self> {
        let first = admin.tokens.first()?;
        let Ok(key) = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()) else {
            faults.add(&first.place, "the system's random source failed", "try again");
            return None;
        };
        let mut tokens: Vec<(hmac::Tag, Arc<Actor>)> = Vec::new();
        for token in &admin.tokens {
            let Some(secret) = read_secret(token, faults) else { continue };
            if tokens.iter().any(|(tag, _)| hmac::verify(&key, secret.bytes(), tag.as_ref()).is_ok()) {
                let what = "another token has the same secret, so that the audit log could not tell the two apart";
                faults.add(&token.place, what, "give each its own; `openssl rand -hex 32` makes one");
            }
            let actor = Actor::token(&token.name, token.role);
            tokens.push((hmac::sign(&key, secret.bytes()), Arc::new(actor)));
        }
        (tokens.len() == admin.tokens.len()).then_some(Self { key, tokens })
    }

    /// Two Authorization fields are refused like a wrong one: a proxy before the edge may have checked the other one.
    pub fn check(&self, headers: &HeaderMap) -> TokenCheck {
        let mut fields = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else {
            return if headers.contains_key(header::AUTHORIZATION) { TokenCheck::Invalid } else { TokenCheck::Missing };
        };
        let Some(sent) = bearer(field.as_bytes()) else { return TokenCheck::Invalid };
        let mut actor = None;
        // Each is compared, so that the time does not say which one it was.
        for (tag, named) in &self.tokens {
            if hmac::verify(&self.key, sent, tag.as_ref()).is_ok() {
                actor = Some(named);
            }
        }
        actor.map_or(TokenCheck::Invalid, |actor| TokenCheck::Valid(Arc::clone(actor)))
    }
}

fn read_secret(token: &config::AdminToken, faults: &mut Faults) -> Option<Secret> {
    let secret = match token.secret.read() {
        Ok(secret) => secret,
        Err(what) => {
            faults.add(&token.place, what, "point it at the token, or remove the key to have no such token");
            return None;
        }
    };
    if secret.bytes().len() < MIN_BYTES {
        let what = format!("the token has {} bytes", secret.bytes().len());
        faults.add(&token.place, what, format!("use {MIN_BYTES} or more; `openssl rand -hex 32` makes one"));
        return None;
    }
    if !secret.bytes().iter().all(u8::is_ascii_graphic) {
        faults.add(&token.place, "the token cannot stand in a header", "use letters and digits, no spaces");
        return None;
    }
    Some(secret)
}

fn bearer(field: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = field.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

impl std::fmt::Debug for AdminTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminTokens(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http::HeaderValue;
    use zeroize::Zeroizing;

    use super::*;
    use crate::config::{AdminRole, AdminToken, SecretSource};

    const TEXT: &str = "0123456789abcdef0123456789abcdef";

    fn read_all(texts: &[(&str, &str, AdminRole)]) -> Result<AdminTokens, String> {
        let token = |(name, text, role): &(&str, &str, AdminRole)| AdminToken {
            place: format!("server.admin.tokens.{name}.secret"),
            name: (*name).into(),
            role: *role,
            secret: SecretSource::Value(Zeroizing::new((*text).to_owned())),
        };
        let admin = Admin { address: ([127, 0, 0, 1], 0).into(), tokens: texts.iter().map(token).collect() };
        let mut faults = Faults::new(Path::new("edge.yaml"), "");
        let tokens = AdminTokens::read(&admin, &mut faults);
        match (tokens, faults.is_empty()) {
            (Some(tokens), true) => Ok(tokens),
            (_, false) => Err(faults.to_string()),
            (None, true) => Err("there is none".into()),
        }
    }

    fn read(text: &str) -> Result<AdminTokens, String> {
        read_all(&[("admin", text, AdminRole::Admin)])
    }

    fn checked_by(tokens: &AdminTokens, fields: &[&str]) -> TokenCheck {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(field).unwrap());
        }
        tokens.check(&headers)
    }

    fn checked(fields: &[&str]) -> TokenCheck {
        checked_by(&read(TEXT).unwrap(), fields)
    }

    fn valid(name: &str, role: AdminRole) -> TokenCheck {
        TokenCheck::Valid(Arc::new(Actor::token(name, role)))
    }

    #[test]
    fn only_the_whole_token_under_the_right_scheme_is_right() {
        let right = format!("Bearer {TEXT}");
        assert_eq!(checked(&[&right]), valid("admin", AdminRole::Admin));
        assert_eq!(checked(&[&format!("bearer {TEXT}")]), valid("admin", AdminRole::Admin));
        assert_eq!(checked(&[]), TokenCheck::Missing);
        for wrong in ["", "Bearer", "Bearer ", TEXT, &right[..right.len() - 1], &format!("{right}0"), "Basic eDp5"] {
            assert_eq!(checked(&[wrong]), TokenCheck::Invalid, "{wrong}");
        }
        assert_eq!(checked(&[&format!("Basic {TEXT}")]), TokenCheck::Invalid);
        assert_eq!(checked(&[&right, &right]), TokenCheck::Invalid, "two of them");
    }

    #[test]
    fn each_token_is_its_own_callers() {
        let (one, two) = (format!("{TEXT}1"), format!("{TEXT}2"));
        let tokens = [("ops", &*one, AdminRole::Admin), ("desk", &*two, AdminRole::HelpDesk)];
        let read = read_all(&tokens).unwrap();
        for (name, text, role) in tokens {
            assert_eq!(checked_by(&read, &[&format!("Bearer {text}")]), valid(name, role));
        }
        assert_eq!(checked_by(&read, &[&format!("Bearer {TEXT}")]), TokenCheck::Invalid);
        let alike = read_all(&[("ops", &one, AdminRole::Admin), ("desk", &one, AdminRole::HelpDesk)]).unwrap_err();
        assert!(alike.contains("server.admin.tokens.desk.secret: another token has the same secret"), "{alike}");
        let short = read_all(&[("ops", "short", AdminRole::Admin), ("desk", &one, AdminRole::HelpDesk)]).unwrap_err();
        assert!(short.contains("server.admin.tokens.ops.secret: the token has 5 bytes"), "{short}");
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
        assert_eq!(format!("{:?}", read(TEXT).unwrap()), "AdminTokens(…)");
    }
}
