//! The limit on open files: it is raised as far as the process may, and compared with what the configuration needs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A connection of a client, and the one to the application that serves its request.
const PER_CONNECTION: u64 = 2;

/// Listeners, logs, the user directory, connections to the session store and kept ones to applications.
const OTHERS: u64 = 256;

/// Raises the soft limit to the hard one, which is the administrator's. Shells and service managers set the soft one low
/// for programs that use select(2), and this is none.
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        log::warn!("open files: the limit of open files stays at its soft value: {error}");
    }
}

/// Warns when connections would be refused for want of descriptors, long before there are as many as are allowed.
pub fn warn_if_too_few(connections: usize) {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return };
    let needed = PER_CONNECTION.saturating_mul(connections as u64).saturating_add(OTHERS);
    if limit < needed {
        log::warn!(
            "open files: limit={limit} needed={needed}: server.limits.connections is {connections}, and each connection \
             holds two with its request; raise the hard limit (LimitNOFILE= of the unit, `ulimit -Hn`) or lower that key"
        );
    }
}
