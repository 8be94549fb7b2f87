//! CORS preflights: what a browser sends to an application before a page of another origin may send it a request (Fetch,
//! "CORS-preflight fetch"). They never carry credentials, so a sign-on could only refuse them; a route with
//! `preflight: forward` leaves the answer to the application.

use http::{HeaderMap, HeaderName, Method, header};
use pingora_proxy::Session;

/// Frameworks take the method from these, and a browser sends none of them in a preflight.
const OVERRIDES: [HeaderName; 3] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];

/// Whether a request is a preflight, as browsers send it: `OPTIONS` with one `Origin` and one requested
/// method, and without a body, by which data would reach an application without authentication.
pub fn is_preflight(session: &mut Session) -> bool {
    let head = session.req_header();
    head.method == Method::OPTIONS && has_the_fields(&head.headers) && session.as_downstream_mut().is_body_empty()
}

fn has_the_fields(headers: &HeaderMap) -> bool {
    let alone = |name: HeaderName| {
        let mut fields = headers.get_all(name).iter();
        fields.next().filter(|_| fields.next().is_none())
    };
    let asks = alone(header::ACCESS_CONTROL_REQUEST_METHOD);
    alone(header::ORIGIN).is_some_and(|origin| !origin.is_empty())
        && asks.is_some_and(|method| Method::from_bytes(method.as_bytes()).is_ok())
        && !OVERRIDES.iter().any(|name| headers.contains_key(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preflight_has_one_origin_and_one_method_and_overrides_nothing() {
        let (origin, method) = (("origin", "https://portal.test"), ("access-control-request-method", "PUT"));
        let more = ("access-control-request-headers", "authorization, x-http-method-override");
        for (fields, expected) in [
            (&[origin, method][..], true),
            (&[origin, method, more], true),
            (&[("origin", "null"), method], true),
            (&[origin, ("access-control-request-method", "QUERY")], true),
            (&[], false),
            (&[origin], false),
            (&[method], false),
            (&[origin, origin, method], false),
            (&[origin, method, method], false),
            (&[("origin", ""), method], false),
            (&[origin, ("access-control-request-method", "")], false),
            (&[origin, ("access-control-request-method", "PUT, GET")], false),
            (&[origin, method, ("x-http-method-override", "DELETE")], false),
            (&[origin, method, ("x-http-method", "DELETE")], false),
            (&[origin, method, ("x-method-override", "DELETE")], false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, value.parse().unwrap());
            }
            assert_eq!(has_the_fields(&headers), expected, "{fields:?}");
        }
    }
}
