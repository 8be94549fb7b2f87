//! Tickets in the query of a URL: added, found, and removed.
//!
//! A ticket of ours is recognized by its mark alone, wherever it is, however often and however it is escaped.
//! Everything else, including an application's own parameter of the same name, stays byte for byte.

use super::loop_guard::RedirectRound;
use super::ticket_mark::TicketMarks;
use crate::sessions::TicketId;
use crate::sessions::key::NoRandomness;

/// The query parameter that holds tickets.
pub struct TicketParameter {
    name: String,
    marks: TicketMarks,
}

/// A ticket of ours that was found in a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundTicket {
    pub id: TicketId,
    pub round: RedirectRound,
    /// Whether it is spelled as we spell it, after unescaping. Others are removed from a URL and not looked up.
    pub is_canonical: bool,
}

/// The tickets of a query, and the rest of it.
#[derive(Debug, PartialEq, Eq)]
pub struct ExtractedTickets {
    /// The tickets in their order: the one that the sign-on host added is the last.
    pub tickets: Vec<FoundTicket>,
    /// The query without them; `None` if there was nothing else.
    pub rest: Option<String>,
}

impl ExtractedTickets {
    /// Returns the furthest round of its tickets.
    pub fn round(&self) -> Option<RedirectRound> {
        self.tickets.iter().map(|ticket| ticket.round).max()
    }
}

impl TicketParameter {
    pub fn new(name: String, marks: TicketMarks) -> Self {
        Self { name, marks }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns a fresh ticket.
    pub fn issue(&self, round: RedirectRound) -> Result<TicketId, NoRandomness> {
        self.marks.issue(round)
    }

    /// Returns `None` if the query has no ticket.
    pub fn extract(&self, query: &str) -> Option<ExtractedTickets> {
        // Most queries have none, and are not split.
        query.split('&').find(|part| self.may_be_named(part))?;
        let mut tickets = Vec::new();
        let mut kept = Vec::new();
        for part in query.split('&') {
            match self.ticket_in(part) {
                Some(ticket) => tickets.push(ticket),
                None => kept.push(part),
            }
        }
        let rest = (!kept.is_empty()).then(|| kept.join("&"));
        (!tickets.is_empty()).then_some(ExtractedTickets { tickets, rest })
    }

    /// Returns the query without tickets; `None` if there was nothing else.
    pub fn query_without_tickets(&self, query: &str) -> Option<String> {
        match self.extract(query) {
            Some(extracted) => extracted.rest,
            None => Some(query.to_owned()),
        }
    }

    /// Returns a URL without the tickets in its query.
    pub fn strip_from_url(&self, url: &str) -> String {
        let (before, fragment) = url.split_at(url.find('#').unwrap_or(url.len()));
        match before.split_once('?') {
            Some((path, query)) => match self.query_without_tickets(query) {
                Some(query) => format!("{path}?{query}{fragment}"),
                None => format!("{path}{fragment}"),
            },
            None => url.to_owned(),
        }
    }

    /// Returns whether a part of a query may have the name. An escape makes a name longer.
    fn may_be_named(&self, part: &str) -> bool {
        let name = part.split('=').next().unwrap_or(part);
        name == self.name || (name.len() > self.name.len() && name.contains('%'))
    }

    fn ticket_in(&self, part: &str) -> Option<FoundTicket> {
        if !self.may_be_named(part) {
            return None;
        }
        let (name, value) = url::form_urlencoded::parse(part.as_bytes()).next()?;
        let id = TicketId::from_bytes(uuid::Uuid::try_parse(&value).ok()?.into_bytes());
        let round = self.marks.round_of(&id).filter(|_| name == self.name)?;
        Some(FoundTicket { id, round, is_canonical: TicketId::parse(&value).is_some() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter() -> TicketParameter {
        TicketParameter::new("requestID".into(), TicketMarks::of_secrets(&[b"secret"]))
    }

    /// Escapes every character.
    fn escaped(text: &str) -> String {
        text.bytes().map(|byte| format!("%{byte:02x}")).collect()
    }

    #[test]
    fn tickets_are_found_wherever_they_stand_and_however_they_are_escaped() {
        let parameter = parameter();
        let ticket = parameter.issue(RedirectRound::FIRST).unwrap();
        let id = ticket.to_string();
        for (query, rest) in [
            (format!("requestID={id}"), None),
            (format!("q=1&requestID={id}"), Some("q=1")),
            (format!("requestID={id}&q=1"), Some("q=1")),
            (format!("a&requestID={id}&%20=+&&requestID={id}&c=;"), Some("a&%20=+&&c=;")),
            (format!("requestID={id}&requestID=own"), Some("requestID=own")),
            (format!("requestID=own&requestID={id}"), Some("requestID=own")),
            (format!("request%49D={id}"), None),
            (format!("{}={id}&a", escaped("requestID")), Some("a")),
            (format!("requestID={}", id.replace('-', "%2D")), None),
            (format!("a&{}={}", escaped("requestID"), escaped(&id)), Some("a")),
        ] {
            let extracted = parameter.extract(&query).unwrap_or_else(|| panic!("{query}"));
            assert_eq!(extracted.rest.as_deref(), rest, "{query}");
            let expected = FoundTicket { id: ticket, round: RedirectRound::FIRST, is_canonical: true };
            assert!(extracted.tickets.iter().all(|found| *found == expected), "{query}");
        }
    }

    #[test]
    fn other_spellings_of_a_ticket_are_taken_out_and_not_looked_up() {
        let parameter = parameter();
        let id = parameter.issue(RedirectRound::LAST).unwrap().to_string();
        for value in [id.to_uppercase(), id.replace('-', ""), format!("%7B{id}%7D"), format!("urn:uuid:{id}")] {
            let extracted = parameter.extract(&format!("a=b&requestID={value}")).unwrap_or_else(|| panic!("{value}"));
            assert_eq!(
                (extracted.round(), extracted.rest.as_deref()),
                (Some(RedirectRound::LAST), Some("a=b")),
                "{value}"
            );
            assert!(!extracted.tickets[0].is_canonical, "{value}");
        }
    }

    #[test]
    fn what_bears_no_mark_is_the_applications() {
        let parameter = parameter();
        let (id, foreign) =
            (parameter.issue(RedirectRound::FIRST).unwrap().to_string(), TicketId::random().to_string());
        for query in [
            "",
            "q=1",
            "requestID",
            "requestID=",
            "requestID=own",
            "request%49D=own",
            "%",
            "%=%",
            &format!("requestID={foreign}"),
            "requestID=00000000-0000-8000-8000-000000000000",
            &format!("requestid={id}"),
            &format!("xrequestID={id}"),
            &format!("requestID[]={id}"),
            &format!("a=requestID={id}"),
            &format!("requestID=%20{id}"),
            &format!("requestID={id}%0d%0aflush_all"),
            &format!("requestID={id}x"),
            &format!("next=https://a/?requestID%3D{id}"),
        ] {
            assert_eq!(parameter.extract(query), None, "{query}");
            assert_eq!(parameter.query_without_tickets(query).as_deref(), Some(query));
        }
        let url = format!("https://a/b?c=d&requestID={id}#e?requestID={id}");
        assert_eq!(
            parameter.strip_from_url(&url),
            format!("https://a/b?c=d#e?requestID={id}"),
            "a fragment stays in a browser"
        );
    }
}
