//! Tokens: whatever is done to one that we signed, nothing but itself verifies.
#![no_main]

use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use sentry_edge::auth::keys::Keys;
use sentry_edge::auth::token::{Claims, Tokens};
use sentry_edge::clock::{Clock, UnixTime};
use sentry_edge::metrics::Metrics;
use sentry_edge::sessions::SessionId;

struct World {
    tokens: Tokens,
    now: UnixTime,
    minted: String,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        sentry_edge::auth::install_crypto();
        let secret = "0123456789abcdef0123456789abcdef";
        let key = format!("{{id: main, algorithm: HS256, secret: {{value: {secret}}}}}");
        let yaml = format!("sentry: {{host: sentry.test, keys: [{key}]}}");
        let (config, mut faults) = sentry_edge::config::parse("edge.yaml".as_ref(), &yaml).unwrap();
        let keys = Arc::new(Keys::load(&config.sentry, &mut faults).unwrap());
        let metrics = Metrics::new("fuzz").unwrap();
        let settings = config.sentry.token;
        // Nothing is remembered, so that each token is taken apart.
        let cache = metrics.sign_on.token_cache.clone();
        let tokens = Tokens::new(keys, settings.issuer.clone(), settings.leeway, 0, cache);
        let now = Clock::default().now();
        let claims = Claims {
            iss: settings.issuer,
            sub: "0198c1a2-3b4c-7d5e-8f60-718293a4b5c6".into(),
            name: "ada".into(),
            email: None,
            roles: vec!["admin".into()],
            services: vec!["iqueue".into()],
            sid: SessionId::random().unwrap().as_str().into(),
            dir: Some(0),
            jti: "5c0f6a0e-7f64-4c55-93a2-3f0a6f4d2b11".into(),
            auth_time: now.seconds(),
            iat: now.seconds(),
            nbf: now.seconds(),
            exp: now.seconds() + 12 * 3600,
            aud: "iqueue".into(),
            idle: 1800,
        };
        let minted = tokens.mint(&claims).unwrap();
        assert!(tokens.verify(&minted, now).is_ok());
        World { tokens, now, minted }
    })
}

/// The first byte says whether the rest is a token of its own, or edits of ours: where, what, and whether it is put
/// there, put in its place, or taken out.
fn token(data: &[u8]) -> Option<String> {
    let (kind, rest) = data.split_first()?;
    if kind % 2 == 0 {
        return String::from_utf8(rest.to_vec()).ok();
    }
    let mut token = world().minted.clone().into_bytes();
    for edit in rest.chunks_exact(4) {
        let at = usize::from(u16::from_be_bytes([edit[0], edit[1]])) % token.len().max(1);
        match edit[3] % 3 {
            0 => token.insert(at, edit[2]),
            1 if at < token.len() => token[at] = edit[2],
            _ if at < token.len() => drop(token.remove(at)),
            _ => {}
        }
    }
    String::from_utf8(token).ok()
}

fuzz_target!(|data: &[u8]| {
    let Some(token) = token(data) else { return };
    let world = world();
    if world.tokens.verify(&token, world.now).is_ok() {
        assert_eq!(token, world.minted, "another spelling, or a forgery");
    }
});
