//! The keys that sign and verify tokens: loaded, checked, generated and published (JWKS, RFC 7517).
//!
//! Each key has one algorithm, fixed by the configuration; a token names its key by `kid` and has no influence on the
//! algorithm. Secrets never leave this file, except inside jsonwebtoken's own key types.

mod checks;

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use ring::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use ring::{hmac, rand};
use rsa::pkcs1::DecodeRsaPublicKey;
use rsa::pkcs8::EncodePrivateKey;
use rsa::traits::PublicKeyParts;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::config::{self, Faults, KeyMaterial, Secret};

/// RFC 7518 §3.2: a key of at least the size of the hash output.
const HMAC_BYTES: usize = 32;
const RSA_BITS: usize = 2048;

/// All keys by `kid`, and the signing key.
pub struct Keys {
    verifying: HashMap<Box<str>, VerifyingKey>,
    signing: SigningKey,
    /// The seeds from which other secrets are derived: the material of the signing key, and after it that of every
    /// other key whose private half is here.
    seed: hmac::Key,
    former_seeds: Vec<hmac::Key>,
}

pub struct VerifyingKey {
    pub algorithm: Algorithm,
    pub key: DecodingKey,
    /// The public half for the JWKS; `None` for an HMAC secret.
    jwk: Option<Value>,
}

pub struct SigningKey {
    pub id: String,
    pub algorithm: Algorithm,
    pub key: EncodingKey,
}

/// One key of the configuration, loaded.
struct LoadedKey {
    verifying: VerifyingKey,
    signing: Option<(EncodingKey, Secret)>,
}

impl Keys {
    /// Reads every key and adds a fault for each that is missing, malformed or weak. Returns `None` if the signing key
    /// is among those.
    pub fn load(sentry: &config::Sentry, faults: &mut Faults) -> Option<Self> {
        let mut verifying = HashMap::new();
        let (mut signer, mut former_seeds) = (None, Vec::new());
        for written in &sentry.keys {
            match load(written) {
                Ok(loaded) => {
                    let algorithm = loaded.verifying.algorithm;
                    match loaded.signing {
                        Some((key, secret)) if written.id == sentry.token.sign_with => {
                            signer = Some((SigningKey { id: written.id.clone(), algorithm, key }, secret));
                        }
                        Some((_, secret)) => former_seeds.push(seed(&secret)),
                        None => {}
                    }
                    verifying.insert(written.id.as_str().into(), loaded.verifying);
                }
                Err((what, write)) => faults.add(place(written), what, write),
            }
        }
        let (signing, secret) = signer?;
        Some(Self { verifying, signing, seed: seed(&secret), former_seeds })
    }

    pub fn verifying(&self, id: &str) -> Option<&VerifyingKey> {
        self.verifying.get(id)
    }

    pub fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// Returns a secret for another purpose, the same on every edge that has the same signing key.
    pub fn derive(&self, purpose: &str) -> hmac::Key {
        derived(&self.seed, purpose)
    }

    /// Returns the secret of [`derive`](Self::derive) first, and then the one that each other key would derive: what
    /// was made before the signing key changed, or by an edge where it has changed already, is still accepted.
    pub fn derive_all(&self, purpose: &str) -> Vec<hmac::Key> {
        std::iter::once(&self.seed).chain(&self.former_seeds).map(|seed| derived(seed, purpose)).collect()
    }

    /// Returns the JSON Web Key Set: public halves alone.
    pub fn jwks(&self) -> Value {
        let mut keys: Vec<Value> = Vec::new();
        for (id, key) in &self.verifying {
            if let Some(mut jwk) = key.jwk.clone() {
                jwk["kid"] = json!(&**id);
                jwk["use"] = json!("sig");
                keys.push(jwk);
            }
        }
        keys.sort_by_key(|key| key["kid"].to_string());
        json!({ "keys": keys })
    }
}

fn seed(secret: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.bytes())
}

