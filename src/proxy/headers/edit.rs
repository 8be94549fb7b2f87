//! Edits of the header fields of an application's request, on both paths: made in Pingora's copy of the client's head, or
//! collected as a patch of the head, which is not copied.

use http::{HeaderMap, HeaderName, HeaderValue, header, request};

/// What of a request's fields may be changed. Names say which; a field may stand several times.
pub trait HeaderEdit {
    /// As the client sent them, less those that belong to the connection. Changes may show, or not.
    fn received(&self) -> &HeaderMap;

    /// In the place of all that are called so.
    fn set(&mut self, name: &HeaderName, value: HeaderValue);

    fn remove(&mut self, name: &HeaderName);
}

impl HeaderEdit for HeaderMap {
    fn received(&self) -> &HeaderMap {
        self
    }

    fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        self.insert(name.clone(), value);
    }

    fn remove(&mut self, name: &HeaderName) {
        self.remove(name);
    }
}

/// A head that is written from the client's, which is not copied.
pub struct HeaderPatch<'a> {
    request: &'a request::Parts,
    /// Path and query, where they are not those of the request.
    target: Option<&'a str>,
    /// One for each name, and no value for what is left out.
    changes: Vec<(HeaderName, Option<HeaderValue>)>,
    changed: NameFilter,
}

/// A Bloom filter of names with 64 bits and one hash function, which reads the length of a name and two of its bytes. A
/// name that was not added may match, and costs a search of the list; a name that was added always matches.
#[derive(Default)]
struct NameFilter(u64);

impl NameFilter {
    /// The factors are such that the names that we set and those that browsers send fall on different bits, but for
    /// `X-Forwarded-Host` and `X-Forwarded-Port`.
    fn bit(name: &HeaderName) -> u64 {
        let name = name.as_str().as_bytes();
        let byte = |at: usize| name.get(at).copied().map_or(0, usize::from);
        let (middle, last) = (byte(name.len() / 2), byte(name.len().wrapping_sub(1)));
        1 << (last.wrapping_mul(7).wrapping_add(middle.wrapping_mul(11)).wrapping_add(name.len()) % 64)
    }

    const fn note(&mut self, bit: u64) {
        self.0 |= bit;
    }

    const fn may_have(&self, bit: u64) -> bool {
        self.0 & bit != 0
    }
}

impl<'a> HeaderPatch<'a> {
    /// `most`: changes that there may be without a second thought.
    pub fn of(request: &'a request::Parts, most: usize) -> Self {
        Self { request, target: None, changes: Vec::with_capacity(most), changed: NameFilter::default() }
    }

    /// Replaces the target of the request, if there is another.
    pub fn with_target(self, target: Option<&'a str>) -> Self {
        Self { target, ..self }
    }

    fn change(&mut self, name: &HeaderName, value: Option<HeaderValue>) {
        let bit = NameFilter::bit(name);
        if self.changed.may_have(bit)
            && let Some((_, before)) = self.changes.iter_mut().find(|(changed, _)| changed == name)
        {
            *before = value;
            return;
        }
        self.changed.note(bit);
        self.changes.push((name.clone(), value));
    }

    /// As it goes to an application that speaks HTTP/1.1. The target is in origin form.
    pub fn wire(self) -> Vec<u8> {
        /// Most heads are shorter.
        const HEAD: usize = 2048;
        let mut wire = Vec::with_capacity(HEAD);
        wire.extend_from_slice(self.request.method.as_str().as_bytes());
        wire.push(b' ');
        let sent = || self.request.uri.path_and_query().map_or("/", |target| target.as_str());
        wire.extend_from_slice(self.target.unwrap_or_else(sent).as_bytes());
        wire.extend_from_slice(b" HTTP/1.1\r\n");
        let is_changed = |name: &HeaderName| {
            self.changed.may_have(NameFilter::bit(name)) && self.changes.iter().any(|(changed, _)| changed == name)
        };
        for (name, value) in self.request.headers.iter().filter(|(name, _)| !is_changed(name)) {
            line(&mut wire, name, value);
        }
        for (name, value) in &self.changes {
            if let Some(value) = value {
                line(&mut wire, name, value);
            }
        }
        wire.extend_from_slice(b"\r\n");
        wire
    }
}

