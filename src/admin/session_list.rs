//! Sessions as operators read them: what the store lists, with the names of the users and the revocations from the user
//! directory. For the admin API and the command line.
//!
//! Nothing here grants access: a key of the store is a hash, and no token or session id is in it.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::clock::UnixTime;
use crate::sessions::{Listed, StoreError};
use crate::users::{DirectoryError, UserName, UserRegistry, UserState};

/// A session that the store holds.
pub struct SessionView {
    pub session: Listed,
    /// `None` when the directory does not know the user.
    pub name: Option<UserName>,
    /// Set when the session is not accepted any more, though the store still holds it.
    pub revocation: Option<Revocation>,
}

/// What an administrator did to a user since the session began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    Disabled,
    /// `session end`, another password, or disabled and enabled again.
    EndedBefore,
}

impl Revocation {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::EndedBefore => "ended",
        }
    }

    /// Returns what the directory says about a session, by the rule that the guard applies.
    fn from_state(state: &UserState, begun: UnixTime) -> Option<Self> {
        match state {
            UserState { disabled: true, .. } => Some(Self::Disabled),
            UserState { ended_before, .. } if begun <= *ended_before => Some(Self::EndedBefore),
            _ => None,
        }
    }
}

/// Returns the sessions by user and then by age. Blocks for as long as the directory takes.
pub fn session_views(sessions: Vec<Listed>, registry: &dyn UserRegistry) -> Result<Vec<SessionView>, DirectoryError> {
    let mut ids: Vec<&str> = sessions.iter().map(|session| session.record.user.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    let known: HashMap<String, (UserName, UserState)> =
        registry.known(&ids)?.into_iter().map(|(name, state)| (state.id.as_str().to_owned(), (name, state))).collect();
    let mut views: Vec<SessionView> = sessions
        .into_iter()
        .map(|session| {
            let user = known.get(&session.record.user);
            let revocation = user.and_then(|(_, state)| Revocation::from_state(state, session.record.created));
            SessionView { name: user.map(|(name, _)| name.clone()), revocation, session }
        })
        .collect();
    views.sort_by(|a, b| {
        let order = |it: &SessionView| (it.name.is_none(), it.name.clone(), it.session.record.created);
        order(a).cmp(&order(b)).then_with(|| a.session.key.cmp(&b.session.key))
    });
    Ok(views)
}

impl SessionView {
    pub fn as_json(&self) -> Value {
        let Listed { key, record, idle_expires_at, servers } = &self.session;
        json!({
            "key": key.as_str(),
            "user": self.name.as_ref().map(UserName::as_str),
            "user_id": record.user,
            "created": record.created.rfc3339(),
            "last_accessed": record.last_accessed.rfc3339(),
            "idle_expires_at": idle_expires_at.rfc3339(),
            "expires": record.expires.rfc3339(),
            "servers": servers,
            "ended": self.revocation.map(Revocation::as_str),
        })
    }
}

/// The servers that could not be reached, as JSON.
pub fn unreachable_as_json(unreachable: &[(String, StoreError)]) -> Value {
    unreachable.iter().map(|(server, error)| json!({ "server": server, "error": error.to_string() })).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::users::UserId;

    #[test]
    fn the_directory_ends_what_began_before_its_word_and_nothing_after() {
        let word = UnixTime::from_seconds(1000);
        let state = |disabled| UserState {
            id: UserId::random(),
            disabled,
            services: Vec::new(),
            roles: Vec::new(),
            ended_before: word,
            ended_by: 1,
            ended_formerly: UnixTime::default(),
            change: 1,
        };
        assert_eq!(Revocation::from_state(&state(false), word), Some(Revocation::EndedBefore));
        assert_eq!(Revocation::from_state(&state(false), word.plus(Duration::from_millis(1))), None);
        assert_eq!(
            Revocation::from_state(&state(true), word.plus(Duration::from_millis(1))),
            Some(Revocation::Disabled)
        );
    }
}
