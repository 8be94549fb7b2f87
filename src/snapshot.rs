//! The reloadable state: one immutable value, built from a configuration and swapped whole.
//!
//! A request takes it once and sees one configuration from start to end. Building it loads certificates and keys
//! and adds what is wrong with them to the configuration's faults; a snapshot exists only when there are none.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::acme;
use crate::audit_log::AuditLog;
use crate::auth::cookie::OwnCookies;
use crate::auth::fingerprint::Fingerprinter;
use crate::auth::keys::Keys;
use crate::auth::last_access::Recorder;
use crate::auth::recent_sessions::RecentSessions;
use crate::auth::streams::Streams;
use crate::auth::token::Tokens;
use crate::auth::{self, Guard};
use crate::blocking::BlockingThreads;
use crate::clock::Clock;
use crate::config::header_names;
use crate::config::{self, Config, Faults, Limits, Location, OutagePolicy, Sessions, Timeouts, UnknownHosts};
use crate::error_pages::ErrorPages;
use crate::files;
use crate::maintenance::{FirstLook, MaintenanceSwitches};
use crate::metrics::{Metrics, ServiceMetrics};
use crate::pages::Branding;
use crate::rate_limit::RateLimiter;
use crate::routes::Routes;
use crate::routes::rules::FieldSecrets;
use crate::sentry::{Sentry, SentryParts};
use crate::sessions::SessionStore;
use crate::sessions::memcached;
use crate::tls::{self, Certificates, Policies, TicketRoot};
use crate::upstream::pool_state::PoolStates;
use crate::upstream::resolver::{ResolvedName, Resolver};
use crate::upstream::{self, Pool, PrivateServers, UpstreamTls};
use crate::users::changes::DirectoryChanges;
use crate::users::login::LoginPool;

pub struct Snapshot {
    /// A number that no other snapshot of this process has.
    pub generation: u64,
    pub routes: Routes,
    pub guard: Arc<Guard>,
    pub sentry: Sentry,
    pub pools: Vec<Arc<Pool>>,
    pub branding: Branding,
    /// What hosts require of the connections of their requests.
    pub connections: Arc<Policies>,
    /// What requests receive whose host no service has.
    pub unknown_hosts: UnknownHosts,
    /// The metrics of requests that no service was found for.
    pub unrouted: ServiceMetrics,
    pub trusted_proxies: Vec<IpNet>,
    /// The policy of services that do not set one.
    pub on_outage: OutagePolicy,
    pub limits: Limits,
    pub rates: Arc<RateLimiter>,
    pub timeouts: Timeouts,
    /// The value of `Strict-Transport-Security` on the edge's own replies.
    pub hsts: Option<HeaderValue>,
    /// Ports that an authority may name.
    pub ports: Vec<u16>,
    /// The port that plain HTTP is redirected to; `None` is 443.
    pub https_port: Option<u16>,
    /// The path at which load balancers ask whether the edge takes requests.
    pub health: Option<Box<str>>,
    /// The folder that certificate authorities' challenges are in.
    pub acme_challenge: Option<Arc<Path>>,
    /// By the name of the service; services without pages are left out.
    pub error_pages: HashMap<Arc<str>, ErrorPages>,
    pub own_cookies: OwnCookies,
    pub ticket_parameter: String,
    /// Header names, folded, that only the edge may send to an application.
    pub reserved_headers: Vec<String>,
}

/// The ports of the HTTPS listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The ports that an authority may name: those that listeners are bound to, and those that clients connect to.
    known: Vec<u16>,
    /// The port that plain HTTP is redirected to; `None` is 443.
    https: Option<u16>,
}

impl Ports {
    /// `listeners` has the bound port of each listener, and the configured port that clients connect to, if any.
    pub fn new(listeners: impl Iterator<Item = (u16, Option<u16>)>) -> Self {
        let (mut known, mut public) = (Vec::new(), Vec::new());
        for (bound, configured) in listeners {
            known.extend([Some(bound), configured].into_iter().flatten());
            public.push(configured.unwrap_or(bound));
        }
        known.sort_unstable();
        known.dedup();
        let https = public.first().copied().filter(|_| !public.contains(&443));
        Self { known, https }
    }
}

