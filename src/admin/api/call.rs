//! A call of the admin API, read from the request line. Pure: authorization and execution are in `api`.

use http::Method;
use url::form_urlencoded;

use crate::config::AdminRole;
use crate::users::UserName;

/// Sessions in one response, unless `limit` is lower: some 4 MB.
pub const MOST_SESSIONS: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    ListSessions {
        user: Option<UserName>,
        limit: usize,
    },
    EndSessions {
        user: UserName,
    },
    EndAllSessions,
    ListPools,
    /// The body says which state.
    SetServerState {
        pool: String,
        server: String,
    },
    /// The body says whether it is on.
    SetMaintenance {
        service: String,
    },
    Reload,
    Status,
}

/// What a path names.
enum Resource {
    Sessions,
    Pools,
    Server { pool: String, server: String },
    Maintenance { service: String },
    Reload,
    Status,
}

/// Why a request is not a call of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadCall {
    /// There is nothing under this path.
    Path,
    /// The methods that there are.
    Method(&'static str),
    /// Says what is wrong, without quoting the query.
    Query(String),
}

impl Call {
    pub fn read(method: &Method, path: &str, query: Option<&str>) -> Result<Self, BadCall> {
        let resource = Resource::read(path).ok_or(BadCall::Path)?;
        let call = match (resource, method.as_str()) {
            (Resource::Sessions, "GET") => return list_sessions(query),
            (Resource::Sessions, "DELETE") => return end_sessions(query),
            (Resource::Pools, "GET") => Self::ListPools,
            (Resource::Server { pool, server }, "PUT") => Self::SetServerState { pool, server },
            (Resource::Maintenance { service }, "PUT") => Self::SetMaintenance { service },
            (Resource::Reload, "POST") => Self::Reload,
            (Resource::Status, "GET") => Self::Status,
            (resource, _) => return Err(BadCall::Method(resource.methods())),
        };
        match query {
            None | Some("") => Ok(call),
            Some(_) => Err(BadCall::Query("there are no parameters here".into())),
        }
    }

    /// Whether the call has a body.
    pub fn takes_body(&self) -> bool {
        matches!(self, Self::SetServerState { .. } | Self::SetMaintenance { .. } | Self::Reload)
    }

    /// Whether a caller of this role may make the call. What signs everybody out is no matter of a help desk.
    pub fn is_open_to(&self, role: AdminRole) -> bool {
        match role {
            AdminRole::Admin => true,
            AdminRole::HelpDesk => matches!(self, Self::ListSessions { .. } | Self::EndSessions { .. }),
        }
    }
}

impl Resource {
    fn read(path: &str) -> Option<Self> {
        Some(match path {
            "/api/sessions" => Self::Sessions,
            "/api/pools" => Self::Pools,
            "/api/reload" => Self::Reload,
            "/api/status" => Self::Status,
            _ if path.starts_with("/api/pools/") => {
                // The address of a server may be the path of a Unix socket, so it is all of the rest.
                let (pool, server) = path.strip_prefix("/api/pools/")?.split_once("/servers/")?;
                let are_names = !pool.is_empty() && !pool.contains('/') && !server.is_empty();
                let (pool, server) = (percent_decoded(pool).filter(|_| are_names)?, percent_decoded(server)?);
                Self::Server { pool, server }
            }
            _ => {
                let service = path.strip_prefix("/api/services/")?.strip_suffix("/maintenance")?;
                let is_name = !service.is_empty() && !service.contains('/');
                Self::Maintenance { service: percent_decoded(service).filter(|_| is_name)? }
            }
        })
    }

    const fn methods(&self) -> &'static str {
        match self {
            Self::Sessions => "GET, DELETE",
            Self::Pools | Self::Status => "GET",
            Self::Server { .. } | Self::Maintenance { .. } => "PUT",
            Self::Reload => "POST",
        }
    }
}

fn list_sessions(query: Option<&str>) -> Result<Call, BadCall> {
    let (mut user, mut limit) = (None, None);
    for (name, value) in pairs(query) {
        match &*name {
            "user" => once(&name, &mut user, self::user(&value)?)?,
            "limit" => once(&name, &mut limit, self::limit(&value)?)?,
            _ => return Err(BadCall::Query("there are `user` and `limit`".into())),
        }
    }
    Ok(Call::ListSessions { user, limit: limit.unwrap_or(MOST_SESSIONS) })
}

