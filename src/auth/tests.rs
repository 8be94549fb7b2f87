//! The guard as a whole, with a store in memory and a clock that the test advances: which reason wins, what extends a
//! session, what is cached. Forged tokens of every kind are in the integration tests.

mod away;
mod streams;

use std::time::Duration;

use http::HeaderValue;

use self::away::Unavailable;
use super::token::{Claims, TokenError};
use super::*;
use crate::clock::Clock;
use crate::config::{Access, FingerprintProperty};
use crate::sessions::memory::MemoryStore;
use crate::sessions::{SessionId, StoreError};
use crate::users::UserState;

const COOKIE: &str = "__Host-JWTCookie";
const LEEWAY: u64 = 5;

/// A guard over a store, and the one session in it that all tests use.
struct Bench {
    guard: Guard,
    store: Arc<dyn SessionStore>,
    metrics: Arc<Metrics>,
    clock: Clock,
    claims: Claims,
}

fn bench() -> Bench {
    let clock = Clock::default();
    bench_with(Arc::new(MemoryStore::new(clock.clone(), 100)), clock)
}

fn bench_with(store: Arc<dyn SessionStore>, clock: Clock) -> Bench {
    install_crypto();
    let yaml = "sentry: {host: sentry.test, keys: [{id: main, algorithm: HS256, \
                secret: {value: 0123456789abcdef0123456789abcdef}}]}";
    let (config, mut faults) = crate::config::parse("edge.yaml".as_ref(), yaml).unwrap();
    let keys = keys::Keys::load(&config.sentry, &mut faults).unwrap();
    let metrics = Arc::new(Metrics::new("test").unwrap());
    let leeway = Duration::from_secs(LEEWAY);
    let issuer = config.sentry.token.issuer.clone();
    let tokens =
        Arc::new(Tokens::new(Arc::new(keys), issuer.clone(), leeway, 1 << 20, metrics.sign_on.token_cache.clone()));
    let fingerprints = Fingerprinter::new(vec![FingerprintProperty::UserAgent]);
    let sessions = Sessions {
        store: Arc::clone(&store),
        checked: true,
        seen: Arc::default(),
        users: Arc::default(),
        recorder: Recorder::new(Arc::clone(&store), Duration::from_secs(30)),
        streams: Arc::new(Streams::new(metrics.traffic.streams.clone())),
        stream_interval: Duration::from_secs(10),
    };
    let guard = Guard::new(tokens, COOKIE.into(), fingerprints, sessions, Arc::clone(&metrics));
    let now = clock.now().seconds();
    let claims = Claims {
        iss: issuer,
        sub: "u1".into(),
        name: "ada".into(),
        email: None,
        roles: vec!["clerk".into()],
        services: vec!["iqueue".into()],
        sid: SessionId::random().unwrap().as_str().into(),
        dir: Some(0),
        jti: "j".into(),
        auth_time: now,
        iat: now,
        nbf: now,
        exp: now + 3600,
        aud: "iqueue".into(),
        idle: 600,
    };
    Bench { guard, store, metrics, clock, claims }
}

impl Bench {
    async fn with_session(self) -> Self {
        let id = SessionId::parse(&self.claims.sid).unwrap();
        let now = self.clock.now();
        let record = SessionRecord {
            user: self.claims.sub.clone(),
            created: now,
            last_accessed: now,
            idle_timeout: Duration::from_secs(600),
            fingerprint: self.guard.fingerprints().of(&headers(&[]), &id),
            expires: now.plus(Duration::from_secs(3600)),
        };
        self.store.insert(&id.key(), &record, Duration::from_secs(600)).await.unwrap();
        self
    }

    fn token(&self, change: impl FnOnce(&mut Claims)) -> String {
        let mut claims = self.claims.clone();
        change(&mut claims);
        self.guard.tokens().mint(&claims).unwrap()
    }

    async fn check(&self, headers: &HeaderMap, requirement: &Requirement<'_>) -> Result<Source, Reason> {
        match self.guard.check(headers, requirement, self.clock.now()).await.verdict {
            Verdict::Allowed(identity) => Ok(identity.source()),
            Verdict::Refused(reason) => Err(reason),
        }
    }

    fn verify(&self, token: &str, at: u64) -> Result<(), TokenError> {
        self.guard.tokens().verify(token, UnixTime::from_seconds(at)).map(drop)
    }

    fn remembered(&self) -> (u64, u64) {
        (self.metrics.sign_on.token_cache.hit.get(), self.metrics.sign_on.token_cache.miss.get())
    }
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, HeaderValue::from_static("test/1"));
    for (name, value) in fields {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

fn cookie(token: &str) -> HeaderMap {
    headers(&[("cookie", &format!("{COOKIE}={token}"))])
}

pub const REQUIREMENT: Requirement<'static> = Requirement {
    audience: "iqueue",
    service: Some("iqueue"),
    access: &Access::Required,
    credentials: Credentials { cookie: true, bearer: false },
    extends_session: true,
    on_outage: crate::config::OutagePolicy::Deny,
};

