//! Paths below the root of static files: the part of a request's path that names a file, if it can name one at all.

use std::fmt;

/// A path below a root: one or more names, none of which leads elsewhere, is hidden, or has a slash in it.
#[derive(Clone, PartialEq, Eq)]
pub struct FilePath {
    /// Without a slash at either end. Empty for the root itself.
    bytes: Vec<u8>,
    names_folder: bool,
}

impl fmt::Debug for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FilePath({:?})", self.bytes.escape_ascii().to_string())
    }
}

impl FilePath {
    /// The root itself, as a folder.
    pub const fn root() -> Self {
        Self { bytes: Vec::new(), names_folder: true }
    }

    /// Takes what follows a route's path in the raw path of a request, and decodes it once, segment by segment, so that an
    /// encoded slash is no separator. Returns `None` where no file can be meant: for a path in which the route's own is
    /// spelled in another way, for `.`, `..` and every other name that begins with a dot, for an empty name, and for a
    /// slash, a backslash or a NUL in a name.
    pub fn of_request(raw: &str, route: &str) -> Option<Self> {
        let mut segments = raw.strip_prefix('/')?.split('/');
        for name in route.split('/').filter(|name| !name.is_empty()) {
            if decoded(segments.next()?)? != name.as_bytes() {
                return None;
            }
        }
        let mut path = Self { bytes: Vec::new(), names_folder: false };
        let mut segments = segments.peekable();
        while let Some(segment) = segments.next() {
            if segment.is_empty() && segments.peek().is_none() {
                path.names_folder = true;
                break;
            }
            path.push(&decoded(segment)?)?;
        }
        Some(path)
    }

    /// Takes a path below the root as a configuration has it: `/index.html`, `/app/index.html`. Returns `None` where a
    /// request could not name that file.
    pub fn of_setting(text: &str) -> Option<Self> {
        let mut path = Self { bytes: Vec::new(), names_folder: false };
        text.strip_prefix('/')?.split('/').try_for_each(|name| path.push(name.as_bytes()))?;
        Some(path)
    }

    fn push(&mut self, name: &[u8]) -> Option<()> {
        // Such as `..`, `.git` and `.htpasswd`.
        let is_hidden = name.starts_with(b".");
        if name.is_empty() || is_hidden || name.iter().any(|byte| matches!(byte, b'/' | b'\\' | 0)) {
            return None;
        }
        if !self.bytes.is_empty() {
            self.bytes.push(b'/');
        }
        self.bytes.extend_from_slice(name);
        Some(())
    }

    /// Whether the path ends with a slash.
    pub const fn names_folder(&self) -> bool {
        self.names_folder
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns a file of this folder.
    pub fn join(&self, name: &str) -> Vec<u8> {
        let slash: &[u8] = if self.bytes.is_empty() { b"" } else { b"/" };
        [&self.bytes, slash, name.as_bytes()].concat()
    }
}

/// Returns the bytes of a segment without its escapes; `None` for an escape that is none.
fn decoded(segment: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        bytes.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_route_names_the_file() {
        for (route, raw, expected) in [
            ("/", "/", Some(("", true))),
            ("/", "/a.js", Some(("a.js", false))),
            ("/", "/a/b.js", Some(("a/b.js", false))),
            ("/", "/a/", Some(("a", true))),
            ("/app", "/app", Some(("", false))),
            ("/app", "/app/", Some(("", true))),
            ("/app", "/app/x/y", Some(("x/y", false))),
            ("/app", "/%61pp/x", Some(("x", false))),
            ("/app", "/app/a%20b%25.pdf", Some(("a b%.pdf", false))),
            ("/app", "/app/caf%C3%A9", Some(("café", false))),
            ("/café", "/caf%c3%a9/x", Some(("x", false))),
            ("/app", "/app/x;v=1", Some(("x;v=1", false))),
            ("/app", "/app/...x", None),
            ("/app", "/other/x", None),
            ("/app", "/APP/x", None),
            ("/app", "/", None),
            ("/app", "//app/x", None),
            ("/app", "/app//x", None),
            ("/app", "/app/x//", None),
            ("/app", "/app%2fx", None),
        ] {
            let found = FilePath::of_request(raw, route);
            let found = found.as_ref().map(|path| (std::str::from_utf8(path.as_bytes()).unwrap(), path.names_folder()));
            assert_eq!(found, expected, "{route} {raw}");
        }
    }

    #[test]
    fn no_name_leads_elsewhere_or_is_hidden() {
        for name in [
            ".",
            "..",
            "%2e",
            "%2e%2e",
            ".%2E",
            "..%2f..",
            "%2e%2e%2f",
            "a%2fb",
            "a%5cb",
            "a\\b",
            "..\\..",
            "%00",
            "a%00.html",
            ".git",
            "%2egit",
            ".env",
            ".well-known",
            "%",
            "%4",
            "%zz",
        ] {
            for raw in [format!("/{name}"), format!("/{name}/x"), format!("/x/{name}"), format!("/x/{name}/")] {
                assert_eq!(FilePath::of_request(&raw, "/"), None, "{raw}");
                assert_eq!(FilePath::of_request(&format!("/app{raw}"), "/app"), None, "{raw}");
            }
        }
        // Encoded twice it is decoded once, and an ordinary name.
        assert_eq!(FilePath::of_request("/%252e%252e", "/").unwrap().as_bytes(), b"%2e%2e");
    }

    #[test]
    fn a_setting_names_a_file_that_a_request_could_name() {
        assert_eq!(FilePath::of_setting("/a/index.html").unwrap().as_bytes(), b"a/index.html");
        for text in ["", "index.html", "/", "/a/", "/../x", "/.x", "/a//b", "/a\\b"] {
            assert_eq!(FilePath::of_setting(text), None, "{text}");
        }
    }

    #[test]
    fn a_folders_index_is_a_file_of_it() {
        assert_eq!(FilePath::of_request("/", "/").unwrap().join("index.html"), b"index.html");
        assert_eq!(FilePath::of_request("/a/b/", "/").unwrap().join("index.html"), b"a/b/index.html");
    }
}
