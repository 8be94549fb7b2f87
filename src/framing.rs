//! Which responses have a body (RFC 9112 §6.3), for everything that reads, changes or writes one.

use http::{Method, StatusCode};

/// Whether a response has no body, whatever its head says.
pub fn is_bodiless(status: StatusCode, method: &Method) -> bool {
    *method == Method::HEAD || ends_with_head(status)
}

/// Whether a response of this status ends with its head, to a request of any method. A 1xx and a 204 may have no field
/// that frames a body (RFC 9110 §8.6, RFC 9112 §6.1). In a 304 they are allowed, would describe another response, and make
/// clients wait for a body.
pub fn ends_with_head(status: StatusCode) -> bool {
    status.is_informational() || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_depends_on_the_status_and_on_head() {
        for (status, has_body) in [
            (100, false),
            (101, false),
            (103, false),
            (200, true),
            (204, false),
            (205, true),
            (304, false),
            (404, true),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(!is_bodiless(status, &Method::GET), has_body, "{status}");
            assert_eq!(!ends_with_head(status), has_body, "{status}");
            assert!(is_bodiless(status, &Method::HEAD), "{status}");
        }
    }
}