#[tokio::test]
async fn each_refusal_has_its_own_reason() {
    let bench = bench().with_session().await;
    let good = bench.token(|_| {});
    assert_eq!(bench.check(&cookie(&good), &REQUIREMENT).await, Ok(Source::Cookie));

    let twice = headers(&[("cookie", &format!("{COOKIE}={good}")), ("cookie", &format!("{COOKIE}=x"))]);
    let admin = Access::Roles(vec!["admin".into(), "root".into()]);
    let other_browser = {
        let mut headers = cookie(&good);
        headers.insert(header::USER_AGENT, HeaderValue::from_static("Firefox/1 (Windows)"));
        headers
    };
    for (headers, requirement, reason) in [
        (headers(&[]), REQUIREMENT, Reason::NoToken),
        (
            cookie(&good),
            Requirement { credentials: Credentials { cookie: false, bearer: true }, ..REQUIREMENT },
            Reason::NoToken,
        ),
        (twice, REQUIREMENT, Reason::SeveralCookies),
        (cookie("x"), REQUIREMENT, Reason::Token(TokenError::Malformed)),
        (cookie(&good), Requirement { audience: "dextor", ..REQUIREMENT }, Reason::Token(TokenError::WrongAudience)),
        (cookie(&bench.token(|claims| claims.sid = "a".repeat(32))), REQUIREMENT, Reason::NoSession),
        (cookie(&bench.token(|claims| claims.sub = "u2".into())), REQUIREMENT, Reason::NoSession),
        (other_browser, REQUIREMENT, Reason::OtherBrowser),
        (cookie(&bench.token(|claims| claims.services.clear())), REQUIREMENT, Reason::NotRegistered),
        (cookie(&good), Requirement { access: &admin, ..REQUIREMENT }, Reason::MissingRole),
    ] {
        assert_eq!(bench.check(&headers, &requirement).await, Err(reason));
    }
    let role = bench.token(|claims| claims.roles.push("root".into()));
    assert_eq!(bench.check(&cookie(&role), &Requirement { access: &admin, ..REQUIREMENT }).await, Ok(Source::Cookie));
}

/// A media loader's agent is not its browser's. Whether one device sends both is checked before and after the look-up.
#[tokio::test]
async fn a_request_is_held_against_its_sessions_browser_once() {
    let bench = bench();
    let id = SessionId::parse(&bench.claims.sid).unwrap();
    let safari =
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4_1 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1";
    let media = "AppleCoreMedia/1.0.0.21E236 (iPhone; U; CPU OS 17_4_1 like Mac OS X; en_us)";
    let token = bench.token(|_| {});
    let of = |agent: &str| {
        let mut headers = cookie(&token);
        headers.insert(header::USER_AGENT, agent.parse().unwrap());
        headers
    };
    let now = bench.clock.now();
    let fingerprints = bench.guard.fingerprints();
    let record = SessionRecord {
        user: bench.claims.sub.clone(),
        created: now,
        last_accessed: now,
        idle_timeout: Duration::from_secs(600),
        fingerprint: fingerprints.of(&of(safari), &id),
        expires: now.plus(Duration::from_secs(3600)),
    };
    bench.store.insert(&id.key(), &record, Duration::from_secs(600)).await.unwrap();
    assert!(bench.check(&of(safari), &REQUIREMENT).await.is_ok());
    let spent = || fingerprint::HASHED.replace(0);
    for (agent, is_let_in) in
        [(safari, true), (media, true), ("okhttp/4.12.0 (Linux; Android 13)", false), ("curl/8", false)]
    {
        let headers = of(agent);
        spent();
        fingerprints.matches(&headers, &id, record.fingerprint);
        let once = if agent == safari { 0 } else { spent() };
        spent();
        let checked = bench.check(&headers, &REQUIREMENT).await;
        assert_eq!((checked.is_ok(), spent()), (is_let_in, once), "{agent}");
    }
}

#[tokio::test]
async fn a_store_that_gives_no_answer_is_not_a_session_that_ended() {
    let bench = bench_with(Arc::new(Unavailable), Clock::default());
    let refused = bench.check(&cookie(&bench.token(|_| {})), &REQUIREMENT).await.unwrap_err();
    assert_eq!(refused, Reason::StoreUnavailable(StoreError::TimedOut));
    assert_eq!((refused.outcome(), refused.invalidates_cookie()), (Outcome::Unavailable, false));
    let bad = bench.check(&cookie("x.y.z"), &REQUIREMENT).await;
    assert_eq!(bad, Err(Reason::Token(TokenError::Malformed)), "a bad token is bad whether the store answers or not");
}

#[tokio::test]
async fn activity_slides_the_session_and_polling_does_not() {
    let bench = bench().with_session().await;
    let cookie = cookie(&bench.token(|_| {}));
    bench.clock.advance(Duration::from_secs(599));
    assert!(bench.check(&cookie, &REQUIREMENT).await.is_ok());
    bench.clock.advance(Duration::from_secs(599));
    let poll = Requirement { extends_session: false, ..REQUIREMENT };
    assert!(bench.check(&cookie, &poll).await.is_ok(), "the first request slid it");
    bench.clock.advance(Duration::from_secs(2));
    assert_eq!(bench.check(&cookie, &REQUIREMENT).await, Err(Reason::NoSession), "the poll did not");
}

