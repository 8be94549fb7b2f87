//! `Host` and `:authority`: what is taken is a name in its one form, and a URL parser reads the same host in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sentry_edge::host::{Authority, Host, HostPattern};
use url::Url;

fuzz_target!(|text: &str| {
    let Ok(authority) = Authority::parse(text) else { return };
    let name = authority.host.as_str();
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    assert!(!name.is_empty() && name.len() <= 253 && name.bytes().all(plain), "{name:?}");
    assert!(!name.starts_with('.') && !name.ends_with('.') && !name.contains(".."), "{name:?}");
    assert_eq!(Host::parse(name), Ok(authority.host.clone()), "its own form is taken for another");
    assert_eq!(Host::parse(&name.to_ascii_uppercase()), Ok(authority.host.clone()));
    assert_eq!(Host::parse(&format!("{name}.")), Ok(authority.host.clone()));
    assert!(HostPattern::Exact(authority.host.clone()).matches(&authority.host));

    let Ok(url) = Url::parse(&format!("https://{text}/")) else { return };
    // A name that a URL parser takes for an address (`1.0x2`) is no host of ours either way.
    if let Some(url::Host::Domain(domain)) = url.host() {
        assert_eq!(domain.strip_suffix('.').unwrap_or(domain), name, "{text:?}");
    }
    assert_eq!(url.port_or_known_default(), Some(authority.port.unwrap_or(443)), "{text:?}");
    assert!(url.username().is_empty() && url.password().is_none() && url.path() == "/", "{text:?}");
});