fn end_sessions(query: Option<&str>) -> Result<Call, BadCall> {
    let (mut user, mut all) = (None, None);
    for (name, value) in pairs(query) {
        match &*name {
            "user" => once(&name, &mut user, self::user(&value)?)?,
            "all" if value == "true" => once(&name, &mut all, ())?,
            _ => return Err(BadCall::Query("there are `user` and `all=true`".into())),
        }
    }
    match (user, all) {
        (Some(user), None) => Ok(Call::EndSessions { user }),
        (None, Some(())) => Ok(Call::EndAllSessions),
        (None, None) => Err(BadCall::Query("name the `user` whose sessions are to end, or `all=true`".into())),
        (Some(_), Some(())) => Err(BadCall::Query("`user` and `all` exclude each other".into())),
    }
}

fn pairs(query: Option<&str>) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(query.unwrap_or_default().as_bytes())
}

fn once<T>(name: &str, place: &mut Option<T>, value: T) -> Result<(), BadCall> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(BadCall::Query(format!("`{name}` is there twice"))),
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

/// Decodes a part of a path (RFC 3986 §2.1). `None` where an escape is none, or the text is not UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|it| it.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSIONS: &str = "/api/sessions";

    fn list(query: &str) -> Result<Call, BadCall> {
        Call::read(&Method::GET, SESSIONS, Some(query))
    }

    fn name(text: &str) -> UserName {
        UserName::parse(text).unwrap()
    }

    #[test]
    fn a_list_is_of_all_or_of_one_user_in_canonical_form() {
        let all = Call::ListSessions { user: None, limit: MOST_SESSIONS };
        assert_eq!(Call::read(&Method::GET, SESSIONS, None), Ok(all.clone()));
        assert_eq!(list(""), Ok(all));
        assert_eq!(list("limit=7&user=%20Ada+"), Ok(Call::ListSessions { user: Some(name("ada")), limit: 7 }));
        let odd = name("anna+lena&co=é@example.com");
        let query = "user=anna%2Blena%26co%3D%C3%A9%40example.com";
        assert_eq!(list(query), Ok(Call::ListSessions { user: Some(odd.clone()), limit: MOST_SESSIONS }));
        assert_eq!(Call::read(&Method::DELETE, SESSIONS, Some(query)), Ok(Call::EndSessions { user: odd }));
        assert_eq!(Call::read(&Method::DELETE, SESSIONS, Some("all=true")), Ok(Call::EndAllSessions));
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
            "all=true",
        ] {
            assert!(matches!(list(bad), Err(BadCall::Query(_))), "{bad}: {:?}", list(bad));
        }
        for bad in [
            None,
            Some(""),
            Some("limit=5"),
            Some("user=ada&limit=5"),
            Some("all"),
            Some("all="),
            Some("all=1"),
            Some("all=TRUE"),
            Some("all=false"),
            Some("all=true&all=true"),
            Some("all=true&user=ada"),
            Some("user=ada&all=true"),
            Some("user=ada&all=false"),
        ] {
            let call = Call::read(&Method::DELETE, SESSIONS, bad);
            assert!(matches!(call, Err(BadCall::Query(_))), "{bad:?}: {call:?}");
        }
        for (method, path) in [
            (Method::GET, "/api/status"),
            (Method::POST, "/api/reload"),
            (Method::PUT, "/api/services/iqueue/maintenance"),
        ] {
            assert!(Call::read(&method, path, None).is_ok() && Call::read(&method, path, Some("")).is_ok());
            let with_query = Call::read(&method, path, Some("user=ada"));
            assert!(matches!(with_query, Err(BadCall::Query(_))), "{path}");
        }
    }

    #[test]
    fn a_server_is_named_as_the_configuration_writes_it() {
        for (path, pool, server) in [
            ("/api/pools/iqueue/servers/127.0.0.1:9001", "iqueue", "127.0.0.1:9001"),
            ("/api/pools/iqueue/servers/[::1]:9001", "iqueue", "[::1]:9001"),
            ("/api/pools/iqueue/servers/%5B::1%5D%3A9001", "iqueue", "[::1]:9001"),
            ("/api/pools/i%20q/servers/app.internal:80", "i q", "app.internal:80"),
            ("/api/pools/i%2Fq/servers/unix:///run/app.sock", "i/q", "unix:///run/app.sock"),
            ("/api/pools/x/servers/unix%3A%2F%2F%2Frun%2Fapp.sock", "x", "unix:///run/app.sock"),
            ("/api/pools/x/servers/a/servers/b", "x", "a/servers/b"),
            ("/api/pools/%C3%A9/servers/a%2Bb+c", "é", "a+b+c"),
        ] {
            let call = Call::SetServerState { pool: pool.into(), server: server.into() };
            assert_eq!(Call::read(&Method::PUT, path, None), Ok(call), "{path}");
        }
        for bad in [
            "/api/pools/",
            "/api/pools/x",
            "/api/pools/x/servers",
            "/api/pools/x/servers/",
            "/api/pools//servers/a:1",
            "/api/pools/servers/a:1",
            "/api/pools/x/y/servers/a:1",
            "/api/pools/x/Servers/a:1",
            "/api/pools/x/servers/%",
            "/api/pools/x/servers/%4",
            "/api/pools/x/servers/%zz",
            "/api/pools/x/servers/%+1",
            "/api/pools/%FF/servers/a:1",
            "/api/pools/x/servers/%C3",
        ] {
            assert_eq!(Call::read(&Method::PUT, bad, None), Err(BadCall::Path), "{bad}");
        }
    }

    #[test]
    fn a_service_is_named_in_the_path() {
        for (path, service) in [
            ("/api/services/iqueue/maintenance", Some("iqueue")),
            ("/api/services/i%2Fq%20%C3%A9/maintenance", Some("i/q é")),
            ("/api/services/maintenance/maintenance", Some("maintenance")),
            ("/api/services//maintenance", None),
            ("/api/services/maintenance", None),
            ("/api/services/a/b/maintenance", None),
            ("/api/services/a/maintenance/", None),
            ("/api/services/%/maintenance", None),
            ("/api/services/%4/maintenance", None),
            ("/api/services/%+1/maintenance", None),
            ("/api/services/%FF/maintenance", None),
        ] {
            let call = service.map(|service| Call::SetMaintenance { service: service.into() });
            assert_eq!(Call::read(&Method::PUT, path, None), call.ok_or(BadCall::Path), "{path}");
        }
    }

    #[test]
    fn other_paths_and_methods_are_no_calls() {
        for path in ["/api/", "/api/sessions/", "/api/Sessions", "/api/sessions/x", "/api/reload/", "/api/statuses"] {
            assert_eq!(Call::read(&Method::GET, path, None), Err(BadCall::Path));
        }
        for (path, good, allow) in [
            (SESSIONS, &["GET", "DELETE"][..], "GET, DELETE"),
            ("/api/status", &["GET"], "GET"),
            ("/api/reload", &["POST"], "POST"),
            ("/api/pools", &["GET"], "GET"),
            ("/api/pools/x/servers/a:1", &["PUT"], "PUT"),
            ("/api/services/iqueue/maintenance", &["PUT"], "PUT"),
        ] {
            for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "PROPFIND"] {
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                let call = Call::read(&method, path, Some("user=ada").filter(|_| path == SESSIONS));
                if good.contains(&method.as_str()) {
                    assert!(call.is_ok(), "{method} {path}: {call:?}");
                } else {
                    assert_eq!(call, Err(BadCall::Method(allow)), "{method} {path}");
                }
            }
        }
    }

    #[test]
    fn a_help_desk_lists_and_ends_sessions_of_users_and_does_nothing_else() {
        let user = || UserName::parse("ada").unwrap();
        for (call, open) in [
            (Call::ListSessions { user: None, limit: 1 }, true),
            (Call::ListSessions { user: Some(user()), limit: 1 }, true),
            (Call::EndSessions { user: user() }, true),
            (Call::EndAllSessions, false),
            (Call::ListPools, false),
            (Call::SetServerState { pool: "p".into(), server: "s".into() }, false),
            (Call::SetMaintenance { service: "s".into() }, false),
            (Call::Reload, false),
            (Call::Status, false),
        ] {
            assert_eq!(call.is_open_to(AdminRole::HelpDesk), open, "{call:?}");
            assert!(call.is_open_to(AdminRole::Admin), "{call:?}");
        }
    }
}
