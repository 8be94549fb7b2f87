//! The token: which ones open a session and which do not, whatever they look like; keys, rotation, audiences.
//!
//! Forgeries are made by hand, most of them with the edge's own key, so that nothing but the one thing that is wrong
//! can be the reason. Numbers are those of the threat report's list of bad inputs.

use std::net::TcpListener;
use std::sync::OnceLock;
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rsa::pkcs8::{DecodePrivateKey, EncodePublicKey};
use sentry_edge::auth::keys::generate;
use sentry_edge::config;
use serde_json::{Value, json};

use crate::harness::edge::{Builder, HMAC_KEY, TOKEN_COOKIE};
use crate::harness::forgery::{base64url, claims_of, header_of, hmac_signed, part, signed, with};
use crate::harness::{Client, Edge, Origin, edge, memcached, origin};

/// The header of the edge's own tokens.
const HEADER: &str = r#"{"alg":"HS256","typ":"session+jwt","kid":"main"}"#;

// ---- the bench on which forgeries are tried ----

/// An edge with a key of each kind, and a real session's claims to forge from.
struct Bench {
    edge: Edge,
    iqueue: Origin,
    browser: Client,
    claims: Value,
    token: String,
}

/// Private keys in PEM.
struct Pems {
    es256: String,
    eddsa: String,
    rs256: String,
}

fn pems() -> &'static Pems {
    static PEMS: OnceLock<Pems> = OnceLock::new();
    PEMS.get_or_init(|| {
        let pem = |algorithm| generate(algorithm).unwrap().to_string();
        let (es256, eddsa) = (pem(config::Algorithm::ES256), pem(config::Algorithm::EdDSA));
        Pems { es256, eddsa, rs256: pem(config::Algorithm::RS256) }
    })
}

fn key(id: &str, algorithm: &str, pem: &str) -> String {
    format!("{{id: {id}, algorithm: {algorithm}, private_key: {{value: {pem:?}}}}}")
}

fn hmac_key(id: &str, secret: &str) -> String {
    format!("{{id: {id}, algorithm: HS256, secret: {{value: {secret}}}}}")
}

/// A key of each algorithm: `main`, `es`, `ed`, `rs`.
fn four_keys() -> String {
    let pems = pems();
    let keys = [
        hmac_key("main", HMAC_KEY),
        key("es", "ES256", &pems.es256),
        key("ed", "EdDSA", &pems.eddsa),
        key("rs", "RS256", &pems.rs256),
    ];
    format!("[{}]", keys.join(", "))
}

fn services(iqueue: &Origin, dextor: &Origin) -> Builder {
    edge()
        .service_with("iqueue", iqueue, "routes: [{path: /api, credentials: [cookie, bearer]}]")
        .service("dextor", dextor)
}

fn bench() -> Bench {
    let iqueue = origin("iqueue");
    let edge = services(&iqueue, &origin("dextor")).keys(&four_keys()).start();
    let browser = edge.signed_in();
    let token = token_at(&edge, &browser, "iqueue");
    let bench = Bench { claims: claims_of(&token), iqueue, browser, edge, token };
    bench.admits("what the edge itself issued", &bench.token);
    bench.admits("the same claims, signed by hand", &signed(HEADER, bench.claims.to_string()));
    bench
}

fn token_at(edge: &Edge, browser: &Client, name: &str) -> String {
    browser.cookie(&edge.host(name), TOKEN_COOKIE).expect("a token cookie").to_owned()
}

impl Bench {
    /// The claims with changes, under the edge's own key.
    fn forged(&self, changes: Value) -> String {
        signed(HEADER, with(&self.claims, changes))
    }

    /// The claims under another header, under the edge's own key.
    fn headed(&self, header: impl AsRef<[u8]>) -> String {
        signed(header, self.claims.to_string())
    }

    fn now(&self) -> u64 {
        self.edge.clock.now().seconds()
    }

    fn admits(&self, what: &str, token: &str) {
        let mut browser = self.edge.client();
        browser.set_cookie(&self.edge.host("iqueue"), TOKEN_COOKIE, token);
        let page = browser.open(&self.edge.url("iqueue", "/"));
        assert_eq!((page.status, page.body.as_str()), (200, "hello from iqueue"), "{what}");
    }

    /// Refused as a cookie and as a bearer token, each time for this reason, and the application hears nothing.
    fn refuses(&self, what: &str, token: &str, reason: &str) {
        let heard = self.iqueue.count();
        let before = self.refused_for(reason);
        let mut browser = self.edge.client();
        browser.set_cookie(&self.edge.host("iqueue"), TOKEN_COOKIE, token);
        let page = browser.open(&self.edge.url("iqueue", "/"));
        assert_eq!(page.status, 302, "{what}: {}", page.body);
        assert_eq!(page.location_path(), Some(self.edge.url("sentry", "/noCookie")), "{what}");
        // Another clock, another edge or a reload may find the others good.
        let is_spent = ["malformed", "bad_signature", "expired", "no_session", "revoked"].contains(&reason);
        let cleared = page.set_cookie(TOKEN_COOKIE);
        assert_eq!(cleared.is_some_and(|cookie| cookie.contains("Max-Age=0")), is_spent, "{what}: {cleared:?}");
        assert_eq!(self.refused_for(reason), before + 1.0, "{what} is no session because of {reason}");

        let mut program = self.edge.client();
        let url = self.edge.url("iqueue", "/api/x");
        let answer = program.ask("GET", &url).field("authorization", &format!("Bearer {token}")).send();
        assert_eq!(answer.status, 401, "{what}, as a bearer token: {}", answer.body);
        assert_eq!(self.refused_for(reason), before + 2.0, "{what}, as a bearer token");
        assert_eq!(self.iqueue.count(), heard, "{what}: the application hears nothing");
    }

