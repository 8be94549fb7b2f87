//! The `services` part of the document: applications and their routes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Addresses, ErrorStatus, HostTls, Hsts, Maintenance, OnOutage, RequestHeaders, ResponseHeaders};
use crate::config::reading::Sealed;
use crate::config::units::{Size, Time};

/// An application: its hosts, who may open what, and where its requests go. What no route says, the service says.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Service {
    /// Its host names; `*.DOMAIN` is every host one label below. A wildcard trusts [the whole zone below
    /// it](security/overview.md): name hosts one by one where that is possible. Names beyond ASCII are written in
    /// punycode. Example: `[iqueue.example.com]`.
    pub hosts: Vec<String>,
    /// A session idles out when it has not been used for this long; the shortest one among the services of its user
    /// counts. At most `sentry.token.lifetime`.
    pub idle_timeout: Option<Time>,
    /// The pool that its requests go to. A service whose routes all redirect or reply needs none. Example: `iqueue`.
    pub pool: Option<String>,
    /// Whether the application receives the token itself. A holder of the token can act as the user.
    pub forward_token: Option<ForwardToken>,
    /// Requests per second of one client to this service, beside `server.limits.requests_per_second`, which is for all
    /// services. More are a `429`. 1 to 1000000.
    pub requests_per_second: Option<u32>,
    /// Adds `X-Sentry-Assertion`: a JWT with the user's claims, signed for this service alone, good for 60 seconds: see
    /// [what applications receive](concepts/identity-headers.md).
    pub identity_assertion: Option<bool>,
    /// The header fields in which the application receives the user. What a client sends under these names is removed,
    /// on public routes too.
    pub identity_headers: IdentityHeaders,
    /// Who may open it.
    pub access: Option<Access>,
    /// Whether its requests are in the access log. They are in the metrics, and refusals in the audit log, in any case.
    pub access_log: Option<bool>,
    /// Where the token is taken from, one or both. Example: `[cookie, bearer]`.
    pub credentials: Option<Vec<Credential>>,
    /// Whether a request keeps the session from idling out; `false` is for polls and status pages.
    pub extends_session: Option<bool>,
    /// The time between two reads from the application. Example: `5m`.
    pub read_timeout: Option<Time>,
    /// The encodings in which text is [compressed](concepts/compression.md) for clients that accept one, the best
    /// first; `[]` is none. Leave it off for pages that have a secret in them beside something that the URL or a form
    /// says (BREACH). Example: `[zstd, br, gzip]`.
    pub compression: Option<Vec<Encoding>>,
    /// What happens while the session store gives no answer.
    pub on_outage: Option<OnOutage>,
    /// What becomes of a [CORS preflight](concepts/cross-origin.md).
    pub preflight: Option<Preflight>,
    /// Whether the `Location` of the application's redirects is repaired where no browser could follow it: `http://` of
    /// this host, or of the server's own address and port, becomes `https://` and the host as the client wrote it; with
    /// `strip_prefix` the prefix is put back. Other hosts are left as they are.
    pub location_repair: Option<bool>,
    /// Origins of pages that may open a WebSocket, beside the host's own: `https://portal.example.com`,
    /// `capacitor://localhost`, `file://`, `"null"`. They are compared exactly; a path or a wildcard is a fault.
    /// `"null"` is every sandboxed frame and every local file: name it where the client can be nothing else.
    pub websocket_origins: Vec<WrittenOrigin>,
    /// `Strict-Transport-Security` on responses of the application, in the place of its own; `off` leaves the
    /// application's own. Replies of the edge's own on its hosts have the same, or else that of `tls.hsts`. Example:
    /// `{max_age: 365d}`.
    pub hsts: Option<Hsts>,
    /// Changes the header fields of requests to the application: see [header
    /// fields](concepts/headers-and-limits.md#header-fields-of-requests). A route adds its own changes.
    pub request_headers: Sealed<RequestHeaders>,
    /// Changes the header fields of responses to clients: the application's, those of files and fixed replies, not those
    /// of the edge's own pages. A route adds its own changes.
    pub response_headers: ResponseHeaders,
    /// The [methods](concepts/headers-and-limits.md#methods) that are served; `GET` includes `HEAD`. Any other gets a `405`, on public routes before the sign-on
    /// and on others after it. The list restricts, and opens methods that are refused without it, such as `PROPFIND` and
    /// `REPORT`; never `TRACE` and `CONNECT`. The sign-on's own paths are not concerned, nor is a preflight that is
    /// forwarded. Example: `[GET, POST]`.
    pub methods: Option<Vec<String>>,
    /// The [addresses](concepts/headers-and-limits.md#addresses) that clients may come from. Others get a `403` before
    /// the sign-on, WebSockets too.
    pub addresses: Option<Addresses>,
    /// The limit of a request's body, in the place of `server.limits.body_bytes`; more is a `413`. What passes over a
    /// WebSocket does not count. Example: `2GiB`.
    pub body_bytes: Option<Size>,
    /// What its hosts require of connections.
    pub tls: HostTls,
    /// Pages of your own for errors that the edge itself replies with, by their status: `{502: pages/away.html}`. Each
    /// is a file of HTML that loads nothing else, of at most 256 KiB, read at start and at a reload; `{{reference}}` in
    /// it is the id of the request. Statuses are 400 to 599. Programs, which do not accept HTML, get JSON as before.
    pub error_pages: BTreeMap<ErrorStatus, String>,
    /// The maintenance mode: while it is on, requests get `503`. Example: `{file: /run/iqueue.maintenance}`.
    pub maintenance: Option<Maintenance>,
    /// Rules for parts of the application. Exact paths come first, then the longest path, by whole segments, and what no
    /// route says, the service says. Example: `[{path: /status, access: public}, {path: /admin/, access: {roles:
    /// [admin]}}]`.
    pub routes: Vec<Route>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ForwardToken {
    /// It does not.
    None,
    /// In the token cookie.
    Cookie,
    /// In `Authorization: Bearer`.
    Bearer,
}

