//! Places for responses that are being compressed: so many in all, and of these so many for one reader.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::client_prefix::ClientPrefix;
use crate::compression::encoder::MAX_ENCODERS;
use crate::quota::{Permit, Quota};

/// Of the compressor's places, what one user has at most, or on public routes one client: who reads slowly keeps its places
/// for long, and must not keep them all. What finds none is sent as it is.
const MAX_PER_READER: usize = MAX_ENCODERS / 4;

/// Places for responses that are being compressed.
pub struct CompressionSlots {
    free: Arc<Semaphore>,
    readers: Arc<Quota<Reader>>,
}

/// Who reads a compressed response.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reader {
    User(Box<str>),
    Client(ClientPrefix),
}

/// Given back when it is dropped.
pub struct CompressionPermit {
    _permit: OwnedSemaphorePermit,
    _place: Permit<Reader>,
}

impl Default for CompressionSlots {
    fn default() -> Self {
        Self { free: Arc::new(Semaphore::new(MAX_ENCODERS)), readers: Arc::default() }
    }
}

impl CompressionSlots {
    /// `None` when there is none left, or none for this reader.
    pub fn take(&self, reader: Reader) -> Option<CompressionPermit> {
        let place = self.readers.acquire(reader, MAX_PER_READER)?;
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some(CompressionPermit { _permit: permit, _place: place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reader_leaves_places_for_others_however_slowly_it_reads() {
        let compressors = CompressionSlots::default();
        let (ada, ben) = (Reader::User("ada".into()), Reader::User("ben".into()));
        let mut of_ada: Vec<_> = std::iter::from_fn(|| compressors.take(ada.clone())).collect();
        assert_eq!(of_ada.len(), MAX_PER_READER);
        let mut of_others: Vec<_> = std::iter::from_fn(|| compressors.take(ben.clone())).collect();
        for last in 0.. {
            let client = Reader::Client(ClientPrefix::of([192, 0, 2, last].into()));
            let Some(taken) = compressors.take(client) else { break };
            of_others.push(taken);
        }
        assert_eq!(of_ada.len() + of_others.len(), MAX_ENCODERS, "and there is a bound for all together");
        of_ada.pop();
        assert!(compressors.take(ben).is_none() && compressors.take(ada).is_some(), "who gave one back has one again");
    }
}
