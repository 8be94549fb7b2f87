//! The media type of a file, by its name's extension.

use std::path::Path;

use http::HeaderValue;

/// For a name without an extension, or with one that is not known: browsers save it and show nothing of it.
const UNKNOWN: &str = "application/octet-stream";

/// Returns the `Content-Type` of a file of this name. Text is in UTF-8, as web sites are today; a file of another encoding has
/// to be converted, as a `<meta>` in it would not count against the field.
pub fn content_type(name: &Path) -> HeaderValue {
    let extension = name.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let kind = match extension.to_ascii_lowercase().as_str() {
        // RFC 9239 §6: the one type of scripts.
        "js" | "mjs" | "cjs" => "text/javascript",
        "map" => "application/json",
        "dcm" => "application/dicom",
        extension => mime_guess::from_ext(extension).first_raw().unwrap_or(UNKNOWN),
    };
    // An XML document says itself which encoding it has.
    if kind.starts_with("text/") && kind != "text/xml" {
        return HeaderValue::try_from(format!("{kind}; charset=utf-8")).unwrap_or(HeaderValue::from_static(UNKNOWN));
    }
    HeaderValue::from_static(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_says_what_a_file_is() {
        for (name, expected) in [
            ("index.html", "text/html; charset=utf-8"),
            ("a/b.HTM", "text/html; charset=utf-8"),
            ("app.js", "text/javascript; charset=utf-8"),
            ("app.min.mjs", "text/javascript; charset=utf-8"),
            ("app.css", "text/css; charset=utf-8"),
            ("notes.txt", "text/plain; charset=utf-8"),
            ("table.csv", "text/csv; charset=utf-8"),
            ("app.js.map", "application/json"),
            ("data.json", "application/json"),
            ("app.webmanifest", "application/manifest+json"),
            ("app.wasm", "application/wasm"),
            ("logo.svg", "image/svg+xml"),
            ("photo.JPG", "image/jpeg"),
            ("photo.webp", "image/webp"),
            ("photo.avif", "image/avif"),
            ("favicon.ico", "image/x-icon"),
            ("font.woff2", "font/woff2"),
            ("paper.pdf", "application/pdf"),
            ("feed.xml", "text/xml"),
            ("film.mp4", "video/mp4"),
            ("scan.dcm", "application/dicom"),
            ("app.js.gz", "application/gzip"),
            ("README", UNKNOWN),
            ("x.unknown-extension", UNKNOWN),
            ("x.", UNKNOWN),
        ] {
            assert_eq!(content_type(Path::new(name)), expected, "{name}");
        }
    }
}
