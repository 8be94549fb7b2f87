//! The policy for new passwords: long enough, not among the first that guessers try, and not the user's own name.
//!
//! It is checked when a password is set, never at a login: passwords that were set before stay valid. OWASP ASVS 5.0 §6.2.1
//! requires at least 8 characters and recommends 15, §6.2.4 requires a list of common ones, §6.2.11 a list of words of the
//! context. There is no rule about kinds of characters (§6.2.5).

use std::error::Error;
use std::fmt;

use unicode_normalization::UnicodeNormalization;

use super::Password;
use crate::users::UserName;

/// The requirements for a new password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The least number of characters.
    pub least: usize,
}

/// Why a password is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    TooShort {
        has: usize,
        least: usize,
    },
    /// It consists of the user's name or e-mail address, reversed or not, with or without digits.
    OwnName,
    /// It consists of well-known words, keyboard rows, dates and repetitions, and little else.
    Common,
}

/// The characters that a password must have beside well-known pieces.
const FRESH: usize = 3;
/// So many digits and signs beside a word do not count: a year, a date without separators, an exclamation mark.
const IGNORED_SIGNS: usize = 8;
/// A shorter name may be a part of the password by chance.
const SHORTEST_NAME: usize = 4;

impl Policy {
    pub fn check(&self, password: &Password, name: &UserName, email: Option<&str>) -> Result<(), Unfit> {
        let text: Vec<char> = password.as_str().nfkc().flat_map(char::to_lowercase).collect();
        let has = password.as_str().chars().count();
        match () {
            () if has < self.least => Err(Unfit::TooShort { has, least: self.least }),
            () if own_names(name, email).iter().any(|own| is_made_of(&text, own)) => Err(Unfit::OwnName),
            () if is_common(&text) => Err(Unfit::Common),
            () => Ok(()),
        }
    }
}

/// Returns the names that a guesser who knows the user would try: the names of the account and the mailbox, and their parts.
fn own_names(name: &UserName, email: Option<&str>) -> Vec<Vec<char>> {
    let mut names = vec![name.as_str().to_lowercase()];
    names.extend(email.map(str::to_lowercase));
    let mut all = Vec::new();
    for whole in names {
        let local = whole.split('@').next().unwrap_or_default().to_owned();
        let joined: String = local.chars().filter(|c| c.is_alphanumeric()).collect();
        all.extend([whole, joined, local]);
    }
    all.retain(|name| !name.is_empty());
    all.iter().map(|name| name.nfkc().collect()).collect()
}

/// Returns whether the password contains the name or its reverse. A short name counts only if the password has no other
/// letters.
fn is_made_of(text: &[char], name: &[char]) -> bool {
    let reversed: Vec<char> = name.iter().rev().copied().collect();
    [name, &reversed].into_iter().any(|name| {
        let mut letters_left = 0;
        let (mut at, mut found) = (0, false);
        while at < text.len() {
            if text[at..].starts_with(name) {
                (at, found) = (at + name.len(), true);
            } else {
                letters_left += usize::from(text[at].is_alphabetic());
                at += 1;
            }
        }
        found && (name.len() >= SHORTEST_NAME || letters_left == 0)
    })
}

/// Returns whether too little is left beside well-known pieces.
fn is_common(text: &[char]) -> bool {
    if is_repetition(text) {
        return true;
    }
    let (mut at, mut letters, mut others) = (0, 0, 0);
    while at < text.len() {
        match known_piece(&text[at..]) {
            0 => {
                let is_letter = text[at].is_alphabetic();
                letters += usize::from(is_letter);
                others += usize::from(!is_letter);
                at += 1;
            }
            length => at += length,
        }
    }
    letters + others.saturating_sub(IGNORED_SIGNS) < FRESH
}

/// Returns whether a piece is repeated to the end, or there are fewer than five different characters.
fn is_repetition(text: &[char]) -> bool {
    let mut different: Vec<char> = text.to_vec();
    different.sort_unstable();
    different.dedup();
    let repeats = |unit: usize| text.iter().zip(&text[unit..]).all(|(one, other)| one == other);
    different.len() < 5 || (1..=text.len() / 2).any(repeats)
}