/// The header fields in which an application receives the user. What a client sends under these names is removed, on
/// public routes too.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct IdentityHeaders {
    /// The user's name.
    pub user: Option<String>,
    /// The user's e-mail address, where there is one.
    pub email: Option<String>,
    /// The user's roles, separated by commas.
    pub roles: Option<String>,
}

/// A rule for a path and for everything below it, or for a path alone. What it does is one of `pool`, `redirect`,
/// `respond` and `files`; where it says none of them, its requests go to the service's pool.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Route {
    /// A path, decoded. It matches by whole segments: `/admin` is for `/admin`, `/admin/` and `/admin/users`, and not
    /// for `/administrator` or `/admin.json`: see [which paths a route is
    /// for](concepts/routes.md#which-paths-a-route-is-for). Example: `/admin/`.
    pub path: Option<String>,
    /// A path, decoded. The route is for this path alone: `/app` is not for `/app/` or `/app/x`. It comes before every
    /// `path`. Example: `/`.
    pub exact: Option<String>,
    /// Who may open it.
    pub access: Option<Access>,
    /// Where the token is taken from.
    pub credentials: Option<Vec<Credential>>,
    /// Whether a request keeps the session from idling out.
    pub extends_session: Option<bool>,
    /// The time between two reads from the application.
    pub read_timeout: Option<Time>,
    /// The encodings in which text is compressed.
    pub compression: Option<Vec<Encoding>>,
    /// What becomes of a CORS preflight.
    pub preflight: Option<Preflight>,
    /// Changes the header fields of requests to the application, beside what the service changes. Where both name a
    /// field, the route's change holds.
    pub request_headers: Sealed<RequestHeaders>,
    /// Changes the header fields of responses to clients, in the same way.
    pub response_headers: ResponseHeaders,
    /// The methods that are served, in the place of the service's.
    pub methods: Option<Vec<String>>,
    /// The addresses that clients may come from; each of the two lists takes the place of the service's.
    pub addresses: Option<Addresses>,
    /// The limit of a request's body. Example: `2GiB`.
    pub body_bytes: Option<Size>,
    /// The pool that its requests go to.
    pub pool: Option<String>,
    /// Whether the route's path is cut off before the request goes to the application, which finds it in
    /// `X-Forwarded-Prefix`: with `path: /orthanc/`, `/orthanc/studies` becomes `/studies`, and `/orthanc` becomes `/`. A
    /// path that spells the prefix in another way, or that goes on with `//`, dots or an escaped slash, is a `400`.
    pub strip_prefix: Option<bool>,
    /// A path, decoded, that is put before what is left of the request's path. Example: `/v2`.
    pub add_prefix: Option<String>,
    /// Whether the `Location` of the application's redirects is repaired.
    pub location_repair: Option<bool>,
    /// Sends clients to another address. Who may open the route is checked before. Example: `{to: /app/}`.
    pub redirect: Option<Redirect>,
    /// Answers with a fixed reply. Who may open the route is checked before. Example: `{status: 200, body: ok,
    /// content_type: text/plain}`.
    pub respond: Option<FixedReply>,
    /// Serves static files. Who may open the route is checked before. Example: `{root: /srv/www}`.
    pub files: Option<Files>,
}

