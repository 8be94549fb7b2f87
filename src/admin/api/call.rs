//! A call of the admin API, read from the request line. Pure: authorization and execution are in `api`.

use http::Method;
use url::form_urlencoded;

use crate::users::UserName;

pub const SESSIONS: &str = "/api/sessions";

/// Sessions in one response, unless `limit` is lower: some 4 MB.
pub const MOST_SESSIONS: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    List { user: Option<UserName>, limit: usize },
    End { user: UserName },
}

/// Why a request is not a call of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadCall {
    /// There is nothing under this path.
    Path,
    Method,
    /// Says what is wrong, without quoting the query.
    Query(String),
}

impl Call {
    pub fn read(method: &Method, path: &str, query: Option<&str>) -> Result<Self, BadCall> {
        if path != SESSIONS {
            return Err(BadCall::Path);
        }
        let may_limit = match *method {
            Method::GET => true,
            Method::DELETE => false,
            _ => return Err(BadCall::Method),
        };
        let (mut user, mut limit) = (None, None);
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let twice = match &*name {
                "user" => user.replace(self::user(&value)?).is_some(),
                "limit" if may_limit => limit.replace(self::limit(&value)?).is_some(),
                _ => return Err(BadCall::Query("there are `user` and, for a list, `limit`".into())),
            };
            if twice {
                return Err(BadCall::Query(format!("`{name}` is there twice")));
            }
        }
        match user {
            user if may_limit => Ok(Self::List { user, limit: limit.unwrap_or(MOST_SESSIONS) }),
            Some(user) => Ok(Self::End { user }),
            None => Err(BadCall::Query("name the `user` whose sessions are to end".into())),
        }
    }
}

fn user(value: &str) -> Result<UserName, BadCall> {
    // The decoder replaces bytes that are not UTF-8 by this character.
    if value.contains(char::REPLACEMENT_CHARACTER) {
        return Err(BadCall::Query("`user` is no UTF-8".into()));
    }
    UserName::parse(value).map_err(|error| BadCall::Query(format!("`user`: {error}")))
}

fn limit(value: &str) -> Result<usize, BadCall> {
    let number = value.parse().ok().filter(|limit| (1..=MOST_SESSIONS).contains(limit));
    let number = number.filter(|_| value.bytes().all(|b| b.is_ascii_digit()));
    number.ok_or_else(|| BadCall::Query(format!("`limit` is 1 to {MOST_SESSIONS}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(query: &str) -> Result<Call, BadCall> {
        Call::read(&Method::GET, SESSIONS, Some(query))
    }

    fn name(text: &str) -> UserName {
        UserName::parse(text).unwrap()
    }

    #[test]
    fn a_list_is_of_all_or_of_one_user_in_canonical_form() {
        let all = Call::List { user: None, limit: MOST_SESSIONS };
        assert_eq!(Call::read(&Method::GET, SESSIONS, None), Ok(all.clone()));
        assert_eq!(list(""), Ok(all));
        assert_eq!(list("limit=7&user=%20Ada+"), Ok(Call::List { user: Some(name("ada")), limit: 7 }));
        let odd = name("anna+lena&co=é@example.com");
        let query = "user=anna%2Blena%26co%3D%C3%A9%40example.com";
        assert_eq!(list(query), Ok(Call::List { user: Some(odd.clone()), limit: MOST_SESSIONS }));
        assert_eq!(Call::read(&Method::DELETE, SESSIONS, Some(query)), Ok(Call::End { user: odd }));
    }

    #[test]
    fn what_is_not_understood_is_not_guessed_at() {
        for bad in [
            "user=",
            "user=ada%20lovelace",
            "user=%00",
            "user=%FF%FE",
            "user=ada&user=bob",
            "limit=0",
            "limit=-1",
            "limit=%2B5",
            "limit=10001",
            "limit=99999999999999999999999",
            "limit=5&limit=5",
            "users=ada",
            "user=ada&all",
        ] {
            assert!(matches!(list(bad), Err(BadCall::Query(_))), "{bad}: {:?}", list(bad));
        }
        for bad in [None, Some(""), Some("limit=5"), Some("user=ada&limit=5")] {
            let call = Call::read(&Method::DELETE, SESSIONS, bad);
            assert!(matches!(call, Err(BadCall::Query(_))), "{bad:?}: {call:?}");
        }
    }

    #[test]
    fn other_paths_and_methods_are_no_calls() {
        for path in ["/api/", "/api/sessions/", "/api/Sessions", "/api/sessions/x"] {
            assert_eq!(Call::read(&Method::GET, path, None), Err(BadCall::Path));
        }
        for method in [Method::POST, Method::PUT, Method::HEAD, Method::OPTIONS, Method::PATCH] {
            assert_eq!(Call::read(&method, SESSIONS, Some("user=ada")), Err(BadCall::Method));
        }
    }
}
