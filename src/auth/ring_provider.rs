//! ring as the cryptography of jsonwebtoken: signers and verifiers for the four algorithms that we issue and accept.
//!
//! Each factory checks that the key is of the algorithm's family; that is half of the defence against a token that
//! names another algorithm than its key is for (RFC 8725 §3.1). The other half pins one algorithm to each key and is in
//! `token`. Only jsonwebtoken calls this.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{Error as SignatureError, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::{hmac, rand, signature as ring_signature};

static RING: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    // Only JWK thumbprints would need them, and we make none.
    key_utils: KeyUtils::new_unimplemented(),
};

pub fn install() {
    // Only the first call of a process takes effect, and all of them install the same.
    RING.install_default().ok();
}

fn family(algorithm: &Algorithm) -> Result<AlgorithmFamily> {
    match algorithm {
        Algorithm::HS256 => Ok(AlgorithmFamily::Hmac),
        Algorithm::ES256 => Ok(AlgorithmFamily::Ec),
        Algorithm::EdDSA => Ok(AlgorithmFamily::Ed),
        Algorithm::RS256 => Ok(AlgorithmFamily::Rsa),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    if key.family() != family(algorithm)? {
        return Err(ErrorKind::InvalidKeyFormat.into());
    }
    Ok(Box::new(RingSigner { algorithm: *algorithm, key: key.clone() }))
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    if key.family() != family(algorithm)? {
        return Err(ErrorKind::InvalidKeyFormat.into());
    }
    Ok(Box::new(RingVerifier { algorithm: *algorithm, key: key.clone() }))
}

struct RingSigner {
    algorithm: Algorithm,
    key: EncodingKey,
}

struct RingVerifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtSigner for RingSigner {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Signer<Vec<u8>> for RingSigner {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, SignatureError> {
        let key = self.key.as_bytes();
        let random = rand::SystemRandom::new();
        let failed = |_| SignatureError::new();
        match self.algorithm {
            Algorithm::HS256 => Ok(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()),
            Algorithm::ES256 => {
                let algorithm = &ring_signature::ECDSA_P256_SHA256_FIXED_SIGNING;
                let pair = ring_signature::EcdsaKeyPair::from_pkcs8(algorithm, key, &random)
                    .map_err(|_| SignatureError::new())?;
                pair.sign(&random, message).map(|s| s.as_ref().to_vec()).map_err(failed)
            }
            Algorithm::EdDSA => {
                let pair = ring_signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(key)
                    .map_err(|_| SignatureError::new())?;
                Ok(pair.sign(message).as_ref().to_vec())
            }
            Algorithm::RS256 => {
                let pair = ring_signature::RsaKeyPair::from_der(key).map_err(|_| SignatureError::new())?;
                let mut signature = vec![0; pair.public().modulus_len()];
                let padding = &ring_signature::RSA_PKCS1_SHA256;
                pair.sign(padding, &random, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
            _ => Err(SignatureError::new()),
        }
    }
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), SignatureError> {
        let DecodingKeyKind::SecretOrDer(key) = self.key.kind() else { return Err(SignatureError::new()) };
        let asymmetric: &dyn ring_signature::VerificationAlgorithm = match self.algorithm {
            Algorithm::HS256 => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, key);
                return hmac::verify(&key, message, signature).map_err(|_| SignatureError::new());
            }
            Algorithm::ES256 => &ring_signature::ECDSA_P256_SHA256_FIXED,
            Algorithm::EdDSA => &ring_signature::ED25519,
            Algorithm::RS256 => &ring_signature::RSA_PKCS1_2048_8192_SHA256,
            _ => return Err(SignatureError::new()),
        };
        ring_signature::UnparsedPublicKey::new(asymmetric, key)
            .verify(message, signature)
            .map_err(|_| SignatureError::new())
    }
}
