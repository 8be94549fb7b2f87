//! Everything but look-ups: single commands, one after another, on a connection of their own, so that a
//! slow write never holds up a look-up.

use super::connection::Connection;
use super::link::{Job, Question};
use super::wire::{self, Command, Reply};

impl Question for Command {
    type Answer = Reply;

    /// A command is carried out even when its asker has gone: a user who closes the window during a logout
    /// is logged out.
    async fn answer(batch: &mut Vec<Job<Self>>, connection: &mut Connection) {
        for job in batch.drain(..) {
            let reply = connection.exchange(job.deadline, |client| wire::execute(client, &job.question)).await;
            job.reply(reply);
        }
    }
}