fn derived(seed: &hmac::Key, purpose: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(seed, purpose.as_bytes()).as_ref())
}

/// Returns the configuration key of the key's material.
fn place(written: &config::Key) -> String {
    let name = match &written.material {
        KeyMaterial::Secret(_) => "secret",
        KeyMaterial::Private(_) => "private_key",
        KeyMaterial::Public(_) => "public_key",
    };
    format!("{}.{name}", written.place)
}

type LoadError = (String, &'static str);

fn load(written: &config::Key) -> Result<LoadedKey, LoadError> {
    let (KeyMaterial::Secret(source) | KeyMaterial::Private(source) | KeyMaterial::Public(source)) = &written.material;
    let secret = source.read().map_err(|what| (what, "point it at the key"))?;
    match &written.material {
        KeyMaterial::Secret(_) => load_hmac(secret, written.allow_weak),
        KeyMaterial::Private(_) => load_private(written.algorithm, secret),
        KeyMaterial::Public(_) => {
            let verifying = load_public(written.algorithm, secret.bytes())?;
            Ok(LoadedKey { verifying, signing: None })
        }
    }
}

fn load_hmac(secret: Secret, allow_weak: bool) -> Result<LoadedKey, LoadError> {
    if let Some(what) = checks::disguised_key(secret.bytes()) {
        let what = format!("this is {what}, and no secret: everyone who has it could sign");
        return Err((what, "make one with `sentry-edge key generate --algorithm HS256`"));
    }
    if secret.bytes().len() < HMAC_BYTES && !allow_weak {
        let what = format!("the secret has {} bytes, HS256 wants {HMAC_BYTES} (RFC 7518 §3.2)", secret.bytes().len());
        return Err((what, "make one with `sentry-edge key generate --algorithm HS256`, or write `allow_weak: true`"));
    }
    Ok(LoadedKey {
        verifying: VerifyingKey {
            algorithm: Algorithm::HS256,
            key: DecodingKey::from_secret(secret.bytes()),
            jwk: None,
        },
        signing: Some((EncodingKey::from_secret(secret.bytes()), secret)),
    })
}

fn load_private(algorithm: config::Algorithm, pem: Secret) -> Result<LoadedKey, LoadError> {
    let unusable = || -> LoadError {
        (format!("no {algorithm:?} private key in PEM form"), "make one with `sentry-edge key generate`")
    };
    let bytes = pem.bytes();
    let (encoding, verifying) = match algorithm {
        config::Algorithm::ES256 => {
            let key = EncodingKey::from_ec_pem(bytes).map_err(|_| unusable())?;
            let algorithm = &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, key.as_bytes(), &rand::SystemRandom::new())
                .map_err(|_| unusable())?;
            (key, es256(pair.public_key().as_ref()))
        }
        config::Algorithm::EdDSA => {
            let key = EncodingKey::from_ed_pem(bytes).map_err(|_| unusable())?;
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.as_bytes()).map_err(|_| unusable())?;
            (key, ed25519(pair.public_key().as_ref()))
        }
        config::Algorithm::RS256 => {
            let key = EncodingKey::from_rsa_pem(bytes).map_err(|_| unusable())?;
            let pair = RsaKeyPair::from_der(key.as_bytes())
                .map_err(|error| (format!("the RSA key cannot be used: {error}"), "make one of 2048 bits or more"))?;
            (key, rs256(pair.public().as_ref()).ok_or_else(unusable)?)
        }
        config::Algorithm::HS256 => return Err(unusable()),
    };
    Ok(LoadedKey { verifying, signing: Some((encoding, pem)) })
}