/// Neither has a line's end in it: their types hold that.
fn line(wire: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    wire.extend_from_slice(spelled(name).as_bytes());
    wire.extend_from_slice(b": ");
    wire.extend_from_slice(value.as_bytes());
    wire.extend_from_slice(b"\r\n");
}

/// In lower case, but for the names that Pingora writes as HTTP spells them: both paths send the same bytes.
fn spelled(name: &HeaderName) -> &str {
    match *name {
        header::CACHE_CONTROL => "Cache-Control",
        header::CONTENT_ENCODING => "Content-Encoding",
        header::CONTENT_TYPE => "Content-Type",
        header::DATE => "Date",
        header::HOST => "Host",
        _ => name.as_str(),
    }
}

impl HeaderEdit for HeaderPatch<'_> {
    fn received(&self) -> &HeaderMap {
        &self.request.headers
    }

    fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        self.change(name, Some(value));
    }

    fn remove(&mut self, name: &HeaderName) {
        self.change(name, None);
    }
}

#[cfg(test)]
mod tests {
    use pingora_http::RequestHeader;

    use super::*;

    fn request() -> request::Parts {
        let request = http::Request::get("/a?b").header("Host", "a.test").header("X-Two", "1").header("X-Two", "2");
        request.header("Cookie", "c").body(()).unwrap().into_parts().0
    }

    fn changed(fields: &mut impl HeaderEdit) {
        fields.set(&HeaderName::from_static("x-new"), HeaderValue::from_static("first"));
        fields.set(&HeaderName::from_static("x-new"), HeaderValue::from_static("last"));
        fields.set(&HeaderName::from_static("x-two"), HeaderValue::from_static("3"));
        fields.remove(&header::COOKIE);
        fields.remove(&header::AUTHORIZATION);
    }

    #[test]
    fn what_is_written_is_what_a_changed_map_has() {
        let request = request();
        let mut written = HeaderPatch::of(&request, 1);
        changed(&mut written);
        let wire = String::from_utf8(written.wire()).unwrap();
        assert_eq!(wire, "GET /a?b HTTP/1.1\r\nHost: a.test\r\nx-new: last\r\nx-two: 3\r\n\r\n");
        let mut map = request.headers.clone();
        changed(&mut map);
        let mut lines: Vec<_> =
            map.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        assert_eq!(lines, ["host: a.test", "x-new: last", "x-two: 3"]);
    }

    #[test]
    fn names_are_spelled_as_pingora_spells_them() {
        let mut head = RequestHeader::build("GET", b"/", None).unwrap();
        for name in ["accept", "cache-control", "content-encoding", "content-type", "cookie", "date", "host", "x-name"]
        {
            head.append_header(name, "x").unwrap();
        }
        let head = RequestHeader::from(request::Parts::from(head));
        let mut wire = b"GET / HTTP/1.1\r\n".to_vec();
        head.header_to_h1_wire(&mut wire);
        wire.extend_from_slice(b"\r\n");
        assert_eq!(HeaderPatch::of(&head.into(), 0).wire(), wire);
    }

    #[test]
    fn another_target_takes_the_place_of_the_requests() {
        let request = request();
        let wire = String::from_utf8(HeaderPatch::of(&request, 0).with_target(Some("/v2/a?b")).wire()).unwrap();
        assert!(wire.starts_with("GET /v2/a?b HTTP/1.1\r\n"), "{wire}");
    }

    #[test]
    fn what_is_not_changed_is_written_as_it_came() {
        let request = request();
        let wire = String::from_utf8(HeaderPatch::of(&request, 0).wire()).unwrap();
        assert_eq!(wire, "GET /a?b HTTP/1.1\r\nHost: a.test\r\nx-two: 1\r\nx-two: 2\r\ncookie: c\r\n\r\n");
    }
}
