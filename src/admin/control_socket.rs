//! The control socket's side of the edge: what the admin listener serves, without a token, for root and the edge's own
//! user.
//!
//! The kernel says who is at the other end (SO_PEERCRED of unix(7)). One request a connection: commands make one, and a
//! connection that waits for another would hold a place.

use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::l4::stream::Stream;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::actor::Connection;
use super::{Admin, HEADER_TIMEOUT, deadlines};

/// Connections at once. Commands end, so more are a mistake.
const MAX_CONNECTIONS: usize = 32;
/// The time limit for the head of a process that will be refused. A client that is closed on before it has sent its head
/// would not read why.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause after a failed accept. Mostly descriptors are short then.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The value of the label `listener`.
const LABEL: &str = "control";

/// Serves the socket until the edge stops accepting connections.
pub async fn serve(listener: StdListener, admin: Arc<Admin>, own_uid: u32, mut closing: watch::Receiver<bool>) {
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return log::error!("control socket: it cannot be served: {error}"),
    };
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closing.wait_for(|closing| *closing) => return,
        };
        let Ok((stream, _)) = accepted else {
            admin.count_refused(LABEL, "accept");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let place = Arc::clone(&places).try_acquire_owned();
        let admin = Arc::clone(&admin);
        match place {
            Ok(place) => drop(tokio::spawn(async move {
                serve_connection(stream, &admin, own_uid).await;
                drop(place);
            })),
            Err(_) => admin.count_refused(LABEL, "limit"),
        }
    }
}

async fn serve_connection(stream: UnixStream, admin: &Admin, own_uid: u32) {
    // Without credentials the connection is no process's.
    let Ok(uid) = stream.peer_cred().map(|peer| peer.uid()) else { return };
    admin.count_connection(LABEL);
    let is_allowed = [0, own_uid].contains(&uid);
    let mut session = ServerSession::new_http1(Box::new(Stream::from(stream)));
    let head_timeout = if is_allowed { HEADER_TIMEOUT } else { STRANGER_TIMEOUT };
    let is_read = matches!(timeout(head_timeout, session.read_request()).await, Ok(Ok(true)));
    let refusal = (!is_allowed).then(|| {
        admin.count_refused(LABEL, "user");
        admin.refuse_user(uid)
    });
    if !is_read {
        return;
    }
    session.set_keepalive(None);
    let response = match refusal {
        Some(refusal) => refusal,
        None => {
            let answered = admin.respond(&mut session, Connection::ControlSocket { uid });
            let Ok(response) = timeout(deadlines::CALL, answered).await else { return };
            response
        }
    };
    timeout(deadlines::WRITE, write(session, response)).await.ok();
}

async fn write(mut session: ServerSession, response: Response<Vec<u8>>) {
    let (parts, body) = response.into_parts();
    if session.write_response_header(Box::new(parts.into())).await.is_err() {
        return;
    }
    if !body.is_empty() {
        session.write_response_body(body.into(), true).await.ok();
    }
    session.finish().await.ok();
}
