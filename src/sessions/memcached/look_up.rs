//! Finding session records: the hot path. All look-ups that wait go to the server together.

use tokio::time::Instant;

use super::codec::{self, Ttl};
use super::connection::{Connection, Twice};
use super::pipeline::{Job, Question};
use crate::sessions::SessionKey;

/// What lies under `key`? With `slide`, and let it live that long from now.
pub struct LookUp {
    pub key: SessionKey,
    pub slide: Option<Ttl>,
}

impl Question for LookUp {
    type Answer = Option<Vec<u8>>;

    /// One round trip for each `slide` in the batch, which are few: one for each idle timeout that is configured.
    async fn answer(batch: &mut Vec<Job<Self>>, connection: &mut Connection) {
        batch.retain(Job::is_awaited);
        while let Some(slide) = batch.first().map(|job| job.question.slide) {
            let group = batch.extract_if(.., |job| job.question.slide == slide).collect();
            look_up(group, slide, connection).await;
        }
    }
}

async fn look_up(mut group: Vec<Job<LookUp>>, slide: Option<Ttl>, connection: &mut Connection) {
    group.sort_unstable_by(|a, b| a.question.key.cmp(&b.question.key));
    let mut keys: Vec<&str> = group.iter().map(|job| job.question.key.as_str()).collect();
    keys.dedup();
    // As long as anyone waits; who waits no longer has gone by itself.
    let deadline = group.iter().map(|job| job.deadline).max().unwrap_or_else(Instant::now);
    let outcome = connection.exchange(deadline, Twice::Harmless, |client| codec::look_up(client, &keys, slide)).await;
    let answers: Vec<_> = match outcome {
        Err(error) => group.iter().map(|_| Err(error.clone())).collect(),
        Ok(found) => {
            let place = |job: &Job<LookUp>| keys.binary_search(&job.question.key.as_str()).ok();
            group.iter().map(|job| Ok(place(job).and_then(|place| found[place].clone()))).collect()
        }
    };
    for (job, answer) in group.into_iter().zip(answers) {
        job.reply(answer);
    }
}
