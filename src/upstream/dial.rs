//! One connection to a server, made as requests make theirs, and closed again: for `check --connect`.

use std::path::Path;

use pingora_core::connectors::TransportConnector;

use super::pool_state::PoolStates;
use super::resolver::Resolver;
use super::{ConnectionUse, Pool, PrivateServers, Shared, UpstreamTls};
use crate::clock::Clock;
use crate::config::{self, Faults, Location};
use crate::metrics::Metrics;

/// Returns why requests could not reach the server at any of its addresses, or would not trust it. Each connection has the
/// pool's `timeouts.connect`.
pub fn dial(pool: &config::Pool, server: &config::PoolServer) -> Result<(), String> {
    // Faults of files were reported when the configuration was checked.
    let mut faults = Faults::new(Path::new(""), "");
    let secure = pool.tls.as_ref().and_then(|tls| UpstreamTls::load(tls, Clock::default().now(), &mut faults));
    let alone = config::Pool { servers: vec![server.clone()], ..pool.clone() };
    let metrics = Metrics::new("check").map_err(|error| error.to_string())?;
    let names = Resolver::unobserved();
    let _held = match &server.location {
        Location::Name { host, .. } => names.prepare(&[(host, pool.resolve_every)]),
        Location::Address(_) | Location::Unix(_) => Vec::new(),
    };
    let (private, states) = (PrivateServers::default(), PoolStates::default());
    let shared = Shared { private: &private, names: &names, states: &states, cookie_keys: &[], metrics: &metrics };
    let pool = Pool::build(&alone, secure.as_ref(), &shared);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let mut outcome = Err("the name has no address".to_owned());
    for endpoint in pool.endpoints() {
        let peer = pool.peer(endpoint, None, ConnectionUse::Kept, None);
        let made = runtime.block_on(TransportConnector::new(None).new_stream(&peer));
        outcome = made.map(drop).map_err(|error| error.to_string().trim().to_owned());
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}
