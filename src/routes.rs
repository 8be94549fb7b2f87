//! Host and path to a [`Route`]: what it demands and where it leads. A table, built once for a snapshot.
//!
//! Rules are matched against the canonical path (see `path`), by whole segments, the longest first. The raw
//! path is what is forwarded, byte for byte. Called by `proxy`.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Access, Credentials, Encoding, ForwardToken};
use crate::host::{Host, HostTable};
use crate::metrics::{Metrics, ServiceMetrics};
use crate::path::CanonicalPath;

/// Every service by its hosts.
pub struct Routes(HostTable<Arc<Service>>);

/// One application behind the edge.
pub struct Service {
    pub name: Arc<str>,
    /// The `aud` of tokens that open this service.
    pub audience: String,
    pub forward_token: ForwardToken,
    /// Of each client.
    pub requests_per_second: Option<u32>,
    pub assertion: bool,
    pub on_outage: config::OutagePolicy,
    pub identity_headers: config::IdentityHeaders,
    pub metrics: ServiceMetrics,
    /// Longest path first; the last one matches everything.
    routes: Vec<Route>,
}

pub struct Route {
    path: String,
    pub access: Access,
    pub credentials: Credentials,
    pub counts_as_activity: bool,
    pub read_timeout: Option<Duration>,
    /// The best first.
    pub compression: Vec<Encoding>,
    /// Which of the snapshot's pools; this room knows none of them.
    pub pool: usize,
}

impl Routes {
    /// Services of a checked configuration, `audience` gives the `aud` of a service's tokens, `pool` the
    /// index of a pool by its name.
    pub fn build(
        services: &[config::Service],
        audience: impl Fn(&config::Service) -> String,
        pool: impl Fn(&str) -> Option<usize>,
        metrics: &Metrics,
    ) -> Self {
        let mut table = HostTable::default();
        for written in services {
            let mut routes: Vec<Route> = written.routes.iter().filter_map(|route| build(route, &pool)).collect();
            routes.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
            let service = Arc::new(Service {
                name: Arc::clone(&written.name),
                audience: audience(written),
                forward_token: written.forward_token,
                requests_per_second: written.requests_per_second,
                assertion: written.assertion,
                on_outage: written.on_outage,
                identity_headers: written.identity_headers.clone(),
                metrics: metrics.service(&written.name),
                routes,
            });
            for pattern in &written.hosts {
                table.insert(pattern.clone(), Arc::clone(&service));
            }
        }
        Self(table)
    }

    pub fn find(&self, host: &Host) -> Option<&Arc<Service>> {
        self.0.find(host)
    }
}

/// `None` when the pool does not exist, which the configuration check has reported.
fn build(written: &config::Route, pool: impl Fn(&str) -> Option<usize>) -> Option<Route> {
    Some(Route {
        path: written.path.clone(),
        access: written.access.clone(),
        credentials: written.credentials,
        counts_as_activity: written.counts_as_activity,
        read_timeout: written.read_timeout,
        compression: written.compression.clone(),
        pool: pool(&written.pool)?,
    })
}

impl Service {
    /// The index of the longest rule that the path is under. `None` when a server that reads the path in another
    /// way would have it under another rule: then nobody can say what is being asked for.
    pub fn route(&self, path: &CanonicalPath) -> Option<usize> {
        let ours = self.routes.iter().position(|route| path.is_under(&route.path))?;
        let theirs = self.routes.iter().position(|route| path.may_be_under(&route.path))?;
        (ours == theirs).then_some(ours)
    }

    pub fn at(&self, index: usize) -> &Route {
        &self.routes[index]
    }
}

impl Route {
    /// What this route demands of a request for `path`. Public access is granted to canonical paths alone:
    /// the application might read another path than the rule was written for.
    pub fn demands(&self, path: &CanonicalPath) -> &Access {
        match &self.access {
            Access::Public if !path.is_canonical() => &Access::Required,
            access => access,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn service(rules: &[(&str, Access)]) -> Service {
        let metrics = Metrics::new("test").unwrap();
        let written = config::Service {
            name: "iqueue".into(),
            hosts: vec![crate::host::HostPattern::parse("iqueue.example.com").unwrap()],
            idle_timeout: Duration::from_secs(60),
            forward_token: ForwardToken::None,
            requests_per_second: None,
            assertion: false,
            on_outage: config::OutagePolicy::Deny,
            identity_headers: config::IdentityHeaders {
                user: HeaderName::from_static("x-forwarded-user"),
                email: HeaderName::from_static("x-forwarded-email"),
                roles: HeaderName::from_static("x-forwarded-groups"),
            },
            routes: rules
                .iter()
                .map(|(path, access)| config::Route {
                    path: (*path).into(),
                    access: access.clone(),
                    credentials: Credentials { cookie: true, bearer: false },
                    counts_as_activity: true,
                    read_timeout: None,
                    compression: Vec::new(),
                    pool: "p".into(),
                })
                .collect(),
        };
        let routes = Routes::build(&[written], |s| s.name.to_string(), |_| Some(0), &metrics);
        let found = routes.find(&Host::parse("iqueue.example.com").unwrap()).unwrap().clone();
        drop(routes);
        Arc::into_inner(found).unwrap()
    }

    fn demand(service: &Service, raw: &str) -> Access {
        let path = CanonicalPath::of(raw).unwrap();
        service.at(service.route(&path).unwrap()).demands(&path).clone()
    }

    #[test]
    fn the_longest_rule_wins_whatever_the_order() {
        let admin = Access::Roles(vec!["admin".into()]);
        let service = service(&[("/", Access::Required), ("/api", Access::Public), ("/api/admin", admin.clone())]);
        assert_eq!(demand(&service, "/x"), Access::Required);
        assert_eq!(demand(&service, "/api/x"), Access::Public);
        assert_eq!(demand(&service, "/api/admin/x"), admin);
    }

    #[test]
    fn a_path_that_two_servers_would_find_under_two_rules_has_no_route() {
        let admin = Access::Roles(vec!["admin".into()]);
        let service = service(&[("/", Access::Required), ("/admin", admin)]);
        let route = |raw: &str| service.route(&CanonicalPath::of(raw).unwrap());
        for raw in ["/admin;x/users", "/x%5c..%5cadmin/users", "/%2561dmin", "/admin%0A"] {
            assert_eq!(route(raw), None, "{raw}");
        }
        assert!(route("/page;jsessionid=1").is_some() && route("/admin/users;v=1").is_some());
    }

    #[test]
    fn a_path_that_is_not_canonical_never_matches_a_public_rule() {
        let service = service(&[("/", Access::Required), ("/public", Access::Public)]);
        assert_eq!(demand(&service, "/public/x"), Access::Public);
        for raw in ["/public/../public/x", "/%70ublic/x", "/public//x", "/public/x;y"] {
            assert_eq!(demand(&service, raw), Access::Required, "{raw}");
        }
    }
}
