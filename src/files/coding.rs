//! Which of a file's precompressed variants a client prefers (RFC 9110 §12.5.3).

use http::{HeaderMap, header};

/// A variant of a file: the file itself, or one beside it that was compressed beforehand. In the order of preference among
/// those that a client likes alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Brotli,
    Gzip,
    Identity,
}

impl Coding {
    /// The compressed ones, the best first.
    pub const COMPRESSED: [Self; 2] = [Self::Brotli, Self::Gzip];

    /// What is added to the file's name.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Brotli => ".br",
            Self::Gzip => ".gz",
            Self::Identity => "",
        }
    }

    /// The value of `Content-Encoding`, which the file itself has not.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::Brotli => Some("br"),
            Self::Gzip => Some("gzip"),
            Self::Identity => None,
        }
    }
}

/// How much a client likes each variant, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preference {
    brotli: u16,
    gzip: u16,
    identity: u16,
}

impl Preference {
    /// Reads `Accept-Encoding`. Without the field a client takes anything, says the standard, and in practice it can
    /// decompress nothing; a file in its own form is taken by any client that does not refuse it.
    pub fn of(headers: &HeaderMap) -> Self {
        let (mut brotli, mut gzip, mut identity, mut others) = (None, None, None, None);
        let fields = headers.get_all(header::ACCEPT_ENCODING);
        let elements = fields.iter().filter_map(|field| field.to_str().ok()).flat_map(|field| field.split(','));
        for element in elements {
            let (name, parameters) = element.split_once(';').unwrap_or((element, ""));
            let weight = weight(parameters);
            let place = match name.trim().to_ascii_lowercase().as_str() {
                "br" => &mut brotli,
                "gzip" | "x-gzip" => &mut gzip,
                "identity" => &mut identity,
                "*" => &mut others,
                _ => continue,
            };
            place.get_or_insert(weight);
        }
        Self {
            brotli: brotli.or(others).unwrap_or(0),
            gzip: gzip.or(others).unwrap_or(0),
            // A client that does not mention it takes it where nothing that it names is there.
            identity: identity.or(others).unwrap_or(1),
        }
    }

    /// The variant that is sent, of those that there are beside the file itself. Where the client takes none of them it
    /// gets the file: that is better than an error (§12.5.3).
    pub fn best(self, available: &[Coding]) -> Coding {
        let weight = |coding: Coding| match coding {
            Coding::Brotli => self.brotli,
            Coding::Gzip => self.gzip,
            Coding::Identity => self.identity,
        };
        let mut best = Coding::Identity;
        for coding in Coding::COMPRESSED.into_iter().rev().filter(|coding| available.contains(coding)) {
            if weight(coding) > 0 && weight(coding) >= weight(best) {
                best = coding;
            }
        }
        best
    }
}

/// The `q` of an element, 1000 where there is none. One that cannot be read is a refusal.
fn weight(parameters: &str) -> u16 {
    let mut named = parameters.split(';').filter_map(|parameter| parameter.split_once('='));
    let Some((_, value)) = named.find(|(name, _)| name.trim().eq_ignore_ascii_case("q")) else { return 1000 };
    let value: f32 = value.trim().parse().unwrap_or(0.0);
    if (0.0..=1.0).contains(&value) { (value * 1000.0).round() as u16 } else { 0 }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_variant_that_the_client_prefers_is_sent() {
        let both = &Coding::COMPRESSED[..];
        let none: &[Coding] = &[];
        for (field, available, expected) in [
            (None, both, Coding::Identity),
            (Some(""), both, Coding::Identity),
            (Some("gzip, deflate, br"), both, Coding::Brotli),
            (Some("gzip, deflate, br"), none, Coding::Identity),
            (Some("gzip, deflate, br"), &[Coding::Gzip], Coding::Gzip),
            (Some("gzip"), both, Coding::Gzip),
            (Some("X-GZIP"), both, Coding::Gzip),
            (Some("GZIP"), both, Coding::Gzip),
            (Some("br;q=0.5, gzip;q=0.8"), both, Coding::Gzip),
            (Some("br; q=0.5 , gzip ; q=0.5"), both, Coding::Brotli),
            (Some("br;q=0, gzip"), both, Coding::Gzip),
            (Some("br;q=0"), both, Coding::Identity),
            (Some("br;q=0.000"), &[Coding::Brotli], Coding::Identity),
            (Some("br;q=0.001"), &[Coding::Brotli], Coding::Brotli),
            (Some("gzip;q=0.5, identity"), both, Coding::Identity),
            (Some("identity;q=0.5, gzip;q=0.5"), both, Coding::Gzip),
            (Some("*"), both, Coding::Brotli),
            (Some("*, br;q=0"), both, Coding::Gzip),
            (Some("*;q=0.5, gzip;q=0.2, br;q=0.2"), both, Coding::Identity),
            (Some("*;q=0"), both, Coding::Identity),
            (Some("*;q=0, gzip"), both, Coding::Gzip),
            (Some("identity;q=0, *;q=0"), both, Coding::Identity),
            (Some("gzip;q=2"), both, Coding::Identity),
            (Some("gzip;q=x"), both, Coding::Identity),
            (Some("deflate, zstd"), both, Coding::Identity),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(field) = field {
                headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(field));
            }
            assert_eq!(Preference::of(&headers).best(available), expected, "{field:?} {available:?}");
        }
    }
}
