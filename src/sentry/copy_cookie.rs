//! `/noCookie` and `/copyCookie` on the sign-on host: from its own cookie to a ticket for a service.

use std::time::Duration;

use super::return_url::{Parameter, ReturnUrl, Target, encode, parameter};
use super::state::StateHash;
use super::ticket::Ticket;
use super::{Event, Sentry};
use crate::auth::{Identity, Reason, Verdict};
use crate::reply::Reply;
use crate::request::Head;
use crate::sessions::{CounterKey, FRESH_KEYS, StoreError, TicketId};

/// Tickets for one page of one session within a minute, after which the next would only go round in a circle:
/// the service's cookie does not come back.
const MOST_TICKETS: u64 = 6;
const WINDOW: Duration = Duration::from_secs(60);

impl Sentry {
    /// Step 2: to `/copyCookie` with the same parameters.
    pub(super) fn no_cookie(&self, head: &Head<'_>) -> Reply {
        match self.return_url(head) {
            Ok(url) => {
                Reply::redirect(&self.sso_url(head, "/copyCookie", url.as_ref(), self.state_hash(head).as_ref()))
            }
            Err(refusal) => *refusal,
        }
    }

    /// Steps 3 and 5: to the login, or back to the service with a ticket.
    pub(super) async fn copy_cookie(&self, head: &Head<'_>) -> Reply {
        let url = match self.return_url(head) {
            Ok(url) => url,
            Err(refusal) => return *refusal,
        };
        let state = self.state_hash(head);
        let identity = match self.who(head, None, true).await {
            Verdict::Known(identity) => identity,
            Verdict::Refused(Reason::StoreAway(_)) => return self.store_away(head),
            Verdict::Refused(_) => return Reply::redirect(&self.sso_url(head, "/login", url.as_ref(), state.as_ref())),
        };
        match (url, state) {
            (None, _) => Reply::redirect(&format!("{}/", head.origin_of(&self.host))),
            (Some(url), _) if url.target == Target::Landing => Reply::redirect(&url.plain(self.parameter())),
            (Some(url), Some(state)) => self.hand_off(head, &identity, &url, state).await,
            // Begun here and not at the service, so there is no browser to tie the ticket to: the service
            // starts over and comes back with a state.
            (Some(url), None) => Reply::redirect(&url.plain(self.parameter())),
        }
    }

    async fn hand_off(&self, head: &Head<'_>, identity: &Identity, url: &ReturnUrl, state: StateHash) -> Reply {
        match self.goes_round(identity, url).await {
            Ok(false) => {}
            Ok(true) => {
                let user = Some(identity.verified().claims().name.as_str());
                return self.broken_loop(head, &url.host, &url.plain(self.parameter()), user);
            }
            Err(_) => return self.store_away(head),
        }
        let verified = identity.verified();
        let ticket = Ticket {
            host: url.host.clone(),
            state,
            fingerprint: self.guard.fingerprints().of(head.headers, verified.session_id()),
            token: verified.token().into(),
        };
        let Ok(id) = self.issue(&ticket).await else { return self.store_away(head) };
        self.metrics.sign_on.tickets.issued.inc();
        self.audit(head, Event::TicketIssued, Some(&verified.claims().name), Some(url.host.as_str()), None);
        Reply::redirect(&url.with_ticket(self.parameter(), &id))
    }

    /// A ticket of which it is not known whether it was stored is never given to anybody: so none lies twice.
    async fn issue(&self, ticket: &Ticket) -> Result<TicketId, StoreError> {
        let mut attempts = FRESH_KEYS;
        loop {
            let id = TicketId::random();
            let sealed =
                ticket.seal(&id).ok_or_else(|| StoreError::Garbled { cause: "no ticket was sealed".into() })?;
            match self.store.issue_ticket(&id.key(), &sealed, self.settings.ticket.lifetime).await {
                Ok(()) => return Ok(id),
                Err(error) if error.is_silence() && attempts > 1 => attempts -= 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether this session has just been handed to this very page too often.
    async fn goes_round(&self, identity: &Identity, url: &ReturnUrl) -> Result<bool, StoreError> {
        let subject = format!("{} {}", identity.verified().claims().sid, url.plain(self.parameter()));
        let counted = self.store.add_failure(&CounterKey::new("hand-off", &subject), WINDOW).await?;
        Ok(counted.count > MOST_TICKETS)
    }

    pub(super) fn parameter(&self) -> &str {
        &self.settings.ticket.parameter
    }

    pub(super) fn state_hash(&self, head: &Head<'_>) -> Option<StateHash> {
        match parameter(head.query, "state") {
            Parameter::One(text) => StateHash::parse(&text),
            Parameter::Absent | Parameter::Several => None,
        }
    }

    /// An SSO route of the sign-on host with the parameters of the flow.
    pub(super) fn sso_url(
        &self,
        head: &Head<'_>,
        path: &str,
        url: Option<&ReturnUrl>,
        state: Option<&StateHash>,
    ) -> String {
        let mut location = format!("{}{path}", head.origin_of(&self.host));
        let mut separator = '?';
        if let Some(url) = url {
            location.push_str(&format!("{separator}redirectURL={}", encode(&url.plain(self.parameter()))));
            separator = '&';
        }
        if let Some(state) = state {
            location.push_str(&format!("{separator}state={}", state.as_str()));
        }
        location
    }
}
