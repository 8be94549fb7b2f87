//! The `sentry` part of the document: host, tokens, keys, cookies, tickets, login.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HostTls, Secret};
use crate::config::reading::Sealed;
use crate::config::units::{Rate, Size, Time};

/// The sign-on service: its host, tokens, keys, cookies and login form.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Sentry {
    /// The sign-on host, where users sign in. It belongs to no service. Example: `sentry.example.com`.
    pub host: Option<String>,
    /// What the sign-on host requires of connections.
    pub tls: HostTls,
    /// The tokens that say who has signed in.
    pub token: Token,
    /// The keys of tokens. Every key listed verifies; `sentry.token.sign_with` names the one that signs. To rotate, add
    /// a key and sign with it, and remove the old one once its last token has expired. At least one is required.
    /// Example: `[{id: main, algorithm: ES256, private_key: {file: keys/main.pem}}]`.
    pub keys: Vec<Sealed<Key>>,
    /// The cookies of the sign-on. `__Host-SSOLogin`, `__Host-SSODevice`, `__Host-SSORound` and `__Host-SSOReturn` are
    /// taken: the sign-on uses them itself.
    pub cookie: Cookie,
    /// Tickets, which hand a sign-on over from the sign-on host to a service.
    pub ticket: Ticket,
    /// What must stay the same in a session; `[]` is nothing. What one device sends beside its browser's agent within a
    /// session goes with it: media loaders, download managers, previews, web views, desktop sites, Edge as Internet
    /// Explorer. An agent that any program on any system may have (`okhttp/4`, `Acrobat`) goes with it only where it
    /// names the browser's platform.
    pub fingerprint: Option<Vec<FingerprintProperty>>,
    /// The login form, and how failed logins are limited.
    pub login: Login,
}

/// The tokens that say who has signed in: signed JWTs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Token {
    /// The claim `iss`, 1 to 512 bytes.
    pub issuer: Option<String>,
    /// How long a login lasts at most, however busy; up to `30days`. A shorter one holds for logins before it too.
    pub lifetime: Option<Time>,
    /// The tolerance for clocks that differ, at `exp` and `nbf`; `5m` at most.
    pub leeway: Option<Time>,
    /// What a token is good for.
    pub audience: Option<Audience>,
    /// The `id` of the key that signs; it has a `secret` or a `private_key`.
    pub sign_with: Option<String>,
    /// Memory for tokens that verified once.
    pub cache: Option<Size>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// A token for each service, good there alone. The sign-on host's own has its host as `aud`; a host of a single
    /// label is written `https://HOST`, as a service could have that name.
    PerService,
    /// One token for all services.
    Shared,
}

/// A key of tokens, with exactly one of `secret`, `private_key` and `public_key`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("oneOf" = [{"required": ["secret"]}, {"required": ["private_key"]}, {"required": ["public_key"]}]))]
pub struct Key {
    /// The token's `kid`, 128 bytes at most. Every key has its own.
    pub id: Option<String>,
    /// The algorithm, one for each key: no algorithm is ever taken from a token.
    pub algorithm: Option<Algorithm>,
    /// For HS256: 32 bytes or more. A key in PEM, DER, JWK or SSH form is refused: anyone who has a public key could
    /// sign with it. Example: `{file: keys/main.key}`.
    pub secret: Option<Secret>,
    /// For the other algorithms: PEM, PKCS #8, as `sentry-edge key generate` makes it. Example: `{file:
    /// keys/main.pem}`.
    pub private_key: Option<Secret>,
    /// Instead of `private_key`, a key that verifies and cannot sign: PEM. A key of another algorithm or curve, by
    /// which nothing ever verifies, is a fault.
    pub public_key: Option<Secret>,
    /// Accepts an HS256 secret of fewer than 32 bytes.
    pub allow_weak: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// HMAC with SHA-256: the key that verifies also signs.
    HS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
    /// RSA, PKCS #1 v1.5, with SHA-256.
    RS256,
}

/// The cookies of the sign-on.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Cookie {
    /// The token cookie. It begins with `__Host-`, so that browsers let no other host set it, and has 64 characters at
    /// most.
    pub name: Option<String>,
    /// The state cookie, which ties a ticket to the browser that it was made for. It begins with `__Host-` and has 64
    /// characters at most.
    pub state_name: Option<String>,
    /// `SameSite` of the token cookie.
    pub same_site: Option<SameSite>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SameSite {
    /// Links from other sites arrive with the cookie.
    Lax,
    /// A link from another site arrives without the cookie.
    Strict,
}

/// Tickets, which hand a sign-on over from the sign-on host to a service.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Ticket {
    /// How long a ticket is good, up to `60s`.
    pub lifetime: Option<Time>,
    /// The query parameter that carries a ticket: letters and digits, 64 characters at most.
    pub parameter: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FingerprintProperty {
    /// The browser's family and the platform, without versions.
    UserAgent,
    /// `Accept-Language`. Media players and download managers often send none, so leave it out where people play media.
    AcceptLanguage,
}

/// The login form, and how failed logins are limited.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Login {
    /// [Wrong passwords](concepts/failed-logins.md) that devices may send which have not signed in to the account
    /// before, all of them together; each device that has may send as many of its own. More attempts are a `429` with
    /// the time that is left.
    pub failures_per_account: Option<Rate>,
    /// Wrong passwords from an IPv4 address or an IPv6 /64, by devices that have not signed in to the account. Each one
    /// beyond makes the next login of such a device wait 100 ms longer, 2 s at most; none is refused.
    pub failures_per_address: Option<Rate>,
    /// The form's heading.
    pub title: Option<String>,
    /// A line below the heading, and at the foot of the other pages. Example: `Help desk: extension 1234`.
    pub text: Option<String>,
    /// A picture above the form: a `.svg`, `.png`, `.jpg` or `.jpeg` file of at most 256 KiB.
    pub logo: Option<String>,
    /// Passwords checked at once, 1 to 64. Each takes 19 MiB, and up to three times that while the processor has no
    /// time left over or logins have waited for 2 s, of which a helper then takes some. *Restart*
    pub workers: Option<usize>,
    /// Logins that may wait for their turn, 1 to 10,000, of one account a quarter of it; more are a `503`. *Restart*
    pub queue: Option<usize>,
    /// The time for a login, waiting included. *Restart*
    pub deadline: Option<Time>,
}
