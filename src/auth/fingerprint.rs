//! The specification's FINGER_PRINT: a keyed hash over properties of a request that stay the same for one browser.
//!
//! Only the family and platform of `User-Agent` are hashed, so that an update of the browser logs no user out; other
//! agents that the same device sends within a session count as its browser (see `user_agent`). The client's address is
//! never part of it, because phones change theirs. The key is the session id: a fingerprint can only be compared within
//! its session, and a rotation of signing keys changes no fingerprint.

use std::sync::OnceLock;

use http::{HeaderMap, header};
use ring::hmac;

use super::user_agent::{self, Kind};
use crate::config::FingerprintProperty;
use crate::sessions::{Fingerprint, SessionId};

/// Computes fingerprints over the configured properties.
#[derive(Clone, Debug)]
pub struct Fingerprinter(Vec<FingerprintProperty>);

/// The header fields that a session's token first came with, byte for byte, and their fingerprint.
///
/// A fingerprint is a function of the session and of these fields. For the same bytes it need not be computed again;
/// for any others it is, so a token that comes with another User-Agent is noticed as if nothing were cached. An entry
/// is never replaced, so no client can evict it. It lives as long as its token in the token cache, and so as long as
/// the snapshot, whose properties do not change.
#[derive(Default)]
pub struct CachedFingerprint(OnceLock<(Box<[u8]>, Fingerprint)>);

impl CachedFingerprint {
    /// Maximum bytes of all fields together; longer ones are not cached. Browsers send about 150.
    pub const MAX_BYTES: usize = 512;
}

impl Fingerprinter {
    pub fn new(properties: Vec<FingerprintProperty>) -> Self {
        Self(properties)
    }

    /// Returns the same as [`of`](Self::of), which is computed only for fields that are not in `cache`.
    pub fn of_cached(&self, headers: &HeaderMap, session: &SessionId, cache: &CachedFingerprint) -> Fingerprint {
        if let Some((fields, fingerprint)) = cache.0.get() {
            let is_same = self.is_of_fields(fields, headers);
            return if is_same { *fingerprint } else { self.of(headers, session) };
        }
        let fingerprint = self.of(headers, session);
        let mut fields = Vec::new();
        for property in &self.0 {
            fields.extend_from_slice(field(*property, headers));
            fields.push(END);
        }
        if fields.len() <= CachedFingerprint::MAX_BYTES {
            // If another request was first, its fields are kept.
            cache.0.get_or_init(|| (fields.into(), fingerprint));
        }
        fingerprint
    }

    /// Returns whether `fields` are those of this request, each followed by [`END`].
    fn is_of_fields(&self, fields: &[u8], headers: &HeaderMap) -> bool {
        let mut rest = Some(fields);
        for property in &self.0 {
            rest = rest.and_then(|rest| rest.strip_prefix(field(*property, headers))?.strip_prefix(&[END]));
        }
        rest.is_some_and(<[u8]>::is_empty)
    }

    pub fn of(&self, headers: &HeaderMap, session: &SessionId) -> Fingerprint {
        self.hash(headers, &key(session), user_agent::kind(agent(headers)))
    }

    /// Returns whether a session with this fingerprint may belong to this request: it is from the same browser, or from
    /// an agent that the same device sends beside its browser.
    pub fn matches(&self, headers: &HeaderMap, session: &SessionId, fingerprint: Fingerprint) -> bool {
        self.of(headers, session) == fingerprint || self.is_companion(headers, session, fingerprint)
    }

    /// Returns whether this request has an agent that a browser with this fingerprint sends beside its own. No hash
    /// shows that, so each kind of browser that may do so is tried: at most about 20, and only if the fingerprints
    /// differ. The session keeps what it always kept, and edges of two versions can share it.
    #[cold]
    pub fn is_companion(&self, headers: &HeaderMap, session: &SessionId, fingerprint: Fingerprint) -> bool {
        if !self.0.contains(&FingerprintProperty::UserAgent) {
            return false;
        }
        let key = key(session);
        user_agent::companions(agent(headers)).into_iter().any(|kind| self.hash(headers, &key, kind) == fingerprint)
    }

    fn hash(&self, headers: &HeaderMap, key: &hmac::Key, (family, platform): Kind<'_>) -> Fingerprint {
        #[cfg(test)]
        HASHED.set(HASHED.get() + 1);
        let mut context = hmac::Context::with_key(key);
        for property in &self.0 {
            match property {
                FingerprintProperty::UserAgent => {
                    context.update(family.as_bytes());
                    context.update(b"|");
                    context.update(platform.as_bytes());
                }
                FingerprintProperty::AcceptLanguage => context.update(field(*property, headers)),
            }
            context.update(&[END]);
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&context.sign().as_ref()[..16]);
        Fingerprint::new(bytes)
    }
}

fn key(session: &SessionId) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, session.as_str().as_bytes())
}

