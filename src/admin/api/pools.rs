//! The API's calls about pools: how each server stands, and what an administrator has set for it.

use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use super::body;
use super::response::ApiResponse;
use crate::clock::UnixTime;
use crate::config::{Pool, PoolServer};
use crate::snapshot::Snapshot;
use crate::upstream::pool_state::PoolStates;
use crate::upstream::server_state::{Administrative, ServerState};

/// The body of a call that sets a state.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewState {
    state: String,
}

/// Returns every server of every pool.
pub fn list(snapshot: &Snapshot, states: &PoolStates, now: UnixTime) -> ApiResponse {
    let moment = Instant::now();
    let pool = |pool: &Pool| {
        let server = |written: &PoolServer| {
            let state = states.server(&pool.name, &written.name);
            server_as_json(written, state.as_deref(), now, moment)
        };
        json!({ "name": pool.name, "servers": pool.servers.iter().map(server).collect::<Vec<_>>() })
    };
    ApiResponse::pools(json!({ "pools": snapshot.pools.iter().map(|it| pool(&it.config)).collect::<Vec<_>>() }))
}

fn server_as_json(written: &PoolServer, state: Option<&ServerState>, now: UnixTime, moment: Instant) -> Value {
    let mut server = json!({
        "address": written.name,
        "weight": written.weight,
        "state": state.map_or(Administrative::Active, ServerState::administrative).name(),
        "in_flight": state.map_or(0, ServerState::in_flight),
        "backup": state.is_some_and(ServerState::is_backup),
        "ejected_until": null,
        "last_failure": null,
    });
    let Some(state) = state else { return server };
    let addresses = state.addresses();
    // A server is out of turn while all of its addresses are.
    let until: Option<Vec<_>> = addresses.iter().map(|address| address.health.ejected_for(moment)).collect();
    if let Some(left) = until.and_then(|left| left.into_iter().min()) {
        server["ejected_until"] = json!(now.plus(left).rfc3339());
    }
    let failures = addresses.iter().filter_map(|address| Some((address, address.health.last_failure()?)));
    if let Some((address, (failure, at))) = failures.max_by_key(|(_, (_, at))| *at) {
        let at = now.minus(moment.saturating_duration_since(at)).rfc3339();
        server["last_failure"] = json!({ "reason": failure.reason(), "at": at, "address": address.target.to_string() });
    }
    server
}

/// Sets the state of a server, for as long as the process runs.
pub fn set_state(snapshot: &Snapshot, states: &PoolStates, (pool, server): (&str, &str), body: &[u8]) -> ApiResponse {
    let state = body::parse(body)
        .and_then(|NewState { state }| Administrative::ALL.into_iter().find(|known| known.name() == state));
    let Some(state) = state else {
        return ApiResponse::bad_request("the body is {\"state\": \"active\"}, \"draining\" or \"disabled\"");
    };
    let written = snapshot.pools.iter().find(|known| known.config.name == pool);
    let Some(written) = written else { return ApiResponse::unknown_pool(pool) };
    let configured = written.config.servers.iter().any(|known| known.name == server);
    match states.server(pool, server).filter(|_| configured) {
        Some(known) => {
            let was = known.set_administrative(state);
            ApiResponse::server_state_set((pool, server), state.name(), was.name(), known.in_flight())
        }
        None => ApiResponse::unknown_server(pool, server),
    }
}
