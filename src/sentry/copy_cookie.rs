//! `/noCookie` and `/copyCookie` on the sign-on host: from the sign-on host's cookie to a ticket for a service.

use super::loop_guard::{Flow, RedirectRound};
use super::return_url::{Parameter, ReturnUrl, Target, encode, parameter};
use super::state::StateHash;
use super::ticket::Ticket;
use super::{Event, Sentry};
use crate::auth::{Identity, Reason, Verdict};
use crate::reply::Reply;
use crate::request::{Head, ResponseUse};
use crate::sessions::{FRESH_KEY_ATTEMPTS, StoreError, TicketId};

/// The parameters of a flow, which the browser carries from the service through the routes of the sign-on host.
struct FlowParameters {
    url: Option<ReturnUrl>,
    state: Option<StateHash>,
    flow: Flow,
}

impl Sentry {
    /// Step 2: redirects to `/copyCookie` with the same parameters.
    pub(super) fn no_cookie(&self, head: &Head<'_>) -> Reply {
        match self.flow_parameters(head) {
            Ok(FlowParameters { url, state, flow }) => {
                Reply::redirect(&self.copy_cookie_url(head, url.as_ref(), state.as_ref(), flow))
            }
            Err(refusal) => *refusal,
        }
    }

    /// Steps 3 and 5: redirects to the login, or back to the service with a ticket.
    pub(super) async fn copy_cookie(&self, head: &Head<'_>) -> Reply {
        let FlowParameters { url, state, flow } = match self.flow_parameters(head) {
            Ok(flow_parameters) => flow_parameters,
            Err(refusal) => return *refusal,
        };
        let identity = match self.signed_in(head, true).await {
            Verdict::Refused(Reason::StoreUnavailable(_)) => return self.store_unavailable(head),
            // A ticket is only for a request that can redeem it, and its URL is not part of a page.
            _ if head.response_use() != ResponseUse::Page => {
                return self.unauthorized(head, &Reason::NoToken, "Bearer realm=\"sentry-edge\"");
            }
            Verdict::Allowed(identity) => identity,
            // The session that was just opened is not accepted here: another password would not help.
            Verdict::Refused(_) if flow.is_signed_in => return self.redirect_loop(head, url.as_ref(), None),
            Verdict::Refused(_) => return Reply::redirect(&self.sso_url(head, "/login", url.as_ref(), state.as_ref())),
        };
        match (url, state) {
            (None, _) => Reply::redirect(&format!("{}/", head.origin_of(&self.host))),
            (Some(url), _) if url.target == Target::Landing => Reply::redirect(&url.without_tickets(&self.tickets)),
            (Some(url), Some(state)) => match flow.round_for(identity.verified()) {
                Some(round) => self.redirect_with_ticket(head, &identity, &url, state, round).await,
                None => self.redirect_loop(head, Some(&url), Some(&identity)),
            },
            // The flow began here and not at the service, so there is no browser to bind the ticket to: the service
            // starts the sign-on again and comes back with a state.
            (Some(url), None) => Reply::redirect(&url.without_tickets(&self.tickets)),
        }
    }

    async fn redirect_with_ticket(
        &self,
        head: &Head<'_>,
        identity: &Identity,
        url: &ReturnUrl,
        state: StateHash,
        round: RedirectRound,
    ) -> Reply {
        let verified = identity.verified();
        let ticket = Ticket {
            host: url.host.clone(),
            state,
            fingerprint: self.guard.fingerprints().of(head.headers, verified.session_id()),
            token: verified.token().into(),
        };
        let Ok(id) = self.issue(&ticket, round).await else { return self.store_unavailable(head) };
        self.metrics.sign_on.tickets.issued.inc();
        self.audit(head, Event::TicketIssued, Some(&verified.claims().name), Some(url.host.as_str()), None);
        Reply::redirect(&url.with_ticket(&self.tickets, &id))
    }

    /// Stores a ticket under a fresh id. An id of which it is not known whether its ticket was stored is never sent to
    /// a browser: so no id is ever used for two tickets.
    async fn issue(&self, ticket: &Ticket, round: RedirectRound) -> Result<TicketId, StoreError> {
        let failed = |cause: &str| StoreError::Protocol { cause: cause.into() };
        let mut attempts = FRESH_KEY_ATTEMPTS;
        loop {
            let id = self.tickets.issue(round).map_err(|_| failed("no randomness for a ticket"))?;
            let sealed = ticket.seal(&id).ok_or_else(|| failed("no ticket was sealed"))?;
            match self.store.issue_ticket(&id.key(), &sealed, self.settings.ticket.lifetime).await {
                Ok(()) => return Ok(id),
                Err(error) if error.is_unavailable() && attempts > 1 => attempts -= 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn flow_parameters(&self, head: &Head<'_>) -> Result<FlowParameters, Box<Reply>> {
        let (url, state) = (self.return_url(head)?, self.state_hash(head));
        let sealed = match parameter(head.query, "flow") {
            Parameter::Absent => None,
            Parameter::One(text) => Some(text),
            Parameter::Several => Some(String::new()),
        };
        let mut flow = state.as_ref().map_or(Flow::NEW, |state| self.flows.open(sealed.as_deref(), state));
        // An edge that does not recognize the ticket's mark has taken the ticket for the application's own and begun a
        // new flow.
        if let Some(before) = url.as_ref().and_then(|url| url.round(&self.tickets)) {
            let round = before.next().ok_or_else(|| Box::new(self.redirect_loop(head, url.as_ref(), None)))?;
            flow.round = flow.round.max(round);
        }
        Ok(FlowParameters { url, state, flow })
    }

    fn redirect_loop(&self, head: &Head<'_>, url: Option<&ReturnUrl>, identity: Option<&Identity>) -> Reply {
        let user = identity.map(|identity| identity.verified().claims().name.as_str());
        match url {
            Some(url) => self.redirect_loop_page(head, &url.host, &url.without_tickets(&self.tickets), user),
            None => self.redirect_loop_page(head, &self.host, "/", user),
        }
    }

    pub(super) fn state_hash(&self, head: &Head<'_>) -> Option<StateHash> {
        match parameter(head.query, "state") {
            Parameter::One(text) => StateHash::parse(&text),
            Parameter::Absent | Parameter::Several => None,
        }
    }

    /// Returns the URL of `/copyCookie` with the parameters of the flow.
    pub(super) fn copy_cookie_url(
        &self,
        head: &Head<'_>,
        url: Option<&ReturnUrl>,
        state: Option<&StateHash>,
        flow: Flow,
    ) -> String {
        let mut location = self.sso_url(head, "/copyCookie", url, state);
        if let Some(sealed) = state.and_then(|state| self.flows.seal(flow, state)) {
            location.push_str("&flow=");
            location.push_str(&sealed);
        }
        location
    }

    /// Returns the URL of a route of the sign-on host with the parameters of the flow.
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
            location.push_str(&format!("{separator}redirectURL={}", encode(&url.without_tickets(&self.tickets))));
            separator = '&';
        }
        if let Some(state) = state {
            location.push_str(&format!("{separator}state={}", state.as_str()));
        }
        location
    }
}