/// Returns the length of the longest well-known piece that the text begins with, or 0.
fn known_piece(text: &[char]) -> usize {
    let word = WORDS.split_whitespace().map(|word| word_length(text, word)).max().unwrap_or(0);
    let rows = ROWS.iter().map(|row| row_length(text, row)).max().unwrap_or(0);
    let run = text.iter().take_while(|c| Some(*c) == text.first()).count();
    let run = if run >= 3 { run } else { 0 };
    word.max(rows).max(run)
}

/// Returns the length of a word if the text begins with it, in any common spelling (`p@ssw0rd`), or 0.
fn word_length(text: &[char], word: &str) -> usize {
    let length = word.chars().count();
    let same = |(typed, letter): (&char, char)| *typed == letter || disguised(*typed).contains(letter);
    let begins = length <= text.len() && text.iter().zip(word.chars()).all(same);
    if begins { length } else { 0 }
}

/// Returns the letters that a character commonly replaces.
fn disguised(character: char) -> &'static str {
    match character {
        '0' => "o",
        '1' | '!' | '|' => "il",
        '3' | '€' => "e",
        '4' | '@' => "a",
        '5' | '$' => "s",
        '7' | '+' => "t",
        '8' => "b",
        '9' => "g",
        _ => "",
    }
}

/// Returns the length of the part of a keyboard row that the text begins with, forwards or backwards, or 0 if it is shorter
/// than four characters.
fn row_length(text: &[char], row: &str) -> usize {
    let forwards: Vec<char> = row.chars().collect();
    let backwards: Vec<char> = row.chars().rev().collect();
    let stretch = |row: &[char]| {
        let begins = (0..row.len()).map(|from| text.iter().zip(&row[from..]).take_while(|(a, b)| a == b).count());
        begins.max().unwrap_or(0)
    };
    let longest = stretch(&forwards).max(stretch(&backwards));
    if longest >= 4 { longest } else { 0 }
}

/// Keyboard rows and other sequences of keys.
const ROWS: [&str; 10] = [
    "01234567890123456789",
    "abcdefghijklmnopqrstuvwxyz",
    "qwertyuiop[]",
    "qwertzuiopü",
    "azertyuiop",
    "asdfghjkl;",
    "qsdfghjklm",
    "zxcvbnm,./",
    "yxcvbnm",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,9ol.0p;/",
];

/// The words that guessers try first: passwords that are in every list of leaked ones, and words of hospitals.
const WORDS: &str = "
    password passwort passwd passw passe motdepasse contraseña contrasena senha wachtwoord parola haslo secret geheim
    admin administrator root user username guest login logon signin default changeme change letmein access welcome
    willkommen bienvenue bienvenido benvenuto welkom hello hallo bonjour temporary temp test testing demo sample
    example system server service support helpdesk master super manager company office work internet computer
    hospital clinic clinical medical medicine doctor nurse patient health healthcare surgery ward emergency station
    iloveyou loveyou love lovely sweetheart honey darling princess prince sunshine rainbow flower butterfly angel
    angels baby babygirl babyboy football baseball basketball soccer hockey tennis dragon monkey tiger lion eagle
    shadow master killer hunter ranger batman superman spiderman pokemon starwars matrix naruto minecraft
    michael jennifer jessica ashley daniel michelle charlie thomas robert jordan andrew joshua matthew anthony
    william nicole samantha maggie ginger pepper cookie chocolate cheese banana orange purple yellow
    summer sommer winter spring autumn herbst january february march april june july august september october
    november december monday tuesday wednesday thursday friday saturday sunday
    january januar februar märz juni juli oktober dezember
    google facebook samsung apple microsoft windows linux android iphone liverpool chelsea arsenal barcelona
    freedom whatever trustno nothing mustang corvette ferrari porsche mercedes harley yankees cowboys lakers steelers
    jesus christ heaven blessed forever family mother father friends brother sister people hannah buster
    q1w2e3r4t5y6 q1w2e3r4 1q2w3e4r5t6y 1q2w3e4r a1b2c3d4 zaq12wsx qazwsx qazwsxedc asdf1234 abcd1234 abc123
    qweasdzxc qwe123 123qwe 123abc pass word the for you and one two three my is not this our your
