//! Tables and sections of documents in Markdown.

/// The cells of a document's table rows, between its bars.
pub fn rows(document: &str) -> Vec<Vec<String>> {
    let row = |line: &str| -> Option<Vec<String>> {
        let inside = line.trim().strip_prefix('|')?.strip_suffix('|')?;
        Some(inside.split(" | ").map(|cell| cell.trim().to_owned()).collect())
    };
    document.lines().filter_map(row).collect()
}

/// What stands in backticks.
pub fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The part of a document under a heading.
pub fn section<'a>(document: &'a str, heading: &str) -> &'a str {
    let (_, rest) = document.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no `{heading}`"));
    rest.split("\n## ").next().unwrap()
}
