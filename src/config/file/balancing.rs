//! How a pool chooses servers, as the document has it: `pools.NAME.balance`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the server of a request is chosen.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "`round_robin`, `least_request` or `{sticky: {cookie: NAME}}`; there are no other policies, such as a hash"
)]
pub enum Balance {
    Policy(BalancePolicy),
    Sticky(StickyPolicy),
}

/// The policies without settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BalancePolicy {
    /// Servers take turns, by weight.
    RoundRobin,
    /// Of two servers that are drawn by weight, the one with fewer requests in flight for its weight gets the request.
    LeastRequest,
}

/// Clients stay with a server.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StickyPolicy {
    /// A client stays with the server that its first request went to, by a cookie that the edge sets. Clients without one
    /// take turns.
    pub sticky: StickyCookie,
}

/// The cookie that names a client's server.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StickyCookie {
    /// The name of the cookie. It is reserved for the edge: no application sees or sets a cookie of this name. It must not
    /// be that of a cookie of an application, such as `JSESSIONID`. Example: `iqueue_server`.
    pub cookie: String,
}
