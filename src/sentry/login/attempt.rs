//! A login form that was submitted.

use zeroize::Zeroizing;

/// The fields of the form. The password is wiped when dropped.
pub struct Attempt {
    pub username: String,
    pub password: Zeroizing<String>,
    pub csrf: String,
    pub redirect_url: Option<String>,
    pub state: Option<String>,
}

impl Attempt {
    /// Returns `None` if a field is there twice: another parser might take the other value.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let mut fields: [Option<String>; 5] = Default::default();
        for (name, value) in url::form_urlencoded::parse(body) {
            let at = match &*name {
                "username" => 0,
                "password" => 1,
                "csrf" => 2,
                "redirectURL" => 3,
                "state" => 4,
                _ => continue,
            };
            if fields[at].replace(value.into_owned()).is_some() {
                return None;
            }
        }
        let [username, password, csrf, redirect_url, state] = fields;
        Some(Self {
            username: username.unwrap_or_default(),
            password: Zeroizing::new(password.unwrap_or_default()),
            csrf: csrf.unwrap_or_default(),
            redirect_url: redirect_url.filter(|url| !url.is_empty()),
            state: state.filter(|state| !state.is_empty()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_taken_exactly_and_a_doubled_one_is_refused() {
        let attempt = Attempt::parse(b"username=a%20b&password=+p%00w+&csrf=c&state=&other=x").unwrap();
        assert_eq!((attempt.username.as_str(), attempt.password.as_str()), ("a b", " p\0w "));
        assert_eq!((attempt.redirect_url, attempt.state), (None, None));
        assert!(Attempt::parse(b"username=a&username=b&password=x").is_none());
        assert!(Attempt::parse(b"username=a&password=x&password=y").is_none());
    }
}
