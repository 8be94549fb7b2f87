//! The task that looks for the files which switch maintenance on: once a second, each on a thread that may wait for it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::blocking::BlockingThreads;
use crate::config::Config;
use crate::maintenance::{self, MaintenanceSwitches};

/// How soon a file that appears, or goes, is seen.
const TICK: Duration = Duration::from_secs(1);

/// Never ends. A file whose file system does not answer is not looked for a second time meanwhile, so it holds one thread;
/// its service stays as it was.
pub async fn watch(config: Arc<ArcSwap<Config>>, switches: Arc<MaintenanceSwitches>, threads: Arc<BlockingThreads>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks: HashMap<(Arc<str>, PathBuf), JoinHandle<()>> = HashMap::new();
    loop {
        ticks.tick().await;
        looks.retain(|_, look| !look.is_finished());
        for service in &config.load().services {
            let Some(path) = service.maintenance.as_ref().and_then(|maintenance| maintenance.file.as_ref()) else {
                continue;
            };
            let Some(switch) = switches.find(&service.name) else { continue };
            let key = (Arc::clone(&service.name), path.clone());
            if looks.contains_key(&key) {
                continue;
            }
            let path = path.clone();
            let look = threads.spawn(move || {
                if let Some(exists) = maintenance::exists(&path) {
                    switch.looked(&path, exists);
                }
            });
            looks.extend(look.map(|look| (key, look)));
        }
    }
}
