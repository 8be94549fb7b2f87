//! Finds the [`Service`] of a host and the [`Route`] of a path. A table, built once for a snapshot.
//!
//! Exact paths come first, then rules for everything below a path, which are matched by whole segments, the longest first.
//! A route is found only where all readings of a path (see `path`) agree on what is decided. The raw path is what is
//! forwarded, byte for byte. Called by `proxy`.

pub mod rules;

use crate::blocking::BlockingThreads;
use crate::config::{self, Access, Action, Preflight};
use crate::files::StaticFiles;
use crate::host::{Host, HostTable};
use crate::maintenance::{MaintenanceSwitches, Switch};
use crate::metrics::{Metrics, ServiceMetrics};
use crate::path::{self, CanonicalPath};
use http::HeaderValue;
use rules::{FieldSecrets, RequestFields, ResponseFields};
use std::sync::Arc;

/// Every service by its hosts.
pub struct Routes(HostTable<Arc<Service>>);

/// One application behind the edge.
pub struct Service {
    pub config: config::Service,
    /// The `aud` of tokens that open this service.
    pub audience: String,
    pub metrics: ServiceMetrics,
    pub maintenance: Arc<Switch>,
    /// `Strict-Transport-Security` of its hosts, where it has one of its own: by `hsts` or among its `response_headers`.
    pub hsts: Option<HeaderValue>,
    /// The routes of `config`: exact ones first, then the longest path; the last one matches everything.
    routes: Vec<Route>,
    /// Whether all routes decide the same, so that any of them will do for an ambiguous path.
    is_uniform: bool,
}

/// A part of a service, and what applies to requests for it.
pub struct Route {
    pub config: config::Route,
    /// The path with its case folded, for servers to which case has no meaning.
    folded: String,
    /// The index of the first route of the service that differs from this one in its path alone.
    like: usize,
    /// The index of its pool in the snapshot's pools; `None` where it forwards nothing.
    pub pool: Option<usize>,
    /// The static files that it serves, if it does.
    pub files: Option<StaticFiles>,
    /// What it changes of requests and of responses; `None` for most.
    pub request_fields: Option<Box<RequestFields>>,
    pub response_fields: Option<Arc<ResponseFields>>,
}

