//! Options for the code that starts an edge, which a configuration cannot set.

use super::upgrade::predecessor::TakenOver;
use crate::admin::reload::ReloadRequests;
use crate::listener::inherited::InheritedSockets;
use crate::log_writer::Logs;
pub use crate::proxy::FastPathMode;

pub use crate::upstream::resolver::Lookup;

/// The default is what the program runs with, but for what ties an edge to its process: the control socket.
#[derive(Clone, Default)]
pub struct Options {
    /// With `Off` every request takes the full path, so that tests can hold both paths against the same expectations.
    pub fast_path: FastPathMode,
    /// How names of servers are resolved, instead of by the system, so that tests need no DNS.
    pub lookup: Option<Lookup>,
    /// Whether there is a control socket in the runtime directory. `run` and `demo` have one; several edges of one process,
    /// as in tests, would have to share it.
    pub control_socket: bool,
    /// Where the API requests reloads. Without it they fail, as the code that has started the edge carries them out.
    pub reloads: Option<ReloadRequests>,
}

/// What an edge uses of the process that it is started in.
pub struct ProcessContext {
    pub logs: Logs,
    /// Sockets that are not to be bound.
    pub sockets: InheritedSockets,
    /// What comes beside them from the process before this one, where this one takes over from it.
    pub taken_over: Option<TakenOver>,
}
