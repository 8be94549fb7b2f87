//! A client's socket that takes nothing: what that makes the edge hold, and how long it may last.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::buffers::{Fill, Reservation};
use crate::deadline::Deadline;
use crate::proxy::ClientConnection;

/// Bytes that a connection holds beside those that are counted elsewhere: TLS records, h2 frames, and heads that were
/// not sent.
const CONNECTION_BYTES: usize = 64 << 10;
/// How long a socket may take nothing while its client makes the edge hold half of its share or all of it; and while it
/// is more.
const HALF_FULL: Duration = Duration::from_secs(10);
const OVER_FULL: Duration = Duration::from_secs(5);
const FAR_OVER_FULL: Duration = Duration::from_secs(1);
/// How often the share is looked at again, because other connections of the client may have filled it.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub struct BlockedWrites {
    /// Since when the socket has taken nothing, and what that makes the edge hold.
    since: Option<(Instant, Option<Reservation>)>,
    deadline: Deadline,
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The socket took nothing for the time limit.
    Timeout,
    /// The client makes the edge hold too much.
    Buffers,
}

impl BlockedWrites {
    /// The socket has taken something.
    pub fn made_progress(&mut self) {
        self.since = None;
        self.deadline.clear();
    }

    /// Called while the socket takes nothing. `limit` is how long that may last at most.
    pub fn poll(
        &mut self,
        context: &mut Context<'_>,
        connection: &ClientConnection,
        limit: Duration,
    ) -> Poll<CloseReason> {
        let (account, ahead) = (connection.account.as_ref(), connection.bytes_ahead());
        let holds = || account.map(|account| account.reserve(CONNECTION_BYTES + ahead));
        let (since, _) = self.since.get_or_insert_with(|| (Instant::now(), holds()));
        let waited = since.elapsed();
        let most = match account.map_or(Fill::Low, |account| account.fill()) {
            Fill::Low => limit,
            Fill::Half | Fill::Full => limit.min(HALF_FULL),
            Fill::Over => limit.min(OVER_FULL),
            // Nothing else bounds what Pingora reads ahead over HTTP/1.
            Fill::FarOver if ahead > 0 => Duration::ZERO,
            Fill::FarOver => limit.min(FAR_OVER_FULL),
        };
        let Some(left) = most.checked_sub(waited).filter(|left| !left.is_zero()) else {
            return Poll::Ready(if most < limit { CloseReason::Buffers } else { CloseReason::Timeout });
        };
        let again = left.min(LOOK_AGAIN);
        while self.deadline.reset(again).poll(context).is_ready() {}
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;

    use super::*;
    use crate::buffers::{Account, Buffers};
    use crate::client_prefix::ClientPrefix;

    fn client(number: u8) -> ClientPrefix {
        ClientPrefix::of([192, 0, 2, number].into())
    }

    fn account() -> Arc<Account> {
        Buffers::new(prometheus::IntGauge::new("held", "held").unwrap(), 1 << 30, 10 << 20).account(client(1))
    }

    fn of(account: &Arc<Account>) -> ClientConnection {
        let mut connection = ClientConnection::default();
        connection.account = Some(Arc::clone(account));
        connection
    }

    #[tokio::test(start_paused = true)]
    async fn the_more_the_client_holds_the_sooner_its_connection_is_given_up() {
        for (others, ahead, expected) in [
            (0, 0, (CloseReason::Timeout, 60)),
            (6 << 20, 0, (CloseReason::Buffers, 10)),
            (13 << 20, 0, (CloseReason::Buffers, 5)),
            (16 << 20, 0, (CloseReason::Buffers, 1)),
            (16 << 20, 1000, (CloseReason::Buffers, 0)),
        ] {
            let account = account();
            let _others = account.reserve(others);
            let connection = of(&account);
            connection.reads_ahead(ahead);
            let (begun, mut blocked) = (Instant::now(), BlockedWrites::default());
            let over = poll_fn(|context| blocked.poll(context, &connection, Duration::from_secs(60))).await;
            assert_eq!((over, begun.elapsed().as_secs()), expected, "beside {others}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_takes_a_little_now_and_then_is_waited_for_and_holds_nothing_meanwhile() {
        let account = account();
        let others = account.reserve(6 << 20);
        let connection = of(&account);
        let mut blocked = BlockedWrites::default();
        for _ in 0..10 {
            let wait = poll_fn(|context| blocked.poll(context, &connection, Duration::from_secs(60)));
            assert!(tokio::time::timeout(Duration::from_secs(9), wait).await.is_err());
            blocked.made_progress();
        }
        drop(others);
        let _share = account.reserve((5 << 20) - 1);
        assert_eq!(account.fill(), Fill::Low, "all was given back");
    }
}
