//! What follows from token, directory, fingerprint and store: pure, so that it can be read on one page.

use std::cell::Cell;
use std::sync::Arc;

use http::HeaderMap;

use super::fingerprint::Fingerprinter;
use super::token::{Claims, Verified};
use super::verdict::{Assurance, Reason, Source, is_revoked, missing_entitlement};
use crate::config::{Access, Credentials, OutagePolicy};
use crate::sessions::{Fingerprint, SessionRecord, StoreError};
use crate::users::UserState;

/// What a route asks of whoever comes.
#[derive(Clone, Copy, Debug)]
pub struct Requirement<'a> {
    /// The `aud` that a token must carry here.
    pub audience: &'a str,
    /// The service that the user must be registered for; `None` on the sign-on host.
    pub service: Option<&'a str>,
    pub access: &'a Access,
    pub credentials: Credentials,
    /// Whether this request keeps the session from idling out.
    pub extends_session: bool,
    /// What to do while the store gives no answer.
    pub on_outage: OutagePolicy,
}

/// How a session stands.
#[derive(Debug)]
pub enum SessionStatus {
    Active(SessionRecord),
    Ended,
    /// The store did not say, and no policy says it instead.
    Unknown(StoreError),
    /// A policy says it, and with which fingerprint if it knows.
    AssumedActive {
        assurance: Assurance,
        fingerprint: Option<Fingerprint>,
    },
}

/// Everything that is known of a request's sender without the store.
pub struct AuthInputs<'a> {
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
    companion: Cell<Option<(Fingerprint, bool)>>,
}

impl<'a> Request<'a> {
    pub fn new(headers: &'a HeaderMap, fingerprint: Fingerprint, fingerprints: &'a Fingerprinter) -> Self {
        Self { headers, fingerprint, fingerprints, companion: Cell::new(None) }
    }
}

impl AuthInputs<'_> {
    /// Whether the request is of the browser that a session with this fingerprint belongs to.
    pub fn is_same_browser(&self, session: Fingerprint) -> bool {
        session == self.request.fingerprint || self.is_companion(session)
    }

    #[cold]
    fn is_companion(&self, session: Fingerprint) -> bool {
        let Request { headers, fingerprints, companion, .. } = &self.request;
        if let Some((of, is_companion)) = companion.get()
            && of == session
        {
            return is_companion;
        }
        let is_companion = fingerprints.is_companion(headers, self.verified.session_id(), session);
        companion.set(Some((session, is_companion)));
        is_companion
    }
}

/// What token and directory come to for a route.
pub fn refusal(claims: &Claims, state: Option<&UserState>, requirement: &Requirement<'_>) -> Option<Reason> {
    if state.is_some_and(|state| is_revoked(state, claims)) {
        return Some(Reason::Revoked);
    }
    let (services, roles) = state.map_or((&claims.services, &claims.roles), |state| (&state.services, &state.roles));
    missing_entitlement(services, roles, requirement.service, requirement.access)
}

/// The second half, once it is known how the session stands. Pure. What a refusal is told to be for is the first of
/// these: store, session, revocation, browser, registration and role.
pub fn evaluate(inputs: &AuthInputs<'_>, status: &SessionStatus) -> Result<Assurance, Reason> {
    let (assurance, bound_to) = match status {
        SessionStatus::Unknown(error) => return Err(Reason::StoreUnavailable(error.clone())),
        SessionStatus::Ended => return Err(Reason::NoSession),
        // A session of that id, but another's: as good as none.
        SessionStatus::Active(record) if record.user != inputs.verified.claims().sub => return Err(Reason::NoSession),
        SessionStatus::Active(record) => (Assurance::Session, Some(record.fingerprint)),
        SessionStatus::AssumedActive { assurance, fingerprint } => (*assurance, *fingerprint),
    };
    match &inputs.refusal {
        Some(Reason::Revoked) => Err(Reason::Revoked),
        _ if bound_to.is_some_and(|bound_to| !inputs.is_same_browser(bound_to)) => Err(Reason::OtherBrowser),
        Some(reason) => Err(reason.clone()),
        None => Ok(assurance),
    }
}
