//! What follows from token, directory, fingerprint and store: pure, so that it can be read on one page.

use std::cell::Cell;
use std::sync::Arc;

use http::HeaderMap;

use super::Demand;
use super::fingerprint::Fingerprinter;
use super::token::{Claims, Verified};
use super::verdict::{Assurance, Reason, Source, is_revoked, lacks};
use crate::sessions::{Fingerprint, SessionRecord, StoreError};
use crate::users::UserState;

/// How a session stands.
#[derive(Debug)]
pub enum Standing {
    Lives(SessionRecord),
    Gone,
    /// The store did not say, and no policy says it instead.
    Unknown(StoreError),
    /// A policy says it, and with which fingerprint if it knows.
    Vouched {
        assurance: Assurance,
        fingerprint: Option<Fingerprint>,
    },
}

/// Everything that is known of a request's sender without the store.
pub struct Evidence<'a> {
    pub verified: Arc<Verified>,
    pub source: Source,
    pub request: Request<'a>,
    /// The directory's latest word, where it differs from the token's.
    pub state: Option<Arc<UserState>>,
    /// Why the user may not pass, though the session lives.
    pub refusal: Option<Reason>,
}

/// The request, as far as it can be held against a session's fingerprint.
pub struct Request<'a> {
    headers: &'a HeaderMap,
    /// Its own.
    fingerprint: Fingerprint,
    fingerprints: &'a Fingerprinter,
    /// The session's that this request was held against last, and whether it is of that session's browser though its own
    /// differs. The question comes before the store is asked and after it, and its answer costs up to some 20 HMACs.
    beside: Cell<Option<(Fingerprint, bool)>>,
}

impl<'a> Request<'a> {
    pub fn new(headers: &'a HeaderMap, fingerprint: Fingerprint, fingerprints: &'a Fingerprinter) -> Self {
        Self { headers, fingerprint, fingerprints, beside: Cell::new(None) }
    }
}

impl Evidence<'_> {
    /// Whether the request is of the browser that a session with this fingerprint belongs to.
    pub fn is_of(&self, session: Fingerprint) -> bool {
        session == self.request.fingerprint || self.is_beside(session)
    }

    #[cold]
    fn is_beside(&self, session: Fingerprint) -> bool {
        let Request { headers, fingerprints, beside, .. } = &self.request;
        if let Some((of, is_beside)) = beside.get()
            && of == session
        {
            return is_beside;
        }
        let is_beside = fingerprints.is_beside(headers, self.verified.session_id(), session);
        beside.set(Some((session, is_beside)));
        is_beside
    }
}

/// What token and directory come to for a route.
pub fn refusal(claims: &Claims, state: Option<&UserState>, demand: &Demand<'_>) -> Option<Reason> {
    if state.is_some_and(|state| is_revoked(state, claims)) {
        return Some(Reason::Revoked);
    }
    let (services, roles) = state.map_or((&claims.services, &claims.roles), |state| (&state.services, &state.roles));
    lacks(services, roles, demand.service, demand.access)
}

/// The second half, once it is known how the session stands. Pure. What a refusal is told to be for is the first of
/// these: store, session, revocation, browser, registration and role.
pub fn judge(evidence: &Evidence<'_>, standing: &Standing) -> Result<Assurance, Reason> {
    let (assurance, bound_to) = match standing {
        Standing::Unknown(error) => return Err(Reason::StoreAway(error.clone())),
        Standing::Gone => return Err(Reason::NoSession),
        // A session of that id, but another's: as good as none.
        Standing::Lives(record) if record.user != evidence.verified.claims().sub => return Err(Reason::NoSession),
        Standing::Lives(record) => (Assurance::Session, Some(record.fingerprint)),
        Standing::Vouched { assurance, fingerprint } => (*assurance, *fingerprint),
    };
    match &evidence.refusal {
        Some(Reason::Revoked) => Err(Reason::Revoked),
        _ if bound_to.is_some_and(|bound_to| !evidence.is_of(bound_to)) => Err(Reason::OtherBrowser),
        Some(reason) => Err(reason.clone()),
        None => Ok(assurance),
    }
}
