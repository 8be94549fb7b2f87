//! Everything but look-ups: single commands, one after another, on a connection of their own, so that a
//! slow write never holds up a look-up.

use super::codec::{self, Command, Condition, Reply};
use super::connection::{Connection, Twice};
use super::pipeline::{self, Job, Question};

impl Command {
    /// A count would be one too many, and a condition would meet what it has itself brought about.
    fn twice(&self) -> Twice {
        match self {
            Self::Get { .. } | Self::Delete { .. } | Self::Version => Twice::Harmless,
            Self::Set { condition: Condition::None, .. } => Twice::Harmless,
            Self::Set { .. } | Self::Increment { .. } | Self::Decrement { .. } => Twice::Harmful,
        }
    }
}

impl Question for Command {
    type Answer = Reply;

    /// A command is carried out even when its asker has gone: a user who closes the window during a logout
    /// is logged out.
    async fn answer(batch: &mut Vec<Job<Self>>, connection: &mut Connection) {
        let mut failed = false;
        for job in batch.drain(..) {
            // Those behind a failure share it; whoever comes first is the trial.
            if failed && connection.is_resting() {
                job.reply(Err(pipeline::resting()));
                continue;
            }
            let twice = job.question.twice();
            let reply = connection.exchange(job.deadline, twice, |client| codec::execute(client, &job.question)).await;
            failed |= reply.is_err();
            job.reply(reply);
        }
    }
}
