//! The values of the cookie that names the server of a client (`balance: {sticky: {cookie: NAME}}`).
//!
//! A value is a message authentication code of the pool and of the server's address. So it names the server without
//! showing its address, and only the edge can make one. The key is derived from the keys that sign tokens, which are in
//! the configuration: values are the same after a reload, after a restart and on every edge. A value that is of another
//! pool, of a server that has been removed, or that the client has invented, names no server.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

/// The bytes of a value; more would only make each request longer.
const VALUE_BYTES: usize = 16;
/// The characters of a value in a cookie.
const VALUE_LENGTH: usize = (VALUE_BYTES * 8).div_ceil(6);
/// The pause between two looks at the addresses of a pool for a value that names none of those in the table. A client
/// whose server DNS has added later than that gets another server.
const REFRESH: Duration = Duration::from_millis(100);

type Value = [u8; VALUE_BYTES];

/// An endpoint, and the text by which it is known on every edge: its address.
pub type Identified<E> = (E, String);

/// The values of one pool's servers.
pub struct Sticky<E> {
    pool: String,
    /// The key of new values first, and then those whose values are still good: of signing keys before or after a change.
    keys: Vec<hmac::Key>,
    table: ArcSwap<Table<E>>,
    begun: Instant,
    /// When the table may be compared with the addresses again, in milliseconds since `begun`.
    next_look: AtomicU64,
    /// Held while that is done.
    looking: Mutex<()>,
}

struct Table<E> {
    endpoints: Vec<Identified<E>>,
    by_value: HashMap<Value, E, ahash::RandomState>,
}

impl<E: Copy + PartialEq> Sticky<E> {
    /// `endpoints` are those of the pool at the moment.
    pub fn new(pool: String, keys: Vec<hmac::Key>, endpoints: Vec<Identified<E>>) -> Self {
        let sticky = Self {
            pool,
            keys,
            table: ArcSwap::from_pointee(Table { endpoints: Vec::new(), by_value: HashMap::default() }),
            begun: Instant::now(),
            next_look: AtomicU64::new(0),
            looking: Mutex::default(),
        };
        sticky.fill(endpoints);
        sticky
    }

    /// Returns the endpoint that a value names, which may have been removed meanwhile. `endpoints` returns those of the
    /// pool at the moment.
    pub fn endpoint(&self, value: &str, endpoints: impl FnOnce() -> Vec<Identified<E>>) -> Option<E> {
        if value.len() != VALUE_LENGTH {
            return None;
        }
        // As many as base64 may write for so many characters.
        let mut bytes = [0; VALUE_BYTES + 2];
        let length = URL_SAFE_NO_PAD.decode_slice(value, &mut bytes).ok()?;
        let value: Value = bytes[..length].try_into().ok()?;
        let find = || self.table.load().by_value.get(&value).copied();
        find().or_else(|| {
            self.look(endpoints);
            find()
        })
    }

    /// Returns the value that names the endpoint of this identity.
    pub fn value(&self, identity: &str) -> Option<String> {
        self.keys.first().map(|key| URL_SAFE_NO_PAD.encode(self.sign(key, identity)))
    }

    fn sign(&self, key: &hmac::Key, identity: &str) -> Value {
        // The name of a pool has no zero in it.
        let text = format!("{}\0{identity}", self.pool);
        let mut value = Value::default();
        value.copy_from_slice(&hmac::sign(key, text.as_bytes()).as_ref()[..VALUE_BYTES]);
        value
    }

    /// Makes the table anew, if there are other endpoints now: once in a while, because anyone can send values that name
    /// none.
    fn look(&self, endpoints: impl FnOnce() -> Vec<Identified<E>>) {
        let is_due = || self.begun.elapsed().as_millis() as u64 >= self.next_look.load(Ordering::Acquire);
        if !is_due() {
            return;
        }
        // A request whose value is good waits here for the one that makes the table.
        let _looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        if is_due() {
            self.fill(endpoints());
            let next = self.begun.elapsed().saturating_add(REFRESH);
            self.next_look.store(next.as_millis() as u64, Ordering::Release);
        }
    }

