//! What a service shows instead of its application: `error_pages` and `maintenance`.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// The maintenance mode of a service: while it is on, everybody gets `503`, but for the exceptions.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Maintenance {
    /// The service is in maintenance while a file of this name exists, whatever is in it: `/run/iqueue.maintenance`. It is
    /// looked for once a second. Without it, administrators alone switch maintenance on and off, by the command line or the
    /// API.
    pub file: Option<String>,
    /// Who gets through all the same.
    pub except: MaintenanceExcept,
}

/// Who gets through while a service is in maintenance.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MaintenanceExcept {
    /// Networks whose clients get through, as CIDRs: `[10.0.0.0/8]`. The address is the one that trusted proxies name.
    pub addresses: Vec<String>,
    /// Roles, any one of which lets a signed-in user through: `[ops]`. Such a user signs in at the sign-on host, or has done
    /// so before.
    pub roles: Vec<String>,
}

/// A status as a key. It may be written with quotes or without.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ErrorStatus(pub String);

impl<'de> Deserialize<'de> for ErrorStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Key;

        impl Visitor<'_> for Key {
            type Value = ErrorStatus;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status, such as 502")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ErrorStatus, E> {
                Ok(ErrorStatus(text.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<ErrorStatus, E> {
                Ok(ErrorStatus(number.to_string()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<ErrorStatus, E> {
                Ok(ErrorStatus(number.to_string()))
            }
        }

        deserializer.deserialize_any(Key)
    }
}
