//! `pools.NAME.balance`: a policy, and the name of its cookie.

use super::defaults;
use crate::config::file::{self, BalancePolicy};
use crate::config::{Balance, Config, FIXED_COOKIES, Faults};

/// The length of a cookie's name; every request carries it.
const MAX_COOKIE_NAME: usize = 64;

/// The session cookies of widespread servers and frameworks.
const SESSION_COOKIES: [&str; 9] = [
    "JSESSIONID",
    "PHPSESSID",
    "ASP.NET_SessionId",
    ".AspNetCore.Session",
    "connect.sid",
    "sessionid",
    "session",
    "laravel_session",
    "_session_id",
];

pub(super) fn balance(faults: &mut Faults, pool: &str, written: Option<&file::Balance>) -> Balance {
    match written {
        None => of(defaults::BALANCE),
        Some(file::Balance::Policy(policy)) => of(*policy),
        Some(file::Balance::Sticky(policy)) => {
            let cookie = &policy.sticky.cookie;
            if !(1..=MAX_COOKIE_NAME).contains(&cookie.len()) || !cookie.bytes().all(is_token) {
                let what = format!("`{}` cannot be the name of a cookie", cookie.escape_debug());
                let write = format!("use A-Z, a-z, 0-9, - and _, {MAX_COOKIE_NAME} at most");
                faults.add(place(pool), what, write);
            }
            if SESSION_COOKIES.iter().any(|name| name.eq_ignore_ascii_case(cookie)) {
                let what =
                    format!("`{cookie}` is what many applications call their own cookie, and they would lose it");
                faults.warn(place(pool), what, "name a cookie that no application has, such as edge_server");
            }
            Balance::Sticky { cookie: cookie.clone() }
        }
    }
}

/// The cookies of pools among all others that the edge sets.
pub(super) fn sticky_cookies(faults: &mut Faults, config: &Config) {
    let own = [config.sentry.cookie.name.as_str(), &config.sentry.cookie.state_name].into_iter().chain(FIXED_COOKIES);
    let own: Vec<&str> = own.collect();
    let sticky: Vec<(&str, &str)> =
        config.pools.iter().filter_map(|pool| Some((pool.name.as_str(), pool.balance.cookie()?))).collect();
    for (pool, cookie) in &sticky {
        // Browsers take a prefix of a name in any case for ours (RFC 6265bis §4.1.3).
        if own.iter().any(|name| name.eq_ignore_ascii_case(cookie)) {
            let what = format!("`{cookie}` is a cookie of the sign-on");
            faults.add(place(&format!("pools.{pool}")), what, "give each cookie its own name");
        }
    }
    for service in &config.services {
        let pools: Vec<&str> = service.pools().collect();
        let mut seen: Vec<(&str, &str)> = Vec::new();
        for (pool, cookie) in sticky.iter().filter(|(pool, _)| pools.contains(pool)) {
            // Cookies are known by their name alone, so that a server of one pool would make clients lose the other's.
            if let Some((other, _)) = seen.iter().find(|(_, theirs)| theirs == cookie) {
                let what = format!("routes of `{}` lead to `{other}` too, which has the same cookie", service.name);
                faults.add(place(&format!("pools.{pool}")), what, "give each pool its own cookie");
            }
            seen.push((pool, cookie));
        }
    }
}

const fn of(policy: BalancePolicy) -> Balance {
    match policy {
        BalancePolicy::RoundRobin => Balance::RoundRobin,
        BalancePolicy::LeastRequest => Balance::LeastRequest,
    }
}

fn place(pool: &str) -> String {
    format!("{pool}.balance.sticky.cookie")
}

/// A byte of a token (RFC 9110 §5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
