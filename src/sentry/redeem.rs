//! Redemption: a service host exchanges a ticket for its own token cookie, at most once.

use std::sync::Arc;

use super::loop_guard::{LoginId, RedirectRound};
use super::return_url::escaped;
use super::state::State;
use super::ticket::Ticket;
use super::ticket_query::{ExtractedTickets, FoundTicket};
use super::{Event, Sentry};
use crate::auth::Identity;
use crate::auth::cookie::Lookup;
use crate::auth::token::{CannotSign, Claims, Verified};
use crate::config::Audience;
use crate::reply::Reply;
use crate::request::Head;
use crate::sessions::{Redemption, StoreError};

/// What became of the ticket in a request.
pub enum RedeemOutcome {
    /// There was no ticket; the request continues unchanged.
    NoTicket,
    /// The reply: a redirect to the same URL without the ticket, with the cookie. Or the store is unavailable.
    Reply(Box<Reply>),
    /// There is a ticket in the URL of a request that may not redeem it. `url` is the URL without it.
    NotRedeemable {
        url: String,
    },
    Failed(FailedTicket),
}

/// A ticket that was refused and is used up.
pub struct FailedTicket {
    /// The URL without the ticket, for a redirect or another sign-on.
    pub url: String,
    /// The round of its flow.
    pub round: RedirectRound,
    /// The session that it names, if that is active.
    named_session: Option<Arc<Verified>>,
}

impl FailedTicket {
    /// Returns whether it names another session than the cookie of the request: then it is not known which user is to
    /// be served, and the sign-on host decides.
    pub fn names_other_than(&self, identity: &Identity) -> bool {
        self.named_session.as_ref().is_some_and(|named| named.session_id() != identity.verified().session_id())
    }
}

/// Maximum number of tickets of one URL that are taken from the store. One is ours; others were added by hand.
const MAX_TICKETS_TAKEN: usize = 4;

/// Why a ticket was refused, for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Unknown,
    Replayed,
    OtherHost,
    OtherState,
    OtherBrowser,
    BadToken,
    SessionEnded,
    /// The service's cookie is of a later login.
    Superseded,
    StoreUnavailable,
}

/// The token that is issued for a valid ticket.
struct IssuedToken {
    /// The user's name, for the log.
    name: String,
    token: String,
    login: LoginId,
}

enum Failure {
    /// With the name of the user of the ticket, once its token has been verified.
    Refused(Refusal, Option<String>),
    StoreUnavailable,
    Internal(String),
}

impl From<StoreError> for Failure {
    /// The store's own log and metrics have the cause.
    fn from(_: StoreError) -> Self {
        Self::StoreUnavailable
    }
}

impl Sentry {
    /// Step 6. A parameter with the mark of a ticket never belongs to an application: in a navigation the ticket is
    /// taken from the store and removed from the URL, whether or not this browser may redeem it. HEAD requests,
    /// prefetches and parts of a page leave it for the navigation.
    pub async fn redeem(&self, head: &Head<'_>, service: &str) -> RedeemOutcome {
        let Some(extracted) = head.query.and_then(|query| self.tickets.extract(query)) else {
            return RedeemOutcome::NoTicket;
        };
        let url = Head { query: extracted.rest.as_deref(), ..*head }.url();
        if !head.may_redeem() {
            return RedeemOutcome::NotRedeemable { url };
        }
        let round = extracted.round().unwrap_or(RedirectRound::FIRST);
        let ticket = match self.take_from_store(&extracted).await {
            Ok(ticket) => ticket,
            Err(failure) => {
                return self.redemption_outcome(head, FailedTicket { url, round, named_session: None }, Err(failure));
            }
        };
        let outcome = self.token_for(head, self.state(head).as_ref(), service, &ticket).await;
        let named_session = match outcome {
            // The service's cookie is of the later login and stays in use.
            Err(Failure::Refused(Refusal::Superseded, _)) => None,
            Err(Failure::Refused(..)) => self.session_of_refused_ticket(head, &ticket).await,
            _ => None,
        };
        self.redemption_outcome(head, FailedTicket { url, round, named_session }, outcome)
    }

