//! Return URLs: whatever is followed leads to a host of ours, for two URL parsers, and a ticket that it carries is ours.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use sentry_edge::host::Host;
use sentry_edge::sentry::loop_guard::RedirectRound;
use sentry_edge::sentry::return_url::ReturnUrlPolicy;
use sentry_edge::sentry::ticket_mark::TicketMarks;
use sentry_edge::sentry::ticket_query::TicketParameter;
use url::Url;

fn tickets() -> &'static TicketParameter {
    static TICKETS: OnceLock<TicketParameter> = OnceLock::new();
    TICKETS.get_or_init(|| TicketParameter::new("requestID".into(), TicketMarks::of_secrets(&[b"secret"])))
}

fn policy() -> &'static ReturnUrlPolicy {
    static POLICY: OnceLock<ReturnUrlPolicy> = OnceLock::new();
    POLICY.get_or_init(|| {
        let yaml = "services: {iqueue: {hosts: [iqueue.test]}, dextor: {hosts: ['*.dextor.test']}}";
        let (config, _) = sentry_edge::config::parse("edge.yaml".as_ref(), yaml).unwrap();
        ReturnUrlPolicy::new(Host::parse("sentry.test").unwrap(), &config.services, vec![8443])
    })
}

/// Whether a browser that goes there comes to us.
fn is_ours(url: &str) -> bool {
    let visible = url.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    let Some(rest) = url.strip_prefix("https://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap();
    let name = authority.strip_suffix(":8443").unwrap_or(authority);
    let below = name.strip_suffix(".dextor.test").is_some_and(|label| !label.is_empty() && !label.contains('.'));
    visible && (["iqueue.test", "sentry.test"].contains(&name) || below)
}

fuzz_target!(|text: &str| {
    let Ok(url) = policy().validate(text) else { return };
    let plain = url.without_tickets(tickets());
    assert!(is_ours(&plain), "{text:?} leads to {plain:?}");
    let parsed = Url::parse(&plain).expect("we send URLs");
    assert_eq!(parsed.as_str(), plain, "a browser makes another URL of it");
    assert_eq!(parsed.host_str(), Some(url.host.as_str()));
    // What is judged again after the whole way through the sign-on is the same, unless tickets made it long.
    let again = policy().validate(&plain).expect("what we send is good");
    assert_eq!(again.without_tickets(tickets()), plain);

    let ticket = tickets().issue(RedirectRound::FIRST).expect("there is randomness");
    let with = url.with_ticket(tickets(), &ticket);
    assert!(is_ours(&with), "{with:?}");
    let query = Url::parse(&with).unwrap().query().unwrap().to_owned();
    let extracted = tickets().extract(&query).expect("there is one");
    assert!(extracted.tickets.iter().all(|found| found.id == ticket), "{query:?}");
    assert_eq!(extracted.tickets.len(), 1, "two tickets in {query:?}");
});
