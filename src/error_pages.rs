//! Pages of a service's own for errors: HTML that an administrator has written, in place of the edge's page. Status and
//! fields stay, and programs get JSON as before.

use std::path::Path;

use http::StatusCode;

use crate::config::{self, Faults};

/// A page is held in memory, and is sent whole to many people at once when something is wrong.
const MAX_PAGE_BYTES: u64 = 256 << 10;

/// What stands for the id of the request.
const REFERENCE: &str = "reference";

/// The pages of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorPages(Vec<(StatusCode, Template)>);

/// A page, cut where the reference stands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Template(Vec<String>);

impl ErrorPages {
    /// Reads the pages of a service. A page with a fault is left out.
    pub fn load(service: &config::Service, faults: &mut Faults) -> Self {
        let mut pages = Vec::new();
        for (status, path) in &service.error_pages {
            let key = format!("services.{}.error_pages.{}", service.name, status.as_u16());
            match read(path).and_then(|text| Template::parse(&text)) {
                Ok(template) => pages.push((*status, template)),
                Err((what, write)) => faults.add(key, what, write),
            }
        }
        Self(pages)
    }

    /// Returns the page for a status, for the request with this id; `None` where the service has none.
    pub fn page(&self, status: StatusCode, request_id: &str) -> Option<String> {
        let (_, template) = self.0.iter().find(|(of, _)| *of == status)?;
        Some(template.render(request_id))
    }
}

/// What is wrong, and what to write.
type Fault = (String, &'static str);

fn read(path: &Path) -> Result<String, Fault> {
    let cannot = |error| (format!("cannot read {}: {error}", path.display()), "name a file with HTML");
    let about = std::fs::metadata(path).map_err(cannot)?;
    if !about.is_file() {
        return Err((format!("{} is no file", path.display()), "name a file with HTML"));
    }
    if about.len() > MAX_PAGE_BYTES {
        return Err(("over 256 KiB: it is sent whole to everybody who meets the error".into(), "make it smaller"));
    }
    let bytes = std::fs::read(path).map_err(cannot)?;
    String::from_utf8(bytes).map_err(|_| (format!("{} is not in UTF-8", path.display()), "convert it"))
}

impl Template {
    fn parse(text: &str) -> Result<Self, Fault> {
        let write = "{{reference}} is the only placeholder: it is the id of the request";
        let mut parts = text.split("{{");
        let mut texts = vec![parts.next().unwrap_or_default().to_owned()];
        for part in parts {
            let Some((name, text)) = part.split_once("}}") else {
                return Err(("a `{{` without its `}}`".into(), write));
            };
            if name.trim() != REFERENCE {
                // The beginning, as it may be anything.
                let name: String = name.trim().chars().take(40).collect();
                return Err((format!("there is no placeholder `{{{{{name}}}}}`"), write));
            }
            texts.push(text.to_owned());
        }
        Ok(Self(texts))
    }

    fn render(&self, request_id: &str) -> String {
        self.0.join(&escaped(request_id))
    }
}

/// As text, and as the value of an attribute.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_stands_wherever_the_page_has_it() {
        for (text, expected) in [
            ("<p>Away", "<p>Away"),
            ("", ""),
            ("<p>{{reference}}", "<p>a&lt;b&quot;"),
            ("{{ reference }}<i title=\"{{reference}}\">{x}", "a&lt;b&quot;<i title=\"a&lt;b&quot;\">{x}"),
            ("a { color: red } b {c}}", "a { color: red } b {c}}"),
        ] {
            assert_eq!(Template::parse(text).unwrap().render("a<b\""), expected, "{text}");
        }
    }

    #[test]
    fn a_placeholder_that_is_not_known_is_a_fault() {
        for (text, expected) in [
            ("{{user}}", "no placeholder `{{user}}`"),
            ("{{}}", "no placeholder `{{}}`"),
            ("{{Reference}}", "no placeholder `{{Reference}}`"),
            ("{{reference}", "without its"),
            ("{{{reference}}}", "no placeholder `{{{reference}}`"),
        ] {
            let (what, _) = Template::parse(text).unwrap_err();
            assert!(what.contains(expected), "{text}: {what}");
        }
    }
}
