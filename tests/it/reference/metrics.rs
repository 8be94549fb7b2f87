//! The table of metrics on `docs/reference/metrics.md`, of their registration.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sentry_edge::metrics::{Description, Metrics};

use super::hold_part;
use crate::harness::{edge, eventually, origin};

#[test]
pub fn the_table_of_metrics_is_what_is_registered() {
    let metrics = Metrics::new("0").unwrap();
    let mut text = "| name | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for metric in metrics.descriptions() {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{} ", labels.join(", ")) };
        assert!(metric.help.ends_with('.'), "`{}`: its help is a sentence", metric.name);
        writeln!(text, "| `{}` | {} | {labels}| {} |", metric.name, metric.kind, metric.help).unwrap();
    }
    hold_part("docs/reference/metrics.md", "table", &text);
}

/// The values of labels that the help of a metric names: those behind the name of the label, up to that of the next one. A
/// label without any has values of the configuration, such as the names of services.
fn documented(metric: &Description) -> BTreeMap<&str, Vec<&str>> {
    let mut values = BTreeMap::<&str, Vec<&str>>::new();
    let mut label = None;
    for quoted in metric.help.split('`').skip(1).step_by(2) {
        let is_value = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
        match (label, metric.labels.iter().find(|label| *label == quoted)) {
            (_, Some(next)) => label = Some(next.as_str()),
            (Some(label), None) if quoted.bytes().all(is_value) => values.entry(label).or_default().push(quoted),
            _ => {}
        }
    }
    values
}

/// The labels of each series of a metric in a scrape.
fn series<'a>(scrape: &'a str, metric: &Description) -> Vec<BTreeMap<&'a str, &'a str>> {
    let name = format!("sentry_edge_{}{}", metric.name, if metric.kind == "histogram" { "_count" } else { "" });
    let labels = |line: &'a str| {
        let rest = line.strip_prefix(&name)?;
        let labels = match rest.strip_prefix('{') {
            Some(rest) => rest.split_once('}')?.0,
            None => rest.strip_prefix(' ').map(|_| "")?,
        };
        Some(labels.split("\",").filter_map(|label| label.trim_end_matches('"').split_once("=\"")).collect())
    };
    scrape.lines().filter_map(labels).collect()
}

/// There may be thousands of services: what is refused to their clients every day has no series before it happens.
const BEGINS_LATER: [(&str, &[&str]); 2] = [
    (
        "auth_decisions_total",
        &[
            "login_required",
            "forbidden",
            "no_token",
            "several_cookies",
            "malformed",
            "unknown_key",
            "bad_signature",
            "wrong_issuer",
            "wrong_audience",
            "expired",
            "not_yet_valid",
            "no_session",
            "fingerprint",
            "revoked",
            "not_registered",
            "missing_role",
            "denied",
            "address",
            "preflight",
        ],
    ),
    ("auth_duration_seconds", &["login_required", "forbidden", "unavailable"]),
];

#[test]
fn every_series_that_is_documented_is_there_from_the_start_and_no_other() {
    let spare = origin("spare");
    let pool = format!("{{servers: [\"{}\"], health: {{tcp: true}}}}", spare.address);
    let edge = edge().service("iqueue", &spare).pool("iqueue", &pool).start();
    let scrape = || String::from_utf8(edge.inner.metrics().scrape().unwrap()).unwrap();
    eventually("checks have begun", || scrape().contains("upstream_health_checks_total{"));
    let (scrape, metrics) = (scrape(), Metrics::new("0").unwrap());
    let (mut missing, mut unknown, mut values) = (Vec::new(), Vec::new(), 0);
    for metric in metrics.descriptions() {
        let (documented, series) = (documented(metric), series(&scrape, metric));
        if series.is_empty() && metric.labels.is_empty() {
            missing.push(metric.name.clone());
        }
        for (label, named) in &documented {
            values += named.len();
            let there: Vec<&str> = series.iter().filter_map(|labels| labels.get(label).copied()).collect();
            let list =
                |values: Vec<&str>| values.iter().map(|value| format!("{}{{{label}={value}}}", metric.name)).collect();
            let later =
                |value: &str| BEGINS_LATER.iter().any(|(name, values)| *name == metric.name && values.contains(&value));
            let is_absent = |value: &&&str| !there.contains(value) && !later(value);
            let absent: Vec<String> = list(named.iter().filter(is_absent).copied().collect());
            let other: Vec<String> = list(there.iter().filter(|value| !named.contains(value)).copied().collect());
            missing.extend(absent);
            unknown.extend(other);
        }
    }
    assert!(values > 150, "{values} documented values");
    assert!(missing.is_empty() && unknown.is_empty(), "missing: {missing:#?}\nnot documented: {unknown:#?}");
}