/// What outlives a snapshot: one process has one.
#[derive(Clone)]
pub struct SharedState {
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub store: Arc<dyn SessionStore>,
    /// False when the store keeps no sessions. A reload does not change the kind of store.
    pub sessions_are_checked: bool,
    pub seen: Arc<RecentSessions>,
    pub streams: Arc<Streams>,
    pub rates: Arc<RateLimiter>,
    pub users: Arc<DirectoryChanges>,
    pub logins: Arc<LoginPool>,
    pub audit: Arc<AuditLog>,
    pub private: Arc<PrivateServers>,
    /// How the servers of pools are doing, and what administrators have set for them.
    pub servers: Arc<PoolStates>,
    pub names: Resolver,
    pub maintenance: Arc<MaintenanceSwitches>,
    /// For static files, and for files that switch maintenance on.
    pub blocking: Arc<BlockingThreads>,
}

/// The files that a configuration names, read and found good.
pub struct LoadedFiles {
    /// For the listeners.
    pub tls: tls::Material,
    /// For the snapshot.
    pub files: Files,
}

pub struct Files {
    keys: Keys,
    branding: Branding,
    connections: Arc<Policies>,
    /// In the order of the configuration's pools.
    secure: Vec<Option<UpstreamTls>>,
    /// By the name of the service; services without pages are left out.
    error_pages: HashMap<Arc<str>, ErrorPages>,
    maintenance: FirstLook,
    /// What routes put into header fields.
    fields: FieldSecrets,
    /// Held until the pools hold those that they need.
    _names: Vec<Arc<ResolvedName>>,
}

impl LoadedFiles {
    /// Reads certificates, secrets, keys and the logo. `None` when a fault was added that leaves nothing to go on with.
    /// `before` are the certificates that are served, if any are. `threads` look at what the edge does without for a while, so
    /// that a file system that does not answer is a warning: files that it serves, and those that switch maintenance on.
    pub fn read(
        config: &Config,
        clock: &Clock,
        before: &Certificates,
        names: &Resolver,
        threads: &BlockingThreads,
        faults: &mut Faults,
    ) -> Option<Self> {
        auth::install_crypto();
        let names = resolve(config, names, faults);
        let certificates = Certificates::load(&config.tls, clock.now(), before, faults);
        let policies = Arc::new(Policies::load(&config.tls, faults));
        let root = TicketRoot::load(&config.tls.tickets, faults);
        let keys = Keys::load(&config.sentry, faults);
        let branding = branding(config, faults);
        let now = clock.now();
        let error_pages = error_pages(config, faults);
        files::check_roots(config, threads, faults);
        acme::check_root(config.server.acme_challenge.as_ref(), threads, faults);
        let maintenance = FirstLook::at(config, threads);
        maintenance.warn(faults);
        let secure = config.pools.iter().map(|pool| UpstreamTls::load(pool.tls.as_ref()?, now, faults)).collect();
        let fields = FieldSecrets::read(config, faults);
        config::warn_of_permissions(config, faults);
        upstream::check_system(faults);
        if let Sessions::Memcached { servers, former, .. } = &config.sessions {
            let before = former.iter().enumerate().map(|(at, list)| (format!("sessions.memcached.former[{at}]"), list));
            for (key, servers) in std::iter::once(("sessions.memcached.servers".to_owned(), servers)).chain(before) {
                for (at, server) in servers.iter().enumerate() {
                    if let Err(fault) = memcached::check(&server.address) {
                        let remedy = "write IP:PORT, NAME:PORT or unix:///PATH";
                        faults.add(format!("{key}[{at}]"), fault.to_string(), remedy);
                    }
                }
            }
        }
        // Where a certificate could not be read, it is no news that its hosts are not covered.
        if !faults.concern("tls.certificates") {
            check_cover(config, &certificates, faults);
        }
        let connections = Arc::clone(&policies);
        let tls = tls::Material { certificates, policies, root: root? };
        let keys = keys?;
        let files = Files { keys, branding, connections, secure, error_pages, maintenance, fields, _names: names };
        Some(Self { tls, files })
    }
}

