//! Asking for a session: of one server, or of all that may hold it, and what is set right because of their answers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::Cluster;
use super::layout::{Owner, Seat};
use super::node::Member;
use super::resolve::{Mend, Word, judge};
use crate::sessions::instrumented::Operation;
use crate::sessions::{Found, Held, SessionKey, StoreError};

impl<M: Member> Cluster<M> {
    async fn look_up(seat: &Seat<M>, key: &SessionKey, slide: Option<Duration>) -> Result<Option<Held>, StoreError> {
        let lives = |held: &Option<Held>| matches!(held, Some(Held::Session(_)));
        seat.watcher.watch(Operation::Find, seat.member.look_up(key, slide), lives).await
    }

    pub async fn find_once(&self, key: &SessionKey, slide: Option<Duration>) -> Result<Found, StoreError> {
        let layout = self.layout.load_full();
        let Some(seat) = layout.only_owner(key.as_str()) else { return self.confer(key, slide).await };
        Ok(match Self::look_up(seat, key, slide).await? {
            None => Found::Missing,
            Some(Held::Session(record)) => Found::Lives(record),
            Some(Held::Ended(tombstone)) => {
                if slide.is_some() {
                    self.mending.bury(Arc::clone(seat), key, tombstone);
                }
                Found::Ended
            }
        })
    }

    /// Of several servers, what all their words come to.
    async fn confer(&self, key: &SessionKey, slide: Option<Duration>) -> Result<Found, StoreError> {
        let owners = self.owners(key.as_str());
        let words = join_all(owners.iter().map(async |owner| {
            let said = Self::look_up(&owner.seat, key, slide.filter(|_| owner.belongs)).await;
            let silent_for = if said.is_ok() { Duration::ZERO } else { owner.seat.member.silent_for() };
            Word { said, silent_for, belongs: owner.belongs }
        }));
        let words = words.await;
        let belonging = words.iter().filter(|word| word.belongs);
        let silent = belonging.clone().filter(|word| word.said.is_err()).count();
        if silent > 0 && 2 * silent >= belonging.count() {
            self.metrics.minority.inc();
        }
        let judgement = judge(&words);
        self.mend(&owners, &words, key, slide, &judgement.found, judgement.mend);
        judgement.found
    }

    fn mend(
        &self,
        owners: &[Owner<M>],
        words: &[Word],
        key: &SessionKey,
        slide: Option<Duration>,
        found: &Result<Found, StoreError>,
        mend: Mend,
    ) {
        match (mend, found, slide) {
            // Without a slide it is not known how long the session may still idle.
            (Mend::Copy(places), Ok(Found::Lives(record)), Some(ttl)) => {
                for place in places {
                    self.mending.copy(Arc::clone(&owners[place].seat), key, record, ttl);
                }
            }
            // The slide has shortened the life of the tombstones that it met.
            (Mend::Bury(tombstone, _), _, Some(_)) => {
                for (owner, _) in owners.iter().zip(words).filter(|(_, word)| word.said.is_ok()) {
                    self.mending.bury(Arc::clone(&owner.seat), key, tombstone);
                }
            }
            (Mend::Bury(tombstone, places), _, None) => {
                for place in places {
                    self.mending.bury(Arc::clone(&owners[place].seat), key, tombstone);
                }
            }
            _ => {}
        }
    }
}