";

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what_to_do = "four words that have nothing to do with each other make a good one";
        match self {
            Self::TooShort { has, least } => {
                write!(f, "the password has {has} characters; write {least} or more: {what_to_do}")
            }
            Self::OwnName => write!(f, "the password is made of the user's own name; write another one: {what_to_do}"),
            Self::Common => {
                write!(f, "the password is one of the first that a guesser tries; write another one: {what_to_do}")
            }
        }
    }
}

impl Error for Unfit {}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, name: &str, email: Option<&str>) -> Result<(), Unfit> {
        let password = Password::new(text.to_owned()).unwrap();
        Policy { least: 12 }.check(&password, &UserName::parse(name).unwrap(), email)
    }

    #[test]
    fn a_password_has_as_many_characters_as_are_required_whatever_its_bytes() {
        for (text, has) in [("pw", 2), ("123", 3), ("kV9#tq!Lw2z", 11), ("ünïcödé-wör", 11), ("😀😁😂🤣😃😄", 6)]
        {
            assert_eq!(check(text, "ada", None), Err(Unfit::TooShort { has, least: 12 }), "{text}");
        }
        for text in ["kV9#tq!Lw2zX", "ünïcödé-wörk", "grün blau tal"] {
            assert_eq!(check(text, "ada", None), Ok(()), "{text}");
        }
        let short = Password::new("kV9#tq!L".to_owned()).unwrap();
        assert_eq!(Policy { least: 8 }.check(&short, &UserName::parse("ada").unwrap(), None), Ok(()));
    }

    #[test]
    fn the_users_own_name_is_no_password_in_any_spelling() {
        let email = Some("Anna.Mueller@clinic.example");
        for text in [
            "mkeller12345",
            "MKeller!2026!",
            "123mkeller123",
            "rellekm-2026!",
            "xx-mkeller-yy",
            "anna.mueller1",
            "annamueller99",
            "AnnaMueller!!",
            "relleumanna12",
            "anna.mueller@clinic.example",
        ] {
            assert_eq!(check(text, "mkeller", email), Err(Unfit::OwnName), "{text}");
        }
        for text in ["ada123456789!", "ada-ada-ada-ada", "2026ada2026ada!"] {
            assert_eq!(check(text, "ada", None), Err(Unfit::OwnName), "{text}");
        }
        assert_eq!(check("armada of quiet crabs", "ada", None), Ok(()), "a short name may be there by chance");
    }

    #[test]
    fn what_guessers_try_first_is_no_password() {
        for text in [
            "password1234",
            "Password123!",
            "P@ssw0rd2026",
            "passwordpassword",
            "123456789012",
            "1234567890123456",
            "qwertyuiop12",
            "qwertyuiop[]",
            "QWERTYUIOPASDFGHJKL",
            "asdfghjkl123",
            "1qaz2wsx3edc",
            "q1w2e3r4t5y6",
            "aaaaaaaaaaaa",
            "121212121212",
            "abcabcabcabc",
            "abcdefghijkl",
            "zyxwvutsrqponm",
            "iloveyou2026!",
            "Welcome2026!",
            "letmein12345",
            "changeme!!!!",
            "administrator",
            "hospital2026",
            "Sommer2026!!",
            "sunshine1999",
            "footballfootball",
            "0987654321098",
            "!!!password!!!",
            "passwort1234",
            "superman12345",
            "Winter-2025-2026",
            "tr0ub4tr0ub4",
        ] {
            assert_eq!(check(text, "ada", None), Err(Unfit::Common), "{text}");
        }
    }

    #[test]
    fn what_is_hard_to_guess_passes() {
        for text in [
            "correct horse battery staple",
            "kupfer-lampe-esel-tinte",
            "Xk2!vQ9#pLw8",
            "l8Zf0yq3Wm_TJd4h",
            "493820174638261",
            "три зелёных кота",
            "雨の日には傘を二本もって",
            "purple tractors sing at dawn",
            "gGf7-Qm2x-Lp0w",
        ] {
            assert_eq!(check(text, "ada", Some("ada@example.com")), Ok(()), "{text}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_do_and_never_the_password() {
        for text in ["hunter2", "mkeller12345", "password1234"] {
            let said = check(text, "mkeller", None).unwrap_err().to_string();
            assert!(said.contains("write") && said.contains("four words") && !said.contains(text), "{said}");
        }
    }
}
