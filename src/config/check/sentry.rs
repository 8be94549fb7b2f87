//! The `sentry` part: host, token, keys, cookies, tickets, login.

use std::time::Duration;

use zeroize::Zeroizing;

use super::{Check, defaults, in_punycode, time};
use crate::config::file::{self, Algorithm};
use crate::config::reading::Sealed;
use crate::config::{Cookie, FIXED_COOKIES, Key, KeyMaterial, Login, SecretSource, Sentry, Ticket, Token};
use crate::host::Host;

/// A token is accepted for this much longer than it lives, so a larger leeway would defeat its lifetime.
const MAX_LEEWAY: Duration = Duration::from_secs(300);

/// In bytes. These are part of every token or cookie, and browsers drop a cookie of more than 4096 bytes: every login
/// would fail.
const MAX_ID_BYTES: usize = 128;
const MAX_ISSUER_BYTES: usize = 512;
const MAX_NAME_BYTES: usize = 64;

/// memcached reads an expiry over 30 days as a moment in 1970; nothing that is stored may live longer.
const MAX_TOKEN_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// A ticket travels in a URL and must be short-lived (OWASP ASVS 5.0 10.4.3).
const MAX_TICKET_LIFETIME: Duration = Duration::from_secs(60);

/// Password workers; each takes a core and up to 56 MiB while it verifies.
const MAX_LOGIN_WORKERS: usize = 64;
/// Logins that may wait for a worker.
const MAX_LOGIN_QUEUE: usize = 10_000;

