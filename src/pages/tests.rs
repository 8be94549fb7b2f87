//! What every page must hold: one style, no script, nothing unescaped, colours that can be read.

use super::*;

const HOSTILE: &str = "\"'><script>alert(1)</script>";

const NOTICES: [Notice; 12] = [
    Notice::WrongCredentials,
    Notice::MissingFields,
    Notice::SessionEnded,
    Notice::FormTooOld,
    Notice::TooManyAttempts { retry_after_s: 90 },
    Notice::Busy,
    Notice::DirectoryAway,
    Notice::StoreAway,
    Notice::Failed,
    Notice::Unrecorded,
    Notice::CookieNotKept,
    Notice::TooLarge,
];

fn login(branding: &Branding) -> Login<'_> {
    Login {
        branding,
        csrf: "c5f2",
        redirect_url: "",
        state: "",
        username: "",
        destination: None,
        notice: None,
        request_id: "r-1",
    }
}

/// Every page, with `word` wherever a page takes text.
fn every_page(word: &str) -> Vec<String> {
    let text = || Some(word.to_owned());
    let branding = &Branding { title: word.to_owned(), logo: text(), text: text() };
    let services = [(word.to_owned(), word.to_owned())];
    let request_id = word;
    let ways = Ways { user: Some(word), again: Some(word), applications: Some(word), sign_out: Some(word) };
    let form = Login {
        csrf: word,
        redirect_url: word,
        state: word,
        username: word,
        destination: Some(word),
        notice: Some(Notice::WrongCredentials),
        request_id,
        ..login(branding)
    };
    vec![
        form.render(),
        Problem { branding, status: 403, title: word, text: word, request_id, ways }.render(),
        SignedOut { branding, elsewhere: Some(word), sign_in: Some(word), request_id }.render(),
        ConfirmLogout { branding, action: word, request_id }.render(),
        Home { branding, user: word, services: &services, logout: word, request_id }.render(),
        Loop { branding, host: word, request_id, ways }.render(),
        SignedIn { branding, user: word, destination: Some(word), go_on: word, other: word, request_id }.render(),
        Beside { branding, host: word, why: Why::ForeignFrame, href: word, request_id }.render(),
        Beside { branding, host: word, why: Why::OwnFrame, href: word, request_id }.render(),
    ]
}

/// What stands between the first `from` and the next `to`.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let rest = text.split_once(from).unwrap_or_else(|| panic!("no {from}")).1;
    rest.split_once(to).unwrap_or_else(|| panic!("no {to}")).0
}

/// The tag of the input with that name.
fn input<'a>(page: &'a str, name: &str) -> &'a str {
    let tags = page.split("<input").skip(1).map(|rest| rest.split('>').next().unwrap());
    tags.into_iter().find(|tag| tag.contains(&format!("name=\"{name}\""))).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn every_page_carries_exactly_the_one_style_that_the_policy_names() {
    for page in every_page("word") {
        assert_eq!(page.matches("<style").count(), 1);
        let style = between(&page, "<style>", "</style>");
        assert_eq!(style_hash(), format!("sha256-{}", STANDARD.encode(digest(&SHA256, style.as_bytes()))));
    }
}

#[test]
fn no_page_runs_a_script_or_fetches_anything() {
    for page in every_page("word") {
        for refused in ["<script", "javascript:", " onclick", " onload", " style=", "://", "url(", "@import"] {
            assert!(!page.contains(refused), "{refused} in {page}");
        }
    }
}

#[test]
fn whatever_is_put_into_a_page_stays_text() {
    for (harmless, hostile) in every_page("word").iter().zip(every_page(HOSTILE)) {
        for mark in ['<', '>', '"', '\''] {
            assert_eq!(hostile.matches(mark).count(), harmless.matches(mark).count(), "{mark} in {hostile}");
        }
        assert!(hostile.contains("&#34;&#39;&#62;&#60;script&#62;alert(1)&#60;/script&#62;"));
    }
}

