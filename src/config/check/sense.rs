//! Warnings: settings that are valid and may not do what their author expects.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::{Check, seconds};
use crate::config::{Access, Config, ForwardToken, OutagePolicy, Route, Sessions};

/// The least prefix of a network that may be an operator's own proxies: a /8, such as 10.0.0.0/8.
const MIN_PREFIX_V4: u8 = 8;
/// What the registries hand out is a /19 at most; the private range is a /7 (RFC 4193).
const MIN_PREFIX_V6: u8 = 19;
const MIN_PREFIX_PRIVATE_V6: u8 = 7;

impl Check<'_> {
    /// Adds the warnings of a checked configuration. Parts with a fault are left out: they are not yet what is meant.
    pub(super) fn warn(&mut self, config: &Config) {
        self.warn_of_trust(config);
        self.warn_of_pools(config);
        self.warn_of_tokens(config);
        self.warn_of_times(config);
    }

    fn warn_of_trust(&mut self, config: &Config) {
        let proxies = &config.server.trusted_proxies;
        // One that was no network is missing from the list, and would move the others up.
        if self.faults.concern("server.trusted_proxies") {
            return;
        }
        for (at, network) in proxies.iter().enumerate().filter(|(_, network)| is_wide(network)) {
            let what =
                format!("{network} is no network of proxies: each client that connects from it names its own address");
            self.faults.warn(format!("server.trusted_proxies[{at}]"), what, "name the addresses of the proxies alone");
        }
        if !proxies.iter().any(is_wide) {
            return;
        }
        for (at, _) in config.server.listeners.iter().enumerate().filter(|(_, listener)| listener.proxy_protocol) {
            let key = format!("server.listeners[{at}].proxy_protocol");
            let write = "narrow server.trusted_proxies to the addresses of the balancers";
            self.faults.warn(key, "nearly every address may send it: each connection names its own client", write);
        }
    }

    fn warn_of_pools(&mut self, config: &Config) {
        // Where a name is wrong, the pool that it is meant for is missed.
        if self.faults.concern("services") {
            return;
        }
        let used: BTreeSet<&str> = config.services.iter().flat_map(|service| service.pools()).collect();
        for pool in config.pools.iter().filter(|pool| !used.contains(pool.name.as_str())) {
            let key = format!("pools.{}", pool.name);
            self.faults.warn(key, "no service and no route leads to it", "name it in one, or remove it");
        }
    }

    /// Warns where an application may read `Authorization` of its own clients, and gets the edge's alone.
    fn warn_of_tokens(&mut self, config: &Config) {
        for service in config.services.iter().filter(|service| service.forward_token == ForwardToken::Bearer) {
            let is_open = |route: &Route| route.access == Access::Public && route.action.forward().is_some();
            let place = format!("services.{}", service.name);
            if !self.faults.concern(&place)
                && let Some(route) = service.routes.iter().find(|route| is_open(route))
            {
                let what =
                    format!("`Authorization` of clients does not reach the application, not even on {}", route.path);
                let write = "write none, or give the public route a service of its own";
                self.faults.warn(format!("{place}.forward_token"), what, write);
            }
        }
    }

    /// Warns of timeouts that are too long to be a limit.
    fn warn_of_times(&mut self, config: &Config) {
        let minute = seconds(60);
        let (limits, timeouts) = (&config.server.limits, &config.server.timeouts);
        let slow = "clients that send slowly hold their connections for as long";
        for (key, time, most, why) in [
            ("server.limits.header_timeout", limits.header_timeout, 5 * minute, slow),
            ("server.timeouts.tls_handshake", timeouts.tls_handshake, minute, slow),
            (
                "sessions.session_recheck_interval",
                config.session_recheck_interval,
                10 * minute,
                "streams outlive their sessions by as much",
            ),
            ("sentry.login.deadline", config.sentry.login.deadline, 5 * minute, "no client waits so long for a login"),
            ("users.refresh", config.users.refresh, 5 * minute, "users who were disabled stay signed in for as long"),
        ] {
            self.warn_of_time(key, time, most, why);
        }
        if let Sessions::Memcached { timeout, sign_on_timeout, .. } = &config.sessions {
            let why = "requests wait for as long when a server is away";
            self.warn_of_time("sessions.memcached.timeout", *timeout, seconds(5), why);
            let why = "logins wait for as long, again and again, when a server is away";
            self.warn_of_time("sessions.memcached.sign_on_timeout", *sign_on_timeout, seconds(10), why);
        }
        let services = config.services.iter().filter(|service| service.on_outage != config.on_outage);
        let services = services.map(|service| (format!("services.{}", service.name), service.on_outage));
        for (place, policy) in std::iter::once(("sessions".to_owned(), config.on_outage)).chain(services) {
            if let OutagePolicy::Recent { within } = policy {
                let why = "sessions that were ended pass for as long while the store is away";
                self.warn_of_time(&format!("{place}.on_outage.within"), within, 60 * minute, why);
            }
        }
    }

    fn warn_of_time(&mut self, key: &str, time: Duration, most: Duration, why: &str) {
        if time > most {
            let most = humantime::format_duration(most);
            self.faults.warn(key, format!("a long time: {why}"), format!("write {most} or less"));
        }
    }
}

fn is_wide(network: &IpNet) -> bool {
    match network.network() {
        IpAddr::V4(_) => network.prefix_len() < MIN_PREFIX_V4,
        // `::ffff:a.b.c.d` is how an IPv4 client looks to a socket that takes both.
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() && network.prefix_len() >= 96 => {
            network.prefix_len() - 96 < MIN_PREFIX_V4
        }
        IpAddr::V6(address) if address.segments()[0] >> 9 == 0xfc00 >> 9 => {
            network.prefix_len() < MIN_PREFIX_PRIVATE_V6
        }
        IpAddr::V6(_) => network.prefix_len() < MIN_PREFIX_V6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_proxies_is_narrower_than_the_world() {
        for (network, wide) in [
            ("0.0.0.0/0", true),
            ("::/0", true),
            ("0.0.0.0/1", true),
            ("128.0.0.0/1", true),
            ("64.0.0.0/7", true),
            ("::ffff:0:0/96", true),
            ("::ffff:128.0.0.0/97", true),
            ("2000::/3", true),
            ("2000::/18", true),
            ("::/1", true),
            ("f000::/4", true),
            ("10.0.0.0/8", false),
            ("172.16.0.0/12", false),
            ("192.0.2.7/32", false),
            ("::ffff:10.0.0.0/104", false),
            ("fc00::/7", false),
            ("fd00::/8", false),
            ("2001:db8::/32", false),
            ("::1/128", false),
        ] {
            assert_eq!(is_wide(&network.parse().unwrap()), wide, "{network}");
        }
    }
}
