//! The inputs of an authentication check, and what follows from them. Pure, so that the whole decision can be read on
//! one page.

use std::cell::Cell;
use std::sync::Arc;

use http::HeaderMap;

use super::fingerprint::Fingerprinter;
use super::token::{Claims, Verified};
use super::verdict::{Assurance, Reason, Source, is_revoked, missing_entitlement};
use crate::config::{Access, Credentials, OutagePolicy};
use crate::sessions::{Fingerprint, SessionRecord, StoreError};
use crate::users::UserState;

/// What a route requires of a request.
#[derive(Clone, Copy, Debug)]
pub struct Requirement<'a> {
    /// The `aud` that a token must have here.
    pub audience: &'a str,
    /// The service that the user must be registered for; `None` on the sign-on host.
    pub service: Option<&'a str>,
    pub access: &'a Access,
    pub credentials: Credentials,
    /// Whether this request extends the session.
    pub extends_session: bool,
    /// What to do while the session store is unavailable.
    pub on_outage: OutagePolicy,
}

/// What is known of a session after the look-up.
#[derive(Debug)]
pub enum SessionStatus {
    Active(SessionRecord),
    Ended,
    /// The store gave no answer, and no outage policy applies.
    Unknown(StoreError),
    /// An outage policy, or the absence of a store, allows the session to be taken for active; with its fingerprint, if
    /// that is known.
    AssumedActive {
        assurance: Assurance,
        fingerprint: Option<Fingerprint>,
    },
}

/// Everything that is known of a request without the session store.
pub struct AuthInputs<'a> {
    pub verified: Arc<Verified>,
    pub source: Source,
    pub request: Request<'a>,
    /// The directory's latest state of the user, if it differs from the token's claims.
    pub state: Option<Arc<UserState>>,
    /// Why the user is refused even if the session is active.
    pub refusal: Option<Reason>,
}

/// The request, as far as it can be compared with a session's fingerprint.
pub struct Request<'a> {
    headers: &'a HeaderMap,
    /// The fingerprint of the request itself.
    fingerprint: Fingerprint,
    fingerprints: &'a Fingerprinter,
    /// The session fingerprint that this request was compared with last, and whether the request is from that browser
    /// though its own fingerprint differs. The comparison is needed before and after the look-up, and costs up to about
    /// 20 HMACs.
    companion: Cell<Option<(Fingerprint, bool)>>,
}

impl<'a> Request<'a> {
    pub fn new(headers: &'a HeaderMap, fingerprint: Fingerprint, fingerprints: &'a Fingerprinter) -> Self {
        Self { headers, fingerprint, fingerprints, companion: Cell::new(None) }
    }
}

impl AuthInputs<'_> {
    /// Returns whether the request is from the browser that a session with this fingerprint belongs to.
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

/// Returns why token and directory refuse the user on this route, if they do.
pub fn refusal(claims: &Claims, state: Option<&UserState>, requirement: &Requirement<'_>) -> Option<Reason> {
    if state.is_some_and(|state| is_revoked(state, claims)) {
        return Some(Reason::Revoked);
    }
    let (services, roles) = state.map_or((&claims.services, &claims.roles), |state| (&state.services, &state.roles));
    missing_entitlement(services, roles, requirement.service, requirement.access)
}

/// Decides, once the status of the session is known. The reason of a refusal is the first of these that applies: store,
/// session, revocation, browser, registration, role.
pub fn evaluate(inputs: &AuthInputs<'_>, status: &SessionStatus) -> Result<Assurance, Reason> {
    let (assurance, bound_to) = match status {
        SessionStatus::Unknown(error) => return Err(Reason::StoreUnavailable(error.clone())),
        SessionStatus::Ended => return Err(Reason::NoSession),
        // The session of that id belongs to another user, which is as good as no session.
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