#[test]
fn every_page_has_a_language_a_title_a_viewport_and_tells_other_sites_no_referrer() {
    for page in every_page("word") {
        assert!(page.starts_with("<!doctype html>\n<html lang=\"en\">"));
        assert!(!between(&page, "<title>", "</title>").is_empty());
        assert!(page.contains("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"));
        // A form leads back to us, and old browsers say where it came from under this policy alone.
        let policy = if page.contains("<form") { "same-origin" } else { "no-referrer" };
        assert!(page.contains(&format!("<meta name=\"referrer\" content=\"{policy}\">")), "{page}");
        assert_eq!(page.matches("<h1>").count(), 1);
    }
}

#[test]
fn every_page_shows_its_reference_but_a_form_that_is_in_order() {
    let branding = Branding::default();
    for page in every_page("r-77") {
        assert!(page.contains("<code>r-77</code>"));
    }
    assert!(!login(&branding).render().contains("<code>"));
}

#[test]
fn the_form_posts_what_it_was_given() {
    let branding = Branding::default();
    let form =
        Login { redirect_url: "https://iq.example/?a=1&b=2", state: "s7", username: "mkeller", ..login(&branding) };
    let page = form.render();
    assert!(page.contains("<form method=\"post\">"));
    assert!(input(&page, "csrf").contains("type=\"hidden\" name=\"csrf\" value=\"c5f2\""));
    assert!(input(&page, "redirectURL").contains("value=\"https://iq.example/?a=1&#38;b=2\""));
    assert!(input(&page, "state").contains("value=\"s7\""));
    assert!(input(&page, "username").contains("value=\"mkeller\""));
}

#[test]
fn the_password_is_never_put_back() {
    let page = &every_page("word")[0];
    assert!(input(page, "password").contains("type=\"password\""));
    assert!(!input(page, "password").contains("value"));
}

#[test]
fn password_managers_know_both_fields() {
    let page = login(&Branding::default()).render();
    assert!(input(&page, "username").contains("autocomplete=\"username\""));
    assert!(input(&page, "password").contains("autocomplete=\"current-password\""));
    assert!(page.contains("<label for=\"username\">") && page.contains("<label for=\"password\">"));
}

#[test]
fn the_cursor_waits_in_the_first_field_to_be_filled() {
    let branding = Branding::default();
    for (username, focused, other) in [("", "username", "password"), ("mkeller", "password", "username")] {
        let page = Login { username, ..login(&branding) }.render();
        assert!(input(&page, focused).contains("autofocus"));
        assert!(!input(&page, other).contains("autofocus"));
    }
}

#[test]
fn a_failed_attempt_is_an_alert_and_an_ended_session_a_status() {
    let branding = Branding::default();
    for notice in NOTICES {
        let page = Login { notice: Some(notice), ..login(&branding) }.render();
        let role = if notice.is_error() { "role=\"alert\"" } else { "role=\"status\"" };
        assert!(page.contains(&format!("{role}>{notice}</p>")), "{page}");
        assert_eq!(page.contains("<title>Error: "), notice.is_error());
        assert_eq!(page.matches("aria-describedby=\"notice\"").count(), 2);
    }
    assert!(!Notice::SessionEnded.is_error());
    assert!(!login(&branding).render().contains("aria-describedby"));
}

#[test]
fn only_the_fields_in_doubt_are_marked_invalid() {
    let branding = Branding::default();
    let cases = [
        (Notice::WrongCredentials, "mkeller", true, true),
        (Notice::MissingFields, "", true, false),
        (Notice::MissingFields, "mkeller", false, true),
        (Notice::StoreAway, "mkeller", false, false),
    ];
    for (notice, username, username_in_doubt, password_in_doubt) in cases {
        let page = Login { notice: Some(notice), username, ..login(&branding) }.render();
        assert_eq!(input(&page, "username").contains("aria-invalid"), username_in_doubt, "{notice:?}");
        assert_eq!(input(&page, "password").contains("aria-invalid"), password_in_doubt, "{notice:?}");
    }
}

#[test]
fn a_wait_is_in_words_and_never_too_short() {
    let waits = [(0, "a minute"), (60, "a minute"), (61, "2 minutes"), (900, "15 minutes"), (7201, "3 hours")];
    for (retry_after_s, words) in waits {
        let sentence = Notice::TooManyAttempts { retry_after_s }.to_string();
        assert!(sentence.ends_with(&format!("try again in {words}.")), "{sentence}");
    }
}

