//! The specification's FINGER_PRINT: a keyed hash over properties of a request that stay the same for one browser.
//!
//! Of User-Agent only family and platform count, so that an update of the browser logs nobody out; the address
//! never does, because phones change theirs. The session id is the key: a fingerprint can be compared within its
//! session alone, and a rotation of signing keys changes none.

use http::{HeaderMap, header};
use ring::hmac;

use crate::config::FingerprintProperty;
use crate::sessions::{Fingerprint, SessionId};

/// Computes fingerprints over the configured properties.
#[derive(Clone, Debug)]
pub struct Fingerprinter(Vec<FingerprintProperty>);

impl Fingerprinter {
    pub fn new(properties: Vec<FingerprintProperty>) -> Self {
        Self(properties)
    }

    pub fn of(&self, headers: &HeaderMap, session: &SessionId) -> Fingerprint {
        let key = hmac::Key::new(hmac::HMAC_SHA256, session.as_str().as_bytes());
        let mut context = hmac::Context::with_key(&key);
        let text = |name| headers.get(name).map(|value| value.as_bytes()).unwrap_or_default();
        for property in &self.0 {
            match property {
                FingerprintProperty::UserAgent => {
                    let (family, platform) = family_and_platform(text(header::USER_AGENT));
                    context.update(family.as_bytes());
                    context.update(b"|");
                    context.update(platform.as_bytes());
                }
                FingerprintProperty::AcceptLanguage => context.update(text(header::ACCEPT_LANGUAGE)),
            }
            context.update(b"\0");
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&context.sign().as_ref()[..16]);
        Fingerprint::new(bytes)
    }
}

/// Names in the order in which they decide: Edge and Opera also say Chrome, Chrome also says Safari.
const FAMILIES: [(&str, &str); 8] = [
    ("Edg", "edge"),
    ("OPR/", "opera"),
    ("SamsungBrowser/", "samsung"),
    ("Firefox/", "firefox"),
    ("FxiOS/", "firefox"),
    ("CriOS/", "chrome"),
    ("Chrome/", "chrome"),
    ("Safari/", "safari"),
];

/// Android also says Linux; an iPad may say Macintosh, and then says so always.
const PLATFORMS: [(&str, &str); 7] = [
    ("Windows", "windows"),
    ("Android", "android"),
    ("iPhone", "ios"),
    ("iPad", "ios"),
    ("Macintosh", "macos"),
    ("CrOS", "chromeos"),
    ("Linux", "linux"),
];

fn family_and_platform(user_agent: &[u8]) -> (&str, &'static str) {
    // What is no text has no family; all such agents look alike, which only weakens their own fingerprint.
    let text = std::str::from_utf8(user_agent).unwrap_or_default();
    let named = |names: &'static [(&str, &str)]| names.iter().find(|(mark, _)| text.contains(mark)).map(|(_, n)| *n);
    // A program rather than a browser: what stands before its version, such as `curl`.
    let product = text.split(['/', ' ']).next().unwrap_or_default();
    (named(&FAMILIES).unwrap_or(product), named(&PLATFORMS).unwrap_or("other"))
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
    fn another_browser_another_platform_and_another_session_change_it() {
        let session = SessionId::random().unwrap();
        let edge = format!("{CHROME} Edg/140.0");
        assert_ne!(print(CHROME, &session), print(&edge, &session));
        assert_ne!(print(CHROME, &session), print(&CHROME.replace("Windows NT 10.0", "X11; Linux"), &session));
        assert_ne!(print(CHROME, &session), print(CHROME, &SessionId::random().unwrap()));
        assert_ne!(print(CHROME, &session), print("curl/8.0", &session));
    }
}
