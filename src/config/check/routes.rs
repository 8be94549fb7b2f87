//! The `routes` of a service: they lead somewhere, each path can be matched, and none is another one's to servers that
//! ignore case.

use super::rules::TakenFields;
use super::{Check, actions, defaults};
use crate::config::file::{self, Access as WrittenAccess, AccessWord, Credential};
use crate::config::{Access, Action, Credentials, Forward, Pool, Route, RouteRules};
use crate::host::HostPattern;
use crate::path;

fn of_word(word: AccessWord) -> Access {
    match word {
        AccessWord::Public => Access::Public,
        AccessWord::Optional => Access::Optional,
        AccessWord::Required => Access::Required,
        AccessWord::Deny => Access::Deny,
    }
}

impl Check<'_> {
    pub(super) fn routes(
        &mut self,
        place: &str,
        service: &file::Service,
        hosts: &[HostPattern],
        pools: &[Pool],
        fields: TakenFields<'_>,
    ) -> Vec<Route> {
        let pool = service.pool.as_deref().map(|pool| self.pool_name(&format!("{place}.pool"), Some(pool), pools));
        let forward = Forward {
            location_repair: service.location_repair.unwrap_or(defaults::LOCATION_REPAIR),
            ..Forward::to(pool.as_deref().unwrap_or_default())
        };
        let root = self.root(place, service, &forward, fields);
        let (mut routes, mut keys): (Vec<Route>, Vec<String>) = (Vec::new(), Vec::new());
        for (at, written) in service.routes.iter().enumerate() {
            let key = format!("{place}.routes[{at}]");
            let Some((path, is_exact)) = self.path_of(&key, written) else { continue };
            let name = if is_exact { "exact" } else { "path" };
            if routes.iter().any(|route| (&route.path, route.is_exact) == (&path, is_exact)) {
                self.fault(format!("{key}.{name}"), format!("`{path}` has two routes"), "remove one");
            }
            let credentials = match &written.credentials {
                Some(list) => self.credentials(&format!("{key}.credentials"), Some(list)),
                None => root.credentials,
            };
            let access = self.access(&format!("{key}.access"), written.access.as_ref());
            let route = Route {
                access: access.unwrap_or_else(|| root.access.clone()),
                credentials,
                extends_session: written.extends_session.unwrap_or(root.extends_session),
                read_timeout: written.read_timeout.map(|time| time.0).or(root.read_timeout),
                compression: written.compression.as_ref().unwrap_or(&root.compression).clone(),
                preflight: written.preflight.unwrap_or(root.preflight),
                rules: self.rules(&key, written.into(), &root.rules, fields),
                action: actions::action(self, &key, written, (&path, is_exact), &forward, pools),
                path,
                is_exact,
            };
            self.one_path(&format!("{key}.{name}"), &route, &routes);
            routes.push(route);
            keys.push(key);
        }
        actions::check_loops(self, &keys, &routes, hosts);
        if !routes.iter().any(|route| route.path == "/" && !route.is_exact) {
            routes.push(root);
        }
        // Where each route has another action, a service needs no pool.
        if pool.is_none() && routes.iter().any(|route| route.action.pool() == Some("")) {
            self.pool_name(&format!("{place}.pool"), None, pools);
        }
        routes
    }

    /// The route for everything that no other is for, with the settings of the service itself.
    fn root(&mut self, place: &str, service: &file::Service, forward: &Forward, fields: TakenFields<'_>) -> Route {
        let access = self.access(&format!("{place}.access"), service.access.as_ref());
        Route {
            path: "/".into(),
            is_exact: false,
            access: access.unwrap_or_else(|| of_word(defaults::ACCESS)),
            credentials: self.credentials(&format!("{place}.credentials"), service.credentials.as_deref()),
            extends_session: service.extends_session.unwrap_or(defaults::EXTENDS_SESSION),
            read_timeout: service.read_timeout.map(|time| time.0),
            compression: service.compression.clone().unwrap_or_default(),
            preflight: service.preflight.unwrap_or(defaults::PREFLIGHT),
            rules: self.rules(place, service.into(), &RouteRules::default(), fields),
            action: Action::Forward(forward.clone()),
        }
    }

    pub(super) fn pool_name(&mut self, key: &str, written: Option<&str>, pools: &[Pool]) -> String {
        let name = written.unwrap_or_default();
        // They come from a map, and so in order.
        if pools.binary_search_by(|pool| pool.name.as_str().cmp(name)).is_err() {
            let what = if name.is_empty() { "missing".into() } else { format!("there is no pool `{name}`") };
            self.fault(key, what, "name one of `pools`");
        }
        name.into()
    }

    fn access(&mut self, key: &str, written: Option<&WrittenAccess>) -> Option<Access> {
        match written? {
            WrittenAccess::Word(word) => Some(of_word(*word)),
            WrittenAccess::Roles(roles) if roles.roles.is_empty() => {
                self.fault(key, "empty role list", "name at least one role, or write `required`");
                Some(Access::Required)
            }
            WrittenAccess::Roles(roles) => Some(Access::Roles(roles.roles.clone())),
        }
    }

    fn credentials(&mut self, key: &str, written: Option<&[Credential]>) -> Credentials {
        let list = written.unwrap_or(defaults::CREDENTIALS);
        if list.is_empty() {
            self.fault(key, "empty list: every request would be refused", "write [cookie], [bearer] or both");
        }
        Credentials { cookie: list.contains(&Credential::Cookie), bearer: list.contains(&Credential::Bearer) }
    }

    /// The path of a route, and whether the route is for that path alone.
    fn path_of(&mut self, key: &str, written: &file::Route) -> Option<(String, bool)> {
        match (&written.path, &written.exact) {
            (Some(_), Some(_)) => {
                self.fault(key, "`path` and `exact` in one route", "remove one");
                None
            }
            (_, Some(exact)) => self.route_path(&format!("{key}.exact"), exact).map(|_| (exact.clone(), true)),
            (path, None) => {
                let path = self.route_path(&format!("{key}.path"), path.as_deref().unwrap_or_default())?;
                Some((path, false))
            }
        }
    }

    /// A rule is compared with all readings of a request's path, so it must have one reading itself: see `path`.
    /// Returns it without a slash at its end.
    pub(super) fn route_path(&mut self, key: &str, text: &str) -> Option<String> {
        let plain = |segment: &str| !segment.is_empty() && segment != "." && segment != "..";
        let trimmed = text.strip_suffix('/').unwrap_or(text);
        let canonical = text == "/" || (trimmed.starts_with('/') && trimmed[1..].split('/').all(plain));
        if !canonical || text.contains(['%', '?', '#', '\\', ';']) || !path::is_rule(text) {
            self.fault(key, format!("`{text}` is no path to match"), "write a decoded path such as /admin/");
            return None;
        }
        Some(if trimmed.is_empty() { "/".into() } else { trimmed.into() })
    }

    /// Of two rules that differ in case alone and decide differently, neither could ever hold for a request.
    fn one_path(&mut self, key: &str, route: &Route, others: &[Route]) {
        let is_other = |other: &&Route| other.path != route.path && !other.decides_like(route);
        let folded = path::folded(&route.path);
        if let Some(other) = others.iter().filter(is_other).find(|other| path::folded(&other.path) == folded) {
            self.fault(
                key,
                format!(
                    "`{}` is `{}` to servers that ignore case, and the two decide differently",
                    route.path, other.path
                ),
                "remove one, or have both decide the same",
            );
        }
    }
}
