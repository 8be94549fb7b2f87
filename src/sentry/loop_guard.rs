//! Limits how often a browser is redirected to sign on before it gets a page that says what is wrong.
//!
//! Whatever two edges, or an edge and a browser, may disagree about (clocks, keys, revocations, lists of servers, a
//! cookie that is not kept), a flow has three rounds and then ends with a page. Browsers give up at 20 redirects and
//! show a page of their own, which does not name the cause; a flow of ours has at most twelve. The count belongs to the
//! flow and not to the browser, so that nine tabs are nine flows. It travels with the flow, and no edge stores it:
//!
//! - from a service to the sign-on host and through it, sealed with the flow's state in the parameter `flow`;
//! - back to the service in the mark of the ticket;
//! - after a redemption, when there is no flow any more, in a cookie that names the page and the login for half a
//!   minute (see `loop_cookie`).
//!
//! It is checked when another ticket would be issued, and nowhere before: a user who has logged out sees the form, and
//! a login in between starts the count again, because only a person types a password.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{digest, hmac};

use super::state::StateHash;
use crate::auth::keys::Keys;
use crate::auth::token::Verified;

/// One round: from a service to the sign-on host and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RedirectRound(u8);

impl RedirectRound {
    pub const FIRST: Self = Self(1);
    pub const LAST: Self = Self(3);
    pub const ALL: [Self; 3] = [Self(1), Self(2), Self(3)];

    pub fn number(self) -> u8 {
        self.0
    }

    /// Returns the round after one whose ticket was refused; `None` if it was the last.
    pub fn next(self) -> Option<Self> {
        (self < Self::LAST).then_some(Self(self.0 + 1))
    }

    /// Returns the round after one that ended with a redemption whose cookie is missing or invalid on the next request.
    /// It took one redirect more, so there is one round less.
    pub fn after_lost_cookie(self) -> Option<Self> {
        self.next()?.next()
    }

    pub fn parse(digit: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|round| round.0 + b'0' == digit)
    }
}

/// Identifies a login, from one password to the next; one of 2^48.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginId([u8; LOGIN_ID_BYTES]);

const LOGIN_ID_BYTES: usize = 6;

impl LoginId {
    pub fn of(verified: &Verified) -> Self {
        let login = format!("login {} {}", verified.authenticated_at().seconds(), verified.session_id().as_str());
        let hash = digest::digest(&digest::SHA256, login.as_bytes());
        // The hash has 32 bytes.
        Self(hash.as_ref().first_chunk().copied().unwrap_or_default())
    }

    pub fn parse(text: &[u8]) -> Option<Self> {
        Some(Self(URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?))
    }

    pub fn text(self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }
}

/// The progress of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub round: RedirectRound,
    /// A password was just accepted: typing it again would not help.
    pub is_signed_in: bool,
    /// What the cookie of a redemption says, which is about another flow of the same page.
    pub lost: Option<LostCookie>,
}

/// A flow that ended with a redemption, after which the browser is back at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostCookie {
    /// The round after it; `None` if it was the last.
    pub round: Option<RedirectRound>,
    /// The login whose cookie was lost. A former version does not write it.
    pub login: Option<LoginId>,
}

impl Flow {
    pub const NEW: Self = Self { round: RedirectRound::FIRST, is_signed_in: false, lost: None };
    /// A person typed a password, which no loop does, so the rounds start again.
    pub const SIGNED_IN: Self = Self { is_signed_in: true, ..Self::NEW };
    /// Returns whether there is a round left, whichever user is signed in.
    pub fn has_rounds_left(&self) -> bool {
        self.lost.is_none_or(|lost| lost.round.is_some())
    }

    /// Returns the round of another ticket for this login, if there is one left.
    pub fn round_for(&self, verified: &Verified) -> Option<RedirectRound> {
        let is_same = |lost: &LostCookie| lost.login.is_none_or(|login| login == LoginId::of(verified));
        self.lost.filter(is_same).map_or(Some(self.round), |lost| lost.round.map(|round| round.max(self.round)))
    }

    /// Returns the flow for a seal that cannot be verified: it was made by an edge whose keys are not known here, or
    /// not by an edge. That it has no round left is believed all the same: otherwise edges that disagree about keys
    /// would redirect for ever. A forged link can only make a browser show that page.
    fn unreadable(sealed: &str) -> Self {
        let is_spent = sealed.as_bytes().get(2) == Some(&b'0');
        let lost = is_spent.then_some(LostCookie { round: None, login: None });
        Self { round: RedirectRound::LAST, lost, ..Self::NEW }
    }
}

/// Seals the progress of a flow for a URL, so that no link can keep a browser from signing on, or make it loop for
/// ever.
pub struct FlowSealer(Vec<hmac::Key>);

/// Bytes of a tag. A forged tag changes a count of three and nothing else.
const TAG_BYTES: usize = 12;

