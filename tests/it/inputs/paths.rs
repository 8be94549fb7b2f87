//! Inputs 91 to 108: spellings of a path, where `/public` is public and everything else is not.

use super::{Row, Scene, request};

const RULES: &str = "routes: [{path: /public, access: public}]";

/// The last column: whether such a path is refused outright, so that not even somebody who is signed in has it
/// forwarded.
const PATHS: [(&str, &str, bool); 24] = [
    ("91", "/public/../admin", true),
    ("92", "/public/%2e%2e/admin", true),
    ("92", "/public/%2E%2e/admin", true),
    ("92", "/public/.%2e/admin", true),
    ("93", "/public/..%2fadmin", true),
    ("94", "/public/%2e%2e%2fadmin", true),
    ("95", "/public/..;/admin", true),
    ("96", "/public/.%00./admin", true),
    ("96", "/public/../../admin", true),
    ("96", "/public/%", true),
    ("97", "/public%2f..%2fadmin", true),
    ("98", "//admin", false),
    ("98", "//public/../admin", true),
    ("98", "/public//../admin", true),
    ("99", "/\\admin", true),
    ("100", "/public/..%5cadmin", true),
    ("101", "/public/%252e%252e/admin", true),
    ("102", "/PUBLIC/../admin", true),
    ("103", "/public;/../admin", true),
    ("105", "/public#/../admin", true),
    ("106", "/admin?x=/public/", false),
    ("107", "/public/%c0%ae%c0%ae/admin", true),
    ("108", "/%70ublic/../admin", true),
    ("108", "/%70ublic/x", true),
];

/// Dots in a query climb nowhere: this is the public page with an odd query.
const QUERY: &str = "/public/x?/../../admin";

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (number, path, refused) in PATHS {
        for (accept, login) in [("text/html", 302), ("*/*", 401)] {
            let sent = request(&format!("GET {path}"), &format!("Accept: {accept}\r\n"), "");
            let row = if refused { Row::refused(number, 400, sent) } else { Row::answered(number, login, sent) };
            rows.push(row);
        }
    }
    for path in ["/admin?/../public/x", "/?/public"] {
        rows.push(Row::answered("106", 401, request(&format!("GET {path}"), "", "")));
    }
    let row = Row::served("104", request(&format!("GET {QUERY}"), "", ""), |seen| assert_eq!(seen.target, QUERY));
    rows.push(
        row.instead("a query takes no part in the choice of a rule, whatever it looks like; the path is /public/x"),
    );
    rows
}

#[test]
fn no_spelling_of_a_path_slips_past_the_guard_by_a_public_rule() {
    let scene = Scene::with(RULES);
    scene.ask(&rows());
    scene.ask(&[Row::served("91", request("GET /public/x", "", ""), |seen| assert_eq!(seen.target, "/public/x"))]);
}

/// With a good cookie, what reaches the application is what was sent, byte for byte.
#[test]
fn with_a_good_cookie_the_path_reaches_the_application_byte_for_byte() {
    let scene = Scene::with(RULES);
    let fields = format!("User-Agent: test/1\r\nCookie: {}\r\n", scene.cookie());
    let plain = ["/a/b;c=d?e=f&&g=%20+h", "/a%20b/%C3%A9?%zz", "/public//x/", "/a?b?c=/../d", "/?", QUERY]
        .map(|path| ("91", path, false));
    for (number, path, refused) in PATHS.into_iter().chain(plain) {
        let sent = request(&format!("GET {path}"), &fields, "");
        if refused {
            scene.ask(&[Row::refused(number, 400, sent)]);
        } else {
            scene.ask(&[Row::served(number, sent, |_| {})]);
            let targets: Vec<String> = scene.iqueue.seen().into_iter().map(|seen| seen.target).collect();
            assert_eq!(targets.iter().rev().find(|target| *target != "/behind").unwrap(), path, "{number}");
        }
    }
}
