//! The `sessions` part of the document, and the policies for an outage of the store.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::WeightedServer;
use crate::config::units::Time;

/// Where sessions are kept, and what happens while that store is unavailable.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Sessions {
    /// The kind of store. *Restart*
    pub store: Option<SessionStore>,
    /// For `store: memory`.
    pub memory: Memory,
    /// For `store: memcached`: memcached 1.6.10 or later, which has to be used without a password.
    pub memcached: Memcached,
    /// What happens while the store gives no answer, several times in a row: one late answer is requested again, and is
    /// no outage. A session that ended at this edge, or that it has found ended, passes under no policy; one that was
    /// ended at another edge during the outage may pass at this one for as long as the policy says. Example: `{policy:
    /// recent, within: 60s}`.
    pub on_outage: Option<OnOutage>,
    /// How exact the last access in a session record is. The idle timeout is exact whatever this is: the store's expiry
    /// moves with every request that extends the session.
    pub last_access_interval: Option<Time>,
    /// How often the session of a [long-lived request](concepts/long-lived-requests.md) is checked; three times in an
    /// idle timeout that is shorter than three of these.
    pub session_recheck_interval: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionStore {
    /// This process alone; every user is signed out when it restarts.
    Memory,
    /// One or several memcached servers, which edges share.
    Memcached,
    /// No sessions are kept: the token alone decides, as long as it is valid. There is no idle timeout and no
    /// fingerprint, and a logout ends no session: see [sessions and outages](concepts/sessions-and-outages.md).
    None,
}

/// The session store in the process's memory.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Memory {
    /// Sessions held, and as many tickets; 1 or more. Counters of failed logins have tables of their own, of 100,000
    /// each or of this where it is less; a full one forgets the smallest counts and refuses nothing. *Restart*
    pub capacity: Option<usize>,
}

/// The session store in memcached, 1.6.10 or later, used without a password.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Memcached {
    /// 1 to 64 servers: `HOST:PORT`, `[IPV6]:PORT`, `unix:///PATH` or `{address: …, weight: N}`. A consistent hash over
    /// the addresses as they are written decides where a session is stored, so all edges write them alike. A reload
    /// takes up another list and ends no session. Example: `["10.0.0.1:11211", "10.0.0.2:11211"]`.
    pub servers: Vec<MemcachedServer>,
    /// Lists of `servers` before this one, the last one first, 8 at most: for an edge that starts on a machine which
    /// has not had them, while sessions are still stored where they say. For the longest idle timeout, an hour at
    /// least, from the start on they are read as well; then the key can go. A machine's own former lists are kept in a
    /// file in `$STATE_DIRECTORY`, or beside the user directory, and need not be named.
    pub former: Vec<Vec<MemcachedServer>>,
    /// Servers that each session is stored on, 1 to 3 and no more than there are. With 2, a server that dies, is cut
    /// off or comes back empty logs no user out; each request reads both.
    pub copies: Option<usize>,
    /// For a look-up as a whole, connecting included. One that gets no answer for the first time is tried once more.
    /// *Restart*
    pub timeout: Option<Time>,
    /// The same for what a login, a ticket, a redemption and a logout do, which cannot be repeated as easily; not less
    /// than `timeout`. It is also how long a request waits for a session that could not be looked up and that no policy
    /// admits, counted from the moment at which the store fell silent: short stalls cause no errors. A server that has
    /// been silent for longer, whichever requests and logins have met that, is not waited for. *Restart*
    pub sign_on_timeout: Option<Time>,
}

/// A memcached server: its address, or its address with a weight.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`HOST:PORT`, `unix:///PATH` or `{address: HOST:PORT, weight: N}`")]
pub enum MemcachedServer {
    Address(String),
    Weighted(WeightedServer),
}

/// A policy by its name, or with its parameter.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "`deny`, `token_only`, `{policy: recent, within: 60s}`, `{policy: deny}` or `{policy: token_only}`"
)]
pub enum OnOutage {
    Word(OutageWord),
    Policy(OutagePolicy),
}

/// A policy with its parameter.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutagePolicy {
    /// Which requests are admitted.
    pub policy: OutageWord,
    /// With `recent`: how long ago this process may have found the session active.
    pub within: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutageWord {
    /// Every request that needs a session gets a `503`; no user is logged out.
    Deny,
    /// Users whose session this process has seen active within `within`, by a request, a login or a redemption, are
    /// admitted. Such an admission does not prolong itself, so that `within` after the store last answered no request
    /// passes.
    Recent,
    /// A valid token is enough.
    TokenOnly,
}
