//! What becomes of servers that fail and of requests that have met one: `pools.NAME.eject` and `pools.NAME.retry`.

use std::fmt;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::config::units::Time;

/// The keys of an ejection, or `false`.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub enum WrittenEject {
    Switch(bool),
    Keys(Eject),
}

/// Not derived, so that a key that is not known is named like any other.
impl<'de> Deserialize<'de> for WrittenEject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SwitchOrKeys;
        impl<'de> Visitor<'de> for SwitchOrKeys {
            type Value = WrittenEject;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`false` or `{failures: N, for: TIME, at_most: TIME, …}`")
            }

            fn visit_bool<E: de::Error>(self, is_on: bool) -> Result<WrittenEject, E> {
                Ok(WrittenEject::Switch(is_on))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WrittenEject, A::Error> {
                Eject::deserialize(MapAccessDeserializer::new(map)).map(WrittenEject::Keys)
            }
        }
        deserializer.deserialize_any(SwitchOrKeys)
    }
}

/// When a server that fails is left out for a while.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Eject {
    /// How often a server has to fail, in a row, to be ejected: 1 to 1000. It fails when a connection cannot be made, which
    /// counts double, when its certificate is not trusted, when no response comes in time, when it closes or resets the
    /// connection, and when what comes is no response.
    pub failures: Option<u32>,
    /// For how long it gets no requests, at first; each further time twice as long.
    pub r#for: Option<Time>,
    /// The longest time.
    pub at_most: Option<Time>,
    /// How many of the addresses of a pool may be ejected at a time, in percent: 0 to 100. One may always be, unless this
    /// is 0, and the last one never is.
    pub max_ejection_percent: Option<u8>,
    /// Statuses of responses that count as a failure, such as `[502, 503]`: 400 to 599.
    pub statuses: Option<Vec<u16>>,
}

/// When a request is sent again.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Retry {
    /// How often a request may be sent again, 0 to 10; `retries: N` is the same.
    pub attempts: Option<usize>,
    /// After what a request is sent again.
    pub on: Option<Vec<RetryOn>>,
    /// How many of the requests of ten seconds may be sent again, in percent: 0 to 100, and ten requests beside these.
    pub budget_percent: Option<u8>,
}

/// After what a request is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RetryOn {
    /// No connection could be made.
    Connect,
    /// A kept connection was closed before a byte of a response, where nothing of the request was written or it is a GET or
    /// HEAD.
    Closed,
    /// No response came in time to a GET or HEAD.
    Timeout,
}
