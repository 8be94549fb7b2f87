//! Suggestions for an unknown key. Called by `reading`, for keys that hold no secret.

use std::collections::BTreeSet;
use std::sync::LazyLock;

/// Keys of other proxies, and what they are called here.
const ELSEWHERE: [(&str, &str); 36] = [
    ("client_max_body_size", "body_bytes"),
    ("proxy_set_header", "request_headers"),
    ("add_header", "response_headers"),
    ("proxy_hide_header", "response_headers"),
    ("limit_except", "methods"),
    ("proxy_pass", "services.NAME.pool"),
    ("proxy_read_timeout", "pools.NAME.timeouts.read"),
    ("proxy_send_timeout", "pools.NAME.timeouts.write"),
    ("proxy_connect_timeout", "pools.NAME.timeouts.connect"),
    ("keepalive_timeout", "server.timeouts.keepalive"),
    ("worker_processes", "server.threads"),
    ("worker_connections", "server.limits.connections"),
    ("upstream", "pools"),
    ("upstreams", "pools"),
    ("listen", "server.listeners"),
    ("server_name", "services.NAME.hosts"),
    ("server_names", "services.NAME.hosts"),
    ("error_page", "services.NAME.error_pages"),
    ("proxy_next_upstream", "pools.NAME.retry"),
    ("max_fails", "pools.NAME.eject"),
    ("least_conn", "pools.NAME.balance"),
    ("location", "services.NAME.routes"),
    ("locations", "services.NAME.routes"),
    ("rewrite", "services.NAME.routes[].redirect"),
    ("return", "services.NAME.routes[].redirect"),
    ("proxy_redirect", "services.NAME.location_repair"),
    ("default_server", "unknown_hosts"),
    ("ssl_certificate", "tls.certificates"),
    ("ssl_protocols", "tls.min_version"),
    ("set_real_ip_from", "server.trusted_proxies"),
    ("limit_req", "services.NAME.requests_per_second"),
    ("health_check", "pools.NAME.health"),
    ("grpc", "pools.NAME.health.tcp"),
    ("ip_hash", "pools.NAME.balance.sticky"),
    ("canary", "pools.NAME.servers[].weight"),
    ("split", "pools.NAME.servers[].weight"),
];

/// Keys that were renamed before the first release, and what they are called now.
const FORMER: &[(&str, &str)] = &[
    ("assertion", "identity_assertion"),
    ("counts_as_activity", "extends_session"),
    ("stream_interval", "session_recheck_interval"),
    ("record_interval", "last_access_interval"),
    ("body_rate", "min_body_rate"),
];

/// The names of all keys: the sample has each of them, in a line or in a comment.
static NAMES: LazyLock<BTreeSet<&str>> = LazyLock::new(|| {
    let sample = include_str!("../../config/edge.yaml");
    let is_name = |b: char| b.is_ascii_lowercase() || b == '_';
    let words = sample.split(':').filter_map(|before| before.rsplit(|b| !is_name(b)).next());
    words.filter(|word| word.len() > 2).collect()
});

/// Returns a suggestion for an unknown key, where there is a likely one.
pub fn instead_of(path: &str) -> Option<String> {
    let key = path.rsplit(['.', ']']).next().unwrap_or(path);
    if let Some((_, ours)) = ELSEWHERE.iter().find(|(theirs, _)| *theirs == key) {
        return Some(format!("that is `{ours}` here"));
    }
    if let Some((_, now)) = FORMER.iter().find(|(former, _)| *former == key) {
        return Some(format!("did you mean `{now}`?"));
    }
    slip(key).map(|name| format!("did you mean `{name}`?"))
}

/// Returns the same for an unknown key among secrets, where every part of it is a name of ours or one with a slip, and so
/// nothing that is to be kept.
pub fn instead_of_sealed(path: &str) -> Option<String> {
    let (above, key) = path.rsplit_once('.').unwrap_or(("", path));
    let are_ours = above.split('.').all(|part| part.is_empty() || NAMES.contains(part));
    slip(key).filter(|_| are_ours).map(|name| format!("did you mean `{name}`?"))
}

/// Returns the name that was meant, where there is a likely one.
fn slip(key: &str) -> Option<&'static str> {
    // A longer name may have more than one slip.
    let most = (key.len() / 4).max(1);
    let distance = |name: &str| strsim::damerau_levenshtein(key, name);
    let nearest = NAMES.iter().copied().filter(|name| *name != key);
    let nearest = nearest.min_by_key(|name| (distance(name), name.len().abs_diff(key.len())))?;
    (distance(nearest) <= most).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_gets_a_suggestion_and_another_word_none() {
        for (path, expected) in [
            ("servcies", Some("did you mean `services`?")),
            ("server.drian", Some("did you mean `drain`?")),
            ("services.iqueue.routes[0].acces", Some("did you mean `access`?")),
            ("services.iqueue.idle-timeout", Some("did you mean `idle_timeout`?")),
            ("pools.a.server", Some("did you mean `servers`?")),
            ("tls.certificate", Some("did you mean `certificates`?")),
            ("server.client_max_body_size", Some("that is `body_bytes` here")),
            ("upstreams", Some("that is `pools` here")),
            ("tls.certificates[0].x", None),
            ("services.iqueue.entirely_different", None),
            ("", None),
        ] {
            assert_eq!(instead_of(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn among_secrets_a_slip_is_named_and_nothing_else_is() {
        for (path, expected) in [
            ("tokenz", Some("did you mean `tokens`?")),
            ("token.valeu", Some("did you mean `value`?")),
            ("adress", Some("did you mean `address`?")),
            ("correct horse", None),
            ("hunter2.adress", None),
            ("client_max_body_size", None),
            ("", None),
        ] {
            assert_eq!(instead_of_sealed(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn a_former_name_leads_to_the_present_one() {
        for (former, now) in FORMER {
            assert!(!NAMES.contains(former) && NAMES.contains(now), "{former} -> {now}");
            assert_eq!(instead_of(&format!("a.b[0].{former}")), Some(format!("did you mean `{now}`?")));
        }
    }

    #[test]
    fn what_others_call_a_thing_is_none_of_our_names_and_leads_to_one() {
        for (theirs, ours) in ELSEWHERE {
            // In the TLS of a pool, and only there, this name is one of ours; anywhere else it is nginx's that is meant.
            assert!(!NAMES.contains(theirs) || theirs == "server_name", "{theirs}");
            assert!(NAMES.contains(ours.rsplit('.').next().unwrap()), "{ours}");
        }
    }
}