/// Resolves the names of servers, for a limited time. A name that does not resolve is no fault: its application or its DNS
/// may be down, and the other services must be served.
fn resolve(config: &Config, names: &Resolver, faults: &mut Faults) -> Vec<Arc<ResolvedName>> {
    let servers = config
        .pools
        .iter()
        .flat_map(|pool| pool.servers.iter().enumerate().map(move |(at, server)| (pool, at, server)));
    let named = servers.filter_map(|(pool, at, server)| match &server.location {
        Location::Name { host, .. } => Some((pool, at, host.as_str())),
        Location::Address(_) | Location::Unix(_) => None,
    });
    let named: Vec<_> = named.collect();
    let wanted: Vec<_> = named.iter().map(|(pool, _, host)| (*host, pool.resolve_every)).collect();
    let held = names.prepare(&wanted);
    for ((pool, at, host), _) in named.iter().zip(&held).filter(|(_, name)| !name.has_address()) {
        let what = format!("`{host}` does not resolve: its server is left out until it does");
        faults.warn(format!("pools.{}.servers[{at}]", pool.name), what, "check the name, and the DNS of this machine");
    }
    held
}

/// Adds a fault for each host that no certificate covers.
pub fn check_cover(config: &Config, certificates: &Certificates, faults: &mut Faults) {
    let sentry = crate::host::HostPattern::Exact(config.sentry.host.clone());
    let services = config.services.iter().flat_map(|service| {
        let key = move |at: usize| format!("services.{}.hosts[{at}]", service.name);
        service.hosts.iter().enumerate().map(move |(at, pattern)| (key(at), pattern))
    });
    for (key, pattern) in std::iter::once(("sentry.host".to_owned(), &sentry)).chain(services) {
        // A host that could not be read is not covered either.
        if !certificates.cover(pattern) && !faults.concern(&key) {
            faults.add(key, format!("no certificate covers {pattern}"), "add one under tls.certificates");
        }
    }
}

fn error_pages(config: &Config, faults: &mut Faults) -> HashMap<Arc<str>, ErrorPages> {
    let with_pages = config.services.iter().filter(|service| !service.error_pages.is_empty());
    with_pages.map(|service| (Arc::clone(&service.name), ErrorPages::load(service, faults))).collect()
}

fn branding(config: &Config, faults: &mut Faults) -> Branding {
    let login = &config.sentry.login;
    let logo = login.logo.as_ref().and_then(|path| {
        let kind = match path.extension().and_then(|extension| extension.to_str()) {
            Some("svg") => "svg+xml",
            Some("png") => "png",
            Some("jpg" | "jpeg") => "jpeg",
            _ => {
                faults.add(
                    "sentry.login.logo",
                    "not a kind of picture that is known",
                    "name a .svg, .png, .jpg or .jpeg file",
                );
                return None;
            }
        };
        match std::fs::read(path) {
            Ok(bytes) if bytes.len() <= 256 * 1024 => {
                let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
                Some(format!("data:image/{kind};base64,{encoded}"))
            }
            Ok(_) => {
                faults.add("sentry.login.logo", "over 256 KiB; it travels in every page", "make it smaller");
                None
            }
            Err(error) => {
                faults.add("sentry.login.logo", format!("cannot read {}: {error}", path.display()), "name a file");
                None
            }
        }
    });
    Branding { title: login.title.clone(), logo, text: login.text.clone() }
}

