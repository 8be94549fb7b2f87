//! What a route makes of a request that it admits: the target that the application receives, or a reply that is configured
//! in its place. Called by `policy`.

use http::Uri;

use super::context::RequestContext;
use super::decision::Decision;
use crate::config::{Action, Prefixes, Redirect};
use crate::path::{BadPath, CanonicalPath};
use crate::reply::Reply;
use crate::routes::Route;

/// What becomes of a request once its route has admitted it.
pub enum Treatment {
    /// With this path and query, where they are not the client's.
    Forward(Option<Box<str>>),
    Reply(Box<Reply>),
    /// One of the route's static files.
    Files,
}

impl Treatment {
    /// Carries it out where the decision is to forward the request: then it is admitted.
    pub fn apply(self, decision: Decision, ctx: &mut RequestContext) -> Decision {
        match (decision, self) {
            (Decision::Forward, Self::Reply(reply)) => Decision::Reply(reply),
            (Decision::Forward, Self::Files) => Decision::File,
            (Decision::Forward, Self::Forward(target)) => {
                ctx.upstream_target = target;
                Decision::Forward
            }
            (refusal, _) => refusal,
        }
    }
}

/// Decides what becomes of a request for this path, if it is admitted. An error is a path that cannot be divided where its
/// route divides it: a part of it would become another address than the one that the rules were held against.
pub fn treatment(route: &Route, path: &CanonicalPath, uri: &Uri) -> Result<Treatment, BadPath> {
    let reply = match &route.config.action {
        Action::Forward(forward) => {
            let target = forward.prefixes.as_ref().map(|prefixes| upstream_target(prefixes, path, uri.query()));
            return target.transpose().map(Treatment::Forward);
        }
        Action::Redirect(redirect) => {
            Reply::configured_redirect(redirect.status, &location(redirect, path, uri.query())?)
        }
        Action::Files(_) => return Ok(Treatment::Files),
        Action::Respond(reply) => {
            let reply = Reply::fixed(reply.status, reply.content_type.as_ref(), reply.body.clone());
            route.response_fields.iter().fold(reply, |reply, fields| reply.changed(&fields.removed, &fields.set))
        }
    };
    Ok(Treatment::Reply(Box::new(reply)))
}

/// Bytes are cut off and put before the others; what is left of the path, and the query, stay as they were sent.
fn upstream_target(prefixes: &Prefixes, path: &CanonicalPath, query: Option<&str>) -> Result<Box<str>, BadPath> {
    let rest = path.after(prefixes.stripped())?;
    let mut target =
        String::with_capacity(prefixes.add.len() + rest.len() + 1 + query.map_or(0, |query| query.len() + 1));
    target.push_str(&prefixes.add);
    target.push_str(if rest.is_empty() { "/" } else { rest });
    if let Some(query) = query {
        target.push('?');
        target.push_str(query);
    }
    Ok(target.into())
}

