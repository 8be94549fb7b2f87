//! Why an edge did not start: always the operator's to mend, so always with what to do.

use super::control_socket::ControlSocketError;
use crate::config::Faults;
use crate::listener::BindError;
use crate::listener::inherited::InheritedSocketError;

#[derive(Debug)]
pub enum StartError {
    Config(Faults),
    Bind(BindError),
    Sockets(InheritedSocketError),
    ControlSocket(ControlSocketError),
    Log(std::io::Error),
    Users(String),
    Store(String),
    Runtime(std::io::Error),
    Tls(rustls::Error),
    Metrics(prometheus::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config(faults) => write!(f, "{faults}"),
            Self::Bind(BindError { address, cause }) => {
                write!(f, "cannot listen on {address}: {cause}; free the port, or allow this user to bind it")
            }
            Self::Sockets(cause) => write!(f, "{cause}"),
            Self::ControlSocket(cause) => write!(f, "cannot open the control socket: {cause}"),
            Self::Log(cause) => write!(f, "cannot open a log: {cause}"),
            Self::Users(cause) => write!(f, "cannot open the user directory {cause}"),
            Self::Store(cause) => write!(f, "cannot use the session store: {cause}"),
            Self::Runtime(cause) => write!(f, "cannot start threads: {cause}"),
            Self::Tls(cause) => write!(f, "cannot set up TLS: {cause}"),
            Self::Metrics(cause) => write!(f, "cannot register metrics: {cause}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<BindError> for StartError {
    fn from(error: BindError) -> Self {
        Self::Bind(error)
    }
}
