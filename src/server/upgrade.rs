//! An upgrade without a gap: the edge hands its listening sockets to another process, which serves in its place.
//!
//! Both processes accept from the same sockets for a moment, so that at each time one of them does. What they say to
//! each other is in `messages`, over a Unix socket in the runtime directory: `predecessor` is the part of the process
//! that takes the sockets over, `successor` that of the one which gives them. `cli::run::upgrade` starts the process.

mod messages;
pub mod predecessor;
pub mod successor;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::IntCounterVec;
use tokio::net::TcpListener;

use super::control_socket::SocketFile;
use crate::config::{Config, Sessions};
use crate::listener::BoundListeners;

/// The socket's name in the runtime directory, for as long as an upgrade is under way.
pub const UPGRADE_SOCKET: &str = "upgrade.sock";

/// The variable in which a process finds the socket of the one before it.
pub const UPGRADE_VARIABLE: &str = "SENTRY_EDGE_UPGRADE";

/// What an upgrade needs of the running edge. It keeps no socket open.
#[derive(Clone)]
pub struct UpgradeSource {
    config: Arc<ArcSwap<Config>>,
    listeners: Vec<OpenListener>,
    control: Weak<SocketFile>,
    /// By what came of them; label `result`.
    results: IntCounterVec,
}

/// A socket that is accepted from.
#[derive(Clone)]
struct OpenListener {
    protocol: &'static str,
    /// As the configuration has it, where its port may be 0.
    configured: SocketAddr,
    /// Whether the service manager has bound it.
    is_activated: bool,
    socket: Weak<TcpListener>,
}

impl UpgradeSource {
    pub fn new(
        config: &Arc<ArcSwap<Config>>,
        bound: &BoundListeners,
        control: Weak<SocketFile>,
        results: IntCounterVec,
    ) -> Self {
        let listeners = bound.all().map(|(protocol, bound)| OpenListener {
            protocol,
            configured: bound.configured,
            is_activated: bound.is_activated,
            socket: bound.share(),
        });
        Self { config: Arc::clone(config), listeners: listeners.collect(), control, results }
    }

    /// Returns how long the new process may take until it serves.
    pub fn timeout(&self) -> Duration {
        self.config.load().server.upgrade_timeout
    }

    /// Whether sessions are in this process alone, and so do not outlive it.
    pub fn loses_sessions(&self) -> bool {
        matches!(self.config.load().sessions, Sessions::Memory { .. })
    }

    /// Returns the path of the socket over which an upgrade goes. `None` without a runtime directory.
    pub fn socket_path(&self) -> Option<PathBuf> {
        self.control.upgrade().map(|control| control.folder().join(UPGRADE_SOCKET))
    }

    /// The edge has ended. The task that serves the control socket may not have noticed yet.
    pub fn remove_control_socket(&self) {
        if let Some(control) = self.control.upgrade() {
            control.remove();
        }
    }

    /// The process before this one has left the edge to this one.
    pub fn replaced(&self) {
        if let Some(control) = self.control.upgrade() {
            control.take();
        }
        self.count("ok");
    }

    pub fn count(&self, result: &str) {
        self.results.with_label_values(&[result]).inc();
    }
}
