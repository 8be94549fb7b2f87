//! What holds where a key is not written, for each key of each YAML shape. The values are those of `defaults`.
//!
//! The schema, the configuration reference and the effective configuration are made of this table; tests compare each of
//! its values with what is in effect.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::super::defaults::{self, HSTS};
use super::super::{OutagePolicy, Rate, TlsVersion};

/// What holds where a key is not written.
#[derive(Clone, Debug, PartialEq)]
pub enum Fallback {
    /// This value.
    Value(Value),
    /// This value, where the other key is written beside it (with this value).
    When(&'static str, Option<&'static str>, Value),
    /// The value of this key, in which `NAME` is the name of the same service.
    Follows(&'static str),
    /// What no value says, in the words of the reference.
    Text(&'static str),
    /// The key has to be written.
    Required,
}

use Fallback::{Follows, Required, Text, When};

/// Returns what holds without a key. `None` is a section, whose keys have rows of their own.
pub fn fallback(shape: &str, key: &str) -> Option<Fallback> {
    [server, limits, log_and_tls, sentry, sessions_and_users, services, pools]
        .iter()
        .find_map(|section| section(shape, key))
}

/// Without a value there is none: no limit, no file, no header.
const NONE: Fallback = Text("none");

fn value(value: impl Serialize) -> Fallback {
    Fallback::Value(json!(value))
}

fn time(duration: Duration) -> Fallback {
    value(of_time(duration))
}

/// In the largest unit that divides it and leaves a number above 1: `60s`, `30m`, `12h`, `365d`.
fn of_time(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let fits = |unit: u128| milliseconds.is_multiple_of(unit) && (milliseconds / unit > 1 || unit == 1000);
    match units.into_iter().find(|(_, unit)| fits(*unit)) {
        Some((name, unit)) => format!("{}{name}", milliseconds / unit),
        None => format!("{milliseconds}ms"),
    }
}

fn of_statuses(statuses: &RangeInclusive<u16>) -> String {
    format!("{}-{}", statuses.start(), statuses.end())
}

fn size(bytes: usize) -> Fallback {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
    let unit = units.into_iter().find(|(_, unit)| bytes.is_multiple_of(*unit));
    value(unit.map(|(name, unit)| format!("{}{name}", bytes / unit)))
}

fn rate(rate: Rate) -> Fallback {
    value(format!("{} per {}", rate.count, of_time(rate.per)))
}

fn server(shape: &str, key: &str) -> Option<Fallback> {
    Some(match (shape, key) {
        ("File", "server" | "tls" | "sentry") => Required,
        ("File", "services" | "pools") => Fallback::Value(json!({})),
        ("Server", "threads") => value("auto"),
        ("Server", "listeners") => Required,
        ("Server", "runtime_dir") => Text("`$RUNTIME_DIRECTORY`, else `/run/sentry-edge/HASH`"),
        ("Server", "trusted_proxies") => value([""; 0]),
        ("Server", "acme_challenge" | "health") => NONE,
        ("HealthPath", "path") => value(defaults::SERVER_HEALTH_PATH),
        ("Server", "drain") | ("DrainSteps", "requests") => time(defaults::DRAIN),
        ("DrainSteps", "notice") => time(defaults::DRAIN_NOTICE),
        ("Server", "upgrade_timeout") => time(defaults::UPGRADE_TIMEOUT),
        ("AcmeChallenge", "root") => Required,
        ("Listener", "address") => Required,
        ("Listener", "protocol") => value(defaults::LISTENER_PROTOCOL),
        ("Listener", "http2") => value(defaults::LISTENER_HTTP2),
        ("Listener", "redirect_to_https") => value(defaults::LISTENER_REDIRECT_TO_HTTPS),
        ("Listener", "proxy_protocol") => value(defaults::LISTENER_PROXY_PROTOCOL),
        ("Listener", "public_port") => Text("that of `address`"),
        ("Admin", "address") => value(defaults::ADMIN_ADDRESS),
        ("Admin", "token") => NONE,
        ("Admin", "tokens") => Fallback::Value(json!({})),
        ("AdminToken", "secret" | "role") => Required,
        ("Timeouts", "tls_handshake") => time(defaults::TLS_HANDSHAKE_TIMEOUT),
        ("Timeouts", "keepalive") => time(defaults::KEEPALIVE_TIMEOUT),
        ("Timeouts", "read") => time(defaults::READ_TIMEOUT),
        ("Timeouts", "write") => time(defaults::WRITE_TIMEOUT),
        _ => return None,
    })
}

fn limits(shape: &str, key: &str) -> Option<Fallback> {
    Some(match (shape, key) {
        ("Limits", "connections") => value(defaults::CONNECTIONS),
        ("Limits", "connections_per_address") => value(defaults::CONNECTIONS_PER_ADDRESS),
        ("Limits", "header_bytes") => size(defaults::HEADER_BYTES),
        ("Limits", "header_count") => value(defaults::HEADER_COUNT),
        ("Limits", "header_timeout") => time(defaults::HEADER_TIMEOUT),
        ("Limits", "body_bytes") => size(defaults::BODY_BYTES),
        ("Limits", "min_body_rate") => size(defaults::MIN_BODY_RATE),
        ("Limits", "streams") => value(defaults::STREAMS),
        ("Limits", "buffer_bytes") => size(defaults::BUFFER_BYTES),
        ("Limits", "buffer_bytes_per_address") => size(defaults::BUFFER_BYTES_PER_ADDRESS),
        ("Limits" | "Service", "requests_per_second") => defaults::REQUESTS_PER_SECOND.map_or(NONE, value),
        _ => return None,
    })
}

fn log_and_tls(shape: &str, key: &str) -> Option<Fallback> {
    Some(match (shape, key) {
        ("Log", "level") => value(defaults::LOG_LEVEL),
        ("LogTarget" | "AuditTarget", "format") => value(defaults::LOG_FORMAT),
        ("LogTarget" | "AuditTarget", "path") => value(defaults::LOG_PATH),
        ("AuditTarget", "on_write_error") => value(defaults::AUDIT_ON_WRITE_ERROR),
        ("Tls", "min_version") => value(match defaults::TLS_MIN_VERSION {
            TlsVersion::V1_2 => "1.2",
            TlsVersion::V1_3 => "1.3",
        }),
        ("Tls", "certificates") => Required,
        ("Tls", "refresh") => time(defaults::TLS_REFRESH),
        ("Tls", "hsts") => {
            value(json!({"max_age": of_time(HSTS.max_age), "include_subdomains": HSTS.include_subdomains}))
        }
        ("Certificate", _) | ("HstsSettings", "max_age") => Required,
        ("HstsSettings", "include_subdomains") => value(HSTS.include_subdomains),
        ("HstsSettings", "preload") => value(HSTS.preload),
        ("Tickets", "secret") => Text("made when the process starts"),
        ("Tickets", "rotation") => time(defaults::TICKET_KEY_ROTATION),
        ("HostTls", "min_version") => Follows("tls.min_version"),
        ("HostTls", "client_ca") => NONE,
        ("HostTls", "client_certificate") => {
            let wanted = if defaults::CLIENT_CERTIFICATE_REQUIRED { "required" } else { "optional" };
            When("client_ca", None, json!(wanted))
        }
        _ => return None,
    })
}

fn sentry(shape: &str, key: &str) -> Option<Fallback> {
    Some(match (shape, key) {
        ("Sentry", "host" | "keys") => Required,
        ("Sentry", "fingerprint") => value(defaults::FINGERPRINT),
        ("Token", "issuer") => Text("`https://` and `sentry.host`"),
        ("Token", "lifetime") => time(defaults::TOKEN_LIFETIME),
        ("Token", "leeway") => time(defaults::TOKEN_LEEWAY),
        ("Token", "audience") => value(defaults::TOKEN_AUDIENCE),
        ("Token", "sign_with") => Text("the first key"),
        ("Token", "cache") => size(defaults::TOKEN_CACHE),
        ("Key", "id" | "algorithm") => Required,
        ("Key", "secret" | "private_key" | "public_key") => Text("one of the three is required"),
        ("Key", "allow_weak") => value(false),
        ("Secret", _) => Text("one of the three is required"),
        ("Cookie", "name") => value(defaults::TOKEN_COOKIE),
        ("Cookie", "state_name") => value(defaults::STATE_COOKIE),
        ("Cookie", "same_site") => value(defaults::SAME_SITE),
        ("Ticket", "lifetime") => time(defaults::TICKET_LIFETIME),
        ("Ticket", "parameter") => value(defaults::TICKET_PARAMETER),
        ("Login", "failures_per_account") => rate(defaults::FAILURES_PER_ACCOUNT),
        ("Login", "failures_per_address") => rate(defaults::FAILURES_PER_ADDRESS),
        ("Login", "title") => value(defaults::LOGIN_TITLE),
        ("Login", "text" | "logo") => NONE,
        ("Login", "workers") => value(defaults::LOGIN_WORKERS),
        ("Login", "queue") => value(defaults::LOGIN_QUEUE),
        ("Login", "deadline") => time(defaults::LOGIN_DEADLINE),
        _ => return None,
    })
}

fn sessions_and_users(shape: &str, key: &str) -> Option<Fallback> {
    Some(match (shape, key) {
        ("Sessions", "store") => value(defaults::SESSION_STORE),
        ("Sessions", "on_outage") => value(match defaults::ON_OUTAGE {
            OutagePolicy::Recent { within } => json!({"policy": "recent", "within": of_time(within)}),
            OutagePolicy::Deny => json!("deny"),
            OutagePolicy::TokenOnly => json!("token_only"),
        }),
        ("OutagePolicy", "policy") => Required,
        ("OutagePolicy", "within") => When("policy", Some("recent"), json!(of_time(defaults::ON_OUTAGE_WITHIN))),
        ("Sessions", "last_access_interval") => time(defaults::LAST_ACCESS_INTERVAL),
        ("Sessions", "session_recheck_interval") => time(defaults::SESSION_RECHECK_INTERVAL),
        ("Memory", "capacity") => value(defaults::MEMORY_CAPACITY),
        ("Memcached", "servers") => Text("required with `store: memcached`"),
        ("Memcached", "former") => value([""; 0]),
        ("Memcached", "copies") => value(defaults::COPIES),
        ("Memcached", "timeout") => time(defaults::MEMCACHED_TIMEOUT),
        ("Memcached", "sign_on_timeout") => time(defaults::MEMCACHED_SIGN_ON_TIMEOUT),
        ("Users", "store") => value(defaults::USER_STORE),
        ("Users", "refresh") => time(defaults::USERS_REFRESH),
        ("PasswordRules", "least") => value(defaults::MIN_PASSWORD_LENGTH),
        ("Sqlite", "path") => value(defaults::USERS_PATH),
        _ => return None,
    })
}

fn services(shape: &str, key: &str) -> Option<Fallback> {
    Some(match (shape, key) {
        ("Service", "hosts") => Required,
        ("Service", "pool") => Text("required where requests go to it"),
        ("Service", "access_log") => value(defaults::SERVICE_ACCESS_LOG),
        ("Service", "location_repair") => value(defaults::LOCATION_REPAIR),
        ("Service", "idle_timeout") => time(defaults::IDLE_TIMEOUT),
        ("Service", "forward_token") => value(defaults::FORWARD_TOKEN),
        ("Service", "identity_assertion") => value(defaults::IDENTITY_ASSERTION),
        ("Service", "access") => value(defaults::ACCESS),
        ("Service", "credentials") => value(defaults::CREDENTIALS),
        ("Service", "extends_session") => value(defaults::EXTENDS_SESSION),
        ("Service", "read_timeout") => Text("`timeouts.read` of its pool"),
        ("Service", "compression" | "websocket_origins" | "routes") => value([""; 0]),
        ("Service", "error_pages" | "maintenance") | ("Maintenance", "file") => NONE,
        ("MaintenanceExcept", "addresses" | "roles") => value([""; 0]),
        ("Service", "on_outage") => Follows("sessions.on_outage"),
        ("Service", "preflight") => value(defaults::PREFLIGHT),
        ("IdentityHeaders", "user") => value(defaults::USER_HEADER),
        ("IdentityHeaders", "email") => value(defaults::EMAIL_HEADER),
        ("IdentityHeaders", "roles") => value(defaults::ROLES_HEADER),
        ("Roles", "roles") => Required,
        ("Route", "access") => Follows("services.NAME.access"),
        ("Route", "credentials") => Follows("services.NAME.credentials"),
        ("Route", "extends_session") => Follows("services.NAME.extends_session"),
        ("Route", "read_timeout") => Follows("services.NAME.read_timeout"),
        ("Route", "compression") => Follows("services.NAME.compression"),
        ("Route", "preflight") => Follows("services.NAME.preflight"),
        _ => return routes(shape, key),
    })
}

fn routes(shape: &str, key: &str) -> Option<Fallback> {
    Some(match (shape, key) {
        ("UnknownHosts", "status") => Text("`421`, without `redirect`"),
        ("Route", "path" | "exact") => Text("one of `path` and `exact` is required"),
        ("Route", "pool") => Text("that of `services.NAME.pool`, without `redirect` and `respond`"),
        ("Route", "strip_prefix") => value(defaults::STRIP_PREFIX),
        ("Route", "location_repair") => Follows("services.NAME.location_repair"),
        ("UnknownHosts" | "Route", "redirect") | ("Route", "add_prefix" | "respond" | "files") => NONE,
        ("Files", "root") => Required,
        ("Files", "index") => value(defaults::FILES_INDEX),
        ("Files", "fallback") => NONE,
        ("Files", "cache_control") => Text("`no-cache`, and `private, no-cache` where a sign-on is needed"),
        ("Redirect", "to") => Required,
        ("Redirect", "status") => value(defaults::REDIRECT_STATUS),
        ("Redirect", "keep_path") => value(defaults::REDIRECT_KEEP_PATH),
        ("Redirect", "keep_query") => value(defaults::REDIRECT_KEEP_QUERY),
        ("FixedReply", "status") => value(defaults::RESPOND_STATUS),
        ("FixedReply", "body") => NONE,
        ("FixedReply", "content_type") => Text("`text/plain; charset=utf-8`, with `body`"),
        _ => return rules(shape, key),
    })
}

fn rules(shape: &str, key: &str) -> Option<Fallback> {
    Some(match (shape, key) {
        ("Service", "hsts") => value("off"),
        ("Service", "methods") => Text("GET, HEAD, POST, PUT, DELETE, PATCH and OPTIONS"),
        ("Service", "body_bytes") => Text("`server.limits.body_bytes`"),
        // Not an empty list: at a route that would take the place of the service's.
        ("Addresses", "allow" | "deny") => NONE,
        ("RequestHeaders" | "ResponseHeaders", "set") => Fallback::Value(json!({})),
        ("RequestHeaders" | "ResponseHeaders", "remove") => value([""; 0]),
        ("Route", "methods") => Follows("services.NAME.methods"),
        ("Route", "addresses") => Follows("services.NAME.addresses"),
        ("Route", "body_bytes") => Follows("services.NAME.body_bytes"),
        _ => return None,
    })
}

fn pools(shape: &str, key: &str) -> Option<Fallback> {
    Some(match (shape, key) {
        ("Pool", "servers") => Required,
        ("Pool", "balance") => value(defaults::BALANCE),
        ("StickyPolicy", "sticky") | ("StickyCookie", "cookie") => Required,
        ("Pool", "health") | ("Health", "http") => NONE,
        ("Pool", "slow_start") => time(defaults::SLOW_START),
        ("Health", "tcp") => When("http", None, json!(false)),
        ("Health", "interval") => When("http", None, json!(of_time(defaults::HEALTH_INTERVAL))),
        ("Health", "timeout") => When("http", None, json!(of_time(defaults::HEALTH_TIMEOUT))),
        ("Health", "fall") => When("http", None, json!(defaults::HEALTH_FALL)),
        ("Health", "rise") => When("http", None, json!(defaults::HEALTH_RISE)),
        ("HttpCheck", "path") => When("http", None, json!(defaults::HEALTH_PATH)),
        ("HttpCheck", "status") => When("http", None, json!(of_statuses(&defaults::HEALTH_STATUS))),
        ("HttpCheck", "host") => Text("`tls.server_name`, else the address as it is written"),
        ("Pool", "protocol") => value(defaults::POOL_PROTOCOL),
        ("Pool", "tls") => NONE,
        ("Pool", "in_flight") | ("PoolServerKeys", "connections") => NONE,
        ("Pool", "eject") => value(json!({
            "failures": defaults::EJECT_FAILURES,
            "for": of_time(defaults::EJECT_FOR),
            "at_most": of_time(defaults::EJECT_AT_MOST),
            "max_ejection_percent": defaults::MAX_EJECTION_PERCENT,
            "statuses": defaults::EJECT_STATUSES,
        })),
        ("Eject", "failures") => value(defaults::EJECT_FAILURES),
        ("Eject", "for") => time(defaults::EJECT_FOR),
        ("Eject", "at_most") => time(defaults::EJECT_AT_MOST),
        ("Eject", "max_ejection_percent") => value(defaults::MAX_EJECTION_PERCENT),
        ("Eject", "statuses") => value(defaults::EJECT_STATUSES),
        ("Pool", "retries") => Text("that of `retry.attempts`"),
        // No value, as it would contradict `retries` where that is written.
        ("Retry", "attempts") => Text("2"),
        ("Retry", "on") => value(defaults::RETRY_ON),
        ("Retry", "budget_percent") => value(defaults::RETRY_BUDGET_PERCENT),
        ("PoolServerKeys", "address") => Required,
        ("PoolServerKeys", "weight") => value(defaults::WEIGHT),
        ("PoolServerKeys", "backup") => value(defaults::BACKUP),
        ("Resolve", "every") => time(defaults::RESOLVE_EVERY),
        ("WeightedServer", "address") => Required,
        ("WeightedServer", "weight") => value(defaults::WEIGHT),
        ("PoolTls", "server_name") => Text("the host of each server's address"),
        ("PoolTls", "ca") => Text("the system's CAs"),
        ("PoolTls", "client_certificate" | "client_key") => NONE,
        ("PoolTimeouts", "connect") => time(defaults::CONNECT_TIMEOUT),
        ("PoolTimeouts", "read") => time(defaults::POOL_READ_TIMEOUT),
        ("PoolTimeouts", "write") => time(defaults::POOL_WRITE_TIMEOUT),
        ("PoolTimeouts", "idle") => time(defaults::POOL_IDLE_TIMEOUT),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_largest_unit_that_reads_well() {
        for (milliseconds, text) in [
            (50, "50ms"),
            (1000, "1s"),
            (1500, "1500ms"),
            (60_000, "60s"),
            (75_000, "75s"),
            (1_800_000, "30m"),
            (43_200_000, "12h"),
            (31_536_000_000, "365d"),
        ] {
            assert_eq!(of_time(Duration::from_millis(milliseconds)), text);
        }
    }
}
