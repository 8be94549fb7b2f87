//! The table of metrics on `docs/reference/metrics.md`, of their registration.

use std::fmt::Write as _;

use sentry_edge::metrics::Metrics;

use super::hold_part;

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
