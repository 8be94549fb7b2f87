//! Every operation but look-ups: single commands, one after another, on connections of their own, so that a slow write
//! never delays a look-up.

use super::codec::{self, Command, Condition, Reply};
use super::connection::{Connection, Idempotency};
use super::pipeline::{self, Pending, Request};

impl Command {
    /// A counter would be changed twice, and a condition would no longer hold because the command itself has changed the
    /// value.
    fn idempotency(&self) -> Idempotency {
        match self {
            Self::Get { .. } | Self::Delete { .. } | Self::Version => Idempotency::Idempotent,
            Self::Set { condition: Condition::None, .. } => Idempotency::Idempotent,
            Self::Set { .. } | Self::Increment { .. } | Self::Decrement { .. } => Idempotency::NotIdempotent,
        }
    }
}

impl Request for Command {
    type Response = Reply;

    /// A command is executed even when its caller no longer waits: a user who closes the window during a logout is logged
    /// out.
    async fn execute(batch: &mut Vec<Pending<Self>>, connection: &mut Connection) {
        let mut failed = false;
        for pending in batch.drain(..) {
            // Commands behind a failure share it. The first command of the next batch is the breaker's trial.
            if failed && connection.is_open() {
                pending.respond(Err(pipeline::breaker_open()));
                continue;
            }
            let idempotency = pending.request.idempotency();
            let execute = |client| codec::execute(client, &pending.request);
            let reply = connection.exchange(pending.deadline, idempotency, execute).await;
            failed |= reply.is_err();
            pending.respond(reply);
        }
    }
}
