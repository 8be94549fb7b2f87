//! Keys and names that a configuration may not have: those with which nothing could verify, those with which everybody
//! could sign, and those that would be in the way of every request or login.

use std::process::Command;

use serde_json::Value;

use crate::configuration::{GOOD, check, folder, without_marks};
use crate::harness::edge::{PASSWORD, TOKEN_COOKIE};
use crate::harness::process::text;
use crate::harness::{edge, origin, write_private};

/// What `check` says of the good configuration with this edit, with more files beside it.
fn check_with(edits: &[(&str, &str)], files: &[(&str, &str)]) -> (Option<i32>, String) {
    let edited = edits.iter().fold(GOOD.to_owned(), |text, (good, bad)| {
        assert_eq!(text.matches(good).count(), 1, "`{good}` stands once");
        text.replace(good, bad)
    });
    let (folder, file) = folder(&without_marks(&edited));
    for (name, content) in files {
        write_private(folder.path().join(name), content);
    }
    let checked = check(&file);
    (checked.status, checked.stderr)
}

fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).output().expect("openssl is installed: `make deps`");
    assert!(output.status.success(), "openssl {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// A pair of this kind, as openssl makes it: private and public in PEM form.
fn pair(kind: &str, options: &[&str]) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.pem");
    let options = options.iter().flat_map(|option| ["-pkeyopt", option]);
    let arguments: Vec<&str> = ["genpkey", "-algorithm", kind].into_iter().chain(options).collect();
    let private = openssl(&arguments);
    write_private(&file, &private);
    (private, openssl(&["pkey", "-in", file.to_str().unwrap(), "-pubout"]))
}

