//! Expected hashes were made by others: Python's hashlib and crypt, and the Argon2 reference implementation.

use super::*;
use crate::users::BadHash;

const TYPED: &str = "hunter2 päss";

/// Formats of older directories, each a hash of [`TYPED`].
const FOREIGN: &[&str] = &[
    "$2a$04$abcdefghijklmnopqrstuupK.cmRFvC/IBnMAohxQPjjCITVc4r9a",
    "$2b$04$abcdefghijklmnopqrstuupK.cmRFvC/IBnMAohxQPjjCITVc4r9a",
    "$2y$04$abcdefghijklmnopqrstuupK.cmRFvC/IBnMAohxQPjjCITVc4r9a",
    "$pbkdf2-sha256$i=1000,l=32$MDEyMzQ1Njc4OWFiY2RlZg$m4CuPn9XPTj9ZY83fuXSmJmAUe2hCIgAYQLLVUExNS4",
    "$pbkdf2-sha256$1001$MDEyMzQ1Njc4OWFiY2RlZg$XKW.kQkFWVaqbVaDX6/L6eQPb//RivQtSRZy1/5Qvss",
    "$pbkdf2-sha512$i=1000$MDEyMzQ1Njc4OWFiY2RlZg$\
     mKkPyAo6EmIxDM1TgnpDZxTRC6Iz5T/eS6TKTwtBueD2KR2s0hLtvdI5iy8pgiyMud1CihEhT8Dsi0pcOdWSqg",
    "pbkdf2_sha256$1000$seasalt2$XgorALNvukv0EvNvIdAcBJwO8QUoJFAMVs0bpNtXMZU=",
];

fn password(text: &str) -> Password {
    Password::new(text.to_owned()).unwrap()
}

fn stored(text: &str) -> StoredHash {
    StoredHash::parse(text).unwrap()
}

fn check(typed: &str, hash: &StoredHash) -> Verified {
    verify(&password(typed), hash).unwrap()
}

#[test]
fn a_password_is_taken_exactly_as_it_was_typed() {
    // Research input 177.
    for typed in ["a\0b", " spaces around ", "\0", &"😀".repeat(64), "e\u{301}", "tab\tand\nline"] {
        let hash = hash(&password(typed)).unwrap();
        assert_eq!(check(typed, &hash), Verified::Match, "{typed:?}");
    }
    for (set, typed) in [("a\0b", "a"), ("a\0b", "a\0c"), (" a ", "a"), ("e\u{301}", "\u{e9}"), ("a", "A")] {
        let hash = hash(&password(set)).unwrap();
        assert_eq!(check(typed, &hash), Verified::NoMatch, "{typed:?} for {set:?}");
    }
}

#[test]
fn a_password_has_1_to_1024_bytes() {
    // Research input 176: refused before anything could be hashed.
    assert!(Password::new("x".repeat(1024)).is_ok());
    assert_eq!(Password::new("x".repeat(1025)).unwrap_err(), BadPassword::TooLong);
    assert_eq!(Password::new("x".repeat(1024 * 1024)).unwrap_err(), BadPassword::TooLong);
    assert_eq!(Password::new("é".repeat(513)).unwrap_err(), BadPassword::TooLong, "bytes, not characters");
    assert_eq!(Password::new(String::new()).unwrap_err(), BadPassword::Empty);
}

