//! The values that an administrator enters: a new user, an e-mail address, services and roles.
//!
//! They are checked here because they leave the process later in tokens and identity headers, where a comma in a role would
//! make two roles of it. Made by the command line and by [`super::import`].

use std::error::Error;
use std::fmt;

use super::UserName;
use super::name::is_invisible;

/// RFC 5321 §4.5.3.1.3: a path has at most 256 octets, two of which are its angle brackets.
const MAX_EMAIL_BYTES: usize = 254;
const MAX_GRANT_BYTES: usize = 128;

/// A user to add, without the password hash.
#[derive(Clone, Debug)]
pub struct NewUser {
    pub name: UserName,
    pub email: Option<Email>,
    pub grants: Grants,
    pub disabled: bool,
}

/// An e-mail address by its form. Only sending mail would show whether it exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email(String);

/// Services and roles to grant or to revoke.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    services: Vec<String>,
    roles: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadEmail;

/// A service or role name that cannot be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadGrant(String);

impl Email {
    pub fn parse(text: &str) -> Result<Self, BadEmail> {
        let odd = |c: char| is_invisible(c) || c.is_whitespace() || c == ',';
        match text.rsplit_once('@') {
            Some((local, domain))
                if !local.is_empty() && !domain.is_empty() && text.len() <= MAX_EMAIL_BYTES && !text.contains(odd) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(BadEmail),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Grants {
    /// Checks the form of every name. The caller checks whether a service is configured.
    pub fn parse(services: Vec<String>, roles: Vec<String>) -> Result<Self, BadGrant> {
        if let Some(bad) = services.iter().chain(&roles).find(|grant| !is_grant(grant)) {
            return Err(BadGrant(bad.clone()));
        }
        Ok(Self { services, roles })
    }

    pub fn services(&self) -> &[String] {
        &self.services
    }

    pub fn roles(&self) -> &[String] {
        &self.roles
    }
}

/// Returns whether this is a name. It may contain spaces: older directories have groups like `Domain Users`.
fn is_grant(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_GRANT_BYTES
        && name.trim() == name
        && !name.contains(|c: char| c == ',' || is_invisible(c))
}

impl fmt::Display for BadEmail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the e-mail address is not one; write it like name@example.com, or leave it out")
    }
}

impl fmt::Display for BadGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name) = self;
        write!(f, "{name:?} is no service or role name; write 1 to {MAX_GRANT_BYTES} bytes without commas")
    }
}

impl Error for BadEmail {}
impl Error for BadGrant {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_email_has_two_sides_and_nothing_that_a_header_would_misread() {
        for good in ["a@b", "anne.o'brien+x@example.com", "用户@例子.广告", "\"a@b\"@c"] {
            assert!(Email::parse(good).is_ok(), "{good:?}");
        }
        let long = format!("{}@example.com", "a".repeat(243));
        for bad in ["", "a", "@b", "a@", "a b@c", "a@b\r\nX: y", "a@b,c@d", "a\0@b", "\u{200b}a@b", &long] {
            assert_eq!(Email::parse(bad), Err(BadEmail), "{bad:?}");
        }
    }

    #[test]
    fn a_grant_is_one_name_and_never_two() {
        let role = |role: &str| Grants::parse(vec![], vec![role.to_owned()]);
        for good in ["admin", "Domain Users", "team:a/b", "ärzte"] {
            assert!(role(good).is_ok(), "{good:?}");
        }
        let long = "x".repeat(129);
        for bad in ["", " ", "admin ", "a,admin", "a\nadmin", "a\u{200b}", &long] {
            assert_eq!(role(bad), Err(BadGrant(bad.to_owned())));
            assert!(Grants::parse(vec![bad.to_owned()], vec![]).is_err());
        }
    }
}
