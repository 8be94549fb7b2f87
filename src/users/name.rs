//! User names in their canonical form, so that a user has one entry and one failure counter however the name is typed.
//!
//! Every name that comes from outside (login form, command line, import) passes [`UserName::parse`].

use std::error::Error;
use std::fmt;
use std::ops::RangeInclusive;

use unicode_normalization::UnicodeNormalization;

/// The bound before normalisation. One code point may become eighteen, so the work is bounded here and not by the result.
const MAX_RAW_BYTES: usize = 256;
const MAX_BYTES: usize = 128;

/// A canonical user name: no surrounding white space, NFKC, lower case, visible characters only.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserName(String);

/// Why a text is not a user name. It does not tell whether such a user exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadUserName {
    Empty,
    TooLong,
    /// White space inside the name.
    WhiteSpace,
    /// A control character, or another one that is invisible.
    Invisible,
}

impl UserName {
    /// Returns the canonical form of a typed name: `Bob`, ` bob` and `ＢＯＢ` are one user.
    ///
    /// Invisible characters are refused and not removed: a `bob` with a zero-width space is an attempt to impersonate
    /// another user, or was pasted by mistake, and the user should see an error.
    pub fn parse(typed: &str) -> Result<Self, BadUserName> {
        if typed.len() > MAX_RAW_BYTES {
            return Err(BadUserName::TooLong);
        }
        // Lower-casing may undo the normalisation, hence the second pass. Character by character, because
        // `str::to_lowercase` maps a sigma by its position: Σ would have two canonical forms.
        let name: String = typed.trim().nfkc().flat_map(char::to_lowercase).nfkc().collect();
        match () {
            () if name.is_empty() => Err(BadUserName::Empty),
            () if name.len() > MAX_BYTES => Err(BadUserName::TooLong),
            () if name.chars().any(is_invisible) => Err(BadUserName::Invisible),
            () if name.chars().any(char::is_whitespace) => Err(BadUserName::WhiteSpace),
            () => Ok(Self(name)),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns whether a character is invisible: control characters, Unicode's format characters (`Cf`), its
/// Default_Ignorable_Code_Point (joiners, variation selectors, fillers, tags), and the blank Braille pattern.
///
/// White space that is a control character too (tab, line feed) counts as invisible.
pub(super) fn is_invisible(character: char) -> bool {
    character.is_control() || INVISIBLE.iter().any(|range| range.contains(&character))
}

/// From Unicode's `DerivedGeneralCategory.txt` and `DerivedCoreProperties.txt`.
const INVISIBLE: &[RangeInclusive<char>] = &[
    '\u{AD}'..='\u{AD}',
    '\u{34F}'..='\u{34F}',
    '\u{600}'..='\u{605}',
    '\u{61C}'..='\u{61C}',
    '\u{6DD}'..='\u{6DD}',
    '\u{70F}'..='\u{70F}',
    '\u{890}'..='\u{891}',
    '\u{8E2}'..='\u{8E2}',
    '\u{115F}'..='\u{1160}',
    '\u{17B4}'..='\u{17B5}',
    '\u{180B}'..='\u{180F}',
    '\u{200B}'..='\u{200F}',
    '\u{202A}'..='\u{202E}',
    '\u{2060}'..='\u{206F}',
    '\u{2800}'..='\u{2800}',
    '\u{3164}'..='\u{3164}',
    '\u{FE00}'..='\u{FE0F}',
    '\u{FEFF}'..='\u{FEFF}',
    '\u{FFA0}'..='\u{FFA0}',
    '\u{FFF0}'..='\u{FFFB}',
    '\u{110BD}'..='\u{110BD}',
    '\u{110CD}'..='\u{110CD}',
    '\u{13430}'..='\u{1343F}',
    '\u{1BCA0}'..='\u{1BCA3}',
    '\u{1D173}'..='\u{1D17A}',
    '\u{E0000}'..='\u{E0FFF}',
];

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for BadUserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the user name is empty"),
            Self::TooLong => write!(f, "the user name is too long; at most {MAX_BYTES} bytes"),
            Self::WhiteSpace => f.write_str("the user name has white space inside; write it as one word"),
            Self::Invisible => f.write_str("the user name has an invisible character; type it anew"),
        }
    }
}

impl Error for BadUserName {}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(typed: &str) -> Result<String, BadUserName> {
        UserName::parse(typed).map(|name| name.as_str().to_owned())
    }

    #[test]
    fn every_way_to_type_a_name_is_one_name() {
        for typed in ["bob", "Bob", "BOB", " bob ", "bob\u{a0}", "\u{3000}bob\t", "ＢＯＢ", "ｂｏｂ", "𝐛𝐨𝐛", "ⓑⓞⓑ"]
        {
            assert_eq!(canonical(typed).as_deref(), Ok("bob"), "{typed:?}");
        }
        assert_eq!(canonical("re\u{301}ne"), canonical("réne"), "composed and decomposed");
        assert_eq!(canonical("ΒΟΣ"), canonical("βοσ"), "a sigma does not depend on its place");
    }

    #[test]
    fn names_that_are_not_one_visible_word_are_refused() {
        use BadUserName::{Empty, Invisible, TooLong, WhiteSpace};
        let long = "é".repeat(65);
        let blown_up = "\u{FDFA}".repeat(4); // 12 bytes, of which NFKC makes more than 128
        let raw = format!("{}bob", " ".repeat(254));
        for (typed, why) in [
            ("", Empty),
            (" \t\u{3000}", Empty),
            (long.as_str(), TooLong),
            (blown_up.as_str(), TooLong),
            (raw.as_str(), TooLong),
            ("bob smith", WhiteSpace),
            ("bob\u{2003}smith", WhiteSpace),
            ("bob\u{a8}", WhiteSpace), // NFKC makes a space and a combining mark of it
            ("bob\u{200b}", Invisible),
            ("\u{200b}bob", Invisible),
            ("b\u{200d}ob", Invisible),
            ("b\u{ad}ob", Invisible),
            ("\u{feff}bob", Invisible),
            ("bob\u{fe0f}", Invisible),
            ("bob\u{3164}", Invisible),
            ("\u{202e}bob", Invisible),
            ("bob\u{e0041}", Invisible),
            ("b\0ob", Invisible),
            ("b\nob", Invisible),
            ("bob\u{7f}", Invisible),
            ("bob\u{85}x", Invisible),
        ] {
            assert_eq!(canonical(typed), Err(why), "{typed:?}");
        }
    }

    #[test]
    fn the_longest_name_is_128_bytes() {
        assert!(canonical(&"x".repeat(128)).is_ok());
        assert_eq!(canonical(&"x".repeat(129)), Err(BadUserName::TooLong));
    }

    #[test]
    fn ordinary_names_of_many_tongues_pass() {
        for name in
            ["bob@example.com", "o'brien", "corp\\bob", "anne-marie", "नमस्ते", "李小龍", "владимир", "straße", "😀"]
        {
            assert_eq!(canonical(name).as_deref(), Ok(name));
        }
    }

    #[test]
    fn a_canonical_name_is_its_own_canonical_form_for_every_character() {
        // Beyond plane 3 there are only invisible characters and private ones.
        for character in (0..0x4_0000).filter_map(char::from_u32) {
            if let Ok(name) = UserName::parse(&format!("a{character}\u{301}")) {
                assert_eq!(UserName::parse(name.as_str()), Ok(name), "U+{:04X}", u32::from(character));
            }
        }
    }
}
