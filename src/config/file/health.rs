//! Active checks of the servers of a pool, as the document has them: `pools.NAME.health`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::units::{Statuses, Time};

/// Checks of the servers, beside what their requests show. A server that fails them gets no requests, unless all servers of
/// the pool do: then all are used. There are no checks of gRPC's health service: write `{tcp: true}` for such servers.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Health {
    /// A GET, over the pool's protocol and TLS, in a connection of its own. Either this or `tcp` is required. Example:
    /// `{path: /healthz, status: 200-399}`.
    pub http: Option<HttpCheck>,
    /// `true` where it is enough that a connection can be made, the TLS handshake included.
    pub tcp: Option<bool>,
    /// The time from one check of an address to the next, `100ms` or more. Up to a tenth of it is left out or added, so
    /// that checks do not come all at once.
    pub interval: Option<Time>,
    /// The time for a whole check, from the connection to the head of the response; not longer than `interval`.
    pub timeout: Option<Time>,
    /// Failed checks in a row after which a server is down, 1 to 100.
    pub fall: Option<u32>,
    /// Good checks in a row after which it is up again, 1 to 100.
    pub rise: Option<u32>,
}

/// A check over HTTP.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HttpCheck {
    /// The path, and the query where there is one. Example: `/healthz`.
    pub path: Option<String>,
    /// The statuses of a server that is well: one, or a range. Redirects are not followed, and count by their status. The
    /// body is not read. Example: `200-399`.
    pub status: Option<Statuses>,
    /// The `Host` of the request. Without it that is `tls.server_name`, where that is set, else the address of the server
    /// as it is written under `servers`. Example: `app.internal`.
    pub host: Option<String>,
}
