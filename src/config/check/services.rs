//! The `services` and `pools` parts: hosts that do not overlap, servers with addresses.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::maintenance::{error_pages, maintenance};
use super::rules::TakenFields;
use super::{Check, balancing, defaults, failures, health, in_punycode, seconds, time};
use crate::config::file;
use crate::config::header_names;
use crate::config::units::Time;
use crate::config::{Location, OutagePolicy, Pool, PoolServer, PoolTimeouts, Sentry, Service};
use crate::host::{Host, HostPattern};

/// How often names of servers may be resolved.
const MIN_RESOLVE_INTERVAL: Duration = seconds(1);
/// The weight of a server of a pool.
const WEIGHTS: std::ops::RangeInclusive<u16> = 1..=256;

/// Returns the normalized names of the identity fields of all services. A name that is none has a fault of its own.
fn identity_fields(services: &BTreeMap<String, file::Service>) -> Vec<String> {
    let names = services.values().flat_map(|service| {
        let headers = &service.identity_headers;
        [
            (&headers.user, defaults::USER_HEADER),
            (&headers.email, defaults::EMAIL_HEADER),
            (&headers.roles, defaults::ROLES_HEADER),
        ]
    });
    header_names::identity_fields(names.map(|(written, default)| written.as_deref().unwrap_or(default)))
}

/// Returns the names of the cookies that the edge sets on the hosts of a service: its own, and those of the sticky pools
/// that the service and its routes name.
fn cookies_of_edge(service: &file::Service, sentry: &Sentry, pools: &[Pool]) -> Vec<String> {
    let named = service.routes.iter().map(|route| &route.pool).chain([&service.pool]);
    let named: Vec<&str> = named.flatten().map(String::as_str).collect();
    let sticky = pools.iter().filter(|pool| named.contains(&pool.name.as_str()));
    let sticky = sticky.filter_map(|pool| pool.balance.cookie()).map(str::to_owned);
    sentry.cookie_names().into_iter().chain(sticky).collect()
}

/// Which service a host belongs to.
type Taken = HashMap<HostPattern, Arc<str>>;