/// A redirect.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Redirect {
    /// Where it leads: a path of the same host, or an absolute https URL, percent-encoded as browsers send it. Example: `https://new.example.com/x/`.
    pub to: Option<String>,
    /// 301, 302, 303, 307 or 308. A browser repeats a POST as it was for 307 and 308 alone. None of them is kept by a
    /// cache, so a change takes effect at once.
    pub status: Option<u16>,
    /// Whether what follows the route's path is added to the target: from `/old/` to `https://new.example.com/x/`,
    /// `/old/a/b` leads to `https://new.example.com/x/a/b`. A path that spells `/old` in another way, or that goes on with
    /// `//`, dots or an escaped slash, is a `400`.
    pub keep_path: Option<bool>,
    /// Whether the query of the request is added to the target.
    pub keep_query: Option<bool>,
}

/// A fixed reply. A HEAD gets its head alone.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FixedReply {
    /// 200 to 599.
    pub status: Option<u16>,
    /// The body, 64 KiB at most. It is not sent with 204, 205 and 304.
    pub body: Option<String>,
    /// The value of `Content-Type`. Without a body there is none, unless it is set. Example: `application/json`.
    pub content_type: Option<String>,
}

/// [Static files](concepts/static-files.md): a folder that is served in the place of an application. GET and HEAD alone; no listings; nothing outside
/// of the folder, and no file or folder whose name begins with a dot.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Files {
    /// The folder. What follows the route's path in the path of a request names the file below it: with `path: /app/` and
    /// `root: /srv/www`, `/app/js/x.js` is `/srv/www/js/x.js`. Relative paths begin at the configuration file. It has to be
    /// there, and may be replaced while the edge runs. Example: `/srv/www`.
    pub root: Option<String>,
    /// The file that a path with a slash at its end stands for, and that an `exact` route serves.
    pub index: Option<String>,
    /// A path below `root`: the file that browsers get which open a page that does not exist, as single-page applications
    /// need it for their addresses. Scripts, style sheets and pictures that do not exist are a `404`. Example:
    /// `/index.html`.
    pub fallback: Option<String>,
    /// The value of `Cache-Control`. Without it a file has `no-cache`, and `private, no-cache` where a sign-on is needed.
    /// There `private` takes the place of what is for shared caches. The fallback has `no-cache` in any case.
    /// Example: `public, max-age=3600`.
    pub cache_control: Option<String>,
}

/// `public`, `optional`, `required`, `deny`, or the roles of which a user needs one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`public`, `optional`, `required`, `deny` or `{roles: [NAME, …]}`")]
pub enum Access {
    Word(AccessWord),
    Roles(Roles),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccessWord {
    /// Every client, without a sign-on and without identity headers. Paths in canonical form alone: another spelling of
    /// one needs a sign-on.
    Public,
    /// Every client. A user who is signed in and registered for the service is named to the application, and no other
    /// client is sent to sign on. Paths in canonical form alone, as for `public`.
    Optional,
    /// Users who are signed in and registered for the service.
    Required,
    /// No client: a `403`.
    Deny,
}

/// Users who have one of these roles.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Roles {
    /// The roles, any one of which is enough. Example: `[admin, auditor]`.
    pub roles: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    /// The token cookie.
    Cookie,
    /// `Authorization: Bearer`.
    Bearer,
}

/// What becomes of a CORS preflight (Fetch, "CORS-preflight fetch").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preflight {
    /// It is a request like any other, and has no credentials.
    Check,
    /// The application answers it, from any client and without identity, whatever the route requires of other requests.
    Forward,
}

/// An origin, as browsers send it.
// `None` where `null` is written without quotes, which YAML takes for nothing at all.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(with = "String")]
pub struct WrittenOrigin(pub Option<String>);

/// A content coding (RFC 9110 §8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// gzip (RFC 1952).
    Gzip,
    /// Brotli (RFC 7932).
    Br,
    /// Zstandard (RFC 8878).
    Zstd,
}

impl Encoding {
    /// Returns the name of the coding in header fields.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Br => "br",
            Self::Zstd => "zstd",
        }
    }
}
