//! Who calls the admin API, and what each may do.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::AdminRole;

/// The connection of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// The admin listener, with the client's address. The API wants a token there.
    Listener(Option<IpAddr>),
    /// The control socket, with the user id of the process at the other end, as the kernel says: root, or the edge's own.
    ControlSocket { uid: u32 },
}

/// Who has shown that the API is open to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// As the audit log has it: `token:NAME` or `uid:NUMBER`.
    pub name: Arc<str>,
    pub role: AdminRole,
}

impl Connection {
    /// Returns the client's address, which callers on this machine's control socket do not have.
    pub fn client(self) -> Option<IpAddr> {
        match self {
            Self::Listener(client) => client,
            Self::ControlSocket { .. } => None,
        }
    }
}

impl Actor {
    pub fn token(name: &str, role: AdminRole) -> Self {
        Self { name: format!("token:{name}").into(), role }
    }

    /// A process that may open the socket may also change the files of the edge, so everything is open to it.
    pub fn process(uid: u32) -> Self {
        Self { name: format!("uid:{uid}").into(), role: AdminRole::Admin }
    }
}