#[tokio::test]
async fn sessions_of_one_idle_timeout_slide_alike_however_soon_their_tokens_end() {
    let bench = bench();
    let now = bench.clock.now();
    let slid = |idle, left| {
        let token = bench.token(|claims| (claims.idle, claims.exp) = (idle, now.seconds() + left));
        bench.guard.tokens().verify(&token, now).unwrap().idle_ttl().as_secs()
    };
    assert_eq!((slid(600, 3600), slid(600, 60), slid(0, 60)), (600, 600, 1));
}

#[test]
fn a_token_is_good_from_its_beginning_to_before_its_end_with_the_leeway_on_both_sides() {
    let bench = bench();
    let token = bench.token(|claims| (claims.nbf, claims.exp) = (1000, 2000));
    for (at, expected) in [
        (0, Err(TokenError::NotYetValid)),
        (1000 - LEEWAY - 1, Err(TokenError::NotYetValid)),
        (1000 - LEEWAY, Ok(())),
        (1999, Ok(())),
        (2000 + LEEWAY - 1, Ok(())),
        (2000 + LEEWAY, Err(TokenError::Expired)),
        (u64::MAX / 1000, Err(TokenError::Expired)),
    ] {
        assert_eq!(bench.verify(&token, at), expected, "at {at}");
    }
}

#[test]
fn what_is_remembered_is_the_signature_and_not_the_time() {
    let bench = bench();
    let token = bench.token(|claims| (claims.nbf, claims.exp) = (1000, 2000));
    assert_eq!(bench.verify(&token, 1500), Ok(()));
    assert_eq!(bench.verify(&token, 1500), Ok(()));
    assert_eq!(bench.verify(&token, 3000), Err(TokenError::Expired));
    assert_eq!(bench.verify(&token, 10), Err(TokenError::NotYetValid));
    assert_eq!(bench.remembered(), (3, 1));
    let forged = format!("{}A", &token[..token.len() - 1]);
    let other = if forged == token { format!("{}E", &token[..token.len() - 1]) } else { forged };
    for _ in 0..2 {
        assert_eq!(bench.verify(&other, 1500), Err(TokenError::BadSignature));
    }
    assert_eq!(bench.remembered(), (3, 3), "a failure is not cached");
}

/// Inputs 73, 80 and 83 of the threat report, where a request could not carry them.
#[test]
fn no_text_makes_the_verifier_stumble() {
    let bench = bench();
    let token = bench.token(|_| {});
    let now = bench.clock.now().seconds();
    let long = "a".repeat(200 * 1024);
    for text in [
        "",
        ".",
        "..",
        "...",
        "\0",
        "é.é.é",
        &long,
        &format!("{long}.{long}.{long}"),
        &format!("{token}\n"),
        &format!("{token}\r\n"),
        &format!("\n{token}"),
        &format!("\u{feff}{token}"),
        &token.replace('.', ".\n"),
        &token.replace('.', "\u{3002}"),
        &token.replace('.', ". "),
    ] {
        assert_eq!(
            bench.verify(text, now),
            Err(TokenError::Malformed),
            "{:?}",
            text.chars().take(40).collect::<String>()
        );
    }
    assert_eq!(bench.verify(&token, now), Ok(()));
    for exp in [1 << 63, u64::MAX] {
        let endless = bench.token(|claims| claims.exp = exp);
        assert_eq!(bench.verify(&endless, now), Err(TokenError::Malformed), "no calendar has {exp}");
    }
}

#[tokio::test]
async fn a_bearer_token_is_taken_where_the_route_takes_one_and_before_the_cookie() {
    let bench = bench().with_session().await;
    let good = bench.token(|_| {});
    let both = Requirement { credentials: Credentials { cookie: true, bearer: true }, ..REQUIREMENT };
    let brought = |authorization: &str, cookie: &str| {
        headers(&[("authorization", authorization), ("cookie", &format!("{COOKIE}={cookie}"))])
    };
    for scheme in ["Bearer", "bearer", "BEARER", "Bearer  "] {
        let answer = bench.check(&brought(&format!("{scheme} {good}"), "x"), &both).await;
        assert_eq!(answer, Ok(Source::Bearer), "{scheme:?}");
    }
    assert_eq!(bench.check(&brought("Bearer x", &good), &both).await, Err(Reason::Token(TokenError::Malformed)));
    assert_eq!(bench.check(&brought("Bearer x", &good), &REQUIREMENT).await, Ok(Source::Cookie), "none is taken there");
    for other in ["Basic x", "Bearer", "Bearerx y", ""] {
        assert_eq!(
            bench.check(&brought(other, &good), &both).await,
            Ok(Source::Cookie),
            "{other:?} is no bearer token"
        );
    }
    let two = headers(&[("authorization", &format!("Bearer {good}")), ("authorization", "Bearer x")]);
    assert_eq!(bench.check(&two, &both).await, Err(Reason::NoToken), "two fields are none");
}
