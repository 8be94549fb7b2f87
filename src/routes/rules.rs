//! A route's changes of header fields in the form in which requests meet them: secrets are read and lists are merged when
//! the snapshot is built, so that a request of a service without any pays for a look at an empty list.

use std::collections::HashMap;
use std::sync::Arc;

use http::header::STRICT_TRANSPORT_SECURITY;
use http::{HeaderName, HeaderValue};

use crate::config::header_names::{field_value, normalize};
use crate::config::{Config, Faults, FieldSource, RequestHeaders, ResponseHeaders, Service};

/// The values of fields that are secrets, by the place of their keys in the file.
#[derive(Default)]
pub struct FieldSecrets(HashMap<String, HeaderValue>);

/// Changes of the fields of requests to an application.
#[derive(Default)]
pub struct RequestFields {
    pub removed: Box<[HeaderName]>,
    pub set: Box<[(HeaderName, HeaderValue)]>,
}

/// Changes of the fields of a response to a client.
#[derive(Default)]
pub struct ResponseFields {
    pub removed: Box<[HeaderName]>,
    pub set: Box<[(HeaderName, HeaderValue)]>,
    /// What `set` takes as lines of HTTP/1.1, in bytes.
    pub bytes: usize,
}

impl FieldSecrets {
    /// Reads every secret once, and adds a fault for each that cannot be a field's value.
    pub fn read(config: &Config, faults: &mut Faults) -> Self {
        let mut values = HashMap::new();
        let mut is_faulty = std::collections::HashSet::new();
        for (place, source) in config.services.iter().flat_map(Service::field_secrets) {
            if values.contains_key(place) || is_faulty.contains(place) {
                continue;
            }
            let value = source.read().map_err(|what| (what, "point it at the value"));
            let value = value.and_then(|secret| {
                let what = || ("a line end, a NUL or another control character inside the value".to_owned(), "mend it");
                field_value(secret.bytes()).ok_or_else(what)
            });
            match value {
                Ok(mut value) => {
                    // Not printed, and over HTTP/2 not put into the table of an upstream (RFC 7541 §7.1.3).
                    value.set_sensitive(true);
                    values.insert(place.to_owned(), value);
                }
                Err((what, write)) => {
                    faults.add(place, what, write);
                    is_faulty.insert(place);
                }
            }
        }
        Self(values)
    }
}

impl RequestFields {
    /// `None` where nothing is changed. A secret that could not be read is a fault, with which nothing is served.
    pub fn build(written: &RequestHeaders, secrets: &FieldSecrets) -> Option<Box<Self>> {
        let value = |source: &FieldSource| match source {
            FieldSource::Text(value) => Some(value.clone()),
            FieldSource::Secret { place, .. } => secrets.0.get(place).cloned(),
        };
        let set: Box<[_]> =
            written.set.iter().filter_map(|(name, source)| Some((name.clone(), value(source)?))).collect();
        // A field `X_Name` of ours is `X-Name` to an application that folds names, and so would be a client's `X-Name`.
        // Clients' names with a `_` reach no application.
        let folded =
            |name: &HeaderName| HeaderName::try_from(normalize(name.as_str())).ok().filter(|folded| folded != name);
        let named = written.remove.iter().chain(written.set.iter().map(|(name, _)| name));
        let removed: Box<[_]> = written.remove.iter().cloned().chain(named.filter_map(folded)).collect();
        (!set.is_empty() || !removed.is_empty()).then(|| Box::new(Self { removed, set }))
    }
}

impl ResponseFields {
    /// `None` where nothing is changed.
    pub fn build(written: &ResponseHeaders, service: &Service) -> Option<Arc<Self>> {
        let mut set = written.set.clone();
        let mut removed = written.remove.clone();
        if let Some(hsts) = service.hsts.and_then(|hsts| HeaderValue::try_from(hsts.to_string()).ok()) {
            removed.retain(|name| *name != STRICT_TRANSPORT_SECURITY);
            set.push((STRICT_TRANSPORT_SECURITY, hsts));
        }
        const SEPARATORS: usize = ": \r\n".len();
        let bytes = set.iter().map(|(name, value)| name.as_str().len() + value.len() + SEPARATORS).sum();
        let is_any = !set.is_empty() || !removed.is_empty();
        is_any.then(|| Arc::new(Self { removed: removed.into(), set: set.into(), bytes }))
    }

    /// Returns the value that `Strict-Transport-Security` gets.
    pub fn hsts(&self) -> Option<&HeaderValue> {
        self.set.iter().find(|(name, _)| *name == STRICT_TRANSPORT_SECURITY).map(|(_, value)| value)
    }

    /// Whether a field of this name, in any case, is left out of a response.
    pub fn leaves_out(&self, name: &str) -> bool {
        let is_it = |ours: &HeaderName| ours.as_str().eq_ignore_ascii_case(name);
        self.removed.iter().chain(self.set.iter().map(|(name, _)| name)).any(is_it)
    }
}
