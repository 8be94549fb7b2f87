//! Files as editors on Windows save them: byte order marks, UTF-16, other line ends, other code pages.

use crate::configuration::{GOOD, check, folder, without_marks};
use crate::harness::edge::HMAC_KEY;
use crate::harness::process::{sentry_edge, text};
use crate::harness::{edge, origin};

fn utf16(text: &str, little: bool) -> Vec<u8> {
    let bytes = |unit: u16| if little { unit.to_le_bytes() } else { unit.to_be_bytes() };
    text.encode_utf16().flat_map(bytes).collect()
}

#[test]
fn a_configuration_is_read_or_the_way_that_it_was_saved_is_named() {
    let good = without_marks(GOOD);
    let marked = format!("\u{feff}{good}");
    let (_folder, file) = folder(&good);
    let begin = format!("{}:", file.display());
    for (what, bytes, said) in [
        ("a mark", marked.clone().into_bytes(), ""),
        ("other line ends", good.replace('\n', "\r\n").into_bytes(), ""),
        ("both", marked.replace('\n', "\r\n").into_bytes(), ""),
        ("UTF-16", utf16(&marked, true), "the file is in UTF-16"),
        ("UTF-16, the other way round", utf16(&marked, false), "the file is in UTF-16"),
        ("UTF-16 without a mark", utf16(&good, true), "the file is in UTF-16"),
        ("UTF-16, the other way round, without a mark", utf16(&good, false), "the file is in UTF-16"),
        ("Latin-1", [b"# 1\n# Universit\xe4t\n", good.as_bytes()].concat(), "2: a character that is not UTF-8"),
    ] {
        std::fs::write(&file, bytes).unwrap();
        let checked = check(&file);
        let expected = if said.is_empty() { (Some(0), 0) } else { (Some(1), 1) };
        assert_eq!((checked.status, checked.stderr.lines().count()), expected, "{what}: {}", checked.stderr);
        let fits = said.is_empty() || checked.stderr.starts_with(&begin) && checked.stderr.contains(said);
        assert!(fits, "{what}: {}", checked.stderr);
    }
}

#[test]
fn a_fault_after_a_mark_has_its_line() {
    let (_folder, file) = folder(&format!("\u{feff}{}", without_marks(GOOD).replace("threads: 2", "threads: many")));
    let checked = check(&file);
    assert!(checked.stderr.starts_with(&format!("{}:2: server.threads: ", file.display())), "{}", checked.stderr);
}

#[test]
fn a_secret_in_such_a_file_is_refused_and_not_taken_for_another() {
    let app = origin("app");
    let from_file = |yaml: &str| yaml.replace(&format!("{{value: {HMAC_KEY}}}"), "{file: jwt.key}");
    for (what, bytes, is_good) in [
        ("as it is", HMAC_KEY.as_bytes().to_vec(), true),
        ("with a line end of Windows", format!("{HMAC_KEY}\r\n").into_bytes(), true),
        ("random bytes", [0xff, 0xfe, 7, 9, 200, 1, 0, 3].repeat(5), true),
        ("a mark", format!("\u{feff}{HMAC_KEY}").into_bytes(), false),
        ("UTF-16", utf16(&format!("\u{feff}{HMAC_KEY}"), true), false),
        ("UTF-16 without a mark", utf16(HMAC_KEY, false), false),
    ] {
        let (folder, file) = edge().service("iqueue", &app).write();
        let yaml = std::fs::read_to_string(&file).unwrap();
        crate::harness::write_private(&file, from_file(&yaml));
        crate::harness::write_private(folder.path().join("jwt.key"), bytes);
        let checked = sentry_edge(&["check", "-c", file.to_str().unwrap()]);
        let said = text(&checked.stderr);
        assert_eq!(checked.status.code(), Some(i32::from(!is_good)), "{what}: {said}");
        assert!(is_good || said.contains("byte order mark") && !said.contains(HMAC_KEY), "{what}: {said}");
    }
}

#[test]
fn certificates_and_keys_are_read_over_a_mark() {
    let app = origin("app");
    let (folder, file) = edge().service("iqueue", &app).write();
    for name in ["edge.pem", "edge.key"] {
        let path = folder.path().join(name);
        let pem = std::fs::read_to_string(&path).unwrap().replace('\n', "\r\n");
        crate::harness::write_private(&path, format!("\u{feff}{pem}"));
    }
    let checked = sentry_edge(&["check", "-c", file.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
}
