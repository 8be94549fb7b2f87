//! Redemption: a service host turns a ticket into its own token cookie, at most once.

use super::return_url::take_ticket;
use super::state::State;
use super::ticket::Ticket;
use super::{Event, Sentry};
use crate::auth::slide;
use crate::auth::token::{CannotSign, Claims, Verified};
use crate::config::Audience;
use crate::reply::Reply;
use crate::request::Head;
use crate::sessions::{Found, Redemption, StoreError, find_patiently};

/// What became of a ticket that a request brought.
pub enum Redeemed {
    /// There was none to redeem; the request goes its way unchanged.
    NotAsked,
    /// The answer: to the same URL without the ticket, with the cookie. Or the store is away.
    Answer(Box<Reply>),
    /// The ticket is no good. `url` is the request's without it, for whoever goes on or starts again.
    Failed { url: String },
}

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
    StoreAway,
}

enum Failure {
    /// With the name of the user whose ticket it was, once its token has been verified.
    Refused(Refusal, Option<String>),
    StoreAway,
    Internal(String),
}

impl From<StoreError> for Failure {
    /// The store's own log and metrics say what it was.
    fn from(_: StoreError) -> Self {
        Self::StoreAway
    }
}

impl Sentry {
    /// Step 6. A request without our state cookie brings no ticket: its parameter is the application's own. A
    /// HEAD, a prefetch and a sub-resource leave the ticket for the person's own click.
    pub async fn redeem(&self, head: &Head<'_>, service: &str) -> Redeemed {
        // Both or neither; the parameter first, because few requests have it and most have cookies to look through.
        let Some((id, rest)) = head.query.and_then(|query| take_ticket(query, self.parameter())) else {
            return Redeemed::NotAsked;
        };
        let Some(state) = self.state(head) else { return Redeemed::NotAsked };
        if !head.may_redeem() {
            return Redeemed::NotAsked;
        }
        let url = Head { query: rest.as_deref(), ..*head }.url();
        let taken = self.store.redeem_ticket(&id.key(), self.settings.ticket.lifetime).await;
        let outcome = match taken {
            Ok(Redemption::Won(bytes)) => self.exchange(head, &state, service, Ticket::open(&id, &bytes)).await,
            Ok(Redemption::Replayed) => Err(Failure::Refused(Refusal::Replayed, None)),
            Ok(Redemption::Unknown) => Err(Failure::Refused(Refusal::Unknown, None)),
            // The ticket's server is away, the others need not be: another ticket may find one that is there.
            Err(error) if error.is_silence() => Err(Failure::Refused(Refusal::StoreAway, None)),
            Err(error) => Err(error.into()),
        };
        self.conclude(head, url, outcome)
    }

    /// The token that the service gets for a ticket that was just taken. Whatever fails here, the ticket is gone.
    async fn exchange(
        &self,
        head: &Head<'_>,
        state: &State,
        service: &str,
        ticket: Option<Ticket>,
    ) -> Result<(String, String), Failure> {
        let refused = |refusal| Err(Failure::Refused(refusal, None));
        let Some(ticket) = ticket else { return refused(Refusal::Unknown) };
        if ticket.host != *head.host {
            return refused(Refusal::OtherHost);
        }
        if ticket.state != state.hash() {
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
        // A user who was disabled since the ticket was issued keeps nothing alive with it.
        if self.guard.is_revoked(&verified) {
            return refused(Refusal::SessionEnded);
        }
        let idle = slide(&verified);
        if !self.store.record_access(verified.session_key(), head.now, idle).await?
            && !matches!(find_patiently(&*self.store, verified.session_key(), Some(idle)).await?, Found::Lives(_))
        {
            return refused(Refusal::SessionEnded);
        }
        self.guard.signed_on(verified.session_key(), ticket.fingerprint, head.now);
        let token = self.service_token(head, &verified, service);
        let token = token.map_err(|error| Failure::Internal(error.to_string()))?;
        Ok((name(&verified), token))
    }

    /// The same session, for one service: a cookie stolen from one application opens no other. Under a shared
    /// audience it is the one token itself, as the seeds draw it.
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

    /// `outcome` is the user's name, for the log, and the token.
    fn conclude(&self, head: &Head<'_>, url: String, outcome: Result<(String, String), Failure>) -> Redeemed {
        let host = Some(head.host.as_str());
        match outcome {
            Ok((name, token)) => {
                self.metrics.sign_on.tickets.redeemed.inc();
                self.audit(head, Event::TicketRedeemed, Some(&name), host, None);
                let reply =
                    Reply::redirect(&url).with_cookie(self.token_cookie(&token)).with_cookie(self.clear_state_cookie());
                Redeemed::Answer(Box::new(reply))
            }
            Err(Failure::Refused(refusal, user)) => {
                self.count(refusal);
                match user {
                    Some(user) => self.audit(head, Event::TicketRefused, Some(&user), host, Some(refusal.label())),
                    None => self.audit_anonymous(head, Event::TicketRefused, host, Some(refusal.label())),
                }
                Redeemed::Failed { url }
            }
            Err(Failure::StoreAway) => Redeemed::Answer(Box::new(self.store_away(head))),
            Err(Failure::Internal(cause)) => Redeemed::Answer(Box::new(self.internal(head, &cause))),
        }
    }

    fn count(&self, refusal: Refusal) {
        let tickets = &self.metrics.sign_on.tickets;
        match refusal {
            Refusal::Replayed => tickets.replayed.inc(),
            Refusal::Unknown | Refusal::BadToken | Refusal::SessionEnded | Refusal::StoreAway => tickets.expired.inc(),
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
            Self::StoreAway => "store_away",
        }
    }
}