/// The target of a redirect. What comes from the request is put behind the configured host and path, and cannot change
/// them: it begins with one slash in every reading, or stands behind a question mark. It is visible ASCII, as `validate`
/// has seen to.
fn location(redirect: &Redirect, path: &CanonicalPath, query: Option<&str>) -> Result<String, BadPath> {
    let rest = redirect.keep_path.as_ref().map(|prefix| path.after(prefix)).transpose()?.unwrap_or_default();
    let to = if rest.is_empty() { &redirect.to } else { redirect.to.trim_end_matches('/') };
    let kept = query.filter(|_| redirect.keep_query);
    let mut location = String::with_capacity(to.len() + rest.len() + kept.map_or(0, str::len) + 1);
    location.push_str(to);
    location.push_str(rest);
    for (at, query) in redirect.query.as_deref().into_iter().chain(kept).enumerate() {
        location.push(if at == 0 { '?' } else { '&' });
        location.push_str(query);
    }
    if let Some(fragment) = &redirect.fragment {
        location.push('#');
        location.push_str(fragment);
    }
    Ok(location)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn redirect(to: &str, keep_path: Option<&str>) -> Redirect {
        Redirect {
            status: StatusCode::FOUND,
            to: to.into(),
            query: None,
            fragment: None,
            keep_path: keep_path.map(str::to_owned),
            keep_query: true,
        }
    }

    fn led(redirect: &Redirect, target: &str) -> Option<String> {
        let uri: Uri = target.parse().unwrap();
        location(redirect, &CanonicalPath::of(uri.path()).ok()?, uri.query()).ok()
    }

    #[test]
    fn what_follows_the_routes_path_is_put_behind_the_target() {
        for (to, prefix, target, expected) in [
            ("https://new.example.com/x/", "/old", "/old/a/b", "https://new.example.com/x/a/b"),
            ("https://new.example.com/x/", "/old", "/old/", "https://new.example.com/x/"),
            ("https://new.example.com/x/", "/old", "/old", "https://new.example.com/x/"),
            ("https://new.example.com/x", "/old", "/old", "https://new.example.com/x"),
            ("https://new.example.com/x", "/old", "/old/", "https://new.example.com/x/"),
            ("https://new.example.com/x", "/old", "/old/a?b=c", "https://new.example.com/x/a?b=c"),
            ("https://new.example.com/", "", "/", "https://new.example.com/"),
            ("https://new.example.com/", "", "/a//b/?c", "https://new.example.com/a//b/?c"),
            ("https://new.example.com/", "", "/a%2Fb;v=%0D%0A", "https://new.example.com/a%2Fb;v=%0D%0A"),
            ("/", "/old", "/old/a", "/a"),
            ("/new/", "/old", "/old/@host", "/new/@host"),
        ] {
            assert_eq!(led(&redirect(to, Some(prefix)), target).as_deref(), Some(expected), "{to} {target}");
        }
    }

    #[test]
    fn a_prefix_is_cut_off_and_another_put_before_what_is_left() {
        for (strip, add, target, expected) in [
            ("/strip", "", "/strip", "/"),
            ("/strip", "", "/strip/", "/"),
            ("/strip", "", "/strip?a=b", "/?a=b"),
            ("/strip", "", "/strip/a/b?c=/d//e", "/a/b?c=/d//e"),
            ("/strip", "", "/strip/a%2fb/%C3%A9;v=1", "/a%2fb/%C3%A9;v=1"),
            ("/strip", "/v2", "/strip", "/v2/"),
            ("/strip", "/v2", "/strip/a", "/v2/a"),
            ("", "/v2", "/", "/v2/"),
            ("", "/v2", "/strip/a?b", "/v2/strip/a?b"),
        ] {
            let prefixes = Prefixes { strip: http::HeaderValue::from_static(strip), add: add.into() };
            let uri: Uri = target.parse().unwrap();
            let path = CanonicalPath::of(uri.path()).unwrap();
            assert_eq!(upstream_target(&prefixes, &path, uri.query()).as_deref(), Ok(expected), "{target}");
        }
    }

    /// Whatever a browser makes of the target, it is on the host that the operator wrote.
    #[test]
    fn no_request_chooses_the_host_that_it_is_sent_to() {
        let base = url::Url::parse("https://iqueue.test/old/x").unwrap();
        for (to, prefix) in
            [("/", "/old"), ("/", ""), ("/new/", "/old"), ("https://new.test/", "/old"), ("https://new.test/", "")]
        {
            for rest in [
                "//evil.test",
                "///evil.test",
                "/\\evil.test",
                "/\\/evil.test",
                "\\/evil.test",
                "/%2fevil.test",
                "/%5cevil.test",
                "/%252fevil.test",
                "/;/evil.test",
                "/./evil.test",
                "/.//evil.test",
                "/../evil.test",
                "/a/../..//evil.test",
                "/%2e%2e//evil.test",
                "/%09/evil.test",
                "/%0d%0a/evil.test",
                "/%0D%0ALocation:evil.test",
                "@evil.test",
                ".evil.test",
                ":8443",
                "/@evil.test",
                "/https://evil.test",
                "?//evil.test",
                "/?https://evil.test",
                "/%E2%80%8B/evil.test",
            ] {
                let target = format!("{}{rest}", if prefix.is_empty() { "" } else { prefix });
                let Ok(uri) = target.parse::<Uri>() else { continue };
                let Ok(path) = CanonicalPath::of(uri.path()) else { continue };
                let Ok(location) = location(&redirect(to, Some(prefix)), &path, uri.query()) else { continue };
                let led = base.join(&location).unwrap();
                let host = if to.starts_with('/') { "iqueue.test" } else { "new.test" };
                assert_eq!(
                    (led.host_str(), led.port(), led.username()),
                    (Some(host), None, ""),
                    "{target} -> {location}"
                );
                assert!(
                    !location.starts_with("//") && !location.contains(['\\', '\r', '\n']),
                    "{target} -> {location}"
                );
            }
        }
    }

    #[test]
    fn queries_are_joined_before_the_fragment() {
        let fixed = Redirect { query: Some("a=1".into()), fragment: Some("top".into()), ..redirect("/new", None) };
        assert_eq!(led(&fixed, "/old?b=2").as_deref(), Some("/new?a=1&b=2#top"));
        assert_eq!(led(&fixed, "/old").as_deref(), Some("/new?a=1#top"));
        let dropped = Redirect { keep_query: false, ..fixed };
        assert_eq!(led(&dropped, "/old?b=2").as_deref(), Some("/new?a=1#top"));
        assert_eq!(led(&redirect("/new", None), "/old/deep?b=2").as_deref(), Some("/new?b=2"));
    }
}