    fn fill(&self, endpoints: Vec<Identified<E>>) {
        if self.table.load().endpoints == endpoints {
            return;
        }
        let mut by_value = HashMap::default();
        for key in &self.keys {
            for (endpoint, identity) in &endpoints {
                // Of servers with the same address the first one is meant.
                by_value.entry(self.sign(key, identity)).or_insert(*endpoint);
            }
        }
        self.table.store(Arc::new(Table { endpoints, by_value }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The endpoints are numbers.
    fn endpoints(addresses: &[&str]) -> Vec<Identified<usize>> {
        addresses.iter().map(|text| (*text).to_owned()).enumerate().collect()
    }

    fn sticky(pool: &str, keys: &[&str], addresses: &[&str]) -> Sticky<usize> {
        let keys = keys.iter().map(|key| hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes())).collect();
        Sticky::new(pool.into(), keys, endpoints(addresses))
    }

    const TWO: &[&str] = &["10.0.0.1:80", "unix:///run/app.sock"];

    #[test]
    fn a_value_names_its_server_on_every_edge_and_shows_nothing_of_it() {
        let (one, other) = (sticky("p", &["k"], TWO), sticky("p", &["k"], &[TWO[1], TWO[0]]));
        for (endpoint, identity) in endpoints(TWO) {
            let value = one.value(&identity).unwrap();
            assert_eq!(value.len(), VALUE_LENGTH);
            assert!(value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{value}");
            assert_eq!(one.endpoint(&value, Vec::new), Some(endpoint));
            assert_eq!(other.endpoint(&value, Vec::new), Some(1 - endpoint), "by its address alone");
        }
    }

    #[test]
    fn a_value_that_the_edge_did_not_make_for_this_pool_names_nothing() {
        let here = sticky("p", &["k"], TWO);
        let of = |sticky: Sticky<usize>| sticky.value(TWO[0]).unwrap();
        let good = of(sticky("p", &["k"], TWO));
        assert!(here.endpoint(&good, Vec::new).is_some());
        for value in [
            of(sticky("q", &["k"], TWO)),
            of(sticky("p", &["other"], TWO)),
            here.value("10.0.0.9:80").unwrap(),
            String::new(),
            "0".into(),
            "10.0.0.1:80".into(),
            format!("{good}A"),
            format!("{good}="),
            format!("\"{good}\""),
            good[1..].into(),
            good.to_uppercase(),
            "A".repeat(VALUE_LENGTH),
            "\u{e9}".repeat(VALUE_LENGTH / 2),
        ] {
            assert_eq!(here.endpoint(&value, || endpoints(TWO)), None, "{value}");
        }
    }

    #[test]
    fn values_outlast_a_change_of_the_signing_key_for_as_long_as_the_former_one_is_there() {
        let (before, after) = (sticky("p", &["old"], TWO), sticky("p", &["new", "old"], TWO));
        let (endpoint, value) = (endpoints(TWO)[1].0, before.value(TWO[1]).unwrap());
        assert_eq!(after.endpoint(&value, Vec::new), Some(endpoint));
        assert_ne!(after.value(TWO[1]), Some(value.clone()), "new ones are made with the new key");
        assert_eq!(sticky("p", &["new"], TWO).endpoint(&value, Vec::new), None);
    }

    #[test]
    fn an_address_that_was_added_is_found_without_a_look_at_each_value() {
        let sticky = sticky("p", &["k"], &[]);
        let value = sticky.value(TWO[0]).unwrap();
        assert_eq!(sticky.endpoint(&value, || endpoints(TWO)), Some(endpoints(TWO)[0].0));
        let looks = std::cell::Cell::new(0);
        let count = || {
            looks.set(looks.get() + 1);
            endpoints(TWO)
        };
        for _ in 0..1000 {
            assert_eq!(sticky.endpoint(&"A".repeat(VALUE_LENGTH), count), None);
        }
        let most = 1 + sticky.begun.elapsed().as_millis() / REFRESH.as_millis();
        assert!(looks.get() <= most as usize, "{} looks", looks.get());
    }
}