impl FlowSealer {
    pub fn new(keys: &Keys) -> Self {
        Self(keys.derive_all("flow"))
    }

    /// Returns `None` for a flow that has just begun: there is nothing to say of it.
    pub fn seal(&self, flow: Flow, state: &StateHash) -> Option<String> {
        let key = self.0.first().filter(|_| flow != Flow::NEW)?;
        let mut text = format!("{}{}", flow.round.0, if flow.is_signed_in { 's' } else { 'r' });
        if let Some(lost) = flow.lost {
            let round = lost.round.map_or(0, RedirectRound::number);
            text.push_str(&format!("{round}{}", lost.login.map(LoginId::text).unwrap_or_default()));
        }
        let tag = hmac::sign(key, bound(&text, state).as_bytes());
        Some(format!("{text}.{}", URL_SAFE_NO_PAD.encode(&tag.as_ref()[..TAG_BYTES])))
    }

    pub fn open(&self, sealed: Option<&str>, state: &StateHash) -> Flow {
        let Some(sealed) = sealed else { return Flow::NEW };
        self.opened(sealed, state).unwrap_or_else(|| Flow::unreadable(sealed))
    }

    fn opened(&self, sealed: &str, state: &StateHash) -> Option<Flow> {
        let (text, tag) = sealed.split_once('.')?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        let bound = bound(text, state);
        let is_of = |key: &hmac::Key| hmac::sign(key, bound.as_bytes()).as_ref()[..TAG_BYTES] == tag[..];
        self.0.iter().any(is_of).then_some(())?;
        let (&[round, kind], lost) = text.as_bytes().split_first_chunk()?;
        let lost = match lost {
            [] => None,
            [round, login @ ..] => {
                Some(LostCookie { round: RedirectRound::parse(*round), login: LoginId::parse(login) })
            }
        };
        Some(Flow { round: RedirectRound::parse(round)?, is_signed_in: kind == b's', lost })
    }
}

fn bound(text: &str, state: &StateHash) -> String {
    format!("{text} {}", state.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flows(secrets: &[&str]) -> FlowSealer {
        FlowSealer(secrets.iter().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())).collect())
    }

    fn state(letter: &str) -> StateHash {
        StateHash::parse(&letter.repeat(43)).unwrap()
    }

    #[test]
    fn there_are_three_rounds_and_a_lost_one_counts_twice() {
        let second = RedirectRound::FIRST.next().unwrap();
        assert_eq!((second.next(), RedirectRound::LAST.next()), (Some(RedirectRound::LAST), None));
        assert_eq!(
            (RedirectRound::FIRST.after_lost_cookie(), second.after_lost_cookie()),
            (Some(RedirectRound::LAST), None)
        );
    }

    #[test]
    fn what_is_said_of_a_flow_is_read_with_its_own_state_alone() {
        let ours = flows(&["new", "old"]);
        assert_eq!(ours.seal(Flow::NEW, &state("a")), None, "an ordinary flow has nothing to say");
        assert_eq!(ours.open(None, &state("a")), Flow::NEW);
        for round in RedirectRound::ALL {
            let lost = [(None, None), (Some(RedirectRound::LAST), None), (None, Some(LoginId(*b"login1")))];
            let lost = lost.map(|(round, login)| Some(LostCookie { round, login }));
            for (is_signed_in, lost) in
                [(false, None), (true, None), (false, lost[0]), (true, lost[1]), (false, lost[2])]
            {
                let flow = Flow { round, is_signed_in, lost };
                let Some(sealed) = ours.seal(flow, &state("a")) else { continue };
                assert_eq!(ours.open(Some(&sealed), &state("a")), flow);
                // That none is left is all that is believed of one that cannot be read.
                let unreadable =
                    Flow { round: RedirectRound::LAST, lost: lost.filter(|_| !flow.has_rounds_left()), ..Flow::NEW };
                let unreadable =
                    Flow { lost: unreadable.lost.map(|lost| LostCookie { login: None, ..lost }), ..unreadable };
                assert_eq!(ours.open(Some(&sealed), &state("b")), unreadable, "of another flow");
                let former = flows(&["old"]).seal(flow, &state("a")).unwrap();
                assert_eq!(ours.open(Some(&former), &state("a")), flow, "sealed before the keys were changed");
                assert_eq!(flows(&["other"]).open(Some(&sealed), &state("a")), unreadable);
                let forged = sealed.replacen(char::from(b'0' + round.0), "0", 1);
                assert_eq!(ours.open(Some(&forged), &state("a")), unreadable);
            }
        }
        for bad in ["", ".", "2r", "2r.", "2r.AAAA", "2r.AAAAAAAAAAAAAAAA", "2r1AAAAAAAA.AAAAAAAAAAAAAAAA", "é.é"] {
            let unreadable = Flow { round: RedirectRound::LAST, ..Flow::NEW };
            assert_eq!(ours.open(Some(bad), &state("a")), unreadable, "{bad}");
        }
    }
}