    fn refused_for(&self, reason: &str) -> f64 {
        let labels = format!("outcome=\"login_required\",reason=\"{reason}\",service=\"iqueue\"");
        self.edge.metric("sentry_edge_auth_decisions_total", &labels)
    }
}

fn sign_with(algorithm: Algorithm, kid: &str, pem: &str, claims: &Value) -> String {
    let mut header = Header::new(algorithm);
    header.typ = Some("session+jwt".into());
    header.kid = Some(kid.into());
    let key = match algorithm {
        Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes()),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()),
        _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
    };
    jsonwebtoken::encode(&header, claims, &key.unwrap()).unwrap()
}

// ---- forgeries ----

/// Input 61.
#[test]
fn a_token_without_a_signature_opens_nothing_however_none_is_spelled() {
    let bench = bench();
    let payload = base64url(bench.claims.to_string());
    let signature = bench.token.rsplit('.').next().unwrap();
    for none in ["none", "None", "nOnE", "NONE", "", "null", " none"] {
        for header in
            [format!(r#"{{"alg":"{none}","typ":"session+jwt","kid":"main"}}"#), format!(r#"{{"alg":"{none}"}}"#)]
        {
            let message = format!("{}.{payload}", base64url(&header));
            bench.refuses(&format!("61: {header}"), &format!("{message}."), "malformed");
            bench.refuses(&format!("61: {header}, with a signature"), &format!("{message}.{signature}"), "malformed");
        }
        bench.refuses(
            "61: and with our MAC",
            &bench.headed(format!(r#"{{"alg":"{none}","kid":"main"}}"#)),
            "malformed",
        );
    }
    let unsigned = format!("{}.{payload}.", bench.token.split('.').next().unwrap());
    bench.refuses("61: a good header and no signature", &unsigned, "bad_signature");
}

/// Inputs 62, 63 and 68: a key is for one algorithm, and a token has no say in it (RFC 8725 §3.1).
#[test]
fn a_token_cannot_choose_another_algorithm_than_its_keys() {
    let bench = bench();
    let (pems, claims) = (pems(), &bench.claims);
    for (algorithm, kid, pem) in [
        (Algorithm::ES256, "es", &pems.es256),
        (Algorithm::EdDSA, "ed", &pems.eddsa),
        (Algorithm::RS256, "rs", &pems.rs256),
    ] {
        bench.admits(&format!("{algorithm:?} with its own key"), &sign_with(algorithm, kid, pem, claims));
        for other in ["main", "es", "ed", "rs"].into_iter().filter(|other| *other != kid) {
            let confused = sign_with(algorithm, other, pem, claims);
            bench.refuses(&format!("{algorithm:?} that names {other}"), &confused, "bad_signature");
        }
        let relabelled = |alg: &str| {
            let token = sign_with(algorithm, kid, pem, claims);
            let header = format!(r#"{{"alg":"{alg}","typ":"session+jwt","kid":"{kid}"}}"#);
            format!("{}.{}", base64url(header), token.split_once('.').unwrap().1)
        };
        for alg in ["HS256", "HS384", "RS384", "RS512", "PS256", "ES384"] {
            bench.refuses(&format!("63: {kid} relabelled {alg}"), &relabelled(alg), "bad_signature");
        }
        for alg in ["ES512", "es256", "rs256", "HS256 ", "ES256K"] {
            bench.refuses(&format!("63: {kid} relabelled {alg}"), &relabelled(alg), "malformed");
        }
    }

    let public = rsa::RsaPrivateKey::from_pkcs8_pem(&pems.rs256).unwrap().to_public_key();
    let pem = public.to_public_key_pem(rsa::pkcs8::LineEnding::LF).unwrap();
    let der = public.to_public_key_der().unwrap();
    for (what, secret) in [
        ("PEM", pem.as_bytes()),
        ("PEM, trimmed", pem.trim_end().as_bytes()),
        ("DER", der.as_bytes()),
        ("nothing", b""),
    ] {
        for kid in ["rs", "main", "es", "ed"] {
            let header = format!(r#"{{"alg":"HS256","typ":"session+jwt","kid":"{kid}"}}"#);
            let token = hmac_signed(header, claims.to_string(), secret);
            bench.refuses(&format!("62: HS256 keyed with {what}, kid {kid}"), &token, "bad_signature");
        }
    }

    let header = base64url(r#"{"alg":"ES256","typ":"session+jwt","kid":"es"}"#);
    let message = format!("{header}.{}", base64url(claims.to_string()));
    // The order of P-256, which some implementations take for zero.
    let order = b"\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xbc\xe6\xfa\xad\xa7\x17\x9e\x84\xf3\xb9\xca\xc2\xfc\x63\x25\x51";
    for (what, signature) in [
        ("r = s = 0", vec![0; 64]),
        ("r = 0", [vec![0; 63], vec![1]].concat()),
        ("r = s = n", [*order, *order].concat()),
        ("r = s = 0 in DER", vec![0x30, 6, 2, 1, 0, 2, 1, 0]),
        ("nothing", vec![]),
    ] {
        bench.refuses(&format!("68: {what}"), &format!("{message}.{}", base64url(signature)), "bad_signature");
    }
}

/// Inputs 64 to 67: nothing that a header says about keys is believed (RFC 8725 §3.10).
#[test]
fn a_header_brings_no_key_of_its_own_and_nobody_is_asked_for_one() {
    let bench = bench();
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let url = format!("http://{}/keys.json", trap.local_addr().unwrap());
    let own = b"the attacker's own key, 32 bytes at least";
    let jwk = json!({"kty": "oct", "alg": "HS256", "k": base64url(own)});
    for (number, more) in [
        ("64", json!({"jwk": jwk})),
        ("64", json!({"jwk": jwk, "kid": "attacker"})),
        ("65", json!({"jku": url})),
        ("65", json!({"x5u": url})),
        ("65", json!({"jku": url, "kid": "attacker"})),
        ("65", json!({"x5c": ["MIIB"]})),
    ] {
        let header: Value = serde_json::from_str(HEADER).unwrap();
        let header = with(&header, more.clone());
        let reason = if more["kid"].is_null() { "bad_signature" } else { "unknown_key" };
        bench.refuses(&format!("{number}: {header}"), &hmac_signed(&header, bench.claims.to_string(), own), reason);
    }
    let nobody = trap.accept().map(|(_, from)| from).unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock, "65: nobody has connected");

    let asked = bench.edge.metric_sum("sentry_edge_session_store_operations_total");
    for (kid, reason) in [
        (json!("../../dev/null"), "unknown_key"),
        (json!("' OR 1=1--"), "unknown_key"),
        (json!("a\r\nget x"), "unknown_key"),
        (json!("main\0"), "unknown_key"),
        (json!("MAIN"), "unknown_key"),
        (json!(" main"), "unknown_key"),
        (json!(""), "unknown_key"),
        (json!(null), "unknown_key"),
        (json!("k".repeat(5 * 1024)), "malformed"),
        (json!(["main"]), "malformed"),
        (json!({"main": 1}), "malformed"),
        (json!(0), "malformed"),
    ] {
        let header = json!({"alg": "HS256", "typ": "session+jwt", "kid": kid}).to_string();
        bench.refuses(&format!("66: kid {kid}"), &bench.headed(header), reason);
    }
    let header = r#"{"alg":"HS256","typ":"session+jwt"}"#;
    bench.refuses("66: no kid", &bench.headed(header), "unknown_key");
    let now_asked = bench.edge.metric_sum("sentry_edge_session_store_operations_total");
    assert_eq!(now_asked, asked, "66: the store is not asked for any of them");

    let unencoded = {
        let header = r#"{"alg":"HS256","typ":"session+jwt","kid":"main","crit":["b64"],"b64":false}"#;
        let message = format!("{}.{}", base64url(header), bench.claims);
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, HMAC_KEY.as_bytes());
        let signature = base64url(ring::hmac::sign(&key, message.as_bytes()));
        format!("{}.{}.{signature}", base64url(header), base64url(bench.claims.to_string()))
    };
    bench.refuses("67: MAC over the payload as it is", &unencoded, "malformed");
    for extension in [
        r#""crit":["b64"],"b64":false"#,
        r#""b64":false"#,
        r#""b64":true"#,
        r#""b64":null"#,
        r#""crit":["exp"]"#,
        r#""crit":[]"#,
        r#""crit":"b64""#,
        r#""crit":["urn:example:x"],"urn:example:x":1"#,
    ] {
        let header = format!(r#"{{"alg":"HS256","typ":"session+jwt","kid":"main",{extension}}}"#);
        bench.refuses(&format!("67: {extension}"), &bench.headed(header), "malformed");
    }
}

/// Input 69.
#[test]
fn a_signature_is_taken_whole_or_not_at_all() {
    let bench = bench();
    let (message, signature) = bench.token.rsplit_once('.').unwrap();
    let bytes = part(&bench.token, 2);
    let mut flipped = bytes.clone();
    flipped[0] ^= 1;
    for (what, bytes) in [
        ("a byte shorter", &bytes[..31]),
        ("a byte longer", &[&bytes[..], &[0]].concat()),
        ("a bit changed", &flipped),
        ("twice", &[&bytes[..], &bytes[..]].concat()),
        ("its first half", &bytes[..16]),
    ] {
        bench.refuses(&format!("69: {what}"), &format!("{message}.{}", base64url(bytes)), "bad_signature");
    }
    let cut = &signature[..signature.len() - 1];
    // 43 characters hold 258 bits: two more than the MAC has. Only one of the four spellings is ours.
    let last = signature.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let at = alphabet.find(last).unwrap();
    for spare in 1..4 {
        let other = alphabet.as_bytes()[at + spare] as char;
        bench.refuses("69: spare bits set", &format!("{message}.{cut}{other}"), "malformed");
    }
    let changed = with(&bench.claims, json!({"roles": ["admin", "root"]}));
    let (header, rest) = bench.token.split_once('.').unwrap();
    let signature = rest.split_once('.').unwrap().1;
    let swapped = format!("{header}.{}.{signature}", base64url(changed));
    bench.refuses("other claims under the old signature", &swapped, "bad_signature");
}

/// Inputs 70, 72 to 76: each claim is there, once, and of its type.
#[test]
fn claims_that_are_missing_odd_or_doubled_open_nothing() {
    let bench = bench();
    let now = bench.now();
    for name in ["iss", "sub", "name", "roles", "services", "sid", "jti", "iat", "nbf", "exp", "aud", "idle"] {
        bench.refuses(&format!("70: without {name}"), &bench.forged(json!({name: null})), "malformed");
    }
    let own = |name: &str| bench.claims[name].clone();
    for (what, changes, reason) in [
        ("71: exp a minute ago", json!({"exp": now - 61}), "expired"),
        ("71: exp at the epoch", json!({"exp": 0}), "expired"),
        ("72: nbf in two minutes", json!({"nbf": now + 120}), "not_yet_valid"),
        ("73: exp as text", json!({"exp": "1900000000"}), "malformed"),
        ("73: exp below zero", json!({"exp": -1}), "malformed"),
        ("73: exp 2^63", json!({"exp": 1_u64 << 63}), "malformed"),
        ("73: exp 2^64 - 1", json!({"exp": u64::MAX}), "malformed"),
        ("73: exp true", json!({"exp": true}), "malformed"),
        ("73: exp in a list", json!({"exp": [now + 600]}), "malformed"),
        ("73: nbf as text", json!({"nbf": "0"}), "malformed"),
        ("73: nbf below zero", json!({"nbf": -1}), "malformed"),
        ("74: aud of another service", json!({"aud": "dextor"}), "wrong_audience"),
        ("74: aud of the sign-on host", json!({"aud": "sentry.test"}), "wrong_audience"),
        ("74: aud in a list", json!({"aud": ["iqueue"]}), "malformed"),
        ("74: aud empty", json!({"aud": ""}), "wrong_audience"),
        ("74: aud in capitals", json!({"aud": "IQUEUE"}), "wrong_audience"),
        ("74: aud a number", json!({"aud": 1}), "malformed"),
        ("75: another issuer", json!({"iss": "https://evil.test"}), "wrong_issuer"),
        ("75: the issuer with a slash", json!({"iss": "https://sentry.test/"}), "wrong_issuer"),
        ("75: the issuer over http", json!({"iss": "http://sentry.test"}), "wrong_issuer"),
        ("75: issuers in a list", json!({"iss": [own("iss")]}), "malformed"),
        ("75: issuer empty", json!({"iss": ""}), "wrong_issuer"),
        ("sid too short", json!({"sid": "a"}), "malformed"),
        ("sid empty", json!({"sid": ""}), "malformed"),
        ("sid with a space", json!({"sid": "a".repeat(22) + " b"}), "malformed"),
        ("sid with a line break", json!({"sid": "a".repeat(22) + "\r\nflush_all"}), "malformed"),
        ("sid 10 KiB", json!({"sid": "a".repeat(2000)}), "malformed"),
        ("sid a number", json!({"sid": 7}), "malformed"),
        ("sid of no session", json!({"sid": "a".repeat(32)}), "no_session"),
        ("another user in this session", json!({"sub": "somebody-else"}), "no_session"),
        ("roles as text", json!({"roles": "admin"}), "malformed"),
        ("services as text", json!({"services": "iqueue"}), "malformed"),
    ] {
        bench.refuses(what, &bench.forged(changes), reason);
    }
    let claims = bench.claims.to_string();
    let number = |text: &str| claims.replace(&format!("\"exp\":{}", own("exp")), &format!("\"exp\":{text}"));
    for text in
        ["1e400", "1e10", "1900000000.5", "NaN", "Infinity", "01900000000", "+1900000000", "9".repeat(400).as_str()]
    {
        bench.refuses(&format!("73: exp {text}"), &signed(HEADER, number(text)), "malformed");
    }
    let doubled = |more: &str| format!("{{{more},{}", &claims[1..]);
    for more in
        [r#""sub":"a""#, r#""aud":"dextor""#, r#""exp":1"#, r#""roles":["root"]"#, r#""iss":"x""#, r#""\u0073ub":"a""#]
    {
        bench.refuses(&format!("76: {more} beside our own"), &signed(HEADER, doubled(more)), "malformed");
    }
    for more in [r#""alg":"none""#, r#""kid":"es""#, r#""typ":"at+jwt""#] {
        let header = format!("{{{more},{}", &HEADER[1..]);
        bench.refuses(&format!("76: header with {more} as well"), &bench.headed(header), "malformed");
    }
}

/// Input 77: a token for another purpose is none for this one (RFC 8725 §3.11).
#[test]
fn a_token_of_another_type_opens_no_session() {
    let bench = bench();
    for typ in [
        "\"at+jwt\"",
        "\"JWT\"",
        "\"assertion+jwt\"",
        "\"SESSION+JWT\"",
        "\"application/session+jwt\"",
        "\"\"",
        "null",
        "1",
    ] {
        let header = format!(r#"{{"alg":"HS256","kid":"main","typ":{typ}}}"#);
        bench.refuses(&format!("77: typ {typ}"), &bench.headed(header), "malformed");
    }
    bench.refuses("77: no typ", &bench.headed(r#"{"alg":"HS256","kid":"main"}"#), "malformed");
}

/// Input 78.
#[test]
fn json_that_readers_disagree_about_is_no_token() {
    let bench = bench();
    let claims = bench.claims.to_string();
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
    let name = |spelled: &str| claims.replace(r#""name":"ada""#, &format!(r#""name":"{spelled}""#));
    assert_ne!(name("x"), claims);
    let at = claims.find("ada").unwrap();
    for (what, payload) in [
        ("a BOM", format!("\u{feff}{claims}").into_bytes()),
        ("UTF-16", utf16(&claims)),
        ("UTF-16 with a BOM", utf16(&format!("\u{feff}{claims}"))),
        ("a lone surrogate", name("\\ud800").into_bytes()),
        ("half a pair", name("\\ud83d\\u0041").into_bytes()),
        ("octets that are no UTF-8", [&claims.as_bytes()[..at], b"\xff\xfe", &claims.as_bytes()[at..]].concat()),
        ("a raw control character", name("a\u{1}").into_bytes()),
        ("something after the object", format!("{claims}{{}}").into_bytes()),
        ("a comma too many", claims.replace('}', ",}").into_bytes()),
        ("a comment", claims.replace('{', "{/**/").into_bytes()),
        ("single quotes", claims.replace('"', "'").into_bytes()),
        ("a list", format!("[{claims}]").into_bytes()),
        ("nothing", Vec::new()),
        ("null", b"null".to_vec()),
        ("an empty object", b"{}".to_vec()),
    ] {
        bench.refuses(&format!("78: payload is {what}"), &signed(HEADER, payload), "malformed");
    }
    bench.refuses("78: header with a BOM", &bench.headed(format!("\u{feff}{HEADER}")), "malformed");
    bench.refuses("78: header in UTF-16", &bench.headed(utf16(HEADER)), "malformed");
}

/// Inputs 79 to 82: three parts of base64url, and no other spelling of them.
#[test]
fn there_is_one_spelling_of_the_compact_form() {
    let bench = bench();
    let token = &bench.token;
    let [header, payload, signature]: [&str; 3] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    // A payload whose base64url has both of the characters in which the alphabets differ.
    let other = (0..).map(|n| bench.forged(json!({"jti": format!("???>>>~~~{n}")})));
    let other = other.into_iter().find(|token| token.contains('-') && token.contains('_')).unwrap();
    let protected = json!({"payload": payload, "protected": header, "signature": signature}).to_string();
    let general =
        json!({"payload": payload, "signatures": [{"protected": header, "signature": signature}]}).to_string();
    for (what, text) in [
        ("79: standard base64", other.replace('-', "+").replace('_', "/")),
        ("79: padded", format!("{header}.{payload}.{signature}=")),
        ("79: padded everywhere", format!("{header}=.{payload}==.{signature}=")),
        ("79: percent-encoded", token.replace('.', "%2E")),
        ("80: a space inside", format!("{header}. {payload}.{signature}")),
        ("80: a space in a part", format!("{header}.{} {}.{signature}", &payload[..9], &payload[9..])),
        ("80: a tab inside", format!("{header}.\t{payload}.{signature}")),
        ("80: quoted", format!("\"{token}\"")),
        ("81: JSON serialisation", protected),
        ("81: general JSON serialisation", general),
        ("82: five parts", format!("{token}.{payload}.{signature}")),
        (
            "82: five parts of a JWE",
            format!("{}..{payload}.{payload}.{signature}", base64url(r#"{"alg":"dir","enc":"A256GCM"}"#)),
        ),
        ("four parts", format!("{token}.")),
        ("four parts, the first empty", format!(".{token}")),
        ("two parts", format!("{header}.{payload}")),
        ("one part", header.to_owned()),
        ("dots alone", "..".to_owned()),
        ("empty header", format!(".{payload}.{signature}")),
        ("empty payload", format!("{header}..{signature}")),
        ("two tokens", format!("{token},{token}")),
        ("a scheme before it", format!("Bearer {token}")),
    ] {
        let reason = if what == "empty payload" { "bad_signature" } else { "malformed" };
        bench.refuses(what, &text, reason);
    }
    bench.admits("a payload with both characters, in base64url", &other);
}

/// Inputs 83 and 84.
#[test]
fn size_and_depth_of_a_token_cost_nothing() {
    let bench = bench();
    for bytes in [4097, 5 * 1024, 20 * 1024] {
        bench.refuses("83: longer than browsers keep", &"a".repeat(bytes), "malformed");
        let fat = bench.forged(json!({"x": "a".repeat(bytes)}));
        bench.refuses("83: well signed and too long", &fat, "malformed");
    }
    let mut browser = bench.edge.client();
    browser.set_cookie(&bench.edge.host("iqueue"), TOKEN_COOKIE, &"a".repeat(200 * 1024));
    let answer = browser.open(&bench.edge.url("iqueue", "/"));
    assert_eq!(answer.status, 431, "83: 200 KiB");

    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let deep = |name: &str, depth: usize| {
        let mut claims = bench.claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        let claims = claims.to_string();
        signed(HEADER, format!("{{\"{name}\":{},{}", nested(depth), &claims[1..]))
    };
    let small = |token: &str| assert!(token.len() <= 4096, "{} bytes would be refused for their number", token.len());
    for name in ["exp", "roles", "email"] {
        small(&deep(name, 1000));
        bench.refuses(&format!("84: {name} 1,000 deep"), &deep(name, 1000), "malformed");
        bench.refuses(&format!("84: {name} 10,000 deep"), &deep(name, 10_000), "malformed");
    }
    let header = format!("{{\"x\":{},{}", nested(1000), &HEADER[1..]);
    small(&bench.headed(&header));
    bench.refuses("84: a header 1,000 deep", &bench.headed(&header), "malformed");
    bench.refuses("84: another claim 10,000 deep", &deep("x", 10_000), "malformed");
    bench.admits("84: a claim that nobody reads is skipped whatever its depth", &deep("x", 1000));
}

// ---- time ----

/// Input 71: half-open, with five seconds for clocks that differ.
#[test]
fn expiry_and_beginning_have_a_leeway_of_five_seconds_and_no_more() {
    let bench = bench();
    let ahead = bench.forged(json!({"nbf": bench.now() + 60}));
    bench.refuses("nbf in a minute", &ahead, "not_yet_valid");
    bench.edge.let_pass(Duration::from_secs(56));
    bench.admits("nbf in four seconds", &ahead);

    bench.refuses("71: exp a minute ago", &bench.forged(json!({"exp": bench.now() - 61})), "expired");
    let just_over = bench.forged(json!({"exp": bench.now() - 1}));
    bench.admits("71: exp a second ago", &just_over);
    bench.edge.let_pass(Duration::from_secs(5));
    bench.refuses("71: and six seconds ago, though it verified before", &just_over, "expired");
}

#[test]
fn the_leeway_is_as_long_as_it_is_configured() {
    let iqueue = origin("iqueue");
    let edge = services(&iqueue, &origin("dextor")).sentry("token: {leeway: 1m}").start();
    let mut browser = edge.signed_in();
    let claims = claims_of(&token_at(&edge, &browser, "iqueue"));
    let now = edge.clock.now().seconds();
    for (ahead, status) in [(30, 200), (90, 302)] {
        let token = signed(HEADER, with(&claims, json!({"nbf": now + ahead})));
        browser.set_cookie(&edge.host("iqueue"), TOKEN_COOKIE, &token);
        assert_eq!(browser.open(&edge.url("iqueue", "/")).status, status, "nbf in {ahead} s");
    }
}

// ---- audiences ----

#[test]
fn a_cookie_stolen_from_one_application_opens_no_other() {
    let (iqueue, dextor) = (origin("iqueue"), origin("dextor"));
    let edge = services(&iqueue, &dextor).start();
    let mut browser = edge.signed_in();
    browser.follow(&edge.url("dextor", "/"));
    let token = |name: &str| token_at(&edge, &browser, name);
    for (name, audience) in [("iqueue", "iqueue"), ("dextor", "dextor"), ("sentry", "sentry.test")] {
        assert_eq!(claims_of(&token(name))["aud"], audience);
    }
    let ids: Vec<Value> = ["iqueue", "dextor", "sentry"].map(|name| claims_of(&token(name))["sid"].clone()).to_vec();
    assert!(ids.iter().all(|id| *id == ids[0]), "one session behind all of them");
    let (heard, of) = (dextor.count(), ["iqueue", "sentry"]);
    for stolen_from in of {
        let mut thief = edge.client();
        thief.set_cookie(&edge.host("dextor"), TOKEN_COOKIE, &token(stolen_from));
        let answer = thief.open(&edge.url("dextor", "/"));
        assert_eq!(answer.status, 302, "{stolen_from}");
        assert_eq!(answer.set_cookie(TOKEN_COOKIE), None, "under a shared audience it would be good");
        let nobody = edge.client().get(&edge.url("dextor", "/.sentry/currentUser")).json();
        assert_eq!(nobody["currentUser"], Value::Null);
    }
    assert_eq!(dextor.count(), heard);
    let mut thief = edge.client();
    thief.set_cookie(&edge.host("sentry"), TOKEN_COOKIE, &token("iqueue"));
    assert_eq!(thief.open(&edge.url("sentry", "/copyCookie")).location_path(), Some(edge.url("sentry", "/login")));
}

#[test]
fn audience_shared_copies_the_one_token_to_every_host() {
    let (iqueue, dextor) = (origin("iqueue"), origin("dextor"));
    let edge = services(&iqueue, &dextor).sentry("token: {audience: shared}").start();
    let mut browser = edge.signed_in();
    browser.follow(&edge.url("dextor", "/"));
    let sentrys = token_at(&edge, &browser, "sentry");
    assert_eq!(claims_of(&sentrys)["aud"], "sentry.test");
    for name in ["iqueue", "dextor"] {
        assert_eq!(token_at(&edge, &browser, name), sentrys, "{name}: as the seeds draw it");
        let mut bearer = edge.client();
        bearer.set_cookie(&edge.host(name), TOKEN_COOKIE, &sentrys);
        assert_eq!(bearer.open(&edge.url(name, "/")).status, 200, "{name}");
    }
}

#[test]
fn registration_and_roles_are_read_from_the_token() {
    let (iqueue, dextor) = (origin("iqueue"), origin("dextor"));
    let edge = edge()
        .service_with("iqueue", &iqueue, "routes: [{path: /admin, access: {roles: [admin]}}]")
        .service("dextor", &dextor)
        .user("bob", &["iqueue"], &["clerk"])
        .start();
    let mut bob = edge.client();
    edge.sign_in(&mut bob, "iqueue", "bob");
    assert_eq!(bob.open(&edge.url("iqueue", "/admin")).status, 403, "without the role");
    let other = bob.follow(&edge.url("dextor", "/")).pop().unwrap();
    assert_eq!((other.status, other.url), (403, edge.url("dextor", "/")), "not registered: never a redirect");
    assert_eq!((iqueue.count(), dextor.count()), (1, 0));
    assert_eq!(edge.signed_in().open(&edge.url("iqueue", "/admin")).status, 200, "ada has the role");
}

// ---- keys ----

#[test]
fn each_algorithm_signs_and_verifies_a_whole_sign_on() {
    for (kid, algorithm) in [("main", "HS256"), ("es", "ES256"), ("ed", "EdDSA"), ("rs", "RS256")] {
        let (iqueue, dextor) = (origin("iqueue"), origin("dextor"));
        let edge =
            services(&iqueue, &dextor).keys(&four_keys()).sentry(&format!("token: {{sign_with: {kid}}}")).start();
        let mut browser = edge.signed_in();
        browser.follow(&edge.url("dextor", "/"));
        for name in ["sentry", "iqueue", "dextor"] {
            let token = token_at(&edge, &browser, name);
            let expected = json!({"alg": algorithm, "typ": "session+jwt", "kid": kid});
            assert_eq!(header_of(&token), expected, "{name}");
            assert!(token.len() + TOKEN_COOKIE.len() < 4096, "{algorithm}");
        }
        assert_eq!(browser.open(&edge.url("dextor", "/")).body, "hello from dextor", "{algorithm}");
    }
}

#[test]
fn the_published_keys_verify_real_tokens_and_hold_no_secret() {
    use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
    for kid in ["es", "ed", "rs"] {
        let (iqueue, dextor) = (origin("iqueue"), origin("dextor"));
        let edge =
            services(&iqueue, &dextor).keys(&four_keys()).sentry(&format!("token: {{sign_with: {kid}}}")).start();
        let browser = edge.signed_in();
        let published = edge.client().get(&edge.url("sentry", "/.well-known/jwks.json"));
        assert_eq!(published.header("cache-control"), Some("public, max-age=300"));
        let at_service = edge.client().get(&edge.url("iqueue", "/.sentry/jwks.json"));
        assert_eq!(
            (at_service.status, at_service.json()),
            (200, published.json()),
            "as an application asks on its own host"
        );
        assert_eq!(edge.client().ask("POST", &edge.url("iqueue", "/.sentry/jwks.json")).send().status, 405);
        assert_eq!((published.status, published.header("content-type")), (200, Some("application/json")));
        let keys = published.json();
        let ids: Vec<&Value> = keys["keys"].as_array().unwrap().iter().map(|key| &key["kid"]).collect();
        assert_eq!(ids, ["ed", "es", "rs"], "the HMAC secret is not among them");
        for private in ["d", "p", "q", "dp", "dq", "qi", "k", "oth"] {
            assert!(keys["keys"].as_array().unwrap().iter().all(|key| key[private].is_null()), "{private}");
        }
        for secret in [HMAC_KEY, &base64url(HMAC_KEY)] {
            assert!(!published.body.contains(secret));
        }
        let set: jsonwebtoken::jwk::JwkSet = serde_json::from_str(&published.body).unwrap();
        assert!(set.find(kid).is_some_and(|key| key.is_supported()), "a JWT library reads them");

        let jwk = keys["keys"].as_array().unwrap().iter().find(|key| key["kid"] == kid).unwrap();
        assert_eq!(jwk["use"], "sig");
        let number = |name: &str| part(&format!("{}..", jwk[name].as_str().unwrap()), 0);
        let token = token_at(&edge, &browser, "iqueue");
        let message = token.rsplit_once('.').unwrap().0.as_bytes();
        let signature = part(&token, 2);
        let verified = match kid {
            "es" => {
                let point = [vec![4], number("x"), number("y")].concat();
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, &signature)
            }
            "ed" => UnparsedPublicKey::new(&ED25519, number("x")).verify(message, &signature),
            _ => ring::signature::RsaPublicKeyComponents { n: number("n"), e: number("e") }.verify(
                &RSA_PKCS1_2048_8192_SHA256,
                message,
                &signature,
            ),
        };
        assert!(verified.is_ok(), "{kid}");
        if kid != "rs" {
            let key = jsonwebtoken::DecodingKey::from_jwk(set.find(kid).unwrap()).unwrap();
            let algorithm: Algorithm = jwk["alg"].as_str().unwrap().parse().unwrap();
            let mut validation = jsonwebtoken::Validation::new(algorithm);
            validation.set_audience(&["iqueue"]);
            let read = jsonwebtoken::decode::<Value>(&token, &key, &validation).unwrap();
            assert_eq!(read.claims["name"], "ada", "{kid}: as an application reads it");
        }
    }
}

#[test]
fn an_edge_with_an_hmac_key_alone_publishes_an_empty_set() {
    let edge = services(&origin("iqueue"), &origin("dextor")).start();
    assert_eq!(edge.client().get(&edge.url("sentry", "/.well-known/jwks.json")).json(), json!({"keys": []}));
}

const NEW_SECRET: &str = "another secret of thirty-two byte";

#[test]
fn rotating_the_signing_key_logs_nobody_out() {
    let (iqueue, dextor) = (origin("iqueue"), origin("dextor"));
    let mut edge = services(&iqueue, &dextor).keys(&format!("[{}]", hmac_key("old", HMAC_KEY))).start();
    let mut browser = edge.signed_in();
    let both = format!("[{}, {}]", hmac_key("old", HMAC_KEY), hmac_key("new", &format!("{NEW_SECRET:?}")));
    edge.reload_with(|yaml| {
        let listed = yaml.replace(&format!("[{}]", hmac_key("old", HMAC_KEY)), &both);
        listed.replace("sentry: {host:", "sentry: {token: {sign_with: new}, host:")
    });

    assert_eq!(browser.open(&edge.url("iqueue", "/")).status, 200, "an old token still opens");
    let statuses: Vec<u16> = browser.follow(&edge.url("dextor", "/")).iter().map(|hop| hop.status).collect();
    assert_eq!(statuses, [302, 302, 302, 302, 200], "and is still handed off without a login");
    let kid = |browser: &Client, name: &str| header_of(&token_at(&edge, browser, name))["kid"].clone();
    assert_eq!((kid(&browser, "iqueue"), kid(&browser, "dextor")), (json!("old"), json!("new")));
    let late = edge.signed_in();
    assert_eq!((kid(&late, "sentry"), kid(&late, "iqueue")), (json!("new"), json!("new")));

    let old_gone = format!("[{}]", hmac_key("new", &format!("{NEW_SECRET:?}")));
    edge.reload_with(|yaml| yaml.replace(&both, &old_gone));
    assert_eq!(browser.open(&edge.url("dextor", "/")).status, 200, "what the new key signed stays good");
    let refused = browser.open(&edge.url("iqueue", "/"));
    assert_eq!(refused.status, 302, "a key that is taken out verifies no more, remembered or not");
    let labels = "outcome=\"login_required\",reason=\"unknown_key\",service=\"iqueue\"";
    assert_eq!(edge.metric("sentry_edge_auth_decisions_total", labels), 1.0);
}

#[test]
fn two_edges_in_the_midst_of_a_rotation_take_each_others_tokens() {
    let (iqueue, dextor, memcached) = (origin("iqueue"), origin("dextor"), memcached());
    let both = format!("[{}, {}]", hmac_key("old", HMAC_KEY), hmac_key("new", &format!("{NEW_SECRET:?}")));
    let builder = services(&iqueue, &dextor).keys(&both).balanced().memcached(&memcached.address());
    let before = builder.clone().sentry("token: {sign_with: old}").start();
    let after = builder.sentry("token: {sign_with: new}").start();
    for (issuer, other, kid) in [(&before, &after, "old"), (&after, &before, "new")] {
        let mut browser = issuer.signed_in();
        assert_eq!(header_of(&token_at(issuer, &browser, "iqueue"))["kid"], kid);
        let page = browser.through(other.address()).open(&other.url("iqueue", "/"));
        assert_eq!(page.body, "hello from iqueue", "signed with {kid}");
        let last = browser.follow(&other.url("dextor", "/")).pop().unwrap();
        assert_eq!(last.body, "hello from dextor", "handed off by the other edge");
    }
}

#[test]
fn an_edge_with_a_public_key_alone_verifies_what_another_signs() {
    let pems = pems();
    let public = rsa::RsaPrivateKey::from_pkcs8_pem(&pems.rs256).unwrap().to_public_key();
    let public = public.to_public_key_pem(rsa::pkcs8::LineEnding::LF).unwrap();
    let keys =
        format!("[{}, {{id: rs, algorithm: RS256, public_key: {{value: {public:?}}}}}]", hmac_key("main", HMAC_KEY));
    let iqueue = origin("iqueue");
    let edge = services(&iqueue, &origin("dextor")).keys(&keys).start();
    let browser = edge.signed_in();
    let claims = claims_of(&token_at(&edge, &browser, "iqueue"));
    let mut other = edge.client();
    other.set_cookie(&edge.host("iqueue"), TOKEN_COOKIE, &sign_with(Algorithm::RS256, "rs", &pems.rs256, &claims));
    assert_eq!(other.open(&edge.url("iqueue", "/")).status, 200);
}

// ---- what was verified before ----

#[test]
fn a_verified_token_is_remembered_and_a_bad_one_is_not() {
    let mut bench = bench();
    let count = |edge: &Edge| {
        ["hit", "miss"].map(|result| edge.metric("sentry_edge_token_cache_total", &format!("result=\"{result}\"")))
    };
    let url = bench.edge.url("iqueue", "/");
    let before = count(&bench.edge);
    for _ in 0..3 {
        assert_eq!(bench.browser.open(&url).status, 200);
    }
    assert_eq!(count(&bench.edge), [before[0] + 3.0, before[1]]);
    let bad = bench.token.replace(bench.token.rsplit('.').next().unwrap(), &base64url([0; 32]));
    for _ in 0..3 {
        let mut browser = bench.edge.client();
        browser.set_cookie(&bench.edge.host("iqueue"), TOKEN_COOKIE, &bad);
        assert_eq!(browser.open(&url).status, 302);
    }
    assert_eq!(count(&bench.edge), [before[0] + 3.0, before[1] + 3.0], "a forgery is judged each time");

    bench.edge.reload_with(|yaml| yaml);
    assert_eq!(bench.browser.open(&url).status, 200);
    assert_eq!(count(&bench.edge), [before[0] + 3.0, before[1] + 4.0], "a reload forgets");
    assert_eq!(bench.browser.open(&url).status, 200);
    assert_eq!(count(&bench.edge), [before[0] + 4.0, before[1] + 4.0]);
}

#[test]
fn a_remembered_token_does_not_outlive_its_end_nor_its_session() {
    let iqueue = origin("iqueue");
    let edge = services(&iqueue, &origin("dextor")).sentry("token: {lifetime: 10m}").start();
    let refused = |reason: &str| {
        let labels = format!("outcome=\"login_required\",reason=\"{reason}\",service=\"iqueue\"");
        edge.metric("sentry_edge_auth_decisions_total", &labels)
    };
    let mut browser = edge.signed_in();
    let url = edge.url("iqueue", "/");
    let mut twin = browser.clone();
    assert_eq!(twin.open(&url).status, 200);
    assert_eq!(browser.open(&edge.url("sentry", "/logout")).status, 200);
    assert_eq!(twin.open(&url).status, 302);
    assert_eq!(refused("no_session"), 1.0, "the session went, whatever is remembered of the token");

    let mut browser = edge.signed_in();
    assert_eq!(browser.open(&url).status, 200);
    edge.let_pass(Duration::from_secs(606));
    assert_eq!(browser.open(&url).status, 302);
    assert_eq!(refused("expired"), 1.0);
}
