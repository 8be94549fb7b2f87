//! `websocket_origins`: exact origins, as browsers write them.

use super::{Check, file, in_punycode};
use crate::host::{BadOrigin, Origin};

impl Check<'_> {
    pub(super) fn origins(&mut self, place: &str, written: &[file::WrittenOrigin]) -> Vec<Origin> {
        let mut origins: Vec<Origin> = Vec::new();
        for (at, file::WrittenOrigin(text)) in written.iter().enumerate() {
            let key = format!("{place}[{at}]");
            let Some(text) = text else {
                // An empty item of the list reads the same, and must not open the service to pages without an origin.
                self.fault(key, "nothing is written here", "write an origin, and the origin `null` in quotes");
                continue;
            };
            match Origin::parse(text) {
                Ok(origin) if origins.contains(&origin) => {
                    self.fault(key, format!("{origin} is listed twice"), "remove one");
                }
                Ok(origin) => origins.push(origin),
                Err(BadOrigin::NotAscii) => {
                    self.fault(key, format!("`{text}` {}", BadOrigin::NotAscii), in_punycode(text));
                }
                Err(why) => self.fault(key, format!("`{text}` {why}"), remedy(why)),
            }
        }
        origins
    }
}

fn remedy(why: BadOrigin) -> &'static str {
    match why {
        BadOrigin::Wildcard => "name each origin: any page of a wildcard could act as the user who reads it",
        BadOrigin::Path => "write scheme, host and port alone, such as https://portal.example.com",
        BadOrigin::WebSocket => "write the scheme of the page that opens the WebSocket, https:// or http://",
        BadOrigin::NotAscii | BadOrigin::Scheme | BadOrigin::Host | BadOrigin::Port => {
            "write an origin as browsers send it: https://portal.example.com:8443, capacitor://localhost, file://, or \"null\""
        }
    }
}