#[test]
fn a_new_hash_is_argon2id_with_the_parameters_of_owasp_and_its_own_salt() {
    let [first, second] = [(); 2].map(|()| hash(&password(TYPED)).unwrap());
    assert!(first.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", first.as_str());
    assert_ne!(first.as_str(), second.as_str());
    let read_back = stored(first.as_str());
    assert!(read_back.is_current());
    assert_eq!(check(TYPED, &read_back), Verified::Match);
}

#[test]
fn hashes_of_older_directories_match_and_are_outdated() {
    for text in FOREIGN {
        assert_eq!(check(TYPED, &stored(text)), Verified::MatchOutdated, "{text}");
        assert_eq!(check("hunter2 pass", &stored(text)), Verified::NoMatch, "{text}");
    }
}

#[test]
fn weaker_argon2_is_outdated_and_stronger_is_not() {
    let weaker = [
        "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA",
        "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
        "$argon2id$v=19$m=65536,t=1,p=1$c29tZXNhbHQ$9qWtwbpyPd3vm1rB1GThgPzZ3/ydHL92zKL+15XZypg",
        // Eight bytes of salt alone.
        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        // Version 1.0, which its strings do not say.
        "$argon2i$m=256,t=2,p=1$c29tZXNhbHQ$/U3YPXYsSb3q9XxHvc0MLxur+GP960kN9j7emXX8zwY",
    ];
    for text in weaker {
        assert_eq!(check("password", &stored(text)), Verified::MatchOutdated, "{text}");
        assert_eq!(check("passwore", &stored(text)), Verified::NoMatch, "{text}");
    }
    let params = Params::new(2 * MEMORY_KIB, PASSES + 1, 2, Some(OUTPUT_BYTES)).unwrap();
    let stronger: argon2::PasswordHash =
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password(TYPED.as_bytes()).unwrap();
    assert_eq!(check(TYPED, &stored(&stronger.to_string())), Verified::Match);
}

#[test]
fn bcrypt_never_matches_a_password_that_it_does_not_read_whole() {
    // A hash of 80 times `x`: bcrypt has read 72 of them.
    let eighty = stored("$2b$04$abcdefghijklmnopqrstuubzadhGtS2zEF.gu0yd0opP6cVzb.e0i");
    assert_eq!(check(&"x".repeat(80), &eighty), Verified::NoMatch);
    assert_eq!(check(&"x".repeat(73), &eighty), Verified::NoMatch);
    assert_eq!(check(&"x".repeat(72), &eighty), Verified::MatchOutdated, "this is all that the hash knows");
    assert_eq!(check(&"x".repeat(71), &eighty), Verified::NoMatch);

    let a = stored("$2b$04$abcdefghijklmnopqrstuuMFdJu9yVgmagVAIC24fOZkaFqd3s9JC");
    assert_eq!(check("a", &a), Verified::MatchOutdated);
    assert!(bcrypt::verify("a\0a", a.as_str()).unwrap(), "the collision that we guard against");
    for typed in ["a\0a", "a\0", "a\0b", "\0a"] {
        assert_eq!(check(typed, &a), Verified::NoMatch, "{typed:?}");
    }
}

#[test]
fn a_hash_that_would_stall_a_worker_is_refused() {
    let bcrypt = |cost: &str| format!("$2b${cost}$abcdefghijklmnopqrstuupK.cmRFvC/IBnMAohxQPjjCITVc4r9a");
    let django =
        |iterations: &str| format!("pbkdf2_sha256${iterations}$seasalt2$XgorALNvukv0EvNvIdAcBJwO8QUoJFAMVs0bpNtXMZU=");
    let argon2 =
        |params: &str| format!("$argon2id$v=19${params}$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc");
    for within in [bcrypt("14"), django("2000000"), argon2("m=262144,t=10,p=1")] {
        assert!(StoredHash::parse(&within).is_ok(), "{within}");
    }
    for beyond in [bcrypt("15"), bcrypt("31"), django("2000001"), argon2("m=262145,t=1,p=1"), argon2("m=8,t=11,p=1")] {
        assert!(matches!(StoredHash::parse(&beyond), Err(BadHash::OutOfBounds { .. })), "{beyond}");
    }
    for senseless in [bcrypt("03"), bcrypt("99x"), django("4294967296"), django("0"), django("-1")] {
        assert!(matches!(StoredHash::parse(&senseless), Err(BadHash::Malformed { .. })), "{senseless}");
    }
}

#[test]
fn what_is_no_hash_is_refused_and_never_shown() {
    let long = format!("$argon2id${}", "x".repeat(1 << 20));
    for text in [
        "",
        "hunter2",
        "$",
        "$$$$",
        "$1$salt$3azHgidD3SrUCqSmAFWd1.",
        "$6$rounds=5000$salt$hash",
        "$2x$04$abcdefghijklmnopqrstuupK.cmRFvC/IBnMAohxQPjjCITVc4r9a",
        "5f4dcc3b5aa765d61d8327deb882cf99",
        "{SSHA}nU3Yp0eFl1eA6g==",
        "pbkdf2_sha1$1000$salt$XgorALNvukv0EvNvIdAcBJwO8QUoJFAM",
        "bcrypt_sha256$$2b$12$abcdefghijklmnopqrstuupK.cmRFvC/IBnMAohxQPjjCITVc4r9a",
        &long,
    ] {
        assert_eq!(StoredHash::parse(text).unwrap_err(), BadHash::Unknown, "{text:?}");
    }
    let message = StoredHash::parse("hunter2").unwrap_err().to_string();
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn a_hash_that_is_cut_or_bent_is_refused() {
    let mut bent: Vec<String> = [
        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ", // no output
        "$argon2id$v=19$m=65536,t=2,p=1",
        "$argon2id$v=20$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        "$argon2x$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        "$argon2id$v=19$m=65536,t=0,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFh", // three bytes
        "$2b$04$abcdefghijklmnopqrstuupK.cmRFvC/IBnMAohxQPjjCITVc4r9a ",
        "$2b$04$abcdefghijklmnopqrstuupK.cmRFvC/IBnMAohxQPjjCITVc4rä",
        "pbkdf2_sha256$1000$seasalt2$", // nothing to compare with: anything would match
        "pbkdf2_sha256$1000$seasalt2$Xg==",
        "pbkdf2_sha256$1000$$XgorALNvukv0EvNvIdAcBJwO8QUoJFAMVs0bpNtXMZU=",
        "$pbkdf2-sha256$i=1000$MDEyMzQ1Njc4OWFiY2RlZg$",
        "$pbkdf2-sha256$i=1000,k=2$MDEyMzQ1Njc4OWFiY2RlZg$m4CuPn9XPTj9ZY83fuXSmJmAUe2hCIgAYQLLVUExNS4",
        "$pbkdf2-sha256$l=32$MDEyMzQ1Njc4OWFiY2RlZg$m4CuPn9XPTj9ZY83fuXSmJmAUe2hCIgAYQLLVUExNS4",
    ]
    .map(str::to_owned)
    .into();
    bent.extend(FOREIGN.iter().map(|text| format!("{text}$more")));
    for text in &bent {
        assert!(matches!(StoredHash::parse(text), Err(BadHash::Malformed { .. })), "{text:?}");
    }
}

#[test]
fn debug_output_hides_passwords_and_hashes() {
    let secret = format!("{:?} {:?}", password(TYPED), stored(FOREIGN[0]));
    assert_eq!(secret, "Password(hidden) StoredHash(hidden)");
}
