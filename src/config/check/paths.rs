//! The paths of routes: each can be matched, and none is another one's to servers that ignore case.

use super::Check;
use crate::config::Route;
use crate::path;

impl Check<'_> {
    /// A rule is compared with all readings of a request's path, so it must have one reading itself: see `path`.
    pub(super) fn route_path(&mut self, key: &str, written: Option<&str>) -> Option<String> {
        let text = written.unwrap_or_default();
        let plain = |segment: &str| !segment.is_empty() && segment != "." && segment != "..";
        let trimmed = text.strip_suffix('/').unwrap_or(text);
        let canonical = text == "/" || (trimmed.starts_with('/') && trimmed[1..].split('/').all(plain));
        if !canonical || text.contains(['%', '?', '#', '\\', ';']) || !path::is_rule(text) {
            self.fault(key, format!("`{text}` is no path to match"), "write a decoded path such as /admin/");
            return None;
        }
        Some(if trimmed.is_empty() { "/".into() } else { trimmed.into() })
    }

    /// Of two rules that differ in case alone and decide differently, neither could ever hold for a request.
    pub(super) fn one_path(&mut self, key: &str, route: &Route, others: &[Route]) {
        let is_other = |other: &&Route| other.path != route.path && !other.decides_like(route);
        let folded = path::folded(&route.path);
        if let Some(other) = others.iter().filter(is_other).find(|other| path::folded(&other.path) == folded) {
            self.fault(
                format!("{key}.path"),
                format!(
                    "`{}` is `{}` to servers that ignore case, and the two decide differently",
                    route.path, other.path
                ),
                "remove one, or have both decide the same",
            );
        }
    }
}