    /// Takes the tickets of a URL from the store. The last one counts, which the sign-on host added.
    async fn take_from_store(&self, extracted: &ExtractedTickets) -> Result<Ticket, Failure> {
        let canonical = |ticket: &&FoundTicket| ticket.is_canonical;
        let mut tickets = extracted.tickets.iter().rev().take(MAX_TICKETS_TAKEN).filter(canonical);
        let id = tickets.next().ok_or(Failure::Refused(Refusal::Unknown, None))?.id;
        let redeemed = self.store.redeem_ticket(&id.key(), self.settings.ticket.lifetime).await;
        for other in tickets.filter(|other| other.id != id) {
            self.store.redeem_ticket(&other.id.key(), self.settings.ticket.lifetime).await.ok();
        }
        match redeemed {
            Ok(Redemption::Won(bytes)) => Ticket::open(&id, &bytes).ok_or(Failure::Refused(Refusal::Unknown, None)),
            Ok(Redemption::Replayed) => Err(Failure::Refused(Refusal::Replayed, None)),
            Ok(Redemption::Unknown) => Err(Failure::Refused(Refusal::Unknown, None)),
            // The server of this ticket is unavailable, but others may not be: another ticket may be on one of those.
            Err(error) if error.is_unavailable() => Err(Failure::Refused(Refusal::StoreUnavailable, None)),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the session that a refused ticket names, if it is active, or if the store does not say in time: then it
    /// is not known either which user is to be served. Needed only if there is a cookie to compare it with.
    async fn session_of_refused_ticket(&self, head: &Head<'_>, ticket: &Ticket) -> Option<Arc<Verified>> {
        if self.cookie(head) == Lookup::Absent {
            return None;
        }
        let verified = self.guard.tokens().verify(&ticket.token, head.now).ok()?;
        let may_live = self.active_since(&verified, None, head.now).await.map_or(true, |opened| opened.is_some());
        (may_live && !self.guard.is_revoked(&verified)).then_some(verified)
    }

    /// Issues the token of the service for a ticket that was just taken. Whatever fails here, the ticket is used up.
    async fn token_for(
        &self,
        head: &Head<'_>,
        state: Option<&State>,
        service: &str,
        ticket: &Ticket,
    ) -> Result<IssuedToken, Failure> {
        let refused = |refusal| Err(Failure::Refused(refusal, None));
        if ticket.host != *head.host {
            return refused(Refusal::OtherHost);
        }
        if state.is_none_or(|state| ticket.state != state.hash()) {
            return refused(Refusal::OtherState);
        }
        let tokens = self.guard.tokens();
        let name = |verified: &Verified| verified.claims().name.clone();
        let Ok(verified) = tokens.verify(&ticket.token, head.now) else {
            let user = tokens.remembered(&ticket.token).map(|verified| name(&verified));
            return Err(Failure::Refused(Refusal::BadToken, user));
        };
        let refused = |refusal| Err(Failure::Refused(refusal, Some(name(&verified))));
        if !self.guard.fingerprints().matches(head.headers, verified.session_id(), ticket.fingerprint) {
            return refused(Refusal::OtherBrowser);
        }
        // A user who was disabled after the ticket was issued extends no session with it.
        if self.guard.is_revoked(&verified) {
            return refused(Refusal::SessionEnded);
        }
        let idle = verified.idle_ttl();
        // All servers of the session are queried before anything is written: one that missed its end must not decide
        // alone.
        let Some(opened) = self.active_since(&verified, Some(idle), head.now).await? else {
            return refused(Refusal::SessionEnded);
        };
        if !self.replace_service_sessions(head, service, &verified, opened).await? {
            return refused(Refusal::Superseded);
        }
        self.guard.note_sign_on(verified.session_key(), ticket.fingerprint, head.now);
        self.store.record_access(verified.session_key(), head.now, idle).await?;
        let token = self.service_token(head, &verified, service);
        let token = token.map_err(|error| Failure::Internal(error.to_string()))?;
        Ok(IssuedToken { name: name(&verified), token, login: LoginId::of(&verified) })
    }

    /// Returns a token of the same session for one service: a cookie that is stolen from one application opens no
    /// other. With a shared audience it is the same token, as in the specification.
    fn service_token(&self, head: &Head<'_>, verified: &Verified, service: &str) -> Result<String, CannotSign> {
        if self.settings.token.audience == Audience::Shared {
            return Ok(verified.token().to_owned());
        }
        let now = head.now.seconds();
        self.guard.tokens().mint(&Claims {
            aud: Self::service_audience(&self.settings, service),
            jti: uuid::Uuid::new_v4().to_string(),
            iat: now,
            nbf: now,
            ..verified.claims().clone()
        })
    }

    fn redemption_outcome(
        &self,
        head: &Head<'_>,
        failed: FailedTicket,
        outcome: Result<IssuedToken, Failure>,
    ) -> RedeemOutcome {
        let host = Some(head.host.as_str());
        match outcome {
            Ok(IssuedToken { name, token, login }) => {
                self.metrics.sign_on.tickets.redeemed.inc();
                self.audit(head, Event::TicketRedeemed, Some(&name), host, None);
                let FailedTicket { url, round, .. } = failed;
                let reply =
                    Reply::redirect(&url).with_cookie(self.token_cookie(&token)).with_cookie(self.clear_state_cookie());
                let round_cookie = self.round_cookie(&escaped(&url), round, login);
                RedeemOutcome::Reply(Box::new(reply.with_cookie(round_cookie)))
            }
            Err(Failure::Refused(refusal, user)) => {
                self.count_refusal(refusal);
                match user {
                    Some(user) => self.audit(head, Event::TicketRefused, Some(&user), host, Some(refusal.label())),
                    None => self.audit_anonymous(head, Event::TicketRefused, host, Some(refusal.label())),
                }
                RedeemOutcome::Failed(failed)
            }
            Err(Failure::StoreUnavailable) => RedeemOutcome::Reply(Box::new(self.store_unavailable(head))),
            Err(Failure::Internal(cause)) => RedeemOutcome::Reply(Box::new(self.internal(head, &cause))),
        }
    }

    fn count_refusal(&self, refusal: Refusal) {
        let tickets = &self.metrics.sign_on.tickets;
        match refusal {
            Refusal::Replayed => tickets.replayed.inc(),
            Refusal::Unknown
            | Refusal::BadToken
            | Refusal::SessionEnded
            | Refusal::Superseded
            | Refusal::StoreUnavailable => {
                tickets.expired.inc();
            }
            Refusal::OtherHost | Refusal::OtherState | Refusal::OtherBrowser => tickets.mismatched.inc(),
        }
    }
}

impl Refusal {
    fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown_or_expired",
            Self::Replayed => "replayed",
            Self::OtherHost => "other_host",
            Self::OtherState => "other_state",
            Self::OtherBrowser => "fingerprint",
            Self::BadToken => "bad_token",
            Self::SessionEnded => "session_ended",
            Self::Superseded => "outlived",
            Self::StoreUnavailable => "store_away",
        }
    }
}