impl Check<'_> {
    pub(super) fn services(
        &mut self,
        written: BTreeMap<String, file::Service>,
        sentry: &Sentry,
        pools: &[Pool],
        on_outage: OutagePolicy,
    ) -> Vec<Service> {
        let mut services: Vec<Service> = Vec::new();
        let mut taken = Taken::new();
        let identity = identity_fields(&written);
        for (name, service) in written {
            let place = format!("services.{name}");
            self.name(&place, &name);
            let name: Arc<str> = name.into();
            let hosts = self.hosts(&place, &service.hosts, sentry, &taken);
            taken.extend(hosts.iter().map(|host| (host.clone(), Arc::clone(&name))));
            let hsts = self.hsts(&format!("{place}.hsts"), service.hsts, defaults::SERVICE_HSTS);
            let authorization = service.forward_token == Some(file::ForwardToken::Bearer);
            let cookies = cookies_of_edge(&service, sentry, pools);
            let fields = TakenFields { identity: &identity, cookies: &cookies, hsts: hsts.is_some(), authorization };
            let routes = self.routes(&place, &service, &hosts, pools, fields);
            let idle_timeout = self.idle_timeout(&place, service.idle_timeout, sentry.token.lifetime);
            services.push(Service {
                name,
                hosts,
                access_log: service.access_log.unwrap_or(defaults::SERVICE_ACCESS_LOG),
                idle_timeout,
                forward_token: service.forward_token.unwrap_or(defaults::FORWARD_TOKEN),
                requests_per_second: self
                    .per_second(&format!("{place}.requests_per_second"), service.requests_per_second),
                identity_assertion: service.identity_assertion.unwrap_or(defaults::IDENTITY_ASSERTION),
                identity_headers: self.identity_headers(&place, &service.identity_headers),
                on_outage: self.on_outage(&format!("{place}.on_outage"), service.on_outage, on_outage),
                hsts,
                websocket_origins: self.origins(&format!("{place}.websocket_origins"), &service.websocket_origins),
                error_pages: error_pages(self, &place, &service.error_pages),
                maintenance: service.maintenance.as_ref().map(|written| maintenance(self, &place, written)),
                routes,
            });
        }
        services
    }

    fn idle_timeout(&mut self, place: &str, written: Option<Time>, lifetime: Duration) -> Duration {
        if written.is_some_and(|time| time.0 > lifetime) {
            let most = humantime::format_duration(lifetime);
            let what = format!("longer than sentry.token.lifetime, so it is {most}");
            self.faults.warn(format!("{place}.idle_timeout"), what, format!("write {most} or less"));
        }
        time(written, defaults::IDLE_TIMEOUT).min(lifetime)
    }

    /// Names become label values, audiences and parts of log lines.
    fn name(&mut self, place: &str, name: &str) {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        if name.is_empty() || name.len() > 63 || name == "none" || !name.bytes().all(plain) {
            self.fault(place, format!("`{name}` cannot be a name"), "use a-z, 0-9, - and _, 63 at most, not `none`");
        }
    }

    fn hosts(&mut self, place: &str, written: &[String], sentry: &Sentry, taken: &Taken) -> Vec<HostPattern> {
        if written.is_empty() {
            self.fault(format!("{place}.hosts"), "no host", "name at least one, such as [app.example.com]");
        }
        let mut hosts = Vec::new();
        for (at, text) in written.iter().enumerate() {
            let key = format!("{place}.hosts[{at}]");
            let Ok(pattern) = HostPattern::parse(text) else {
                let write = match text.is_ascii() {
                    true => "write a name or *.DOMAIN, without scheme or port".into(),
                    false => in_punycode(text),
                };
                self.fault(key, format!("`{text}` is no host name"), write);
                // Keeps the places of those behind it.
                hosts.push(HostPattern::Exact(Host::placeholder()));
                continue;
            };
            if pattern == HostPattern::Exact(sentry.host.clone()) {
                self.fault(&key, format!("{pattern} is the sign-on host"), "give the service a host of its own");
            }
            if let Some(other) = taken.get(&pattern) {
                self.fault(&key, format!("{pattern} belongs to service `{other}` already"), "remove it from one");
            }
            if hosts.contains(&pattern) {
                self.fault(&key, format!("{pattern} is listed twice"), "remove one");
            }
            hosts.push(pattern);
        }
        hosts
    }

    pub(super) fn pools(&mut self, written: BTreeMap<String, file::Pool>) -> Vec<Pool> {
        let mut pools = Vec::new();
        for (name, pool) in written {
            let place = format!("pools.{name}");
            self.name(&place, &name);
            let servers = self.pool_servers(&place, &pool.servers);
            let tls = self.pool_tls(&place, pool.protocol, pool.tls.as_ref());
            self.names_to_verify(&place, tls.as_ref(), &servers);
            pools.push(Pool {
                servers,
                tls,
                balance: balancing::balance(self.faults, &place, pool.balance.as_ref()),
                health: health::health(self.faults, &place, pool.health.as_ref()),
                slow_start: pool.slow_start.map_or(defaults::SLOW_START, |time| time.0),
                protocol: pool.protocol.unwrap_or(defaults::POOL_PROTOCOL),
                timeouts: PoolTimeouts {
                    connect: time(pool.timeouts.connect, defaults::CONNECT_TIMEOUT),
                    read: time(pool.timeouts.read, defaults::POOL_READ_TIMEOUT),
                    write: time(pool.timeouts.write, defaults::POOL_WRITE_TIMEOUT),
                    idle: time(pool.timeouts.idle, defaults::POOL_IDLE_TIMEOUT),
                },
                retry: failures::retry(self.faults, &place, &pool.retry, pool.retries),
                eject: failures::eject(self.faults, &place, pool.eject.as_ref()),
                in_flight: failures::at_a_time(self.faults, format!("{place}.in_flight"), pool.in_flight),
                resolve_every: self.resolve_every(&place, pool.resolve.every),
                name,
            });
        }
        pools
    }

    fn resolve_every(&mut self, place: &str, written: Option<Time>) -> Duration {
        if written.is_some_and(|time| time.0 < MIN_RESOLVE_INTERVAL) {
            self.fault(
                format!("{place}.resolve.every"),
                "too short: every resolution is a DNS query",
                "write 1s or more",
            );
        }
        time(written, defaults::RESOLVE_EVERY)
    }

    fn pool_servers(&mut self, place: &str, written: &[file::PoolServer]) -> Vec<PoolServer> {
        if written.is_empty() {
            self.fault(format!("{place}.servers"), "no server", "name at least one, such as [\"127.0.0.1:9001\"]");
        }
        let mut servers = Vec::new();
        for (at, server) in written.iter().enumerate() {
            let key = format!("{place}.servers[{at}]");
            let server = match server {
                file::PoolServer::Address(address) => {
                    &file::PoolServerKeys { address: address.clone(), weight: None, backup: None, connections: None }
                }
                file::PoolServer::Keys(server) => server,
            };
            let (name, weight) = (server.address.clone(), server.weight.unwrap_or(defaults::WEIGHT));
            let connections = failures::at_a_time(self.faults, format!("{key}.connections"), server.connections);
            if !WEIGHTS.contains(&weight) {
                self.fault(format!("{key}.weight"), format!("a weight of {weight}"), "write 1 to 256");
            }
            match Location::parse(&name) {
                Some(location) => servers.push(PoolServer {
                    name,
                    location,
                    weight: weight.clamp(*WEIGHTS.start(), *WEIGHTS.end()),
                    is_backup: server.backup.unwrap_or(defaults::BACKUP),
                    connections,
                }),
                None => {
                    let write = "write IP:PORT or NAME:PORT, or unix:///PATH with a path of 107 bytes at most";
                    self.fault(&key, format!("`{name}` is no address of a server"), write);
                }
            }
        }
        servers
    }
}