fn load_public(algorithm: config::Algorithm, pem: &[u8]) -> Result<VerifyingKey, LoadError> {
    let unusable = || -> LoadError {
        (format!("no {algorithm:?} public key in PEM form"), "name a file that begins with -----BEGIN PUBLIC KEY-----")
    };
    if let Some(what) = checks::foreign_public_key(algorithm, pem) {
        return Err((what, "name the public half of a key of that algorithm"));
    }
    let key = match algorithm {
        config::Algorithm::ES256 => DecodingKey::from_ec_pem(pem),
        config::Algorithm::EdDSA => DecodingKey::from_ed_pem(pem),
        config::Algorithm::RS256 => DecodingKey::from_rsa_pem(pem),
        config::Algorithm::HS256 => return Err(unusable()),
    };
    let key = key.map_err(|_| unusable())?;
    let bytes = key.try_get_as_bytes().map_err(|_| unusable())?;
    match algorithm {
        config::Algorithm::ES256 if bytes.len() == 65 && checks::is_on_p256(bytes) => Ok(es256(bytes)),
        config::Algorithm::EdDSA if checks::is_on_edwards25519(bytes) => Ok(ed25519(bytes)),
        config::Algorithm::RS256 => rs256(bytes).ok_or_else(unusable),
        _ => Err(unusable()),
    }
}

/// Returns the key for an uncompressed point: 4, x, y.
fn es256(point: &[u8]) -> VerifyingKey {
    let coordinate = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
    VerifyingKey {
        algorithm: Algorithm::ES256,
        key: DecodingKey::from_ec_der(point),
        jwk: Some(
            json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "x": coordinate(1..33), "y": coordinate(33..65)}),
        ),
    }
}

fn ed25519(public: &[u8]) -> VerifyingKey {
    VerifyingKey {
        algorithm: Algorithm::EdDSA,
        key: DecodingKey::from_ed_der(public),
        jwk: Some(json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": URL_SAFE_NO_PAD.encode(public)})),
    }
}

/// Returns `None` if the bytes are no PKCS #1 public key, or one that is too short or that verifies no signature.
fn rs256(pkcs1: &[u8]) -> Option<VerifyingKey> {
    let public = rsa::RsaPublicKey::from_pkcs1_der(pkcs1).ok()?;
    if !checks::is_usable_rsa(public.n(), public.e()) {
        return None;
    }
    let number = |n: &rsa::BigUint| URL_SAFE_NO_PAD.encode(n.to_bytes_be());
    Some(VerifyingKey {
        algorithm: Algorithm::RS256,
        key: DecodingKey::from_rsa_der(pkcs1),
        jwk: Some(json!({"kty": "RSA", "alg": "RS256", "n": number(public.n()), "e": number(public.e())})),
    })
}

/// Returns a new key as it is written to a file: 256 random bits as text for HS256, PKCS #8 in PEM for the others.
pub fn generate(algorithm: config::Algorithm) -> Result<Zeroizing<String>, String> {
    let random = rand::SystemRandom::new();
    let failed = |_| "the system's random source failed".to_owned();
    match algorithm {
        config::Algorithm::HS256 => {
            let text = crate::sessions::key::random_base64url::<32>().map_err(|_| "no randomness".to_owned())?;
            Ok(Zeroizing::new(text))
        }
        config::Algorithm::ES256 => {
            let algorithm = &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
            EcdsaKeyPair::generate_pkcs8(algorithm, &random).map(|der| pem(der.as_ref())).map_err(failed)
        }
        config::Algorithm::EdDSA => {
            Ed25519KeyPair::generate_pkcs8(&random).map(|der| pem(der.as_ref())).map_err(failed)
        }
        config::Algorithm::RS256 => {
            // ring makes no RSA keys. This crate's known weakness (RUSTSEC-2023-0071) is in decryption and
            // signing that can be timed from outside; here it only generates.
            let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, RSA_BITS).map_err(|e| e.to_string())?;
            key.to_pkcs8_pem(rsa::pkcs8::LineEnding::LF).map_err(|e| e.to_string())
        }
    }
}

fn pem(der: &[u8]) -> Zeroizing<String> {
    let encoded = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(der));
    let mut text = Zeroizing::new(String::from("-----BEGIN PRIVATE KEY-----\n"));
    for line in encoded.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END PRIVATE KEY-----\n");
    text
}
