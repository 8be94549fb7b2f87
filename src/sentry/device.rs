//! The device cookie: a long-lived name of one browser at the sign-on host, without an identity.
//!
//! It names the browser's record in the session store, and shows edges, which alone have the key, which accounts have
//! signed in with this browser before. Its value is base64url of: one byte of version, 16 random bytes, up to 16 marks
//! of 6 bytes, and an HMAC-SHA-256 over all of that. A mark is a MAC of the device and an account: without the key it
//! does not reveal the account, and it is different in every browser.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use ring::hmac;
use ring::rand::SecureRandom;

use crate::auth::cookie::SetCookie;
use crate::auth::keys::Keys;
use crate::config::{DEVICE_COOKIE, SameSite};
use crate::sessions::key::NoRandomness;
use crate::users::UserName;

/// The name of the cookie, on the sign-on host alone. It is `Lax`, because a browser comes from a service to
/// `/copyCookie` by a redirect, with which a `Strict` cookie would not be sent.
pub const COOKIE: &str = DEVICE_COOKIE;

/// Maximum lifetime of a cookie in browsers (RFC 6265bis §5.5); renewed at each login.
const LIFETIME_SECONDS: u64 = 400 * 24 * 60 * 60;

const VERSION: u8 = 1;
const ID_BYTES: usize = 16;
const MARK_BYTES: usize = 6;
const MAC_BYTES: usize = 32;

/// Number of accounts that the browser of a shared workplace remembers; the one that has not signed in for longest is
/// forgotten first.
const MAX_MARKS: usize = 16;

/// 6 bytes: another account has a mark of this device by chance once in 10^13 logins.
type AccountMark = [u8; MARK_BYTES];

/// The id of a browser. It is no credential of an account, but with it a client could change the record of the device,
/// so it is not printed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceId([u8; ID_BYTES]);

/// The keys of device cookies: the one that signs, and then the former ones.
#[derive(Clone)]
pub struct Devices(Arc<[DeviceKey]>);

struct DeviceKey {
    cookie: hmac::Key,
    mark: hmac::Key,
}

/// A browser with a device cookie of ours, or one that is about to get its first.
#[derive(Clone)]
pub struct Device {
    id: DeviceId,
    /// Newest first.
    marks: Vec<AccountMark>,
    keys: Devices,
}

impl Devices {
    pub fn new(keys: &Keys) -> Self {
        let (cookies, marks) = (keys.derive_all("device cookie"), keys.derive_all("account on a device"));
        Self(cookies.into_iter().zip(marks).map(|(cookie, mark)| DeviceKey { cookie, mark }).collect())
    }

    /// Returns a device for a browser that has no device cookie yet.
    pub fn fresh(&self) -> Result<Device, NoRandomness> {
        let mut id = [0; ID_BYTES];
        ring::rand::SystemRandom::new().fill(&mut id).map_err(|_| NoRandomness)?;
        Ok(Device { id: DeviceId(id), marks: Vec::new(), keys: self.clone() })
    }

    /// Returns `None` for anything that no key of ours has signed.
    pub fn parse(&self, value: &str) -> Option<Device> {
        const LONGEST: usize = 1 + ID_BYTES + MAX_MARKS * MARK_BYTES + MAC_BYTES;
        // Base64 takes four characters for three bytes.
        if value.len() > LONGEST.div_ceil(3) * 4 {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(value).ok()?;
        let (signed, mac) = bytes.split_last_chunk::<MAC_BYTES>()?;
        self.0.iter().any(|key| hmac::verify(&key.cookie, signed, mac).is_ok()).then_some(())?;
        let (&[VERSION], rest) = signed.split_first_chunk::<1>()? else { return None };
        let (id, rest) = rest.split_first_chunk::<ID_BYTES>()?;
        let (marks, []) = rest.as_chunks::<MARK_BYTES>() else { return None };
        (marks.len() <= MAX_MARKS).then(|| Device { id: DeviceId(*id), marks: marks.to_vec(), keys: self.clone() })
    }
}

impl DeviceId {
    pub fn as_bytes(&self) -> &[u8; ID_BYTES] {
        &self.0
    }
}

impl Device {
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// Returns whether this account has signed in with this browser before.
    pub fn knows(&self, account: &UserName) -> bool {
        self.keys.0.iter().any(|key| self.marks.contains(&self.mark(key, account)))
    }

    /// Returns the device after a login of this account.
    pub fn with_account(mut self, account: &UserName) -> Self {
        let keys = self.keys.clone();
        let marks: Vec<AccountMark> = keys.0.iter().map(|key| self.mark(key, account)).collect();
        // Marks that a former key made are replaced: an account has one mark.
        self.marks.retain(|mark| !marks.contains(mark));
        self.marks.splice(..0, marks.first().copied());
        self.marks.truncate(MAX_MARKS);
        self
    }

    fn mark(&self, key: &DeviceKey, account: &UserName) -> AccountMark {
        let tag = hmac::sign(&key.mark, &[&self.id.0[..], account.as_str().as_bytes()].concat());
        // The tag of SHA-256 has 32 bytes.
        tag.as_ref().first_chunk().copied().unwrap_or_default()
    }