/// An agent that is not UTF-8 counts as empty; all such agents look alike, which only weakens their own fingerprint.
fn agent(headers: &HeaderMap) -> &str {
    std::str::from_utf8(field(FingerprintProperty::UserAgent, headers)).unwrap_or_default()
}

/// Ends a field in the hash. No field value has this byte (RFC 9110 §5.5), so two fields cannot be mistaken for two
/// others.
const END: u8 = 0;

fn field(property: FingerprintProperty, headers: &HeaderMap) -> &[u8] {
    let name = match property {
        FingerprintProperty::UserAgent => header::USER_AGENT,
        FingerprintProperty::AcceptLanguage => header::ACCEPT_LANGUAGE,
    };
    headers.get(name).map(|value| value.as_bytes()).unwrap_or_default()
}

#[cfg(test)]
thread_local! {
    /// Fingerprints that this thread has computed.
    pub static HASHED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(user_agent: &str, session: &SessionId) -> Fingerprint {
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, user_agent.parse().unwrap());
        Fingerprinter::new(vec![FingerprintProperty::UserAgent]).of(&headers, session)
    }

    const CHROME: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36";

    #[test]
    fn an_update_of_the_browser_does_not_change_it() {
        let session = SessionId::random().unwrap();
        assert_eq!(print(CHROME, &session), print(&CHROME.replace("140", "141"), &session));
        assert_eq!(print("curl/7.88.1", &session), print("curl/8.0", &session));
    }

    #[test]
    fn what_was_seen_changes_no_fingerprint() {
        let session = SessionId::random().unwrap();
        let fingerprinter =
            Fingerprinter::new(vec![FingerprintProperty::UserAgent, FingerprintProperty::AcceptLanguage]);
        let long = "x".repeat(CachedFingerprint::MAX_BYTES);
        let requests = [(CHROME, "de"), ("curl/8.0", "de"), (CHROME, ""), ("curl/8.0", "en"), ("", ""), (&long, "de")];
        // The first request is cached, and then all of them come again.
        for first in 0..requests.len() {
            let cache = CachedFingerprint::default();
            for (agent, language) in requests[first..].iter().chain(&requests) {
                let mut headers = HeaderMap::new();
                headers.insert(header::USER_AGENT, agent.parse().unwrap());
                headers.insert(header::ACCEPT_LANGUAGE, language.parse().unwrap());
                let cached = fingerprinter.of_cached(&headers, &session, &cache);
                assert_eq!(cached, fingerprinter.of(&headers, &session), "{agent} {language}");
            }
            assert!(cache.0.get().is_none_or(|(fields, _)| fields.len() <= CachedFingerprint::MAX_BYTES));
        }
    }

    /// Kinds as a former version determined them. Its sessions stay valid, and its edges may run beside ours.
    #[test]
    fn a_session_of_a_former_version_stays_valid() {
        let session = SessionId::random().unwrap();
        let fingerprinter = Fingerprinter::new(vec![FingerprintProperty::UserAgent]);
        let macintosh = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15";
        let (linux, windows) = ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36", "Mozilla/5.0 (Windows NT 10.0;");
        for (agent, former) in [
            (CHROME.to_owned(), ("chrome", "windows")),
            (format!("{CHROME} Edg/140.0"), ("edge", "windows")),
            (format!("{windows} WOW64; Trident/7.0; rv:11.0) like Gecko"), ("Mozilla", "windows")),
            (format!("{macintosh} Version/17.4 Safari/605.1.15"), ("safari", "macos")),
            (format!("{macintosh} CriOS/123 Version/11.1.1 Safari/605.1.15"), ("chrome", "macos")),
            (format!("{macintosh} FxiOS/124.0 Safari/605.1.15"), ("firefox", "macos")),
            (format!("{linux} SamsungBrowser/21.0 Chrome/110.0 Safari/537.36"), ("samsung", "linux")),
            ("AppleCoreMedia/1.0 (iPhone; U; CPU OS 17_4 like Mac OS X)".to_owned(), ("AppleCoreMedia", "ios")),
            ("curl/8.0".to_owned(), ("curl", "other")),
            (String::new(), ("", "other")),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::USER_AGENT, agent.parse().unwrap());
            let former = fingerprinter.hash(&headers, &key(&session), former);
            assert!(fingerprinter.matches(&headers, &session, former), "{agent}");
        }
    }

    #[test]
    fn another_browser_another_platform_and_another_session_change_it() {
        let session = SessionId::random().unwrap();
        let edge = format!("{CHROME} Edg/140.0");
        assert_ne!(print(CHROME, &session), print(&edge, &session));
        assert_ne!(print(CHROME, &session), print(&CHROME.replace("Windows NT 10.0", "X11; Linux"), &session));
        assert_ne!(print(CHROME, &session), print(CHROME, &SessionId::random().unwrap()));
        assert_ne!(print(CHROME, &session), print("curl/8.0", &session));
    }
}