/// Every kind of key beside every algorithm: only the one that belongs to it is taken, as a private key and as a public one.
#[test]
fn a_key_that_could_never_verify_is_a_fault() {
    let kinds: &[(&str, &str, &[&str])] = &[
        ("ES256", "EC", &["ec_paramgen_curve:P-256"]),
        ("", "EC", &["ec_paramgen_curve:P-384"]),
        ("", "EC", &["ec_paramgen_curve:P-521"]),
        ("", "EC", &["ec_paramgen_curve:secp256k1"]),
        ("", "EC", &["ec_paramgen_curve:brainpoolP256r1"]),
        ("EdDSA", "ED25519", &[]),
        ("", "ED448", &[]),
        ("", "X25519", &[]),
        ("RS256", "RSA", &["rsa_keygen_bits:2048"]),
        ("", "RSA", &["rsa_keygen_bits:1024"]),
        ("", "RSA-PSS", &["rsa_keygen_bits:2048"]),
    ];
    let mut wrong = Vec::new();
    for (own, kind, options) in kinds {
        let (private, public) = pair(kind, options);
        for algorithm in ["ES256", "EdDSA", "RS256"] {
            for (name, key) in [("private_key", &private), ("public_key", &public)] {
                let edits = [
                    ("algorithm: ES256", format!("algorithm: {algorithm}")),
                    ("public_key: {file: public.pem}", format!("{name}: {{file: tried.pem}}")),
                ];
                let edits = edits.each_ref().map(|(good, bad)| (*good, bad.as_str()));
                let (status, said) = check_with(&edits, &[("tried.pem", key)]);
                let refused = status == Some(1) && said.contains(&format!("sentry.keys[1].{name}: "));
                if refused == (*own == algorithm) || (status == Some(0)) == refused {
                    wrong.push(format!("{kind} {options:?} as {name} of {algorithm}: {status:?} {said}"));
                }
            }
            // The other way round: a public key signs nothing, and neither does a private key publish itself.
            for (name, key) in [("private_key", &public), ("public_key", &private)] {
                let edits = [
                    ("algorithm: ES256", format!("algorithm: {algorithm}")),
                    ("public_key: {file: public.pem}", format!("{name}: {{file: tried.pem}}")),
                ];
                let edits = edits.each_ref().map(|(good, bad)| (*good, bad.as_str()));
                let (status, said) = check_with(&edits, &[("tried.pem", key)]);
                if status != Some(1) {
                    wrong.push(format!("{kind} {options:?}, its other half, as {name} of {algorithm}: {said}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_published_is_no_secret_whatever_it_is_wrapped_in() {
    let (private, public) = pair("RSA", &["rsa_keygen_bits:2048"]);
    let body: String = public.lines().filter(|line| !line.starts_with("-----")).collect();
    for (what, secret) in [
        ("a public key", public.clone()),
        ("behind a line", format!("# the key\n{public}")),
        ("its private half", private),
        ("without its frame", body.clone()),
        ("in lines", body.as_bytes().chunks(64).map(|line| text(line) + "\n").collect()),
        ("of ssh", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJxY4Q3S8b0n9cV3pF5m3mYb0bq0QmC3q7mYv7sQw3pX a@b\n".into()),
        ("as JSON", r#"{"kty":"RSA","e":"AQAB","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4"}"#.into()),
    ] {
        for weak in ["", "\n      allow_weak: true"] {
            let edit = ("secret: {value: SECRET}", format!("secret: {{file: tried.pem}}{weak}"));
            let (status, said) = check_with(&[(edit.0, &edit.1)], &[("tried.pem", &secret)]);
            assert_eq!(status, Some(1), "{what}: {said}");
            assert!(
                said.contains("sentry.keys[0].secret: this is ") && said.contains("and no secret"),
                "{what}: {said}"
            );
            assert!(!said.contains(&body[..40]), "{what}: {said}");
        }
    }
}

/// Whatever would be too long for a cookie fails when the configuration is read, and not at every login.
#[test]
fn what_stands_in_every_token_or_cookie_has_a_length() {
    for (good, bad, longest, key) in [
        ("id: second", "id: @", 128, "sentry.keys[1].id"),
        ("lifetime: 12h", "issuer: @", 512, "sentry.token.issuer"),
        ("name: __Host-JWTCookie", "name: __Host-@", 64 - 7, "sentry.cookie.name"),
        ("name: __Host-JWTCookie", "state_name: __Host-@", 64 - 7, "sentry.cookie.state_name"),
        ("ticket: {lifetime: 30s}", "ticket: {parameter: @}", 64, "sentry.ticket.parameter"),
    ] {
        for (length, fits) in [(longest, true), (longest + 1, false), (5000, false)] {
            let (status, said) = check_with(&[(good, &bad.replace('@', &"k".repeat(length)))], &[]);
            assert_eq!(status, Some(i32::from(!fits)), "{key} of {length}: {said}");
            assert!(fits || (said.contains(&format!(": {key}: ")) && said.lines().count() == 1), "{key}: {said}");
            assert!(!said.contains("kkkkk"), "{key}: {said}");
        }
    }
}

#[test]
fn an_identity_goes_by_no_name_that_says_something_else() {
    let spoken_for = [
        "Accept",
        "Accept-Encoding",
        "Accept-Language",
        "Access-Control-Request-Method",
        "Authorization",
        "Cache-Control",
        "Connection",
        "Content-Length",
        "Content-Type",
        "Content-Encoding",
        "Content-Range",
        "Cookie",
        "Date",
        "Expect",
        "Forwarded",
        "From",
        "Host",
        "If-Match",
        "If-Modified-Since",
        "If-None-Match",
        "If-Range",
        "Keep-Alive",
        "Last-Event-ID",
        "Location",
        "Origin",
        "Pragma",
        "Proxy-Authorization",
        "Proxy-Connection",
        "Range",
        "Referer",
        "Sec-Fetch-Site",
        "Sec-WebSocket-Key",
        "Server",
        "Set-Cookie",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "User-Agent",
        "Via",
        "WWW-Authenticate",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Prefix",
        "X-Original-URL",
        "X-Real-IP",
        "X-Request-ID",
        "X-Requested-With",
        "X-Rewrite-URL",
        "X-Sentry-Assertion",
        "X-Forwarded-Client-Cert",
        "traceparent",
        "HTTP2-Settings",
        "ETag",
        "Vary",
        "Strict-Transport-Security",
    ];
    for name in spoken_for {
        for spelled in [name.to_owned(), name.to_ascii_lowercase(), name.to_ascii_uppercase()] {
            for key in ["user", "email", "roles"] {
                let edit = format!("pool: second\n    identity_headers: {{{key}: {spelled}}}");
                let (status, said) = check_with(&[("pool: second", &edit)], &[]);
                let named = said.contains(&format!(": services.dextor.identity_headers.{key}: `"));
                assert!(status == Some(1) && named && said.contains("is a reserved header name"), "{spelled}: {said}");
            }
        }
    }
    for name in [
        "Remote-User",
        "X-Forwarded-User",
        "X-Auth-Request-Email",
        "X-WebAuth-User",
        "SM-USER",
        "X-Forwarded-Groups-2",
        "Iv-User",
    ] {
        let edit = format!("pool: second\n    identity_headers: {{user: {name}}}");
        let (status, said) = check_with(&[("pool: second", &edit)], &[]);
        assert_eq!((status, said.as_str()), (Some(0), ""), "{name}");
    }
}

/// A sign-on host of one label and a service of that name: a token of the service opens nothing at the sign-on host.
#[test]
fn a_services_token_is_none_of_the_sign_on_hosts_whatever_they_are_called() {
    let (iqueue, dextor) = (origin("iqueue"), origin("dextor"));
    let daemon = edge()
        .service_with("sentry", &iqueue, "hosts: [iqueue.test]")
        .service("dextor", &dextor)
        .user("bob", &["sentry", "dextor"], &[])
        .certificate(&["sentry"])
        .run_with(|yaml| yaml.replace("{host: sentry.test,", "{host: sentry,"));
    let sign_on = |path: &str| format!("https://sentry:{}{path}", daemon.address.port());
    let mut browser = daemon.client();
    let hops = browser.sign_in(&daemon.url("iqueue", "/"), "bob", PASSWORD);
    assert_eq!(hops.last().unwrap().status, 200, "{}", hops.last().unwrap().body);
    let [own, of_service] =
        ["sentry", "iqueue.test"].map(|host| browser.cookie(host, TOKEN_COOKIE).unwrap().to_owned());
    assert_eq!(browser.get(&sign_on("/currentUser")).json()["currentUser"]["name"], "bob");
    let mut thief = daemon.client();
    thief.set_cookie("sentry", TOKEN_COOKIE, &of_service);
    assert_eq!(thief.get(&sign_on("/currentUser")).json()["currentUser"], Value::Null);
    thief.set_cookie("iqueue.test", TOKEN_COOKIE, &own);
    assert_eq!(thief.get(&daemon.url("iqueue", "/.sentry/currentUser")).json()["currentUser"], Value::Null);
    let seen = dextor.count();
    thief.follow(&daemon.url("dextor", "/"));
    assert_eq!(dextor.count(), seen, "nothing was opened with it");
}