    fn cookie_value(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.id.0);
        bytes.extend(self.marks.iter().flatten());
        if let Some(key) = self.keys.0.first() {
            let mac = hmac::sign(&key.cookie, &bytes);
            bytes.extend_from_slice(mac.as_ref());
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Returns the cookie that stores this device in the browser, with its marks.
    pub fn cookie(&self) -> Option<HeaderValue> {
        let (name, value, same_site) = (COOKIE, &*self.cookie_value(), SameSite::Lax);
        SetCookie { name, value, same_site, max_age: Some(LIFETIME_SECONDS) }.to_header()
    }
}

impl std::fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeviceId(…)")
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("accounts", &self.marks.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Devices of an edge with these keys, of which the first signs.
    fn devices(keys: &[&str]) -> Devices {
        let one = |key: &&str| format!("{{id: {key}, algorithm: HS256, secret: {{value: {}}}}}", key.repeat(32));
        let all = keys.iter().map(one).collect::<Vec<_>>().join(", ");
        let yaml = format!("sentry: {{host: sentry.test, token: {{sign_with: {}}}, keys: [{all}]}}", keys[0]);
        let (config, mut faults) = crate::config::parse("edge.yaml".as_ref(), &yaml).unwrap();
        Devices::new(&Keys::load(&config.sentry, &mut faults).unwrap())
    }

    fn name(name: &str) -> UserName {
        UserName::parse(name).unwrap()
    }

    #[test]
    fn a_device_comes_back_as_it_was_and_knows_who_signed_in() {
        let devices = devices(&["a"]);
        let fresh = devices.fresh().unwrap();
        assert!(!fresh.knows(&name("ana")));
        let device = fresh.clone().with_account(&name("ana")).with_account(&name("ben"));
        let back = devices.parse(&device.cookie_value()).unwrap();
        assert_eq!((back.id(), &back.marks), (fresh.id(), &device.marks));
        assert!(back.knows(&name("ana")) && back.knows(&name("BEN")) && !back.knows(&name("eve")));
        let other = devices.fresh().unwrap().with_account(&name("ana"));
        assert_ne!(other.marks[0], device.marks[1], "a mark tells nothing to who sees two devices");
    }

    #[test]
    fn only_what_a_key_of_ours_has_signed_is_a_device() {
        let devices = devices(&["a"]);
        let value = devices.fresh().unwrap().with_account(&name("ana")).cookie_value();
        for at in 0..value.len() {
            assert!(devices.parse(&value[..at]).is_none(), "{at} characters");
            let other = if value.as_bytes()[at] == b'A' { "B" } else { "A" };
            let changed = format!("{}{other}{}", &value[..at], &value[at + 1..]);
            assert!(devices.parse(&changed).is_none(), "character {at} changed");
        }
        for odd in ["", "AA", &"A".repeat(64), &"A".repeat(100_000), &format!("{value}AAAA")] {
            assert!(devices.parse(odd).is_none());
        }
    }

    #[test]
    fn sixteen_accounts_are_remembered_each_once_and_the_oldest_is_forgotten() {
        let devices = devices(&["a"]);
        let mut device = devices.fresh().unwrap().with_account(&name("u0"));
        for n in 0..16 {
            device = device.with_account(&name(&format!("u{n}")));
        }
        assert!((0..16).all(|n| device.knows(&name(&format!("u{n}")))));
        device = device.with_account(&name("u16"));
        assert!(!device.knows(&name("u0")) && device.knows(&name("u1")));
        assert_eq!(devices.parse(&device.cookie_value()).unwrap().marks.len(), MAX_MARKS);
        assert!(device.cookie().unwrap().len() < 400);
    }

    /// The new key is added everywhere, then signs, then the old one goes.
    #[test]
    fn a_device_outlives_a_change_of_keys() {
        let old = devices(&["a"]).fresh().unwrap().with_account(&name("ana"));
        let rolling = devices(&["b", "a"]);
        let met = rolling.parse(&old.cookie_value()).unwrap();
        assert!(met.id() == old.id() && met.knows(&name("ana")));
        let renewed = met.with_account(&name("ana"));
        assert_eq!(renewed.marks.len(), 1);
        for edge in [devices(&["a", "b"]), rolling, devices(&["b"])] {
            let device = edge.parse(&renewed.cookie_value()).unwrap();
            assert!(device.id() == old.id() && device.knows(&name("ana")));
        }
        assert!(devices(&["a"]).parse(&renewed.cookie_value()).is_none(), "an edge without the key");
    }

    #[test]
    fn the_cookie_stays_on_its_host_out_of_scripts_and_out_of_logs() {
        let device = devices(&["a"]).fresh().unwrap();
        let cookie = device.cookie().unwrap();
        let (_, attributes) = cookie.to_str().unwrap().split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=34560000");
        assert_eq!(format!("{device:?} {:?}", device.id()), "Device { accounts: 0, .. } DeviceId(…)");
    }
}