impl Routes {
    /// Services of a checked configuration, `audience` gives the `aud` of a service's tokens, `pool` the
    /// index of a pool by its name, `switches` those of their maintenance, `threads` those that read files, `secrets` what
    /// fields have as values.
    pub fn build(
        services: &[config::Service],
        audience: impl Fn(&config::Service) -> String,
        pool: impl Fn(&str) -> Option<usize>,
        switches: &MaintenanceSwitches,
        threads: &Arc<BlockingThreads>,
        secrets: &FieldSecrets,
        metrics: &Metrics,
    ) -> Self {
        let mut table = HostTable::default();
        for written in services {
            let mut routes: Vec<Route> =
                (0..written.routes.len()).filter_map(|at| build(written, at, &pool, threads, secrets)).collect();
            // A longer path comes before every path that it is under, whatever its case.
            routes.sort_by_key(|route| (!route.config.is_exact, std::cmp::Reverse(route.folded.len())));
            let service = Arc::new(Service {
                config: written.clone(),
                audience: audience(written),
                metrics: metrics.service(&written.name),
                maintenance: switches.of(&written.name),
                hsts: routes.last().and_then(|route| route.response_fields.as_ref()?.hsts().cloned()),
                is_uniform: routes.iter().all(|route| route.like == 0),
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

/// The first of the routes that decides what the one at this place does.
fn like(routes: &[config::Route], at: usize) -> usize {
    routes.iter().position(|route| route.decides_like(&routes[at])).unwrap_or(at)
}

/// `None` when the pool does not exist, which the configuration check has reported.
fn build(
    service: &config::Service,
    at: usize,
    pool: impl Fn(&str) -> Option<usize>,
    threads: &Arc<BlockingThreads>,
    secrets: &FieldSecrets,
) -> Option<Route> {
    let written = &service.routes[at];
    let pool = match written.action.pool() {
        Some(name) => Some(pool(name)?),
        None => None,
    };
    let files = match &written.action {
        Action::Files(files) => Some(StaticFiles::new(files, written.access.admits_anonymous(), threads)),
        Action::Forward(_) | Action::Redirect(_) | Action::Respond(_) => None,
    };
    Some(Route {
        config: written.clone(),
        folded: path::folded(&written.path),
        like: like(&service.routes, at),
        pool,
        files,
        request_fields: RequestFields::build(&written.rules.request_headers, secrets),
        response_fields: ResponseFields::build(&written.rules.response_headers, service),
    })
}

impl Service {
    /// Returns the index of the route that every reading of a path is under. `None` when readings are under routes that
    /// decide differently, or cannot be enumerated: then the request is ambiguous and is refused.
    pub fn route(&self, path: &CanonicalPath) -> Option<usize> {
        if self.is_uniform {
            return self.routes.iter().position(|route| route.covers(path.as_str().as_bytes()));
        }
        if path.is_plain() {
            return self.agreed(path.as_str().as_bytes());
        }
        let mut found = path.readings().ok()?.into_iter().map(|reading| self.agreed(&reading));
        let first = found.next()??;
        found.all(|next| next.is_some_and(|next| self.decide_alike(next, first))).then_some(first)
    }

    /// Returns the route of one reading, if it is the same for servers that ignore case.
    fn agreed(&self, reading: &[u8]) -> Option<usize> {
        let first = |covers: &dyn Fn(&Route) -> bool| self.routes.iter().position(covers);
        let found = first(&|route| route.covers(reading))?;
        let mut others = [None, None];
        if reading.is_ascii() {
            // Equivalent to a comparison of the folded rule with the folded path, and cheaper.
            others[0] = first(&|route| route.covers_in_any_case(&route.folded, reading));
        } else {
            let folded = path::folded(&String::from_utf8_lossy(reading));
            others[0] = first(&|route| route.covers_in_any_case(&route.config.path, reading));
            others[1] = first(&|route| route.covers_in_any_case(&route.folded, folded.as_bytes()));
            if !self.is_guarded_like_twin(found, folded.as_bytes()) {
                return None;
            }
        }
        let is_agreed = others.iter().flatten().all(|other| self.decide_alike(*other, found));
        (is_agreed && self.is_guarded_like_twin(found, reading)).then_some(found)
    }

    /// Whether no exact rule would be evaded by a slash more, or less, at the end of a path: many servers take the two for
    /// one. `found` must be as strict as that rule, unless it was written for the other spelling itself.
    fn is_guarded_like_twin(&self, found: usize, reading: &[u8]) -> bool {
        let found = &self.routes[found].config;
        let is_twin = |rule: &Route| {
            let (rule, path) = (rule.folded.as_bytes(), reading);
            rule.ends_with(b"/") != path.ends_with(b"/") && trimmed(rule).eq_ignore_ascii_case(trimmed(path))
        };
        let is_meant = |rule: &Route| trimmed(found.path.as_bytes()) == trimmed(rule.config.path.as_bytes());
        let exact = self.routes.iter().take_while(|route| route.config.is_exact);
        exact.filter(|rule| is_twin(rule)).all(|rule| is_meant(rule) || found.is_as_strict_as(&rule.config))
    }

    /// Whether a file whose own path is `own` may be sent for a path of the route at this place: the rule of its own path
    /// admits every client that this one does, or is a redirect, which shows no file to any client and guards none.
    pub fn may_show(&self, at: usize, own: &str) -> bool {
        if self.is_uniform {
            return true;
        }
        let Some(found) = self.route_of(own) else { return false };
        let (shown, own) = (&self.routes[at].config, &self.routes[found].config);
        let leads_away = own.only_redirects() && shown.rules.addresses.are_as_strict_as(&own.rules.addresses);
        found == at || leads_away || shown.admits_no_others_than(own)
    }

    /// Whether files are served at this path.
    pub fn serves_files_at(&self, path: &str) -> bool {
        self.route_of(path).is_some_and(|at| self.routes[at].files.is_some())
    }

    fn route_of(&self, path: &str) -> Option<usize> {
        self.route(&CanonicalPath::of(path).ok()?)
    }

    fn decide_alike(&self, one: usize, other: usize) -> bool {
        self.routes[one].like == self.routes[other].like
    }

    pub fn at(&self, index: usize) -> &Route {
        &self.routes[index]
    }
}

/// Without the slash at its end.
fn trimmed(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"/").unwrap_or(path)
}

impl Route {
    /// Whether the route is for this reading of a path.
    fn covers(&self, reading: &[u8]) -> bool {
        let rule = self.config.path.as_bytes();
        if self.config.is_exact { reading == rule } else { path::is_under(reading, rule) }
    }

    /// The same where case has no meaning in letters of ASCII. `rule` is the route's path in one of its spellings.
    fn covers_in_any_case(&self, rule: &str, reading: &[u8]) -> bool {
        let rule = rule.as_bytes();
        if self.config.is_exact {
            reading.eq_ignore_ascii_case(rule)
        } else {
            path::is_under_in_any_case(reading, rule)
        }
    }

    /// Returns what this route demands of a request for `path`. Access without a user is granted to canonical paths alone:
    /// the application might read another path than the rule was written for.
    pub fn demands(&self, path: &CanonicalPath) -> &Access {
        match &self.config.access {
            access if access.admits_anonymous() && !path.is_canonical() => &Access::Required,
            access => access,
        }
    }

    /// Whether a CORS preflight is admitted without a sign-on. What the edge answers itself is for users alone: it takes
    /// no preflight for another request.
    pub fn lets_preflights_in(&self) -> bool {
        let config = &self.config;
        config.preflight == Preflight::Forward
            && config.action.forward().is_some()
            && !matches!(config.access, Access::Public | Access::Deny)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header::{AUTHORIZATION, SERVER};
    use http::{Method, StatusCode};

    use super::*;
    use crate::config::Encoding;

    fn service(rules: &[(&str, Access)]) -> Service {
        service_with(rules, |_| {})
    }

    fn service_with(rules: &[(&str, Access)], change: impl FnOnce(&mut [config::Route])) -> Service {
        let metrics = Metrics::new("test").unwrap();
        let route =
            |(path, access): &(&str, Access)| config::Route { access: access.clone(), ..config::Route::at(path, "p") };
        let routes = rules.iter().map(route).collect();
        let mut written = config::Service::of_routes("iqueue", "iqueue.example.com", routes);
        change(&mut written.routes);
        let switches = MaintenanceSwitches::new(metrics.traffic.maintenance.clone());
        let threads = Arc::new(BlockingThreads::new().unwrap());
        let secrets = FieldSecrets::default();
        let routes =
            Routes::build(&[written], |s| s.name.to_string(), |_| Some(0), &switches, &threads, &secrets, &metrics);
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

    /// What servers may take for `/admin/users` or `/open/x`, or for something else.
    const SPELLINGS: &[&str] = &[
        "/R;x/users",
        "/x%5c..%5cR/users",
        "/x%2f..%2fR",
        "/%25R",
        "/R%0A",
        "//R/users",
        "/R//../users",
        "/R/x%2f../../users",
        "/R%2fusers",
        "/R%5cusers",
        "/R%252fusers",
        "/R;a=b",
        "/R%3b/users",
        "/R./users",
        "/R%20/users",
        "/R%09/users",
        "/R::$DATA",
        "/R%3fx",
        "/R%23/users",
        "/R%2500/users",
        "/R%E2%80%8B/users",
        "/R%EF%BC%8Fusers",
        "/R%E2%81%84users",
        "/R%FF/users",
        "/;/R/users",
        "/%20/R/users",
        "/./R",
        "/R/../R/users",
    ];

    #[test]
    fn a_path_that_servers_may_find_under_rules_that_differ_has_no_route() {
        let admin = || Access::Roles(vec!["admin".into()]);
        for rules in [
            [("/", Access::Required), ("/admin", admin()), ("/deep/admin", admin())],
            [("/", admin()), ("/admin", Access::Required), ("/deep/admin", Access::Required)],
        ] {
            let service = service(&rules);
            let route = |raw: &str| CanonicalPath::of(raw).ok().and_then(|path| service.route(&path));
            assert_eq!(route("//x/admin/users"), None, "x is the host, to some");
            for folder in ["", "/deep"] {
                for spelling in SPELLINGS {
                    for rule in ["admin", "ADMIN", "Admin", "%61dmin", "%2561dmin", "adm%C4%B1n", "%EF%BD%81dmin"] {
                        let raw = format!("{folder}{}", spelling.replace("%25R", "%2561dmin").replace('R', rule));
                        assert_eq!(route(&raw), None, "{raw}");
                    }
                }
                for rule in ["ADMIN", "Admin", "%61dmin", "%41DMIN", "adm%C4%B1n", "%EF%BC%A1dmin", "admi%EF%BD%8E"] {
                    for rest in ["", "/", "/users", "/users;v=1"] {
                        let raw = format!("{folder}/{rule}{rest}");
                        assert_eq!(route(&raw), None, "{raw}");
                    }
                }
            }
        }
    }

    /// Paths of applications as there are: (path, the rule that it is under).
    const ORDINARY: &[(&str, &str)] = &[
        ("/", "/"),
        ("/page;jsessionid=1", "/"),
        ("/;jsessionid=0A1B", "/"),
        ("/admin/users;v=1", "/admin"),
        ("/admin/a%20b/%C3%A9t%C3%A9/", "/admin"),
        ("/cars;color=red;year=2012/wheels", "/"),
        ("/@scope/package@1.0.0/-/package-1.0.0.tgz", "/"),
        ("/@scope%2fpackage", "/"),
        ("/~ada/notes", "/"),
        ("/v1/projects/p:batchGet", "/"),
        ("/v1/projects/p/locations/*:list", "/"),
        ("/api/v4/projects/group%2Fsub%2Fname/issues", "/"),
        ("/proxy/https://host.example/x?", "/"),
        ("/web/20200101000000*/http://example.com/", "/"),
        ("/c++/a+b,c=d&e!(f)'g'$h", "/"),
        ("/wiki/Washington_D.C.", "/"),
        ("/wiki/100%25", "/"),
        ("/files/%E6%97%A5%E6%9C%AC%E8%AA%9E/%F0%9F%98%80.png", "/"),
        ("/files/cafe%CC%81.pdf", "/"),
        ("/files/caf%E9.pdf", "/"),
        ("/files/a%5Cb", "/"),
        ("/assets//app.js", "/"),
        ("/.well-known/openid-configuration", "/"),
        ("/compare/v1...v2", "/"),
        ("/search/what%3F/%23tag", "/"),
        ("/uploads/%7B3F2504E0-4F89-11D3-9A0C-0305E82C3301%7D", "/"),
        ("/fhir/Patient/123/_history/1", "/"),
        ("/odata/Patients('42')/Name", "/"),
        ("/administrator", "/"),
        ("/x/admin", "/"),
        ("/a%26b/x%3Dy", "/"),
    ];

    #[test]
    fn ordinary_paths_keep_their_routes() {
        let one = service(&[("/", Access::Required)]);
        let several = service(&[("/", Access::Required), ("/admin", Access::Roles(vec!["admin".into()]))]);
        for (raw, rule) in ORDINARY {
            let path = CanonicalPath::of(raw.trim_end_matches('?')).unwrap();
            assert_eq!(one.route(&path), Some(0), "{raw}");
            let found = several.route(&path).map(|at| several.at(at).config.path.as_str());
            assert_eq!(found, Some(*rule), "{raw}");
        }
    }

    #[test]
    fn where_all_rules_decide_the_same_no_reading_matters() {
        let service = service(&[("/", Access::Required), ("/admin", Access::Required)]);
        for raw in ["/admin;x", "/ADMIN", "/a/../admin", "/%2561dmin", "//admin", "/a/.."] {
            assert!(service.route(&CanonicalPath::of(raw).unwrap()).is_some(), "{raw}");
        }
    }

    /// `exact` is for the path itself, `below` for everything.
    fn service_with_exact(exact: &str, access: Access, below: Access) -> Service {
        service_with(&[("/", below), (exact, access)], |routes| {
            routes[1].is_exact = true;
            routes[1].action = config::Action::Respond(config::FixedReply {
                status: StatusCode::OK,
                body: "ok".into(),
                content_type: None,
            });
        })
    }

    fn found(service: &Service, raw: &str) -> Option<String> {
        let at = CanonicalPath::of(raw).ok().and_then(|path| service.route(&path))?;
        Some(service.at(at).config.path.clone())
    }

    #[test]
    fn an_exact_rule_is_for_its_path_alone_and_comes_first() {
        for (exact, others) in [
            ("/", &["/a", "/index.html"][..]),
            ("/app", &["/", "/app/", "/app/x", "/application", "/x/app"]),
            ("/app/", &["/", "/app", "/app/x", "/x/app/"]),
            ("/a/b", &["/a", "/a/", "/a/b/", "/a/b/c"]),
            ("/café", &["/", "/caf%C3%A9/", "/caf%C3%A9/x"]),
        ] {
            let service = service_with_exact(exact, Access::Required, Access::Required);
            assert_eq!(found(&service, &path::encoded(exact)).as_deref(), Some(exact));
            for other in others {
                assert_eq!(found(&service, other).as_deref(), Some("/"), "{exact}: {other}");
            }
        }
        let service =
            service_with(&[("/", Access::Required), ("/app", Access::Public), ("/app", Access::Required)], |routes| {
                routes[2].is_exact = true;
            });
        let route = |raw: &str| service.at(service.route(&CanonicalPath::of(raw).unwrap()).unwrap()).config.is_exact;
        assert!(route("/app") && !route("/app/") && !route("/app/x") && !route("/"));
    }

    /// What servers may take for `/app`.
    #[test]
    fn no_spelling_of_an_exact_path_has_another_route() {
        for service in [
            service_with_exact("/app", Access::Required, Access::Required),
            service_with_exact("/app", Access::Required, Access::Public),
            service_with_exact("/app", Access::Public, Access::Required),
        ] {
            for raw in [
                "/APP",
                "/App",
                "/%61pp",
                "/%2561pp",
                "//app",
                "/app;x",
                "/app;",
                "/app.",
                "/app%20",
                "/app%00",
                "/app%2500",
                "/app%0A",
                "/./app",
                "/x/../app",
                "/app/.",
                "/app%3fx",
                "/app%23",
                "/app::$DATA",
                "/ap%C2%ADp",
                "/%EF%BD%81pp",
                "//host/app",
                "/app%E2%80%8B",
            ] {
                assert_eq!(found(&service, raw), None, "{raw}");
            }
        }
        let service = service_with_exact("/", Access::Required, Access::Required);
        for raw in ["//", "/.", "/./", "/;x", "/%2f", "/%20", "//host", "/%3fx", "/x/.."] {
            assert_eq!(found(&service, raw), None, "{raw}");
        }
    }

    /// Many servers take `/app/` for `/app`.
    #[test]
    fn a_slash_at_the_end_evades_no_exact_rule() {
        let admin = || Access::Roles(vec!["admin".into()]);
        let user = || Access::Roles(vec!["user".into()]);
        for (exact, below, evades) in [
            (Access::Required, Access::Public, true),
            (admin(), Access::Public, true),
            (admin(), Access::Required, true),
            (admin(), user(), true),
            (Access::Deny, Access::Public, true),
            (Access::Deny, Access::Optional, true),
            (Access::Deny, Access::Required, true),
            (Access::Deny, admin(), true),
            (Access::Optional, Access::Public, true),
            (Access::Required, Access::Optional, true),
            (Access::Optional, Access::Required, false),
            (Access::Public, Access::Deny, false),
            (admin(), admin(), false),
            (Access::Public, Access::Required, false),
            (Access::Required, admin(), false),
            (Access::Required, Access::Required, false),
        ] {
            for (path, twins) in [
                ("/app", &["/app/", "/APP/", "/App/", "/app%2f", "/app%5C", "/app//", "/app/;x"][..]),
                ("/app/", &["/app", "/APP", "/aPP", "/app;x", "/app%20"]),
            ] {
                let service = service_with_exact(path, exact.clone(), below.clone());
                for twin in twins {
                    let expected = if evades { None } else { Some("/") };
                    assert_eq!(found(&service, twin).as_deref(), expected, "{path} {exact:?} {below:?}: {twin}");
                }
                assert_eq!(found(&service, "/app/x").as_deref(), Some("/"));
            }
        }
        // A rule that was written for the other spelling says what is meant.
        let service = service_with(&[("/", Access::Required), ("/app", Access::Public), ("/app", admin())], |routes| {
            routes[2].is_exact = true;
        });
        assert_eq!((demand(&service, "/app"), demand(&service, "/app/")), (admin(), Access::Public));
    }

    type Change = fn(&mut config::Route);

    const SAME: Change = |_| {};

    /// What restricts beside the access: of the stricter rule, and of the other one.
    const RESTRICTIONS: [(&str, Change, Change); 13] = [
        ("addresses.allow", |route| route.rules.addresses.allow = vec!["10.0.0.0/8".parse().unwrap()], SAME),
        ("addresses.deny", |route| route.rules.addresses.deny = vec!["10.0.0.0/8".parse().unwrap()], SAME),
        ("methods that restrict", |route| route.rules.methods = Some(vec![Method::GET]), SAME),
        ("methods that open", SAME, |route| {
            route.rules.methods = Some([&config::METHODS[..], &["MKCOL".parse().unwrap()]].concat());
        }),
        ("body_bytes", |route| route.rules.body_bytes = Some(1), |route| route.rules.body_bytes = Some(2)),
        ("preflight", SAME, |route| route.preflight = Preflight::Forward),
        ("credentials", SAME, |route| route.credentials.bearer = true),
        ("credentials", |route| route.credentials.cookie = false, SAME),
        ("request_headers.set", |route| route.rules.request_headers.set = vec![(AUTHORIZATION, text("a"))], SAME),
        ("request_headers.remove", |route| route.rules.request_headers.remove = vec![AUTHORIZATION], SAME),
        ("response_headers.set", |route| route.rules.response_headers.set = vec![(SERVER, value("a"))], SAME),
        ("response_headers.remove", |route| route.rules.response_headers.remove = vec![SERVER], SAME),
        ("respond", |route| route.action = reply(StatusCode::NOT_FOUND), SAME),
    ];

    /// What says how a request is served, and restricts nothing.
    const NO_RESTRICTIONS: [(&str, Change, Change); 5] = [
        ("extends_session", |route| route.extends_session = false, SAME),
        ("read_timeout", |route| route.read_timeout = Some(Duration::from_secs(1)), SAME),
        ("compression", SAME, |route| route.compression = vec![Encoding::Gzip]),
        ("pool", SAME, |route| route.action = config::Action::Forward(config::Forward::to("q"))),
        ("respond", |route| route.action = reply(StatusCode::NO_CONTENT), SAME),
    ];

    fn text(value: &'static str) -> config::FieldSource {
        config::FieldSource::Text(HeaderValue::from_static(value))
    }

    fn value(value: &'static str) -> HeaderValue {
        HeaderValue::from_static(value)
    }

    fn reply(status: StatusCode) -> config::Action {
        config::Action::Respond(config::FixedReply { status, body: "".into(), content_type: None })
    }

    #[test]
    fn a_slash_at_the_end_evades_no_restriction_of_an_exact_rule() {
        let cases = RESTRICTIONS.map(|case| (case, true)).into_iter().chain(NO_RESTRICTIONS.map(|case| (case, false)));
        for ((name, strict, lax), restricts) in cases {
            for (path, twins) in [
                ("/app", &["/app/", "/APP/", "/app%2f", "/app%5C", "/app//", "/app/;x", "/%61pp/"][..]),
                ("/app/", &["/app", "/aPP", "/app;x", "/app%20", "/%2561pp"]),
            ] {
                let service = |exact: Change, below: Change| {
                    service_with(&[("/", Access::Required), (path, Access::Required)], |routes| {
                        routes[1].is_exact = true;
                        exact(&mut routes[1]);
                        below(&mut routes[0]);
                    })
                };
                for (service, expected) in
                    [(service(strict, lax), (!restricts).then_some("/")), (service(lax, strict), Some("/"))]
                {
                    for twin in twins {
                        assert_eq!(found(&service, twin).as_deref(), expected, "{name} {path}: {twin}");
                    }
                    assert_eq!(found(&service, path).as_deref(), Some(path), "{name}");
                    assert_eq!(found(&service, "/app/x").as_deref(), Some("/"), "{name}");
                }
            }
        }
    }

    /// A redirect, and a reply that is no error, have nothing behind them that what differs would get to.
    #[test]
    fn a_slash_at_the_end_of_what_the_edge_answers_itself_is_refused_for_access_and_addresses_alone() {
        let redirects: Change = |route| route.action = redirect("/app/");
        let responds: Change = |route| route.action = reply(StatusCode::OK);
        for action in [redirects, responds] {
            for (name, strict, lax) in RESTRICTIONS {
                let service = |exact: Change, below: Change| {
                    service_with(&[("/", Access::Required), ("/app", Access::Required)], |routes| {
                        routes[1].is_exact = true;
                        exact(&mut routes[1]);
                        action(&mut routes[1]);
                        below(&mut routes[0]);
                    })
                };
                let expected = if name.starts_with("addresses") { None } else { Some("/") };
                assert_eq!(found(&service(strict, lax), "/app/").as_deref(), expected, "{name}");
                assert_eq!(found(&service(lax, strict), "/app/").as_deref(), Some("/"), "{name}");
                assert_eq!(found(&service(strict, lax), "/app").as_deref(), Some("/app"), "{name}");
            }
            for (exact, below, expected) in [
                (Access::Required, Access::Public, None),
                (Access::Deny, Access::Required, None),
                (Access::Public, Access::Required, Some("/")),
            ] {
                let service = service_with(&[("/", below), ("/app", exact)], |routes| {
                    routes[1].is_exact = true;
                    action(&mut routes[1]);
                });
                assert_eq!(found(&service, "/app/").as_deref(), expected);
            }
        }
    }

    fn redirect(to: &str) -> config::Action {
        config::Action::Redirect(config::Redirect {
            status: StatusCode::FOUND,
            to: to.into(),
            query: None,
            fragment: None,
            keep_path: None,
            keep_query: false,
        })
    }

    /// A fixed reply that the edge has for users is no answer to a preflight, which has no user.
    #[test]
    fn a_preflight_is_let_in_where_an_application_answers_it() {
        let files =
            config::Files { root: "/srv".into(), index: "index.html".into(), fallback: None, cache_control: None };
        for (action, expected) in [
            (config::Action::Forward(config::Forward::to("p")), true),
            (config::Action::Files(files), false),
            (redirect("/b"), false),
            (reply(StatusCode::OK), false),
        ] {
            for (access, is_behind_sign_on) in [
                (Access::Required, true),
                (Access::Roles(vec!["admin".into()]), true),
                (Access::Optional, true),
                (Access::Public, false),
                (Access::Deny, false),
            ] {
                for preflight in [Preflight::Check, Preflight::Forward] {
                    let service = service_with(&[("/", access.clone())], |routes| {
                        routes[0].preflight = preflight;
                        routes[0].action = action.clone();
                    });
                    let expected = expected && is_behind_sign_on && preflight == Preflight::Forward;
                    assert_eq!(service.at(0).lets_preflights_in(), expected, "{action:?} {access:?} {preflight:?}");
                }
            }
        }
    }

    #[test]
    fn rules_that_differ_in_anything_differ() {
        let networks = || vec!["10.0.0.0/8".parse().unwrap()];
        let changes: [&dyn Fn(&mut config::Route); 15] = [
            &|route| route.access = Access::Public,
            &|route| route.credentials.bearer = true,
            &|route| route.extends_session = false,
            &|route| route.read_timeout = Some(Duration::from_secs(1)),
            &|route| route.compression = vec![Encoding::Gzip],
            &|route| route.preflight = Preflight::Forward,
            &|route| route.rules.request_headers.set = vec![(AUTHORIZATION, text("a"))],
            &|route| route.rules.request_headers.remove = vec![AUTHORIZATION],
            &|route| route.rules.response_headers.set = vec![(SERVER, HeaderValue::from_static("a"))],
            &|route| route.rules.response_headers.remove = vec![SERVER],
            &|route| route.rules.methods = Some(vec![Method::GET]),
            &|route| route.rules.addresses.allow = networks(),
            &|route| route.rules.addresses.deny = networks(),
            &|route| route.rules.body_bytes = Some(1),
            &|route| route.action = config::Action::Forward(config::Forward::to("q")),
        ];
        for (at, change) in changes.into_iter().enumerate() {
            let service =
                service_with(&[("/", Access::Required), ("/a", Access::Required)], |routes| change(&mut routes[1]));
            for raw in ["/A/x", "/a;x", "//a", "/b/../a", "/a%2fx"] {
                assert_eq!(service.route(&CanonicalPath::of(raw).unwrap()), None, "{at}: {raw}");
            }
            assert_eq!((service.route(&CanonicalPath::of("/a").unwrap()), service.routes.len()), (Some(0), 2));
        }
    }

    #[test]
    fn two_rules_that_differ_in_case_hold_where_they_decide_the_same() {
        let admin = || Access::Roles(vec!["admin".into()]);
        let service = service(&[("/", Access::Required), ("/Admin", admin()), ("/admin", admin())]);
        let route = |raw: &str| service.route(&CanonicalPath::of(raw).unwrap()).is_some();
        assert!(route("/Admin/x") && route("/admin/x") && !route("/ADMIN/x"));
    }

    #[test]
    fn a_path_that_is_not_canonical_never_matches_a_rule_that_wants_no_user() {
        for access in [Access::Public, Access::Optional] {
            let service = service(&[("/", Access::Required), ("/public", access.clone())]);
            assert_eq!(demand(&service, "/public/x"), access);
            for raw in ["/public//x", "/public/x;y", "/public/x%2fy", "/public/%78"] {
                assert_eq!(demand(&service, raw), Access::Required, "{raw}");
            }
        }
    }
}