impl Check<'_> {
    pub(super) fn sentry(&mut self, sentry: file::Sentry) -> Sentry {
        let host = self.sentry_host(sentry.host.as_deref());
        let mut open = |(at, key): (usize, Sealed<file::Key>)| key.open(&format!("sentry.keys[{at}]"), self.faults);
        let written: Vec<file::Key> = sentry.keys.into_iter().enumerate().map(&mut open).collect();
        let keys = self.keys(&written);
        Sentry {
            token: self.token(sentry.token, &host, &written, &keys),
            cookie: self.cookie(sentry.cookie),
            ticket: self.ticket(sentry.ticket),
            fingerprint: sentry.fingerprint.unwrap_or_else(|| defaults::FINGERPRINT.to_vec()),
            login: self.login(sentry.login),
            host,
            keys,
        }
    }

    fn sentry_host(&mut self, written: Option<&str>) -> Host {
        let text = written.unwrap_or_default();
        Host::parse(text).unwrap_or_else(|_| {
            let what = if text.is_empty() { "missing".into() } else { format!("`{text}` is no host name") };
            let write = match text.is_ascii() {
                true => "write the sign-on host, such as sentry.example.com".into(),
                false => in_punycode(text),
            };
            self.fault("sentry.host", what, write);
            Host::placeholder()
        })
    }

    fn keys(&mut self, written: &[file::Key]) -> Vec<Key> {
        let mut keys: Vec<Key> = Vec::new();
        for (at, key) in written.iter().enumerate() {
            let place = format!("sentry.keys[{at}]");
            let Some(id) = key.id.clone().filter(|id| !id.is_empty()) else {
                self.fault(format!("{place}.id"), "missing", "give the key a name of its own");
                continue;
            };
            if id.len() > MAX_ID_BYTES || id.contains(char::is_control) {
                let write = format!("write {MAX_ID_BYTES} bytes at most, without control characters");
                self.fault(format!("{place}.id"), "it is part of every token, and does not fit", write);
                continue;
            }
            if keys.iter().any(|other| other.id == id) {
                self.fault(format!("{place}.id"), "two keys have this name", "rename one");
            }
            let Some(algorithm) = key.algorithm else {
                self.fault(format!("{place}.algorithm"), "missing", "write HS256, ES256, EdDSA or RS256");
                continue;
            };
            if let Some(material) = self.material(&place, key, algorithm) {
                keys.push(Key { place, id, algorithm, material, allow_weak: key.allow_weak });
            }
        }
        keys
    }

    fn material(&mut self, place: &str, key: &file::Key, algorithm: Algorithm) -> Option<KeyMaterial> {
        match (algorithm, &key.secret, &key.private_key, &key.public_key) {
            (Algorithm::HS256, Some(secret), None, None) => {
                self.secret(&format!("{place}.secret"), secret).map(KeyMaterial::Secret)
            }
            (Algorithm::ES256 | Algorithm::EdDSA | Algorithm::RS256, None, Some(private), None) => {
                self.secret(&format!("{place}.private_key"), private).map(KeyMaterial::Private)
            }
            (Algorithm::ES256 | Algorithm::EdDSA | Algorithm::RS256, None, None, Some(public)) => {
                self.secret(&format!("{place}.public_key"), public).map(KeyMaterial::Public)
            }
            _ => {
                let write = match algorithm {
                    Algorithm::HS256 => "HS256 takes `secret` alone",
                    _ => "write `private_key` to sign and verify, or `public_key` to verify alone",
                };
                self.fault(place, "the key has no material, or not the one that its algorithm takes", write);
                None
            }
        }
    }

    pub(super) fn secret(&mut self, place: &str, written: &file::Secret) -> Option<SecretSource> {
        match (&written.env, &written.file, &written.value) {
            (Some(name), None, None) => Some(SecretSource::Env(name.clone())),
            (None, Some(path), None) => Some(SecretSource::File(self.path(path))),
            (None, None, Some(value)) => Some(SecretSource::Value(Zeroizing::new(value.clone()))),
            _ => {
                self.fault(place, "a secret comes from one place", "write {env: NAME}, {file: PATH} or {value: TEXT}");
                None
            }
        }
    }

    /// `written` are all keys, `keys` those that have an id, an algorithm and material.
    fn token(&mut self, token: file::Token, host: &Host, written: &[file::Key], keys: &[Key]) -> Token {
        let first = || written.first().and_then(|key| key.id.clone());
        let sign_with = token.sign_with.or_else(first).unwrap_or_default();
        let said = sign_with.is_empty() || written.iter().any(|key| key.id.as_deref() == Some(&sign_with));
        match keys.iter().find(|key| key.id == sign_with) {
            None if written.is_empty() => {
                self.fault("sentry.keys", "no key", "add one; `sentry-edge key generate` makes it");
            }
            // The key exists, and its own fault has been reported.
            None if said => {}
            None => {
                self.fault("sentry.token.sign_with", "no key has this name", "name one of sentry.keys");
            }
            Some(Key { material: KeyMaterial::Public(_), .. }) => self.fault(
                "sentry.token.sign_with",
                "this is a public key and cannot sign",
                "name a key with `secret` or `private_key`",
            ),
            Some(_) => {}
        }
        let lifetime = time(token.lifetime, defaults::TOKEN_LIFETIME);
        if lifetime > MAX_TOKEN_LIFETIME {
            self.fault("sentry.token.lifetime", "longer than 30 days", "write 30days or less");
        }
        let leeway = time(token.leeway, defaults::TOKEN_LEEWAY);
        if leeway > MAX_LEEWAY {
            let what = "every token would be good for as much longer, ended ones too";
            self.fault("sentry.token.leeway", what, "write 5m or less, and set the clocks");
        }
        if token.issuer.as_ref().is_some_and(|issuer| issuer.is_empty() || issuer.len() > MAX_ISSUER_BYTES) {
            let write = format!("write 1 to {MAX_ISSUER_BYTES} bytes");
            self.fault("sentry.token.issuer", "it is part of every token, and does not fit", write);
        }
        Token {
            issuer: token.issuer.unwrap_or_else(|| format!("https://{host}")),
            lifetime: lifetime.min(MAX_TOKEN_LIFETIME),
            leeway: leeway.min(MAX_LEEWAY),
            audience: token.audience.unwrap_or(defaults::TOKEN_AUDIENCE),
            sign_with,
            cache: token.cache.map_or(defaults::TOKEN_CACHE, |size| size.0),
        }
    }

    fn cookie(&mut self, cookie: file::Cookie) -> Cookie {
        let checked = Cookie {
            name: cookie.name.unwrap_or_else(|| defaults::TOKEN_COOKIE.into()),
            state_name: cookie.state_name.unwrap_or_else(|| defaults::STATE_COOKIE.into()),
            same_site: cookie.same_site.unwrap_or(defaults::SAME_SITE),
        };
        for (key, name) in [("name", &checked.name), ("state_name", &checked.state_name)] {
            if name.len() > MAX_NAME_BYTES {
                let write = format!("write {MAX_NAME_BYTES} characters at most");
                self.fault(format!("sentry.cookie.{key}"), "too long for a cookie that holds a token", write);
                continue;
            }
            let token = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            if !token {
                self.fault(
                    format!("sentry.cookie.{key}"),
                    format!("`{name}` is no cookie name"),
                    "use letters, digits, -, _",
                );
            } else if !name.starts_with("__Host-") {
                self.fault(
                    format!("sentry.cookie.{key}"),
                    format!("`{name}` could be set by a sibling host"),
                    "begin the name with __Host-, which browsers keep to one host",
                );
            } else if FIXED_COOKIES.contains(&name.as_str()) {
                let what = format!("`{name}` is the name of another cookie of the sign-on host");
                self.fault(format!("sentry.cookie.{key}"), what, "give each cookie its own name");
            }
        }
        if checked.name == checked.state_name {
            self.fault("sentry.cookie.state_name", "equals sentry.cookie.name", "give each cookie its own name");
        }
        checked
    }

    fn ticket(&mut self, ticket: file::Ticket) -> Ticket {
        let lifetime = time(ticket.lifetime, defaults::TICKET_LIFETIME);
        if lifetime > MAX_TICKET_LIFETIME {
            self.fault(
                "sentry.ticket.lifetime",
                "a ticket is part of a URL and must be short-lived (OWASP ASVS 5.0 10.4.3)",
                "write 60s or less",
            );
        }
        let parameter = ticket.parameter.unwrap_or_else(|| defaults::TICKET_PARAMETER.into());
        if parameter.len() > MAX_NAME_BYTES {
            let write = format!("write {MAX_NAME_BYTES} characters at most");
            self.fault("sentry.ticket.parameter", "too long to be part of a URL that holds another one", write);
        }
        if parameter.is_empty() || !parameter.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            self.fault(
                "sentry.ticket.parameter",
                format!("`{parameter}` would need escaping"),
                "use letters and digits",
            );
        }
        Ticket { lifetime, parameter }
    }

    fn login(&mut self, login: file::Login) -> Login {
        let mut bounded = |key: &str, value: Option<usize>, default: usize, most: usize| {
            let bounded = value.unwrap_or(default).clamp(1, most);
            if value.is_some_and(|value| value != bounded) {
                let what = format!("out of bounds, so it is {bounded}");
                self.faults.warn(format!("sentry.login.{key}"), what, format!("write 1 to {most}"));
            }
            bounded
        };
        let workers = bounded("workers", login.workers, defaults::LOGIN_WORKERS, MAX_LOGIN_WORKERS);
        let queue = bounded("queue", login.queue, defaults::LOGIN_QUEUE, MAX_LOGIN_QUEUE);
        Login {
            failures_per_account: login.failures_per_account.unwrap_or(defaults::FAILURES_PER_ACCOUNT),
            failures_per_address: login.failures_per_address.unwrap_or(defaults::FAILURES_PER_ADDRESS),
            title: login.title.unwrap_or_else(|| defaults::LOGIN_TITLE.into()),
            text: login.text,
            logo: login.logo.map(|path| self.path(&path)),
            workers,
            queue,
            deadline: time(login.deadline, defaults::LOGIN_DEADLINE),
        }
    }
}
