//! What the edge says of itself: version, configuration, last reload, listeners. The process's side of `GET /api/status`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use serde_json::{Value, json};

use super::reload::ReloadOutcome;
use crate::clock::UnixTime;

/// One process has one. `server` writes it, the API reads it.
pub struct StatusBoard {
    /// The real path of the configuration.
    file: PathBuf,
    /// By which a command says what configuration it means, see `config::runtime_dir`.
    id: String,
    started: UnixTime,
    listeners: Vec<ListenerStatus>,
    loaded: ArcSwap<LoadedConfig>,
    last_reload: ArcSwapOption<LastReload>,
}

/// A socket that is listened on.
pub struct ListenerStatus {
    /// `https`, `http` or `admin`.
    pub protocol: &'static str,
    pub address: SocketAddr,
}

/// The configuration in effect.
struct LoadedConfig {
    hash: String,
    at: UnixTime,
}

pub struct LastReload {
    pub at: UnixTime,
    pub outcome: ReloadOutcome,
}

impl StatusBoard {
    pub fn new(file: &Path, hash: &str, started: UnixTime, listeners: Vec<ListenerStatus>) -> Self {
        Self {
            file: std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned()),
            id: crate::config::runtime_dir::configuration_id(file),
            started,
            listeners,
            loaded: ArcSwap::from_pointee(LoadedConfig { hash: hash.to_owned(), at: started }),
            last_reload: ArcSwapOption::empty(),
        }
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Whether this is the configuration that a command means.
    pub fn is_of(&self, id: &[u8]) -> bool {
        self.id.as_bytes() == id
    }

    /// Returns the hash of the configuration in effect.
    pub fn hash(&self) -> String {
        self.loaded.load().hash.clone()
    }

    /// A reload has ended.
    pub fn reloaded(&self, at: UnixTime, outcome: ReloadOutcome) {
        if let ReloadOutcome::InEffect { hash, .. } = &outcome {
            self.loaded.store(Arc::new(LoadedConfig { hash: hash.clone(), at }));
        }
        self.last_reload.store(Some(Arc::new(LastReload { at, outcome })));
    }

    pub fn last_reload(&self) -> Option<Arc<LastReload>> {
        self.last_reload.load_full()
    }

    pub fn as_json(&self, now: UnixTime) -> Value {
        let loaded = self.loaded.load();
        let last_reload = self.last_reload.load_full().map(|last| {
            let mut value = last.outcome.details();
            value["at"] = json!(last.at.rfc3339());
            value["result"] = json!(last.outcome.result());
            value
        });
        let listener = |it: &ListenerStatus| json!({ "protocol": it.protocol, "address": it.address.to_string() });
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "started": self.started.rfc3339(),
            "age_s": now.since(self.started).as_secs(),
            "configuration": {
                "path": self.file.display().to_string(),
                "hash": loaded.hash,
                "loaded": loaded.at.rfc3339(),
                "age_s": now.since(loaded.at).as_secs(),
            },
            "last_reload": last_reload,
            "listeners": self.listeners.iter().map(listener).collect::<Vec<_>>(),
        })
    }
}