impl Snapshot {
    pub fn build(config: &Config, files: Files, shared: &SharedState, ports: &Ports) -> Self {
        let settings = &config.sentry;
        let metrics = &shared.metrics;
        let guard = Arc::new(guard(config, files.keys, shared));
        let (private, names, states) = (&shared.private, &shared.names, &shared.servers);
        let cookie_keys = guard.tokens().keys().derive_all("server cookie");
        let upstreams = upstream::Shared { private, names, states, cookie_keys: &cookie_keys, metrics };
        let pools: Vec<Arc<Pool>> = config
            .pools
            .iter()
            .zip(&files.secure)
            .map(|(pool, secure)| Arc::new(Pool::build(pool, secure.as_ref(), &upstreams)))
            .collect();
        let places: HashMap<&str, usize> =
            config.pools.iter().enumerate().map(|(at, pool)| (pool.name.as_str(), at)).collect();
        shared.maintenance.configure(files.maintenance);
        let routes = Routes::build(
            &config.services,
            |service| Sentry::service_audience(settings, &service.name),
            |name| places.get(name).copied(),
            &shared.maintenance,
            &shared.blocking,
            &files.fields,
            metrics,
        );
        let parts = SentryParts {
            guard: Arc::clone(&guard),
            store: Arc::clone(&shared.store),
            logins: Arc::clone(&shared.logins),
            branding: files.branding.clone(),
            metrics: Arc::clone(metrics),
            audit: Arc::clone(&shared.audit),
            ports: ports.known.clone(),
        };
        Self {
            generation: shared.streams.generation(),
            sentry: Sentry::new(config, parts),
            routes,
            guard,
            pools,
            branding: files.branding,
            connections: files.connections,
            unknown_hosts: config.unknown_hosts.clone(),
            unrouted: metrics.service("none"),
            trusted_proxies: config.server.trusted_proxies.clone(),
            on_outage: config.on_outage,
            limits: config.server.limits,
            rates: Arc::clone(&shared.rates),
            timeouts: config.server.timeouts,
            hsts: config.tls.hsts.and_then(|hsts| HeaderValue::try_from(hsts.to_string()).ok()),
            ports: ports.known.clone(),
            https_port: ports.https,
            health: config.server.health.as_deref().map(Box::from),
            acme_challenge: config.server.acme_challenge.as_deref().map(Arc::from),
            error_pages: files.error_pages,
            own_cookies: own_cookies(config),
            ticket_parameter: settings.ticket.parameter.clone(),
            reserved_headers: reserved_headers(config),
        }
    }
}

fn guard(config: &Config, keys: Keys, shared: &SharedState) -> Guard {
    let (settings, metrics) = (&config.sentry, &shared.metrics);
    let (issuer, cache) = (settings.token.issuer.clone(), metrics.sign_on.token_cache.clone());
    let tokens = Tokens::new(Arc::new(keys), issuer, settings.token.leeway, settings.token.cache, cache);
    let sessions = auth::Sessions {
        store: Arc::clone(&shared.store),
        checked: shared.sessions_are_checked,
        seen: Arc::clone(&shared.seen),
        users: Arc::clone(&shared.users),
        recorder: Recorder::new(Arc::clone(&shared.store), config.last_access_interval),
        streams: Arc::clone(&shared.streams),
        stream_interval: config.session_recheck_interval,
    };
    Guard::new(
        Arc::new(tokens.with_lifetime(settings.token.lifetime)),
        settings.cookie.name.clone(),
        Fingerprinter::new(settings.fingerprint.clone()),
        sessions,
        Arc::clone(metrics),
    )
}

/// The cookies of the sign-on, and those that name servers. They are the edge's on every host, so that an application gets
/// none whatever pool its requests go to.
fn own_cookies(config: &Config) -> OwnCookies {
    let mut names = Sentry::cookie_names(&config.sentry);
    names.extend(config.pools.iter().filter_map(|pool| pool.balance.cookie().map(str::to_owned)));
    names.sort();
    names.dedup();
    OwnCookies::new(names)
}

/// Identity headers of every service: a name that one service trusts is not left to clients of another.
fn reserved_headers(config: &Config) -> Vec<String> {
    let headers = config.services.iter().map(|service| &service.identity_headers);
    let names = headers.flat_map(|headers| [&headers.user, &headers.email, &headers.roles]);
    header_names::identity_fields(names.map(HeaderName::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_leads_to_a_port_that_clients_connect_to() {
        for (listeners, known, https) in [
            (&[(443, None)][..], &[443][..], None),
            (&[(8443, None)], &[8443], Some(8443)),
            (&[(8443, Some(443))], &[443, 8443], None),
            (&[(8443, Some(9443))], &[8443, 9443], Some(9443)),
            (&[(443, Some(9443))], &[443, 9443], Some(9443)),
            (&[(9000, Some(9001)), (8443, Some(443))], &[443, 8443, 9000, 9001], None),
            (&[(9000, None), (8443, Some(9443))], &[8443, 9000, 9443], Some(9000)),
        ] {
            let ports = Ports::new(listeners.iter().copied());
            assert_eq!(ports, Ports { known: known.to_vec(), https }, "{listeners:?}");
        }
    }
}
