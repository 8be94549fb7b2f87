//! Connects to addresses that are out of turn, before a request tries them: a host that does not answer costs no request
//! its `timeouts.connect` again and again.
//!
//! A connection is made and closed again, nothing is sent. Where none can be made, the address stays out for longer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::pool_state::PoolStates;
use super::server_state::{AddressState, Target};

/// The interval at which due addresses are looked for.
const TICK: Duration = Duration::from_millis(100);
/// Connection attempts at a time. As many hosts may not answer without holding up the others.
const MAX_CONCURRENT: usize = 64;

/// Runs for as long as the runtime lasts.
pub async fn run(states: Arc<PoolStates>) {
    let (out_of_turn, places) = (states.out_of_turn(), Arc::new(Semaphore::new(MAX_CONCURRENT)));
    loop {
        tokio::time::sleep(TICK).await;
        for address in out_of_turn.addresses() {
            let Some(limit) = address.health.probe_due(Instant::now()) else { continue };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { break };
            if !address.health.begin_trial() {
                continue;
            }
            tokio::spawn(async move {
                let is_connected = timeout(limit, connect(&address.target)).await.is_ok_and(|made| made.is_ok());
                conclude(&address, is_connected);
                drop(place);
            });
        }
    }
}

fn conclude(address: &AddressState, is_connected: bool) {
    if is_connected {
        address.health.probed();
    } else {
        address.health.prolong(Instant::now());
    }
    address.health.end_trial();
}

async fn connect(target: &Target) -> std::io::Result<()> {
    match target {
        Target::Address(address) => TcpStream::connect(address).await.map(drop),
        Target::Path(path) => UnixStream::connect(path).await.map(drop),
    }
}