#[test]
fn a_user_without_an_application_reads_whom_to_ask() {
    let branding = &Branding::default();
    let page = Home { branding, user: "mkeller", services: &[], logout: "/logout", request_id: "r-1" }.render();
    assert!(page.contains("ask your administrator"));
    assert!(!page.contains("<ul"));
}

#[test]
fn a_page_without_a_way_on_has_no_link() {
    let branding = &Branding::default();
    let ways = Ways::default();
    let problem = Problem { branding, status: 404, title: "Not found", text: "", request_id: "r-1", ways };
    assert!(!problem.render().contains("<a "));
    assert!(!SignedOut { branding, elsewhere: None, sign_in: None, request_id: "r-1" }.render().contains("<a "));
}

#[test]
fn a_problem_has_the_ways_on_that_are_known_and_no_others() {
    let branding = &Branding::default();
    let all = Ways { user: Some("ana"), again: Some(""), applications: Some("/list"), sign_out: Some("/out") };
    let page = |ways| Problem { branding, status: 403, title: "T", text: "", request_id: "r-1", ways }.render();
    let marks =
        ["Signed in as <strong>ana</strong>", "href=\"\">Try again", "href=\"/list\">", "href=\"/out\">Sign out"];
    for mark in marks {
        assert!(page(all).contains(mark), "{mark}: {}", page(all));
        assert!(!page(Ways::default()).contains(mark));
    }
    assert!(page(all).contains("<nav aria-label=") && !page(Ways::default()).contains("<nav"));
    let sign_out_alone = page(Ways { sign_out: Some("/out"), ..Ways::default() });
    assert!(sign_out_alone.contains("/out") && !sign_out_alone.contains("Your applications"));
}

#[test]
fn a_reference_is_short_first_and_then_whole() {
    let branding = &Branding::default();
    for (request_id, short) in
        [("5a6f1f08-1484-4a12-8a26-406c81729c0b", "5a6f1f08"), ("r-1", "r-1"), ("é12345678", "é1234567"), ("", "")]
    {
        let page = Problem { branding, status: 500, title: "T", text: "", request_id, ways: Ways::default() }.render();
        let at = |text: String| page.find(&text).unwrap_or_else(|| panic!("{text}: {page}"));
        assert!(at(format!("<strong>{short}</strong>")) < at(format!("<code>{request_id}</code>")));
    }
}

#[test]
fn a_problem_has_no_large_logo() {
    for (bytes, expected) in [(32 * 1024, true), (32 * 1024 + 1, false)] {
        let branding = &Branding { logo: Some("x".repeat(bytes)), ..Branding::default() };
        let ways = Ways::default();
        let problem = Problem { branding, status: 500, title: "T", text: "", request_id: "r", ways }.render();
        let round = Loop { branding, host: "h", request_id: "r", ways }.render();
        for page in [problem, round] {
            assert_eq!(page.contains("<img"), expected, "{bytes}");
        }
        assert!(login(branding).render().contains("<img"));
    }
}

/// WCAG 2.2: text 4.5 to 1 (success criterion 1.4.3), the edge of a field 3 to 1 (1.4.11).
#[test]
fn colours_have_enough_contrast_in_light_and_in_dark() {
    let pairs = [
        ("text", "card", 4.5),
        ("quiet", "card", 4.5),
        ("quiet", "page", 4.5),
        ("accent", "card", 4.5),
        ("on-accent", "accent", 4.5),
        ("on-accent", "accent-hover", 4.5),
        ("text", "note", 4.5),
        ("text", "alert-note", 4.5),
        ("alert", "card", 3.0),
        ("field", "card", 3.0),
    ];
    for scheme in include_str!("style.css").split(":root {").skip(1) {
        for (front, back, least) in pairs {
            let colour = |name| luminance(between(scheme, &format!("--{name}: #"), ";"));
            let (front_light, back_light) = (colour(front), colour(back));
            let contrast = (front_light.max(back_light) + 0.05) / (front_light.min(back_light) + 0.05);
            assert!(contrast >= least, "{front} on {back}: {contrast:.2}");
        }
    }
}

/// Relative luminance of `rrggbb`, as WCAG defines it.
fn luminance(hex: &str) -> f64 {
    let channel = |at: usize| {
        let value = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * channel(0) + 0.7152 * channel(2) + 0.0722 * channel(4)
}
